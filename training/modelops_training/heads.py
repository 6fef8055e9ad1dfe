"""What answers behind the encoder: a weighted sum, or trees, as the flavor's files."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import treelite
from modelops_runtime import flavor
from modelops_runtime.linear import Linear
from treelite.core import TreeliteError

from modelops_training.errors import NoFastForm


@dataclass(frozen=True, eq=False)
class Head:
    """What answers behind the encoder."""

    kind: str
    """treelite or linear."""
    files: Mapping[str, bytes]
    """The flavor's files, name to content."""
    narrow: bool = False
    """It wants its features rounded to 32 bits."""


def linear(weights: Any, intercept: Any, link: str) -> Head:
    """Write weights (outputs, features) and intercepts (outputs,). Raises NoFastForm."""
    rows = np.atleast_2d(np.asarray(weights, dtype=np.float64))
    constant = np.broadcast_to(np.asarray(intercept, dtype=np.float64), len(rows))
    if rows.ndim != 2 or not np.isfinite(rows).all():
        raise NoFastForm("its weights are not finite")
    return Head("linear", {flavor.LINEAR: Linear(rows, constant.copy(), link).to_json()})


def trees(
    convert: Callable[[], treelite.Model],
    *,
    narrow: bool = False,
    native: Mapping[str, bytes] | None = None,
) -> Head:
    """Write the trees that `convert` gives, with the library's own files. Raises NoFastForm."""
    try:
        # It is not of one mind how to say no: by its library, its importers, or checks of theirs.
        checkpoint = convert().serialize_bytes()
    except (TreeliteError, NotImplementedError, AssertionError, ValueError) as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise NoFastForm(f"treelite does not read it: {said}") from error
    return Head("treelite", {flavor.TREELITE: checkpoint, **(native or {})}, narrow)
