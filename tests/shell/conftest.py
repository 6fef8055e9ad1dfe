"""Clocks for tests: time passes when a test says so."""

import asyncio
import selectors
from collections.abc import Awaitable, Callable
from typing import Any

import pytest


class _Selector(selectors.SelectSelector):
    """Instead of waiting, it lets the loop's clock jump to what is due next."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready and timeout:
            self.now += timeout
        return ready


class _Loop(asyncio.SelectorEventLoop):
    """An event loop in which sleeping takes no time."""

    def __init__(self) -> None:
        self._clock = _Selector()
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.now


Run = Callable[[Awaitable[Any]], Any]


@pytest.fixture
def run() -> Run:
    """Run a coroutine in a loop whose clock jumps over what would be waiting."""

    def run_in_jumps(main: Awaitable[Any]) -> Any:
        with asyncio.Runner(loop_factory=_Loop) as runner:
            return runner.run(_awaited(main))

    return run_in_jumps


async def _awaited(main: Awaitable[Any]) -> Any:
    return await main
