"""What the health of a fleet takes: CPU of one tick, and memory of each deployment.

    make bench-health-fleet

Each deployment has a model of 30 features and one pod, and a day behind it: a window in each block
of eight hours, then the windows of late. In the tick that is measured all of them report, a line
each, which is parsed, counted and judged as the operator does; reading is not measured here. Memory
is that of the process, one process a table row.
"""

import argparse
import multiprocessing
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Final

import numpy as np
from modelops_operator.api.resources import Monitoring
from modelops_operator.core.health.evaluate import evaluate
from modelops_operator.core.health.watch import Reporter, Watch
from modelops_operator.core.health.windows import TelemetryStore
from modelops_runtime.profile import Histogram
from modelops_runtime.telemetry import Line

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.health import OUTLIERS, START, WINDOW, World, line
from benchmarks.reporting import conclude, goal

SIZES: Final = (100, 1000, 5000)
ROWS: Final = 1000
DAY_AGO: Final = timedelta(hours=32) // WINDOW
PAST: Final = (*range(0, DAY_AGO - 12, timedelta(hours=8) // WINDOW), *range(DAY_AGO - 12, DAY_AGO))
"""Windows that have come already."""
SETTLE: Final = timedelta(minutes=5)
"""As with Log Analytics."""


def measure(size: int) -> tuple[float, float]:
    """Give seconds of CPU for a tick and bytes for a deployment."""
    world, random = World.make(np.random.default_rng(1)), np.random.default_rng(2)
    shares = world.shares(0)

    def written(window: int) -> bytes:
        bins = random.multinomial(ROWS, shares).tolist()
        (told,) = line(
            window, ROWS, world.profile, [Histogram(tuple(each)) for each in bins]
        ).encode()
        return told

    watch = Watch(
        monitoring=Monitoring(window=WINDOW),
        drift=world.profile,
        outliers=OUTLIERS,
        reporters=(Reporter(pod="pod", since=START),),
    )
    store, past = TelemetryStore(settle=SETTLE), {window: written(window) for window in PAST}
    _take(store, "first", past[0])  # what is needed once
    before = _resident()
    for number in range(size):
        for told in past.values():
            _take(store, number, told)
    memory = (_resident() - before) / size
    news = [written(DAY_AGO) for _ in range(size)]
    now = START + (DAY_AGO + 1) * WINDOW + SETTLE
    start = time.process_time()
    for number, told in enumerate(news):
        _take(store, number, told)
        evaluate(store.history(number, "r"), watch, now)
    return time.process_time() - start, memory


def _take(store: TelemetryStore, key: object, told: bytes) -> None:
    parsed = Line.parse(told)
    if parsed is None:
        raise ValueError("no line of ours")
    store.add(key, [parsed], parsed.end + SETTLE)


def _resident() -> int:
    """Give the process's memory in bytes."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * 4096


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    print("| deployments | CPU seconds a tick | KB a deployment |\n|---:|---:|---:|")
    for size in SIZES:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            seconds, memory = pool.apply(measure, (size,))
        print(f"| {size:,} | {seconds:.2f} | {memory / 1000:.1f} |", flush=True)
    conclude(
        "health-fleet",
        [
            goal(f"CPU seconds a tick of {size:,} deployments", seconds, 10),
            goal("KB a deployment", memory / 1000, 20),
        ],
    )


if __name__ == "__main__":
    main()
