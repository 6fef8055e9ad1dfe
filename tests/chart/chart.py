"""The chart, rendered by the real Helm."""

import os
import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.apiserver import program

CHART = Path(__file__).parents[2] / "charts" / "modelops-operator"
DIGEST = "sha256:" + "0" * 64
GUID = "00000000-1111-2222-3333-444444444444"
AZURE_ID = "11111111-2222-3333-4444-555555555555"
VALUES: dict[str, Any] = {
    "mlflow": {"trackingUri": "http://10.1.1.1:5001"},
    "registry": {"host": "10.1.1.1:5000"},
    "builder": {"bases": {"3.11": f"10.1.1.1:5000/modelops/base@{DIGEST}"}},
}
EVERYTHING: dict[str, Any] = {
    "imagePullSecrets": [{"name": "pull"}],
    "mlflow": {
        "trackingUri": "https://mlflow.example.com",
        "pollInterval": "2s",
        "settle": "500ms",
        "credentialsSecret": "mlflow",
    },
    "registry": {
        "host": "acme.azurecr.io",
        "prefix": "team/models",
        "auth": "ACR",
        "azure": {"clientId": AZURE_ID, "tenantId": AZURE_ID},
        "credentialsSecret": "registry",
        "dockerConfigSecret": "docker",
    },
    "caBundle": {"pem": "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"},
    "verification": {
        "mode": "Enforce",
        "keys": {"existingConfigMap": "trusted", "key": "keys.pem"},
        "credentialsSecret": "reader",
        "dockerConfigSecret": "reading",
    },
    "monitoring": {
        "backend": "LogAnalytics",
        "logAnalytics": {"workspaceId": GUID, "lag": "3m"},
        "webhook": {"url": "https://pager.example.com/", "existingSecret": "pager", "key": "whsec"},
    },
    "policy": {
        "models": [{"namespaces": ["census-*"], "models": ["employment*"]}],
        "podSecurity": "Privileged",
    },
    "operator": {
        "maintenanceWindow": {"days": ["Sun"], "start": "02:30", "duration": "2h"},
        "workloadIdentity": {"clientId": GUID, "tenantId": GUID},
        "image": {"repository": "acme.azurecr.io/operator", "digest": DIGEST},
        "replicas": 2,
        "resources": {"limits": {"cpu": "1", "memory": "1Gi"}},
        "podAnnotations": {"a": "b"},
        "podLabels": {"team": "census"},
        "extraEnv": [{"name": "LOG_LEVEL", "value": "debug"}],
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"key": "system", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}
        ],
        "priorityClassName": "system-cluster-critical",
        "serviceAccount": {"annotations": {"owner": "census"}},
    },
    "builder": {
        "image": {"tag": "edge"},
        "replicas": 2,
        "bases": {"3.12": f"acme.azurecr.io/base@{DIGEST}"},
        "python": "3.12",
        "indexUrls": ["https://pypi.example.com/simple", "https://pypi.org/simple"],
        "indexCredentialsSecret": "index",
        "wheelsClaim": "wheels",
        "signing": {"existingSecret": "signing", "key": "key.pem"},
        "scratch": "20Gi",
    },
}


def helm(
    *arguments: str, kubeconfig: Path | None = None, stdin: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run Helm and give everything that came of it."""
    environment = {**os.environ, "KUBECONFIG": str(kubeconfig or os.devnull)}
    return subprocess.run(
        [str(program("helm")), *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env=environment,
    )


def render(values: dict[str, Any], *flags: str) -> list[dict[str, Any]]:
    """Render the chart as `helm install modelops --namespace modelops-system` would."""
    done = attempt(values, *flags)
    assert done.returncode == 0, done.stderr
    # libyaml: the reader in Python takes longer than Helm.
    return [document for document in yaml.load_all(done.stdout, yaml.CSafeLoader) if document]


def attempt(values: dict[str, Any], *flags: str) -> subprocess.CompletedProcess[str]:
    """Render the chart, which may fail."""
    arguments = ("template", "modelops", str(CHART), "--namespace=modelops-system")
    return helm(*arguments, "--values=-", *flags, stdin=yaml.safe_dump(values))


def merged(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """Give both trees as one, the second one winning."""
    result = dict(base)
    for key, value in change.items():
        inner = result.get(key)
        is_tree = isinstance(inner, dict) and isinstance(value, dict)
        result[key] = merged(result[key], value) if is_tree else value
    return result


def find(manifests: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    """Give the one manifest of that kind and name."""
    (found,) = [
        manifest
        for manifest in manifests
        if manifest["kind"] == kind and manifest["metadata"]["name"] == name
    ]
    return found


def container(manifests: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """Give the container of the Deployment of that name."""
    pod = find(manifests, "Deployment", name)["spec"]["template"]["spec"]
    (only,) = pod["containers"]
    return dict(only)


def granted(manifests: list[dict[str, Any]], account: str) -> set[tuple[str, str]]:
    """Give verb and resource of all roles that are bound to an account."""
    roles = {
        (binding["roleRef"]["kind"], binding["roleRef"]["name"])
        for binding in manifests
        if binding["kind"].endswith("RoleBinding")
        and any(subject["name"] == account for subject in binding["subjects"])
    }
    return {
        (verb, resource)
        for manifest in manifests
        if (manifest["kind"], manifest["metadata"]["name"]) in roles
        for rule in manifest["rules"]
        for verb in rule["verbs"]
        for resource in rule["resources"]
    }
