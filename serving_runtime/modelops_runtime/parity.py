"""Proof at start: a model answers the rows of its parity.json as it did where it was trained."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from modelops_runtime.forest import ForestError
from modelops_runtime.outlier import OutlierDetector
from modelops_runtime.predictors import Predictor
from modelops_runtime.profile import Profile
from modelops_runtime.schema import InvalidRows, Matrix, Schema

Numbers = NDArray[np.float64]


class ParityError(ValueError):
    """A model does not answer its own rows as expected; the message says which, and by how much."""


def size(expected: Numbers) -> Numbers:
    """Tell what a difference is small beside: 1, the value itself, or what values usually are.

    Sums of 32 bits, as XGBoost makes them, are exact for the terms rather than for a sum near 0.
    """
    sizes = np.abs(expected)
    return np.maximum(sizes, max(1.0, float(np.median(sizes))))


@dataclass(frozen=True, slots=True, eq=False)
class Parity:
    """Rows with known answers."""

    rows: list[Mapping[str, Any]]
    matrix: Matrix
    expected: Numbers
    """Probabilities (n, classes), values or distances (n,), bins (n, inputs)."""
    tolerance: float
    """The largest difference that is allowed, in parts of the `size` of values."""

    @classmethod
    def from_json(cls, content: bytes, schema: Schema) -> "Parity":
        """Read parity.json. Raises ParityError."""
        try:
            data = orjson.loads(content)
            rows = list(data["rows"])
            expected = np.array(data["expected"], dtype=np.float64)
            tolerance = float(data["tolerance"])
            matrix = schema.encode(rows)
        except (ValueError, TypeError, KeyError, InvalidRows) as error:
            raise ParityError(f"parity.json is not understood: {error}") from error
        if not rows or len(expected) != len(rows):
            raise ParityError(f"parity.json has {len(rows)} rows and {len(expected)} answers")
        return cls(rows, matrix, expected, tolerance)

    def prove_predictor(self, predictor: Predictor) -> None:
        """Compare a predictor's probabilities or values. Raises ParityError."""
        answers = predictor.predict(self.rows, self.matrix)
        found = answers.scores if answers.probabilities is None else answers.probabilities
        self._compare(found if found is not None else np.array(answers.predictions))

    def prove_detector(self, detector: OutlierDetector) -> None:
        """Compare an outlier detector's scores. Raises ParityError."""
        self._compare(self._run(detector.score))

    def prove_profile(self, profile: Profile) -> None:
        """Compare the bins that a reference profile puts the rows into. Raises ParityError."""
        self._compare(self._run(profile.place).astype(np.float64))

    def _run(self, model: Callable[[Matrix], NDArray[Any]]) -> NDArray[Any]:
        try:
            return model(self.matrix)
        except (ValueError, ForestError) as error:
            raise ParityError(f"does not fit the {self.matrix.shape[1]} inputs: {error}") from error

    def _compare(self, found: Numbers) -> None:
        if found.shape != self.expected.shape:
            raise ParityError(f"answers of shape {found.shape}, expected {self.expected.shape}")
        off = np.abs(found - self.expected) / size(self.expected)
        # Written so that NaN is wrong, too.
        wrong = ~((off <= self.tolerance) | (found == self.expected))
        if wrong.any():
            rows = np.unique(np.nonzero(wrong)[0])
            first = int(rows[0])
            raise ParityError(
                f"{len(rows)} of {len(self.rows)} parity rows are answered wrongly, first row"
                f" {first}: got {found[first].tolist()}, expected {self.expected[first].tolist()}"
                f" (tolerance {self.tolerance:g})"
            )
