"""From a data frame to the schema that all three models share, and to the matrix they read."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, Literal, TypeAlias

import numpy as np
import pandas as pd
from modelops_runtime.schema import LARGEST_INTEGER, UNSEEN, Input, Matrix, Output, Schema
from numpy.typing import NDArray
from pandas.api import types

from modelops_training.errors import DataError

Task: TypeAlias = Literal["classifier", "regressor"]
Overrides: TypeAlias = Mapping[str, Mapping[str, Any]]

FEWEST_ROWS = 100
MOST_LEVELS = 1_000
MOST_CLASSES = 50
# A target of whole numbers with more distinct values than this is a quantity, not a class.
MOST_INTEGER_CLASSES = 20
ROUNDING = 1e-12
_AS_IT_IS = (
    "A fitted model that reads it as it is can be registered by `register(model, X, y, name)`, and"
    " is served by its own library"
)


def describe(  # noqa: PLR0913  # named settings
    frame: pd.DataFrame,
    target: str,
    *,
    features: Sequence[str] | None = None,
    overrides: Overrides | None = None,
    task: Task | None = None,
    known_ahead: Collection[str] = (),
) -> Schema:
    """Derive the schema of a frame; its features are all columns but the target unless named.

    Numbers stay numbers; text, booleans and pandas categories become categories whose levels are
    the values met, in their natural order. `overrides` replaces fields of single inputs, as in
    `{"AGEP": {"unit": "years"}, "zip": {"kind": "category"}}`; what `opaque` gives leaves columns
    to the model alone. A column that tells the target by itself is refused, unless it is among
    those `known_ahead`.

    Raises DataError, naming the column, for what cannot be trained on.
    """
    names = list(features) if features is not None else [c for c in frame.columns if c != target]
    _check_columns(frame, target, names)
    changes = overrides or {}
    if unknown := sorted(set(changes) - set(names)):
        raise DataError(f"overrides: {unknown} are no features; the features are {names}")
    inputs = tuple(_input(frame[name], name, changes.get(name, {})) for name in names)
    output = _output(frame[target], target, task)
    classes = output.classes is not None
    goal = pd.factorize(frame[target])[0] if classes else _floats(frame[target])
    for name in names:
        if name not in known_ahead and _tells(frame[name], goal, classes=classes):
            raise DataError(
                f"column {name!r} tells the target {target!r} one to one: is it known only"
                " afterwards? leave it out of the features, or name it in `known_ahead` if it is"
                " there whenever a prediction is asked for"
            )
    return Schema(inputs, output)


def opaque(frame: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Find the columns that are no numbers and no categories, for `overrides`: dates, free text."""
    found = {}
    for name, values in frame.items():
        if types.is_datetime64_dtype(values.dtype):
            found[str(name)] = {"storage": "datetime"}
        elif types.is_string_dtype(values.dtype) and values.nunique() > MOST_LEVELS:
            found[str(name)] = {"storage": "text"}
    return found


def encode(frame: pd.DataFrame, schema: Schema) -> Matrix:
    """Turn a frame into a matrix (rows, inputs), as `Schema.encode` does with records.

    Column by column, hence 20 times as fast; the tests hold both to the same answer. Raises
    DataError when a column is missing or holds what its input does not take.
    """
    if absent := [column.name for column in schema.inputs if column.name not in frame.columns]:
        raise DataError(f"columns {absent} are missing; the frame has {list(frame.columns)}")
    matrix = np.empty((len(frame), len(schema.inputs)))
    for place, column in enumerate(schema.inputs):
        values = frame[column.name]
        matrix[:, place] = (
            _numbers(values, column.name) if column.kind == "number" else _codes(values, column)
        )
    return matrix


def records(frame: pd.DataFrame, schema: Schema) -> list[dict[str, Any]]:
    """Write the features of a frame as JSON records; what is missing is None."""
    chosen = frame.loc[:, list(schema.names)].astype("object")
    for column in schema.inputs:
        if column.storage == "datetime":
            times = chosen[column.name]
            chosen[column.name] = times.map(pd.Timestamp.isoformat, na_action="ignore")
    filled = chosen.where(chosen.notna(), None)
    rows: list[dict[str, Any]] = filled.to_dict("records")
    return rows


def texts(values: pd.Series, name: str) -> pd.Series:
    """Write a column's categories as the schema's levels are written; gaps stay gaps."""
    return values.astype("object").map(lambda value: text_of(value, name), na_action="ignore")


def target_codes(frame: pd.DataFrame, schema: Schema) -> NDArray[np.int64]:
    """Turn the target of a classifier into indices of its classes, (n,).

    Raises DataError for a class that the schema does not have.
    """
    values = frame[schema.output.name]
    table = {label: index for index, label in enumerate(schema.output.classes or ())}
    places, met = pd.factorize(values)
    # factorize says -1 for what is missing, which picks the last entry.
    known = [table.get(_label(value), -1) for value in met]
    codes: NDArray[np.int64] = np.array([*known, -1], np.int64)[places]
    if (codes < 0).any():
        strange = _label(values[codes < 0].iloc[0])
        raise DataError(
            f"target {schema.output.name!r}: {strange!r} is none of the classes {list(table)}"
        )
    return codes


def _check_columns(frame: pd.DataFrame, target: str, names: Sequence[str]) -> None:
    if doubled := sorted({str(name) for name in frame.columns[frame.columns.duplicated()]}):
        raise DataError(f"columns {doubled} appear twice; rename them")
    for name in (target, *names):
        if name not in frame.columns:
            raise DataError(f"column {name!r} is missing; the frame has {list(frame.columns)}")
        if not isinstance(name, str) or not name:
            raise DataError(f"column {name!r}: names have to be text; rename it")
    if target in names:
        raise DataError(f"target {target!r} is among the features; take it out")
    if not names:
        raise DataError("there are no features; name at least one column beside the target")
    if len(frame) < FEWEST_ROWS:
        raise DataError(f"{len(frame)} rows are too few to train on; give {FEWEST_ROWS} or more")


def _input(values: pd.Series, name: str, changes: Mapping[str, Any]) -> Input:
    allowed = {field.name for field in fields(Input)} - {"name"}
    if unknown := sorted(set(changes) - allowed):
        raise DataError(f"overrides of {name!r}: {unknown} are no fields; they are {allowed}")
    if values.dtype == object and not values.map(types.is_scalar).all():
        raise DataError(f"column {name!r} holds lists or objects; give numbers, text or booleans")
    if values.isna().all():
        raise DataError(f"column {name!r} is empty; leave it out of the features")
    met = values.dropna().unique()
    if len(met) == 1:
        raise DataError(f"column {name!r} has one value only; leave it out of the features")
    kind = changes.get("kind", "number" if _is_number(values) else "category")
    if changes.get("storage") in {"datetime", "text"}:
        derived = Input(name=name, kind="category")
    else:
        derived = _number(values, name) if kind == "number" else _category(met, name)
    frozen: dict[str, Any] = {key: _frozen(value) for key, value in changes.items()}
    return replace(derived, **frozen)


def _is_number(values: pd.Series) -> bool:
    return bool(types.is_numeric_dtype(values) and not types.is_bool_dtype(values))


def _frozen(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _number(values: pd.Series, name: str) -> Input:
    numbers = _numbers(values, name)
    return Input(
        name=name,
        kind="number",
        integer=bool(types.is_integer_dtype(values)),
        minimum=float(np.nanmin(numbers)),
        maximum=float(np.nanmax(numbers)),
    )


def _numbers(values: pd.Series, name: str) -> NDArray[np.float64]:
    if not _is_number(values):
        raise DataError(f"column {name!r} holds {values.dtype}, not numbers")
    numbers: NDArray[np.float64] = values.to_numpy(np.float64, na_value=np.nan)
    if np.isinf(numbers).any():
        raise DataError(f"column {name!r} holds an infinity; JSON has none, so no request could")
    whole = types.is_integer_dtype(values)
    if whole and (np.abs(numbers[~np.isnan(numbers)]) > LARGEST_INTEGER).any():
        raise DataError(f"column {name!r} holds integers beyond 2**53: an identifier? leave it out")
    return numbers


def _category(met: Any, name: str) -> Input:
    """Describe a category by the values met, an array without gaps."""
    dtype = met.dtype
    if isinstance(dtype, pd.DatetimeTZDtype):
        raise DataError(
            f"column {name!r} holds {dtype}, and MLflow's signatures know no time zones: fit the"
            " model on `.dt.tz_convert(None)` of it"
        )
    if types.is_datetime64_dtype(dtype) or types.is_timedelta64_dtype(dtype):
        raise DataError(
            f"column {name!r} holds {dtype}; turn it into numbers, days since say. {_AS_IT_IS}"
        )
    if isinstance(dtype, pd.CategoricalDtype):
        known = set(met)
        levels = [text_of(value, name) for value in dtype.categories if value in known]
        if not dtype.ordered:
            levels = _sorted(levels)
    else:
        levels = _sorted({text_of(value, name) for value in met})
    if len(levels) > MOST_LEVELS:
        raise DataError(
            f"column {name!r} has {len(levels)} different values, {MOST_LEVELS} are the limit: an "
            f"identifier or free text? leave it out, or group its values. {_AS_IT_IS}"
        )
    return Input(name=name, kind="category", levels=tuple(levels))


def _sorted(levels: "set[str] | list[str]") -> list[str]:
    """Sort codes by their number and names by their letters."""
    try:
        return sorted(levels, key=lambda level: (int(level), level))
    except ValueError:
        return sorted(levels)


def text_of(value: object, name: str) -> str:
    """Name a level as the schema compares it: 3, 3.0 and "3" are the same."""
    if isinstance(value, str | bool | np.bool_ | int | np.integer):
        return str(value)
    if isinstance(value, float | np.floating):
        return str(int(value)) if float(value).is_integer() else str(float(value))
    raise DataError(f"column {name!r} holds {value!r}; a category is text, a number or a boolean")


def _codes(values: pd.Series, column: Input) -> NDArray[np.float64]:
    if column.opaque:
        return np.where(values.isna(), np.nan, UNSEEN)
    table = {level: float(code) for code, level in enumerate(column.levels)}
    places, met = pd.factorize(values)
    codes = [table.get(text_of(value, column.name), UNSEEN) for value in met]
    # factorize says -1 for what is missing, which picks the last entry.
    coded: NDArray[np.float64] = np.array([*codes, np.nan])[places]
    return coded


def _tells(values: pd.Series, goal: NDArray[Any], *, classes: bool) -> bool:
    """Say whether a column alone gives every target away; `goal` (n,) has values, or codes."""
    whole = values.notna().to_numpy()
    if not whole.all():
        values, goal = values[whole], goal[whole]
    if len(values) < FEWEST_ROWS or goal.min() == goal.max():
        return False
    if not classes:
        return _is_number(values) and _on_a_line(_floats(values), goal)
    places, met = pd.factorize(values)
    if _is_number(values) and len(met) > MOST_INTEGER_CLASSES:
        # Ranges that do not meet: a score, or what is counted once the class is known.
        ends = values.groupby(goal).agg(["min", "max"]).sort_values("min")
        return bool((ends["min"].to_numpy()[1:] > ends["max"].to_numpy()[:-1]).all())
    # Values that are mostly their own tell everything, and nothing.
    few = len(met) <= len(values) / 2
    return few and np.count_nonzero(np.bincount(places * (goal.max() + 1) + goal)) == len(met)


def _on_a_line(values: NDArray[np.float64], target: NDArray[np.float64]) -> bool:
    """Say whether one is the other, but for its unit."""
    return bool(abs(np.corrcoef(values, target)[0, 1]) > 1 - ROUNDING)


def _floats(values: pd.Series) -> NDArray[np.float64]:
    found: NDArray[np.float64] = values.to_numpy(np.float64)
    return found


def _output(values: pd.Series, name: str, task: Task | None) -> Output:
    if values.isna().any():
        raise DataError(f"target {name!r} is missing in {int(values.isna().sum())} rows; drop them")
    chosen = task or _task(values)
    if chosen == "regressor":
        _numbers(values, name)
        return Output(kind="regressor", name=name)
    labels = sorted({_label(value) for value in values.unique()})
    if not 2 <= len(labels) <= MOST_CLASSES:
        raise DataError(
            f"target {name!r} has {len(labels)} classes; 2 to {MOST_CLASSES} can be told apart"
            + ("" if len(labels) < 2 else '; is it a quantity? pass task="regressor"')
        )
    return Output(kind="classifier", name=name, classes=tuple(labels))


def _task(values: pd.Series) -> Task:
    if not _is_number(values):
        return "classifier"
    few = values.nunique() <= MOST_INTEGER_CLASSES
    return "classifier" if few and types.is_integer_dtype(values) else "regressor"


def _label(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
