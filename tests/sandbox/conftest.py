"""Two real sandboxes, side by side, for the tests that need them."""

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
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

    def kubectl(self, *arguments: str, text: str = "", check: bool = True) -> str:
        status = self.run("status")
        outcome = subprocess.run(
            [status["kubectl"], f"--kubeconfig={status['kubeconfig']}", *arguments],
            input=text,
            capture_output=True,
            text=True,
            check=False,
        )
        assert not (check and outcome.returncode), outcome.stderr
        return outcome.stdout


@pytest.fixture(scope="session")
def sandboxes() -> Iterator[tuple[Sandbox, Sandbox]]:
    """Start two at once, and remove them when all tests are done."""
    both = Sandbox("test-one"), Sandbox("test-two")
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda one: one.run("down"), both))
        try:
            list(pool.map(lambda one: one.run("up"), both))
            yield both
        finally:
            list(pool.map(lambda one: one.run("down"), both))


@pytest.fixture(scope="session")
def one(sandboxes: tuple[Sandbox, Sandbox]) -> Sandbox:
    return sandboxes[0]


@pytest.fixture(scope="session")
def two(sandboxes: tuple[Sandbox, Sandbox]) -> Sandbox:
    return sandboxes[1]
