"""Folders for the files of one build, and the room that all builds share for them.

Of a model there are at most two copies: its files as MLflow gives them, and their layer. Both go
through memory a piece at a time, so disk is what a large model needs.
"""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Final

from modelops_operator.api.reasons import Reason
from modelops_operator.builder.failures import broken, passing

PAUSE: Final = 0.1
ATTEMPTS: Final = 100


@asynccontextmanager
async def scratch_folder() -> AsyncIterator[Path]:
    """Make a folder that is gone afterwards.

    Threads go on for a while after what waited for them was cancelled, and may still make files: so
    it is removed until it stays away.
    """
    folder = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="modelops-build-"))
    try:
        yield folder
    finally:
        for _ in range(ATTEMPTS):
            if await asyncio.to_thread(_remove, folder):
                break
            await asyncio.sleep(PAUSE)


class Room:
    """Disk for the builds at work: what one has claimed the others do not get."""

    COPIES: Final = 2
    """Of each model."""
    LIBRARIES: Final = 500 * 10**6
    """Bytes for the wheels and layers of one build."""

    def __init__(self, limit: int) -> None:
        self._limit = min(limit, shutil.disk_usage(tempfile.gettempdir()).free)
        self._claimed = 0
        self._lock = Lock()

    @contextmanager
    def share(self) -> Iterator["Share"]:
        """Give one build's part of the room, which is free again afterwards."""
        share = Share(self)
        try:
            yield share
        finally:
            with self._lock:
                self._claimed -= share.size

    def claim(self, share: "Share", what: str, size: int) -> None:
        """Set bytes aside for a model. Raises BuildError when there are not enough."""
        more = self.COPIES * size + (0 if share.size else self.LIBRARIES)
        with self._lock:
            if share.size + more > self._limit:
                raise broken(
                    Reason.BUILD_FAILED,
                    f"{what} has {_gigabytes(size)}: building it takes "
                    f"{_gigabytes(share.size + more)} of disk and the builder has "
                    f"{_gigabytes(self._limit)}; raise `builder.scratch`, or give it a larger disk",
                )
            if self._claimed + more > self._limit:
                raise passing(
                    Reason.BUILD_FAILED,
                    f"{what} has {_gigabytes(size)}, for which other builds leave no room on the "
                    "builder's disk just now; it is tried again",
                )
            self._claimed += more
            share.size += more


@dataclass(slots=True)
class Share:
    """What one build has claimed."""

    room: Room
    size: int = 0
    """Bytes."""

    def claim(self, what: str, size: int) -> None:
        """Set bytes aside for the copies of a model of a size. Raises BuildError."""
        self.room.claim(self, what, size)


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB"


def _remove(folder: Path) -> bool:
    shutil.rmtree(folder, ignore_errors=True)
    return not folder.exists()
