"""The cluster that operators are tried in: an API server, and hands that play all others in it."""

import itertools
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import httpx
import yaml
from mlflow import MlflowClient

from tests.apiserver import TOKEN, http_client
from tests.faults.proxy import Call, Proxy

T = TypeVar("T")
NAMESPACE = "faults"
"""Of these and the namespaces whose names begin so, the hands take care."""
SYSTEM = "modelops-system"
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
IMAGES = "/apis/modelops.dev/v1alpha1/namespaces/{}/modelimages"
WATCHED = ("/apis/modelops.dev/v1alpha1/modelimages", "/apis/apps/v1/deployments")
_registered: set[str] = set()
_numbers = itertools.count()
_MERGE = {"Content-Type": "application/merge-patch+json"}


def eventually(look: Callable[[], T], patience: float = 180.0) -> T:
    """Look until something true is seen."""
    deadline = time.monotonic() + patience
    while not (found := look()):
        assert time.monotonic() < deadline, f"never seen; last: {found!r}"
        time.sleep(0.05)
    return found


def is_of_the_work(call: Call) -> bool:
    """Leave out the writes of the election."""
    return "/leases" not in call.path


def kubeconfig(path: Path, server: str, token: str = TOKEN) -> Path:
    """Write a kubeconfig for an address, the administrator's or somebody else's."""
    context = {"cluster": "faults", "user": "admin"}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "faults", "cluster": {"server": server}}],
        "users": [{"name": "admin", "user": {"token": token}}],
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
    namespace: str = NAMESPACE
    system: str = SYSTEM
    """Where the ModelImages are."""

    def elsewhere(self) -> "World":
        """Give a namespace with images of its own, for an operator that serves it alone."""
        name = f"{NAMESPACE}-{next(_numbers)}"
        manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        self.api.post("/api/v1/namespaces", json=manifest).raise_for_status()
        return replace(self, namespace=name, system=name)

    def operator(self) -> dict[str, Any]:
        """Give the configuration of an operator that serves this namespace alone."""
        return {
            "namespace": self.system,
            "namespaces": [self.namespace],
            "leaderElection": {"enabled": False},
        }

    def register(self, model: str) -> None:
        """Register a version of a model, with the alias candidate."""
        if model not in _registered:
            _registered.add(model)
            self.mlflow.create_registered_model(model)
            self.mlflow.create_model_version(model, f"s3://models/{model}")
            self.mlflow.set_registered_model_alias(model, "candidate", "1")

    def create(self, name: str, model: str, **spec: Any) -> None:
        """Create a ModelDeployment."""
        models = {"predictor": {"name": model, "alias": "candidate"}}
        manifest = {
            "apiVersion": "modelops.dev/v1alpha1",
            "kind": "ModelDeployment",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {"models": models, **spec},
        }
        self.api.post(DEPLOYMENTS.format(self.namespace), json=manifest).raise_for_status()

    def run_pod(self, name: str, pod: str, status: Mapping[str, Any]) -> Mapping[str, str]:
        """Play a node that runs a pod of an object; give the pod's labels."""
        live = self.api.get(f"{KINDS['Deployment'].format(self.namespace)}/{name}").json()
        template = live["spec"]["template"]
        manifest = {
            "metadata": {**template["metadata"], "name": pod},
            "spec": {**template["spec"], "topologySpreadConstraints": None},
        }
        path = f"/api/v1/namespaces/{self.namespace}/pods"
        self.api.post(path, json=manifest).raise_for_status()
        content = json.dumps({"status": status})
        self.api.patch(f"{path}/{pod}/status", content=content, headers=_MERGE).raise_for_status()
        labels: Mapping[str, str] = template["metadata"]["labels"]
        return labels

    def edit(self, name: str, **spec: Any) -> None:
        """Change the spec."""
        path = f"{DEPLOYMENTS.format(self.namespace)}/{name}"
        content = json.dumps({"spec": spec})
        self.api.patch(path, content=content, headers=_MERGE).raise_for_status()

    def status(self, name: str) -> Mapping[str, Any]:
        """Read the status; empty where there is none."""
        answer = self.api.get(f"{DEPLOYMENTS.format(self.namespace)}/{name}")
        found: Mapping[str, Any] = answer.json().get("status") or {}
        return found

    def conditions(self, name: str) -> dict[str, tuple[str, str]]:
        """Give status and reason of each condition."""
        found = self.status(name).get("conditions") or ()
        return {one["type"]: (one["status"], one["reason"]) for one in found}

    def is_ready(self, name: str) -> bool:
        """Tell whether it serves what is asked for."""
        live = self.api.get(f"{DEPLOYMENTS.format(self.namespace)}/{name}").json()
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
                {
                    "metadata": self._nameless(_lasting(live["metadata"]), name),
                    "spec": self._nameless(_spec(live), name),
                }
                for live in self._items(path.format(self.namespace))
                if live["metadata"]["name"] == name
            ]
            for kind, path in KINDS.items()
        }
        status = self._nameless(self.status(name), name)
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
        images = [image["metadata"]["name"] for image in self._items(IMAGES.format(self.system))]
        return {"children": children, "status": status, "images": len(images)}

    def remove(self, name: str) -> None:
        """Delete the object and, as the garbage collector does, its children; and all images."""
        self.api.delete(f"{DEPLOYMENTS.format(self.namespace)}/{name}").raise_for_status()
        for path in KINDS.values():
            self.api.delete(f"{path.format(self.namespace)}/{name}")
        for image in self._items(IMAGES.format(self.system)):
            self.api.delete(f"{IMAGES.format(self.system)}/{image['metadata']['name']}")

    def _nameless(self, tree: Any, name: str) -> Any:
        """Give what is the same for an object of whatever name, wherever it is."""
        text = json.dumps(tree).replace(name, "NAME").replace(self.namespace, "SPACE")
        return json.loads(text)

    def _items(self, path: str) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = self.api.get(path).raise_for_status().json()["items"]
        return items


def build_or_roll_out(api: httpx.Client, live: Mapping[str, Any]) -> None:
    """Do the part of the builder, or of the deployment controller, where there is work."""
    metadata, status = live["metadata"], live.get("status") or {}
    if not metadata["namespace"].startswith((NAMESPACE, SYSTEM)):
        return
    if live["kind"] == "ModelImage":
        place, wanted = IMAGES, {} if status.get("image") else _built(live)
    else:
        place, wanted = KINDS["Deployment"], _rolled_out(live)
    if any(status.get(key) != value for key, value in wanted.items()):
        path = f"{place.format(metadata['namespace'])}/{metadata['name']}/status"
        api.patch(path, content=json.dumps({"status": wanted}), headers=_MERGE)


@contextmanager
def hands(apiserver: Path) -> Iterator[None]:
    """Play the builder and the deployment controller meanwhile."""
    ended = threading.Event()

    def play(path: str) -> None:
        with http_client(apiserver) as api:
            while not ended.is_set():
                # An API server that has just been given its definitions asks for patience (429),
                # and one that was killed is not there.
                with suppress(httpx.HTTPError, ValueError, KeyError):
                    query = {"watch": "1", "timeoutSeconds": "3"}
                    with api.stream("GET", path, params=query) as answer:
                        for line in answer.iter_lines():
                            event = json.loads(line)
                            if event["type"] in {"ADDED", "MODIFIED"}:
                                build_or_roll_out(api, event["object"])
                ended.wait(0.05)

    threads = [threading.Thread(target=play, args=(path,)) for path in WATCHED]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()


@contextmanager
def entered(apiserver: Path, tracking_uri: str) -> Iterator[World]:
    """Give the world, with its namespace."""
    with http_client(apiserver) as api:
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
        api.post("/api/v1/namespaces", json=namespace)
        world = World(api, MlflowClient(tracking_uri, tracking_uri))
        with hands(apiserver):
            yield world


def _lasting(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    owners = [
        {key: value for key, value in owner.items() if key != "uid"}
        for owner in metadata.get("ownerReferences", ())
    ]
    return {"labels": metadata.get("labels"), "ownerReferences": owners}


def _spec(live: Mapping[str, Any]) -> Any:
    """Give the spec, without the addresses of a Service."""
    spec = live.get("spec") or {}
    return {key: value for key, value in spec.items() if key not in {"clusterIP", "clusterIPs"}}


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
