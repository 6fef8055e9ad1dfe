"""One model, asked in every way: the same rows get the same answers, or the same refusal."""

import asyncio
import csv
import gzip
import io
from collections.abc import AsyncIterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import orjson
import pytest
import treelite
from hypothesis import given, settings
from hypothesis import strategies as st
from modelops_runtime import admission, asgi, flavor, inference
from modelops_runtime.schema import Output, Schema

from tests.runtime.asking import Asker
from tests.runtime.serving import GOOD, SCHEMA, Trained, make_records

pytestmark = pytest.mark.unit

INFER = "/v2/models/main.ml.employment/infer"
ROWS = [*make_records(20, seed=4), GOOD | {"AGEP": 10**6}, {"AGEP": 30, "SEX": "2"}]
PROBLEM = "application/problem+json"
Rows = Sequence[Mapping[str, Any]]


def as_table(rows: Rows, names: Sequence[str] = SCHEMA.names) -> dict[str, Any]:
    return {"columns": list(names), "data": [[row.get(name) for name in names] for row in rows]}


def as_columns(rows: Rows) -> dict[str, list[Any]]:
    return {name: [row.get(name) for row in rows] for name in SCHEMA.names}


def as_tensors(rows: Rows, **more: Any) -> dict[str, Any]:
    """Give SEX and MAR as text, which toy records have as text or as integers."""
    types = {"AGEP": "INT64", "WAGP": "FP64", "SEX": "BYTES", "MAR": "BYTES"}

    def element(name: str, value: Any) -> Any:
        return str(value) if types[name] == "BYTES" and value is not None else value

    inputs = [
        {
            "name": name,
            "shape": [len(rows)],
            "datatype": types[name],
            "data": [element(name, value) for value in values],
        }
        for name, values in as_columns(rows).items()
    ]
    return {"inputs": inputs, **more}


def as_csv(rows: Rows, names: Sequence[str] = SCHEMA.names) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, names, restval="")
    writer.writeheader()
    writer.writerows([{name: row.get(name) for name in names} for row in rows])
    return text.getvalue().encode()


def outputs(content: Mapping[str, Any]) -> dict[str, Any]:
    return {each["name"]: each for each in content["outputs"]}


# --- /predict --------------------------------------------------------------------------------


def test_columns_and_data_are_answered_as_records_are(asker: Asker) -> None:
    known = asker.post("/predict", ROWS)
    assert known.status_code == 200
    for names in (SCHEMA.names, tuple(reversed(SCHEMA.names))):
        found = asker.post("/predict", as_table(ROWS, names))
        assert found.status_code == 200
        assert found.json() == known.json()


def test_columns_that_may_be_missing_may_be_left_out(asker: Asker) -> None:
    rows = [{"AGEP": 30, "SEX": "2"}]
    found = asker.post("/predict", as_table(rows, ("SEX", "AGEP")))
    assert found.json() == asker.post("/predict", rows).json()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"columns": [], "data": []}, "columns: got []"),
        ({"columns": "AGEP", "data": []}, "columns: got AGEP"),
        ({"columns": [1], "data": []}, "columns: got [1]"),
        ({"columns": ["AGE"], "data": []}, "columns: got AGE, expected names of the model's"),
        ({"columns": ["SEX", "SEX"], "data": []}, "columns: got SEX twice"),
        ({"columns": ["SEX"], "data": 3}, "data: got 3"),
        ({"columns": ["SEX", "AGEP"], "data": [["1", 3], ["1"]]}, 'row 1: got ["1"], expected a l'),
        ({"columns": ["SEX", "AGEP"], "data": [3]}, "row 0: got 3, expected a list of 2 values"),
        ({"columns": ["SEX"], "data": [["1"]]}, "row 0, AGEP: got null, expected a whole number"),
        ({"columns": ["SEX", "AGEP"], "data": [["1", 3], ["1", "x"]]}, 'row 1, AGEP: got "x"'),
        ({"columns": ["SEX"], "data": [], "more": 1}, "a list of records"),
    ],
)
def test_tables_that_do_not_fit_are_refused(asker: Asker, content: object, said: str) -> None:
    response = asker.post("/predict", content)
    assert response.status_code == 422
    assert response.headers["content-type"] == PROBLEM
    assert said in response.json()["detail"]


# --- Open Inference Protocol -----------------------------------------------------------------


def test_tensors_are_answered_as_records_are(asker: Asker, trained: Trained) -> None:
    known = asker.post("/predict", ROWS).json()
    response = asker.post(INFER, as_tensors(ROWS, id="42"))
    assert response.status_code == 200
    content = response.json()
    assert content["model_name"] == "main.ml.employment"
    assert content["model_version"] == "12"
    assert content["id"] == "42"
    found = outputs(content)
    assert found["predictions"]["datatype"] == "BYTES"
    assert found["predictions"]["shape"] == [len(ROWS)]
    assert found["predictions"]["data"] == known["predictions"]
    assert found["probabilities"]["datatype"] == "FP64"
    assert found["probabilities"]["shape"] == [len(ROWS), 2]
    chances = np.array(found["probabilities"]["data"]).reshape(-1, 2)
    np.testing.assert_allclose(chances[:, 1], trained.probabilities(ROWS), atol=1e-9)
    assert found["outliers"]["datatype"] == "BOOL"
    assert found["outliers"]["data"] == known["outliers"]


def test_a_version_may_be_named(asker: Asker) -> None:
    content = as_tensors(ROWS)
    versioned = asker.post("/v2/models/main.ml.employment/versions/12/infer", content)
    assert versioned.json() == asker.post(INFER, content).json()
    assert "id" not in versioned.json()
    other = asker.post("/v2/models/main.ml.employment/versions/11/infer", content)
    assert other.status_code == 404
    assert INFER in other.json()["detail"]


def test_outputs_are_given_as_asked_for(asker: Asker) -> None:
    wanted = [{"name": "outliers"}, {"name": "predictions"}]
    content = asker.post(INFER, as_tensors(ROWS, outputs=wanted)).json()
    assert [each["name"] for each in content["outputs"]] == ["outliers", "predictions"]


def test_columns_of_a_matrix_will_do(asker: Asker) -> None:
    tensors = as_tensors(ROWS)
    for tensor in tensors["inputs"]:
        tensor["shape"] = [len(ROWS), 1]
        tensor["data"] = [[value] for value in tensor["data"]]
    assert asker.post(INFER, tensors).json() == asker.post(INFER, as_tensors(ROWS)).json()


def test_integers_and_floats_of_every_width_are_numbers(asker: Asker) -> None:
    known = asker.post(INFER, as_tensors([GOOD])).json()
    for datatype in ("INT8", "INT16", "INT32", "UINT8", "UINT64", "FP16", "FP32"):
        tensors = as_tensors([GOOD])
        tensors["inputs"][0]["datatype"] = datatype
        assert asker.post(INFER, tensors).json() == known


def test_no_rows_are_tensors_without_elements(asker: Asker) -> None:
    found = outputs(asker.post(INFER, as_tensors([])).json())
    assert {name: each["shape"] for name, each in found.items()} == {
        "predictions": [0],
        "probabilities": [0, 2],
        "outliers": [0],
    }


def test_examples_suit_the_datatypes() -> None:
    rows: Rows = [{"AGEP": 34.0, "SEX": 1, "MAR": None}, GOOD]
    elements = {each["name"]: each["data"] for each in inference.example(SCHEMA, rows)["inputs"]}
    assert elements == {
        "AGEP": [34, 34],
        "WAGP": [None, 41000.0],
        "SEX": ["1", "1"],
        "MAR": [None, "5"],
    }
    assert all(type(each) is int for each in elements["AGEP"])


def changed(**changes: Any) -> dict[str, Any]:
    tensors = as_tensors([GOOD, GOOD])
    tensors["inputs"][0].update(changes)
    return tensors


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([], "inputs: got null, expected a list of tensors"),
        ({}, "inputs: got null, expected a list of tensors"),
        ({"inputs": []}, "inputs: got [], expected a list of tensors"),
        ({"inputs": [3]}, "inputs: got 3"),
        ({"inputs": as_tensors([GOOD])["inputs"] * 2}, "AGEP twice"),
        (changed(name="AGE"), "inputs: got AGE, expected names of the model's inputs"),
        (changed(name=["AGEP"]), 'inputs: got ["AGEP"]'),
        (changed(datatype="INT"), "datatype of AGEP: got INT, expected one of BOOL, BYTES"),
        (changed(datatype=None), "datatype of AGEP: got null"),
        (changed(shape=[3]), "shape of AGEP: got [3], expected [2]"),
        (changed(shape=[2, 2]), "shape of AGEP: got [2,2]"),
        (changed(shape=[2.0]), "shape of AGEP: got [2.0]"),
        (changed(shape=None), "shape of AGEP: got null"),
        (changed(data=None), "data of AGEP: got null"),
        (changed(shape=[1], data=[34]), "got 2 values, expected as many as AGEP has: 1"),
        (changed(data=[34, "x"]), 'row 1, AGEP: got "x", expected INT64'),
        (changed(data=[34, 35.5]), "row 1, AGEP: got 35.5, expected INT64"),
        (changed(data=[34, 200], datatype="INT8"), "row 1, AGEP: got 200, expected INT8"),
        (changed(data=[-1, 200], datatype="UINT16"), "row 0, AGEP: got -1, expected UINT16"),
        (changed(data=[34, 2**60]), "row 1, AGEP: got 1152921504606846976, expected a whole"),
        (changed(data=["34", "35"], datatype="BYTES"), 'AGEP: got "34", expected a whole number'),
        (changed(data=[34, None]), "row 1, AGEP: got null, expected a whole number"),
        (changed(parameters=3), "parameters of AGEP: got 3, expected an object"),
        (as_tensors([GOOD], parameters=[]), "parameters of the request: got []"),
        (as_tensors([GOOD], id=42), "id: got 42, expected text"),
        (as_tensors([GOOD], outputs=["predictions"]), 'outputs: got ["predictions"]'),
        (as_tensors([GOOD], outputs=[{"name": "labels"}]), "outputs: got labels"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(asker: Asker, content: object, said: str) -> None:
    response = asker.post(INFER, content)
    assert response.status_code == 400
    problem = response.json()
    assert said in problem["detail"]
    assert problem["error"] == problem["detail"]


def test_tells_of_the_server_and_the_model(asker: Asker) -> None:
    server = asker.get("/v2").json()
    assert server["name"] == "modelops-runtime"
    assert server["version"]
    model = asker.get("/v2/models/main.ml.employment").json()
    assert model == asker.get("/v2/models/main.ml.employment/versions/12").json()
    assert model["versions"] == ["12"]
    assert model["inputs"] == [
        {"name": "AGEP", "datatype": "INT64", "shape": [-1]},
        {"name": "WAGP", "datatype": "FP64", "shape": [-1]},
        {"name": "SEX", "datatype": "BYTES", "shape": [-1]},
        {"name": "MAR", "datatype": "BYTES", "shape": [-1]},
    ]
    assert model["outputs"] == [
        {"name": "predictions", "datatype": "BYTES", "shape": [-1]},
        {"name": "probabilities", "datatype": "FP64", "shape": [-1, 2]},
        {"name": "outliers", "datatype": "BOOL", "shape": [-1]},
    ]


def test_is_ready_until_it_is_to_end(asker: Asker) -> None:
    paths = ("/v2/health/ready", "/v2/models/main.ml.employment/ready")
    assert [asker.get(path).json()["ready"] for path in paths] == [True, True]
    asker.desk.closing = True
    try:
        assert [asker.get(path).status_code for path in paths] == [503, 503]
        assert asker.get("/v2/health/live").json() == {"live": True}
        assert asker.post("/predict", ROWS).headers["connection"] == "close"
    finally:
        asker.desk.closing = False


@pytest.mark.parametrize(
    ("output", "objective", "datatype"),
    [
        (Output(kind="classifier", name="y", classes=(0, 1, 2)), "multiclass", "INT64"),
        (Output(kind="classifier", name="y", classes=(False, True)), "binary", "BOOL"),
        (Output(kind="regressor", name="y"), "regression", "FP64"),
    ],
)
def test_outputs_have_the_type_of_the_models(
    tmp_path: Path, output: Output, objective: str, datatype: str
) -> None:
    with Asker(predictor_of(tmp_path, output, objective)) as asker:
        known = asker.post("/predict", ROWS).json()
        described = asker.get("/v2/models/model").json()["outputs"]
        found = outputs(asker.post("/v2/models/model/infer", as_tensors(ROWS)).json())
        answered = asker.post("/invocations", {"inputs": ROWS}).json()["predictions"]
    assert found["predictions"]["data"] == known["predictions"]
    assert [row["prediction"] for row in answered] == known["predictions"]
    classes = output.classes
    assert len(answered[0]) == 1 + len(classes or ())
    assert (known["probabilities"] is None) == (classes is None)
    assert known["outliers"] is None
    wanted = {"predictions": (datatype, [len(ROWS)])}
    if classes is not None:
        wanted["probabilities"] = ("FP64", [len(ROWS), len(classes)])
    assert {name: (each["datatype"], each["shape"]) for name, each in found.items()} == wanted
    assert {each["name"]: each["datatype"] for each in described} == {
        name: kind for name, (kind, _) in wanted.items()
    }


def predictor_of(folder: Path, output: Output, objective: str) -> Path:
    """Write a small predictor with this output into a folder of models."""
    schema = Schema(SCHEMA.inputs, output)
    rows = make_records(300, seed=1)
    matrix = schema.encode(rows)
    classes = len(output.classes or ())
    options = {"objective": objective, "verbose": -1, "num_threads": 1}
    options |= {"num_class": classes} if objective == "multiclass" else {}
    target = matrix[:, 0] % classes if classes else matrix[:, 0]
    booster = lightgbm.train(options, lightgbm.Dataset(matrix, target), num_boost_round=3)
    found = np.asarray(booster.predict(matrix, num_threads=1))
    expected = np.column_stack([1 - found, found]) if objective == "binary" else found
    parity = {"rows": rows, "expected": expected.tolist(), "tolerance": 1e-6}
    files = {
        flavor.SCHEMA: schema.to_json(),
        flavor.PARITY: orjson.dumps(parity),
        flavor.TREELITE: treelite.frontend.from_lightgbm(booster).serialize_bytes(),
    }
    flavor.write_data(folder / "predictor", "predictor", "treelite", files)
    return folder


# --- MLflow's scoring server -----------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        {"dataframe_records": ROWS},
        {"dataframe_records": ROWS, "params": {}},
        {"dataframe_split": as_table(ROWS)},
        {"dataframe_split": as_table(ROWS) | {"index": list(range(len(ROWS)))}},
        {"dataframe_split": {"data": as_table(ROWS)["data"]}},
        {"instances": ROWS},
        {"instances": as_table(ROWS)["data"]},
        {"inputs": as_columns(ROWS)},
        {"inputs": ROWS},
    ],
)
def test_every_form_of_mlflow_is_answered_as_records_are(asker: Asker, content: object) -> None:
    known = asker.post("/predict", ROWS).json()
    response = asker.post("/invocations", content)
    assert response.status_code == 200
    answered = response.json()["predictions"]
    assert [row["prediction"] for row in answered] == known["predictions"]
    chances = [[row["probability_no"], row["probability_yes"]] for row in answered]
    assert chances == known["probabilities"]


@pytest.mark.parametrize("media_type", ["text/csv", "text/csv; charset=utf-8", "TEXT/CSV"])
def test_csv_is_answered_as_records_are(asker: Asker, media_type: str) -> None:
    known = asker.post("/invocations", {"dataframe_records": ROWS})
    response = asker.post("/invocations", as_csv(ROWS), content_type=media_type)
    assert response.status_code == 200
    assert response.json() == known.json()


def test_csv_may_have_an_index_a_byte_order_mark_and_windows_lines(asker: Asker) -> None:
    lines = as_csv(ROWS).decode().splitlines()
    indexed = "\r\n".join(["," + lines[0], *(f"{n},{line}" for n, line in enumerate(lines[1:]))])
    body = indexed.encode("utf-8-sig")
    response = asker.post("/invocations", body, content_type="text/csv")
    assert response.json() == asker.post("/invocations", {"dataframe_records": ROWS}).json()


def test_one_record_is_a_row(asker: Asker) -> None:
    response = asker.post("/invocations", {"inputs": GOOD})
    assert response.json() == asker.post("/invocations", {"inputs": [GOOD]}).json()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (ROWS, "expected an object with one of dataframe_records"),
        ({}, "the body: got nothing, expected an object with one of dataframe_records"),
        ({"rows": ROWS}, "the body: got rows"),
        ({"inputs": ROWS, "instances": ROWS}, "expected an object with one of"),
        ({"dataframe_records": GOOD}, "dataframe_records: got {"),
        ({"dataframe_split": ROWS}, "dataframe_split: got ["),
        ({"dataframe_split": as_table(ROWS) | {"dtype": 1}}, "dataframe_split: got dtype"),
        ({"dataframe_split": as_table(ROWS) | {"index": {}}}, "index: got {}, expected a list"),
        ({"inputs": {"AGEP": [1, 2], "SEX": ["1"]}}, "SEX: got 1 values, expected as many as AGEP"),
        ({"inputs": {"AGEP": [1, 2], "SEX": "1"}}, "a list of values for each column"),
        ({"inputs": 3}, "inputs: got 3"),
        ({"instances": [GOOD, [1]]}, "row 1: got [1], expected an object with the fields"),
        (b"", "not JSON"),
    ],
)
def test_what_mlflow_would_not_take_is_refused(asker: Asker, content: object, said: str) -> None:
    response = asker.post("/invocations", content)
    assert response.status_code == 400
    problem = response.json()
    assert said in problem["detail"]
    assert (problem["error_code"], problem["message"]) == (
        "INVALID_PARAMETER_VALUE",
        problem["detail"],
    )


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "the body: got nothing, expected CSV"),
        (b"AGEP,SEX\n1\n", 'row 0: got ["1"], expected a list of 2 values'),
        (b"AGEP,SEX\nold,1\n", 'row 0, AGEP: got "old", expected a whole number'),
        (b"AGEP,SEX\n1_0,1\n", 'row 0, AGEP: got "1_0"'),
        (b"AGEP,SEX\ninf,1\n", "row 0, AGEP: got inf"),
        (b"AGEP,SEX\n,1\n", "row 0, AGEP: got null"),
        (b"AGEP,SEX\n3,\xff\n", "expected UTF-8"),
        (b'AGEP,SEX\n3,"1\n', "expected CSV"),
        (b"AGE,SEX\n3,1\n", "columns: got AGE"),
    ],
)
def test_csv_that_does_not_fit_is_refused(asker: Asker, body: bytes, said: str) -> None:
    response = asker.post("/invocations", body, content_type="text/csv")
    assert response.status_code == 400
    assert said in response.json()["detail"]


@pytest.mark.parametrize(
    "media_type",
    ["application/x-www-form-urlencoded", "text/csv; charset=latin-1", "application/json; a=b"],
)
def test_other_media_types_are_refused(asker: Asker, media_type: str) -> None:
    response = asker.post("/invocations", as_csv(ROWS), content_type=media_type)
    assert response.status_code == 415
    assert "text/csv" in response.json()["detail"]


def test_answers_the_small_questions_of_mlflow(asker: Asker) -> None:
    ping = asker.get("/ping")
    assert (ping.status_code, ping.content) == (200, b"\n")
    assert asker.get("/health").content == b"\n"
    assert asker.get("/version").text == version("mlflow")


# --- HTTP ------------------------------------------------------------------------------------

PATHS = ("/predict", INFER, "/invocations")


@pytest.mark.parametrize("path", PATHS)
def test_requests_are_named(asker: Asker, path: str) -> None:
    given_by_client = asker.post(path, b"{", x_request_id="order-7")
    assert given_by_client.headers["x-request-id"] == "order-7"
    assert given_by_client.json()["request_id"] == "order-7"
    made = [asker.post(path, b"{").headers["x-request-id"] for _ in range(2)]
    assert len(set(made)) == 2
    refused = asker.post(path, b"{", x_request_id="two words")
    assert refused.headers["x-request-id"] != "two words"


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("body", [b"", b"{", b"[NaN]", b'["\xff"]', b"[" * 3000, b'"\\ud800"'])
def test_what_is_not_json_is_refused(asker: Asker, path: str, body: bytes) -> None:
    response = asker.post(path, body)
    assert response.status_code == 400
    assert response.headers["content-type"] == PROBLEM
    assert response.json()["title"] == "The body is not JSON"


def test_nan_is_told_how_to_be_written(asker: Asker) -> None:
    response = asker.post("/predict", b'[{"AGEP": 30, "WAGP": NaN, "SEX": "1"}]')
    assert response.status_code == 400
    assert "JSON has no NaN, write null" in response.json()["detail"]


@pytest.mark.parametrize("path", PATHS)
def test_other_methods_and_paths_are_refused(asker: Asker, path: str) -> None:
    response = asker.get(path)
    assert response.status_code == 405
    assert response.headers["allow"] == "POST"
    assert asker.post("/metadata", {}).headers["allow"] == "GET, HEAD"
    lost = asker.post(f"{path}/else", {})
    assert lost.status_code == 404
    assert "/predict" in lost.json()["detail"]


def test_too_many_rows_are_refused(asker: Asker) -> None:
    content = {"columns": ["AGEP", "SEX"], "data": [[30, "1"]] * 100_001}
    response = asker.post("/predict", content)
    assert response.status_code == 413
    assert "100,001 rows, where at most 100,000" in response.json()["detail"]


def test_bodies_may_be_compressed(asker: Asker) -> None:
    body = gzip.compress(orjson.dumps(ROWS))
    found = asker.post("/predict", body, content_encoding="gzip")
    assert found.json() == asker.post("/predict", ROWS).json()
    # Two members are one stream.
    halves = gzip.compress(orjson.dumps(ROWS)[:50]) + gzip.compress(orjson.dumps(ROWS)[50:])
    assert asker.post("/predict", halves, content_encoding="gzip").json() == found.json()


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"[]", 400),
        (gzip.compress(b"[]")[:-4], 400),
        (gzip.compress(b"[]") + b"more", 400),
        (gzip.compress(b" " * (33 * 2**20)), 413),
        (gzip.compress(b""), 400),
    ],
)
def test_bodies_that_do_not_decompress_are_refused(asker: Asker, body: bytes, status: int) -> None:
    response = asker.post("/predict", body, content_encoding="gzip")
    assert response.status_code == status
    assert response.headers["content-type"] == PROBLEM


def test_other_compressions_are_refused(asker: Asker) -> None:
    response = asker.post("/predict", b"x", content_encoding="br")
    assert response.status_code == 415
    assert response.headers["accept-encoding"] == "gzip"


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [("gzip", "gzip"), ("br, gzip;q=0.5", "gzip"), ("*", "gzip"), ("gzip;q=0", None), ("br", None)],
)
def test_long_answers_are_compressed_for_those_who_like_it(
    asker: Asker, accepted: str, coding: str | None
) -> None:
    rows = [GOOD] * 1000
    response = asker.post("/predict", rows, accept_encoding=accepted)
    assert response.headers.get("content-encoding") == coding
    assert response.headers["vary"] == "accept-encoding"
    assert len(response.json()["predictions"]) == 1000
    short = asker.post("/predict", [GOOD], accept_encoding=accepted)
    assert "content-encoding" not in short.headers


# --- overload --------------------------------------------------------------------------------


def test_a_body_that_does_not_come_is_waited_for_in_vain(
    asker: Asker, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def stalled() -> AsyncIterator[bytes]:
        yield b"["
        await asyncio.Event().wait()

    monkeypatch.setattr(asgi, "BODY_SECONDS", 0.05)
    response = asker.post_stream("/predict", stalled())
    assert response.status_code == 408
    assert response.headers["connection"] == "close"
    assert "did not arrive within 0.05 seconds" in response.json()["detail"]


@pytest.mark.parametrize(
    ("bound", "value", "said"),
    [
        ("LONGEST_WAIT", 0.0, "the request waited more than 0 seconds"),
        ("MOST_BYTES", 10, "too many large requests are being read"),
    ],
)
def test_overload_is_told_with_when_to_come_again(
    asker: Asker, monkeypatch: pytest.MonkeyPatch, bound: str, value: float, said: str
) -> None:
    monkeypatch.setattr(admission, bound, value)
    for path in PATHS:
        response = asker.post(path, as_tensors(ROWS))
        assert response.status_code == 503
        assert response.headers["retry-after"] == "1"
        assert said in response.json()["detail"]


def test_nothing_is_held_once_all_are_answered(asker: Asker) -> None:
    for body in (b"{", orjson.dumps(ROWS), gzip.compress(orjson.dumps(ROWS) * 1000)):
        asker.post("/predict", body)
    found = asker.desk.admission
    assert (found.waiting, found.bytes, found.in_flight) == (0, 0, 0)
    found.peak()
    asker.post("/predict", ROWS)
    assert (found.peak(), found.peak()) == (1, 0)


# --- anything --------------------------------------------------------------------------------

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=6)
    | st.sampled_from(["1", 1, 34, 2.0, *SCHEMA.names]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner),
    max_leaves=5,
)
record = st.fixed_dictionaries({}, optional=dict.fromkeys((*SCHEMA.names, "else"), values))
rows = st.lists(record | st.just(GOOD) | values, max_size=4) | values
tables = st.fixed_dictionaries(
    {
        "columns": st.lists(st.sampled_from([*SCHEMA.names, "else"]), max_size=4) | values,
        "data": st.lists(st.lists(values, max_size=4) | values, max_size=3) | values,
    }
)
columns = st.dictionaries(
    st.sampled_from([*SCHEMA.names, "else"]), st.lists(values, max_size=3) | values
)
tensors = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(SCHEMA.names) | values,
        "shape": st.lists(st.integers(-1, 3), max_size=3) | values,
        "datatype": st.sampled_from(["BOOL", "INT8", "UINT64", "FP32", "BYTES"]) | values,
        "data": st.lists(values, max_size=3) | values,
    },
)
requests = st.fixed_dictionaries(
    {"inputs": st.lists(tensors | values, max_size=4) | values},
    optional={"id": values, "outputs": st.lists(values, max_size=2) | values, "parameters": values},
)
invocations = st.dictionaries(
    st.sampled_from(["dataframe_records", "dataframe_split", "instances", "inputs", "params"]),
    rows | tables | columns,
    max_size=2,
)
bodies = st.one_of(
    (rows | tables | requests | invocations).map(orjson.dumps),
    st.binary(max_size=60),
    st.text(st.sampled_from('AGEP,SEX\n\r"123.-_ \x00é'), max_size=40).map(str.encode),
    st.just(as_csv([GOOD])),
)


@settings(max_examples=200)
@given(
    st.sampled_from(PATHS),
    bodies,
    st.sampled_from(["application/json", "text/csv", "text/plain", ""]),
    st.sampled_from(["identity", "gzip"]),
)
def test_whatever_is_sent_is_answered_or_refused(
    asker: Asker, path: str, body: bytes, media_type: str, coding: str
) -> None:
    content = gzip.compress(body) if coding == "gzip" else body
    response = asker.post(path, content, content_type=media_type, content_encoding=coding)
    assert response.status_code in {200, 400, 413, 415, 422}
    if response.status_code != 200:
        assert response.headers["content-type"] == PROBLEM
        assert response.json()["detail"]
