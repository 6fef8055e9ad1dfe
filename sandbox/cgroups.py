"""The control groups of a sandbox's pods, on cgroup v1 and v2 machines."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from sandbox.places import Places

ROOT: Final = Path("/sys/fs/cgroup")


def make(places: Places) -> None:
    """Make the group that kubelet puts all pods into: one on v2, one a controller on v1."""
    for parent in _parents():
        folder = parent / places.cgroup
        folder.mkdir(exist_ok=True)
        if (parent / "cgroup.controllers").exists():
            for group in (parent, folder):
                _enable_controllers(group)
        for file in ("cpuset.cpus", "cpuset.mems"):
            # On v1 a new group may use no processor and no memory until told which.
            if parent.name.startswith("cpuset") and (parent / file).exists():
                (folder / file).write_text((parent / file).read_text())


def favour(places: Places) -> None:
    """Give the pods the right of way where processors are short: eight shares for one."""
    for folder in _existing(places):
        for file, usual in (("cpu.shares", 1024), ("cpu.weight", 100)):
            if (folder / file).exists():
                (folder / file).write_text(str(8 * usual))


def members(places: Places) -> set[int]:
    """Find every process in the groups of the sandbox's pods."""
    found: set[int] = set()
    for top in _existing(places):
        for folder in _innermost_first(top):
            try:
                found.update(int(pid) for pid in (folder / "cgroup.procs").read_text().split())
            except OSError:
                continue  # the group vanished, or is threaded
    return found - {0}


def remove(places: Places) -> None:
    """Remove the groups, whose processes are gone or about to be."""
    deadline = time.monotonic() + 10
    while (tops := _existing(places)) and time.monotonic() < deadline:
        for top in tops:
            for folder in _innermost_first(top):
                try:
                    folder.rmdir()
                except OSError:
                    continue  # the kernel lets go of a group some moments after its last process
        time.sleep(0.02)


def _parents() -> list[Path]:
    if (ROOT / "cgroup.controllers").exists():
        return [ROOT]
    return [folder for folder in sorted(ROOT.iterdir()) if not folder.is_symlink()]


def _existing(places: Places) -> list[Path]:
    return [path for parent in _parents() if (path := parent / places.cgroup).is_dir()]


def _innermost_first(top: Path) -> Iterator[Path]:
    """Walk a group and those within it, whichever of them vanish meanwhile."""
    for folder, _, _ in os.walk(top, topdown=False):
        yield Path(folder)


def _enable_controllers(group: Path) -> None:
    for controller in (group / "cgroup.controllers").read_text().split():
        try:
            (group / "cgroup.subtree_control").write_text(f"+{controller}")
        except OSError:
            continue  # one that this machine's owner keeps; kubelet says so if it needs it
