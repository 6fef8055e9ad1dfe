"""A receiver of events: posts them, signed after https://www.standardwebhooks.com, version 1.

async with connected(config) as receiver:
await receiver.post(identity, body)
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Protocol

import httpx

from modelops_operator.adapters.retry_after import retry_after
from modelops_operator.api.config import ConfigError, WebhookConfig

PREFIX: Final = "whsec_"
SECRET_BYTES: Final = range(24, 65)
CONTENT: Final = "application/cloudevents+json; charset=utf-8"
_PASSING: Final = {408, 425, 429}
"""Refusals that may be none the next time, besides all of the server's own errors."""


class DeliveryError(Exception):
    """An event was not taken; the message says why."""

    def __init__(
        self, message: str, *, permanent: bool = False, wait: timedelta | None = None
    ) -> None:
        super().__init__(message)
        self.permanent = permanent
        """Whether it would be refused again."""
        self.wait = wait
        """How long the receiver wants to be left alone."""


class Receiver(Protocol):
    """Somebody who takes events."""

    async def post(self, identity: str, body: bytes) -> None:
        """Hand over an event. Raises DeliveryError."""


@asynccontextmanager
async def connected(config: WebhookConfig) -> AsyncIterator[Receiver]:
    """Give the configured receiver. Raises ConfigError when there is no secret to sign with."""
    read_secrets(config.secret_file)
    timeout = config.timeout.total_seconds()
    async with httpx.AsyncClient(timeout=timeout) as client:
        yield HttpReceiver(client, config)


class HttpReceiver:
    """A `Receiver` at an address."""

    def __init__(self, client: httpx.AsyncClient, config: WebhookConfig) -> None:
        self._client = client
        self._config = config

    async def post(self, identity: str, body: bytes) -> None:
        """Hand over an event. Raises DeliveryError."""
        now = datetime.now(UTC)
        try:
            keys = read_secrets(self._config.secret_file)
        except ConfigError as error:
            raise DeliveryError(str(error)) from error
        seconds = int(now.timestamp())
        headers = {
            "content-type": CONTENT,
            "user-agent": "modelops-operator",
            "webhook-id": identity,
            "webhook-timestamp": str(seconds),
            "webhook-signature": " ".join(signature(key, identity, seconds, body) for key in keys),
        }
        try:
            answer = await self._client.post(self._config.url, content=body, headers=headers)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            told = f"{self._config.url} does not answer: {error or type(error).__name__}"
            raise DeliveryError(told) from error
        if not answer.is_success:
            raise DeliveryError(
                f"{self._config.url} answers {answer.status_code} {answer.reason_phrase}",
                permanent=answer.status_code < 500 and answer.status_code not in _PASSING,
                wait=retry_after(answer.headers.get("retry-after", ""), now),
            )


def signature(key: bytes, identity: str, seconds: int, body: bytes) -> str:
    """Sign an event as of a moment, in seconds since the epoch."""
    signed = b"%s.%d.%s" % (identity.encode(), seconds, body)
    return f"v1,{base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()}"


def read_secrets(path: Path) -> Sequence[bytes]:
    """Read the keys to sign with, one a line. Raises ConfigError."""
    way_out = "make one with: echo whsec_$(openssl rand -base64 32)"
    try:
        lines = path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        told = f"monitoring.webhook.secretFile {path} cannot be read ({error})"
        raise ConfigError(f"{told}: {way_out}") from error
    keys = [_key(line) for line in lines]
    if not keys or b"" in keys:
        raise ConfigError(
            f"monitoring.webhook.secretFile {path} has to hold, one a line, {PREFIX} and Base64 of"
            f" {SECRET_BYTES[0]} to {SECRET_BYTES[-1]} bytes: {way_out}"
        )
    return keys


def _key(line: str) -> bytes:
    """Read a secret; empty when it is none."""
    try:
        key = base64.b64decode(line.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        return b""
    return key if line.startswith(PREFIX) and len(key) in SECRET_BYTES else b""
