"""Follows the model registry: one walk for the whole fleet, single questions for what is new."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import Final

import structlog
from prometheus_client import Counter

from modelops_operator.adapters.mlflow import Aliases, ModelRegistry, ModelRegistryError
from modelops_operator.api.facts import Failure, ModelVersion, Role
from modelops_operator.api.reasons import Reason
from modelops_operator.api.resources import ModelRef

_log = structlog.get_logger()
_WALKS: Final = Counter("modelops_registry_walks_total", "Walks of the registry.", ["outcome"])


class ModelFollower:
    """Knows where every alias leads, and which models to tell of when that changes."""

    def __init__(
        self,
        registry: ModelRegistry,
        *,
        interval: timedelta,
        moved: Callable[[Iterable[str] | None], None],
    ) -> None:
        """Tell `moved` the models whose aliases changed; None: whatever waits for the registry."""
        self._registry = registry
        self._interval = interval.total_seconds()
        self._moved = moved
        self._aliases: dict[str, Aliases] = {}
        self._outage: Failure | None = None

    async def run(self) -> None:
        """Walk for ever."""
        while True:
            await self.walk()
            await asyncio.sleep(self._interval)

    async def walk(self) -> None:
        """Read all aliases and tell of those that moved."""
        try:
            found = await self._registry.walk()
        except ModelRegistryError as error:
            _WALKS.labels("failed").inc()
            if self._outage is None:
                _log.warning("registry walk failed", error=error.failure.message)
            self._outage = error.failure
            return
        _WALKS.labels("done").inc()
        recovered, self._outage = self._outage is not None, None
        names = self._aliases.keys() & found.keys()
        moved = [name for name in names if self._aliases[name] != found[name]]
        # A model that the walk skipped stays known until somebody asks for it by name.
        self._aliases |= found
        if moved:
            _log.info("aliases moved", models=sorted(moved))
            self._moved(moved)
        if recovered:
            self._moved(None)

    async def resolve(
        self, references: Mapping[Role, ModelRef], *, fresh: bool
    ) -> dict[Role, ModelVersion | Failure]:
        """Find the version that each reference leads to; `fresh` asks instead of remembering."""
        answers = await asyncio.gather(
            *(self._resolve(reference, fresh=fresh) for reference in references.values())
        )
        return dict(zip(references, answers, strict=True))

    async def _resolve(self, reference: ModelRef, *, fresh: bool) -> ModelVersion | Failure:
        try:
            version = reference.version or await self._follow(reference, fresh=fresh)
            return await self._registry.version(reference.name, version)
        except ModelRegistryError as error:
            return error.failure

    async def _follow(self, reference: ModelRef, *, fresh: bool) -> str:
        name, alias = reference.name, str(reference.alias)
        if fresh or alias not in self._aliases.get(name, {}):
            self._aliases[name] = await self._registry.model(name)
        elif self._outage is not None:
            raise ModelRegistryError(self._outage)
        aliases = self._aliases[name]
        if alias not in aliases:
            known = ", ".join(sorted(aliases)) or "none"
            message = (
                f"model {name!r} has no alias {alias!r} (it has: {known}):"
                " set the alias in the registry, or correct the spec"
            )
            raise ModelRegistryError(
                Failure(reason=Reason.ALIAS_NOT_FOUND, message=message, permanent=True)
            )
        return aliases[alias]
