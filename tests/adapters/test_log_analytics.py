"""The real client of Log Analytics against a stand-in that runs the operator's own queries."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiohttp import web
from azure.core.exceptions import ClientAuthenticationError
from azure.identity import CredentialUnavailableError
from modelops_operator.adapters import log_analytics
from modelops_operator.adapters.log_analytics import (
    MOST_HELD,
    PAGE,
    PAGES,
    LogAnalytics,
    connected,
    identity,
)
from modelops_operator.adapters.log_analytics_failures import described
from modelops_operator.adapters.telemetry import Key, Reading, Target
from modelops_operator.api.config import LogAnalyticsConfig
from modelops_operator.api.reasons import Reason
from modelops_operator.core.health.windows import History
from modelops_runtime.telemetry import Line

from tests.log_analytics import CLUSTER, SUMMARY, WORKSPACE, Row, Workspace, error

pytestmark = pytest.mark.contract

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
KEY = ("staging", "employment")
PLACE = LogAnalyticsConfig(workspace_id=WORKSPACE)
LINE = Line(
    model="staging/employment",
    revision="0123456789",
    pod="pod-a",
    worker="w1",
    start=NOON - 10 * MINUTE,
    seconds=300,
    rows=10,
    requests=3,
)


def pod(name: str = "pod-a") -> dict[str, Any]:
    running = {"running": {"startedAt": "2026-03-01T11:00:00Z"}}
    return {
        "metadata": {"name": name, "uid": name, "labels": {"modelops.dev/revision": LINE.revision}},
        "status": {"containerStatuses": [{"name": "server", "state": running}]},
    }


TARGET = Target(namespace="staging", name="employment", pods=(pod(),))


def text(line: Line = LINE) -> str:
    (encoded,) = line.encode()
    return encoded.decode().rstrip("\n")


def row(message: str = "", **changes: Any) -> Row:
    return Row(**{"message": message or text(), "ingested": NOON - 3 * MINUTE, **changes})


@dataclass
class Reader:
    """A source in a world whose clock the test sets."""

    workspace: Workspace
    source: LogAnalytics
    now: datetime = NOON
    targets: list[Target] = field(default_factory=lambda: [TARGET])

    async def collect(self, later: timedelta = timedelta(0)) -> Reading:
        self.now += later
        return (await self.readings()).get(KEY, Reading())

    async def readings(self) -> Mapping[Key, Reading]:
        return await self.source.collect(self.targets, self.now)


Scenario = Callable[[Reader], Awaitable[None]]


def play(
    scenario: Scenario, workspace: Workspace | None = None, place: LogAnalyticsConfig = PLACE
) -> Workspace:
    """Run a scenario against a workspace."""
    world = workspace or Workspace()

    async def main() -> None:
        async with world.serving() as client:
            await scenario(Reader(world, LogAnalytics(client, place)))

    asyncio.run(main())
    return world


@pytest.mark.parametrize("dynamic", [True, False], ids=["dynamic", "string"])
def test_every_line_is_handed_over_once(*, dynamic: bool) -> None:
    async def scenario(reader: Reader) -> None:
        workspace = reader.workspace
        workspace.ingest([row(), row(), row(ingested=NOON - MINUTE)])
        assert await reader.collect() == Reading(lines=(LINE,))
        assert await reader.collect(MINUTE) == Reading()
        later = replace(LINE, start=LINE.end)
        # Visible late, between what is known already.
        workspace.ingest([row(text(later), ingested=NOON - 1.5 * MINUTE)])
        assert await reader.collect(MINUTE) == Reading(lines=(later,))

    workspace = play(scenario, Workspace(dynamic=dynamic))
    assert len(workspace.asked) == 3
    assert workspace.asked[0].path == f"/v1/workspaces/{WORKSPACE}/query"
    assert workspace.asked[0].prefer == "wait=60"
    assert workspace.identity.audiences == ["https://api.loganalytics.io/.default"]


def test_what_came_late_is_read_late() -> None:
    async def scenario(reader: Reader) -> None:
        await reader.collect()
        reader.workspace.ingest([row(ingested=NOON + 10 * MINUTE, written=NOON - 5 * MINUTE)])
        assert (await reader.collect(11 * MINUTE)).lines == (LINE,)

    play(scenario)


def test_the_recent_past_is_read_first_and_the_far_past_never() -> None:
    async def scenario(reader: Reader) -> None:
        old = replace(LINE, start=NOON - timedelta(hours=8))
        recent = replace(LINE, start=NOON - timedelta(hours=5))
        reader.workspace.ingest(
            row(text(line), ingested=line.end + MINUTE) for line in (old, recent)
        )
        assert (await reader.collect()).lines == (recent,)

    play(scenario)


def test_it_asks_once_for_the_whole_fleet_and_not_before_its_interval() -> None:
    async def scenario(reader: Reader) -> None:
        reader.targets = [
            Target(namespace=f"n{number % 7}", name=f"m{number}", pods=(pod(f"p{number}"),))
            for number in range(100)
        ]
        lines = [replace(LINE, model=f"n{n % 7}/m{n}", pod=f"p{n}") for n in range(100)]
        reader.workspace.ingest(
            row(text(line), namespace=line.model[:2], pod=line.pod) for line in lines
        )
        readings = await reader.readings()
        assert {key: reading.lines for key, reading in readings.items()} == {
            target.key: (line,) for target, line in zip(reader.targets, lines, strict=True)
        }
        reader.now += timedelta(seconds=59)
        await reader.readings()
        assert len(reader.workspace.asked) == 1
        reader.now += timedelta(seconds=1)
        await reader.readings()
        assert len(reader.workspace.asked) == 2

    play(scenario)


def test_nothing_is_asked_for_nobody() -> None:
    async def scenario(reader: Reader) -> None:
        reader.targets = []
        assert await reader.readings() == {}

    assert play(scenario).asked == []


def test_a_pod_that_went_is_still_believed() -> None:
    async def scenario(reader: Reader) -> None:
        await reader.collect()
        reader.targets = [replace(TARGET, pods=())]
        reader.workspace.ingest([row(ingested=NOON + 2 * MINUTE)])
        assert (await reader.collect(3 * MINUTE)).lines == (LINE,)

    play(scenario)


def test_the_resource_may_be_asked_instead() -> None:
    async def scenario(reader: Reader) -> None:
        reader.workspace.ingest([row()])
        assert (await reader.collect()).lines == (LINE,)

    place = LogAnalyticsConfig(resource_id=CLUSTER)
    assert play(scenario, place=place).asked[0].path == f"/v1{CLUSTER}/query"


def test_clusters_that_share_a_workspace_are_told_apart() -> None:
    async def scenario(reader: Reader) -> None:
        other = replace(LINE, worker="w2")
        reader.workspace.ingest([row(), row(text(other), cluster=CLUSTER + "-other")])
        assert (await reader.collect()).lines == (LINE,)

    play(scenario, place=LogAnalyticsConfig(workspace_id=WORKSPACE, resource_id=CLUSTER))


SUMMARISED = LogAnalyticsConfig(
    workspace_id=WORKSPACE, summary_table=SUMMARY, lag=timedelta(minutes=30)
)


@pytest.mark.parametrize("dynamic", [True, False], ids=["dynamic", "string"])
def test_what_a_summary_rule_copied_may_be_read_instead(*, dynamic: bool) -> None:
    async def scenario(reader: Reader) -> None:
        other = replace(LINE, worker="w2")
        reader.workspace.ingest([row(), row("noise"), row(container="sidecar")])
        assert (await reader.collect()).lines == ()
        reader.workspace.summarise(reader.now)
        reader.workspace.ingest([row(text(other), cluster=CLUSTER + "-other")])
        assert (await reader.collect(MINUTE)).lines == (LINE,)
        reader.workspace.summarise(reader.now)
        assert (await reader.collect(MINUTE)).lines == ()
        assert all(SUMMARY in each.query for each in reader.workspace.asked)

    place = SUMMARISED.model_copy(update={"resource_id": CLUSTER})
    play(scenario, Workspace(dynamic=dynamic), place)


def test_a_summary_rule_that_brings_nothing_is_told() -> None:
    async def scenario(reader: Reader) -> None:
        reader.workspace.ingest([row()])
        await reader.collect()
        failure = (await reader.collect(2 * 30 * MINUTE)).failure
        assert failure is not None
        assert failure.reason == Reason.LOGS_NOT_COLLECTED
        assert f"no telemetry of namespace staging reached {SUMMARY}" in failure.message
        assert "LASummaryLogs" in failure.message

    play(scenario, place=SUMMARISED)


def test_a_summary_table_that_is_not_there_is_told() -> None:
    async def scenario(reader: Reader) -> None:
        inner = {"code": "SEM0100", "message": f"Failed to resolve table named '{SUMMARY}'"}
        reader.workspace.answers.append(error(400, "BadArgumentError", "", innererror=inner))
        failure = (await reader.collect()).failure
        assert failure is not None
        assert failure.reason == Reason.LOG_TABLE_MISSING
        assert f"make the summary rule that writes {SUMMARY}" in failure.message

    play(scenario, place=SUMMARISED)


def test_the_pod_is_who_the_agent_says_it_is() -> None:
    async def scenario(reader: Reader) -> None:
        reader.workspace.ingest([row(text(replace(LINE, pod="somebody-else")))])
        assert await reader.collect() == Reading(lines=(LINE,))

    play(scenario)


@pytest.mark.parametrize(
    "hostile",
    [
        row(container="sidecar"),
        row(source="stderr"),
        row(pod="pod-of-somebody"),
        row(namespace="other"),
        row("mdw1 is what we look for"),
        row('{"k": "mdw1-not"}'),
        row('{"msg": "\\"k\\":\\"mdw1\\""}'),
        row('["mdw1"]'),
        row("NaN mdw1"),
        row(text()[:-2] + ',"z":"' + "z" * 20_000 + '"}'),
    ],
)
def test_what_is_not_ours_is_no_matter(hostile: Row) -> None:
    async def scenario(reader: Reader) -> None:
        reader.workspace.ingest([hostile, row()])
        assert await reader.collect() == Reading(lines=(LINE,))

    play(scenario)


DAMAGED = (
    text()[:-5],
    text().replace('"n":10', '"n":-10'),
    text().replace('"n":10', '"n":"NaN"'),
    text().replace('"n":10', '"n":1000000000001'),
    text().replace('"n":10', f'"n":{10**40}'),
    text().replace('"d":300', '"d":0'),
    text().replace('"l":[]', '"l":[[99,1]]'),
    text().replace("2026-03-01T11:50", "9999-12-31T23:59"),
)
FOREIGN = (
    text(replace(LINE, model="staging/other")),
    text(replace(LINE, model="prod/employment")),
    text(replace(LINE, revision="f")),
    text().replace("staging", "�"),
)


@pytest.mark.parametrize("dynamic", [True, False], ids=["dynamic", "string"])
def test_hostile_lines_are_counted_and_left_out(*, dynamic: bool) -> None:
    async def scenario(reader: Reader) -> None:
        reader.workspace.ingest(map(row, [*DAMAGED, text(), *FOREIGN]))
        reading = await reader.collect()
        expected = ((LINE,), len(DAMAGED), len(FOREIGN))
        assert (reading.lines, reading.damaged, reading.foreign) == expected

    play(scenario, Workspace(dynamic=dynamic))


def test_half_a_million_rows_are_read_in_pages() -> None:
    async def scenario(reader: Reader) -> None:
        reader.workspace.connection.execute(
            "INSERT INTO Arrived SELECT ?, 'staging', 'pod-a', 'server', 'stdout',"
            " replace(?, '\"w1\"', '\"w' || n || '\"'), '', ?::TIMESTAMP + to_milliseconds(n // 50)"
            " FROM range(500000) numbers(n)",
            [NOON.replace(tzinfo=None), text(), (NOON - 5 * MINUTE).replace(tzinfo=None)],
        )
        workers: list[str] = []
        for number in range(1, 3):
            reading = await reader.collect(timedelta(seconds=10))
            assert len(reader.workspace.asked) == number * PAGES
            assert len(reading.lines) <= PAGE * PAGES + MOST_HELD
            workers += [line.worker for line in reading.lines]
        assert len(workers) == len(set(workers))
        # A page begins with the arrival that the one before ended with.
        assert len(workers) == PAGE + (2 * PAGES - 1) * (PAGE - 50)

    play(scenario)


def test_windows_that_a_page_cuts_are_handed_over_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(reader: Reader) -> None:
        monkeypatch.setattr(log_analytics, "PAGES", 1)
        reader.source._page = 10
        reader.targets = [replace(TARGET, window=MINUTE)]
        lines = [
            replace(LINE, seconds=60, worker=f"w{worker}", start=NOON - minutes * MINUTE)
            for minutes in range(300, 280, -1)
            for worker in range(7)
        ]
        reader.workspace.ingest(
            row(text(line), ingested=line.end + timedelta(seconds=5 + int(line.worker[1:])))
            for line in lines
        )
        history = History(LINE.revision, settle=reader.source.settle)
        collects = 0
        while reader.source._behind or not collects:
            reading = await reader.collect(timedelta(seconds=10))
            history.add(reading.lines, reader.now)
            collects += 1
        assert collects > 10
        assert history.late == 0
        groups = history.groups(reader.now)
        found = [*groups.closed, *([groups.open] if groups.open else [])]
        assert sum(window.rows for window in found) == sum(line.rows for line in lines)

    play(scenario)


def test_a_page_that_arrived_at_once_is_passed() -> None:
    async def scenario(reader: Reader) -> None:
        lines = [replace(LINE, worker=f"w{number}") for number in range(PAGE + 100)]
        reader.workspace.ingest(row(text(line)) for line in lines)
        assert len((await reader.collect()).lines) == len(lines)

    play(scenario)


def test_a_part_of_an_answer_counts_and_the_rest_follows() -> None:
    async def scenario(reader: Reader) -> None:
        lines = [replace(LINE, worker=f"w{n}") for n in range(1, 3001)]
        reader.workspace.ingest(
            row(text(line), ingested=NOON - MINUTE + timedelta(milliseconds=int(line.worker[1:])))
            for line in lines
        )
        first = await reader.collect()
        assert first.failure is not None
        assert first.failure.reason == Reason.QUERY_FAILED
        assert "answered in part only: PartialError" in first.failure.message
        readings = [first, await reader.collect(MINUTE), await reader.collect(2 * MINUTE)]
        readings += [await reader.collect(4 * MINUTE) for _ in range(3)]
        found = [line.worker for reading in readings for line in reading.lines]
        assert sorted(found) == sorted(line.worker for line in lines)
        assert readings[-1].failure is None

    workspace = Workspace()
    workspace.most = 1300
    play(scenario, workspace)


BAD_QUERY = "The request had some invalid properties"
REFUSED = [
    (error(404, "WorkspaceNotFoundError"), Reason.WORKSPACE_NOT_FOUND, "workspaceId is the GUID"),
    (error(403, "InsufficientAccessError"), Reason.QUERY_DENIED, "role Log Analytics Reader"),
    (error(401, "AuthenticationFailed"), Reason.QUERY_DENIED, "endpoint and audience"),
    (
        error(403, "InvalidAuthenticationTokenAudience"),
        Reason.QUERY_DENIED,
        "endpoint and audience",
    ),
    (
        error(
            400,
            "BadArgumentError",
            BAD_QUERY,
            innererror={
                "code": "SemanticError",
                "message": "A semantic error occurred.",
                "innererror": {
                    "code": "SEM0100",
                    "message": "Failed to resolve table expression named 'ContainerLogV2'",
                },
            },
        ),
        Reason.LOG_TABLE_MISSING,
        "switch on Container insights with the schema ContainerLogV2",
    ),
    (
        error(
            400,
            "BadArgumentError",
            BAD_QUERY,
            innererror={
                "code": "UnsupportedApiQueryValidationError",
                "message": "Query of Basic Logs table is not supported with this API",
            },
        ),
        Reason.LOG_TABLE_ON_BASIC_PLAN,
        "set the plan of table ContainerLogV2 to Analytics",
    ),
]


@pytest.mark.parametrize(("answer", "reason", "way_out"), REFUSED)
def test_what_only_a_person_can_mend_tells_the_way_out(
    answer: web.Response, reason: Reason, way_out: str
) -> None:
    async def scenario(reader: Reader) -> None:
        reader.workspace.answers.append(answer)
        reader.workspace.ingest([row()])
        failure = (await reader.collect()).failure
        assert failure is not None
        assert (failure.reason, failure.permanent) == (reason, True)
        assert failure.message.startswith(f"workspace {WORKSPACE} at api.loganalytics.io answers 4")
        assert way_out in failure.message
        # Nothing was lost by it.
        assert await reader.collect(MINUTE) == Reading(lines=(LINE,))

    play(scenario)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (web.Response(status=204), "no usable answer"),
        (web.Response(status=200), "no usable answer"),
        (web.Response(body=b"<html>", content_type="application/json"), ""),
        (web.json_response([1]), "no usable answer"),
        (
            error(504, "GatewayTimeout", "took too long"),
            "answers 504 GatewayTimeout: took too long",
        ),
        (web.Response(status=502, text="<html> bad  gateway"), "answers 502: <html> bad gateway"),
    ],
)
def test_what_passes_is_asked_for_again(answer: web.Response, said: str) -> None:
    async def scenario(reader: Reader) -> None:
        reader.workspace.answers.append(answer)
        reader.workspace.ingest([row()])
        failure = (await reader.collect()).failure
        assert failure is not None
        assert (failure.reason, failure.permanent) == (Reason.QUERY_FAILED, False)
        assert said in failure.message
        assert len(reader.workspace.asked) == 1
        assert await reader.collect(MINUTE) == Reading(lines=(LINE,))

    play(scenario)


def test_an_answer_without_tables_is_no_rows() -> None:
    async def scenario(reader: Reader) -> None:
        reader.workspace.answers.append(web.json_response({"tables": []}))
        assert (await reader.collect()).lines == ()

    play(scenario)


def throttled(headers: Mapping[str, str]) -> web.Response:
    return error(429, "ThrottledError", "Too many requests", headers=headers)


@pytest.mark.parametrize("value", ["300", "Sun, 01 Mar 2026 12:05:00 GMT"])
def test_a_throttled_workspace_gets_the_peace_that_it_asks_for(value: str) -> None:
    async def scenario(reader: Reader) -> None:
        reader.workspace.answers.append(throttled({"Retry-After": value}))
        reader.workspace.ingest([row()])
        failure = (await reader.collect()).failure
        assert failure is not None
        assert (failure.reason, failure.permanent) == (Reason.QUERY_THROTTLED, False)
        assert "asked again in 300 s" in failure.message
        assert (await reader.collect(timedelta(seconds=299))).failure == failure
        assert len(reader.workspace.asked) == 1
        assert await reader.collect(timedelta(seconds=1)) == Reading(lines=(LINE,))

    play(scenario)


@pytest.mark.parametrize("headers", [{}, {"Retry-After": "soon"}, {"Retry-After": ""}])
def test_a_throttled_workspace_is_asked_less_and_less(headers: Mapping[str, str]) -> None:
    async def scenario(reader: Reader) -> None:
        reader.workspace.answers.extend(throttled(headers) for _ in range(3))
        reader.workspace.ingest([row()])
        asked = []
        for minute in range(9):
            reading = await reader.collect(MINUTE if minute else timedelta(0))
            asked.append(len(reader.workspace.asked))
        assert asked == [1, 2, 2, 3, 3, 3, 3, 4, 5]
        assert reading.failure is None

    play(scenario)


def test_what_runs_is_kept_when_a_later_page_fails() -> None:
    async def scenario(reader: Reader) -> None:
        lines = [replace(LINE, worker=f"w{number}") for number in range(PAGE + 100)]
        rows = [
            row(text(line), ingested=NOON - MINUTE + timedelta(milliseconds=number))
            for number, line in enumerate(lines)
        ]
        reader.workspace.ingest(rows)
        first = reader.workspace.answer(*await question(reader))
        reader.workspace.answers += [web.json_response(first), throttled({"Retry-After": "60"})]
        readings = [await reader.collect(MINUTE), await reader.collect(MINUTE)]
        assert [reading.failure is None for reading in readings] == [False, True]
        assert sum(len(reading.lines) for reading in readings) == PAGE + 100
        assert len(reader.workspace.asked) == 4

    async def question(reader: Reader) -> tuple[str, str]:
        reader.workspace.answers.append(throttled({"Retry-After": "60"}))
        await reader.collect()
        asked = reader.workspace.asked[-1]
        return asked.query, asked.span

    play(scenario)


@pytest.mark.parametrize(
    ("rows", "reason", "words"),
    [
        ([], Reason.LOGS_NOT_COLLECTED, "no logs of namespace staging reached ContainerLogV2"),
        (
            [row("hello", ingested=NOON), row("{}", ingested=NOON, container="sidecar")],
            Reason.TELEMETRY_FILTERED,
            "2 lines of namespace staging reached ContainerLogV2",
        ),
        ([row(pod="another", ingested=NOON)], None, ""),
    ],
)
def test_silence_is_explained(rows: Sequence[Row], reason: Reason | None, words: str) -> None:
    async def scenario(reader: Reader) -> None:
        reader.workspace.ingest(rows)
        failure = (await reader.collect()).failure
        if reason is None:
            assert failure is None
        else:
            assert failure is not None
            assert failure.reason == reason
            assert words in failure.message
        assert len(reader.workspace.asked) == 2
        await reader.collect(MINUTE)
        assert len(reader.workspace.asked) == 3
        reader.workspace.ingest([row(ingested=NOON + MINUTE)])
        assert await reader.collect(MINUTE) == Reading(lines=(LINE,))

    play(scenario)


def test_a_pod_that_started_a_moment_ago_is_not_silent() -> None:
    async def scenario(reader: Reader) -> None:
        reader.targets = [replace(TARGET, window=timedelta(minutes=50))]
        assert await reader.collect() == Reading()
        assert len(reader.workspace.asked) == 1

    play(scenario)


@pytest.mark.parametrize(
    "refusal",
    [
        CredentialUnavailableError(message="no identity here"),
        ClientAuthenticationError(message="AADSTS70021: No matching federated identity record"),
    ],
)
def test_an_identity_that_gives_no_token_is_told(
    refusal: ClientAuthenticationError, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def get_token(*_: str, **__: Any) -> None:
        raise refusal

    async def scenario(reader: Reader) -> None:
        monkeypatch.setattr(reader.workspace.identity, "get_token", get_token)
        failure = (await reader.collect()).failure
        assert failure is not None
        assert failure.reason == Reason.IDENTITY_UNAVAILABLE
        assert refusal.message in failure.message
        assert "azure.workload.identity/client-id" in failure.message

    assert play(scenario).asked == []


def test_an_answer_that_does_not_come_is_told() -> None:
    failure, wait = described(TimeoutError(), None, PLACE, NOON)
    assert failure.message == f"workspace {WORKSPACE} at api.loganalytics.io did not answer in time"
    assert (failure.reason, wait) == (Reason.QUERY_FAILED, None)


def test_a_workspace_that_is_not_reached_is_told() -> None:
    async def main() -> Reading:
        world = Workspace()
        async with world.serving() as client:
            source = LogAnalytics(client, PLACE)
            client._config.endpoint = "http://127.0.0.1:1"
            return (await source.collect([TARGET], NOON))[KEY]

    failure = asyncio.run(main()).failure
    assert failure is not None
    assert failure.reason == Reason.QUERY_FAILED
    assert "ServiceRequestError" in failure.message


def test_the_client_of_another_cloud() -> None:
    place = LogAnalyticsConfig(
        workspace_id=WORKSPACE,
        endpoint="https://api.loganalytics.us",
        audience="https://example.us",
    )

    async def main() -> None:
        async with connected(place) as client:
            assert client._config.endpoint == "https://api.loganalytics.us"
            assert client._config.credential_scopes == ["https://example.us/.default"]

    asyncio.run(main())


def test_azures_tools_are_asked_at_a_desk_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked() -> set[str]:
        return {type(each).__name__ for each in identity().credentials}

    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert "AzureCliCredential" in asked()
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    assert "AzureCliCredential" not in asked()
    assert "ManagedIdentityCredential" in asked()


def test_lines_of_json_survive_as_dynamic() -> None:
    stored = Workspace()._stored(text())
    assert stored != text()
    assert json.loads(stored) == json.loads(text())
