"""A status of any age is read, and never an error."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from modelops_operator.api.conditions import ConditionType
from modelops_operator.api.facts import Role
from modelops_operator.api.resources import ModelDeployment, ModelDeploymentStatus, ModelImageStatus

from tests.api.objects import GOOD

pytestmark = pytest.mark.unit

READY = {
    "type": "Ready",
    "status": "True",
    "observedGeneration": 3,
    "lastTransitionTime": "2026-01-01T00:00:00Z",
    "reason": "Serving",
    "message": "",
}


def read(status: Any) -> ModelDeploymentStatus:
    return ModelDeployment.model_validate(GOOD[0].manifest() | {"status": status}).status


@pytest.mark.parametrize("status", [None, {}, [], "broken", 5, {"conditions": None}])
def test_nothing_readable_is_a_new_object(status: Any) -> None:
    assert read(status).to_manifest() == ModelDeploymentStatus().to_manifest()
    assert read(status).observed_generation == -1


def test_unknown_fields_are_ignored_and_kept_reachable() -> None:
    stored = {"observedGeneration": 3, "canary": {"weight": 5}, "conditions": [READY | {"x": 1}]}
    status = read(stored)

    assert status.observed_generation == 3
    assert status.stored == stored
    found = status.condition(ConditionType.READY)
    assert found is not None
    assert found.reason == "Serving"
    assert status.condition(ConditionType.STALLED) is None


def test_what_is_not_understood_is_left_out_alone() -> None:
    status = read(
        {
            "observedGeneration": "three",
            "conditions": [{"type": "Ready"}, READY | {"status": "Maybe"}, READY],
            "models": [
                {"role": "explainer", "name": "e", "version": "1"},
                {"role": "drift", "name": "d", "version": "2"},
            ],
            "image": {"lock": "sha256:1"},
            "health": {"rows": "many", "drift": {"severity": "Huge", "value": "0.3"}},
            "url": 5,
            "replicas": 2,
        }
    )

    assert status.observed_generation == -1
    assert [condition.reason for condition in status.conditions] == ["Serving"]
    assert [(model.role, model.version) for model in status.models] == [(Role.DRIFT, "2")]
    assert status.image is None
    assert status.health is not None
    assert status.health.rows is None
    assert status.health.drift is not None
    assert status.health.drift.severity is None
    assert status.health.drift.value == "0.3"
    assert status.url is None
    assert status.replicas == 2


def test_what_is_stored_is_not_changed_by_reading_it() -> None:
    stored = {"conditions": [{"type": "Ready"}], "url": 5}
    read(stored)
    assert stored == {"conditions": [{"type": "Ready"}], "url": 5}


def names(model: type[ModelDeploymentStatus | ModelImageStatus]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["type", "status", "role", "name", "version", "reason", "drift"])
            | st.text(max_size=3),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(names(ModelDeploymentStatus)), JSON))
def test_any_status_of_a_deployment_is_read(status: dict[str, Any]) -> None:
    assert read(status).stored == status


@given(st.dictionaries(st.sampled_from(names(ModelImageStatus)), JSON))
def test_any_status_of_an_image_is_read(status: dict[str, Any]) -> None:
    assert ModelImageStatus.model_validate(status).stored == status
