"""The three models: how good they are, how the fast form agrees, what the detectors find."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import treelite
from modelops_runtime import flavor
from modelops_runtime.outlier import Mahalanobis
from modelops_runtime.profile import Profile
from modelops_runtime.schema import Schema
from modelops_training import DataError, ParityError, Trained, inputs, outlier, predictor, train
from modelops_training.data import CATEGORIES, employment
from modelops_training.training import HELD_OUT, ROLES, SPLIT_SEED
from sklearn.model_selection import train_test_split

pytestmark = pytest.mark.unit


def test_the_predictor_meets_its_goals(trained: Trained) -> None:
    assert trained.metrics["auc"] >= 0.905
    assert trained.metrics["log_loss"] <= 0.376
    assert trained.metrics["calibration_error"] <= 0.015
    assert trained.metrics["parity_difference"] <= 1e-6


def test_it_holds_on_later_years(trained: Trained) -> None:
    for year in (2016, 2017, 2018):
        later = trained.evaluate(employment([year]))
        assert later["auc"] >= 0.90
        assert later["calibration_error"] <= 0.015
        assert later["outlier_rate"] == pytest.approx(0.005, abs=0.002)


def test_a_missing_age_is_not_taken_for_a_newborn(trained: Trained, people: pd.DataFrame) -> None:
    ageless = people.head(20_000).assign(AGEP=np.nan)
    assert trained.evaluate(ageless)["log_loss"] < 0.6  # 3.0 without rows with gaps in training
    assert 0.4 < trained.answers(ageless)[:, 1].mean() < 0.6


def test_the_same_data_and_seed_give_the_same_bytes(mixed: pd.DataFrame, small: Trained) -> None:
    frame = mixed.drop(columns=["price", "kind"])
    again, other = (train(frame, "bought", rounds=5, seed=seed) for seed in (0, 1))
    assert again.files == small.files
    assert again.train_id == small.train_id != other.train_id
    assert again.data_digest == small.data_digest == other.data_digest
    assert train(frame.head(599), "bought", rounds=5).data_digest != small.data_digest


@pytest.mark.parametrize(
    ("target", "shape"), [("bought", (200, 2)), ("kind", (200, 3)), ("price", (200,))]
)
def test_every_kind_of_target_has_its_fast_form(
    mixed: pd.DataFrame, target: str, shape: tuple[int, ...]
) -> None:
    rest = {"bought", "kind", "price"} - {target}
    trained = train(mixed.drop(columns=list(rest)), target, rounds=20)
    files = trained.files["predictor"]
    parity = json.loads(files[flavor.PARITY])
    expected = np.array(parity["expected"])
    count = min(200, round(len(mixed) * HELD_OUT))
    assert expected.shape == (count, *shape[1:])
    schema = Schema.from_json(files[flavor.SCHEMA])
    trees = treelite.Model.deserialize_bytes(files[flavor.TREELITE])
    answers = predictor.fast_answers(trees, schema.encode(parity["rows"]), schema.output)
    np.testing.assert_allclose(answers, expected, atol=1e-6, rtol=1e-6)


def test_reference_rows_hold_a_missing_an_unseen_and_an_extreme_value(trained: Trained) -> None:
    schema = trained.schema
    for role in ROLES:
        parity = json.loads(trained.files[role][flavor.PARITY])
        assert len(parity["rows"]) == len(parity["expected"]) == 200
        matrix = schema.encode(parity["rows"])
        assert np.isnan(matrix).sum() == 1
        assert (matrix == -1).sum() == 1
        assert (matrix[:, 0] > 1_000).sum() == 1
    predicted = np.array(json.loads(trained.files["predictor"][flavor.PARITY])["expected"])
    np.testing.assert_allclose(predicted.sum(axis=1), 1)


def test_trees_that_disagree_are_refused(trained: Trained, small: Trained) -> None:
    other = treelite.frontend.from_lightgbm(small.booster)
    matrix = inputs.encode(small.frame, small.schema)
    predictor.prove(small.booster, other, matrix, small.schema.output)
    wrong = train(small.frame, "bought", rounds=5, seed=3).booster
    with pytest.raises(ParityError, match="treelite's form of the trees differs by"):
        predictor.prove(wrong, other, matrix, small.schema.output)
    assert trained.train_id != small.train_id


def _held_out(trained: Trained) -> np.ndarray[Any, np.dtype[np.float64]]:
    matrix = inputs.encode(trained.frame, trained.schema)
    codes = inputs.target_codes(trained.frame, trained.schema)
    places = train_test_split(
        np.arange(len(matrix)), test_size=HELD_OUT, random_state=SPLIT_SEED, stratify=codes
    )[1]
    held: np.ndarray[Any, np.dtype[np.float64]] = matrix[places]
    return held


def test_the_detector_finds_unit_errors_and_six_sigma(trained: Trained) -> None:
    rows = _held_out(trained)
    detector, spread = trained.detector, rows[:, 0].std()
    assert detector.flag(rows).mean() == pytest.approx(detector.reference_rate)
    assert 0.003 < detector.reference_rate < 0.008
    grown = rows[rows[:, 0] > 0]  # a thousand times nothing is nothing
    months = grown * np.where(np.arange(rows.shape[1]) == 0, 1_000, 1)
    assert detector.flag(months).all()
    for sign in (-6, 6):
        moved = rows.copy()
        moved[:, 0] += sign * spread
        assert detector.flag(moved).mean() > 0.8


def test_what_the_detector_finds_is_measured(trained: Trained) -> None:
    rows = _held_out(trained)
    found = outlier.recall(trained.detector, rows, trained.schema)
    assert found.items() <= trained.metrics.items()
    assert found["outlier_recall_6_sigma"] >= 0.6
    assert found["outlier_recall_x1000"] >= 0.99
    assert 0.2 < found["outlier_recall_unseen"] < 1
    assert isinstance(trained.detector, Mahalanobis)
    blind = replace(trained.detector, threshold=1e300)
    assert set(outlier.recall(blind, rows, trained.schema).values()) == {0.0}
    nobody = np.where(np.arange(rows.shape[1]) == 0, 0, rows)  # whose age is 0, or nowhere known
    assert "outlier_recall_x1000" not in outlier.recall(blind, nobody, trained.schema)
    assert not outlier.recall(blind, np.full_like(rows, np.nan), trained.schema)


def test_the_detector_finds_them_in_many_columns() -> None:
    random = np.random.default_rng(0)
    mixing = random.normal(size=(8, 30)) / 2
    values = random.normal(size=(20_000, 8)) @ mixing + random.normal(size=(20_000, 30))
    values[:, :6] = np.exp(values[:, :6] / 2)  # skewed ones, as incomes are
    frame = pd.DataFrame(values, columns=[f"x{i}" for i in range(30)])
    frame["y"] = (values[:, 7] > 0).astype(int)
    made = train(frame, "y", rounds=2, known_ahead=["x7"])
    detector = made.detector
    found, errors = [], []
    for column in range(30):
        moved, wrong = values[:2_000].copy(), values[:2_000].copy()
        moved[:, column] += 6 * values[:, column].std() * random.choice([-1, 1], 2_000)
        wrong[:, column] *= 1_000
        found.append(detector.flag(moved).mean())
        errors.append(detector.flag(wrong).mean())
    assert np.mean(found) > 0.85  # 0.6 as long as the skewed ones are not bent
    assert np.mean(errors) > 0.99
    assert made.metrics["outlier_recall_6_sigma"] == pytest.approx(np.mean(found), abs=0.02)
    assert made.metrics["outlier_recall_x1000"] == pytest.approx(np.mean(errors), abs=0.01)
    assert 0.003 < detector.reference_rate < 0.008


def test_missing_and_unseen_values_are_scored(trained: Trained) -> None:
    rows = _held_out(trained)[:5_000]
    for place in range(rows.shape[1]):
        gap = rows.copy()
        gap[:, place] = np.nan
        assert np.isfinite(trained.detector.score(gap)).all()
        assert trained.detector.flag(gap).mean() < 0.2
    unseen = rows.copy()
    unseen[:, 1] = -1
    assert trained.detector.flag(unseen).mean() > 0.5
    read = Mahalanobis.from_json(trained.files["outlier"][flavor.DETECTOR])
    np.testing.assert_array_equal(read.score(unseen), trained.detector.score(unseen))


def test_the_profile_is_of_all_rows_and_of_held_out_scores(trained: Trained) -> None:
    profile = Profile.from_json(trained.files["drift"][flavor.PROFILE])
    assert profile.edges_hash == trained.profile.edges_hash
    assert profile.rows == len(trained.frame) == 68_785
    age = profile.features[0]
    assert age.kind == "number"
    assert 19 <= len(age.edges) <= 21
    assert age.counts[0] == age.counts[-1] == 0  # the guards
    assert [feature.name for feature in profile.features[1:]] == list(CATEGORIES)
    assert all(sum(feature.counts) == profile.rows for feature in profile.features)
    assert profile.scores is not None
    assert sum(profile.scores.counts) == trained.params["held_out_rows"]
    assert profile.labels is not None
    assert profile.labels.levels == tuple(map(str, trained.schema.output.classes or ()))
    assert sum(profile.labels.counts) == trained.params["held_out_rows"]
    assert min(profile.labels.counts) > 0


def test_settings_reach_the_models(mixed: pd.DataFrame) -> None:
    frame = mixed.drop(columns=["price", "kind"])
    made = train(
        frame, "bought", rounds=3, params={"num_leaves": 4}, outlier_quantile=0.9, bins=5, seed=7
    )
    assert made.booster.num_trees() == 3
    assert made.booster.params["num_leaves"] == 4
    assert max(len(feature.edges) for feature in made.profile.features) <= 6
    assert made.params["seed"] == 7
    assert 0.02 < made.detector.reference_rate < 0.25


def test_unfit_settings_and_classes_are_refused(mixed: pd.DataFrame) -> None:
    with pytest.raises(DataError, match=r"outlier_quantile is 1\.5"):
        train(mixed, "bought", outlier_quantile=1.5)
    rare = mixed.assign(kind=["only"] + ["a", "b"] * 299 + ["a"])
    with pytest.raises(DataError, match="class 'only' appears once"):
        train(rare, "kind")


def test_names_that_lightgbm_refuses_are_replaced(mixed: pd.DataFrame) -> None:
    frame = mixed[["size", "whole", "bought"]].rename(columns={"size": 'a "b": {c}, grün'})
    made = train(frame, "bought", rounds=2)
    assert made.schema.names == ('a "b": {c}, grün', "whole")
    assert made.booster.feature_name() == ["input_0", "whole"]
