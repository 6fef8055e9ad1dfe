"""What every benchmark ends with: one line of JSON that says which goals are met."""

import json
from collections.abc import Mapping, Sequence
from typing import Any


def goal(name: str, value: float, bound: float) -> dict[str, Any]:
    """Compare a figure with the most that it should be."""
    return {"name": name, "value": round(value, 4), "bound": f"<= {bound}", "met": value <= bound}


def at_least(name: str, value: float, bound: float) -> dict[str, Any]:
    """Compare a figure with the least that it should be."""
    return {"name": name, "value": round(value, 4), "bound": f">= {bound}", "met": value >= bound}


def conclude(
    benchmark: str, goals: Sequence[dict[str, Any]], figures: Mapping[str, float] | None = None
) -> None:
    """Print the line; `figures` are those without a goal."""
    told = {name: round(value, 4) for name, value in (figures or {}).items()}
    print(json.dumps({"benchmark": benchmark, "goals": list(goals), "figures": told}))
