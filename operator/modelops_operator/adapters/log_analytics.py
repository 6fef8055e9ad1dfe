"""Telemetry from Azure Log Analytics, where Container insights brings the logs of the pods.

    async with connected(place) as client:
        source = LogAnalytics(client, place)
        readings = await source.collect(targets, now)

The workspace is asked once for the whole fleet, at every `place.interval`, for what has arrived
since the newest arrival that is known, and a little again, since rows become visible out of order;
what was handed over before is left out. It is the time of arrival that counts, not of writing, so
that a line which comes late is met all the same. An answer is a page: while pages are full, the
next `collect` goes on at once where the last one ended, and the lines of windows that the end of
the page may have cut wait for it.

A line counts for the pod that Kubernetes knows by its name, alive or gone since we looked first;
lines of other pods, and what a pod says of others, are left out. Nothing is retried within a
`collect`: an error keeps its place, and what it cost is a later answer.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final, Self

from azure.core.exceptions import AzureError
from azure.core.rest import AsyncHttpResponse
from azure.identity.aio import DefaultAzureCredential
from azure.monitor.query import LogsQueryPartialResult, LogsTable, LogsTableRow
from azure.monitor.query.aio import LogsQueryClient
from modelops_runtime.telemetry import Line

from modelops_operator.adapters import kql
from modelops_operator.adapters import log_analytics_failures as failures
from modelops_operator.adapters.origin import CONTAINER, Haul, Origin
from modelops_operator.adapters.telemetry import Key, Reading, Target
from modelops_operator.api.config import LogAnalyticsConfig
from modelops_operator.api.facts import Failure

PAGE: Final = 5_000
"""Rows of an answer: up to 25 MB, a quarter of what the service gives at once."""
SMALLEST_PAGE: Final = 250
LARGEST_PAGE: Final = 320_000
"""The service gives at most 500,000 rows."""
PAGES: Final = 4
"""Answers in one `collect`."""
MOST_HELD: Final = PAGE * PAGES
"""Lines that wait for the rest of their windows."""
TIMEOUT: Final = 60
"""Seconds for one answer."""
LONGEST_PAUSE: Final = timedelta(minutes=10)
PRESENCE_INTERVAL: Final = timedelta(minutes=10)
"""How often it is asked why no telemetry comes."""
LEAST_PRESENCE: Final = timedelta(minutes=30)
"""How far back that question looks, at least."""

_LONGEST_DELAY: Final = timedelta(hours=4)
"""What comes later than this finds its window closed."""
_AHEAD: Final = timedelta(hours=1)
"""How far the clocks of nodes may be ahead of ours."""
_UNREADABLE: Final = (AttributeError, KeyError, TypeError, ValueError)
"""What the client raises for an answer that is not what it expects."""
_BEGINNING: Final = datetime.min.replace(tzinfo=UTC)

_PodName = tuple[str, str]
"""Namespace and name."""


@asynccontextmanager
async def connected(place: LogAnalyticsConfig) -> AsyncIterator[LogsQueryClient]:
    """Give a client with the identity of the surroundings.

    Environment variables, AKS workload identity or a managed identity, and at a desk what Azure's
    tools are logged in as; nothing is asked before the first query.
    """
    async with (
        identity() as credential,
        LogsQueryClient(
            credential,
            endpoint=place.endpoint,
            audience=place.audience or place.endpoint,
            retry_total=0,  # the next `collect` asks again, and keeps what Retry-After says
        ) as client,
    ):
        yield client


def identity() -> DefaultAzureCredential:
    """Give the identity of the surroundings; in a pod, Azure's tools are not looked for."""
    in_a_pod = "KUBERNETES_SERVICE_HOST" in os.environ
    return DefaultAzureCredential(
        exclude_shared_token_cache_credential=True,
        exclude_visual_studio_code_credential=True,
        exclude_cli_credential=in_a_pod,
        exclude_developer_cli_credential=in_a_pod,
        exclude_powershell_credential=in_a_pod,
    )


@dataclass(frozen=True, slots=True)
class _Pod:
    """A pod that is or was one of ours."""

    key: Key
    origin: Origin


@dataclass(frozen=True, slots=True)
class _Met:
    """A target, and what its pods tell."""

    target: Target
    pods: Mapping[_PodName, _Pod]
    started: datetime | None
    """When the first of the serving containers was started; None while there is none."""

    @classmethod
    def of(cls, target: Target) -> Self:
        """Look at the pods of a target."""
        pods, started = {}, []
        for pod in target.pods:
            origin = Origin.of(target, pod)
            pods[target.namespace, origin.pod] = _Pod(target.key, origin)
            moment = _started(pod)
            started += [] if moment is None else [moment]
        return cls(target, pods, min(started, default=None))


class _QueryError(Exception):
    """The workspace gave no answer, or not a whole one."""

    def __init__(self, failure: Failure, wait: timedelta | None = None) -> None:
        super().__init__(failure.message)
        self.failure = failure
        self.wait = wait


class LogAnalytics:
    """A `TelemetrySource` that reads ContainerLogV2, or what a summary rule copied from there."""

    def __init__(self, client: LogsQueryClient, place: LogAnalyticsConfig) -> None:
        self._client = client
        self._place = place
        self._page = PAGE
        self._newest = _BEGINNING
        """Arrival of the newest line that is known."""
        self._behind: datetime | None = None
        """The arrival to go on from, where a page was full."""
        self._seen: dict[int, datetime] = {}
        """Hash and arrival of what was met and may be met again."""
        self._held: dict[Key, list[Line]] = {}
        """Lines of windows that are not known to be whole, while there are full pages."""
        self._targets: Sequence[Target] = ()
        self._met: dict[Key, _Met] = {}
        """What we read for."""
        self._pods: dict[_PodName, _Pod] = {}
        """Theirs, and those that have left and whose lines may still come."""
        self._left: dict[_PodName, datetime] = {}
        """When we saw that they had."""
        self._heard: dict[Key, datetime] = {}
        self._next = _BEGINNING
        self._failed = 0
        """Answers in a row that failed."""
        self._failure: Failure | None = None
        self._absent: Mapping[str, Failure] = {}
        """Why no telemetry comes from a namespace."""
        self._next_presence = _BEGINNING

    @property
    def place(self) -> str:
        """The workspace, or the resource, that is asked."""
        return f"LogAnalytics {self._place.workspace_id or self._place.resource_id}"

    @property
    def settle(self) -> timedelta:
        """How long after the end of a window its lines may still be on their way."""
        return self._place.lag

    async def collect(self, targets: Sequence[Target], now: datetime) -> Mapping[Key, Reading]:
        """Read what is new for every target. Never raises: a failure is part of a reading."""
        self._meet(targets, now)
        hauls: dict[Key, Haul] = {}
        if targets and now >= self._next:
            await self._attempt(hauls, now)
        lines = self._whole(hauls)
        failures = self._failures(now)
        return {
            key: Reading(
                lines=lines.get(key, ()),
                failure=failures.get(key),
                damaged=hauls[key].damaged if key in hauls else 0,
                foreign=hauls[key].foreign if key in hauls else 0,
            )
            for key in hauls.keys() | lines.keys() | failures.keys()
        }

    def _failures(self, now: datetime) -> Mapping[Key, Failure]:
        """Tell why nothing is known of some, or of all."""
        if self._failure is not None:
            return dict.fromkeys(self._met, self._failure)
        if not self._absent:
            return {}
        silent = (key for key, met in self._met.items() if self._silent(met, now))
        return {key: self._absent[key[0]] for key in silent if key[0] in self._absent}

    def _whole(self, hauls: Mapping[Key, Haul]) -> Mapping[Key, tuple[Line, ...]]:
        """Give the lines to hand over, and hold back those whose windows a page may have cut.

        A reader has closed the windows of the past long ago, and takes their lines together only.
        """
        found = {
            key: [*self._held.get(key, ()), *(hauls[key].lines if key in hauls else ())]
            for key in (hauls.keys() | self._held.keys()) & self._met.keys()
        }
        whole = datetime.max.replace(tzinfo=UTC)
        if self._behind is not None and sum(map(len, found.values())) <= MOST_HELD:
            whole = self._behind - self._place.lag
        self._held = {
            key: held
            for key, lines in found.items()
            if (held := [line for line in lines if line.end > whole])
        }
        return {
            key: tuple(line for line in lines if line.end <= whole) for key, lines in found.items()
        }

    async def close(self) -> None:
        """Nothing is held. The client is the caller's."""

    def _meet(self, targets: Sequence[Target], now: datetime) -> None:
        """Learn which pods there are; those that left are known as long as their lines may come."""
        if targets is not self._targets:
            self._targets = targets
            before, self._met = self._met, {}
            for target in targets:
                known = before.get(target.key)
                if known is None or known.target is not target:
                    known = _Met.of(target)
                    self._pods |= known.pods
                self._met[target.key] = known
            present = {place for met in self._met.values() for place in met.pods}
            self._left |= dict.fromkeys(self._pods.keys() - present - self._left.keys(), now)
            for place in self._left.keys() & present:
                del self._left[place]
        oldest = now - self._place.lookback
        for place in [place for place, left in self._left.items() if left <= oldest]:
            del self._left[place], self._pods[place]

    def _silent(self, met: "_Met", now: datetime) -> bool:
        """Whether its pods should have been heard by now."""
        patience = 2 * met.target.window + self._place.lag + self._place.interval
        oldest = now - patience
        if self._heard.get(met.target.key, _BEGINNING) > oldest:
            return False
        return met.started is not None and met.started <= oldest

    async def _attempt(self, hauls: dict[Key, Haul], now: datetime) -> None:
        """Ask, and settle when to ask again."""
        oldest = now - self._place.lookback
        self._heard = {key: heard for key, heard in self._heard.items() if heard > oldest}
        try:
            await self._catch_up(hauls, now)
            silent = [met.target for met in self._met.values() if self._silent(met, now)]
            await self._explain(silent, now)
        except _QueryError as error:
            self._failure = error.failure
            backoff = min(self._place.interval * 2 ** min(self._failed, 10), LONGEST_PAUSE)
            self._failed += 1
            self._next = now + (backoff if error.wait is None else error.wait)
        else:
            self._failure, self._failed = None, 0
            self._next = now if self._behind else now + self._place.interval

    async def _catch_up(self, hauls: dict[Key, Haul], now: datetime) -> None:
        """Read page after page, up to the newest line or the most pages.

        Raises _QueryError; what came before it is kept.
        """
        for _ in range(PAGES):
            since = self._since(now)
            namespaces = {key[0] for key in self._met}
            query = kql.telemetry(
                namespaces,
                cluster=self._cluster,
                since=since,
                page=self._page,
                summary=self._place.summary_table,
            )
            span = (since - _LONGEST_DELAY, now + _AHEAD)
            rows, failure = await self._ask(query, span, now)
            newest = max(
                (self._take(row, hauls, now) for row in _telemetry(rows)), default=_BEGINNING
            )
            if failure is not None:
                # Too much for one answer; nobody says that it is the oldest that came.
                self._page = max(self._page // 2, SMALLEST_PAGE)
                raise _QueryError(failure)
            self._newest = max(self._newest, newest)
            if len(rows) < self._page:
                self._behind, self._page = None, PAGE
                self._forget()
                return
            if newest <= since:
                # All of the page arrived at once, so that there is no place to go on from.
                self._page = min(2 * self._page, LARGEST_PAGE)
            self._behind = max(newest, since)
        self._forget()

    def _since(self, now: datetime) -> datetime:
        """Give the arrival to read from."""
        oldest = now - self._place.lookback
        start = self._behind or max(self._newest, oldest) - self._place.overlap
        return max(start, oldest)

    def _take(self, row: "_Row", hauls: dict[Key, Haul], now: datetime) -> datetime:
        """Keep a row's line, unless it was met before or nobody of ours wrote it."""
        pod = self._pods.get((row.namespace, row.pod))
        mark = hash((row.namespace, row.pod, row.line))
        if pod is None or pod.key not in self._met or mark in self._seen:
            return row.ingested
        self._seen[mark] = row.ingested
        if hauls.setdefault(pod.key, Haul()).take(row.line, pod.origin) is not None:
            self._heard[pod.key] = now
        return row.ingested

    def _forget(self) -> None:
        """Forget what arrived too long ago to be met again."""
        if self._newest == _BEGINNING:
            return
        oldest = self._newest - self._place.overlap
        self._seen = {mark: seen for mark, seen in self._seen.items() if seen >= oldest}

    async def _explain(self, silent: Sequence[Target], now: datetime) -> None:
        """Ask what arrives at all of the namespaces whose pods are silent."""
        if not silent:
            self._absent, self._next_presence = {}, _BEGINNING
        if not silent or self._behind or now < self._next_presence:
            return
        span = max(LEAST_PRESENCE, *(2 * target.window for target in silent))
        namespaces = sorted({target.namespace for target in silent})
        if self._place.summary_table:  # whose plan allows questions; that of the others may not
            self._absent = {
                namespace: failures.not_summarised(namespace, self._place)
                for namespace in namespaces
            }
            return
        query = kql.presence(namespaces, cluster=self._cluster)
        rows, failure = await self._ask(query, (now - span, now + _AHEAD), now)
        if failure is not None:
            raise _QueryError(failure)
        self._next_presence = now + PRESENCE_INTERVAL
        counts = {row["PodNamespace"]: (row["Logs"], row["Telemetry"]) for row in rows}
        self._absent = {}
        for namespace in namespaces:
            logs, telemetry = counts.get(namespace, (0, 0))
            if not logs:
                self._absent[namespace] = failures.not_collected(namespace, span, self._place)
            elif not telemetry:
                self._absent[namespace] = failures.filtered(namespace, logs, span, self._place)

    @property
    def _cluster(self) -> str:
        """The cluster to tell from others in the workspace; a query of a resource tells already."""
        return self._place.resource_id if self._place.workspace_id else ""

    async def _ask(
        self, query: str, span: tuple[datetime, datetime], now: datetime
    ) -> tuple[Sequence[LogsTableRow], Failure | None]:
        """Give the rows of an answer, and what is wrong with it if only a part came.

        Raises _QueryError.
        """
        place, client = self._place, self._client
        if place.workspace_id:
            ask = partial(client.query_workspace, place.workspace_id)
        else:
            ask = partial(client.query_resource, place.resource_id.lstrip("/"))
        # The client's errors tell nothing of an answer that is not JSON, as a gateway's.
        answers: list[AsyncHttpResponse] = []
        try:
            async with asyncio.timeout(TIMEOUT + 10):
                result = await ask(
                    query,
                    timespan=span,
                    server_timeout=TIMEOUT,
                    raw_response_hook=lambda heard: answers.append(heard.http_response),
                )
        except (AzureError, OSError, TimeoutError, *_UNREADABLE) as error:
            answer = answers[-1] if answers else None
            raise _QueryError(*failures.described(error, answer, place, now)) from error
        if isinstance(result, LogsQueryPartialResult):
            return _rows(result.partial_data), failures.partial(result.partial_error, place)
        return _rows(result.tables), None


@dataclass(frozen=True, slots=True)
class _Row:
    """A row of kql/telemetry.kql."""

    ingested: datetime
    namespace: str
    pod: str
    line: str


def _rows(tables: Sequence[LogsTable] | None) -> Sequence[LogsTableRow]:
    return tables[0].rows if tables else ()


def _telemetry(rows: Iterable[LogsTableRow]) -> Iterable[_Row]:
    """Give the rows that are what they should be."""
    for row in rows:
        ingested, namespace, pod, line = row
        if isinstance(ingested, datetime) and isinstance(line, str):
            moment = ingested if ingested.tzinfo else ingested.replace(tzinfo=UTC)
            yield _Row(moment, str(namespace), str(pod), line)


def _started(pod: Mapping[str, Any]) -> datetime | None:
    """Tell since when the serving container of a pod runs; None if it does not."""
    for status in pod.get("status", {}).get("containerStatuses") or ():
        moment = status.get("state", {}).get("running", {}).get("startedAt")
        if status["name"] == CONTAINER and moment:
            return datetime.fromisoformat(moment)
    return None
