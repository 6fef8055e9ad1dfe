"""Telemetry of one worker: requests are noted on the event loop, counted and written in a thread.

The event loop only appends to lists. Every second, every `BLOCK_ROWS` rows and at the end of each
window, what was noted goes to a thread that owns the counts and alone writes to standard output:
if that is blocked or broken, predictions go on and lines are lost, which the metrics tell.

Windows are aligned to the wall clock, so that those of all workers and pods are the same. A
window without requests is written, too: silence is not the same as no traffic.
"""

import logging
import os
import queue
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from typing import Final

import numpy as np
from numpy.typing import NDArray

from modelops_runtime.counting import Block, Identity, Window
from modelops_runtime.profile import Profile
from modelops_runtime.schema import Matrix
from modelops_runtime.telemetry import TelemetryError, Verdict, add_verdicts
from modelops_runtime.throttling import Throttling

BLOCK_ROWS: Final = 2048
"""Small enough that counting them does not hold up a request noticeably."""
TICK: Final = 1.0
"""Seconds between calls of `tick`."""
_MOST_WAITING: Final = 64
"""Blocks that wait for the thread; when output is blocked, later ones are dropped."""
_LOG: Final = logging.getLogger("bentoml.modelops")

Write = Callable[[bytes], object]


def write_stdout(line: bytes) -> None:
    """Write a line in one piece, so that lines of several processes do not mix."""
    os.write(1, line)


class Recorder:
    """Notes requests; all but its `__init__` belongs to one thread, the event loop's."""

    def __init__(  # noqa: PLR0913 (its collaborators, by name)
        self,
        identity: Identity,
        profile: Profile | None,
        *,
        hidden: frozenset[int] = frozenset(),
        write: Write = write_stdout,
        clock: Callable[[], float] = time.time,
        throttling: Throttling | None = None,
        on_block: Callable[[Block], object] | None = None,
        on_lost: Callable[[int], object] | None = None,
    ) -> None:
        """`hidden` are places of features that are never written.

        `on_block` and `on_lost` (a number of lines) are called in the recorder's thread.
        """
        self._clock = clock
        self._seconds = identity.seconds
        self._labelled = profile is not None and profile.labels is not None
        self._block = Block(self._start())
        # Unbounded in itself; `_hand_over` bounds the blocks, the ends of windows always fit.
        self._queue: queue.SimpleQueue[Block | None] = queue.SimpleQueue()
        make_window = partial(Window, profile=profile, hidden=hidden)
        self._writer = _Writer(make_window, identity, write, throttling or Throttling())
        self._writer.on_block, self._writer.on_lost = on_block, on_lost
        self._thread = threading.Thread(
            target=self._writer.run, args=(self._queue,), name="telemetry", daemon=True
        )
        self._thread.start()

    def note(  # noqa: PLR0913 (what there is to a request)
        self,
        matrix: Matrix | None,
        scores: NDArray[np.float64] | None,
        labels: Sequence[object] = (),
        *,
        rows: int,
        outliers: int,
        seconds: float,
    ) -> None:
        """Note a request that was answered; the matrix is encoded for the reference profile."""
        block = self._current()
        block.durations.append(seconds)
        block.rows += rows
        block.outliers += outliers
        if matrix is not None:
            block.matrices.append(matrix)
        if scores is not None:
            block.scores.append(scores)
        if self._labelled:
            block.labels.append(labels)
        if block.rows >= BLOCK_ROWS:
            self._hand_over(block.start)

    def fail(self, status: int, seconds: float) -> None:
        """Note a request that was answered with an error."""
        block = self._current()
        block.durations.append(seconds)
        if status < 500:
            block.client_errors += 1
        else:
            block.server_errors += 1
            block.turned_away += status == HTTPStatus.SERVICE_UNAVAILABLE

    def judge(self, role: str, verdict: Verdict) -> None:
        """Note what a detector of others found."""
        block = self._current()
        block.verdicts = add_verdicts(block.verdicts, {role: verdict})

    def tick(self) -> None:
        """Let time pass: hand over what was noted, and end the window when it is over."""
        self._hand_over(self._current().start)

    def close(self, timeout: float = 2.0) -> bool:
        """Write the window so far and end the thread.

        Gives up after `timeout` seconds and says whether all was written.
        """
        self._queue.put(self._block)
        self._queue.put(None)
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _start(self) -> int:
        return int(self._clock() // self._seconds) * self._seconds

    def _current(self) -> Block:
        start = self._start()
        if start != self._block.start:
            self._hand_over(start)
        return self._block

    def _hand_over(self, start: int) -> None:
        """Give the block away and begin another; a new start tells the thread to end a window."""
        same = start == self._block.start
        if same and self._queue.qsize() > _MOST_WAITING:
            self._block.matrices, self._block.scores, self._block.labels = [], [], []
            return
        self._queue.put(self._block)
        if not same:
            self._queue.put(Block(start))
        self._block = Block(start)


class _Writer:
    """Counts blocks and writes a line for each window; belongs to the recorder's thread."""

    def __init__(
        self,
        make_window: Callable[[int], Window],
        identity: Identity,
        write: Write,
        throttling: Throttling,
    ) -> None:
        self._make_window = make_window
        self._throttling = throttling
        self._identity = identity
        self._write = write
        self.on_block: Callable[[Block], object] | None = None
        self.on_lost: Callable[[int], object] | None = None
        self._worker = secrets.token_hex(4)
        self._broken = False

    def run(self, blocks: "queue.SimpleQueue[Block | None]") -> None:
        window: Window | None = None
        while (block := blocks.get()) is not None:
            if window is None or window.start != block.start:
                self._end(window, block.start)
                window = self._make_window(block.start)
            window.add(block)
            if self.on_block is not None:
                self.on_block(block)
        self._end(window, None)

    def _end(self, window: Window | None, following: int | None) -> None:
        if window is None:
            return
        periods, throttled = self._throttling.since()
        line = window.line(self._identity, self._worker)
        try:
            lines = replace(line, periods=periods, throttled=throttled).encode()
        except TelemetryError:
            _LOG.exception("a window of telemetry is lost")
            self._lose(1)
            return
        self._emit(lines)
        if following is not None and following < window.start:
            # The clock was set back: the same window comes again, and readers would take its
            # line for a repetition.
            self._worker = secrets.token_hex(4)

    def _emit(self, lines: Sequence[bytes]) -> None:
        for number, line in enumerate(lines):
            try:
                self._write(line)
            except OSError as error:
                self._lose(len(lines) - number)
                if not self._broken:
                    _LOG.warning("telemetry cannot be written: %s", error)
                self._broken = True
                return
        self._broken = False

    def _lose(self, lines: int) -> None:
        if self.on_lost is not None:
            self.on_lost(lines)
