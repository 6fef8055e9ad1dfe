"""What the sandbox takes from Debian: a few packages, and the registry's program."""

import os
import platform
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from sandbox.places import SandboxError, cache_folder, scratch
from sandbox.programs import run

PACKAGES: Final = {
    "gcc": ("gcc", "libc6-dev"),
    "igzip": ("isal",),
    "ip": ("iproute2",),
    "mmdebstrap": ("mmdebstrap",),
    "nft": ("nftables",),
    "nsenter": ("util-linux",),
    "pkg-config": ("pkg-config",),
}
"""Programs that must be there, and the packages that bring them."""
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
    if not _is_known("libseccomp"):
        wanted.append("libseccomp-dev")
    return wanted


def _is_known(library: str) -> bool:
    """Tell whether programs can be built with a C library: what runc's build asks as well."""
    try:
        run(f"looking for {library}", "pkg-config", "--exists", library)
    except SandboxError:
        return False
    return True


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
        install(missing)


def install(packages: Sequence[str]) -> None:
    """Install Debian packages, after saying which.

    Raises:
        SandboxError: apt-get failed; says how.
    """
    sys.stderr.write(f"  installing Debian packages: {' '.join(packages)}\n")
    _apt("update", "-q")
    _apt("install", "-q", "-y", "--no-install-recommends", *packages)


def registry_program() -> Path:
    """Give the program of Debian's docker-registry, unpacked without starting its service."""
    folder = cache_folder() / "bin" / "docker-registry"
    if not folder.exists():
        with scratch(folder.parent, folder.name) as draft:
            if not folder.exists():
                _fetch_package(folder.name, draft)
                tree = draft / "tree"
                run("unpacking", "dpkg-deb", "-x", str(next(draft.glob("*.deb"))), str(tree))
                tree.rename(folder)
    return folder / "usr" / "bin" / "docker-registry"


def _fetch_package(name: str, folder: Path) -> None:
    command = ("apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", name)
    sys.stderr.write(f"  fetching the Debian package {name}, to run it without installing it\n")
    try:
        run(f"fetching {name}", *command, folder=folder)
    except SandboxError:
        _apt("update", "-q")
        run(f"fetching {name}", *command, folder=folder)


def _apt(*arguments: str) -> None:
    environment = {"DEBIAN_FRONTEND": "noninteractive"}
    run(f"apt-get {arguments[0]}", "apt-get", *arguments, environment=environment)
