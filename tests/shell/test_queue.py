"""The queue's promises, in a loop whose clock jumps."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from modelops_operator.shell.queue import (
    FIRST_DELAY,
    LONGEST_DELAY,
    Key,
    Lane,
    TokenBucket,
    WorkQueue,
)

from tests.jumping_loop import JumpingLoop

pytestmark = pytest.mark.unit

Run = Callable[[Coroutine[Any, Any, Any]], Any]
A, B, C = ("ns", "a"), ("ns", "b"), ("ns", "c")


async def taken(queue: WorkQueue, count: int) -> list[Key]:
    return [await asyncio.wait_for(queue.get(), 0.001) for _ in range(count)]


async def is_empty(queue: WorkQueue) -> bool:
    try:
        await asyncio.wait_for(queue.get(), 0.001)
    except TimeoutError:
        return True
    return False


def test_keys_come_in_order_and_once(run: Run) -> None:
    async def main() -> None:
        queue = WorkQueue("test")
        for key in (A, B, A, C, B):
            queue.add(key)
        assert await taken(queue, 3) == [A, B, C]
        assert await is_empty(queue)

    run(main())


def test_edits_go_before_refreshes(run: Run) -> None:
    async def main() -> None:
        queue = WorkQueue("test")
        queue.add(A, Lane.REFRESH)
        queue.add(B, Lane.REFRESH)
        queue.add(C, Lane.EDIT)
        queue.add(B, Lane.EDIT)  # moves up
        queue.add(C, Lane.REFRESH)  # does not move down
        assert await taken(queue, 3) == [C, B, A]
        assert await is_empty(queue)

    run(main())


def test_a_key_is_never_worked_on_twice_at_once(run: Run) -> None:
    async def main() -> None:
        queue = WorkQueue("test")
        queue.add(A)
        assert await queue.get() == A
        queue.add(A)
        assert await is_empty(queue)
        queue.done(A)
        assert await queue.get() == A
        queue.done(A)
        assert await is_empty(queue)

    run(main())


def test_a_failed_key_comes_back_later_and_later(run: Run) -> None:
    async def main() -> None:
        queue = WorkQueue("test")
        loop = asyncio.get_running_loop()
        queue.add(A)
        await queue.get()
        waits = []
        for _ in range(15):
            failed = loop.time()
            delay = queue.retry(A)
            assert await queue.get() == A
            waits.append(loop.time() - failed)
            assert waits[-1] == pytest.approx(delay, abs=0.01)
        assert FIRST_DELAY / 2 <= waits[0] <= FIRST_DELAY
        assert LONGEST_DELAY / 2 <= waits[-1] <= LONGEST_DELAY

    run(main())


def test_success_resets_the_backoff(run: Run) -> None:
    async def main() -> None:
        queue = WorkQueue("test")
        queue.add(A)
        for _ in range(8):
            await queue.get()
            queue.retry(A)
        await queue.get()
        queue.done(A)
        queue.add(A)
        await queue.get()
        assert queue.retry(A) <= FIRST_DELAY

    run(main())


def test_an_edit_comes_at_once_after_a_failure_and_an_echo_does_not(run: Run) -> None:
    async def main() -> None:
        queue = WorkQueue("test")
        queue.add(A)
        await queue.get()
        queue.add(A, Lane.REFRESH)  # the echo of our own write
        queue.retry(A)
        assert await is_empty(queue)
        assert await queue.get() == A
        queue.add(A, Lane.EDIT)
        queue.retry(A)
        assert await taken(queue, 1) == [A]

    run(main())


def test_of_two_times_the_sooner_wins(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        queue, start = WorkQueue("test"), loop.time()
        queue.add_later(A, 30)
        queue.add_later(A, 10)
        queue.add_later(A, 20)
        assert await queue.get() == A
        assert loop.time() - start == pytest.approx(10, abs=0.01)
        queue.done(A)
        assert await is_empty(queue)

    run(main())


def test_of_two_times_the_faster_lane_wins(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        queue, start = WorkQueue("test"), loop.time()
        queue.add_later(A, 10)
        queue.add_later(A, 30, Lane.EDIT)
        queue.add_later(B, 5)
        await asyncio.sleep(20)
        assert await taken(queue, 2) == [A, B]  # an edit, though it came later
        assert loop.time() - start < 30
        assert await is_empty(queue)

    run(main())


def test_what_is_forgotten_does_not_come_back(run: Run) -> None:
    async def main() -> None:
        queue = WorkQueue("test")
        queue.add_later(A, 10)
        queue.forget(A)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(queue.get(), 60)

    run(main())


def test_namespaces_take_turns(run: Run) -> None:
    async def main() -> None:
        queue = WorkQueue("test")
        crowd = [("crowd", f"c{number}") for number in range(4)]
        for key in (*crowd, A, ("late", "x"), B):
            queue.add(key)
        order = [crowd[0], A, ("late", "x"), crowd[1], B, crowd[2], crowd[3]]
        assert await taken(queue, len(order)) == order
        assert await is_empty(queue)

    run(main())


def test_a_namespace_that_was_served_goes_to_the_end(run: Run) -> None:
    async def main() -> None:
        queue = WorkQueue("test")
        for number in range(3):
            queue.add(("crowd", f"c{number}"))
        await queue.get()
        queue.add(A)
        # Whose turn it is was settled when it waited alone; then they alternate.
        assert await taken(queue, 3) == [("crowd", "c1"), A, ("crowd", "c2")]

    run(main())


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("12345")), max_size=30))
def test_nobody_waits_for_more_than_one_key_of_each_other_namespace(keys: list[Key]) -> None:
    async def main() -> None:
        queue = WorkQueue("test")
        for key in keys:
            queue.add(key)
        order = await taken(queue, len(set(keys)))
        for number, (namespace, _) in enumerate(order):
            left = {key[0] for key in order[number:]}
            following = [key[0] for key in order[number : number + len(left)]]
            assert sorted(following) == sorted(left), namespace

    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        runner.run(main())


def test_it_tells_for_how_long_nothing_has_gone_on(run: Run) -> None:
    async def main() -> None:
        queue = WorkQueue("test")
        assert (queue.stuck(), queue.worked()) == (0, 0)
        queue.add(A)
        await asyncio.sleep(10)
        queue.add(B)
        assert queue.stuck() == pytest.approx(10)
        await queue.get()
        assert queue.stuck() == 0  # B has been waiting for no time, but something goes on
        await asyncio.sleep(5)
        assert queue.stuck() == pytest.approx(5)
        assert queue.worked() == pytest.approx(5)
        queue.done(A)
        assert queue.stuck() == 0
        assert await queue.get() == B
        queue.done(B)
        await asyncio.sleep(5)
        assert (queue.stuck(), queue.worked()) == (0, 0)

    run(main())


def test_a_long_queue_that_is_worked_off_is_not_stuck_and_a_key_never_given_back_is(
    run: Run,
) -> None:
    async def main() -> None:
        queue = WorkQueue("test")
        for number in range(100):
            queue.add(("ns", str(number)))
        hung = await queue.get()
        for _ in range(50):
            key = await queue.get()
            await asyncio.sleep(10)
            queue.done(key)
            assert hung != key
        assert queue.stuck() == pytest.approx(500)
        queue.done(hung)
        assert queue.stuck() == 0

    run(main())


def test_who_takes_over_does_not_count_the_time_before(run: Run) -> None:
    """A standby's queue has been waiting for hours; its first key is progress."""

    async def main() -> None:
        queue = WorkQueue("test")
        queue.add(A)
        queue.add(B)
        await asyncio.sleep(10_000)
        await queue.get()
        assert queue.stuck() == 0

    run(main())


Step = st.tuples(
    st.sampled_from(["add", "refresh", "take", "done", "retry"]), st.sampled_from([A, B, C])
)


@given(st.lists(Step, max_size=60))
def test_nothing_is_lost_and_nothing_is_worked_on_twice_at_once(
    steps: list[tuple[str, Key]],
) -> None:
    """`owed` are the keys that have to come again after what happened to them last."""

    async def main() -> None:
        queue, active, owed = WorkQueue("test"), set[Key](), set[Key]()

        async def take(patience: float) -> None:
            key = await asyncio.wait_for(queue.get(), patience)
            assert key not in active
            active.add(key)
            owed.discard(key)

        for action, key in steps:
            if action in {"add", "refresh"}:
                queue.add(key, Lane.EDIT if action == "add" else Lane.REFRESH)
                owed.add(key)
            elif action == "take":
                with suppress(TimeoutError):
                    await take(0.001)
            elif key in active:
                active.discard(key)
                if action == "done":
                    queue.done(key)
                else:
                    queue.retry(key)
                    owed.add(key)
        for key in active.copy():
            active.discard(key)
            queue.done(key)
        while owed:
            await take(2 * LONGEST_DELAY)

    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        runner.run(main())


def test_writes_are_limited_to_a_rate_after_a_burst(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        bucket, start = TokenBucket(rate=10, burst=5), loop.time()
        moments = []
        for _ in range(25):
            await bucket.take()
            moments.append(loop.time() - start)
        assert moments[4] == 0
        assert moments[24] == pytest.approx(2.0, abs=0.05)
        await asyncio.sleep(60)  # fills up to the burst, and no further
        start = loop.time()
        for _ in range(10):
            await bucket.take()
        assert loop.time() - start == pytest.approx(0.5, abs=0.05)

    run(main())


def test_many_that_wait_for_the_bucket_are_let_through_at_its_rate(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        bucket, start = TokenBucket(rate=10, burst=1), loop.time()

        async def write() -> float:
            await bucket.take()
            return loop.time() - start

        moments = sorted(await asyncio.gather(*(write() for _ in range(11))))
        assert moments == pytest.approx([each / 10 for each in range(11)], abs=0.01)

    run(main())


def test_what_can_be_left_out_does_not_wait_for_the_bucket(run: Run) -> None:
    async def main() -> None:
        bucket = TokenBucket(rate=1.0, burst=2)
        assert [bucket.spare() for _ in range(3)] == [True, True, False]
        await asyncio.sleep(1.5)
        assert [bucket.spare() for _ in range(2)] == [True, False]

    run(main())
