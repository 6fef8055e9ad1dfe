"""What the health of a fleet takes: queries and CPU of one tick, memory of each deployment, writes.

    make bench-health-fleet

The deployments are spread over 50 namespaces. Each has a model of 30 features and one pod, and a
day behind it of 1,000 rows in five minutes: the rows of each block of eight hours in one window,
then the windows of late. In the tick that is measured all of them report, a line each:
`azure-monitor-query` asks a stand-in for Log Analytics (tests/log_analytics.py), whose own CPU is
not counted, the lines are parsed, counted and judged, and what the status would say is held against
what it says. A second tick brings nothing new. Memory is what histories and verdicts add to a
process, one process a table row.
"""

import argparse
import asyncio
import multiprocessing
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
from aiohttp import web
from modelops_operator.adapters.log_analytics import LogAnalytics
from modelops_operator.adapters.telemetry import Key, Reading, Target
from modelops_operator.api.conditions import merge_conditions
from modelops_operator.api.config import LogAnalyticsConfig
from modelops_operator.api.facts import Role
from modelops_operator.api.resources import Monitoring
from modelops_operator.core.health.evaluate import Standing, renewed
from modelops_operator.core.health.watch import Reporter, Watch
from modelops_operator.core.health.windows import TelemetryStore
from modelops_operator.core.verdicts import verdicts
from modelops_operator.shell.process import collect_rarely
from modelops_runtime.profile import Histogram, Profile
from modelops_runtime.telemetry import Line

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.health_world import OUTLIERS, START, WINDOW, Rows, World, line
from benchmarks.reporting import conclude, goal
from tests.log_analytics import CLUSTER, WORKSPACE, Row, Workspace

SIZES: Final = (100, 1000, 5000)
NAMESPACES: Final = 50
ROWS: Final = 1000
LATENCY: Final = ((20, 50), (21, 400), (22, 450), (23, 90), (24, 10))
DAY_AGO: Final = timedelta(hours=32) // WINDOW
BLOCK: Final = timedelta(hours=8) // WINDOW
EARLIER: Final = range(0, DAY_AGO - 12, BLOCK)
"""Windows that have come already, each with the rows of eight hours."""
PAST: Final = (*EARLIER, *range(DAY_AGO - 12, DAY_AGO))
PLACE: Final = LogAnalyticsConfig(workspace_id=WORKSPACE, resource_id=CLUSTER)
ROLES: Final = frozenset({Role.DRIFT, Role.OUTLIER})


@dataclass(frozen=True, slots=True)
class Figures:
    """What a fleet took."""

    queries: int
    seconds: float
    """Of CPU, of the tick in which all deployments report."""
    quiet_seconds: float
    """Of the tick after it."""
    memory: float
    """Bytes for each deployment."""
    writes: int
    """Statuses that the first tick would change."""
    quiet_writes: int


class Measured(Workspace):
    """A workspace that knows how much CPU its answers took."""

    seconds = 0.0

    def respond(self, query: str, span: str) -> web.Response:
        """Answer as ever, by the clock."""
        start = time.process_time()
        try:
            return super().respond(query, span)
        finally:
            self.seconds += time.process_time() - start


@dataclass
class Fleet:
    """Deployments as the operator keeps them."""

    watch: Watch
    store: TelemetryStore = field(default_factory=lambda: TelemetryStore(settle=PLACE.lag))
    standing: dict[Key, Standing] = field(default_factory=dict)
    statuses: dict[Key, dict[str, Any]] = field(default_factory=dict)

    def judge(self, key: Key, lines: Sequence[Line], now: datetime) -> None:
        """Count lines, and judge."""
        self.store.add(key, lines, now)
        history = self.store.history(key, "r")
        self.standing[key] = renewed(self.standing.get(key), history, self.watch, now)

    def write(self, key: Key, now: datetime) -> bool:
        """Tell whether the status would be written, and write it."""
        before = self.statuses.get(key, {})
        said = verdicts(self.standing[key].health, ROLES, before, now)
        conditions = merge_conditions(
            before.get("conditions", ()), said.conditions, generation=1, now=now
        )
        self.statuses[key] = {"conditions": conditions, "health": said.evidence}
        return self.statuses[key] != before


def measure(size: int, profile: Profile, shares: Rows) -> Figures:
    """Let a fleet report, whose traffic has these shares of the bins."""
    random = np.random.default_rng(2)
    collect_rarely()

    def written(key: Key, window: int) -> list[bytes]:
        rows = ROWS * BLOCK if window in EARLIER else ROWS
        bins = random.multinomial(rows, shares).tolist()
        told = line(window, rows, profile, [Histogram(tuple(each)) for each in bins])
        return replace(told, model="/".join(key), latency=LATENCY).encode()

    fleet = Fleet(
        Watch(
            monitoring=Monitoring(window=WINDOW),
            drift=profile,
            outliers=OUTLIERS,
            reporters=(Reporter(pod="pod", since=START),),
        )
    )
    keys = [(f"n{number % NAMESPACES}", f"m{number}") for number in range(size)]
    past = [written(("n", "m"), window) for window in PAST]
    for told in past:
        fleet.judge(("what", "is needed once"), *_heard(told))
    before = _resident()
    for key in keys:
        for told in past[:-1]:
            fleet.store.add(key, *_heard(told))
        fleet.judge(key, *_heard(past[-1]))
    memory = (_resident() - before) / size
    _, lately = _heard(past[-1])
    for key in keys:
        fleet.write(key, lately)
    news = {key: written(key, DAY_AGO)[0].decode().strip() for key in keys}
    return asyncio.run(_tick(fleet, news, memory))


async def _tick(fleet: Fleet, news: Mapping[Key, str], memory: float) -> Figures:
    workspace, now = Measured(), START + (DAY_AGO + 1) * WINDOW + PLACE.lag
    workspace.ingest(
        Row(
            message=text,
            ingested=now - timedelta(minutes=2),
            namespace=namespace,
            pod=f"{name}-pod",
        )
        for (namespace, name), text in news.items()
    )
    targets = [
        Target(namespace=namespace, name=name, pods=(_pod(name),), window=WINDOW)
        for namespace, name in news
    ]
    took, writes = [], []
    async with workspace.serving() as client:
        source = LogAnalytics(client, PLACE)
        for moment in (now, now + timedelta(seconds=10)):
            start, elsewhere = time.process_time(), workspace.seconds
            readings = await source.collect(targets, moment)
            for key in news:
                fleet.judge(key, readings.get(key, Reading()).lines, moment)
            writes.append(sum(fleet.write(key, moment) for key in news))
            took.append(time.process_time() - start - (workspace.seconds - elsewhere))
            if moment is now and sum(len(each.lines) for each in readings.values()) != len(news):
                raise ValueError("not every line arrived")
    return Figures(
        queries=len(workspace.asked),
        seconds=took[0],
        quiet_seconds=took[1],
        memory=memory,
        writes=writes[0],
        quiet_writes=writes[1],
    )


def _pod(name: str) -> Mapping[str, Any]:
    labels = {"modelops.dev/revision": "r"}
    return {"metadata": {"name": f"{name}-pod", "labels": labels}, "status": {}}


def _heard(told: Sequence[bytes]) -> tuple[list[Line], datetime]:
    """Give a window's lines, and when they have come."""
    lines = [line for line in map(Line.parse, told) if line is not None]
    return lines, lines[-1].end + PLACE.lag


def _resident() -> int:
    """Give the process's memory in bytes."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * 4096


def report() -> list[dict[str, Any]]:
    """Print the table, and give the goals of the largest fleet."""
    head = ["deployments", "queries", "CPU s a tick", "CPU s, nothing new", "KB each"]
    head += ["statuses written", "written, nothing new"]
    print(f"\nA fleet in {NAMESPACES} namespaces:\n\n| {' | '.join(head)} |")
    print(f"|{'---:|' * len(head)}")
    world = World.make(np.random.default_rng(1))
    for size in SIZES:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            found = pool.apply(measure, (size, world.profile, world.shares(0)))
        cells = [f"{size:,}", found.queries, f"{found.seconds:.2f}", f"{found.quiet_seconds:.2f}"]
        cells += [f"{found.memory / 1000:.1f}", f"{found.writes:,}", found.quiet_writes]
        print(f"| {' | '.join(map(str, cells))} |", flush=True)
    return [
        goal(f"queries for {size:,} deployments", found.queries, 5),
        goal(f"CPU seconds a tick of {size:,} deployments", found.seconds, 10),
        goal("KB a deployment", found.memory / 1000, 20),
        goal("statuses written where nothing is new", found.quiet_writes, 0),
    ]


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    conclude("health-fleet", report())


if __name__ == "__main__":
    main()
