"""How trustworthy the verdicts are: false alarms on data without drift, and what is found how soon.

    make bench-health                              # three minutes; --quick for a rough look
    make bench-health BENCH_OPTIONS=--peers        # fetches Evidently and NannyML, and takes longer

Thirty features, normal, with a daily rhythm of 0.2 standard deviations, each with a phase of its
own; the reference is of whole days, and its rows' times are told, so that it says how far each
feature moves by itself. Lines of telemetry go the whole way: `History`, `evaluate`. One
window in `SHARED` is made of rows, which the peers see, too; of the others the counts are drawn
from the exact shares of the bins. A peer alarms when it finds drift in any feature.
"""

import argparse
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
import pandas as pd
from modelops_operator.api.conditions import ConditionType
from modelops_operator.api.resources import Monitoring
from modelops_operator.core.health.evaluate import evaluate
from modelops_operator.core.health.watch import OutlierReference, Reporter, Watch
from modelops_operator.core.health.windows import History
from modelops_runtime.profile import FeatureProfile, Histogram, Profile
from modelops_runtime.schema import Input, Output, Schema
from modelops_runtime.telemetry import FeatureCounts, Line
from modelops_training.variation import groups_of, varied
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scipy.stats import ks_2samp, norm
from uv import find_uv_bin

from benchmarks.reporting import at_least, conclude, goal

Rows = NDArray[np.float64]
Counts = NDArray[np.int64]

FEATURES: Final = 30
RHYTHM: Final = 0.2
"""Standard deviations."""
WINDOW: Final = timedelta(minutes=5)
DAY: Final = timedelta(days=1) // WINDOW
"""Windows in a day."""
SIZES: Final = (50, 200, 1000, 5000, 15_000)
"""Rows in a window."""
WINDOWS: Final = 10_000
"""Of each size."""
SHARED: Final = 250
REFERENCE_ROWS: Final = 100_000
PEERS_REFERENCE: Final = 10_000
"""Rows of the reference that peers get."""
PEERS: Final = {
    "evidently": ("evidently==0.7.23", "pandas<3"),
    "nannyml": ("nannyml==0.13.1", "pandas<3", "statsmodels"),
}
"""What each takes; the newest pandas is none of theirs."""
SHOWN: Final = 10
"""Windows of each size that they are shown."""
START: Final = datetime(2026, 3, 1, tzinfo=UTC)
SETTLE: Final = timedelta(seconds=5)
OUTLIERS: Final = OutlierReference(hits=1000, rows=REFERENCE_ROWS)
PATIENCE: Final = 6
"""Windows in which drift may be found."""
NEVER: Final = PATIENCE + 1
DRIFT: Final = ConditionType.DRIFT_DETECTED
P_VALUE: Final = 0.05
"""The default of alibi-detect's TabularDrift, divided by the number of features."""


@dataclass(frozen=True, slots=True)
class World:
    """What the model was trained on."""

    profile: Profile
    phases: Rows
    sample: Rows
    """Rows of the reference, of shape (PEERS_REFERENCE, FEATURES)."""

    @classmethod
    def make(cls, random: np.random.Generator) -> "World":
        """Train."""
        phases = random.uniform(0, 1, FEATURES)
        phases[0] = 0.0  # at midnight, drift alone shifts the feature that is to drift
        times = random.integers(0, DAY, REFERENCE_ROWS)
        rows = random.standard_normal((REFERENCE_ROWS, FEATURES))
        rows += RHYTHM * np.sin(2 * np.pi * (times[:, np.newaxis] / DAY + phases))
        schema = Schema(
            tuple(Input(name=f"x{index}", kind="number") for index in range(FEATURES)),
            Output(kind="regressor", name="y"),
        )
        moments = pd.DataFrame({"at": START + times * WINDOW})
        profile = varied(Profile.fit(rows, schema), rows, groups_of(moments, "at"))
        return cls(profile, phases, rows[:PEERS_REFERENCE].copy())

    def shift(self, window: int) -> Rows:
        """Give what the rhythm adds to each feature in a window."""
        shift: Rows = RHYTHM * np.sin(2 * np.pi * (window / DAY + self.phases))
        return shift

    def shares(self, window: int) -> Rows:
        """Give the exact shares of the bins, of shape (FEATURES, bins)."""
        edges = np.array([feature.edges for feature in self.profile.features])
        below = norm.cdf(edges - self.shift(window)[:, np.newaxis])
        ends = np.zeros((FEATURES, 1)), np.ones((FEATURES, 1))
        shares: Rows = np.diff(np.concatenate((ends[0], below, ends[1]), axis=1))
        return shares


def line(window: int, rows: int, profile: Profile, counted: Sequence[Histogram]) -> Line:
    return Line(
        model="bench/model",
        revision="r",
        pod="pod",
        worker="w",
        edges=profile.edges_hash,
        start=START + window * WINDOW,
        seconds=int(WINDOW.total_seconds()),
        rows=rows,
        requests=rows,
        features=tuple(FeatureCounts(index, each) for index, each in enumerate(counted)),
    )


class Judge:
    """Takes lines window after window, as the operator does, and gives the conditions."""

    def __init__(self, profile: Profile) -> None:
        self._history = History("r", settle=SETTLE)
        self._watch = Watch(
            monitoring=Monitoring(window=WINDOW),
            drift=profile,
            outliers=OUTLIERS,
            reporters=(Reporter(pod="pod", since=START),),
        )

    def conditions(self, told: Line) -> Mapping[str, tuple[str, str]]:
        """Give status and reason of each condition after another line."""
        now = told.end + SETTLE
        self._history.add([told], now)
        health = evaluate(self._history, self._watch, now)
        return {each.type: (each.status, str(each.reason)) for each in health.conditions}


# --- False alarms --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Quiet:
    """What was said of windows without drift."""

    reasons: Counter[str]
    shared: Sequence[Rows]
    """The windows that have rows."""

    @property
    def alarms(self) -> int:
        """Windows with drift or outliers."""
        return self.reasons["DriftAlert"] + self.reasons["OutliersAlert"]

    @property
    def warnings(self) -> int:
        """Windows with a warning."""
        return self.reasons["DriftWarning"] + self.reasons["OutliersWarning"]


def quiet(world: World, rows: int, windows: int, random: np.random.Generator) -> Quiet:
    """Serve windows without drift."""
    judge, reasons, shared = Judge(world.profile), Counter[str](), list[Rows]()
    shares = [world.shares(window) for window in range(DAY)]
    for window in range(windows):
        if window % SHARED == 0:
            drawn = random.standard_normal((rows, FEATURES)) + world.shift(window)
            shared.append(drawn)
            counted = world.profile.count(drawn)
        else:
            bins = random.multinomial(rows, shares[window % DAY])
            counted = [Histogram(tuple(each)) for each in bins.tolist()]
        outliers = int(random.binomial(rows, OUTLIERS.rate))
        told = replace(line(window, rows, world.profile, counted), outliers=outliers)
        found = judge.conditions(told)
        for type_ in (DRIFT, ConditionType.OUTLIERS_DETECTED):
            reasons[found[type_][1]] += 1
    return Quiet(reasons, shared)


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
            [*command, "python", program, peer, file], stdout=subprocess.PIPE, check=True
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
            judge.conditions(line(number, 1000, profile, serve(faulty)))[DRIFT][1]
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


def doubled(share: float, trials: int) -> Found:
    """Let a category of a feature with five of them double its share."""
    random, others = np.random.default_rng(4), (1 - share) / 4
    before = np.array([share, *[others] * 4])
    after = np.array([2 * share, *[(1 - 2 * share) / 4] * 4])
    features = tuple(
        FeatureProfile(
            name=f"x{index}",
            kind="category",
            levels=("a", "b", "c", "d", "e"),
            counts=tuple(random.multinomial(REFERENCE_ROWS, before).tolist()),
            variation=0.0,
        )
        for index in range(FEATURES)
    )

    def serve(faulty: bool) -> Sequence[Histogram]:  # noqa: FBT001 - a fact
        shares = [after if faulty and not index else before for index in range(FEATURES)]
        return [Histogram(tuple(random.multinomial(1000, each).tolist())) for each in shares]

    return found(Profile(features=features, rows=REFERENCE_ROWS), serve, trials)


# --- The table -----------------------------------------------------------------------------


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--quick", action="store_true", help="a tenth of the windows")
    options.add_argument("--peers", action="store_true", help="ask Evidently and NannyML")
    told = options.parse_args()
    windows = WINDOWS // 10 if told.quick else WINDOWS
    trials = 20 if windows < WINDOWS else 200
    world = World.make(np.random.default_rng(1))
    false_alarms = report_false_alarms(world, windows, tuple(PEERS) if told.peers else ())
    goals = [goal(f"false alarms in {len(SIZES) * windows:,} windows", false_alarms, 0)]
    goals += report_power(world, trials)
    conclude("health", goals)


def report_false_alarms(world: World, windows: int, peers: Sequence[str]) -> int:
    print(f"Without drift, {FEATURES} features, a daily rhythm of {RHYTHM} sigma:\n")
    head = ["rows", "windows", "alarms", "warnings", "ms a window", "KS with Bonferroni", *peers]
    print(f"| {' | '.join(head)} |\n|{'---:|' * len(head)}")
    alarms = 0
    for rows in SIZES:
        random, start = np.random.default_rng(rows), time.perf_counter()
        told = quiet(world, rows, windows, random)
        taken = (time.perf_counter() - start) / windows
        alarmed = [
            (sum(ks_with_bonferroni(world.sample, each) for each in told.shared), len(told.shared)),
            *(ask(peer, world.sample, told.shared[:SHOWN]) for peer in peers),
        ]
        cells = [f"{rows:,}", f"{windows:,}", told.alarms, told.warnings, f"{taken * 1000:.1f}"]
        cells += [f"{number} of {total}" for number, total in alarmed]
        print(f"| {' | '.join(map(str, cells))} |", flush=True)
        alarms += told.alarms
    return alarms


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
            goal(f"{name}: windows until told", max(each.warned), 3)
            for name, each in outcomes.items()
        ),
        goal("windows until recovery", max(max(each.quiet) for each in outcomes.values()), 3),
    ]


def by_the_second(times: Sequence[int]) -> float:
    return sum(window <= 2 for window in times) / len(times)


if __name__ == "__main__":
    main()
