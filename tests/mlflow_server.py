"""A real MLflow server with proxied artifacts, on a free loopback port.

Run as a program with a folder, it is shared by all who know the folder, until SIGTERM.
"""

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

START = 240.0
ENVIRONMENT = {
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "PYTHONDONTWRITEBYTECODE": "",  # its imports take 12 s where nothing was compiled, else 3
}


@contextmanager
def running_mlflow(folder: Path) -> Iterator[str]:
    """Start it with everything in `folder`, give its address, end it.

    Raises RuntimeError, with the end of its log, when it does not come up.
    """
    port = free_port()
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"),
        *("--port", str(port), "--workers", "1"),
        *("--backend-store-uri", f"sqlite:///{folder}/mlflow.db"),
        *("--artifacts-destination", str(folder / "artifacts")),
    ]
    log = folder / "mlflow.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=os.environ | ENVIRONMENT,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        _wait_until_healthy(f"http://127.0.0.1:{port}/health", process, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


@contextmanager
def shared_mlflow(folder: Path) -> Iterator[str]:
    """Wait for the server that somebody else starts in `folder`, and give its address.

    Raises RuntimeError when it does not come.
    """
    deadline = time.monotonic() + START
    while not (found := _address(folder)).exists():
        if time.monotonic() > deadline:
            raise RuntimeError(f"no MLflow in {folder} within {START:.0f} s")
        time.sleep(0.1)
    yield found.read_text()


def _address(folder: Path) -> Path:
    return folder / "address"


_given: set[int] = set()


def free_port() -> int:
    """Find a port that nobody listens at.

    It is none that the kernel gives to connections, one of which might be quicker, and none that
    was given before: who got it may not listen yet.
    """
    while True:
        port = 20_000 + secrets.randbelow(10_000)
        if port in _given:
            continue
        with socket.socket() as server, suppress(OSError):
            server.bind(("127.0.0.1", port))
            _given.add(port)
            return port


def _wait_until_healthy(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=2).close()
        except (OSError, urllib.error.URLError):
            time.sleep(0.1)
        else:
            return
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
    raise RuntimeError(f"MLflow did not become healthy within {START:.0f} s:\n{tail}")


def main() -> None:
    """Run one in the folder that is named, and write its address there."""
    folder = Path(sys.argv[1])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    with running_mlflow(folder) as address:
        draft = folder / "address.draft"
        draft.write_text(address)
        draft.rename(_address(folder))
        while True:
            signal.pause()


if __name__ == "__main__":
    main()
