"""Reference rows with the answers expected to them: what a runtime proves itself on at start."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from modelops_runtime.schema import Input, Schema

from modelops_training import inputs

ROWS = 200
UNKNOWN_LEVEL = "never seen in training"
# How far beyond the training data the extreme row lies, in widths of their range.
EXTREME = 10.0


def choose(frame: pd.DataFrame, schema: Schema, *, seed: int) -> list[dict[str, Any]]:
    """Pick up to 200 rows as JSON records; the first ones are made awkward.

    One has a missing value, one a category that training never saw, one a number far beyond the
    training data, as far as the schema has inputs for each.
    """
    count = min(ROWS, len(frame))
    places = np.random.default_rng(seed).choice(len(frame), count, replace=False)
    rows = inputs.records(frame.iloc[np.sort(places)], schema)
    for row, change in zip(rows, _awkward(schema), strict=False):
        row.update(change)
    return rows


def to_json(rows: list[dict[str, Any]], expected: list[Any], tolerance: float) -> bytes:
    """Write parity.json; `expected` has an answer for each row."""
    data = {"rows": rows, "expected": expected, "tolerance": tolerance}
    return json.dumps(data, allow_nan=False).encode() + b"\n"


def _awkward(schema: Schema) -> list[dict[str, Any]]:
    numbers = [column for column in schema.inputs if column.kind == "number"]
    categories = [each for each in schema.inputs if each.levels and not each.closed]
    nullable = [column for column in schema.inputs if column.nullable]
    changes: list[Mapping[str, Any]] = [{column.name: None} for column in nullable[:1]]
    changes += [{column.name: UNKNOWN_LEVEL} for column in categories[:1]]
    changes += [{column.name: extreme(column)} for column in numbers[:1]]
    return [dict(change) for change in changes]


def extreme(column: Input) -> float:
    """Give a number far beyond the training data, and still one that the schema takes."""
    low, high = column.minimum or 0.0, column.maximum or 0.0
    value = min(high + EXTREME * max(high - low, 1.0), column.limits[1])
    return int(value) if column.integer else value
