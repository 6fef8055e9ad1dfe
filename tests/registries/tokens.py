"""A token server as registries refer to: signs JSON web tokens that `distribution` verifies."""

import base64
import datetime as dt
import ipaddress
import json
import ssl
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import BasicAuth, web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils

SERVICE, ISSUER = "test registry", "test issuer"
USER, PASSWORD, IDENTITY_TOKEN = "builder", "secret", "an identity token"


class Certificate:
    """A key and its own certificate, which vouches for servers at one address."""

    def __init__(self, folder: Path, address: str = "127.0.0.1") -> None:
        self._address = address
        self.key = ec.generate_private_key(ec.SECP256R1())
        certificate = _certified("test", address, self.key, self.key, authority=True)
        self.der = certificate.public_bytes(serialization.Encoding.DER)
        self.path = folder / "certificate.pem"
        self.path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        self._server = folder / "server.pem"

    def served(self) -> ssl.SSLContext:
        """Give what a server shows."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _certified("server", self._address, key, self.key, authority=False)
        encoding = serialization.Encoding.PEM
        form = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        self._server.write_bytes(
            key.private_bytes(encoding, *form) + certificate.public_bytes(encoding)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._server)
        return context

    def sign(self, claims: Any) -> str:
        header = {"alg": "ES256", "typ": "JWT", "x5c": [base64.b64encode(self.der).decode()]}
        text = f"{_encoded(header)}.{_encoded(claims)}"
        signature = self.key.sign(text.encode(), ec.ECDSA(hashes.SHA256()))
        numbers = b"".join(n.to_bytes(32) for n in utils.decode_dss_signature(signature))
        return f"{text}.{_urlsafe(numbers)}"


def _certified(
    name: str,
    address: str,
    key: ec.EllipticCurvePrivateKey,
    by: ec.EllipticCurvePrivateKey,
    *,
    authority: bool,
) -> x509.Certificate:
    now = dt.datetime.now(dt.UTC)
    alternative = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(alternative, critical=False)
        .sign(by, hashes.SHA256())
    )


def _encoded(tree: Any) -> str:
    return _urlsafe(json.dumps(tree).encode())


def _urlsafe(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


@dataclass
class TokenServer:
    """Grants what is asked for within `allowed`; keeps account of what it was asked."""

    certificate: Certificate
    asked: list[list[str]] = field(default_factory=list)
    life: int = 300
    """Seconds that a token says it lives."""
    anonymous: frozenset[str] = frozenset({"pull"})
    """What those may do who do not say who they are."""
    valid: bool = True
    """Whether the tokens that it gives are good."""
    repositories: str = ""
    """Prefix of the repositories that anything may be done to."""

    def token(self, scopes: list[str], actions: frozenset[str]) -> str:
        self.asked.append(scopes)
        access = []
        for scope in scopes:
            kind, name, wanted = scope.split(":")
            granted = sorted(set(wanted.split(",")) & actions)
            if name.startswith(self.repositories):
                access.append({"type": kind, "name": name, "actions": granted})
        now = int(time.time()) - (0 if self.valid else 3600)
        times = {"iat": now, "nbf": now - 10, "exp": now + self.life}
        claims = {"iss": ISSUER, "sub": USER, "aud": SERVICE, "jti": str(len(self.asked))}
        return self.certificate.sign(claims | times | {"access": access})

    async def answer(self, request: web.Request) -> web.Response:
        """Serve `/token`, by GET with a password or by POST with an identity token."""
        everything = frozenset({"pull", "push", "delete"})
        if request.method == "POST":
            form = await request.post()
            if form["refresh_token"] != IDENTITY_TOKEN:
                return web.json_response({"error": "invalid_grant"}, status=401)
            token = self.token(str(form["scope"]).split(" "), everything)
            return web.json_response({"access_token": token, "expires_in": self.life})
        actions = self.anonymous
        if header := request.headers.get("authorization"):
            who = BasicAuth.decode(header)
            if (who.login, who.password) != (USER, PASSWORD):
                refusal = {"errors": [{"code": "UNAUTHORIZED", "message": "wrong password"}]}
                return web.json_response(refusal, status=401)
            actions = everything
        assert request.query["service"] == SERVICE
        token = self.token(request.query.getall("scope", []), actions)
        return web.json_response({"token": token, "expires_in": self.life})


def registry_settings(realm: str, certificate: Certificate) -> str:
    """Give what `distribution` must be told to ask for tokens."""
    return (
        f'auth: {{token: {{realm: "{realm}", service: "{SERVICE}", issuer: "{ISSUER}", '
        f"rootcertbundle: {certificate.path}}}}}\n"
    )
