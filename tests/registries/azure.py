"""What only Azure's registry does, spoken on the wire before a real registry.

Entra's token endpoint (client assertion), the registry's `/oauth2/exchange` and `/oauth2/token`,
and `/acr/v1`: lists of what there is, and locks. The registry behind it verifies the access tokens
itself.
"""

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web
from modelops_operator.adapters.oci import Registry
from modelops_operator.api.config import RegistryConfig
from modelops_operator.builder.connections import Connections, connected

from tests.registries.proxy import Proxy, proxied
from tests.registries.servers import StartRegistry
from tests.registries.tokens import SERVICE, Certificate, TokenServer, registry_settings

TENANT, CLIENT = "11111111-1111-1111-1111-111111111111", "22222222-2222-2222-2222-222222222222"
ASSERTION = "the pod's ServiceAccount token"
AZURE_TOKEN = "a token of Azure's"
ACTIONS = frozenset({"pull", "push", "delete", "metadata_read", "metadata_write", "*"})
MOMENT = "2026-11-28T18:00:00.0000000Z"
Answer = dict[str, Any]


@dataclass
class Azure:
    """Knows one federated identity."""

    tokens: TokenServer
    actions: frozenset[str] = ACTIONS
    """What its roles allow it."""
    data: Path = Path()
    """Folder of the registry's files."""
    locks: dict[str, dict[str, bool]] = field(default_factory=dict)
    """What was changed of `name`, `name:tag` or `name@digest`."""
    page: int = 2
    """Entries in one answer of a list."""
    exchanges: int = 0
    entra: int = 0
    refresh_tokens: set[str] = field(default_factory=set)

    async def answer(self, request: web.Request, _body: bytes) -> web.Response | None:
        """Answer what is Azure's; None for what is the registry's."""
        if request.path == f"/{TENANT}/oauth2/v2.0/token":
            return await self._entra(request)
        if request.path == "/oauth2/exchange":
            return await self._exchange(request)
        if request.path == "/oauth2/token":
            return await self._token(request)
        if request.path.startswith("/acr/v1/"):
            return await self._own(request)
        if request.method == "DELETE" and "/manifests/" in request.path:
            return self._deletion(request)
        return None

    async def _entra(self, request: web.Request) -> web.Response:
        self.entra += 1
        form = await request.post()
        assert form["scope"] == "https://containerregistry.azure.net/.default"
        if (form["client_id"], form["client_assertion"]) != (CLIENT, ASSERTION):
            text = "AADSTS700213: No matching federated identity record found"
            answer = {"error": "invalid_client", "error_description": text}
            return web.json_response(answer, status=401)
        return web.json_response(
            {"token_type": "Bearer", "expires_in": 3600, "access_token": AZURE_TOKEN}
        )

    async def _exchange(self, request: web.Request) -> web.Response:
        self.exchanges += 1
        form = await request.post()
        assert (form["grant_type"], form["service"]) == ("access_token", SERVICE)
        assert form["access_token"] == AZURE_TOKEN
        now = int(time.time())
        claims = {"iat": now, "exp": now + 3 * 3600, "jti": f"{self.exchanges}"}
        token = self.tokens.certificate.sign(claims)
        self.refresh_tokens.add(token)
        return web.json_response({"refresh_token": token})

    async def _token(self, request: web.Request) -> web.Response:
        form = await request.post()
        assert (form["grant_type"], form["service"]) == ("refresh_token", SERVICE)
        if form["refresh_token"] not in self.refresh_tokens:
            refusal = {"errors": [{"code": "UNAUTHORIZED", "message": "authentication required"}]}
            return web.json_response(refusal, status=401)
        scopes = str(form["scope"]).split(" ")
        # No expires_in: only the token itself tells.
        return web.json_response({"access_token": self.tokens.token(scopes, self.actions)})

    # --- Azure's own interface ---------------------------------------------------------------

    async def _own(self, request: web.Request) -> web.Response:
        path = request.path.removeprefix("/acr/v1/")
        if path == "_catalog":
            return self._permitted(request, "registry:catalog:*") or self._page(
                request, "repositories", list(self._repositories())
            )
        name, _, rest = path.partition("/_")
        action = "metadata_read" if request.method == "GET" else "metadata_write"
        if refusal := self._permitted(request, f"repository:{name}:{action}"):
            return refusal
        if name not in self._repositories():
            return _refused(404, "NAME_UNKNOWN", "repository name not known to registry")
        kind, _, which = rest.partition("/")
        if request.method == "PATCH":
            key = {"": name, "tags": f"{name}:{which}", "manifests": f"{name}@{which}"}[kind]
            self.locks.setdefault(key, {}).update(await request.json())
        if not kind:
            counts = {"tagCount": 1, "manifestCount": 1}
            return web.json_response(self._described(name, imageName=name, **counts))
        entries = list(self._tags(name) if kind == "tags" else self._manifests(name))
        if not which:
            return self._page(request, kind, entries, imageName=name)
        (one,) = (entry for entry in entries if which in {entry["digest"], entry.get("name")})
        return web.json_response({"imageName": name, kind.removesuffix("s"): one})

    def _deletion(self, request: web.Request) -> web.Response | None:
        name, _, digest = request.path.removeprefix("/v2/").partition("/manifests/")
        tags = [tag["name"] for tag in self._tags(name) if tag["digest"] == digest]
        keys = (name, f"{name}@{digest}", *(f"{name}:{tag}" for tag in tags))
        if all(all(self.locks.get(key, {}).values()) for key in keys):
            return None
        told = "The operation is disallowed on this registry, repository or image."
        refusal = self._permitted(request, f"repository:{name}:delete")
        return refusal or _refused(405, "REGISTRY_DISALLOWED_OPERATION", told)

    def _permitted(self, request: web.Request, scope: str) -> web.Response | None:
        """Refuse whoever does not show a token for this."""
        kind, name, action = scope.split(":")
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        for access in _claims(token).get("access", ()):
            if (access["type"], access["name"]) == (kind, name) and action in access["actions"]:
                return None
        challenge = f'realm="https://{request.host}/oauth2/token",service="{SERVICE}"'
        refusal = _refused(401, "UNAUTHORIZED", "authentication required")
        refusal.headers["www-authenticate"] = f'Bearer {challenge},scope="{scope}"'
        return refusal

    def _page(
        self, request: web.Request, field_name: str, entries: Sequence[Any], **more: str
    ) -> web.Response:
        begin = int(request.query.get("last", "0"))
        end = begin + self.page
        answer = web.json_response({field_name: entries[begin:end], **more})
        if end < len(entries):
            answer.headers["link"] = f'<{request.path}?last={end}&n={self.page}>; rel="next"'
        return answer

    # --- what the registry has ---------------------------------------------------------------

    @property
    def _root(self) -> Path:
        return self.data / "docker/registry/v2/repositories"

    def _repositories(self) -> Sequence[str]:
        found = self._root.rglob("_manifests")
        return sorted(str(path.parent.relative_to(self._root)) for path in found)

    def _tags(self, name: str) -> Iterator[Answer]:
        for link in sorted((self._root / name / "_manifests/tags").glob("*/current/link")):
            tag = link.parents[1].name
            yield self._described(f"{name}:{tag}", name=tag, digest=link.read_text())

    def _manifests(self, name: str) -> Iterator[Answer]:
        for link in sorted((self._root / name / "_manifests/revisions").glob("*/*/link")):
            digest = link.read_text()
            yield self._described(f"{name}@{digest}", digest=digest)

    def _described(self, key: str, **facts: Any) -> Answer:
        enabled = dict.fromkeys(
            ("deleteEnabled", "writeEnabled", "listEnabled", "readEnabled"), True
        )
        return {
            "createdTime": MOMENT,
            "lastUpdateTime": MOMENT,
            "changeableAttributes": enabled | self.locks.get(key, {}),
            **facts,
        }


def _claims(token: str) -> Mapping[str, Any]:
    payload = token.partition(".")[2].partition(".")[0]
    found: Mapping[str, Any] = json.loads(base64.urlsafe_b64decode(f"{payload}===") or b"{}")
    return found


def _refused(status: int, code: str, message: str) -> web.Response:
    return web.json_response({"errors": [{"code": code, "message": message}]}, status=status)


# --- all of it -------------------------------------------------------------------------------


@dataclass
class AzureSite:
    """A registry as Azure's, with an identity service beside it, both behind TLS."""

    azure: Azure
    proxy: Proxy
    certificate: Certificate

    @property
    def host(self) -> str:
        return self.proxy.host

    @asynccontextmanager
    async def connected(self, **settings: Any) -> AsyncIterator[Connections]:
        config = RegistryConfig.model_validate({"host": self.host, "auth": "ACR"} | settings)
        async with connected(config, self.certificate.path) as connections:
            yield connections

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Registry]:
        async with self.connected() as connections:
            yield await connections.registry(self.host)


@asynccontextmanager
async def azure_site(
    certificate: Certificate, start_registry: StartRegistry
) -> AsyncIterator[AzureSite]:
    stand_in = Azure(TokenServer(certificate))
    async with proxied("", stand_in.answer, certificate.served()) as proxy:
        settings = registry_settings(f"{proxy.origin}/oauth2/token", certificate)
        running = await asyncio.to_thread(start_registry, settings)
        proxy.upstream, stand_in.data = f"http://{running.host}", running.data
        yield AzureSite(stand_in, proxy, certificate)
