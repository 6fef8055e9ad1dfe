"""The forms in which a predictor answers: treelite, LightGBM itself, any model through MLflow.

    linear     weights of the modelops flavor: proved at start, as the next ones are
    treelite   trees of the same flavor
    lightgbm   the native file of the same flavor, where LightGBM is installed
    pyfunc     whatever MLflow can load, for models without the flavor and where it is asked for

Libraries are imported when a form is loaded, so that an image needs only those of its own form.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from modelops_runtime import flavor
from modelops_runtime.encoder import Encoder, EncoderError, OutOfRange
from modelops_runtime.flavor import FlavorInfo
from modelops_runtime.forest import Forest, ForestError
from modelops_runtime.linear import Linear, LinearError
from modelops_runtime.schema import Matrix, Output, instant

Rows: TypeAlias = Sequence[Mapping[str, object]]

_DTYPES: Final = {
    "boolean": "bool",
    "integer": "int32",
    "long": "int64",
    "float": "float32",
    "double": "float64",
    "datetime": "datetime64[ns]",
}
"""Types of columns in an MLflow signature, as pandas names them; text stays as it is."""


_INTEGERS: Final = {"integer", "long"}
_COMPARED: Final = 3
"""Rows of its example that a model answers alone and together, at start."""


class PredictorError(RuntimeError):
    """A form of the predictor that cannot be loaded, or an answer without sense."""


class RowsRefused(ValueError):  # noqa: N818 (it names what happened, as InvalidRows does)
    """Rows that fit the schema and that the model does not take; the message is the model's."""


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What a predictor says of n rows."""

    predictions: list[Any]
    """n labels or values."""
    probabilities: NDArray[np.float64] | None
    """Shape (n, classes); None where the model gives none."""
    scores: NDArray[np.float64] | None
    """Shape (n,): what the reference profile's scores are about; None where there is no number."""
    columns: tuple[str, ...] | None = None
    """Names of what MLflow's `python_function` gives for a row; None where it gives no frame."""


class Predictor(Protocol):
    """One form of a model."""

    @property
    def form(self) -> str:
        """Name of the form, as telemetry and metrics tell it."""

    def predict(self, rows: Rows, matrix: Matrix) -> Answer:
        """Answer n > 0 rows, given as records and encoded; safe to call from several threads."""


def answer(
    raw: NDArray[np.float64], output: Output, sums: NDArray[np.float64] | None = None
) -> Answer:
    """Read what a model gives: (n,), (n, 1, 1), (n, classes) or (n, 1, classes).

    `sums` decide the label where there are some, as long as there are classes: probabilities close
    to 1 are all the same. Raises PredictorError when the shape does not belong to the output.
    """
    flat = np.asarray(raw, dtype=np.float64).reshape(len(raw), -1)
    if output.classes is None:
        if flat.shape[1] != 1:
            raise PredictorError(f"{flat.shape[1]} values for each row, where one is expected")
        return Answer(flat[:, 0].tolist(), None, flat[:, 0], _columns(output))
    if flat.shape[1] == 1 and len(output.classes) == 2:
        flat = np.concatenate((1.0 - flat, flat), axis=1)
    if flat.shape[1] != len(output.classes):
        raise PredictorError(f"{flat.shape[1]} values for {len(output.classes)} classes")
    deciding = flat if sums is None or sums.shape != flat.shape else sums
    labels = [output.classes[index] for index in deciding.argmax(axis=1).tolist()]
    scores = flat[:, 1] if flat.shape[1] == 2 else flat.max(axis=1)
    return Answer(labels, flat, scores, _columns(output))


def _columns(output: Output) -> tuple[str, ...]:
    """Name what the `python_function` of a model with our flavor gives for a row."""
    return ("prediction", *(f"probability_{label}" for label in output.classes or ()))


class _Features:
    """What a predictor reads: the schema's matrix, or what the flavor's encoder makes of it."""

    def __init__(self, info: FlavorInfo) -> None:
        self._encoder: Encoder | None = None
        if flavor.ENCODER in info.files:
            try:
                self._encoder = Encoder.from_json(info.load(flavor.ENCODER))
            except EncoderError as error:
                raise PredictorError(f"{flavor.ENCODER}: {error}") from error

    def __call__(self, matrix: Matrix) -> Matrix:
        if self._encoder is None:
            return matrix
        try:
            return self._encoder(matrix)
        except OutOfRange as error:
            raise RowsRefused(str(error)) from error


class LinearPredictor:
    """A weighted sum."""

    form: Final = "linear"

    def __init__(self, info: FlavorInfo, output: Output) -> None:
        self._features, self._output = _Features(info), output
        try:
            self._linear = Linear.from_json(info.load(flavor.LINEAR))
        except LinearError as error:
            raise PredictorError(f"{flavor.LINEAR}: {error}") from error

    def predict(self, rows: Rows, matrix: Matrix) -> Answer:
        """Answer n > 0 rows."""
        del rows
        features = self._features(matrix)
        try:
            sums = self._linear.sums(features)
        except ValueError as error:
            raise PredictorError(f"{flavor.LINEAR} does not fit the inputs: {error}") from error
        return answer(self._linear.answers(sums), self._output, sums)


class TreelitePredictor:
    """Trees from a treelite checkpoint."""

    form: Final = "treelite"

    def __init__(self, info: FlavorInfo, output: Output) -> None:
        self._features, self._output = _Features(info), output
        try:
            self._forest = Forest(info.load(flavor.TREELITE))
        except ForestError as error:
            raise PredictorError(f"treelite cannot read {flavor.TREELITE}: {error}") from error

    def predict(self, rows: Rows, matrix: Matrix) -> Answer:
        """Answer n > 0 rows."""
        del rows
        try:
            return answer(self._forest.predict(self._features(matrix)), self._output)
        except ForestError as error:
            raise PredictorError(f"treelite cannot predict: {error}") from error


class LightGbmPredictor:
    """The same trees through LightGBM."""

    form: Final = "lightgbm"

    def __init__(self, info: FlavorInfo, output: Output) -> None:
        try:
            import lightgbm  # noqa: PLC0415 (heavy, and not in every image)
        except ImportError as error:
            raise PredictorError("LightGBM is not installed") from error
        self._features, self._output = _Features(info), output
        try:
            self._booster = lightgbm.Booster(model_str=info.load(flavor.LIGHTGBM).decode())
        except (lightgbm.basic.LightGBMError, UnicodeDecodeError) as error:
            raise PredictorError(f"LightGBM cannot read {flavor.LIGHTGBM}: {error}") from error

    def predict(self, rows: Rows, matrix: Matrix) -> Answer:
        """Answer n > 0 rows."""
        del rows
        features = self._features(matrix)
        raw = np.asarray(self._booster.predict(features, num_threads=1), dtype=np.float64)
        return answer(raw, self._output)


Form: TypeAlias = type[LinearPredictor | TreelitePredictor | LightGbmPredictor]

FORMS: Final[tuple[Form, ...]] = (LinearPredictor, TreelitePredictor, LightGbmPredictor)
"""From the fastest to the slowest."""


def forms(info: FlavorInfo) -> tuple[Form, ...]:
    """List the forms that a model with our flavor can have, from the fastest to the slowest."""
    return FORMS[:1] if flavor.LINEAR in info.files else FORMS[1:]


class PyfuncPredictor:
    """Any model, as MLflow loads it; runs the code that came with the model."""

    form: Final = "pyfunc"

    def __init__(self, folder: Path, types: Mapping[str, str], output: Output) -> None:
        """Load the model; `types` are its columns' types in the signature, in order."""
        try:
            from mlflow import pyfunc  # noqa: PLC0415 (heavy, and not in every image)
            from mlflow.exceptions import MlflowException  # noqa: PLC0415 (the same)
        except ImportError as error:
            raise PredictorError(f"MLflow is not installed here ({error})") from error
        self._refusal = MlflowException
        self._types = types
        self._output = output
        try:
            self._model = pyfunc.load_model(str(folder))
        except Exception as error:
            raise PredictorError(f"MLflow cannot load it: {_told(error)}") from error

    def predict(self, rows: Rows, matrix: Matrix) -> Answer:
        """Answer n > 0 rows."""
        del matrix
        try:
            found = self._model.predict(to_frame(rows, self._types))
        except self._refusal as error:
            # What MLflow's own check of the signature finds beyond ours.
            raise RowsRefused(_told(error)) from error
        return _read(found, len(rows), self._output)

    def prove(self) -> None:
        """Predict the example that was logged with the model, if any. Raises PredictorError."""
        try:
            example = self._model.input_example
            if example is not None:
                self._model.predict(example)
        except Exception as error:
            raise PredictorError(f"it fails on its own input example: {_told(error)}") from error

    def answers_rows_alone(self) -> bool:
        """Say whether it answers rows of its example alone as it does together.

        Only then may rows of several requests be given to it at a time.
        """
        example = self._model.input_example
        if not hasattr(example, "iloc") or not len(example):
            return False
        rows = example.iloc[[0, *range(min(len(example), _COMPARED))]]
        try:
            together = self._answers(rows)
            alone = [self._answers(rows.iloc[[place]])[0] for place in range(len(rows))]
        except Exception:  # noqa: BLE001 (code of others)
            return False
        return all(map(_alike, together, alone))

    def _answers(self, frame: Any) -> list[Any]:
        return _read(self._model.predict(frame), len(frame), self._output).predictions


def _alike(one: Any, other: Any) -> bool:
    """Whether two answers are the same, up to the order in which numbers were summed."""
    try:
        return bool(np.allclose(one, other, rtol=1e-6, atol=1e-9, equal_nan=True))
    except (TypeError, ValueError):
        return bool(one == other)


def to_frame(rows: Rows, types: Mapping[str, str]) -> Any:
    """Make the pandas frame that a model takes, of MLflow's types by column."""
    import pandas as pd  # noqa: PLC0415 (heavy, and not in every image)

    # Looked through before pandas has them, which takes ten times as long for each column.
    columns: dict[str, Any] = {}
    for name, kind in types.items():
        values: list[Any] = [row.get(name) for row in rows]
        holes = [value is None or value != value for value in values]  # noqa: PLR0124 (NaN)
        if kind in _INTEGERS and all(holes):
            # MLflow's integers know no gaps, but an optional column may be left out.
            continue
        if kind == "datetime":
            values = [
                None if hole else instant(value) for value, hole in zip(values, holes, strict=True)
            ]
        known = kind in _DTYPES and (kind == "datetime" or not any(holes))
        columns[name] = np.array(values, dtype=_DTYPES[kind]) if known else values
    return pd.DataFrame(columns, index=range(len(rows)))


def _read(found: Any, rows: int, output: Output) -> Answer:
    """Read what a model gives back: a frame, a series, an array or a list."""
    columns = _named(found)
    values = np.asarray(found.to_numpy() if hasattr(found, "to_numpy") else found)
    if not values.shape or values.shape[0] != rows:
        raise PredictorError(f"the model gave shape {values.shape} for {rows} rows")
    if output.classes is not None and columns == _columns(output):
        # The frame that the `python_function` of a model with our flavor gives.
        # orjson writes arrays whose rows lie one after the other, and a frame's are columns.
        chances = np.ascontiguousarray(values[:, 1:], dtype=np.float64)
        return replace(answer(chances, output), predictions=found.iloc[:, 0].tolist())
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.dtype.kind == "M":
        # Of nanoseconds NumPy makes bare integers, of microseconds dates.
        values = values.astype("datetime64[us]")
    numeric = values.ndim == 1 and np.issubdtype(values.dtype, np.number)
    scores = values.astype(np.float64) if numeric else None
    return Answer(values.tolist(), None, scores, columns)


def _named(found: Any) -> tuple[str, ...] | None:
    """Name a frame's columns; a series is a frame of one column to MLflow."""
    if hasattr(found, "columns"):
        return tuple(str(each) for each in found.columns)
    if hasattr(found, "to_frame"):
        return ("0" if found.name is None else str(found.name),)
    return None


def _told(error: BaseException) -> str:
    """Put an error of somebody else's code into one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:500]
