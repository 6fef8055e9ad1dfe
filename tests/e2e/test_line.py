"""The whole line, as a user meets it: apply, wait, predict, drift, break, mend, delete."""

import json
import time
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import pytest
from modelops_training.data import records

from demo.__main__ import NAME, NAMESPACE
from demo.ground import SYSTEM, DemoError, Ground
from demo.platform import RELEASE, install
from demo.proxy import proxied
from tests.e2e.conftest import make
from tests.e2e.objects import conditions, manifest
from tests.e2e.waiting import eventually

pytestmark = pytest.mark.e2e
CHILDREN = "deployment,service,poddisruptionbudget,serviceaccount,networkpolicy"
OURS = f"-l=modelops.dev/deployment={NAME}"


class Deployed:
    """The ModelDeployment under test."""

    def __init__(self, ground: Ground, url: str) -> None:
        self.ground = ground
        self.url = url

    def apply(self, **spec: Any) -> None:
        self.ground.kubectl("apply", "-f", "-", given=json.dumps(manifest(NAME, NAMESPACE, **spec)))

    def live(self) -> dict[str, Any]:
        return self.ground.deployment(NAME, NAMESPACE)

    def condition(self, type_: str) -> Mapping[str, Any]:
        return conditions(self.ground, NAME, NAMESPACE).get(type_, {})

    def says(self, type_: str, status: str, seconds: float = 90) -> Mapping[str, Any]:
        def told() -> Mapping[str, Any] | None:
            found = self.condition(type_)
            return found if found.get("status") == status else None

        found: Mapping[str, Any] = eventually(told, seconds, f"{type_}={status}")
        return found

    def at_rest(self) -> bool:
        live = self.live()
        told = {one["type"]: one["status"] for one in live["status"]["conditions"]}
        settled = live["status"]["observedGeneration"] == live["metadata"]["generation"]
        return (
            settled and told.get("Ready") == "True" and not told.keys() & {"Reconciling", "Stalled"}
        )

    def version(self) -> str:
        models = self.live()["status"]["models"]
        return str(next(model["version"] for model in models if model["role"] == "predictor"))

    def kubectl(self, *arguments: str) -> str:
        return self.ground.kubectl("-n", NAMESPACE, *arguments)

    def objects(self, kinds: str, *arguments: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(
            self.kubectl("get", kinds, "-o", "json", *arguments)
        )["items"]
        return found


@pytest.fixture(scope="module")
def served(platform: Ground) -> Iterator[Deployed]:
    namespace = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": NAMESPACE,
            "labels": {"pod-security.kubernetes.io/enforce": "restricted"},
        },
    }
    platform.kubectl("apply", "-f", "-", given=json.dumps(namespace))
    with proxied(platform, NAMESPACE, NAME) as url:
        deployed = Deployed(platform, url)
        deployed.apply()
        deployed.kubectl(
            "wait", "--for=condition=Ready", f"modeldeployment/{NAME}", "--timeout=180s"
        )
        yield deployed


def test_it_becomes_ready_and_says_what_runs(served: Deployed) -> None:
    eventually(served.at_rest, 60)
    live = served.live()
    status = live["status"]
    roles = {model["role"]: model for model in status["models"]}
    assert set(roles) == {"predictor", "drift", "outlier"}
    assert all(model["runId"] for model in roles.values())
    assert "@sha256:" in status["image"]["reference"]
    assert (status["replicas"], status["readyReplicas"]) == (2, 2)
    assert status["url"] == f"http://{NAME}.{NAMESPACE}.svc"
    table = served.kubectl("get", "modeldeployments", "-o", "wide")
    header = table.splitlines()[0].split()
    assert header == ["NAME", "MODEL", "VERSION", "READY", "DRIFT", "OUTLIERS", "IMAGE", "AGE"]
    # Nothing of the user's object is ours.
    assert live["metadata"].get("finalizers") is None
    assert set(live["metadata"]["annotations"]) == {
        "team",
        "kubectl.kubernetes.io/last-applied-configuration",
    }
    assert live["spec"]["monitoring"]["window"] == "5s"


def test_it_predicts_and_flags_outliers(served: Deployed) -> None:
    rows = list(records(2016, limit=20))
    answer = httpx.post(served.url, json=rows, timeout=10).json()
    assert len(answer["predictions"]) == len(answer["outliers"]) == 20
    assert all(sum(row) == pytest.approx(1) for row in answer["probabilities"])
    wrong_unit = httpx.post(served.url, json=[{**rows[0], "AGEP": 34_000}], timeout=10).json()
    assert wrong_unit["outliers"] == [True]


def test_bad_input_is_refused_by_row_field_and_value(served: Deployed) -> None:
    rows = list(records(2016, limit=2))
    answer = httpx.post(served.url, json=[rows[0], {**rows[1], "AGEP": "old"}], timeout=10)
    assert 400 <= answer.status_code < 500
    assert "AGEP" in answer.text
    assert "old" in answer.text


def test_nothing_is_written_once_all_is_as_it_should_be(served: Deployed) -> None:
    eventually(served.at_rest, 60)

    def versions() -> dict[str, str]:
        every = served.objects(f"{CHILDREN},modeldeployment")
        return {
            f"{one['kind']}/{one['metadata']['name']}": one["metadata"]["resourceVersion"]
            for one in every
            if NAME in one["metadata"]["name"]
        }

    since, before = time.monotonic(), versions()

    def unchanged() -> bool:
        nonlocal since, before
        if (now := versions()) != before:
            since, before = time.monotonic(), now
        return time.monotonic() - since > 15

    eventually(unchanged, 120, "15 quiet seconds")
    assert len(before) == 6


def test_a_deleted_and_an_edited_child_come_back(served: Deployed) -> None:
    uid = served.objects("service", OURS)[0]["metadata"]["uid"]
    served.kubectl("delete", "service", NAME)
    patch = {"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 77}}}}
    served.kubectl("patch", "deployment", NAME, "-p", json.dumps(patch))
    eventually(
        lambda: [one for one in served.objects("service", OURS) if one["metadata"]["uid"] != uid],
        30,
        "the service",
    )

    def mended() -> bool:
        pod = served.objects("deployment", OURS)[0]["spec"]["template"]["spec"]
        return bool(pod["terminationGracePeriodSeconds"] != 77)

    eventually(mended, 30)
    eventually(served.at_rest, 90)


def test_it_scales(served: Deployed) -> None:
    served.kubectl("scale", "modeldeployment", NAME, "--replicas=1")
    eventually(lambda: served.live()["status"].get("replicas") == 1 and served.at_rest(), 60)
    served.kubectl("scale", "modeldeployment", NAME, "--replicas=2")
    eventually(lambda: served.live()["status"].get("readyReplicas") == 2 and served.at_rest(), 60)


def test_a_broken_edit_leaves_what_runs(served: Deployed) -> None:
    eventually(served.at_rest, 60)
    before = served.version()
    models = manifest(NAME, NAMESPACE)["spec"]["models"] | {
        "predictor": {"name": "employment", "alias": "no-such-alias"}
    }
    served.apply(models=models)
    stalled = served.says("Stalled", "True", 30)
    assert stalled["reason"] == "AliasNotFound"
    assert "no-such-alias" in stalled["message"]
    assert served.condition("Ready")["status"] == "True"
    assert httpx.post(served.url, json=list(records(2016, limit=1)), timeout=10).is_success
    assert served.version() == before
    served.apply()
    eventually(served.at_rest, 60)


@pytest.mark.parametrize("component", ["operator", "builder"])
def test_a_killed_process_comes_back_to_the_same_end(served: Deployed, component: str) -> None:
    label = f"app.kubernetes.io/component={component}"
    served.ground.kubectl(
        "-n", "modelops-system", "delete", "pod", "-l", label, "--force", "--grace-period=0"
    )
    served.kubectl("delete", "deployment", NAME)
    eventually(lambda: served.objects("deployment", OURS) and served.at_rest(), 120)


def test_a_name_that_is_taken_is_left_alone(platform: Ground, namespace: str) -> None:
    taken = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": "taken", "namespace": namespace, "labels": {"owner": "somebody"}},
    }
    platform.kubectl("apply", "-f", "-", given=json.dumps(taken))
    wanted = manifest("taken", namespace)
    platform.kubectl("apply", "-f", "-", given=json.dumps(wanted))

    def stalled() -> bool:
        told = conditions(platform, "taken", namespace).get("Stalled", {})
        return told.get("reason") == "NameCollision"

    eventually(stalled, 60)
    account = json.loads(
        platform.kubectl("-n", namespace, "get", "serviceaccount", "taken", "-o", "json")
    )
    assert account["metadata"]["labels"] == {"owner": "somebody"}


def test_a_bad_object_is_refused_at_once(platform: Ground, namespace: str) -> None:
    wanted = manifest("bad", namespace)
    wanted["spec"]["models"]["predictor"]["version"] = "3"
    with pytest.raises(DemoError, match="alias"):
        platform.kubectl("apply", "-f", "-", given=json.dumps(wanted))


def test_helm_tests_pass(platform: Ground) -> None:
    platform.helm("test", "modelops", "-n", "modelops-system")


def test_a_deleted_object_leaves_nothing_behind(served: Deployed) -> None:
    served.kubectl("delete", "modeldeployment", NAME, "--timeout=60s")
    eventually(lambda: not served.objects(f"{CHILDREN},pod", OURS), 90, "nothing")


def test_uninstalling_keeps_the_users_objects(platform: Ground, namespace: str) -> None:
    wanted = manifest("kept", namespace)
    platform.kubectl("apply", "-f", "-", given=json.dumps(wanted))
    values = json.loads(platform.helm("get", "values", RELEASE, "-n", SYSTEM, "-o", "json"))
    make("demo-down", platform)
    assert platform.deployment("kept", namespace)["metadata"]["name"] == "kept"
    install(platform, values)
