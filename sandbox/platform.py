"""Brings a whole platform up, tells how it is, and takes it down without a trace."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from modelops_operator.builder.layers import Entry, write_layer

from sandbox import base_image, components, debian, network, processes, toolchain
from sandbox.components import Component
from sandbox.places import Places, SandboxError, claim, find, locked, state_folder

_PATIENCE: Final = 90.0
"""Seconds that a part may take to answer: a busy machine needs many times the usual two."""


def up(name: str) -> dict[str, Any]:
    """Bring the sandbox up, repair it, or find it well; give its status.

    Raises:
        SandboxError: this machine can't run one, or a part did not start; says which and why.
    """
    debian.prepare()
    places = claim(name)
    with locked(state_folder() / f"{name}.lock"):
        build()
        if status(name)["state"] == "running":
            return status(name)
        places.state.mkdir(parents=True, exist_ok=True)
        _log("network and configuration")
        network.up(places)
        _make_cgroups(places)
        components.write_configuration(places)
        _end_orphans(places)
        _start(places, components.MLFLOW, components.REGISTRY, components.ETCD)
        _certificates(places)
        _log("control plane")
        _await(places, components.ETCD, lambda: _answers(places.gateway, 2379))
        _await(places, components.REGISTRY, lambda: _answers(places.gateway, 5000))
        _push_images(places)
        _start(places, components.APISERVER, components.CONTAINERD)
        _await(places, components.APISERVER, lambda: _ready(places))
        _bind_roles(places)
        _start(places, *components.ALL)
        _log("node")
        _await(places, components.KUBELET, lambda: _node_ready(places))
        _await(places, components.COREDNS, lambda: _answers(places.gateway, 53))
        _await(places, components.MLFLOW, lambda: _mlflow_answers(places))
        return status(name)


def down(name: str) -> None:
    """End every process and remove every trace of the sandbox, however it was left."""
    places = find(name)
    if places is None:
        return
    with locked(state_folder() / f"{name}.lock"):
        node_parts = (components.KUBELET, components.CONTAINERD)
        processes.end(pid for part in node_parts if (pid := processes.running(places, part.name)))
        for _ in range(3):
            processes.end(processes.in_cgroup(places), patience=1.0)
            processes.end(processes.marked(places))
        _unmount(places)
        _remove_cgroups(places)
        network.down(places)
        shutil.rmtree(places.state)
    (state_folder() / f"{name}.lock").unlink(missing_ok=True)


def status(name: str) -> dict[str, Any]:
    """Tell where everything is and how it does. `state` is running, degraded or stopped."""
    places = find(name)
    if places is None:
        return {"name": name, "state": "stopped"}
    health = _health(places)
    well = all(answer == "ok" for answer in health.values())
    alive = any(processes.running(places, component.name) for component in components.ALL)
    base = places.state / "base"
    return {
        "name": name,
        "state": "running" if well else "degraded" if alive else "stopped",
        "kubeconfig": str(places.kubeconfig),
        "kubectl": str(toolchain.path("kubectl")),
        "helm": str(toolchain.path("helm")),
        "registry": {"host": places.registry, "insecure": True},
        "mlflow": {"trackingUri": places.tracking_uri},
        "index": package_index(),
        "baseImages": {base_image.PYTHON: base.read_text() if base.exists() else None},
        "addresses": {
            "gateway": places.gateway,
            "node": places.node,
            "pods": places.pods,
            "services": places.services,
        },
        "versions": {
            "kubernetes": toolchain.KUBERNETES,
            "binaries": {module.name: module.key for module in toolchain.ALL},
        },
        "logs": str(places.state / "log"),
        "health": health,
    }


def package_index() -> dict[str, str | None]:
    """Find the package index and the CA bundle that this machine uses."""
    variables = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL")
    url = next((os.environ[name] for name in variables if os.environ.get(name)), None)
    if url is None:
        asked = subprocess.run(
            [sys.executable, "-m", "pip", "config", "get", "global.index-url"],
            capture_output=True,
            text=True,
            check=False,
        )
        url = asked.stdout.strip() or "https://pypi.org/simple"
    bundles = [os.environ.get("SSL_CERT_FILE"), "/etc/ssl/certs/ca-certificates.crt"]
    return {
        "url": url,
        "caBundle": next((path for path in bundles if path and Path(path).exists()), None),
    }


def build() -> None:
    """Build and fetch all programs and the base image."""
    debian.registry_program()
    base_image.layer_file()
    for module in toolchain.ALL:
        toolchain.binaries(module)


def _start(places: Places, *parts: Component) -> None:
    for part in parts:
        if processes.running(places, part.name) is None:
            words = components.command(places, part)
            processes.start(places, part.name, words, components.environment(part))


def _end_orphans(places: Places) -> None:
    """End what a killed start left without a note; pods and their shims stay."""
    noted = {processes.running(places, part.name) for part in components.ALL}
    names = {Path(part.command(places)[0]).name for part in components.ALL}
    strays = {
        pid
        for pid in processes.marked(places) - noted
        if _program(pid) in names and os.getpgid(pid) not in noted
    }
    processes.end(strays)


def _program(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/exe").readlink().name
    except OSError:
        return ""


def _certificates(places: Places) -> None:
    state = places.state
    folder = state / "kubeconfigs"
    if not (state / "pki" / "sa.key").exists():
        _kubeadm(places, "certs", "all")
    for user in ("admin", "super-admin", "controller-manager", "scheduler", "kubelet"):
        if not (folder / f"{user}.conf").exists():
            _kubeadm(places, "kubeconfig", user, f"--kubeconfig-dir={folder}")


def _kubeadm(places: Places, *phase: str) -> None:
    words = [str(toolchain.path("kubeadm")), "init", "phase", *phase]
    outcome = subprocess.run(
        [*words, f"--config={places.state}/kubeadm.yaml"],
        capture_output=True,
        text=True,
        check=False,
    )
    if outcome.returncode:
        raise SandboxError(f"kubeadm {' '.join(phase)} failed:\n{outcome.stderr.strip()}")


def _bind_roles(places: Places) -> None:
    """Let `admin.conf` administrate, and the API server fetch logs from the kubelet."""
    for name, role, subject in (
        ("kubeadm:cluster-admins", "cluster-admin", "--group=kubeadm:cluster-admins"),
        (
            "kubelet-api-admin",
            "system:kubelet-api-admin",
            "--user=kube-apiserver-kubelet-client",
        ),
    ):
        made = _kubectl(
            places, "create", "clusterrolebinding", name, f"--clusterrole={role}", subject
        )
        if made.returncode and "already exists" not in made.stderr:
            raise SandboxError(f"binding the role {role} failed: {made.stderr.strip()}")


def _kubectl(places: Places, *arguments: str) -> subprocess.CompletedProcess[str]:
    config = places.state / "kubeconfigs" / "super-admin.conf"
    return subprocess.run(
        [str(toolchain.path("kubectl")), f"--kubeconfig={config}", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


def _push_images(places: Places) -> None:
    reference = base_image.push(places.registry, insecure=True)
    (places.state / "base").write_text(reference)
    layer = places.state / "run" / "pause.layer"
    entry = Entry.of("pause", toolchain.path("pause").read_bytes(), executable=True)
    base_image.push_program(
        places.registry, components.PAUSE_IMAGE, write_layer([entry], layer, content="pause")
    )


def _await(places: Places, part: Component, ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not ready():
        gone = processes.running(places, part.name) is None
        if gone or time.monotonic() > deadline:
            what = "ended" if gone else f"did not answer within {_PATIENCE:.0f} s"
            log = places.state / "log" / f"{part.name}.log"
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
            raise SandboxError(
                f"{part.name} {what}. Its last words ({log}):\n{tail}\n"
                f"Try `make sandbox-down NAME={places.name}`, then start again."
            )
        time.sleep(0.1)


def _health(places: Places) -> dict[str, str]:
    checks: dict[str, Callable[[], bool]] = {
        components.ETCD.name: lambda: _answers(places.gateway, 2379),
        components.REGISTRY.name: lambda: _answers(places.gateway, 5000),
        components.MLFLOW.name: lambda: _mlflow_answers(places),
        components.APISERVER.name: lambda: _ready(places),
        components.COREDNS.name: lambda: _answers(places.gateway, 53),
        components.KUBELET.name: lambda: _node_ready(places),
    }

    def check(component: Component) -> str:
        if processes.running(places, component.name) is None:
            return "not running"
        answers = checks.get(component.name, lambda: True)()
        return "ok" if answers else "does not answer"

    with ThreadPoolExecutor() as pool:
        answers = pool.map(check, components.ALL)
        return dict(zip((part.name for part in components.ALL), answers, strict=True))


def _answers(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=2).close()
    except OSError:
        return False
    return True


def _mlflow_answers(places: Places) -> bool:
    try:
        with urllib.request.urlopen(f"{places.tracking_uri}/health", timeout=5) as answer:  # noqa: S310 - our own address
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def _ready(places: Places) -> bool:
    return _kubectl(places, "get", "--raw=/readyz", "--request-timeout=5s").returncode == 0


def _node_ready(places: Places) -> bool:
    node = _kubectl(places, "get", "node", components.NODE_NAME, "-o", "json")
    if node.returncode:
        return False
    conditions = json.loads(node.stdout)["status"].get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _make_cgroups(places: Places) -> None:
    root = Path("/sys/fs/cgroup")
    if (root / "cgroup.controllers").exists():
        folder = root / places.cgroup
        folder.mkdir(exist_ok=True)
        offered = (root / "cgroup.controllers").read_text().split()
        wanted = " ".join(f"+{name}" for name in offered)
        for group in (root, folder):
            (group / "cgroup.subtree_control").write_text(wanted)
        return
    for controller in root.iterdir():
        folder = controller / places.cgroup
        folder.mkdir(exist_ok=True)
        if controller.name.split(",")[0] == "cpuset":
            for file in ("cpuset.cpus", "cpuset.mems"):
                (folder / file).write_text((controller / file).read_text())


def _remove_cgroups(places: Places) -> None:
    deadline = time.monotonic() + 10
    while True:
        for top in processes.cgroups(places):
            folders = [path for path in top.rglob("*") if path.is_dir()]
            for folder in [*sorted(folders, reverse=True), top]:
                try:
                    folder.rmdir()
                except OSError:
                    continue
        if not processes.cgroups(places) or time.monotonic() > deadline:
            return
        time.sleep(0.1)


def _unmount(places: Places) -> None:
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for mount in reversed(mounts):
        if mount.startswith(f"{places.state}/"):
            subprocess.run(["umount", "--lazy", mount], capture_output=True, check=False)


def _log(text: str) -> None:
    sys.stderr.write(f"  {text} ...\n")
