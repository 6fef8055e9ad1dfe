"""A stand-in for Azure Log Analytics: its query protocol over HTTP, DuckDB as its engine.

The queries are the operator's own texts, run by duckdb-kql. It knows neither ingestion_time() nor
a time span beside the query: a column stands for the one, a view for the other.
"""

import json
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb_kql
from aiohttp import web
from anyio.from_thread import BlockingPortal, start_blocking_portal
from azure.monitor.query.aio import LogsQueryClient
from modelops_operator.adapters import kql

from tests.azure_identity import TOKEN, Identity

TYPES = {"TIMESTAMP": "datetime", "BIGINT": "long", "DOUBLE": "real", "JSON": "dynamic"}
WORKSPACE = "00000000-1111-2222-3333-444444444444"
SUMMARY = "ModelOps_CL"
"""The table of the summary rule."""
RULE = Path(kql.__file__).with_name("rule.kql").read_text()
CLUSTER = (
    "/subscriptions/s/resourceGroups/rg/providers/Microsoft.ContainerService/managedClusters/a"
)


@dataclass(frozen=True, kw_only=True)
class Row:
    """A line of a container, as the agent ships it."""

    message: str
    ingested: datetime
    written: datetime | None = None
    namespace: str = "staging"
    pod: str = "pod-a"
    container: str = "server"
    source: str = "stdout"
    cluster: str = CLUSTER


@dataclass
class Question:
    """A query that came."""

    path: str
    query: str
    span: str
    prefer: str


def error(status: int, code: str, message: str = "", **more: Any) -> web.Response:
    """Give the service's kind of error; the keywords are its inner error and headers."""
    headers = more.pop("headers", {})
    body = {"error": {"code": code, "message": message, **more}}
    return web.json_response(body, status=status, headers=headers)


@dataclass
class Workspace:
    """Tables, and answers to give instead of what they hold."""

    dynamic: bool = True
    """LogMessage is dynamic, as it is today; otherwise a string."""
    answers: deque[web.Response] = field(default_factory=deque)
    """Given first, one a question."""
    most: int = 500_000
    """Rows in an answer; what is over is cut off, and the answer is a partial one."""
    asked: list[Question] = field(default_factory=list)
    identity: Identity = field(default_factory=Identity)
    """Whose token the client has."""

    def __post_init__(self) -> None:
        self.connection = duckdb_kql.connect()
        message = "JSON" if self.dynamic else "VARCHAR"
        self.connection.sql(
            "CREATE TABLE Arrived (TimeGenerated TIMESTAMP, PodNamespace VARCHAR, PodName VARCHAR,"
            f" ContainerName VARCHAR, LogSource VARCHAR, LogMessage {message},"
            " _ResourceId VARCHAR, Arrival TIMESTAMP)"
        )
        self.connection.sql(
            "CREATE TABLE Summarised (TimeGenerated TIMESTAMP, PodNamespace VARCHAR,"
            " PodName VARCHAR, Line VARCHAR, Cluster VARCHAR, Arrival TIMESTAMP)"
        )

    def ingest(self, rows: Iterable[Row]) -> None:
        """Let rows arrive."""
        values = [
            (
                (row.written or row.ingested).replace(tzinfo=None),
                row.namespace,
                row.pod,
                row.container,
                row.source,
                self._stored(row.message),
                row.cluster.lower(),
                row.ingested.replace(tzinfo=None),
            )
            for row in rows
        ]
        if values:
            columns = [list(column) for column in zip(*values, strict=True)]
            unnested = ", ".join("unnest(?)" for _ in columns)
            self.connection.execute(f"INSERT INTO Arrived SELECT {unnested}", columns)

    def summarise(self, arrival: datetime) -> None:
        """Run the summary rule over all that is there; what it copies arrives at this moment."""
        self.connection.execute("CREATE OR REPLACE VIEW ContainerLogV2 AS SELECT * FROM Arrived")
        copied = duckdb_kql.query(self.connection, RULE).fetchall()
        self.connection.executemany(
            "INSERT INTO Summarised VALUES (?, ?, ?, ?, ?, ?)",
            [(*row, arrival.replace(tzinfo=None)) for row in copied],
        )

    def _stored(self, message: str) -> str:
        if not self.dynamic:
            return message
        try:
            # Nobody promises the order of a dynamic's fields.
            return json.dumps(json.loads(message), sort_keys=True, separators=(",", ":"))
        except ValueError:
            return json.dumps(message)

    def answer(self, query: str, span: str) -> Mapping[str, Any]:
        """Run a query over the rows written within a span of time."""
        start, end = (moment.removesuffix("Z") for moment in span.split("/"))
        for view, stored in (("ContainerLogV2", "Arrived"), (SUMMARY, "Summarised")):
            self.connection.execute(
                f"CREATE OR REPLACE VIEW {view} AS SELECT * FROM {stored} WHERE TimeGenerated"
                f" BETWEEN TIMESTAMP '{start}' AND TIMESTAMP '{end}'"
            )
        result = duckdb_kql.query(self.connection, query.replace("ingestion_time()", "Arrival"))
        columns = [
            {"name": name, "type": TYPES.get(str(kind), "string")}
            for name, kind in zip(result.columns, result.types, strict=True)
        ]
        rows = [[_wire(value) for value in row] for row in result.fetchall()]
        table = {"name": "PrimaryResult", "columns": columns, "rows": rows[: self.most]}
        if len(rows) <= self.most:
            return {"tables": [table]}
        cut = {
            "code": "PartialError",
            "message": "There were some errors when processing your query",
        }
        return {"tables": [table], "error": cut}

    async def handle(self, request: web.Request) -> web.Response:
        """Answer a question of the client's."""
        assert request.headers["Authorization"] == f"Bearer {TOKEN}"
        asked = await request.json()
        query, span = asked["query"], asked["timespan"]
        self.asked.append(Question(request.path, query, span, request.headers["Prefer"]))
        if self.answers:
            return self.answers.popleft()
        return self.respond(query, span)

    def respond(self, query: str, span: str) -> web.Response:
        """Run a query, and write what it gives."""
        return web.json_response(self.answer(query, span))

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        """Listen on loopback, and tell the address."""
        application = web.Application(client_max_size=2**24)
        application.router.add_post("/v1/{place:.*}/query", self.handle)
        runner = web.AppRunner(application)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[LogsQueryClient]:
        """Listen, and give the real client of it."""
        async with (
            self.listening() as address,
            LogsQueryClient(
                self.identity,
                endpoint=address,
                retry_total=0,
                authentication_policy=self.identity.policy(),
            ) as client,
        ):
            yield client

    @contextmanager
    def aside(self) -> Iterator[tuple[str, BlockingPortal]]:
        """Listen in a thread; tell the address, and the way to call what the thread alone may."""
        with (
            start_blocking_portal() as portal,
            portal.wrap_async_context_manager(self.listening()) as address,
        ):
            yield address, portal


def _wire(value: Any) -> Any:
    return value.isoformat() + "Z" if isinstance(value, datetime) else value
