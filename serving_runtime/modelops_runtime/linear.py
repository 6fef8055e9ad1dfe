"""Linear models: a weighted sum of the features, and what makes an answer of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Self, TypeAlias

import numpy as np
import orjson
from numpy.typing import NDArray

from modelops_runtime.schema import Matrix

Sums: TypeAlias = NDArray[np.float64]


class LinearError(ValueError):
    """A linear.json that is not one; the message says what is wrong."""


def _logistic(sums: Sums) -> Sums:
    # In this form nothing overflows: e**-|x| lies within 0 and 1.
    small = np.exp(-np.abs(sums))
    return np.where(sums >= 0, 1.0, small) / (1.0 + small)


def _softmax(sums: Sums) -> Sums:
    powers = np.exp(sums - sums.max(axis=1, keepdims=True))
    chances: Sums = powers / powers.sum(axis=1, keepdims=True)
    return chances


def _one_against_rest(sums: Sums) -> Sums:
    chances = _logistic(sums)
    total = chances.sum(axis=1, keepdims=True)
    # All classes are ruled out: then they are all as likely.
    return np.where(total == 0, 1.0 / sums.shape[1], chances / np.where(total == 0, 1.0, total))


LINKS: Final[Mapping[str, Callable[[Sums], Sums]]] = {
    "identity": lambda sums: sums,
    "exp": np.exp,
    "logistic": _logistic,
    "softmax": _softmax,
    "one against rest": _one_against_rest,
}
"""From sums (n, outputs) to values, or to the probabilities of the classes."""


@dataclass(frozen=True, slots=True, eq=False)
class Linear:
    """A linear model of f features and o outputs."""

    weights: NDArray[np.float64]
    """Shape (o, f)."""
    intercept: NDArray[np.float64]
    """Shape (o,)."""
    link: str
    """Name in `LINKS`."""

    def __post_init__(self) -> None:
        if self.weights.ndim != 2 or self.intercept.shape != self.weights.shape[:1]:
            raise LinearError(f"{self.weights.shape} weights do not fit {self.intercept.shape}")
        if self.link not in LINKS:
            raise LinearError(f"link {self.link!r} is not one of {', '.join(LINKS)}")
        if not (np.isfinite(self.weights).all() and np.isfinite(self.intercept).all()):
            raise LinearError("a number is not finite")

    @classmethod
    def from_json(cls, content: bytes) -> Self:
        """Read linear.json. Raises LinearError."""
        try:
            data = orjson.loads(content)
            return cls(
                np.array(data["weights"], dtype=np.float64),
                np.array(data["intercept"], dtype=np.float64),
                str(data["link"]),
            )
        except LinearError:
            raise
        except (ValueError, TypeError, KeyError) as error:
            raise LinearError(f"not a linear model: {error!r}") from error

    def to_json(self) -> bytes:
        """Write linear.json: the same model always gives the same bytes."""
        return orjson.dumps(
            {
                "weights": np.ascontiguousarray(self.weights),
                "intercept": self.intercept,
                "link": self.link,
            },
            option=orjson.OPT_SERIALIZE_NUMPY,
        )

    def sums(self, features: Matrix) -> Sums:
        """Add up: shape (n, f) -> (n, o)."""
        return features @ self.weights.T + self.intercept

    def answers(self, sums: Sums) -> Sums:
        """Make values or probabilities of sums."""
        with np.errstate(over="ignore"):
            return LINKS[self.link](sums)
