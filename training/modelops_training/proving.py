"""Asks a user's model what it takes, and compares its fast form with it."""

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import pandas as pd
from modelops_runtime import flavor
from modelops_runtime.parity import size
from modelops_runtime.predictors import Predictor, PredictorError, RowsRefused, forms
from modelops_runtime.schema import Input, Schema
from numpy.typing import NDArray

from modelops_training import inputs
from modelops_training.errors import NoFastForm
from modelops_training.original import Original
from modelops_training.parity import UNKNOWN_LEVEL, extreme

TOLERANCE: Final = 1e-6
# Beyond what 32 bits hold.
LARGE: Final = 1e39
# More probes than this would make parity.json, and the start of a pod, too long.
MOST_PROBES: Final = 60

What: TypeAlias = Literal["missing", "unseen", "extreme"]


@dataclass(frozen=True)
class Probe:
    """One change of one input."""

    place: int
    what: What


def probes(schema: Schema) -> list[Probe]:
    """List what the model has to be asked: each input missing, unseen, or far from all known."""
    found = []
    for place, column in enumerate(schema.inputs):
        found.append(Probe(place, "missing"))
        if not column.opaque:
            found.append(Probe(place, "unseen" if column.kind == "category" else "extreme"))
    return found


def changed(frame: pd.DataFrame, schema: Schema, asked: Sequence[Probe]) -> pd.DataFrame:
    """Repeat the first row for each probe, with its change, in the frame's own types."""
    rows = frame.iloc[np.zeros(len(asked), np.intp)].reset_index(drop=True)
    for place, column in enumerate(schema.inputs):
        cells = {at: probe.what for at, probe in enumerate(asked) if probe.place == place}
        if cells:
            rows[column.name] = _put(column, frame[column.name], rows[column.name], cells)
    return rows


def _put(column: Input, known: pd.Series, rows: pd.Series, cells: Mapping[int, What]) -> pd.Series:
    gap = known[known.isna()].iloc[0] if known.isna().any() else np.nan
    unseen = extreme(column) if column.kind == "number" else _unseen(known)
    values = rows.astype(object)
    for at, what in cells.items():
        values.iloc[at] = gap if what == "missing" else unseen
    dtype = known.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        # XGBoost refuses a column that could have a category that it does not know.
        more = [unseen] if "unseen" in cells.values() else []
        return pd.Series(pd.Categorical(values, [*dtype.categories, *more], ordered=dtype.ordered))
    if dtype.kind in "iuf":
        return values.astype(dtype if dtype.kind == "f" else "float64")
    return values if dtype.kind in "Ob" else values.astype(dtype)


def _unseen(known: pd.Series) -> Any:
    """Give a category that is not there, of the type of those that are."""
    if isinstance(known.dtype, pd.CategoricalDtype) and known.cat.categories.dtype.kind in "iuf":
        return known.cat.categories.max() + 1_000_003
    return UNKNOWN_LEVEL


def learned(
    original: Original, schema: Schema, frame: pd.DataFrame
) -> tuple[Schema, pd.DataFrame, NDArray[Any] | None]:
    """Find out what the model takes: gives the schema with it, and odd rows with the answers.

    What it refuses with an error, or has no finite answer to, the server will refuse: an input is
    not nullable then, or closed to unseen categories. The rows are probes that it does answer, in
    the order of `probes`; where there are none, there are no answers.
    """
    asked = probes(schema)
    if original.takes_known_only:
        asked = [probe for probe in asked if probe.what != "unseen"]
    rows = changed(frame, schema, asked)
    answers = _answers(original, rows)
    if answers is None:
        asked = [
            probe
            for probe in asked
            if _answers(original, changed(frame, schema, [probe])) is not None
        ]
        rows = changed(frame, schema, asked)
        answers = original.answers(rows) if asked else None
    inputs_ = tuple(
        replace(
            column,
            nullable=column.nullable and Probe(place, "missing") in asked,
            closed=bool(column.levels) and Probe(place, "unseen") not in asked,
        )
        for place, column in enumerate(schema.inputs)
    )
    wanted = [
        at
        for at, probe in enumerate(asked)
        if probe.what != "missing" or inputs_[probe.place].nullable
    ]
    told = None if answers is None or not wanted else answers[wanted]
    return Schema(inputs_, schema.output), rows.iloc[wanted], told


def refuses_large(original: Original, schema: Schema, frame: pd.DataFrame) -> bool:
    """Say whether the model refuses numbers that 32 bits cannot hold."""
    for column in schema.inputs:
        if column.kind == "number" and frame[column.name].dtype == np.float64:
            row = frame.head(1).assign(**{column.name: LARGE})
            return _answers(original, row) is None
    return True


def _answers(original: Original, frame: pd.DataFrame) -> NDArray[Any] | None:
    """Ask about rows that nobody sent; None where the model refuses, or has no finite answer."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            answers = original.answers(frame)
        except Exception:  # noqa: BLE001  # anything means no
            return None
    return answers if answers.dtype.kind != "f" or np.isfinite(answers).all() else None


def chosen(count: int) -> NDArray[np.int64]:
    """Choose which of so many probes a server repeats at its start, evenly over the inputs."""
    return np.linspace(0, count - 1, min(MOST_PROBES, count)).astype(np.int64)


def prove(
    original: Original,
    files: Mapping[str, bytes],
    schema: Schema,
    parts: Iterable[tuple[pd.DataFrame, NDArray[np.float64]]],
) -> float:
    """Compare what the runtime answers over the files with the model; gives the largest difference.

    Each part has rows, and what the model answers to them.
    Probabilities may differ by `TOLERANCE`, values by as much of their size, labels not at all.
    Raises NoFastForm.
    """
    with _served(files, schema) as predictor:
        return max(
            _difference(original, predictor, schema, frame, expected) for frame, expected in parts
        )


def _difference(
    original: Original,
    predictor: Predictor,
    schema: Schema,
    frame: pd.DataFrame,
    expected: NDArray[np.float64],
) -> float:
    answer = predictor.predict((), inputs.encode(frame, schema))
    found = answer.scores if answer.probabilities is None else answer.probabilities
    if found is None or found.shape != expected.shape:
        raise NoFastForm(f"the model answers {expected.shape}, its compiled form otherwise")
    off = np.abs(found - expected) / size(expected)
    off = np.where(found == expected, 0.0, off)
    # Written so that NaN is wrong, too.
    wrong = np.unique(np.nonzero(~(off <= TOLERANCE))[0])
    if len(wrong):
        first = int(wrong[0])
        raise NoFastForm(
            f"{len(wrong)} of {len(frame)} rows differ between the model and its compiled form:"
            f" {expected[first].tolist()} and {found[first].tolist()}"
        )
    if original.classes is not None:
        pairs = zip(answer.predictions, original.labels(frame), strict=True)
        if differing := sum(one != other for one, other in pairs):
            raise NoFastForm(f"{differing} of {len(frame)} labels differ from the model's own")
    return float(off.max())


@contextmanager
def _served(files: Mapping[str, bytes], schema: Schema) -> Iterator[Predictor]:
    """Load the files as a server does; what that refuses raises NoFastForm."""
    with TemporaryDirectory() as folder:
        flavor.write_data(Path(folder), "predictor", "proof", {**files, flavor.PARITY: b"{}"})
        info = flavor.read(Path(folder))
        try:
            yield forms(info)[0](info, schema.output)
        except (PredictorError, RowsRefused) as error:
            raise NoFastForm(f"its compiled form does not answer: {error}") from error
