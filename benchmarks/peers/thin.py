"""Starlette and ONNX Runtime by hand: about the least that answering a prediction can cost.

No validation, no telemetry, no outliers; categories are looked up in tables of Python's own.
"""

import os
from pathlib import Path

import numpy as np
import onnxruntime
import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

FOLDER = Path(os.environ["ARTIFACTS"])
COLUMNS = orjson.loads((FOLDER / "columns.json").read_bytes())
OPTIONS = onnxruntime.SessionOptions()
OPTIONS.intra_op_num_threads = 1
SESSION = onnxruntime.InferenceSession(str(FOLDER / "model.onnx"), OPTIONS)
INPUT = SESSION.get_inputs()[0].name
OUTPUTS = [each.name for each in SESSION.get_outputs()]


async def predict(request: Request) -> Response:
    """Predict records."""
    records = orjson.loads(await request.body())
    rows = [
        [row[name] if codes is None else codes.get(row[name], -1) for name, codes in COLUMNS]
        for row in records
    ]
    labels, chances = SESSION.run(OUTPUTS, {INPUT: np.array(rows, dtype=np.float32)})
    answer = {"predictions": labels, "probabilities": chances}
    content = orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(content, media_type="application/json")


async def ready(request: Request) -> Response:
    """Say that the model is loaded."""
    del request
    return Response()


app = Starlette(
    routes=[Route("/predict", predict, methods=["POST"]), Route("/healthz", ready)],
)
