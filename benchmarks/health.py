"""How trustworthy the verdicts are: false alarms, what is found how soon, and what it costs.

    make bench-health                              # some minutes; --quick for a rough look
    make bench-health BENCH_OPTIONS=--peers        # fetches Evidently and NannyML, and takes longer

The model is that of `health_world`. Lines of telemetry go the whole way: `History`, `evaluate`. One
window in `SHARED` is made of rows, which the peers see, too; of the others the counts are drawn
from the exact shares of the bins. A peer alarms when it finds drift in any feature.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
import pandas as pd
from modelops_operator.api.conditions import ConditionType
from modelops_operator.core.health.watch import OutlierReference
from modelops_operator.core.state import Health
from modelops_runtime.profile import Histogram, Profile
from modelops_runtime.schema import Input
from modelops_training import outlier
from modelops_training.data import FEATURES as COLUMNS
from modelops_training.data import REFERENCE_YEAR, TARGET, YEAR, YEARS, employment
from modelops_training.inputs import describe, encode

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scipy.stats import ks_2samp
from uv import find_uv_bin

from benchmarks import health_fleet
from benchmarks.health_world import (
    DAY,
    DAYS,
    FEATURES,
    OUTLIERS,
    REFERENCE_ROWS,
    RHYTHM,
    WINDOW,
    Judge,
    Rows,
    World,
    line,
    trained,
)
from benchmarks.reporting import at_least, conclude, goal

SIZES: Final = (50, 200, 1000, 5000, 15_000)
"""Rows in a window."""
WINDOWS: Final = 10_000
"""Of each size."""
SHARED: Final = 250
PEERS: Final = {
    "evidently": ("evidently==0.7.23", "pandas<3"),
    "nannyml": ("nannyml==0.13.1", "pandas<3", "statsmodels"),
}
"""What each takes; the newest pandas is none of theirs."""
SILENCE: Final = {"DO_NOT_TRACK": "1", "NML_DISABLE_USAGE_LOGGING": "1"}
"""Neither is to tell anybody of its use."""
SHOWN: Final = 10
"""Windows of each size that they are shown."""
PATIENCE: Final = 6
"""Windows in which drift may be found."""
NEVER: Final = PATIENCE + 1
DRIFT: Final = ConditionType.DRIFT_DETECTED
P_VALUE: Final = 0.05
"""The default of alibi-detect's TabularDrift, divided by the number of features."""
PRICE: Final = 2.30
"""Dollars for a GB (10^9 bytes) in Log Analytics, pay as you go."""
RATES: Final = (10, 100, 1000)
"""Predictions a second."""
LATENCY: Final = tuple((bin_, 9_999) for bin_ in range(20, 32))
"""Of a typical line: twelve bins."""
COLUMNS_OF_A_LINE: Final = 300
"""Bytes of ContainerLogV2's other columns that are stored and paid with each line."""


# --- False alarms --------------------------------------------------------------------------


def quiet(
    profile: Profile, rows: int, windows: int, serve: Callable[[int], Sequence[Histogram]]
) -> Counter[str]:
    """Serve windows without drift, and count the reasons of the verdicts."""
    judge, reasons, random = Judge(profile), Counter[str](), np.random.default_rng(rows)
    for window in range(windows):
        outliers = int(random.binomial(rows, OUTLIERS.rate))
        found = judge.reasons(
            replace(line(window, rows, profile, serve(window)), outliers=outliers)
        )
        reasons.update(found[type_] for type_ in (DRIFT, ConditionType.OUTLIERS_DETECTED))
    return reasons


def numbers(world: World, rows: int, shared: list[Rows]) -> Callable[[int], Sequence[Histogram]]:
    """Serve the world's traffic; windows that are made of rows are appended to `shared`."""
    random, shares = np.random.default_rng(rows), [world.shares(window) for window in range(DAY)]

    def serve(window: int) -> Sequence[Histogram]:
        if window % SHARED == 0:
            shared.append(random.standard_normal((rows, FEATURES)) + world.shift(window))
            return world.profile.count(shared[-1])
        return drawn(random, rows, shares[window % DAY])

    return serve


def drawn(random: np.random.Generator, rows: int, shares: Rows) -> Sequence[Histogram]:
    """Draw counts; the shares have the shape (features, bins)."""
    return [Histogram(tuple(each)) for each in random.multinomial(rows, shares).tolist()]


def ks_with_bonferroni(reference: Rows, rows: Rows) -> bool:
    """Alarm as alibi-detect's TabularDrift does by default, re-computed."""
    tests = (ks_2samp(reference[:, each], rows[:, each]).pvalue for each in range(FEATURES))
    return bool(min(tests) < P_VALUE / FEATURES)


def ask(peer: str, reference: Rows, windows: Sequence[Rows]) -> tuple[int, int]:
    """Tell in how many of the windows a peer finds drift, in an environment of its own."""
    program = Path(__file__).parent / "peers" / "drift.py"
    needed = [word for each in PEERS[peer] for word in ("--with", each)]
    with TemporaryDirectory() as folder:
        file = Path(folder) / "windows.npz"
        np.savez(file, reference=reference, windows=np.stack(windows))
        command = [find_uv_bin(), "run", "--quiet", "--no-project", "--isolated", *needed]
        done = subprocess.run(
            [*command, "python", program, peer, file],
            stdout=subprocess.PIPE,
            check=True,
            env={**os.environ, **SILENCE},
        )
    found: Mapping[str, int] = json.loads(done.stdout.splitlines()[-1])
    return found["features"], len(windows)


# --- Power ---------------------------------------------------------------------------------


def shifted(_: np.random.Generator, rows: Rows) -> Rows:
    rows[:, 0] += 0.5
    return rows


def constant(_: np.random.Generator, rows: Rows) -> Rows:
    rows[:, 0] = 0.3
    return rows


def missing(random: np.random.Generator, rows: Rows) -> Rows:
    rows[random.random(len(rows)) < 0.05, 0] = np.nan
    return rows


def far(random: np.random.Generator, rows: Rows) -> Rows:
    rows[random.random(len(rows)) < 0.05, 0] = 50.0
    return rows


HALF_SIGMA: Final = "0.5 sigma"
FAULTS: Final[Mapping[str, Callable[[np.random.Generator, Rows], Rows]]] = {
    HALF_SIGMA: shifted,
    "a broken sensor (constant)": constant,
    "5 % missing": missing,
    "5 % far outside": far,
}
CATEGORY_SHARES: Final = (0.05, 0.1, 0.2, 0.25, 0.3)


@dataclass(frozen=True, slots=True)
class Found:
    """Windows from a fault's beginning to a warning and to an alarm, from its end to quiet."""

    warned: Sequence[int]
    """Or alarmed."""
    alarmed: Sequence[int]
    quiet: Sequence[int]


def found(profile: Profile, serve: Callable[[bool], Sequence[Histogram]], trials: int) -> Found:
    """Serve three quiet windows, then `PATIENCE` faulty ones, and quiet ones again.

    What does not come within `PATIENCE` windows counts as one more.
    """
    expected = [False] * 3 + [True] * PATIENCE + [False] * PATIENCE
    outcomes = []
    for _ in range(trials):
        judge = Judge(profile)
        reasons = [
            judge.reasons(line(number, 1000, profile, serve(faulty)))[DRIFT]
            for number, faulty in enumerate(expected)
        ]
        during, after = reasons[3 : 3 + PATIENCE], reasons[3 + PATIENCE :]
        outcomes.append(
            (
                first(during, {"DriftWarning", "DriftAlert"}),
                first(during, {"DriftAlert"}),
                first(after, {"NoDrift"}),
            )
        )
    return Found(*(list(column) for column in zip(*outcomes, strict=True)))


def first(reasons: Sequence[str], wanted: AbstractSet[str]) -> int:
    return next((n for n, reason in enumerate(reasons, start=1) if reason in wanted), NEVER)


def fault(world: World, change: Callable[[np.random.Generator, Rows], Rows], trials: int) -> Found:
    random = np.random.default_rng(3)

    def serve(faulty: bool) -> Sequence[Histogram]:  # noqa: FBT001 - a fact
        rows = random.standard_normal((1000, FEATURES)) + world.shift(0)
        return world.profile.count(change(random, rows) if faulty else rows)

    return found(world.profile, serve, trials)


LEVELS: Final = ("a", "b", "c", "d", "e")
MIXED: Final = tuple(CATEGORY_SHARES[index % len(CATEGORY_SHARES)] for index in range(FEATURES))


def shares_of(shares: Sequence[float], window: int = 0, rhythm: float = 0.0) -> Rows:
    """Give the shares of five categories, shape (features, 5).

    The first one's log odds move by a daily rhythm.
    """
    first = np.asarray(shares)
    odds = first / (1 - first) * np.exp(rhythm * np.sin(2 * np.pi * window / DAY))
    first = odds / (1 + odds)
    return np.stack([first, *[(1 - first) / 4] * 4], axis=1)


def categories(
    shares: Sequence[float], random: np.random.Generator, rhythm: float = 0.0
) -> Profile:
    """Train on features of which each has five categories."""
    windows = random.integers(0, DAYS * DAY, REFERENCE_ROWS)
    day = np.stack([shares_of(shares, window, rhythm).cumsum(axis=1) for window in range(DAY)])
    codes = np.empty((REFERENCE_ROWS, FEATURES))
    for index in range(FEATURES):
        ends = day[windows % DAY, index, :-1]
        codes[:, index] = (random.random((REFERENCE_ROWS, 1)) > ends).sum(axis=1)
    inputs = [Input(name=f"x{index}", kind="category", levels=LEVELS) for index in range(FEATURES)]
    return trained(codes, windows, inputs)


def daily(
    random: np.random.Generator, rows: int, day: Sequence[Rows]
) -> Callable[[int], Sequence[Histogram]]:
    """Serve traffic of which the shares are known for each window of a day."""
    return lambda window: drawn(random, rows, day[window % DAY])


def doubled(share: float, trials: int) -> Found:
    """Let a category of a feature with five of them double its share."""
    random = np.random.default_rng(4)
    profile = categories([share] * FEATURES, random)
    before = shares_of([share] * FEATURES)
    after = shares_of([2 * share, *[share] * (FEATURES - 1)])
    return found(profile, lambda faulty: drawn(random, 1000, after if faulty else before), trials)


# --- The employment data -------------------------------------------------------------------


def report_employment() -> Sequence[dict[str, Any]]:
    """Serve the census of later years to a model of 2015, then only people over 60."""
    frame = employment([REFERENCE_YEAR])
    schema = describe(frame, TARGET, features=COLUMNS)
    matrix = encode(frame, schema)
    detector = outlier.fit(matrix[::2], matrix[1::2], schema, quantile=outlier.QUANTILE)
    profile = Profile.fit(matrix, schema)
    usual = OutlierReference.of(detector.reference_rate, profile.rows)
    later = employment(YEARS[1:]).sample(frac=1, random_state=7)

    def serve(people: pd.DataFrame) -> Iterator[Health]:
        judge, rows = Judge(profile, usual), encode(people, schema)
        for window in range(len(rows) // 1000):
            served = rows[window * 1000 : (window + 1) * 1000]
            told = line(window, 1000, profile, profile.count(served))
            yield judge.health(replace(told, outliers=int(detector.flag(served).sum())))

    print("\nThe employment data, trained on 2015, 1,000 rows a window:\n")
    print("| | windows | alarms | warnings | |\n|---|---:|---:|---:|---|")
    alarms = 0
    for year in YEARS[1:]:
        people = serve(later[later[YEAR] == year])
        said = Counter(reason for each in people for reason in reasons(each))
        alarmed, warned = bad(said)
        print(f"| {year} | {said.total() // 2} | {alarmed} | {warned} | |")
        alarms += alarmed
    _, second = (each for each in serve(later[later["AGEP"] > 60][:2000]))
    drift = second.evidence["drift"]
    named = ", ".join(f"{each['name']} {each['psi']}" for each in drift["features"][:3])
    print(f"| over 60 only | 2 | {int('DriftAlert' in reasons(second))} | | {named} |")
    return [
        goal("employment, alarms in 2016 to 2018", alarms, 0),
        at_least("over 60: alarmed in the second window", "DriftAlert" in reasons(second), 1),
        at_least("over 60: the age is named first", drift["features"][0]["name"] == "AGEP", 1),
    ]


def reasons(health: Health) -> Sequence[str]:
    """Give what is said of drift and of outliers."""
    types = (DRIFT, ConditionType.OUTLIERS_DETECTED)
    return [str(each.reason) for each in health.conditions if each.type in types]


# --- The cost ------------------------------------------------------------------------------


def report_cost(world: World) -> Sequence[dict[str, Any]]:
    """Compare the bytes that are stored and paid of a million predictions."""
    random = np.random.default_rng(5)
    rows = random.standard_normal((1000, FEATURES)).round(4)
    columns = [f"x{index}" for index in range(FEATURES)]
    raw = sum(
        len(json.dumps({**dict(zip(columns, row, strict=True)), "y": 0.1234}))
        for row in rows.tolist()
    ) / len(rows)
    raw = (raw + COLUMNS_OF_A_LINE) * 1e6
    print("\nStored for a million predictions of 30 features, two workers, and its price:\n")
    print("| | telemetry | price | raw rows | price | times |\n|---|---:|---:|---:|---:|---:|")
    seconds, times = int(WINDOW.total_seconds()), 0.0
    for rate in RATES:
        predictions = rate * seconds // 2
        counted = world.profile.count(random.standard_normal((predictions, FEATURES)))
        told = replace(line(0, predictions, world.profile, counted), latency=LATENCY)
        window = 2 * sum(len(each) + COLUMNS_OF_A_LINE for each in told.encode())
        stored = window / (2 * predictions) * 1e6
        times = raw / stored
        cells = [f"{rate:,} a second", f"{stored / 1e6:.2f} MB", f"${stored / 1e9 * PRICE:.5f}"]
        cells += [f"{raw / 1e6:.0f} MB", f"${raw / 1e9 * PRICE:.2f}", f"{times:,.0f}"]
        print(f"| {' | '.join(cells)} |")
    return [at_least(f"raw rows at {RATES[-1]:,} a second, times the telemetry", times, 1000)]


# --- The table -----------------------------------------------------------------------------


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--quick", action="store_true", help="a tenth of the windows")
    options.add_argument("--peers", action="store_true", help="ask Evidently and NannyML")
    told = options.parse_args()
    windows = WINDOWS // 10 if told.quick else WINDOWS
    trials = 20 if windows < WINDOWS else 200
    world = World.make(np.random.default_rng(1))
    goals = report_false_alarms(world, windows, tuple(PEERS) if told.peers else ())
    goals += report_quiet_categories(windows)
    goals += report_power(world, trials)
    goals += report_employment()
    goals += report_cost(world)
    goals += health_fleet.report()
    conclude("health", goals)


def report_false_alarms(world: World, windows: int, peers: Sequence[str]) -> list[dict[str, Any]]:
    print(f"Without drift, {FEATURES} features, a daily rhythm of {RHYTHM} sigma:\n")
    head = ["rows", "windows", "alarms", "warnings", "ms a window", "KS with Bonferroni", *peers]
    print(f"| {' | '.join(head)} |\n|{'---:|' * len(head)}")
    alarms = 0
    for rows in SIZES:
        shared, start = list[Rows](), time.perf_counter()
        said = quiet(world.profile, rows, windows, numbers(world, rows, shared))
        taken = (time.perf_counter() - start) / windows
        alarmed = [
            (sum(ks_with_bonferroni(world.sample, each) for each in shared), len(shared)),
            *(ask(peer, world.sample, shared[:SHOWN]) for peer in peers),
        ]
        cells = [f"{rows:,}", f"{windows:,}", *map(str, bad(said)), f"{taken * 1000:.1f}"]
        cells += [f"{number} of {total}" for number, total in alarmed]
        print(f"| {' | '.join(cells)} |", flush=True)
        alarms += bad(said)[0]
    return [goal(f"false alarms in {len(SIZES) * windows:,} windows", alarms, 0)]


def report_quiet_categories(windows: int) -> Sequence[dict[str, Any]]:
    """Serve categories without drift, a fifth of the windows."""
    print(f"\nThe same with {FEATURES} features of five categories, log odds moving by {RHYTHM}:\n")
    print("| rows | windows | alarms | warnings |\n|---:|---:|---:|---:|")
    random, alarms = np.random.default_rng(6), 0
    profile = categories(MIXED, random, RHYTHM)
    day = [shares_of(MIXED, window, RHYTHM) for window in range(DAY)]
    for rows in SIZES:
        said = quiet(profile, rows, windows // 5, daily(random, rows, day))
        print(f"| {rows:,} | {windows // 5:,} | {' | '.join(map(str, bad(said)))} |", flush=True)
        alarms += bad(said)[0]
    total = len(SIZES) * (windows // 5)
    return [goal(f"false alarms in {total:,} windows of categories", alarms, 0)]


def bad(said: Counter[str]) -> tuple[int, int]:
    """Give the alarms and the warnings."""
    return (
        said["DriftAlert"] + said["OutliersAlert"],
        said["DriftWarning"] + said["OutliersWarning"],
    )


def report_power(world: World, trials: int) -> Sequence[dict[str, Any]]:
    print(f"\nDrift of one of {FEATURES} features, 1,000 rows a window, {trials} times each:\n")
    print("| | told in the second | at most | alarmed in the second | at most | quiet after |")
    print("|---|---:|---:|---:|---:|---:|")
    outcomes = {name: fault(world, change, trials) for name, change in FAULTS.items()}
    for share in CATEGORY_SHARES:
        outcomes[f"a category doubles its share of {share:.0%}"] = doubled(share, trials)
    for name, each in outcomes.items():
        cells = (
            f"{by_the_second(times):.0%} | {max(times) if max(times) < NEVER else 'later'}"
            for times in (each.warned, each.alarmed)
        )
        print(f"| {name} | {' | '.join(cells)} | {max(each.quiet)} |")
    half = outcomes[HALF_SIGMA]
    return [
        at_least(f"{HALF_SIGMA}: warned by the second window", by_the_second(half.warned), 1),
        at_least(f"{HALF_SIGMA}: alarmed by the second window", by_the_second(half.alarmed), 1),
        *(
            goal(f"{name}: windows until alarmed", max(each.alarmed), 3)
            for name, each in outcomes.items()
        ),
        goal("windows until recovery", max(max(each.quiet) for each in outcomes.values()), 3),
    ]


def by_the_second(times: Sequence[int]) -> float:
    return sum(window <= 2 for window in times) / len(times)


if __name__ == "__main__":
    main()
