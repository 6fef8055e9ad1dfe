"""Layers of images and their sizes, for people."""

from collections.abc import Sequence
from typing import Final

import click

_MEGABYTE: Final = 1e6
_WIDTH: Final = 90


def show_layers(layers: Sequence[tuple[str, int]]) -> None:
    """Print what each layer holds, and its size."""
    for content, size in layers:
        short = content if len(content) <= _WIDTH else f"{content[: _WIDTH - 1]}…"
        click.echo(f"{megabytes(size):>10}  {short}")


def megabytes(count: int) -> str:
    """Write bytes as megabytes."""
    return f"{count / _MEGABYTE:.1f} MB"
