"""The other kinds of outlier detector, and which one a model's files are.

mahalanobis        a distance that knows how inputs go together: the default, in `outlier`
isolation_forest   how few random cuts part a row from all others: about 20 times as slow
neighbours         the distance to the k-th nearest of some reference rows, numbers by their
spread: for data in several clusters; a row costs as much as all of them
"""

from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
import orjson
from numpy.typing import NDArray

from modelops_runtime import flavor
from modelops_runtime.flavor import FlavorInfo
from modelops_runtime.forest import Forest, ForestError
from modelops_runtime.outlier import (
    KIND,
    DetectorError,
    Mahalanobis,
    OutlierDetector,
    filled,
)
from modelops_runtime.schema import Matrix

ISOLATION_FOREST: Final = "isolation_forest"
NEIGHBOURS: Final = "neighbours"
_BLOCK: Final = 1_000_000
"""Numbers held at a time while distances are taken: 8 MB."""


def read(info: FlavorInfo) -> OutlierDetector:
    """Read the detector of a model with our flavor. Raises DetectorError, FlavorError."""
    content = info.load(flavor.DETECTOR)
    try:
        kind = orjson.loads(content)["kind"]
    except (ValueError, TypeError, KeyError) as error:
        raise DetectorError(f"not a detector: {error!r}") from error
    if kind == ISOLATION_FOREST:
        return IsolationForest.from_json(content, info.load(flavor.TREELITE))
    if kind == NEIGHBOURS:
        return Neighbours.from_json(content)
    if kind == KIND:
        return Mahalanobis.from_json(content)
    raise DetectorError(f"kind {kind!r} is not one of {KIND}, {ISOLATION_FOREST}, {NEIGHBOURS}")


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class IsolationForest:
    """An isolation forest over k encoded inputs.

    Liu, Ting and Zhou, "Isolation forest", 2008: the score is 2 ** (-mean depth / expected depth),
    0.5 for usual rows and close to 1 for those that few cuts isolate.
    """

    trees: bytes
    """Treelite's checkpoint."""
    impute: NDArray[np.float64]
    """Shape (k,): what stands for a missing value."""
    unseen: NDArray[np.float64]
    """Shape (k,): what stands for an unseen category; NaN for columns that are numbers."""
    threshold: float
    reference_rate: float
    _forest: Forest

    @classmethod
    def of(cls, trees: bytes, **fields: Any) -> Self:
        """Make one of a checkpoint. Raises DetectorError."""
        try:
            return cls(trees=trees, _forest=Forest(trees), **fields)
        except ForestError as error:
            raise DetectorError(f"its trees are not read: {error}") from error

    @classmethod
    def from_json(cls, content: bytes, trees: bytes) -> Self:
        """Read detector.json and the trees beside it. Raises DetectorError."""
        try:
            data = orjson.loads(content)
            return cls.of(trees, **_common(data))
        except DetectorError:
            raise
        except (ValueError, TypeError, KeyError) as error:
            raise DetectorError(f"not a detector: {error!r}") from error

    def to_json(self) -> bytes:
        """Write detector.json: the same detector always gives the same bytes."""
        return _written(ISOLATION_FOREST, self)

    def score(self, matrix: Matrix) -> NDArray[np.float64]:
        """Give the score of each encoded row: shape (n, k) -> (n,)."""
        rows = filled(matrix, self.impute, self.unseen)
        # Its trees were fitted to numbers of 32 bits.
        with np.errstate(over="ignore"):
            narrow = rows.astype(np.float32).astype(np.float64)
        scores: NDArray[np.float64] = self._forest.predict(narrow)[:, 0].astype(np.float64)
        return scores

    def flag(self, matrix: Matrix) -> NDArray[np.bool_]:
        """Say which encoded rows are outliers: shape (n, k) -> (n,)."""
        return self.score(matrix) > self.threshold


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Neighbours:
    """The distance to the k-th nearest of m reference rows, over k encoded inputs."""

    rows: NDArray[np.float64]
    """Shape (m, k), each column divided by its spread."""
    spread: NDArray[np.float64]
    """Shape (k,)."""
    nearest: int
    """Which of the neighbours counts, from 1."""
    impute: NDArray[np.float64]
    unseen: NDArray[np.float64]
    threshold: float
    reference_rate: float

    def __post_init__(self) -> None:
        if self.rows.ndim != 2 or self.rows.shape[1] != len(self.spread):
            raise DetectorError(f"rows of shape {self.rows.shape} for {len(self.spread)} inputs")
        if not 1 <= self.nearest <= len(self.rows):
            raise DetectorError(f"neighbour {self.nearest} of {len(self.rows)} rows")

    @classmethod
    def from_json(cls, content: bytes) -> Self:
        """Read detector.json. Raises DetectorError."""
        try:
            data = orjson.loads(content)
            return cls(
                rows=np.array(data["rows"], dtype=np.float64),
                spread=np.array(data["spread"], dtype=np.float64),
                nearest=int(data["nearest"]),
                **_common(data),
            )
        except DetectorError:
            raise
        except (ValueError, TypeError, KeyError) as error:
            raise DetectorError(f"not a detector: {error!r}") from error

    def to_json(self) -> bytes:
        """Write detector.json: the same detector always gives the same bytes."""
        return _written(
            NEIGHBOURS,
            self,
            rows=np.ascontiguousarray(self.rows),
            spread=self.spread,
            nearest=self.nearest,
        )

    def score(self, matrix: Matrix) -> NDArray[np.float64]:
        """Give the squared distance of each encoded row: shape (n, k) -> (n,)."""
        rows = filled(matrix, self.impute, self.unseen) / self.spread
        step = max(1, _BLOCK // self.rows.size)
        blocks = [self._distances(rows[at : at + step]) for at in range(0, len(rows), step)]
        return np.concatenate(blocks) if blocks else np.empty(0)

    def _distances(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        with np.errstate(over="ignore"):
            squared = np.square(rows[:, None, :] - self.rows[None, :, :]).sum(axis=2)
        return np.partition(squared, self.nearest - 1, axis=1)[:, self.nearest - 1]

    def flag(self, matrix: Matrix) -> NDArray[np.bool_]:
        """Say which encoded rows are outliers: shape (n, k) -> (n,)."""
        return self.score(matrix) > self.threshold


def _common(data: Any) -> dict[str, Any]:
    return {
        "impute": np.array(data["impute"], dtype=np.float64),
        "unseen": np.array(data["unseen"], dtype=np.float64),
        "threshold": float(data["threshold"]),
        "reference_rate": float(data["reference_rate"]),
    }


def _written(kind: str, detector: IsolationForest | Neighbours, **own: Any) -> bytes:
    return orjson.dumps(
        {
            "kind": kind,
            "impute": detector.impute,
            "unseen": detector.unseen,
            "threshold": detector.threshold,
            "reference_rate": detector.reference_rate,
            **own,
        },
        option=orjson.OPT_SERIALIZE_NUMPY,
    )
