"""Azure's half of a registry's authentication, spoken on the wire before a real registry.

Entra's token endpoint (client assertion), and the registry's `/oauth2/exchange` and
`/oauth2/token`. The registry behind it verifies the access tokens itself.
"""

import time
from dataclasses import dataclass, field

from aiohttp import web

from tests.registries.tokens import SERVICE, TokenServer

TENANT, CLIENT = "11111111-1111-1111-1111-111111111111", "22222222-2222-2222-2222-222222222222"
ASSERTION = "the pod's ServiceAccount token"
AZURE_TOKEN = "a token of Azure's"


@dataclass
class Azure:
    """Knows one federated identity."""

    tokens: TokenServer
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
        actions = frozenset({"pull", "push"})
        # No expires_in: only the token itself tells.
        return web.json_response({"access_token": self.tokens.token(scopes, actions)})
