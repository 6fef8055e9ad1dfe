"""Starting, repairing and removing sandboxes, whatever happened to them before."""

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from sandbox import cgroups, network, places, processes
from tests.sandbox.conftest import Sandbox

pytestmark = pytest.mark.e2e


def where(sandbox: Sandbox) -> places.Places:
    found = places.find(sandbox.name)
    assert found
    return found


def remains(sandbox: places.Places) -> list[str]:
    """List every line of the machine's tables that names something of a sandbox."""
    listings = {
        "mount": ["cat", "/proc/self/mounts"],
        "link": ["ip", "-o", "link"],
        "route": ["ip", "route", "show", "table", "all"],
        "nftables": ["nft", "list", "ruleset"],
        "cgroup": ["find", "/sys/fs/cgroup", "-maxdepth", "2", "-type", "d"],
        "file": ["find", "/run", str(places.state_folder()), "-maxdepth", "2"],
        "log": ["find", "/var/log/containers", "-printf", "%l\\n"],
    }
    marks = (
        f"{sandbox.state}/",
        f"{sandbox.runtime}/",
        f" {sandbox.link}@",
        f"{sandbox.table} ",
        f"10.200.{sandbox.slot}.",
        f"10.201.{sandbox.slot}.",
        f"10.202.{sandbox.slot}.",
        f"/{sandbox.cgroup}",
    )
    found = [f"process {pid}" for pid in processes.marked(sandbox) | cgroups.members(sandbox)]
    for kind, command in listings.items():
        output = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        lines = (line for line in output.splitlines() if any(mark in line for mark in marks))
        found += [f"{kind} {line}" for line in lines]
    return found


def members_of_network(inode: int) -> list[str]:
    """List the processes that live in a network namespace."""
    found = []
    for link in Path("/proc").glob("[0-9]*/ns/net"):
        try:
            if link.stat().st_ino == inode:
                found.append(link.parts[2])
        except OSError:
            continue
    return found


def well(sandbox: Sandbox) -> set[str]:
    """Name the parts that are well."""
    return {part for part, health in sandbox.run("status")["health"].items() if health == "ok"}


def test_two_run_side_by_side(one: Sandbox, two: Sandbox) -> None:
    first, second = (sandbox.run("status") for sandbox in (one, two))
    assert second["state"] == "running"
    assert well(two) == second["health"].keys()
    # The end-to-end tests stop MLflow for a moment.
    assert well(one) | {"mlflow"} == first["health"].keys()
    assert first["registry"]["host"] != second["registry"]["host"]
    for sandbox, status in ((one, first), (two, second)):
        node = sandbox.kubectl("get", "nodes", "--output=jsonpath={.items[*].status.addresses}")
        assert status["addresses"]["node"] in node


def test_up_does_nothing_where_all_is_well(two: Sandbox) -> None:
    before = sorted(processes.marked(where(two)))
    assert two.run("up")["state"] == "running"
    assert sorted(processes.marked(where(two))) == before


@pytest.mark.parametrize("part", ["etcd", "kube-apiserver", "containerd", "mlflow", "coredns"])
def test_up_repairs_a_part_that_died(two: Sandbox, part: str) -> None:
    pid = processes.running(where(two), part)
    assert pid
    os.kill(pid, signal.SIGKILL)
    while processes.running(where(two), part):
        time.sleep(0.01)
    assert two.run("status")["state"] == "degraded"
    assert two.run("up")["state"] == "running"


def test_up_repairs_a_lost_network(two: Sandbox) -> None:
    network.down(where(two))
    repaired = two.run("up")
    assert repaired["state"] == "running", repaired["health"]


def test_a_killed_start_and_a_killed_stop_are_mended(two: Sandbox) -> None:
    for word, seconds in (("down", 0.4), ("up", 1.0), ("down", 0.5), ("up", 3.0)):
        process = two.start(word)
        time.sleep(seconds)
        process.kill()
        process.communicate()
    assert two.run("up")["state"] == "running"


def test_down_leaves_nothing_behind(two: Sandbox, one: Sandbox) -> None:
    two.kubectl(
        "run", "sleeper", f"--image={two.run('status')['baseImages']['3.11']}", "--restart=Never",
        "--command", "--", "python3", "-c", "import time; time.sleep(1000)",
    )  # fmt: skip
    two.kubectl("wait", "--for=condition=Ready", "pod/sleeper", "--timeout=60s")
    sandbox = where(two)
    inode = sandbox.namespace.stat().st_ino
    assert remains(sandbox)
    assert members_of_network(inode)
    two.run("down")
    assert remains(sandbox) == []
    assert members_of_network(inode) == []
    assert two.run("status") == {"name": two.name, "state": "stopped"}
    assert {"kube-apiserver", "kubelet"} <= well(one)
    two.run("down")


def test_a_part_that_cannot_start_is_named_with_its_last_words(two: Sandbox) -> None:
    two.run("down")
    sandbox = places.claim(two.name)
    sandbox.runtime.mkdir()
    network.up(sandbox)
    with socket.create_server((sandbox.gateway, 5000)):
        process = two.start("up")
        said, _ = process.communicate()
    two.run("down")
    assert process.returncode == 1
    assert "registry ended" in said
    assert "address already in use" in said
    assert f"make sandbox-down NAME={two.name}" in said
