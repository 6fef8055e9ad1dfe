"""Models to load and to serve, made once."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from modelops_runtime import bento

from tests.runtime.asking import Asker
from tests.runtime.nursery import Nursery
from tests.runtime.serving import Served, Servers, Trained, train_small, write_bento
from tests.runtime.toys import Toy, lay_out, make_toy


@pytest.fixture(scope="session")
def toy() -> Toy:
    return make_toy()


@pytest.fixture
def make_bento(toy: Toy, tmp_path: Path) -> Callable[..., Path]:
    """Lay out a Bento of some roles, by default of all; gives its folder."""

    def make(*roles: str) -> Path:
        return lay_out(toy, tmp_path / "bento", roles or ("predictor", "outlier", "drift"))

    return make


@pytest.fixture(scope="session")
def trained() -> Trained:
    return train_small()


@pytest.fixture(scope="session")
def bento_folder(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Bento of all three models, which nobody changes."""
    folder = tmp_path_factory.mktemp("bento")
    return write_bento(folder, trained, "predictor", "drift", "outlier")


@pytest.fixture(scope="session")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    found = Nursery(tmp_path_factory.mktemp("nursery"))
    yield found
    found.close()


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory, nursery: Nursery) -> Iterator[Servers]:
    """Start servers that end with the module."""
    servers = Servers(tmp_path_factory.mktemp, nursery)
    yield servers
    servers.stop()


@pytest.fixture(scope="session")
def served(
    bento_folder: Path, tmp_path_factory: pytest.TempPathFactory, nursery: Nursery
) -> Iterator[Served]:
    """All three models, for the tests that only ask."""
    servers = Servers(tmp_path_factory.mktemp, nursery)
    yield servers(bento_folder, supervised=True)
    servers.stop()


@pytest.fixture(scope="session")
def asker(bento_folder: Path) -> Iterator[Asker]:
    """All three models without a server, for the many requests of a test."""
    with Asker(bento_folder / bento.MODELS) as asker:
        yield asker
