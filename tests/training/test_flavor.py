"""Models as MLflow directories: two flavors, no pickle, and what plain MLflow makes of them."""

import pickletools
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import yaml
from modelops_runtime import flavor as runtime
from modelops_training import Trained, flavor, train
from modelops_training.data import FEATURES, employment
from modelops_training.flavor import Contents
from modelops_training.inputs import encode
from modelops_training.signature import example, signature
from modelops_training.training import KINDS, ROLES

pytestmark = [
    pytest.mark.unit,
    # MLflow compares the columns of an input example with a range, which pandas 3 deprecates.
    pytest.mark.filterwarnings("ignore:Operation with range is deprecated"),
]

Save = Callable[[Trained, str], Path]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Write one model of a training as MLflow would."""

    def save(trained: Trained, role: str) -> Path:
        path = tmp_path / role
        contents = Contents(
            role=role,
            kind=KINDS[role],
            files=trained.files[role],
            train_id=trained.train_id,
            signature=signature(trained, role),
            example=example(trained),
        )
        flavor.save_model(str(path), contents=contents)
        return path

    return save


@pytest.mark.parametrize("role", ROLES)
def test_a_model_has_both_flavors_and_no_pickle(trained: Trained, save: Save, role: str) -> None:
    path = save(trained, role)
    described = yaml.safe_load((path / "MLmodel").read_text())
    wanted = {"modelops", "python_function"} | ({"lightgbm"} if role == "predictor" else set())
    assert set(described["flavors"]) == wanted
    info = runtime.read(path)
    runtime.verify(info)
    assert (info.role, info.kind, info.train_id) == (role, KINDS[role], trained.train_id)
    assert described["flavors"]["modelops"]["files"] == dict(info.files)
    assert described["flavors"]["python_function"]["model_code_path"] == "python_model.py"
    files = [file for file in path.rglob("*") if file.is_file()]
    assert not [file for file in files if _is_pickle(file)]
    assert not {file.name for file in files} & {"uv.lock", "pyproject.toml", "python_model.pkl"}
    assert str(Path.home()) not in (path / "MLmodel").read_text()


def _is_pickle(file: Path) -> bool:
    """Whether Python's own disassembler reads it to the end as a pickle that makes something."""
    if file.suffix in {".pkl", ".pickle", ".joblib", ".skops", ".dill"}:
        return True
    try:
        operations = [operation.name for operation, _, _ in pickletools.genops(file.read_bytes())]
    except (ValueError, UnicodeDecodeError):
        return False
    return len(operations) > 1


def test_the_pickle_test_knows_pickles(tmp_path: Path) -> None:
    import pickle

    for protocol in range(6):
        (tmp_path / "x").write_bytes(pickle.dumps({"a": [1.5, "b"]}, protocol))
        assert _is_pickle(tmp_path / "x")


@pytest.mark.parametrize("role", ROLES)
def test_requirements_are_pinned(trained: Trained, save: Save, role: str) -> None:
    lines = (save(trained, role) / "requirements.txt").read_text().split()
    assert all(line.count("==") == 1 for line in lines)
    names = {line.split("==")[0] for line in lines}
    assert {"mlflow", "numpy", "orjson", "pandas"} <= names
    assert ({"lightgbm", "treelite"} <= names) == (role == "predictor")


def test_plain_mlflow_predicts_frames_with_text(trained: Trained, save: Save) -> None:
    rows = employment([2016]).head(500)[list(FEATURES)]
    path = save(trained, "predictor")
    answers = mlflow.pyfunc.load_model(str(path)).predict(rows)
    expected = trained.answers(rows)
    assert list(answers.columns) == ["prediction", "probability_0", "probability_1"]
    np.testing.assert_allclose(answers["probability_1"], expected[:, 1], atol=1e-6)
    np.testing.assert_array_equal(answers["prediction"], expected.argmax(axis=1))


def test_the_native_flavor_is_the_same_model(trained: Trained, save: Save) -> None:
    rows = employment([2016]).head(500)
    booster = mlflow.lightgbm.load_model(str(save(trained, "predictor")))
    matrix = encode(rows, trained.schema)
    np.testing.assert_allclose(booster.predict(matrix), trained.answers(rows)[:, 1], atol=1e-12)


def test_plain_mlflow_scores_outliers(trained: Trained, save: Save) -> None:
    rows = employment([2016]).head(500)[list(FEATURES)]
    model = mlflow.pyfunc.load_model(str(save(trained, "outlier")))
    answers = model.predict(rows)
    assert list(answers.columns) == ["score", "outlier"]
    assert answers["outlier"].mean() < 0.05
    assert model.predict(rows.assign(AGEP=rows["AGEP"] * 1000 + 1000))["outlier"].all()


def test_plain_mlflow_tells_drift_by_feature(trained: Trained, save: Save) -> None:
    people = employment([2016])
    model = mlflow.pyfunc.load_model(str(save(trained, "drift")))
    calm = model.predict(people[list(FEATURES)]).set_index("feature")
    assert list(calm.index) == list(FEATURES)
    assert calm["psi"].max() < 0.02
    old = people[people["AGEP"] > 60][list(FEATURES)].assign(SEX="9", MAR=None)
    moved = model.predict(old).set_index("feature")
    assert moved.loc["AGEP", "psi"] > 1
    assert (moved.loc["SEX", "unseen"], moved.loc["MAR", "missing"]) == (1, 1)


def test_gaps_and_new_categories_are_answered(mixed: pd.DataFrame, save: Save) -> None:
    frame = mixed.drop(columns=["price", "kind"])
    trained = train(frame, "bought", rounds=5)
    rows = frame.drop(columns="bought").astype(
        {"grade": "str", "code": "str", "flag": "str", "maybe": "float64"}
    )
    rows.loc[3, "colour"] = "violet"
    answers = mlflow.pyfunc.load_model(str(save(trained, "predictor"))).predict(rows)
    np.testing.assert_allclose(answers["probability_1"], trained.answers(rows)[:, 1], atol=1e-6)


@pytest.mark.parametrize(("target", "columns"), [("kind", 4), ("price", 1)])
def test_other_targets_are_answered(
    mixed: pd.DataFrame, save: Save, target: str, columns: int
) -> None:
    frame = mixed[["size", "whole", target]].assign(noise=np.arange(len(mixed)) % 7)
    trained = train(frame, target, rounds=5)
    answers = mlflow.pyfunc.load_model(str(save(trained, "predictor"))).predict(
        frame.drop(columns=target)
    )
    assert answers.shape == (len(frame), columns)
    assert "prediction" in answers


def test_values_that_the_schema_refuses_are_named(trained: Trained, save: Save) -> None:
    path = save(trained, "outlier")
    rows = employment([2016]).head(3)[list(FEATURES)]
    with pytest.raises(Exception, match="AGEP"):
        mlflow.pyfunc.load_model(str(path)).predict(rows.assign(AGEP="old"))


def test_it_loads_where_our_packages_are_not_installed(
    small: Trained, save: Save, tmp_path: Path
) -> None:
    """The program and the modules it imports travel with the model."""
    moved = shutil.copytree(save(small, "outlier"), tmp_path / "elsewhere")
    program = f"""
import sys, warnings
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("modelops_training", "lightgbm", "treelite"):
            raise ImportError(name)
sys.meta_path.insert(0, Absent())
import mlflow, mlflow.pyfunc
model = mlflow.pyfunc.load_model({str(moved)!r})
import modelops_runtime
print(modelops_runtime.__file__)
print(model.predict(model.input_example).shape)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    where, shape = done.stdout.split("\n")[:2]
    assert Path(where).is_relative_to(moved)
    assert shape == "(3, 2)"


def test_a_changed_byte_is_refused_by_name(trained: Trained, save: Save) -> None:
    path: Any = save(trained, "predictor") / "modelops" / "model.treelite"
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)
    with pytest.raises(runtime.FlavorError, match=r"model\.treelite"):
        runtime.verify(runtime.read(path.parents[1]))
