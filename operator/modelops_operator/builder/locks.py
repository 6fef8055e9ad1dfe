"""Remembers resolutions in the registry: what was asked, and the lock that came of it.

The same requirements of the same model give the same image a year later, although the package index
has moved on, and nothing is resolved twice.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from hashlib import sha256
from typing import Any, Final

from modelops_operator.adapters.oci import MANIFEST, Blob
from modelops_operator.builder.image import Repository, canonical
from modelops_operator.builder.lock import Lock, LockedWheel
from modelops_operator.builder.referrers import EMPTY

LOCK_TYPE: Final = "application/vnd.modelops.lock.v1+json"


class Locks:
    """Locks by what they answer."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._known: dict[str, Lock] = {}
        self._asked: dict[str, asyncio.Lock] = {}

    async def answer(self, question: Any, resolve: Callable[[], Awaitable[Lock]]) -> Lock:
        """Give the lock that answers `question` (a JSON tree); `resolve` it if nobody has yet."""
        tag = f"lock-{sha256(canonical(question)).hexdigest()[:32]}"
        # Who asks the same at the same time waits for the answer.
        async with self._asked.setdefault(tag, asyncio.Lock()):
            lock = self._known.get(tag) or await self._remembered(tag)
            if lock is None:
                lock = await resolve()
                await self._remember(tag, lock)
            self._known[tag] = lock
            return lock

    async def _remembered(self, tag: str) -> Lock | None:
        registry, name = self._repository.registry, self._repository.name
        manifest = await registry.manifest(name, tag)
        if manifest is None:
            return None
        content = await registry.blob(name, manifest.parsed()["layers"][0]["digest"])
        return Lock(tuple(LockedWheel(**wheel) for wheel in json.loads(content)))

    async def _remember(self, tag: str, lock: Lock) -> None:
        registry, name = self._repository.registry, self._repository.name
        content = Blob.of(canonical([_remembered(wheel) for wheel in lock.wheels]))
        empty = Blob.of(b"{}")
        for blob in (content, empty):
            await registry.ensure(name, blob)
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": LOCK_TYPE,
            "config": _descriptor(empty, EMPTY),
            "layers": [_descriptor(content, LOCK_TYPE)],
        }
        await registry.put_manifest(name, tag, canonical(manifest))


def _remembered(wheel: LockedWheel) -> dict[str, Any]:
    """Write what builders of any version read."""
    return {name: value for name, value in asdict(wheel).items() if name != "own"}


def _descriptor(blob: Blob, media_type: str) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": blob.digest, "size": blob.size}
