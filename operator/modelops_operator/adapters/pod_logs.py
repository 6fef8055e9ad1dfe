"""Telemetry from the pods' own logs, read through the API server.

    source = PodLogs(api_client)                    # a kubernetes.aio ApiClient, the caller's
    readings = await source.collect(targets, now)
    await source.close()

Every container instance has a log of its own. A read goes on where the last one ended, to the
second, and what was handed over before is left out. A restarted container's former log is read
once more to its end. A terminating pod is followed until it is gone, since its last line comes
with its last breath: a `collect` soon after the deletion misses nothing. The log of a pod that
reported a window is not read again before its next window ends.

The API server gives the current file of a log only: where a pod writes more than 10 MiB between
two reads and the kubelet rotates the file, the lines before are gone.
"""

import asyncio
import json
from collections.abc import AsyncIterable, AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any, Final

import aiohttp
from kubernetes.aio.client import ApiClient

from modelops_operator.adapters.origin import CONTAINER, Haul, Origin
from modelops_operator.adapters.telemetry import Key, Reading, Target
from modelops_operator.api.facts import Failure
from modelops_operator.api.reasons import Reason

SETTLE: Final = timedelta(seconds=5)
"""Workers write at the end of the window; the kubelet has the line within milliseconds."""
LOOKBACK: Final = timedelta(hours=6)
"""How far back a log is read that was never read before."""
CONCURRENCY: Final = 32
FOLLOWED: Final = 64
"""Terminating pods whose logs are followed at the same time."""
TIMEOUT: Final = 20.0
"""Seconds for one log."""
LARGEST_READ: Final = 32 * 1024 * 1024
"""Bytes of one log in one `collect`; the rest comes with the next one."""
LONGEST_LINE: Final = 64 * 1024
"""Bytes; longer lines are not ours."""
MOST_LINES: Final = 10_000
"""Lines of telemetry of one log in one `collect`."""

LONGEST_FAREWELL: Final = 120.0
"""Seconds that a terminating pod is followed for."""
LONGEST_CAUSE: Final = 300
"""Characters of an answer that go into a message."""

_MARK: Final = b'"mdw1"'
_NOTHING_THERE: Final = {400, 404}
"""The container has not started, has no former instance, or the pod is gone."""
_DENIED: Final = {401, 403}
_OVERLAP: Final = timedelta(seconds=1)


class _ReadError(Exception):
    """A log could not be read."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


@dataclass(frozen=True, slots=True)
class _Source:
    """A pod, as far as its log is concerned."""

    namespace: str
    uid: str
    origin: Origin
    deleting: bool
    instance: int | None
    """Number of restarts of the container; None while there was no container yet."""

    @classmethod
    def of(cls, target: Target, pod: Mapping[str, Any]) -> "_Source":
        metadata = pod["metadata"]
        statuses = pod.get("status", {}).get("containerStatuses") or ()
        status: Mapping[str, Any] = next(
            (found for found in statuses if found["name"] == CONTAINER), {}
        )
        started = "waiting" not in status.get("state", {"waiting": {}}) or status.get("lastState")
        return cls(
            namespace=target.namespace,
            uid=metadata["uid"],
            origin=Origin.of(target, pod),
            deleting=bool(metadata.get("deletionTimestamp")),
            instance=status.get("restartCount", 0) if started else None,
        )


@dataclass(slots=True)
class _Reader:
    """How far one pod's log has been read."""

    source: _Source
    cursor: datetime
    """The time that the last line was written at."""
    former: datetime
    """The cursor before the last read: a restart that was not noticed yet lies behind it."""
    restarts_read: int = 0
    """Former instances that are done with."""
    seen: set[tuple[datetime, bytes]] = field(default_factory=set)
    """What was handed over since `former`."""
    haul: Haul = field(default_factory=Haul)
    read: datetime | None = None
    """When it was last read to its end."""
    window_end: datetime | None = None
    """Of the last line."""
    window: timedelta = timedelta(0)
    follower: asyncio.Task[None] | None = None

    @property
    def restarted(self) -> bool:
        """Whether there is a former instance that was not read to its end."""
        return self.source.instance is not None and self.source.instance > self.restarts_read

    def due(self, now: datetime) -> bool:
        """Whether there can be anything new."""
        if self.source.instance is None or self.follower is not None:
            return False
        if self.read is None or self.window_end is None or self.source.deleting or self.restarted:
            return True
        return self.read < self.window_end + SETTLE or now >= self.window_end + self.window

    def begin(self) -> None:
        """Forget what was handed over before the last read: it will not be met again."""
        self.former = self.cursor
        self.seen = {key for key in self.seen if key[0] >= self.former - 2 * _OVERLAP}

    def take(self, written: datetime, text: bytes) -> None:
        """Keep a line of telemetry, unless it was met before."""
        if (written, text) in self.seen:
            return
        self.seen.add((written, text))
        line = self.haul.take(text, self.source.origin)
        if line is not None:
            self.window = timedelta(seconds=line.seconds)
            self.window_end = max(line.end, self.window_end or line.end)

    def hand_over(self) -> Haul:
        """Give what was found, once."""
        haul, self.haul = self.haul, Haul()
        return haul

    async def stop(self) -> None:
        """Stop following."""
        if self.follower is not None:
            self.follower.cancel()
            await asyncio.gather(self.follower, return_exceptions=True)


class PodLogs:
    """A `TelemetrySource` that reads the logs of the pods.

    Followed logs hold connections: give it a client of its own.
    """

    def __init__(self, client: ApiClient, *, lookback: timedelta = LOOKBACK) -> None:
        self._client = client
        self._lookback = lookback
        self._readers: dict[Key, dict[str, _Reader]] = {}
        self._places = asyncio.Semaphore(CONCURRENCY)

    @property
    def place(self) -> str:
        """Its name, for the status."""
        return "PodLogs"

    @property
    def settle(self) -> timedelta:
        """How long after the end of a window its lines may still be on their way."""
        return SETTLE

    async def collect(self, targets: Sequence[Target], now: datetime) -> Mapping[Key, Reading]:
        """Read what is new for every target. Never raises: a failure is part of a reading."""
        wanted = {target.key for target in targets}
        for key in self._readers.keys() - wanted:
            for reader in self._readers.pop(key).values():
                await reader.stop()
        readings = await asyncio.gather(*(self._collect(target, now) for target in targets))
        return {target.key: reading for target, reading in zip(targets, readings, strict=True)}

    async def close(self) -> None:
        """Stop following. The client is the caller's."""
        await self.collect((), datetime.now(UTC))

    async def _collect(self, target: Target, now: datetime) -> Reading:
        readers = self._readers.setdefault(target.key, {})
        live = {source.uid: source for source in (_Source.of(target, pod) for pod in target.pods)}
        for uid, source in live.items():
            start = now - self._lookback
            reader = readers.setdefault(uid, _Reader(source, cursor=start, former=start))
            reader.source = source
        due = [reader for reader in readers.values() if reader.due(now)]
        failures = await asyncio.gather(*(self._catch_up(reader, now) for reader in due))
        hauls = [reader.hand_over() for reader in readers.values()]
        for uid in readers.keys() - live.keys():
            await readers.pop(uid).stop()
        return Reading(
            lines=tuple(line for haul in hauls for line in haul.lines),
            failure=_worst([failure for failure in failures if failure is not None]),
            damaged=sum(haul.damaged for haul in hauls),
            foreign=sum(haul.foreign for haul in hauls),
        )

    async def _catch_up(self, reader: _Reader, now: datetime) -> Failure | None:
        """Read one pod's log to its present end; afterwards follow it if the pod terminates."""
        try:
            async with self._places, asyncio.timeout(TIMEOUT):
                instance = reader.source.instance or 0
                if reader.restarted:
                    await self._read(reader, since=reader.former, previous=True)
                    reader.restarts_read = instance
                reader.begin()
                complete = await self._read(reader, since=reader.cursor)
        except _ReadError as error:
            return error.failure
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            return _unread(reader.source, f"{type(error).__name__} {error}".strip())
        reader.read = now if complete else None
        if reader.source.deleting and self._following < FOLLOWED:
            reader.follower = asyncio.create_task(self._follow(reader))
        return None

    @property
    def _following(self) -> int:
        readers = (reader for each in self._readers.values() for reader in each.values())
        return sum(reader.follower is not None for reader in readers)

    async def _follow(self, reader: _Reader) -> None:
        """Read on until the container ends. What fails here is read by the next `collect`."""
        try:
            with suppress(_ReadError, aiohttp.ClientError, OSError, TimeoutError):
                async with asyncio.timeout(LONGEST_FAREWELL):
                    await self._read(reader, since=reader.cursor, follow=True)
        finally:
            reader.follower = None

    async def _read(
        self, reader: _Reader, *, since: datetime, previous: bool = False, follow: bool = False
    ) -> bool:
        """Take the lines of one log since that time. False if there are more than fit in.

        Raises _ReadError when the API server refuses, aiohttp's errors when it is not reached.
        """
        parameters = {
            "container": CONTAINER,
            "timestamps": "true",
            "sinceTime": (since - _OVERLAP).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            **({"previous": "true"} if previous else {}),
            **({"follow": "true"} if follow else {}),
        }
        response = await self._get(reader.source, parameters)
        if response is None:
            return True
        lines = _Lines(response.content.iter_any())
        try:
            async for line in lines:
                stamp, _, text = line.partition(b" ")
                if (written := _moment(stamp)) is None:
                    continue  # the kubelet's own words, where it could not read the file
                reader.cursor = max(reader.cursor, written)
                if _MARK in text:
                    reader.take(written, text)
                if len(reader.haul.lines) >= MOST_LINES:
                    break
        finally:
            response.close()
        if lines.ended:
            return True
        if reader.cursor < since + 2 * _OVERLAP:
            # All that fits in is from one moment: without a jump it would be read for ever.
            reader.cursor += 2 * _OVERLAP
        return False

    async def _get(
        self, source: _Source, parameters: Mapping[str, str]
    ) -> aiohttp.ClientResponse | None:
        """Open a log; None if there is none.

        The generated `read_namespaced_pod_log` has no `sinceTime` (it is missing in the API's
        OpenAPI document) and reads everything into memory.
        """
        request = await self._client.param_serialize(
            method="GET",
            resource_path="/api/v1/namespaces/{namespace}/pods/{name}/log",
            path_params={"namespace": source.namespace, "name": source.origin.pod},
            query_params=list(parameters.items()),
            header_params={"Accept": "text/plain, */*"},
            auth_settings=["BearerToken"],
        )
        unlimited = aiohttp.ClientTimeout(total=None)  # the callers count the time
        answer = await self._client.call_api(*request, _request_timeout=unlimited)
        response: aiohttp.ClientResponse = answer.response
        if response.status == HTTPStatus.OK:
            return response
        try:
            if response.status in _NOTHING_THERE:
                return None
            said = (await response.content.read(LONGEST_LINE)).decode(errors="replace")
        finally:
            response.close()
        raise _ReadError(_refused(source, response.status, said))


class _Lines:
    """The lines of a stream, whatever its pieces; bounded in the memory that they take."""

    def __init__(self, pieces: AsyncIterable[bytes]) -> None:
        self._pieces = pieces
        self.ended = False
        """Whether the stream was read to its end."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        rest, size, whole = b"", 0, True
        async for piece in self._pieces:
            size += len(piece)
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                if whole and len(line) <= LONGEST_LINE:
                    yield line
                whole = True
            if len(rest) > LONGEST_LINE:
                rest, whole = b"", False  # the rest of this line is dropped as well
            if size > LARGEST_READ:
                return
        self.ended = True


def _moment(stamp: bytes) -> datetime | None:
    """Read the time that the kubelet puts before each line, to the microsecond."""
    try:
        moment = datetime.fromisoformat(stamp.decode("ascii"))
    except (ValueError, UnicodeDecodeError):
        return None
    return None if moment.tzinfo is None else moment


def _worst(failures: Sequence[Failure]) -> Failure | None:
    """Tell of one failure and of the number of others; what only a person can mend goes first."""
    if not failures:
        return None
    worst = max(failures, key=lambda failure: failure.permanent)
    others = len(failures) - 1
    if not others:
        return worst
    return replace(worst, message=f"{worst.message} (and {others} more)")


def _unread(source: _Source, cause: str) -> Failure:
    message = f"the log of pod {source.namespace}/{source.origin.pod} cannot be read: {cause}"
    return Failure(reason=Reason.QUERY_FAILED, message=message, permanent=False)


def _refused(source: _Source, status: int, said: str) -> Failure:
    """Put a refusal into words; the API server answers with a Status object."""
    try:
        said = str(json.loads(said).get("message", said))
    except (ValueError, AttributeError):
        said = " ".join(said.split())
    failure = _unread(source, f"the API server answers {status}: {said[:LONGEST_CAUSE]}")
    if status not in _DENIED:
        return failure
    message = f"{failure.message}; the operator's role needs `get` on `pods/log` there"
    return Failure(reason=Reason.QUERY_DENIED, message=message, permanent=True)
