"""Models to load, made once."""

from collections.abc import Callable
from pathlib import Path

import pytest

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
