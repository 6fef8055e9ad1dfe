"""OpenTelemetry traces: off, unless OTEL_EXPORTER_OTLP_ENDPOINT names a collector.

A request is a span, and continues its client's trace (W3C Trace Context). Sampling, resource and
batches follow the SDK's own variables, OTEL_TRACES_SAMPLER and so on. Spans go as JSON: the SDK
comes with BentoML, but its exporters bring protobuf, of which models pin versions of their own.

https://opentelemetry.io/docs/specs/otlp/#otlphttp
"""

import logging
import os
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any, Final
from urllib.parse import urlsplit

import orjson
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from starlette.middleware import Middleware

ENDPOINT: Final = "OTEL_EXPORTER_OTLP_ENDPOINT"
_HEADERS: Final = "OTEL_EXPORTER_OTLP_HEADERS"
_PATH: Final = "/v1/traces"
_NOT_TRACED: Final = "healthz,livez,readyz,metrics"
_SECONDS: Final = 3.0
"""Patience with the collector: what it does not take within them is lost."""
_LOG: Final = logging.getLogger("bentoml.modelops")


def provider(environment: Mapping[str, str] = os.environ) -> TracerProvider | None:
    """Give what makes spans and sends them; None without a collector.

    Raises ValueError when the collector's address is none. To be shut down in the end, which sends
    what is left.
    """
    endpoint = environment.get(ENDPOINT, "")
    if not endpoint:
        return None
    exporter = JsonExporter(endpoint, _read_headers(environment.get(_HEADERS, "")))
    found = TracerProvider(shutdown_on_exit=False)
    found.add_span_processor(BatchSpanProcessor(exporter))
    return found


def middleware(provider: TracerProvider) -> Middleware:
    """Give the middleware that makes a span of each request."""
    traced: Any = OpenTelemetryMiddleware
    return Middleware(
        traced,
        excluded_urls=_NOT_TRACED,
        tracer_provider=provider,
        exclude_spans=["receive", "send"],
    )


class JsonExporter(SpanExporter):
    """Sends spans to a collector; runs in the SDK's own thread."""

    def __init__(self, endpoint: str, headers: Mapping[str, str]) -> None:
        place = urlsplit(endpoint)
        if place.scheme not in {"http", "https"} or not place.hostname:
            raise ValueError(f"{ENDPOINT} is {endpoint!r}; it has to be such as http://otel:4318")
        self._connect = HTTPSConnection if place.scheme == "https" else HTTPConnection
        self._address = place.netloc.rpartition("@")[2]
        self._path = place.path.rstrip("/") + _PATH
        self._headers = {"content-type": "application/json", **headers}
        self._working = True

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send spans once; the first of several failures is logged."""
        connection = self._connect(self._address, timeout=_SECONDS)
        try:
            connection.request("POST", self._path, orjson.dumps(encode(spans)), self._headers)
            status = connection.getresponse().status
            problem = "" if status < HTTPStatus.BAD_REQUEST else f"status {status}"
        except (OSError, HTTPException) as error:
            problem = str(error)
        finally:
            connection.close()
        if problem and self._working:
            _LOG.warning("traces cannot be sent to %s: %s", self._address, problem)
        self._working = not problem
        return SpanExportResult.FAILURE if problem else SpanExportResult.SUCCESS


def encode(spans: Sequence[ReadableSpan]) -> dict[str, Any]:
    """Write spans of one resource as OTLP's JSON has them."""
    resource = _attributes(spans[0].resource.attributes) if spans else []
    scope = {"name": __package__, "version": ""}
    return {
        "resourceSpans": [
            {
                "resource": {"attributes": resource},
                "scopeSpans": [{"scope": scope, "spans": [_span(span) for span in spans]}],
            }
        ]
    }


def _span(span: ReadableSpan) -> dict[str, Any]:
    context = span.get_span_context()
    parent = span.parent
    return {
        "traceId": f"{0 if context is None else context.trace_id:032x}",
        "spanId": f"{0 if context is None else context.span_id:016x}",
        **({} if parent is None else {"parentSpanId": f"{parent.span_id:016x}"}),
        "name": span.name,
        # OTLP counts from 1, the SDK from 0.
        "kind": span.kind.value + 1,
        "startTimeUnixNano": str(span.start_time),
        "endTimeUnixNano": str(span.end_time),
        "attributes": _attributes(span.attributes or {}),
        "status": {"code": span.status.status_code.value},
    }


def _attributes(attributes: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value": _value(value)} for key, value in attributes.items()]


def _value(value: Any) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, tuple | list):
        return {"arrayValue": {"values": [_value(each) for each in value]}}
    return {"stringValue": str(value)}


def _read_headers(text: str) -> dict[str, str]:
    pairs = (pair.partition("=") for pair in text.split(",") if pair.strip())
    return {name.strip().lower(): value.strip() for name, _, value in pairs}
