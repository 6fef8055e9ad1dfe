"""A client of OCI registries: what building images needs of the distribution protocol.

It is our own because each library at hand lacks something that decides the builder's speed or
memory: a HEAD, a mount across repositories, uploads in pieces, or tokens that are kept. One
`Registry` speaks with one host. Blobs go up in pieces that can be resumed; whole files never sit in
memory. Errors are `RegistryError`, which carries a `Failure` for people. Who we are is said by
`registry_auth`.
"""

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urljoin, urlsplit

import httpx

from modelops_operator.adapters.http_client import http_client
from modelops_operator.adapters.registry_auth import Authorization, Scopes, same_origin
from modelops_operator.adapters.registry_credentials import CredentialSource, anonymous
from modelops_operator.adapters.registry_errors import RegistryError, RegistryErrors
from modelops_operator.adapters.registry_retry import ATTEMPTS, insist, pause
from modelops_operator.api.reasons import Reason

CHUNK: Final = 16 * 1024 * 1024
"""Bytes per PATCH: Azure refuses bodies above about 20 MB."""
_READ: Final = 1024 * 1024
"""Bytes of a blob in memory, for each that is under way."""
LARGEST_DOCUMENT: Final = 8 * 1024 * 1024
"""Bytes of a manifest or an image configuration that are read into memory."""
_GLANCE: Final = 0.02
"""Seconds between two looks at a file that grows."""
_PAGE: Final = 1000
"""Names in one answer of a list."""
CONCURRENCY: Final = 8
"""Blobs under way at the same time."""
MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
INDEX: Final = "application/vnd.oci.image.index.v1+json"
_ACCEPTED: Final = (
    f"{MANIFEST}, {INDEX}, application/vnd.docker.distribution.manifest.v2+json, "
    "application/vnd.docker.distribution.manifest.list.v2+json"
)
_OCTETS: Final = "application/octet-stream"
_CANNOT_MOUNT: Final = {
    httpx.codes.UNAUTHORIZED,
    httpx.codes.FORBIDDEN,
    httpx.codes.NOT_FOUND,
}
"""An upload needs fewer rights than a mount; whether ours suffice for it, it will find out."""
_OFFICIAL_NAMES: Final = {"docker.io": "registry-1.docker.io"}
"""Registries that answer under another name than the one people write."""


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


@dataclass(frozen=True, slots=True)
class _Piece:
    """A part of a blob as the body of a request, read while it is sent."""

    blob: Blob
    offset: int
    length: int

    async def __aiter__(self) -> AsyncIterator[bytes]:
        end = self.offset + self.length
        for begin in range(self.offset, end, _READ):
            yield await asyncio.to_thread(self.blob.read, begin, min(_READ, end - begin))


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def sha256(content: bytes) -> str:
    """Give the digest as OCI writes it."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    """What is asked of a repository."""

    method: str
    url: str
    repository: str
    """Empty for what is asked of the registry as a whole."""
    reads: str | None = None
    """A second repository that the request reads from."""
    content: bytes | _Piece | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    stream: bool = False
    attempts: int = ATTEMPTS

    @property
    def scopes(self) -> Scopes:
        """Give the rights that it needs, as tokens are asked for."""
        pulls = self.method in {"GET", "HEAD"} and "/blobs/uploads/" not in self.url
        if not self.repository:
            return ("registry:catalog:*",)
        actions = "delete" if self.method == "DELETE" else "pull" if pulls else "pull,push"
        scopes = (f"repository:{self.repository}:{actions}",)
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
        credentials: CredentialSource | None = None,
        ca_bundle: Path | None = None,
        chunk: int = CHUNK,
    ) -> None:
        self.host = host
        self.locks = None
        """The distribution protocol has none."""
        self._requests = 0
        self._origin = f"{'http' if insecure else 'https'}://{_OFFICIAL_NAMES.get(host, host)}"
        self._chunk = chunk
        self._slots = asyncio.Semaphore(CONCURRENCY)
        self._client = http_client(ca_bundle, connections=2 * CONCURRENCY)
        source = credentials or anonymous(host)
        self._errors = RegistryErrors(host, source.advice)
        self._authorization = Authorization(self._origin, self._client, source, self._errors)

    @property
    def requests(self) -> int:
        """Requests sent so far, those for tokens included."""
        return self._requests + self._authorization.requests

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

    async def referrers(self, repository: str, digest: str) -> Sequence[Mapping[str, Any]] | None:
        """Give descriptors of what names a manifest as its subject.

        None when the registry does not find such by itself.
        """
        url = self._url(repository, f"referrers/{digest}")
        response = await self._ask("GET", url, repository)
        if not self._found(response, f"look for what refers to {repository}@{digest}"):
            return None
        try:
            found: Sequence[Mapping[str, Any]] = response.json()["manifests"]
        except (ValueError, LookupError, TypeError) as error:
            raise self._errors.fault(
                f"what refers to {repository}@{digest} cannot be understood ({error!r})"
            ) from error
        return found

    async def manifest(self, repository: str, version: str) -> Manifest | None:
        """Read a manifest by tag or digest; None when the repository does not have it."""
        url = self._url(repository, f"manifests/{version}")
        response = await self._ask("GET", url, repository, headers={"accept": _ACCEPTED})
        if not self._found(response, f"read {repository}:{version}"):
            return None
        digest = sha256(response.content)
        if version.startswith("sha256:") and version != digest:
            raise self._errors.damaged(
                f"{repository}@{version}: the registry sent a manifest of {digest}"
            )
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
                    raise self._errors.fault(f"{repository}@{digest} is too large for a document")
                pieces.append(piece)
        content = b"".join(pieces)
        if sha256(content) != digest:
            raise self._errors.damaged(f"{repository}@{digest}: the registry sent other content")
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
            raise self._errors.damaged(f"{repository}@{digest}: the registry sent other content")

    async def repositories(self) -> Sequence[str]:
        """List the repositories that we may see."""
        url = f"{self._origin}/v2/_catalog?n={_PAGE}"
        return await self._pages(url, "", "repositories", "list the repositories")

    async def tags(self, repository: str) -> Sequence[str]:
        """List a repository's tags; none where there is no such repository."""
        url = self._url(repository, f"tags/list?n={_PAGE}")
        return await self._pages(url, repository, "tags", f"list the tags of {repository}")

    async def _pages(self, url: str, repository: str, field_name: str, what: str) -> Sequence[str]:
        found: list[str] = []
        following: str | None = url
        while following:
            response = await self._ask("GET", following, repository)
            if not self._found(response, what):
                break
            try:
                # A repository that has no tags any more has null.
                found += response.json()[field_name] or ()
            except (ValueError, LookupError, TypeError) as error:
                raise self._errors.fault(f"{what}: not understood ({error!r})") from error
            link = response.links.get("next", {}).get("url")
            following = urljoin(str(response.request.url), link) if link else None
        return found

    # --- what is made ------------------------------------------------------------------------

    async def push(self, repository: str, blob: Blob) -> None:
        """Upload a blob, whether or not it is there."""
        async with self._slots:
            for attempt in range(ATTEMPTS):
                try:
                    await self._upload(repository, blob)
                except RegistryError as error:
                    if error.failure.permanent:
                        raise
                    if await self.has_blob(repository, blob.digest):
                        return  # the answer to the last request was lost, not the request
                    if attempt == ATTEMPTS - 1:
                        raise
                    await asyncio.sleep(pause(attempt))
                else:
                    return

    async def ensure(self, repository: str, blob: Blob) -> bool:
        """Upload a blob unless it is there; tell whether it had to be sent."""
        try:
            if await self.has_blob(repository, blob.digest):
                return False
        except RegistryError as error:
            # Distribution 2 answers 500 for ever where two writers have torn its link to a blob.
            if error.status != httpx.codes.INTERNAL_SERVER_ERROR:
                raise
        await self.push(repository, blob)
        return True

    async def push_growing(self, repository: str, path: Path, written: Awaitable[Blob]) -> Blob:
        """Upload a file while somebody writes it, and give the blob that came of it.

        A registry need not know a digest before the end. Where something goes wrong on the way, the
        file is uploaded once it is complete.
        """
        writing = asyncio.ensure_future(written)
        try:
            async with self._slots:
                begun = await self._follow(repository, path, writing)
                blob = await writing
                await self._upload(repository, blob, begun)
        except RegistryError as error:
            if error.failure.permanent:
                raise
            blob = await writing
            await self.push(repository, blob)
        finally:
            writing.cancel()
        return blob

    async def _follow(
        self, repository: str, path: Path, writing: asyncio.Future[Blob]
    ) -> tuple[str, int]:
        """Send whole pieces of a file until it is complete; give the next location and offset."""
        location, offset = await self._start_upload(repository), 0
        while not writing.done():
            size = await asyncio.to_thread(_size, path)
            if size - offset > self._chunk:
                blob = Blob(digest=str(path), size=size, content=path)
                location, offset = await self._send_piece(repository, location, blob, offset)
            else:
                await asyncio.wait({writing}, timeout=_GLANCE)
        return location, offset

    async def mount(self, repository: str, digest: str, source: str) -> bool:
        """Make a blob of another repository appear in this one, without sending it.

        False when the registry rather wants an upload: it does not have the blob there, or does
        not let us read it.
        """
        url = self._url(repository, f"blobs/uploads/?mount={digest}&from={source}")
        async with self._slots:
            response = await self._ask("POST", url, repository, reads=source)
        if response.status_code in _CANNOT_MOUNT:
            return False
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
        digest = sha256(content)
        if response.is_error:
            error = self._errors.refused(response, f"push manifest {repository}:{version}")
            locked = error.failure.reason == Reason.IMAGE_TAG_LOCKED
            # A tag that cannot be written and says what it should is as good as written.
            if not locked or await self._digest(repository, version) != digest:
                raise error
        return digest

    async def delete_manifest(self, repository: str, digest: str) -> None:
        """Delete a manifest with all of its tags; that it is gone already is no error."""
        response = await self._ask(
            "DELETE", self._url(repository, f"manifests/{digest}"), repository
        )
        self._found(response, f"delete {repository}@{digest}")

    async def _digest(self, repository: str, version: str) -> str | None:
        manifest = await self.manifest(repository, version)
        return manifest.digest if manifest else None

    # --- uploads -----------------------------------------------------------------------------

    async def _start_upload(self, repository: str) -> str:
        url = self._url(repository, "blobs/uploads/")
        response = await self._ask("POST", url, repository)
        self._check(response, f"start an upload to {repository}")
        return self._location(response)

    async def _upload(
        self, repository: str, blob: Blob, begun: tuple[str, int] | None = None
    ) -> None:
        """Send a blob; raise a RegistryError that is not permanent when to start anew.

        `begun` is the location and the offset of an upload that is under way.
        """
        location, offset = begun or (await self._start_upload(repository), 0)
        standstills = 0
        while blob.size - offset > self._chunk or 0 < offset < blob.size:
            before = offset
            location, offset = await self._send_piece(repository, location, blob, offset)
            standstills = 0 if offset > before else standstills + 1
            if standstills == ATTEMPTS:
                raise self._errors.fault(f"the upload of {blob.digest} does not get on")
        request = _Request(
            method="PUT",
            url=f"{location}{'&' if '?' in location else '?'}digest={blob.digest}",
            repository=repository,
            content=_Piece(blob, 0, blob.size) if offset == 0 else b"",
            headers={"content-type": _OCTETS},
            # A whole blob is not sent into an upload that may have half of it.
            attempts=1 if offset == 0 else ATTEMPTS,
        )
        self._check_upload(await self._send(request), f"push {blob.digest} to {repository}")

    async def _send_piece(
        self, repository: str, location: str, blob: Blob, offset: int
    ) -> tuple[str, int]:
        """Send one piece, or find out how much of it has arrived; give next location and offset."""
        length = min(self._chunk, blob.size - offset)
        request = _Request(
            method="PATCH",
            url=location,
            repository=repository,
            content=_Piece(blob, offset, length),
            # No unit `bytes` in the range: so the protocol says, and Azure insists.
            headers={
                "content-type": _OCTETS,
                "content-range": f"{offset}-{offset + length - 1}",
            },
            attempts=1,
        )
        try:
            response = await self._send(request)
            self._check_upload(response, f"push a piece of {blob.digest} to {repository}")
        except RegistryError as error:
            if error.failure.permanent:
                raise
            return await self._resume(repository, location, error)
        return self._location(response), offset + length

    def _check_upload(self, response: httpx.Response, what: str) -> None:
        if response.status_code == httpx.codes.NOT_FOUND:
            raise self._errors.fault(f"{what}: the registry has forgotten the upload")
        self._check(response, what)

    async def _resume(
        self, repository: str, location: str, trouble: RegistryError
    ) -> tuple[str, int]:
        """Ask how much of a broken upload has arrived; raise its trouble when that is unknown."""
        await asyncio.sleep(pause(0))
        response = await self._ask("GET", location, repository)
        if response.status_code != httpx.codes.NO_CONTENT:
            raise trouble
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
            raise self._errors.fault("the registry began an upload without saying where")
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
        return await insist(
            lambda: self._authorized(request),
            str(request),
            self._errors,
            attempts=request.attempts,
        )

    async def _authorized(self, request: _Request) -> httpx.Response:
        """Send once, and once more with a (new) token when the registry asks who we are."""
        response = await self._redirected(request)
        if response.status_code != httpx.codes.UNAUTHORIZED:
            return response
        await response.aread()
        # Where we were redirected to, nobody may ask for what the registry knows us by.
        asked = same_origin(str(response.request.url), self._origin)
        if asked and self._authorization.challenged(response, request.scopes):
            return await self._redirected(request)
        return response

    async def _redirected(self, request: _Request) -> httpx.Response:
        """Send and follow redirects by hand: only the registry itself may see our credentials."""
        url = request.url
        for _ in range(ATTEMPTS):
            headers = dict(request.headers)
            if isinstance(request.content, _Piece):
                headers["content-length"] = str(request.content.length)
            if same_origin(url, self._origin):
                headers |= await self._authorization.headers(request.repository, request.scopes)
            message = self._client.build_request(
                request.method, url, content=request.content, headers=headers
            )
            self._requests += 1
            response = await self._client.send(message, stream=request.stream)
            if not response.has_redirect_location:
                return response
            await response.aclose()
            url = urljoin(url, response.headers["location"])
            if url.startswith("http://") and self._origin.startswith("https://"):
                raise self._errors.fault(f"{request}: redirected to {url}, without encryption")
        raise self._errors.fault(f"{request}: redirected too often")

    # --- errors ------------------------------------------------------------------------------

    def _found(self, response: httpx.Response, what: str) -> bool:
        if response.status_code == httpx.codes.NOT_FOUND:
            return False
        self._check(response, what)
        return True

    def _check(self, response: httpx.Response, what: str) -> None:
        if response.is_error:
            raise self._errors.refused(response, what)

    async def _pause_or_give_up(self, attempt: int, what: str, error: Exception | None) -> None:
        if attempt == ATTEMPTS - 1:
            cause = error or ConnectionError("the upload breaks every time")
            raise self._errors.unreachable(what, cause)
        await asyncio.sleep(pause(attempt))
