"""The same model behind MLflow's own scoring server and behind ours: the same answers."""

import asyncio
import shutil
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import numpy as np
import orjson
import pytest
from modelops_runtime import bento
from modelops_runtime.bento import ServingRuntime

from tests.runtime.asking import Asker
from tests.runtime.toys import Toy

pytestmark = [
    pytest.mark.contract,
    pytest.mark.filterwarnings("ignore"),  # what MLflow says while it loads
]

ROWS = [
    {"age": 34, "pay": 101.5, "sex": "1"},
    {"age": 2, "pay": 97.25, "sex": "2"},
    {"age": 90, "pay": 1e9, "sex": "never seen"},
]
NAMES = ["age", "pay", "sex"]
DATA = [[row[name] for name in NAMES] for row in ROWS]
CSV = b"age,pay,sex\n34,101.5,1\n2,97.25,2\n90,,never seen\n"
INDEXED = b",age,pay,sex\n0,34,101.5,1\n1,2,NaN,2\n"

Ask = Callable[[bytes, str], tuple[int, Any]]


@pytest.fixture(scope="module", params=[ServingRuntime.FAST, ServingRuntime.PYFUNC])
def both(
    toy: Toy, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[tuple[Ask, Ask]]:
    """Give MLflow's server and ours of one predictor, whichever way ours serves it."""
    import pandas as pd
    from mlflow import pyfunc
    from mlflow.models import ModelSignature
    from mlflow.pyfunc import scoring_server
    from mlflow.types import ColSpec, DataType, Schema
    from modelops_training import flavor

    folder = tmp_path_factory.mktemp("bento")
    saved = folder / "saved"
    frame = pd.DataFrame(ROWS)
    types = {"age": DataType.long, "pay": DataType.double, "sex": DataType.string}
    columns = [ColSpec(kind, name, required=name == "age") for name, kind in types.items()]
    contents = flavor.Contents(
        role="predictor",
        kind="treelite",
        files=toy.files["predictor"],
        train_id="t",
        signature=ModelSignature(inputs=Schema([*columns])),
        example=frame,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        flavor.save_model(str(saved), contents=contents)
        theirs = scoring_server.init(pyfunc.load_model(str(saved)))
    models = folder / bento.MODELS
    shutil.copytree(saved, models / "predictor")
    (models / bento.RUNTIME).write_bytes(orjson.dumps({"runtime": request.param}))
    with Asker(models) as asker:
        form = "treelite" if request.param is ServingRuntime.FAST else "pyfunc"
        assert asker.models.predictor.form == form
        answered = asker.post("/predict", ROWS).json()
        known = toy.probabilities(ROWS)
        assert answered["probabilities"] == [pytest.approx(list(each), abs=1e-9) for each in known]
        assert answered["predictions"] == np.where(known[:, 1] > 0.5, "yes", "no").tolist()

        def ask_ours(body: bytes, media_type: str) -> tuple[int, Any]:
            response = asker.post("/invocations", body, content_type=media_type)
            return response.status_code, response.json()

        async def post(body: bytes, media_type: str) -> httpx.Response:
            transport = httpx.ASGITransport(theirs)
            async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
                headers = {"content-type": media_type}
                return await client.post("/invocations", content=body, headers=headers)

        def ask_mlflow(body: bytes, media_type: str) -> tuple[int, Any]:
            response = asyncio.run(post(body, media_type))
            return response.status_code, response.json()

        yield ask_mlflow, ask_ours


@pytest.mark.parametrize(
    "content",
    [
        {"dataframe_records": ROWS},
        {"dataframe_records": [{"age": 34}, *ROWS]},
        {"dataframe_split": {"columns": NAMES, "data": DATA}},
        {"dataframe_split": {"columns": NAMES[::-1], "data": [row[::-1] for row in DATA]}},
        {"dataframe_split": {"columns": NAMES, "data": DATA, "index": [5, 6, 7]}},
        {"instances": ROWS},
        {"inputs": {name: [row[name] for row in ROWS] for name in NAMES}},
        {"inputs": ROWS, "params": {}},
    ],
)
def test_json_is_answered_as_mlflow_does(both: tuple[Ask, Ask], content: object) -> None:
    theirs, ours = (ask(orjson.dumps(content), "application/json") for ask in both)
    assert theirs[0] == 200, theirs
    assert_alike(theirs, ours)


@pytest.mark.parametrize("content", [CSV, INDEXED])
def test_csv_is_answered_as_mlflow_does(both: tuple[Ask, Ask], content: bytes) -> None:
    theirs, ours = (ask(content, "text/csv") for ask in both)
    assert theirs[0] == 200, theirs
    assert_alike(theirs, ours)


@pytest.mark.parametrize(
    "content",
    [
        [],
        {},
        {"rows": ROWS},
        {"inputs": ROWS, "instances": ROWS},
        {"dataframe_records": {"age": 34}},
        {"dataframe_records": [{"pay": 3.0}]},
        {"dataframe_records": [{"age": "old"}]},
        {"dataframe_split": ROWS},
        {"dataframe_split": {"columns": NAMES}},
        {"dataframe_split": {"columns": NAMES, "data": [[1, 2]]}},
        {"inputs": {"age": [1, 2], "pay": [3.0]}},
    ],
)
def test_what_mlflow_refuses_is_refused_alike(both: tuple[Ask, Ask], content: object) -> None:
    theirs, ours = (ask(orjson.dumps(content), "application/json") for ask in both)
    assert theirs[0] == ours[0] == 400, (theirs, ours)
    assert {"error_code", "message"} <= theirs[1].keys() & ours[1].keys()


def assert_alike(theirs: tuple[int, Any], ours: tuple[int, Any]) -> None:
    """Compare labels exactly and probabilities as far as doubles are written."""
    assert ours[0] == theirs[0]
    assert len(ours[1]["predictions"]) == len(theirs[1]["predictions"])
    for found, known in zip(ours[1]["predictions"], theirs[1]["predictions"], strict=True):
        assert found == pytest.approx(known, abs=1e-12)
