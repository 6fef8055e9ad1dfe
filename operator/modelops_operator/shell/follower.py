"""Follows the model registry: one walk for the whole fleet, single questions for what is new.

A walk may skip models (MLflow pages by offset) or come without aliases (Unity Catalog): so what it
does not show is asked for by name before anybody is told that it is not there.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import structlog
from prometheus_client import Counter

from modelops_operator.adapters.mlflow import Aliases, ModelRegistry, ModelRegistryError
from modelops_operator.api.facts import Failure, ModelVersion, Role
from modelops_operator.api.reasons import Reason
from modelops_operator.api.resources import ModelRef

FRESH: Final = 1.0
"""Seconds for which an answer serves everybody who asks for the present state."""
TOLD_AFTER: Final = 2
"""Failed walks until the whole fleet is told: a single one is no news."""

_log = structlog.get_logger()
_WALKS: Final = Counter("modelops_registry_walks_total", "Walks of the registry.", ["outcome"])
_MOVES: Final = Counter("modelops_registry_moves_total", "Models whose aliases moved.")


@dataclass(frozen=True, slots=True)
class _Known:
    """What the registry said of a model, and when it was asked."""

    answer: Aliases | Failure
    asked: float


class ModelFollower:
    """Knows where every alias leads, and tells of the models where that changes."""

    def __init__(
        self,
        registry: ModelRegistry,
        *,
        interval: timedelta,
        wanted: Callable[[], Mapping[str, Collection[str]]],
        moved: Callable[[Collection[str]], None],
    ) -> None:
        """`wanted` gives the fleet's models with the aliases that it follows.

        `moved` is told the models that resolve differently from before.
        """
        self._registry = registry
        self._interval = interval.total_seconds()
        self._wanted = wanted
        self._moved = moved
        self._models: dict[str, _Known] = {}
        self._questions: dict[str, asyncio.Task[_Known]] = {}
        self._failed_versions: dict[tuple[str, str], Failure] = {}
        self._silences = 0

    async def run(self) -> None:
        """Walk for ever. No error ends it."""
        while True:
            try:
                await self.walk()
            except Exception:  # noqa: BLE001 - the fault is logged, and the next walk may do
                _log.exception("registry walk crashed")
            await asyncio.sleep(self._interval)

    async def walk(self) -> None:
        """Read all aliases, and tell of the models that resolve differently."""
        wanted = self._wanted()
        found = await self._read_all(wanted)
        moved = {name for name, known in found.items() if self._keep(name, known)}
        moved |= await self._ask_for_versions()
        self._retain(self._wanted().keys())  # who came meanwhile may have failed already
        if moved:
            _MOVES.inc(len(moved))
            _log.info("models moved", models=sorted(moved))
            self._moved(moved)

    async def resolve(
        self, references: Mapping[Role, ModelRef], *, fresh: bool
    ) -> dict[Role, ModelVersion | Failure]:
        """Find the version that each reference leads to; `fresh` asks instead of remembering."""
        answers = await asyncio.gather(
            *(self._resolve(reference, fresh=fresh) for reference in references.values())
        )
        return dict(zip(references, answers, strict=True))

    async def _read_all(self, wanted: Mapping[str, Collection[str]]) -> Mapping[str, _Known]:
        """Read the models that are wanted, by one walk as far as it shows them."""
        started = time.monotonic()
        try:
            shown = await self._registry.walk()
        except ModelRegistryError as error:
            _WALKS.labels("failed").inc()
            self._silences += 1
            if self._silences != TOLD_AFTER:
                return {}
            _log.warning("registry not readable", error=error.failure.message)
            return {name: _Known(error.failure, started) for name in wanted}
        _WALKS.labels("done").inc()
        self._silences = 0
        clear = {
            name: _Known(shown[name], started)
            for name, aliases in wanted.items()
            if name in shown and shown[name].keys() >= set(aliases)
        }
        doubtful = wanted.keys() - clear.keys()
        answers = await asyncio.gather(*(self._ask(name) for name in doubtful))
        return clear | dict(zip(doubtful, answers, strict=True))

    def _keep(self, name: str, known: _Known) -> bool:
        """Remember an answer; True if it is another one than before."""
        before = self._models.get(name)
        if before is not None and before.asked > known.asked:
            return False  # Somebody asked for this model while the walk was under way.
        self._models[name] = known
        return before is not None and before.answer != known.answer

    def _retain(self, wanted: AbstractSet[str]) -> None:
        """Forget what nobody names any more."""
        for name in self._models.keys() - wanted:
            del self._models[name]
        for name, version in list(self._failed_versions):
            if name not in wanted:
                del self._failed_versions[name, version]

    async def _ask_for_versions(self) -> set[str]:
        """Ask again for the versions that were not to be had; give the models that have news."""
        failed = dict(self._failed_versions)
        answers = await asyncio.gather(*(self._version(*place) for place in failed))
        return {
            name
            for ((name, _), before), answer in zip(failed.items(), answers, strict=True)
            if answer != before
        }

    async def _resolve(self, reference: ModelRef, *, fresh: bool) -> ModelVersion | Failure:
        if reference.version is not None:
            return await self._version(reference.name, reference.version)
        known = self._models.get(reference.name)
        if known is None or (fresh and known.asked < time.monotonic() - FRESH):
            known = await self._ask(reference.name)
            if self._keep(reference.name, known):
                # Others follow this model, too, and the next walk has nothing new for them.
                self._moved({reference.name})
        if isinstance(known.answer, Failure):
            return known.answer
        alias = str(reference.alias)
        if alias not in known.answer:
            return _no_alias(reference.name, alias, known.answer)
        return await self._version(reference.name, known.answer[alias])

    async def _ask(self, name: str) -> _Known:
        """Ask for one model; who asks while the question is under way shares the answer."""
        question = self._questions.get(name)
        if question is None:
            question = asyncio.create_task(self._question(name))
            self._questions[name] = question
            question.add_done_callback(lambda _: self._questions.pop(name, None))
        return await asyncio.shield(question)

    async def _question(self, name: str) -> _Known:
        started = time.monotonic()
        try:
            return _Known(await self._registry.model(name), started)
        except ModelRegistryError as error:
            return _Known(error.failure, started)

    async def _version(self, name: str, version: str) -> ModelVersion | Failure:
        try:
            found = await self._registry.version(name, version)
        except ModelRegistryError as error:
            self._failed_versions[name, version] = error.failure
            return error.failure
        self._failed_versions.pop((name, version), None)
        return found


def _no_alias(name: str, alias: str, aliases: Iterable[str]) -> Failure:
    known = ", ".join(sorted(aliases)) or "none"
    return Failure(
        reason=Reason.ALIAS_NOT_FOUND,
        message=(
            f"model {name!r} has no alias {alias!r} (it has: {known}): set the alias in the "
            "registry, or correct the spec"
        ),
        permanent=True,
    )
