"""The ways to ask for predictions: each turns a body into records, and an answer into a body.

    plain         POST /predict, this project's own
    inference     the Open Inference Protocol, /v2/models/<name>/infer
    invocations   MLflow's scoring server, /invocations

Between the two all are the same: records are what the models' tables encode, whoever sent them.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, TypeAlias

import orjson

from modelops_runtime import problems
from modelops_runtime.answering import Answered
from modelops_runtime.problems import Refusal
from modelops_runtime.schema import SHOWN_PROBLEMS, InvalidRows, Problem, Schema, shown

Record: TypeAlias = dict[str, Any]

_OPTIONS: Final = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS
_ROWS: Final = {"rows"}
_TABLE: Final = {"columns", "data"}


@dataclass(frozen=True, slots=True)
class Asked:
    """What a body asks for."""

    records: list[Record]
    write: Callable[[Answered], bytes]
    """Write the answer as this request wants it."""


@dataclass(frozen=True, slots=True)
class Interface:
    """One way to ask."""

    read: Callable[[bytes, bytes], Asked]
    """Read a body, given its media type. Raises Refusal or InvalidRows."""
    translate: Callable[[Refusal], Refusal]
    """Tell a refusal as clients of this interface expect it."""


def plain(schema: Schema) -> Interface:
    """Make the interface of `/predict`: records, or rows below the names of their columns."""

    def read(body: bytes, media_type: bytes) -> Asked:
        del media_type  # curl calls everything a form
        content = parse(body)
        if isinstance(content, dict):
            if content.keys() == _ROWS:
                content = content["rows"]
            elif content.keys() == _TABLE:
                content = from_table(schema, content["columns"], content["data"])
        if not isinstance(content, list):
            raise problems.not_a_list(content, schema.names)
        return Asked(content, _write)

    return Interface(read, lambda refusal: refusal)


def parse(body: bytes) -> Any:
    """Read JSON. Raises Refusal."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise problems.not_json(error, body) from error


def dump(content: object) -> bytes:
    """Write JSON; what it does not know, such as a date that a model gives, as text."""
    return orjson.dumps(content, default=str, option=_OPTIONS)


def from_table(schema: Schema, columns: object, data: object) -> list[Record]:
    """Make records of rows that are lists of values, in the columns' order."""
    names = _names(schema, columns)
    if not isinstance(data, list):
        raise malformed("data", data, "a list of rows, each a list of values")
    width = len(names)
    wrong = [
        number for number, row in enumerate(data) if not isinstance(row, list) or len(row) != width
    ]
    if wrong:
        expected = f"a list of {width} values, one for each column"
        raise InvalidRows(
            [
                Problem(number, "", shown(data[number]), expected)
                for number in wrong[:SHOWN_PROBLEMS]
            ],
            len(wrong),
        )
    return [dict(zip(names, row, strict=True)) for row in data]


def from_columns(schema: Schema, columns: Mapping[str, Sequence[Any]]) -> list[Record]:
    """Make records of columns, which have to be of one length."""
    names = _names(schema, list(columns))
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        first, *rest = names
        other = next(name for name in rest if lengths[name] != lengths[first])
        raise malformed(
            other, f"{lengths[other]} values", f"as many as {first} has: {lengths[first]}"
        )
    return [dict(zip(names, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def malformed(place: str, value: object, expected: str) -> Refusal:
    """Tell what is wrong with the form of a body, before there are any rows."""
    got = value if isinstance(value, str) else shown(value)
    return Refusal(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        f"{place}: got {got}, expected {expected}",
        title="The body does not have the form that is expected",
        more={"value": got, "expected": expected},
    )


def _names(schema: Schema, columns: object) -> list[str]:
    known = set(schema.names)
    if not isinstance(columns, list) or not columns or not all(_is_text(columns)):
        raise malformed("columns", columns, f"a list of names, such as {list(schema.names[:3])}")
    for name in columns:
        if name not in known:
            raise malformed("columns", name, f"names of the model's inputs: {listed(schema)}")
    if len(set(columns)) != len(columns):
        twice = next(name for name in columns if columns.count(name) > 1)
        raise malformed("columns", f"{twice} twice", "each name once")
    return columns


def listed(schema: Schema) -> str:
    """Name the inputs, the first ten of them."""
    more = len(schema.names) - 10
    return ", ".join(schema.names[:10]) + (f" and {more} more" if more > 0 else "")


def _is_text(values: Iterable[object]) -> Iterable[bool]:
    return (isinstance(value, str) for value in values)


def _write(answered: Answered) -> bytes:
    return dump(answered.content)
