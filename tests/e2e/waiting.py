"""Waiting for what a cluster does in its own time."""

import time
from collections.abc import Callable
from typing import Any


def eventually(check: Callable[[], Any], seconds: float = 60, what: str = "") -> Any:
    """Give what `check` gives once it is truthy."""
    deadline = time.monotonic() + seconds
    while True:
        found = check()
        if found:
            return found
        assert time.monotonic() < deadline, f"{what or check} did not come within {seconds} s"
        time.sleep(0.5)
