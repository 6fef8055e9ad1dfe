"""Runs programs to their end, and tells what they said if they fail."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from sandbox.places import SandboxError

LAST_LINES = 15
"""How much of an output a person is shown."""


def run(
    purpose: str,
    *command: str,
    text: str = "",
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> str:
    """Run a program with `text` as its input, and give its output.

    Raises:
        SandboxError: it is not there, or failed: with its last words.
    """
    try:
        outcome = subprocess.run(
            command,
            input=text,
            cwd=folder,
            env={**os.environ, **(environment or {})},
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    except FileNotFoundError as error:
        raise SandboxError(f"{purpose} failed: there is no program {error.filename}") from error
    if outcome.returncode:
        said = last_lines(outcome.stderr.strip() or outcome.stdout.strip())
        raise SandboxError(
            f"{purpose} failed: `{' '.join(command)}` ended with {outcome.returncode}:\n{said}"
        )
    return outcome.stdout


def last_lines(text: str) -> str:
    """Give the end of an output."""
    return "\n".join(text.splitlines()[-LAST_LINES:])
