"""Starts operators by the dozen: a process that has imported everything, and forks.

What it gives are real processes, to be killed and stopped like any other; only their imports, two
seconds of processor time each, are done once. Run as a program, it reads where to find
configuration and log, a line of JSON for each operator, and answers with the process's number.
"""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import yaml

from tests.mlflow_server import free_port

START = 60.0


@dataclass
class Operator:
    """One operator's process."""

    pid: int
    health: int
    metrics: int
    log: Path
    killed: bool = False

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once, if nobody has: its number may be another's by now."""
        if not self.killed:
            self.killed = True
            with suppress(ProcessLookupError):
                self.signal(signal.SIGKILL)

    def wait_until_ready(self) -> None:
        """Wait until it has listed the cluster."""
        deadline = time.monotonic() + START
        while time.monotonic() < deadline:
            with (
                suppress(OSError),
                urllib.request.urlopen(f"http://127.0.0.1:{self.health}/readyz", timeout=5),
            ):
                return
            time.sleep(0.02)
        raise AssertionError(f"it never gets ready: {self.log.read_text()[-3000:]}")


class Nursery:
    """Where operators come from."""

    def __init__(self, folder: Path, stdin: IO[str], stdout: IO[str]) -> None:
        self._folder = folder
        self._stdin = stdin
        self._stdout = stdout
        self._count = 0
        self.operators: list[Operator] = []

    def start(self, config: Mapping[str, Any], kubeconfig: Path) -> Operator:
        """Start an operator; it is not ready yet."""
        self._count += 1
        place = self._folder / f"{self._count}.yaml"
        health, metrics = free_port(), free_port()
        ports = {"healthPort": health, "metricsPort": metrics}
        place.write_text(yaml.safe_dump({**config, "operator": {**config["operator"], **ports}}))
        log = place.with_suffix(".log")
        told = {"config": str(place), "log": str(log), "kubeconfig": str(kubeconfig)}
        self._stdin.write(json.dumps(told) + "\n")
        self._stdin.flush()
        operator = Operator(int(self._stdout.readline()), health, metrics, log)
        self.operators.append(operator)
        return operator


@contextmanager
def running_nursery(folder: Path) -> Iterator[Nursery]:
    """Run it, and end all that came from it."""
    command = [sys.executable, "-m", "tests.faults.nursery"]
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
    with subprocess.Popen(
        command,
        cwd=root,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        nursery = Nursery(folder, process.stdin, process.stdout)
        try:
            yield nursery
        finally:
            for operator in nursery.operators:
                operator.kill()
            process.stdin.close()
            process.wait(30)


def _serve() -> None:
    from mlflow import MlflowClient  # noqa: F401 - it is what takes the time
    from modelops_operator.shell import main

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    for line in sys.stdin:
        told = json.loads(line)
        child = os.fork()
        if child:
            print(child, flush=True)  # noqa: T201 - its answer
            continue
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        log = os.open(told["log"], os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ["MODELOPS_CONFIG"] = told["config"]
        os.environ["KUBECONFIG"] = told["kubeconfig"]
        try:
            main.main()
        finally:
            os._exit(1)


if __name__ == "__main__":
    _serve()
