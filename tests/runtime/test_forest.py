"""Trees answer through the C interface as they do through Treelite's own package."""

import math
import subprocess
import sys
import threading
from typing import Any

import lightgbm
import numpy as np
import pytest
import treelite
from modelops_runtime.forest import Forest, ForestError
from sklearn import ensemble

pytestmark = pytest.mark.unit

RANDOM = np.random.default_rng(0)
ROWS = RANDOM.normal(size=(500, 4))
ROWS[::7, 1] = math.nan
OBJECTIVES: dict[str, dict[str, Any]] = {
    "regression": {"y": ROWS[:, 0] * 3 + 1},
    "binary": {"y": (ROWS[:, 0] + ROWS[:, 2] > 0).astype(float)},
    "multiclass": {"y": np.digitize(ROWS[:, 0], [-0.5, 0.5]), "num_class": 3},
}


def trained(objective: str, columns: int = 4) -> treelite.Model:
    settings = dict(OBJECTIVES[objective])
    y = settings.pop("y")
    data = lightgbm.Dataset(ROWS[:, :columns], y)
    settings |= {"objective": objective, "verbose": -1, "num_threads": 1, "seed": 1}
    booster = lightgbm.train(settings, data, num_boost_round=8)
    return treelite.frontend.from_lightgbm(booster)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("count", [0, 1, 3, 500])
def test_answers_as_treelite_does(objective: str, count: int) -> None:
    model = trained(objective)
    forest = Forest(model.serialize_bytes())
    found = forest.predict(ROWS[:count])
    values = {"multiclass": 3}.get(objective, 1)
    assert found.shape == (count, values)
    if count:
        known = treelite.gtil.predict(model, ROWS[:count], nthread=1).reshape(count, -1)
        np.testing.assert_array_equal(found, known)


FORESTS: dict[str, Any] = {
    "two classes": ensemble.RandomForestClassifier(20, random_state=0),
    "three classes": ensemble.ExtraTreesClassifier(20, random_state=0),
    "values": ensemble.RandomForestRegressor(20, random_state=0),
    "stumps": ensemble.RandomForestClassifier(5, max_depth=1, random_state=0),
}


@pytest.mark.parametrize("kind", FORESTS)
def test_many_rows_walk_together_as_they_do_alone(kind: str) -> None:
    rows = np.nan_to_num(ROWS, nan=9.0).astype(np.float32).astype(np.float64)
    cuts: Any = {"three classes": [-0.5, 0.5], "values": np.linspace(-3, 3, 50)}.get(kind, [0.0])
    fitted = FORESTS[kind].fit(rows[:200], np.digitize(rows[:200, 0], cuts))
    model = treelite.sklearn.import_model(fitted)
    forest = Forest(model.serialize_bytes())
    assert forest._levels is not None
    rows[0, 0], rows[1, 1] = math.inf, -math.inf
    known = treelite.gtil.predict(model, rows, nthread=1).reshape(500, -1)
    np.testing.assert_allclose(forest.predict(rows), known, rtol=1e-14, atol=0)
    assert forest.predict(rows[:0]).shape == (0, known.shape[1])
    rows[::3, 2] = math.nan
    known = treelite.gtil.predict(model, rows, nthread=1).reshape(500, -1)
    np.testing.assert_allclose(forest.predict(rows), known, rtol=1e-14, atol=0)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_boosted_trees_are_left_to_treelite(objective: str) -> None:
    assert Forest(trained(objective).serialize_bytes())._levels is None


def test_a_matrix_in_another_order_or_too_wide_is_no_trap() -> None:
    forest = Forest(trained("binary").serialize_bytes())
    known = forest.predict(ROWS)
    np.testing.assert_array_equal(forest.predict(np.asfortranarray(ROWS)), known)
    wide = np.concatenate([ROWS, RANDOM.normal(size=(500, 3))], axis=1)
    np.testing.assert_array_equal(forest.predict(wide), known)


def test_a_matrix_that_is_too_narrow_or_of_other_numbers_is_refused() -> None:
    forest = Forest(trained("binary").serialize_bytes())
    with pytest.raises(ForestError, match="for 4 inputs"):
        forest.predict(np.ascontiguousarray(ROWS[:, :3]))
    with pytest.raises(ForestError, match="float32"):
        forest.predict(ROWS.astype(np.float32))


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"\x04\x00\x00\x00\x08\x00\x00\x00"])
def test_what_is_no_checkpoint_is_refused(content: bytes) -> None:
    with pytest.raises(ForestError):
        Forest(content)


def test_several_threads_may_predict() -> None:
    forest = Forest(trained("binary").serialize_bytes())
    known = forest.predict(ROWS)
    wrong: list[int] = []

    def predict() -> None:
        wrong.extend(1 for _ in range(50) if (forest.predict(ROWS) != known).any())

    threads = [threading.Thread(target=predict) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_neither_treelite_nor_scipy_is_imported() -> None:
    program = (
        "import sys; from modelops_runtime.forest import Forest, ForestError\n"
        "try: Forest(b'')\nexcept ForestError: pass\n"
        "print(sorted({'treelite', 'scipy', 'lightgbm'} & sys.modules.keys()))"
    )
    command = [sys.executable, "-c", program]
    found = subprocess.run(command, check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "[]"
