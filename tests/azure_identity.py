"""An identity of Azure's for stand-ins of its services, which speak plain http."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Self

from azure.core.credentials import AccessToken
from azure.core.pipeline.policies import AsyncBearerTokenCredentialPolicy

TOKEN: Final = "a-token"


@dataclass
class Identity:
    """Gives its one token to whoever asks."""

    audiences: list[str] = field(default_factory=list)
    """What tokens were asked for."""

    async def get_token(self, *scopes: str, **_: Any) -> AccessToken:
        """Give a token as a credential does."""
        self.audiences.extend(scopes)
        return AccessToken(TOKEN, int((datetime.now(UTC) + timedelta(hours=1)).timestamp()))

    async def close(self) -> None:
        """End, as a credential does."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return

    def policy(self) -> "AsyncBearerTokenCredentialPolicy[Any, Any]":
        """Give what signs the client's requests, without TLS too."""
        return _Plain(self, "https://api.loganalytics.io/.default")


class _Plain(AsyncBearerTokenCredentialPolicy[Any, Any]):
    """Sends the token over plain http, which the client refuses for good reasons."""

    async def on_request(self, request: Any) -> None:
        request.context.options["enforce_https"] = False
        await super().on_request(request)
