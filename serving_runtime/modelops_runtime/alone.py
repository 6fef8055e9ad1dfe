"""Serves a Bento by BentoML's worker alone, without the supervisor that starts it again in a pod.

    python -m modelops_runtime.alone DESCRIPTOR

listens at the socket that it inherits. What to serve it reads as a line from its input, once all
libraries are loaded: whoever starts it fetches the models meanwhile. It ends when its input does,
so that it never outlives whoever started it.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable
from importlib import import_module
from typing import Final

_HEAVY: Final = (
    "uvicorn",
    "_bentoml_impl.server.app",
    "bentoml._internal.server.http.instruments",
    "modelops_runtime.answering",
    "modelops_runtime.documentation",
    "modelops_runtime.openapi",
)
"""What the service imports anyway, and can be imported before there are models."""


def preload() -> Callable[[list[str]], None]:
    """Load the libraries; gives BentoML's worker, which takes arguments and serves."""
    # Here, since it is heavy; BentoML has no types.
    from _bentoml_impl.worker.service import (  # type: ignore[import-untyped] # noqa: PLC0415
        main as worker,
    )

    for module in _HEAVY:
        import_module(module)
    call: Callable[[list[str]], None] = worker.main
    return call


def main() -> None:
    """Load the libraries, read the Bento's folder from the input, and serve it."""
    worker = preload()
    folder = sys.stdin.readline().strip()
    if not folder:
        return
    threading.Thread(target=_end_with_the_input, daemon=True).start()
    worker([folder, "--fd", sys.argv[1], "--worker-id", "1"])


def _end_with_the_input() -> None:
    # Not by `sys.stdin`, whose lock would be held when the interpreter ends.
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
