"""Serves a Bento at a desk, by the service that answers in the pods.

It imports little: the server's process is to start at once, and loads its libraries meanwhile.
"""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final
from urllib.request import urlopen

import click
from modelops_runtime import bento

HOST: Final = "127.0.0.1"
_AS_IN_IMAGES: Final = (
    "BENTOML_DO_NOT_TRACK",
    "MALLOC_ARENA_MAX",
    "MLFLOW_DISABLE_TELEMETRY",
    "OMP_NUM_THREADS",
    "PYTHONUNBUFFERED",
)
"""Variables that images set and that hold at a desk as well."""
_STOP: Final = 10.0
"""Seconds that the server has to answer what it was asked and to write its telemetry."""
_POLL: Final = 0.02


class ServeError(click.ClickException):
    """The models cannot be served here; the message says what to do."""


class Server:
    """The process that serves; it loads its libraries while the models are fetched."""

    def __init__(self, listening: socket.socket, scratch: Path) -> None:
        metrics = scratch / "metrics"
        metrics.mkdir()
        self.url = f"http://{HOST}:{listening.getsockname()[1]}/"
        image = bento.environment()
        own = {
            "BENTOML_HOME": str(scratch / "home"),
            "PROMETHEUS_MULTIPROC_DIR": str(metrics),
            "TMPDIR": str(scratch),
        }
        reading, writing = os.pipe()
        self._process = subprocess.Popen(  # noqa: S603 (our own program)
            [sys.executable, "-m", "modelops_runtime.alone", str(listening.fileno())],
            stdin=reading,
            env=os.environ | {name: image[name] for name in _AS_IN_IMAGES} | own,
            pass_fds=[listening.fileno()],
            # Ctrl-C is ours to hear: it is told to end as in a pod.
            start_new_session=True,
        )
        os.close(reading)
        self._input = os.fdopen(writing, "w")

    def serve(self, folder: Path) -> None:
        """Have it serve this Bento; return once it is ready. Raises ServeError when it ends."""
        with suppress(BrokenPipeError):
            self._input.write(f"{folder}\n")
            self._input.flush()
        while not self._is_ready():
            if self._process.poll() is not None:
                raise ServeError("the server has ended, see above")
            time.sleep(_POLL)

    def wait(self) -> int:
        """Wait until it ends by itself; give its exit code."""
        return self._process.wait()

    def stop(self) -> None:
        """End it, once all that it was asked is answered."""
        self._process.terminate()
        try:
            self._process.wait(_STOP)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        with suppress(BrokenPipeError):
            self._input.close()

    def _is_ready(self) -> bool:
        try:
            urlopen(f"{self.url}readyz", timeout=2).close()  # noqa: S310 (our own address)
        except OSError:
            return False
        return True


@contextmanager
def started(port: int) -> Iterator[tuple[Server, Path]]:
    """Start a server's process, and end it at the end; gives a folder for the Bento, too.

    Raises ServeError when the port cannot be had.
    """
    with (
        _listening(port) as listening,
        TemporaryDirectory(prefix="modelops-serve-", ignore_cleanup_errors=True) as scratch,
    ):
        server = Server(listening, Path(scratch))
        try:
            yield server, Path(scratch, "bento")
        finally:
            server.stop()


def _listening(port: int) -> socket.socket:
    taken = socket.socket()
    # Connections of the server before may linger.
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        taken.bind((HOST, port))
    except OSError as error:
        taken.close()
        raise ServeError(
            f"port {port} cannot be had ({error.strerror}): choose another one with --port"
        ) from error
    return taken
