"""An event loop for tests in which sleeping takes no time."""

import asyncio
import selectors
from typing import Any


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


class JumpingLoop(asyncio.SelectorEventLoop):
    """Its clock stands still while something happens, and jumps when all wait."""

    def __init__(self) -> None:
        self._clock = _Selector()
        super().__init__(self._clock)

    def time(self) -> float:
        """Give seconds since some moment."""
        return self._clock.now
