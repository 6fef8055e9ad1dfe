"""Which images are in use: the clusters that use a registry are asked, all of them or nothing."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from modelops_operator.adapters.kubernetes import (
    CHILDREN,
    MODEL_DEPLOYMENTS,
    MODEL_IMAGES,
    PODS,
    ApiError,
    Cluster,
)

_DIGEST: Final = re.compile(r"@(sha256:[0-9a-f]{64})")
_OURS: Final = "app.kubernetes.io/managed-by=modelops-operator"
_USERS: Final = (
    (MODEL_DEPLOYMENTS, ""),
    (MODEL_IMAGES, ""),
    (CHILDREN["Deployment"], _OURS),
    (PODS, _OURS),
)


class UsersUnknownError(Exception):
    """It cannot be told which images are in use; the message says why."""


@dataclass(slots=True)
class Usage:
    """What the clusters use."""

    digests: set[str] = field(default_factory=set)
    """Every digest that any object of ours names."""
    building: list[str] = field(default_factory=list)
    """ModelImages that are not built yet, whose layers nobody names so far."""


async def usage(contexts: Iterable[str | None]) -> Usage:
    """Ask the clusters of a kubeconfig's contexts; None is the current one.

    Raises UsersUnknownError when one of them does not tell everything.
    """
    found = Usage()
    for context in contexts:
        try:
            cluster = await Cluster.connect(context)
            try:
                await _ask(cluster, found)
            finally:
                await cluster.close()
        except ApiError as error:
            where = f"context {context}" if context else "the current context"
            raise UsersUnknownError(
                f"{where} does not tell which images are in use ({error.message}): nothing is "
                "deleted unless every cluster that uses the registry answers"
            ) from error
    return found


async def _ask(cluster: Cluster, found: Usage) -> None:
    for resource, labels in _USERS:
        async for live in cluster.list(resource, None, labels):
            found.digests |= set(_DIGEST.findall(json.dumps(live)))
            if resource is MODEL_IMAGES and not _ended(live):
                found.building.append(live["metadata"]["name"])


def _ended(live: dict[str, object]) -> bool:
    """Tell whether a build has come to an end, good or bad."""
    status = live.get("status")
    conditions = status.get("conditions", ()) if isinstance(status, dict) else ()
    states = {condition["type"]: condition["status"] for condition in conditions}
    return states.get("Ready") == "True" or states.get("Stalled") == "True"
