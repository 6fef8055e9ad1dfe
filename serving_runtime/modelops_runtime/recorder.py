"""Counts what is served, window by window, and has it written as telemetry.

On the path of a request there are additions and an append; rows are binned in blocks by a thread.
Windows are aligned to the clock, so that those of all pods are the same.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

import numpy as np
from numpy.typing import NDArray

from modelops_runtime.profile import Histogram, Profile
from modelops_runtime.schema import Matrix
from modelops_runtime.telemetry import LATENCY_EDGES, FeatureCounts, Line, latency_bin

BLOCK: Final = 2048
"""Rows that are binned at once."""

Binned = tuple[list[Histogram], Histogram | None]
Scores = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who writes the lines."""

    model: str
    revision: str
    pod: str
    worker: str
    form: str
    seconds: int
    """Length of a window."""


@dataclass(slots=True)
class _Window:
    """What was counted since `start`."""

    start: int
    """Seconds since the epoch."""
    rows: int = 0
    outliers: int = 0
    requests: int = 0
    client_errors: int = 0
    server_errors: int = 0
    latency: list[int] = field(default_factory=lambda: [0] * (len(LATENCY_EDGES) + 1))
    pending: list[tuple[Matrix, Scores | None]] = field(default_factory=list)
    pending_rows: int = 0
    blocks: list[Future[Binned]] = field(default_factory=list)


class Recorder:
    """Counts for one worker process; all methods belong to the event loop's thread."""

    def __init__(
        self,
        identity: Identity,
        profile: Profile | None,
        write: Callable[[Sequence[bytes]], None],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._identity = identity
        self._profile = profile
        self._write = write
        self._clock = clock
        self._window = _Window(self._aligned(clock()))
        self._thread = ThreadPoolExecutor(1, "binning")
        self._closed = False

    @property
    def counts_rows(self) -> bool:
        """Whether there is a reference profile to bin rows against."""
        return self._profile is not None

    def request(self, status: int, seconds: float) -> None:
        """Count a request that was answered."""
        window = self._window
        window.requests += 1
        window.latency[latency_bin(seconds)] += 1
        if status >= 500:
            window.server_errors += 1
        elif status >= 400:
            window.client_errors += 1

    def rows(self, count: int, outliers: int) -> None:
        """Count rows that were predicted."""
        self._window.rows += count
        self._window.outliers += outliers

    def features(self, matrix: Matrix, scores: Scores | None) -> None:
        """Count encoded rows of shape (n, features), and their scores of shape (n,)."""
        window = self._window
        window.pending.append((matrix, scores))
        window.pending_rows += len(matrix)
        if window.pending_rows >= BLOCK:
            self._bin(window)

    async def run(self) -> None:
        """Write each window when it ends, until cancelled."""
        while True:
            end = self._window.start + self._identity.seconds
            await asyncio.sleep(max(end - self._clock(), 0.001))
            if self._clock() >= end:
                window, self._window = self._window, _Window(self._aligned(self._clock()))
                await asyncio.to_thread(self._finish, window)

    def close(self) -> None:
        """Write what was counted since the last window; further calls do nothing."""
        if self._closed:
            return
        self._closed = True
        self._finish(self._window)
        self._thread.shutdown(wait=False)

    def _aligned(self, moment: float) -> int:
        return int(moment // self._identity.seconds) * self._identity.seconds

    def _bin(self, window: _Window) -> None:
        if self._profile is not None and window.pending:
            block, window.pending, window.pending_rows = window.pending, [], 0
            window.blocks.append(self._thread.submit(_binned, self._profile, block))

    def _finish(self, window: _Window) -> None:
        self._bin(window)
        self._write(self._line(window).encode())

    def _line(self, window: _Window) -> Line:
        identity = self._identity
        features, scores = self._totals(window)
        errors = {"4xx": window.client_errors, "5xx": window.server_errors}
        return Line(
            model=identity.model,
            revision=identity.revision,
            edges="" if self._profile is None else self._profile.edges_hash,
            start=datetime.fromtimestamp(window.start, UTC),
            seconds=identity.seconds,
            pod=identity.pod,
            worker=identity.worker,
            form=identity.form,
            rows=window.rows,
            outliers=window.outliers,
            requests=window.requests,
            errors={name: count for name, count in errors.items() if count},
            latency=tuple((index, n) for index, n in enumerate(window.latency) if n),
            scores=scores,
            features=tuple(FeatureCounts(index, each) for index, each in enumerate(features)),
        )

    def _totals(self, window: _Window) -> Binned:
        profile = self._profile
        if profile is None:
            return [], None
        features = [Histogram((0,) * each.bins) for each in profile.features]
        scores = None if profile.scores is None else Histogram((0,) * profile.scores.bins)
        for block in window.blocks:
            with contextlib.suppress(Exception):  # rows that cannot be binned are not worth a pod
                found, found_scores = block.result()
                features = [one + other for one, other in zip(features, found, strict=True)]
                if scores is not None and found_scores is not None:
                    scores += found_scores
        return features, scores


def _binned(profile: Profile, block: Sequence[tuple[Matrix, Scores | None]]) -> Binned:
    features = profile.count(np.concatenate([matrix for matrix, _ in block]))
    known = [scores for _, scores in block if scores is not None]
    if profile.scores is None or not known:
        return features, None
    return features, profile.scores.count(np.concatenate(known))
