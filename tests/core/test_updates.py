"""An upgrade of the operator restarts nothing by itself; what it brings waits, and is told of."""

from datetime import timedelta
from typing import Any

import pytest
from modelops_operator.api.config import RuntimeConfig
from modelops_operator.core import pod_template

from tests.core.simulation import (
    BASE,
    DEPLOYMENT,
    START,
    Cluster,
    configuration,
    message,
)

pytestmark = pytest.mark.unit

WAITS = ("True", "UpdateWaiting")
# START is noon on a Sunday.
SOON = {"start": "13:00", "duration": "1h"}


def pods(cluster: Cluster) -> dict[str, Any]:
    spec: dict[str, Any] = cluster.children[DEPLOYMENT]["spec"]["template"]["spec"]
    return spec


def upgrade(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the operator generate other pods from the same spec."""
    monkeypatch.setattr(pod_template, "GRACE_SECONDS", 77)


@pytest.fixture
def upgraded(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """Give a deployment that runs since before an upgrade of the operator."""
    cluster = Cluster()
    cluster.converge()
    assert "UpdateAvailable" not in cluster.conditions
    upgrade(monkeypatch)
    cluster.converge()
    return cluster


def test_the_pods_of_the_same_spec_are_kept_and_the_update_is_told(upgraded: Cluster) -> None:
    assert pods(upgraded)["terminationGracePeriodSeconds"] == 30
    assert upgraded.conditions["UpdateAvailable"] == WAITS
    assert upgraded.conditions["Ready"] == ("True", "Serving")
    assert "Reconciling" not in upgraded.conditions
    told = message(upgraded.status, "UpdateAvailable")
    assert "spec.terminationGracePeriodSeconds" in told
    assert "modelops.dev/update" in told
    assert upgraded.decide().requeue_after is None


def test_it_is_taken_over_with_the_next_edit_of_the_pods(upgraded: Cluster) -> None:
    upgraded.edit(lambda spec: spec["serving"].update(resources={"limits": {"cpu": "2"}}))
    upgraded.converge()
    assert pods(upgraded)["terminationGracePeriodSeconds"] == 77
    assert "UpdateAvailable" not in upgraded.conditions


def test_a_change_of_the_number_of_pods_is_no_occasion(upgraded: Cluster) -> None:
    upgraded.edit(lambda spec: spec["serving"].update(replicas=5))
    upgraded.converge()
    assert pods(upgraded)["terminationGracePeriodSeconds"] == 30


@pytest.mark.parametrize("killed_after", [None, 0, 1])
def test_it_is_taken_over_on_request_and_once(
    upgraded: Cluster, killed_after: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    upgraded.annotate("modelops.dev/update", "1")
    upgraded.reconcile(killed_after=killed_after)
    upgraded.converge()
    assert pods(upgraded)["terminationGracePeriodSeconds"] == 77
    assert "UpdateAvailable" not in upgraded.conditions
    assert upgraded.status["handledRequests"] == {"update": "1"}
    monkeypatch.setattr(pod_template, "GRACE_SECONDS", 78)
    upgraded.converge()
    assert pods(upgraded)["terminationGracePeriodSeconds"] == 77
    assert upgraded.conditions["UpdateAvailable"] == WAITS


def test_it_is_taken_over_in_the_deployments_own_window(upgraded: Cluster) -> None:
    upgraded.edit(lambda spec: spec["serving"].update(maintenanceWindow=SOON))
    upgraded.converge()
    assert upgraded.conditions["UpdateAvailable"] == WAITS
    again = upgraded.decide().requeue_after
    assert again is not None
    opens_in = START + timedelta(hours=1) - upgraded.now
    assert opens_in <= again <= opens_in + timedelta(minutes=30)
    upgraded.now += again
    upgraded.converge()
    assert pods(upgraded)["terminationGracePeriodSeconds"] == 77
    assert "UpdateAvailable" not in upgraded.conditions


def test_it_is_taken_over_in_the_configured_window(upgraded: Cluster) -> None:
    upgraded.config = configuration(operator={"maintenanceWindow": SOON | {"days": ["Sun"]}})
    upgraded.now = START + timedelta(minutes=30)
    upgraded.converge()
    assert "UpdateAvailable" in upgraded.conditions
    upgraded.now = START + timedelta(minutes=90)
    upgraded.converge()
    assert "UpdateAvailable" not in upgraded.conditions


def test_not_all_begin_at_once() -> None:
    begun = set()
    for number in range(20):
        cluster = Cluster(config=configuration(operator={"maintenanceWindow": SOON}))
        cluster.object["metadata"]["uid"] = f"uid-{number}"
        cluster.converge()
        cluster.config = cluster.config.model_copy(
            update={"runtime": RuntimeConfig(version="0.2.0")}
        )
        cluster.converge()
        again = cluster.decide().requeue_after
        assert again is not None
        begun.add(cluster.now + again)
    assert len(begun) == 20
    opens = START + timedelta(hours=1)
    assert opens <= min(begun) < opens + timedelta(minutes=10)
    assert opens + timedelta(minutes=20) < max(begun) <= opens + timedelta(minutes=30)


def test_a_window_of_ones_own_is_worth_more_than_the_configured_one(upgraded: Cluster) -> None:
    always = {"start": "00:00", "duration": "24h"}
    upgraded.config = configuration(operator={"maintenanceWindow": always})
    upgraded.edit(lambda spec: spec["serving"].update(maintenanceWindow=SOON))
    upgraded.converge()
    assert upgraded.conditions["UpdateAvailable"] == WAITS


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"runtime": RuntimeConfig(version="0.2.0")}, "serving runtime 0.2.0 in place of 0.1.0"),
        (
            {
                "builder": configuration(
                    builder={"bases": {"3.11": BASE.replace("b" * 64, "c" * 64)}}
                ).builder
            },
            "another base image",
        ),
    ],
)
def test_another_runtime_or_base_waits_and_is_taken_over_likewise(
    change: dict[str, Any], told: str
) -> None:
    cluster = Cluster()
    cluster.converge()
    before = pods(cluster)["containers"][0]["image"]
    cluster.config = cluster.config.model_copy(update=change)
    cluster.converge()
    assert told in message(cluster.status, "UpdateAvailable")
    assert pods(cluster)["containers"][0]["image"] == before
    cluster.annotate("modelops.dev/update", "now")
    cluster.converge()
    assert pods(cluster)["containers"][0]["image"] != before
    assert "UpdateAvailable" not in cluster.conditions
    assert cluster.status["handledRequests"] == {"update": "now"}


def test_a_wish_without_an_update_is_granted_at_once() -> None:
    cluster = Cluster()
    cluster.converge()
    cluster.annotate("modelops.dev/update", "1")
    cluster.converge()
    assert cluster.status["handledRequests"] == {"update": "1"}
