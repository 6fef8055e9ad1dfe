"""Servers in no time: BentoML's worker, forked from a process that has imported all it needs.

To import BentoML takes seconds, twice, as its supervisor does so too. Tests that are not about the
supervisor ask the nursery, which is this file run as a program: it reads a line of JSON for each
server, forks, and answers with the process id. When a server has ended it leaves its exit status
in a file, since only its parent is told.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from modelops_runtime import bento
from modelops_runtime.alone import preload

METRICS = "PROMETHEUS_MULTIPROC_DIR"
"""Set by BentoML's supervisor for its workers."""


@dataclass
class Forked:
    """A worker; has of Popen what tests use."""

    pid: int
    _status: Path
    returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None and self._status.exists():
            self.returncode = int(self._status.read_text())
        return self.returncode

    def wait(self, timeout: float) -> int:
        end = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired("a worker", timeout)
            time.sleep(0.02)
        return code

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)


class Nursery:
    """The process that forks; started when it is asked first."""

    def __init__(self, metrics: Path) -> None:
        """`metrics` is where the client of Prometheus writes while it is imported."""
        self._metrics = metrics
        self._process: subprocess.Popen[str] | None = None

    def fork(
        self, folder: Path, port: int, environment: Mapping[str, str], stdout: int | None, log: Path
    ) -> Forked:
        """Serve a Bento; standard output goes to the log where it is not given."""
        status, metrics = log.with_name("status"), log.with_name("metrics")
        metrics.mkdir()
        asked = {
            "arguments": [str(folder), "--worker-id", "1", *bento.entrypoint()[-2:]],
            "port": port,
            "environment": {**environment, METRICS: str(metrics)},
            "stdout": str(log) if stdout is None else f"/proc/{os.getpid()}/fd/{stdout}",
            "stderr": str(log),
            "status": str(status),
        }
        given, told = self._pipes()
        given.write(json.dumps(asked) + "\n")
        given.flush()
        return Forked(int(told.readline()), status)

    def _pipes(self) -> tuple[IO[str], IO[str]]:
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __spec__.name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=os.environ | bento.environment() | {METRICS: str(self._metrics)},
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        return self._process.stdin, self._process.stdout

    def close(self) -> None:
        if self._process is not None:
            for pipe in self._pipes():
                pipe.close()
            self._process.wait(30)


def main() -> None:
    """Serve lines until stdin ends."""
    worker = preload()
    for line in sys.stdin:
        asked = json.loads(line)
        child = os.fork()
        if not child:
            serve(worker, asked)
        sys.stdout.write(f"{child}\n")
        sys.stdout.flush()
        threading.Thread(target=wait, args=(child, Path(asked["status"]))).start()


def serve(worker: Any, asked: Mapping[str, Any]) -> None:
    os.setsid()
    os.environ.clear()
    os.environ.update(asked["environment"])
    os.close(0)
    for descriptor, path in ((1, asked["stdout"]), (2, asked["stderr"])):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT), descriptor)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    listener = socket.create_server(("127.0.0.1", asked["port"]))
    folder, *options = asked["arguments"]
    worker([folder, "--fd", str(listener.detach()), *options])


def wait(child: int, place: Path) -> None:
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    written = place.with_suffix(".new")
    written.write_text(str(code))
    written.rename(place)


if __name__ == "__main__":
    main()
