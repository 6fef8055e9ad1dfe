"""The OpenAPI document: every path, with the model's own inputs and rows of its own as examples.

https://spec.openapis.org/oas/v3.1.1.html
"""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any, Final

from modelops_runtime import documentation, inference, invocations
from modelops_runtime.models import Models
from modelops_runtime.schema import Schema

Json = dict[str, Any]

_JSON: Final = "application/json"
_PREDICTIONS: Final = "Predictions"
_INFERENCE: Final = "Open Inference Protocol"
_MLFLOW: Final = "MLflow's scoring server"
_SERVER: Final = "Server"
_REFUSALS: Final[Mapping[int, str]] = {
    400: "The body is not what its media type says.",
    405: "Another method is for this path.",
    408: "The body did not arrive in time.",
    413: "The body is too large, or has too many rows.",
    415: "The media type, or the compression, is not known.",
    422: "Rows do not fit the model's inputs: the problem names row, column and value.",
    503: "The server is overloaded, or is to end: ask again.",
}
_FOREIGN_REFUSALS: Final = tuple(status for status in _REFUSALS if status != 422)
"""Other protocols know 400 only, for what does not fit as well."""
_DESCRIPTION: Final = """Serves version {version} of **{name}**.

Bodies may be compressed with gzip, and long answers are for clients that accept it. Each answer
has the request's `X-Request-ID`, its own one or a new one. What cannot be answered is told as
[problem details](https://www.rfc-editor.org/rfc/rfc9457).
"""


def document(models: Models, example: Sequence[Mapping[str, Any]]) -> Json:
    """Describe all paths of a server of these models."""
    name, number = inference.name(models), inference.version(models)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": name,
            "version": number,
            "description": _DESCRIPTION.format(name=name, version=number),
        },
        "servers": [{"url": "."}],
        "tags": [{"name": each} for each in (_PREDICTIONS, _INFERENCE, _MLFLOW, _SERVER)],
        "paths": {
            "/predict": _predict(models.schema, example),
            **_protocol(models, example),
            "/invocations": _invocations(models.schema, example),
            "/ping": _get(_MLFLOW, "Whether the server is there", None),
            "/health": _get(_MLFLOW, "The same", None),
            "/version": _get(_MLFLOW, "The version of MLflow that is followed", None),
            "/metadata": _get(_SERVER, "What is served, and in which form", {"type": "object"}),
            "/metrics": _get(_SERVER, "Metrics for Prometheus", None),
            "/healthz": _get(_SERVER, "Whether the server lives", None),
            "/livez": _get(_SERVER, "Whether the server lives", None),
            "/readyz": _get(_SERVER, "Whether requests are welcome", None, busy=True),
        },
        "components": {
            "schemas": {
                "Record": documentation.record(models.schema),
                "Table": documentation.table(models.schema),
                "Prediction": _prediction(models.schema),
                "Problem": _PROBLEM,
                "InferenceRequest": _INFERENCE_REQUEST,
                "InferenceResponse": _INFERENCE_RESPONSE,
                "ModelMetadata": _MODEL_METADATA,
            },
        },
    }


def _predict(schema: Schema, example: Sequence[Mapping[str, Any]]) -> Json:
    rows = {"type": "array", "items": _ref("Record")}
    wrapped = {
        "type": "object",
        "properties": {"rows": rows},
        "required": ["rows"],
        "additionalProperties": False,
    }
    examples = {
        "records": {"summary": "Records", "value": list(example)},
        "table": {"summary": "Columns and data", "value": _as_table(schema, example)},
    }
    return _post(
        _named("predict", _PREDICTIONS, "Predict rows"),
        {_JSON: _content({"anyOf": [rows, wrapped, _ref("Table")]}, examples if example else {})},
        _ref("Prediction"),
        refusals=tuple(_REFUSALS),
    )


def _protocol(models: Models, example: Sequence[Mapping[str, Any]]) -> Json:
    plain = f"/v2/models/{inference.name(models)}"
    examples: Json = {}
    if example:
        value = inference.example(models.schema, example)
        examples = {"tensors": {"summary": "A tensor for each input", "value": value}}
    content = {_JSON: _content(_ref("InferenceRequest"), examples)}
    told = "Predict rows given as tensors"
    paths = {
        "/v2": _get(_INFERENCE, "The server", _SERVER_METADATA),
        "/v2/health/live": _get(_INFERENCE, "Whether the server lives", _flag("live")),
        "/v2/health/ready": _get(
            _INFERENCE, "Whether requests are welcome", _flag("ready"), busy=True
        ),
    }
    versioned = f"{plain}/versions/{inference.version(models)}"
    for place, name in ((plain, "infer"), (versioned, "infer_version")):
        paths[place] = _get(_INFERENCE, "The model", _ref("ModelMetadata"))
        paths[f"{place}/ready"] = _get(
            _INFERENCE, "Whether the model is ready", _flag("name", "ready"), busy=True
        )
        answer = _ref("InferenceResponse")
        paths[f"{place}/infer"] = _post(_named(name, _INFERENCE, told), content, answer)
    return paths


def _invocations(schema: Schema, example: Sequence[Mapping[str, Any]]) -> Json:
    record = _ref("Record")
    split = {
        "type": "object",
        "properties": {
            "columns": {"type": ["array", "null"], "items": {"enum": list(schema.names)}},
            "index": {"type": ["array", "null"]},
            "data": {"type": "array", "items": {"type": "array"}},
        },
        "required": ["data"],
        "additionalProperties": False,
    }
    tensors = {"type": ["array", "object"]}
    forms = {
        "dataframe_records": {"type": "array", "items": record},
        "dataframe_split": split,
        "instances": tensors,
        "inputs": tensors,
    }
    rows = list(example)
    values: Json = {
        "dataframe_records": rows,
        "dataframe_split": _as_table(schema, example),
        "instances": rows,
        "inputs": {name: [row.get(name) for row in rows] for name in schema.names},
    }
    body = {
        "type": "object",
        "oneOf": [
            {"title": name, "properties": {name: form}, "required": [name]}
            for name, form in forms.items()
        ],
    }
    examples = {name: {"summary": name, "value": {name: values[name]}} for name in forms}
    csv = {"frame": {"summary": "CSV", "value": _as_csv(schema, example)}}
    return _post(
        _named("invocations", _MLFLOW, "Predict rows as MLflow's scoring server does"),
        {
            _JSON: _content(body, examples if example else {}),
            invocations.CSV.decode(): _content({"type": "string"}, csv if example else {}),
        },
        {
            "type": "object",
            "properties": {"predictions": {"type": "array"}},
            "required": ["predictions"],
        },
    )


def _post(
    named: Json, content: Json, answer: Json, refusals: Sequence[int] = _FOREIGN_REFUSALS
) -> Json:
    return {
        "post": {
            **named,
            "requestBody": {"required": True, "content": content},
            "responses": {
                "200": {
                    "description": "The answer, a prediction for each row.",
                    "content": {_JSON: {"schema": answer}},
                },
                **{str(status): _refusal(_REFUSALS[status]) for status in refusals},
            },
        }
    }


def _named(name: str, tag: str, summary: str) -> Json:
    return {"operationId": name, "tags": [tag], "summary": summary}


def _get(tag: str, summary: str, answer: Json | None, *, busy: bool = False) -> Json:
    found: Json = {"description": "The answer."}
    if answer is not None:
        found["content"] = {_JSON: {"schema": answer}}
    # The probes of BentoML do not tell problems.
    busy_answer = {"description": _REFUSALS[503]}
    return {
        "get": {
            "tags": [tag],
            "summary": summary,
            "responses": {"200": found, **({"503": busy_answer} if busy else {})},
        }
    }


def _refusal(description: str) -> Json:
    return {
        "description": description,
        "content": {"application/problem+json": {"schema": _ref("Problem")}},
    }


def _content(schema: Json, examples: Json) -> Json:
    return {"schema": schema, **({"examples": examples} if examples else {})}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _as_table(schema: Schema, example: Sequence[Mapping[str, Any]]) -> Json:
    data = [[row.get(name) for name in schema.names] for row in example]
    return {"columns": list(schema.names), "data": data}


def _as_csv(schema: Schema, example: Sequence[Mapping[str, Any]]) -> str:
    lines = [schema.names, *([row.get(name) for name in schema.names] for row in example)]
    return "".join(",".join(_quoted(value) for value in line) + "\n" for line in lines)


def _quoted(value: object) -> str:
    text = "" if value is None else str(value)
    return '"' + text.replace('"', '""') + '"' if set(text) & set('",\r\n') else text


def _flag(*names: str) -> Json:
    kinds = {"name": {"type": "string"}, "live": {"const": True}, "ready": {"const": True}}
    return {
        "type": "object",
        "properties": {name: kinds[name] for name in names},
        "required": list(names),
    }


def _prediction(schema: Schema) -> Json:
    classes = schema.output.classes
    label: Json = {} if classes is None else {"enum": list(classes)}
    chances = {
        "type": "array",
        "items": {"type": "number", "minimum": 0, "maximum": 1},
        **({} if classes is None else {"minItems": len(classes), "maxItems": len(classes)}),
    }
    return {
        "type": "object",
        "title": "Prediction",
        "description": "The answers, in the order of the rows.",
        "properties": {
            "predictions": {
                "type": "array",
                "items": label,
                "description": "the class, or the value, of each row",
            },
            "probabilities": {
                "type": ["array", "null"],
                "items": chances,
                "description": "for each row the probability of each class; null without classes",
            },
            "outliers": {
                "type": ["array", "null"],
                "items": {"type": "boolean"},
                "description": "which rows are unlike the training data; null without a detector",
            },
            "model": {
                "type": "object",
                "description": "what answers",
                "properties": {
                    "name": {"type": "string"},
                    "version": {"type": "string"},
                    "revision": {"type": "string"},
                    "form": {"enum": ["linear", "treelite", "lightgbm", "pyfunc"]},
                    "classes": {"type": ["array", "null"]},
                },
                "required": ["name", "version", "revision", "form", "classes"],
            },
        },
        "required": ["predictions", "probabilities", "outliers", "model"],
    }


_PROBLEM: Final[Json] = {
    "type": "object",
    "title": "Problem",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "request_id": {"type": "string"},
        "count": {"type": "integer", "description": "how many values do not fit"},
        "problems": {
            "type": "array",
            "description": "the first of them",
            "items": {
                "type": "object",
                "properties": {
                    "row": {"type": "integer", "description": "from 0"},
                    "column": {"type": ["string", "null"]},
                    "value": {},
                    "expected": {"type": "string"},
                },
                "required": ["row", "column", "value", "expected"],
            },
        },
    },
    "required": ["type", "title", "status", "detail", "request_id"],
}
_SHAPE: Final[Json] = {"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 2}
_PARAMETERS: Final[Json] = {"type": ["object", "null"], "description": "not used"}
_TENSOR: Final[Json] = {
    "name": {"type": "string"},
    "shape": _SHAPE,
    "datatype": {"enum": list(inference.DATATYPES)},
    "data": {"type": "array", "items": {"type": ["number", "string", "boolean", "null", "array"]}},
}
_INFERENCE_REQUEST: Final[Json] = {
    "type": "object",
    "title": "InferenceRequest",
    "properties": {
        "id": {"type": ["string", "null"], "description": "comes back with the answer"},
        "parameters": _PARAMETERS,
        "inputs": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "properties": {**_TENSOR, "parameters": _PARAMETERS},
                "required": ["name", "shape", "datatype", "data"],
            },
        },
        "outputs": {
            "type": ["array", "null"],
            "description": "which outputs to give; all without it",
            "items": {
                "type": "object",
                "properties": {
                    "name": {"enum": ["predictions", "probabilities", "outliers"]},
                    "parameters": _PARAMETERS,
                },
                "required": ["name"],
            },
        },
    },
    "required": ["inputs"],
}
_INFERENCE_RESPONSE: Final[Json] = {
    "type": "object",
    "title": "InferenceResponse",
    "properties": {
        "id": {"type": "string"},
        "model_name": {"type": "string"},
        "model_version": {"type": "string"},
        "outputs": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": _TENSOR,
                "required": ["name", "shape", "datatype", "data"],
            },
        },
    },
    "required": ["model_name", "model_version", "outputs"],
}
_METADATA_TENSORS: Final[Json] = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {name: _TENSOR[name] for name in ("name", "datatype", "shape")},
        "required": ["name", "datatype", "shape"],
    },
}
_MODEL_METADATA: Final[Json] = {
    "type": "object",
    "title": "ModelMetadata",
    "properties": {
        "name": {"type": "string"},
        "versions": {"type": "array", "items": {"type": "string"}},
        "platform": {"type": "string"},
        "inputs": _METADATA_TENSORS,
        "outputs": _METADATA_TENSORS,
    },
    "required": ["name", "versions", "platform", "inputs", "outputs"],
}
_SERVER_METADATA: Final[Json] = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "version": {"const": version("modelops-runtime")},
        "extensions": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["name", "version", "extensions"],
}
