"""Everything that a sandbox's name decides: addresses, folders, interfaces.

The control plane, the registry, MLflow and CoreDNS listen on `gateway`, in the machine's own
network. The node (containerd, kubelet, kube-proxy and the pods) lives in a network namespace behind
a veth pair, so that its bridge, routes and nftables can't meet those of the machine or of another
sandbox, and vanish with it.
"""

import fcntl
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SLOTS: Final = range(1, 251)
NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,19}")


class SandboxError(Exception):
    """Something that stops a sandbox, told for the person who started it."""


def cache_folder() -> Path:
    """Give the folder for what is built once and serves every checkout on this machine."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "modelops"


def state_folder() -> Path:
    """Give the folder that holds the state of every sandbox on this machine."""
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(home) / "modelops" / "sandbox"


@dataclass(frozen=True, slots=True)
class Places:
    """Where one sandbox lives."""

    name: str
    slot: int

    @property
    def state(self) -> Path:
        """The folder with all its files."""
        return state_folder() / self.name

    @property
    def namespace(self) -> str:
        """The network namespace of its node."""
        return f"modelops-{self.name}"

    @property
    def link(self) -> str:
        """The machine's end of the veth pair, at most 15 characters."""
        return f"modelops{self.slot}"

    @property
    def table(self) -> str:
        """The nftables table that lets its pods out."""
        return f"modelops_{self.slot}"

    @property
    def cgroup(self) -> str:
        """The control group of its pods."""
        return f"modelops-{self.name}"

    @property
    def gateway(self) -> str:
        """The machine's address towards the node: everything but the node listens here."""
        return f"10.200.{self.slot}.1"

    @property
    def node(self) -> str:
        """The node's address."""
        return f"10.200.{self.slot}.2"

    @property
    def link_network(self) -> str:
        """The network of the two addresses."""
        return f"10.200.{self.slot}.0/30"

    @property
    def pods(self) -> str:
        """The pods' network."""
        return f"10.201.{self.slot}.0/24"

    @property
    def services(self) -> str:
        """The services' network."""
        return f"10.202.{self.slot}.0/24"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.state / "kubeconfigs" / "admin.conf"

    @property
    def registry(self) -> str:
        """`host:port` of the OCI registry."""
        return f"{self.gateway}:5000"

    @property
    def tracking_uri(self) -> str:
        """The MLflow server."""
        return f"http://{self.gateway}:5001"


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file; a killed holder lets go of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def find(name: str) -> Places | None:
    """Find the places of a sandbox that was started before."""
    path = state_folder() / name / "slot"
    try:
        return Places(name, int(path.read_text()))
    except (FileNotFoundError, ValueError):
        return None


def claim(name: str) -> Places:
    """Give a sandbox its places: the ones it had, or a free slot.

    Raises:
        SandboxError: the name is not usable, or no slot is free.
    """
    if not NAME.fullmatch(name):
        raise SandboxError(
            f"NAME={name!r} is not a sandbox's name: use a lower-case letter, then up to 19 "
            "letters, digits or dashes"
        )
    with locked(state_folder() / "slots.lock"):
        known = find(name)
        if known:
            return known
        taken = {other.slot for other in all_places()} | _routed_slots()
        free = next((slot for slot in SLOTS if slot not in taken), None)
        if free is None:
            raise SandboxError(
                f"all {len(SLOTS)} address ranges 10.200.N.0/30 are in use on this machine: "
                "stop a sandbox with `make sandbox-down NAME=...`"
            )
        places = Places(name, free)
        places.state.mkdir(parents=True, exist_ok=True)
        (places.state / "slot").write_text(str(free))
        return places


def all_places() -> list[Places]:
    """List the sandboxes that this user has state of."""
    return [
        places
        for folder in sorted(state_folder().glob("*/slot"))
        if (places := find(folder.parent.name))
    ]


def _routed_slots() -> set[int]:
    """Find the slots whose addresses lead somewhere else already."""
    routes = subprocess.run(
        ["ip", "-4", "route", "show", "table", "all"], capture_output=True, text=True, check=True
    ).stdout
    return {int(slot) for slot in re.findall(r"\b10\.20[012]\.(\d{1,3})\.\d", routes)}
