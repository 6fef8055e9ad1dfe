"""Overload, slow clients and long runs: BentoML's worker, spoken to by sockets."""

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import orjson
import pytest
from modelops_runtime.admission import SHORTEST_QUEUE
from modelops_runtime.telemetry import merge

from tests.runtime.serving import GOOD, PATIENCE, Served, Servers

pytestmark = pytest.mark.contract

BODY = orjson.dumps([GOOD])
QUEUE = 8


@pytest.fixture(scope="module")
def narrow(serve: Servers, bento_folder: Path) -> Served:
    """A server whose queue is short."""
    return serve(bento_folder, MODELOPS_QUEUE=str(QUEUE))


def request(
    body: bytes = BODY, request_id: str = "r", path: str = "/predict", more: str = ""
) -> bytes:
    head = f"Host: x\r\nContent-Length: {len(body)}\r\nX-Request-ID: {request_id}\r\n{more}"
    return f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + body


@contextlib.contextmanager
def halted(process: int) -> Iterator[None]:
    """Hold a process, so that what is sent meanwhile arrives at once."""
    os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process, signal.SIGCONT)


def read_answer(connection: socket.socket) -> tuple[bytes, bytes]:
    """Read one answer: its head and its body."""
    return read_next(connection)[:2]


def read_next(connection: socket.socket, received: bytes = b"") -> tuple[bytes, bytes, bytes]:
    """Read the next of several answers: its head, its body, and what came after it."""
    while b"\r\n\r\n" not in received:
        received += connection.recv(65536) or pytest.fail(f"closed after {received!r}")
    head, _, body = received.partition(b"\r\n\r\n")
    (length,) = [
        int(line.split(b":")[1])
        for line in head.lower().splitlines()
        if line.startswith(b"content-length")
    ]
    while len(body) < length:
        body += connection.recv(65536)
    return head, body[:length], body[length:]


@contextlib.contextmanager
def flooded(server: Served, content: bytes, count: int) -> Iterator[list[socket.socket]]:
    """Send the same on many connections at once."""
    with contextlib.ExitStack() as stack:
        address = ("127.0.0.1", server.port)
        connections = [
            stack.enter_context(socket.create_connection(address, PATIENCE)) for _ in range(count)
        ]
        for connection in connections:  # taken up before the flood begins
            connection.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b" 200 " in read_answer(connection)[0]
        with halted(server.process.pid):
            for connection in connections:
                connection.sendall(content)
        yield connections


def test_what_is_too_much_is_turned_away_and_told_when_to_come_again(narrow: Served) -> None:
    with flooded(narrow, request(), 200) as connections:
        answers = [read_answer(connection) for connection in connections]
    statuses = [head.split(b" ")[1] for head, _ in answers]
    assert set(statuses) == {b"200", b"503"}
    # What came before the server was held may have begun the time after which the queue is cut.
    assert statuses.count(b"200") >= SHORTEST_QUEUE
    turned_away = [(head, body) for head, body in answers if head.split(b" ")[1] == b"503"]
    for head, body in turned_away:
        assert b"retry-after: 1" in head.lower()
        assert orjson.loads(body)["title"] == "The server is overloaded"
    # It goes on as if nothing had been.
    assert narrow.predict([GOOD]).status_code == 200
    narrow.wait_for_metrics(lambda text: overloaded(text) == len(turned_away))


INFER = "/v2/models/main.ml.employment/infer"
CHUNKED = (
    b"POST /predict HTTP/1.1\r\nHost: x\r\nX-Request-ID: r\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)
)


@pytest.mark.parametrize(
    ("sent", "answers"),
    [
        pytest.param(request(request_id='a"b'), 1, id="plain"),
        pytest.param(request(path=INFER), 1, id="another interface"),
        pytest.param(request(path="/predict?x=1"), 1, id="with a query"),
        pytest.param(request(more="Connection: keep-alive\r\n"), 1, id="kept alive"),
        pytest.param(request(more="Connection: close\r\n"), 1, id="to be closed"),
        pytest.param(CHUNKED, 1, id="chunked"),
        pytest.param(request() * 3, 3, id="three at once"),
    ],
)
def test_in_a_flood_all_ways_to_write_a_request_are_answered(
    narrow: Served, sent: bytes, answers: int
) -> None:
    with flooded(narrow, sent, 40) as connections:
        heads = []
        for connection in connections:
            left = b""
            for _ in range(answers):
                head, body, left = read_next(connection, left)
                heads.append(head)
                if b" 503 " in head:
                    assert orjson.loads(body)["status"] == 503
                    assert ("error" in orjson.loads(body)) == (INFER.encode() in sent)
            if b"Connection: close" in sent:
                assert connection.recv(1) == b""
    given = b'a"b' if b'a"b' in sent else b"r"
    assert all(b"\r\nx-request-id: " + given in head for head in heads)
    # Rows are no tensors.
    others = b"400" if INFER.encode() in sent else b"200"
    assert {head.split(b" ")[1] for head in heads} == {others, b"503"}
    assert narrow.predict([GOOD]).status_code == 200


def overloaded(metrics: str) -> float:
    (count,) = [
        float(line.split()[-1])
        for line in metrics.splitlines()
        if line.startswith("modelops_requests_total") and 'outcome="overloaded"' in line
    ]
    return count


def test_bodies_that_are_still_on_their_way_take_no_place(narrow: Served) -> None:
    with contextlib.ExitStack() as stack:
        slow = [
            stack.enter_context(socket.create_connection(("127.0.0.1", narrow.port), PATIENCE))
            for _ in range(4 * QUEUE)
        ]
        for connection in slow:
            connection.sendall(request()[:-5])
        assert narrow.predict([GOOD]).status_code == 200
        for connection in slow:
            connection.sendall(request()[-5:])
            assert read_answer(connection)[0].startswith(b"HTTP/1.1 200")


def test_a_connection_serves_many_requests(narrow: Served) -> None:
    with socket.create_connection(("127.0.0.1", narrow.port), PATIENCE) as connection:
        for _ in range(3):
            connection.sendall(request())
            head, _ = read_answer(connection)
            assert head.startswith(b"HTTP/1.1 200")
            assert b"connection: close" not in head.lower()


def test_a_client_that_hangs_up_stops_nothing(narrow: Served) -> None:
    for cut in (10, 60, len(request()) - 1, len(request())):
        with socket.create_connection(("127.0.0.1", narrow.port), PATIENCE) as connection:
            connection.sendall(request()[:cut])
    assert narrow.predict([GOOD]).status_code == 200


def test_memory_stays_flat(narrow: Served) -> None:
    def ask(count: int) -> int:
        with socket.create_connection(("127.0.0.1", narrow.port), PATIENCE) as connection:
            for number in range(count):
                # Paths and names that never come again must not be remembered either.
                connection.sendall(request(request_id=f"r{number}"))
                assert read_answer(connection)[0].startswith(b"HTTP/1.1 200")
                if number % 10 == 0:
                    lost = f"POST /lost/{number} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
                    connection.sendall(lost.encode())
                    assert read_answer(connection)[0].startswith(b"HTTP/1.1 404")
        return resident(narrow.process.pid)

    before = ask(2000)
    after = ask(6000)
    assert after < before * 1.02
    # Nor does what is scraped grow.
    assert "/lost/" not in narrow.client.get("/metrics").text


def resident(process: int) -> int:
    """Give a process's memory in bytes."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


class Collector(ThreadingHTTPServer):
    """Takes traces as an OpenTelemetry collector does."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Taking)
        self.taken: list[dict[str, Any]] = []

    @property
    def spans(self) -> list[dict[str, Any]]:
        return [
            span
            for content in self.taken
            for resource in content["resourceSpans"]
            for scope in resource["scopeSpans"]
            for span in scope["spans"]
        ]


class _Taking(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Collector)
        assert self.path == "/v1/traces"
        length = int(self.headers["content-length"])
        self.server.taken.append(orjson.loads(self.rfile.read(length)))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (its name)
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def test_a_drained_server_has_answered_and_told_all(
    serve: Servers, bento_folder: Path, collector: Collector
) -> None:
    """Every request that was sent before the end is answered, counted and traced."""
    server = serve(
        bento_folder, OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{collector.server_port}"
    )
    trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    traced = {"traceparent": f"00-{trace}-{parent}-01"}
    server.client.post("/predict", content=BODY, headers=traced)
    not_sampled = {"traceparent": f"00-{trace[::-1]}-{parent}-00"}
    server.client.post("/predict", content=BODY, headers=not_sampled)
    large = request(orjson.dumps([GOOD] * 20_000))
    with contextlib.ExitStack() as stack:
        address = ("127.0.0.1", server.port)
        connections = [
            stack.enter_context(socket.create_connection(address, PATIENCE)) for _ in range(6)
        ]
        senders = [
            threading.Thread(target=connection.sendall, args=(large,))
            for connection in connections[:2]
        ]
        for sender in senders:
            sender.start()
        for connection in connections[2:]:
            connection.sendall(request())
        for sender in senders:
            sender.join()
        server.process.send_signal(signal.SIGTERM)
        heads = [read_answer(connection)[0] for connection in connections]
    assert all(head.startswith(b"HTTP/1.1 200") for head in heads)
    # Uvicorn passes the signal on when all is done.
    assert server.process.wait(PATIENCE) == -signal.SIGTERM
    assert merge(server.telemetry()).rows == 2 * 20_000 + 6
    # One does not want to be traced, and probes never are.
    assert {span["name"] for span in collector.spans} == {"POST /predict"}
    assert len(collector.spans) == 7
    (continued,) = [span for span in collector.spans if span["traceId"] == trace]
    assert continued["parentSpanId"] == parent
    assert {"key": "http.status_code", "value": {"intValue": "200"}} in continued["attributes"]
    assert int(continued["endTimeUnixNano"]) > int(continued["startTimeUnixNano"])
