"""The forms that a predictor can be served in, and which of them is: the fastest that is exact.

A form is proved on the model's own reference rows before it serves. What was tried and why a
faster form does not serve is kept, to be told in the log, in /metadata and in the metrics.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import orjson
from numpy.typing import NDArray

from modelops_runtime import flavor
from modelops_runtime.flavor import FlavorInfo
from modelops_runtime.forest import Forest, ForestError
from modelops_runtime.schema import InvalidRows, Matrix, Output, Schema

Probabilities = NDArray[np.float64]


class ModelError(RuntimeError):
    """A model cannot be served; the message says which and why, in one line."""


class _Unfit(Exception):  # noqa: N818 (private signal between a form and the choice)
    """A form cannot be made, or is not exact."""


class Form(Protocol):
    """A predictor that answers encoded rows."""

    name: str
    """As in telemetry and metrics."""

    def predict(self, matrix: Matrix) -> Probabilities:
        """Shape (n, k) for k classes, (n,) for two classes (of the second) and for regressors."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """A form that does not serve."""

    form: str
    why: str


@dataclass(frozen=True, slots=True)
class Choice:
    """The form that serves, and the faster ones that do not."""

    form: Form
    rejected: tuple[Rejected, ...] = ()


@dataclass(frozen=True, slots=True)
class Parity:
    """Reference rows and what the original model answered."""

    rows: Sequence[dict[str, Any]]
    expected: NDArray[np.float64]
    tolerance: float

    @classmethod
    def read(cls, info: FlavorInfo) -> "Parity":
        """Read parity.json. Raises ModelError."""
        try:
            data = orjson.loads(info.load(flavor.PARITY))
            parity = cls(
                rows=list(data["rows"]),
                expected=np.array(data["expected"], dtype=np.float64),
                tolerance=float(data.get("tolerance", 0.0)),
            )
        except (ValueError, TypeError, KeyError) as error:
            raise ModelError(
                f"{info.role}: {flavor.PARITY} is not understood: {error!r}"
            ) from error
        if not len(parity.rows) or len(parity.rows) != len(parity.expected):
            raise ModelError(
                f"{info.role}: {flavor.PARITY} has {len(parity.rows)} rows and "
                f"{len(parity.expected)} answers"
            )
        return parity

    def encoded(self, schema: Schema, role: str) -> Matrix:
        """Encode the rows. Raises ModelError."""
        try:
            return schema.encode(self.rows)
        except InvalidRows as error:
            message = f"{role}: the reference rows do not fit {flavor.SCHEMA}: {error}"
            raise ModelError(message) from error


class Treelite:
    """The trees compiled into Treelite's form: no training library is needed."""

    name: Final = "treelite"

    def __init__(self, info: FlavorInfo, schema: Schema) -> None:
        try:
            self._forest = Forest(info.load(flavor.TREELITE))
        except ForestError as error:
            raise _Unfit(str(error)) from error
        if self._forest.inputs > len(schema.inputs):
            raise _Unfit(f"it looks at {self._forest.inputs} inputs of {len(schema.inputs)}")
        self._output = schema.output

    def predict(self, matrix: Matrix) -> Probabilities:
        """See Form."""
        return _shaped(self._forest.predict(matrix), self._output)


class LightGBM:
    """The trees in LightGBM itself, where the image has it."""

    name: Final = "lightgbm"

    def __init__(self, info: FlavorInfo, schema: Schema) -> None:
        if flavor.LIGHTGBM not in info.files:
            raise _Unfit(f"the model has no {flavor.LIGHTGBM}")
        try:
            import lightgbm  # noqa: PLC0415 (it takes a second, and is rarely needed)
        except ImportError as error:
            raise _Unfit("lightgbm is not in the image") from error
        try:
            self._booster = lightgbm.Booster(model_str=info.load(flavor.LIGHTGBM).decode())
        except (lightgbm.basic.LightGBMError, UnicodeDecodeError) as error:
            raise _Unfit(str(error)) from error
        self._output = schema.output

    def predict(self, matrix: Matrix) -> Probabilities:
        """See Form."""
        answers = self._booster.predict(matrix, num_threads=1)
        return _shaped(np.asarray(answers).reshape(len(matrix), -1), self._output)


FORMS: Final[tuple[tuple[str, Callable[[FlavorInfo, Schema], Form]], ...]] = (
    (Treelite.name, Treelite),
    (LightGBM.name, LightGBM),
)
"""From the fastest to the slowest."""


def choose(info: FlavorInfo, schema: Schema, parity: Parity) -> Choice:
    """Give the fastest form that answers the reference rows as the original model did.

    Raises ModelError when none does.
    """
    rejected: list[Rejected] = []
    matrix = parity.encoded(schema, info.role)
    expected = _expected(parity, schema.output)
    for name, make in FORMS:
        try:
            form = make(info, schema)
            _prove(form, matrix, expected, parity.tolerance, schema.output)
        except _Unfit as unfit:
            rejected.append(Rejected(name, str(unfit)))
        else:
            return Choice(form, tuple(rejected))
    reasons = "; ".join(f"{each.form}: {each.why}" for each in rejected)
    raise ModelError(f"no form of the predictor answers its reference rows: {reasons}")


def labels(probabilities: Probabilities, output: Output) -> list[Any]:
    """Give the prediction for each row: a class, or the value itself of a regressor."""
    if output.classes is None:
        return probabilities.tolist()
    classes = output.classes
    return [classes[index] for index in _winners(probabilities).tolist()]


def scores(probabilities: Probabilities) -> NDArray[np.float64]:
    """Give the one figure of each row that is watched for drift: see `Profile.scores`."""
    return probabilities if probabilities.ndim == 1 else probabilities.max(axis=1)


def _winners(probabilities: Probabilities) -> NDArray[np.int64]:
    if probabilities.ndim == 1:
        return (probabilities > 0.5).astype(np.int64)
    return probabilities.argmax(axis=1)


def _shaped(answers: NDArray[Any], output: Output) -> Probabilities:
    """Bring shape (n, values) into that of Form."""
    wanted = 1 if output.classes is None else len(output.classes)
    values = answers.shape[1]
    if values == wanted > 2:
        return answers.astype(np.float64, copy=False)
    if values == wanted == 2:
        return answers[:, 1].astype(np.float64, copy=False)
    if values == 1 and wanted <= 2:
        return answers[:, 0].astype(np.float64, copy=False)
    raise _Unfit(f"it gives {values} values a row for {wanted} of the schema")


def _expected(parity: Parity, output: Output) -> Probabilities:
    answers = parity.expected
    try:
        return _shaped(answers.reshape(len(answers), -1), output)
    except _Unfit as error:
        raise ModelError(f"predictor: {flavor.PARITY}: {error}") from error


def _prove(
    form: Form, matrix: Matrix, expected: Probabilities, tolerance: float, output: Output
) -> None:
    found = form.predict(matrix)
    off = np.abs(found - expected)
    if not (off <= tolerance).all():
        worst = int(np.nan_to_num(off.reshape(len(off), -1).max(axis=1), nan=np.inf).argmax())
        raise _Unfit(
            f"it answers {found[worst].tolist()} to reference row {worst}, the model answered "
            f"{expected[worst].tolist()} (tolerance {tolerance:g})"
        )
    if output.classes is not None and (_winners(found) != _winners(expected)).any():
        raise _Unfit("it gives other labels on the reference rows")
