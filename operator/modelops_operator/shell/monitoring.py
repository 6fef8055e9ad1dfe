"""Reads the telemetry of the whole fleet at every tick and has it judged."""

import asyncio
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, TypeVar

import structlog
from prometheus_client import Histogram
from pydantic import ValidationError

from modelops_operator.adapters.mlflow import ModelRegistry
from modelops_operator.adapters.telemetry import Reading, Target, TelemetrySource
from modelops_operator.api.facts import Failure
from modelops_operator.api.resources import ModelDeployment, Monitoring
from modelops_operator.core.health.evaluate import Standing, renewed
from modelops_operator.core.health.windows import TelemetryStore
from modelops_operator.core.release import RELEASE, Release
from modelops_operator.core.state import Health
from modelops_operator.shell.controller import KIND, Controller
from modelops_operator.shell.queue import Key
from modelops_operator.shell.references import References
from modelops_operator.shell.verdicts import Series, count_left_out, export, withdraw

T = TypeVar("T", Monitoring, Release)
_log = structlog.get_logger()
_TICK: Final = Histogram("modelops_monitoring_seconds", "How long reading and judging takes.")
_NOTHING: Final = Reading()


@dataclass(slots=True, kw_only=True)
class _Subject:
    """A deployment that runs a release, as of some versions of its objects."""

    monitoring: Monitoring
    release: Release
    target: Target
    complete: bool = False
    """It was judged with all that there is to know of it."""


@lru_cache(maxsize=1024)
def _one(value: T) -> T:
    """Give the one that stands for all that are equal: most deployments have the same settings."""
    return value


class Monitor:
    """Drives collecting and judging."""

    def __init__(
        self, controller: Controller, source: TelemetrySource, registry: ModelRegistry
    ) -> None:
        self._controller = controller
        self._source = source
        self._references = References(registry)
        self._store = TelemetryStore(settle=source.settle)
        self._known: dict[Key, tuple[tuple[int, ...], _Subject | None]] = {}
        """What each runs, as of the versions of the object, of its Deployment and of its pods."""
        self._subjects: dict[Key, _Subject] = {}
        self._targets: Sequence[Target] = ()
        self._looked = -1
        """How many changes the cache had had then."""
        self._shown: dict[Key, Series] = {}
        self._standing: dict[Key, Standing] = {}

    async def run(self) -> None:
        """Tick for ever, as long as we lead. No error ends it."""
        interval = self._controller.config.monitoring.interval.total_seconds()
        while True:
            await self._controller.leadership.wait()
            try:
                with _TICK.time():
                    await self.tick()
            except Exception:  # noqa: BLE001 - the fault is logged, and the next tick may do
                _log.exception("monitoring tick crashed")
            await asyncio.sleep(interval)

    async def tick(self) -> None:
        """Collect from every pod, and judge every deployment of which there is news."""
        now = datetime.now(UTC)
        if self._looked != self._controller.cache.changes:
            self._look()
        readings = await self._source.collect(self._targets, now)
        for key, subject in self._subjects.items():
            reading = readings.get(key, _NOTHING)
            if self._stands(key, subject, reading, now):
                continue
            series = self._show(key, subject.release)
            count_left_out(series, reading)
            self._store.add(key, reading.lines, now, damaged=reading.damaged)
            health = await self._judge(key, subject, reading)
            self._controller.judged(key, health)
            export(series, health)
            await asyncio.sleep(0)  # thousands of verdicts must not keep the lease from its renewal

    def _look(self) -> None:
        """Find what every deployment runs, and forget those that run nothing any more."""
        self._looked = self._controller.cache.changes
        self._subjects = dict(self._running())
        self._targets = [subject.target for subject in self._subjects.values()]
        self._retain(self._subjects.keys())
        self._references.retain(subject.release for subject in self._subjects.values())

    def _stands(self, key: Key, subject: _Subject, reading: Reading, now: datetime) -> bool:
        """Tell whether the last verdict does: nothing new is known of whom it is about."""
        standing = self._standing.get(key)
        return (
            subject.complete
            and standing is not None
            and standing.holds(now)
            and not reading.news
            and reading.failure == standing.watch.failure
        )

    def _show(self, key: Key, release: Release) -> Series:
        """Name the metrics of a deployment; those of the version before are withdrawn."""
        series = (*key, release.predictor.name, release.predictor.version)
        former = self._shown.get(key)
        if former not in {None, series}:
            withdraw(former)
        self._shown[key] = series
        return series

    def _running(self) -> Iterator[tuple[Key, _Subject]]:
        """Find what every deployment runs, as its Deployment tells."""
        cache = self._controller.cache
        for key in cache.keys("Deployment"):
            versions = (
                cache.version(KIND, key),
                cache.version("Deployment", key),
                *cache.pod_versions(key),
            )
            known = self._known.get(key)
            if known is None or known[0] != versions:
                known = self._known[key] = (versions, self._read(key))
            if known[1] is not None:
                yield key, known[1]

    def _read(self, key: Key) -> _Subject | None:
        """Read what one runs, and its thresholds; None where either is not understood."""
        cache = self._controller.cache
        live, deployment = cache.get(KIND, key), cache.get("Deployment", key)
        if live is None or deployment is None:
            return None
        annotations = deployment["metadata"].get("annotations", {})
        release = Release.from_json(annotations.get(RELEASE, ""))
        try:
            monitoring = ModelDeployment.model_validate(live).spec.monitoring
        except ValidationError:
            return None
        if release is None:
            return None
        target = Target(
            namespace=key[0], name=key[1], pods=cache.pods_of(key), window=monitoring.window
        )
        return _Subject(monitoring=_one(monitoring), release=_one(release), target=target)

    async def _judge(self, key: Key, subject: _Subject, reading: Reading) -> Health:
        watch = await self._references.watch(
            subject.monitoring,
            subject.release,
            tuple(subject.target.pods),
            reading.failure,
            self._source.place,
        )
        references = (watch.drift, watch.outliers)
        subject.complete = not any(isinstance(one, Failure) for one in references)
        history = self._store.history(key, subject.release.revision)
        standing = renewed(self._standing.get(key), history, watch, datetime.now(UTC))
        self._standing[key] = standing
        return standing.health

    def _retain(self, running: AbstractSet[Key]) -> None:
        """Forget all others."""
        self._store.retain(running)
        for key in self._known.keys() - running:
            del self._known[key]
        for key in self._standing.keys() - running:
            del self._standing[key]
        for key in self._shown.keys() - running:
            withdraw(self._shown.pop(key))
