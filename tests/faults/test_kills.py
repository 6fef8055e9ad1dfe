"""R1: killed before and after every write, the operator comes to the same end.

And on the way: R8, nothing is written once all is as it should be; R9, what a change costs.
"""

import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.faults.nursery import Nursery, Operator
from tests.faults.proxy import Call, Fault, Proxy
from tests.faults.world import LONG, World, eventually, kubeconfig
from tests.shell.operating import configuration

pytestmark = pytest.mark.contract

MODEL = "faults-kills"
SETTLED = 1.0
"""Seconds without a write after which all is done: more than the second look after a write."""
QUIET = 60.0 if LONG else 3.0
FEWEST_WRITES = 5 + 1 + 2
"""Five children, a ModelImage, and the status at the beginning and at the end."""
MOST_STATUSES = 5
"""Asked for, built, rolled out, being seen, ready."""
MOST_STATUSES_OF_AN_EDIT = 3
MOST_EVENTS = 4
CHILDREN = (
    *("services", "serviceaccounts", "deployments"),
    *("networkpolicies", "poddisruptionbudgets", "modelimages"),
)


class Story:
    """One ModelDeployment from its beginning to Ready, by operators that may be killed."""

    def __init__(
        self, world: World, proxy: Proxy, nursery: Nursery, config: Mapping[str, Any], folder: Path
    ) -> None:
        self.world = world
        self.proxy = proxy
        self.config = config
        self.nursery = nursery
        self.kubeconfig = kubeconfig(folder / "kubeconfig", proxy.address)

    def start(self) -> Operator:
        operator = self.nursery.start(self.config, self.kubeconfig)
        operator.wait_until_ready()
        return operator

    def settle(self) -> None:
        """Wait until nothing is written any more."""
        before = -1
        while before != (before := len(self.proxy.written)):
            time.sleep(SETTLED)

    def told(self, name: str, killed_at: int = 0, *, after: bool = False) -> tuple[Any, bool]:
        """Go through it; give the end, and whether an operator was killed on the way."""
        self.proxy.reset()
        first = self.start()

        def rule(call: Call) -> Fault | None:
            if not call.number or call.number != killed_at or first.killed:
                return None
            return Fault(forwarded=after, meanwhile=first.kill)

        self.proxy.rule = rule
        self.world.create(name, MODEL)
        eventually(lambda: first.killed or self.world.is_ready(name))
        killed = first.killed
        last = self.start() if killed else first
        self.world.wait_until_ready(name)
        self.settle()
        last.kill()
        end = self.world.state(name)
        self.world.remove(name)
        return end, killed


@pytest.fixture(scope="module")
def story(
    world: World,
    proxy: Proxy,
    nursery: Nursery,
    tracking_uri: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Story:
    world.register(MODEL)
    config = configuration(tracking_uri, leaderElection={"enabled": False})
    return Story(world, proxy, nursery, config, tmp_path_factory.mktemp("kills"))


@pytest.fixture(scope="module")
def undisturbed(story: Story) -> Any:
    end, killed = story.told("undisturbed")
    assert not killed
    return end


@pytest.mark.parametrize("side", ["before", "after"])
def test_killed_at_any_write_it_comes_to_the_same_end(
    story: Story, undisturbed: Any, side: str
) -> None:
    """Every write is one that it is killed at; the shorter form takes turns with the sides."""
    after, number = side == "after", 0
    killed = True
    while killed:
        number += 1
        if not LONG and number % 2 == after:
            continue
        end, killed = story.told(f"{side}-{number}", number, after=after)
        assert end == undisturbed, f"killed {side} write {number}"
    assert number > FEWEST_WRITES


def test_once_all_is_as_it_should_be_nothing_is_written(story: Story, proxy: Proxy) -> None:
    """R8."""
    proxy.reset()
    operator = story.start()
    story.world.create("quiet", MODEL)
    story.world.wait_until_ready("quiet")
    story.settle()
    before = list(proxy.written)
    time.sleep(QUIET)
    assert proxy.written == before
    operator.kill()
    again = story.start()
    time.sleep(QUIET)
    assert proxy.written == before  # a new process finds nothing to do either
    again.kill()
    story.world.remove("quiet")


def test_a_change_costs_few_writes(story: Story, proxy: Proxy) -> None:
    """R9: what is written to whom, by the first rollout and by edits."""
    proxy.reset()
    operator = story.start()
    world = story.world
    world.create("budget", MODEL)
    world.wait_until_ready("budget")
    story.settle()
    found = counted(proxy)
    assert found.pop("modeldeployments/status") <= MOST_STATUSES
    assert found.pop("events") <= MOST_EVENTS
    assert found == dict.fromkeys(CHILDREN, 1)
    for spec, children in (
        ({"serving": {"replicas": 3}}, {"deployments": 1}),
        ({"serving": {"podLabels": {"team": "census"}}}, {"deployments": 1}),
        ({"monitoring": {"drift": {"alert": "0.3"}}}, {}),
    ):
        proxy.reset()
        world.edit("budget", **spec)
        world.wait_until_ready("budget")
        story.settle()
        found = counted(proxy)
        assert found.pop("modeldeployments/status") <= MOST_STATUSES_OF_AN_EDIT
        found.pop("events", None)
        assert found == children, spec
    operator.kill()
    world.remove("budget")


def counted(proxy: Proxy) -> dict[str, int]:
    """Count the writes by what was written."""
    found: Counter[str] = Counter()
    for call in proxy.written:
        place = call.path.partition("?")[0].split("/namespaces/")[1].split("/")[1:]
        found["/".join([place[0], *place[2:]])] += 1
    return dict(found)
