"""From telemetry lines to a verdict in the queue, with sources that say what the test wants."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from modelops_operator.adapters.mlflow import MLMODEL, ModelRegistryError
from modelops_operator.adapters.telemetry import Key, Reading, Target
from modelops_operator.api.facts import Failure, Role
from modelops_operator.api.reasons import Reason
from modelops_operator.core.health.watch import OfOthers, OutlierReference
from modelops_operator.core.release import RELEASE, Release, ReleasedModel
from modelops_operator.core.state import Health
from modelops_operator.shell import references, verdicts
from modelops_operator.shell.cache import Cache
from modelops_operator.shell.monitoring import Monitor
from modelops_operator.shell.references import References
from modelops_runtime.profile import FeatureProfile, Profile
from modelops_runtime.telemetry import Line
from prometheus_client import REGISTRY

pytestmark = pytest.mark.unit

KEY = ("ns", "employment")
FEATURE = FeatureProfile(
    name="AGEP", kind="number", edges=(0.0, 50.0, 100.0), counts=(0, 500, 500, 0), missing=0
)
PROFILE = Profile(features=(FEATURE,), rows=1000, scores=None)
RELEASED = Release(
    models=(
        ReleasedModel(role=Role.PREDICTOR, name="m", alias="a", version="1", run_id="r"),
        ReleasedModel(role=Role.DRIFT, name="d", alias="a", version="1", run_id="r"),
    ),
    reference="registry.test/m@sha256:1",
    lock="",
    runtime="0.1.0",
)


@dataclass
class Files:
    """A registry that has files and nothing else."""

    content: dict[str, bytes] = field(default_factory=dict)
    reads: int = 0

    async def read(self, name: str, version: str, path: str) -> bytes:
        self.reads += 1
        if path not in self.content:
            failure = Failure(reason=Reason.REGISTRY_UNREACHABLE, message="down", permanent=False)
            raise ModelRegistryError(failure)
        assert (name, version) == ("d", "1")
        return self.content[path]


OURS = {MLMODEL: b"flavors: {modelops: {}, python_function: {}}"}
OTHERS = {MLMODEL: b"flavors: {python_function: {}}"}


@dataclass
class Source:
    """Telemetry as its Protocol says."""

    lines: list[Line] = field(default_factory=list)
    asked: list[Key] = field(default_factory=list)
    settle: timedelta = timedelta(0)
    place: str = "a list"

    async def collect(self, targets: Sequence[Target], now: datetime) -> Mapping[Key, Reading]:
        assert now.tzinfo is UTC
        assert all(target.window == timedelta(seconds=5) for target in targets)
        self.asked = [target.key for target in targets]
        lines, self.lines = tuple(self.lines), []
        return {key: Reading(lines=lines, damaged=2, foreign=3) for key in self.asked}

    async def close(self) -> None:
        return


class Fleet:
    """A controller as far as the monitor knows it."""

    def __init__(self) -> None:
        self.cache = Cache()
        self.verdicts: dict[Key, Health] = {}
        self.config = SimpleNamespace(monitoring=SimpleNamespace(interval=timedelta(seconds=1)))

    def judged(self, key: Key, health: Health) -> None:
        self.verdicts[key] = health


def metadata(version: int, **more: Any) -> dict[str, Any]:
    return {
        "namespace": "ns",
        "name": "employment",
        "uid": "u",
        "generation": 1,
        "resourceVersion": str(version),
        **more,
    }


def model_deployment(version: int = 1) -> dict[str, Any]:
    models = {"predictor": {"name": "m", "alias": "a"}, "drift": {"name": "d", "alias": "a"}}
    return {
        "apiVersion": "modelops.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": metadata(version),
        "spec": {"models": models, "monitoring": {"window": "5s"}},
    }


def deployment(version: int = 1, release: str | None = None) -> dict[str, Any]:
    annotations = {RELEASE: RELEASED.to_json() if release is None else release}
    return {"kind": "Deployment", "metadata": metadata(version, annotations=annotations)}


def serving_pod(version: int = 1) -> dict[str, Any]:
    labels = {"modelops.dev/deployment": "employment", "modelops.dev/revision": RELEASED.revision}
    ready = {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    return {
        "kind": "Pod",
        "metadata": metadata(version, labels=labels, creationTimestamp="2026-01-01T00:00:00Z"),
        "status": {"conditions": [ready]},
    }


def conditions(health: Health) -> dict[str, str]:
    return {str(condition.type): condition.reason for condition in health.conditions}


@dataclass
class World:
    fleet: Fleet = field(default_factory=Fleet)
    source: Source = field(default_factory=Source)
    files: Files = field(default_factory=Files)

    def __post_init__(self) -> None:
        self.monitor = Monitor(self.fleet, self.source, self.files)  # type: ignore[arg-type]

    def tick(self) -> dict[str, str]:
        asyncio.run(self.monitor.tick())
        return conditions(self.fleet.verdicts[KEY])


def line(minutes: int) -> Line:
    return Line(
        model="ns/employment",
        revision=RELEASED.revision,
        pod="employment",
        worker="w",
        start=datetime.now(UTC) - timedelta(minutes=minutes),
        seconds=5,
        rows=10,
        requests=3,
        edges=PROFILE.edges_hash,
    )


def test_nothing_is_asked_before_a_release_runs() -> None:
    world = World()
    world.fleet.cache.put(model_deployment())
    asyncio.run(world.monitor.tick())
    assert world.source.asked == []
    assert world.fleet.verdicts == {}


def test_a_release_is_judged_by_the_profile_that_its_detector_carries() -> None:
    world = World(files=Files(OURS | {references.PROFILE: PROFILE.to_json()}))
    for live in (model_deployment(), deployment(), serving_pod()):
        world.fleet.cache.put(live)
    world.source.lines = [line(0)]
    told = world.tick()
    assert world.source.asked == [KEY]
    assert told["OutliersDetected"] == "NoDetector"
    assert told["DriftDetected"] not in {"NoDetector", "ReferenceUnavailable"}
    (standing,) = world.monitor._standing.values()
    assert standing.watch.source == "a list"
    assert standing.watch.detectors == {Role.PREDICTOR: "m 1", Role.DRIFT: "d 1"}
    world.tick()
    assert world.files.reads == len(world.files.content)


def test_nothing_is_judged_anew_while_there_is_nothing_new(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not a deployment, nor a pod, nor a line; and no moment has come that changes a verdict."""
    world = World(files=Files(OURS | {references.PROFILE: PROFILE.to_json()}))
    for live in (model_deployment(), deployment(), serving_pod()):
        world.fleet.cache.put(live)
    targets = []

    async def collect(asked: Sequence[Target], _: datetime) -> Mapping[Key, Reading]:
        targets.append(asked)
        return readings.pop(0) if readings else {}

    monkeypatch.setattr(world.source, "collect", collect)

    def ticked() -> bool:
        """Tell whether anything was judged."""
        world.fleet.verdicts.clear()
        asyncio.run(world.monitor.tick())
        return bool(world.fleet.verdicts)

    readings: list[Mapping[Key, Reading]] = [{KEY: Reading(lines=(line(0),))}]
    assert ticked()
    assert not ticked()
    assert targets[0] is targets[1]
    world.fleet.cache.put(serving_pod(version=2))
    assert ticked()
    assert targets[2] is not targets[1]
    assert not ticked()
    down = Failure(reason=Reason.QUERY_FAILED, message="down", permanent=False)
    readings += [{KEY: Reading(failure=down)}] * 2
    assert ticked()
    assert not ticked()
    assert ticked()  # it is over
    assert not ticked()
    standing = world.monitor._standing[KEY]
    world.monitor._standing[KEY] = replace(standing, until=datetime.now(UTC))
    assert ticked()


def test_a_profile_that_cannot_be_read_is_told_and_asked_for_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World()
    for live in (model_deployment(), deployment(), serving_pod()):
        world.fleet.cache.put(live)
    world.source.lines = [line(1)]
    assert world.tick()["DriftDetected"] == "ReferenceUnavailable"
    world.tick()
    assert world.files.reads == 1
    monkeypatch.setattr(references, "FORGIVENESS", 0.0)
    world.files.content |= OURS | {references.PROFILE: PROFILE.to_json()}
    assert world.tick()["DriftDetected"] != "ReferenceUnavailable"


def test_a_damaged_profile_is_told() -> None:
    world = World(files=Files(OURS | {references.PROFILE: b"{"}))
    for live in (model_deployment(), deployment(), serving_pod()):
        world.fleet.cache.put(live)
    world.source.lines = [line(1)]
    assert world.tick()["DriftDetected"] == "ReferenceUnavailable"


def released(*roles: Role) -> Release:
    models = tuple(
        ReleasedModel(role=role, name="d", alias="a", version="1", run_id="r") for role in roles
    )
    return Release(models=models, reference="x", lock="", runtime="")


def test_a_detector_of_others_has_no_profile_and_tells_its_usual_rate() -> None:
    described = OTHERS[MLMODEL] + b"\nmetadata: {modelops.reference_rate: 0.02}"
    release = released(Role.DRIFT, Role.OUTLIER)
    known = References(Files(OTHERS))  # type: ignore[arg-type]
    assert asyncio.run(known.drift(release)) == OfOthers()
    known = References(Files({MLMODEL: described}))  # type: ignore[arg-type]
    assert asyncio.run(known.outliers(release)) == OfOthers(0.02)
    known = References(Files({MLMODEL: b"flavors: 3"}))  # type: ignore[arg-type]
    assert isinstance(asyncio.run(known.outliers(release)), Failure)


def test_any_kind_of_detector_of_ours_tells_its_rate() -> None:
    written = b'{"kind": "isolation_forest", "reference_rate": 0.005}'
    release = released(Role.OUTLIER)
    known = References(Files(OURS | {references.DETECTOR: written}))  # type: ignore[arg-type]
    found = asyncio.run(known.outliers(release))
    assert isinstance(found, OutlierReference)
    assert found.rate == 0.005


def test_a_deployment_without_a_readable_release_is_no_reason_to_fail() -> None:
    world = World()
    world.fleet.cache.put(model_deployment())
    world.fleet.cache.put(deployment(release="{damaged"))
    asyncio.run(world.monitor.tick())
    assert world.source.asked == []


def left_out(cause: str) -> float | None:
    labels = {"namespace": KEY[0], "name": KEY[1], "cause": cause}
    labels |= {"model": RELEASED.predictor.name, "version": RELEASED.predictor.version}
    return REGISTRY.get_sample_value("modelops_telemetry_lines_left_out_total", labels)


def test_a_deployment_that_went_is_forgotten() -> None:
    world = World()
    world.fleet.cache.put(model_deployment())
    world.fleet.cache.put(deployment())
    before = left_out("damaged") or 0, left_out("foreign") or 0
    world.tick()
    assert (left_out("damaged"), left_out("foreign")) == (before[0] + 2, before[1] + 3)
    world.fleet.cache.drop(deployment(version=9))
    asyncio.run(world.monitor.tick())
    assert world.source.asked == []
    assert world.monitor._shown == {}
    assert world.monitor._standing == {}
    assert world.monitor._references._failed == {}
    assert left_out("damaged") is None
    assert world.monitor._known == {}


def test_each_feature_has_a_metric_as_long_as_it_is_among_the_worst() -> None:
    def shown(feature: str, what: str = "psi") -> float | None:
        labels = {"namespace": "ns", "name": "many", "model": "m", "version": "1"}
        return REGISTRY.get_sample_value(f"modelops_feature_{what}", labels | {"feature": feature})

    def health(*names: str) -> Health:
        told = [{"name": name, "psi": "0.31", "threshold": "0.25"} for name in names]
        return Health.of(evidence={"drift": {"features": told}})

    series = ("ns", "many", "m", "1")
    verdicts.count_left_out(series, Reading())
    verdicts.export(series, health("AGEP", "SEX"))
    assert (shown("AGEP"), shown("SEX", "psi_threshold")) == (0.31, 0.25)
    verdicts.export(series, health("SEX"))
    assert (shown("AGEP"), shown("SEX")) == (None, 0.31)
    verdicts.export(series, Health.of(evidence={"service": {"p99": "3.2ms"}}))
    labels = {"namespace": "ns", "name": "many", "model": "m", "version": "1"}
    assert REGISTRY.get_sample_value("modelops_latency_p99_seconds", labels) == 0.0032
    assert shown("SEX") is None
    verdicts.export(series, health("SEX"))
    verdicts.withdraw(series)
    assert shown("SEX") is None


def test_the_metrics_of_the_version_before_are_withdrawn() -> None:
    def shown(release: Release) -> float | None:
        model = {"model": release.predictor.name, "version": release.predictor.version}
        labels = {"namespace": KEY[0], "name": KEY[1], **model}
        return REGISTRY.get_sample_value("modelops_monitoring_healthy", labels)

    predictor, *detectors = RELEASED.models
    following = replace(RELEASED, models=(replace(predictor, version="99"), *detectors))
    world = World()
    for live in (model_deployment(), deployment()):
        world.fleet.cache.put(live)
    world.tick()
    assert shown(RELEASED) is not None
    assert shown(following) is None
    world.fleet.cache.put(deployment(2, release=following.to_json()))
    world.tick()
    assert shown(RELEASED) is None
    assert shown(following) is not None
    world.fleet.cache.drop(deployment(version=9))
    asyncio.run(world.monitor.tick())
    assert shown(following) is None


def test_a_model_without_detectors_has_no_reference() -> None:
    plain = Release(models=RELEASED.models[:1], reference="x", lock="", runtime="")
    known = References(Files())  # type: ignore[arg-type]
    assert asyncio.run(known.drift(plain)) is None
    assert asyncio.run(known.outliers(plain)) is None
