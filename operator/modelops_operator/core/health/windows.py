"""From lines to windows: every line counted once, whatever their order, however often they come.

A worker of a pod writes lines for one window of time, one a chunk. Their integer histograms add
up, so the lines of all pods and workers make one `Window`, and neighbouring windows make a larger
one. How the shell uses it:

    store = TelemetryStore(settle=source.settle)      # one for the whole fleet
    store.add(key, reading.lines, now)                # after each `collect`
    history = store.history(key, running_revision)    # what `evaluate` looks at
    store.retain(keys)                                # forget deleted deployments

Windows of different revisions never mix: a `History` belongs to one. It is bounded: recent
windows are kept apart, so that a line which comes late still finds its place; older ones melt
into groups of at least 1,000 rows, of which the last three are kept.
"""

from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from sys import intern
from types import MappingProxyType
from typing import Final, Self, TypeVar

from modelops_runtime.telemetry import BUSY, Line, Verdict, add_verdicts

from modelops_operator.core.health.day import BLOCK, Day
from modelops_operator.core.health.histograms import Histograms, Key, packed
from modelops_operator.core.health.statistics import Counts

MINIMUM_ROWS: Final = 1000
"""A group of windows is judged when it has as many."""
GROUPS: Final = 3
"""So many groups are looked at."""
LONGEST: Final = timedelta(hours=24)
"""Traffic older than this says nothing about now."""
SKEW: Final = timedelta(minutes=1)
"""A window that ends further in the future was written by a clock that is wrong."""
REVISIONS: Final = 3
"""Revisions kept of one deployment: the running one, the next one, and one to roll back to."""
MOST_FEATURES: Final = 5_000
"""Whoever tells of more makes them up."""
MOST_EDGES: Final = 3
"""All pods of a revision count against the same; whoever tells of more makes them up."""
MOST_WINDOWS: Final = 200
"""Recent windows kept apart: twice as many as the shortest ones that lines may still come for."""
SCORES: Final = -1
"""The index of the predictions' scores among the histograms, beside the features'."""
LABELS: Final = -2
"""The index of the predicted classes."""

_NO_FORMS: Final[frozenset[str]] = frozenset()
_NO_LATENCY: Final[Mapping[int, int]] = {}
_NO_VERDICTS: Final[Mapping[str, Verdict]] = {}
_WHOLE: Final = (1, frozenset({0}))
"""A line that is not cut into chunks."""
_NEVER: Final = datetime.min.replace(tzinfo=UTC)
_LATE_WINDOWS: Final = 3
_LATE: Final = timedelta(minutes=5)

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """What happened in a stretch of time, on all pods and workers together."""

    start: datetime
    end: datetime
    rows: int = 0
    outliers: int = 0
    requests: int = 0
    client_errors: int = 0
    """Requests answered with a 4xx."""
    server_errors: int = 0
    """Requests answered with a 5xx."""
    turned_away: int = 0
    """Of these, the requests for which there was no room."""
    periods: int = 0
    """Of the containers' CPU time, where a limit has them counted."""
    throttled: int = 0
    """Of these, the periods that the limit cut."""
    latency: Mapping[int, int] = field(default_factory=lambda: _NO_LATENCY)
    """Number of requests for each bin of `modelops_runtime.telemetry.LATENCY_EDGES`."""
    histograms: Mapping[Key, Counts] = field(default_factory=dict)
    """Counts of the bins, then of missing values, then of unseen categories."""
    verdicts: Mapping[str, Verdict] = field(default_factory=lambda: _NO_VERDICTS)
    """By role: what detectors without our flavor found."""
    forms: frozenset[str] = _NO_FORMS
    """The forms of the model that answered: treelite, pyfunc."""

    def __add__(self, other: "Window") -> "Window":
        """Merge two windows; the stretch in between belongs to the sum."""
        return Window(
            start=min(self.start, other.start),
            end=max(self.end, other.end),
            rows=self.rows + other.rows,
            outliers=self.outliers + other.outliers,
            requests=self.requests + other.requests,
            client_errors=self.client_errors + other.client_errors,
            server_errors=self.server_errors + other.server_errors,
            turned_away=self.turned_away + other.turned_away,
            periods=self.periods + other.periods,
            throttled=self.throttled + other.throttled,
            latency=_added(self.latency, other.latency),
            histograms=packed(self.histograms) + packed(other.histograms),
            verdicts=add_verdicts(self.verdicts, other.verdicts),
            # Nearly always the same: thousands of deployments share one.
            forms=other.forms if other.forms >= self.forms else self.forms | other.forms,
        )

    @property
    def empty(self) -> bool:
        """Whether nobody asked for anything."""
        return not self.rows and not self.requests


@dataclass(frozen=True, slots=True)
class Groups:
    """Windows melted into groups that are large enough to judge, in the order of time."""

    closed: tuple[Window, ...] = ()
    """At most the last three; each has at least `MINIMUM_ROWS`."""
    open: Window | None = None
    """What is left over at the end; fewer rows."""

    def grown(self, window: Window) -> Self:
        """Add a window that is younger than all before it."""
        start_anew = self.open is None or self.open.empty or window.end - self.open.start > LONGEST
        merged = window if start_anew or self.open is None else self.open + window
        if merged.rows < MINIMUM_ROWS:
            return replace(self, open=merged)
        return replace(self, closed=(*self.closed, merged)[-GROUPS:], open=None)

    def last(self, number: int) -> Self:
        """Leave out all closed groups but the last."""
        if len(self.closed) <= number:
            return self
        return replace(self, closed=self.closed[len(self.closed) - number :])

    def since(self, moment: datetime) -> Self:
        """Leave out what is older."""
        return replace(
            self,
            closed=tuple(window for window in self.closed if window.end > moment),
            open=self.open if self.open is not None and self.open.end > moment else None,
        )

    @property
    def judged(self) -> tuple[Window, ...]:
        """All that is judged; before the first group is full, what there is."""
        return self.closed or (() if self.open is None else (self.open,))

    @property
    def span(self) -> Window | None:
        """All that is judged in one window."""
        judged = self.judged
        return sum(judged[1:], start=judged[0]) if judged else None


@dataclass(slots=True)
class _Slot:
    """A window that lines may still come for."""

    window: Window
    parts: dict[tuple[str, str], tuple[int, frozenset[int]]] = field(default_factory=dict)
    """By pod and worker: the number of chunks that there are, and those that came."""

    def add(self, line: Line) -> bool:
        """Count a line; False if it was counted before, or does not fit the others."""
        writer = (intern(line.pod), intern(line.worker))
        told = _window(line, self.window.start, self.window.end)
        _, came = self.parts.get(writer, (0, frozenset()))
        if line.chunk in came or not _fits(told, self.window):
            return False
        parts = line.chunks, came | {line.chunk}
        self.window = self.window + told if self.parts else told
        # Nearly all are the same: thousands of deployments share one.
        self.parts[writer] = _WHOLE if parts == _WHOLE else parts
        return True

    @property
    def incomplete(self) -> bool:
        """Whether chunks of a worker are missing.

        What came counts nevertheless: every feature is whole within its chunk, and is judged by
        its own number of rows.
        """
        return any(len(came) < wanted for wanted, came in self.parts.values())


class History:
    """What the pods of one revision of one deployment told, bounded in size.

    Lines may be added in any order and repeatedly; the windows are the same.
    """

    __slots__ = (
        "_changed",
        "_day",
        "_day_changed",
        "_edges",
        "_heard",
        "_melted",
        "_melted_until",
        "_slots",
        "damaged",
        "late",
        "revision",
        "settle",
        "skewed",
        "traffic",
    )

    def __init__(self, revision: str, *, settle: timedelta) -> None:
        self.revision = revision
        self.settle = settle
        """How long after a window's end its lines may still be on their way."""
        self._slots: dict[tuple[datetime, datetime], _Slot] = {}
        self._melted = Groups()
        self._day = Day()
        self._melted_until = _NEVER
        self._heard: dict[str, datetime] = {}
        self.traffic: datetime | None = None
        """The end of the last window that had requests or rows."""
        self.late = 0
        """Lines that came when their window had melted already: left out."""
        self.skewed: datetime | None = None
        """When a line of the future last came; it was left out."""
        self.damaged: datetime | None = None
        """When a line that cannot be understood last came."""
        self._changed = self._day_changed = _NEVER
        self._edges: tuple[str, ...] = ()
        """What lines were counted against so far."""

    def add(self, lines: Iterable[Line], now: datetime) -> None:
        """Count what is new among the lines; those of other revisions are not looked at."""
        for line in lines:
            if line.revision == self.revision:
                self._add(line, now)
                self._changed = now
        self._melt(now)

    def _add(self, line: Line, now: datetime) -> None:
        start, end = line.start, line.end
        if end > now + timedelta(seconds=line.seconds) + SKEW:
            self.skewed = now
            return
        if line.edges not in self._edges and len(self._edges) < MOST_EDGES:
            self._edges += (line.edges,)
        made_up = any(each.index >= MOST_FEATURES for each in line.features)
        if made_up or line.edges not in self._edges:
            self.damaged = now
            return
        self._heard[line.pod] = max(end, self._heard.get(line.pod, end))
        if line.rows or line.requests:
            self.traffic = max(end, self.traffic or end)
        if end <= max(self._melted_until, now - LONGEST):
            self.late += 1
            return
        slot = self._slots.setdefault((end, start), _Slot(Window(start=start, end=end)))
        slot.add(line)

    def _melt(self, now: datetime) -> None:
        """Merge windows that no line is expected for any more, so that the memory is bounded."""
        day = self._day.sums(self._melted_until)
        for key in sorted(self._slots):
            end, start = key
            if self._awaited(start, end) > now and len(self._slots) <= MOST_WINDOWS:
                break
            window = replace(self._slots.pop(key).window, latency=_NO_LATENCY)
            self._melted = self._melted.grown(window)
            self._day.add(window.start, packed(window.histograms))
            self._melted_until = max(end, self._melted_until)
        # Each recent window with enough rows closes a group, and only the last groups are judged.
        full = sum(slot.window.rows >= MINIMUM_ROWS for slot in self._settled(now))
        self._melted = self._melted.last(max(GROUPS - full, 0))
        # What has not changed is the same object.
        if [*map(id, day.values())] != [*map(id, self._day.sums(self._melted_until).values())]:
            self._day_changed = now
        self._heard = {pod: end for pod, end in self._heard.items() if end > now - LONGEST}

    def moved(self, since: datetime) -> bool:
        """Whether a line came since then."""
        return self._changed > since

    def moments(self) -> Iterator[datetime]:
        """Give when something else may follow from the lines that came, though none comes any more.

        That is when a window settles, when it melts, and when it is too old to tell anything.
        """
        for end, start in self._slots:
            yield end + self.settle
            yield self._awaited(start, end)
            yield end + LONGEST
        melted = self._melted.closed
        for window in melted if self._melted.open is None else (*melted, self._melted.open):
            yield window.end + LONGEST
        for end in self._heard.values():
            yield end + LONGEST

    def _awaited(self, start: datetime, end: datetime) -> datetime:
        """Until when lines of a window are waited for."""
        return end + self.settle + max(_LATE_WINDOWS * (end - start), _LATE)

    def day_moved(self, since: datetime) -> bool:
        """Whether `day` gives something else since then."""
        return self._day_changed > since

    def groups(self, now: datetime) -> Groups:
        """Give the windows that have settled, in groups large enough to judge."""
        groups = self._melted
        for slot in self._settled(now):
            groups = groups.grown(slot.window)
        return groups.since(now - LONGEST)

    def day(self) -> Sequence[Window]:
        """Give the last whole day in blocks that have histograms and nothing else."""
        return [
            Window(start=start, end=start + BLOCK, histograms=sums)
            for start, sums in self._day.sums(self._melted_until).items()
        ]

    def recent(self, now: datetime) -> Sequence[Window]:
        """Give the last windows that have settled, at most three, the oldest first."""
        return [slot.window for slot in self._settled(now)][-GROUPS:]

    def incomplete(self, now: datetime) -> int:
        """Count the recent windows that have settled and lack a chunk."""
        return sum(slot.incomplete for slot in self._settled(now))

    def heard(self) -> Mapping[str, datetime]:
        """For each pod that reported within a day: the end of its last window."""
        return MappingProxyType(self._heard)

    def _settled(self, now: datetime) -> Iterator[_Slot]:
        for key in sorted(self._slots):
            if key[0] + self.settle <= now:
                yield self._slots[key]


def apart(lines: Iterable[Line]) -> Sequence[Window]:
    """Give the windows of one revision as they were written, the oldest first; none is merged."""
    slots: dict[tuple[datetime, datetime], _Slot] = {}
    for line in lines:
        key = (line.end, line.start)
        slots.setdefault(key, _Slot(Window(start=line.start, end=line.end))).add(line)
    return [slots[key].window for key in sorted(slots)]


class TelemetryStore:
    """The histories of a whole fleet. Keys are what the caller names its deployments by."""

    def __init__(self, *, settle: timedelta) -> None:
        self._settle = settle
        self._histories: dict[Hashable, dict[str, History]] = {}
        self._damaged: dict[Hashable, datetime] = {}
        """When a damaged line last came, which does not tell its revision."""

    def add(self, key: Hashable, lines: Iterable[Line], now: datetime, *, damaged: int = 0) -> None:
        """Count lines of one deployment, of whatever revision.

        `damaged` lines came with them that could not be understood.
        """
        by_revision: dict[str, list[Line]] = {}
        for line in lines:
            by_revision.setdefault(line.revision, []).append(line)
        histories = self._histories.setdefault(key, {})
        for revision, those in by_revision.items():
            history = histories.pop(revision, None) or History(revision, settle=self._settle)
            histories[revision] = history  # at the end: it was heard of last
            history.add(those, now)
        if damaged:
            self._damaged[key] = now
        while len(histories) > REVISIONS:
            del histories[next(iter(histories))]

    def history(self, key: Hashable, revision: str) -> History:
        """Give what is known of one revision; an empty history if nothing is."""
        known = self._histories.get(key, {}).get(revision)
        history = known or History(revision, settle=self._settle)
        if (damaged := self._damaged.get(key)) is not None:
            history.damaged = max(damaged, history.damaged or damaged)
        return history

    def retain(self, keys: Collection[Hashable]) -> None:
        """Forget all other deployments."""
        self._histories = {key: found for key, found in self._histories.items() if key in keys}
        self._damaged = {key: when for key, when in self._damaged.items() if key in keys}


def _window(line: Line, start: datetime, end: datetime) -> Window:
    """Give the window that this line alone makes; the same two moments serve all lines of it."""
    return Window(
        start=start,
        end=end,
        rows=line.rows,
        outliers=line.outliers,
        requests=line.requests,
        client_errors=line.errors.get("4xx", 0),
        server_errors=line.errors.get("5xx", 0),
        turned_away=line.errors.get(BUSY, 0),
        periods=line.periods,
        throttled=line.throttled,
        latency=dict(line.latency) or _NO_LATENCY,
        histograms=_histograms(line),
        verdicts=line.verdicts or _NO_VERDICTS,
        forms=_forms(line.form) if line.form and line.rows else _NO_FORMS,
    )


@lru_cache(64)  # of the few that there are, shared by all windows
def _forms(form: str) -> frozenset[str]:
    return frozenset({form})


def _histograms(line: Line) -> Histograms:
    edges = intern(line.edges)
    found = {each.index: each.histogram for each in line.features}
    found |= {
        index: each
        for index, each in ((SCORES, line.scores), (LABELS, line.labels))
        if each is not None
    }
    return Histograms.of(
        tuple(((edges, index), len(each.counts) + 2) for index, each in found.items()),
        [count for each in found.values() for count in (*each.counts, each.missing, each.unseen)],
    )


def _fits(told: Window, window: Window) -> bool:
    """Whether the histograms have as many bins as those they are to be added to."""
    sizes, known = packed(told.histograms).sizes, packed(window.histograms).sizes
    # Nearly always the same: one object for all windows of a model.
    return sizes is known or all(known.get(key, size) == size for key, size in sizes.items())


def _added(one: Mapping[K, int], other: Mapping[K, int]) -> Mapping[K, int]:
    """Add two sparse histograms."""
    if not (one and other):
        return one or other
    return {key: one.get(key, 0) + other.get(key, 0) for key in {**one, **other}}
