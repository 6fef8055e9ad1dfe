"""Shows detectors of others a sample of each window, off the path of requests.

Each worker draws a sample (`sampling`) and lays it into a folder that all workers of the pod share.
One of them, whoever holds the folder's lock, merges what lies there and asks the detectors, each a
process of its own (`judging`) with limits on time and memory. What a detector finds goes into the
telemetry of the window in which it finds it. One that fails is started again, after pauses that
double; it never holds up a prediction.
"""

import fcntl
import logging
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import orjson

from modelops_runtime.sampling import Keyed, Sampler, merge
from modelops_runtime.telemetry import Verdict

_SETTLE: Final = 0.5
"""Seconds that the workers have to lay down their samples."""
_LONGEST_PAUSE: Final = 32
"""Windows in which a detector that fails again and again is not asked."""
_MEGABYTE: Final = 2**20
_OPTIONS: Final = orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY
_LOG: Final = logging.getLogger("bentoml.modelops")

Tell = Callable[[str, Verdict], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a detector of others may take."""

    seconds: int = 60
    """For one sample; its start included."""
    megabytes: int = 2048
    """Of address space."""


class _Failed(Exception):  # noqa: N818 (it names what happened)
    """A detector that said nothing; the message says why."""


class Detector:
    """One detector's process; started when it is asked first."""

    def __init__(self, role: str, folder: Path, limits: Limits) -> None:
        self._command = [
            *(sys.executable, "-m", "modelops_runtime.judging"),
            *(str(folder), role, str(limits.megabytes * _MEGABYTE)),
        ]
        self._role, self._limits = role, limits
        self._process: subprocess.Popen[bytes] | None = None
        self._failures = self._pause = 0
        self._error = ""

    def judge(self, rows: Sequence[Mapping[str, object]]) -> Verdict:
        """Show it rows; what it does not answer counts as failed."""
        if self._pause:
            self._pause -= 1
            return Verdict(failed=1, error=self._error)
        try:
            verdict = self._ask(orjson.dumps(rows, default=str, option=_OPTIONS) + b"\n")
        except _Failed as failure:
            self._pause = min(2**self._failures - 1, _LONGEST_PAUSE)
            self._failures += 1
            self._error = str(failure)
            _LOG.warning("the %s detector says nothing of a window: %s", self._role, failure)
            return Verdict(failed=1, error=self._error)
        self._failures = 0
        return verdict

    def close(self) -> None:
        """End its process."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()

    def _ask(self, question: bytes) -> Verdict:
        process = self._running()
        late = threading.Event()
        timer = threading.Timer(self._limits.seconds, _end, (process, late))
        timer.start()
        try:
            content = _exchange(process, question)
        finally:
            timer.cancel()
        if not content:
            why = self._why(process, late=late.is_set())
            self.close()
            raise _Failed(why)
        answer: dict[str, Any] = orjson.loads(content)
        if "error" in answer:
            raise _Failed(answer["error"])
        return Verdict(answer["judged"], answer["positive"])

    def _running(self) -> "subprocess.Popen[bytes]":
        if self._process is not None and self._process.poll() is not None:
            self.close()
        if self._process is None:
            self._process = subprocess.Popen(  # noqa: S603 (our own program)
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
        return self._process

    def _why(self, process: "subprocess.Popen[bytes]", *, late: bool) -> str:
        if late:
            return f"it took more than {self._limits.seconds} s, and was ended"
        code = process.wait()
        if code < 0:
            return f"its process was ended by signal {-code}: it may want more memory than there is"
        return f"its process ended with exit code {code}, see the log above"


def _end(process: "subprocess.Popen[bytes]", late: threading.Event) -> None:
    late.set()
    process.kill()


def _exchange(process: "subprocess.Popen[bytes]", question: bytes) -> bytes:
    """Ask and read the answer; nothing when the process ends."""
    given, told = process.stdin, process.stdout
    assert given is not None  # noqa: S101 (they are pipes)
    assert told is not None  # noqa: S101 (the same)
    try:
        given.write(question)
        given.flush()
    except BrokenPipeError:
        pass  # it may have said why
    return told.readline()


class Watcher:
    """The thread of one worker that hands in samples, and of one worker that asks detectors."""

    def __init__(
        self,
        sampler: Sampler,
        detectors: Mapping[str, Detector],
        *,
        seconds: int,
        folder: Path,
        tell: Tell,
    ) -> None:
        """`folder` is shared by the workers of a pod; `tell` is called in the thread."""
        self._sampler = sampler
        self._detectors = detectors
        self._seconds = seconds
        self._folder = folder
        self._tell = tell
        self._lock: IO[bytes] | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="detectors", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread and the detectors."""
        self._ended.set()
        for detector in self._detectors.values():
            detector.close()

    def _run(self) -> None:
        while not self._ended.wait(self._seconds - time.time() % self._seconds):
            try:
                self._hand_in(self._sampler.take())
                if self._leads() and not self._ended.wait(_SETTLE):
                    self._judge(merge(self._collect()))
            except Exception:  # noqa: BLE001 (a full disk, say: the next window may do)
                _LOG.exception("detectors see nothing of a window")

    def _hand_in(self, sample: list[Keyed]) -> None:
        if not sample:
            return
        path = self._folder / f"{time.time_ns()}-{os.getpid()}.json"
        fresh = path.with_suffix(".new")
        fresh.write_bytes(orjson.dumps(sample, default=str, option=_OPTIONS))
        fresh.rename(path)

    def _leads(self) -> bool:
        """Whether it is this worker that asks: the first one, and another when that has ended."""
        if self._lock is None:
            lock = (self._folder / "lock").open("wb")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.close()
                return False
            self._lock = lock
        return True

    def _collect(self) -> list[list[Keyed]]:
        samples = []
        for path in sorted(self._folder.glob("*.json")):
            samples.append(orjson.loads(path.read_bytes()))
            path.unlink()
        return samples

    def _judge(self, rows: Sequence[Mapping[str, object]]) -> None:
        if not rows:
            return
        for role, detector in self._detectors.items():
            verdict = detector.judge(rows)
            if self._ended.is_set():
                return
            self._tell(role, verdict)


def shared_folder() -> Path:
    """Give the folder that the workers of this pod share: the children of one supervisor."""
    return Path(tempfile.gettempdir()) / f"modelops-samples-{os.getppid()}"
