"""What can go wrong, made to go wrong in a real cluster: each ends in a condition for people."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from demo.ground import ROOT, DemoError, Ground
from sandbox import places, processes
from tests.e2e.conftest import SANDBOX
from tests.e2e.objects import conditions, manifest
from tests.e2e.waiting import eventually

pytestmark = pytest.mark.e2e
QUOTA = {"apiVersion": "v1", "kind": "ResourceQuota", "spec": {"hard": {"pods": "0"}}}
ONE = {"replicas": 1, "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}}}
REFUSES = "modelops-e2e-refuses"
POLICY = {
    "apiVersion": "admissionregistration.k8s.io/v1",
    "kind": "ValidatingAdmissionPolicy",
    "metadata": {"name": REFUSES},
    "spec": {
        "matchConstraints": {
            "resourceRules": [
                {
                    "apiGroups": [""],
                    "apiVersions": ["v1"],
                    "operations": ["CREATE"],
                    "resources": ["pods"],
                }
            ]
        },
        "validations": [{"expression": "false", "message": "not on a Friday"}],
    },
}
BINDING = {
    "apiVersion": "admissionregistration.k8s.io/v1",
    "kind": "ValidatingAdmissionPolicyBinding",
    "metadata": {"name": REFUSES},
    "spec": {
        "policyName": REFUSES,
        "validationActions": ["Deny"],
        "matchResources": {"namespaceSelector": {"matchLabels": {"refuses": "pods"}}},
    },
}
CRASHING = """
import mlflow

class Crashing(mlflow.pyfunc.PythonModel):
    def load_context(self, context):
        raise RuntimeError("the lookup table is not there")

    def predict(self, context, model_input, params=None):
        return model_input

mlflow.models.set_model(Crashing())
"""


def only(model: str, **reference: str) -> Mapping[str, Any]:
    return {"predictor": {"name": model, **(reference or {"version": "1"})}}


def log_models(uri: str, folder: Path, requirements: Mapping[str, list[str]]) -> None:
    """Register Python models in a process of their own, as MLflow's settings are a process's."""
    program = folder / "crashing.py"
    program.write_text(CRASHING)
    code = f"""
import mlflow, pandas
from mlflow.models import infer_signature
mlflow.set_tracking_uri({uri!r})
frame = pandas.DataFrame({{"age": [3.0, 50.0]}})
for name, wanted in {dict(requirements)!r}.items():
    with mlflow.start_run():
        mlflow.pyfunc.log_model(
            name="model",
            python_model={str(program)!r},
            pip_requirements=wanted,
            signature=infer_signature(frame, frame),
            registered_model_name=name,
        )
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=folder)


@pytest.fixture(scope="module")
def broken(platform: Ground, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """One namespace for each way to fail, with one object in it, all applied at once."""
    folder = tmp_path_factory.mktemp("models")
    pinned = [f"{name}=={version(name)}" for name in ("mlflow", "pandas")]
    wanted = {"crashing": pinned, "demanding": ["numpy==99.9"]}
    log_models(platform.tracking_uri, folder, wanted)
    client = MlflowClient(platform.tracking_uri, platform.tracking_uri)
    run = client.create_run("0").info
    client.create_registered_model("hollow")
    client.create_model_version("hollow", f"{run.artifact_uri}/model", run_id=run.run_id)
    models = {
        "quota": None,
        "refused": None,
        "crashing": only("crashing"),
        "demanding": only("demanding"),
        "hollow": only("hollow"),
        "unknown": only("no-such-model", alias="candidate"),
        "unpullable": only("employment", alias="candidate"),
    }
    refusing = [POLICY, BINDING]
    namespaces: list[dict[str, Any]] = []
    objects: list[dict[str, Any]] = []
    for name, references in models.items():
        labels = {"e2e": "failures", "refuses": "pods" if name == "refused" else "nothing"}
        metadata = {"name": f"e2e-{name}", "labels": labels}
        namespaces.append({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        if name == "quota":
            objects.append(QUOTA | {"metadata": {"name": "none", "namespace": "e2e-quota"}})
        serving = {**ONE, "replicas": 0} if name == "unpullable" else ONE
        spec = {"serving": serving} | ({"models": references} if references else {})
        objects.append(manifest(name, f"e2e-{name}", **spec))
    platform.kubectl("apply", "-f", "-", given=json.dumps(listed([*refusing, *namespaces])))
    eventually(lambda: refuses_pods(platform), what="the policy that refuses pods")
    platform.kubectl("apply", "-f", "-", given=json.dumps(listed(objects)))
    yield platform
    platform.kubectl("delete", "namespace", "-l", "e2e=failures", "--wait=false")
    platform.kubectl("delete", "-f", "-", given=json.dumps(listed(refusing)))


def refuses_pods(ground: Ground) -> bool:
    """Tell whether the policy is in force: the API server takes it up a moment after it has it."""
    pod = ("run", "anything", "--image=none", "--dry-run=server")
    try:
        ground.kubectl("-n", "e2e-refused", *pod)
    except DemoError as error:
        return "not on a Friday" in str(error)
    return False


def listed(objects: list[dict[str, Any]]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "List", "items": objects}


def told(ground: Ground, name: str, type_: str, reason: str, seconds: float = 180) -> str:
    """Wait until a condition has a reason; give its message. What it had instead is shown."""

    def found() -> str:
        condition = conditions(ground, name, f"e2e-{name}").get(type_, {})
        return str(condition["message"]) if condition.get("reason") == reason else ""

    try:
        return str(eventually(found, seconds, f"{type_} {reason}"))
    except AssertionError:
        raise AssertionError(
            json.dumps(conditions(ground, name, f"e2e-{name}"), indent=1)
        ) from None


def test_a_model_that_is_not_there(broken: Ground) -> None:
    assert "no-such-model" in told(broken, "unknown", "ModelsResolved", "ModelNotFound")
    assert conditions(broken, "unknown", "e2e-unknown")["Stalled"]["status"] == "True"


def test_a_version_without_artifacts(broken: Ground) -> None:
    assert "hollow" in told(broken, "hollow", "ImageReady", "ArtifactNotFound")


def test_a_requirement_that_nobody_can_fulfil(broken: Ground) -> None:
    message = told(broken, "demanding", "ImageReady", "RequirementsUnresolvable")
    assert "numpy==99.9" in message


def test_no_room_for_the_pods(broken: Ground) -> None:
    message = told(broken, "quota", "Available", "QuotaExceeded")
    assert "pods=0" in message.replace("limited: ", "")


def test_pods_that_are_refused(broken: Ground) -> None:
    assert "not on a Friday" in told(broken, "refused", "Available", "AdmissionRefused")


def test_an_image_that_cannot_be_pulled(broken: Ground) -> None:
    told(broken, "unpullable", "Ready", "ScaledToZero")
    live = broken.deployment("unpullable", "e2e-unpullable")
    reference = live["status"]["image"]["reference"]
    host, _, path = reference.partition("/")
    repository, digest = path.split("@")
    url = f"http://{host}/v2/{repository}/manifests/{digest}"
    urllib.request.urlopen(urllib.request.Request(url, method="DELETE")).close()
    ask = ("-n", "e2e-unpullable")
    broken.kubectl(*ask, "scale", "modeldeployment", "unpullable", "--replicas=1")
    message = told(broken, "unpullable", "Available", "ImagePullFailed")
    assert reference in message
    # The way out that the message names; whoever else asks for this image needs it back as well.
    assert "modelops.dev/rebuild" in message
    broken.kubectl(*ask, "annotate", "modeldeployment", "unpullable", "modelops.dev/rebuild=1")
    told(broken, "unpullable", "Available", "MinimumReplicasAvailable")


def test_a_pod_that_crashes_is_quoted(broken: Ground) -> None:
    message = told(broken, "crashing", "Available", "PodsCrashing")
    assert "the lookup table is not there" in message
    assert "exit" in message


def test_what_goes_wrong_is_told_once_as_an_event(broken: Ground) -> None:
    told(broken, "unknown", "ModelsResolved", "ModelNotFound")
    listing = broken.kubectl(
        *("-n", "e2e-unknown", "get", "events", "-o", "json"),
        *("--field-selector", "involvedObject.kind=ModelDeployment,reason=ModelNotFound"),
    )
    assert len(json.loads(listing)["items"]) == 1


def test_a_registry_of_models_that_is_away_stops_nothing(broken: Ground) -> None:
    sandbox = places.find(SANDBOX)
    assert sandbox
    pid = processes.running(sandbox, "mlflow")
    assert pid
    os.killpg(pid, signal.SIGKILL)  # with the worker that answers
    try:
        away = "ModelRegistryUnreachable"

        def unreachable() -> bool:
            every = conditions(broken, "employment", "staging")
            resolved, ready = every["ModelsResolved"], every["Ready"]
            return bool(resolved["reason"] == away and ready["status"] == "True")

        eventually(unreachable, 90)
    finally:
        subprocess.run(
            [sys.executable, "-m", "sandbox", "up", "--name", SANDBOX],
            cwd=ROOT,
            check=True,
            capture_output=True,
        )

    def back() -> bool:
        resolved = conditions(broken, "employment", "staging")["ModelsResolved"]
        return bool(resolved["status"] == "True")

    eventually(back, 90)
