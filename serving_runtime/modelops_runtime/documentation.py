"""How rows look: the model's own inputs as JSON Schema, and the page of Swagger that shows it."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from modelops_runtime.schema import Input, Schema

PAGE: Final = b"""<!DOCTYPE html>
<html lang="en">
  <head>
    <meta charset="UTF-8">
    <title>Model server</title>
    <link rel="stylesheet" href="./static_content/swagger-ui.css">
    <link rel="stylesheet" href="./static_content/index.css">
    <link rel="icon" type="image/png" href="./static_content/favicon-light-32x32.png">
  </head>
  <body>
    <div id="swagger-ui"></div>
    <script src="./static_content/swagger-ui-bundle.js" charset="UTF-8"></script>
    <script src="./static_content/swagger-ui-standalone-preset.js" charset="UTF-8"></script>
    <script src="./static_content/swagger-initializer.js" charset="UTF-8"></script>
  </body>
</html>
"""
"""BentoML's page of Swagger UI without its tag manager, which reports visitors to Google."""
_KINDS: Final = {
    "number": ("number",),
    "float32": ("number",),
    "int32": ("integer",),
    "category": ("string", "number", "boolean"),
    "text": ("string",),
    "datetime": ("string",),
    "boolean": ("boolean",),
}
"""Types of JSON, by what holds the values."""
_MOST_LEVELS: Final = 50
"""Levels that the documentation lists."""


def record(schema: Schema) -> dict[str, Any]:
    """Describe a record: one row."""
    required = [column.name for column in schema.inputs if not column.nullable]
    return {
        "type": "object",
        "title": "Record",
        "properties": {column.name: cell(column) for column in schema.inputs},
        "additionalProperties": False,
        **({"required": required} if required else {}),
    }


def records(schema: Schema, example: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Describe a list of records."""
    body: dict[str, Any] = {"type": "array", "title": "Records", "items": record(schema)}
    return {**body, "examples": [list(example)]} if example else body


def table(schema: Schema) -> dict[str, Any]:
    """Describe rows as lists of values below the names of their columns."""
    names = list(schema.names)
    row = {
        "type": "array",
        "prefixItems": [cell(column) for column in schema.inputs],
        "minItems": len(names),
        "maxItems": len(names),
    }
    return {
        "type": "object",
        "title": "Table",
        "description": "Rows as lists of values. The columns may have another order than here,"
        " and those that may be missing may be left out.",
        "properties": {"columns": {"const": names}, "data": {"type": "array", "items": row}},
        "required": ["columns", "data"],
        "additionalProperties": False,
    }


def cell(column: Input) -> dict[str, Any]:
    """Describe a value of an input."""
    kinds = list(_KINDS[column.storage or column.kind])
    if column.integer:
        kinds = ["integer"]
    if column.nullable:
        kinds.append("null")
    described: dict[str, Any] = {"type": kinds[0] if len(kinds) == 1 else kinds}
    if column.integer:
        described["minimum"], described["maximum"] = column.limits
    text = _description(column)
    return {**described, "description": text} if text else described


def _description(column: Input) -> str:
    """Say what training saw; other values are accepted, so these are no limits of the schema."""
    parts = []
    if column.storage == "datetime":
        parts.append("a date or time as ISO 8601 writes it")
    if column.levels:
        more = ", ..." if len(column.levels) > _MOST_LEVELS else ""
        parts.append(f"one of {', '.join(column.levels[:_MOST_LEVELS])}{more}")
    if column.minimum is not None and column.maximum is not None:
        parts.append(f"{column.minimum:g} to {column.maximum:g} in training")
    if column.sensitive:
        parts.append("sensitive, and never logged")
    if column.unit:
        parts.append(f"in {column.unit}")
    return "; ".join(parts)
