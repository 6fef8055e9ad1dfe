"""What the chart makes of its values."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from modelops_operator.api.config import OperatorConfig, load

from tests.chart.chart import (
    AZURE_ID,
    CHART,
    DIGEST,
    EVERYTHING,
    GUID,
    VALUES,
    attempt,
    container,
    find,
    helm,
    merged,
    render,
)

pytestmark = pytest.mark.contract

OPERATOR, BUILDER = "modelops-operator", "modelops-builder"


@pytest.fixture(scope="module")
def least() -> list[dict[str, Any]]:
    return render(VALUES)


@pytest.fixture(scope="module")
def everything() -> list[dict[str, Any]]:
    return render(EVERYTHING)


@pytest.mark.parametrize("values", [{}, VALUES, EVERYTHING], ids=["default", "least", "everything"])
def test_lint_finds_nothing(values: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "values.yaml"
    path.write_text(yaml.safe_dump(values))
    done = helm("lint", "--strict", str(CHART), "--values", str(path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[WARNING]" not in done.stdout


@pytest.mark.parametrize("values", [VALUES, EVERYTHING], ids=["least", "everything"])
def test_the_configuration_is_understood(values: dict[str, Any], tmp_path: Path) -> None:
    data = find(render(values), "ConfigMap", OPERATOR)["data"]
    path = tmp_path / "config.yaml"
    path.write_text(data["config.yaml"])
    config = load(path)

    assert config.mlflow.tracking_uri == values["mlflow"]["trackingUri"]
    assert config.registry.host == values["registry"]["host"]
    assert config.operator.namespace == "modelops-system"
    (base,) = values["builder"]["bases"].values()
    assert config.builder.bases == {config.builder.python: base}
    assert config.registry.docker_config == (
        Path("/etc/modelops/registry/config.json") if values is EVERYTHING else None
    )
    assert config.builder.signing.key == (
        Path("/etc/modelops/signing/cosign.key") if values is EVERYTHING else None
    )
    assert config.verification.keys == (
        Path("/etc/modelops/verification/cosign.pub") if values is EVERYTHING else None
    )
    assert config.monitoring.log_analytics.workspace_id == (GUID if values is EVERYTHING else "")
    webhook = config.monitoring.webhook
    assert (webhook and webhook.secret_file) == (
        Path("/etc/modelops/webhook/secret") if values is EVERYTHING else None
    )
    assert config.builder.ca_bundle == (
        Path("/etc/modelops/ca/ca.crt") if values is EVERYTHING else None
    )


def test_defaults_are_the_same_in_values_and_models() -> None:
    least = {"mlflow": {"trackingUri": "http://m"}, "registry": {"host": "r"}}
    config = yaml.safe_load(find(render(least), "ConfigMap", OPERATOR)["data"]["config.yaml"])
    assert OperatorConfig.model_validate(config) == OperatorConfig.model_validate(least)


def test_every_setting_of_the_models_can_be_set() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())["properties"]
    by_the_chart = {"operator.namespace", "builder.caBundle", "registry.dockerConfig"}
    missing = [
        f"{section.alias}.{field.alias}"
        for section in OperatorConfig.model_fields.values()
        for field in section.annotation.model_fields.values()  # type: ignore[union-attr]
        if field.alias not in schema[section.alias]["properties"]
    ]
    assert set(missing) == by_the_chart


def test_every_value_is_in_the_schema_and_described() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())

    def undescribed(fields: dict[str, Any], described: dict[str, Any], path: str) -> list[str]:
        found = []
        for key, value in fields.items():
            entry = described.get(key, {})
            if "description" not in entry:
                found.append(f"{path}{key}")
            if isinstance(value, dict) and "properties" in entry:
                found += undescribed(value, entry["properties"], f"{path}{key}.")
        return found

    assert undescribed(values, schema["properties"], "") == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mlfow": {}}, "mlfow"),
        ({"operator": {"replica": 2}}, "replica"),
        ({"operator": {"replicas": "2"}}, "integer"),
        ({"operator": {"image": {"digest": "latest"}}}, "digest"),
        ({"mlflow": {"pollInterval": 30}}, "pollInterval"),
        ({"builder": {"bases": {"3.11": "r/base:3.11"}}}, "bases"),
        ({"builder": {"python": 3.11}}, "python"),
        ({"registry": {"auth": "Azure"}}, "auth"),
        ({"verification": {"mode": "Warn"}}, "mode"),
        ({"verification": {"mode": False}}, "mode"),
        ({"builder": {"signing": {"existingSecret": "A B"}}}, "existingSecret"),
        ({"registry": {"azure": {"clientId": "builder"}}}, "clientId"),
        ({"caBundle": {"pem": "/etc/ssl/cert.pem"}}, "pem"),
        ({"monitoring": {"backend": "Loki"}}, "backend"),
        ({"policy": {"models": [{"namespaces": ["a"]}]}}, "models"),
        ({"policy": {"podSecurity": "None"}}, "podSecurity"),
        ({"operator": {"maintenanceWindow": {"start": "02:30"}}}, "maintenanceWindow"),
        ({"monitoring": {"backend": "LogAnalytics"}}, "logAnalytics"),
        ({"monitoring": {"logAnalytics": {"workspaceId": "logs"}}}, "workspaceId"),
        ({"monitoring": {"webhook": {"url": "pager.example.com"}}}, "url"),
        ({"monitoring": {"webhook": {"url": "https://pager.example.com"}}}, "existingSecret"),
        ({"operator": {"workloadIdentity": {"clientId": "operator"}}}, "clientId"),
    ],
)
def test_mistakes_are_refused(change: dict[str, Any], words: str) -> None:
    done = attempt(merged(VALUES, change))
    assert done.returncode == 1
    assert words in done.stderr


@pytest.mark.parametrize(
    ("missing", "words"),
    [("mlflow", "mlflow.trackingUri: give the address"), ("registry", "registry.host: name the")],
)
def test_what_is_required_is_asked_for(missing: str, words: str) -> None:
    done = attempt({key: value for key, value in VALUES.items() if key != missing})
    assert done.returncode == 1
    assert words in done.stderr


def test_images(least: list[dict[str, Any]], everything: list[dict[str, Any]]) -> None:
    assert container(least, OPERATOR)["image"] == "10.1.1.1:5000/modelops/operator:0.1.0"
    assert container(least, BUILDER)["image"] == "10.1.1.1:5000/modelops/builder:0.1.0"
    assert container(everything, OPERATOR)["image"] == f"acme.azurecr.io/operator@{DIGEST}"
    assert container(everything, BUILDER)["image"] == "acme.azurecr.io/team/models/builder:edge"


def test_only_the_builder_gets_the_registry_s_credentials(everything: list[dict[str, Any]]) -> None:
    operator = json.dumps(find(everything, "Deployment", OPERATOR))
    builder = json.dumps(find(everything, "Deployment", BUILDER))
    for secret in ('"registry"', '"docker"', '"index"', '"signing"'):
        assert f'"secretName": {secret}' not in operator
        assert f'"name": {secret}, "key"' not in operator
        assert secret in builder
    for secret in ('"reader"', '"reading"', '"trusted"', '"pager"'):
        assert secret in operator
        assert secret not in builder
    assert '"mlflow"' in operator
    assert '"mlflow"' in builder


def mounted(manifests: list[dict[str, Any]], deployment: str) -> dict[str, tuple[str, Any]]:
    """Give place and source of what is mounted read-only, by name of the volume."""
    pod = find(manifests, "Deployment", deployment)["spec"]["template"]["spec"]
    sources = {each.pop("name"): each for each in pod["volumes"]}
    return {
        each["name"]: (each["mountPath"], sources[each["name"]])
        for each in container(manifests, deployment)["volumeMounts"]
        if each.get("readOnly")
    }


def test_keys_are_mounted_where_the_configuration_says() -> None:
    manifests = render(EVERYTHING)
    items = [{"key": "key.pem", "path": "cosign.key"}]
    assert mounted(manifests, BUILDER)["signing"] == (
        "/etc/modelops/signing",
        {"secret": {"secretName": "signing", "items": items}},
    )
    items = [{"key": "keys.pem", "path": "cosign.pub"}]
    operators = mounted(manifests, OPERATOR)
    assert operators["verification"] == (
        "/etc/modelops/verification",
        {"configMap": {"name": "trusted", "items": items}},
    )
    assert operators["webhook"] == (
        "/etc/modelops/webhook",
        {"secret": {"secretName": "pager", "items": [{"key": "whsec", "path": "secret"}]}},
    )
    keys = {"keys": {"existingSecret": "trusted", "existingConfigMap": ""}}
    manifests = render(merged(EVERYTHING, {"verification": keys}))
    assert mounted(manifests, OPERATOR)["verification"][1] == {
        "secret": {"secretName": "trusted", "items": items}
    }


ENFORCE = {"mode": "Enforce", "keys": {"existingSecret": "trusted"}}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"verification": {"mode": "Enforce"}}, "verification.keys: name an existingSecret or"),
        (
            {
                "verification": {
                    **ENFORCE,
                    "keys": {"existingSecret": "a", "existingConfigMap": "b"},
                }
            },
            "not both",
        ),
        (
            {"verification": ENFORCE, "registry": {"auth": "Basic"}},
            "verification.credentialsSecret: name a Secret",
        ),
        (
            {"verification": ENFORCE, "registry": {"auth": "DockerConfig"}},
            "verification.dockerConfigSecret: name a Secret",
        ),
    ],
)
def test_what_verification_needs_is_asked_for(change: dict[str, Any], words: str) -> None:
    done = attempt(merged(VALUES, change))
    assert done.returncode == 1
    assert words in done.stderr


def test_the_operator_reads_azures_registry_by_its_identity() -> None:
    registry = {"host": "acme.azurecr.io", "auth": "ACR"}
    for values, label in (({}, None), ({"verification": ENFORCE}, "true")):
        manifests = render(merged(VALUES, {"registry": registry, **values}))
        pod = find(manifests, "Deployment", OPERATOR)["spec"]["template"]["metadata"]
        assert pod["labels"].get("azure.workload.identity/use") == label


def test_the_operator_s_workload_identity(
    least: list[dict[str, Any]], everything: list[dict[str, Any]]
) -> None:
    def identity(manifests: list[dict[str, Any]], name: str) -> tuple[dict[str, str], str | None]:
        account = find(manifests, "ServiceAccount", name)["metadata"].get("annotations", {})
        pod = find(manifests, "Deployment", name)["spec"]["template"]["metadata"]["labels"]
        return account, pod.get("azure.workload.identity/use")

    assert identity(everything, OPERATOR) == (
        {
            "azure.workload.identity/client-id": GUID,
            "azure.workload.identity/tenant-id": GUID,
            "owner": "census",
        },
        "true",
    )
    assert identity(least, OPERATOR) == ({}, None)


def test_the_builder_s_workload_identity(
    least: list[dict[str, Any]], everything: list[dict[str, Any]]
) -> None:
    label = "azure.workload.identity/use"

    def labels(manifests: list[dict[str, Any]]) -> dict[str, str]:
        pod = find(manifests, "Deployment", BUILDER)["spec"]["template"]["metadata"]
        return dict(pod["labels"])

    assert labels(everything)[label] == "true"
    assert find(everything, "ServiceAccount", BUILDER)["metadata"]["annotations"] == {
        "azure.workload.identity/client-id": AZURE_ID,
        "azure.workload.identity/tenant-id": AZURE_ID,
    }
    assert label not in labels(least)
    assert "annotations" not in find(least, "ServiceAccount", BUILDER)["metadata"]
    named = render(merged(VALUES, {"registry": {"azure": {"clientId": AZURE_ID}}}))
    assert labels(named)[label] == "true"
    by_label = render(merged(VALUES, {"builder": {"podLabels": {label: "true", "a": "b"}}}))
    assert labels(by_label)[label] == "true"
    assert labels(by_label)["a"] == "b"


def test_a_changed_configuration_restarts_the_pods_and_nothing_else_does(
    least: list[dict[str, Any]],
) -> None:
    def checksums(manifests: list[dict[str, Any]]) -> set[str]:
        return {
            find(manifests, "Deployment", name)["spec"]["template"]["metadata"]["annotations"][
                "modelops.dev/config-checksum"
            ]
            for name in (OPERATOR, BUILDER)
        }

    assert checksums(render(merged(VALUES, {"operator": {"replicas": 2}}))) == checksums(least)
    assert checksums(render(merged(VALUES, {"mlflow": {"settle": "1s"}}))) != checksums(least)
    pem = {"caBundle": {"pem": "-----BEGIN CERTIFICATE-----"}}
    other = {"caBundle": {"pem": "-----BEGIN CERTIFICATE-----\n"}}
    assert checksums(render(merged(VALUES, pem))) != checksums(render(merged(VALUES, other)))


def test_a_budget_comes_with_the_second_replica(
    least: list[dict[str, Any]], everything: list[dict[str, Any]]
) -> None:
    assert not [each for each in least if each["kind"] == "PodDisruptionBudget"]
    assert find(everything, "PodDisruptionBudget", OPERATOR)["spec"]["maxUnavailable"] == 1


def test_certificates_of_a_config_map(least: list[dict[str, Any]]) -> None:
    values = merged(VALUES, {"caBundle": {"configMap": {"name": "trust", "key": "bundle.pem"}}})
    manifests = render(values)
    volumes = find(manifests, "Deployment", BUILDER)["spec"]["template"]["spec"]["volumes"]

    assert {
        "name": "ca",
        "configMap": {"name": "trust", "items": [{"key": "bundle.pem", "path": "ca.crt"}]},
    } in volumes
    assert len([each for each in manifests if each["kind"] == "ConfigMap"]) == 1
    trusted = {"name": "SSL_CERT_FILE", "value": "/etc/modelops/ca/ca.crt"}
    assert trusted in container(manifests, BUILDER)["env"]
    assert trusted not in container(least, BUILDER)["env"]


def test_the_definitions_are_left_out_on_request(least: list[dict[str, Any]]) -> None:
    kind = "CustomResourceDefinition"
    assert len([each for each in least if each["kind"] == kind]) == 2
    without = render(merged(VALUES, {"crds": {"install": False}}))
    assert not [each for each in without if each["kind"] == kind]


def test_other_names() -> None:
    manifests = render(merged(VALUES, {"fullnameOverride": "census"}))
    assert {each["metadata"]["name"] for each in manifests if each["kind"] == "Deployment"} == {
        "census",
        "census-builder",
    }


def test_nothing_is_a_cluster_role_where_namespaces_are_named() -> None:
    manifests = render(
        merged(VALUES, {"operator": {"namespaces": ["staging"]}, "rbac": {"aggregate": False}})
    )
    assert not [each for each in manifests if each["kind"].startswith("ClusterRole")]
    assert find(manifests, "Role", f"{OPERATOR}-deployments")["metadata"]["namespace"] == "staging"
