"""Fixtures of the shell's tests."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from tests.jumping_loop import JumpingLoop

Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture
def run() -> Run:
    """Run a coroutine in a loop whose clock jumps over what would be waiting."""

    def run_in_jumps(main: Coroutine[Any, Any, Any]) -> Any:
        with asyncio.Runner(loop_factory=JumpingLoop) as runner:
            return runner.run(main)

    return run_in_jumps
