"""Whether a row is unlike what the model was trained on: a Mahalanobis distance.

P. C. Mahalanobis, "On the generalised distance in statistics", 1936. The distance of a row x is
(x - mean) P (x - mean) with the precision matrix P, the inverse of a shrunk covariance. Training
estimates them; here it takes about a microsecond a row. The long tails of incomes and the like are
bent to logarithms before, or whatever is in them would have to pass for ordinary.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, Self

import numpy as np
import orjson
from numpy.typing import NDArray

from modelops_runtime.schema import UNSEEN, Matrix

KIND: Final = "mahalanobis"


class DetectorError(ValueError):
    """A detector.json that is not one; the message says what is wrong."""


class OutlierDetector(Protocol):
    """What every kind of outlier detector does."""

    @property
    def threshold(self) -> float:
        """Rows with a larger score are outliers."""

    @property
    def reference_rate(self) -> float:
        """Share of outliers in the reference rows."""

    def score(self, matrix: Matrix) -> NDArray[np.float64]:
        """Tell how unlike the training data each encoded row is: shape (n, k) -> (n,)."""

    def flag(self, matrix: Matrix) -> NDArray[np.bool_]:
        """Say which encoded rows are outliers: shape (n, k) -> (n,)."""

    def to_json(self) -> bytes:
        """Write detector.json: the same detector always gives the same bytes."""


def filled(
    matrix: Matrix, impute: NDArray[np.float64], unseen: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Put numbers in the place of missing values and unseen categories."""
    rows = np.where(np.isnan(matrix), impute, matrix)
    met = rows == UNSEEN
    return np.where(met & ~np.isnan(unseen), unseen, rows) if met.any() else rows


@dataclass(frozen=True, slots=True, eq=False)
class Tails:
    """Where k inputs cease to be ordinary; infinite for a tail that is not long."""

    center: NDArray[np.float64]
    """Shape (k,)."""
    lower: NDArray[np.float64]
    """Shape (k,): the distance below the center from which on logarithms count, above 0."""
    upper: NDArray[np.float64]
    """Shape (k,): the same above it."""

    def bend(self, rows: Matrix) -> Matrix:
        """Give s (1 + ln(d/s)) for a distance d from the center beyond s, and d as it is within."""
        off = rows - self.center
        far, knee = np.abs(off), np.where(off < 0, self.lower, self.upper)
        ordinary = far <= knee
        if ordinary.all():
            return off + self.center
        bent = np.copysign(knee * (1 + np.log(np.maximum(far / knee, 1))), off)
        return np.where(ordinary, off, bent) + self.center


@dataclass(frozen=True, slots=True, eq=False)
class Mahalanobis:
    """An outlier detector over k encoded inputs."""

    mean: NDArray[np.float64]
    """Shape (k,)."""
    precision: NDArray[np.float64]
    """Shape (k, k)."""
    impute: NDArray[np.float64]
    """Shape (k,): what stands for a missing value."""
    unseen: NDArray[np.float64]
    """Shape (k,): what stands for an unseen category; NaN for columns that are numbers."""
    threshold: float
    """Rows with a larger squared distance are outliers."""
    reference_rate: float
    """Share of outliers in the reference rows."""
    tails: Tails | None = None
    """None where no input has long ones."""

    def __post_init__(self) -> None:
        k = len(self.mean)
        shapes = (self.mean.shape, self.precision.shape, self.impute.shape, self.unseen.shape)
        if shapes != ((k,), (k, k), (k,), (k,)):
            raise DetectorError(f"shapes {shapes} do not belong together")
        known = (self.mean, self.precision, self.impute, self.threshold, self.reference_rate)
        if not all(np.isfinite(each).all() for each in known):
            raise DetectorError("a number is not finite")
        if self.tails is not None:
            ends = (self.tails.center, self.tails.lower, self.tails.upper)
            if {each.shape for each in ends} != {(k,)}:
                raise DetectorError(f"{len(ends[0])} tails do not belong to {k} inputs")
            if not (np.isfinite(ends[0]).all() and (ends[1] > 0).all() and (ends[2] > 0).all()):
                raise DetectorError("a tail begins nowhere, or at its center")

    @classmethod
    def from_json(cls, content: bytes) -> Self:
        """Read detector.json. Raises DetectorError.

        `unseen` may be left out (the code -1 is then taken as it is) and has null for numbers;
        `tails` may be left out and has null for tails that are not long.
        """
        try:
            data = orjson.loads(content)
            kind = data["kind"]
            impute = np.array(data["impute"], dtype=np.float64)
            detector = cls(
                mean=np.array(data["mean"], dtype=np.float64),
                precision=np.array(data["precision"], dtype=np.float64),
                impute=impute,
                unseen=np.array(data.get("unseen") or [None] * len(impute), dtype=np.float64),
                threshold=float(data["threshold"]),
                reference_rate=float(data["reference_rate"]),
                tails=_tails(data.get("tails")),
            )
        except DetectorError:
            raise
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DetectorError(f"not a detector: {error!r}") from error
        if kind != KIND:
            raise DetectorError(f"kind {kind!r} is not {KIND}")
        return detector

    def to_json(self) -> bytes:
        """Write detector.json: the same detector always gives the same bytes."""
        return orjson.dumps(
            {
                "kind": KIND,
                "mean": self.mean,
                "precision": np.ascontiguousarray(self.precision),
                "impute": self.impute,
                "unseen": [None if np.isnan(each) else float(each) for each in self.unseen],
                "threshold": self.threshold,
                "reference_rate": self.reference_rate,
                **({} if self.tails is None else {"tails": _described(self.tails)}),
            },
            option=orjson.OPT_SERIALIZE_NUMPY,
        )

    def score(self, matrix: Matrix) -> NDArray[np.float64]:
        """Give the squared distance of each encoded row: shape (n, k) -> (n,).

        Infinite where it is too large for a float.
        """
        distance = self._distance(matrix)
        return np.where(np.isnan(distance), np.inf, distance)

    def flag(self, matrix: Matrix) -> NDArray[np.bool_]:
        """Say which encoded rows are outliers: shape (n, k) -> (n,)."""
        return ~(self._distance(matrix) <= self.threshold)

    def _distance(self, matrix: Matrix) -> NDArray[np.float64]:
        """Give the squared distances; NaN where infinities of both signs meet, which is far."""
        rows = filled(matrix, self.impute, self.unseen)
        with np.errstate(over="ignore", invalid="ignore"):
            off = (rows if self.tails is None else self.tails.bend(rows)) - self.mean
            distances: NDArray[np.float64] = ((off @ self.precision) * off).sum(axis=1)
        return distances


def _tails(data: Mapping[str, Any] | None) -> Tails | None:
    if data is None:
        return None
    ends = (np.array(data[name], dtype=np.float64) for name in ("lower", "upper"))
    lower, upper = (np.where(np.isnan(end), np.inf, end) for end in ends)
    return Tails(np.array(data["center"], dtype=np.float64), lower, upper)


def _described(tails: Tails) -> dict[str, Any]:
    ends = {"lower": tails.lower, "upper": tails.upper}
    finite = {
        name: [float(each) if np.isfinite(each) else None for each in end]
        for name, end in ends.items()
    }
    return {"center": tails.center, **finite}
