"""Knows which images are signed: the registry is asked once for each, however many run it.

That a key has signed an image stays true; that none has may change, so that is asked again, but not
more often than makes sense.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Final

import structlog
from prometheus_client import Counter

from modelops_operator.adapters.image_signatures import ImageSignatures
from modelops_operator.api.facts import Failure, Signed
from modelops_operator.api.reasons import Reason
from modelops_operator.shell.queue import Key

FRESH: Final = 20.0
"""Seconds for which it is not asked again whether an image has been signed meanwhile."""

_log = structlog.get_logger()
_ANSWERS: Final = Counter("modelops_image_verifications_total", "Verified images.", ["outcome"])


class Signatures:
    """What is known of images' signatures."""

    def __init__(
        self, source: ImageSignatures, *, answered: Callable[[Iterable[Key]], None]
    ) -> None:
        """`answered` is told who asked for an image of which something else is known now."""
        self._source = source
        self._answered = answered
        self._known: dict[str, Signed | Failure] = {}
        self._failed: dict[str, float] = {}
        """When it was found out that an image is not signed, by the loop's clock."""
        self._asking: dict[str, set[Key]] = {}
        self._questions: asyncio.Queue[str] = asyncio.Queue()

    @property
    def known(self) -> Mapping[str, Signed | Failure]:
        """Give the last answers, by reference."""
        return MappingProxyType(self._known)

    def ask(self, reference: str, key: Key) -> None:
        """Have the signature of an image looked for, on behalf of an object."""
        if isinstance(self._known.get(reference), Signed):
            return
        if reference in self._failed and _now() < self._failed[reference] + FRESH:
            return
        if reference not in self._asking:
            self._asking[reference] = set()
            self._questions.put_nowait(reference)
        self._asking[reference].add(key)

    async def run(self) -> None:
        """Ask for one image after the other, for ever. No error ends it."""
        while True:
            reference = await self._questions.get()
            before, answer = self._known.get(reference), await self._verify(reference)
            self._known[reference] = answer
            if isinstance(answer, Failure):
                self._failed[reference] = _now()
            else:
                self._failed.pop(reference, None)
            keys = self._asking.pop(reference)
            if answer != before:
                _tell(reference, answer)
                self._answered(keys)

    async def _verify(self, reference: str) -> Signed | Failure:
        try:
            return await self._source.verify(reference)
        except Exception as error:  # noqa: BLE001 - ours, but whoever waits shall hear of it
            _log.exception("verification crashed", reference=reference)
            message = f"verifying {reference} failed by a fault of the operator's own ({error!r})"
            return Failure(reason=Reason.INTERNAL_ERROR, message=message, permanent=False)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _tell(reference: str, answer: Signed | Failure) -> None:
    if isinstance(answer, Signed):
        _ANSWERS.labels("signed").inc()
        _log.info("image verified", reference=reference, key=answer.key)
    else:
        _ANSWERS.labels("refused").inc()
        _log.warning("image not verified", reason=answer.reason, why=answer.message)
