"""A real API server with its etcd and nothing else: no controllers, no nodes."""

import os
import signal
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml

from sandbox import toolchain

TOKEN = "administrator-of-a-test"
START = 60.0


def program(name: str) -> Path:
    """Give the path of a program of the sandbox's, and build it if nobody did."""
    modules = (*toolchain.ALL, *toolchain.FOR_TESTS)
    module = next(module for module in modules if name in module.programs)
    return toolchain.binaries(module) / name


@contextmanager
def running_apiserver(folder: Path) -> Iterator[Path]:
    """Start both on free loopback ports, give the administrator's kubeconfig, end both.

    Raises RuntimeError, with the end of the log, when one of them does not come up.
    """
    etcd_port, peer_port, port = _free_ports(3)
    etcd, peer = f"http://127.0.0.1:{etcd_port}", f"http://127.0.0.1:{peer_port}"
    (folder / "tokens.csv").write_text(f"{TOKEN},admin,1,system:masters\n")
    _make_service_account_keys(folder)
    with ExitStack() as processes:
        processes.enter_context(
            _process(
                folder / "etcd.log",
                [
                    str(program("etcd")),
                    f"--data-dir={folder / 'etcd'}",
                    f"--listen-client-urls={etcd}",
                    f"--advertise-client-urls={etcd}",
                    f"--listen-peer-urls={peer}",
                    f"--initial-advertise-peer-urls={peer}",
                    f"--initial-cluster=default={peer}",
                    "--unsafe-no-fsync",
                    "--log-level=warn",
                ],
            )
        )
        server = processes.enter_context(
            _process(
                folder / "apiserver.log",
                [
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
                ],
            )
        )
        address = f"https://127.0.0.1:{port}"
        _wait_until_ready(address, server, folder / "apiserver.log")
        yield _write_kubeconfig(folder / "kubeconfig", address)


def _free_ports(count: int) -> Sequence[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _make_service_account_keys(folder: Path) -> None:
    command = [str(program("kubeadm")), "init", "phase", "certs", "sa", "--cert-dir"]
    subprocess.run([*command, str(folder)], check=True, capture_output=True)


@contextmanager
def _process(log: Path, command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, cwd=log.parent)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_ready(address: str, server: subprocess.Popen[bytes], log: Path) -> None:
    request = urllib.request.Request(
        f"{address}/readyz", headers={"Authorization": f"Bearer {TOKEN}"}
    )
    trusting = ssl._create_unverified_context()
    deadline = time.monotonic() + START
    while time.monotonic() < deadline and server.poll() is None:
        try:
            urllib.request.urlopen(request, context=trusting, timeout=2).close()
        except (OSError, urllib.error.URLError):
            time.sleep(0.1)
        else:
            return
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
    raise RuntimeError(f"the API server did not become ready within {START:.0f} s:\n{tail}")


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


def http_client(kubeconfig: Path) -> httpx.Client:
    """Open a connection to the API server of a kubeconfig that `running_apiserver` gave.

    A hundred requests take two seconds; a hundred processes of kubectl take a minute.
    """
    (cluster,) = yaml.safe_load(kubeconfig.read_text())["clusters"]
    return httpx.Client(
        base_url=cluster["cluster"]["server"],
        headers={"Authorization": f"Bearer {TOKEN}"},
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
