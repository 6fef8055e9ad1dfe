"""Trains once for all tests of training."""

from collections.abc import Iterator

import mlflow
import numpy as np
import pandas as pd
import pytest
from modelops_training import Registration, Trained, register, train
from modelops_training.data import REFERENCE_YEAR, TARGET, UNITS, YEAR, employment


@pytest.fixture(scope="session")
def people() -> pd.DataFrame:
    """The reference year without its constant column."""
    return employment([REFERENCE_YEAR]).drop(columns=YEAR)


@pytest.fixture(scope="session")
def trained(people: pd.DataFrame) -> Trained:
    """The employment models as `modelops-train` makes them."""
    return train(people, TARGET, overrides={name: {"unit": unit} for name, unit in UNITS.items()})


@pytest.fixture(scope="session")
def mixed() -> pd.DataFrame:
    """A small table with every type of column, with gaps."""
    random = np.random.default_rng(0)
    rows = 600
    size = random.normal(10, 3, rows)
    frame = pd.DataFrame(
        {
            "size": size,
            "gaps": np.where(random.random(rows) < 0.1, np.nan, random.normal(size=rows)),
            "whole": random.integers(-5, 50, rows),
            "maybe": pd.array(random.integers(0, 9, rows), dtype="Int64"),
            "flag": random.random(rows) < 0.3,
            "colour": random.choice(["red", "grün", "", "blue"], rows),
            "grade": pd.Categorical(
                random.choice(["low", "mid", "high"], rows), ["low", "mid", "high"], ordered=True
            ),
            "code": pd.Categorical(random.choice([10, 9, 100], rows)),
            "price": size * 2 + random.normal(size=rows),
            "bought": (size + random.normal(size=rows) > 10).astype(int),
            "kind": random.choice(["a", "b", "c"], rows),
        }
    )
    frame.loc[::7, "maybe"] = pd.NA
    frame.loc[::11, "colour"] = None
    return frame


@pytest.fixture(scope="session")
def small(mixed: pd.DataFrame) -> Trained:
    """Models of the small table: cheap to register."""
    return train(mixed.drop(columns=["price", "kind"]), "bought", rounds=5)


@pytest.fixture(scope="session")
def server(tracking_uri: str) -> str:
    """Address of a real MLflow server."""
    return tracking_uri


@pytest.fixture
def pointed(server: str) -> Iterator[None]:
    """Point MLflow's process-wide setting at the server."""
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(server)
    yield
    mlflow.set_tracking_uri(before)


@pytest.fixture(scope="session")
def registered(trained: Trained, server: str) -> Registration:
    """The employment models, measured on later years."""
    years = {year: employment([year]) for year in (2016, 2017, 2018)}
    return register(trained, "employment", evaluation=years, tracking_uri=server)
