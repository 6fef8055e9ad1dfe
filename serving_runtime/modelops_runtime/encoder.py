"""From the schema's matrix to the numbers that a model reads: what a pipeline does, as tables.

Training writes down what the fitted transformers make of each input; here numpy does the same to
whole requests, without pandas and without the library that fitted them. A number goes through
elementwise steps (impute, subtract, divide, ...). Of a category there is a table with one row for
each level, one for a missing and one for an unseen value; its columns are what a one-hot, ordinal
or target encoder gives, whatever their options were.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self, TypeAlias

import numpy as np
import orjson
from numpy.typing import NDArray

from modelops_runtime.schema import UNSEEN, Matrix

Places: TypeAlias = NDArray[np.intp]
Columns: TypeAlias = Places | slice


class EncoderError(ValueError):
    """An encoder.json that is not one; the message says what is wrong."""


class OutOfRange(ValueError):  # noqa: N818 (it names what is wrong with the rows, as InvalidRows)
    """A number that fits the schema and is too large for the model."""


def _narrow(values: Matrix) -> Matrix:
    return values.astype(np.float32).astype(np.float64)


STEPS: Final[Mapping[str, Callable[[Matrix, Any], Matrix]]] = {
    "impute": lambda values, known: np.where(np.isnan(values), known, values),
    "missing": lambda values, _: np.isnan(values).astype(np.float64),
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
    "divide": np.divide,
    "least": np.maximum,
    "most": np.minimum,
    "float32": lambda values, _: _narrow(values),
    "abs": lambda values, _: np.abs(values),
    "exp": lambda values, _: np.exp(values),
    "expm1": lambda values, _: np.expm1(values),
    "log": lambda values, _: np.log(values),
    "log10": lambda values, _: np.log10(values),
    "log1p": lambda values, _: np.log1p(values),
    "log2": lambda values, _: np.log2(values),
    "sqrt": lambda values, _: np.sqrt(values),
    "square": lambda values, _: np.square(values),
}
"""What can be done to numbers, elementwise; the second argument is one number for each column."""


@dataclass(frozen=True, slots=True, eq=False)
class Numbers:
    """Inputs that go through the same kinds of steps."""

    inputs: Places
    """Columns of the schema's matrix, (c,)."""
    into: Places
    """Columns of the features, (c,)."""
    steps: tuple[tuple[str, NDArray[np.float64]], ...]
    """Name in `STEPS`, and a number for each column, (c,)."""


@dataclass(frozen=True, slots=True, eq=False)
class Tables:
    """Inputs of which each category becomes the same count of features."""

    inputs: Places
    """Columns of the matrix, or of the codes that `known` adds to it, (c,)."""
    into: Places
    """Columns of the features, (c * width,)."""
    levels: Places
    """Number of levels of each input, (c,)."""
    rows: NDArray[np.float64]
    """For each input its levels in order, then missing, then unseen: (sum(levels) + 2c, width)."""


@dataclass(frozen=True, slots=True, eq=False)
class Encoder:
    """Makes a model's features of the schema's matrix."""

    features: int
    """Number of columns that the model reads."""
    numbers: tuple[Numbers, ...] = ()
    tables: tuple[Tables, ...] = ()
    known: tuple[tuple[int, NDArray[np.float64]], ...] = ()
    """Numbers that are categories to the model: input, and its known values in ascending order.
    Each adds a column of codes behind the matrix."""
    narrow: bool = False
    """The model rounds its features to 32 bits."""
    finite: bool = True
    """The model refuses infinite features, which numbers too large for it become."""
    _numbers: Sequence[tuple[Numbers, Columns, Columns]] = field(init=False, repr=False)
    """With where they come from and go to."""
    _tables: Sequence[tuple[Tables, Columns, Columns, Places]] = field(init=False, repr=False)
    """The same, with the first row of each input."""

    def __post_init__(self) -> None:
        filled = [place for block in self.numbers for place in block.into.tolist()]
        filled += [place for block in self.tables for place in block.into.tolist()]
        if sorted(filled) != list(range(self.features)):
            raise EncoderError(f"not each of the {self.features} features is made once")
        if unknown := {name for block in self.numbers for name, _ in block.steps} - STEPS.keys():
            raise EncoderError(f"steps {sorted(unknown)} are not known")
        for table in self.tables:
            wide = len(table.into) // max(len(table.inputs), 1)
            if table.rows.shape != (int((table.levels + 2).sum()), wide):
                raise EncoderError(f"a table of shape {table.rows.shape} does not fit its inputs")
        numbers = [(block, _run(block.inputs), _run(block.into)) for block in self.numbers]
        object.__setattr__(self, "_numbers", numbers)
        tables = [
            (block, _run(block.inputs), _run(block.into), _starts(block.levels))
            for block in self.tables
        ]
        object.__setattr__(self, "_tables", tables)

    @classmethod
    def from_json(cls, content: bytes) -> Self:
        """Read encoder.json. Raises EncoderError."""
        try:
            data = orjson.loads(content)
            return cls(
                features=int(data["features"]),
                numbers=tuple(
                    Numbers(
                        _places(block["inputs"]),
                        _places(block["into"]),
                        tuple((str(name), _floats(values)) for name, values in block["steps"]),
                    )
                    for block in data["numbers"]
                ),
                tables=tuple(
                    Tables(
                        _places(block["inputs"]),
                        _places(block["into"]),
                        _places(block["levels"]),
                        _floats(block["rows"]),
                    )
                    for block in data["tables"]
                ),
                known=tuple(
                    (int(each["input"]), _floats(each["values"])) for each in data["known"]
                ),
                narrow=bool(data["narrow"]),
                finite=bool(data["finite"]),
            )
        except EncoderError:
            raise
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise EncoderError(f"not an encoder: {error!r}") from error

    def to_json(self) -> bytes:
        """Write encoder.json: the same encoder always gives the same bytes."""
        return orjson.dumps(
            {
                "features": self.features,
                "numbers": [
                    {"inputs": block.inputs, "into": block.into, "steps": block.steps}
                    for block in self.numbers
                ],
                "tables": [
                    {
                        "inputs": block.inputs,
                        "into": block.into,
                        "levels": block.levels,
                        "rows": np.ascontiguousarray(block.rows),
                    }
                    for block in self.tables
                ],
                "known": [{"input": place, "values": values} for place, values in self.known],
                "narrow": self.narrow,
                "finite": self.finite,
            },
            option=orjson.OPT_SERIALIZE_NUMPY,
        )

    def __call__(self, matrix: Matrix) -> Matrix:
        """Make the features of encoded rows: shape (n, inputs) -> (n, features).

        Raises OutOfRange for numbers that the model itself refuses.
        """
        # What overflows, or has no logarithm, becomes what numpy makes of it in the pipeline.
        with np.errstate(all="ignore"):
            features = self._features(matrix)
            if self.narrow:
                features = _narrow(features)
        if self.finite and np.isinf(features).any():
            row = int(np.isinf(features).any(axis=1).argmax())
            limit = " of 32 bits" if self.narrow else ""
            raise OutOfRange(f"row {row}: a number is too large for the model's numbers{limit}")
        return features

    def _features(self, matrix: Matrix) -> Matrix:
        features = np.empty((len(matrix), self.features))
        for block, inputs, into in self._numbers:
            values = matrix[:, inputs]
            for name, numbers in block.steps:
                values = STEPS[name](values, numbers)
            features[:, into] = values
        if self.known:
            codes = [_codes(matrix[:, place], values) for place, values in self.known]
            matrix = np.column_stack([matrix, *codes])
        for table, inputs, into, starts in self._tables:
            found = matrix[:, inputs]
            place = np.where(np.isnan(found), table.levels, found)
            place = np.where(found == UNSEEN, table.levels + 1, place).astype(np.intp)
            made = table.rows[place + starts]
            features[:, into] = made.reshape(len(matrix), len(table.into))
        return features


def _codes(numbers: NDArray[np.float64], known: NDArray[np.float64]) -> NDArray[np.float64]:
    """Find numbers among the known ones: their places, `UNSEEN`, or NaN for what is missing."""
    place = np.minimum(np.searchsorted(known, numbers), len(known) - 1)
    codes = np.where(known[place] == numbers, place, UNSEEN)
    return np.where(np.isnan(numbers), np.nan, codes)


def _run(places: Places) -> Columns:
    """Give places that follow one another as a slice: numpy looks each of the others up."""
    if len(places) and (np.diff(places) == 1).all():
        return slice(int(places[0]), int(places[-1]) + 1)
    return places


def _starts(levels: Places) -> Places:
    """Give the first row of each input of a table."""
    return np.concatenate(([0], np.cumsum(levels + 2)[:-1])).astype(np.intp)


def _places(values: object) -> Places:
    return np.array(values, dtype=np.intp)


def _floats(values: object) -> NDArray[np.float64]:
    """Read numbers; null stands for NaN."""
    return np.array(values, dtype=np.float64)
