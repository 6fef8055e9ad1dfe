"""The Open Inference Protocol, version 2, over REST: a tensor for each input of the model.

https://github.com/kserve/open-inference-protocol: specification/protocol/inference_rest.md

Tensors have the shape [rows] or [rows, 1]. Text is BYTES, and null stands for a missing value in
tensors of every datatype, since JSON knows no NaN. The outputs are `predictions`, `probabilities`
of shape [rows, classes] for a classifier, and `outliers` where there is a detector.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from modelops_runtime.answering import Answered
from modelops_runtime.interfaces import (
    Asked,
    Interface,
    dump,
    from_columns,
    listed,
    malformed,
    parse,
)
from modelops_runtime.models import Models
from modelops_runtime.problems import Refusal
from modelops_runtime.schema import (
    SHOWN_PROBLEMS,
    Input,
    InvalidRows,
    Label,
    Problem,
    Schema,
    shown,
)

_INTEGERS: Final[Mapping[str, range]] = {
    **{f"INT{bits}": range(-(2 ** (bits - 1)), 2 ** (bits - 1)) for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": range(2**bits) for bits in (8, 16, 32, 64)},
}
_ELEMENTS: Final[Mapping[str, frozenset[type]]] = {
    "BOOL": frozenset({bool}),
    "BYTES": frozenset({str}),
    **dict.fromkeys(("FP16", "FP32", "FP64"), frozenset({int, float})),
    **dict.fromkeys(_INTEGERS, frozenset({int})),
}
DATATYPES: Final = tuple(sorted(_ELEMENTS))
_OF_VALUES: Final[Mapping[type, str]] = {bool: "BOOL", int: "INT64", float: "FP64"}


def interface(models: Models) -> Interface:
    """Make the interface of `infer`."""
    schema = models.schema
    known = [output["name"] for output in _outputs(models)]

    def read(body: bytes, media_type: bytes) -> Asked:
        del media_type
        content = parse(body)
        tensors = content.get("inputs") if isinstance(content, dict) else None
        if not isinstance(tensors, list) or not tensors:
            raise malformed("inputs", tensors, "a list of tensors, one for each input")
        columns: dict[str, list[Any]] = {}
        for tensor in tensors:
            column, values = _column(schema, tensor)
            if column in columns:
                raise malformed("inputs", f"{column} twice", "each input once")
            columns[column] = values
        _check_parameters("the request", content)
        identity = content.get("id")
        if not isinstance(identity, str | None):
            raise malformed("id", identity, "text")
        wanted = _wanted(content.get("outputs"), known)
        return Asked(from_columns(schema, columns), partial(_write, models, identity, wanted))

    return Interface(read, _translate)


def name(models: Models) -> str:
    """Give the model's name in paths: its registered one, where that is known."""
    return models.name or "model"


def version(models: Models) -> str:
    """Give the model's version in paths."""
    return models.version or "1"


def metadata(models: Models) -> dict[str, Any]:
    """Describe the model: `GET /v2/models/<name>`."""
    return {
        "name": name(models),
        "versions": [version(models)],
        "platform": f"modelops_{models.predictor.form}",
        "inputs": [
            {"name": column.name, "datatype": datatype(column), "shape": [-1]}
            for column in models.schema.inputs
        ],
        "outputs": _outputs(models),
    }


def example(schema: Schema, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Write records as a request, for the documentation."""
    tensors = (
        (column, [_as_element(column, row.get(column.name)) for row in rows])
        for column in schema.inputs
    )
    return {
        "id": "example",
        "inputs": [
            {
                "name": column.name,
                "shape": [len(rows)],
                "datatype": datatype(column),
                "data": values,
            }
            for column, values in tensors
        ],
    }


def datatype(column: Input) -> str:
    """Give the datatype that suits an input best; others are taken if the values fit."""
    if column.kind == "category":
        return "BOOL" if column.storage == "boolean" else "BYTES"
    return "INT64" if column.integer else "FP64"


def _as_element(column: Input, value: Any) -> Any:
    """Write a record's value as an element of the tensor that suits its column."""
    kind = datatype(column)
    if kind == "INT64" and isinstance(value, float):
        return int(value)
    return str(value) if kind == "BYTES" and not isinstance(value, str | None) else value


def _column(schema: Schema, tensor: object) -> tuple[str, list[Any]]:
    """Check one input tensor and give its elements, one for each row."""
    if not isinstance(tensor, dict):
        raise malformed("inputs", tensor, "tensors: objects with name, shape, datatype and data")
    column = tensor.get("name")
    if column not in schema.names:
        raise malformed("inputs", column, f"names of the model's inputs: {listed(schema)}")
    _check_parameters(str(column), tensor)
    kind = tensor.get("datatype")
    if not isinstance(kind, str) or kind not in _ELEMENTS:
        raise malformed(f"datatype of {column}", kind, f"one of {', '.join(DATATYPES)}")
    values = tensor.get("data")
    if not isinstance(values, list):
        raise malformed(f"data of {column}", values, "a list of the tensor's elements")
    shape = tensor.get("shape")
    if not isinstance(shape, list) or not shape or any(type(size) is not int for size in shape):
        raise malformed(f"shape of {column}", shape, "[rows] or [rows, 1]")
    if shape[1:] == [1] and values and all(isinstance(each, list) for each in values):
        values = [element for each in values for element in each]
    if shape[1:] not in ([], [1]) or shape[0] != len(values):
        raise malformed(f"shape of {column}", shape, f"[{len(values)}], as many as data has")
    _check_elements(str(column), kind, values)
    return str(column), values


def _check_parameters(place: str, content: Mapping[str, Any]) -> None:
    """Check that parameters are some: none of them means anything here."""
    parameters = content.get("parameters")
    if not isinstance(parameters, dict | None):
        raise malformed(f"parameters of {place}", parameters, "an object")


def _check_elements(column: str, kind: str, values: list[Any]) -> None:
    """Compare elements with the datatype that the tensor says they have. Raises InvalidRows."""
    allowed = _ELEMENTS[kind]
    limits = _INTEGERS.get(kind)
    if {*map(type, values)} - allowed <= {type(None)} and (
        limits is None or all(value is None or value in limits for value in values)
    ):
        return
    wrong = [
        row
        for row, value in enumerate(values)
        if value is not None
        and (type(value) not in allowed or (limits is not None and value not in limits))
    ]
    raise InvalidRows(
        [
            Problem(row, column, shown(values[row]), f"{kind}, as the tensor says, or null")
            for row in wrong[:SHOWN_PROBLEMS]
        ],
        len(wrong),
    )


def _wanted(outputs: object, known: list[str]) -> list[str]:
    """Read which outputs are asked for: all, if nothing is said."""
    if outputs is None:
        return known
    if not isinstance(outputs, list) or not all(isinstance(each, dict) for each in outputs):
        raise malformed("outputs", outputs, 'a list of objects, such as {"name": "predictions"}')
    for each in outputs:
        _check_parameters("outputs", each)
        if each.get("name") not in known:
            raise malformed("outputs", each.get("name"), f"names among {', '.join(known)}")
    return [each["name"] for each in outputs] or known


def _outputs(models: Models) -> list[dict[str, Any]]:
    classes = models.schema.output.classes
    outputs = [{"name": "predictions", "datatype": _datatype_of(classes or (0.0,)), "shape": [-1]}]
    if classes is not None:
        outputs.append({"name": "probabilities", "datatype": "FP64", "shape": [-1, len(classes)]})
    if models.detector is not None:
        outputs.append({"name": "outliers", "datatype": "BOOL", "shape": [-1]})
    return outputs


def _write(models: Models, identity: str | None, wanted: list[str], answered: Answered) -> bytes:
    content = answered.content
    make: Mapping[str, Callable[[], dict[str, Any]]] = {
        "predictions": lambda: _predictions(models, content["predictions"]),
        "probabilities": lambda: _tensor("FP64", _probabilities(models, content)),
        "outliers": lambda: _tensor("BOOL", np.asarray(content["outliers"], dtype=np.bool_)),
    }
    return dump(
        {
            "model_name": name(models),
            "model_version": version(models),
            **({} if identity is None else {"id": identity}),
            "outputs": [{"name": each, **make[each]()} for each in wanted],
        }
    )


def _tensor(kind: str, values: NDArray[Any]) -> dict[str, Any]:
    return {"datatype": kind, "shape": list(values.shape), "data": values.ravel()}


def _probabilities(models: Models, content: Mapping[str, Any]) -> NDArray[np.float64]:
    found = np.asarray(content["probabilities"], dtype=np.float64)
    return found.reshape(-1, len(models.schema.output.classes or ()))


def _predictions(models: Models, predictions: list[Any]) -> dict[str, Any]:
    classes = models.schema.output.classes
    if classes is not None:
        return {"datatype": _datatype_of(classes), "shape": [len(predictions)], "data": predictions}
    # A model of others may give several values for a row, or text.
    values = np.array(predictions, dtype=object)
    elements = values.ravel().tolist()
    kind = _datatype_of(elements) if elements else "FP64"
    if kind == "BYTES":
        # A date is the text that JSON makes of it, without JSON's quotes.
        elements = [
            each if isinstance(each, str) else dump(each).decode().strip('"') for each in elements
        ]
    return {"datatype": kind, "shape": list(values.shape), "data": elements}


def _datatype_of(values: Sequence[Label]) -> str:
    kinds = {type(value) for value in values}
    if kinds == {int, float}:
        return "FP64"
    return _OF_VALUES.get(kinds.pop(), "BYTES") if len(kinds) == 1 else "BYTES"


def _translate(refusal: Refusal) -> Refusal:
    """Tell a refusal as the protocol does: 400 with an `error`."""
    status = refusal.status
    if status == HTTPStatus.UNPROCESSABLE_ENTITY:
        status = HTTPStatus.BAD_REQUEST
    return replace(refusal, status=status, more={**refusal.more, "error": refusal.detail})
