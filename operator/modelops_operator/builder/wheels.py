"""Wheels: fetched by hash, and laid out as an installer would, for a place in the image.

Nothing of a wheel runs here. Console scripts are written by us, byte code is compiled with the path
it will have, and whatever points out of the wheel is refused.
"""

import asyncio
import configparser
import io
import os
import re
import stat
import tempfile
import zipfile
import zlib
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from hashlib import file_digest, sha256
from pathlib import Path, PurePosixPath
from typing import Final, Self
from urllib.parse import urlsplit

import httpx

from modelops_operator.adapters.registry_retry import LONGEST_PAUSE, pause
from modelops_operator.api.reasons import Reason
from modelops_operator.builder.bytecode import Compiler, cache_name, same_version
from modelops_operator.builder.failures import BuildError, broken, passing
from modelops_operator.builder.layers import Entry
from modelops_operator.builder.lock import Lock, LockedWheel

PREFIX: Final = "opt/venv"
INTERPRETER: Final = f"/{PREFIX}/bin/python3"
LARGEST_WHEEL: Final = 16 * 1024**3
"""Bytes, unpacked: more than any real wheel has, and less than a zip bomb."""
LARGEST_SOURCE: Final = 64 * 1024**2
"""Bytes of a file that is held in memory as a whole: modules, scripts and metadata."""
ATTEMPTS: Final = 4
DOWNLOADS: Final = 8
_SCRIPT: Final = """\
#!{interpreter}
import sys

from {module} import {attribute}

if __name__ == "__main__":
    sys.argv[0] = sys.argv[0].removesuffix(".exe")
    sys.exit({call}())
"""
_DAMAGED: Final = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    RuntimeError,  # encryption, and methods of compression that Python does not know
    OSError,  # places in the file that cannot be
    UnicodeDecodeError,
    configparser.Error,
)
"""What reading a damaged archive raises."""
_ODD: Final = re.compile(r"[\x00-\x1f\\:]")
"""What no name of a file may have: other systems' roots and separators, and what is not printed."""
_ENTRY_POINT: Final = re.compile(r"(?P<module>[\w.]+)\s*:\s*(?P<call>[\w.]+)\s*(\[[^\]]*\])?")


def site_packages(python: str) -> str:
    """Give the folder for packages, from the root of the image."""
    return f"{PREFIX}/lib/python{python}/site-packages"


def frame(python: str) -> Iterator[Entry]:
    """Give the files that make the prefix a virtual environment of the base image's Python."""
    settings = f"home = /usr/bin\ninclude-system-site-packages = false\nversion = {python}\n"
    yield Entry.of(f"{PREFIX}/pyvenv.cfg", settings.encode())
    yield Entry.symlink(f"{PREFIX}/bin/python3", f"/usr/bin/python{python}")
    yield Entry.symlink(f"{PREFIX}/bin/python", "python3")


# --- fetching ------------------------------------------------------------------------------


class WheelStore:
    """A folder of wheels by their hash, filled from where the lock says they are."""

    def __init__(self, folder: Path, client: httpx.AsyncClient) -> None:
        self._folder = folder
        self._client = client
        self._slots = asyncio.Semaphore(DOWNLOADS)

    async def fetch(self, wheel: LockedWheel) -> Path:
        """Give the wheel's file; raise BuildError when it cannot be had, or is another."""
        if wheel.path:
            await asyncio.to_thread(_check_file, wheel, wheel.path)
            return wheel.path
        path = self._folder / f"{wheel.sha256}.whl"
        if not path.exists():
            async with self._slots:
                await self._download(wheel, path)
        return path

    async def sized(self, lock: Lock) -> Lock:
        """Ask for the sizes that a plain index did not tell: layers are dealt by them.

        What is not told then either stays unknown.
        """
        return Lock(tuple(await asyncio.gather(*(self._sized(wheel) for wheel in lock.wheels))))

    async def _sized(self, wheel: LockedWheel) -> LockedWheel:
        if wheel.size:
            return wheel
        if wheel.path:
            return replace(wheel, size=wheel.path.stat().st_size)
        async with self._slots:
            try:
                response = await self._client.head(wheel.url, follow_redirects=True)
            except httpx.TransportError:
                return wheel
        length = response.headers.get("content-length", "0") if response.is_success else "0"
        return replace(wheel, size=int(length))

    async def _download(self, wheel: LockedWheel, path: Path) -> None:
        partial_path = path.with_suffix(f".{id(wheel):x}.part")
        for attempt in range(ATTEMPTS):
            try:
                found = await self._stream(wheel, partial_path)
            except (httpx.TransportError, httpx.HTTPStatusError) as error:
                seconds = pause(attempt, _asked(error))
                if attempt == ATTEMPTS - 1 or seconds > LONGEST_PAUSE:
                    raise _unreachable(wheel, error) from error
                await asyncio.sleep(seconds)
                continue
            if found != wheel.sha256:
                partial_path.unlink()
                raise _changed(wheel, f"the index sent a file of sha256 {found}")
            partial_path.rename(path)
            return

    async def _stream(self, wheel: LockedWheel, path: Path) -> str:
        hasher = sha256()
        async with self._client.stream("GET", wheel.url, follow_redirects=True) as response:
            if response.status_code in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}:
                raise broken(
                    Reason.PACKAGE_INDEX_DENIED,
                    f"{wheel.filename}: the package index answers {response.status_code}; check "
                    "the index's credentials",
                )
            if response.status_code == httpx.codes.NOT_FOUND:
                raise broken(
                    Reason.PACKAGE_CORRUPT,
                    f"{wheel.filename}: the package index does not have it any more",
                )
            response.raise_for_status()
            with path.open("wb") as file:
                async for piece in response.aiter_bytes():
                    hasher.update(piece)
                    file.write(piece)
        return hasher.hexdigest()


def _check_file(wheel: LockedWheel, path: Path) -> None:
    """Compare a file in a folder here with the lock."""
    try:
        with path.open("rb") as file:
            found = file_digest(file, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise broken(
            Reason.PACKAGE_CORRUPT,
            f"{wheel.filename}: {path.parent} does not have it any more; put it back",
        ) from error
    if found != wheel.sha256:
        raise _changed(wheel, f"{path.parent} has a file of sha256 {found}")


def _changed(wheel: LockedWheel, what: str) -> BuildError:
    return broken(
        Reason.PACKAGE_CORRUPT,
        f"{wheel.filename}: {what}, the lock says {wheel.sha256}; find out who changed it before "
        "you trust either",
    )


def _asked(error: Exception) -> str:
    """Give what the index wants as `Retry-After`; empty for what is no answer."""
    if not isinstance(error, httpx.HTTPStatusError):
        return ""
    return str(error.response.headers.get("retry-after", ""))


def _unreachable(wheel: LockedWheel, error: Exception) -> BuildError:
    host = urlsplit(wheel.url).netloc.rpartition("@")[2]
    cause = str(error) or type(error).__name__
    if isinstance(error, httpx.HTTPStatusError):
        cause = f"it answers {error.response.status_code}"
    return passing(
        Reason.PACKAGE_INDEX_UNREACHABLE,
        f"{wheel.filename}: cannot be fetched from {host} ({cause}); check the proxy, "
        "`builder.indexUrls` and `builder.caBundle`",
    )


# --- laying out ----------------------------------------------------------------------------


def installed(
    wheels: Iterable[tuple[LockedWheel, Path]], python: str, stack: ExitStack
) -> Iterator[Entry]:
    """Give the files of wheels as they are installed, byte code included.

    The entries read from the wheels' files, which stay open as long as `stack`. Raises BuildError
    for a wheel that is damaged or would write outside its place.
    """
    compiler = stack.enter_context(Compiler()) if same_version(python) else None
    shelf = _Shelf(stack)
    for wheel, path in wheels:
        try:
            archive = stack.enter_context(zipfile.ZipFile(path))
            yield from _Installation(archive, wheel, python, compiler, shelf).entries()
        except _DAMAGED as error:
            raise _refused(wheel, f"is damaged ({error})") from error


class _Shelf:
    """A file for sources and byte code, which would fill the memory until a layer has them."""

    def __init__(self, stack: ExitStack) -> None:
        self._file = stack.enter_context(tempfile.TemporaryFile(buffering=0))  # noqa: SIM115 (it is)
        self._end = 0

    def entry(self, path: str, content: bytes, *, executable: bool = False) -> Entry:
        """Put bytes there; make the file of the layer that is read from there."""
        try:
            self._file.write(content)
        except OSError as error:
            raise broken(
                Reason.BUILD_FAILED,
                f"the builder cannot work in {tempfile.gettempdir()}: {error}; give it more disk",
            ) from error
        opener = partial(self._open, self._end, len(content))
        self._end += len(content)
        return Entry(path, len(content), opener, executable)

    def _open(self, offset: int, size: int) -> io.BytesIO:
        return io.BytesIO(os.pread(self._file.fileno(), size, offset))


class _Member:
    """A file in a wheel that is read when its layer is written, long after it was found."""

    def __init__(
        self, archive: zipfile.ZipFile, info: zipfile.ZipInfo, wheel: LockedWheel, recorded: str
    ) -> None:
        self._wheel = wheel
        self._recorded = recorded
        self._left = info.file_size
        self._hasher = sha256()
        try:
            self._file = archive.open(info)
        except _DAMAGED as error:
            raise _refused(wheel, f"is damaged ({error})") from error

    def read(self, size: int = -1) -> bytes:
        try:
            content = self._file.read(size)
        except _DAMAGED as error:
            raise _refused(self._wheel, f"is damaged ({error})") from error
        if len(content) < size:
            raise _refused(self._wheel, f"is damaged ({self._file.name} ends early)")
        self._hasher.update(content)
        self._left -= len(content)
        if not self._left:
            _compare(self._wheel, self._file.name, self._hasher.digest(), self._recorded)
        return content

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


class _Installation:
    """The work on one wheel."""

    def __init__(
        self,
        archive: zipfile.ZipFile,
        wheel: LockedWheel,
        python: str,
        compiler: Compiler | None,
        shelf: _Shelf,
    ) -> None:
        self._archive = archive
        self._wheel = wheel
        self._python = python
        self._compiler = compiler
        self._shelf = shelf
        self._site = site_packages(python)
        self._members = {
            info.filename: info for info in archive.infolist() if not info.filename.endswith("/")
        }
        self._info = self._metadata_folder()
        self._data = self._info.removesuffix(".dist-info") + ".data"
        self._records = self._read_records()
        self._written: list[str] = []

    def entries(self) -> Iterator[Entry]:
        if sum(info.file_size for info in self._members.values()) > LARGEST_WHEEL:
            raise _refused(self._wheel, "unpacks to more than any package may have")
        for name in sorted(self._members):
            if name not in {f"{self._info}/RECORD", f"{self._info}/INSTALLER"}:
                yield from self._member(self._members[name])
        yield from self._console_scripts()
        yield self._own(f"{self._site}/{self._info}/INSTALLER", b"modelops\n")
        self._written.append(f"{self._info}/RECORD,,")
        record = "".join(f"{line}\n" for line in sorted(self._written)).encode()
        yield Entry.of(f"{self._site}/{self._info}/RECORD", record)

    def _member(self, info: zipfile.ZipInfo) -> Iterator[Entry]:
        path = self._place(info)
        if "/__pycache__/" in f"/{info.filename}":
            return  # made by whoever built the wheel, for whatever path; ours is made below
        record = self._records.get(info.filename, f",{info.file_size}")
        recorded, _, size = record.rpartition(",")
        if size not in {"", str(info.file_size)}:
            raise _refused(self._wheel, f"holds {info.filename!r}, of another size than it says")
        if info.filename.startswith(f"{self._data}/scripts/"):
            content = self._checked(info, recorded)
            if content.startswith(b"#!python"):
                _, newline, rest = content.partition(b"\n")
                content = f"#!{INTERPRETER}".encode() + newline + rest
            yield self._own(path, content, executable=True)
            return
        executable = bool((info.external_attr >> 16) & 0o111)
        self._written.append(f"{self._quoted(path)},{record}")
        if not path.endswith(".py"):
            opener = partial(_Member, self._archive, info, self._wheel, recorded)
            yield Entry(path, info.file_size, opener, executable)
            return
        source = self._checked(info, recorded)
        yield self._shelf.entry(path, source, executable=executable)
        yield from self._bytecode(path, source)

    def _bytecode(self, path: str, source: bytes) -> Iterator[Entry]:
        # Tests are kept, since some packages import their own; compiling them buys nothing.
        if self._compiler is None or "/tests/" in path or not path.startswith(self._site):
            return
        try:
            pyc = self._compiler.compile(source, f"/{path}")
        except (EOFError, OSError) as error:
            raise passing(
                Reason.BUILD_FAILED,
                f"compiling {path} ended before its time ({error}); give the builder more memory",
            ) from error
        if pyc:
            name = cache_name(path, self._python)
            self._written.append(f"{self._quoted(name)},,")
            yield self._shelf.entry(name, pyc)

    def _console_scripts(self) -> Iterator[Entry]:
        info = self._members.get(f"{self._info}/entry_points.txt")
        if info is None:
            return
        parser = configparser.ConfigParser(delimiters=("=",), interpolation=None, strict=False)
        parser.optionxform = str  # type: ignore[assignment,method-assign] # names have cases
        parser.read_string(self._read(info).decode())
        for section in ("console_scripts", "gui_scripts"):
            for name, value in parser.items(section) if parser.has_section(section) else ():
                match = _ENTRY_POINT.fullmatch(value.strip())
                if not match or not re.fullmatch(r"[\w.-]+", name):
                    raise _refused(self._wheel, f"has the console script {name} = {value}")
                script = _SCRIPT.format(
                    interpreter=INTERPRETER,
                    module=match["module"],
                    attribute=match["call"].partition(".")[0],
                    call=match["call"],
                )
                yield self._own(f"{PREFIX}/bin/{name}", script.encode(), executable=True)

    def _place(self, info: zipfile.ZipInfo) -> str:
        """Say where in the image a member goes; refuse what would leave its place."""
        name = info.filename
        parts = PurePosixPath(name).parts
        kind = stat.S_IFMT(info.external_attr >> 16)
        if not parts or name.startswith("/") or ".." in parts or _ODD.search(name):
            raise _refused(self._wheel, f"holds a file of the name {name!r}")
        if kind not in {0, stat.S_IFREG}:
            raise _refused(self._wheel, f"holds {name!r}, which is not a plain file")
        if parts[0] != self._data:
            return f"{self._site}/{name}"
        if len(parts) < 3 or parts[1] not in self._schemes():
            raise _refused(self._wheel, f"holds {name!r}, whose place is not known")
        return f"{self._schemes()[parts[1]]}/{'/'.join(parts[2:])}"

    def _schemes(self) -> dict[str, str]:
        include = f"{PREFIX}/include/site/python{self._python}/{self._wheel.name}"
        return {
            "purelib": self._site,
            "platlib": self._site,
            "scripts": f"{PREFIX}/bin",
            "data": PREFIX,
            "headers": include,
        }

    def _metadata_folder(self) -> str:
        folders = {
            name.partition("/")[0]
            for name in self._members
            if re.fullmatch(r"[^/]+\.dist-info/METADATA", name)
        }
        if len(folders) != 1:
            raise _refused(self._wheel, f"has {len(folders)} folders of metadata instead of one")
        return folders.pop()

    def _read_records(self) -> dict[str, str]:
        """Read hash and size of each file as the wheel's own RECORD has them."""
        info = self._members.get(f"{self._info}/RECORD")
        if info is None:
            raise _refused(self._wheel, "has no RECORD")
        rows = (line.rsplit(",", 2) for line in self._read(info).decode().splitlines())
        return {row[0].strip('"'): f"{row[1]},{row[2]}" for row in rows if len(row) == 3}

    def _read(self, info: zipfile.ZipInfo) -> bytes:
        if info.file_size > LARGEST_SOURCE:
            raise _refused(self._wheel, f"holds {info.filename!r}, which is larger than any source")
        return self._archive.read(info)

    def _checked(self, info: zipfile.ZipInfo, recorded: str) -> bytes:
        """Read a file and compare its hash with the RECORD's."""
        content = self._read(info)
        _compare(self._wheel, info.filename, sha256(content).digest(), recorded)
        return content

    def _own(self, path: str, content: bytes, *, executable: bool = False) -> Entry:
        """Make a file whose content is ours, and note it in the RECORD."""
        self._written.append(
            f"{self._quoted(path)},{_record_hash(sha256(content).digest())},{len(content)}"
        )
        return Entry.of(path, content, executable=executable)

    def _quoted(self, path: str) -> str:
        """Write a path as a RECORD does: from the folder for packages."""
        inside = path.startswith(f"{self._site}/")
        away = path.removeprefix(f"{PREFIX}/")
        name = path.removeprefix(f"{self._site}/") if inside else f"../../../{away}"
        return f'"{name}"' if "," in name else name


def _record_hash(digest: bytes) -> str:
    """Write a SHA-256 as a RECORD does."""
    return "sha256=" + urlsafe_b64encode(digest).rstrip(b"=").decode()


def _compare(wheel: LockedWheel, name: str, digest: bytes, recorded: str) -> None:
    """Refuse a file whose hash is not the recorded one; hashes of other kinds are not compared."""
    if recorded.startswith("sha256=") and recorded != _record_hash(digest):
        raise _refused(wheel, f"holds {name!r}, with another hash than it says")


def _refused(wheel: LockedWheel, what: str) -> BuildError:
    return broken(
        Reason.PACKAGE_CORRUPT,
        f"{wheel.filename} {what}; it is not installed: require another version of {wheel.name}",
    )
