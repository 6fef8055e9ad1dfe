"""Sends alarms and recoveries one after the other, beside everything else.

What cannot be handed over is tried again until it is an hour old. A replica that begins to lead
tells the alarms of the last hour once more, since the one before may have been ended before it told
them: receivers know an event by its id.
"""

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog
from prometheus_client import Counter, Gauge

from modelops_operator.adapters.kubernetes import MODEL_DEPLOYMENTS
from modelops_operator.adapters.webhook import DeliveryError, Receiver
from modelops_operator.core.notices import Notice, alarms
from modelops_operator.shell.cache import Cache
from modelops_operator.shell.leader import Leadership

LONGEST: Final = timedelta(hours=1)
"""How long an event is tried."""
MOST: Final = 1000
"""Events that wait; others are left out, and the metrics tell."""
FIRST_PAUSE: Final = timedelta(seconds=1)
LONGEST_PAUSE: Final = timedelta(minutes=5)
_LOOK: Final = 5.0
"""Seconds until it is looked whether we still lead, where there is nothing to send."""

_log = structlog.get_logger()
_EVENTS: Final = Counter("modelops_webhook_events", "Events for the webhook.", ["outcome"])
_RETRIES: Final = Counter("modelops_webhook_retries", "Attempts that failed and are made again.")
_WAITING: Final = Gauge("modelops_webhook_waiting", "Events that are to be sent.")


class Webhook:
    """Keeps what is to be sent, and sends it."""

    def __init__(self, receiver: Receiver, cache: Cache, leadership: Leadership) -> None:
        self._receiver = receiver
        self._cache = cache
        self._leadership = leadership
        self._waiting: dict[str, tuple[Notice, datetime]] = {}
        """By id, with the time of their expiry; the first one is at work."""
        self._news = asyncio.Event()

    def tell(self, notices: Iterable[Notice]) -> None:
        """Have events sent; never waits."""
        expiry = datetime.now(UTC) + LONGEST
        for notice in notices:
            if len(self._waiting) < MOST:
                self._waiting.setdefault(notice.id, (notice, expiry))
            else:
                _EVENTS.labels("dropped").inc()
        _WAITING.set(len(self._waiting))
        if self._waiting:
            self._news.set()

    async def run(self) -> None:
        """Send for ever, as long as we lead. No error ends it."""
        while True:
            await self._leadership.wait()
            since = datetime.now(UTC) - LONGEST
            for live in self._cache.all(MODEL_DEPLOYMENTS.kind):
                self.tell(alarms(live, since))
            while self._leadership.leading:
                await self._send_next()
            # The next leader tells them.
            self._waiting.clear()
            _WAITING.set(0)

    async def _send_next(self) -> None:
        if not self._waiting:
            self._news.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK):
                    await self._news.wait()
            return
        notice, expiry = next(iter(self._waiting.values()))
        outcome = await self._deliver(notice, expiry)
        self._waiting.pop(notice.id, None)
        _EVENTS.labels(outcome).inc()
        _WAITING.set(len(self._waiting))

    async def _deliver(self, notice: Notice, expiry: datetime) -> str:
        """Try until it is taken, refused for good or too old; say what came of it."""
        pause = FIRST_PAUSE
        while self._leadership.leading:
            try:
                await self._receiver.post(notice.id, notice.body)
            except DeliveryError as error:
                wait = pause if error.wait is None else max(pause, error.wait)
                final = error.permanent or datetime.now(UTC) + wait > expiry
                _log.warning("event not sent", id=notice.id, error=str(error), final=final)
                if final:
                    return "failed"
            except Exception:  # noqa: BLE001 - the fault is logged; the other events may do
                _log.exception("event not sent", id=notice.id)
                return "failed"
            else:
                return "sent"
            _RETRIES.inc()
            await asyncio.sleep(wait.total_seconds())
            pause = min(2 * pause, LONGEST_PAUSE)
        return "left"
