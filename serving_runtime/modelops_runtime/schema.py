"""What a model takes and gives: the table that turns records into the matrix that models read.

One schema belongs to all three models of a training. Columns of the matrix are the inputs in
their order. A number is itself, a category is the index of its level; what is missing is NaN, a
category that training never saw is `UNSEEN`.
"""

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, Literal, Self, TypeAlias

import numpy as np
import orjson
from numpy.typing import NDArray

Matrix: TypeAlias = NDArray[np.float64]
Kind = Literal["number", "category"]
Storage = Literal["boolean", "datetime", "float32", "int32", "text"]
OutputKind = Literal["classifier", "regressor"]
Label: TypeAlias = str | int | float | bool

UNSEEN: Final = -1.0
"""The code of a category that is not among the levels."""
MISSING: Final = math.nan
LARGEST_INTEGER: Final = 2**53
"""Beyond it, a float no longer tells neighbouring integers apart."""
SHOWN_PROBLEMS: Final = 5
"""How many problems an error spells out; the others it counts."""
_SHOWN_CHARACTERS: Final = 80
_LARGEST_FLOAT32: Final = float(np.finfo(np.float32).max)
_YEARS: Final = range(1678, 2262)
"""Nanoseconds since 1970, as models keep instants, reach no further."""
_STORED: Final[Mapping[str, frozenset[str]]] = {
    "number": frozenset({"float32", "int32"}),
    "category": frozenset({"boolean", "datetime", "text"}),
}
_EXPECTED: Final = {
    "boolean": "true or false",
    "datetime": f"a date or time as ISO 8601 writes it, such as {'2026-11-28T09:30:00'!r}"
    f", of the years {_YEARS.start} to {_YEARS.stop - 1}",
    "text": "text",
}


class SchemaError(ValueError):
    """A schema.json that is not one; the message names the place."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A value that the schema refuses."""

    row: int
    """Index in the rows, from 0."""
    field: str
    """Name of the input; empty when the row as a whole is wrong."""
    value: str
    """The value as JSON, shortened."""
    expected: str
    """What would have been right, for people."""


class InvalidRows(ValueError):  # noqa: N818 (it names what is wrong, as a ValueError does)
    """Rows that do not fit the schema.

    `problems` holds the first `SHOWN_PROBLEMS` of them, `total` is the number of all.
    """

    def __init__(self, problems: Sequence[Problem], total: int) -> None:
        self.problems = tuple(problems)
        self.total = total
        first = self.problems[0]
        where = f"row {first.row}" + (f", {first.field}" if first.field else "")
        more = f" (and {total - 1} more)" if total > 1 else ""
        super().__init__(f"{where}: got {first.value}, expected {first.expected}{more}")


class _Refused(Exception):  # noqa: N818 (private signal between a cell and its row)
    """A cell's value is not what `expected` says."""

    def __init__(self, expected: str) -> None:
        super().__init__(expected)
        self.expected = expected


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """One column."""

    name: str
    kind: Kind
    levels: tuple[str, ...] = ()
    """The categories in the order of their codes; empty for numbers."""
    integer: bool = False
    """Only whole numbers make sense."""
    nullable: bool = True
    """It may be missing: null, or left out of the record."""
    unit: str | None = None
    minimum: float | None = None
    """The least value in the training data; for people, not a limit."""
    maximum: float | None = None
    storage: Storage | None = None
    """What holds the values in a model that is strict about it: fewer values are taken then."""
    sensitive: bool = False
    """Nothing of it is logged, not even how often which values came."""
    closed: bool = False
    """Only the levels are taken: the model itself refuses any other category."""

    def __post_init__(self) -> None:
        if not self.name:
            raise SchemaError("an input has no name")
        if self.kind not in {"number", "category"}:
            raise SchemaError(f"input {self.name}: kind {self.kind!r} is not number or category")
        if len(set(self.levels)) != len(self.levels):
            raise SchemaError(f"input {self.name}: a level appears twice")
        if self.kind == "number" and self.levels:
            raise SchemaError(f"input {self.name}: a number has no levels")
        if self.storage is not None and (self.levels or self.storage not in _STORED[self.kind]):
            raise SchemaError(f"input {self.name}: {self.storage!r} does not hold a {self.kind}")
        if self.closed and not self.levels:
            raise SchemaError(f"input {self.name}: is closed and has no levels")

    @property
    def opaque(self) -> bool:
        """Whether only the model itself reads it: free text, a date."""
        return self.storage in {"datetime", "text"}

    @property
    def limits(self) -> tuple[float, float]:
        """The least and the largest number that is taken."""
        if self.integer:
            whole = (-(2**31), 2**31 - 1)
            return whole if self.storage == "int32" else (-LARGEST_INTEGER, LARGEST_INTEGER)
        largest = _LARGEST_FLOAT32 if self.storage == "float32" else sys.float_info.max
        return -largest, largest

    @property
    def expected(self) -> str:
        """What a value has to be, for people."""
        if self.kind == "category":
            what = _EXPECTED.get(self.storage or "") or self._expected_category
        elif self.integer:
            what = "a whole number from {} to {}".format(*self.limits)
        else:
            what = "a finite number" + (" of 32 bits" if self.storage == "float32" else "")
        return f"{what} or null" if self.nullable else what

    @property
    def _expected_category(self) -> str:
        levels = ", ".join(self.levels[:6]) + (", ..." if len(self.levels) > 6 else "")
        if self.closed:
            return f"one of the {len(self.levels)} categories {levels}"
        return "a category, text or a whole number" + (f" ({levels})" if levels else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """What the predictor gives."""

    kind: OutputKind
    name: str
    classes: tuple[Label, ...] | None = None
    """The labels in the order of the model's classes; None for a regressor."""

    def __post_init__(self) -> None:
        if self.kind not in {"classifier", "regressor"}:
            raise SchemaError(f"output {self.name}: kind {self.kind!r} is not known")
        if self.kind == "classifier" and len(self.classes or ()) < 2:
            raise SchemaError(f"output {self.name}: a classifier has at least two classes")
        if self.kind == "regressor" and self.classes is not None:
            raise SchemaError(f"output {self.name}: a regressor has no classes")


@dataclass(frozen=True, slots=True)
class Schema:
    """The inputs of a model in order, and its output."""

    inputs: tuple[Input, ...]
    output: Output
    _cells: tuple["_Cell", ...] = field(init=False, repr=False, compare=False)
    _names: frozenset[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        names = frozenset(column.name for column in self.inputs)
        if len(names) != len(self.inputs):
            raise SchemaError("an input's name appears twice")
        if not names:
            raise SchemaError("there are no inputs")
        object.__setattr__(self, "_cells", tuple(_Cell.of(column) for column in self.inputs))
        object.__setattr__(self, "_names", names)

    @classmethod
    def from_json(cls, content: bytes) -> Self:
        """Read schema.json. Raises SchemaError."""
        try:
            data = orjson.loads(content)
            output = dict(data["output"])
            if output.get("classes") is not None:
                output["classes"] = tuple(output["classes"])
            inputs = (
                Input(**{**each, "levels": tuple(each.get("levels", ()))})
                for each in data["inputs"]
            )
            return cls(tuple(inputs), Output(**output))
        except SchemaError:
            raise
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise SchemaError(f"not a schema: {error!r}") from error

    def to_json(self) -> bytes:
        """Write schema.json: the same schema always gives the same bytes."""
        inputs = [
            {
                "name": column.name,
                "kind": column.kind,
                "levels": column.levels,
                "integer": column.integer,
                "nullable": column.nullable,
                "unit": column.unit,
                "minimum": column.minimum,
                "maximum": column.maximum,
                # Left out where there is nothing to say: older runtimes do not know them.
                **({"storage": column.storage} if column.storage else {}),
                **({"sensitive": True} if column.sensitive else {}),
                **({"closed": True} if column.closed else {}),
            }
            for column in self.inputs
        ]
        output = {
            "kind": self.output.kind,
            "name": self.output.name,
            "classes": self.output.classes,
        }
        return orjson.dumps({"inputs": inputs, "output": output}, option=orjson.OPT_INDENT_2)

    @property
    def names(self) -> tuple[str, ...]:
        """The inputs' names in order."""
        return tuple(column.name for column in self.inputs)

    def encode(self, rows: Sequence[Mapping[str, object]]) -> Matrix:
        """Turn records into a matrix of shape (rows, inputs).

        Raises InvalidRows for rows that are not objects, unknown fields, missing values where
        none may be, values of another type, infinities, and integers that a float cannot hold.
        """
        values: list[float] = []
        append = values.append
        for row in rows:
            if not isinstance(row, dict) or not row.keys() <= self._names:
                raise self._explained(rows)
            get: Callable[[str], Any] = row.get
            for cell in self._cells:
                # The usual types are read here, without a call: this loop is most of a request.
                value = get(cell.name)
                kind = type(value)
                if kind is cell.plain:
                    append(value if cell.codes is None else cell.codes.get(value, UNSEEN))
                elif kind is int and cell.integers is not None:
                    append(cell.integers.get(value, UNSEEN))
                else:
                    try:
                        append(cell.read(value))
                    except _Refused:
                        raise self._explained(rows) from None
        matrix = np.array(values, dtype=np.float64).reshape(-1, len(self._cells))
        if not np.isfinite(matrix).all() and self._has_holes(matrix):
            raise self._explained(rows)
        return matrix

    def _has_holes(self, matrix: Matrix) -> bool:
        """Whether there are infinities, or NaN where nothing may be missing."""
        required = [not column.nullable for column in self.inputs]
        return bool(np.isinf(matrix).any() or np.isnan(matrix[:, required]).any())

    def _explained(self, rows: Sequence[Mapping[str, object]]) -> InvalidRows:
        """Find all that is wrong with the rows."""
        problems: list[Problem] = []
        total = 0
        for number, row in enumerate(rows):
            for name, value, expected in self._complaints(row):
                total += 1
                if len(problems) < SHOWN_PROBLEMS:
                    problems.append(Problem(number, name, shown(value), expected))
        return InvalidRows(problems, total)

    def _complaints(self, row: object) -> list[tuple[str, object, str]]:
        if not isinstance(row, dict):
            return [("", row, f"an object with the fields {_listed(self.names)}")]
        complaints: list[tuple[str, object, str]] = [
            (str(name), row[name], f"no such field; the fields are {_listed(self.names)}")
            for name in row
            if name not in self._names
        ]
        for cell in self._cells:
            value = row.get(cell.name)
            try:
                cell.read(value)
            except _Refused as refused:
                complaints.append((cell.name, value, refused.expected))
        return complaints


@dataclass(frozen=True, slots=True)
class _Cell:
    """Reads the values of one input."""

    name: str
    plain: type
    """The type that needs no look: float for numbers that need not be whole, str for categories."""
    codes: Mapping[str, float] | None
    """The codes of levels; None for numbers."""
    integers: Mapping[int, float] | None
    """The codes of levels that are written like integers; None for numbers."""
    read: Callable[[object], float]
    """Read any value; raises _Refused."""

    @classmethod
    def of(cls, column: Input) -> Self:
        if column.kind == "number":
            plain = type(Ellipsis) if column.integer or column.storage else float
            return cls(column.name, plain, None, None, partial(_number, column))
        if column.storage is not None:
            return cls(column.name, type(Ellipsis), None, None, partial(_stored, column))
        codes = {level: float(code) for code, level in enumerate(column.levels)}
        if column.closed:
            return cls(column.name, type(Ellipsis), None, None, partial(_level, column, codes))
        integers = {int(level): code for level, code in codes.items() if _is_integer(level)}
        return cls(column.name, str, codes, integers, partial(_category, column, codes))


def _number(column: Input, value: object) -> float:
    if value is None and column.nullable:
        return MISSING
    least, largest = column.limits
    if type(value) is int and least <= value <= largest:
        return float(value)
    if isinstance(value, float):
        if math.isnan(value) and column.nullable:
            return MISSING
        if least <= value <= largest and (not column.integer or value.is_integer()):
            return float(value)
    raise _Refused(column.expected)


def _stored(column: Input, value: object) -> float:
    """Check a value of a category that the model keeps as something else than a level."""
    if value is None and column.nullable:
        return MISSING
    fits = {
        "boolean": isinstance(value, bool),
        "datetime": isinstance(value, str) and instant(value) is not None,
        "text": isinstance(value, str),
    }
    if not fits.get(column.storage or "", False):
        raise _Refused(column.expected)
    return UNSEEN


def instant(text: str) -> datetime | None:
    """Read an ISO 8601 date or time as models keep it: in UTC, without saying so.

    None for what is none, or lies too far away.
    """
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    if found.year not in _YEARS:
        return None
    return found if found.tzinfo is None else found.astimezone(UTC).replace(tzinfo=None)


def _category(column: Input, codes: Mapping[str, float], value: object) -> float:
    if value is None and column.nullable:
        return MISSING
    if isinstance(value, str | bool) or type(value) is int:
        return codes.get(str(value), UNSEEN)
    if isinstance(value, float) and math.isfinite(value):
        # A column of integers with a missing value among them is a column of floats in pandas.
        code = codes.get(str(value))
        if code is None and value.is_integer():
            code = codes.get(str(int(value)))
        return UNSEEN if code is None else code
    if isinstance(value, float) and math.isnan(value) and column.nullable:
        return MISSING
    raise _Refused(column.expected)


def _level(column: Input, codes: Mapping[str, float], value: object) -> float:
    """Read a category that has to be one of the levels."""
    code = _category(column, codes, value)
    if code == UNSEEN:
        raise _Refused(column.expected)
    return code


def _is_integer(level: str) -> bool:
    """Whether the level is what `str` makes of an integer: 07 and +7 are not."""
    digits = level.removeprefix("-")
    return digits.isascii() and digits.isdigit() and len(digits) < 20 and str(int(level)) == level


def shown(value: object) -> str:
    """Write a value as JSON for an error message, shortened."""
    if isinstance(value, float):
        return repr(value)
    try:
        text = orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
    except (TypeError, ValueError):
        text = repr(value)
    return shortened(text)


def shortened(text: str) -> str:
    """Cut a text that is too long for a message."""
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 3]}..."


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
