"""The reference profile by a real Spark on this machine: `make test-spark`."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
from modelops_training import DataError, inputs
from modelops_training.profiles import profile_of
from pyspark.sql import SparkSession

pytestmark = [
    pytest.mark.contract,
    pytest.mark.filterwarnings("ignore:PySpark does not yet fully support pandas"),
]


@pytest.fixture(scope="module")
def spark() -> Iterator[Any]:
    session = (
        SparkSession.builder.master("local[2]")
        .config("spark.ui.enabled", "false")
        .config("spark.sql.shuffle.partitions", "2")
        .config("spark.sql.execution.arrow.maxRecordsPerBatch", "70")
        .getOrCreate()
    )
    yield session
    session.stop()


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    """Numbers with gaps, whole ones, categories with gaps, booleans, and a name with a dot."""
    random = np.random.default_rng(0)
    rows = 5_000
    colours = random.choice(["red", "grün", "", "blue"], rows).astype(object)
    colours[::11] = None
    return pd.DataFrame(
        {
            "size": random.normal(10, 3, rows),
            "gaps": np.where(random.random(rows) < 0.1, np.nan, random.lognormal(5, 2, rows)),
            "whole.part": random.integers(-5, 50, rows),
            "flag": random.random(rows) < 0.3,
            "colour": colours,
            "code": random.choice([10, 9, 100], rows),
            "bought": random.integers(0, 2, rows),
        }
    )


@pytest.mark.parametrize("partitions", [1, 4, 12])
@pytest.mark.parametrize("shuffled", [False, True])
def test_spark_gives_the_profile_of_the_frame(
    spark: Any,
    frame: pd.DataFrame,
    partitions: int,
    shuffled: bool,  # noqa: FBT001
) -> None:
    schema = inputs.describe(frame, "bought", overrides={"code": {"kind": "category"}})
    rows = frame.sample(frac=1, random_state=partitions) if shuffled else frame
    table = spark.createDataFrame(rows.astype(object).where(rows.notna(), None)).repartition(
        partitions
    )
    assert table.rdd.getNumPartitions() == partitions
    assert profile_of(table, schema).to_json() == profile_of(frame, schema).to_json()


def test_a_missing_column_is_told(spark: Any, frame: pd.DataFrame) -> None:
    schema = inputs.describe(frame[["size", "gaps", "bought"]], "bought")
    with pytest.raises(DataError, match=r"columns \['size'\] are missing"):
        profile_of(spark.createDataFrame(frame[["gaps"]]), schema)
