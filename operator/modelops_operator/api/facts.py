"""Frozen facts about outside systems: adapters fetch them, the core judges them.

They live in the lowest layer so that neither of the two needs to know the other.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Role(StrEnum):
    """What a model does in a deployment."""

    PREDICTOR = "predictor"
    DRIFT = "drift"
    OUTLIER = "outlier"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Something that did not work, told for the person who reads the condition."""

    reason: str
    """CamelCase, from `api.reasons.Reason`."""
    message: str
    """What was tried, on what, what came back, what to do."""
    permanent: bool
    """Only a person can mend it (ends in Stalled); otherwise it is tried again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelVersion:
    """One version of a registered model, as the registry tells it."""

    name: str
    version: str
    run_id: str
    source: str
    """The artifact location, as the registry records it."""
    train_id: str | None = None
    """Tag `modelops_train_id`: shared by the models that one training registered together."""
    python: str | None = None
    """Minor version of Python that it was logged with; None where it is not told, or not asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """An image that a trusted key has signed."""

    key: str
    """Fingerprint of the key: the digest of its DER form."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """What one serving pod tells of itself."""

    name: str
    revision: str
    """Label `modelops.dev/revision`."""
    ready: bool
    phase: str
    created: datetime
    deleting: bool = False
    waiting: str = ""
    """Reason of the container's (or the scheduler's) wait: ImagePullBackOff, Unschedulable, ..."""
    message: str = ""
    """The message that belongs to `waiting` or to the last termination."""
    restarts: int = 0
    exit_code: int | None = None
    """Of the last terminated container."""
    terminated: str = ""
    """Reason of the last termination: OOMKilled, Error, ..."""
    log_tail: str = ""
    """The last lines of the crashed container's log; empty unless it crashed."""
