"""Real counterparts for the adapters."""

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def tracking_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a real MLflow server."""
    from tests.mlflow_server import running_mlflow

    with running_mlflow(tmp_path_factory.mktemp("mlflow")) as address:
        yield address
