"""Keeps MLflow's own words off the output of commands, which tell the same in fewer."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

# Before MLflow is imported: a training machine has no business with MLflow's usage statistics.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")


@contextmanager
def silent_mlflow() -> Iterator[None]:
    """Let MLflow log and print nothing; what goes wrong it raises."""
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    # First, since it imports `mlflow.pyfunc`, which lets MLflow speak again.
    import_module("modelops_training.flavor")
    from mlflow.utils.logging_utils import MLFLOW_LOGGING_STREAM  # noqa: PLC0415  # not for `--help`

    MLFLOW_LOGGING_STREAM.enabled = False
    try:
        yield
    finally:
        MLFLOW_LOGGING_STREAM.enabled = True
