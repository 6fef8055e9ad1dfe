"""Stories: one ModelDeployment from its beginning to its end, each beside the others.

Each has a namespace, a proxy and operators of its own, so that many go on at the same time and what
is written can be counted.
"""

import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelops_operator.core.differences import changed_paths

from tests.faults.proxy import Call, Fault, Proxy
from tests.faults.world import World, kubeconfig, proxied
from tests.nursery import Nursery, Operator
from tests.shell.operating import configuration

MODEL = "faults-stories"
NAME = "the-one"
SETTLED = 1.0
"""Seconds without a write after which all is done: more than the second look after a write."""


@dataclass
class Story:
    """One ModelDeployment from its beginning to Ready, by an operator that may be killed."""

    world: World
    proxy: Proxy
    nursery: Nursery
    kubeconfig: Path
    tracking_uri: str
    operators: list[Operator] = field(default_factory=list)

    def start(self, **config: Any) -> Operator:
        """Start an operator for this namespace; it is not ready yet."""
        settings = {**configuration(self.tracking_uri), "operator": self.world.operator(), **config}
        settings["operator"]["sweepInterval"] = "3s"
        self.operators.append(self.nursery.start(settings, self.kubeconfig))
        return self.operators[-1]

    def begin(self, killed_at: int = 0, *, after: bool = False) -> None:
        """Create the object; the operator is killed at a write, and another one started."""
        first = self.start()

        def kill() -> None:
            first.kill()
            self.start()

        def rule(call: Call) -> Fault | None:
            if not call.number or call.number != killed_at or first.killed:
                return None
            return Fault(forwarded=after, meanwhile=kill)

        self.proxy.rule = rule
        first.wait_until_ready()
        self.world.create(NAME, MODEL)

    def end(self) -> Any:
        """Give how it is in the end, and end the operators."""
        end = self.world.state(NAME)
        for operator in self.operators:
            operator.kill()
        return end


@dataclass
class Stories:
    """Where they come from."""

    world: World
    apiserver: Path
    nursery: Nursery
    tracking_uri: str
    folder: Path
    stack: ExitStack

    def new(self) -> Story:
        """Give one with a namespace and a proxy of its own."""
        proxy, world = self.stack.enter_context(proxied(self.apiserver)), self.world.elsewhere()
        place = kubeconfig(self.folder / world.namespace, proxy.address)
        return Story(world, proxy, self.nursery, place, self.tracking_uri)


def assert_same(end: Any, expected: Any, told: str = "") -> None:
    """Hold two ends against each other, and name what differs."""
    paths = changed_paths(expected, end)
    assert not paths, f"{told}: {paths}\n{end['status']}\n{expected['status']}"


def settle(*stories: Story) -> None:
    """Wait until nothing is written any more."""
    before = -1
    while before != (before := sum(len(story.proxy.written) for story in stories)):
        time.sleep(SETTLED)


def counted(proxy: Proxy) -> dict[str, int]:
    """Count the writes by what was written."""
    found: Counter[str] = Counter()
    for call in proxy.written:
        place = call.path.partition("?")[0].split("/namespaces/")[1].split("/")[1:]
        found["/".join([place[0], *place[2:]])] += 1
    return dict(found)
