"""The inputs of a model without our flavor, from the signature in its MLmodel."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from modelops_runtime.schema import Input, Output, Schema, SchemaError, Storage

MLMODEL: Final = "MLmodel"
WHY_NOT_FASTER: Final = "modelops.why_not_faster"
"""Where in a model's metadata training tells why it could not compile it."""
_EXAMPLE: Final = "input_example.json"
_INTEGERS: Final = {"integer", "long"}
_NUMBERS: Final = {"float", "double", *_INTEGERS}
_CATEGORIES: Final = {"string", "boolean", "datetime"}
_STORAGE: Final[Mapping[str, Storage]] = {
    "boolean": "boolean",
    "datetime": "datetime",
    "float": "float32",
    "integer": "int32",
    "string": "text",
}
"""What MLflow takes for a column, where that is less than the kind of the column does."""


class SignatureError(ValueError):
    """A model whose inputs are not known; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Signature:
    """Columns of a model in order."""

    types: Mapping[str, str]
    """MLflow's type of each column."""
    schema: Schema
    """What checks the rows; its categories have no levels, since a signature tells none."""
    why_not_faster: str | None = None
    """Why training could not compile the model, where it tried."""


def read_signature(folder: Path) -> Signature:
    """Read a model's signature. Raises SignatureError when it does not name columns."""
    import yaml  # noqa: PLC0415 (only models without the flavor need it; it comes with BentoML)

    path = folder / MLMODEL
    try:
        described = yaml.safe_load(path.read_text(encoding="utf-8"))
        columns = orjson.loads(described["signature"]["inputs"])
        inputs = tuple(_input(column) for column in columns)
        types = {column["name"]: column["type"] for column in columns}
        metadata = described.get("metadata") or {}
        return Signature(
            types,
            Schema(inputs, Output(kind="regressor", name="prediction")),
            metadata.get(WHY_NOT_FASTER),
        )
    except OSError as error:
        raise SignatureError(f"{path}: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, TypeError, LookupError, SchemaError) as error:
        raise SignatureError(
            f"{path}: has no signature with named columns ({error!r}); log the model with one,"
            " see `mlflow.models.infer_signature`"
        ) from error


def read_example(folder: Path) -> tuple[Mapping[str, Any], ...]:
    """Read the first rows of the example that was logged with a model; none, if it has no frame."""
    try:
        content = orjson.loads((folder / _EXAMPLE).read_bytes())
        return tuple(dict(zip(content["columns"], row, strict=True)) for row in content["data"][:2])
    except (OSError, ValueError, TypeError, LookupError):
        return ()


def _input(column: Mapping[str, Any]) -> Input:
    kind = column["type"]
    if kind not in _NUMBERS | _CATEGORIES:
        raise SignatureError(f"column {column['name']} of type {kind!r} cannot be served")
    return Input(
        name=column["name"],
        kind="number" if kind in _NUMBERS else "category",
        integer=kind in _INTEGERS,
        nullable=not column.get("required", True),
        storage=_STORAGE.get(kind),
    )
