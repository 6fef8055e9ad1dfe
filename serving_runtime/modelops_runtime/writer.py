"""Writes lines of telemetry to standard output without ever holding up a prediction.

One `os.write` for each line, since lines of several processes then do not mix. A thread does it:
a pipe that nobody reads blocks its writer. What does not get through is dropped and counted.
"""

import os
import queue
import threading
from collections.abc import Iterable
from typing import Final

_STDOUT: Final = 1
_PENDING: Final = 256
"""Lines that wait at most."""


class LineWriter:
    """Writes to a file descriptor in a thread of its own."""

    def __init__(self, descriptor: int = _STDOUT) -> None:
        self._descriptor = descriptor
        self._lines: queue.Queue[bytes | None] = queue.Queue(_PENDING)
        self._lock = threading.Lock()
        self._dropped = 0
        self._thread = threading.Thread(target=self._run, name="telemetry", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Lines that were lost."""
        return self._dropped

    def write(self, lines: Iterable[bytes]) -> None:
        """Have lines written, each with its line feed. Never blocks and never raises."""
        for line in lines:
            try:
                self._lines.put_nowait(line)
            except queue.Full:
                self._drop()

    def close(self, timeout: float) -> None:
        """Write what waits, for at most `timeout` seconds."""
        try:
            self._lines.put(None, timeout=timeout)
        except queue.Full:
            return
        self._thread.join(timeout)

    def _run(self) -> None:
        while (line := self._lines.get()) is not None:
            try:
                # A partial write is not repeated: the rest would start in the middle of a line.
                written = os.write(self._descriptor, line)
            except OSError:
                written = 0
            if written != len(line):
                self._drop()

    def _drop(self) -> None:
        with self._lock:
            self._dropped += 1
