"""The reference profile of tables of every kind: the same counts, however they are fed."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from modelops_runtime.profile import Profile
from modelops_runtime.schema import Input, Output, Schema
from modelops_training import DataError, Trained, inputs, train
from modelops_training.profiles import encoded, profile_of
from modelops_training.sources import source
from pyarrow import dataset, parquet

pytestmark = pytest.mark.unit

COLUMNS = ["size", "gaps", "whole", "maybe", "flag", "colour", "grade", "code"]


@pytest.fixture(scope="module")
def schema(mixed: pd.DataFrame) -> Schema:
    return inputs.describe(mixed[[*COLUMNS, "bought"]], "bought")


@pytest.fixture(scope="module")
def table(mixed: pd.DataFrame) -> Any:
    return pa.Table.from_pandas(mixed[COLUMNS], preserve_index=False)


@pytest.fixture(scope="module")
def expected(mixed: pd.DataFrame, schema: Schema) -> bytes:
    return profile_of(mixed, schema).to_json()


def parts(table: Any, count: int) -> list[Any]:
    """Cut a table into parts of different lengths."""
    cuts = np.linspace(0, 1, count + 1) ** 2 * len(table)
    return [table.slice(int(start), int(end) - int(start)) for start, end in pairwise(cuts)]


def folder_of(tables: list[Any], folder: Path) -> Path:
    folder.mkdir()
    for number, each in enumerate(tables):
        parquet.write_table(each, folder / f"{number}.parquet", row_group_size=17)
    return folder


@pytest.mark.parametrize("count", [1, 4, 12])
@pytest.mark.parametrize("shuffled", [False, True])
def test_every_source_gives_the_same_profile(  # noqa: PLR0917
    mixed: pd.DataFrame,
    table: Any,
    schema: Schema,
    expected: bytes,
    tmp_path: Path,
    count: int,
    shuffled: bool,  # noqa: FBT001
) -> None:
    if shuffled:
        order = np.random.default_rng(count).permutation(len(table))
        table, mixed = table.take(order), mixed.iloc[order]
    cut = parts(table, count)
    folder = folder_of(cut, tmp_path / "parts")
    with duckdb.connect() as connection:
        sources: dict[str, Any] = {
            "pandas": mixed,
            "arrow": pa.concat_tables(cut),
            "dataset": dataset.dataset(folder),
            "parquet": folder,
            "duckdb": connection.read_parquet(f"{folder}/*.parquet"),
        }
        for name, each in sources.items():
            assert profile_of(each, schema).to_json() == expected, name


def test_counts_are_those_of_the_rows(mixed: pd.DataFrame, schema: Schema, expected: bytes) -> None:
    profile = Profile.from_json(expected)
    matrix = inputs.encode(mixed, schema)
    assert profile.count(matrix) == [feature.histogram for feature in profile.features]
    assert profile.rows == len(mixed)
    # Nothing that it was made of lies in a guard bin.
    assert {feature.counts[place] for feature in profile.features[:4] for place in (0, -1)} == {0}


def test_edges_are_close_to_the_quantiles(people: pd.DataFrame, trained: Trained) -> None:
    """Of the employment data, whose numbers are integers of few values, they are the same."""
    found = profile_of(people, trained.schema)
    for mine, exact in zip(found.features, trained.profile.features, strict=True):
        assert (mine.edges, mine.counts) == (exact.edges, exact.counts)


@given(
    st.lists(st.floats(allow_nan=True, allow_infinity=False, width=64), min_size=1, max_size=40),
    st.sampled_from([None, 0.0, -3.5, 1e9]),
)
def test_any_numbers_fall_between_the_outer_edges(
    values: list[float], minimum: float | None
) -> None:
    column = Input(name="x", kind="number", minimum=minimum)
    schema = Schema((column,), Output(kind="regressor", name="y"))
    profile = profile_of(pd.DataFrame({"x": np.array(values)}), schema, bins=5)
    (feature,) = profile.features
    (counted,) = profile.count(np.array(values)[:, None])
    assert counted == feature.histogram
    assert sum(counted.counts) + counted.missing == len(values)
    assert Profile.from_json(profile.to_json()) == profile
    inside = [value for value in values if minimum is None or value >= minimum]
    if len(inside) == len(values) and all(abs(value) < 1e30 for value in values):
        off = 2.0**-20 * max(abs(minimum or 0.0), 1e-30)
        low, high = feature.edges[0] - off, feature.edges[-1] + off
        assert all(low <= value <= high for value in values)


@pytest.mark.parametrize("name", COLUMNS)
def test_arrow_is_encoded_as_pandas_is(
    mixed: pd.DataFrame, table: Any, schema: Schema, name: str
) -> None:
    place = schema.names.index(name)
    (batch,) = table.select([name]).combine_chunks().to_batches()
    found = encoded(batch.column(name), schema.inputs[place])
    np.testing.assert_array_equal(found, inputs.encode(mixed, schema)[:, place])


def test_a_table_may_be_the_reference_of_a_training(mixed: pd.DataFrame, table: Any) -> None:
    frame = mixed[[*COLUMNS, "bought"]]
    many = pa.concat_tables([table] * 3)
    models = train(frame, "bought", rounds=5, reference=many)
    alone = train(frame, "bought", rounds=5)
    assert models.profile.rows == len(many)
    assert models.profile.features == profile_of(many, models.schema).features
    assert models.profile.scores == alone.profile.scores


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda _: 3, "int is no table that can be read"),
        (lambda frame: frame.drop(columns="size"), r"columns \['size'\] are missing"),
        (lambda frame: frame.assign(size="tall"), "column 'size' holds .*, not numbers"),
        (lambda frame: frame.assign(size=2**60 + 1), "column 'size' holds integers beyond 2"),
        (lambda frame: frame.assign(colour=[1, "a"] * 300), "values of several types"),
        (lambda frame: frame.head(0), "the table has no rows"),
        (lambda _: Path("nowhere.parquet"), "nowhere.parquet: is no Parquet file"),
    ],
)
def test_what_cannot_be_profiled_is_told(
    mixed: pd.DataFrame, schema: Schema, spoil: Callable[[pd.DataFrame], Any], told: str
) -> None:
    with pytest.raises(DataError, match=told):
        profile_of(spoil(mixed), schema)


def test_a_folder_without_files_is_told(schema: Schema, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no Parquet file in this folder"):
        source(tmp_path).total(lambda _: np.zeros(1, np.int64), schema.names, 1)
