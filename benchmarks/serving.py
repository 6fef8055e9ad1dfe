"""What serving costs, ours beside others: speed, CPU, memory, start, size, and what overload does.

Every server has core 0 for itself, and whoever asks has core 1. The peers run in environments of
their own, with the versions of our lock where it has them: `mlflow models serve`, a BentoML service
around the pyfunc, the seed system's way (detectors and a log line within each request), and a thin
service of Starlette and ONNX Runtime. Ours is also served without a fast form, as a pyfunc. Each
round starts one after the other; what detectors and traces cost is found between servers that run
at the same time and are asked in turn.
"""

import argparse
import contextlib
import os
import signal
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import artifacts, load, ways
from benchmarks.artifacts import Artifacts
from benchmarks.load import Outcome
from benchmarks.processes import CLIENT_CORE, SERVER_CORE, Server, environment, running, size
from benchmarks.reporting import at_least, conclude, goal
from benchmarks.ways import MLFLOW, OURS, PEERS, PYFUNC, SEED, THIN, Way

ROWS = (1, 32)
CONNECTIONS = (1, 8, 32)
COMPARED = 1_000
"""Rows that all are asked, so that it shows that they serve the same model."""
WARM_UP = 0.5
"""Of the time that is measured."""
OVERLOAD_CONNECTIONS = 400
MEGA = 1e6


@dataclass(frozen=True)
class Length:
    """How long it takes."""

    rounds: int
    seconds: float
    """Of each figure."""
    turns: int
    """Of servers that are compared closely."""
    requests: tuple[int, int]
    """After which memory is compared."""
    overload: float
    """Seconds of it."""


THOROUGH = Length(3, 1.0, 12, (4_000, 40_000), 30.0)
QUICK = Length(1, 0.5, 4, (1_000, 4_000), 5.0)


@dataclass(frozen=True)
class Cell:
    """What was measured with so many rows and connections."""

    rate: float
    """Requests a second."""
    p50: float
    """Seconds, like the other two."""
    p99: float
    cpu: float
    """For each request."""


@dataclass(frozen=True)
class Sample:
    """What was measured of a server."""

    cells: dict[tuple[int, int], Cell]
    """By rows and connections."""
    ready: float
    """Seconds from start to ready."""
    memory: float
    """Proportional set size, bytes."""
    predictions: Sequence[Any]
    """Its answer to some rows."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round: rough figures")
    length = QUICK if parser.parse_args().quick else THOROUGH
    os.sched_setaffinity(0, {int(CLIENT_CORE)})
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # or servers would stay behind
    goals = []
    with tempfile.TemporaryDirectory(prefix="bench-serving-") as folder:
        scratch = Path(folder)
        print(
            f"{length.rounds} rounds; servers on core {SERVER_CORE}, client on core {CLIENT_CORE}"
        )
        ceiling = show_ceiling(scratch, length)
        served = ways.all_ways(scratch)
        converter = environment(*ways.CONVERTER)
        for make in (artifacts.employment_model, artifacts.forest_model):
            model = make(scratch, converter)
            goals += bench(model, served, length, ceiling)
    conclude("serving", goals)


def bench(
    model: Artifacts, served: Sequence[Way], length: Length, ceiling: float
) -> list[dict[str, Any]]:
    """Measure everything with one model."""
    samples: dict[str, list[Sample]] = {way.name: [] for way in served}
    for _ in range(length.rounds):
        for way in served:
            samples[way.name].append(measure(way, model, length))
    medians = {name: median(each) for name, each in samples.items()}
    sizes = {way.name: size(way.home) for way in served}
    show(model.name, medians, sizes)
    goals = compare(medians, sizes)
    goals.append(
        at_least("the client's own rate, times ours", ceiling / medians[OURS].cells[1, 8].rate, 2.0)
    )
    own = served[0]
    goals += [*prices(own, model, length), flatness(own, model, length)]
    goals += overload(own, model, length, medians[OURS])
    for each in goals:
        each["name"] = f"{model.name}: {each['name']}"
        print(
            f"{'met ' if each['met'] else 'MISSED'} {each['name']} {each['value']} {each['bound']}"
        )
    return goals


# --- measuring ---------------------------------------------------------------------------------


def show_ceiling(scratch: Path, length: Length) -> float:
    """Tell what the client could ask for at most: of a server that does nothing."""
    trivial = [sys.executable, str(PEERS / "trivial.py"), "{port}"]
    with running(trivial, scratch / "trivial.log", "/", {}) as server:
        asked = [load.request("/predict", b"x" * 300)]
        found = load.saturate(server.port, asked, connections=8, seconds=length.seconds)
    print(f"the client itself: {found.rate:,.0f} requests/s of a server that does nothing")
    return found.rate


def measure(way: Way, model: Artifacts, length: Length) -> Sample:
    """Start a server and measure all but what needs two."""
    with way.serving(model) as server:
        cells = {}
        for rows in ROWS:
            asked = way.requests(model, rows)
            load.saturate(server.port, asked, connections=8, seconds=WARM_UP * length.seconds)
            for connections in CONNECTIONS:
                cells[rows, connections] = measure_cell(server, asked, connections, length.seconds)
        some = load.ask(server.port, way.path, way.body(model.rows[:COMPARED]))
        return Sample(cells, server.ready, server.memory(), some["predictions"])


def measure_cell(server: Server, asked: Sequence[bytes], connections: int, seconds: float) -> Cell:
    before = server.cpu()
    found = load.saturate(server.port, asked, connections=connections, seconds=seconds)
    if found.failed or found.turned_away:
        raise SystemExit(f"{found.failed} requests failed:\n{server.tail()}")
    cpu = (server.cpu() - before) / len(found.accepted)
    return Cell(found.rate, found.percentile(0.5), found.percentile(0.99), cpu)


def prices(own: Way, model: Artifacts, length: Length) -> list[dict[str, Any]]:
    """Compare ours with ours without a detector, and with traces: CPU, in turns.

    The median of many pairs a second apart tells differences that medians of rounds cannot.
    """
    with (
        tempfile.TemporaryDirectory(prefix="bench-serving-") as place,
        contextlib.ExitStack() as on,
    ):
        collector = [sys.executable, str(PEERS / "collector.py"), "{port}"]
        sink = on.enter_context(running(collector, Path(place, "log"), "/", {}))
        traced = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{sink.port}"}
        bare = {role: model.without(role, Path(place, role)) for role in ("outlier", "drift")}
        servers = {
            "all": on.enter_context(own.serving(model)),
            **{role: on.enter_context(own.serving(each)) for role, each in bare.items()},
            "traces": on.enter_context(own.serving(model, **traced)),
        }
        asked = own.requests(model, rows=1)
        cpu: dict[str, list[float]] = {name: [] for name in servers}
        for turn in range(length.turns + 1):
            for name, server in servers.items():
                cell = measure_cell(server, asked, 8, length.seconds / 2)
                if turn:
                    cpu[name].append(cell.cpu)
    price = {
        name: statistics.median(a / b for a, b in zip(cpu["all"], each, strict=True))
        for name, each in cpu.items()
    }
    print(f"traces on: {1 / price['traces']:.2f} times the CPU")
    return [
        goal("CPU with the outlier detector, times that without", price["outlier"], 1.3),
        goal("CPU with telemetry, times that without", price["drift"], 1.05),
    ]


def flatness(own: Way, model: Artifacts, length: Length) -> dict[str, Any]:
    """Compare memory after few and after many requests."""
    few, many = length.requests
    with own.serving(model) as server:
        asked = own.requests(model, rows=1)
        load.saturate(server.port, asked, connections=8, count=few)
        before = server.memory()
        load.saturate(server.port, asked, connections=8, count=many - few)
        after = server.memory()
    print(f"memory after {few:,} requests {before / MEGA:.1f} MB, {many:,} {after / MEGA:.1f} MB")
    return goal(f"memory after {many} requests, times that after {few}", after / before, 1.02)


def overload(own: Way, model: Artifacts, length: Length, usual: Sample) -> list[dict[str, Any]]:
    """Ask for three times of what ours can do."""
    capacity = usual.cells[1, 8].rate
    asked = own.requests(model, rows=1)
    with own.serving(model) as server:
        load.saturate(server.port, asked, connections=8, seconds=length.seconds)
        calm = offer(server, asked, capacity / 3, length.seconds * 2)
        flood = offer(server, asked, 3 * capacity, length.overload)
        after = offer(server, asked, capacity / 3, length.seconds * 2)
        survived = server.alive() and not after.failed and not after.turned_away
    answers = len(flood.accepted) + len(flood.turned_away)
    print(
        f"overload: {3 * capacity:,.0f} requests/s asked for {length.overload:.0f} s:"
        f" {len(flood.accepted) / length.overload:,.0f}/s answered,"
        f" {len(flood.turned_away) / max(answers, 1):.0%} of answers 503, {flood.failed} failed,"
        f" {flood.unsent:,} not sent as all {OVERLOAD_CONNECTIONS} connections waited;"
        f" p99 {flood.percentile(0.99) * 1e3:.1f} ms,"
        f" at a third of capacity {calm.percentile(0.99) * 1e3:.1f} ms;"
        f" after it {after.failed} failed, {len(after.turned_away)} answers 503"
    )
    return [
        goal(
            "overload: p99, times that at a third of capacity",
            flood.percentile(0.99) / calm.percentile(0.99),
            5.0,
        ),
        goal("overload: failed requests, and servers that ended", flood.failed + (not survived), 0),
    ]


def offer(server: Server, asked: Sequence[bytes], rate: float, seconds: float) -> Outcome:
    return load.offer(
        server.port, asked, connections=OVERLOAD_CONNECTIONS, seconds=seconds, rate=rate
    )


# --- telling -----------------------------------------------------------------------------------


def median(samples: Sequence[Sample]) -> Sample:
    """Take the median of each figure."""
    return Sample(
        {
            key: Cell(
                *(
                    statistics.median(getattr(one.cells[key], field.name) for one in samples)
                    for field in fields(Cell)
                )
            )
            for key in samples[0].cells
        },
        statistics.median(one.ready for one in samples),
        statistics.median(one.memory for one in samples),
        samples[0].predictions,
    )


def show(model: str, medians: dict[str, Sample], sizes: dict[str, int]) -> None:
    """Print the table."""
    print(f"\n{model:20} rows  conns  requests/s    p50 ms    p99 ms  CPU ms/request")
    for name, sample in medians.items():
        for (rows, connections), cell in sample.cells.items():
            print(
                f"{name:20} {rows:4} {connections:6} {cell.rate:11,.0f} {cell.p50 * 1e3:9.2f}"
                f" {cell.p99 * 1e3:9.2f} {cell.cpu * 1e3:15.3f}"
            )
    print(f"\n{model:20} start to ready, s   memory, MB   dependencies, MB   same labels as mlflow")
    for name, sample in medians.items():
        pairs = zip(sample.predictions, medians[MLFLOW].predictions, strict=True)
        print(
            f"{name:20} {sample.ready:17.2f} {sample.memory / MEGA:12.1f}"
            f" {sizes[name] / MEGA:18.1f} {statistics.mean(a == b for a, b in pairs):23.1%}"
        )


def compare(medians: dict[str, Sample], sizes: dict[str, int]) -> list[dict[str, Any]]:
    """Set ours beside the others, goal by goal."""
    own, plain, seed, thin = (medians[name] for name in (OURS, MLFLOW, SEED, THIN))
    single, eight, many = (1, 1), (1, 8), (32, 8)
    fallback = medians[PYFUNC].cells
    slowest = min(fallback[key].rate / cell.rate for key, cell in plain.cells.items())
    return [
        at_least("requests/s, times mlflow", own.cells[eight].rate / plain.cells[eight].rate, 35),
        at_least(
            "requests/s, times the seed's", own.cells[eight].rate / seed.cells[eight].rate, 80
        ),
        at_least("p50 of mlflow, times ours", plain.cells[single].p50 / own.cells[single].p50, 35),
        at_least("p99 of mlflow, times ours", plain.cells[eight].p99 / own.cells[eight].p99, 15),
        at_least("32 rows, times mlflow", own.cells[many].rate / plain.cells[many].rate, 12),
        goal(
            "CPU of a request, times the thin service's",
            own.cells[eight].cpu / thin.cells[eight].cpu,
            2.5,
        ),
        goal("memory, times mlflow's", own.memory / plain.memory, 0.65),
        goal("start to ready, times mlflow's", own.ready / plain.ready, 0.45),
        goal("dependencies, times mlflow's", sizes[OURS] / sizes[MLFLOW], 0.40),
        at_least("as pyfunc: requests/s, times mlflow, the least of all", slowest, 1.0),
        goal("as pyfunc: dependencies, times mlflow's", sizes[PYFUNC] / sizes[MLFLOW], 0.65),
    ]


if __name__ == "__main__":
    main()
