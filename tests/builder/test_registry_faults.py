"""What goes wrong between the builder and a real registry, and what a person is told of it."""

import asyncio
import os
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from aiohttp import web
from modelops_operator.adapters import oci
from modelops_operator.adapters.oci import Blob, Registry
from modelops_operator.adapters.registry_credentials import basic
from modelops_operator.adapters.registry_errors import RegistryError

from tests.registries.proxy import proxied

pytestmark = [pytest.mark.contract, pytest.mark.anyio]

SMALLEST = (
    b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",'
    b'"config":{"mediaType":"application/vnd.oci.image.config.v1+json",'
    b'"digest":"%s","size":2},"layers":[]}' % oci.sha256(b"{}").encode()
)


def blob_of(size: int) -> Blob:
    return Blob.of(os.urandom(size))


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Take no time for pauses, and keep account of them."""
    taken: list[float] = []

    sleep = asyncio.sleep

    async def skip(seconds: float) -> None:
        if seconds:  # nothing is what the test's own servers let others run by
            taken.append(seconds)
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", skip)
    return taken


def refusing(
    method: str, part: str, status: int, *, times: int = 1, body: Any = None, **headers: str
) -> Callable[[web.Request, bytes], Awaitable[web.Response | None]]:
    """Refuse the first requests of a kind, after reading them."""
    left = Counter(requests=times)

    async def rule(request: web.Request, _body: bytes) -> web.Response | None:
        if request.method != method or part not in request.path or not left["requests"]:
            return None
        left["requests"] -= 1
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.json_response(body or {}, status=status, headers=names)

    return rule


def complaining(code: str, message: str) -> dict[str, Any]:
    return {"errors": [{"code": code, "message": message}]}


# --- what gets better ------------------------------------------------------------------------


@pytest.mark.parametrize("status", [500, 502, 503, 504, 429, 416, 404])
@pytest.mark.parametrize("method", ["POST", "PATCH", "PUT"])
@pytest.mark.usefixtures("pauses")
async def test_an_upload_survives_one_refusal(registry: Any, method: str, status: int) -> None:
    if method == "POST" and status in {404, 416}:
        return  # says that there is no such repository, or nothing at all
    blob = blob_of(3500)
    rule = refusing(method, "/blobs/uploads/", status)
    async with (
        proxied(f"http://{registry.host}", rule) as proxy,
        Registry(proxy.host, insecure=True, chunk=1000) as client,
    ):
        await client.push("f/survives", blob)
        assert await client.blob("f/survives", blob.digest) == blob.content


async def test_a_piece_that_arrived_is_not_sent_twice(registry: Any, pauses: list[float]) -> None:
    """The registry takes the second piece and its answer is lost."""
    pieces: list[str] = []
    answers: list[web.Response] = []

    async def lose(request: web.Request, body: bytes) -> web.Response | None:
        if request.method == "GET" and "/uploads/" in request.path:
            # Unlike others, this registry holds on to an address that has the old offset in it.
            return web.Response(status=204, headers=answers[-1].headers)
        if request.method != "PATCH":
            return None
        pieces.append(request.headers["content-range"])
        answers.append(await proxy.pass_on(request, body))
        return web.Response(status=502) if len(pieces) == 2 else answers[-1]

    blob = blob_of(3500)
    async with (
        proxied(f"http://{registry.host}", lose) as proxy,
        Registry(proxy.host, insecure=True, chunk=1000) as client,
    ):
        await client.push("f/once", blob)
    assert pieces == ["0-999", "1000-1999", "2000-2999", "3000-3499"]
    assert len(pauses) == 1


@pytest.mark.usefixtures("pauses")
async def test_a_piece_that_did_not_arrive_is_sent_again_and_no_other(registry: Any) -> None:
    pieces: list[str] = []

    async def refuse(request: web.Request, _body: bytes) -> web.Response | None:
        if request.method != "PATCH":
            return None
        pieces.append(request.headers["content-range"])
        return web.Response(status=502) if len(pieces) == 2 else None

    async with (
        proxied(f"http://{registry.host}", refuse) as proxy,
        Registry(proxy.host, insecure=True, chunk=1000) as client,
    ):
        await client.push("f/again", blob_of(2500))
    assert pieces == ["0-999", "1000-1999", "1000-1999", "2000-2499"]


@pytest.mark.parametrize("method", ["HEAD", "POST", "PATCH", "PUT"])
async def test_retry_after_is_honoured(registry: Any, method: str, pauses: list[float]) -> None:
    rule = refusing(method, "/blobs/", 429, times=2, retry_after="7")
    async with (
        proxied(f"http://{registry.host}", rule) as proxy,
        Registry(proxy.host, insecure=True, chunk=1000) as client,
    ):
        await client.ensure("f/slowly", blob_of(1500))
    assert pauses == [7.0, 7.0]


async def test_retry_after_may_be_a_date(registry: Any, pauses: list[float]) -> None:
    moment = format_datetime(datetime.now(UTC) + timedelta(seconds=50), usegmt=True)
    rule = refusing("HEAD", "/blobs/", 503, retry_after=moment)
    async with (
        proxied(f"http://{registry.host}", rule) as proxy,
        Registry(proxy.host, insecure=True) as client,
    ):
        await client.has_blob("f/slowly", blob_of(1).digest)
    assert len(pauses) == 1
    assert 0 < pauses[0] <= 50


async def test_whoever_wants_peace_for_long_is_left_to_the_next_build(
    registry: Any, pauses: list[float]
) -> None:
    rule = refusing("HEAD", "/blobs/", 429, retry_after="3600")
    async with (
        proxied(f"http://{registry.host}", rule) as proxy,
        Registry(proxy.host, insecure=True) as client,
    ):
        with pytest.raises(RegistryError, match="429") as caught:
            await client.has_blob("f/slowly", blob_of(1).digest)
    assert not caught.value.failure.permanent
    assert pauses == []
    assert len(proxy.seen) == 1


# --- what does not ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "body", "reason", "way_out"),
    [
        (401, {}, "ImageRegistryDenied", "no credentials are configured"),
        (403, complaining("DENIED", "denied"), "ImageRegistryDenied", "no credentials"),
        (404, complaining("NAME_UNKNOWN", "no project"), "ImageRepositoryNotFound", "create the"),
        (413, {}, "ImageTooLarge", "client_max_body_size"),
        (
            403,
            complaining("DENIED", "adding 1 GiB of storage resource will exceed the upper limit"),
            "ImageRegistryFull",
            "raise the quota",
        ),
        (403, complaining("DENIED", "quota exceeded"), "ImageRegistryFull", "delete images"),
        (507, {}, "ImageRegistryFull", "delete images"),
        (400, complaining("NAME_INVALID", "bad name"), "ImageRegistryDenied", "repository's name"),
    ],
)
async def test_what_a_person_must_mend_is_told_at_once(
    registry: Any, status: int, body: Any, reason: str, way_out: str
) -> None:
    rule = refusing("POST", "/blobs/uploads/", status, body=body)
    async with (
        proxied(f"http://{registry.host}", rule) as proxy,
        Registry(proxy.host, insecure=True) as client,
    ):
        with pytest.raises(RegistryError, match=way_out) as caught:
            await client.push("f/refused", blob_of(100))
    assert (caught.value.failure.reason, caught.value.status) == (reason, status)
    assert caught.value.failure.permanent
    assert len(proxy.seen) == 1


async def test_pieces_that_are_too_large_are_told(registry: Any) -> None:
    rule = refusing("PATCH", "/blobs/uploads/", 413)
    async with (
        proxied(f"http://{registry.host}", rule) as proxy,
        Registry(proxy.host, insecure=True, chunk=1000) as client,
    ):
        with pytest.raises(RegistryError, match="client_max_body_size"):
            await client.push("f/refused", blob_of(1500))
    assert proxy.count("PATCH", "/uploads/") == 1


@pytest.mark.usefixtures("pauses")
async def test_content_that_changes_on_its_way_is_sent_again_and_then_told(registry: Any) -> None:
    """The registry itself finds that the digest is another."""
    blob = blob_of(100)
    damaged = Blob(digest=blob.digest, size=100, content=bytes(100))
    async with registry.connect() as client:
        with pytest.raises(RegistryError, match="DIGEST_INVALID") as caught:
            await client.push("f/damaged", damaged)
        assert not await client.has_blob("f/damaged", blob.digest)
    assert caught.value.failure.reason == "ImageDamaged"
    assert not caught.value.failure.permanent


@pytest.mark.parametrize(
    "message", ["the tag is immutable", "The operation is disallowed on this repository"]
)
async def test_a_locked_tag_is_told_unless_it_says_the_same(registry: Any, message: str) -> None:
    rule = refusing("PUT", "/manifests/", 403, body=complaining("DENIED", message), times=2)
    async with (
        proxied(f"http://{registry.host}", rule) as proxy,
        Registry(proxy.host, insecure=True) as client,
    ):
        version = f"v{len(message)}"
        await client.push("f/locked", Blob.of(b"{}"))
        with pytest.raises(RegistryError, match="unlock the repository or the tag") as caught:
            await client.put_manifest("f/locked", version, SMALLEST)
        async with registry.connect() as direct:
            await direct.put_manifest("f/locked", version, SMALLEST)
        assert await client.put_manifest("f/locked", version, SMALLEST) == oci.sha256(SMALLEST)
    assert caught.value.failure.reason == "ImageTagLocked"
    assert caught.value.failure.permanent


# --- redirects -------------------------------------------------------------------------------


async def test_only_the_registry_itself_sees_who_we_are(guarded: Any) -> None:
    """Uploads and downloads are sent to another host, which asks for our password."""
    store: dict[str, bytes] = {}

    async def hold(request: web.Request, body: bytes) -> web.Response:
        if request.method == "GET" and not request.headers.get("x-asked") and "ask" in request.path:
            return web.Response(status=401, headers={"www-authenticate": 'Basic realm="mine"'})
        store[request.method] = body
        return web.Response(status=201 if request.method == "PUT" else 200, body=b"content")

    async def redirect(request: web.Request, _body: bytes) -> web.Response | None:
        known = "authorization" in request.headers
        if known and (request.method == "PUT" or "/blobs/sha256:" in request.path):
            where = "ask" if "/ask/" in request.path else "take"
            return web.Response(status=307, headers={"location": f"{other.origin}/{where}"})
        return None

    blob = Blob.of(b"content")
    credentials = basic(guarded.host, "builder", "secret")
    async with (
        proxied("", hold) as other,
        proxied(f"http://{guarded.host}", redirect) as proxy,
        Registry(proxy.host, insecure=True, credentials=credentials) as client,
    ):
        await client.push("f/away", blob)
        assert store["PUT"] == b"content"
        assert await client.blob("f/away", blob.digest) == b"content"
        with pytest.raises(RegistryError, match="401"):
            await client.blob("f/ask/x", blob.digest)
    assert proxy.count("PUT", "/f/away/") == 1
    assert other.seen
    assert not [headers for _, _, headers in other.seen if "authorization" in headers]


async def test_redirects_without_end_are_told() -> None:
    async def turn(request: web.Request, _body: bytes) -> web.Response:
        return web.Response(status=307, headers={"location": str(request.url)})

    async with proxied("", turn) as proxy, Registry(proxy.host, insecure=True) as client:
        with pytest.raises(RegistryError, match="redirected too often"):
            await client.has_blob("f/round", "sha256:0")
