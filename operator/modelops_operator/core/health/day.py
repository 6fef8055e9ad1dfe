"""A day of traffic in sums of eight hours: the slow window, for drift that is small and lasts."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

from modelops_operator.core.health.histograms import Histograms

BLOCK: Final = timedelta(hours=8)
BLOCKS: Final = 3
"""So many make a day."""
_EPOCH: Final = datetime.fromtimestamp(0, UTC)


class Day:
    """Sums of the last three blocks of eight hours and of the one that goes on."""

    __slots__ = ("_blocks",)

    def __init__(self) -> None:
        self._blocks: dict[datetime, Histograms] = {}
        """By their start, in UTC at 0, 8 and 16 o'clock."""

    def add(self, start: datetime, histograms: Histograms) -> None:
        """Count what happened in a window that began at that time."""
        if not histograms:
            return
        block = start - (start - _EPOCH) % BLOCK
        known = self._blocks.get(block)
        self._blocks[block] = histograms if known is None else known + histograms
        while len(self._blocks) > BLOCKS + 1:
            del self._blocks[min(self._blocks)]

    def sums(self, until: datetime) -> Mapping[datetime, Histograms]:
        """Give the sums of the day that ended last before `until`, by their start, in order.

        Empty unless it is known from its beginning; nothing of blocks without traffic.
        """
        if not self._blocks:
            return {}
        end = until - (until - _EPOCH) % BLOCK
        start = end - BLOCKS * BLOCK
        if min(self._blocks) > start:
            return {}
        return {
            block: self._blocks[block] for block in sorted(self._blocks) if start <= block < end
        }
