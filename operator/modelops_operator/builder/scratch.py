"""Folders for the files of a build, and the room that all builds share for them.

Of a model there are at most two copies: its files as MLflow gives them, and their layer. Both go
through memory a piece at a time, so disk is what a large model needs.
"""

import asyncio
import fcntl
import os
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

PREFIX: Final = "modelops-build-"
PAUSE: Final = 0.1
ATTEMPTS: Final = 100


@asynccontextmanager
async def scratch_folder() -> AsyncIterator[Path]:
    """Make a folder that is gone afterwards.

    Threads go on for a while after what waited for them was cancelled, and may still make files: so
    it is removed until it stays away.
    """
    folder, held = await asyncio.to_thread(_make)
    try:
        yield folder
    finally:
        for _ in range(ATTEMPTS):
            if await asyncio.to_thread(_remove, folder):
                break
            await asyncio.sleep(PAUSE)
        os.close(held)


def remove_abandoned() -> None:
    """Remove the folders of builds that were killed, which the disk would never be rid of."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        if (held := _hold(folder)) is not None:
            _remove(folder)
            os.close(held)


def _make() -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        # None: whoever tidies up came between the two.
        if (held := _hold(folder)) is not None:
            return folder, held


def _hold(folder: Path) -> int | None:
    """Lock a folder until the descriptor is closed, which the kernel does for the dead.

    None when it is somebody's, or gone.
    """
    try:
        held = os.open(folder, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(held)
        return None
    if folder.exists():
        return held
    os.close(held)
    return None


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
