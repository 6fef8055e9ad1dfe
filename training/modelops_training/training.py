"""Trains a predictor, an outlier detector and a drift detector on one table."""

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

import lightgbm as lgb
import numpy as np
import pandas as pd
from modelops_runtime import flavor
from modelops_runtime.outlier import OutlierDetector
from modelops_runtime.profile import DEFAULT_BINS, Profile
from modelops_runtime.schema import Schema
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split

from modelops_training import (
    detectors,
    evaluation,
    inputs,
    outlier,
    parity,
    predictor,
    variation,
)
from modelops_training.errors import DataError
from modelops_training.inputs import Overrides, Task

HELD_OUT = 0.25
# Always the same rows are held out, so that the figures of two trainings compare; the seed of a
# training is about its trees.
SPLIT_SEED = 0
# Both forms of the trees are compared on this many rows, and on rows with gaps.
PROVED_ROWS = 5_000
ROLES = ("drift", "outlier", "predictor")
"""The three models in the order in which they are registered and their aliases move."""
KINDS: Mapping[str, str] = {"predictor": "treelite", "outlier": "mahalanobis", "drift": "profile"}


@dataclass(frozen=True, kw_only=True)
class Models:
    """The models of one training, not yet registered: a predictor, and detectors beside it."""

    schema: Schema
    frame: pd.DataFrame
    """Features and target that they were trained on, held-out rows included."""
    files: Mapping[str, Mapping[str, bytes]]
    """By role: the files of the `modelops` flavor, name to content."""
    kinds: Mapping[str, str]
    """By role: the kind that the flavor tells."""
    detector: OutlierDetector | None
    profile: Profile
    metrics: Mapping[str, float]
    """Measured on `measured_on`."""
    measured_on: str = "held_out"
    """What the metrics' names begin with: rows held out, or given."""
    params: Mapping[str, Any]
    data_digest: str
    """SHA-256 over names, types and values of the frame."""
    seconds: Mapping[str, float]
    """Wall time by step."""

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles that there is a model for, in the order of `ROLES`."""
        return tuple(role for role in ROLES if role == "predictor" or role in self.files)

    @property
    def train_id(self) -> str:
        """Name of this training, 16 hex digits: the same data and settings give the same models."""
        digest = sha256()
        for role in self.roles:
            for name, content in sorted(self.files.get(role, {}).items()):
                digest.update(f"{role}/{name}:{sha256(content).hexdigest()}\n".encode())
        digest.update(self.fingerprint)
        return digest.hexdigest()[:16]

    @property
    def fingerprint(self) -> bytes:
        """What else tells this training from others, beside its files."""
        return b""

    @property
    def shown(self) -> NDArray[np.int64]:
        """Places in the frame of the rows that the model card measures, (n,)."""
        raise NotImplementedError

    @property
    def shown_answers(self) -> NDArray[Any]:
        """What the predictor answers to the rows that the model card measures."""
        return self.answers(self.frame.iloc[self.shown])

    def answers(self, frame: pd.DataFrame) -> NDArray[Any]:
        """Predict rows: probabilities (n, classes), or values (n,). Raises DataError."""
        raise NotImplementedError

    def evaluate(self, frame: pd.DataFrame) -> dict[str, float]:
        """Measure the models on rows with known targets, later ones say. Raises DataError.

        Gives the predictor's metrics and, as `outlier_rate`, the share of outliers.
        """
        return self.measured(frame, self.answers(frame))

    def measured(self, frame: pd.DataFrame, answers: NDArray[Any]) -> dict[str, float]:
        """Measure answers to rows with known targets, and the outliers among these."""
        metrics = self.scored(self.truth(frame), answers)
        if self.detector is None:
            return metrics
        matrix = inputs.encode(frame, self.schema)
        return {**metrics, "outlier_rate": float(self.detector.flag(matrix).mean())}

    def truth(self, frame: pd.DataFrame) -> NDArray[Any]:
        """Give the targets of rows as `scored` takes them, (n,). Raises DataError."""
        return truth_of(frame, self.schema)

    def scored(self, truth: NDArray[Any], answers: NDArray[Any]) -> dict[str, float]:
        """Compare answers with targets."""
        return scored(truth, answers)


@dataclass(frozen=True, kw_only=True)
class Trained(Models):
    """What `train` made: LightGBM's trees, and both detectors."""

    booster: lgb.Booster
    detector: OutlierDetector

    @property
    def held_out(self) -> NDArray[np.int64]:
        """Places in the frame of the rows that the models were measured on, (n,)."""
        return split(goal_of(self.frame, self.schema), self.schema)[1]

    @property
    def shown(self) -> NDArray[np.int64]:
        """Places of the rows held out, (n,)."""
        return self.held_out

    def answers(self, frame: pd.DataFrame) -> NDArray[np.float64]:
        """Predict rows: probabilities (n, classes), or values (n,). Raises DataError."""
        matrix = inputs.encode(frame, self.schema)
        return predictor.answers(self.booster, matrix, self.schema.output)


def train(  # noqa: PLR0913  # named settings
    frame: pd.DataFrame,
    target: str,
    *,
    features: Sequence[str] | None = None,
    overrides: Overrides | None = None,
    task: Task | None = None,
    seed: int = 0,
    params: Mapping[str, Any] | None = None,
    rounds: int = predictor.ROUNDS,
    known_ahead: Collection[str] = (),
    outlier_kind: detectors.Kind = "mahalanobis",
    outlier_quantile: float = outlier.QUANTILE,
    bins: int = DEFAULT_BINS,
    reference: Any = None,
    times: str | None = None,
) -> Trained:
    """Train the three models on a frame; a quarter of its rows is held out to measure them.

    `features` defaults to all columns but the target. `overrides` replaces fields of single
    inputs: `{"AGEP": {"unit": "years", "nullable": False}}`. `task` says "classifier" or
    "regressor" where the target's type does not. `params` are LightGBM's, `rounds` the number of
    boosting rounds (LightGBM's `num_iterations`). A column that gives the target away is refused,
    unless it is among those `known_ahead`. `outlier_kind` is how outliers are found
    (see `detectors.fit`), `outlier_quantile` the share of the training rows that are none, `bins`
    the quantile bins per number of the drift detector. `reference` is the whole table where the
    frame is only a sample of it: the drift detector is made of that. It may have any size and be of
    Parquet files, Arrow, DuckDB or Spark. `times` is the column of dates that tells when each row
    was, and is no feature: by it is measured how far each feature moves without any drift.

    The same frame, settings and seed give the same bytes. Raises DataError for a frame that cannot
    be trained on, and ParityError when the fast form of the trees disagrees with the trees.
    """
    if not 0 < outlier_quantile < 1:
        raise DataError(f"outlier_quantile is {outlier_quantile}; it has to lie between 0 and 1")
    clock = Clock()
    if times is not None and times not in frame.columns:
        raise DataError(f"column {times!r} is missing; the frame has {list(frame.columns)}")
    groups = () if times is None else variation.groups_of(frame[times], len(frame))
    if features is None:
        features = [name for name in frame.columns if name not in {target, times}]
    schema = inputs.describe(
        frame,
        target,
        features=features,
        overrides=overrides,
        task=task,
        known_ahead=known_ahead,
    )
    frame = frame.loc[:, [*schema.names, target]].reset_index(drop=True)
    matrix = inputs.encode(frame, schema)
    goal = goal_of(frame, schema)
    kept, held = split(goal, schema)
    clock.step("encode")

    booster = predictor.fit(
        matrix[kept], goal[kept], schema, seed=seed, params=params or {}, rounds=rounds
    )
    trees = predictor.compile_trees(booster)
    answers = predictor.answers(booster, matrix[held], schema.output)
    clock.step("predictor")

    detector = detectors.fit(
        outlier_kind, matrix[kept], matrix[held], schema, quantile=outlier_quantile, seed=seed
    )
    clock.step("outlier")

    # Scores of rows that the trees were fitted to would look surer than any to come.
    scores, labels = scores_of(answers), labels_of(answers, schema)
    profile = Profile.fit(matrix, schema, bins, scores=scores, labels=labels)
    if reference is not None:
        from modelops_training import profiles  # noqa: PLC0415  # only this needs Arrow's datasets

        whole = profiles.profile_of(reference, schema, bins)
        profile = replace(profile, features=whole.features, rows=whole.rows)
    if groups:
        profile = variation.varied(profile, matrix, groups)
        told = tuple(each[held] for each in groups)
        profile = variation.predictions_varied(profile, scores, labels, told)
    clock.step("drift")

    rows = parity.choose(frame.iloc[held], schema, seed=SPLIT_SEED)
    encoded = schema.encode(rows)
    gaps, _ = predictor.with_gaps(
        matrix[held][:PROVED_ROWS], goal[held][:PROVED_ROWS], schema, seed=seed
    )
    proved = predictor.prove(booster, trees, np.concatenate([encoded, gaps]), schema.output)
    own: dict[str, Mapping[str, bytes]] = {
        "drift": {flavor.PROFILE: profile.to_json()},
        "outlier": detectors.files(detector),
        "predictor": {
            flavor.TREELITE: trees.serialize_bytes(),
            flavor.LIGHTGBM: booster.model_to_string().encode(),
        },
    }
    expected = {
        "drift": profile.place(encoded),
        "outlier": detector.score(encoded),
        "predictor": predictor.answers(booster, encoded, schema.output),
    }
    files = packed(schema, rows, own, expected)
    clock.step("prove")

    return Trained(
        schema=schema,
        frame=frame,
        files=files,
        kinds={**KINDS, "outlier": outlier_kind},
        booster=booster,
        detector=detector,
        profile=profile,
        metrics={
            **scored(truth_of(frame.iloc[held], schema), answers),
            "outlier_rate": detector.reference_rate,
            **outlier.recall(detector, matrix[held], schema),
            "parity_difference": proved,
        },
        params={
            "seed": seed,
            "rounds": rounds,
            **predictor.PARAMETERS,
            **(params or {}),
            "outlier_quantile": outlier_quantile,
            "bins": bins,
            "rows": len(frame),
            "held_out_rows": len(held),
            "features": len(schema.inputs),
        },
        data_digest=data_digest(frame),
        seconds=clock.seconds,
    )


def data_digest(frame: pd.DataFrame) -> str:
    """Name the content of a frame: a SHA-256 over its column names, types and all its rows."""
    digest = sha256()
    for name in frame.columns:
        digest.update(f"{name}:{frame[name].dtype.name}\n".encode())
    digest.update(pd.util.hash_pandas_object(frame, index=False).to_numpy().tobytes())
    return digest.hexdigest()


def truth_of(frame: pd.DataFrame, schema: Schema) -> NDArray[Any]:
    """Give the target, (n,): class indices of a classifier, or numbers. Raises DataError."""
    if schema.output.kind == "classifier":
        return inputs.target_codes(frame, schema)
    values: NDArray[np.float64] = frame[schema.output.name].to_numpy(np.float64)
    return values


def goal_of(frame: pd.DataFrame, schema: Schema) -> NDArray[np.float64]:
    """Give the target as LightGBM takes it, (n,)."""
    return truth_of(frame, schema).astype(np.float64)


def split(goal: NDArray[np.float64], schema: Schema) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Choose the rows to fit to and those held out, by their places. Raises DataError."""
    classes, counts = np.unique(goal, return_counts=True)
    classifier = schema.output.kind == "classifier"
    if classifier and counts.min() < 2:
        rare = (schema.output.classes or ())[int(classes[counts.argmin()])]
        raise DataError(
            f"target {schema.output.name!r}: class {rare!r} appears once; drop it or add rows"
        )
    kept, held = train_test_split(
        np.arange(len(goal)),
        test_size=HELD_OUT,
        random_state=SPLIT_SEED,
        stratify=goal if classifier else None,
    )
    return kept, held


def scores_of(answers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Reduce answers to what the profile's `scores` are about, (n,)."""
    if answers.ndim == 1:
        return answers
    return answers[:, 1] if answers.shape[1] == 2 else answers.max(axis=1)


def labels_of(answers: NDArray[Any], schema: Schema) -> NDArray[np.int64] | None:
    """Tell which of the schema's classes is predicted, (n,); -1 for none of them.

    None for a regressor.
    """
    if schema.output.classes is None:
        return None
    if answers.ndim == 2:
        return np.asarray(answers.argmax(axis=1), dtype=np.int64)
    places = {str(label): place for place, label in enumerate(schema.output.classes)}
    return np.array([places.get(str(each), -1) for each in answers.tolist()], dtype=np.int64)


def scored(truth: NDArray[Any], answers: NDArray[np.float64]) -> dict[str, float]:
    """Compare answers with what `truth_of` gives: probabilities (n, classes), or values (n,)."""
    if answers.ndim == 2:
        return evaluation.classification(truth, answers)
    return evaluation.regression(truth, answers)


def packed(
    schema: Schema,
    rows: list[dict[str, Any]],
    own: Mapping[str, Mapping[str, bytes]],
    expected: Mapping[str, NDArray[Any]],
) -> dict[str, dict[str, bytes]]:
    """Put the flavor's files together: by role its own files, and its answers to parity rows."""
    return {
        role: {
            flavor.SCHEMA: schema.to_json(),
            **files,
            flavor.PARITY: parity.to_json(rows, expected[role].tolist(), predictor.TOLERANCE),
        }
        for role, files in own.items()
    }


class Clock:
    """Wall time of the steps so far, in seconds."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def step(self, name: str) -> None:
        """Note the time since the step before."""
        now = time.perf_counter()
        self.seconds[name] = round(now - self._last, 3)
        self._last = now
