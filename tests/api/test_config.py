"""The configuration file of the operator and the builder."""

import re
from datetime import timedelta
from pathlib import Path

import pytest
from modelops_operator.api.config import (
    ConfigError,
    MonitoringBackend,
    PodSecurity,
    PolicyConfig,
    VerificationMode,
    configured_path,
    load,
)
from modelops_operator.api.maintenance import Day

pytestmark = pytest.mark.unit

LEAST = """
mlflow: {trackingUri: "http://mlflow:5000"}
registry: {host: "registry:5000"}
"""
DIGEST = "sha256:" + "0" * 64
WORKSPACE = "00000000-1111-2222-3333-444444444444"
CLUSTER = (
    "/subscriptions/s/resourceGroups/rg/providers/Microsoft.ContainerService/managedClusters/aks"
)
FULL = f"""
mlflow: {{trackingUri: "http://10.1.1.1:5001", pollInterval: 2s, settle: 500ms}}
registry:
  host: "10.1.1.1:5000"
  prefix: team/models
  insecure: true
  auth: DockerConfig
  dockerConfig: /c.json
builder:
  indexUrls: ["https://pypi.example.com/simple"]
  caBundle: null
  concurrency: 3
  python: "3.12"
  bases: {{"3.12": "10.1.1.1:5000/modelops/base@{DIGEST}"}}
  platforms: [linux/arm64]
  signing: {{key: /cosign.key}}
  runtimeBundle: /runtime
verification: {{mode: Enforce, keys: /cosign.pub}}
monitoring:
  backend: LogAnalytics
  interval: 1s
  logAnalytics:
    workspaceId: {WORKSPACE}
    resourceId: {CLUSTER}
    endpoint: https://api.loganalytics.us
    audience: https://api.loganalytics.us
    interval: 30s
    lag: 3m
    overlap: 1m
    lookback: 1h
operator:
  namespace: models
  namespaces: [staging]
  workers: 2
  sweepInterval: 1m
  leaderElection: {{enabled: false, leaseName: other}}
  maintenanceWindow: {{days: [Sat], start: "02:30", duration: 2h, timeZone: Europe/Berlin}}
  metricsPort: 9090
  healthPort: 9091
policy:
  models: [{{namespaces: [staging], models: ["employment*"]}}]
  podSecurity: Privileged
runtime: {{version: "0.2.0"}}
"""


def write(folder: Path, content: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(content)
    return path


def test_the_least_is_filled_in(tmp_path: Path) -> None:
    config = load(write(tmp_path, LEAST))

    assert config.mlflow.poll_interval == timedelta(seconds=30)
    assert config.registry.prefix == "modelops"
    assert config.monitoring.backend is MonitoringBackend.POD_LOGS
    assert config.operator.leader_election.enabled
    assert config.builder.index_urls == ("https://pypi.org/simple",)


def test_everything_is_read(tmp_path: Path) -> None:
    config = load(write(tmp_path, FULL))

    assert config.mlflow.settle == timedelta(seconds=0.5)
    assert config.registry.docker_config == Path("/c.json")
    assert config.builder.bases["3.12"].endswith(DIGEST)
    assert config.builder.ca_bundle is None
    assert config.builder.signing.key == Path("/cosign.key")
    assert config.verification.mode is VerificationMode.ENFORCE
    assert config.verification.keys == Path("/cosign.pub")
    assert config.operator.namespaces == ("staging",)
    assert config.operator.leader_election.lease_name == "other"
    assert config.runtime.version == "0.2.0"
    assert config.policy.allows("staging", "employment_drift")
    assert config.policy.pod_security is PodSecurity.PRIVILEGED
    assert config.operator.maintenance_window is not None
    assert config.operator.maintenance_window.days == (Day.SAT,)
    assert config.monitoring.backend is MonitoringBackend.LOG_ANALYTICS
    assert config.monitoring.log_analytics.resource_id == CLUSTER
    assert config.monitoring.log_analytics.lag == timedelta(minutes=3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "mlflow: is required; registry: is required"),
        ("a: [", "is not YAML"),
        ("- a", "must be an object with fields"),
        (LEAST + "registy: {}", "registy: is not a field that this version knows"),
        (
            LEAST.replace("http://mlflow:5000", "mlflow:5000"),
            "mlflow.trackingUri: must match ^(https?://",
        ),
        (LEAST + "operator: {workers: 0}", "operator.workers: must be at least 1 (is 0)"),
        (LEAST + 'operator: {workers: "4"}', "operator.workers: must be a whole number"),
        (LEAST + "operator: {sweepInterval: 300}", "operator.sweepInterval: must be a duration"),
        (LEAST + "verification: {mode: Enforce}", "verification: mode Enforce needs keys"),
        (LEAST + "verification: {mode: Warn}", "verification.mode: must be one of 'Disabled'"),
        (LEAST + "monitoring: {backend: Loki}", "monitoring.backend: must be one of 'PodLogs'"),
        (
            LEAST + "monitoring: {backend: LogAnalytics}",
            "monitoring: backend LogAnalytics needs to",
        ),
        (LEAST + "monitoring: {logAnalytics: {workspaceId: logs}}", "workspaceId: must match"),
        (LEAST + "monitoring: {logAnalytics: {resourceId: aks}}", "resourceId: must match"),
        (LEAST + "monitoring: {logAnalytics: {summaryTable: Logs}}", "summaryTable: must match"),
        (
            LEAST + "monitoring: {logAnalytics: {summaryTable: Logs_CL}}",
            "summaryTable 'Logs_CL' belongs to a workspace: give logAnalytics.workspaceId",
        ),
        (
            LEAST
            + f"monitoring: {{logAnalytics: {{workspaceId: {WORKSPACE}, summaryTable: Logs_CL}}}}",
            "lag is 5m, and a summary rule runs every 20 minutes at most: give 30m or more",
        ),
        (LEAST + "monitoring: {logAnalytics: {lag: 300}}", "logAnalytics.lag: must be a duration"),
        (LEAST + "monitoring: {logAnalytics: {endpoint: 'http://a.io'}}", "endpoint: must match"),
        (
            LEAST.replace('"registry:5000"', '"r", auth: ACR, insecure: true'),
            "registry: auth ACR needs https",
        ),
        (
            LEAST.replace('"registry:5000"', '"r", auth: DockerConfig'),
            "registry: auth DockerConfig needs dockerConfig",
        ),
        (LEAST.replace('"registry:5000"', '"r", auth: Azure'), "registry.auth: must be one of"),
        (LEAST + 'builder: {bases: {"3.11": "r/base:3.11"}}', "builder.bases.3.11: must match"),
        (LEAST + "policy: {models: [{namespaces: [a]}]}", "policy.models[0].models: is required"),
        (LEAST + "policy: {podSecurity: None}", "podSecurity: must be one of 'Restricted'"),
        (LEAST + "builder: {python: 3.11}", "builder.python: must be text; put it in quotes"),
    ],
)
def test_mistakes_are_told(tmp_path: Path, content: str, message: str) -> None:
    path = write(tmp_path, content)
    with pytest.raises(ConfigError, match=re.escape(message)) as refusal:
        load(path)
    assert str(path) in str(refusal.value)


@pytest.mark.parametrize(
    ("namespace", "model", "allowed"),
    [
        ("staging", "employment", True),
        ("staging", "employment_drift", True),
        ("staging", "unemployment", False),
        ("production", "employment", False),
        ("team-a", "main.census.x", True),
        ("team-a", "mainXcensus.x", False),
        ("team-a", "employment", False),
        ("team", "main.census.x", False),
    ],
)
def test_the_policy_says_which_namespaces_may_deploy_which_models(
    namespace: str,
    model: str,
    allowed: bool,  # noqa: FBT001 - a table
) -> None:
    policy = PolicyConfig.model_validate(
        {
            "models": [
                {"namespaces": ["staging"], "models": ["employment*"]},
                {"namespaces": ["team-*"], "models": ["main.census.*"]},
            ]
        }
    )
    assert policy.allows(namespace, model) is allowed
    assert PolicyConfig().allows(namespace, model)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file or directory; mount it there, or name"):
        load(tmp_path / "none.yaml")


def test_the_path_can_be_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MODELOPS_CONFIG", raising=False)
    assert configured_path() == Path("/etc/modelops/config.yaml")
    monkeypatch.setenv("MODELOPS_CONFIG", "/tmp/c.yaml")
    assert configured_path() == Path("/tmp/c.yaml")
