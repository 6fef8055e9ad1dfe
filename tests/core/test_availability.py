from typing import Any

import pytest
from modelops_operator.api.facts import Failure
from modelops_operator.core.availability import Deployed, Rollout, availability
from modelops_operator.core.findings import Outlook
from modelops_operator.core.state import ChildRef

from tests.core.simulation import pod

pytestmark = pytest.mark.unit

SERVICE, DEPLOYMENT = ChildRef("Service", "a"), ChildRef("Deployment", "a")
PERMANENT = Failure(reason="Forbidden", message="no", permanent=True)
PASSING = Failure(reason="APIServerUnreachable", message="503", permanent=False)
NEW = {"Progressing": {"reason": "ReplicaSetUpdated"}}
DONE = {"Progressing": {"reason": "NewReplicaSetAvailable"}}
OVERDUE = {"Progressing": {"reason": "ProgressDeadlineExceeded"}}
CRASHING = pod("p", "r", exit_code=1, restarts=1)


def refused(text: str) -> dict[str, Any]:
    return {**NEW, "ReplicaFailure": {"status": "True", "message": text}}


def look(**changes: Any) -> Deployed:
    """Look at two replicas that are all right, but for the changes."""
    numbers: dict[str, Any] = {
        "wanted": 2,
        "updated": 2,
        "total": 2,
        "available": 2,
        "ready": 2,
        "revision": "r",
        "seen": True,
        "conditions": DONE,
    }
    for name in list(changes):
        if name in numbers:
            numbers[name] = changes.pop(name)
    given: dict[str, Any] = {
        "rollout": Rollout(**numbers),
        "exists": True,
        "applying": False,
        "refusals": {},
    }
    return Deployed(**(given | changes))


SETTLED, UNDERWAY, STUCK = Outlook.SETTLED, Outlook.UNDERWAY, Outlook.STUCK


@pytest.mark.parametrize(
    ("case", "deployed", "expected"),
    [
        ("all there", look(), ("True", "MinimumReplicasAvailable", SETTLED)),
        (
            "none wanted",
            look(wanted=0, updated=0, total=0, available=0),
            ("True", "ScaledToZero", SETTLED),
        ),
        ("nothing yet", look(exists=False), ("False", "NotDeployed", UNDERWAY)),
        ("just written", look(applying=True), ("Unknown", "RollingOut", UNDERWAY)),
        ("not looked at", look(seen=False), ("Unknown", "RollingOut", UNDERWAY)),
        (
            "old pods left",
            look(total=3, available=3, conditions=NEW),
            ("Unknown", "RollingOut", UNDERWAY),
        ),
        ("too few new ones", look(updated=1, conditions=NEW), ("Unknown", "RollingOut", UNDERWAY)),
        (
            "the first starts",
            look(available=0, conditions=NEW),
            ("False", "PodsStarting", UNDERWAY),
        ),
        ("one was lost", look(available=1), ("False", "Scaling", UNDERWAY)),
        (
            "crashing",
            look(available=0, conditions=NEW, pods=(CRASHING,)),
            ("False", "PodsCrashing", UNDERWAY),
        ),
        (
            "crashing for too long",
            look(available=0, conditions=OVERDUE, pods=(CRASHING,)),
            ("False", "PodsCrashing", STUCK),
        ),
        (
            "an old crash of what serves now",
            look(conditions=OVERDUE, pods=(CRASHING,)),
            ("True", "MinimumReplicasAvailable", SETTLED),
        ),
        ("never ready", look(available=0, conditions=OVERDUE), ("False", "PodsNotReady", STUCK)),
        (
            "quota",
            look(available=0, conditions=refused('pods "a" is forbidden: exceeded quota: q')),
            ("False", "QuotaExceeded", STUCK),
        ),
        (
            "limit range",
            look(
                available=0,
                conditions=refused("forbidden: maximum memory usage per Container is 1Gi"),
            ),
            ("False", "QuotaExceeded", STUCK),
        ),
        (
            "pod security",
            look(available=0, conditions=refused('forbidden: violates PodSecurity "restricted"')),
            ("False", "AdmissionRefused", STUCK),
        ),
        (
            "webhook",
            look(available=0, conditions=refused('webhook "x" denied the request: no')),
            ("False", "AdmissionRefused", STUCK),
        ),
        (
            "the account is too new",
            look(
                available=0,
                conditions=refused("forbidden: error looking up service account staging/a"),
            ),
            ("False", "ChildRefused", UNDERWAY),
        ),
        (
            "a refusal of the past",
            look(conditions={"ReplicaFailure": {"status": "False", "message": "forbidden"}}),
            ("True", "MinimumReplicasAvailable", SETTLED),
        ),
        ("name taken", look(collisions=(SERVICE,)), ("False", "NameCollision", STUCK)),
        (
            "refused before any pod serves",
            look(available=0, refusals={SERVICE: PERMANENT}),
            ("False", "Forbidden", STUCK),
        ),
        (
            "refused while all pods serve",
            look(refusals={SERVICE: PERMANENT}),
            ("True", "MinimumReplicasAvailable", STUCK),
        ),
        (
            "refused for now",
            look(available=0, refusals={SERVICE: PASSING}),
            ("False", "APIServerUnreachable", UNDERWAY),
        ),
        (
            "the graver refusal",
            look(available=0, refusals={DEPLOYMENT: PASSING, SERVICE: PERMANENT}),
            ("False", "Forbidden", STUCK),
        ),
        ("on its way out", look(leaving=(DEPLOYMENT,)), ("Unknown", "Progressing", UNDERWAY)),
    ],
)
def test_whether_the_pods_serve(
    case: str, deployed: Deployed, expected: tuple[str, str, Outlook]
) -> None:
    finding = availability(deployed)
    said = finding.condition
    assert (said.status, said.reason, finding.outlook) == expected, case
    assert said.message


def test_a_refusal_decides_even_while_all_pods_serve() -> None:
    decisive = availability(look(refusals={SERVICE: PERMANENT})).decisive
    assert (decisive.reason, decisive.message) == (
        "Forbidden",
        f"Service {SERVICE.name} cannot be written: {PERMANENT.message}",
    )


def test_a_deployment_is_read_as_the_api_server_gives_it() -> None:
    live = {
        "metadata": {"generation": 4},
        "spec": {
            "replicas": 2,
            "template": {"metadata": {"labels": {"modelops.dev/revision": "r"}}},
        },
        "status": {"observedGeneration": 3, "replicas": 2, "updatedReplicas": 2},
    }
    rollout = Rollout.of(live)
    assert (rollout.wanted, rollout.updated, rollout.available, rollout.revision) == (2, 2, 0, "r")
    assert not rollout.seen
    assert not rollout.complete


@pytest.mark.parametrize("status", [None, {}])
def test_a_deployment_that_nobody_has_looked_at_is_not_complete(status: Any) -> None:
    live: dict[str, Any] = {
        "metadata": {"generation": 1},
        "spec": {"replicas": 0, "template": {"metadata": {}}},
    }
    if status is not None:
        live["status"] = status
    assert not Rollout.of(live).complete
