"""Takes a user's own fitted model, and makes the other models beside it if asked.

    adopted = adopt(model, X, y)

`register(model, X, y, name)` does both, this and the registering.
"""

import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, Final, TypedDict

import numpy as np
import pandas as pd
from modelops_runtime import flavor
from modelops_runtime.profile import DEFAULT_BINS, Profile
from modelops_runtime.schema import Schema
from numpy.typing import NDArray

from modelops_training import checks, detectors, inputs, outlier, pipelines, proving, variation
from modelops_training.compiling import compiled
from modelops_training.errors import DataError, NoFastForm, TrainingWarning
from modelops_training.heads import Head
from modelops_training.inputs import Overrides, Task
from modelops_training.original import Original, as_frame, found
from modelops_training.parity import ROWS
from modelops_training.training import (
    KINDS,
    SPLIT_SEED,
    Clock,
    Models,
    data_digest,
    goal_of,
    labels_of,
    packed,
    scores_of,
    split,
)

ASKED_ROWS: Final = 10_000
"""More of them would cost a slow model minutes, and tell no more."""
PROVED_ROWS: Final = 5_000
PYFUNC: Final = "pyfunc"


@dataclass(frozen=True, kw_only=True)
class Adopted(Models):
    """A user's own model with its fast form, if it has one, and detectors of the same rows."""

    original: Original
    asked: NDArray[np.int64]
    """Places in the frame of the rows that it was asked about: at most `ASKED_ROWS`, (n,)."""
    answered: NDArray[Any]
    """What it answered to these."""
    why: str | None
    """Why it is served by its own library; None if it has a fast form."""

    @property
    def fingerprint(self) -> bytes:
        """A model without a fast form is told from others by its answers."""
        if "predictor" in self.files:
            return b""
        return sha256(repr(self.answered[:PROVED_ROWS].tolist()).encode()).digest()

    @property
    def features(self) -> pd.DataFrame:
        """The rows without the target, as the model takes them."""
        return self.frame[list(self.schema.names)]

    @property
    def shown(self) -> NDArray[np.int64]:
        """Places of the rows that the card measures, (n,)."""
        return self.asked

    @property
    def shown_answers(self) -> NDArray[Any]:
        """What it answers to these rows."""
        return self.answered

    def answers(self, frame: pd.DataFrame) -> NDArray[Any]:
        """Predict: probabilities (n, classes), values (n,), or labels of what gives no more."""
        return self.original.answers(checks.arranged(self.original, frame[list(self.schema.names)]))

    @property
    def _gives_labels(self) -> bool:
        return self.original.classifies and self.original.classes is None

    def truth(self, frame: pd.DataFrame) -> NDArray[Any]:
        """Give the targets, (n,): the labels themselves where the model gives labels only."""
        if self._gives_labels:
            labels: NDArray[Any] = frame[self.schema.output.name].to_numpy()
            return labels
        return super().truth(frame)

    def scored(self, truth: NDArray[Any], answers: NDArray[Any]) -> dict[str, float]:
        """Compare answers with targets; of labels alone there is not much to tell."""
        if self._gives_labels:
            return {"accuracy": float((answers == truth).mean())}
        return super().scored(truth, answers)


def adopt(  # noqa: PLR0913  # named settings
    model: Any,
    X: Any,  # noqa: N803  # as scikit-learn calls it
    y: Any,
    *,
    with_detectors: bool = False,
    overrides: Overrides | None = None,
    known_ahead: Collection[str] = (),
    outlier_kind: detectors.Kind = "mahalanobis",
    outlier_quantile: float = outlier.QUANTILE,
    bins: int = DEFAULT_BINS,
    times: Any = None,
    seed: int = 0,
) -> Adopted:
    """Look at a fitted model, make its fast form, and if asked fit detectors to the same rows.

    `X` and `y` are what it was fitted on, or rows like them; the other arguments are those of
    `register`. Raises DataError for data that cannot be served, or do not belong to the model.
    Warns (TrainingWarning) of a model without a fast form, and of one that cannot be made again.
    """
    clock = Clock()
    original = Original(found(model))
    frame = checks.arranged(original, as_frame(X)).reset_index(drop=True)
    target = checks.target_of(y, frame)
    groups = () if times is None else variation.groups_of(times, len(frame))
    whole = frame.assign(**{str(target.name): target})
    schema = _schema(original, whole, str(target.name), overrides, known_ahead)
    checks.warn_of_chance(model)
    asked = np.random.default_rng(SPLIT_SEED).permutation(len(frame))[:ASKED_ROWS]
    sample = frame.iloc[asked]
    answers = checks.answers_of(original, sample)
    schema, odd, odd_answers = proving.learned(original, schema, frame)
    clock.step("ask")

    reason, head, proved = None, None, None
    try:
        parts = [(sample[:PROVED_ROWS], answers[:PROVED_ROWS])]
        parts += [] if odd_answers is None else [(odd, odd_answers)]
        head, proved = _fast(original, schema, parts)
    except NoFastForm as error:
        reason = str(error)
        warnings.warn(_slow(original, frame, reason), TrainingWarning, stacklevel=3)
    clock.step("compile")

    repeated = proving.chosen(len(odd))
    rows = inputs.records(odd.iloc[repeated], schema) + inputs.records(sample[:ROWS], schema)
    encoded = schema.encode(rows)
    matrix = inputs.encode(frame, schema)
    profile = Profile.fit(matrix, schema, bins, **_predictions(answers, schema))
    if groups:
        # Of a sample the groups would be too small.
        whole_answers = checks.answers_of(original, frame)
        profile = variation.varied(profile, matrix, groups)
        profile = variation.predictions_varied(
            profile, **_predictions(whole_answers, schema), groups=groups
        )
    clock.step("profile")

    own: dict[str, Mapping[str, bytes]] = {}
    expected: dict[str, NDArray[Any]] = {}
    detector, recall = None, dict[str, float]()
    if with_detectors:
        kept, held = split(goal_of(whole, schema), schema)
        detector = detectors.fit(
            outlier_kind, matrix[kept], matrix[held], schema, quantile=outlier_quantile, seed=seed
        )
        recall = outlier.recall(detector, matrix[held], schema)
        own = {"drift": {flavor.PROFILE: profile.to_json()}, "outlier": detectors.files(detector)}
        expected = {"drift": profile.place(encoded), "outlier": detector.score(encoded)}
    if head is not None:
        own["predictor"] = head.files
        first = [] if odd_answers is None else [odd_answers[repeated]]
        expected["predictor"] = np.concatenate([*first, answers[:ROWS]])
    clock.step("detectors")

    form = PYFUNC if head is None else head.kind
    adopted = Adopted(
        schema=schema,
        frame=whole,
        files=packed(schema, rows, own, expected),
        kinds={**KINDS, "outlier": outlier_kind, "predictor": form},
        detector=detector,
        profile=profile,
        metrics=recall if proved is None else {**recall, "parity_difference": proved},
        measured_on="given",
        params={
            "model": original.title,
            "form": form,
            **({"no_faster_form": reason} if reason else {}),
            "rows": len(frame),
            "features": len(schema.inputs),
        },
        data_digest=data_digest(whole),
        seconds=clock.seconds,
        original=original,
        asked=asked,
        answered=answers,
        why=reason,
    )
    measured = adopted.measured(whole.iloc[asked], answers)
    return replace(adopted, metrics={**measured, **adopted.metrics})


class _Predictions(TypedDict):
    scores: NDArray[np.float64] | None
    labels: NDArray[np.int64] | None


def _predictions(answers: NDArray[Any], schema: Schema) -> _Predictions:
    """Give what the profile counts of answers, each (n,) or None."""
    scores = scores_of(answers) if answers.dtype.kind in "iuf" else None
    return {"scores": scores, "labels": labels_of(answers, schema)}


def _schema(
    original: Original,
    whole: pd.DataFrame,
    target: str,
    overrides: Overrides | None,
    known_ahead: Collection[str],
) -> Schema:
    features = [name for name in whole.columns if name != target]
    task: Task = "classifier" if original.classifies else "regressor"
    schema = inputs.describe(
        whole,
        target,
        features=features,
        overrides={**inputs.opaque(whole[features]), **(overrides or {})},
        task=task,
        known_ahead=known_ahead,
    )
    known = pipelines.categories_of(original.model)
    columns = []
    for column in schema.inputs:
        if column.levels:
            values = whole[column.name]
            more = [*known.get(column.name, ())]
            if isinstance(values.dtype, pd.CategoricalDtype):
                more += [inputs.text_of(each, column.name) for each in values.cat.categories]
            extra = sorted(set(more) - set(column.levels))
            column = replace(column, levels=(*column.levels, *extra))  # noqa: PLW2901  # the same
        columns.append(column)
    output = schema.output
    if original.classes is not None:
        if strange := sorted(set(output.classes or ()) - set(original.classes), key=str):
            raise DataError(
                f"y has the class {strange[0]!r}, the model knows {list(original.classes)}; give"
                " the y that it was fitted on"
            )
        output = replace(output, classes=original.classes)
    return Schema(tuple(columns), output)


def _fast(
    original: Original, schema: Schema, parts: Sequence[tuple[pd.DataFrame, NDArray[Any]]]
) -> tuple[Head, float]:
    """Make the fast form and prove it on rows and answers; gives the largest difference.

    Raises NoFastForm.
    """
    rows = parts[0][0]
    if read := [column.name for column in schema.inputs if column.opaque]:
        raise NoFastForm(f"only the model itself reads {', '.join(read)}: free text or dates")
    if original.classifies and original.classes is None:
        raise NoFastForm(f"{original.title} gives labels only, no probabilities")
    finite = proving.refuses_large(original, schema, rows)
    head = compiled(original, schema, rows, finite=finite)
    files = {**head.files, flavor.SCHEMA: schema.to_json()}
    return head, proving.prove(original, files, schema, parts)


def _slow(original: Original, frame: pd.DataFrame, reason: str) -> str:
    return (
        f"{original.title} has no fast form ({reason}). It will be served by its own library"
        " (pyfunc), which runs the code that came with the model: deploy it with"
        f" `spec.serving.runtime: Pyfunc`. One row takes it {original.cost(frame):.1f} ms"
        " of CPU here, beside 0.3 ms for a whole request of a compiled model, and the image holds"
        " all its libraries"
    )
