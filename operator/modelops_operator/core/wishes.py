"""Wishes: annotations of the user's that are to be acted on once per value.

They are never removed, the object being the user's; `status.handledRequests` remembers the values
that were acted on.
"""

from collections.abc import Mapping

from modelops_operator.api.resources import ModelDeployment
from modelops_operator.core.scene import Scene

PREFIX = "modelops.dev/"
RECONCILE = "reconcile"
"""Look again, at the registry too, and do what is to be done."""
REBUILD = "rebuild"
"""Build the image anew, with the runtime and the base image that are configured now."""
UPDATE = "update"
"""Replace image and pods that this operator would make otherwise than those that run."""
WISH_LENGTH = 1024
"""As much of a value as `status.handledRequests` takes."""


def wish(desired: ModelDeployment, name: str) -> str | None:
    """Give the value of a wish; None where the user has none."""
    return desired.metadata.annotations.get(PREFIX + name, "")[:WISH_LENGTH] or None


def pending_rebuild(scene: Scene, desired: ModelDeployment) -> str | None:
    """Give the value of the wish, unless it was granted before."""
    return _pending(scene, desired, REBUILD)


def pending_update(scene: Scene, desired: ModelDeployment) -> str | None:
    """Give the value of the wish, unless it was granted before."""
    return _pending(scene, desired, UPDATE)


def granted_wishes(scene: Scene, desired: ModelDeployment, *, updated: bool) -> Mapping[str, str]:
    """Remember the wishes that are granted.

    To look again is granted by this very pass, to rebuild when what runs was built for it, to
    update when there is nothing left to do for it, which `updated` tells.
    """
    reconciled, rebuilt = wish(desired, RECONCILE), wish(desired, REBUILD)
    update = wish(desired, UPDATE)
    running = scene.running
    return {
        **scene.handled,
        **({RECONCILE: reconciled} if reconciled else {}),
        **({UPDATE: update} if update and updated else {}),
        **({REBUILD: rebuilt} if rebuilt and running and running.rebuild == rebuilt else {}),
    }


def _pending(scene: Scene, desired: ModelDeployment, name: str) -> str | None:
    wished = wish(desired, name)
    return None if wished == scene.handled.get(name) else wished
