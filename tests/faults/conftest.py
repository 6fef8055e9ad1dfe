"""Fixtures of the fault suite."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.faults.nursery import Nursery
    from tests.faults.proxy import Proxy
    from tests.faults.world import World


@pytest.fixture(scope="session")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Nursery"]:
    from tests.faults.nursery import running_nursery

    with running_nursery(tmp_path_factory.mktemp("operators")) as nursery:
        yield nursery


@pytest.fixture(scope="module")
def world(apiserver: Path, tracking_uri: str) -> Iterator["World"]:
    from tests.faults.world import entered

    with entered(apiserver, tracking_uri) as world:
        yield world


@pytest.fixture(scope="module")
def proxy(apiserver: Path) -> Iterator["Proxy"]:
    """Stands before the API server."""
    from tests.faults.world import proxied

    with proxied(apiserver) as proxy:
        yield proxy
