"""Logs as JSON, a line for each record, so that what collects them need not guess."""

import logging
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

import orjson

VARIABLE: Final = "MODELOPS_LOG_FORMAT"


class JsonFormatter(logging.Formatter):
    """Writes time, level, logger and message, and what a record has of request and exception."""

    def format(self, record: logging.LogRecord) -> str:
        """Write a record as one line."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if request := getattr(record, "request", None):
            line["request_id"] = str(request)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(line).decode()


def structure(environment: Mapping[str, str] = os.environ) -> None:
    """Have all handlers that are there write JSON, if the environment says so."""
    if environment.get(VARIABLE) != "json":
        return
    formatter = JsonFormatter()
    for name in (None, *logging.root.manager.loggerDict):
        for handler in logging.getLogger(name).handlers:
            handler.setFormatter(formatter)
