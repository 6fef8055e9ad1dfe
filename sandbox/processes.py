"""Starts, recognises and ends the processes of a sandbox.

A process id alone proves nothing, since ids are reused: a process is ours when the id and the start
time match what was written down, or when its environment carries the sandbox's mark.
"""

import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from sandbox.places import Places

MARK: Final = "MODELOPS_SANDBOX"
_STARTED: Final[list[subprocess.Popen[bytes]]] = []
"""Kept, since Popen objects complain when they are forgotten before their process ended."""


def start_time(pid: int) -> int | None:
    """Read when a process started, in clock ticks since boot; None if it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def start(
    places: Places, component: str, command: Sequence[str], environment: Mapping[str, str]
) -> int:
    """Start a component in a session of its own, its output in `log/<component>.log`."""
    log = places.state / "log" / f"{component}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd=places.state,
            env={**environment, MARK: str(places.state)},
        )
    _STARTED.append(process)
    folder = places.runtime / "pids"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / component).write_text(f"{process.pid} {start_time(process.pid)}")
    return process.pid


def running(places: Places, component: str) -> int | None:
    """Find the process of a component; None if it does not run."""
    try:
        pid, started = (places.runtime / "pids" / component).read_text().split()
    except (FileNotFoundError, ValueError):
        return None
    # What died before its start time could be read was noted with None.
    now = start_time(int(pid))
    return int(pid) if now is not None and str(now) == started else None


def end(pids: Iterable[int], *, patience: float = 0.0) -> None:
    """Ask processes to end, wait `patience` seconds, then kill those that stay."""
    known = {pid: started for pid in pids if (started := start_time(pid)) is not None}
    for sign, wait in ((signal.SIGTERM, patience), (signal.SIGKILL, 5.0)):
        if not wait:
            continue
        for pid, started in known.items():
            if start_time(pid) == started:
                _send(pid, sign)
        deadline = time.monotonic() + wait
        while any(start_time(pid) == started for pid, started in known.items()):
            if time.monotonic() > deadline:
                break
            time.sleep(0.02)


def marked(places: Places) -> set[int]:
    """Find every living process whose environment carries the sandbox's mark."""
    mark = f"{MARK}={places.state}".encode()
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (folder / "environ").read_bytes().split(b"\0"):
                found.add(int(folder.name))
        except OSError:
            continue
    return {pid for pid in found - {os.getpid()} if start_time(pid) is not None}


def session(pid: int) -> int | None:
    """Tell which session a process belongs to: those of our components, by what they started."""
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None


def program(pid: int) -> str:
    """Tell the name of the file that a process executes; empty if it is gone."""
    try:
        return Path(f"/proc/{pid}/exe").readlink().name
    except OSError:
        return ""


def _send(pid: int, sign: signal.Signals) -> None:
    try:
        os.kill(pid, sign)
    except ProcessLookupError:
        return
