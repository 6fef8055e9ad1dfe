"""Models without our flavor, as MLflow saves and loads them."""

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from modelops_runtime import bento
from modelops_runtime.answering import Answerer, Deployment
from modelops_runtime.models import ModelsError, describe, load
from modelops_runtime.schema import InvalidRows

pytestmark = pytest.mark.contract

DEPLOYMENT = Deployment(model="ns/name", revision="r", pod="p", window=60)
PROGRAM = """
import mlflow
import numpy as np


class Sum(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return np.where(model_input.sex == "m", 1, 0) + model_input.age.astype(float) / FACTOR


mlflow.models.set_model(Sum())
"""
SaveModel = Callable[..., Path]


@pytest.fixture
def save_model(tmp_path: Path) -> SaveModel:
    """Save a model as the predictor of a Bento's models folder; gives the latter."""

    def save(factor: str = "100", *, signed: bool = True, example: bool = True) -> Path:
        import mlflow
        import pandas as pd
        from mlflow.models import infer_signature

        program = tmp_path / "program.py"
        program.write_text(PROGRAM.replace("FACTOR", factor))
        frame = pd.DataFrame({"age": [3.0, 50.0], "sex": ["m", "f"]})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what MLflow says to those who save
            mlflow.pyfunc.save_model(
                str(tmp_path / "models" / "predictor"),
                python_model=str(program),
                signature=infer_signature(frame, pd.Series([1.0])) if signed else None,
                input_example=frame if example else None,
                pip_requirements=["mlflow"],
            )
        return tmp_path / "models"

    return save


@pytest.mark.filterwarnings("ignore")  # what MLflow says while it loads
def test_any_model_with_a_signature_is_served(save_model: SaveModel) -> None:
    folder = save_model()
    (folder / "models.json").write_text('{"predictor": "sum/4"}')
    models = load(folder)
    answerer = Answerer(models, DEPLOYMENT)
    answered = answerer.answer([{"age": 50, "sex": "m"}, {"age": 3.0, "sex": "other"}])
    assert answered.content["predictions"] == [1.5, 0.03]
    assert answered.content["probabilities"] is None
    assert (models.predictor.form, models.name, models.version) == ("pyfunc", "sum", "4")
    assert answered.scores is not None
    with pytest.raises(InvalidRows, match=r"row 0, age: got \"x\""):
        answerer.answer([{"age": "x", "sex": "m"}])
    schema, _ = describe(folder)
    assert schema.names == ("age", "sex")


@pytest.mark.filterwarnings("ignore")
def test_a_model_that_fails_on_its_own_example_is_not_served(save_model: SaveModel) -> None:
    with pytest.raises(ModelsError, match="fails on its own input example") as caught:
        load(save_model(factor="None"))
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore")
def test_a_model_without_a_signature_is_told_what_to_do(save_model: SaveModel) -> None:
    with pytest.raises(ModelsError, match="log the model with one"):
        load(save_model(signed=False, example=False))


@pytest.mark.filterwarnings("ignore")
def test_what_mlflow_cannot_load_is_told_in_a_line(save_model: SaveModel) -> None:
    folder = save_model()
    for path in (folder / "predictor").glob("*.py"):
        path.unlink()
    with pytest.raises(ModelsError, match="MLflow cannot load it") as caught:
        load(folder)
    assert "\n" not in str(caught.value)


def test_the_folder_of_a_bento_is_the_one_meant(make_bento: Callable[..., Path]) -> None:
    folder = make_bento("predictor")
    shutil.rmtree(folder / bento.MODELS / "predictor")
    with pytest.raises(ModelsError, match="there is no folder"):
        load(folder / bento.MODELS)
