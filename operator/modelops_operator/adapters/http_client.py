"""HTTP clients, all made alike."""

from pathlib import Path
from typing import Final

import httpx

from modelops_operator.adapters.tls import tls_context

_IDLE: Final = 60
"""Seconds that a connection is kept for the next request. Load balancers drop idle ones without a
word, Azure's after four minutes. Few expire while their client is used: httpx forgets to close
them where it is cancelled just then."""


def http_client(
    ca_bundle: Path | None, auth: httpx.Auth | None = None, connections: int = 100
) -> httpx.AsyncClient:
    """Make a client that trusts the configured certificates, else the system's."""
    return httpx.AsyncClient(
        auth=auth,
        verify=tls_context(ca_bundle),
        timeout=httpx.Timeout(60, connect=10),
        limits=httpx.Limits(max_connections=connections, keepalive_expiry=_IDLE),
        headers={"user-agent": "modelops-builder"},
    )
