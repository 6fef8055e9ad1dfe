"""Which path is answered by what, for the models that are served."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any, Final

import orjson

from modelops_runtime import documentation, inference, invocations, openapi
from modelops_runtime.asgi import JSON
from modelops_runtime.endpoint import Page
from modelops_runtime.interfaces import Interface, plain
from modelops_runtime.models import Models

_HTML: Final = b"text/html; charset=utf-8"
_LIVE: Final = orjson.dumps({"live": True})
_READY: Final = orjson.dumps({"ready": True})


def interfaces(models: Models) -> dict[str, Interface]:
    """Give what answers POST, by path."""
    infer = inference.interface(models)
    return {
        "/predict": plain(models.schema),
        "/invocations": invocations.interface(models.schema),
        **{f"{place}/infer": infer for place in _places(models)},
    }


def pages(models: Models, metadata: bytes, example: Sequence[Mapping[str, Any]]) -> dict[str, Page]:
    """Give what answers GET, by path."""
    server = {"name": "modelops-runtime", "version": version("modelops-runtime"), "extensions": []}
    model = _json(inference.metadata(models))
    ready = orjson.dumps({"name": inference.name(models), "ready": True})
    ping = Page(b"\n", JSON)
    return {
        "/": Page(documentation.PAGE, _HTML),
        "/docs.json": _json(openapi.document(models, example)),
        "/metadata": Page(metadata, JSON),
        "/v2": _json(server),
        "/v2/": _json(server),
        "/v2/health/live": Page(_LIVE, JSON),
        "/v2/health/ready": Page(_READY, JSON, ready=True),
        **dict.fromkeys(_places(models), model),
        **{f"{place}/ready": Page(ready, JSON, ready=True) for place in _places(models)},
        "/ping": ping,
        "/health": ping,
        "/version": Page(invocations.VERSION.encode(), JSON),
    }


def _places(models: Models) -> tuple[str, str]:
    """Give the paths of the model, without and with its version."""
    plain_place = f"/v2/models/{inference.name(models)}"
    return plain_place, f"{plain_place}/versions/{inference.version(models)}"


def _json(content: object) -> Page:
    return Page(orjson.dumps(content), JSON)
