"""Objects as bytes: as trees of dicts they take ten times the memory, those that are alike more."""

import zlib
from collections.abc import Mapping
from typing import Any, Final

import orjson

WORTH_COMPRESSING: Final = 1000
"""Bytes from which on an object is compressed."""


def pack(tree: Mapping[str, Any]) -> bytes:
    """Pack a JSON object, compressed where that is worth the time."""
    content = orjson.dumps(tree)
    if len(content) >= WORTH_COMPRESSING:
        return zlib.compress(content, 1)
    return bytes(memoryview(content))  # a copy, which is without the room that orjson has left


def unpack(content: bytes) -> Mapping[str, Any]:
    """Give the JSON object back."""
    # JSON begins with a brace, which no compressed content does.
    tree: Mapping[str, Any] = orjson.loads(
        content if content[:1] == b"{" else zlib.decompress(content)
    )
    return tree


class Family:
    """Objects that are much alike: each is packed as what it has unlike one of them, the sample.

    That is the preset dictionary of RFC 1950, section 2.2; of it, zlib looks at the last 32 KB.
    """

    def __init__(self) -> None:
        self._sample = b""

    def pack(self, tree: Mapping[str, Any]) -> tuple[bytes, bytes]:
        """Give a JSON object packed, and the sample that it takes to unpack it."""
        content = orjson.dumps(tree)
        if len(content) > 2 * len(self._sample):
            # The first may have come before much was to be told of it.
            self._sample = content
        packer = zlib.compressobj(zdict=self._sample)
        return packer.compress(content) + packer.flush(), self._sample


def unpack_alike(content: bytes, sample: bytes) -> Mapping[str, Any]:
    """Give back the JSON object that a family has packed."""
    tree: Mapping[str, Any] = orjson.loads(zlib.decompressobj(zdict=sample).decompress(content))
    return tree
