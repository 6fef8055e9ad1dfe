"""Starts the program that moves aliases, and finishes moves that were cut short."""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Self

import mlflow
from mlflow import MlflowClient

from modelops_training import mover
from modelops_training.errors import AliasError
from modelops_training.mover import INTENT, Move

_PROGRAM = Path(mover.__file__)


class Mover:
    """The moving program, waiting for its one move; use it as a context manager.

    It runs in a session of its own: once it has the move, killing this process changes nothing.
    """

    def __init__(self) -> None:
        # What it says goes to a file: a pipe would break with this process.
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115  # closed by __exit__
        self._child = subprocess.Popen(  # noqa: S603  # our own program, no shell
            # -P: the program's folder is no place to import from.
            [sys.executable, "-P", str(_PROGRAM)],
            stdin=subprocess.PIPE,
            stdout=self._said,
            stderr=self._said,
            text=True,
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # Without a move, the end of its input tells it to go.
        self._child.communicate()
        self._said.close()

    def move(self, wanted: Move) -> None:
        """Set the alias on all models of one training, or on none, even if we are killed.

        Raises AliasError when the aliases stayed where they were, or could only be moved in part.
        """
        self._child.communicate(f"{wanted.to_json()}\n")
        outcome = self._child.returncode
        if outcome == mover.DONE:
            return
        self._said.seek(0)
        why = self._said.read().strip() or f"the moving program ended with {outcome}"
        if outcome == mover.UNMOVED:
            raise AliasError(
                f"{why}. No alias {wanted.alias!r} has moved; the new versions are registered: "
                f"{_listed(wanted)}"
            )
        raise AliasError(
            f"{why}. Some aliases {wanted.alias!r} may have moved and others not; the operator "
            f"holds the release back. Run `modelops-train --repair --name {wanted.keeper}`"
        )


def repair(name: str) -> Move | None:
    """Finish the alias move of this predictor that was cut short, if there is one.

    Returns the move that was finished; None where there was nothing to finish. Raises AliasError
    when it cannot be finished.
    """
    client = MlflowClient()
    intent = next(
        (
            model.tags[INTENT]
            for model in client.search_registered_models(filter_string=f"name = '{name}'")
            if INTENT in model.tags
        ),
        None,
    )
    if intent is None:
        return None
    wanted = _here(intent, name)
    now = mover.holders(client, wanted)
    hits = sum(now[model] == version for model, version in wanted.versions)
    if 0 < hits < len(wanted.versions):
        with Mover() as program:
            program.move(wanted)
        return wanted
    # All moved, none moved, or someone has moved them elsewhere since: nothing is torn.
    client.delete_registered_model_tag(name, INTENT)
    return None


def _here(intent: str, name: str) -> Move:
    """Read an intent; whoever wrote it may have reached the same server by another address."""
    try:
        written = Move.from_json(intent)
    except (ValueError, KeyError, TypeError) as error:
        raise AliasError(
            f"registered model {name!r}: its tag {INTENT!r} is {intent!r}, not the note of a move; "
            "set the aliases by hand and delete the tag"
        ) from error
    return Move(
        alias=written.alias,
        versions=written.versions,
        tracking_uri=mlflow.get_tracking_uri(),
        registry_uri=mlflow.get_registry_uri(),
    )


def _listed(wanted: Move) -> str:
    return ", ".join(f"{name} {version}" for name, version in wanted.versions)
