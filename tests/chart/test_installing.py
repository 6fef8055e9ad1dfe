"""The chart on a real API server: taken as it is, as narrow as it says, and gone without a loss."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.api.objects import GOOD
from tests.apiserver import Kubectl, http_client, program
from tests.chart.chart import CHART, EVERYTHING, VALUES, helm, merged, render

pytestmark = pytest.mark.contract

NAMESPACE = "modelops-system"
OPERATOR = f"system:serviceaccount:{NAMESPACE}:modelops-operator"
BUILDER = f"system:serviceaccount:{NAMESPACE}:modelops-builder"
FLAGS = ("--namespace", NAMESPACE, "--take-ownership", "--values=-")


@pytest.fixture(scope="module")
def kubectl(apiserver: Path) -> Iterator[Kubectl]:
    """The namespaces are there; the first enforces the restricted pod security standard."""
    kubectl = Kubectl(apiserver)
    kubectl("create", "namespace", "staging")
    kubectl("create", "namespace", "other")
    label = "pod-security.kubernetes.io/enforce=restricted"
    kubectl("label", "namespace", NAMESPACE, label)
    yield kubectl
    kubectl("delete", "namespace", "staging", "other", "--wait=false")
    kubectl("label", "namespace", NAMESPACE, f"{label.partition('=')[0]}-")


@pytest.mark.parametrize("values", [VALUES, EVERYTHING], ids=["least", "everything"])
def test_the_api_server_takes_everything(kubectl: Kubectl, values: dict[str, Any]) -> None:
    manifests = yaml.safe_dump_all(render(values))
    flags = ("--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict")
    kubectl("apply", *flags, "-f", "-", stdin=manifests)


@pytest.mark.parametrize("values", [VALUES, EVERYTHING], ids=["least", "everything"])
def test_every_pod_passes_the_restricted_standard(kubectl: Kubectl, values: dict[str, Any]) -> None:
    manifests = render(values)
    pods = [each for each in manifests if each["kind"] == "Pod"]
    pods += [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": each["metadata"]["name"], "namespace": NAMESPACE},
            "spec": each["spec"]["template"]["spec"],
        }
        for each in manifests
        if each["kind"] == "Deployment"
    ]
    assert len(pods) == 3
    for pod in pods:
        assert pod["spec"]["containers"][0]["securityContext"]["readOnlyRootFilesystem"]
        kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(pod))


@pytest.mark.parametrize("values", [VALUES, EVERYTHING], ids=["least", "everything"])
def test_kubeconform_finds_nothing(
    kubectl: Kubectl, values: dict[str, Any], tmp_path: Path
) -> None:
    manifests = render(values)
    swagger = json.loads(kubectl("get", "--raw", "/openapi/v2"))
    write_schemas(swagger, {each["kind"] for each in manifests}, tmp_path)
    done = subprocess.run(
        [
            str(program("kubeconform")),
            "-strict",
            "-summary",
            "-schema-location",
            f"{tmp_path}/{{{{.Group}}}}-{{{{.ResourceAPIVersion}}}}-{{{{.ResourceKind}}}}.json",
        ],
        input=yaml.safe_dump_all(manifests),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Invalid: 0, Errors: 0, Skipped: 0" in done.stdout


def write_schemas(swagger: dict[str, Any], kinds: set[str], folder: Path) -> None:
    """Write what the API server says of these kinds as JSON schemas that take nothing else."""
    definitions = {name: _closed(schema) for name, schema in swagger["definitions"].items()}
    for name, schema in definitions.items():
        for kind in schema.get("x-kubernetes-group-version-kind", ()):
            if kind["kind"] in kinds:
                group = kind["group"] or kind["version"]  # as kubeconform takes apiVersion apart
                path = folder / f"{group}-{kind['version']}-{kind['kind'].lower()}.json"
                needed = {each: definitions[each] for each in _reachable(definitions, name)}
                content = {"$ref": f"#/definitions/{name}", "definitions": needed}
                path.write_text(json.dumps(content))


def _reachable(definitions: dict[str, Any], name: str) -> set[str]:
    found, waiting = set(), {name}
    while waiting:
        each = waiting.pop()
        found.add(each)
        references = re.findall(r'"#/definitions/([^"]+)"', json.dumps(definitions[each]))
        waiting |= set(references) - found
    return found


def _closed(schema: dict[str, Any]) -> dict[str, Any]:
    if schema.get("format") == "int-or-string":
        return {"type": ["string", "integer"]}
    if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        return {**schema, "additionalProperties": False}
    return schema


@pytest.fixture(scope="module")
def installed(kubectl: Kubectl) -> Iterator[Kubectl]:
    """The release, whose operator serves the namespace staging alone."""
    values = merged(VALUES, {"operator": {"namespaces": ["staging"]}})
    install(kubectl, values)
    yield kubectl
    helm("uninstall", "modelops", "--namespace", NAMESPACE, kubeconfig=kubectl.kubeconfig)


def install(kubectl: Kubectl, values: dict[str, Any]) -> None:
    done = helm(
        *("upgrade", "--install", "modelops", str(CHART), *FLAGS),
        kubeconfig=kubectl.kubeconfig,
        stdin=yaml.safe_dump(values),
    )
    assert done.returncode == 0, done.stderr


CHILDREN = (
    "deployments.apps",
    "services",
    "serviceaccounts",
    "poddisruptionbudgets.policy",
    "networkpolicies.networking.k8s.io",
)
READ = ("get", "list", "watch")
MAY = (
    *((OPERATOR, "staging", verb, "modeldeployments.modelops.dev") for verb in READ),
    (OPERATOR, "staging", "patch", "modeldeployments.modelops.dev/status"),
    *(
        (OPERATOR, "staging", verb, child)
        for child in CHILDREN
        for verb in (*READ, "create", "patch")
    ),
    (OPERATOR, "staging", "delete", "horizontalpodautoscalers.autoscaling"),
    *((OPERATOR, "staging", verb, "pods") for verb in ("list", "watch")),
    (OPERATOR, "staging", "get", "pods/log"),
    (OPERATOR, "staging", "create", "events"),
    *(
        (OPERATOR, NAMESPACE, verb, "modelimages.modelops.dev")
        for verb in (*READ, "create", "delete")
    ),
    (OPERATOR, NAMESPACE, "create", "leases.coordination.k8s.io"),
    (OPERATOR, NAMESPACE, "update", "leases.coordination.k8s.io/modelops-operator"),
    *((BUILDER, NAMESPACE, verb, "modelimages.modelops.dev") for verb in READ),
    (BUILDER, NAMESPACE, "patch", "modelimages.modelops.dev/status"),
    (BUILDER, NAMESPACE, "create", "leases.coordination.k8s.io"),
    (BUILDER, NAMESPACE, "update", "leases.coordination.k8s.io/modelops-operator-builder"),
)
MAY_NOT = (
    (OPERATOR, "other", "list", "modeldeployments.modelops.dev"),
    (OPERATOR, "staging", "patch", "modeldeployments.modelops.dev"),
    (OPERATOR, "staging", "update", "modeldeployments.modelops.dev"),
    (OPERATOR, "staging", "delete", "modeldeployments.modelops.dev"),
    *((OPERATOR, space, "get", "secrets") for space in (NAMESPACE, "staging", "other")),
    (OPERATOR, "staging", "create", "pods"),
    (OPERATOR, "staging", "delete", "pods"),
    (OPERATOR, "staging", "delete", "deployments.apps"),
    (OPERATOR, "staging", "get", "pods"),
    (OPERATOR, "staging", "create", "pods/exec"),
    (OPERATOR, "other", "create", "deployments.apps"),
    (OPERATOR, NAMESPACE, "create", "deployments.apps"),
    (OPERATOR, NAMESPACE, "patch", "modelimages.modelops.dev/status"),
    (OPERATOR, NAMESPACE, "update", "leases.coordination.k8s.io/another"),
    (OPERATOR, "staging", "list", "modelimages.modelops.dev"),
    (OPERATOR, NAMESPACE, "list", "pods"),
    (OPERATOR, "staging", "create", "roles.rbac.authorization.k8s.io"),
    (BUILDER, NAMESPACE, "create", "modelimages.modelops.dev"),
    (BUILDER, NAMESPACE, "delete", "modelimages.modelops.dev"),
    (BUILDER, NAMESPACE, "get", "secrets"),
    (BUILDER, NAMESPACE, "update", "leases.coordination.k8s.io/modelops-operator"),
    (BUILDER, "staging", "list", "modelimages.modelops.dev"),
    (BUILDER, "staging", "list", "modeldeployments.modelops.dev"),
    (BUILDER, NAMESPACE, "list", "pods"),
)


def allowed(connection: httpx.Client, who: str, where: str, verb: str, what: str) -> bool:
    resource, _, rest = what.partition("/")
    attributes = {"namespace": where, "verb": verb}
    attributes["resource"], _, attributes["group"] = resource.partition(".")
    attributes["name" if resource.startswith("leases") else "subresource"] = rest
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": who,
            "groups": ["system:serviceaccounts", "system:authenticated"],
            "resourceAttributes": attributes,
        },
    }
    answer = connection.post("/apis/authorization.k8s.io/v1/subjectaccessreviews", json=review)
    return bool(answer.json()["status"]["allowed"])


def test_what_operator_and_builder_may(installed: Kubectl) -> None:
    with http_client(installed.kubeconfig) as connection:
        refused = [case for case in MAY if not allowed(connection, *case)]
    assert refused == []


def test_what_operator_and_builder_may_not(installed: Kubectl) -> None:
    with http_client(installed.kubeconfig) as connection:
        granted = [case for case in MAY_NOT if allowed(connection, *case)]
    assert granted == []


def test_uninstalling_loses_nothing_and_installing_again_takes_it_up(installed: Kubectl) -> None:
    manifest = GOOD[0].manifest()
    installed("apply", "--namespace=staging", "-f", "-", stdin=json.dumps(manifest))
    before = installed(
        "get", "mdep", "--namespace=staging", "-o", "jsonpath={.items[*].metadata.uid}"
    )

    done = helm("uninstall", "modelops", "--namespace", NAMESPACE, kubeconfig=installed.kubeconfig)
    assert done.returncode == 0, done.stderr
    after = installed(
        "get", "mdep", "--namespace=staging", "-o", "jsonpath={.items[*].metadata.uid}"
    )
    assert before
    assert after == before
    assert installed("get", "deployments", "--namespace", NAMESPACE, "-o", "name") == ""

    install(installed, merged(VALUES, {"operator": {"namespaces": ["staging"]}}))
    again = installed(
        "get", "mdep", "--namespace=staging", "-o", "jsonpath={.items[*].metadata.uid}"
    )
    installed("delete", "mdep", "--all", "--namespace=staging")
    assert again == before


def test_roles_of_people_reach_the_cluster_s_own() -> None:
    manifests = render(VALUES)
    labels = {
        each["metadata"]["name"]: each["metadata"]["labels"]
        for each in manifests
        if each["kind"] == "ClusterRole"
    }
    key = "rbac.authorization.k8s.io/aggregate-to"
    assert labels["modelops-operator-view"][f"{key}-view"] == "true"
    assert f"{key}-view" not in labels["modelops-operator-edit"]
    assert labels["modelops-operator-edit"][f"{key}-edit"] == "true"
