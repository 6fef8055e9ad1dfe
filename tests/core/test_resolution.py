from datetime import timedelta
from typing import Any

import pytest
from modelops_operator.api.facts import Failure, ModelVersion, Role
from modelops_operator.api.resources import ModelRef
from modelops_operator.core.findings import Outlook
from modelops_operator.core.release import Release
from modelops_operator.core.resolution import (
    Inquiry,
    released_models,
    resolve,
    serves_references,
)

from tests.core.simulation import NAMES, version

pytestmark = pytest.mark.unit

MISSING = Failure(reason="AliasNotFound", message="employment has no alias x", permanent=True)
DENIED = Failure(reason="PolicyDenied", message="staging may not deploy it", permanent=True)
SILENT = Failure(reason="ModelRegistryUnreachable", message="timed out", permanent=False)

ALIASES = {role: ModelRef(name=NAMES[role], alias="candidate") for role in Role}
PINNED = {role: ModelRef(name=NAMES[role], version="1") for role in Role}
FOUND: dict[Role, ModelVersion | Failure] = {role: version(role, "1") for role in Role}
MOVED: dict[Role, ModelVersion | Failure] = {Role.PREDICTOR: version(Role.PREDICTOR, "2")}


def inquire(**changes: Any) -> Inquiry:
    given: dict[str, Any] = {
        "references": ALIASES,
        "found": FOUND,
        "denied": {},
        "settled": False,
        "waited": None,
        "settle": timedelta(seconds=10),
    }
    return Inquiry(**(given | changes))


@pytest.mark.parametrize(
    ("changes", "status", "reason", "outlook"),
    [
        pytest.param(
            {"denied": {Role.DRIFT: DENIED}, "found": {**FOUND, Role.PREDICTOR: MISSING}},
            "False",
            "PolicyDenied",
            Outlook.STUCK,
            id="the policy denies a model",
        ),
        pytest.param({}, "True", "Resolved", Outlook.SETTLED, id="resolved"),
        pytest.param({"found": {}}, "Unknown", "Resolving", Outlook.UNDERWAY, id="not asked yet"),
        pytest.param(
            {"found": {}, "settled": True},
            "Unknown",
            "Resolving",
            Outlook.SETTLED,
            id="not asked yet after a restart of the operator",
        ),
        pytest.param(
            {"found": {**FOUND, Role.DRIFT: MISSING}},
            "False",
            "AliasNotFound",
            Outlook.STUCK,
            id="a detector is missing",
        ),
        pytest.param(
            {"found": {**FOUND, Role.DRIFT: MISSING}, "settled": True},
            "False",
            "AliasNotFound",
            Outlook.STUCK,
            id="somebody deleted the alias of what runs",
        ),
        pytest.param(
            {"found": {Role.PREDICTOR: SILENT, Role.DRIFT: MISSING}},
            "False",
            "AliasNotFound",
            Outlook.STUCK,
            id="what only a person can mend goes first",
        ),
        pytest.param(
            {"found": dict.fromkeys(Role, SILENT)},
            "Unknown",
            "ModelRegistryUnreachable",
            Outlook.UNDERWAY,
            id="MLflow is silent and something new is wanted",
        ),
        pytest.param(
            {"found": dict.fromkeys(Role, SILENT), "settled": True},
            "Unknown",
            "ModelRegistryUnreachable",
            Outlook.SETTLED,
            id="MLflow is silent and what is wanted runs",
        ),
        pytest.param(
            {"found": {**FOUND, **MOVED}},
            "Unknown",
            "WaitingForRelease",
            Outlook.UNDERWAY,
            id="torn a moment ago",
        ),
        pytest.param(
            {"found": {**FOUND, **MOVED}, "waited": timedelta(seconds=10)},
            "False",
            "WaitingForRelease",
            Outlook.UNDERWAY,
            id="torn for longer than it takes",
        ),
        pytest.param(
            {"references": PINNED, "found": {**FOUND, **MOVED}},
            "True",
            "Resolved",
            Outlook.SETTLED,
            id="pinned versions are the user's choice",
        ),
        pytest.param(
            {
                "references": {**ALIASES, Role.PREDICTOR: PINNED[Role.PREDICTOR]},
                "found": FOUND | MOVED,
            },
            "True",
            "Resolved",
            Outlook.SETTLED,
            id="one pinned version does not count",
        ),
        pytest.param(
            {"found": {**FOUND, Role.PREDICTOR: version(Role.PREDICTOR, "2", None)}},
            "True",
            "Resolved",
            Outlook.SETTLED,
            id="untagged models do not count",
        ),
        pytest.param(
            {"references": {Role.PREDICTOR: ALIASES[Role.PREDICTOR]}, "found": FOUND | MOVED},
            "True",
            "Resolved",
            Outlook.SETTLED,
            id="models that the spec does not name do not count",
        ),
    ],
)
def test_what_the_registry_says_decides(
    changes: dict[str, Any], status: str, reason: str, outlook: Outlook
) -> None:
    resolution = resolve(inquire(**changes))
    condition = resolution.finding.condition
    assert (condition.status, condition.reason) == (status, reason)
    assert resolution.finding.outlook is outlook
    assert (resolution.versions is not None) == (status == "True")


def test_a_torn_release_names_the_versions_and_their_trainings() -> None:
    finding = resolve(inquire(found=FOUND | MOVED)).finding
    told = finding.condition.message
    assert "predictor employment 2 (alias candidate) of training training-2" in told
    assert "drift employment_drift 1 (alias candidate) of training training-1" in told
    assert "pin versions" in told


def test_a_torn_release_is_looked_at_again_when_it_has_lasted() -> None:
    waited = timedelta(seconds=4)
    assert resolve(inquire(found=FOUND | MOVED, waited=waited)).finding.again == timedelta(
        seconds=6
    )
    assert resolve(inquire(found=FOUND | MOVED, waited=timedelta(seconds=10))).finding.again is None


def test_failures_are_told_with_their_roles() -> None:
    found = {**FOUND, Role.DRIFT: MISSING, Role.OUTLIER: MISSING}
    told = resolve(inquire(found=found)).finding.condition.message
    assert told == "drift: employment has no alias x; outlier: employment has no alias x"


def test_what_runs_is_compared_with_the_references() -> None:
    found = {role: version(role, "1") for role in Role}
    release = Release(
        models=released_models(ALIASES, found), reference="r", lock="", runtime="0.1.0"
    )
    assert [model.role for model in release.models] == list(Role)
    assert serves_references(release, ALIASES)
    assert not serves_references(release, {Role.PREDICTOR: ALIASES[Role.PREDICTOR]})
    assert serves_references(release, PINNED)  # whoever pins what an alias led to, changes nothing
    stable = ModelRef(name="employment", alias="stable")
    assert not serves_references(release, {**ALIASES, Role.PREDICTOR: stable})
    assert not serves_references(
        release, {**ALIASES, Role.PREDICTOR: ModelRef(name="employment", version="2")}
    )
