"""Telemetry: one compact line per window and worker, written to standard output.

A line holds integers only, counts and histograms, so that lines of many pods, workers and windows
merge exactly by addition. Nothing in it can be traced back to a row.

    {"k":"mdw1","m":"staging/employment","r":"4f1c..","e":"<edges hash>","w":"<window start>",
     "d":300,"p":"<pod>","wk":"<worker>","ch":0,"cc":1,"fp":"treelite","n":15000,"o":12,"q":900,
     "x":{"4xx":3},"t":[2900,12],"l":[[20,880],[21,20]],"y":{"h":[..],"na":0,"nw":0},"c":{..},
     "v":{"drift":{"n":1,"k":0}},"f":[{"i":0,"h":[..],"na":3,"nw":0}]}

n rows, o outliers, q requests, x errors, t the container's CPU periods and those of them that its
limit cut (where there is one), l latencies (sparse: bin and count), y the predictions' scores, c
the predicted classes, v what detectors of others found, where there are such (n judged, k positive,
x failed and why), f features (h bins, na missing, nw unseen). A line has at most `LONGEST_LINE`
bytes, since what is longer may mix with the lines of other processes; features that do not fit go
into further chunks (ch of cc), which carry nothing else. Readers count each (p, wk, w, ch) once.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Self, TypeVar

import orjson

from modelops_runtime.profile import Histogram

K = TypeVar("K")

KEY: Final = "mdw1"
BUSY: Final = "busy"
"""Among the errors: of the 5xx, those that were turned away because too many others waited."""
LONGEST_LINE: Final = 4000
"""Bytes, the line feed included: a pipe takes up to 4,096 in one piece."""
LATENCY_EDGES: Final = tuple(round(10 ** (step / 10 - 5), 10) for step in range(71))
"""Seconds, 10 a decade from 10 microseconds to 100 seconds. Bin 0 is below the first edge, bin i
is from edge i - 1 up to and without edge i, bin 71 is the rest."""

_MARK: Final = f'"{KEY}"'.encode()
_CLAIM: Final = f'"k":"{KEY}"'.encode()


class TelemetryError(ValueError):
    """A line of ours that is damaged, or one that cannot be written."""


@dataclass(frozen=True, slots=True)
class FeatureCounts:
    """What a window saw of one feature."""

    index: int
    """Position of the feature in the reference profile."""
    histogram: Histogram


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a detector of others, which runs beside the pods' predictions, found."""

    judged: int = 0
    """Rows that an outlier detector was shown; samples of a window, for a drift detector."""
    positive: int = 0
    """Of them, those that are outliers, or show drift."""
    failed: int = 0
    """Samples of which it could say nothing."""
    error: str = ""
    """Why, of one of them; nothing about a row."""

    def __add__(self, other: "Verdict") -> "Verdict":
        """Merge what was found."""
        return Verdict(
            self.judged + other.judged,
            self.positive + other.positive,
            self.failed + other.failed,
            other.error or self.error,
        )


NO_VERDICT: Final = Verdict()
LONGEST_ERROR: Final = 160
"""Characters of `Verdict.error` that are written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What one worker counted in one window; a parsed line is a chunk of that."""

    model: str
    """namespace/name of the ModelDeployment."""
    revision: str
    start: datetime
    """Of the window, in UTC."""
    seconds: int
    """Length of the window."""
    edges: str = ""
    """Hash of the bins (`Profile.edges_hash`); empty without a drift detector."""
    pod: str = ""
    worker: str = ""
    """Differs for each start of each worker process."""
    chunk: int = 0
    chunks: int = 1
    form: str = ""
    """The form of the model that answers: linear, treelite, lightgbm, pyfunc."""
    rows: int = 0
    outliers: int = 0
    requests: int = 0
    errors: Mapping[str, int] = field(default_factory=dict)
    """Requests that were answered with an error, by class: 4xx, 5xx, and `BUSY` of the latter."""
    periods: int = 0
    """Of the container's CPU time within the window, as far as a limit has the kernel count them:
    every worker tells those of all."""
    throttled: int = 0
    """Of these, the periods that the limit cut."""
    latency: tuple[tuple[int, int], ...] = ()
    """Bin of `LATENCY_EDGES` and number of requests, in the order of bins."""
    scores: Histogram | None = None
    labels: Histogram | None = None
    """The predicted classes."""
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)
    """By role: what detectors of others found within the window, of samples of earlier ones."""
    features: tuple[FeatureCounts, ...] = ()

    @property
    def end(self) -> datetime:
        """Of the window."""
        return self.start + timedelta(seconds=self.seconds)

    def encode(self) -> list[bytes]:
        """Write the lines, each with its line feed and at most `LONGEST_LINE` bytes.

        Raises TelemetryError when a single feature does not fit.
        """
        features = [_written(each) for each in self.features]
        # The head is sized with the most chunks that there can be.
        most = len(features) + 1
        first, further = self._head(0, most), self._identity(most, most)
        bodies: list[list[bytes]] = [[]]
        room = LONGEST_LINE - _overhead(first)
        for content in features:
            if len(content) + 1 > room:
                bodies.append([])
                room = LONGEST_LINE - _overhead(further)
            room -= len(content) + 1
            if room < 0:
                raise TelemetryError(f"a feature of {len(content)} bytes does not fit into a line")
            bodies[-1].append(content)
        if _overhead(first) > LONGEST_LINE:
            raise TelemetryError(f"{_overhead(first)} bytes without features are too many")
        heads = (
            self._identity(chunk, len(bodies)) if chunk else self._head(0, len(bodies))
            for chunk in range(len(bodies))
        )
        return [_line(head, body) for head, body in zip(heads, bodies, strict=True)]

    def _identity(self, chunk: int, chunks: int) -> dict[str, Any]:
        return {
            "k": KEY,
            "m": self.model,
            "r": self.revision,
            "e": self.edges,
            "w": self.start.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "d": self.seconds,
            "p": self.pod,
            "wk": self.worker,
            "ch": chunk,
            "cc": chunks,
        }

    def _head(self, chunk: int, chunks: int) -> dict[str, Any]:
        predictions = {
            key: _counts(each)
            for key, each in (("y", self.scores), ("c", self.labels))
            if each is not None
        }
        verdicts = {role: _found(each) for role, each in self.verdicts.items()}
        return {
            **self._identity(chunk, chunks),
            "fp": self.form,
            "n": self.rows,
            "o": self.outliers,
            "q": self.requests,
            "x": dict(self.errors),
            **({"t": (self.periods, self.throttled)} if self.periods else {}),
            "l": self.latency,
            **predictions,
            **({"v": verdicts} if verdicts else {}),
        }

    @classmethod
    def parse(cls, text: str | bytes) -> Self | None:
        """Read a line; None if it is not one of ours.

        Raises TelemetryError if it is one of ours and damaged.
        """
        content = text.encode(errors="replace") if isinstance(text, str) else text
        if _MARK not in content:
            return None
        try:
            data = orjson.loads(content)
        except orjson.JSONDecodeError as error:
            if _CLAIM in content:
                raise TelemetryError(f"a damaged line of telemetry: {error}") from error
            return None
        if not isinstance(data, dict) or data.get("k") != KEY:
            return None
        try:
            return cls._read(data)
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
            raise TelemetryError(f"a line of telemetry is not understood: {error!r}") from error

    @classmethod
    def _read(cls, data: Mapping[str, Any]) -> Self:
        start = datetime.fromisoformat(data["w"])
        periods, throttled = data.get("t", (0, 0))
        line = cls(
            model=_text(data["m"]),
            revision=_text(data["r"]),
            edges=_text(data["e"]),
            start=start.astimezone(UTC) if start.tzinfo else start.replace(tzinfo=UTC),
            seconds=_count(data["d"]),
            pod=_text(data["p"]),
            worker=_text(data["wk"]),
            chunk=_count(data["ch"]),
            chunks=_count(data["cc"]),
            form=_text(data.get("fp", "")),
            rows=_count(data.get("n", 0)),
            outliers=_count(data.get("o", 0)),
            requests=_count(data.get("q", 0)),
            errors={_text(name): _count(number) for name, number in data.get("x", {}).items()},
            periods=_count(periods),
            throttled=_count(throttled),
            latency=tuple((_bin(each), _count(number)) for each, number in data.get("l", ())),
            scores=_histogram(data["y"]) if "y" in data else None,
            labels=_histogram(data["c"]) if "c" in data else None,
            verdicts={_text(role): _verdict(each) for role, each in data.get("v", {}).items()},
            features=_features(data.get("f", ())),
        )
        possible = line.outliers <= line.rows and line.throttled <= line.periods
        if not (line.seconds > 0 and line.chunk < line.chunks and possible):
            raise ValueError("figures that contradict each other")
        return line


def merge(lines: Iterable[Line]) -> Line:
    """Add up lines of one model, revision and profile; what comes twice is counted once.

    The window of the sum reaches from the first start to the last end. Raises ValueError when
    there are no lines, or they do not belong together.
    """
    unique = {(each.pod, each.worker, each.start, each.chunk): each for each in lines}
    if not unique:
        raise ValueError("no lines")
    first, *rest = unique.values()
    total = replace(first, chunk=0, chunks=1)
    for line in rest:
        total = _added(total, line)
    return total


def latency_bin(seconds: float) -> int:
    """Give the bin of `LATENCY_EDGES` for a duration."""
    low, high = 0, len(LATENCY_EDGES)
    while low < high:
        middle = (low + high) // 2
        if seconds < LATENCY_EDGES[middle]:
            high = middle
        else:
            low = middle + 1
    return low


def _added(one: Line, other: Line) -> Line:
    names = ("model", "revision", "edges")
    if different := [name for name in names if getattr(one, name) != getattr(other, name)]:
        raise ValueError(f"lines differ in {', '.join(different)}")
    start = min(one.start, other.start)
    features = {each.index: each.histogram for each in one.features}
    for each in other.features:
        known = features.get(each.index)
        features[each.index] = each.histogram if known is None else known + each.histogram
    return Line(
        model=one.model,
        revision=one.revision,
        edges=one.edges,
        start=start,
        seconds=int((max(one.end, other.end) - start).total_seconds()),
        pod=one.pod if one.pod == other.pod else "",
        worker=one.worker if one.worker == other.worker else "",
        form=",".join(sorted({*one.form.split(","), *other.form.split(",")} - {""})),
        rows=one.rows + other.rows,
        outliers=one.outliers + other.outliers,
        requests=one.requests + other.requests,
        errors=_summed(one.errors, other.errors),
        periods=one.periods + other.periods,
        throttled=one.throttled + other.throttled,
        latency=tuple(sorted(_summed(dict(one.latency), dict(other.latency)).items())),
        scores=_both(one.scores, other.scores),
        labels=_both(one.labels, other.labels),
        verdicts=add_verdicts(one.verdicts, other.verdicts),
        features=tuple(FeatureCounts(index, features[index]) for index in sorted(features)),
    )


def _both(one: Histogram | None, other: Histogram | None) -> Histogram | None:
    return one + other if one and other else one or other


def add_verdicts(one: Mapping[str, Verdict], other: Mapping[str, Verdict]) -> Mapping[str, Verdict]:
    """Merge verdicts by role."""
    if not (one and other):
        return one or other
    return {
        role: one.get(role, NO_VERDICT) + other.get(role, NO_VERDICT) for role in {**one, **other}
    }


def _summed(one: Mapping[K, int], other: Mapping[K, int]) -> dict[K, int]:
    return {key: one.get(key, 0) + other.get(key, 0) for key in (*one, *other)}


def _overhead(head: Mapping[str, Any]) -> int:
    return len(_line(head, []))


def _line(head: Mapping[str, Any], features: list[bytes]) -> bytes:
    start = orjson.dumps(head)[:-1]
    return b'%s,"f":[%s]}\n' % (start, b",".join(features))


def _written(feature: FeatureCounts) -> bytes:
    return orjson.dumps({"i": feature.index, **_counts(feature.histogram)})


def _counts(histogram: Histogram) -> dict[str, Any]:
    return {"h": histogram.counts, "na": histogram.missing, "nw": histogram.unseen}


def _features(data: Iterable[Mapping[str, Any]]) -> tuple[FeatureCounts, ...]:
    found = [(each["i"], tuple(each["h"]), each["na"], each["nw"]) for each in data]
    # All at once: a fleet's lines hold millions of counts.
    _check([number for index, counts, *others in found for number in (index, *counts, *others)])
    return tuple(
        FeatureCounts(index, Histogram(counts, missing, unseen))
        for index, counts, missing, unseen in found
    )


def _histogram(data: Mapping[str, Any]) -> Histogram:
    found = Histogram(tuple(data["h"]), data["na"], data["nw"])
    _check([*found.counts, found.missing, found.unseen])
    return found


def _check(counts: Sequence[Any]) -> None:
    if set(map(type, counts)) - {int} or min(counts, default=0) < 0:
        raise TypeError(f"{counts!r} are no counts")


def _found(verdict: Verdict) -> dict[str, Any]:
    failed = {"x": verdict.failed, "t": verdict.error[:LONGEST_ERROR]} if verdict.failed else {}
    return {"n": verdict.judged, "k": verdict.positive, **failed}


def _verdict(data: Mapping[str, Any]) -> Verdict:
    found = Verdict(
        _count(data["n"]), _count(data["k"]), _count(data.get("x", 0)), _text(data.get("t", ""))
    )
    if found.positive > found.judged:
        raise ValueError("more is found than was judged")
    return replace(found, error=found.error[:LONGEST_ERROR])


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _count(value: object) -> int:
    if type(value) is not int or value < 0:
        raise TypeError(f"{value!r} is no count")
    return value


def _bin(value: object) -> int:
    found = _count(value)
    if found > len(LATENCY_EDGES):
        raise ValueError(f"{found} is no bin of latencies")
    return found
