"""Whose certificates clients trust."""

import os
import ssl
from functools import lru_cache
from pathlib import Path

import httpx


def tls_context(ca_bundle: Path | None) -> ssl.SSLContext:
    """Trust the certificates of a bundle, else the system's.

    Clients share what is made of the same file: reading the usual certificates takes 30 ms, which
    is more than most of what a client is made for. Raises OSError where the bundle can't be read.
    """
    named = ca_bundle or os.environ.get("SSL_CERT_FILE")
    if not named:
        return _system()
    bundle = Path(named)
    return _trusting(bundle, bundle.stat().st_mtime_ns)


@lru_cache(maxsize=1)
def _system() -> ssl.SSLContext:
    return httpx.create_ssl_context()


@lru_cache(maxsize=4)
def _trusting(bundle: Path, _changed: int) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=bundle)
