"""Asks a registry again where that may help, and not before it wants to be asked."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Final

import httpx

from modelops_operator.adapters.registry_errors import RegistryErrors
from modelops_operator.adapters.retry_after import retry_after

ATTEMPTS: Final = 5
LONGEST_PAUSE: Final = 60.0
"""Seconds. A registry that wants to be left alone for longer is asked again by the next build."""


async def insist(
    ask: Callable[[], Awaitable[httpx.Response]],
    what: str,
    errors: RegistryErrors,
    *,
    attempts: int = ATTEMPTS,
) -> httpx.Response:
    """Ask until the answer is anything but overload or a fault; it is not checked further.

    `attempts` bounds the requests that may have been acted upon. An answer of 429 says that this
    one was not, so it is asked again in any case. Raises RegistryError.
    """
    for attempt in range(ATTEMPTS):
        last = attempt >= attempts - 1
        try:
            response = await ask()
        except httpx.TransportError as error:
            if last:
                raise errors.unreachable(what, error) from error
            await asyncio.sleep(pause(attempt))
            continue
        if not overloaded(response):
            return response
        await response.aread()
        last = attempt == ATTEMPTS - 1 if throttled(response) else last
        seconds = pause(attempt, response.headers.get("retry-after", ""))
        if last or seconds > LONGEST_PAUSE:
            raise errors.refused(response, what)
        await asyncio.sleep(seconds)
    raise AssertionError("unreachable: the loop returns or raises")


def pause(attempt: int, asked: str = "") -> float:
    """Seconds before the next attempt: what the registry asks for, or doubling with jitter."""
    wanted = retry_after(asked, datetime.now(UTC))
    spread = random.uniform(0.5, 1.5)  # noqa: S311 (jitter is no secret)
    return wanted.total_seconds() if wanted is not None else 0.2 * float(2**attempt) * spread


def throttled(response: httpx.Response) -> bool:
    """Tell whether we ask too often."""
    return response.status_code == httpx.codes.TOO_MANY_REQUESTS


def overloaded(response: httpx.Response) -> bool:
    """Tell whether asking again may help; a full disk does not empty itself."""
    faulty = response.status_code >= httpx.codes.INTERNAL_SERVER_ERROR
    full = response.status_code == httpx.codes.INSUFFICIENT_STORAGE
    return throttled(response) or (faulty and not full)
