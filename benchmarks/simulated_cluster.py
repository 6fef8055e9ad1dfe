"""A cluster whose nodes and pods are simulated by kwok, and everything else of which is real.

The API server and its etcd, the controllers of Deployments, ReplicaSets and disruption budgets, the
garbage collector and the scheduler are Kubernetes' own. There are no kubelets: kwok plays them.
Each client has a name of its own, under which the API server's audit log counts what it writes.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import yaml

from sandbox import toolchain
from tests.apiserver import (
    audit_flags,
    http_client,
    running_apiserver,
    running_process,
    token_of,
    user_config,
)

CONTROLLERS: Final = (
    "deployment-controller",
    "replicaset-controller",
    "disruption-controller",
    "garbage-collector-controller",
)
PARTS: Final = ("controller-manager", "scheduler", "kwok")
UNLIMITED: Final = 5000
"""Requests a second that Kubernetes' own clients allow themselves: they shall not be the limit."""
NODES: Final = 20
ROOM: Final = {"cpu": "10000", "memory": "100Ti", "pods": "100000"}
START_OF_A_POD: Final = 1000
"""Milliseconds from its scheduling until it is ready."""
WRITING: Final = ["create", "update", "patch", "delete"]
MERGE: Final = {"Content-Type": "application/merge-patch+json"}


@dataclass(frozen=True)
class SimulatedCluster:
    """A running one."""

    kubeconfig: Path
    folder: Path
    admin: httpx.Client

    def login(self, user: str) -> Path:
        """Give the kubeconfig of a client."""
        return user_config(self.kubeconfig, user, self.folder / f"{user}.kubeconfig")

    def client(self, user: str) -> httpx.Client:
        """Connect as a client."""
        return http_client(self.kubeconfig, token_of(user))

    def writes(self, user: str) -> Counter[str]:
        """Count what a client has written, such as `deployments` or `modeldeployments/status`."""
        found: Counter[str] = Counter()
        with (self.folder / "audit.log").open() as lines:
            for line in lines:
                event = json.loads(line)
                if event["user"]["username"] == user:
                    place = event["objectRef"]
                    told = filter(None, (place["resource"], place.get("subresource")))
                    found["/".join(told)] += 1
        return found


@contextmanager
def running_cluster(folder: Path, users: Sequence[str]) -> Iterator[SimulatedCluster]:
    """Start it, end it; `users` are the clients whose writes are counted."""
    rules = (
        {"level": "None", "resources": [{"group": "coordination.k8s.io"}]},
        {"level": "Metadata", "users": list(users), "verbs": WRITING},
    )
    flags = (*audit_flags(folder, rules), "--service-cluster-ip-range=10.96.0.0/12")
    everybody = dict.fromkeys((*users, *PARTS), "system:masters")
    with ExitStack() as stack:
        server = stack.enter_context(running_apiserver(folder, users=everybody, flags=flags))
        kubeconfig = server.kubeconfig
        admin = stack.enter_context(http_client(kubeconfig))
        cluster = SimulatedCluster(kubeconfig, folder, admin)
        _make_nodes(admin)
        for name, command in _commands(cluster).items():
            stack.enter_context(running_process(folder / f"{name}.log", command))
        yield cluster


def _commands(cluster: SimulatedCluster) -> Mapping[str, list[str]]:
    logins = {name: str(cluster.login(name)) for name in PARTS}
    client = {"kubeconfig": logins["scheduler"], "qps": UNLIMITED, "burst": UNLIMITED}
    scheduler = {
        "apiVersion": "kubescheduler.config.k8s.io/v1",
        "kind": "KubeSchedulerConfiguration",
        "leaderElection": {"leaderElect": False},
        "clientConnection": client,
    }
    places = {name: cluster.folder / f"{name}.yaml" for name in ("scheduler", "kwok")}
    places["scheduler"].write_text(yaml.safe_dump(scheduler))
    places["kwok"].write_text(yaml.safe_dump_all(_stages()))
    return {
        "controller-manager": [
            str(toolchain.binaries(toolchain.KUBE) / "kube-controller-manager"),
            f"--kubeconfig={logins['controller-manager']}",
            f"--controllers={','.join(CONTROLLERS)}",
            "--leader-elect=false",
            "--secure-port=0",
            f"--kube-api-qps={UNLIMITED}",
            f"--kube-api-burst={UNLIMITED}",
        ],
        "scheduler": [
            str(toolchain.binaries(toolchain.KUBE) / "kube-scheduler"),
            f"--config={places['scheduler']}",
            "--secure-port=0",
        ],
        "kwok": [
            str(toolchain.binaries(toolchain.KWOK) / "kwok"),
            f"--kubeconfig={logins['kwok']}",
            f"--config={places['kwok']}",
            "--manage-all-nodes",
        ],
    }


def _make_nodes(admin: httpx.Client) -> None:
    for number in range(NODES):
        name = f"node-{number}"
        labels = {"kubernetes.io/hostname": name}
        node = {"metadata": {"name": name, "labels": labels}}
        admin.post("/api/v1/nodes", json=node).raise_for_status()
        # The API server takes a new node for one that is not ready.
        untainted = json.dumps({"spec": {"taints": None}})
        admin.patch(f"/api/v1/nodes/{name}", content=untainted, headers=MERGE).raise_for_status()


def _stages() -> Sequence[dict[str, Any]]:
    """Let nodes be ready, pods run a moment after they are scheduled, and go when deleted."""
    room = json.dumps(ROOM)
    ready = f"capacity: {room}\nallocatable: {room}\n" + _conditions("Ready")
    running = (
        "phase: Running\n"
        "startTime: {{ Now | Quote }}\n"
        + _conditions("Initialized", "ContainersReady", "Ready")
        + "containerStatuses:\n"
        "{{ range .spec.containers }}"
        "- {name: {{ .name | Quote }}, image: {{ .image | Quote }}, imageID: '', ready: true,"
        " started: true, restartCount: 0, state: {running: {startedAt: {{ Now | Quote }}}}}\n"
        "{{ end }}"
    )
    is_ready = '.status.conditions.[] | select( .type == "Ready" ) | .status'
    unready = [{"key": is_ready, "operator": "NotIn", "values": ["True"]}]
    begins = [
        {"key": ".metadata.deletionTimestamp", "operator": "DoesNotExist"},
        {"key": ".spec.nodeName", "operator": "Exists"},
        {"key": ".status.phase", "operator": "In", "values": ["Pending"]},
    ]
    leaves = [{"key": ".metadata.deletionTimestamp", "operator": "Exists"}]
    return (
        _stage("Node", unready, {"statusTemplate": ready}, 0),
        _stage("Pod", begins, {"statusTemplate": running}, START_OF_A_POD),
        _stage("Pod", leaves, {"delete": True}, 0),
    )


def _conditions(*types: str) -> str:
    return "conditions:\n" + "".join(
        f'- {{type: {type_}, status: "True", lastTransitionTime: {{{{ Now | Quote }}}}}}\n'
        for type_ in types
    )


def _stage(kind: str, matches: Any, following: Any, delay: int) -> dict[str, Any]:
    return {
        "apiVersion": "kwok.x-k8s.io/v1alpha1",
        "kind": "Stage",
        "metadata": {"name": f"{kind}-{delay}".lower()},
        "spec": {
            "resourceRef": {"apiGroup": "v1", "kind": kind},
            "selector": {"matchExpressions": matches},
            "delay": {"durationMilliseconds": delay},
            "next": following,
        },
    }
