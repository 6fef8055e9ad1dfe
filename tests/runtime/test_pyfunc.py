"""Models without our flavor, as MLflow saves and loads them."""

import shutil
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from modelops_runtime import bento, inference
from modelops_runtime.answering import Answerer, Deployment
from modelops_runtime.joining import JoiningPredictor
from modelops_runtime.models import ModelsError, describe, load
from modelops_runtime.predictors import PyfuncPredictor
from modelops_runtime.schema import InvalidRows

from tests.runtime.asking import Asker

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

    def save(
        factor: str = "100", *, signed: bool = True, example: bool = True, program: str = PROGRAM
    ) -> Path:
        import mlflow
        import pandas as pd
        from mlflow.models import infer_signature

        file = tmp_path / "program.py"
        file.write_text(program.replace("FACTOR", factor))
        frame = pd.DataFrame({"age": [3.0, 50.0], "sex": ["m", "f"]})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what MLflow says to those who save
            mlflow.pyfunc.save_model(
                str(tmp_path / "models" / "predictor"),
                python_model=str(file),
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
def test_the_log_says_what_serving_a_pickle_means(
    save_model: SaveModel, caplog: pytest.LogCaptureFixture
) -> None:
    folder = save_model()
    load(folder)
    assert "code that came with it runs in this pod (compiled: " in caplog.text
    (folder / "predictor" / "weights.pkl").touch()
    load(folder)
    assert "in this pod, and reading weights.pkl executes what is in there" in caplog.text


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


TYPED = """
import time

import mlflow


class Echo(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        if (model_input.text == "break").any():
            raise RuntimeError("broken")
        if (model_input.text == "wait").any():
            time.sleep(0.5)
        if (model_input.text == "day").any():
            return model_input.day
        if (model_input.text == "two").any():
            return model_input[["single", "large"]]
        return [str(row) for row in model_input.to_dict("records")]


mlflow.models.set_model(Echo())
"""
GOOD = {
    "small": 1,
    "large": 2,
    "single": 1.5,
    "double": 2.5,
    "flag": True,
    "day": "2026-11-28T10:00:00+01:00",
    "text": "x",
    "maybe": None,
}


@pytest.fixture(scope="module")
def typed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asker]:
    """A model with a column of every type of MLflow's."""
    import mlflow
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    folder = tmp_path_factory.mktemp("typed")
    (folder / "program.py").write_text(TYPED)
    types = ("integer", "long", "float", "double", "boolean", "datetime", "string")
    columns = [
        *(ColSpec(kind, name) for kind, name in zip(types, GOOD, strict=False)),
        ColSpec("long", "maybe", required=False),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mlflow.pyfunc.save_model(
            str(folder / "models" / "predictor"),
            python_model=str(folder / "program.py"),
            signature=ModelSignature(inputs=Schema([*columns])),
            pip_requirements=["mlflow"],
        )
        with Asker(folder / "models") as asker:
            yield asker


@pytest.mark.filterwarnings("ignore")
def test_every_type_of_mlflow_reaches_the_model(typed: Asker) -> None:
    response = typed.post("/predict", [GOOD])
    assert response.status_code == 200, response.text
    (told,) = response.json()["predictions"]
    assert "'small': 1, 'large': 2, 'single': 1.5, 'double': 2.5, 'flag': True" in told
    assert "'day': Timestamp('2026-11-28 09:00:00'), 'text': 'x'" in told
    line = b"small,large,single,double,flag,day,text\n1,2,1.5,2.5,true,2026-11-28T09:00:00,x\n"
    same = typed.post("/invocations", line, content_type="text/csv")
    assert same.json()["predictions"] == [told]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        ("small", 2**31, "a whole number from -2147483648 to 2147483647"),
        ("small", 1.5, "a whole number"),
        ("large", 2**53 + 1, "a whole number from -9007199254740992"),
        ("single", 1e39, "a finite number of 32 bits"),
        ("double", "2.5", "a finite number"),
        ("flag", 1, "true or false"),
        ("flag", "true", "true or false"),
        ("day", "28.11.2026", "a date or time as ISO 8601 writes it"),
        ("day", "2026-02-30", "a date or time"),
        ("day", "0001-01-01", "of the years 1678 to 2261"),
        ("day", 20261128, "a date or time"),
        ("text", 3, "text"),
        ("text", None, "text"),
    ],
)
def test_values_that_a_column_cannot_hold_are_refused(
    typed: Asker, column: str, value: object, expected: str
) -> None:
    response = typed.post("/predict", [GOOD, GOOD | {column: value}])
    assert response.status_code == 422
    (problem,) = response.json()["problems"]
    assert (problem["row"], problem["column"], problem["value"]) == (1, column, value)
    assert problem["expected"].startswith(expected) or expected in problem["expected"]


@pytest.mark.filterwarnings("ignore")
def test_what_mlflow_itself_refuses_is_a_refusal_too(typed: Asker) -> None:
    # A column of integers cannot have a gap among them.
    response = typed.post("/predict", [GOOD | {"maybe": 1}, GOOD])
    assert response.status_code == 422
    assert "the model does not take these rows" in response.json()["detail"]
    assert "maybe" in response.json()["detail"]


@pytest.mark.filterwarnings("ignore")
def test_a_model_that_breaks_is_told_to_its_owner_and_not_to_its_clients(
    typed: Asker, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("ERROR"):
        response = typed.post("/predict", [GOOD | {"text": "break"}], x_request_id="order-7")
    assert response.status_code == 500
    assert response.json()["request_id"] == "order-7"
    assert "broken" not in response.text
    (record,) = (each for each in caplog.records if each.name == "bentoml.modelops")
    assert record.exc_text is not None
    assert "broken" in record.exc_text
    assert record.__dict__["request"] == "order-7"
    assert typed.post("/predict", [GOOD]).status_code == 200


@pytest.mark.filterwarnings("ignore")
def test_what_a_model_of_others_gives_is_written_as_it_is(typed: Asker) -> None:
    dates, pairs = [GOOD | {"text": "day"}] * 2, [GOOD | {"text": "two"}] * 2
    assert typed.post("/predict", pairs).json()["predictions"] == [[1.5, 2.0]] * 2
    known = [{"single": 1.5, "large": 2.0}] * 2
    assert typed.post("/invocations", {"inputs": pairs}).json()["predictions"] == known
    tensors = inference.example(typed.models.schema, pairs)
    (output,) = typed.post("/v2/models/model/infer", tensors).json()["outputs"]
    assert (output["datatype"], output["shape"], output["data"]) == (
        "FP64",
        [2, 2],
        [1.5, 2.0, 1.5, 2.0],
    )
    known_dates = ["2026-11-28T09:00:00"] * 2
    assert typed.post("/predict", dates).json()["predictions"] == known_dates
    tensors = inference.example(typed.models.schema, dates)
    (output,) = typed.post("/v2/models/model/infer", tensors).json()["outputs"]
    assert (output["datatype"], output["data"]) == ("BYTES", known_dates)


@pytest.mark.filterwarnings("ignore")
def test_a_slow_model_holds_up_nobody_else(typed: Asker) -> None:
    slow, alive = typed.race(
        ("POST", "/predict", [GOOD | {"text": "wait"}]), ("GET", "/v2/health/live", None)
    )
    assert slow.status_code == alive.status_code == 200


@pytest.mark.filterwarnings("ignore")
@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    st.fixed_dictionaries(
        {},
        optional={
            name: st.just(value)
            | st.none()
            | st.booleans()
            | st.integers(-(2**63), 2**64 - 1)
            | st.floats(allow_nan=False, allow_infinity=False)
            | st.text(st.characters(codec="utf-8"), max_size=4)
            | st.datetimes().map(str)
            | st.lists(st.none(), max_size=1)
            for name, value in GOOD.items()
        },
    )
)
def test_whatever_the_values_a_model_of_others_never_fails(
    typed: Asker, changes: dict[str, Any]
) -> None:
    response = typed.post("/predict", [GOOD | changes])
    assert response.status_code in {200, 422}


def test_the_folder_of_a_bento_is_the_one_meant(make_bento: Callable[..., Path]) -> None:
    folder = make_bento("predictor")
    shutil.rmtree(folder / bento.MODELS / "predictor")
    with pytest.raises(ModelsError, match="there is no folder"):
        load(folder / bento.MODELS)


COUNTING = """
import time

import mlflow
import numpy as np

SIZES = []


class Counting(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        SIZES.append(len(model_input))
        time.sleep(0.05)
        if (model_input["age"] == 13).any():
            raise KeyError("thirteen")
        if ANSWER == "sizes":
            return np.full(len(model_input), len(model_input))
        return model_input["age"].to_numpy() * 2

    def sizes(self):
        return SIZES


mlflow.models.set_model(Counting())
"""


def together(answerer: Answerer, requests: list[list[dict[str, Any]]]) -> list[Any]:
    """Ask at the same time, each in a thread of its own; gives predictions or errors."""

    def ask(rows: list[dict[str, Any]]) -> Any:
        try:
            return answerer.answer(rows).content["predictions"]
        except Exception as error:  # noqa: BLE001 (it is what is looked at)
            return error

    with ThreadPoolExecutor(len(requests)) as threads:
        return list(threads.map(ask, requests))


@pytest.mark.filterwarnings("ignore")
def test_those_who_wait_are_answered_by_one_call(save_model: SaveModel) -> None:
    models = load(save_model(program=COUNTING.replace("ANSWER", "0")))
    assert isinstance(models.predictor, JoiningPredictor)
    sizes = models.predictor._predictor._model.unwrap_python_model().sizes()  # type: ignore[attr-defined]
    sizes.clear()
    answerer = Answerer(models, DEPLOYMENT)
    counts = {age: 1 + age % 3 for age in range(14, 34)}
    answers = together(
        answerer, [[{"age": age, "sex": "m"}] * count for age, count in counts.items()]
    )
    assert answers == [[2 * age] * count for age, count in counts.items()]
    # The first is answered at once and alone, the others mostly by the next call.
    assert sum(sizes) == sum(counts.values())
    assert len(sizes) <= 6

    # A row that the model does not take fails those who sent it, and nobody else.
    answers = together(answerer, [[{"age": age, "sex": "m"}] for age in range(10, 20)])
    assert isinstance(answers.pop(3), KeyError)
    assert answers == [[2 * age] for age in range(10, 20) if age != 13]

    # What has gaps, or is large, does not wait for its turn.
    row = {"age": 2.0, "sex": "m"}
    with models.predictor._turn:
        gaps = models.predictor.predict([row], np.array([[np.nan, 0.0]]))
        large = models.predictor.predict([row] * 1001, np.zeros((1001, 2)))
    assert (gaps.predictions, large.predictions) == ([4.0], [4.0] * 1001)


@pytest.mark.filterwarnings("ignore")
def test_a_model_that_looks_at_all_rows_is_asked_for_each_request(save_model: SaveModel) -> None:
    models = load(save_model(program=COUNTING.replace("ANSWER", '"sizes"')))
    assert isinstance(models.predictor, PyfuncPredictor)
    answers = together(Answerer(models, DEPLOYMENT), [[{"age": 20.0, "sex": "m"}]] * 5)
    assert answers == [[1]] * 5
