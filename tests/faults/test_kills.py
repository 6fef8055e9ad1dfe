"""R1: killed before and after every write, the operator comes to the same end.

And on the way: R8, nothing is written once all is as it should be; R9, what a change costs; R15, an
upgrade of the operator restarts no pod.
"""

import time
from collections.abc import Iterator

import pytest

from tests.faults.stories import NAME, Stories, Story, assert_same, counted, settle
from tests.faults.world import LONG, eventually

pytestmark = pytest.mark.contract

QUIET = 60.0 if LONG else 3.0
FEWEST_WRITES = 5 + 1 + 2
"""Five children, a ModelImage, and the status at the beginning and at the end."""
MOST_STATUSES = 4
"""Asked for, built, rolled out, ready."""
MOST_STATUSES_OF_AN_EDIT = 2
MOST_EVENTS = 4
CHILDREN = (
    *("services", "serviceaccounts", "deployments"),
    *("networkpolicies", "poddisruptionbudgets", "modelimages"),
)


@pytest.fixture(scope="module")
def undisturbed(stories: Stories) -> Iterator[Story]:
    """One whose operator goes on running."""
    story = stories.new()
    story.begin()
    story.world.wait_until_ready(NAME)
    settle(story)
    yield story
    story.end()


def test_killed_at_any_write_it_comes_to_the_same_end(stories: Stories, undisturbed: Story) -> None:
    """Every write is one that it is killed at; the shorter form takes turns with the sides."""
    expected, writes = undisturbed.world.state(NAME), len(undisturbed.proxy.written)
    assert writes >= FEWEST_WRITES
    killed = {
        (number, after): stories.new()
        for number in range(1, writes + 1)
        for after in (False, True)
        if LONG or number % 2 == after
    }
    for (number, after), story in killed.items():
        story.begin(number, after=after)
    for story in killed.values():
        story.world.wait_until_ready(NAME, 120)
    settle(*killed.values())
    for (number, after), story in killed.items():
        side = "after" if after else "before"
        assert_same(story.end(), expected, f"killed {side} write {number}")
        # What comes together is written together: not each has all writes of the undisturbed one.
        assert len(story.operators) == 2 or number > FEWEST_WRITES, f"there was no write {number}"


def test_once_all_is_as_it_should_be_nothing_is_written(undisturbed: Story) -> None:
    """R8, of the operator that did it and of a new one that finds it so."""
    before = list(undisturbed.proxy.written)
    time.sleep(QUIET)
    assert undisturbed.proxy.written == before
    undisturbed.operators[-1].kill()
    undisturbed.start().wait_until_ready()
    time.sleep(QUIET)
    assert undisturbed.proxy.written == before


def test_an_upgrade_restarts_no_pod_until_it_is_asked_to(undisturbed: Story) -> None:
    """R15: the new operator has another serving runtime, of which only the status tells."""
    world = undisturbed.world
    undisturbed.operators[-1].kill()
    undisturbed.proxy.reset()
    undisturbed.start(runtime={"version": "9.9.9"}).wait_until_ready()
    world.wait_for(NAME, "UpdateAvailable", "UpdateWaiting")
    settle(undisturbed)
    assert counted(undisturbed.proxy).keys() <= {"modeldeployments/status", "events"}
    assert world.is_ready(NAME)
    undisturbed.operators[-1].kill()
    undisturbed.start().wait_until_ready()
    eventually(lambda: "UpdateAvailable" not in world.conditions(NAME))
    settle(undisturbed)
    assert "deployments" not in counted(undisturbed.proxy)


def test_a_change_costs_few_writes(stories: Stories) -> None:
    """R9: what is written to whom, by the first rollout and by edits."""
    story = stories.new()
    world, proxy = story.world, story.proxy
    story.begin()
    world.wait_until_ready(NAME)
    settle(story)
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
        world.edit(NAME, **spec)
        world.wait_until_ready(NAME)
        settle(story)
        found = counted(proxy)
        assert found.pop("modeldeployments/status") <= MOST_STATUSES_OF_AN_EDIT
        found.pop("events", None)
        assert found == children, spec
    story.end()
