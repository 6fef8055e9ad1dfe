"""Makes employment.parquet from the nannyml wheel; run once, its result is checked in.

pip download --no-deps nannyml==0.13.1
python -m modelops_training.data.make nannyml-0.13.1-py3-none-any.whl
"""

import hashlib
import io
import sys
import zipfile
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from modelops_training.data import FILE, YEAR

WHEEL_SHA256 = "cf5f4a33489834ae6773cb1baa33a0f98c0a3ee6ed9b43049478b25ce22fe869"
FOLDER = "nannyml/datasets/data/employment_MA_"
# The row number, and the scores of the publisher's own model: nothing a model of ours may see.
DROPPED = ["id", "prediction", "predicted_probability"]


def main(wheel: Path, target: Path) -> None:
    """Write all rows of all years, in their original order, as one small Parquet file."""
    content = wheel.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != WHEEL_SHA256:
        raise SystemExit(f"{wheel}: sha256 is {digest}, expected {WHEEL_SHA256} (nannyml 0.13.1)")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        reference, analysis, targets = (
            pd.read_parquet(io.BytesIO(archive.read(f"{FOLDER}{part}.pq")))
            for part in ("reference", "analysis", "analysis_target")
        )
    later = analysis.merge(targets, on="id", validate="one_to_one")
    rows = pd.concat([reference, later[reference.columns]]).sort_values("id").drop(columns=DROPPED)
    table = pa.table({name: _smallest(rows[name]) for name in rows.columns})
    pq.write_table(
        table,
        target,
        compression="zstd",
        compression_level=19,
        row_group_size=table.num_rows,
        data_page_size=1 << 24,
        write_statistics=False,
    )


def _smallest(column: "pd.Series[object]") -> pa.Array:
    """Store whole numbers, category codes among them, in as few bits as they need."""
    numbers = column.astype("str").astype("float64")
    return pa.array(numbers, pa.int16() if column.name == YEAR else pa.int8(), safe=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), FILE)
