"""Which form serves, what detectors have to fit, and what is said when nothing holds."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from modelops_runtime import bento, flavor
from modelops_runtime.answering import Answerer, Deployment
from modelops_runtime.bento import ServingRuntime
from modelops_runtime.models import Models, ModelsError, describe, load
from modelops_runtime.predictors import PredictorError, answer
from modelops_runtime.schema import InvalidRows, Output, Schema

from tests.runtime.toys import Toy, falsify_parity, replace_file

pytestmark = pytest.mark.unit

MakeBento = Callable[..., Path]
DEPLOYMENT = Deployment(model="ns/name", revision="r", pod="p", window=60)
CLASSES = Output(kind="classifier", name="y", classes=("a", "b"))


def load_from(folder: Path) -> Models:
    return load(folder / bento.MODELS)


def ask_for(folder: Path, runtime: ServingRuntime) -> Path:
    """Have a Bento say how its predictor is to be served."""
    names = {"predictor": "employment/3"}
    files = bento.skeleton(name="e", version="3", python="3.11", models=names, runtime=runtime)
    place = f"{bento.MODELS}/{bento.RUNTIME}"
    (folder / place).write_bytes(files[place])
    return folder


def edit_json(model: Path, name: str, change: Callable[[Any], object]) -> None:
    data = orjson.loads((model / flavor.DATA / name).read_bytes())
    change(data)
    replace_file(model, name, orjson.dumps(data))


def test_the_fastest_form_answers_as_the_model_does(make_bento: MakeBento, toy: Toy) -> None:
    models = load_from(make_bento())
    assert models.predictor.form == "treelite"
    assert not models.rejected
    assert (models.name, models.version) == ("employment", "3")
    answered = Answerer(models, DEPLOYMENT).answer(toy.rows)
    known = toy.probabilities(toy.rows)
    np.testing.assert_allclose(answered.content["probabilities"], known, atol=1e-9)
    assert answered.content["predictions"] == np.where(known[:, 1] > 0.5, "yes", "no").tolist()
    matrix = toy.schema.encode(toy.rows)
    assert answered.content["outliers"].tolist() == toy.detector.flag(matrix).tolist()
    assert answered.outliers == int(toy.detector.flag(matrix).sum()) > 0
    assert answered.matrix is not None
    np.testing.assert_array_equal(answered.matrix, matrix)


def test_a_predictor_alone_has_no_outliers(make_bento: MakeBento, toy: Toy) -> None:
    answered = Answerer(load_from(make_bento("predictor")), DEPLOYMENT).answer(toy.rows)
    assert answered.content["outliers"] is None
    assert answered.matrix is None


def test_bad_rows_are_refused_by_name(make_bento: MakeBento) -> None:
    answerer = Answerer(load_from(make_bento("predictor")), DEPLOYMENT)
    with pytest.raises(InvalidRows, match="row 1, age: got null"):
        answerer.answer([{"age": 3}, {}])


@pytest.mark.parametrize("checkpoint", [b"", b"trees", b"\x00" * 200])
def test_falls_back_to_lightgbm(make_bento: MakeBento, toy: Toy, checkpoint: bytes) -> None:
    folder = make_bento("predictor")
    replace_file(folder / bento.MODELS / "predictor", flavor.TREELITE, checkpoint)
    models = load_from(folder)
    assert models.predictor.form == "lightgbm"
    assert "treelite" in models.rejected
    found = Answerer(models, DEPLOYMENT).answer(toy.rows).content["probabilities"]
    np.testing.assert_allclose(found, toy.probabilities(toy.rows), atol=1e-9)


def test_without_a_form_that_holds_nothing_is_served(make_bento: MakeBento) -> None:
    folder = make_bento("predictor")
    falsify_parity(folder / bento.MODELS / "predictor")
    with pytest.raises(ModelsError) as caught:
        load_from(folder)
    said = str(caught.value)
    assert "\n" not in said
    assert said.startswith("predictor employment/3: no form of it holds: treelite: 50 of 50 parity")
    assert "lightgbm: 50 of 50 parity rows are answered wrongly, first row 0: got" in said


def test_runtime_fast_takes_the_compiled_form(
    make_bento: MakeBento, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        models = load_from(ask_for(make_bento(), ServingRuntime.FAST))
    assert models.predictor.form == "treelite"
    assert "served by treelite: no code that came with it is run" in caplog.text


def test_runtime_fast_refuses_rather_than_falls_back(make_bento: MakeBento) -> None:
    folder = ask_for(make_bento("predictor"), ServingRuntime.FAST)
    replace_file(folder / bento.MODELS / "predictor", flavor.TREELITE, b"trees")
    with pytest.raises(ModelsError, match="treelite cannot read") as caught:
        load_from(folder)
    assert "runtime Fast takes no other: register the model again, or ask for Pyfunc" in str(
        caught.value
    )
    assert "lightgbm" not in str(caught.value)


def test_runtime_fast_refuses_a_model_without_a_fast_form(make_bento: MakeBento) -> None:
    folder = ask_for(make_bento("predictor"), ServingRuntime.FAST)
    shutil.rmtree(folder / bento.MODELS / "predictor" / flavor.DATA)
    with pytest.raises(ModelsError, match="employment/3: it has no fast form, and runtime Fast"):
        load_from(folder)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"runtime": "Slow"}'])
def test_a_runtime_that_is_not_known_is_refused(make_bento: MakeBento, content: bytes) -> None:
    folder = make_bento("predictor")
    (folder / bento.MODELS / bento.RUNTIME).write_bytes(content)
    with pytest.raises(ModelsError, match=r"runtime\.json: is not understood"):
        load_from(folder)


def test_a_bento_says_nothing_of_auto() -> None:
    files = bento.skeleton(name="e", version="3", python="3.11", models={"predictor": "e/3"})
    assert f"{bento.MODELS}/{bento.RUNTIME}" not in files


def test_without_the_native_file_the_cause_is_named(make_bento: MakeBento) -> None:
    folder = make_bento("predictor")
    model = folder / bento.MODELS / "predictor"
    falsify_parity(model)
    replace_file(model, flavor.LIGHTGBM, None)
    with pytest.raises(ModelsError, match=r"lightgbm: .* needs model\.lgb\.txt"):
        load_from(folder)


@pytest.mark.parametrize(
    ("role", "name", "change", "said"),
    [
        ("outlier", flavor.DETECTOR, lambda data: data["mean"].pop(), "do not belong together"),
        ("outlier", flavor.PARITY, lambda data: data["expected"].reverse(), "answered wrongly"),
        ("drift", flavor.PARITY, lambda data: data["rows"].clear(), "has 0 rows and 50 answers"),
        ("drift", flavor.PARITY, lambda data: data["rows"][0].update(age="x"), "row 0, age"),
        ("drift", flavor.PROFILE, lambda data: data["features"].pop(), "edges_hash is"),
        ("predictor", flavor.PARITY, lambda data: data.pop("tolerance"), "is not understood"),
        ("predictor", flavor.SCHEMA, lambda data: data["inputs"].clear(), "there are no inputs"),
        ("predictor", flavor.SCHEMA, lambda data: data["inputs"].pop(), "no such field"),
    ],
)
def test_what_does_not_hold_is_named(
    make_bento: MakeBento, role: str, name: str, change: Callable[[Any], object], said: str
) -> None:
    folder = make_bento()
    edit_json(folder / bento.MODELS / role, name, change)
    with pytest.raises(ModelsError, match=role) as caught:
        load_from(folder)
    assert said in str(caught.value)


def test_a_model_of_another_role_is_refused(make_bento: MakeBento) -> None:
    folder = make_bento() / bento.MODELS
    shutil.rmtree(folder / "outlier")
    (folder / "drift").rename(folder / "outlier")
    with pytest.raises(ModelsError, match="made as a drift model, and is used as outlier"):
        load(folder)


def test_a_detector_of_other_inputs_is_refused(make_bento: MakeBento) -> None:
    folder = make_bento()

    def rename(data: Any) -> None:
        data["inputs"][0]["name"] = "years"

    model = folder / bento.MODELS / "outlier"
    edit_json(model, flavor.SCHEMA, rename)
    edit_json(
        model,
        flavor.PARITY,
        lambda data: [row.update(years=row.pop("age")) for row in data["rows"]],
    )
    with pytest.raises(ModelsError, match="takes years as a number, which the predictor does not"):
        load_from(folder)


def test_a_detector_of_another_training_encodes_for_itself(make_bento: MakeBento, toy: Toy) -> None:
    folder = make_bento()

    def swap(data: Any) -> None:
        data["inputs"][2]["levels"] = ["2", "1"]

    model = folder / bento.MODELS / "drift"
    edit_json(model, flavor.SCHEMA, swap)
    own = Schema.from_json((model / flavor.DATA / flavor.SCHEMA).read_bytes())
    expected = toy.profile.place(own.encode(toy.rows)).tolist()
    edit_json(model, flavor.PARITY, lambda data: data.update(expected=expected))
    answered = Answerer(load_from(folder), DEPLOYMENT).answer([{"age": 3, "sex": "2"}])
    assert answered.matrix is not None
    assert answered.matrix[0, 2] == 0.0


@pytest.mark.parametrize("role", ["predictor", "drift"])
def test_what_is_sensitive_to_either_model_is_hidden(make_bento: MakeBento, role: str) -> None:
    folder = make_bento()
    model = folder / bento.MODELS / role
    edit_json(model, flavor.SCHEMA, lambda data: data["inputs"][1].update(sensitive=True))
    reference = load_from(folder).reference
    assert reference is not None
    assert reference.hidden == {1}


def test_a_detector_without_the_flavor_is_left_out(make_bento: MakeBento) -> None:
    folder = make_bento()
    shutil.rmtree(folder / bento.MODELS / "outlier" / flavor.DATA)
    assert load_from(folder).detector is None


def test_a_bento_without_models_says_so(tmp_path: Path) -> None:
    with pytest.raises(ModelsError, match="there is no folder"):
        load(tmp_path)
    with pytest.raises(ModelsError, match="predictor"):
        describe(tmp_path)


@pytest.mark.parametrize("shape", [(2,), (2, 1), (2, 1, 1), (2, 2), (2, 1, 2)])
def test_answers_of_two_classes_come_in_several_shapes(shape: tuple[int, ...]) -> None:
    second = np.array([0.2, 0.7])
    raw = np.column_stack([1 - second, second]) if 2 in shape[1:] else second
    found = answer(raw.reshape(shape), CLASSES)
    assert found.predictions == ["a", "b"]
    assert found.probabilities is not None
    assert found.scores is not None
    np.testing.assert_allclose(found.probabilities[:, 1], second)
    np.testing.assert_allclose(found.scores, second)


def test_answers_of_a_wrong_shape_are_an_error() -> None:
    with pytest.raises(PredictorError, match="3 values for 2 classes"):
        answer(np.zeros((1, 3)), CLASSES)
    with pytest.raises(PredictorError, match="where one is expected"):
        answer(np.zeros((1, 3)), Output(kind="regressor", name="y"))


@pytest.mark.parametrize("window", ["", "0", "-5", "5.0", "five", "99999999"])
def test_a_window_without_sense_is_refused(window: str) -> None:
    with pytest.raises(ValueError, match="MODELOPS_WINDOW_SECONDS is"):
        Deployment.from_environment({"MODELOPS_WINDOW_SECONDS": window})
