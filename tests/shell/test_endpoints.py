"""What the kubelet and Prometheus are answered."""

import asyncio
import urllib.error
import urllib.request

import pytest
from modelops_operator.shell import queue
from modelops_operator.shell.endpoints import STUCK, endpoints

from tests.mlflow_server import free_port

pytestmark = pytest.mark.unit


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_what_they_answer() -> None:
    ready, waited = False, 0.0

    async def main() -> None:
        nonlocal ready, waited
        health, metrics = free_port(), free_port()
        async with endpoints(
            health_port=health, metrics_port=metrics, ready=lambda: ready, stuck=lambda: waited
        ):
            assert (await asyncio.to_thread(get, health, "/readyz"))[0] == 503
            ready = True
            assert await asyncio.to_thread(get, health, "/readyz") == (200, "ok\n")
            assert await asyncio.to_thread(get, health, "/healthz") == (200, "ok\n")
            waited = STUCK + 10
            code, text = await asyncio.to_thread(get, health, "/healthz")
            assert (code, text) == (503, "no progress for 310 s\n")
            code, text = await asyncio.to_thread(get, metrics, "/metrics")
            assert code == 200
            assert queue.WorkQueue("endpoints")
            assert "# HELP modelops_queue_depth" in text

    asyncio.run(main())
