"""Everything that a sandbox's name decides: addresses, folders, interfaces.

The control plane, the registry, MLflow and CoreDNS listen on `gateway`, in the machine's own
network. The node (containerd, kubelet, kube-proxy and the pods) lives in a network namespace behind
a veth pair, so that its interfaces, routes and nftables can't meet those of the machine or of
another sandbox, and vanish with it.
"""

import fcntl
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path
from typing import Final

SLOTS: Final = range(1, 251)
NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,19}")
RUN: Final = Path("/run")
MTU: Final = 1400
"""Bytes in a packet. Small enough for the way out through most tunnels and clouds."""


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
    def runtime(self) -> Path:
        """The folder with what doesn't outlive a reboot: sockets, mounts, process ids."""
        return RUN / f"modelops-{self.name}"

    @property
    def namespace(self) -> Path:
        """The network namespace of its node, for `nsenter --net=`."""
        return self.runtime / "netns"

    @property
    def socket(self) -> Path:
        """Where containerd listens."""
        return self.runtime / "containerd.sock"

    @property
    def leaving(self) -> Path:
        """Exists from the moment that the sandbox is being taken down."""
        return self.state / "leaving"

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
    def pki(self) -> Path:
        """The folder of keys and certificates."""
        return self.state / "certificates" / "pki"

    @property
    def kubeconfigs(self) -> Path:
        """The folder of kubeconfigs, one for each user of the API server."""
        return self.state / "certificates" / "kubeconfigs"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.kubeconfigs / "admin.conf"

    @property
    def registry(self) -> str:
        """`host:port` of the OCI registry."""
        return f"{self.gateway}:5000"

    @property
    def tracking_uri(self) -> str:
        """The MLflow server."""
        return f"http://{self.gateway}:5001"


def networks(slot: int) -> tuple[IPv4Network, ...]:
    """Give the address ranges of a slot."""
    places = Places("any", slot)
    ranges = places.link_network, places.pods, places.services
    return tuple(IPv4Network(text) for text in ranges)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file; a killed holder lets go of it, any holder may delete it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with path.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            # The holder before us may have deleted the file, and others lock its successor.
            if path.exists() and path.stat().st_ino == os.fstat(file.fileno()).st_ino:
                yield
                return


@contextmanager
def scratch(folder: Path, name: str) -> Iterator[Path]:
    """Give a new folder in `folder`, for one at a time, without what a killed maker left there."""
    with locked(folder / f"{name}.lock"):
        draft = folder / f"{name}.draft"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir()
        try:
            yield draft
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def check_name(name: str) -> None:
    """Raise SandboxError if the name is not usable."""
    if not NAME.fullmatch(name):
        raise SandboxError(
            f"NAME={name!r} is not a sandbox's name: use a lower-case letter, then up to 19 "
            "lower-case letters, digits or dashes"
        )


def lock_of(name: str) -> Path:
    """Give the file that is locked by whoever changes a sandbox.

    Raises:
        SandboxError: the name is not usable.
    """
    check_name(name)
    return state_folder() / f"{name}.lock"


def find(name: str) -> Places | None:
    """Find the places of a sandbox that was started before."""
    try:
        return Places(name, int((state_folder() / name / "slot").read_text()))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None


def claim(name: str) -> Places:
    """Give a sandbox its places: the ones it had, or a free slot.

    Raises:
        SandboxError: the name is not usable, or no slot is free.
    """
    check_name(name)
    with locked(state_folder() / "slots.lock"):
        known = find(name)
        if known:
            return known
        free = free_slot({other.slot for other in all_places()}, _routes())
        if free is None:
            raise SandboxError(
                f"all {len(SLOTS)} address ranges 10.200.N.0/30 are in use on this machine: "
                "stop a sandbox with `make sandbox-down NAME=...`"
            )
        places = Places(name, free)
        shutil.rmtree(places.state, ignore_errors=True)
        places.state.mkdir(parents=True)
        (places.state / "slot").write_text(str(free))
        return places


def free_slot(taken: Iterable[int], routes: Iterable[IPv4Network]) -> int | None:
    """Choose the first slot that nobody has and whose addresses lead nowhere else."""
    used, others = set(taken), tuple(routes)
    for slot in SLOTS:
        mine = networks(slot)
        if slot not in used and not any(a.overlaps(b) for a in mine for b in others):
            return slot
    return None


def all_places() -> list[Places]:
    """List the sandboxes that this user has state of."""
    return [
        places
        for folder in sorted(state_folder().glob("*/slot"))
        if (places := find(folder.parent.name))
    ]


def _routes() -> list[IPv4Network]:
    """List where this machine knows a way to, except for the default route."""
    command = ["ip", "-4", "-json", "route", "show", "table", "all"]
    answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    targets = (route["dst"] for route in json.loads(answer or "[]"))
    return [IPv4Network(target, strict=False) for target in targets if target != "default"]
