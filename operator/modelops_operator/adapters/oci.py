"""A client of OCI registries: what building images needs of the distribution protocol.

It is our own because each library at hand lacks something that decides the builder's speed or
memory: a HEAD, a mount across repositories, uploads in pieces, or tokens that are kept. One
`Registry` speaks with one host. Blobs go up in pieces that can be resumed; whole files never sit in
memory. Errors are `RegistryError`, which carries a `Failure` for people.
"""

import asyncio
import base64
import hashlib
import json
import os
import random
import re
import ssl
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urljoin, urlsplit

import httpx

from modelops_operator.api.facts import Failure
from modelops_operator.api.reasons import Reason

CHUNK: Final = 16 * 1024 * 1024
"""Bytes per PATCH: Azure refuses bodies above about 20 MB."""
LARGEST_DOCUMENT: Final = 8 * 1024 * 1024
"""Bytes of a manifest or an image configuration that are read into memory."""
CONCURRENCY: Final = 8
"""Blobs under way at the same time."""
ATTEMPTS: Final = 5
LONGEST_PAUSE: Final = 30.0
MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
INDEX: Final = "application/vnd.oci.image.index.v1+json"
_ACCEPTED: Final = (
    f"{MANIFEST}, {INDEX}, application/vnd.docker.distribution.manifest.v2+json, "
    "application/vnd.docker.distribution.manifest.list.v2+json"
)
_OCTETS: Final = "application/octet-stream"
_UPLOAD_IS_LOST: Final = {
    httpx.codes.NOT_FOUND,
    httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE,
}
_OFFICIAL_NAMES: Final = {"docker.io": "registry-1.docker.io"}
"""Registries that answer under another name than the one people write."""


class RegistryError(Exception):
    """The registry did not do what was asked."""

    def __init__(self, failure: Failure, *, status: int | None = None) -> None:
        super().__init__(failure.message)
        self.failure = failure
        self.status = status
        """HTTP status of the answer; None when there was none."""


@dataclass(frozen=True, slots=True)
class Reference:
    """An image's address."""

    host: str
    repository: str
    version: str
    """A tag or a digest."""

    @classmethod
    def parse(cls, text: str) -> "Reference":
        """Read `host/repository:tag` or `host/repository@digest`; raise ValueError if neither."""
        name, at, digest = text.partition("@")
        host, _, path = name.partition("/")
        repository, colon, tag = path.partition(":")
        if not host or not repository or bool(at) == bool(colon) or not (digest or tag):
            raise ValueError(f"{text!r} is not host/repository:tag or host/repository@digest")
        return cls(host, repository, digest or tag)

    def __str__(self) -> str:
        separator = "@" if ":" in self.version else ":"
        return f"{self.host}/{self.repository}{separator}{self.version}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What a registry knows us by."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    """An OAuth2 refresh token; used instead of the password where there is one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A manifest or an index, byte for byte."""

    digest: str
    media_type: str
    content: bytes = field(repr=False)

    def parsed(self) -> Any:
        """Give the JSON tree."""
        return json.loads(self.content)


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """Something to push: bytes in memory, or a file."""

    digest: str
    size: int
    content: bytes | Path = field(repr=False)

    @classmethod
    def of(cls, content: bytes) -> "Blob":
        """Make a blob of bytes."""
        return cls(digest=sha256(content), size=len(content), content=content)

    def read(self, offset: int, length: int) -> bytes:
        """Give a piece of it."""
        if isinstance(self.content, bytes):
            return self.content[offset : offset + length]
        with self.content.open("rb") as file:
            file.seek(offset)
            return file.read(length)


def sha256(content: bytes) -> str:
    """Give the digest as OCI writes it."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def find_credentials(
    host: str, docker_config: Path | None, environment: Mapping[str, str] = os.environ
) -> Credentials | None:
    """Look for credentials: first in the environment, then in a Docker configuration file.

    Raises RegistryError when the file is there and cannot be read.
    """
    username = environment.get("MODELOPS_REGISTRY_USERNAME")
    if username:
        password = environment.get("MODELOPS_REGISTRY_PASSWORD", "")
        return Credentials(username=username, password=password)
    return None if docker_config is None else _docker_credentials(host, docker_config)


def _docker_credentials(host: str, path: Path) -> Credentials | None:
    try:
        entries = json.loads(path.read_text(encoding="utf-8")).get("auths", {})
        for key in (host, f"https://{host}", f"http://{host}"):
            if entry := entries.get(key):
                return _docker_entry(entry)
    except (OSError, ValueError, AttributeError) as error:
        raise RegistryError(
            Failure(
                reason=Reason.IMAGE_REGISTRY_DENIED,
                message=f"cannot read the registry credentials in {path} ({error}); it must be a "
                "config.json as `docker login` writes it",
                permanent=True,
            )
        ) from error
    return None


def _docker_entry(entry: Mapping[str, str]) -> Credentials:
    username, password = entry.get("username", ""), entry.get("password", "")
    if encoded := entry.get("auth"):
        username, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    return Credentials(
        username=username,
        password=password.strip("\0"),
        identity_token=entry.get("identitytoken", ""),
    )


@dataclass(slots=True)
class _Challenge:
    """How the registry wants to be told who we are."""

    scheme: str
    parameters: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    """What is asked of a repository."""

    method: str
    url: str
    repository: str
    reads: str | None = None
    """A second repository that the request reads from."""
    content: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    stream: bool = False
    attempts: int = ATTEMPTS

    @property
    def scopes(self) -> tuple[str, ...]:
        """Give the rights that it needs, as tokens are asked for."""
        pulls = self.method in {"GET", "HEAD"} and "/blobs/uploads/" not in self.url
        scopes = (f"repository:{self.repository}:{'pull' if pulls else 'pull,push'}",)
        return (*scopes, f"repository:{self.reads}:pull") if self.reads else scopes

    def __str__(self) -> str:
        return f"{self.method} {urlsplit(self.url).path}"


class Registry:
    """One registry host. Use it as an asynchronous context manager.

    Every method raises RegistryError when the registry refuses, does not answer, or answers with
    what cannot be understood; transient trouble is tried again first.
    """

    def __init__(
        self,
        host: str,
        *,
        insecure: bool = False,
        credentials: Credentials | None = None,
        ca_bundle: Path | None = None,
        chunk: int = CHUNK,
    ) -> None:
        self.host = host
        self.requests = 0
        """Requests sent so far, those for tokens included."""
        self._origin = f"{'http' if insecure else 'https'}://{_OFFICIAL_NAMES.get(host, host)}"
        self._credentials = credentials
        self._chunk = chunk
        self._slots = asyncio.Semaphore(CONCURRENCY)
        self._challenge: _Challenge | None = None
        self._tokens: dict[tuple[str, ...], tuple[str, float]] = {}
        self._token_locks: dict[tuple[str, ...], asyncio.Lock] = {}
        self._client = httpx.AsyncClient(
            verify=ssl.create_default_context(cafile=ca_bundle) if ca_bundle else True,
            timeout=httpx.Timeout(60, connect=10),
            limits=httpx.Limits(max_connections=2 * CONCURRENCY),
            headers={"user-agent": "modelops-builder"},
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._client.aclose()

    # --- what is there -----------------------------------------------------------------------

    async def has_blob(self, repository: str, digest: str) -> bool:
        """Tell whether a repository has a blob."""
        response = await self._ask("HEAD", self._url(repository, f"blobs/{digest}"), repository)
        return self._found(response, f"look for blob {digest} in {repository}")

    async def has_manifest(self, repository: str, version: str) -> bool:
        """Tell whether a repository has a manifest under a tag or digest."""
        url = self._url(repository, f"manifests/{version}")
        response = await self._ask("HEAD", url, repository, headers={"accept": _ACCEPTED})
        return self._found(response, f"look for {repository}:{version}")

    async def manifest(self, repository: str, version: str) -> Manifest | None:
        """Read a manifest by tag or digest; None when the repository does not have it."""
        url = self._url(repository, f"manifests/{version}")
        response = await self._ask("GET", url, repository, headers={"accept": _ACCEPTED})
        if not self._found(response, f"read {repository}:{version}"):
            return None
        digest = sha256(response.content)
        if version.startswith("sha256:") and version != digest:
            raise self._fault(f"{repository}@{version}: the registry sent a manifest of {digest}")
        media_type = response.headers.get("content-type", MANIFEST).partition(";")[0]
        return Manifest(digest=digest, media_type=media_type, content=response.content)

    async def blob(self, repository: str, digest: str) -> bytes:
        """Read a small blob, such as an image configuration, and check its digest."""
        pieces = []
        size = 0
        async with self._stream(repository, digest, offset=0) as response:
            async for piece in response.aiter_bytes():
                size += len(piece)
                if size > LARGEST_DOCUMENT:
                    raise self._fault(f"{repository}@{digest} is too large for a document")
                pieces.append(piece)
        content = b"".join(pieces)
        if sha256(content) != digest:
            raise self._fault(f"{repository}@{digest}: the registry sent other content")
        return content

    async def download(self, repository: str, digest: str, path: Path) -> None:
        """Write a blob into a file and check its digest; a broken transfer is resumed."""
        hasher = hashlib.sha256()
        offset = 0
        with path.open("wb") as file:
            for attempt in range(ATTEMPTS):
                try:
                    async with self._stream(repository, digest, offset) as response:
                        if offset and response.status_code != httpx.codes.PARTIAL_CONTENT:
                            file.seek(0)
                            hasher, offset = hashlib.sha256(), 0
                        async for piece in response.aiter_bytes():
                            hasher.update(piece)
                            file.write(piece)
                            offset += len(piece)
                    break
                except httpx.TransportError as error:
                    await self._pause_or_give_up(attempt, f"read {repository}@{digest}", error)
            file.truncate()
        if f"sha256:{hasher.hexdigest()}" != digest:
            raise self._fault(f"{repository}@{digest}: the registry sent other content")

    # --- what is made ------------------------------------------------------------------------

    async def push(self, repository: str, blob: Blob) -> None:
        """Upload a blob, whether or not it is there."""
        async with self._slots:
            for attempt in range(ATTEMPTS):
                location = await self._start_upload(repository)
                if await self._upload(repository, location, blob):
                    return
                if await self.has_blob(repository, blob.digest):
                    return  # the answer to the last request was lost, not the request
                await self._pause_or_give_up(attempt, f"push {blob.digest} to {repository}", None)

    async def ensure(self, repository: str, blob: Blob) -> bool:
        """Upload a blob unless it is there; tell whether it had to be sent."""
        if await self.has_blob(repository, blob.digest):
            return False
        await self.push(repository, blob)
        return True

    async def mount(self, repository: str, digest: str, source: str) -> bool:
        """Make a blob of another repository appear in this one, without sending it.

        False when the registry rather wants an upload: it does not have the blob there, or does
        not let us read it.
        """
        url = self._url(repository, f"blobs/uploads/?mount={digest}&from={source}")
        async with self._slots:
            response = await self._ask("POST", url, repository, reads=source)
        if response.status_code == httpx.codes.ACCEPTED:
            # The registry has begun an upload instead; an abandoned one would linger for a week.
            location = self._location(response)
            await self._ask("DELETE", location, repository)
            return False
        self._check(response, f"mount {digest} from {source} into {repository}")
        return True

    async def put_manifest(
        self, repository: str, version: str, content: bytes, media_type: str = MANIFEST
    ) -> str:
        """Store a manifest under a tag or digest and give its digest."""
        url = self._url(repository, f"manifests/{version}")
        headers = {"content-type": media_type}
        response = await self._ask("PUT", url, repository, content=content, headers=headers)
        self._check(response, f"push manifest {repository}:{version}")
        return sha256(content)

    # --- uploads -----------------------------------------------------------------------------

    async def _start_upload(self, repository: str) -> str:
        url = self._url(repository, "blobs/uploads/")
        response = await self._ask("POST", url, repository)
        self._check(response, f"start an upload to {repository}")
        return self._location(response)

    async def _upload(self, repository: str, location: str, blob: Blob) -> bool:
        """Send a blob to where the registry wants it; False when the upload must start anew."""
        offset = 0
        cuts = 0
        while blob.size - offset > self._chunk or 0 < offset < blob.size:
            moved = await self._send_piece(repository, location, blob, offset)
            if moved is None:
                return False
            cuts = 0 if moved[1] > offset else cuts + 1
            if cuts == ATTEMPTS:
                return False
            location, offset = moved
        request = _Request(
            method="PUT",
            url=f"{location}{'&' if '?' in location else '?'}digest={blob.digest}",
            repository=repository,
            content=blob.read(0, blob.size) if offset == 0 else b"",
            headers={"content-type": _OCTETS},
            attempts=1,
        )
        response = await self._broken_or(request)
        if response is None or response.status_code in _UPLOAD_IS_LOST:
            return False
        self._check(response, f"push {blob.digest} to {repository}")
        return True

    async def _send_piece(
        self, repository: str, location: str, blob: Blob, offset: int
    ) -> tuple[str, int] | None:
        """Send one piece; give the next location and offset, or None to start anew."""
        piece = await asyncio.to_thread(blob.read, offset, self._chunk)
        request = _Request(
            method="PATCH",
            url=location,
            repository=repository,
            content=piece,
            # No unit `bytes` in the range: so the protocol says, and Azure insists.
            headers={
                "content-type": _OCTETS,
                "content-range": f"{offset}-{offset + len(piece) - 1}",
            },
            attempts=1,
        )
        response = await self._broken_or(request)
        if response is None or response.status_code in _UPLOAD_IS_LOST:
            return await self._resume(repository, location)
        self._check(response, f"push a piece of {blob.digest} to {repository}")
        return self._location(response), offset + len(piece)

    async def _broken_or(self, request: _Request) -> httpx.Response | None:
        """Send once; None when the connection broke or the registry had a fault."""
        try:
            return await self._send(request)
        except RegistryError as error:
            if error.failure.permanent:
                raise
            return None

    async def _resume(self, repository: str, location: str) -> tuple[str, int] | None:
        """Ask how much of a broken upload has arrived."""
        await asyncio.sleep(_pause(0))
        response = await self._ask("GET", location, repository)
        if response.status_code != httpx.codes.NO_CONTENT:
            return None
        last = re.fullmatch(r"(?:bytes=)?0-(\d+)", response.headers.get("range", ""))
        # A registry writes 0-0 both for one byte and for none; none is what a cut leaves.
        arrived = int(last[1]) + 1 if last and last[1] != "0" else 0
        return self._location(response), arrived

    # --- requests ----------------------------------------------------------------------------

    def _url(self, repository: str, rest: str) -> str:
        return f"{self._origin}/v2/{repository}/{rest}"

    def _location(self, response: httpx.Response) -> str:
        location = response.headers.get("location", "")
        if not location:
            raise self._fault("the registry began an upload without saying where")
        return str(response.request.url.join(location))

    @asynccontextmanager
    async def _stream(
        self, repository: str, digest: str, offset: int
    ) -> AsyncIterator[httpx.Response]:
        headers = {"range": f"bytes={offset}-"} if offset else {}
        url = self._url(repository, f"blobs/{digest}")
        async with self._slots:
            response = await self._ask("GET", url, repository, headers=headers, stream=True)
            try:
                if response.is_error:
                    await response.aread()
                self._check(response, f"read {repository}@{digest}")
                yield response
            finally:
                await response.aclose()

    async def _ask(self, method: str, url: str, repository: str, **rest: Any) -> httpx.Response:
        return await self._send(_Request(method=method, url=url, repository=repository, **rest))

    async def _send(self, request: _Request) -> httpx.Response:
        """Send until the answer is anything but overload or a fault; it is not checked further."""
        for attempt in range(request.attempts):
            last = attempt == request.attempts - 1
            try:
                response = await self._authorized(request)
            except httpx.TransportError as error:
                if last:
                    raise self._unreachable(str(request), error) from error
                await asyncio.sleep(_pause(attempt))
                continue
            if not _overloaded(response):
                return response
            await response.aread()
            if last:
                raise self._refused(response, str(request))
            await asyncio.sleep(_pause(attempt, response.headers.get("retry-after")))
        raise AssertionError("unreachable: the loop returns or raises")

    async def _authorized(self, request: _Request) -> httpx.Response:
        """Send once, and once more with a (new) token when the registry asks who we are."""
        response = await self._redirected(request)
        if response.status_code != httpx.codes.UNAUTHORIZED:
            return response
        await response.aread()
        challenge = _challenge(response.headers.get("www-authenticate", ""))
        if challenge is None or (challenge.scheme == "basic" and self._challenge is not None):
            return response
        self._challenge = challenge
        self._tokens.pop(request.scopes, None)
        return await self._redirected(request)

    async def _redirected(self, request: _Request) -> httpx.Response:
        """Send and follow redirects by hand: only the registry itself may see our credentials."""
        url = request.url
        for _ in range(ATTEMPTS):
            headers = dict(request.headers)
            if _same_origin(url, self._origin):
                headers |= await self._authorization(request.scopes)
            message = self._client.build_request(
                request.method, url, content=request.content, headers=headers
            )
            self.requests += 1
            response = await self._client.send(message, stream=request.stream)
            if not response.has_redirect_location:
                return response
            await response.aclose()
            url = urljoin(url, response.headers["location"])
        raise self._fault(f"{request}: redirected too often")

    # --- who we are --------------------------------------------------------------------------

    async def _authorization(self, scopes: tuple[str, ...]) -> dict[str, str]:
        if self._challenge is None:
            return {}
        if self._challenge.scheme == "basic":
            return _basic(self._credentials)
        lock = self._token_locks.setdefault(scopes, asyncio.Lock())
        async with lock:  # one request for a token, however many blobs wait for it
            token, expires = self._tokens.get(scopes, ("", 0.0))
            if time.monotonic() >= expires:
                token, expires = await self._fetch_token(self._challenge, scopes)
                self._tokens[scopes] = token, expires
        return {"authorization": f"Bearer {token}"}

    async def _fetch_token(
        self, challenge: _Challenge, scopes: tuple[str, ...]
    ) -> tuple[str, float]:
        realm = challenge.parameters.get("realm", "")
        service = challenge.parameters.get("service", "")
        if not realm.startswith(("https://", "http://")):
            raise self._fault(f"the registry sends us for a token to {realm!r}")
        if realm.startswith("http://") and self._origin.startswith("https://"):
            raise self._fault(f"the registry sends us for a token to {realm}, without encryption")
        self.requests += 1
        try:
            response = await self._ask_for_token(realm, service, scopes)
        except httpx.TransportError as error:
            raise self._unreachable(f"get a token from {realm}", error) from error
        if response.is_error:
            raise self._refused(response, f"get a token from {realm}")
        answer = response.json()
        token = answer.get("token") or answer.get("access_token")
        if not token:
            raise self._fault(f"{realm} answered without a token")
        # A minute at least, as the specification has it; renewed a little before the end.
        return token, time.monotonic() + max(60, int(answer.get("expires_in") or 60)) * 0.8

    async def _ask_for_token(
        self, realm: str, service: str, scopes: Iterable[str]
    ) -> httpx.Response:
        credentials = self._credentials
        if credentials and credentials.identity_token:
            form = {
                "grant_type": "refresh_token",
                "service": service,
                "scope": " ".join(scopes),
                "refresh_token": credentials.identity_token,
            }
            return await self._client.post(realm, data=form)
        query = {"service": service, "scope": list(scopes)}
        return await self._client.get(realm, params=query, headers=_basic(credentials))

    # --- errors ------------------------------------------------------------------------------

    def _found(self, response: httpx.Response, what: str) -> bool:
        if response.status_code == httpx.codes.NOT_FOUND:
            return False
        self._check(response, what)
        return True

    def _check(self, response: httpx.Response, what: str) -> None:
        if response.is_error:
            raise self._refused(response, what)

    def _refused(self, response: httpx.Response, what: str) -> RegistryError:
        status = response.status_code
        said = _complaint(response)
        if status in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}:
            way_out = (
                f"check that the credentials of {self.host} are right and may do this"
                if self._credentials
                else f"no credentials are configured for {self.host}; give the builder some"
            )
            return self._error(
                Reason.IMAGE_REGISTRY_DENIED, f"{what}: {said}; {way_out}", status, permanent=True
            )
        if _overloaded(response):
            return self._error(
                Reason.IMAGE_REGISTRY_UNREACHABLE, f"{what}: {said}; it is tried again", status
            )
        return self._error(
            Reason.IMAGE_REGISTRY_DENIED,
            f"{what}: {said}; check the repository's name, limits and policies",
            status,
            permanent=True,
        )

    def _unreachable(self, what: str, error: Exception) -> RegistryError:
        cause = str(error) or type(error).__name__
        message = (
            f"{what}: no answer ({cause}); check that {self._origin} is reachable from the builder"
        )
        return self._error(Reason.IMAGE_REGISTRY_UNREACHABLE, message, None)

    def _fault(self, message: str) -> RegistryError:
        return self._error(Reason.IMAGE_REGISTRY_UNREACHABLE, message, None)

    def _error(
        self, reason: Reason, message: str, status: int | None, *, permanent: bool = False
    ) -> RegistryError:
        text = f"registry {self.host}: {message}"
        return RegistryError(
            Failure(reason=reason, message=text, permanent=permanent), status=status
        )

    async def _pause_or_give_up(self, attempt: int, what: str, error: Exception | None) -> None:
        if attempt == ATTEMPTS - 1:
            raise self._unreachable(what, error or ConnectionError("the upload breaks every time"))
        await asyncio.sleep(_pause(attempt))


def _pause(attempt: int, retry_after: str | None = None) -> float:
    """Seconds before the next attempt: what the registry asks for, or doubling with jitter."""
    if retry_after and retry_after.isdigit():
        return min(float(retry_after), LONGEST_PAUSE)
    spread = random.uniform(0.5, 1.5)  # noqa: S311 (jitter is no secret)
    return min(0.2 * float(2**attempt) * spread, LONGEST_PAUSE)


def _overloaded(response: httpx.Response) -> bool:
    return (
        response.status_code == httpx.codes.TOO_MANY_REQUESTS
        or response.status_code >= httpx.codes.INTERNAL_SERVER_ERROR
    )


def _same_origin(url: str, origin: str) -> bool:
    return urlsplit(url)[:2] == urlsplit(origin)[:2]


def _basic(credentials: Credentials | None) -> dict[str, str]:
    if credentials is None:
        return {}
    pair = f"{credentials.username}:{credentials.password}".encode()
    return {"authorization": f"Basic {base64.b64encode(pair).decode()}"}


def _challenge(header: str) -> _Challenge | None:
    scheme, _, rest = header.partition(" ")
    if scheme.lower() not in {"basic", "bearer"}:
        return None
    return _Challenge(scheme.lower(), dict(re.findall(r'(\w+)="([^"]*)"', rest)))


def _complaint(response: httpx.Response) -> str:
    """Give the status and what the registry said about it, in one short line."""
    try:
        errors = response.json().get("errors") or [{}]
        said = f"{errors[0].get('code', '')} {errors[0].get('message', '')}".strip()
    except (ValueError, AttributeError, LookupError, TypeError, httpx.ResponseNotRead):
        said = ""
    return f"{response.status_code} {said or response.reason_phrase}"[:300]
