import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from modelops_operator.api.facts import Role
from modelops_operator.core.release import Release, ReleasedModel, in_order, running_release
from modelops_runtime.bento import ServingRuntime

pytestmark = pytest.mark.unit

PREDICTOR = ReleasedModel(
    role=Role.PREDICTOR, name="employment", alias="candidate", version="12", run_id="r"
)
DRIFT = replace(PREDICTOR, role=Role.DRIFT, name="employment_drift", alias=None)
RELEASE = Release(
    models=(PREDICTOR, DRIFT), reference="registry/a@sha256:1", lock="sha256:2", runtime="0.1.0"
)

names = st.text(min_size=1, max_size=20)
models = st.builds(
    ReleasedModel,
    role=st.sampled_from(Role),
    name=names,
    alias=st.none() | names,
    version=names,
    run_id=st.text(max_size=9),
)
releases = st.builds(
    Release,
    models=st.lists(models, max_size=3, unique_by=lambda model: model.role).map(in_order),
    reference=names,
    lock=st.text(max_size=9),
    runtime=names,
    profile=st.sampled_from(ServingRuntime),
    form=st.sampled_from(["", "Fast", "Pyfunc"]),
    rebuild=st.none() | names,
)


@given(releases)
def test_a_release_is_read_back_as_it_was_written(release: Release) -> None:
    assert Release.from_json(release.to_json()) == release


def test_the_annotation_has_its_promised_shape() -> None:
    assert json.loads(RELEASE.to_json()) == {
        "models": [
            {
                "role": "predictor",
                "name": "employment",
                "alias": "candidate",
                "version": "12",
                "runId": "r",
            },
            {"role": "drift", "name": "employment_drift", "version": "12", "runId": "r"},
        ],
        "image": {"reference": "registry/a@sha256:1", "lock": "sha256:2"},
        "runtime": "0.1.0",
        "revision": RELEASE.revision,
    }


def test_the_revision_changes_with_what_is_served_only() -> None:
    same = (
        replace(RELEASE, models=(replace(PREDICTOR, alias=None), DRIFT)),
        replace(RELEASE, models=(DRIFT, PREDICTOR)),
        replace(RELEASE, lock="", runtime="0.2.0", rebuild="x"),
    )
    other = (
        replace(RELEASE, reference="registry/a@sha256:2"),
        replace(RELEASE, models=(PREDICTOR,)),
        replace(RELEASE, models=(replace(PREDICTOR, run_id="s"), DRIFT)),
    )
    assert {release.revision for release in same} == {RELEASE.revision}
    assert RELEASE.revision not in {release.revision for release in other}
    assert len(RELEASE.revision) == 10
    assert int(RELEASE.revision, 16) >= 0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "1",
        "{}",
        RELEASE.to_json().replace('"12"', '"13"'),
        RELEASE.to_json().replace("sha256:1", "sha256:9"),
        RELEASE.to_json().replace("predictor", "prophet"),
    ],
)
def test_a_damaged_or_edited_annotation_is_not_believed(text: str) -> None:
    assert Release.from_json(text) is None


def deployment(annotation: str) -> dict[str, Any]:
    return {"metadata": {"annotations": {"modelops.dev/release": annotation}}}


STATUS: dict[str, Any] = {
    "models": [PREDICTOR.to_dict()],
    "image": {"reference": "registry/a@sha256:7"},
    "runtime": {"version": "0.1.0"},
}
FROM_STATUS = Release(
    models=(PREDICTOR,), reference="registry/a@sha256:7", lock="", runtime="0.1.0"
)


@pytest.mark.parametrize(
    ("live", "status", "expected"),
    [
        (deployment(RELEASE.to_json()), STATUS, RELEASE),
        (deployment("{"), STATUS, FROM_STATUS),
        ({"metadata": {}}, STATUS, FROM_STATUS),
        (None, STATUS, FROM_STATUS),
        (None, {}, None),
        (None, {"image": None, "models": None}, None),
        (None, STATUS | {"models": []}, None),
        (None, STATUS | {"models": [{"role": "prophet"}]}, None),
    ],
)
def test_what_runs_is_told_by_the_deployment_or_else_by_the_status(
    live: Any, status: Any, expected: Release | None
) -> None:
    assert running_release(live, status, {}) == expected


def test_the_wish_that_an_image_was_built_for_is_found_with_the_image() -> None:
    image = {
        "spec": {"rebuild": "monday"},
        "status": {"image": {"reference": "registry/a@sha256:7"}},
    }
    found = running_release(None, STATUS, {"other": {}, "image": image})
    assert found is not None
    assert found.rebuild == "monday"
