"""Moves the aliases of one training's models: all of them, or none.

MLflow moves one alias per request and knows no transaction, so a trainer that is killed between
two requests would leave a new detector beside an old predictor. While it moves them, a guardian
(`guardian.py`, a process in a session of its own) therefore waits, and starts this file as a
program to finish the move should the trainer die. What could still come between (the machine dies,
the server stays away) is covered twice: the intent is written down first, for the next training or
`modelops-train --repair` to finish, and the operator releases no models whose `modelops_train_id`
tags differ.

It imports MLflow's client only, and is run as a file, since the package imports more.
"""

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

# Without dots and dashes, which Unity Catalog has for itself.
INTENT = "modelops_moving"
PAUSES = (0.0, 0.5, 2.0, 8.0)  # seconds before each attempt; MLflow's client retries within them
DONE, UNMOVED, TORN = 0, 3, 4
Holders = Mapping[str, str | None]
"""Which version of each model has the alias; None where none has it."""
Say = Callable[[str], object]
_REFUSALS = frozenset(
    {
        "INVALID_PARAMETER_VALUE",
        "BAD_REQUEST",
        "RESOURCE_DOES_NOT_EXIST",
        "NOT_FOUND",
        "PERMISSION_DENIED",
        "UNAUTHENTICATED",
        "FEATURE_DISABLED",
    }
)


@dataclass(frozen=True, kw_only=True)
class Move:
    """One alias to be set on several registered models."""

    alias: str
    versions: tuple[tuple[str, str], ...]
    """Registered model and version in the order of the moves: the predictor comes last."""
    tracking_uri: str
    registry_uri: str

    @property
    def keeper(self) -> str:
        """The registered model that carries the intent: the predictor."""
        return self.versions[-1][0]

    @property
    def can_tear(self) -> bool:
        """Whether it could end half done: one alias alone has moved or has not."""
        return len(self.versions) > 1

    def to_json(self) -> str:
        """Write as one line."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "Move":
        """Read what `to_json` wrote; raises ValueError, KeyError or TypeError for anything else."""
        fields = json.loads(text)
        versions = tuple((str(name), str(version)) for name, version in fields.pop("versions"))
        return cls(versions=versions, **fields)

    @property
    def note(self) -> str:
        """What a repair has to know of it, short enough for a tag of Unity Catalog."""
        return json.dumps([self.alias, self.versions], separators=(",", ":"))

    def client(self) -> MlflowClient:
        """Speak with the servers that this move is about."""
        return MlflowClient(tracking_uri=self.tracking_uri, registry_uri=self.registry_uri)


def holders(client: MlflowClient, move: Move) -> Holders:
    """Tell which version of each model has the alias now."""
    return {name: _holder(client, name, move.alias) for name, _ in move.versions}


def _holder(client: MlflowClient, name: str, alias: str) -> str | None:
    version = client.get_registered_model(name).aliases.get(alias)
    # A number where MLflow reads the database itself, a string from its server.
    return None if version is None else str(version)


def carry_out(client: MlflowClient, move: Move, former: Holders, say: Say) -> int:
    """Move the aliases, or put them all back to `former`; returns DONE, UNMOVED or TORN.

    `say` is told what went wrong.
    """
    if not move.can_tear:
        return _all_or_none(client, move, former, say)
    try:
        client.set_registered_model_tag(move.keeper, INTENT, move.note)
    except MlflowException as error:
        say(f"the move could not be noted: {error}")
        return UNMOVED
    outcome = _all_or_none(client, move, former, say)
    if outcome != TORN:
        # Left behind, the note does no harm: a repair looks at the aliases before it acts.
        with contextlib.suppress(MlflowException):
            client.delete_registered_model_tag(move.keeper, INTENT)
    return outcome


def _all_or_none(client: MlflowClient, move: Move, former: Holders, say: Say) -> int:
    return DONE if _moved(client, move, say) else _put_back(client, move, former, say)


def _moved(client: MlflowClient, move: Move, say: Say) -> bool:
    for pause in PAUSES:
        time.sleep(pause)
        try:
            for name, version in move.versions:
                client.set_registered_model_alias(name, move.alias, version)
            # Two trainings may move at once; whoever finds the other's versions moves again. Of one
            # alias alone the last one's counts.
            if not move.can_tear or holders(client, move) == dict(move.versions):
                return True
            say(f"alias {move.alias!r} led elsewhere after it was set: does someone else move it?")
        except MlflowException as error:
            say(f"alias {move.alias!r} could not be moved: {error}")
            if error.error_code in _REFUSALS:
                return False
    return False


def _put_back(client: MlflowClient, move: Move, former: Holders, say: Say) -> int:
    """Undo the moves, the predictor's first, so that it never leads to a version without others."""
    try:
        for name, version in reversed(move.versions):
            if _holder(client, name, move.alias) != version:
                continue
            if (before := former[name]) is None:
                client.delete_registered_model_alias(name, move.alias)
            else:
                client.set_registered_model_alias(name, move.alias, before)
    except MlflowException as error:
        say(f"alias {move.alias!r} could not be put back: {error}")
        return TORN
    return UNMOVED


def main() -> int:
    """Finish a move: a line of stdin holds it, and who had the alias before."""
    text, former = json.loads(sys.stdin.readline())
    move = Move.from_json(text)
    return carry_out(move.client(), move, former, sys.stderr.write)


if __name__ == "__main__":
    # To take MLflow apart takes longer than the move.
    os._exit(main())
