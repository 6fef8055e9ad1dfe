"""How a build fails: with a reason and a sentence for the person who reads the condition."""

from modelops_operator.api.facts import Failure
from modelops_operator.api.reasons import Reason


class BuildError(Exception):
    """An image could not be built."""

    def __init__(self, failure: Failure, log: str = "") -> None:
        super().__init__(failure.message)
        self.failure = failure
        self.log = log
        """What the step said before it failed; may be empty."""


def broken(reason: Reason, message: str, log: str = "") -> BuildError:
    """Make the error for what only a person can mend."""
    return BuildError(Failure(reason=reason, message=message, permanent=True), log)


def passing(reason: Reason, message: str, log: str = "") -> BuildError:
    """Make the error for what may be better at the next attempt."""
    return BuildError(Failure(reason=reason, message=message, permanent=False), log)
