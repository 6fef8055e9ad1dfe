"""Folders for the files of one build."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

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


def _remove(folder: Path) -> bool:
    shutil.rmtree(folder, ignore_errors=True)
    return not folder.exists()
