"""What the detectors were trained on: read from the registry once, kept by version."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from modelops_runtime.outlier import Mahalanobis
from modelops_runtime.profile import Profile

from modelops_operator.adapters.mlflow import ModelRegistry, ModelRegistryError
from modelops_operator.api.facts import Failure, Role
from modelops_operator.api.reasons import Reason
from modelops_operator.api.resources import Monitoring
from modelops_operator.core.health.service import restarts
from modelops_operator.core.health.watch import OutlierReference, Watch, reporters
from modelops_operator.core.release import Release

PROFILE: Final = "modelops/profile.json"
DETECTOR: Final = "modelops/detector.json"
FORGIVENESS: Final = 60.0
"""Seconds until a reference that could not be read is asked for again."""
_USUAL_ROWS: Final = 10_000
"""Rows of reference data, where no profile counts them."""

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
    ) -> Watch:
        """Give what a release's telemetry is judged by; `failure` is what could not be read."""
        return Watch(
            monitoring=monitoring,
            drift=await self.drift(release),
            outliers=await self.outliers(release),
            reporters=reporters(pods, release.revision),
            restarts=restarts(pods, release.revision),
            failure=failure,
        )

    async def drift(self, release: Release) -> Profile | Failure | None:
        """Give the reference profile of a release's drift detector; None if it has none."""
        profile: Profile | Failure | None = await self._get(
            release, Role.DRIFT, PROFILE, Profile.from_json
        )
        return profile

    async def outliers(self, release: Release) -> OutlierReference | Failure | None:
        """Tell how many reference rows a release's outlier detector flags; None if it has none."""
        detector: Mahalanobis | Failure | None = await self._get(
            release, Role.OUTLIER, DETECTOR, Mahalanobis.from_json
        )
        if not isinstance(detector, Mahalanobis):
            return detector
        profile = await self.drift(release)
        rows = profile.rows if isinstance(profile, Profile) else _USUAL_ROWS
        return OutlierReference.of(detector.reference_rate, rows)

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
