"""What registries know us by, and where it comes from."""

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final, Protocol

from modelops_operator.adapters.registry_errors import RegistryErrors

_ALIASES: Final = {"index.docker.io": "docker.io", "registry-1.docker.io": "docker.io"}
_NOT_PATHS: Final = {"", "v1", "v2"}
"""What follows the host where people mean the whole registry: `https://index.docker.io/v1/`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What a registry knows us by."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    """An OAuth2 refresh token; used instead of the password where there is one."""

    def basic(self) -> dict[str, str]:
        """Give the header of basic authentication."""
        pair = f"{self.username}:{self.password}".encode()
        return {"authorization": f"Basic {base64.b64encode(pair).decode()}"}


class CredentialSource(Protocol):
    """Where the credentials for one registry come from."""

    @property
    def advice(self) -> str:
        """Say what a person should check when the registry refuses us."""
        ...

    async def find(self, repository: str, realm: str, service: str) -> Credentials | None:
        """Give the credentials for a repository; None to stay anonymous.

        `realm` is the address of the token server that will see them, empty where the registry
        itself does. Raises RegistryError.
        """
        ...

    def forget(self) -> bool:
        """Hear that the last ones were refused; tell whether `find` may give others now."""
        ...


@dataclass(frozen=True, slots=True)
class FixedCredentials:
    """The same for every repository."""

    credentials: Credentials | None
    advice: str

    async def find(self, repository: str, realm: str, service: str) -> Credentials | None:
        """Give them."""
        del repository, realm, service
        return self.credentials

    def forget(self) -> bool:
        """Have no others."""
        return False


def anonymous(host: str) -> FixedCredentials:
    """Give no credentials."""
    return FixedCredentials(
        None,
        f"no credentials are configured for {host}; configure some (`registry.auth`)",
    )


def basic(host: str, username: str, password: str) -> FixedCredentials:
    """Give one user's credentials."""
    return FixedCredentials(
        Credentials(username=username, password=password),
        f"check that the credentials of {host} are right and may do this",
    )


class DockerConfig:
    """A `config.json` as `docker login` writes it, or a Secret of type dockerconfigjson.

    Keys are hosts (`ghcr.io`, `https://index.docker.io/v1/`, `*.azurecr.io`) or paths in them
    (`ghcr.io/acme/models`); the longest that fits decides. The file is read anew for every token,
    since a mounted Secret changes in place.
    """

    def __init__(self, path: Path, host: str) -> None:
        self.advice = (
            f"check that {path} has credentials for {host}, that they are right and may do this"
        )
        self._path = path
        self._host = host
        self._errors = RegistryErrors(host, self.advice)

    async def find(self, repository: str, realm: str, service: str) -> Credentials | None:
        """Look them up."""
        del realm, service
        try:
            return docker_credentials(
                json.loads(self._path.read_text(encoding="utf-8")), self._host, repository
            )
        except (OSError, ValueError, AttributeError, TypeError) as error:
            raise self._errors.denied(
                f"cannot read the registry credentials in {self._path} ({error}); it must be a "
                "config.json as `docker login` writes it"
            ) from error

    def forget(self) -> bool:
        """Have no others than the file's."""
        return False


def docker_credentials(config: Any, host: str, repository: str) -> Credentials | None:
    """Find a repository's entry in a Docker configuration (a JSON tree).

    Raises ValueError, AttributeError or TypeError when the configuration is not one.
    """
    entries = {
        key: entry
        for key, entry in config.get("auths", {}).items()
        if entry and _covers(key, host, repository)
    }
    if not entries:
        return None
    # Whole names before patterns, then the longest path.
    best = max(entries, key=lambda key: ("*" not in key, len(_plain(key)[1])))
    return _docker_entry(entries[best])


def _covers(key: str, host: str, repository: str) -> bool:
    name, path = _plain(key)
    ours = _ALIASES.get(host, host).lower()
    fits = name.count(".") == ours.count(".") and fnmatchcase(ours, name)
    return fits and (not path or f"{repository}/".startswith(f"{path}/"))


def _plain(key: str) -> tuple[str, str]:
    """Give host and path of a key, without scheme and the version that old tools put there."""
    name, _, path = key.rpartition("://")[2].partition("/")
    path = path.strip("/")
    return _ALIASES.get(name, name).lower(), "" if path in _NOT_PATHS else path


def _docker_entry(entry: Mapping[str, str]) -> Credentials:
    username, password = entry.get("username", ""), entry.get("password", "")
    if encoded := entry.get("auth"):
        try:
            decoded = base64.b64decode(encoded, validate=True).decode()
        except binascii.Error as error:
            raise ValueError(f"`auth` is not base64: {error}") from error
        username, _, password = decoded.partition(":")
    return Credentials(
        username=username,
        password=password.strip("\0"),
        identity_token=entry.get("identitytoken", ""),
    )
