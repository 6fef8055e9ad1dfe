"""How often the kernel holds the container back at its CPU limit.

Linux grants a cgroup with a limit its time in periods of 100 ms, and counts in cpu.stat the periods
in which it wanted to run and those in which it had to wait (`nr_periods` and `nr_throttled`,
Documentation/admin-guide/cgroup-v2.rst). Without a limit nothing is counted.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

PLACES: Final = (Path("/sys/fs/cgroup/cpu.stat"), Path("/sys/fs/cgroup/cpu/cpu.stat"))
"""Of cgroup v2, and of v1; within a container they are its own."""


class Throttling:
    """Counts from one look to the next."""

    def __init__(self, places: Sequence[Path] = PLACES) -> None:
        self._places = places
        self._last = self._read()

    def since(self) -> tuple[int, int]:
        """Give the periods since the last look and those of them that were cut; 0 if unknown."""
        before, self._last = self._last, self._read()
        periods, cut = (max(now - was, 0) for now, was in zip(self._last, before, strict=True))
        return periods, min(cut, periods)

    def _read(self) -> tuple[int, int]:
        for place in self._places:
            try:
                found = dict(line.split() for line in place.read_text("ascii").splitlines())
                return int(found["nr_periods"]), int(found["nr_throttled"])
            except (OSError, ValueError, KeyError):
                continue
        return 0, 0
