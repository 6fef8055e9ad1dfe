"""`modelops report` beside a real API server and a real MLflow; the node has nothing but logs."""

import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

import pytest
import yaml
from click.testing import CliRunner, Result
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from modelops_operator.api.facts import Role
from modelops_operator.cli.main import main
from modelops_operator.core.release import RELEASE, Release, ReleasedModel
from modelops_operator.shell.references import PROFILE
from modelops_runtime.flavor import FLAVOR
from modelops_runtime.profile import FeatureProfile, Histogram, Profile
from modelops_runtime.telemetry import FeatureCounts, Line

from tests.shell.operating import configuration

if TYPE_CHECKING:
    from tests.shell.operating import World

pytestmark = pytest.mark.contract

AGES = FeatureProfile(
    name="AGEP", kind="number", edges=(0.0, 50.0, 100.0), counts=(0, 5000, 5000, 0)
)
REFERENCE = Profile(features=(AGES,), rows=10_000)
MINUTE = timedelta(minutes=1)


class Node(BaseHTTPRequestHandler):
    """What the API server asks of a kubelet for a log."""

    content = b""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()
        self.wfile.write(self.content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def node(world: "World", tmp_path: Path) -> Iterator[type[Node]]:
    """A node of the cluster, by name `node`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate(tmp_path / "node.pem"))
    handler = type("Handler", (Node,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    world.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node"}})
    status = {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": server.server_port}},
    }
    world.write_status("node", "node", status)
    yield handler
    world.kubectl("delete", "node", "node")
    server.shutdown()
    thread.join()
    server.server_close()


def certificate(path: Path) -> Path:
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "node")])
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - MINUTE)
        .not_valid_after(now + 60 * MINUTE)
        .sign(key, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    pem = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    path.write_bytes(key.private_bytes(*pem) + signed.public_bytes(pem[0]))
    return path


def log(release: Release, model: str) -> bytes:
    """Three windows with nobody below 50, each with the kubelet's stamp, among other lines."""
    last = datetime.now(UTC).replace(second=0, microsecond=0) - MINUTE
    lines = [b"INFO: it has started"]
    for ago in (2, 1, 0):
        line = Line(
            model=model,
            revision=release.revision,
            edges=REFERENCE.edges_hash,
            start=last - (ago + 1) * MINUTE,
            seconds=60,
            pod="server-1",
            worker="w",
            rows=2000,
            requests=20,
            latency=((30, 20),),
            features=(FeatureCounts(0, Histogram((0, 0, 2000, 0))),),
        )
        lines += [each.rstrip() for each in line.encode()]
    stamp = last.strftime("%Y-%m-%dT%H:%M:%S.000000001Z").encode()
    return b"".join(b"%s %s\n" % (stamp, line) for line in lines)


def released(world: "World", tmp_path: Path) -> Release:
    """Register a detector with its profile, and let a Deployment with one pod serve it."""
    detector = f"{world.namespace}-drift"
    run = world.mlflow.create_run("0")
    (tmp_path / "profile.json").write_bytes(REFERENCE.to_json())
    folder, file = PROFILE.rsplit("/", 1)
    assert file == "profile.json"
    world.mlflow.log_artifact(run.info.run_id, str(tmp_path / file), f"model/{folder}")
    world.mlflow.log_text(run.info.run_id, f"flavors: {{{FLAVOR}: {{}}}}", "model/MLmodel")
    world.mlflow.create_registered_model(detector)
    source = f"{run.info.artifact_uri}/model"
    world.mlflow.create_model_version(detector, source, run.info.run_id)
    models = (
        ReleasedModel(role=Role.PREDICTOR, name="m", alias="a", version="7", run_id="r"),
        ReleasedModel(role=Role.DRIFT, name=detector, alias="a", version="1", run_id="r"),
    )
    release = Release(models=models, reference="registry.test/m@sha256:1", lock="", runtime="")
    labels = {"modelops.dev/deployment": "m", "modelops.dev/revision": release.revision}
    containers = [{"name": "server", "image": "registry.test/m"}]
    template = {"metadata": {"labels": labels}, "spec": {"containers": containers}}
    spec = {"selector": {"matchLabels": labels}, "template": template}
    metadata = {"name": "m", "namespace": world.namespace}
    annotated = {**metadata, "annotations": {RELEASE: release.to_json()}}
    world.apply(
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": annotated, "spec": spec}
    )
    pod = {**metadata, "name": "server-1", "labels": labels}
    on_node = {"containers": containers, "nodeName": "node"}
    world.apply({"apiVersion": "v1", "kind": "Pod", "metadata": pod, "spec": on_node})
    started = (datetime.now(UTC) - 10 * MINUTE).strftime("%Y-%m-%dT%H:%M:%SZ")
    container = {
        "name": "server",
        "image": "",
        "imageID": "",
        "ready": True,
        "restartCount": 0,
        "state": {"running": {"startedAt": started}},
    }
    ready = {"type": "Ready", "status": "True", "lastTransitionTime": started}
    world.write_status("pod", "server-1", {"conditions": [ready], "containerStatuses": [container]})
    return release


def report(world: "World", *arguments: str) -> Result:
    environment = {"KUBECONFIG": str(world.kubectl.kubeconfig), "COLUMNS": "160"}
    place = ("report", "m", "-n", world.namespace)
    return CliRunner().invoke(main, (*place, *arguments), env=environment, catch_exceptions=False)


def test_a_report_tells_what_the_pods_logged(
    world: "World", node: type[Node], tracking_uri: str, tmp_path: Path
) -> None:
    absent = report(world)
    assert absent.exit_code == 1
    assert f"there is no ModelDeployment m in namespace {world.namespace}" in absent.output

    world.deployment("m", monitoring={"window": "1m"})
    nameless = report(world, "--operator-namespace", world.namespace)
    assert nameless.exit_code == 1
    assert "--config" in nameless.output

    (tmp_path / "config.yaml").write_text(yaml.safe_dump(configuration(tracking_uri)))
    early = report(world, "--config", str(tmp_path / "config.yaml"))
    assert early.exit_code == 1
    assert "serves nothing yet" in early.output

    release = released(world, tmp_path)
    node.content = log(release, f"{world.namespace}/m")
    told = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": "modelops-operator",
            "namespace": world.namespace,
            "labels": {"app.kubernetes.io/part-of": "modelops"},
        },
        "data": {"config.yaml": (tmp_path / "config.yaml").read_text()},
    }
    world.apply(told)
    place = ("--operator-namespace", world.namespace)

    shown = report(world, *place, "--text")
    assert shown.exit_code == 0, shown.output
    for words in ("DriftAlert", "AGEP", "m 7", "60 requests", "6,000"):
        assert words in shown.output, shown.output

    written = report(world, *place, "-o", str(tmp_path / "report.html"))
    assert written.exit_code == 0, written.output
    assert "AGEP" in (tmp_path / "report.html").read_text()
    assert report(world, *place, "-o", "/nowhere/report.html").exit_code == 1
