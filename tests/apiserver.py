"""A real API server with its etcd and nothing else: no controllers, no nodes."""

import os
import signal
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import httpx
import yaml

from sandbox import toolchain
from tests.mlflow_server import free_port

TOKEN = "administrator-of-a-test"
OPERATOR = "system:serviceaccount:modelops-system:modelops-operator"
"""The operator's own account, as the chart calls it."""
START = 60.0


def program(name: str) -> Path:
    """Give the path of a program of the sandbox's, and build it if nobody did."""
    modules = (*toolchain.ALL, *toolchain.FOR_TESTS)
    module = next(module for module in modules if name in module.programs)
    return toolchain.binaries(module) / name


def token_of(user: str) -> str:
    """Give the token of a user that `running_apiserver` was told of."""
    return f"{TOKEN}-{user}"


class ApiServer:
    """A running API server."""

    def __init__(self, folder: Path, command: list[str], address: str) -> None:
        self.kubeconfig = _write_kubeconfig(folder / "kubeconfig", address)
        """The administrator's."""
        self._command = command
        self._address = address
        self._log = folder / "apiserver.log"
        self.start()

    def start(self) -> None:
        """Start it where it was before; it is not ready yet."""
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command, stdout=output, stderr=output, cwd=self._log.parent
            )

    def wait_until_ready(self) -> None:
        """Wait until it is; raise RuntimeError, with the end of the log, when it does not come."""
        request = urllib.request.Request(
            f"{self._address}/readyz", headers={"Authorization": f"Bearer {TOKEN}"}
        )
        trusting = ssl._create_unverified_context()
        deadline = time.monotonic() + START
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                urllib.request.urlopen(request, context=trusting, timeout=2).close()
            except (OSError, urllib.error.URLError):
                time.sleep(0.1)  # it tells nobody when it is ready, so it is asked
            else:
                return
        tail = "\n".join(self._log.read_text(errors="replace").splitlines()[-15:])
        raise RuntimeError(f"the API server did not become ready within {START:.0f} s:\n{tail}")

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait()

    def end(self) -> None:
        """Let it end."""
        _end(self._process)


@contextmanager
def running_apiserver(
    folder: Path, *, users: Mapping[str, str] = MappingProxyType({}), flags: Sequence[str] = ()
) -> Iterator[ApiServer]:
    """Start it with its etcd on free loopback ports; end both.

    `users` are others with the group of each, who come with the token that `token_of` gives;
    `flags` are more of the API server's. Raises RuntimeError, with the end of the log, when it
    does not come up.
    """
    etcd_port, peer_port, port = (free_port() for _ in range(3))
    etcd, peer = f"http://127.0.0.1:{etcd_port}", f"http://127.0.0.1:{peer_port}"
    lines = [f"{TOKEN},admin,1,system:masters"]
    lines += [f"{token_of(user)},{user},{user},{group}" for user, group in users.items()]
    (folder / "tokens.csv").write_text("\n".join(lines))
    _make_service_account_keys(folder)
    storage = [
        str(program("etcd")),
        f"--data-dir={folder / 'etcd'}",
        f"--listen-client-urls={etcd}",
        f"--advertise-client-urls={etcd}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        "--unsafe-no-fsync",
        "--log-level=warn",
    ]
    command = [
        str(program("kube-apiserver")),
        f"--etcd-servers={etcd}",
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",
        f"--secure-port={port}",
        f"--cert-dir={folder / 'certificates'}",
        f"--token-auth-file={folder / 'tokens.csv'}",
        "--authorization-mode=RBAC",
        "--service-cluster-ip-range=10.96.0.0/24",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={folder / 'sa.pub'}",
        f"--service-account-signing-key-file={folder / 'sa.key'}",
        # Pods are taken although no controller makes ServiceAccounts here.
        "--disable-admission-plugins=ServiceAccount",
        "--endpoint-reconciler-type=none",
        *flags,
    ]
    with running_process(folder / "etcd.log", storage):
        server = ApiServer(folder, command, f"https://127.0.0.1:{port}")
        try:
            server.wait_until_ready()
            yield server
        finally:
            server.end()


def _make_service_account_keys(folder: Path) -> None:
    command = [str(program("kubeadm")), "init", "phase", "certs", "sa", "--cert-dir"]
    subprocess.run([*command, str(folder)], check=True, capture_output=True)


@contextmanager
def running_process(log: Path, command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program meanwhile, with its output in a log; end it."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, cwd=log.parent)
    try:
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _write_kubeconfig(path: Path, address: str) -> Path:
    config: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": "test", "cluster": {"server": address, "insecure-skip-tls-verify": True}}
        ],
        "users": [{"name": "admin", "user": {"token": TOKEN}}],
        "contexts": [
            {
                "name": "test",
                "context": {"cluster": "test", "user": "admin", "namespace": "default"},
            }
        ],
        "current-context": "test",
    }
    path.write_text(yaml.safe_dump(config))
    return path


def audit_flags(folder: Path, rules: Sequence[Mapping[str, Any]]) -> Sequence[str]:
    """Let an API server write what its rules say to `audit.log` in a folder, a line for each."""
    policy = {
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [dict(rule) for rule in rules],
    }
    (folder / "audit.yaml").write_text(yaml.safe_dump(policy))
    log = folder / "audit.log"
    log.touch()
    return (
        f"--audit-policy-file={folder / 'audit.yaml'}",
        f"--audit-log-path={log}",
        "--audit-log-maxsize=10000",
    )


def user_config(kubeconfig: Path, user: str, path: Path) -> Path:
    """Write the kubeconfig of another user, beside the administrator's."""
    config = yaml.safe_load(kubeconfig.read_text())
    config["users"] = [{"name": "admin", "user": {"token": token_of(user)}}]
    path.write_text(yaml.safe_dump(config))
    return path


def http_client(kubeconfig: Path, token: str = TOKEN) -> httpx.Client:
    """Open a connection to the API server of a kubeconfig that `running_apiserver` gave.

    A hundred requests take two seconds; a hundred processes of kubectl take a minute.
    """
    (cluster,) = yaml.safe_load(kubeconfig.read_text())["clusters"]
    return httpx.Client(
        base_url=cluster["cluster"]["server"],
        headers={"Authorization": f"Bearer {token}"},
        verify=ssl._create_unverified_context(),
        timeout=30,
    )


class Kubectl:
    """The real kubectl against the test's API server."""

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig
        self._program = str(program("kubectl"))

    def __call__(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl and give what it printed; fail with its own words."""
        done = self.attempt(*arguments, stdin=stdin)
        assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def follow(self, *arguments: str) -> subprocess.Popen[str]:
        """Start kubectl, such as to watch; whoever does must end it."""
        return subprocess.Popen(
            [self._program, *arguments],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "KUBECONFIG": str(self.kubeconfig)},
        )

    def attempt(
        self, *arguments: str, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl and give everything that came of it."""
        return subprocess.run(
            [self._program, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            env={**os.environ, "KUBECONFIG": str(self.kubeconfig)},
        )
