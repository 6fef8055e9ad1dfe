"""Tables of every kind, fed batch by batch to one kernel.

A kernel takes an Arrow batch and gives counts, always as many; the counts of all batches add up.
So it does not matter how a table is cut, in which order its rows come, or who adds: the same rows
give the same counts, from memory, files, DuckDB or a cluster.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import dataset, parquet

from modelops_training.errors import DataError

Counts: TypeAlias = NDArray[np.int64]
Kernel: TypeAlias = Callable[[Any], Counts]
"""From a `pyarrow.RecordBatch` to its counts, shape (n,) with the same n for every batch."""

BATCH_ROWS: Final = 65_536


class Source(Protocol):
    """A table that can be read several times."""

    def total(self, kernel: Kernel, columns: Sequence[str], length: int) -> Counts:
        """Add up what a kernel gives for these columns of all rows, shape (length,)."""


def source(table: Any) -> Source:
    """Take a table: a pandas frame, an Arrow table or dataset, a path, DuckDB's or Spark's.

    A path is a Parquet file or a folder of such. Raises DataError for anything else.
    """
    home = type(table).__module__.partition(".")[0].lstrip("_")
    if isinstance(table, str | Path):
        return Parquet(Path(table))
    if isinstance(table, pd.DataFrame):
        return Frame(table)
    if isinstance(table, pa.Table | dataset.Dataset):
        return Arrow(table)
    if home == "duckdb":
        return DuckDb(table)
    if home == "pyspark":
        return Spark(table)
    raise DataError(
        f"{type(table).__name__} is no table that can be read: give a pandas frame, an Arrow table "
        "or dataset, the path of Parquet files, a DuckDB relation or a Spark frame"
    )


def added(batches: Iterable[Any], kernel: Kernel, length: int) -> Counts:
    """Add up what a kernel gives for batches."""
    counts = np.zeros(length, np.int64)
    for batch in batches:
        counts += kernel(batch)
    return counts


@dataclass(frozen=True)
class Frame:
    """A pandas frame."""

    frame: pd.DataFrame

    def total(self, kernel: Kernel, columns: Sequence[str], length: int) -> Counts:
        """Add up, batch by batch: the whole frame is never copied."""
        return added(self._batches(list(columns)), kernel, length)

    def _batches(self, columns: list[str]) -> Iterator[Any]:
        _check(columns, self.frame.columns)
        for start in range(0, len(self.frame), BATCH_ROWS):
            rows = self.frame.loc[:, columns].iloc[start : start + BATCH_ROWS]
            try:
                yield pa.RecordBatch.from_pandas(rows, preserve_index=False)
            except pa.ArrowException as error:
                raise DataError(f"a column holds values of several types: {error}") from error


@dataclass(frozen=True)
class Arrow:
    """An Arrow table or dataset."""

    table: Any

    def total(self, kernel: Kernel, columns: Sequence[str], length: int) -> Counts:
        """Add up, batch by batch."""
        _check(columns, self.table.schema.names)
        if isinstance(self.table, pa.Table):
            batches = self.table.select(list(columns)).to_batches(BATCH_ROWS)
        else:
            batches = self.table.to_batches(columns=list(columns), batch_size=BATCH_ROWS)
        return added(batches, kernel, length)


@dataclass(frozen=True)
class Parquet:
    """A Parquet file, or a folder of such."""

    path: Path

    def total(self, kernel: Kernel, columns: Sequence[str], length: int) -> Counts:
        """Add up, file by file: Arrow's datasets read ahead, and need more memory than this."""
        return added(self._batches(list(columns)), kernel, length)

    def _batches(self, columns: list[str]) -> Iterator[Any]:
        files = sorted(self.path.rglob("*.parquet")) if self.path.is_dir() else [self.path]
        if not files:
            raise DataError(f"{self.path}: there is no Parquet file in this folder")
        for path in files:
            try:
                file = parquet.ParquetFile(path)
            except (OSError, pa.ArrowException) as error:
                raise DataError(f"{path}: is no Parquet file that can be read: {error}") from error
            with file:
                _check(columns, file.schema_arrow.names)
                yield from file.iter_batches(BATCH_ROWS, columns=columns, use_threads=False)


@dataclass(frozen=True)
class DuckDb:
    """A relation of DuckDB's: a table, a view, a query."""

    relation: Any

    def total(self, kernel: Kernel, columns: Sequence[str], length: int) -> Counts:
        """Add up what DuckDB streams."""
        _check(columns, self.relation.columns)
        chosen = ", ".join('"' + name.replace('"', '""') + '"' for name in columns)
        return added(self.relation.project(chosen).to_arrow_reader(BATCH_ROWS), kernel, length)


@dataclass(frozen=True)
class Spark:
    """A Spark frame; executors need this package as well."""

    frame: Any

    def total(self, kernel: Kernel, columns: Sequence[str], length: int) -> Counts:
        """Add up on the executors; what is not zero comes back."""
        _check(columns, self.frame.columns)
        names = list(columns)

        def partition(batches: Iterator[Any]) -> Iterator[Any]:
            renamed = (batch.rename_columns(names) for batch in batches)
            counts = added(renamed, kernel, length)
            (places,) = counts.nonzero()
            yield pa.RecordBatch.from_pydict({"place": places, "count": counts[places]})

        # By their places: Spark's own `mapInArrow` reads a dot in a name as a field of a struct.
        chosen = self.frame.selectExpr(
            *(f"`{name.replace('`', '``')}` AS `{place}`" for place, name in enumerate(names))
        )
        sums = chosen.mapInArrow(partition, "place long, count long").groupBy("place").sum("count")
        counts = np.zeros(length, np.int64)
        for place, count in sums.collect():
            counts[place] = count
        return counts


def _check(wanted: Sequence[str], there: Iterable[str]) -> None:
    if absent := sorted(set(wanted) - set(there)):
        raise DataError(f"columns {absent} are missing; the table has {list(there)}")
