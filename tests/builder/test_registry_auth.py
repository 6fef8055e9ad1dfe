"""Saying who we are, to a real registry that verifies the tokens it is shown."""

import asyncio
import base64
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from modelops_operator.adapters.oci import Blob, Registry
from modelops_operator.adapters.registries import PASSWORD as PASSWORD_VARIABLE
from modelops_operator.adapters.registries import USERNAME, Registries
from modelops_operator.adapters.registry_credentials import (
    Credentials,
    CredentialSource,
    DockerConfig,
    basic,
    docker_credentials,
)
from modelops_operator.adapters.registry_errors import RegistryError
from modelops_operator.api.config import RegistryConfig

from tests.registries.azure import TENANT, AzureSite
from tests.registries.proxy import proxied, serving
from tests.registries.tokens import (
    IDENTITY_TOKEN,
    PASSWORD,
    USER,
    Certificate,
    TokenServer,
    registry_settings,
)

pytestmark = [pytest.mark.contract, pytest.mark.anyio]


def blob_of(size: int = 1000) -> Blob:
    return Blob.of(os.urandom(size))


@dataclass
class Site:
    """A registry that wants tokens, and their server."""

    host: str
    tokens: TokenServer

    def connect(self, credentials: CredentialSource | None = None, **settings: Any) -> Registry:
        return Registry(self.host, insecure=True, credentials=credentials, **settings)

    @property
    def user(self) -> CredentialSource:
        return basic(self.host, USER, PASSWORD)


@asynccontextmanager
async def token_site(certificate: Certificate, start_registry: Any) -> AsyncIterator[Site]:
    tokens = TokenServer(certificate)
    async with serving(tokens.answer) as origin:
        settings = registry_settings(f"{origin}/token", certificate)
        running = await asyncio.to_thread(start_registry, settings)
        yield Site(running.host, tokens)


@pytest.fixture
async def site(certificate: Certificate, start_registry: Any) -> AsyncIterator[Site]:
    async with token_site(certificate, start_registry) as running:
        yield running


# --- the standard flow -----------------------------------------------------------------------


async def test_a_token_is_asked_for_once_for_each_set_of_rights(site: Site) -> None:
    async with site.connect(site.user, chunk=1000) as client:
        blobs = [blob_of(2500) for _ in range(4)]
        await asyncio.gather(*(client.push("a/one", blob) for blob in blobs))
        assert await client.has_blob("a/one", blobs[0].digest)
        assert await client.has_blob("a/one", blobs[1].digest)
    assert site.tokens.asked == [["repository:a/one:pull,push"], ["repository:a/one:pull"]]


async def test_a_mount_asks_for_both_repositories(site: Site) -> None:
    async with site.connect(site.user) as client:
        blob = blob_of()
        await client.push("a/source", blob)
        assert await client.mount("a/target", blob.digest, "a/source")
    both = ["repository:a/target:pull,push", "repository:a/source:pull"]
    assert site.tokens.asked[-1] == both


async def test_a_mount_of_what_may_not_be_read_leaves_it_to_an_upload(site: Site) -> None:
    site.tokens.repositories = "a/"
    async with site.connect(site.user) as client:
        assert not await client.mount("a/target", blob_of().digest, "b/source")


async def test_anybody_may_pull_and_is_told_what_pushing_needs(site: Site) -> None:
    blob = blob_of()
    async with site.connect(site.user) as client:
        await client.push("a/public", blob)
    async with site.connect() as client:
        assert await client.blob("a/public", blob.digest) == blob.content
        with pytest.raises(RegistryError, match="no credentials are configured") as caught:
            await client.push("a/public", blob_of())
    assert caught.value.failure.permanent


@pytest.mark.parametrize(
    "entry",
    [
        {"username": USER, "password": PASSWORD},
        {"auth": base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()},
        {"identitytoken": IDENTITY_TOKEN},
    ],
    ids=["plain", "auth", "identity token"],
)
async def test_docker_configurations(site: Site, entry: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"auths": {f"{site.host}/a": entry, site.host: {"auth": ""}}}))
    async with site.connect(DockerConfig(path, site.host)) as client:
        await client.push("a/one", blob_of())
        with pytest.raises(RegistryError, match="has credentials for"):
            await client.push("b/one", blob_of())


async def test_a_changed_secret_is_taken_up(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"auths": {site.host: {"username": USER, "password": "old"}}}))
    async with site.connect(DockerConfig(path, site.host)) as client:
        with pytest.raises(RegistryError, match="wrong password; check that"):
            await client.push("a/one", blob_of())
        path.write_text(
            json.dumps({"auths": {site.host: {"username": USER, "password": PASSWORD}}})
        )
        await client.push("a/one", blob_of())


async def test_a_token_that_expires_is_renewed_in_the_middle_of_an_upload(site: Site) -> None:
    patches = 0

    async def expire(request: web.Request, _body: bytes) -> web.Response | None:
        nonlocal patches
        patches += request.method == "PATCH"
        if request.method == "PATCH" and patches == 2:
            challenge = f'Bearer realm="{realm}",service="test registry",error="invalid_token"'
            return web.Response(status=401, headers={"www-authenticate": challenge})
        return None

    async with site.connect() as probe:
        await probe.has_blob("a/one", blob_of().digest)
        challenge = probe._authorization._challenge
        assert challenge is not None
        realm = challenge.realm
    site.tokens.asked.clear()
    blob = blob_of(5000)
    async with (
        proxied(f"http://{site.host}", expire) as proxy,
        Registry(proxy.host, insecure=True, credentials=site.user, chunk=1000) as client,
    ):
        await client.push("a/one", blob)
        assert await client.has_blob("a/one", blob.digest)
    assert proxy.count("PATCH", "/a/one/") == 6, "one piece was sent again and no other"
    assert site.tokens.asked[:2] == [["repository:a/one:pull,push"]] * 2


async def test_tokens_that_are_never_good_do_not_loop(site: Site) -> None:
    site.tokens.valid = False
    async with site.connect(site.user) as client:
        with pytest.raises(RegistryError, match="check that the credentials") as caught:
            await client.push("a/one", blob_of())
    assert caught.value.status == 401
    assert len(site.tokens.asked) == 1


@pytest.mark.parametrize(
    ("key", "found"),
    [
        ("ghcr.io", True),
        ("https://ghcr.io", True),
        ("https://ghcr.io/v1/", True),
        ("*.io", True),
        ("ghcr.io/acme", True),
        ("ghcr.io/acme/models", True),
        ("ghcr.io/acme/mod", False),
        ("ghcr.io/other", False),
        ("*.ghcr.io", False),
        ("example.com", False),
    ],
)
async def test_keys_of_docker_configurations(key: str, *, found: bool) -> None:
    config = {"auths": {key: {"username": "u", "password": "p"}}}
    expected = Credentials(username="u", password="p") if found else None
    assert docker_credentials(config, "ghcr.io", "acme/models") == expected


async def test_the_longest_key_of_a_docker_configuration_decides() -> None:
    auths = {key: {"username": key} for key in ("*.io", "ghcr.io", "ghcr.io/a", "ghcr.io/a/b")}
    for repository, key in [("a/b/c", "ghcr.io/a/b"), ("a/x", "ghcr.io/a"), ("x", "ghcr.io")]:
        credentials = docker_credentials({"auths": auths}, "ghcr.io", repository)
        assert credentials is not None
        assert credentials.username == key
    docker = {"auths": {"https://index.docker.io/v1/": {"username": "u"}}}
    assert docker_credentials(docker, "docker.io", "library/python") is not None


@pytest.mark.parametrize("content", ["", "[]", '{"auths": {"r": {"auth": "%"}}}'])
async def test_a_broken_docker_configuration_is_told(content: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(content)
    with pytest.raises(RegistryError, match=r"as `docker login` writes it"):
        await DockerConfig(path, "r").find("a", "", "")


# --- Azure -----------------------------------------------------------------------------------


async def test_a_workload_identity_pushes_and_pulls(azure: AzureSite) -> None:
    blob, other = blob_of(), blob_of()
    async with azure.connected() as connections:
        client = await connections.registry(azure.proxy.host)
        await asyncio.gather(client.push("m/one", blob), client.push("m/two", other))
        assert await client.mount("m/two", blob.digest, "m/one")
        assert await client.blob("m/two", blob.digest) == blob.content
    assert (azure.azure.entra, azure.azure.exchanges) == (1, 1)
    assert sorted(azure.azure.tokens.asked) == [
        ["repository:m/one:pull,push"],
        ["repository:m/two:pull"],
        ["repository:m/two:pull,push"],
        ["repository:m/two:pull,push", "repository:m/one:pull"],
    ], "each right by its repository, as the ABAC mode has it, and once"


async def test_a_refresh_token_that_is_withdrawn_is_exchanged_anew(azure: AzureSite) -> None:
    async with azure.connected() as connections:
        client = await connections.registry(azure.proxy.host)
        await client.push("m/one", blob_of())
        azure.azure.refresh_tokens.clear()
        await client.push("m/two", blob_of())
    assert azure.azure.exchanges == 2


async def test_a_classic_registry_gives_rights_on_all_of_it(azure: AzureSite) -> None:
    """AcrPush knows no repositories, and a mount needs nothing more."""
    azure.azure.actions = frozenset({"pull", "push"})
    blob = blob_of()
    async with azure.connect() as client:
        await client.push("m/one", blob)
        assert await client.mount("anywhere/else", blob.digest, "m/one")
    azure.azure.actions = frozenset({"pull"})
    async with azure.connect() as client:
        assert await client.has_blob("anywhere/else", blob.digest)
        with pytest.raises(RegistryError, match=r"role AcrPush \(AcrPull to read\)"):
            await client.push("m/one", blob_of())


async def test_a_registry_in_abac_mode_gives_rights_by_repository(azure: AzureSite) -> None:
    azure.azure.tokens.repositories = "m/"
    blob = blob_of()
    async with azure.connect() as client:
        await client.push("m/one", blob)
        assert await client.mount("m/two", blob.digest, "m/one")
        assert not await client.mount("m/two", blob.digest, "other/one"), "it may not be read"


async def test_a_repository_without_a_role_is_told(azure: AzureSite) -> None:
    azure.azure.tokens.repositories = "m/"
    async with azure.connected() as connections:
        client = await connections.registry(azure.proxy.host)
        with pytest.raises(RegistryError, match="Container Registry Repository Writer") as caught:
            await client.push("other/one", blob_of())
    assert caught.value.failure.permanent


async def test_an_unknown_identity_is_told(
    azure: AzureSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_CLIENT_ID", TENANT)
    async with azure.connected() as connections:
        client = await connections.registry(azure.proxy.host)
        with pytest.raises(RegistryError, match=r"AADSTS700213.*federated credential") as caught:
            await client.push("m/one", blob_of())
    assert caught.value.failure.permanent


async def test_half_an_identity_is_told(azure: AzureSite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZURE_CLIENT_ID")
    async with azure.connected() as connections:
        with pytest.raises(RegistryError, match=r"registry\.azure\.clientId"):
            await connections.registry(azure.proxy.host)


async def test_azures_tokens_go_nowhere_else(
    certificate: Certificate, start_registry: Any, azure: AzureSite
) -> None:
    async with token_site(certificate, start_registry) as other:
        azure.proxy.upstream = f"http://{other.host}"
        async with azure.connected() as connections:
            client = await connections.registry(azure.proxy.host)
            with pytest.raises(RegistryError, match="without encryption"):
                await client.push("m/one", blob_of())
    assert azure.azure.exchanges == 0


# --- what is chosen --------------------------------------------------------------------------


async def test_basic_without_a_name_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(USERNAME, raising=False)
    config = RegistryConfig.model_validate({"host": "r", "auth": "Basic"})
    async with Registries(config, None) as registries:
        with pytest.raises(RegistryError, match=r"registry\.credentialsSecret"):
            await registries.registry("r")


async def test_what_is_found_by_itself(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(USERNAME, "u")
    monkeypatch.setenv(PASSWORD_VARIABLE, "p")
    path = tmp_path / "config.json"
    config = RegistryConfig.model_validate({"host": "r", "dockerConfig": str(path)})
    async with Registries(config, None) as registries:
        found = await registries._credentials("r")
        assert await found.find("a", "", "") == Credentials(username="u", password="p")
        assert not isinstance(await registries._credentials("other"), DockerConfig)
        path.write_text("{}")
        assert isinstance(await registries._credentials("other"), DockerConfig)
