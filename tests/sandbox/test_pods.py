"""What pods can do in a sandbox: run under the restricted standard, be reached, reach out."""

import json
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from tests.sandbox.conftest import Sandbox

pytestmark = pytest.mark.e2e

NAMESPACE = "restricted"
SERVER = """
import http.server, sys
print("listening", flush=True)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"hello from " + self.path.encode())
http.server.ThreadingHTTPServer(("", 8080), Handler).serve_forever()
"""
FETCH = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).read(200).decode())"
FETCH_IN_THE_END = f"""
import time
for _ in range(50):
    try:
        {FETCH}
        break
    except OSError:
        time.sleep(1)
"""


def pod(name: str, image: str, *arguments: str, memory: str = "64Mi") -> dict[str, Any]:
    """A pod as strict as the operator's own ones."""
    container = {
        "name": "main",
        "image": image,
        "command": ["python3", "-c", *arguments],
        "resources": {"limits": {"memory": memory}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "ca", "mountPath": "/ca"}],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "terminationGracePeriodSeconds": 0,
            "containers": [container],
            "volumes": [{"name": "ca", "configMap": {"name": "ca", "optional": True}}],
        },
    }


def service(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {
            "type": "NodePort",
            "selector": {"app": name},
            "ports": [{"port": 80, "targetPort": 8080}],
        },
    }


class Namespace:
    """The namespace that the tests share."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.status = sandbox.run("status")
        self.image: str = self.status["baseImages"]["3.11"]

    def kubectl(self, *arguments: str, text: str = "", check: bool = True) -> str:
        return self.sandbox.kubectl(f"--namespace={NAMESPACE}", *arguments, text=text, check=check)

    def apply(self, *manifests: dict[str, Any]) -> None:
        content = {"apiVersion": "v1", "kind": "List", "items": list(manifests)}
        self.kubectl("apply", "--filename=-", text=json.dumps(content))

    def output(self, name: str, *arguments: str) -> str:
        """Run a program in a pod of its own, to its end."""
        self.apply(pod(name, self.image, *arguments))
        self.ended(name)
        return self.kubectl("logs", name)

    def ended(self, name: str) -> dict[str, Any]:
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            status = json.loads(self.kubectl("get", "pod", name, "--output=json"))["status"]
            if status["phase"] in {"Succeeded", "Failed"}:
                ended: dict[str, Any] = status["containerStatuses"][0]["state"]["terminated"]
                return ended
            time.sleep(0.3)
        pytest.fail(self.kubectl("describe", "pod", name))


@pytest.fixture(scope="module")
def namespace(one: Sandbox) -> Iterator[Namespace]:
    label = {"pod-security.kubernetes.io/enforce": "restricted"}
    manifest = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": NAMESPACE, "labels": label},
    }
    one.kubectl("apply", "--filename=-", text=json.dumps(manifest))
    found = Namespace(one)
    bundle = found.status["index"]["caBundle"]
    if bundle:
        found.kubectl("create", "configmap", "ca", f"--from-file=bundle.crt={bundle}")
    found.apply(pod("server", found.image, SERVER), service("server"))
    found.kubectl("wait", "--for=condition=Ready", "pod/server", "--timeout=60s")
    yield found
    one.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


def test_the_namespace_enforces_the_restricted_standard(namespace: Namespace) -> None:
    loose = pod("loose", namespace.image, "pass")
    loose["spec"]["containers"][0]["securityContext"] = {"privileged": True}
    namespace.kubectl("create", "--filename=-", text=json.dumps(loose), check=False)
    assert "loose" not in namespace.kubectl("get", "pods")


def test_the_base_image_has_a_whole_python_without_root(namespace: Namespace) -> None:
    program = """
import bz2, ctypes, hashlib, lzma, os, pwd, sqlite3, ssl, sys, uuid, zlib
print(sys.version_info[:2], os.getuid(), pwd.getpwuid(os.getuid()).pw_name, json.__cached__)
"""
    assert namespace.output("python", "import json" + program).split(")", 1) == [
        "(3, 11",
        " 65532 modelops /usr/lib/python3.11/json/__pycache__/__init__.cpython-311.pyc\n",
    ]


def test_pods_find_services_by_name(namespace: Namespace) -> None:
    url = f"http://server.{NAMESPACE}.svc/name"
    assert namespace.output("by-name", FETCH, url) == "hello from /name\n"


def test_a_pod_reaches_itself_through_its_service(namespace: Namespace) -> None:
    url = f"http://server.{NAMESPACE}.svc/self"  # the short name is its own host name
    answer = namespace.kubectl("exec", "server", "--", "python3", "-c", FETCH, url)
    assert answer == "hello from /self\n"


def test_the_machine_reaches_node_ports_and_services(namespace: Namespace) -> None:
    found = json.loads(namespace.kubectl("get", "service", "server", "--output=json"))["spec"]
    node = namespace.status["addresses"]["node"]
    for url in (f"http://{node}:{found['ports'][0]['nodePort']}/", f"http://{found['clusterIP']}/"):
        with urllib.request.urlopen(url, timeout=5) as answer:
            assert answer.read() == b"hello from /"


def test_logs_are_read(namespace: Namespace) -> None:
    assert namespace.kubectl("logs", "server").startswith("listening\n")


def test_pods_reach_the_registry_and_mlflow(namespace: Namespace) -> None:
    for name, url in (
        ("registry", f"http://{namespace.status['registry']['host']}/v2/"),
        ("mlflow", f"{namespace.status['mlflow']['trackingUri']}/health"),
    ):
        # The end-to-end tests stop MLflow for a moment.
        assert namespace.output(name, FETCH_IN_THE_END, url).strip() in {"{}", "OK"}


def test_pods_reach_the_package_index(namespace: Namespace) -> None:
    index = namespace.status["index"]
    program = f"""
import os, ssl, urllib.request
own = "/ca/bundle.crt"
context = ssl.create_default_context(cafile=own if os.path.exists(own) else None)
print(urllib.request.urlopen("{index["url"]}/numpy/", context=context).status)
"""
    assert namespace.output("index", program) == "200\n"


def test_a_pod_beyond_its_memory_is_reported(namespace: Namespace) -> None:
    namespace.apply(pod("greedy", namespace.image, "bytearray(200_000_000)", memory="32Mi"))
    assert namespace.ended("greedy")["reason"] == "OOMKilled"
