"""Reads the telemetry of the whole fleet at every tick and has it judged."""

import asyncio
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import structlog
from modelops_runtime.outlier import Mahalanobis
from modelops_runtime.profile import Profile
from prometheus_client import Gauge
from pydantic import ValidationError

from modelops_operator.adapters.mlflow import ModelRegistry, ModelRegistryError
from modelops_operator.adapters.telemetry import Reading, Target, TelemetrySource
from modelops_operator.api.conditions import ConditionType
from modelops_operator.api.facts import Failure, ModelVersion, Role
from modelops_operator.api.reasons import Reason
from modelops_operator.api.resources import ModelDeployment
from modelops_operator.core.health.evaluate import evaluate
from modelops_operator.core.health.watch import OutlierReference, Watch, reporters
from modelops_operator.core.health.windows import MINIMUM_ROWS, TelemetryStore
from modelops_operator.core.release import Release
from modelops_operator.core.state import Health
from modelops_operator.shell.cache import Cache, Manifest
from modelops_operator.shell.controller import Controller
from modelops_operator.shell.queue import Key

RELEASE_ANNOTATION: Final = "modelops.dev/release"
PROFILE: Final = "modelops/profile.json"
DETECTOR: Final = "modelops/detector.json"
_FORGIVENESS: Final = 60.0
"""Seconds until a reference that could not be read is asked for again."""

_log = structlog.get_logger()
_DRIFT = Gauge("modelops_drift_detected", "1: drift, 0: none, -1: unknown.", ["namespace", "name"])
_OUTLIERS = Gauge(
    "modelops_outliers_detected", "1: outliers, 0: none, -1: unknown.", ["namespace", "name"]
)
_LEVELS: Final = {"True": 1, "False": 0, "Unknown": -1}


class References:
    """What the detectors were trained on, read from the registry and kept by version."""

    def __init__(self, registry: ModelRegistry) -> None:
        self._registry = registry
        self._known: dict[tuple[str, str, str], bytes] = {}
        self._failed: dict[tuple[str, str, str], tuple[float, Failure]] = {}

    async def drift(self, release: Release) -> Profile | Failure | None:
        """Give the reference profile of a release's drift detector; None if it has none."""
        content = await self._read(release, Role.DRIFT, PROFILE)
        return Profile.from_json(content) if isinstance(content, bytes) else content

    async def outliers(self, release: Release) -> OutlierReference | Failure | None:
        """Give how often a release's outlier detector flags reference rows; None if it has none."""
        content = await self._read(release, Role.OUTLIER, DETECTOR)
        if not isinstance(content, bytes):
            return content
        profile = await self.drift(release)
        # Both were made of the same rows; a detector alone counts as if made of few.
        rows = profile.rows if isinstance(profile, Profile) else MINIMUM_ROWS
        return OutlierReference.of(Mahalanobis.from_json(content).reference_rate, rows)

    async def _read(self, release: Release, role: Role, path: str) -> bytes | Failure | None:
        model = next((one for one in release.models if one.role is role), None)
        if model is None:
            return None
        place = (model.name, model.version, path)
        when, failure = self._failed.get(place, (float("-inf"), None))
        if failure is not None and time.monotonic() < when + _FORGIVENESS:
            return failure
        if place not in self._known:
            version = ModelVersion(
                name=model.name, version=model.version, run_id=model.run_id, source=""
            )
            try:
                self._known[place] = await self._registry.read(version, path)
            except ModelRegistryError as error:
                told = Failure(
                    reason=Reason.REFERENCE_UNAVAILABLE,
                    message=error.failure.message,
                    permanent=error.failure.permanent,
                )
                self._failed[place] = (time.monotonic(), told)
                return told
        return self._known[place]


class Monitor:
    """Drives collecting and judging."""

    def __init__(
        self, controller: Controller, source: TelemetrySource, registry: ModelRegistry
    ) -> None:
        self._controller = controller
        self._source = source
        self._references = References(registry)
        self._store = TelemetryStore(settle=source.settle)

    async def run(self) -> None:
        """Tick for ever. No error ends it."""
        interval = self._controller.config.monitoring.interval.total_seconds()
        while True:
            await self._controller.leader.wait()
            try:
                await self.tick()
            except Exception:  # noqa: BLE001 - the next tick may go well
                _log.exception("monitoring tick crashed")
            await asyncio.sleep(interval)

    async def tick(self) -> None:
        """Collect from every pod, and judge every deployment that runs a release."""
        cache, now = self._controller.cache, datetime.now(UTC)
        releases = dict(_releases(cache))
        targets = [
            Target(namespace=key[0], name=key[1], pods=tuple(cache.pods_of(key)))
            for key in releases
        ]
        readings = await self._source.collect(targets, now)
        self._store.retain(releases.keys())
        for key, (desired, release) in releases.items():
            reading = readings.get(key, Reading())
            self._store.add(key, reading.lines, now, damaged=reading.damaged)
            health = await self._judge(key, desired, release, reading)
            self._controller.judged(key, health)
            _export(key, health)

    async def _judge(
        self, key: Key, desired: ModelDeployment, release: Release, reading: Reading
    ) -> Health:
        watch = Watch(
            monitoring=desired.spec.monitoring,
            drift=await self._references.drift(release),
            outliers=await self._references.outliers(release),
            reporters=reporters(self._controller.cache.pods_of(key), release.revision),
            failure=reading.failure,
        )
        history = self._store.history(key, release.revision)
        return evaluate(history, watch, datetime.now(UTC))


def _releases(cache: Cache) -> Mapping[Key, tuple[ModelDeployment, Release]]:
    """Find what every deployment runs, as its Deployment tells."""
    found = {}
    for key, live in cache.all("ModelDeployment").items():
        release = _release(cache.get("Deployment", key))
        try:
            desired = ModelDeployment.model_validate(live)
        except ValidationError:
            continue  # Its status says so; without a spec there are no thresholds.
        if release is not None:
            found[key] = (desired, release)
    return found


def _release(deployment: Manifest | None) -> Release | None:
    annotations: Mapping[str, Any] = (deployment or {}).get("metadata", {}).get("annotations", {})
    text = annotations.get(RELEASE_ANNOTATION)
    return None if text is None else Release.from_json(text)


def _export(key: Key, health: Health) -> None:
    for condition in health.conditions:
        level = _LEVELS[condition.status]
        if condition.type is ConditionType.DRIFT_DETECTED:
            _DRIFT.labels(*key).set(level)
        elif condition.type is ConditionType.OUTLIERS_DETECTED:
            _OUTLIERS.labels(*key).set(level)
