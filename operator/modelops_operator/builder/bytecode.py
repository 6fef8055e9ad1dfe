"""Compiles modules for the image: started as a program of its own, it imports nothing of ours.

Byte code embeds object references that depend on what else the interpreter has loaded, so one
fresh process compiles the modules of one layer in their order: the same modules always give the
same bytes. It reads frames from standard input (length of the path, the path, length of the source,
the source) and answers each with a length and the content of the `.pyc`; a length of 0 means that
the source does not compile. `Compiler` is the other end.
"""

import gc
import importlib.util
import marshal
import struct
import subprocess
import sys
import warnings
from types import TracebackType
from typing import IO, Final, Self

LENGTH: Final = struct.Struct("<I")
UNCHECKED_HASH: Final = 0b01
"""Flag of a `.pyc` that is valid whatever the source's time stamp is, and never checked."""


class Compiler:
    """A process that compiles modules one after the other."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(  # noqa: S603 (our own interpreter and file)
            [sys.executable, "-S", "-s", "-P", "-B", "-E", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={},
        )

    def compile(self, source: bytes, path: str) -> bytes | None:
        """Give the `.pyc` of a module that will lie at `path`; None if it does not compile."""
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:  # pragma: no cover (both are pipes)
            raise ValueError("the compiler is closed")
        for part in (path.encode(), source):
            stdin.write(LENGTH.pack(len(part)))
            stdin.write(part)
        stdin.flush()
        return _read_frame(stdout) or None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.communicate()


def cache_name(path: str, python: str) -> str:
    """Give the place of the `.pyc` that belongs to a module, for a minor version of Python."""
    folder, _, name = path.rpartition("/")
    tag = f"cpython-{python.replace('.', '')}"
    return f"{folder}/__pycache__/{name.removesuffix('.py')}.{tag}.pyc"


def same_version(python: str) -> bool:
    """Tell whether this interpreter's byte code runs on a minor version of Python."""
    return python == f"{sys.version_info.major}.{sys.version_info.minor}"


def _read_frame(stream: IO[bytes]) -> bytes:
    size = LENGTH.unpack(_exactly(stream, LENGTH.size))[0]
    return _exactly(stream, size)


def _exactly(stream: IO[bytes], size: int) -> bytes:
    content = stream.read(size)
    if len(content) < size:
        raise EOFError("the other end is gone")
    return content


def _pyc(source: bytes, path: str) -> bytes:
    try:
        code = compile(source, path, "exec", dont_inherit=True, optimize=0)
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError):
        return b""
    header = importlib.util.MAGIC_NUMBER + LENGTH.pack(UNCHECKED_HASH)
    return header + importlib.util.source_hash(source) + marshal.dumps(code)


def _main() -> None:
    warnings.simplefilter("ignore")
    gc.disable()  # what is compiled makes no cycles, and looking for them takes a tenth of the time
    stdin, stdout = sys.stdin.buffer, sys.stdout.buffer
    while True:
        try:
            path = _read_frame(stdin).decode()
        except EOFError:
            return
        pyc = _pyc(_read_frame(stdin), path)
        stdout.write(LENGTH.pack(len(pyc)))
        stdout.write(pyc)
        stdout.flush()


if __name__ == "__main__":
    _main()
