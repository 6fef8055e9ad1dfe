"""Fixtures of the fault suite."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.faults.proxy import Proxy
    from tests.faults.stories import Stories
    from tests.faults.world import World
    from tests.nursery import Nursery


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


@pytest.fixture(scope="module")
def stories(
    world: "World",
    apiserver: Path,
    nursery: "Nursery",
    tracking_uri: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator["Stories"]:
    from tests.faults.stories import MODEL, Stories

    world.register(MODEL)
    folder = tmp_path_factory.mktemp("stories")
    with ExitStack() as stack:
        yield Stories(world, apiserver, nursery, tracking_uri, folder, stack)
