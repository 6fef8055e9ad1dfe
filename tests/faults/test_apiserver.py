"""R2, R3, R17: an API server that is slow, stale, cuts watches, loses events, and goes away."""

import time

import pytest

from tests.apiserver import ApiServer
from tests.faults.proxy import Call, Fault
from tests.faults.stories import NAME, Stories, Story, assert_same, settle
from tests.faults.world import KINDS, LONG, eventually

pytestmark = pytest.mark.contract

EVERY = 1 if LONG else 5
"""Every which event is lost in a story of its own."""
AWAY = 3.0
"""Seconds without an API server."""
PATIENCE = 120.0


def gone(call: Call) -> Fault | None:
    """Tell whoever wants to watch that what it has seen is too old to go on from."""
    return Fault(status=410, body=b"too old") if "watch=" in call.path else None


@pytest.fixture(scope="module")
def undisturbed(stories: Stories) -> tuple[object, int]:
    """Give how a story ends, and how many events were heard on the way."""
    story = stories.new()
    heard = lose(story, -1)
    story.begin()
    story.world.wait_until_ready(NAME)
    settle(story)
    return story.end(), len(heard)


def test_whichever_event_is_lost_it_comes_to_the_same_end(
    stories: Stories, undisturbed: tuple[object, int]
) -> None:
    """R3."""
    expected, count = undisturbed
    lost = {number: stories.new() for number in range(0, count, EVERY)}
    for number, story in lost.items():
        lose(story, number)
        story.begin()
    for story in lost.values():
        story.world.wait_until_ready(NAME, PATIENCE)
    settle(*lost.values())
    for number, story in lost.items():
        assert_same(story.end(), expected, f"lost event {number}")


def lose(story: Story, number: int) -> list[object]:
    """Keep one event of all watches from being heard; give all, as they come."""
    events: list[object] = []

    def hears(event: object) -> bool:
        events.append(event)
        return len(events) != number + 1

    story.proxy.hears = hears
    return events


def test_what_is_deleted_in_a_gap_of_the_watches_is_noticed(stories: Stories) -> None:
    """R3: a child comes back; of an object that went, nothing does."""
    story = stories.new()
    world, place = story.world, story.world.namespace
    story.begin()
    world.wait_until_ready(NAME)
    world.create("other", "faults-stories")
    world.wait_until_ready("other")
    settle(story)
    story.proxy.rule = gone
    story.proxy.cut()
    paths = {kind: f"{path.format(place)}/{NAME}" for kind, path in KINDS.items()}
    before = {kind: world.api.get(path).json()["metadata"]["uid"] for kind, path in paths.items()}
    for path in paths.values():
        world.api.delete(path).raise_for_status()
    world.remove("other")
    before_that = len(story.proxy.written)
    for kind, path in paths.items():
        eventually(lambda path=path: world.api.get(path).is_success)  # type: ignore[misc]
        assert world.api.get(path).json()["metadata"]["uid"] != before[kind]
    story.proxy.rule = lambda _: None
    world.wait_until_ready(NAME)
    settle(story)
    assert not [one for one in story.proxy.written[before_that:] if one.mentions("/other")]
    assert all(world.api.get(f"{path.format(place)}/other").is_error for path in KINDS.values())
    story.end()


def test_with_stale_answers_to_all_reads_it_comes_to_the_same_end(
    stories: Stories, undisturbed: tuple[object, int]
) -> None:
    """R2: whatever is read is as it was when it was read first, before there was anything."""
    expected, _ = undisturbed
    story = stories.new()
    story.proxy.stale = {}
    story.begin()
    story.world.wait_until_ready(NAME, PATIENCE)
    settle(story)
    assert_same(story.end(), expected)


def test_with_a_slow_server_that_cuts_every_watch_and_is_killed_it_comes_to_the_same_end(
    stories: Stories, api_server: ApiServer, undisturbed: tuple[object, int]
) -> None:
    """R17."""
    expected, _ = undisturbed
    story = stories.new()
    story.proxy.delay, story.proxy.longest_watch = 0.2, 1.0
    story.begin()
    eventually(lambda: story.proxy.written)
    api_server.kill()
    time.sleep(AWAY)
    api_server.start()
    api_server.wait_until_ready()
    story.world.wait_until_ready(NAME, PATIENCE)
    settle(story)
    assert_same(story.end(), expected)
