"""R12: outside systems that refuse, fail, fall silent or answer garbage, in each of their calls.

One operator and one object for each case, all at the same time: the proxies tell them apart by the
names that requests mention. The right thing is said meanwhile, and all recover by themselves.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from modelops_runtime.telemetry import Line

from tests.builder.cosign import Pair
from tests.faults.proxy import Call, Fault, Proxy
from tests.faults.stories import MODEL, NAME, Stories
from tests.faults.world import LONG, NAMESPACE, World, eventually, kubeconfig, proxied
from tests.log_analytics import Row, Workspace
from tests.nursery import Nursery
from tests.registries.servers import RunningRegistry
from tests.shell.operating import configuration

pytestmark = pytest.mark.contract

JSON = {"Content-Type": "application/json"}
GARBAGE = Fault(status=200, body=b"<html>welcome", headers={"Content-Type": "text/html"})
SKIPPED = Fault(status=200, body=b"{}", headers=JSON)
FAULTS: Mapping[str, Fault] = {
    "401": Fault(status=401, body=b"who are you"),
    "403": Fault(status=403, body=b"not you"),
    "429": Fault(status=429, body=b"later", headers={"Retry-After": "1"}),
    "500": Fault(status=500, body=b"oh"),
    "503": Fault(status=503, body=b"down"),
    "cut": Fault(),
    "lost": Fault(forwarded=True),
    "garbage": GARBAGE,
    **({"silence": Fault(silence=120.0)} if LONG else {}),
}
DENIED = {"401", "403"}
SERVING = {
    "phase": "Running",
    "conditions": [
        {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    ],
}
"""A pod's status."""
SECONDS = 5
"""Length of a window."""
PATIENCE = 180
CALLS = {"alias": "registered-models/get", "version": "model-versions/get"}


@dataclass
class Stage:
    """One operator with a proxy on either side."""

    world: World
    cluster: Proxy
    mlflow: Proxy


@pytest.fixture(scope="module")
def stage(
    world: World,
    proxy: Proxy,
    nursery: Nursery,
    tracking_uri: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Stage]:
    folder: Path = tmp_path_factory.mktemp("outages")
    with Proxy(tracking_uri) as mlflow:
        own = {"leaderElection": {"enabled": False}, "namespaces": [world.namespace]}
        config = configuration(mlflow.address, **own)
        operator = nursery.start(config, kubeconfig(folder / "kubeconfig", proxy.address))
        operator.wait_until_ready()
        yield Stage(world, proxy, mlflow)
        operator.kill()
        assert "crashed" not in operator.log.read_text()


def test_what_mlflow_does_is_told_and_passes(stage: Stage) -> None:
    cases = {
        f"mlflow-{call}-{kind}": (path, kind) for call, path in CALLS.items() for kind in FAULTS
    }

    def rule(call: Call) -> Fault | None:
        if call.path.partition("?")[0].endswith("registered-models/search"):
            return SKIPPED  # so that each model is asked for by its name
        for name, (path, kind) in cases.items():
            if call.path.partition("?")[0].endswith(path) and call.mentions(f"{name}-model"):
                return FAULTS[kind]
        return None

    for name in cases:
        stage.world.register(f"{name}-model")
    stage.mlflow.rule = rule
    for name in cases:
        stage.world.create(name, f"{name}-model")
    for name, (_, kind) in cases.items():
        denied = kind in DENIED
        reason = "ModelRegistryDenied" if denied else "ModelRegistryUnreachable"
        stage.world.wait_for(name, "ModelsResolved", reason)
        assert ("Stalled" in stage.world.conditions(name)) == denied, name
    stage.mlflow.rule = lambda _: None
    for name in cases:
        stage.world.wait_until_ready(name)
        stage.world.remove(name)


def test_what_the_api_server_does_to_writes_passes(stage: Stage) -> None:
    """Each of the first writes for an object fails twice, each in its turn."""
    attempts = 2
    failed: dict[tuple[str, str], int] = {}
    names = {f"api-{kind}": kind for kind in FAULTS if kind != "silence"}

    def rule(call: Call) -> Fault | None:
        if not call.number:
            return None
        for name, kind in names.items():
            place = (name, call.path.partition("?")[0])
            if call.mentions(name) and failed.get(place, 0) < attempts:
                failed[place] = failed.get(place, 0) + 1
                return FAULTS[kind]
        return None

    model = "api-model"
    stage.world.register(model)
    stage.world.create("untroubled", model)
    stage.world.wait_until_ready("untroubled")
    end = stage.world.state("untroubled")
    stage.cluster.rule = rule
    for name in names:
        stage.world.create(name, model)
    for name in names:
        stage.world.wait_until_ready(name, 120)
        assert stage.world.state(name) == end, name
    kinds = {path.rsplit("/", 2)[-2] for _, path in failed if NAMESPACE in path}
    assert {"deployments", "services", "networkpolicies"} <= kinds
    stage.cluster.rule = lambda _: None
    for name in ("untroubled", *names):
        stage.world.remove(name)


def test_what_the_image_registry_does_is_told_and_passes(
    stories: Stories, registry: RunningRegistry, tmp_path: Path
) -> None:
    """Images are to be signed; when the registry answers again, it says that these are not."""
    world = stories.world.elsewhere()
    names = {f"images-{kind}": kind for kind in FAULTS if kind != "silence"}
    # A page instead of a manifest holds no signature, and may be what somebody has pushed.
    reasons = {"garbage": "SignatureUntrusted"} | dict.fromkeys(DENIED, "ImageRegistryDenied")
    with Proxy(f"http://{registry.host}") as front, proxied(stories.apiserver) as cluster:
        config = configuration(stories.tracking_uri) | {
            "operator": world.operator(),
            "registry": {"host": front.address.removeprefix("http://"), "insecure": True},
            "verification": {"mode": "Enforce", "keys": str(Pair.make(tmp_path).public)},
        }
        place = kubeconfig(tmp_path / "kubeconfig", cluster.address)
        operator = stories.nursery.start(config, place)
        operator.wait_until_ready()

        def rule(call: Call) -> Fault | None:
            found = (FAULTS[kind] for name, kind in names.items() if call.mentions(f"{name}-model"))
            return next(found, None)

        front.rule = rule
        for name in names:
            world.register(f"{name}-model")
            world.create(name, f"{name}-model")
        for name, kind in names.items():
            reason = reasons.get(kind, "ImageRegistryUnreachable")
            world.wait_for(name, "ImageVerified", reason)
        front.rule = lambda _: None
        for name in names:
            world.wait_for(name, "ImageVerified", "SignatureMissing")
        operator.kill()


def _row(namespace: str, labels: Mapping[str, str]) -> Row:
    """Write what a pod writes at the end of a window."""
    now = datetime.now(UTC)
    line = Line(
        model=f"{namespace}/{NAME}",
        revision=labels["modelops.dev/revision"],
        pod="serving",
        worker="1",
        start=now - timedelta(seconds=SECONDS),
        seconds=SECONDS,
        requests=3,
    )
    (written,) = line.encode()
    return Row(message=written.decode(), ingested=now, namespace=namespace, pod="serving")


def test_what_log_analytics_does_is_told_and_passes(stories: Stories) -> None:
    """Each kind befalls an operator of its own; the workspace's id tells the proxy which."""
    ids = {kind: f"{number:08x}-0000-0000-0000-000000000000" for number, kind in enumerate(FAULTS)}
    workspace = Workspace()
    with (
        workspace.aside() as (address, portal),
        Proxy(address) as front,
        proxied(stories.apiserver) as cluster,
    ):
        place = kubeconfig(stories.folder / "log-analytics", cluster.address)

        def rule(call: Call) -> Fault | None:
            return next((FAULTS[kind] for kind, id_ in ids.items() if call.mentions(id_)), None)

        front.rule = rule
        worlds = {kind: stories.world.elsewhere() for kind in FAULTS}
        operators = []
        for kind, world in worlds.items():
            config = configuration(stories.tracking_uri) | {
                "operator": world.operator(),
                "monitoring": {
                    "backend": "LogAnalytics",
                    "interval": "1s",
                    "logAnalytics": {"workspaceId": ids[kind], "interval": "10s", "lag": "0s"},
                },
            }
            program = "tests.operator_with_workspace"
            start = stories.nursery.start
            operators.append(start(config, place, program, WORKSPACE=front.address))
            world.create(NAME, MODEL, monitoring={"window": f"{SECONDS}s"})
        for kind, world in worlds.items():
            reason = {"401": "QueryDenied", "403": "QueryDenied", "429": "QueryThrottled"}
            world.wait_for(NAME, "MonitoringHealthy", reason.get(kind, "QueryFailed"))
            world.wait_until_ready(NAME)
        front.rule = lambda _: None
        for world in worlds.values():
            labels = world.run_pod(NAME, "serving", SERVING)

            def heard(world: World = world) -> bool:
                return world.conditions(NAME)["MonitoringHealthy"][1] == "Receiving"

            # Who was kept waiting for a minute hears of the latest windows only.
            for _ in range(PATIENCE // SECONDS):
                portal.call(workspace.ingest, [_row(world.namespace, labels)])
                with suppress(AssertionError):
                    eventually(heard, SECONDS)
                    break
            assert heard()
        for operator in operators:
            operator.kill()
