"""Two real sandboxes, side by side, for the tests that need them."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Sandbox:
    """A sandbox as its users see it: a name and three commands."""

    name: str

    def command(self, word: str) -> list[str]:
        return [sys.executable, "-m", "sandbox", word, "--name", self.name]

    def start(self, word: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            self.command(word),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, word: str) -> dict[str, Any]:
        outcome = subprocess.run(
            self.command(word), cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert outcome.returncode == 0, outcome.stderr
        answer: dict[str, Any] = json.loads(outcome.stdout or "{}")
        return answer

    @cached_property
    def _kubectl(self) -> list[str]:
        status = self.run("status")
        return [status["kubectl"], f"--kubeconfig={status['kubeconfig']}"]

    def kubectl(self, *arguments: str, text: str = "", check: bool = True) -> str:
        outcome = subprocess.run(
            [*self._kubectl, *arguments],
            input=text,
            capture_output=True,
            text=True,
            check=False,
        )
        assert not (check and outcome.returncode), outcome.stderr
        return outcome.stdout


@pytest.fixture(scope="session")
def one() -> Iterator[Sandbox]:
    """The sandbox of the end-to-end tests, which may run in it meanwhile."""
    sandbox = Sandbox("test")
    sandbox.run("up")
    yield sandbox
    if os.environ.get("KEEP_SANDBOX") != "1":
        sandbox.run("down")


@pytest.fixture(scope="session")
def two(one: Sandbox) -> Iterator[Sandbox]:
    """Another beside it, for those who do it harm."""
    sandbox = Sandbox(f"{one.name}-two")
    sandbox.run("down")
    try:
        sandbox.run("up")
        yield sandbox
    finally:
        sandbox.run("down")
