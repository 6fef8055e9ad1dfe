"""What a sandbox's name decides, and whom a sandbox may end."""

import os
import subprocess
import sys
import threading
import time
from ipaddress import IPv4Network
from itertools import pairwise
from pathlib import Path

import pytest

from sandbox import debian, places, processes

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(places, "RUN", tmp_path / "run")
    return tmp_path / "state"


def test_a_name_keeps_its_slot_and_two_names_never_share_one() -> None:
    one, two = places.claim("one"), places.claim("two")
    assert one.slot != two.slot
    assert places.claim("one") == one == places.find("one")
    assert {one.gateway, one.node} & {two.gateway, two.node} == set()
    assert len(one.link) <= 15


def test_a_slot_whose_addresses_lead_elsewhere_is_left_alone() -> None:
    vpn, lan = IPv4Network("10.201.2.128/25"), IPv4Network("10.202.4.0/22")
    assert places.free_slot({1}, [vpn, lan]) == 3
    assert places.free_slot({1, 3}, [vpn, lan]) == 8
    assert places.free_slot({1}, [IPv4Network("10.0.0.0/8")]) is None


def test_slots_do_not_overlap() -> None:
    networks = [network for slot in places.SLOTS for network in places.networks(slot)]
    assert len(networks) == 3 * len(places.SLOTS)
    ordered = sorted(networks)
    assert not any(a.overlaps(b) for a, b in pairwise(ordered))


def test_a_folder_without_a_slot_is_what_a_removal_left(state: Path) -> None:
    left = state / "modelops" / "sandbox" / "one" / "log" / "etcd.log"
    left.parent.mkdir(parents=True)
    left.touch()
    assert places.claim("one").slot
    assert not left.exists()


def test_a_lock_that_its_holder_deletes_still_locks(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    entered = threading.Event()

    def wait_for_it() -> None:
        with places.locked(path):
            entered.set()

    with places.locked(path):
        waiting = threading.Thread(target=wait_for_it)
        waiting.start()
        assert not entered.wait(0.1)
        path.unlink()
        with places.locked(path):  # the successor
            pass
    waiting.join(5)
    assert entered.is_set()
    assert path.exists()


@pytest.mark.parametrize("name", ["", "Demo", "1st", "a/b", "x" * 21, "under_score"])
def test_an_unusable_name_is_refused_with_a_way_out(name: str) -> None:
    with pytest.raises(places.SandboxError, match="use a lower-case letter"):
        places.claim(name)


def test_a_damaged_slot_file_counts_as_none(state: Path) -> None:
    path = state / "modelops" / "sandbox" / "one" / "slot"
    path.parent.mkdir(parents=True)
    path.write_text("")
    assert places.find("one") is None


def test_a_reused_process_id_is_not_taken_for_ours() -> None:
    sandbox = places.claim("one")
    pid = processes.start(sandbox, "sleeper", ["sleep", "60"], dict(os.environ))
    try:
        assert processes.running(sandbox, "sleeper") == pid
        (sandbox.runtime / "pids" / "sleeper").write_text(f"{pid} 1")
        assert processes.running(sandbox, "sleeper") is None
        # What a process has just become shows its environment a moment later.
        deadline = time.monotonic() + 30
        while pid not in processes.marked(sandbox):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert pid not in processes.marked(places.claim("two"))
    finally:
        processes.end([pid])
    assert processes.start_time(pid) is None


def test_what_died_at_once_does_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox = places.claim("one")
    with monkeypatch.context() as late:
        late.setattr(processes, "start_time", lambda _: None)  # read after it was gone
        pid = processes.start(sandbox, "short", ["true"], dict(os.environ))
    processes.end([pid], patience=5)
    assert processes.running(sandbox, "short") is None


def test_a_process_that_ignores_the_wish_is_killed() -> None:
    program = "import signal, time; signal.signal(15, signal.SIG_IGN); print(1); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-uc", program], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    processes.end([process.pid], patience=0.2)
    process.stdout.close()
    process.wait()
    assert processes.start_time(process.pid) is None


def test_everything_that_is_in_the_way_is_said_at_once() -> None:
    told = debian.obstacles(uid=1000, machine="aarch64", apt=False, missing=["nftables"])
    text = "\n".join(told)
    assert all(word in text for word in ("aarch64", "root", "nftables", "apt-get"))
    assert debian.obstacles(uid=0, machine="x86_64", apt=True, missing=["nftables"]) == []
