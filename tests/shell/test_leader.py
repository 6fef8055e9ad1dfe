"""Leader election by a Lease of a real API server, with a clock that can be set forward."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from modelops_operator.adapters.kubernetes import CHILDREN, LEASES, ApiError, Cluster
from modelops_operator.shell import leader
from modelops_operator.shell.leader import (
    LEASE_SECONDS,
    RENEWAL_DEADLINE,
    WATCH_INTERVAL,
    Always,
    Leader,
    NotLeadingError,
    fenced,
)

pytestmark = pytest.mark.contract


class Clock:
    """Stands in for `time` in the module: it goes as usual, and jumps when told."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(leader, "time", clock)
    return clock


Main = Callable[[Cluster], Awaitable[None]]


@pytest.fixture
def connected(system: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Main], None]:
    monkeypatch.setenv("KUBECONFIG", str(system))

    async def run(main: Main) -> None:
        cluster = await Cluster.connect()
        try:
            await main(cluster)
        finally:
            await cluster.close()

    return lambda main: asyncio.run(run(main))


def replica(cluster: Cluster, lease: str, name: str) -> Leader:
    return Leader(cluster, namespace="modelops-system", lease=lease, identity=name)


async def holder(cluster: Cluster, lease: str) -> tuple[str, int]:
    live = await cluster.get(LEASES, "modelops-system", lease)
    assert live is not None
    return live["spec"]["holderIdentity"], live["spec"]["leaseTransitions"]


def test_one_of_two_leads_until_it_falls_silent(
    connected: Callable[[Main], None], clock: Clock
) -> None:
    async def main(cluster: Cluster) -> None:
        first, second = replica(cluster, "one", "first"), replica(cluster, "one", "second")
        assert await first._attempt()
        assert not await second._attempt()
        assert await first._attempt()  # renews
        assert not await second._attempt()  # sees the renewal
        clock.ahead += LEASE_SECONDS - 1
        assert not await second._attempt()
        clock.ahead += 1.5
        assert await second._attempt()
        assert not await first._attempt()
        assert await holder(cluster, "one") == ("second", 1)

    connected(main)


def test_who_leads_renews_without_reading(
    connected: Callable[[Main], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main(cluster: Cluster) -> None:
        reads: list[str] = []
        get = cluster.get

        async def counted(*place: Any) -> Any:
            reads.append(place[-1])
            return await get(*place)

        monkeypatch.setattr(cluster, "get", counted)
        first = replica(cluster, "unread", "first")
        for _ in range(3):
            assert await first._attempt()
        assert len(reads) == 1
        # Somebody else writes to it, which is no reason to give up.
        live = await get(LEASES, "modelops-system", "unread")
        assert live is not None
        await cluster.replace(
            LEASES, {**live, "metadata": {**live["metadata"], "labels": {"a": "b"}}}
        )
        assert await first._attempt()
        assert len(reads) == 2
        assert await holder(cluster, "unread") == ("first", 0)

    connected(main)


def test_of_two_that_find_it_free_one_gets_it(connected: Callable[[Main], None]) -> None:
    async def main(cluster: Cluster) -> None:
        replicas = [replica(cluster, "race", f"r{number}") for number in range(5)]
        took = await asyncio.gather(*(each._attempt() for each in replicas))
        assert sum(took) == 1

    connected(main)


def test_who_was_paused_for_longer_than_the_deadline_does_not_lead(
    connected: Callable[[Main], None], clock: Clock
) -> None:
    async def main(cluster: Cluster) -> None:
        replicated = replica(cluster, "paused", "first")
        running = asyncio.create_task(replicated.run())
        await asyncio.wait_for(replicated.wait(), 5)
        assert replicated.leading
        clock.ahead += RENEWAL_DEADLINE
        assert not replicated.leading
        await asyncio.wait_for(replicated.wait(), 5)  # it renews: nobody else took it
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    connected(main)


def test_who_ends_lets_go(connected: Callable[[Main], None]) -> None:
    async def main(cluster: Cluster) -> None:
        first, second = replica(cluster, "handed", "first"), replica(cluster, "handed", "second")
        running = asyncio.create_task(first.run())
        await asyncio.wait_for(first.wait(), 5)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert not first.leading
        assert (await holder(cluster, "handed"))[0] == ""
        assert await second._attempt()
        assert await holder(cluster, "handed") == ("second", 1)

    connected(main)


def test_a_server_that_is_down_ends_the_lead(
    connected: Callable[[Main], None], clock: Clock
) -> None:
    async def main(cluster: Cluster) -> None:
        replicated = replica(cluster, "down", "first")
        assert await replicated._attempt()
        host = cluster.client.configuration.host
        cluster.client.configuration.host = "https://127.0.0.1:1"
        assert not await replicated._attempt()
        clock.ahead += RENEWAL_DEADLINE
        assert not replicated.leading
        cluster.client.configuration.host = host
        assert await replicated._attempt()

    connected(main)


def test_a_lease_that_is_taken_away_by_force_ends_the_lead_at_once(
    connected: Callable[[Main], None],
) -> None:
    async def main(cluster: Cluster) -> None:
        first, second = replica(cluster, "taken", "first"), replica(cluster, "taken", "second")
        running = asyncio.create_task(first.run())
        await asyncio.wait_for(first.wait(), 5)
        live = await cluster.get(LEASES, "modelops-system", "taken")
        assert live is not None
        await cluster.delete(LEASES, live)
        assert await second._attempt()
        assert not await first._attempt()
        assert not first.leading
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert (await holder(cluster, "taken"))[0] == "second"

    connected(main)


def test_who_watches_takes_over_soon_after_the_end_of_the_lease(
    connected: Callable[[Main], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leader, "LEASE_SECONDS", 2)

    async def main(cluster: Cluster) -> None:
        killed, second = replica(cluster, "killed", "first"), replica(cluster, "killed", "second")
        assert await killed._attempt()
        running = asyncio.create_task(second.run())
        started = time.monotonic()
        await asyncio.wait_for(second.wait(), 60)
        assert time.monotonic() - started > 2
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    connected(main)
    # What a kill and a clean stop cost at most, but for the API server's own time.
    assert LEASE_SECONDS + 2 * WATCH_INTERVAL < 15
    assert 2 * WATCH_INTERVAL < 3


# --- writes --------------------------------------------------------------------------------


@dataclass
class Holding:
    """Leads for a while."""

    until: float

    @property
    def remaining(self) -> float:
        return self.until - time.monotonic()

    @property
    def leading(self) -> bool:
        return self.remaining > 0

    async def wait(self) -> None:
        raise AssertionError

    async def run(self) -> None:
        raise AssertionError


def test_who_does_not_lead_sends_nothing() -> None:
    async def write() -> None:
        raise AssertionError

    with pytest.raises(NotLeadingError):
        asyncio.run(fenced(Holding(time.monotonic() - 1), write))


def test_a_write_goes_on_as_long_as_the_lease_is_renewed() -> None:
    async def main() -> None:
        holding = Holding(time.monotonic() + 0.5)

        async def write() -> str:
            for _ in range(4):
                await asyncio.sleep(0.2)
                holding.until = time.monotonic() + 0.5
            return "written"

        assert await fenced(holding, write) == "written"
        with pytest.raises(NotLeadingError):
            await fenced(holding, lambda: asyncio.sleep(60))

    asyncio.run(main())


def test_what_fails_while_we_lead_fails_as_it_does() -> None:
    async def write() -> None:
        raise ApiError(0, "the API server does not answer")

    with pytest.raises(ApiError, match="does not answer"):
        asyncio.run(fenced(Holding(time.monotonic() + 60), write))


def test_who_is_paused_while_it_writes_sends_nothing_when_it_goes_on(
    connected: Callable[[Main], None],
) -> None:
    """A process that is stopped and one whose event loop is blocked see the same."""
    manifest = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": "from-the-past", "namespace": "modelops-system"},
    }
    accounts = CHILDREN["ServiceAccount"]

    async def main(cluster: Cluster) -> None:
        def write() -> Awaitable[object]:
            asyncio.get_running_loop().call_soon(time.sleep, 1.0)
            return cluster.apply(accounts, manifest)

        with pytest.raises(NotLeadingError):
            await fenced(Holding(time.monotonic() + 0.5), write)
        await asyncio.sleep(0.5)
        assert await cluster.get(accounts, "modelops-system", "from-the-past") is None
        await fenced(Always(), lambda: cluster.apply(accounts, manifest))
        live = await cluster.get(accounts, "modelops-system", "from-the-past")
        assert live is not None
        await cluster.delete(accounts, live)

    connected(main)


def test_without_an_election_there_is_nothing_to_wait_for() -> None:
    async def main() -> None:
        await asyncio.wait_for(Always().wait(), 1)
        assert Always().leading

    asyncio.run(main())
