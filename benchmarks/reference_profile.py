"""CPU and memory of the reference profile of a table that is larger than memory should be.

10 million rows of 30 columns in Parquet files, counted by a process of its own. Peer: what a
data scientist would write, pandas' quantiles and histograms of the whole frame, on a tenth of the
rows, since it needs the whole table in memory.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
from modelops_training import inputs
from pyarrow import parquet

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.reporting import conclude, goal

FILES = 10
NUMBERS, WHOLE, CATEGORIES = 20, 5, 5

MEASURED = """
import json, resource, sys
from pathlib import Path
{work}
used = resource.getrusage(resource.RUSAGE_SELF)
cpu, memory = used.ru_utime + used.ru_stime, used.ru_maxrss / 1024
print(json.dumps({{"cpu": cpu, "mb": memory, "rows": rows}}))
"""
OURS = """
from modelops_runtime.schema import Schema
from modelops_training.profiles import profile_of
folder = Path(sys.argv[1])
rows = profile_of(folder, Schema.from_json((folder / "schema.json").read_bytes())).rows
"""
PLAIN = """
import numpy as np, pandas as pd
frame = pd.read_parquet(next(Path(sys.argv[1]).glob("*.parquet")))
for name in frame:
    if frame[name].dtype == object or str(frame[name].dtype) in {"str", "category"}:
        frame[name].value_counts(dropna=False)
    else:
        edges = frame[name].quantile(np.linspace(0, 1, 21)).unique()
        pd.cut(frame[name], edges, include_lowest=True).value_counts()
rows = len(frame)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=Path.home()) as folder:
        write(Path(folder), options.rows // FILES)
        ours, plain = (measure(work, folder) for work in (OURS, PLAIN))
    for name, used in (("reference profile", ours), ("pandas, one file", plain)):
        print(
            f"{name:20} {used['rows']:>10,} rows {used['cpu']:6.1f} s of CPU "
            f"{used['mb']:7.0f} MB {used['cpu'] / used['rows'] * 1e6:7.2f} microseconds a row"
        )
    conclude(
        "reference_profile",
        [
            goal("seconds of CPU for 10 million rows", ours["cpu"] * 1e7 / ours["rows"], 25.0),
            goal("MB of memory", ours["mb"], 1000.0),
        ],
    )


def write(folder: Path, rows: int) -> None:
    """Write the files and the schema, one file at a time."""
    random = np.random.default_rng(0)
    levels = np.array([f"level {number}" for number in range(12)])
    for number in range(FILES):
        columns: dict[str, object] = {}
        for place in range(NUMBERS):
            values = random.lognormal(place % 5, 1, rows)
            columns[f"number_{place}"] = pa.array(values, mask=random.random(rows) < 0.02)
        for place in range(WHOLE):
            columns[f"whole_{place}"] = random.integers(0, 10 ** (place + 1), rows)
        for place in range(CATEGORIES):
            columns[f"category_{place}"] = pa.DictionaryArray.from_arrays(
                random.integers(0, len(levels), rows).astype("int8"), levels
            )
        table = pa.table(columns)
        parquet.write_table(table, folder / f"{number}.parquet", row_group_size=250_000)
    frame = table.slice(0, 20_000).to_pandas()
    schema = inputs.describe(frame.assign(target=random.random(len(frame)) < 0.5), "target")
    (folder / "schema.json").write_bytes(schema.to_json())


def measure(work: str, folder: str) -> dict[str, float]:
    """Run it in a process of its own."""
    outcome = subprocess.run(
        [sys.executable, "-c", MEASURED.format(work=work), folder],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    figures: dict[str, float] = json.loads(outcome.stdout)
    return figures


if __name__ == "__main__":
    main()
