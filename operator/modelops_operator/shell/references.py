"""What the detectors were trained on: read from the registry once, kept by version."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import orjson
import yaml
from modelops_runtime import flavor
from modelops_runtime.profile import Profile

from modelops_operator.adapters.mlflow import MLMODEL, ModelRegistry, ModelRegistryError
from modelops_operator.api.facts import Failure, Role
from modelops_operator.api.reasons import Reason
from modelops_operator.api.resources import Monitoring
from modelops_operator.core.health.service import pending, restarts
from modelops_operator.core.health.watch import (
    USUAL_RATE,
    USUAL_ROWS,
    OfOthers,
    OutlierReference,
    Watch,
    reporters,
)
from modelops_operator.core.release import Release

PROFILE: Final = "modelops/profile.json"
DETECTOR: Final = "modelops/detector.json"
FORGIVENESS: Final = 60.0
"""Seconds until a reference that could not be read is asked for again."""
RATE: Final = "modelops.reference_rate"
"""Where a detector's metadata tells the share of outliers that it finds in usual data."""

Place = tuple[str, str, str]
"""Model, version and file."""


class References:
    """The reference data of all detectors that run."""

    def __init__(self, registry: ModelRegistry) -> None:
        self._registry = registry
        self._known: dict[Place, Any] = {}
        self._failed: dict[Place, tuple[float, Failure]] = {}

    async def watch(
        self,
        monitoring: Monitoring,
        release: Release,
        pods: Sequence[Mapping[str, Any]],
        failure: Failure | None,
        source: str,
    ) -> Watch:
        """Give what a release's telemetry is judged by.

        `failure` is what could not be read, `source` where all is read from.
        """
        return Watch(
            monitoring=monitoring,
            drift=await self.drift(release),
            outliers=await self.outliers(release),
            reporters=reporters(pods, release.revision),
            restarts=restarts(pods, release.revision),
            pending=pending(pods, release.revision),
            failure=failure,
            source=source,
            detectors={one.role: f"{one.name} {one.version}" for one in release.models},
        )

    def retain(self, releases: Iterable[Release]) -> None:
        """Forget the versions that none of these has."""
        kept = {(one.name, one.version) for release in releases for one in release.models}
        for known in (self._known, self._failed):
            for place in [place for place in known if place[:2] not in kept]:
                del known[place]

    async def drift(self, release: Release) -> Profile | OfOthers | Failure | None:
        """Give the reference profile of a release's drift detector; None if it has none."""
        foreign = await self._of_others(release, Role.DRIFT)
        if foreign is not None:
            return foreign
        profile: Profile | Failure | None = await self._get(
            release, Role.DRIFT, PROFILE, Profile.from_json
        )
        return profile

    async def outliers(self, release: Release) -> OutlierReference | OfOthers | Failure | None:
        """Tell how many reference rows a release's outlier detector flags; None if it has none."""
        foreign = await self._of_others(release, Role.OUTLIER)
        if foreign is not None:
            return foreign
        rate: float | Failure | None = await self._get(release, Role.OUTLIER, DETECTOR, _rate)
        if not isinstance(rate, float):
            return rate
        profile = await self.drift(release)
        rows = profile.rows if isinstance(profile, Profile) else USUAL_ROWS
        return OutlierReference.of(rate, rows)

    async def _of_others(self, release: Release, role: Role) -> OfOthers | Failure | None:
        """Tell a detector without our flavor; None for one with it, or without a detector."""
        found: OfOthers | Failure | None = await self._get(release, role, MLMODEL, _foreign)
        return found

    async def _get(
        self, release: Release, role: Role, path: str, parse: Callable[[bytes], Any]
    ) -> Any:
        model = next((one for one in release.models if one.role is role), None)
        if model is None:
            return None
        place = (model.name, model.version, path)
        when, failure = self._failed.get(place, (0.0, None))
        if failure is not None and time.monotonic() < when + FORGIVENESS:
            return failure
        if place not in self._known:
            try:
                self._known[place] = parse(await self._registry.read(*place))
            except ModelRegistryError as error:
                return self._fail(place, error.failure.message, error.failure.permanent)
            except ValueError as error:
                told = f"{path} of version {model.version} of model {model.name!r}: {error}"
                return self._fail(place, told, permanent=True)
        self._failed.pop(place, None)
        return self._known[place]

    def _fail(self, place: Place, message: str, permanent: bool) -> Failure:  # noqa: FBT001 - a fact
        failure = Failure(reason=Reason.REFERENCE_UNAVAILABLE, message=message, permanent=permanent)
        self._failed[place] = (time.monotonic(), failure)
        return failure


def _rate(content: bytes) -> float:
    """Read how often a detector of ours, of whatever kind, flags a reference row."""
    try:
        return float(orjson.loads(content)["reference_rate"])
    except (LookupError, TypeError) as error:
        raise ValueError(f"it tells no reference_rate ({error!r})") from error


def _foreign(content: bytes) -> OfOthers | None:
    """Read from an MLmodel whether the model lacks our flavor, and what it says of itself."""
    try:
        described = yaml.safe_load(content)
        if flavor.FLAVOR in described["flavors"]:
            return None
        metadata = described.get("metadata") or {}
        found = OfOthers(float(metadata.get(RATE, USUAL_RATE)))
    except (yaml.YAMLError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"it is not understood ({error!r})") from error
    OutlierReference.of(found.usual_rate, USUAL_ROWS)  # raises, if it is no rate
    return found
