"""What a build is doing, and how much it sends: told while it happens."""

from collections.abc import Callable
from dataclasses import dataclass

Report = Callable[[str, int], None]
"""Called with the step, in words, and the bytes sent so far."""


@dataclass(slots=True)
class Transfer:
    """The account of one build."""

    report: Report
    step: str = ""
    pushed: int = 0
    """Bytes that were sent to the registry."""
    reused: int = 0
    """Bytes that the registry had already."""

    def begin(self, step: str) -> None:
        """Enter a step."""
        self.step = step
        self.report(step, self.pushed)

    def count(self, size: int, *, sent: bool) -> None:
        """Account for a blob of `size` bytes."""
        if sent:
            self.pushed += size
        else:
            self.reused += size
        self.report(self.step, self.pushed)
