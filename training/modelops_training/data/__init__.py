"""The employment data of the demo: people in Massachusetts, 2015 to 2018, who works and who not.

Source, licence and the meaning of every column are in the README beside this file.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

FILE = Path(__file__).parent / "employment.parquet"
YEAR = "year"
TARGET = "employed"
NUMBERS = ("AGEP",)
CATEGORIES = (
    "SCHL",
    "MAR",
    "RELP",
    "DIS",
    "ESP",
    "CIT",
    "MIG",
    "MIL",
    "ANC",
    "NATIVITY",
    "DEAR",
    "DEYE",
    "DREM",
    "SEX",
    "RAC1P",
)
FEATURES = (*NUMBERS, *CATEGORIES)
UNITS: Mapping[str, str] = {"AGEP": "years"}
REFERENCE_YEAR = 2015
YEARS = (2015, 2016, 2017, 2018)


def employment(years: Iterable[int] = YEARS) -> pd.DataFrame:
    """Load the rows of these years: 277,677 rows and 18 columns in all.

    `AGEP` (age in years), `employed` (0 or 1) and `year` are int64, every other column is
    text such as "16". The order is the publisher's. Raises ValueError for a year outside 2015 to
    2018.
    """
    wanted = tuple(years)
    if strange := sorted(set(wanted) - set(YEARS)):
        raise ValueError(f"years: no data for {strange}; there are {YEARS[0]} to {YEARS[-1]}")
    table = pq.read_table(FILE, filters=[(YEAR, "in", wanted)])
    types = [
        (name, pa.string() if name in CATEGORIES else pa.int64()) for name in table.schema.names
    ]
    return table.cast(pa.schema(types)).to_pandas()


def records(
    years: int | Iterable[int],
    where: str | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> Iterator[dict[str, int | str]]:
    """Give people as JSON records, the way `/predict` takes them: features only, shuffled by seed.

    `where` is a pandas query over any column, `"AGEP > 60"` say; `limit` is a number of records.
    Raises ValueError for a year without data.
    """
    frame = employment([years] if isinstance(years, int) else years)
    if where is not None:
        frame = frame.query(where)
    order = np.random.default_rng(seed).permutation(len(frame))[:limit]
    chosen = frame.iloc[order].loc[:, list(FEATURES)]
    for row in chosen.itertuples(index=False, name=None):
        yield dict(zip(FEATURES, row, strict=True))
