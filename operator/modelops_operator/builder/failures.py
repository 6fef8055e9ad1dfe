"""How a build fails: with a reason and a sentence for the person who reads the condition."""

import tempfile
from typing import Self

from modelops_operator.adapters.registry_errors import RegistryError
from modelops_operator.api.facts import Failure
from modelops_operator.api.reasons import Reason


class BuildError(Exception):
    """An image could not be built."""

    def __init__(self, failure: Failure, log: str = "") -> None:
        super().__init__(failure.message)
        self.failure = failure
        self.log = log
        """What the step said before it failed; may be empty."""

    @classmethod
    def of_program(cls, program: str, output: str) -> Self:
        """Tell of a program that failed, in its own words."""
        message = f"{program} failed: {' '.join(output.split())[:1000]}"
        failure = Failure(reason=Reason.BUILD_FAILED, message=message, permanent=True)
        return cls(failure, output)


def broken(reason: Reason, message: str, log: str = "") -> BuildError:
    """Make the error for what only a person can mend."""
    return BuildError(Failure(reason=reason, message=message, permanent=True), log)


def passing(reason: Reason, message: str, log: str = "") -> BuildError:
    """Make the error for what may be better at the next attempt."""
    return BuildError(Failure(reason=reason, message=message, permanent=False), log)


def first_failure(error: Exception) -> BuildError | RegistryError:
    """Find what a person should hear of in the errors of tasks that ran side by side.

    What only a person can mend comes before what may pass. An error of the system's is one of the
    disk: what is spoken to has errors of its own. Raises the error itself when it holds anything
    else: then the fault is ours.
    """
    if isinstance(error, BuildError | RegistryError):
        return error
    if isinstance(error, OSError):
        return broken(
            Reason.BUILD_FAILED,
            f"the builder cannot work in {tempfile.gettempdir()}: {error}; give it more disk",
        )
    if not isinstance(error, ExceptionGroup):
        raise error
    failures = [first_failure(part) for part in error.exceptions]
    return max(failures, key=lambda failure: failure.failure.permanent)
