"""What Swagger shows of `POST /predict`: the model's own inputs, and rows of its own as example."""

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
_MOST_LEVELS: Final = 50
"""Levels that the documentation lists."""


def records(schema: Schema, example: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Describe the request's body as JSON schema."""
    required = [column.name for column in schema.inputs if not column.nullable]
    rows = {
        "type": "object",
        "title": "Record",
        "properties": {column.name: _property(column) for column in schema.inputs},
        "additionalProperties": False,
        **({"required": required} if required else {}),
    }
    body: dict[str, Any] = {"type": "array", "title": "Records", "items": rows}
    return {**body, "example": list(example)} if example else body


def _property(column: Input) -> dict[str, Any]:
    return {
        **_value(column),
        **({"nullable": True} if column.nullable else {}),
        **({"description": text} if (text := _description(column)) else {}),
    }


def _value(column: Input) -> dict[str, Any]:
    if column.kind == "category":
        return {"type": "string"}
    return {"type": "integer" if column.integer else "number"}


def _description(column: Input) -> str:
    """Say what training saw; other values are accepted, so these are no limits of the schema."""
    parts = []
    if column.levels:
        more = ", ..." if len(column.levels) > _MOST_LEVELS else ""
        parts.append(f"one of {', '.join(column.levels[:_MOST_LEVELS])}{more}")
    if column.minimum is not None and column.maximum is not None:
        parts.append(f"{column.minimum:g} to {column.maximum:g} in training")
    if column.unit:
        parts.append(f"in {column.unit}")
    return "; ".join(parts)
