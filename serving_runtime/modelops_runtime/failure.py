"""How a pod ends whose models do not hold: at once, non-zero, the cause in the last line.

`bentoml serve` is a supervisor with a worker process below it. The worker is who loads the models
and learns that they do not hold; the supervisor would start it again for ever, or end with a
traceback of its own. So the supervisor leaves a file for the worker to tell the cause in, and
its last act is to repeat that.
"""

import atexit
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Final

EXIT_CODE: Final = 78
"""EX_CONFIG of sysexits.h: what is to be served is not right."""
_PLACE: Final = "MODELOPS_FAILURE_FILE"
_SUPERVISOR: Final = "MODELOPS_SUPERVISOR"


def watch() -> None:
    """Call it in the supervisor, before workers start: they inherit its environment."""
    if _PLACE in os.environ:
        return
    descriptor, path = tempfile.mkstemp(prefix="modelops-")
    os.close(descriptor)
    os.environ[_PLACE] = path
    os.environ[_SUPERVISOR] = str(os.getpid())
    atexit.register(_last_words, Path(path))


def give_up(cause: str) -> None:
    """Call it where it turns out that nothing can be served: has the supervisor end, and returns.

    Outside of `bentoml serve` it only tells the cause.
    """
    message = " ".join(cause.split())
    supervisor = os.environ.get(_SUPERVISOR, "")
    if supervisor not in {str(os.getpid()), str(os.getppid())}:
        sys.stderr.write(f"{message}\n")
        return
    Path(os.environ[_PLACE]).write_text(message, encoding="utf-8")
    if supervisor == str(os.getppid()):
        os.kill(os.getppid(), signal.SIGTERM)


def _last_words(path: Path) -> None:
    cause = path.read_text(encoding="utf-8") if path.exists() else ""
    path.unlink(missing_ok=True)
    if cause:
        sys.stdout.flush()
        sys.stderr.write(f"{cause}\n")
        sys.stderr.flush()
        # An exit handler cannot change the exit code otherwise.
        os._exit(EXIT_CODE)
