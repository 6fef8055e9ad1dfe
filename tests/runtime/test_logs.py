"""Logs are JSON where the environment says so."""

import logging

import orjson
import pytest
from modelops_runtime.logs import VARIABLE, JsonFormatter, structure

pytestmark = pytest.mark.unit


def test_a_record_is_a_line_with_its_request_and_exception() -> None:
    logger = logging.getLogger("test")
    error = ValueError("two\nlines")
    cause = (ValueError, error, None)
    extra = {"request": "r7"}
    record = logger.makeRecord("test", logging.ERROR, "", 1, "no %s", ("way",), cause, None, extra)
    text = JsonFormatter().format(record)
    assert "\n" not in text
    line = orjson.loads(text)
    assert (line["level"], line["logger"], line["message"]) == ("error", "test", "no way")
    assert line["request_id"] == "r7"
    assert "ValueError: two" in line["exception"]
    assert line["time"].endswith("+00:00")


def test_only_where_the_environment_says_so() -> None:
    handler, plain = logging.Handler(), logging.Formatter()
    handler.setFormatter(plain)
    logger = logging.getLogger("test.structured")
    logger.addHandler(handler)
    loggers = [logging.getLogger(name) for name in (None, *logging.root.manager.loggerDict)]
    before = [(each, each.formatter) for logger in loggers for each in logger.handlers]
    try:
        structure({})
        assert handler.formatter is plain
        structure({VARIABLE: "json"})
        assert isinstance(handler.formatter, JsonFormatter)
    finally:
        logger.removeHandler(handler)
        for each, formatter in before:
            each.setFormatter(formatter)
