"""What a newer operator, or another configuration, would make other than it runs: it waits.

A deployment takes it over with its next release, on request, or in its maintenance window: an
upgrade of the operator restarts nothing by itself.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from modelops_operator.api.conditions import Condition, ConditionType
from modelops_operator.api.config import OperatorConfig
from modelops_operator.api.maintenance import MaintenanceWindow
from modelops_operator.api.reasons import Reason
from modelops_operator.api.resources import ModelDeployment
from modelops_operator.core.differences import digest
from modelops_operator.core.findings import Finding, Outlook, bounded
from modelops_operator.core.release import built_reference
from modelops_operator.core.scene import Scene
from modelops_operator.core.wishes import pending_update


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewal:
    """Whether what waits is to be taken over now."""

    due: bool
    opens_in: timedelta | None
    """When the maintenance window opens; None where there is none."""

    @classmethod
    def of(
        cls, scene: Scene, desired: ModelDeployment, config: OperatorConfig, now: datetime
    ) -> "Renewal":
        """Look at the wish and at the clock."""
        window: MaintenanceWindow | None = (
            desired.spec.serving.maintenance_window or config.operator.maintenance_window
        )
        opens_in = None if window is None else window.opens_in(now, _delay(scene, window))
        wished = pending_update(scene, desired) is not None
        return cls(due=wished or opens_in == timedelta(), opens_in=opens_in)

    def finding(self, waiting: Iterable[str]) -> Finding | None:
        """Tell of what waits; None where there is nothing."""
        told = list(waiting)
        if not told:
            return None
        window = "" if self.opens_in is None else "in the maintenance window, "
        message = (
            f"this operator would serve with {', '.join(told)}. That is taken over {window}with the"
            " next release, or with a new value of the annotation modelops.dev/update"
        )
        condition = Condition(
            ConditionType.UPDATE_AVAILABLE, "True", Reason.UPDATE_WAITING, bounded(message)
        )
        return Finding(condition=condition, outlook=Outlook.SETTLED, again=self.opens_in or None)


def _delay(scene: Scene, window: MaintenanceWindow) -> timedelta:
    """Spread the fleet over the first half of the window: not all are to be started at once."""
    fraction = int(digest(scene.owner.uid), 16) / 16**16
    return window.duration / 2 * fraction


def image_updates(scene: Scene, config: OperatorConfig) -> tuple[str, ...]:
    """Name what the image that runs would be built with by now, other than it was."""
    running = scene.running
    if running is None:
        return ()
    runtime = config.runtime.version
    told = [f"serving runtime {runtime} in place of {running.runtime}"]
    return (
        *(told if running.runtime and running.runtime != runtime else ()),
        *(("another base image",) if has_other_base(scene, config) else ()),
    )


def has_other_base(scene: Scene, config: OperatorConfig) -> bool:
    """Tell whether another base image is configured than the one of the image that runs."""
    if scene.running is None:
        return False
    built = [
        image["spec"]
        for image in scene.observed.images.values()
        if built_reference(image) == scene.running.reference
    ]
    configured = {config.builder.bases.get(spec["python"]) for spec in built} - {None}
    return bool(configured) and configured.isdisjoint(spec["base"] for spec in built)
