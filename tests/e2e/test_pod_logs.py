"""Telemetry through a real kubelet: restarts, terminating pods, refusals, restarts of ours."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol
from uuid import uuid4

import pytest
from kubernetes.aio import client, config
from modelops_operator.adapters.pod_logs import PodLogs
from modelops_operator.adapters.telemetry import Reading, Target
from modelops_operator.api.reasons import Reason

pytestmark = pytest.mark.e2e

REVISION = "0123456789"
PATIENCE = 240
LABEL = {"modelops.dev/deployment": "employment", "modelops.dev/revision": REVISION}

PROGRAM = """
import json, os, signal, sys, time

name, revision, *words = sys.argv[1:]
count, crashes, pause = map(int, words)
try:
    run = int(open("/tmp/run").read())
except FileNotFoundError:
    run = 0
open("/tmp/run", "w").write(str(run + 1))

def tell(number, **more):
    line = {"k": "mdw1", "m": name, "r": revision, "e": "", "d": 5, "p": "somebody", "ch": 0,
            "w": "2026-01-01T00:%02d:%02dZ" % divmod(5 * number, 60), "wk": "run-%d" % run,
            "cc": 1, "n": 1, **more}
    os.write(1, json.dumps(line).encode() + b"\\n")

def leave(*_):
    time.sleep(pause)
    tell(500, n=7)
    sys.exit(0)

signal.signal(signal.SIGTERM, leave)
for number in range(count):
    tell(number)
    os.write(2, b"a line of something else\\n")
    os.write(1, b"y" * 100_000 + b"\\n" if number == 3 else b"{}\\n")
    time.sleep(0.05)
tell(1, m="other/model")
os.write(1, b'{"k":"mdw1", broken\\n')
if run < crashes:
    sys.exit(1)
while True:
    time.sleep(1)
"""


class Cluster(Protocol):
    """What these tests need of the sandbox."""

    kubeconfig: str
    base_image: str


@dataclass
class Place:
    """A namespace of a real cluster, and everything read there so far."""

    api: Any
    """A `CoreV1Api`; its types want model classes where dicts are read with less effort."""
    namespace: str
    image: str
    source: PodLogs
    readings: list[Reading] = field(default_factory=list)

    async def start(self, name: str, *, count: int, crashes: int = 0, pause: int = 0) -> None:
        """Start a pod that writes so many lines, and as many again after each of its crashes."""
        words = [f"{self.namespace}/employment", REVISION, str(count), str(crashes), str(pause)]
        await self.api.create_namespaced_pod(
            self.namespace,
            {
                "metadata": {"name": name, "labels": LABEL},
                "spec": {
                    "terminationGracePeriodSeconds": 20,
                    "containers": [
                        {
                            "name": "server",
                            "image": self.image,
                            "command": ["/usr/bin/python3.11", "-c", PROGRAM, *words],
                            "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
                        }
                    ],
                    "volumes": [{"name": "tmp", "emptyDir": {}}],
                },
            },
        )

    async def target(self) -> Target:
        """Look at the pods as they are now."""
        found = await self.api.list_namespaced_pod(self.namespace)
        pods = self.api.api_client.sanitize_for_serialization(found)["items"]
        return Target(namespace=self.namespace, name="employment", pods=pods)

    async def collect(self) -> Reading:
        """Read once, and keep what was read."""
        target = await self.target()
        reading = (await self.source.collect([target], datetime.now(UTC)))[target.key]
        self.readings.append(reading)
        return reading

    @property
    def lines(self) -> Counter[tuple[str, str, int]]:
        """How often each line was handed over: by pod, worker and number."""
        return Counter(
            (line.pod, line.worker, line.start.minute * 12 + line.start.second // 5)
            for reading in self.readings
            for line in reading.lines
        )


def expected(pods: Iterable[str], *, runs: int, count: int) -> Counter[tuple[str, str, int]]:
    return Counter(
        (pod, f"run-{run}", number)
        for pod in pods
        for run in range(runs)
        for number in range(count)
    )


@asynccontextmanager
async def place(cluster: Cluster) -> AsyncIterator[Place]:
    configuration = client.Configuration()
    await config.load_kube_config(
        config_file=str(cluster.kubeconfig), client_configuration=configuration
    )
    async with client.ApiClient(configuration) as connection:
        api: Any = client.CoreV1Api(connection)
        namespace = f"pod-logs-{uuid4().hex[:8]}"
        await api.create_namespace({"metadata": {"name": namespace}})
        source = PodLogs(connection)
        try:
            yield Place(api, namespace, cluster.base_image, source)
        finally:
            await source.close()
            await api.delete_namespace(namespace, grace_period_seconds=0)


async def until(done: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not await done():  # noqa: ASYNC110 - the cluster has no event to wait for
            await asyncio.sleep(0.5)


def run(cluster: Cluster, scenario: Callable[[Place], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        async with place(cluster) as found:
            await scenario(found)

    asyncio.run(main())


def test_every_line_comes_once_through_crashes(cluster: Cluster) -> None:
    async def scenario(place: Place) -> None:
        pods = ["one", "two"]
        wanted = expected(pods, runs=2, count=30)
        for name in pods:
            await place.start(name, count=30, crashes=1)

        async def complete() -> bool:
            await place.collect()
            left_out = sum(reading.foreign + reading.damaged for reading in place.readings)
            return len(place.lines) >= len(wanted) and left_out >= 8

        await until(complete)
        await place.collect()
        assert place.lines == wanted
        assert not any(reading.failure for reading in place.readings)
        # In each of the four runs: one line for another model, and a broken one.
        assert sum(reading.foreign for reading in place.readings) == 4
        assert sum(reading.damaged for reading in place.readings) == 4

        # A restarted operator reads the same once more: the former and the present instances.
        place.readings.clear()
        place.source = PodLogs(place.api.api_client)
        await until(complete)  # the kubelet may not have told of the restart yet
        assert place.lines == wanted

    run(cluster, scenario)


def test_the_last_words_of_a_terminating_pod_are_heard(cluster: Cluster) -> None:
    async def scenario(place: Place) -> None:
        await place.start("one", count=3, pause=2)

        async def started() -> bool:
            await place.collect()
            return len(place.lines) == 3

        await until(started)
        await place.api.delete_namespaced_pod("one", place.namespace)
        await place.collect()

        async def gone() -> bool:
            return not (await place.target()).pods

        await until(gone)
        await place.collect()
        assert place.lines == expected(["one"], runs=1, count=3) + Counter([("one", "run-0", 500)])
        assert sum(line.rows for reading in place.readings for line in reading.lines) == 10

    run(cluster, scenario)


def test_one_pod_that_cannot_be_read_does_not_cost_the_others(cluster: Cluster) -> None:
    async def scenario(place: Place) -> None:
        await place.start("good", count=3)

        async def started() -> bool:
            await place.collect()
            return len(place.lines) == 3

        await until(started)
        target = await place.target()
        lost = {**target.pods[0], "metadata": {**target.pods[0]["metadata"], "uid": "x"}}
        lost["metadata"]["namespace"] = lost["metadata"]["name"] = "gone"
        both = Target(namespace=place.namespace, name="employment", pods=[lost, *target.pods])
        fresh = PodLogs(place.api.api_client)
        reading = (await fresh.collect([both], datetime.now(UTC)))[both.key]
        # A pod that is gone is no failure: there is nothing to be read any more.
        assert (len(reading.lines), reading.failure) == (3, None)

        async with stranger(place) as connection:
            denied = PodLogs(connection)
            reading = (await denied.collect([target], datetime.now(UTC)))[target.key]
        assert reading.lines == ()
        assert reading.failure is not None
        assert reading.failure.reason == Reason.QUERY_DENIED
        assert "pods/log" in reading.failure.message

        nobody = client.Configuration(host="http://127.0.0.1:9")
        async with client.ApiClient(nobody) as connection:
            reading = (await PodLogs(connection).collect([target], datetime.now(UTC)))[target.key]
        assert reading.failure is not None
        assert reading.failure.reason == Reason.QUERY_FAILED

    run(cluster, scenario)


@asynccontextmanager
async def stranger(place: Place) -> AsyncIterator[client.ApiClient]:
    """Connect as a service account that may do nothing."""
    await place.api.create_namespaced_service_account(
        place.namespace, {"metadata": {"name": "stranger"}}
    )
    token = await place.api.create_namespaced_service_account_token(
        "stranger", place.namespace, {"spec": {"expirationSeconds": 600}}
    )
    own = place.api.api_client.configuration
    configuration = client.Configuration(
        host=own.host,
        api_key={"BearerToken": token.status.token},
        api_key_prefix={"BearerToken": "Bearer"},
    )
    configuration.ssl_ca_cert = own.ssl_ca_cert
    async with client.ApiClient(configuration) as connection:
        yield connection
