"""Asks every part of a sandbox whether it does its work."""

import json
import socket
import ssl
import struct
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from sandbox import components, processes
from sandbox.components import Component
from sandbox.places import Places

OK: Final = "ok"
_TIMEOUT: Final = 5.0
_INTERNAL_NAME: Final = "kubernetes.default.svc.cluster.local"


def check(places: Places) -> dict[str, str]:
    """Tell for every component "ok" or what is wrong with it."""
    with ThreadPoolExecutor() as pool:
        answers = pool.map(lambda part: trouble(places, part) or OK, components.ALL)
        return dict(zip((part.name for part in components.ALL), answers, strict=True))


def trouble(places: Places, part: Component) -> str:
    """Tell what is wrong with a component; empty if it does its work."""
    if processes.running(places, part.name) is None:
        return "not running"
    try:
        return _CHECKS[part.name](places)
    except (OSError, urllib.error.URLError) as error:
        return f"does not answer: {error}"


def api(places: Places, path: str) -> bytes:
    """Ask the API server as its administrator; raises OSError if it refuses."""
    context = ssl.create_default_context(cafile=str(places.pki / "ca.crt"))
    context.load_cert_chain(places.pki / "admin.crt", places.pki / "admin.key")
    return _read(f"https://{places.gateway}:6443{path}", context)


def _read(url: str, context: ssl.SSLContext | None = None) -> bytes:
    proxyless = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
    )
    with proxyless.open(url, timeout=_TIMEOUT) as answer:
        return bytes(answer.read())


def _web(port: int, path: str, *, node: bool = False) -> Callable[[Places], str]:
    def ask(places: Places) -> str:
        _read(f"http://{places.node if node else places.gateway}:{port}{path}")
        return ""

    return ask


def _port(port: int) -> Callable[[Places], str]:
    def connect(places: Places) -> str:
        socket.create_connection((places.gateway, port), _TIMEOUT).close()
        return ""

    return connect


def _apiserver(places: Places) -> str:
    api(places, "/readyz")
    return ""


def _controller_manager(places: Places) -> str:
    # Pods are refused in a namespace until its service account is there.
    api(places, "/api/v1/namespaces/default/serviceaccounts/default")
    return ""


def _containerd(places: Places) -> str:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_TIMEOUT)
        connection.connect(str(places.socket))
    return ""


def _kubelet(places: Places) -> str:
    _read(f"http://{places.node}:10248/healthz")
    node: Mapping[str, Any] = json.loads(api(places, f"/api/v1/nodes/{components.NODE_NAME}"))
    conditions = {each["type"]: each for each in node["status"].get("conditions", ())}
    ready = conditions.get("Ready", {"status": "Unknown", "message": "it has not reported yet"})
    if ready["status"] != "True":
        return f"the node is not ready: {ready['message']}"
    if any(
        taint["key"].startswith("node.kubernetes.io/") for taint in node["spec"].get("taints", ())
    ):
        return "the node is ready, but not yet open for pods"
    return ""


def _coredns(places: Places) -> str:
    """Look the API server's service up."""
    name = b"".join(bytes([len(part)]) + part.encode() for part in _INTERNAL_NAME.split("."))
    question = struct.pack(">6H", 1, 0x0100, 1, 0, 0, 0) + name + struct.pack(">B2H", 0, 1, 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as connection:
        connection.settimeout(1)
        connection.connect((places.gateway, 53))
        connection.send(question)
        answer = connection.recv(512)
    answers = struct.unpack(">6H", answer[:12])[3]
    return "" if answers else f"it does not know {_INTERNAL_NAME}"


_CHECKS: Final[Mapping[str, Callable[[Places], str]]] = {
    components.MLFLOW.name: _web(5001, "/health"),
    components.REGISTRY.name: _web(5000, "/v2/"),
    components.ETCD.name: _web(2379, "/health"),
    components.APISERVER.name: _apiserver,
    components.CONTAINERD.name: _containerd,
    components.CONTROLLER_MANAGER.name: _controller_manager,
    components.SCHEDULER.name: _port(10259),
    components.KUBELET.name: _kubelet,
    components.PROXY.name: _web(10256, "/healthz", node=True),
    components.COREDNS.name: _coredns,
    components.METRICS.name: _port(components.METRICS_PORT),
}
