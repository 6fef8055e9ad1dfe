"""What a step of `reconcile` finds: a condition, and what it means for the object as a whole."""

from dataclasses import dataclass
from datetime import timedelta
from enum import Enum

from modelops_operator.api.conditions import Condition

MESSAGE_BYTES = 1024
"""The longest note that an Event may have; conditions keep to it too."""


class Outlook(Enum):
    """Where things go from here."""

    SETTLED = "nothing is left to do"
    UNDERWAY = "it goes on by itself: Reconciling"
    STUCK = "only a person can mend it: Stalled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one step found."""

    condition: Condition
    outlook: Outlook
    again: timedelta | None = None
    """Look again then: no watch will tell."""
    cause: Condition | None = None
    """Why the outlook is what it is, where the condition does not tell."""

    @property
    def decisive(self) -> Condition:
        """What is said of the object as a whole."""
        return self.cause or self.condition


def bounded(message: str) -> str:
    """Shorten a message to what an Event can carry, at its end."""
    encoded = message.encode()
    if len(encoded) <= MESSAGE_BYTES:
        return message
    return encoded[: MESSAGE_BYTES - 3].decode(errors="ignore") + "…"


def count(number: int, noun: str) -> str:
    """Write `1 replica`, `2 replicas`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
