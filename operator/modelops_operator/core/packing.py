"""Objects as bytes: as trees of dicts they take ten times the memory."""

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
