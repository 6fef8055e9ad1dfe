"""Says who we are to a registry, in the way that the registry asks for.

Nothing is sent before it asks. Then either every request carries the user's name and password, or
a token server gives a token for each set of rights, which is kept until it expires and replaced as
soon as the registry no longer takes it, be it in the middle of an upload.
"""

import asyncio
import base64
import json
import re
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

import httpx

from modelops_operator.adapters.registry_credentials import Credentials, CredentialSource
from modelops_operator.adapters.registry_errors import RegistryErrors
from modelops_operator.adapters.registry_retry import insist

SHORTEST_LIFE: Final = 60.0
"""Seconds that a token lives when it does not say, as the specification has it."""
RENEWED_AFTER: Final = 0.8
"""Part of its life after which a token is replaced."""
Scopes = tuple[str, ...]
"""Rights, such as `repository:models/employment:pull,push`."""


@dataclass(frozen=True, slots=True)
class Challenge:
    """How the registry wants to be told who we are."""

    scheme: str
    """`basic` or `bearer`."""
    realm: str
    service: str

    @classmethod
    def read(cls, response: httpx.Response) -> "Challenge | None":
        """Read the challenge of a 401; a token rather than a password where both will do."""
        found = [
            cls(scheme, parameters.get("realm", ""), parameters.get("service", ""))
            for header in response.headers.get_list("www-authenticate")
            for scheme, parameters in [_parse(header)]
            if scheme in {"basic", "bearer"}
        ]
        return max(found, key=lambda challenge: challenge.scheme == "bearer", default=None)


def _parse(header: str) -> tuple[str, dict[str, str]]:
    scheme, _, rest = header.partition(" ")
    return scheme.lower(), dict(re.findall(r'(\w+)="([^"]*)"', rest))


@dataclass(slots=True)
class _Token:
    """A token for a set of rights."""

    text: str = ""
    renew_at: float = 0.0
    """On the monotonic clock, in seconds."""
    fetching: asyncio.Lock = field(default_factory=asyncio.Lock)
    """One request for a token, however many blobs wait for it."""


class Authorization:
    """Who we are to one registry."""

    def __init__(
        self,
        origin: str,
        client: httpx.AsyncClient,
        source: CredentialSource,
        errors: RegistryErrors,
    ) -> None:
        self.requests = 0
        """Requests for tokens so far."""
        self._origin = origin
        self._client = client
        self._source = source
        self._errors = errors
        self._challenge: Challenge | None = None
        self._tokens: defaultdict[Scopes, _Token] = defaultdict(_Token)

    async def headers(self, repository: str, scopes: Scopes) -> dict[str, str]:
        """Give the headers for a request to a repository that needs some rights.

        Raises RegistryError when there is no token to be had.
        """
        challenge = self._challenge
        if challenge is None:
            return {}
        if challenge.scheme == "basic":
            credentials = await self._source.find(repository, "", challenge.service)
            return credentials.basic() if credentials else {}
        token = self._tokens[scopes]
        async with token.fetching:
            if time.monotonic() >= token.renew_at:
                asked_at = time.monotonic()
                token.text, life = await self._fetch(challenge, repository, scopes)
                token.renew_at = asked_at + life * RENEWED_AFTER
        return {"authorization": f"Bearer {token.text}"}

    def challenged(self, response: httpx.Response, scopes: Scopes) -> bool:
        """Learn from a 401 of the registry; tell whether to send the request once more."""
        challenge = Challenge.read(response)
        if challenge is None:
            return False
        self._challenge = challenge
        sent = response.request.headers.get("authorization", "")
        if challenge.scheme == "basic":
            return not sent
        token = self._tokens[scopes]
        # Another request may have met the same refusal first and have a new token already.
        if sent == f"Bearer {token.text}":
            token.renew_at = 0.0
        return True

    async def _fetch(
        self, challenge: Challenge, repository: str, scopes: Scopes
    ) -> tuple[str, float]:
        realm = challenge.realm
        self._check_realm(realm)
        response = await self._ask(challenge, repository, scopes)
        if response.status_code == httpx.codes.UNAUTHORIZED and self._source.forget():
            response = await self._ask(challenge, repository, scopes)
        if response.is_error:
            raise self._errors.refused(response, f"get a token from {realm}")
        return self._read(response, realm)

    def _check_realm(self, realm: str) -> None:
        if not realm.startswith(("https://", "http://")):
            raise self._errors.fault(f"the registry sends us for a token to {realm!r}")
        if realm.startswith("http://") and self._origin.startswith("https://"):
            raise self._errors.fault(
                f"the registry sends us for a token to {realm}, without encryption"
            )

    async def _ask(self, challenge: Challenge, repository: str, scopes: Scopes) -> httpx.Response:
        credentials = await self._source.find(repository, challenge.realm, challenge.service)

        async def ask() -> httpx.Response:
            self.requests += 1
            return await self._request(challenge, scopes, credentials)

        return await insist(ask, f"get a token from {challenge.realm}", self._errors)

    async def _request(
        self, challenge: Challenge, scopes: Sequence[str], credentials: Credentials | None
    ) -> httpx.Response:
        if credentials and credentials.identity_token:
            form = {
                "grant_type": "refresh_token",
                "service": challenge.service,
                "scope": " ".join(scopes),
                "refresh_token": credentials.identity_token,
            }
            return await self._client.post(challenge.realm, data=form)
        return await self._client.get(
            challenge.realm,
            params={"service": challenge.service, "scope": list(scopes)},
            headers=credentials.basic() if credentials else {},
        )

    def _read(self, response: httpx.Response, realm: str) -> tuple[str, float]:
        try:
            answer = response.json()
            token = answer.get("token") or answer["access_token"]
            life = float(answer.get("expires_in") or life_of(token))
        except (ValueError, LookupError, TypeError, AttributeError):
            raise self._errors.fault(f"{realm} answered without a token") from None
        return token, life


def life_of(token: str) -> float:
    """Seconds that a JSON web token lives by its own word; Azure's answers tell no other way."""
    try:
        payload = token.split(".")[1]
        claims: Any = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return max(float(claims["exp"]) - float(claims["iat"]), 1.0)
    except (ValueError, LookupError, TypeError):
        return SHORTEST_LIFE


def same_origin(url: str, origin: str) -> bool:
    """Tell whether an address is the registry's own: scheme, name and port."""
    return urlsplit(url)[:2] == urlsplit(origin)[:2]
