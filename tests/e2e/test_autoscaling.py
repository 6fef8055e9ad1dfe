"""A real autoscaler, fed by metrics-server, takes over from the user and gives back."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from modelops_training.data import records

from demo.ground import Ground
from demo.proxy import proxied
from tests.apiserver import running_process
from tests.e2e.objects import manifest
from tests.e2e.waiting import eventually

pytestmark = pytest.mark.e2e
NAME = "scaled"
RESOURCES = {"requests": {"cpu": "100m", "memory": "256Mi"}}
SCALING = {"minReplicas": 2, "maxReplicas": 3, "targetCPUUtilizationPercentage": 20}
IGNORED = "--ignore-not-found"
ROWS = list(records(2016, limit=200))


@contextmanager
def under_load(url: str) -> Iterator[None]:
    """Ask one question after the other meanwhile."""
    ended = threading.Event()

    def ask() -> None:
        with httpx.Client(timeout=10) as client:
            while not ended.wait(0.02):
                with suppress(httpx.HTTPError):  # the way to the pods may be cut when they change
                    client.post(url, json=ROWS)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield
    finally:
        ended.set()
        asking.join()


def test_an_autoscaler_takes_over_and_gives_back_without_a_dip(
    platform: Ground, namespace: str, tmp_path: Path
) -> None:
    def apply(**serving: Any) -> None:
        given = manifest(NAME, namespace, serving={"resources": RESOURCES, **serving})
        platform.kubectl("apply", "-f", "-", given=json.dumps(given))

    def live(kind: str) -> dict[str, Any]:
        found = platform.kubectl("-n", namespace, "get", kind, NAME, "-o", "json", IGNORED)
        return dict(json.loads(found or "{}"))

    apply(replicas=2)
    ready = ("--for=condition=Ready", f"modeldeployment/{NAME}", "--timeout=120s")
    platform.kubectl("-n", namespace, "wait", *ready)
    watch = [platform.kubectl_program, f"--kubeconfig={platform.kubeconfig}", f"-n={namespace}"]
    watch += ["get", "deployment", NAME, "--watch", "--output=jsonpath={.spec.replicas} "]
    counts = tmp_path / "counts"
    with (
        running_process(counts, watch),
        proxied(platform, namespace, NAME) as url,
    ):
        apply(autoscaling=SCALING)
        with under_load(url):
            eventually(lambda: live("deployment")["spec"]["replicas"] == 3, 120, "a third replica")
        told = {one["type"]: one["status"] for one in live("hpa")["status"]["conditions"]}
        assert told["ScalingActive"] == "True"
        apply(replicas=3)
        eventually(lambda: not live("hpa"), 30, "the autoscaler's end")
        eventually(lambda: live("modeldeployment")["status"].get("readyReplicas") == 3, 60)
        platform.kubectl("-n", namespace, "wait", *ready)
    assert sorted(set(counts.read_text().split())) == ["2", "3"]
