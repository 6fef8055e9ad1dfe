"""How many requests may wait at a time."""

import asyncio

import pytest
import uvicorn
from modelops_runtime import asgi, gate
from modelops_runtime.admission import LONGEST_QUEUE, SHORTEST_QUEUE, Admission
from modelops_runtime.asgi import WHOLE, Message, Receive, Request, Send
from modelops_runtime.problems import Refusal


class Counter:
    """One worker's queue at a time that stands still."""

    def __init__(self, **bounds: int) -> None:
        self.now = 10.0
        self.admission = Admission(**bounds, clock=lambda: self.now)
        self.pass_time(0, 0)

    def pass_time(self, answered: int, turned_away: int, seconds: float = 0.11) -> int:
        """Count requests, end the window; gives how many may wait from then on."""
        for _ in range(answered):
            self.admission.let_in()
            self.admission.waiting -= 1
        for _ in range(turned_away):
            self.admission.turn_away()
        self.now += seconds
        self.admission.let_in()
        self.admission.waiting -= 1
        return self.admission.most


def test_the_queue_is_long_until_many_are_turned_away() -> None:
    counter = Counter()
    assert counter.pass_time(100, 10) == LONGEST_QUEUE
    assert counter.pass_time(100, 30) == SHORTEST_QUEUE
    assert counter.pass_time(100, 200) == SHORTEST_QUEUE


def test_it_grows_again_when_overload_is_over() -> None:
    counter = Counter()
    counter.pass_time(100, 200)
    grown = [counter.pass_time(100, 5) for _ in range(5)]
    assert grown == [12, 24, 48, 64, 64]


def test_overload_of_long_ago_does_not_count() -> None:
    counter = Counter()
    counter.pass_time(100, 200)
    assert counter.pass_time(100, 200, seconds=5) == LONGEST_QUEUE


def test_bounds_hold_whatever_they_are() -> None:
    assert Counter(longest=3).pass_time(10, 20) == 3
    assert Counter(longest=64, shortest=64).pass_time(10, 20) == 64


def test_what_has_been_let_in_counts_before_it_waits() -> None:
    admission = Admission(longest=2)
    admission.coming = 1
    admission.let_in()
    assert admission.full
    admission.coming = 0
    assert not admission.full


def test_uvicorn_takes_the_gate_for_its_connections() -> None:
    gate.install()
    config = uvicorn.Config("modelops_runtime.gate:install")
    config.load()
    assert config.http_protocol_class is gate.Gate


async def told_whole(scope: Message, receive: Receive, send: Send) -> None:
    """Answer whether all of the body was there when the request began to be answered."""
    told = b"whole" if WHOLE in scope["state"] else b"parts"
    while (await receive()).get("more_body", False):
        pass
    headers = [(b"content-length", b"5")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": told})


def test_the_gate_tells_of_bodies_that_came_with_their_heads() -> None:
    head, body = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\n", b"[{}]"

    async def main() -> list[bytes]:
        config = uvicorn.Config(told_whole, http=gate.Gate, lifespan="off", log_config=None)
        config.load()
        state = uvicorn.Server(config).server_state
        listening = await asyncio.get_running_loop().create_server(
            lambda: gate.Gate(config, state, {}), "127.0.0.1", 0
        )
        port = listening.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)

        async def answer() -> bytes:
            await reader.readuntil(b"\r\n\r\n")
            return await reader.readexactly(5)

        writer.write(head + body)
        answers = [await answer()]
        writer.write(head)
        await asyncio.sleep(0.2)
        writer.write(body)
        answers.append(await answer())
        writer.write(2 * (head + body))  # the second waits for the first to be answered
        answers += [await answer(), await answer()]
        writer.close()
        listening.close()
        return answers

    assert asyncio.run(main()) == [b"whole", b"parts", b"whole", b"whole"]


def test_the_time_is_counted_of_bodies_that_are_still_to_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(asgi, "BODY_SECONDS", 0.0)

    async def receive() -> Message:
        await asyncio.sleep(0.01)
        return {"type": "http.request", "body": b"[{}]"}

    async def send(message: Message) -> None:
        raise AssertionError(message)

    async def read(**state: bool) -> bytes | None:
        scope = {"method": "POST", "headers": [], "state": state}
        return await Request(scope, receive, send, closing=False).body(lambda _: None)

    assert asyncio.run(read(**{WHOLE: True})) == b"[{}]"
    with pytest.raises(Refusal, match="did not arrive"):
        asyncio.run(read())
