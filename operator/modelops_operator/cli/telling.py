"""The revisions of a ModelDeployment, as its status tells them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from modelops_operator.adapters.kubernetes import (
    MODEL_DEPLOYMENTS,
    ApiError,
    Cluster,
    namespace_of,
)

COLUMNS = ("NUMBER", "STARTED", "OUTCOME", "CAUSE", "REQUESTED BY", "MODELS", "IMAGE")
_SHORT = len("sha256:") + 12


class UntoldError(Exception):
    """The cluster does not tell it; the message says why."""


async def revisions(name: str, namespace: str | None, context: str | None) -> list[dict[str, Any]]:
    """Read the last revisions, the newest first. Raises UntoldError."""
    try:
        place = namespace or namespace_of(context)
        cluster = await Cluster.connect(context)
        try:
            live = await cluster.get(MODEL_DEPLOYMENTS, place, name)
        finally:
            await cluster.close()
    except ApiError as error:
        raise UntoldError(f"ModelDeployment {name}: {error.message}") from error
    if live is None:
        raise UntoldError(
            f"there is no ModelDeployment {name} in the namespace {place}; "
            "`kubectl get modeldeployments --all-namespaces` lists what there is"
        )
    told: list[dict[str, Any]] = (live.get("status") or {}).get("history") or []
    return told


def table(entries: Iterable[Mapping[str, Any]]) -> str:
    """Lay the revisions out for people."""
    rows: list[Sequence[str]] = [COLUMNS, *map(_row, entries)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    return "\n".join(
        "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _row(entry: Mapping[str, Any]) -> Sequence[str]:
    models = (f"{model['name']}/{model['version']}" for model in entry.get("models") or ())
    return (
        str(entry["number"]),
        entry.get("startedAt") or "",
        entry.get("outcome") or "",
        entry.get("cause") or "",
        entry.get("requestedBy") or "",
        " ".join(models),
        (entry.get("image") or "")[:_SHORT],
    )
