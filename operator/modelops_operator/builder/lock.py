"""Locks: exactly which wheels an image gets, each with its address and its hash.

A lock is made by `uv`, either beforehand (the one that travels with the runtime) or here, from what
the models require. It is read in the standard form, `pylock.toml` (PEP 751).
"""

import asyncio
import json
import os
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from uv import find_uv_bin

from modelops_operator.api.config import BuilderConfig
from modelops_operator.api.reasons import Reason
from modelops_operator.builder.failures import BuildError, broken, passing
from modelops_operator.builder.scratch import scratch_folder
from modelops_operator.builder.target import Target

LOG_LINES: Final = 40
"""Lines of uv's words that are kept when it fails."""
_DENIED: Final = ("401 unauthorized", "403 forbidden")
_UNREACHABLE: Final = (
    "error sending request",
    "failed to fetch",
    "connection",
    "timed out",
    "dns error",
    "503",
    "502",
)


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class LockedWheel:
    """One wheel, as sure as can be."""

    name: str
    version: str
    sha256: str
    """Hex digits."""
    size: int
    """Bytes; 0 when the lock does not tell."""
    url: str
    """https, or file for what lies in a folder here."""
    own: bool = False
    """It is one that we bring along, and no other has."""

    @property
    def filename(self) -> str:
        """Give the wheel's own name."""
        return unquote(urlsplit(self.url).path.rpartition("/")[2])

    @property
    def path(self) -> Path | None:
        """Give its file where it lies in a folder here."""
        address = urlsplit(self.url)
        return Path(unquote(address.path)) if address.scheme == "file" else None


@dataclass(frozen=True, slots=True)
class Lock:
    """All wheels of an image, sorted by name."""

    wheels: tuple[LockedWheel, ...]

    @property
    def digest(self) -> str:
        """Give the digest over what gets installed, wherever it is fetched from."""
        content = [[wheel.name, wheel.version, wheel.sha256] for wheel in self.wheels]
        return f"sha256:{sha256(json.dumps(content).encode()).hexdigest()}"

    def with_local(self, wheels: Iterable[Path]) -> "Lock":
        """Add wheels that we bring along, in place of others of their names."""
        local = [local_wheel(path) for path in wheels]
        names = {wheel.name for wheel in local}
        kept = [wheel for wheel in self.wheels if wheel.name not in names]
        return Lock(tuple(sorted([*kept, *local])))


def local_wheel(path: Path) -> LockedWheel:
    """Lock a wheel that we bring along."""
    name, version, _, _ = parse_wheel_filename(path.name)
    content = path.read_bytes()
    return LockedWheel(
        name=name,
        version=str(version),
        sha256=sha256(content).hexdigest(),
        size=len(content),
        url=path.resolve().as_uri(),
        own=True,
    )


# To read the runtime's, which is the same every time, would be a third of a build.
@lru_cache(maxsize=8)
def read_lock(content: bytes, target: Target, *, origin: str) -> Lock:
    """Pick from a `pylock.toml` the wheels for one target.

    Raises BuildError when it is damaged, or a package has no wheel that runs there; `origin` says
    in the message where the lock came from.
    """
    try:
        packages = tomllib.loads(content.decode())["packages"]
        wanted = [package for package in packages if target.wants(package.get("marker"))]
        wheels = [_best_wheel(package, target) for package in wanted]
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise broken(
            Reason.REQUIREMENTS_UNRESOLVABLE, f"the lock of {origin} cannot be read: {error!r}"
        ) from error
    return Lock(tuple(sorted(wheels)))


def _best_wheel(package: Mapping[str, Any], target: Target) -> LockedWheel:
    candidates = []
    for wheel in package.get("wheels", ()):
        address = wheel["url"]
        rank = _rank(unquote(urlsplit(address).path.rpartition("/")[2]), target)
        if rank is not None:
            candidates.append((rank, address, wheel))
    if not candidates:
        raise broken(
            Reason.REQUIREMENTS_UNRESOLVABLE,
            f"{package['name']} {package.get('version', '')} has no wheel for Python "
            f"{target.python} on {target.platform}; require another version of it",
        )
    _, address, wheel = min(candidates, key=lambda candidate: candidate[:2])
    return LockedWheel(
        name=canonicalize_name(package["name"]),
        version=package["version"],
        sha256=wheel["hashes"]["sha256"],
        size=int(wheel.get("size", 0)),
        url=address,
    )


def _rank(filename: str, target: Target) -> int | None:
    try:
        _, _, _, tags = parse_wheel_filename(filename)
    except InvalidWheelFilename:
        return None
    ranks = [target.ranks[tag] for tag in tags if tag in target.ranks]
    return min(ranks, default=None)


async def resolve(
    requirements: Iterable[str],
    target: Target,
    *,
    config: BuilderConfig,
    constraints: Iterable[str] = (),
    preferred: bytes = b"",
) -> Lock:
    """Let uv find the wheels that satisfy requirements, and lock them.

    No other index is asked than those configured; nothing is built from source. Where there is a
    choice, the versions of the lock `preferred` are taken, so that images share layers.
    Raises BuildError when there is no solution, or the index does not answer.
    """
    async with scratch_folder() as folder:
        wanted = _write_lines(folder / "requirements.in", requirements)
        limits = _write_lines(folder / "constraints.in", constraints)
        result = folder / "pylock.toml"
        if preferred:
            await asyncio.to_thread(result.write_bytes, preferred)
        command = [
            *(find_uv_bin(), "pip", "compile", str(wanted), "--constraint", str(limits)),
            *("--format", "pylock.toml", "--output-file", str(result), "--generate-hashes"),
            *("--python-version", target.python, "--python-platform", target.uv_platform),
            *("--only-binary", ":all:", "--no-header", "--no-annotate"),
            *("--no-config", "--no-sources", "--quiet", "--color", "never"),
            *_sources(config.index_urls),
        ]
        await _run(command, cwd=folder, ca_bundle=config.ca_bundle)
        return read_lock(await asyncio.to_thread(result.read_bytes), target, origin="the models")


def _sources(urls: Iterable[str]) -> Iterator[str]:
    """Give uv's options for package indexes and folders of wheels."""
    indexes = []
    for url in urls:
        if url.startswith("file:"):
            yield from ("--find-links", unquote(urlsplit(url).path))
        else:
            indexes.append(url)
    if not indexes:
        yield "--no-index"
    for option, url in zip(
        ["--default-index", *("--index" for _ in indexes)], indexes, strict=False
    ):
        yield from (option, url)


def _write_lines(path: Path, lines: Iterable[str]) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


async def _run(command: list[str], *, cwd: Path, ca_bundle: Path | None) -> None:
    # The models' folder names and our environment's settings must not leak into a resolution.
    environment = {name: value for name, value in os.environ.items() if name in _PASSED_ON}
    environment |= {"UV_NO_PROGRESS": "1", "UV_PYTHON_DOWNLOADS": "never"}
    if ca_bundle:
        environment["SSL_CERT_FILE"] = str(ca_bundle)
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=cwd,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await process.communicate()
    except asyncio.CancelledError:
        process.kill()
        await process.wait()
        raise
    if process.returncode:
        raise _resolution_failed(output.decode(errors="replace"))


_FRAME: Final = "\N{MULTIPLICATION SIGN}╰─▶│├ "  # what uv draws around its words
_PASSED_ON: Final = {
    *("HOME", "PATH", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR", "UV_CACHE_DIR", "UV_FIND_LINKS"),
    *("UV_HTTP_TIMEOUT", "UV_HTTP_RETRIES"),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "NETRC"),
}


def _resolution_failed(output: str) -> BuildError:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    log = "\n".join(lines[-LOG_LINES:])
    told = " ".join(line.lstrip(_FRAME) for line in lines)[:1500]
    lowered = told.lower()
    # First: to uv a package is not there when its index keeps it from us.
    if any(sign in lowered for sign in _DENIED):
        return broken(
            Reason.PACKAGE_INDEX_DENIED,
            f"the package index refuses us: {told}; check the index's credentials",
            log,
        )
    if "no solution found" in lowered:
        return broken(
            Reason.REQUIREMENTS_UNRESOLVABLE,
            f"the models' requirements cannot be met with wheels: {told}; log the model again with "
            "requirements that fit together",
            log,
        )
    if any(sign in lowered for sign in _UNREACHABLE):
        return passing(
            Reason.PACKAGE_INDEX_UNREACHABLE,
            f"the package index does not answer: {told}; check `builder.indexUrls`, the proxy and "
            "`builder.caBundle`",
            log,
        )
    return BuildError.of_program("uv", output)
