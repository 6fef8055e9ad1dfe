"""Layers: files in, a compressed archive out, the same bytes for the same files.

Names are sorted, times are zero, everything belongs to root and is readable by all; nothing depends
on the machine, the folder or the day.
"""

import errno
import io
import tarfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Protocol, Self

from isal import isal_zlib

from modelops_operator.adapters.oci import Blob

LAYER: Final = "application/vnd.oci.image.layer.v1.tar+gzip"
DIFF_ID: Final = "modelops.dev/diff-id"
"""Annotation on our layers: digest of the uncompressed archive, as image configurations want it."""
CONTENT: Final = "modelops.dev/content"
"""Annotation on our layers: what is in it, in words."""
BUFFER: Final = 1024 * 1024
_GZIP: Final = 31
"""Window bits that mean: 32 kB and a gzip header, which here has no time and no name."""


class Readable(Protocol):
    """What a layer needs of a file."""

    def read(self, size: int = -1, /) -> bytes:
        """Read up to so many bytes, all of them when negative."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class Entry:
    """One file or symbolic link."""

    path: str
    """From the root of the image, without a leading slash."""
    size: int
    open: Callable[[], "Readable"]
    executable: bool = False
    link: str = ""
    """Where a symbolic link leads to; empty for files."""

    @classmethod
    def of(cls, path: str, content: bytes, *, executable: bool = False) -> "Entry":
        """Make a file of bytes."""
        return cls(path, len(content), partial(io.BytesIO, content), executable)

    @classmethod
    def from_file(cls, path: str, source: Path) -> "Entry":
        """Make a file of a file here, which is read only when the layer is written."""
        return cls(path, source.stat().st_size, lambda: source.open("rb"))

    @classmethod
    def symlink(cls, path: str, link: str) -> "Entry":
        """Make a symbolic link."""
        return cls(path, 0, io.BytesIO, link=link)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A layer as the image's manifest and configuration refer to it."""

    digest: str
    size: int
    """Bytes, compressed."""
    diff_id: str
    media_type: str = LAYER
    content: str = ""
    """What is in it, in words."""

    def descriptor(self) -> dict[str, Any]:
        """Write it as manifests do."""
        content = {CONTENT: self.content} if self.content else {}
        return {
            "mediaType": self.media_type,
            "digest": self.digest,
            "size": self.size,
            "annotations": {DIFF_ID: self.diff_id} | content,
        }

    @classmethod
    def read(cls, descriptor: Mapping[str, Any], diff_id: str | None = None) -> "Layer":
        """Read a descriptor; the diff id comes from an image configuration, or was noted by us."""
        annotations = descriptor.get("annotations", {})
        return cls(
            digest=descriptor["digest"],
            size=descriptor["size"],
            diff_id=diff_id or annotations[DIFF_ID],
            media_type=descriptor["mediaType"],
            content=annotations.get(CONTENT, ""),
        )


@dataclass(slots=True)
class _Sink:
    """Where the archive goes: hashed, compressed, hashed again, into a file.

    It is compressed in pieces of one size, since what comes out depends on how it goes in.
    """

    file: IO[bytes]
    compressor: Any = field(default_factory=lambda: isal_zlib.compressobj(1, wbits=_GZIP))
    inner: Any = field(default_factory=sha256)
    outer: Any = field(default_factory=sha256)
    size: int = 0
    archived: int = 0
    pending: bytearray = field(default_factory=bytearray)

    def write(self, data: bytes) -> None:
        self.archived += len(data)
        self.pending += data
        while len(self.pending) > BUFFER:
            piece = self.pending[:BUFFER]
            del self.pending[:BUFFER]
            self._compress(piece)

    def pad(self, block: int) -> None:
        self.write(bytes(-self.archived % block))

    def finish(self) -> None:
        self._compress(self.pending)
        self._put(self.compressor.flush())

    def _compress(self, data: bytearray) -> None:
        self.inner.update(data)
        self._put(self.compressor.compress(data))

    def _put(self, data: bytes) -> None:
        self.outer.update(data)
        self.size += len(data)
        self.file.write(data)


def write_layer(entries: Iterable[Entry], path: Path, *, content: str) -> tuple[Layer, Blob]:
    """Write a layer into a file. Of two entries of one path the later one is kept."""
    files = {entry.path: entry for entry in entries}
    with path.open("wb") as file:
        sink = _Sink(file)
        for name in sorted(files.keys() | _folders(files)):
            _add(sink, name, files.get(name))
        sink.write(bytes(2 * tarfile.BLOCKSIZE))
        sink.pad(tarfile.RECORDSIZE)
        sink.finish()
    layer = Layer(
        digest=f"sha256:{sink.outer.hexdigest()}",
        size=sink.size,
        diff_id=f"sha256:{sink.inner.hexdigest()}",
        content=content,
    )
    return layer, Blob(digest=layer.digest, size=layer.size, content=path)


def _folders(names: Iterable[str]) -> set[str]:
    found: set[str] = set()
    for name in names:
        folder = name.rpartition("/")[0]
        while folder and folder not in found:
            found.add(folder)
            folder = folder.rpartition("/")[0]
    return found


# Headers are tarfile's. Its TarFile, which keeps and copies them, takes as long as the compression.
def _add(sink: _Sink, name: str, entry: Entry | None) -> None:
    info = tarfile.TarInfo(name)  # whose owner is 0 and whose time is 0 from the start
    if entry is None:
        info.type, info.mode = tarfile.DIRTYPE, 0o755
    elif entry.link:
        info.type, info.mode, info.linkname = tarfile.SYMTYPE, 0o777, entry.link
    else:
        info.size, info.mode = entry.size, 0o755 if entry.executable else 0o644
    sink.write(info.tobuf(tarfile.PAX_FORMAT, "utf-8"))
    if info.size and entry is not None:
        with entry.open() as file:
            _copy(file, sink, entry)
        sink.pad(tarfile.BLOCKSIZE)


def _copy(file: Readable, sink: _Sink, entry: Entry) -> None:
    left = entry.size
    while left:
        piece = file.read(min(BUFFER, left))
        if not piece:
            raise OSError(errno.EIO, f"{entry.path} is shorter than it was")
        sink.write(piece)
        left -= len(piece)
