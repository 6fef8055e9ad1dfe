"""What the sandbox takes from Debian: a few packages, and the registry's program."""

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from sandbox.places import SandboxError, cache_folder, locked

PACKAGES: Final = {
    "gcc": ("gcc", "libc6-dev"),
    "ip": ("iproute2",),
    "mmdebstrap": ("mmdebstrap",),
    "nft": ("nftables",),
    "nsenter": ("util-linux",),
    "pkg-config": ("pkg-config",),
}
"""Programs that must be there, and the packages that bring them."""
_SECCOMP: Final = "libseccomp-dev"
_ELSEWHERE: Final = (
    "An existing cluster and registry work as well:\n"
    "  make demo KUBECONFIG=... REGISTRY=... MLFLOW_TRACKING_URI=..."
)


def missing_packages() -> list[str]:
    """List the Debian packages that are needed and not installed."""
    wanted = [
        package
        for program, packages in PACKAGES.items()
        if shutil.which(program) is None
        for package in packages
    ]
    if not any(Path("/usr/include").rglob("seccomp.h")):
        wanted.append(_SECCOMP)
    return wanted


def obstacles(*, uid: int, machine: str, apt: bool, missing: list[str]) -> list[str]:
    """List, for people, what keeps a sandbox from starting on such a machine."""
    found = []
    if machine != "x86_64":
        found.append(f"this machine is {machine}; the sandbox is built for x86_64 only")
    if uid != 0:
        found.append("it needs root, for network namespaces, mounts and control groups")
    if missing and (not apt or uid != 0):
        found.append(f"these Debian packages are missing: {' '.join(missing)}")
    if not apt:
        found.append("there is no apt-get, which brings the registry and the Python base image")
    return found


def prepare() -> None:
    """Install what is missing, after saying what.

    Raises:
        SandboxError: this machine cannot run a sandbox; says why and what works instead.
    """
    missing = missing_packages()
    found = obstacles(
        uid=os.geteuid(),
        machine=platform.machine(),
        apt=shutil.which("apt-get") is not None,
        missing=missing,
    )
    if found:
        reasons = "\n".join(f"- {line}" for line in found)
        raise SandboxError(f"A sandbox can't run here:\n{reasons}\n{_ELSEWHERE}")
    if missing:
        sys.stderr.write(f"  installing Debian packages: {' '.join(missing)}\n")
        _apt("update", "-q")
        _apt("install", "-q", "-y", "--no-install-recommends", *missing)


def registry_program() -> Path:
    """Give the program of Debian's docker-registry, unpacked without starting its service."""
    program = cache_folder() / "bin" / "docker-registry" / "usr" / "bin" / "docker-registry"
    with locked(cache_folder() / "bin" / "docker-registry.lock"):
        if not program.exists():
            with tempfile.TemporaryDirectory(dir=cache_folder() / "bin") as scratch:
                _fetch_package("docker-registry", Path(scratch))
                package = next(Path(scratch).glob("*.deb"))
                tree = Path(scratch) / "tree"
                subprocess.run(["dpkg-deb", "-x", str(package), str(tree)], check=True)
                tree.rename(cache_folder() / "bin" / "docker-registry")
    return program


def _fetch_package(name: str, folder: Path) -> None:
    command = ["apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", name]
    if subprocess.run(command, cwd=folder, capture_output=True, check=False).returncode:
        _apt("update", "-q")
        subprocess.run(command, cwd=folder, stdout=sys.stderr, check=True)


def _apt(*arguments: str) -> None:
    outcome = subprocess.run(
        ["apt-get", *arguments],
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        capture_output=True,
        text=True,
        check=False,
    )
    if outcome.returncode:
        raise SandboxError(f"apt-get {arguments[0]} failed:\n{outcome.stderr.strip()}")
