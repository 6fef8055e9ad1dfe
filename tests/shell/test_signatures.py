"""How often an image's signature is asked for, with a source that says what the test wants."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Any, Self

import pytest
from modelops_operator.api.facts import Failure, Signed
from modelops_operator.shell.queue import Key
from modelops_operator.shell.signatures import FRESH, Signatures

pytestmark = pytest.mark.unit

Run = Callable[[Coroutine[Any, Any, None]], None]
A, B = ("ns", "a"), ("ns", "b")
SIGNED = Signed(key="sha256:" + "f" * 64)
MISSING = Failure(reason="SignatureMissing", message="nobody has signed it", permanent=True)


@dataclass
class Source:
    """Answers as its Protocol says."""

    answer: Signed | Failure | Exception = SIGNED
    asked: list[str] = field(default_factory=list)

    async def verify(self, reference: str) -> Signed | Failure:
        self.asked.append(reference)
        await asyncio.sleep(1)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class World:
    def __init__(self, answer: Signed | Failure | Exception = SIGNED) -> None:
        self.source = Source(answer)
        self.told: list[set[Key]] = []
        self.signatures = Signatures(self.source, answered=self._answered)

    def _answered(self, keys: Iterable[Key]) -> None:
        self.told.append(set(keys))

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self.signatures.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.wait({self._task})


def test_the_registry_is_asked_once_for_all_who_want_to_know(run: Run) -> None:
    async def main() -> None:
        async with World() as world:
            for key in (A, B, A):
                world.signatures.ask("r/i@1", key)
            assert not world.signatures.known
            await asyncio.sleep(2)
            assert world.signatures.known == {"r/i@1": SIGNED}
            assert world.told == [{A, B}]
            await asyncio.sleep(9 * FRESH)
            world.signatures.ask("r/i@1", A)
            await asyncio.sleep(2)
            assert world.source.asked == ["r/i@1"], "what is signed stays signed"

    run(main())


def test_who_asks_while_the_question_is_under_way_shares_the_answer(run: Run) -> None:
    async def main() -> None:
        async with World() as world:
            world.signatures.ask("r/i@1", A)
            await asyncio.sleep(0.5)
            world.signatures.ask("r/i@1", B)
            await asyncio.sleep(2)
            assert world.source.asked == ["r/i@1"]
            assert world.told == [{A, B}]

    run(main())


def test_what_is_not_signed_is_asked_for_again_but_not_at_once(run: Run) -> None:
    async def main() -> None:
        async with World(MISSING) as world:
            world.signatures.ask("r/i@1", A)
            await asyncio.sleep(2)
            world.signatures.ask("r/i@1", A)
            await asyncio.sleep(2)
            assert (world.source.asked, world.told) == (["r/i@1"], [{A}])
            await asyncio.sleep(FRESH)
            world.signatures.ask("r/i@1", B)
            await asyncio.sleep(2)
            assert len(world.source.asked) == 2
            assert world.told == [{A}], "it is no news"
            world.source.answer = SIGNED
            await asyncio.sleep(FRESH)
            world.signatures.ask("r/i@1", B)
            assert world.signatures.known == {"r/i@1": MISSING}, "it holds until there is another"
            await asyncio.sleep(2)
            assert world.signatures.known == {"r/i@1": SIGNED}
            assert world.told == [{A}, {B}]

    run(main())


def test_a_fault_of_ours_is_told_and_ends_nothing(run: Run) -> None:
    async def main() -> None:
        async with World(RuntimeError("oh")) as world:
            world.signatures.ask("r/i@1", A)
            await asyncio.sleep(2)
            found = world.signatures.known["r/i@1"]
            assert isinstance(found, Failure)
            assert (found.reason, found.permanent) == ("InternalError", False)
            assert "oh" in found.message
            world.source.answer = SIGNED
            world.signatures.ask("r/i@2", A)
            await asyncio.sleep(2)
            assert world.signatures.known["r/i@2"] == SIGNED

    run(main())
