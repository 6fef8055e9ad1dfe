"""The chart's admission policy and the operator judge alike, on a real API server."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from modelops_operator.api.config import PolicyConfig

from tests.apiserver import Kubectl, http_client
from tests.chart.chart import VALUES, merged, render

pytestmark = pytest.mark.contract

KINDS = {"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"}
MODELS = [
    {"namespaces": ["policy-a"], "models": ["employment*", "main.census.*"]},
    {"namespaces": ["policy-*", "other"], "models": ['odd "name" (v+1)', "common"]},
]
NAMESPACES = ("policy-a", "policy-b")
NAMES = (
    *("employment", "employment_drift", "my_employment", "main.census.income", "mainXcensusYa"),
    *("common", "commons", 'odd "name" (v+1)', "odd name v1", "Beschäftigung"),
)


def policies(policy: dict[str, Any], **operator: Any) -> list[dict[str, Any]]:
    values = merged(VALUES, {"policy": policy, "operator": operator})
    return [each for each in render(values) if each["kind"] in KINDS]


def manifest(name: str, namespace: str, **models: str) -> dict[str, Any]:
    return {
        "apiVersion": "modelops.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "models": {role: {"name": model, "version": "1"} for role, model in models.items()}
        },
    }


def test_without_entries_there_is_no_policy() -> None:
    assert policies({}) == []
    assert policies({"models": MODELS, "admission": False}) == []
    assert {each["kind"] for each in policies({"models": MODELS})} == KINDS


@pytest.fixture(scope="module")
def connection(apiserver: Path) -> Iterator[httpx.Client]:
    """An API server with the policy, and an object in it that was there before."""
    kubectl, rendered = Kubectl(apiserver), yaml.safe_dump_all(policies({"models": MODELS}))
    for namespace in NAMESPACES:
        kubectl("create", "namespace", namespace)
    former = json.dumps(manifest("former", "policy-b", predictor="employment"))
    kubectl("apply", "--server-side", "-f", "-", stdin=former)
    kubectl("apply", "--server-side", "--validate=strict", "-f", "-", stdin=rendered)
    with http_client(apiserver) as client:
        deadline = time.monotonic() + 30
        while create(client, manifest("a", "policy-b", predictor="employment")).is_success:
            assert time.monotonic() < deadline, "the policy is never heeded"
            time.sleep(0.2)
        yield client
    kubectl("delete", "-f", "-", stdin=rendered)
    kubectl("delete", "namespace", *NAMESPACES, "--wait=false")


def create(connection: httpx.Client, body: dict[str, Any]) -> httpx.Response:
    namespace = body["metadata"]["namespace"]
    path = f"/apis/modelops.dev/v1alpha1/namespaces/{namespace}/modeldeployments"
    return connection.post(path, params={"dryRun": "All"}, json=body)


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_both_judge_alike(connection: httpx.Client, namespace: str) -> None:
    policy = PolicyConfig.model_validate({"models": MODELS})
    for name in NAMES:
        answer = create(connection, manifest("new", namespace, predictor=name))
        assert answer.is_success == policy.allows(namespace, name), (name, answer.text)


def test_every_model_is_looked_at_and_the_refusal_tells_the_way_out(
    connection: httpx.Client,
) -> None:
    body = manifest("new", "policy-b", predictor="common", drift="common", outlier="employment")
    answer = create(connection, body)
    assert answer.status_code == 403
    message = answer.json()["message"]
    assert "the namespace policy-b may not deploy the models employment: choose others" in message
    assert "policy.models in the operator's configuration" in message


def test_what_was_there_before_can_be_scaled_annotated_and_deleted(
    connection: httpx.Client,
) -> None:
    path = "/apis/modelops.dev/v1alpha1/namespaces/policy-b/modeldeployments/former"
    headers = {"Content-Type": "application/merge-patch+json"}

    def patch(change: dict[str, Any]) -> httpx.Response:
        return connection.patch(path, content=json.dumps(change), headers=headers)

    assert patch({"spec": {"serving": {"replicas": 2}}}).is_success
    assert patch({"metadata": {"annotations": {"modelops.dev/reconcile": "1"}}}).is_success
    models = {"predictor": {"name": "employment", "version": "2"}}
    assert patch({"spec": {"models": models}}).status_code == 403
    assert patch({"metadata": {"finalizers": ["example.com/slow"]}}).is_success
    assert connection.delete(path).is_success
    assert patch({"metadata": {"finalizers": []}}).is_success
    assert connection.get(path).status_code == 404


def test_with_namespaces_of_its_own_it_judges_no_others() -> None:
    policy = next(
        each
        for each in policies({"models": MODELS}, namespaces=["staging"])
        if each["kind"] == "ValidatingAdmissionPolicy"
    )
    conditions = [each["expression"] for each in policy["spec"]["matchConditions"]]
    assert 'request.namespace in ["staging"]' in conditions
