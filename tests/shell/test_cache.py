"""What the cache believes when watches and lists contradict each other."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from modelops_operator.shell.cache import LAST_APPLIED, Cache, trimmed

pytestmark = pytest.mark.unit

KEY = ("ns", "a")


def live(kind: str = "Deployment", name: str = "a", version: int = 10, **more: Any) -> Any:
    metadata = {"namespace": "ns", "name": name, "uid": "u", "resourceVersion": str(version)}
    return {"kind": kind, "metadata": {**metadata, **more}}


def test_a_newer_object_replaces_an_older_one_and_not_the_other_way_round() -> None:
    cache = Cache()
    assert cache.put(live(version=10))
    assert not cache.put(live(version=10))
    assert not cache.put(live(version=9))
    assert cache.put(live(version=100, generation=2))
    assert cache.get("Deployment", KEY) == live(version=100, generation=2)


def test_another_version_in_which_nothing_is_new_is_kept_without_a_word() -> None:
    cache = Cache()
    cache.put(live("Service") | {"status": {"loadBalancer": {}}})
    assert not cache.put(live("Service", version=11, managedFields=[{}]))
    assert cache.version("Service", KEY) == 11
    scheduled = {"type": "PodScheduled", "status": "True"}
    cache.put(live("Pod") | {"status": {"phase": "Pending"}})
    assert not cache.put(
        live("Pod", version=11) | {"status": {"phase": "Pending", "conditions": [scheduled]}}
    )
    assert cache.put(live("Pod", version=12) | {"status": {"phase": "Running"}})


def test_of_the_managed_fields_it_is_kept_who_asked_for_a_revision() -> None:
    def entry(manager: str, fields: Any, **more: str) -> dict[str, Any]:
        return {"manager": manager, "time": "t", "operation": "Apply", "fieldsV1": fields, **more}

    models: dict[str, Any] = {"f:models": {"f:predictor": {"f:name": {}}}, "f:monitoring": {}}
    annotations: dict[str, Any] = {"f:annotations": {"f:modelops.dev/rebuild": {}, "f:other": {}}}
    fields = [
        entry("kubectl", {"f:spec": models}),
        entry("scaler", {"f:spec": {"f:serving": {"f:replicas": {}}}}, subresource="scale"),
        entry("operator", {"f:status": {"f:models": {}}}, subresource="status"),
        entry("cli", {"f:metadata": annotations}),
        {"manager": "odd"},
    ]
    kept = trimmed(live(kind="ModelDeployment", managedFields=fields))["metadata"]["managedFields"]
    assert kept == [
        {"manager": "kubectl", "time": "t", "fieldsV1": {"f:spec": {"f:models": {}}}},
        {
            "manager": "cli",
            "time": "t",
            "fieldsV1": {"f:metadata": {"f:annotations": {"f:modelops.dev/rebuild": {}}}},
        },
    ]
    assert "managedFields" not in trimmed(live(managedFields=fields))["metadata"]


def test_what_is_gone_does_not_come_back_through_an_older_list() -> None:
    cache = Cache()
    cache.put(live(version=10))
    departed = cache.departed()
    assert cache.drop(live(version=12))
    assert not cache.put(live(version=11))
    cache.forget_departed(departed)  # of a sweep that began before it went
    assert not cache.put(live(version=11))
    assert cache.put(live(version=13))


def test_what_went_is_forgotten_after_a_whole_sweep() -> None:
    cache = Cache()
    cache.drop(live(version=12))
    cache.forget_departed(cache.departed())
    assert not cache.departed()


def test_an_object_that_came_anew_is_not_dropped_by_the_end_of_its_predecessor() -> None:
    cache = Cache()
    cache.put(live(version=20))
    assert not cache.drop(live(version=15))
    assert cache.get("Deployment", KEY) is not None


def test_missing_is_what_a_list_did_not_show_but_for_what_came_since() -> None:
    cache = Cache()
    for name, version in (("a", 10), ("b", 11), ("c", 30)):
        cache.put(live(name=name, version=version))
    missing = cache.missing("Deployment", {("ns", "a")}, listed_after=20)
    assert missing == [live(name="b", version=11)]
    assert [*cache.all("Deployment")] == [
        live(name=name, version=version) for name, version in (("a", 10), ("b", 11), ("c", 30))
    ]


def test_pods_are_found_by_their_deployment() -> None:
    cache = Cache()
    labels = {"modelops.dev/deployment": "employment"}
    for name in ("b", "a"):
        cache.put(live("Pod", name, labels=labels))
    cache.put(live("Pod", "z", labels={"modelops.dev/deployment": "other"}))
    assert [pod["metadata"]["name"] for pod in cache.pods_of(("ns", "employment"))] == ["a", "b"]
    cache.drop(live("Pod", "a", version=11))
    assert [pod["metadata"]["name"] for pod in cache.pods_of(("ns", "employment"))] == ["b"]


def test_a_view_of_a_namespace_shows_what_comes_later() -> None:
    cache = Cache()
    view = cache.within("ModelImage", "ns")
    cache.put(live("ModelImage"))
    assert dict(cache.within("ModelImage", "ns")) == {"a": live("ModelImage")}
    assert dict(cache.within("ModelImage", "other")) == {}
    assert len(view) == 1


def test_what_nobody_reads_is_not_kept() -> None:
    annotations = {LAST_APPLIED: "{}", "modelops.dev/reconcile": "1"}
    pod = live("Pod", managedFields=[{}], annotations=annotations) | {"spec": {}, "status": {}}
    assert trimmed(pod) == live("Pod", annotations={"modelops.dev/reconcile": "1"}) | {"status": {}}
    assert "spec" in trimmed(live() | {"spec": {}})
    assert "managedFields" in pod["metadata"]  # the original is somebody else's


@pytest.mark.parametrize("size", [1, 10_000])
def test_what_is_kept_is_given_as_it_was(size: int) -> None:
    cache = Cache()
    given_ = live() | {"spec": {"text": "ä" * size, "number": 1.5, "nothing": None, "list": [{}]}}
    cache.put(given_)
    assert cache.get("Deployment", KEY) == given_
    assert cache.version("Deployment", KEY) == 10
    assert cache.version("Deployment", ("ns", "other")) == 0


Happening = st.tuples(st.integers(1, 8), st.booleans())


@given(st.permutations(range(8)), st.lists(st.booleans(), min_size=8, max_size=8))
def test_in_whatever_order_events_arrive_the_newest_wins(
    order: list[int], there: list[bool]
) -> None:
    cache = Cache()
    for version in order:
        event = live(version=version + 1)
        if there[version]:
            cache.put(event)
        else:
            cache.drop(event)
    expected = live(version=8) if there[7] else None
    assert cache.get("Deployment", KEY) == expected
