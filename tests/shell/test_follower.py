"""Who is told when models move, with a registry that says what the test wants."""

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import timedelta

import pytest
from modelops_operator.adapters.mlflow import Aliases, ModelRegistryError
from modelops_operator.api.facts import Failure, ModelVersion, Role
from modelops_operator.api.reasons import Reason
from modelops_operator.api.resources import ModelRef
from modelops_operator.shell.follower import ModelFollower

pytestmark = pytest.mark.unit

DOWN = Failure(reason=Reason.REGISTRY_UNREACHABLE, message="down", permanent=False)
ABSENT = Failure(reason=Reason.MODEL_NOT_FOUND, message="absent", permanent=True)
NOT_READY = Failure(reason=Reason.VERSION_NOT_READY, message="wait", permanent=False)
CANDIDATE = {Role.PREDICTOR: ModelRef(name="employment", alias="candidate")}
PINNED = {Role.PREDICTOR: ModelRef(name="employment", version="7")}


@dataclass
class Registry:
    """A registry as its Protocol says."""

    models: dict[str, dict[str, str]] = field(default_factory=dict)
    hidden: set[str] = field(default_factory=set)
    """Models that the walk skips."""
    bare: bool = False
    """The walk comes without aliases, as Unity Catalog's."""
    down: bool = False
    failing: dict[str, Failure] = field(default_factory=dict)
    """Versions that are not to be had."""
    asked: list[str] = field(default_factory=list)

    async def walk(self) -> Mapping[str, Aliases]:
        self._ask("walk")
        return {
            name: {} if self.bare else dict(aliases)
            for name, aliases in self.models.items()
            if name not in self.hidden
        }

    async def model(self, name: str) -> Aliases:
        await asyncio.sleep(0)
        self._ask(name)
        if name not in self.models:
            raise ModelRegistryError(ABSENT)
        return dict(self.models[name])

    async def version(self, name: str, version: str) -> ModelVersion:
        if self.down:
            raise ModelRegistryError(DOWN)
        if version in self.failing:
            raise ModelRegistryError(self.failing[version])
        return ModelVersion(name=name, version=version, run_id="r", source="s")

    async def read(self, name: str, version: str, path: str) -> bytes:
        raise NotImplementedError

    def _ask(self, what: str) -> None:
        self.asked.append(what)
        if self.down:
            raise ModelRegistryError(DOWN)


@dataclass
class Following:
    """A follower, what the fleet wants, and what was told."""

    registry: Registry
    wanted: dict[str, set[str]] = field(default_factory=lambda: {"employment": {"candidate"}})
    told: list[set[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.follower = ModelFollower(
            self.registry,
            interval=timedelta(seconds=1),
            wanted=lambda: self.wanted,
            moved=self._hear,
        )

    def _hear(self, models: Collection[str]) -> None:
        self.told.append(set(models))

    async def resolved(self, *, fresh: bool = False) -> str:
        """Give the version, or the reason of the failure."""
        found = await self.follower.resolve(CANDIDATE, fresh=fresh)
        answer = found[Role.PREDICTOR]
        return str(answer.reason) if isinstance(answer, Failure) else answer.version


def following(**registry: object) -> Following:
    models = {"employment": {"candidate": "1"}}
    return Following(Registry(**{"models": models, **registry}))  # type: ignore[arg-type]


def test_a_model_that_moves_is_told_once() -> None:
    async def main() -> None:
        world = following()
        await world.follower.walk()
        assert world.told == []
        world.registry.models["employment"]["candidate"] = "2"
        await world.follower.walk()
        await world.follower.walk()
        assert world.told == [{"employment"}]
        assert await world.resolved() == "2"
        assert "employment" not in world.registry.asked  # the walk was enough

    asyncio.run(main())


def test_other_aliases_and_other_models_are_nobodys_business() -> None:
    async def main() -> None:
        world = following()
        await world.follower.walk()
        world.registry.models["other"] = {"candidate": "5"}
        await world.follower.walk()
        assert world.told == []

    asyncio.run(main())


def test_what_a_walk_skips_is_asked_for_by_name() -> None:
    async def main() -> None:
        world = following(hidden={"employment"})
        await world.follower.walk()
        await world.follower.walk()
        assert world.told == []
        assert await world.resolved() == "1"
        world.registry.models["employment"]["candidate"] = "2"
        await world.follower.walk()
        assert world.told == [{"employment"}]

    asyncio.run(main())


def test_a_catalog_whose_walk_has_no_aliases_is_followed_model_by_model() -> None:
    async def main() -> None:
        world = following(bare=True)
        await world.follower.walk()
        world.registry.models["employment"]["candidate"] = "2"
        await world.follower.walk()
        assert world.told == [{"employment"}]
        assert await world.resolved() == "2"

    asyncio.run(main())


def test_a_model_that_comes_is_told_to_those_who_wait_for_it() -> None:
    async def main() -> None:
        world = following(models={})
        assert await world.resolved(fresh=True) == Reason.MODEL_NOT_FOUND
        await world.follower.walk()
        assert world.told == []
        world.registry.models["employment"] = {}
        await world.follower.walk()
        assert await world.resolved() == Reason.ALIAS_NOT_FOUND
        world.registry.models["employment"]["candidate"] = "1"
        await world.follower.walk()
        assert world.told == [{"employment"}, {"employment"}]
        assert await world.resolved() == "1"

    asyncio.run(main())


def test_an_edit_does_not_believe_what_was_known_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelops_operator.shell.follower.FRESH", 0.0)

    async def main() -> None:
        world = following()
        await world.follower.walk()
        world.registry.models["employment"]["candidate"] = "2"
        assert await world.resolved() == "1"
        assert await world.resolved(fresh=True) == "2"
        # Others follow the same alias, and the next walk finds nothing new.
        assert world.told == [{"employment"}]
        await world.follower.walk()
        assert world.told == [{"employment"}]

    asyncio.run(main())


def test_many_that_ask_at_once_share_one_question() -> None:
    async def main() -> None:
        world = following()
        answers = await asyncio.gather(*(world.resolved(fresh=True) for _ in range(50)))
        assert set(answers) == {"1"}
        assert world.registry.asked == ["employment"]

    asyncio.run(main())


def test_a_single_failed_walk_is_no_news_and_an_outage_is_told_once_as_is_its_end() -> None:
    async def main() -> None:
        world = following()
        await world.follower.walk()
        world.registry.down = True
        await world.follower.walk()
        assert world.told == []
        for _ in range(5):
            await world.follower.walk()
        assert world.told == [{"employment"}]
        assert await world.resolved() == Reason.REGISTRY_UNREACHABLE
        world.registry.down = False
        for _ in range(3):
            await world.follower.walk()
        assert world.told == [{"employment"}, {"employment"}]
        assert await world.resolved() == "1"

    asyncio.run(main())


def test_a_version_that_becomes_ready_is_told() -> None:
    async def main() -> None:
        world = following(failing={"1": NOT_READY})
        assert await world.resolved() == Reason.VERSION_NOT_READY
        await world.follower.walk()
        assert world.told == []
        world.registry.failing.clear()
        await world.follower.walk()
        await world.follower.walk()
        assert world.told == [{"employment"}]

    asyncio.run(main())


def test_who_comes_while_a_walk_is_under_way_is_told_when_a_version_becomes_ready() -> None:
    async def main() -> None:
        world = following(failing={"1": NOT_READY})
        world.wanted = {}

        async def walk() -> Mapping[str, Aliases]:
            world.wanted = {"employment": {"candidate"}}
            assert await world.resolved() == Reason.VERSION_NOT_READY
            return {}

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(world.registry, "walk", walk)
            await world.follower.walk()
        world.registry.failing.clear()
        await world.follower.walk()
        assert world.told == [{"employment"}]

    asyncio.run(main())


def test_a_pinned_version_needs_no_alias() -> None:
    async def main() -> None:
        world = following()
        found = await world.follower.resolve(PINNED, fresh=True)
        assert found[Role.PREDICTOR].version == "7"  # type: ignore[union-attr]
        assert world.registry.asked == []

    asyncio.run(main())


def test_what_nobody_names_any_more_is_forgotten() -> None:
    async def main() -> None:
        world = following(failing={"1": NOT_READY})
        await world.resolved()
        await world.follower.walk()
        world.wanted.clear()
        await world.follower.walk()
        assert world.follower._models == {}
        assert world.follower._failed_versions == {}

    asyncio.run(main())
