"""Our operator beside the same one written the usual kopf way, and the API server's own ceiling.

    make bench-operator

Nodes and pods are simulated by kwok; API server, etcd, controllers, scheduler and MLflow are real.
For each size there are three legs, each in a cluster that is started for it, since thousands of
Services make those of the next leg slower: a bare client that writes what an ideal operator would
(five children and two statuses an object, nothing read, nothing decided), ours, and the usual one.
Ours is also looked at: idle, edited, killed and started again. All objects ask for one model, whose
image is built already. Writes are counted by the API server's audit log.
"""

import argparse
import asyncio
import contextlib
import json
import os
import platform
import signal
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final, Self

import aiohttp
import httpx
import yaml
from mlflow import MlflowClient
from modelops_operator.adapters.kubernetes import CHILDREN, MODEL_DEPLOYMENTS, MODEL_IMAGES
from modelops_operator.api.config import OperatorConfig
from modelops_operator.api.facts import ModelVersion, Role
from modelops_operator.builder.images import cache_folder
from modelops_operator.core.image import built_release, wanted_image
from modelops_operator.core.owner import Owner
from modelops_operator.core.release import Release, ReleasedModel
from uv import find_uv_bin

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.peers.usual_operator import manifests
from benchmarks.reporting import at_least, conclude, goal
from benchmarks.simulated_cluster import MERGE, SimulatedCluster, running_cluster
from tests.apiserver import token_of
from tests.mlflow_server import free_port, running_mlflow

ROOT: Final = Path(__file__).resolve().parents[1]
SIZES: Final = (100, 1000, 5000)
MODEL: Final = "census"
SYSTEM: Final = "modelops-system"
DIGEST: Final = "sha256:" + "1" * 64
AT_ONCE: Final = 16
"""Requests that the bare client has under way, and objects that ours works on."""
STATUSES: Final = 2
"""Statuses that an ideal operator writes for an object: at the beginning and at the end."""
QUIET: Final = 5.0
"""Seconds without a write after which all is done."""
STARTED: Final = 8.0
"""Seconds after which an operator without objects has imported and listed all that it will."""
LOOKED_THROUGH: Final = 20.0
"""Seconds after a start in which every object has been looked at again."""
PATIENCE: Final = 1800.0
JUDGED: Final = 75.0
"""Seconds in which the first verdict on every object is there: one tick of the monitoring."""
IDLE: Final = 60.0
EDITS: Final = 50
REACTIONS: Final = 100
_TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass
class Program:
    """An operator's process."""

    popen: subprocess.Popen[bytes]
    health: int
    log: Path

    def cpu(self) -> float:
        """Give the seconds of CPU so far."""
        fields = Path(f"/proc/{self.popen.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def memory(self, name: str = "VmRSS") -> float:
        """Give its memory in megabytes; `VmHWM` is the most that it ever was."""
        lines = Path(f"/proc/{self.popen.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it."""
        self.popen.send_signal(number)
        self.popen.wait(60)


@dataclass
class Leg:
    """What one way took for all objects of a size."""

    seconds: float
    writes: Counter[str]
    cpu: float = 0.0
    base: float = 0.0
    """Megabytes without any object."""
    memory: float = 0.0
    """Megabytes when all are served."""
    peak: float = 0.0

    @property
    def rate(self) -> float:
        """Writes a second."""
        return self.writes.total() / self.seconds


@dataclass
class Bench:
    """The cluster and what the operators are told of it."""

    cluster: SimulatedCluster
    tracking_uri: str
    workspace: str
    image: Mapping[str, Any]
    """The ModelImage that all objects want."""
    release: Release
    python: Path
    programs: list[Program] = field(default_factory=list)

    def config(self, namespace: str) -> dict[str, Any]:
        """Give the configuration of an operator for one namespace."""
        return {**base_config(self.tracking_uri), "operator": {"namespaces": [namespace]}}

    def start(self, user: str, namespace: str) -> Program:
        """Start an operator."""
        config, health = self.config(namespace), free_port()
        ports = {"healthPort": health, "metricsPort": free_port()}
        lease = {"leaseName": namespace}
        config["operator"] |= {**ports, "leaderElection": lease, "workers": AT_ONCE}
        folder = self.cluster.folder
        place = folder / f"{namespace}.yaml"
        place.write_text(yaml.safe_dump(config))
        command = {
            "ours": ["tests.operator_with_workspace"],
            "usual": ["benchmarks.peers.usual_operator", namespace],
        }[user]
        log = folder / f"{namespace}-{len(self.programs)}.log"
        environment = {
            **os.environ,
            "PYTHONDONTWRITEBYTECODE": "",
            "KUBECONFIG": str(self.cluster.login(user)),
            "MODELOPS_CONFIG": str(place),
            "WORKSPACE": self.workspace,
        }
        with log.open("wb") as output:
            popen = subprocess.Popen(
                [self.python, "-m", *command],
                cwd=ROOT,
                env=environment,
                stdout=output,
                stderr=output,
            )
        program = Program(popen, health, log)
        self.programs.append(program)
        return program

    def wait_until_ready(self, program: Program) -> float:
        """Wait until our operator has listed everything; give the seconds that it took."""
        began = time.monotonic()
        while time.monotonic() < began + PATIENCE:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{program.health}/readyz", timeout=5)
                return time.monotonic() - began
            assert program.popen.poll() is None, program.log.read_text()[-3000:]
            time.sleep(0.02)
        raise TimeoutError(program.log.read_text()[-3000:])

    def create(self, namespace: str, size: int) -> None:
        """Create the objects."""
        self.cluster.admin.post("/api/v1/namespaces", json={"metadata": {"name": namespace}})
        path = MODEL_DEPLOYMENTS.path(namespace)
        bodies = [
            {
                "apiVersion": MODEL_DEPLOYMENTS.api_version,
                "kind": MODEL_DEPLOYMENTS.kind,
                "metadata": {"name": name, "namespace": namespace},
                "spec": {"models": {"predictor": {"name": MODEL, "alias": "candidate"}}},
            }
            for name in names(size)
        ]
        asyncio.run(self.send("admin", [[("POST", path, body)] for body in bodies]))

    async def send(self, user: str, jobs: Sequence[Sequence[tuple[str, str, Any]]]) -> None:
        """Send jobs, several at a time; the requests of each one after the other."""
        server = self.cluster.admin.base_url
        token = self.cluster.admin.headers["Authorization"]
        if user != "admin":
            token = f"Bearer {token_of(user)}"
        waiting = iter(jobs)
        trusting = ssl.create_default_context()
        trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
        async with aiohttp.ClientSession(
            str(server).rstrip("/"),
            headers={"Authorization": token},
            connector=aiohttp.TCPConnector(ssl=trusting, limit=0),
        ) as session:

            async def work() -> None:
                for job in waiting:
                    for method, path, body in job:
                        kind = CONTENT[method] if "/status" not in path else MERGE["Content-Type"]
                        async with session.request(
                            method, path, data=json.dumps(body), headers={"Content-Type": kind}
                        ) as answer:
                            text = await answer.read()
                            assert answer.status < 300, text

            await asyncio.gather(*(work() for _ in range(AT_ONCE)))

    def build(self) -> None:
        """Do the builder's part, unless it is done; an operator without objects undoes it."""
        _build(self.cluster, self.image)

    def items(self, path: str) -> list[dict[str, Any]]:
        """List objects."""
        items: list[dict[str, Any]] = self.cluster.admin.get(path, timeout=120).json()["items"]
        return items


CONTENT: Final = {"POST": "application/json", "PATCH": "application/apply-patch+yaml"}


def base_config(tracking_uri: str) -> dict[str, Any]:
    return {
        "mlflow": {"trackingUri": tracking_uri},
        "registry": {"host": "registry.test:5000", "insecure": True},
        "builder": {"bases": {"3.11": f"registry.test:5000/base@{DIGEST}"}},
        "monitoring": {
            "backend": "LogAnalytics",
            "interval": "1m",
            "logAnalytics": {"workspaceId": "00000000-1111-2222-3333-444444444444"},
        },
    }


def names(size: int) -> Sequence[str]:
    """Name the objects."""
    return [f"census-{number}" for number in range(size)]


def is_available(live: Mapping[str, Any]) -> bool:
    """Tell whether a Deployment's pods serve."""
    return bool((live.get("status") or {}).get("availableReplicas"))


def is_ready(live: Mapping[str, Any]) -> bool:
    """Tell whether a ModelDeployment says that it serves what it should."""
    status = live.get("status") or {}
    found = {one["type"]: one["status"] for one in status.get("conditions") or ()}
    seen = status.get("observedGeneration") == live["metadata"]["generation"]
    return seen and found.get("Ready") == "True" and "Reconciling" not in found


def bare(bench: Bench, size: int) -> Leg:
    """Write what an ideal operator would."""
    namespace = f"bare-{size}"
    bench.create(namespace, size)
    condition = {
        "type": "Ready",
        "status": "True",
        "reason": "Bare",
        "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    jobs = []
    for live in bench.items(MODEL_DEPLOYMENTS.path(namespace)):
        metadata = live["metadata"]
        owner = Owner(name=metadata["name"], namespace=namespace, uid=metadata["uid"])
        job = [
            (
                "PATCH",
                CHILDREN[child["kind"]].path(namespace, owner.name) + "?fieldManager=bare",
                child,
            )
            for child in manifests(owner, bench.release, 1)
        ]
        for generation in range(STATUSES):
            status = {"observedGeneration": generation, "conditions": [condition]}
            place = MODEL_DEPLOYMENTS.path(namespace, owner.name, "status")
            job.append(("PATCH", place, {"status": status}))
        jobs.append(job)
    before = bench.cluster.writes("bare")
    with Watching(bench, CHILDREN["Deployment"].path(namespace), is_available) as watching:
        began = time.monotonic()
        asyncio.run(bench.send("bare", jobs))
        ended = watching.wait_for(names(size))
    return Leg(ended - began, bench.cluster.writes("bare") - before)


def operated(bench: Bench, user: str, size: int) -> tuple[Leg, Program]:
    """Let an operator serve all objects; it goes on running."""
    namespace = f"{user}-{size}"
    bench.create(namespace, 0)
    program = bench.start(user, namespace)
    if user != "usual":  # which does not tell
        bench.wait_until_ready(program)
    time.sleep(STARTED)
    base = program.memory()
    program.end()
    bench.create(namespace, size)
    bench.build()
    before = bench.cluster.writes(user)
    with Watching(bench, MODEL_DEPLOYMENTS.path(namespace), is_ready) as watching:
        program, began = bench.start(user, namespace), time.monotonic()
        seconds = watching.wait_for(names(size)) - began
    settle(bench, user)
    writes = bench.cluster.writes(user) - before
    return (
        Leg(seconds, writes, program.cpu(), base, program.memory(), program.memory("VmHWM")),
        program,
    )


def settle(bench: Bench, user: str) -> None:
    """Wait until nothing is written any more."""
    before = -1
    while before != (before := bench.cluster.writes(user).total()):
        time.sleep(QUIET)


def idle(bench: Bench, program: Program, *_: object) -> dict[str, float]:
    """Do nothing for a while, when all that there is to say has been said."""
    time.sleep(JUDGED)  # a tick that finds nothing new is not to be seen from here
    writes, cpu = bench.cluster.writes("ours").total(), program.cpu()
    time.sleep(IDLE)
    return {
        "idle, % of a core": 100 * (program.cpu() - cpu) / IDLE,
        "idle, writes": bench.cluster.writes("ours").total() - writes,
    }


def edited(bench: Bench, _: Program, namespace: str, size: int) -> dict[str, float]:
    """Edit some while all are looked at again, since what is known of their image has changed."""
    client, before = bench.cluster.admin, bench.cluster.writes("ours")
    (image,) = bench.items(MODEL_IMAGES.path(SYSTEM))
    place = MODEL_IMAGES.path(SYSTEM, image["metadata"]["name"])
    edited_ = names(size)[:: max(1, size // EDITS)][:EDITS]
    with Watching(bench, MODEL_DEPLOYMENTS.path(namespace), _is_told) as watching:
        change = {"metadata": {"labels": {"touched": str(time.monotonic_ns())}}}
        client.patch(place, content=json.dumps(change), headers=MERGE).raise_for_status()
        sent: dict[str, float] = {}
        for name in edited_:
            spec = {"spec": {"monitoring": {"drift": {"alert": "0.3"}}}}
            sent[name] = time.monotonic()
            path = MODEL_DEPLOYMENTS.path(namespace, name)
            client.patch(path, content=json.dumps(spec), headers=MERGE).raise_for_status()
        watching.wait_for(edited_)
    settle(bench, "ours")
    took = sorted(watching.seen[name] - sent[name] for name in edited_)
    writes = bench.cluster.writes("ours") - before
    return {
        "edits, p95 s from edit to status": took[int(0.95 * (len(took) - 1))],
        "edits, writes each": writes.total() / len(edited_),
    }


def reacted(bench: Bench, _: Program, namespace: str, size: int) -> dict[str, float]:
    """Edit one after the other, and see the Deployment change."""
    client, took = bench.cluster.admin, []
    with Watching(bench, CHILDREN["Deployment"].path(namespace), _is_labelled) as watching:
        for number in range(min(REACTIONS, size)):
            name, labels = names(size)[number], {"number": str(number)}
            sent = time.monotonic()
            client.patch(
                MODEL_DEPLOYMENTS.path(namespace, name),
                content=json.dumps({"spec": {"serving": {"podLabels": labels}}}),
                headers=MERGE,
            ).raise_for_status()
            watching.wait_for([name])
            took.append(watching.seen[name] - sent)
            time.sleep(0.1)  # each on its own: none waits for the one before
    settle(bench, "ours")
    took.sort()
    return {
        "reaction, p50 ms": 1000 * statistics.median(took),
        "reaction, p99 ms": 1000 * took[int(0.99 * (len(took) - 1))],
    }


def _is_told(live: Mapping[str, Any]) -> bool:
    return bool(live["status"]["observedGeneration"] == live["metadata"]["generation"] == 2)


def _is_labelled(live: Mapping[str, Any]) -> bool:
    return "number" in (live["spec"]["template"]["metadata"].get("labels") or {})


class Watching:
    """Sees when objects are as they should be, by a watch of its own."""

    def __init__(
        self, bench: Bench, path: str, wanted: Callable[[Mapping[str, Any]], bool]
    ) -> None:
        self._client, self._path = bench.cluster.client("watching"), path
        self._wanted = wanted
        self.seen: dict[str, float] = {}
        self._ended = False

    def __enter__(self) -> Self:
        self._began = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._began.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = True

    def _run(self) -> None:
        while not self._ended:  # API servers end watches when they like to
            with contextlib.suppress(httpx.HTTPError):
                self._watch()

    def _watch(self) -> None:
        found = self._client.get(self._path, timeout=120).json()
        for live in found["items"]:
            self._look(live)
        query = {"watch": "1", "resourceVersion": found["metadata"]["resourceVersion"]}
        with self._client.stream("GET", self._path, params=query, timeout=None) as answer:
            self._began.set()
            for line in answer.iter_lines():
                event = json.loads(line)
                if self._ended or event["type"] == "ERROR":
                    return
                self._look(event["object"])

    def _look(self, live: Mapping[str, Any]) -> None:
        if self._wanted(live):
            self.seen.setdefault(live["metadata"]["name"], time.monotonic())

    def wait_for(self, names: Sequence[str]) -> float:
        """Wait until these objects were seen so, and tell when the last one was."""
        wanted, deadline = set(names), time.monotonic() + PATIENCE
        while not wanted <= self.seen.keys():
            assert time.monotonic() < deadline, f"never seen: {wanted - self.seen.keys()}"
            time.sleep(0.002 if len(wanted) == 1 else 0.1)  # of one, milliseconds are measured
        return max(self.seen[name] for name in wanted)


def restarted(bench: Bench, program: Program, namespace: str, _: int) -> dict[str, float]:
    """Kill it and start it again, with all objects there."""
    program.end(signal.SIGKILL)
    before = bench.cluster.writes("ours").total()
    again = bench.start("ours", namespace)
    seconds = bench.wait_until_ready(again)
    time.sleep(LOOKED_THROUGH)  # a write that is not needed would come by then
    figures = {
        "restart, s until ready": seconds,
        "restart, writes": bench.cluster.writes("ours").total() - before,
    }
    again.end()
    return figures


class NoTelemetry(BaseHTTPRequestHandler):
    """A workspace in which nothing has arrived yet."""

    def do_POST(self) -> None:
        """Answer a query with no rows."""
        self.rfile.read(int(self.headers["Content-Length"]))
        body = json.dumps({"tables": [{"name": "PrimaryResult", "columns": [], "rows": []}]})
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def running_workspace() -> Iterator[str]:
    """Listen on loopback."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), NoTelemetry)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@contextlib.contextmanager
def prepared() -> Iterator[Bench]:
    """Start everything, register the model, and have its image built."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-operator-")))
        tracking_uri = stack.enter_context(running_mlflow(_made(folder / "mlflow")))
        cluster = stack.enter_context(
            running_cluster(_made(folder / "cluster"), ("bare", "ours", "usual", "watching"))
        )
        workspace = stack.enter_context(running_workspace())
        _define(cluster)
        image, model = _register(tracking_uri)
        release = built_release(image, (model,), _build(cluster, image))
        assert release is not None
        python = production_python()
        bench = Bench(cluster, tracking_uri, workspace, image, release, python)
        try:
            yield bench
        finally:
            for program in bench.programs:
                if program.popen.poll() is None:
                    program.popen.kill()
                    program.popen.wait()


def production_python() -> Path:
    """Give a Python with what the operator's image has: the workspace's own has all of MLflow."""
    place = cache_folder() / "bench-operator"
    command = ["sync", "--frozen", "--quiet", "--no-dev", "--package", "modelops-operator"]
    subprocess.run(
        [find_uv_bin(), *command, "--python", sys.executable],
        cwd=ROOT,
        env={**os.environ, "UV_PROJECT_ENVIRONMENT": str(place)},
        check=True,
    )
    return place / "bin" / "python"


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _define(cluster: SimulatedCluster) -> None:
    for path in sorted((ROOT / "crds").glob("*.yaml")):
        for definition in yaml.safe_load_all(path.read_text()):
            cluster.admin.post(
                "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", json=definition
            ).raise_for_status()
    cluster.admin.post("/api/v1/namespaces", json={"metadata": {"name": SYSTEM}})
    for resource in (MODEL_DEPLOYMENTS, MODEL_IMAGES):
        while cluster.admin.get(resource.path(None)).status_code != 200:
            time.sleep(0.1)


def _register(tracking_uri: str) -> tuple[dict[str, Any], ReleasedModel]:
    """Register the model; give the ModelImage that it wants, and the model as it is released."""
    mlflow = MlflowClient(tracking_uri, tracking_uri)
    mlflow.create_registered_model(MODEL)
    made = mlflow.create_model_version(MODEL, "s3://models/census")
    mlflow.set_registered_model_alias(MODEL, "candidate", "1")
    version = ModelVersion(
        name=MODEL, version="1", run_id=made.run_id or "", source=made.source or "", train_id=None
    )
    config = OperatorConfig.model_validate(base_config(tracking_uri))
    model = ReleasedModel(
        role=Role.PREDICTOR, name=MODEL, alias="candidate", version="1", run_id=version.run_id
    )
    return wanted_image({Role.PREDICTOR: version}, rebuild=None, config=config), model


def _build(cluster: SimulatedCluster, image: Mapping[str, Any]) -> dict[str, Any]:
    """Say that the image is built; give the ModelImage, as it is then."""
    answer = cluster.admin.post(MODEL_IMAGES.path(SYSTEM), json=image)
    assert answer.status_code in {201, 409}, answer.text
    condition = {
        "type": "Ready",
        "status": "True",
        "reason": "Built",
        "message": "",
        "observedGeneration": 1,
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    reference = f"{image['spec']['repository']}@{DIGEST}"
    status = {
        "observedGeneration": 1,
        "conditions": [condition],
        "image": {"reference": reference, "digest": DIGEST, "lock": DIGEST},
    }
    answer = cluster.admin.patch(
        MODEL_IMAGES.path(SYSTEM, image["metadata"]["name"], "status"),
        content=json.dumps({"status": status}),
        headers=MERGE,
    )
    built: dict[str, Any] = answer.raise_for_status().json()
    return built


def measure(size: int, *, peers: bool) -> tuple[dict[str, Leg], dict[str, float]]:
    """Go through all legs of a size."""
    legs: dict[str, Leg] = {}
    figures: dict[str, float] = {}
    if peers:
        with prepared() as bench:
            legs["bare"] = bare(bench, size)
        show(size, "bare", legs["bare"])
    with prepared() as bench:
        legs["ours"], program = operated(bench, "ours", size)
        show(size, "ours", legs["ours"])
        print(f"ours, {size:,}: {dict(legs['ours'].writes)}", flush=True)
        namespace = f"ours-{size}"
        for look in (idle, edited, reacted, restarted):
            figures |= look(bench, program, namespace, size)
    for name, value in figures.items():
        print(f"| {size:,} | ours: {name} | {value:.2f} |", flush=True)
    if peers:
        with prepared() as bench:
            legs["usual"], _ = operated(bench, "usual", size)
        show(size, "usual", legs["usual"])
    return legs, figures


def show(size: int, way: str, leg: Leg) -> None:
    """Print a row of the table."""
    growth = 1024 * (leg.memory - leg.base) / size
    print(
        f"| {size:,} | {way} | {leg.seconds:.1f} | {leg.rate:.0f} |"
        f" {leg.writes.total() / size:.2f} | {leg.cpu:.1f} | {leg.base:.0f} |"
        f" {leg.memory:.0f} | {leg.peak:.0f} | {growth:.1f} |",
        flush=True,
    )


HEAD: Final = (
    "| objects | way | s until all are ready | writes/s | writes an object | CPU s |"
    " MB without objects | MB | MB at most | KB an object |\n"
    "|--:|:--|--:|--:|--:|--:|--:|--:|--:|--:|"
)


def goals(size: int, legs: Mapping[str, Leg], figures: Mapping[str, float]) -> list[dict[str, Any]]:
    """Judge what the largest size has shown."""
    ours, bare_, usual = legs["ours"], legs["bare"], legs["usual"]
    children = len(manifests(Owner(name="x", namespace="x", uid="x"), _NOTHING, 1))
    beyond = ours.writes.total() / size - children
    growth = {way: (leg.memory - leg.base) / size for way, leg in legs.items()}
    allowed = 150 + 20 * size / 1024
    return [
        at_least("share of the API server's write ceiling", ours.rate / bare_.rate, 0.7),
        goal("writes an object beyond its children", beyond, 2),
        at_least("times less CPU than the usual way", usual.cpu / ours.cpu, 2),
        at_least("times less memory an object", growth["usual"] / growth["ours"], 2),
        goal("MB", ours.memory, round(allowed)),
        goal("restart, writes", figures["restart, writes"], 0),
        goal("restart, s until ready", figures["restart, s until ready"], 10),
        goal("idle, % of a core", figures["idle, % of a core"], 0.5),
        goal("idle, writes", figures["idle, writes"], 0),
        goal("edits, writes each", figures["edits, writes each"], 1),
        goal("edits, p95 s", figures["edits, p95 s from edit to status"], 2),
    ]


_NOTHING: Final = Release(models=(), reference="", lock="", runtime="")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--ours", action="store_true", help="leave the others out")
    options = parser.parse_args()
    machine = f"{os.cpu_count()} cores, Python {platform.python_version()}"
    print(f"{datetime.now(UTC):%Y-%m-%d}, {machine}\n\n{HEAD}", flush=True)
    judged: list[dict[str, Any]] = []
    for size in options.sizes:
        legs, figures = measure(size, peers=not options.ours)
        if size == max(options.sizes) and not options.ours:
            judged += goals(size, legs, figures)
        if size == 1000:
            judged += [
                goal("reaction at 1,000, p50 ms", figures["reaction, p50 ms"], 100),
                goal("reaction at 1,000, p99 ms", figures["reaction, p99 ms"], 500),
            ]
    conclude("operator", judged)


if __name__ == "__main__":
    main()
