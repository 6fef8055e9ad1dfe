"""Moves aliases under guard, and finishes moves that were cut short."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Collection, Iterator
from typing import IO, Final, cast

import mlflow
from mlflow import MlflowClient
from mlflow.entities.model_registry import RegisteredModel
from mlflow.exceptions import MlflowException

from modelops_training import guardian, mover
from modelops_training.errors import AliasError
from modelops_training.mover import INTENT, Holders, Move

_ABSENT: Final = {"RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"}


def move(wanted: Move) -> None:
    """Set the alias on all models of one training, or on none, even if we are killed.

    Raises AliasError when the aliases stayed where they were, or could only be moved in part.
    """
    client = wanted.client()
    said: list[str] = []
    try:
        former = mover.holders(client, wanted)
        with _guarded(wanted, former) if wanted.can_tear else contextlib.nullcontext():
            outcome = mover.carry_out(client, wanted, former, said.append)
    except MlflowException as error:
        said.append(f"nothing was moved: {error}")
        outcome = mover.UNMOVED
    why = "\n".join(said)
    if outcome == mover.UNMOVED:
        raise AliasError(
            f"{why}. No alias {wanted.alias!r} has moved; the new versions are registered: "
            f"{_listed(wanted)}"
        )
    if outcome == mover.TORN and not wanted.can_tear:
        raise AliasError(
            f"{why}. Alias {wanted.alias!r} of {wanted.keeper!r} may have moved or not; register"
            f" again, or set it by hand: {_listed(wanted)}"
        )
    if outcome == mover.TORN:
        raise AliasError(
            f"{why}. Some aliases {wanted.alias!r} may have moved and others not; the operator "
            f"holds the release back. Run `modelops-train --repair --name {wanted.keeper}`"
        )


@contextlib.contextmanager
def _guarded(wanted: Move, former: Holders) -> Iterator[None]:
    """Have the move finished by another process if this one dies, or is interrupted, meanwhile."""
    with subprocess.Popen(  # noqa: S603  # our own program, no shell
        [sys.executable, "-P", "-S", guardian.__file__, mover.__file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,  # what kills our group or closes our terminal leaves it alone
    ) as process:
        pipe = cast("IO[str]", process.stdin)
        pipe.write(f"{json.dumps([wanted.to_json(), former])}\n")
        pipe.flush()
        yield
        # Were the guardian gone, so would be the need for it.
        with contextlib.suppress(BrokenPipeError), pipe:
            pipe.write("ended\n")


def repair(name: str) -> Move | None:
    """Finish the alias move of this predictor that was cut short, if there is one.

    Returns the move that was finished; None where there was nothing to finish. Raises AliasError
    when it cannot be finished.
    """
    client = MlflowClient()
    if (intent := _noted(client, name)) is None:
        return None
    wanted = _here(intent, name)
    now = mover.holders(client, wanted)
    hits = sum(now[model] == version for model, version in wanted.versions)
    if 0 < hits < len(wanted.versions):
        move(wanted)
        return wanted
    # All moved, none moved, or someone has moved them elsewhere since: nothing is torn.
    client.delete_registered_model_tag(name, INTENT)
    return None


def lead_to(alias: str, names: Collection[str]) -> list[str]:
    """Tell which of these registered models have the alias, of those that are there to be seen."""
    client = MlflowClient()
    found = {name: _seen(client, name, {*_ABSENT, "PERMISSION_DENIED"}) for name in names}
    return [name for name, model in found.items() if model is not None and alias in model.aliases]


def _noted(client: MlflowClient, name: str) -> str | None:
    """Read the note of a move; None where there is none, or no such model yet."""
    model = _seen(client, name)
    note: str | None = None if model is None else model.tags.get(INTENT)
    return note


def _seen(
    client: MlflowClient, name: str, unseen: Collection[str] = _ABSENT
) -> RegisteredModel | None:
    try:
        return client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code in unseen:
            return None
        raise


def _here(intent: str, name: str) -> Move:
    """Read an intent; whoever wrote it may have reached the same server by another address."""
    try:
        alias, noted = json.loads(intent)
        versions = tuple((str(model), str(version)) for model, version in noted)
    except (ValueError, TypeError) as error:
        raise AliasError(
            f"registered model {name!r}: its tag {INTENT!r} is {intent!r}, not the note of a move; "
            "set the aliases by hand and delete the tag"
        ) from error
    return Move(
        alias=str(alias),
        versions=versions,
        tracking_uri=mlflow.get_tracking_uri(),
        registry_uri=mlflow.get_registry_uri(),
    )


def _listed(wanted: Move) -> str:
    return ", ".join(f"{name} {version}" for name, version in wanted.versions)
