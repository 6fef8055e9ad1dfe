"""The operator's process beside a real API server and a real MLflow, and hands that play the rest.

There are no controllers and no nodes here: the tests play the builder, the deployment controller
and the garbage collector, by writing what those would write.
"""

import json
import os
import signal
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
import yaml
from mlflow import MlflowClient

from tests.apiserver import Kubectl
from tests.mlflow_server import free_port
from tests.nursery import OPERATOR, Nursery

T = TypeVar("T")

PATIENCE = 60.0
DIGEST = "sha256:" + "1" * 64
PATHS = {
    "configmap": "/api/v1/namespaces/{}/configmaps",
    "deployment": "/apis/apps/v1/namespaces/{}/deployments",
    "event": "/api/v1/namespaces/{}/events",
    "hpa": "/apis/autoscaling/v2/namespaces/{}/horizontalpodautoscalers",
    "modeldeployment": "/apis/modelops.dev/v1alpha1/namespaces/{}/modeldeployments",
    "modelimage": "/apis/modelops.dev/v1alpha1/namespaces/{}/modelimages",
    "networkpolicy": "/apis/networking.k8s.io/v1/namespaces/{}/networkpolicies",
    "node": "/api/v1/nodes",
    "pod": "/api/v1/namespaces/{}/pods",
    "poddisruptionbudget": "/apis/policy/v1/namespaces/{}/poddisruptionbudgets",
    "service": "/api/v1/namespaces/{}/services",
    "serviceaccount": "/api/v1/namespaces/{}/serviceaccounts",
}
CHILDREN = "serviceaccount,networkpolicy,service,poddisruptionbudget,deployment"


def eventually(look: Callable[[], T], patience: float = PATIENCE) -> T:
    """Look until something true is seen."""
    deadline = time.monotonic() + patience
    while not (found := look()):
        assert time.monotonic() < deadline, f"never seen; last: {found!r}"
        time.sleep(0.05)
    return found


@dataclass
class Process:
    """One of our programs, running."""

    nursery: Nursery
    kubeconfig: Path
    config: Mapping[str, Any]
    folder: Path
    module: str = OPERATOR
    pid: int | None = None
    health: int = field(default_factory=free_port)
    metrics: int = field(default_factory=free_port)

    def start(self) -> None:
        self.folder.mkdir(exist_ok=True)
        operator = {**self.config["operator"], "healthPort": self.health}
        config = {**self.config, "operator": {**operator, "metricsPort": self.metrics}}
        (self.folder / "config.yaml").write_text(yaml.safe_dump(config))
        place = self.folder / "config.yaml"
        self.pid = self.nursery.spawn(self.module, place, self.kubeconfig, self.folder / "log")
        eventually(self.is_ready, 120)

    def is_ready(self) -> bool:
        assert self.pid is not None
        assert self.nursery.ended(self.pid) is None, self.log()[-3000:]
        try:
            return self.get(self.health, "readyz").startswith("ok")
        except OSError:
            return False

    def get(self, port: int, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=5) as answer:
            content: str = answer.read().decode()
            return content

    def writes(self) -> float:
        """Count the writes to the API server, as the metrics tell."""
        lines = self.get(self.metrics, "metrics").splitlines()
        return sum(
            float(line.rpartition(" ")[2])
            for line in lines
            if line.startswith("modelops_writes_total")
        )

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def decisions(self) -> list[Mapping[str, Any]]:
        lines = [json.loads(line) for line in self.log().splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == "decided"]

    def send(self, number: signal.Signals) -> None:
        assert self.pid is not None
        os.kill(self.pid, number)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it, and give its code, or minus the signal."""
        if self.pid is None:
            return 0
        self.send(number)
        pid, self.pid = self.pid, None
        return self.nursery.wait(pid)


def configuration(tracking_uri: str, **operator: Any) -> dict[str, Any]:
    return {
        "mlflow": {"trackingUri": tracking_uri, "pollInterval": "1s", "settle": "1s"},
        "registry": {"host": "registry.test:5000", "insecure": True},
        "builder": {"bases": {"3.11": f"registry.test:5000/base@{DIGEST}"}},
        "monitoring": {"interval": "1s"},
        "operator": {"namespace": "modelops-system", "sweepInterval": "3s", **operator},
    }


@contextmanager
def running(process: Process) -> Iterator[Process]:
    try:
        process.start()
        yield process
    finally:
        process.end(signal.SIGKILL)


@dataclass
class World:
    """A namespace for one test, and hands."""

    kubectl: Kubectl
    api: httpx.Client
    """The same API server, without a process for each request."""
    namespace: str
    mlflow: MlflowClient

    def apply(self, manifest: Mapping[str, Any]) -> None:
        """Apply on the server, as kubectl does."""
        metadata = manifest["metadata"]
        self._patch(
            f"{_path(manifest['kind'], metadata.get('namespace', ''))}/{metadata['name']}",
            manifest,
            "application/apply-patch+yaml",
            fieldManager="kubectl",
        )

    def deployment(self, name: str, **spec: Any) -> None:
        """Apply a ModelDeployment."""
        models = {"predictor": {"name": f"{self.namespace}-{name}", "alias": "candidate"}}
        self.apply(
            {
                "apiVersion": "modelops.dev/v1alpha1",
                "kind": "ModelDeployment",
                "metadata": {"name": name, "namespace": self.namespace},
                "spec": {"models": models, **spec},
            }
        )

    def register(self, name: str, version: int = 1) -> None:
        """Register a version of a model and let the alias lead to it."""
        model = f"{self.namespace}-{name}"
        if version == 1:
            self.mlflow.create_registered_model(model)
        self.mlflow.create_model_version(model, f"s3://models/{model}/{version}")
        self.mlflow.set_registered_model_alias(model, "candidate", str(version))

    def get(self, kind: str, name: str, namespace: str | None = None) -> dict[str, Any] | None:
        answer = self.api.get(f"{_path(kind, namespace or self.namespace)}/{name}")
        if answer.status_code == 404:
            return None
        found: dict[str, Any] = answer.raise_for_status().json()
        return found

    def list(self, kinds: str, namespace: str | None = None) -> list[dict[str, Any]]:
        found = []
        for kind in kinds.split(","):
            answer = self.api.get(_path(kind, namespace or self.namespace)).raise_for_status()
            tree = answer.json()
            found += [{"kind": tree["kind"].removesuffix("List"), **item} for item in tree["items"]]
        return found

    def status(self, name: str) -> dict[str, Any]:
        status: dict[str, Any] = (self.get("modeldeployment", name) or {}).get("status", {})
        return status

    def condition(self, name: str, type_: str) -> dict[str, Any]:
        conditions = self.status(name).get("conditions", [])
        return next((one for one in conditions if one["type"] == type_), {})

    def reason(self, name: str, type_: str) -> str | None:
        return self.condition(name, type_).get("reason")

    def image(self, name: str, version: int = 1) -> dict[str, Any] | None:
        """Find the ModelImage of a model's version."""
        model = f"{self.namespace}-{name}"
        for image in self.list("modelimages", "modelops-system"):
            (found,) = image["spec"]["models"]
            if (found["name"], found["version"]) == (model, str(version)):
                return image
        return None

    def build(self, name: str, version: int = 1, reference: str = "") -> str:
        """Do the builder's part for the ModelImage of a model's version."""
        eventually(lambda: self.image(name, version))
        image = self.image(name, version) or {}
        reference = reference or f"registry.test:5000/{name}@sha256:{version:064d}"
        self.write_status(
            "modelimage",
            image["metadata"]["name"],
            {
                "observedGeneration": 1,
                "conditions": [met("Ready", "Built")],
                "image": {"reference": reference, "digest": DIGEST, "lock": DIGEST},
            },
            namespace="modelops-system",
        )
        return reference

    def roll_out(self, name: str) -> None:
        """Do the deployment controller's part: all replicas are there and answer."""
        eventually(lambda: self.get("deployment", name))
        live = self.live("deployment", name)
        wanted = live["spec"]["replicas"]
        counts = ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas")
        status = {
            "observedGeneration": live["metadata"]["generation"],
            "conditions": [met("Available", "MinimumReplicasAvailable")],
            **dict.fromkeys(counts, wanted),
        }
        self.write_status("deployment", name, status)

    def serve(self, name: str) -> str:
        """Bring a deployment to Ready."""
        self.register(name)
        self.deployment(name)
        reference = self.build(name)
        self.roll_out(name)
        eventually(lambda: self.condition(name, "Ready").get("status") == "True")
        return reference

    def live(self, kind: str, name: str) -> dict[str, Any]:
        """Read what has to be there."""
        found = self.get(kind, name)
        assert found is not None, f"there is no {kind} {name}"
        return found

    def write_status(
        self, kind: str, name: str, status: Mapping[str, Any], namespace: str | None = None
    ) -> None:
        path = f"{_path(kind, namespace or self.namespace)}/{name}/status"
        self._patch(path, {"status": status}, "application/merge-patch+json")

    def _patch(self, path: str, body: Mapping[str, Any], content: str, **query: str) -> None:
        headers = {"Content-Type": content}
        answer = self.api.patch(path, content=json.dumps(body), headers=headers, params=query)
        assert answer.is_success, answer.text

    def versions(self) -> dict[str, str]:
        """Give the version of everything here and of all images."""
        here = self.list(f"modeldeployments,{CHILDREN},events")
        images = self.list("modelimages", "modelops-system")
        return {
            f"{live['kind']}/{live['metadata']['name']}": live["metadata"]["resourceVersion"]
            for live in (*here, *images)
        }


def _path(kind: str, namespace: str) -> str:
    """Give the path of a kind's objects, however it is called."""
    name = kind.lower().removesuffix("s")
    return PATHS[name].format(namespace)


def met(type_: str, reason: str) -> dict[str, Any]:
    return {
        "type": type_,
        "status": "True",
        "reason": reason,
        "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
        **({"observedGeneration": 1} if type_ == "Ready" else {}),
    }
