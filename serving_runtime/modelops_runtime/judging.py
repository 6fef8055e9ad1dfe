"""A detector of others in a process of its own: `python -m modelops_runtime.judging`.

It loads an MLflow pyfunc, and then answers lines with lines: rows of a window with what the
detector says of them. `watching` starts it, and ends it when it takes too long. What the detector
costs it pays itself: it has a limit on memory, yields the CPU to predictions, and is the first to
be killed when the pod runs out of memory.

What a detector may say, be it a drift detector of the whole window or an outlier detector of each
row: 0 and 1, true and false, as a scalar, a list, an array, a series or a column of a frame named
`is_drift` or `is_outlier` (or the only one); a dict with such a key, as alibi-detect's
{"data": {"is_drift": 1}}. An outlier detector of scikit-learn says -1 and 1; one that gives a
single number between 0 and 1 tells the share of outliers.
"""

import os
import resource
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

DRIFT: Final = "drift"
OUTLIER: Final = "outlier"
_KEYS: Final = {
    DRIFT: ("is_drift", "drift"),
    OUTLIER: ("is_outlier", "outlier", "outliers"),
}
_WRAPPED: Final = "data"
"""Where alibi-detect's answers have what counts."""
_SCIKIT: Final = "sklearn"


class VerdictError(ValueError):
    """An answer that is no verdict."""


@dataclass(frozen=True, slots=True)
class Said:
    """What a detector says of a sample."""

    judged: int
    """Rows, or 1 where it is about all of them."""
    positive: int
    """Of them, those that are outliers; 1 where it is drift."""


def read(answer: Any, rows: int, role: str, *, signed: bool = False) -> Said:
    """Read what a detector gives for so many rows. Raises VerdictError.

    `signed` answers have -1 for outliers and 1 for others, as scikit-learn's.
    """
    import numpy as np  # noqa: PLC0415 (the limits come first)

    values = np.asarray(_unwrapped(answer, role))
    try:
        flags = values.astype(np.float64).reshape(-1)
    except (ValueError, TypeError) as error:
        raise VerdictError(f"it says {_shown(answer)}, which are no numbers") from error
    if signed:
        flags = (flags < 0).astype(np.float64)
    share = role == OUTLIER and values.ndim == 0
    plain = flags.size and ((flags == 0) | (flags == 1)).all()
    if not plain and not (share and 0 <= flags[0] <= 1):
        raise VerdictError(f"it says {_shown(answer)}; 0 and 1 are verdicts, scores are not")
    if role == DRIFT:
        return Said(1, int(flags.any()))
    if share:
        return Said(rows, round(float(flags[0]) * rows))
    if len(flags) != rows:
        raise VerdictError(f"it gives {len(flags)} verdicts for {rows} rows")
    return Said(rows, int(flags.sum()))


def _unwrapped(answer: Any, role: str) -> Any:
    if isinstance(answer, Mapping):
        inner = answer.get(_WRAPPED, answer)
        if isinstance(inner, Mapping):
            key = next((each for each in _KEYS[role] if each in inner), None)
            if key is None:
                raise VerdictError(f"it gives {sorted(map(str, inner))}, without {_KEYS[role][0]}")
            return inner[key]
        return inner
    if hasattr(answer, "columns"):
        key = next((each for each in _KEYS[role] if each in answer.columns), None)
        if key is None and len(answer.columns) != 1:
            raise VerdictError(f"it gives columns {list(answer.columns)[:10]}, no {_KEYS[role][0]}")
        return answer[answer.columns[0] if key is None else key].to_numpy()
    return answer


def _shown(answer: Any) -> str:
    return " ".join(repr(answer).split())[:100]


def main() -> None:
    """Serve lines until the input ends."""
    folder, role, memory = sys.argv[1:]
    _yield_to_others(int(memory))
    answers = os.dup(1)
    os.dup2(2, 1)  # what a detector prints is no answer, and no telemetry either
    try:
        detector = _Detector(Path(folder), role)
    except Exception as error:  # noqa: BLE001 (somebody else's code)
        _tell(answers, {"error": f"it cannot be loaded: {_told(error)}"})
        return
    for line in sys.stdin.buffer:
        try:
            said = detector.judge(orjson.loads(line))
        except MemoryError as error:
            _tell(answers, {"error": _told(error)})
            return  # so that what is held is given back
        except Exception as error:  # noqa: BLE001 (the same)
            _tell(answers, {"error": _told(error)})
        else:
            _tell(answers, {"judged": said.judged, "positive": said.positive})


class _Detector:
    def __init__(self, folder: Path, role: str) -> None:
        from mlflow import pyfunc  # noqa: PLC0415 (the limits come first)

        from modelops_runtime.signature import SignatureError, read_signature  # noqa: PLC0415

        self._role = role
        try:
            self._types = read_signature(folder).types
        except SignatureError:
            self._types = {}  # it is shown what clients sent
        self._model = pyfunc.load_model(str(folder))
        self._signed = _SCIKIT in self._model.metadata.flavors

    def judge(self, rows: list[dict[str, Any]]) -> Said:
        from modelops_runtime.predictors import to_frame  # noqa: PLC0415 (the same)

        types = self._types or dict.fromkeys(rows[0], "string")
        found = self._model.predict(to_frame(rows, types))
        return read(found, len(rows), self._role, signed=self._signed)


def _yield_to_others(memory: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    os.nice(10)
    # Of the processes of a pod the kernel is to kill this one first.
    Path("/proc/self/oom_score_adj").write_text("1000")


def _tell(answers: int, content: Mapping[str, object]) -> None:
    os.write(answers, orjson.dumps(content) + b"\n")


def _told(error: BaseException) -> str:
    """Tell an error and its place, without what it says: that may be about a row."""
    if isinstance(error, VerdictError):
        return str(error)
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in line {place.lineno} of {Path(place.filename).name}"


if __name__ == "__main__":
    main()
