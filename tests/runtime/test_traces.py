"""Spans as OTLP writes them, and collectors that are not there."""

import pytest
from modelops_runtime.traces import ENDPOINT, JsonExporter, encode, provider
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult

from tests.mlflow_server import free_port

pytestmark = pytest.mark.unit


@pytest.fixture
def span() -> ReadableSpan:
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("test")
    with tracer.start_as_current_span("outer"), tracer.start_as_current_span("inner") as made:
        made.set_attributes({"flag": True, "count": 3, "ratio": 0.5, "names": ["a", "b"]})
    assert isinstance(made, ReadableSpan)
    return made


def test_a_span_is_written_with_all_kinds_of_values(span: ReadableSpan) -> None:
    (resource,) = encode([span])["resourceSpans"]
    assert "service.name" in [each["key"] for each in resource["resource"]["attributes"]]
    (written,) = resource["scopeSpans"][0]["spans"]
    assert (written["name"], written["kind"], written["status"]) == ("inner", 1, {"code": 0})
    assert (len(written["traceId"]), len(written["spanId"])) == (32, 16)
    assert len(written["parentSpanId"]) == 16
    assert written["attributes"] == [
        {"key": "flag", "value": {"boolValue": True}},
        {"key": "count", "value": {"intValue": "3"}},
        {"key": "ratio", "value": {"doubleValue": 0.5}},
        {
            "key": "names",
            "value": {"arrayValue": {"values": [{"stringValue": "a"}, {"stringValue": "b"}]}},
        },
    ]


def test_a_collector_that_is_not_there_is_told_once(
    span: ReadableSpan, caplog: pytest.LogCaptureFixture
) -> None:
    exporter = JsonExporter(f"http://127.0.0.1:{free_port()}", {})
    assert [exporter.export([span]) for _ in range(3)] == [SpanExportResult.FAILURE] * 3
    (record,) = caplog.records
    assert "traces cannot be sent to 127.0.0.1" in record.getMessage()


@pytest.mark.parametrize("endpoint", ["otel:4318", "ftp://otel", "http://", "grpc://otel:4317"])
def test_an_address_that_is_none_is_refused(endpoint: str) -> None:
    with pytest.raises(ValueError, match="has to be such as http://otel:4318"):
        provider({ENDPOINT: endpoint})


def test_without_a_collector_nothing_is_traced() -> None:
    assert provider({}) is None
