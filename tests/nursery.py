"""Starts operators by the dozen: a process that has imported everything, and forks.

What it gives are real processes, to be killed and stopped like any other; only their imports, two
seconds of processor time each, are done once. Run as a program, it reads where to find
configuration and log, a line of JSON for each operator, and answers with the process's number; or
a number, and answers how that process ended.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import IO, Any

import yaml

from tests.mlflow_server import free_port

START = 60.0
OPERATOR = "modelops_operator.shell.main"
RUNS = "runs"


@dataclass
class Operator:
    """One operator's process."""

    pid: int
    health: int
    metrics: int
    log: Path
    clock: Path
    """Holds the seconds that its time of day is moved by."""
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
        self._turn = threading.Lock()
        self.operators: list[Operator] = []

    def start(
        self,
        config: Mapping[str, Any],
        kubeconfig: Path,
        module: str = OPERATOR,
        **variables: str,
    ) -> Operator:
        """Start an operator; it is not ready yet."""
        with self._turn:
            return self._start(config, kubeconfig, module=module, **variables)

    def _start(self, config: Mapping[str, Any], kubeconfig: Path, **told: str) -> Operator:
        self._count += 1
        place = self._folder / f"{self._count}.yaml"
        health, metrics = free_port(), free_port()
        ports = {"healthPort": health, "metricsPort": metrics}
        place.write_text(yaml.safe_dump({**config, "operator": {**config["operator"], **ports}}))
        clock, log = place.with_suffix(".clock"), place.with_suffix(".log")
        clock.write_text("0")
        pid = self._ask(
            {
                "log": str(log),
                **told,
                "MODELOPS_CONFIG": str(place),
                "KUBECONFIG": str(kubeconfig),
                "MODELOPS_CLOCK": str(clock),
            }
        )
        operator = Operator(int(pid), health, metrics, log, clock)
        self.operators.append(operator)
        return operator

    def spawn(self, module: str, config: Path, kubeconfig: Path, log: Path) -> int:
        """Start one of our programs, and give the number of its process."""
        told = {"module": module, "log": str(log)}
        variables = {"MODELOPS_CONFIG": str(config), "KUBECONFIG": str(kubeconfig)}
        with self._turn:
            return int(self._ask({**told, **variables}))

    def ended(self, pid: int) -> int | None:
        """Tell how a process ended: its code, or minus the signal; None while it runs."""
        with self._turn:
            told = self._ask(pid)
        return None if told == RUNS else int(told)

    def wait(self, pid: int, patience: float = 20.0) -> int:
        """Wait for the end of a process, and tell how it ended."""
        deadline = time.monotonic() + patience
        while (code := self.ended(pid)) is None:
            assert time.monotonic() < deadline, f"process {pid} does not end"
            time.sleep(0.02)
        return code

    def _ask(self, question: object) -> str:
        self._stdin.write(json.dumps(question) + "\n")
        self._stdin.flush()
        return self._stdout.readline().strip()


@contextmanager
def running_nursery(folder: Path) -> Iterator[Nursery]:
    """Run it, and end all that came from it."""
    command = [sys.executable, "-m", "tests.nursery"]
    root = Path(__file__).parents[1]
    clock, source = folder / "clock.so", Path(__file__).with_name("clock.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-O", "-o", clock, source], check=True)
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "", "LD_PRELOAD": str(clock)}
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

    import_module(OPERATOR)
    for line in sys.stdin:
        told = json.loads(line)
        if isinstance(told, int):
            pid, status = os.waitpid(told, os.WNOHANG)
            print(os.waitstatus_to_exitcode(status) if pid else RUNS, flush=True)  # noqa: T201
        elif child := os.fork():
            print(child, flush=True)  # noqa: T201 - its answer
        else:
            _run(**told)


def _run(module: str, log: str, **variables: str) -> None:
    """Be the program that was asked for, and never return."""
    output = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ.update(variables)
    code = 1
    try:
        import_module(module).main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
        if not isinstance(end.code, int):
            print(end.code, file=sys.stderr, flush=True)  # noqa: T201 - as Python does
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        os._exit(code)


if __name__ == "__main__":
    _serve()
