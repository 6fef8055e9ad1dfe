"""Objects that the end-to-end tests apply."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from demo.ground import Ground

MODELS = {
    "predictor": {"name": "employment", "alias": "candidate"},
    "drift": {"name": "employment_drift", "alias": "candidate"},
    "outlier": {"name": "employment_outlier", "alias": "candidate"},
}


def manifest(name: str, namespace: str, **spec: Any) -> dict[str, Any]:
    """A ModelDeployment of the demo's models; `spec` overrides whole fields."""
    return {
        "apiVersion": "modelops.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": name, "namespace": namespace, "annotations": {"team": "census"}},
        "spec": {
            "models": deepcopy(MODELS),
            "serving": {
                "replicas": 2,
                "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}},
            },
            "monitoring": {"window": "5s"},
            **spec,
        },
    }


def conditions(ground: Ground, name: str, namespace: str) -> Mapping[str, Mapping[str, Any]]:
    """The conditions of a ModelDeployment by type."""
    status = ground.deployment(name, namespace).get("status", {})
    return {one["type"]: one for one in status.get("conditions", [])}
