"""The operator's process beside a real API server and a real MLflow, and hands that play the rest.

There are no controllers and no nodes here: the tests play the builder, the deployment controller
and the garbage collector, by writing what those would write.
"""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml
from mlflow import MlflowClient

from tests.apiserver import Kubectl
from tests.mlflow_server import free_port

T = TypeVar("T")

PATIENCE = 60.0
DIGEST = "sha256:" + "1" * 64
CHILDREN = "serviceaccount,networkpolicy,service,poddisruptionbudget,deployment"


def eventually(look: Callable[[], T], patience: float = PATIENCE) -> T:
    """Look until something true is seen."""
    deadline = time.monotonic() + patience
    while not (found := look()):
        assert time.monotonic() < deadline, f"never seen; last: {found!r}"
        time.sleep(0.2)  # each look is a process
    return found


@dataclass
class Process:
    """One of our programs, running."""

    kubeconfig: Path
    config: Mapping[str, Any]
    folder: Path
    module: str = "modelops_operator.shell.main"
    popen: subprocess.Popen[bytes] | None = None
    health: int = field(default_factory=free_port)
    metrics: int = field(default_factory=free_port)

    def start(self) -> None:
        self.folder.mkdir(exist_ok=True)
        operator = {**self.config["operator"], "healthPort": self.health}
        config = {**self.config, "operator": {**operator, "metricsPort": self.metrics}}
        (self.folder / "config.yaml").write_text(yaml.safe_dump(config))
        environment = {
            **os.environ,
            "PYTHONDONTWRITEBYTECODE": "",
            "KUBECONFIG": str(self.kubeconfig),
            "MODELOPS_CONFIG": str(self.folder / "config.yaml"),
        }
        with (self.folder / "log").open("ab") as log:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", self.module], env=environment, stdout=log, stderr=log
            )
        eventually(self.is_ready, 120)

    def is_ready(self) -> bool:
        assert self.popen is not None
        assert self.popen.poll() is None, self.log()[-3000:]
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

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        if self.popen is None:
            return 0
        self.popen.send_signal(number)
        code = self.popen.wait(20)
        self.popen = None
        return code


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
    namespace: str
    mlflow: MlflowClient

    def apply(self, manifest: Mapping[str, Any]) -> None:
        self.kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(manifest))

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
        place = ("-n", namespace or self.namespace)
        text = self.kubectl(*place, "get", kind, name, "-o", "json", "--ignore-not-found")
        found: dict[str, Any] | None = json.loads(text) if text else None
        return found

    def list(self, kinds: str, namespace: str | None = None) -> list[dict[str, Any]]:
        place = ("-n", namespace or self.namespace)
        items: list[dict[str, Any]] = json.loads(self.kubectl(*place, "get", kinds, "-o", "json"))[
            "items"
        ]
        return items

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
        place = ("-n", namespace or self.namespace)
        patch = json.dumps({"status": status})
        arguments = ("--subresource=status", "--type=merge", "-p", patch)
        self.kubectl(*place, "patch", kind, name, *arguments)

    def versions(self) -> dict[str, str]:
        """Give the version of everything here and of all images."""
        here = self.list(f"modeldeployments,{CHILDREN},events")
        images = self.list("modelimages", "modelops-system")
        return {
            f"{live['kind']}/{live['metadata']['name']}": live["metadata"]["resourceVersion"]
            for live in (*here, *images)
        }


def met(type_: str, reason: str) -> dict[str, Any]:
    return {
        "type": type_,
        "status": "True",
        "reason": reason,
        "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
        **({"observedGeneration": 1} if type_ == "Ready" else {}),
    }
