"""Training killed at any point: no alias has moved, or all have."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from modelops_training import AliasError, aliases, guardian, repair
from modelops_training.mover import INTENT, Move

from tests.training.interceptor import Request, intercepting
from tests.training.trainer import NAME

pytestmark = pytest.mark.contract

NAMES = (f"{NAME}_drift", f"{NAME}_outlier", NAME)
PROGRAM = Path(__file__).parent / "trainer.py"
_seeds = count(1)

When = Callable[[Request], bool]


class Trainer:
    """The program that trains in forks; one fork at a time."""

    def __init__(self, uri: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(PROGRAM), uri],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._say, self._told = self.process.stdin, self.process.stdout
        self.fork = self._answer("ready")

    def start(self, uri: str) -> None:
        self._say.write(f"{uri} {next(_seeds)}\n")
        self._say.flush()
        self.fork = self._answer("forked")

    def ended(self) -> int:
        return self._answer("ended")

    def _answer(self, wanted: str) -> int:
        word, number = self._told.readline().split()
        assert word == wanted
        return int(number)

    def kill(self) -> None:
        """Kill the fork and everything in its process group, as a terminal or a job runner does."""
        os.killpg(self.fork, signal.SIGKILL)

    def children(self) -> list[int]:
        """Processes that the fork started."""
        return started_by(self.fork)


def started_by(process: int) -> list[int]:
    children = Path(f"/proc/{process}/task/{process}/children").read_text()
    return [int(child) for child in children.split()]


@pytest.fixture(scope="module")
def trainer(server: str) -> Iterator[Trainer]:
    # By another name: forks must not share a connection that is open already.
    trainer = Trainer(server.replace("127.0.0.1", "localhost"))
    yield trainer
    trainer._say.close()
    trainer.process.wait(30)
    trainer._told.close()


@pytest.fixture(scope="module")
def client(server: str, trainer: Trainer) -> MlflowClient:
    """A client of a server where one training has already set all aliases."""
    assert trainer.process.poll() is None
    return MlflowClient(server, server)


def holders(client: MlflowClient) -> tuple[str, ...]:
    """The versions that the alias leads to, in the order of NAMES."""
    return tuple(str(client.get_registered_model(name).aliases.get("candidate")) for name in NAMES)


def all_moved(client: MlflowClient, before: tuple[str, ...]) -> bool:
    """Whether each alias leads elsewhere than before."""
    return all(now != then for now, then in zip(holders(client), before, strict=True))


def train_ids(client: MlflowClient) -> set[str]:
    return {
        client.get_model_version(name, version).tags["modelops_train_id"]
        for name, version in zip(NAMES, holders(client), strict=True)
    }


def noted(client: MlflowClient) -> bool:
    return INTENT in client.get_registered_model(NAME).tags


def settled(client: MlflowClient, wanted: Callable[[], bool], seconds: float = 60) -> bool:
    """Wait until it is so and no move is under way."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if wanted() and not noted(client):
            return True
        time.sleep(0.5)  # to ask costs the server as much as a training does
    return False


class Killer:
    """Kills the trainer at the first request that `when` picks, before it is passed on."""

    def __init__(self, trainer: Trainer, when: When, *, nth: int = 1) -> None:
        self.trainer, self.when, self.left = trainer, when, nth
        self.struck = False

    def __call__(self, request: Request) -> int | None:
        if not self.struck and self.when(request):
            self.left -= 1
            if self.left == 0:
                self.struck = True
                self.trainer.kill()
        return None


def any_request(_: Request) -> bool:
    return True


def creates_version(request: Request) -> bool:
    return request.path.endswith("/model-versions/create")


@pytest.mark.parametrize(
    ("when", "nth"),
    [
        (any_request, 30),
        (creates_version, 3),
    ],
)
def test_killed_before_the_moves_no_alias_has_moved(
    trainer: Trainer, client: MlflowClient, server: str, when: When, nth: int
) -> None:
    before = holders(client)
    killer = Killer(trainer, when, nth=nth)
    with intercepting(server, killer) as proxy:
        trainer.start(proxy)
        assert trainer.ended() == signal.SIGKILL
        assert killer.struck
        time.sleep(1)
    assert holders(client) == before
    assert not noted(client)


@pytest.mark.parametrize(
    ("when", "nth"),
    [
        (lambda request: request.notes_intent, 1),
        (lambda request: request.moves_alias, 2),
        (lambda request: request.moves_alias, 3),
        (lambda request: request.path.endswith("/registered-models/delete-tag"), 1),
    ],
)
def test_killed_during_the_moves_all_aliases_move(
    trainer: Trainer, client: MlflowClient, server: str, when: When, nth: int
) -> None:
    before = holders(client)
    killer = Killer(trainer, when, nth=nth)
    with intercepting(server, killer) as proxy:
        trainer.start(proxy)
        assert trainer.ended() == signal.SIGKILL
        assert killer.struck
        moved = settled(client, lambda: all_moved(client, before))
    assert moved
    assert len(train_ids(client)) == 1


def test_killed_after_any_time_the_aliases_agree(
    trainer: Trainer, client: MlflowClient, server: str
) -> None:
    trainer.start(server)
    time.sleep(1.2)
    with contextlib.suppress(ProcessLookupError):  # a fast machine has trained by now
        os.kill(trainer.fork, signal.SIGKILL)
    trainer.ended()
    assert settled(client, lambda: len(train_ids(client)) == 1)


def test_interrupted_from_a_terminal_during_the_moves(
    trainer: Trainer, client: MlflowClient, server: str
) -> None:
    before = holders(client)

    def interrupt(request: Request) -> int | None:
        if request.moves_alias:
            with contextlib.suppress(ProcessLookupError):  # who goes on is not of this group
                os.killpg(trainer.fork, signal.SIGINT)
        return None

    with intercepting(server, interrupt) as proxy:
        trainer.start(proxy)
        trainer.ended()
        assert settled(client, lambda: all_moved(client, before))
    assert len(train_ids(client)) == 1


def torn(trainer: Trainer, client: MlflowClient, server: str) -> None:
    """Leave what the death of the whole machine leaves: one alias moved, two not."""
    guardians: list[int] = []

    def strike(request: Request) -> int | None:
        if not guardians and b'"name": "victim_outlier"' in request.body and request.moves_alias:
            guardians.extend(trainer.children())
            trainer.kill()  # first: it would notice that its guardian is gone
            for process in guardians:
                os.kill(process, signal.SIGKILL)
            return 500
        return None

    with intercepting(server, strike) as proxy:
        trainer.start(proxy)
        assert trainer.ended() == signal.SIGKILL
    assert len(train_ids(client)) == 2
    assert noted(client)


def test_a_dead_machine_is_repaired(trainer: Trainer, client: MlflowClient, server: str) -> None:
    before = holders(client)
    torn(trainer, client, server)
    move = repair(NAME, tracking_uri=server)
    assert move is not None
    assert dict(move.versions) == dict(zip(NAMES, holders(client), strict=True))
    assert len(train_ids(client)) == 1
    assert all_moved(client, before)
    assert not noted(client)
    assert repair(NAME, tracking_uri=server) is None


def test_the_next_training_repairs_first(
    trainer: Trainer, client: MlflowClient, server: str
) -> None:
    torn(trainer, client, server)
    killer = Killer(trainer, creates_version)  # after the repair, before anything new
    with intercepting(server, killer) as proxy:
        trainer.start(proxy)
        assert trainer.ended() == signal.SIGKILL
    assert len(train_ids(client)) == 1
    assert not noted(client)


def test_a_refused_move_is_put_back(trainer: Trainer, client: MlflowClient, server: str) -> None:
    before = holders(client)

    def refuse(request: Request) -> int | None:
        return 403 if request.moves_alias and b'"name": "victim"' in request.body else None

    with intercepting(server, refuse) as proxy:
        trainer.start(proxy)
        assert trainer.ended() != 0
    assert holders(client) == before
    assert not noted(client)


def test_a_refused_move_is_told(client: MlflowClient, server: str) -> None:
    first = holders(client)
    move = Move(
        alias="candidate",
        versions=((NAMES[0], "1"), (NAMES[1], "1"), (NAMES[2], "99999")),
        tracking_uri=server,
        registry_uri=server,
    )
    with pytest.raises(AliasError, match="No alias 'candidate' has moved"):
        aliases.move(move)
    assert holders(client) == first


def test_a_first_alias_that_is_refused_leaves_none(client: MlflowClient, server: str) -> None:
    move = Move(
        alias="fresh",
        versions=((NAMES[0], "1"), (NAMES[1], "1"), (NAMES[2], "99999")),
        tracking_uri=server,
        registry_uri=server,
    )
    with pytest.raises(AliasError):
        aliases.move(move)
    for name in NAMES:
        with pytest.raises(MlflowException):
            client.get_model_version_by_alias(name, "fresh")


def test_one_alias_alone_needs_no_note_and_no_guardian(client: MlflowClient, server: str) -> None:
    seen: list[Request] = []
    refused: list[int | None] = [None]
    before, guardians = started_by(os.getpid()), set[int]()

    def look(request: Request) -> int | None:
        seen.append(request)
        guardians.update(started_by(os.getpid()))
        return refused[0] if request.moves_alias else None

    with intercepting(server, look) as proxy:
        move = Move(alias="lone", versions=((NAME, "1"),), tracking_uri=proxy, registry_uri=proxy)
        aliases.move(move)
        assert client.get_model_version_by_alias(NAME, "lone").version == "1"
        refused[0] = 403
        with pytest.raises(AliasError, match="No alias 'lone' has moved"):
            aliases.move(replace(move, versions=((NAME, "2"),)))
    assert client.get_model_version_by_alias(NAME, "lone").version == "1"
    assert not any(request.notes_intent for request in seen)
    assert guardians <= set(before)


def test_one_alias_that_cannot_be_looked_at_is_left_to_people(server: str) -> None:
    refusing: list[Request] = []

    def refuse(request: Request) -> int | None:
        if request.moves_alias:
            refusing.append(request)
        return 403 if refusing else None

    with intercepting(server, refuse) as proxy:
        move = Move(alias="lost", versions=((NAME, "1"),), tracking_uri=proxy, registry_uri=proxy)
        with pytest.raises(AliasError, match="Alias 'lost' of 'victim' may have moved or not"):
            aliases.move(move)


def test_a_server_that_is_away_for_a_moment_is_waited_for(
    trainer: Trainer, client: MlflowClient, server: str
) -> None:
    before = holders(client)
    away = count()

    def fail(request: Request) -> int | None:
        return 503 if request.moves_alias and next(away) < 3 else None

    with intercepting(server, fail) as proxy:
        trainer.start(proxy)
        assert trainer.ended() == 0
    assert all_moved(client, before)
    assert len(train_ids(client)) == 1


def test_a_guardian_acts_only_for_a_starter_that_died_with_a_move_begun(tmp_path: Path) -> None:
    finisher = tmp_path / "finisher.py"
    finisher.write_text("raise SystemExit(int(input()))")

    def outcome(sent: str) -> int:
        program = [sys.executable, guardian.__file__, str(finisher)]
        return subprocess.run(program, input=sent, text=True, check=False, timeout=60).returncode

    assert outcome("") == 0
    assert outcome("7") == 0
    assert outcome("7\nended\n") == 0
    assert outcome("7\n") == 7
