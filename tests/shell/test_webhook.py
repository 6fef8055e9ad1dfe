"""Events at a real receiver, which fails in all the ways that receivers do."""

import asyncio
import base64
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from modelops_operator.adapters.webhook import connected, read_secrets
from modelops_operator.api.config import ConfigError, WebhookConfig
from modelops_operator.core.notices import Notice
from modelops_operator.shell import webhook
from modelops_operator.shell.cache import Cache
from modelops_operator.shell.leader import Always
from modelops_operator.shell.webhook import Webhook
from prometheus_client import REGISTRY
from standardwebhooks import Webhook as StandardWebhook
from standardwebhooks import WebhookVerificationError

pytestmark = pytest.mark.unit

OLD, NEW = (f"whsec_{base64.b64encode(bytes([each]) * 32).decode()}" for each in (1, 2))
Answer = tuple[int, dict[str, str]]
HANG_UP: Answer = (0, {})
TAKEN: Answer = (204, {})


@dataclass
class Endpoint:
    """Somebody's receiver: takes an event once it has given all its other answers."""

    answers: list[Answer] = field(default_factory=list)
    attempts: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    url: str = ""

    @property
    def ids(self) -> list[str]:
        return [headers["webhook-id"] for headers, _ in self.attempts]


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    found = Endpoint()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            found.attempts.append(({k.lower(): v for k, v in self.headers.items()}, body))
            status, headers = found.answers.pop(0) if found.answers else TAKEN
            if (status, headers) == HANG_UP:
                return
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.url = f"http://127.0.0.1:{server.server_port}/events"
    thread = Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield found
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def config(endpoint: Endpoint, tmp_path: Path) -> WebhookConfig:
    (tmp_path / "secret").write_text(f"{OLD}\n")
    return WebhookConfig(url=endpoint.url, secret_file=tmp_path / "secret")


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "FIRST_PAUSE", timedelta(milliseconds=10))


def send(
    config: WebhookConfig, *notices: Notice, cache: Cache | None = None, leadership: Any = None
) -> dict[str, float]:
    """Send until nothing waits; give what the metrics counted."""

    async def go() -> None:
        async with connected(config) as receiver:
            sender = Webhook(receiver, cache or Cache(), leadership or Always())
            sender.tell(notices)
            running = asyncio.create_task(sender.run())
            await asyncio.sleep(0)
            async with asyncio.timeout(20):
                while sender._waiting:  # noqa: ASYNC110 (the sender tells nobody)
                    await asyncio.sleep(0.01)
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running

    before = counts()
    asyncio.run(go())
    return {name: value - before[name] for name, value in counts().items() if value != before[name]}


def counts() -> dict[str, float]:
    events = {
        outcome: REGISTRY.get_sample_value("modelops_webhook_events_total", {"outcome": outcome})
        for outcome in ("sent", "failed", "dropped")
    }
    events["retries"] = REGISTRY.get_sample_value("modelops_webhook_retries_total")
    return {name: value or 0.0 for name, value in events.items()}


FIRST, SECOND = Notice("first", '{"a":"ö"}'.encode()), Notice("second", b'{"a":2}')


def test_an_event_is_tried_until_it_is_taken_and_the_order_is_kept(
    config: WebhookConfig, endpoint: Endpoint
) -> None:
    endpoint.answers = [(500, {}), HANG_UP, (429, {"Retry-After": "1"}), TAKEN]
    start = datetime.now(UTC)
    assert send(config, FIRST, SECOND) == {"sent": 2, "retries": 3}
    assert datetime.now(UTC) - start >= timedelta(seconds=1)
    assert endpoint.ids == ["first"] * 4 + ["second"]
    assert {body for headers, body in endpoint.attempts[:4]} == {FIRST.body}
    assert endpoint.attempts[0][0]["content-type"].startswith("application/cloudevents+json")


def test_the_signature_is_that_of_standard_webhooks(
    config: WebhookConfig, endpoint: Endpoint
) -> None:
    send(config, FIRST)
    config.secret_file.write_text(f"{OLD}\n{NEW}\n")
    send(config, SECOND)
    (first, body), (second, other) = endpoint.attempts
    StandardWebhook(OLD).verify(body, first)
    for secret in (OLD, NEW):
        StandardWebhook(secret).verify(other, second)
    for wrong, headers in ((body + b" ", first), (body, {**first, "webhook-id": "x"})):
        with pytest.raises(WebhookVerificationError):
            StandardWebhook(OLD).verify(wrong, headers)
    with pytest.raises(WebhookVerificationError):
        StandardWebhook(NEW).verify(body, first)


@pytest.mark.parametrize("status", [301, 400, 401, 404, 410])
def test_what_is_refused_for_good_holds_up_nothing(
    config: WebhookConfig, endpoint: Endpoint, status: int
) -> None:
    endpoint.answers = [(status, {"Location": endpoint.url})]
    assert send(config, FIRST, SECOND) == {"failed": 1, "sent": 1}
    assert endpoint.ids == ["first", "second"]


def test_an_event_is_given_up_when_it_is_too_old(
    config: WebhookConfig, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook, "LONGEST", timedelta(seconds=10))
    endpoint.answers = [(503, {"Retry-After": "11"})]
    assert send(config, FIRST, SECOND) == {"failed": 1, "sent": 1}


def test_an_event_is_sent_once_and_the_queue_is_bounded(
    config: WebhookConfig, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook, "MOST", 1)
    assert send(config, FIRST, SECOND) == {"sent": 1, "dropped": 1}
    monkeypatch.setattr(webhook, "MOST", 10)
    assert send(config, FIRST, FIRST) == {"sent": 1}
    assert endpoint.ids == ["first", "first"]


def test_who_begins_to_lead_tells_the_alarms_of_the_last_hour(
    config: WebhookConfig, endpoint: Endpoint
) -> None:
    cache = Cache()
    for name, age in (("new", 1), ("old", 61)):
        since = (datetime.now(UTC) - timedelta(minutes=age)).strftime("%Y-%m-%dT%H:%M:%SZ")
        told = {"type": "DriftDetected", "status": "True", "reason": "DriftAlert", "message": ""}
        cache.put(
            {
                "kind": "ModelDeployment",
                "metadata": {"namespace": "n", "name": name, "uid": name, "resourceVersion": "1"},
                "status": {"conditions": [{**told, "lastTransitionTime": since}]},
            }
        )
    assert send(config, cache=cache) == {"sent": 1}
    assert json.loads(endpoint.attempts[0][1])["data"]["name"] == "new"


@dataclass
class Deposed:
    """Leads no more, after it has been asked so often."""

    times: int

    @property
    def leading(self) -> bool:
        self.times -= 1
        return self.times >= 0

    async def wait(self) -> None:
        if self.times < 0:
            await asyncio.Event().wait()

    async def run(self) -> None:
        return


def test_who_leads_no_more_sends_no_more(config: WebhookConfig, endpoint: Endpoint) -> None:
    endpoint.answers = [(500, {})]
    assert send(config, FIRST, SECOND, leadership=Deposed(2)).get("sent") is None
    assert endpoint.ids == ["first"]


@pytest.mark.parametrize("content", ["", "secret", "whsec_!", "whsec_c2hvcnQ=", f"{OLD} whsec_"])
def test_what_is_no_secret_is_refused_at_the_start(config: WebhookConfig, content: str) -> None:
    config.secret_file.write_text(content)
    with pytest.raises(ConfigError, match="openssl rand"):
        read_secrets(config.secret_file)
    config.secret_file.unlink()
    with pytest.raises(ConfigError, match="cannot be read"):
        send(config)
