"""Environments of their own for servers, and what their processes take of the machine."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from modelops_operator.builder.images import cache_folder
from uv import find_uv_bin

from tests.mlflow_server import free_port

SERVER_CORE, CLIENT_CORE = "0", "1"
PATIENCE = 180.0
_TICKS = os.sysconf("SC_CLK_TCK")


def environment(
    *requirements: str,
    lock: Path | None = None,
    wheel: Path | None = None,
    without: Sequence[str] = (),
) -> Path:
    """Make a virtual environment of requirements, or of a lock and a wheel, or find it made.

    What it is to be `without` is removed again.

    Everything is compiled, as in images, so that no server compiles while it is measured.
    """
    digest = sha256("\n".join((sys.version, *requirements, *without)).encode())
    for file in filter(None, (lock, wheel)):
        digest.update(file.read_bytes())
    folder = cache_folder() / "bench-serving" / digest.hexdigest()[:16]
    complete = folder / "complete"
    if not complete.exists():
        shutil.rmtree(folder, ignore_errors=True)
        _uv("venv", "--python", sys.executable, str(folder))
        python = str(folder / "bin" / "python")
        install = ("pip", "install", "--compile-bytecode", "--python", python)
        if requirements:
            _uv(*install, *requirements)
        if lock is not None:
            _uv(*install, "--requirements", str(lock))
        if wheel is not None:
            _uv(*install, "--no-deps", str(wheel))
        if without:
            _uv("pip", "uninstall", "--python", python, *without)
        complete.touch()
    return folder


def _uv(*arguments: str) -> None:
    subprocess.run([find_uv_bin(), "--quiet", *arguments], check=True)


def size(folder: Path) -> int:
    """Count the bytes of all files in a folder, an environment's say."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())


@dataclass
class Server:
    """A server that runs on its core."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path
    ready: float = 0.0
    """Seconds from its start until it said so."""

    @property
    def tree(self) -> list[int]:
        """The ids of its processes."""
        found = [self.process.pid]
        for pid in found:
            with contextlib.suppress(OSError):
                for task in Path(f"/proc/{pid}/task").iterdir():
                    found += map(int, (task / "children").read_text().split())
        return found

    def cpu(self) -> float:
        """Give the seconds of CPU so far, of all its processes."""
        ticks = 0
        for pid in self.tree:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / _TICKS

    def memory(self) -> int:
        """Give the bytes of its proportional set: what is shared counts by its share."""
        kilobytes = 0
        for pid in self.tree:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            kilobytes += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        return kilobytes * 1024

    def tail(self) -> str:
        """Read the end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-20:])

    def alive(self) -> bool:
        """Whether it still runs."""
        return self.process.poll() is None


@contextlib.contextmanager
def running(
    command: Sequence[str], log: Path, ready: str, variables: Mapping[str, str]
) -> Iterator[Server]:
    """Start a server, `{port}` in its command replaced; wait until `ready` answers; end it.

    Raises RuntimeError with the end of its log when it does not come up.
    """
    port = free_port()
    home = log.parent
    began = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["taskset", "--cpu-list", SERVER_CORE, *(each.format(port=port) for each in command)],
            stdout=output,
            stderr=output,
            cwd=home,
            env={"PATH": os.environ["PATH"], "HOME": str(home), "TMPDIR": str(home), **variables},
        )
    server = Server(process, port, log)
    try:
        _wait(server, ready)
        server.ready = time.monotonic() - began
        yield server
    finally:
        _end(server)


def _wait(server: Server, path: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while server.alive() and time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=5).close()
            return
        time.sleep(0.02)
    raise RuntimeError(f"{server.process.args!r} did not come up:\n{server.tail()}")


def _end(server: Server) -> None:
    tree = server.tree
    server.process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        server.process.wait(20)
    for pid in tree:
        # Some leave their workers behind.
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    server.process.wait()
