"""Brings a whole platform up, tells how it is, and takes it down without a trace."""

import base64
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from modelops_operator.builder.layers import Entry, write_layer

from sandbox import base_image, cgroups, components, debian, health, network, processes, toolchain
from sandbox.components import Component
from sandbox.places import Places, SandboxError, check_name, claim, find, lock_of, locked
from sandbox.programs import last_lines, run

_PATIENCE: Final = 300.0
"""Seconds that a part may take to answer: a busy machine needs many times the usual five."""
_SETTLING: Final = 60.0
"""Seconds within which all parts, each of which has answered, have to be well together."""
_USERS: Final = ("admin", "super-admin", "controller-manager", "scheduler", "kubelet")
_POD_KEEPERS: Final = frozenset({"containerd-shim-runc-v2", "runc"})
"""Programs that hold the pods, which live on when everything else starts anew."""
_LOG_LINKS: Final = Path("/var/log/containers")
"""Where kubelet links each container's log, wherever its own folders are."""


def up(name: str) -> dict[str, Any]:
    """Bring the sandbox up, repair it, or find it well; give its status.

    Raises:
        SandboxError: this machine can't run one, or a part did not start; says which and why.
    """
    with locked(lock_of(name)):
        known = status(name)
        if known["state"] == "running":
            return known
        build()
        if not (places := claim(name)).leaving.exists():
            _bring_up(places)
            return _settled(name)
        _log("finishing a removal that was cut short")
        _remove(places)
        _bring_up(claim(name))
        return _settled(name)


def down(name: str) -> None:
    """End every process and remove every trace of the sandbox, however it was left."""
    lock = lock_of(name)
    with locked(lock):
        # Slot 0 is nobody's: where the state is gone, what goes by the name is still found.
        _remove(find(name) or Places(name, 0))
        lock.unlink(missing_ok=True)


def status(name: str) -> dict[str, Any]:
    """Tell where everything is and how it does. `state` is running, degraded or stopped."""
    check_name(name)
    places = find(name)
    if places is None:
        return {"name": name, "state": "stopped"}
    answers = health.check(places)
    base = places.state / "base"
    return {
        "name": name,
        "state": _state(places, answers.values()),
        "kubeconfig": str(places.kubeconfig),
        "kubectl": str(toolchain.path("kubectl")),
        "helm": str(toolchain.path("helm")),
        "registry": {"host": places.registry, "insecure": True},
        "mlflow": {"trackingUri": places.tracking_uri},
        "index": package_index(),
        "baseImages": {base_image.PYTHON: base.read_text()} if base.exists() else {},
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
        "health": answers,
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
    named = ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
    bundles = [*(os.environ.get(name) for name in named), "/etc/ssl/certs/ca-certificates.crt"]
    return {
        "url": url,
        "caBundle": next((path for path in bundles if path and Path(path).is_file()), None),
    }


def build(*, tests: bool = False) -> None:
    """Build and fetch all programs and the base image; with `tests`, what only tests start too.

    Raises:
        SandboxError: this machine cannot build them; says why.
    """
    debian.prepare()
    debian.registry_program()
    base_image.layer_file()
    for module in (*toolchain.ALL, *(toolchain.FOR_TESTS if tests else ())):
        toolchain.binaries(module)


def _state(places: Places, answers: Iterable[str]) -> str:
    if all(answer == health.OK for answer in answers) and not places.leaving.exists():
        return "running"
    alive = any(processes.running(places, part.name) for part in components.ALL)
    return "degraded" if alive else "stopped"


def _bring_up(places: Places) -> None:
    _log("network, registry and MLflow")
    places.runtime.mkdir(exist_ok=True)
    if not network.complete(places):
        _end_node(places)
        network.up(places)
    cgroups.make(places)
    components.write_configuration(places)
    _end_orphans(places)
    # MLflow needs the longest, most of it to import itself.
    _start(places, components.MLFLOW, components.REGISTRY, components.ETCD, components.CONTAINERD)
    with ThreadPoolExecutor() as pool:
        pushed = pool.submit(_push_images, places)
        _make_certificates(places)
        _log("control plane")
        _start(places, components.APISERVER)
        _await(places, components.APISERVER)
        # A pod's logs could be asked for at once, and the kubelet remembers a refusal for 30 s.
        _apply(places, components.bindings())
        _log("node")
        _start(places, *components.ALL)
        pushed.result()
    for part in components.ALL:
        _await(places, part)
    _apply(places, components.metrics_api(places))


def _settled(name: str) -> dict[str, Any]:
    """Tell the status once all is well at the same time, or what is wrong still after a while.

    A part that was well can be busy with another that came later: the kubelet says so for a moment
    when it meets a new containerd.
    """
    deadline = time.monotonic() + _SETTLING
    while (found := status(name))["state"] != "running" and time.monotonic() < deadline:
        time.sleep(0.5)
    return found


def _start(places: Places, *parts: Component) -> None:
    for part in parts:
        if processes.running(places, part.name) is None:
            words = components.command(places, part)
            processes.start(places, part.name, words, components.environment(part))


def _await(places: Places, part: Component) -> None:
    deadline = time.monotonic() + _PATIENCE
    while problem := health.trouble(places, part):
        gone = processes.running(places, part.name) is None
        if gone or time.monotonic() > deadline:
            what = "ended" if gone else f"is not well after {_PATIENCE:.0f} s: {problem}"
            log = places.state / "log" / f"{part.name}.log"
            raise SandboxError(
                f"{part.name} {what}\nIts last words, from {log}:\n"
                f"{last_lines(log.read_text(errors='replace'))}\n"
                f"Try `make sandbox-up NAME={places.name}` again; if that does not help, "
                f"`make sandbox-down NAME={places.name}` first."
            )
        time.sleep(0.1)


def _end_orphans(places: Places) -> None:
    """End what a killed start left without a note; pods and their shims stay."""
    noted = {processes.running(places, part.name) for part in components.ALL}
    processes.end(
        pid
        for pid in processes.marked(places)
        if pid not in noted
        and processes.session(pid) not in noted
        and processes.program(pid) not in _POD_KEEPERS
    )


def _end_node(places: Places) -> None:
    """End what lives in the node's network, which is about to be made anew."""
    parts = [part for part in components.ALL if part.in_node]
    processes.end(pid for part in parts if (pid := processes.running(places, part.name)))
    processes.end(pid for pid in processes.marked(places) if processes.program(pid) in _POD_KEEPERS)
    processes.end(cgroups.members(places))
    _unmount(places.runtime)
    shutil.rmtree(places.runtime / "containerd", ignore_errors=True)
    shutil.rmtree(places.runtime / "addresses", ignore_errors=True)


def _make_certificates(places: Places) -> None:
    """Make all keys, certificates and kubeconfigs in a draft folder, so that none is half made."""
    folder = places.pki.parent
    if folder.exists():
        return
    draft = folder.with_name("certificates.draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(mode=0o700)
    config = draft / "kubeadm.yaml"
    config.write_text(components.kubeadm_configuration(places, draft / places.pki.name))
    kubeadm, option = str(toolchain.path("kubeadm")), f"--config={config}"
    run("making certificates", kubeadm, "init", "phase", "certs", "all", option)
    for user in _USERS:
        target = f"--kubeconfig-dir={draft / places.kubeconfigs.name}"
        run("making kubeconfigs", kubeadm, "init", "phase", "kubeconfig", user, option, target)
    admin = (draft / places.kubeconfigs.name / places.kubeconfig.name).read_text()
    for field, file in (("certificate", "admin.crt"), ("key", "admin.key")):
        found = re.search(rf"client-{field}-data: (\S+)", admin)
        (draft / places.pki.name / file).write_bytes(base64.b64decode(found[1] if found else ""))
    draft.rename(folder)


def _apply(places: Places, manifests: Sequence[Mapping[str, Any]]) -> None:
    run(
        "introducing the parts to the API server",
        str(toolchain.path("kubectl")),
        f"--kubeconfig={places.kubeconfigs / 'super-admin.conf'}",
        "apply",
        "--server-side",
        "--validate=false",
        "--filename=-",
        text=json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests}),
    )


def _push_images(places: Places) -> None:
    _await(places, components.REGISTRY)
    reference = base_image.push(places.registry, insecure=True)
    (places.state / "base").write_text(reference)
    entry = Entry.of("pause", toolchain.path("pause").read_bytes(), executable=True)
    layer = write_layer([entry], places.runtime / "pause.layer", content="pause")
    base_image.push_pause(places.registry, components.PAUSE_IMAGE, layer)


def _remove(places: Places) -> None:
    if places.state.exists():
        places.leaving.touch()
    for _ in range(3):  # what was being started while we looked is found the next time
        processes.end(processes.marked(places) | cgroups.members(places))
    _unmount(places.state)
    _unmount(places.runtime)
    cgroups.remove(places)
    network.down(places)
    for link in _LOG_LINKS.glob("*.log"):
        if link.is_symlink() and link.readlink().is_relative_to(places.state):
            link.unlink()
    shutil.rmtree(places.runtime, ignore_errors=True)
    if places.state.exists():
        _remove_state(places)


def _remove_state(places: Places) -> None:
    """Remove the files; the slot goes last, else a removal cut short would forget its addresses."""
    for path in places.state.iterdir():
        if path.name not in {"slot", places.leaving.name}:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    shutil.rmtree(places.state)


def _unmount(folder: Path) -> None:
    lines = Path("/proc/self/mounts").read_text().splitlines()
    mounts = [line.split()[1].replace("\\040", " ") for line in lines]
    for mount in reversed(mounts):
        if mount.startswith(f"{folder}/"):
            subprocess.run(["umount", "--lazy", mount], capture_output=True, check=False)


def _log(text: str) -> None:
    sys.stderr.write(f"  {text} ...\n")
