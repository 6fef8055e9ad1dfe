"""The cluster that operators are tried in: an API server, and hands that play all others in it."""

import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
import yaml
from mlflow import MlflowClient

from tests.apiserver import TOKEN, http_client
from tests.faults.proxy import Call, Proxy

T = TypeVar("T")
NAMESPACE = "faults"
DIGEST = "sha256:" + "1" * 64
LONG = bool(os.environ.get("MODELOPS_LONG_FAULTS"))
"""`make test-faults`: everything, instead of what there is time for in `make test`."""
KINDS = {
    "Deployment": "/apis/apps/v1/namespaces/{}/deployments",
    "Service": "/api/v1/namespaces/{}/services",
    "ServiceAccount": "/api/v1/namespaces/{}/serviceaccounts",
    "PodDisruptionBudget": "/apis/policy/v1/namespaces/{}/poddisruptionbudgets",
    "NetworkPolicy": "/apis/networking.k8s.io/v1/namespaces/{}/networkpolicies",
}
VERDICTS = {"DriftDetected", "OutliersDetected", "MonitoringHealthy", "ServiceHealthy"}
DEPLOYMENTS = "/apis/modelops.dev/v1alpha1/namespaces/{}/modeldeployments"
IMAGES = "/apis/modelops.dev/v1alpha1/namespaces/modelops-system/modelimages"
_MERGE = {"Content-Type": "application/merge-patch+json"}


def eventually(look: Callable[[], T], patience: float = 60.0) -> T:
    """Look until something true is seen."""
    deadline = time.monotonic() + patience
    while not (found := look()):
        assert time.monotonic() < deadline, f"never seen; last: {found!r}"
        time.sleep(0.05)
    return found


def is_of_the_work(call: Call) -> bool:
    """Leave out the writes of the election."""
    return "/leases" not in call.path


def kubeconfig(path: Path, server: str) -> Path:
    """Write a kubeconfig of the test's administrator for an address."""
    context = {"cluster": "faults", "user": "admin"}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "faults", "cluster": {"server": server}}],
        "users": [{"name": "admin", "user": {"token": TOKEN}}],
        "contexts": [{"name": "faults", "context": context}],
        "current-context": "faults",
    }
    path.write_text(yaml.safe_dump(config))
    return path


@contextmanager
def proxied(apiserver: Path) -> Iterator[Proxy]:
    """Put a proxy before the API server."""
    (cluster,) = yaml.safe_load(apiserver.read_text())["clusters"]
    with Proxy(cluster["cluster"]["server"], writes=is_of_the_work) as proxy:
        yield proxy


@dataclass
class World:
    """What a test may do in the cluster, past the proxy."""

    api: httpx.Client
    mlflow: MlflowClient
    registered: set[str] = field(default_factory=set)

    def register(self, model: str) -> None:
        """Register a version of a model, with the alias candidate."""
        if model not in self.registered:
            self.registered.add(model)
            self.mlflow.create_registered_model(model)
            self.mlflow.create_model_version(model, f"s3://models/{model}")
            self.mlflow.set_registered_model_alias(model, "candidate", "1")

    def create(self, name: str, model: str, **spec: Any) -> None:
        """Create a ModelDeployment."""
        models = {"predictor": {"name": model, "alias": "candidate"}}
        manifest = {
            "apiVersion": "modelops.dev/v1alpha1",
            "kind": "ModelDeployment",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {"models": models, **spec},
        }
        self.api.post(DEPLOYMENTS.format(NAMESPACE), json=manifest).raise_for_status()

    def edit(self, name: str, **spec: Any) -> None:
        """Change the spec."""
        path = f"{DEPLOYMENTS.format(NAMESPACE)}/{name}"
        content = json.dumps({"spec": spec})
        self.api.patch(path, content=content, headers=_MERGE).raise_for_status()

    def status(self, name: str) -> Mapping[str, Any]:
        """Read the status; empty where there is none."""
        answer = self.api.get(f"{DEPLOYMENTS.format(NAMESPACE)}/{name}")
        found: Mapping[str, Any] = answer.json().get("status") or {}
        return found

    def conditions(self, name: str) -> dict[str, tuple[str, str]]:
        """Give status and reason of each condition."""
        found = self.status(name).get("conditions") or ()
        return {one["type"]: (one["status"], one["reason"]) for one in found}

    def is_ready(self, name: str) -> bool:
        """Tell whether it serves what is asked for."""
        live = self.api.get(f"{DEPLOYMENTS.format(NAMESPACE)}/{name}").json()
        status = live.get("status") or {}
        seen = status.get("observedGeneration") == live["metadata"]["generation"]
        conditions = {one["type"]: one["status"] for one in status.get("conditions") or ()}
        return seen and conditions.get("Ready") == "True" and "Reconciling" not in conditions

    def wait_until_ready(self, name: str, patience: float = 60.0) -> None:
        """Wait until it serves what is asked for."""
        eventually(lambda: self.is_ready(name), patience)

    def wait_for(self, name: str, type_: str, reason: str) -> None:
        """Wait until a condition has that reason."""
        eventually(lambda: self.conditions(name).get(type_, ("", ""))[1] == reason)

    def state(self, name: str) -> dict[str, Any]:
        """Give all that there is of an object, without what differs from time to time."""
        children = {
            kind: [
                {"metadata": _lasting(live["metadata"], name), "spec": _nameless(live, name)}
                for live in self._items(path.format(NAMESPACE))
                if live["metadata"]["name"] == name
            ]
            for kind, path in KINDS.items()
        }
        status = json.loads(json.dumps(self.status(name)).replace(name, "NAME"))
        # What telemetry tells depends on when it is looked at.
        status.pop("health", None)
        status["conditions"] = {
            one["type"]: (one["status"], one["reason"], one["message"])
            for one in status.get("conditions", ())
            if one["type"] not in VERDICTS
        }
        for entry in status.get("history", ()):
            entry.pop("startedAt")
            entry.pop("finishedAt", None)
        images = [image["metadata"]["name"] for image in self._items(IMAGES)]
        return {"children": children, "status": status, "images": len(images)}

    def remove(self, name: str) -> None:
        """Delete the object and, as the garbage collector does, its children; and all images."""
        self.api.delete(f"{DEPLOYMENTS.format(NAMESPACE)}/{name}").raise_for_status()
        for path in KINDS.values():
            self.api.delete(f"{path.format(NAMESPACE)}/{name}")
        for image in self._items(IMAGES):
            self.api.delete(f"{IMAGES}/{image['metadata']['name']}")

    def build_and_roll_out(self) -> None:
        """Do the parts of the builder and of the deployment controller, where there is work."""
        for image in self._items(IMAGES):
            if not (image.get("status") or {}).get("image"):
                self._write(f"{IMAGES}/{image['metadata']['name']}", _built(image))
        for live in self._items(KINDS["Deployment"].format(NAMESPACE)):
            status = _rolled_out(live)
            if any((live.get("status") or {}).get(key) != status[key] for key in status):
                path = f"{KINDS['Deployment'].format(NAMESPACE)}/{live['metadata']['name']}"
                self._write(path, status)

    def _write(self, path: str, status: Mapping[str, Any]) -> None:
        content = json.dumps({"status": status})
        self.api.patch(f"{path}/status", content=content, headers=_MERGE)

    def _items(self, path: str) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = self.api.get(path).raise_for_status().json()["items"]
        return items


@contextmanager
def hands(world: World) -> Iterator[None]:
    """Play the builder and the deployment controller meanwhile."""
    ended = threading.Event()

    def play() -> None:
        while not ended.wait(0.05):
            # An API server that has just been given its definitions asks for patience (429).
            with suppress(httpx.HTTPError):
                world.build_and_roll_out()

    thread = threading.Thread(target=play)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def entered(apiserver: Path, tracking_uri: str) -> Iterator[World]:
    """Give the world, with its namespace."""
    with http_client(apiserver) as api:
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
        api.post("/api/v1/namespaces", json=namespace)
        world = World(api, MlflowClient(tracking_uri, tracking_uri))
        with hands(world):
            yield world


def _lasting(metadata: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    owners = [
        {key: value for key, value in owner.items() if key != "uid"}
        for owner in metadata.get("ownerReferences", ())
    ]
    kept = {"labels": metadata.get("labels"), "ownerReferences": owners}
    named: Mapping[str, Any] = json.loads(json.dumps(kept).replace(name, "NAME"))
    return named


def _nameless(live: Mapping[str, Any], name: str) -> Any:
    """Give the spec, without the addresses of a Service and what comes of the object's name."""
    spec = json.loads(json.dumps(live.get("spec") or {}).replace(name, "NAME"))
    for address in ("clusterIP", "clusterIPs"):
        spec.pop(address, None)
    return spec


def _built(image: Mapping[str, Any]) -> dict[str, Any]:
    reference = f"{image['spec']['repository']}@{DIGEST}"
    return {
        "observedGeneration": 1,
        "conditions": [_met("Ready", "Built", observedGeneration=1)],
        "image": {"reference": reference, "digest": DIGEST, "lock": DIGEST},
    }


def _rolled_out(live: Mapping[str, Any]) -> dict[str, Any]:
    counts = ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas")
    return {
        "observedGeneration": live["metadata"]["generation"],
        "conditions": [_met("Available", "MinimumReplicasAvailable")],
        **dict.fromkeys(counts, live["spec"]["replicas"]),
    }


def _met(type_: str, reason: str, **more: Any) -> dict[str, Any]:
    time_ = "2026-01-01T00:00:00Z"
    known = {"type": type_, "status": "True", "reason": reason, "message": ""}
    return {**known, "lastTransitionTime": time_, **more}
