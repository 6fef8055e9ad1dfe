"""R10: of two operators never both write, whatever happens to the one that leads."""

import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from modelops_operator.shell.leader import LEASE_SECONDS

from tests.faults.proxy import Call, Fault, Proxy
from tests.faults.world import World, eventually, kubeconfig, proxied
from tests.nursery import Nursery, Operator
from tests.shell.operating import configuration

pytestmark = pytest.mark.contract

MODEL = "faults-leaders"


@dataclass
class Replica:
    """One of the two, with a proxy of its own that notes when it writes."""

    operator: Operator
    proxy: Proxy
    moments: list[float] = field(default_factory=list)

    def note(self, call: Call) -> Fault | None:
        """Let it through, and remember when it was."""
        if call.number:
            self.moments.append(time.monotonic())
        return None


@pytest.fixture
def pair(
    apiserver: Path, world: World, nursery: Nursery, tracking_uri: str, tmp_path: Path
) -> Iterator[tuple[Replica, Replica]]:
    world.register(MODEL)
    own = {"leaderElection": {"leaseName": "faults"}, "namespaces": [world.namespace]}
    config = configuration(tracking_uri, **own)
    with ExitStack() as stack:
        replicas = []
        for number in range(2):
            proxy = stack.enter_context(proxied(apiserver))
            place = kubeconfig(tmp_path / f"kubeconfig-{number}", proxy.address)
            replicas.append(Replica(nursery.start(config, place), proxy))
        for replica in replicas:
            stack.callback(replica.operator.kill)
            replica.operator.wait_until_ready()
            replica.proxy.rule = replica.note
        first, second = replicas
        yield first, second


def leader_first(world: World, pair: tuple[Replica, Replica]) -> tuple[Replica, Replica]:
    """Find out which of the two acts."""
    world.create("who", MODEL)
    world.wait_until_ready("who")
    world.remove("who")
    leads, follows = sorted(pair, key=lambda replica: -len(replica.moments))
    assert not follows.moments
    return leads, follows


def test_a_leader_that_is_paused_at_a_write_writes_nothing_when_it_goes_on(
    world: World, pair: tuple[Replica, Replica]
) -> None:
    leads, follows = leader_first(world, pair)
    paused = 0.0

    def pause(call: Call) -> Fault | None:
        nonlocal paused
        leads.note(call)
        if call.number != third or paused:
            return None
        leads.operator.signal(signal.SIGSTOP)
        paused = time.monotonic()
        return Fault()

    third = len(leads.proxy.written) + 3
    leads.proxy.rule = pause
    world.create("paused", MODEL)
    world.wait_until_ready("paused")
    assert paused < follows.moments[0] < paused + LEASE_SECONDS + 5 + MARGIN
    before = list(leads.moments)
    leads.operator.signal(signal.SIGCONT)
    world.edit("paused", serving={"replicas": 2})
    world.wait_until_ready("paused")
    time.sleep(3)
    assert leads.moments == before
    # It stands by again: when the other one ends, it acts.
    follows.operator.signal(signal.SIGTERM)
    ended = time.monotonic()
    world.edit("paused", serving={"replicas": 3})
    eventually(lambda: len(leads.moments) > len(before))
    assert leads.moments[len(before)] < ended + 3.0 + MARGIN
    follows.operator.killed = True
    world.wait_until_ready("paused")
    world.remove("paused")


MARGIN = 5.0
"""Seconds that a busy machine may take to end a process; a lease not let go lasts longer."""
