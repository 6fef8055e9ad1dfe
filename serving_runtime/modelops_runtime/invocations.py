"""MLflow's scoring server: `/invocations` takes what it takes and answers what it answers.

https://mlflow.org/docs/latest/ml/deployment/deploy-model-locally/

JSON is one of `dataframe_records`, `dataframe_split`, `instances` and `inputs`; what stands beside
it is ignored, as MLflow does. CSV is what `DataFrame.to_csv` writes. Unlike MLflow, columns that
the model does not know are refused: a misspelt one would be taken for a missing value.
"""

import csv
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from http import HTTPStatus
from io import StringIO
from typing import Any, Final

from modelops_runtime.answering import Answered
from modelops_runtime.interfaces import (
    Asked,
    Interface,
    Record,
    dump,
    from_columns,
    from_table,
    malformed,
    parse,
)
from modelops_runtime.problems import Refusal
from modelops_runtime.schema import Input, Schema

VERSION: Final = "3.17.2"
"""Of the MLflow that is followed; what `GET /version` answers."""
CSV: Final = b"text/csv"
_JSON: Final = b"application/json"
_FORMATS: Final = ("dataframe_records", "dataframe_split", "instances", "inputs")
_MISSING: Final = frozenset(
    {
        *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND"),
        *("1.#QNAN", "<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"),
    }
)
"""What pandas takes for a missing value when it reads CSV."""
_WHOLE: Final = re.compile(r"[+-]?[0-9]{1,18}")
_BOOLEANS: Final = {"true": True, "false": False}


def interface(schema: Schema) -> Interface:
    """Make the interface of `/invocations`."""

    def read(body: bytes, media_type: bytes) -> Asked:
        records = _csv if _kind(media_type) == CSV else _json
        return Asked(records(schema, body), _write)

    return Interface(read, _translate)


def _kind(media_type: bytes) -> bytes:
    kind, _, parameters = media_type.lower().partition(b";")
    kind = kind.strip() or _JSON
    if kind not in {_JSON, CSV} or parameters.strip() not in {b"", b"charset=utf-8"}:
        raise Refusal(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"content-type {media_type.decode('latin-1')} is not known;"
            " send application/json or text/csv, in UTF-8",
        )
    return kind


def _json(schema: Schema, body: bytes) -> list[Record]:
    content = parse(body)
    found = [name for name in _FORMATS if name in content] if isinstance(content, dict) else []
    if len(found) != 1:
        got = ", ".join(content) or "nothing" if isinstance(content, dict) else content
        raise malformed("the body", got, f"an object with one of {', '.join(_FORMATS)}")
    (name,) = found
    return _READERS[name](schema, content[name])


def _records(schema: Schema, content: object) -> list[Record]:
    del schema
    if not isinstance(content, list):
        raise malformed("dataframe_records", content, "a list of records")
    return content


def _split(schema: Schema, content: object) -> list[Record]:
    if not isinstance(content, dict) or "data" not in content:
        expected = '{"columns": [...], "data": [[...], ...]}'
        raise malformed("dataframe_split", content, expected)
    if extra := content.keys() - {"columns", "data", "index"}:
        raise malformed("dataframe_split", min(extra), "columns, data and perhaps index")
    index = content.get("index")
    if index is not None and not isinstance(index, list):
        raise malformed("index", index, "a list of the rows' names, which are not used")
    columns = content.get("columns")
    return from_table(schema, list(schema.names) if columns is None else columns, content["data"])


def _tensors(schema: Schema, content: object) -> list[Record]:
    """Read what TensorFlow Serving takes: rows of either form, columns, or one record."""
    if isinstance(content, dict):
        lists = [isinstance(values, list) for values in content.values()]
        if content and all(lists):
            return from_columns(schema, content)
        if any(lists):
            raise malformed("inputs", content, "a list of values for each column")
        return [content]
    if not isinstance(content, list):
        raise malformed("inputs", content, "a list of rows, or a list of values for each column")
    if content and all(isinstance(row, list) for row in content):
        return from_table(schema, list(schema.names), content)
    return content


_READERS: Final[Mapping[str, Callable[[Schema, object], list[Record]]]] = {
    "dataframe_records": _records,
    "dataframe_split": _split,
    "instances": _tensors,
    "inputs": _tensors,
}


def _csv(schema: Schema, body: bytes) -> list[Record]:
    try:
        # Spreadsheets write a byte order mark.
        text = body.decode("utf-8-sig")
        columns, *rows = (row for row in csv.reader(StringIO(text, newline=""), strict=True) if row)
    except UnicodeDecodeError as error:
        raise malformed("the body", f"{error.reason} at byte {error.start}", "UTF-8") from error
    except csv.Error as error:
        raise malformed("the body", str(error), "CSV") from error
    except ValueError as error:
        raise malformed("the body", "nothing", "CSV with a line of column names") from error
    if columns[0] == "" and len(columns) > 1:
        # The index, which `DataFrame.to_csv` writes unless told not to.
        columns, rows = columns[1:], [row[1:] for row in rows]
    inputs = {column.name: column for column in schema.inputs}
    table = from_table(schema, columns, rows)
    return [{name: _value(inputs[name], text) for name, text in row.items()} for row in table]


def _value(column: Input, text: str) -> Any:
    """Read a cell; text that is none of what the column takes stays, to be refused by name."""
    if text in _MISSING:
        return None
    if column.storage == "boolean":
        return _BOOLEANS.get(text.lower(), text)
    if column.kind == "category":
        return text
    if _WHOLE.fullmatch(text):
        return int(text)
    try:
        # Python's own grammar: underscores may stand between digits.
        return text if "_" in text else float(text)
    except ValueError:
        return text


def _write(answered: Answered) -> bytes:
    return dump({"predictions": _predictions(answered)})


def _predictions(answered: Answered) -> list[Any]:
    """Give what the model's own `python_function` gives, frames as records."""
    names = answered.columns
    predictions: list[Any] = answered.content["predictions"]
    probabilities = answered.content["probabilities"]
    if names is None:
        return predictions
    if probabilities is not None:
        rows = (
            (label, *chances) for label, chances in zip(predictions, probabilities, strict=True)
        )
    elif len(names) == 1:
        rows = ((value,) for value in predictions)
    else:
        rows = (tuple(values) for values in predictions)
    return [dict(zip(names, row, strict=True)) for row in rows]


def _translate(refusal: Refusal) -> Refusal:
    """Tell a refusal as MLflow does: 400 with a code and a message."""
    status = refusal.status
    if status == HTTPStatus.UNPROCESSABLE_ENTITY:
        status = HTTPStatus.BAD_REQUEST
    failed = status >= HTTPStatus.INTERNAL_SERVER_ERROR
    code = "INTERNAL_ERROR" if failed else "INVALID_PARAMETER_VALUE"
    told = {"error_code": code, "message": refusal.detail}
    return replace(refusal, status=status, more={**refusal.more, **told})
