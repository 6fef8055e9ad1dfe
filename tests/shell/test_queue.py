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


def test_what_is_forgotten_does_not_come_back(run: Run) -> None:
    async def main() -> None:
        queue = WorkQueue("test")
        queue.add_later(A, 10)
        queue.forget(A)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(queue.get(), 60)

    run(main())


def test_it_tells_for_how_long_the_oldest_waits_or_is_worked_on(run: Run) -> None:
    async def main() -> None:
        queue = WorkQueue("test")
        assert (queue.waited(), queue.worked()) == (0, 0)
        queue.add(A)
        await asyncio.sleep(10)
        queue.add(B)
        assert queue.waited() == pytest.approx(10)
        await queue.get()
        await asyncio.sleep(5)
        assert queue.waited() == pytest.approx(5)
        assert queue.worked() == pytest.approx(5)
        queue.done(A)
        assert await queue.get() == B
        queue.done(B)
        assert (queue.waited(), queue.worked()) == (0, 0)

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
