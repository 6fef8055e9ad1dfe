"""The queries that Log Analytics is asked: each text is a file here, completed with its values."""

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib.resources import files
from typing import Final

from modelops_operator.adapters.origin import CONTAINER

LONGEST_LINE: Final = 8_000
"""Characters; the runtime writes at most 4,000 bytes a line."""


def telemetry(
    namespaces: Iterable[str], *, cluster: str, since: datetime, page: int, summary: str = ""
) -> str:
    """Ask for lines that arrived since a moment: at most a page of them, the oldest first.

    They are read from ContainerLogV2, or from the table of a summary rule whose name is given.
    """
    values = {
        **_place(namespaces, cluster),
        "since": f"datetime({since.astimezone(UTC).strftime('%Y-%m-%dT%H:%M:%S.%fZ')})",
        "longest": str(LONGEST_LINE),
    }
    name = "telemetry"
    if summary:
        name, values["summary"] = "summary", summary
    return f"{_completed(name, values)}| top {page} by Ingested asc\n"


def presence(namespaces: Iterable[str], *, cluster: str) -> str:
    """Ask what arrives of each namespace, telemetry or not."""
    return _completed("presence", _place(namespaces, cluster))


def _place(namespaces: Iterable[str], cluster: str) -> dict[str, str]:
    # A JSON string is a string of KQL as well.
    return {
        "namespaces": f"dynamic({json.dumps(sorted(namespaces))})",
        "container": json.dumps(CONTAINER),
        "cluster": json.dumps(cluster),
    }


def _completed(name: str, values: Mapping[str, str]) -> str:
    lets = "".join(f"let {variable} = {value};\n" for variable, value in values.items())
    return lets + files(__name__).joinpath(f"{name}.kql").read_text(encoding="utf-8")
