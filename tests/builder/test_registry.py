"""The registry client against Debian's docker-registry, with a proxy between them that cuts."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from modelops_operator.adapters import oci, registry_retry
from modelops_operator.adapters.oci import Blob, Reference, Registry
from modelops_operator.adapters.registry_credentials import CredentialSource, basic
from modelops_operator.adapters.registry_errors import RegistryError

pytestmark = [pytest.mark.contract, pytest.mark.anyio]


def random_blob(size: int) -> Blob:
    return Blob.of(os.urandom(size))


async def test_pushes_small_blobs_in_two_requests(registry: Any) -> None:
    async with registry.connect() as client:
        blob = random_blob(1000)
        await client.push("t/small", blob)
        assert client.requests == 2
        assert await client.has_blob("t/small", blob.digest)
        assert await client.blob("t/small", blob.digest) == blob.content


async def test_pushes_large_blobs_in_pieces(registry: Any, tmp_path: Path) -> None:
    path = tmp_path / "large"
    content = os.urandom(2_500_000)
    path.write_bytes(content)
    blob = Blob(digest=oci.sha256(content), size=len(content), content=path)
    async with registry.connect(chunk=1_000_000) as client:
        await client.push("t/large", blob)
        assert client.requests == 1 + 3 + 1
        await client.download("t/large", blob.digest, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == content


async def test_ensure_sends_only_what_is_missing(registry: Any) -> None:
    async with registry.connect() as client:
        blob = random_blob(1000)
        assert await client.ensure("t/ensure", blob)
        assert not await client.ensure("t/ensure", blob)


async def test_mounts_across_repositories(registry: Any) -> None:
    async with registry.connect() as client:
        blob = random_blob(1000)
        await client.push("t/source", blob)
        assert await client.mount("t/mounted", blob.digest, "t/source")
        assert await client.has_blob("t/mounted", blob.digest)


async def test_a_mount_of_what_is_not_there_leaves_no_upload_behind(registry: Any) -> None:
    async with registry.connect() as client:
        digest = random_blob(10).digest
        assert not await client.mount("t/unmounted", digest, "t/source")
        assert not await client.has_blob("t/unmounted", digest)
    uploads = registry.data / "docker/registry/v2/repositories/t/unmounted/_uploads"
    assert not list(uploads.glob("*/data"))


async def test_manifests_go_and_come_byte_for_byte(registry: Any) -> None:
    async with registry.connect() as client:
        config = Blob.of(b"{}")
        await client.push("t/manifest", config)
        content = (
            b'{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",'
            b'"config": {"mediaType": "application/vnd.oci.image.config.v1+json",'
            b'"digest": "' + config.digest.encode() + b'", "size": 2}, "layers": []}'
        )
        digest = await client.put_manifest("t/manifest", "v1", content)
        for version in ("v1", digest):
            found = await client.manifest("t/manifest", version)
            assert found is not None
            assert (found.content, found.digest) == (content, digest)
            assert await client.has_manifest("t/manifest", version)
        assert await client.manifest("t/manifest", "v2") is None
        assert await client.manifest("t/never", "v2") is None


async def test_a_manifest_of_missing_blobs_is_refused(registry: Any) -> None:
    content = (
        b'{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",'
        b'"config": {"mediaType": "application/vnd.oci.image.config.v1+json",'
        b'"digest": "sha256:' + b"0" * 64 + b'", "size": 2}, "layers": []}'
    )
    async with registry.connect() as client:
        with pytest.raises(RegistryError, match="MANIFEST_BLOB_UNKNOWN") as caught:
            await client.put_manifest("t/refused", "v1", content)
    assert caught.value.failure.reason == "ImageIncomplete"
    assert not caught.value.failure.permanent


# --- broken connections ----------------------------------------------------------------------


@asynccontextmanager
async def cutting_proxy(host: str, cut_after: Callable[[int], int | None]) -> AsyncIterator[str]:
    """Pass bytes on to `host`; cut the n-th connection after `cut_after(n)` bytes up."""
    name, port = host.split(":")
    count = 0

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(16384):
            writer.write(data)
            await writer.drain()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        limit = cut_after(count)
        count += 1
        up_reader, up_writer = await asyncio.open_connection(name, int(port))
        back = asyncio.create_task(pump(up_reader, writer))
        sent = 0
        try:
            while data := await reader.read(16384):
                up_writer.write(data)
                await up_writer.drain()
                sent += len(data)
                if limit is not None and sent > limit:
                    writer.transport.abort()
                    break
        except ConnectionError:
            pass
        finally:
            back.cancel()
            up_writer.close()
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_resumes_an_upload_whose_connection_was_cut(registry: Any, tmp_path: Path) -> None:
    content = os.urandom(5_000_000)
    path = tmp_path / "blob"
    path.write_bytes(content)
    blob = Blob(digest=oci.sha256(content), size=len(content), content=path)
    cut = lambda n: 2_600_000 if n == 0 else None  # noqa: E731
    async with (
        cutting_proxy(registry.host, cut) as host,
        Registry(host, insecure=True, chunk=1_000_000) as client,
    ):
        await client.push("t/cut", blob)
        assert client.requests < 2 * (1 + 5 + 1), "it went on instead of starting anew"
        await client.download("t/cut", blob.digest, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == content


async def write_slowly(path: Path, content: bytes) -> Blob:
    with path.open("wb") as file:
        for offset in range(0, len(content), 300_000):
            file.write(content[offset : offset + 300_000])
            file.flush()
            await asyncio.sleep(0.03)
    return Blob(digest=oci.sha256(content), size=len(content), content=path)


@pytest.mark.parametrize("cut", [None, 1_300_000])
async def test_sends_a_file_while_it_is_written(
    registry: Any, tmp_path: Path, cut: int | None
) -> None:
    content = os.urandom(3_000_000)
    path = tmp_path / "blob"
    async with (
        cutting_proxy(registry.host, lambda n: cut if n == 0 else None) as host,
        Registry(host, insecure=True, chunk=1_000_000) as client,
    ):
        writing = asyncio.create_task(write_slowly(path, content))
        pushing = asyncio.create_task(client.push_growing("t/growing", path, writing))
        while client.requests < 2:  # noqa: ASYNC110 (the client tells nobody)
            await asyncio.sleep(0.01)
        assert not writing.done(), "the first piece goes before the last is there"
        blob = await pushing
        await client.download("t/growing", blob.digest, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == content


async def test_gives_up_when_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_retry, "pause", lambda *_: 0.0)
    async with Registry("127.0.0.1:9", insecure=True) as client:
        with pytest.raises(RegistryError, match=r"registry 127.0.0.1:9: .* no answer") as caught:
            await client.has_blob("t/x", "sha256:0")
        assert client.requests == registry_retry.ATTEMPTS
    assert caught.value.failure.reason == "ImageRegistryUnreachable"
    assert not caught.value.failure.permanent


async def test_refuses_content_that_is_not_what_was_asked_for(registry: Any) -> None:
    blob = random_blob(1000)
    async with registry.connect() as client:
        await client.push("t/damaged", blob)
        hexdigest = blob.digest.partition(":")[2]
        path = registry.data / f"docker/registry/v2/blobs/sha256/{hexdigest[:2]}/{hexdigest}/data"
        path.write_bytes(os.urandom(1000))
        with pytest.raises(RegistryError, match="sent other content"):
            await client.blob("t/damaged", blob.digest)


# --- who we are ------------------------------------------------------------------------------


async def test_authenticates_once_and_keeps_it(guarded: Any) -> None:
    credentials = basic(guarded.host, "builder", "secret")
    async with guarded.connect(credentials=credentials) as client:
        blob = random_blob(1000)
        await client.push("t/guarded", blob)
        assert client.requests == 3, "only the first request is asked who we are"
        assert await client.has_blob("t/guarded", blob.digest)


@pytest.mark.parametrize(
    ("credentials", "message"),
    [
        (basic("it", "builder", "wrong"), "check that the credentials"),
        (None, "no credentials are configured"),
    ],
)
async def test_tells_when_the_registry_refuses_us(
    guarded: Any, credentials: CredentialSource | None, message: str
) -> None:
    async with guarded.connect(credentials=credentials) as client:
        with pytest.raises(RegistryError, match=message) as caught:
            await client.push("t/guarded", random_blob(10))
    assert caught.value.failure.reason == "ImageRegistryDenied"
    assert caught.value.failure.permanent
    assert caught.value.status == httpx.codes.UNAUTHORIZED


def test_reads_references() -> None:
    digest = f"sha256:{hashlib.sha256(b'').hexdigest()}"
    assert Reference.parse(f"h:5000/a/b@{digest}") == Reference("h:5000", "a/b", digest)
    assert Reference.parse("h:5000/a/b:v1") == Reference("h:5000", "a/b", "v1")
    for text in ("h:5000/a/b@sha256:0", "h:5000/a/b:v1"):
        assert str(Reference.parse(text)) == text


@pytest.mark.parametrize("text", ["name", "h/a", "h/a@", "h/a:", "/a:v1", "h/a:v1@sha256:0"])
def test_refuses_what_is_no_reference(text: str) -> None:
    with pytest.raises(ValueError, match="is not host/repository"):
        Reference.parse(text)
