"""The objects that serve one ModelDeployment, as complete manifests.

All are called like the ModelDeployment and are its children: deleted with it, repaired when edited.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from modelops_operator.core.differences import digest, sealed
from modelops_operator.core.release import RELEASE, Release
from modelops_operator.core.state import ChildRef, Manifest

TEMPLATE = "modelops.dev/template"
"""Annotation of the Deployment: the pod template as it was generated, see `remembered_template`."""

DEPLOYMENT_LABEL = "modelops.dev/deployment"
REVISION_LABEL = "modelops.dev/revision"

PORT = 3000
USER = 65532
GRACE_SECONDS = 30
DRAIN_SECONDS = 5
START_SECONDS = 120
PROGRESS_SECONDS = 300

KINDS = ("ServiceAccount", "NetworkPolicy", "Service", "PodDisruptionBudget", "Deployment")
"""What a ModelDeployment has, in the order in which it is created."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """The ModelDeployment that the children belong to."""

    name: str
    namespace: str
    uid: str

    @property
    def selector(self) -> dict[str, str]:
        """Labels that select the pods."""
        return {DEPLOYMENT_LABEL: self.name}

    def child(self, kind: str) -> ChildRef:
        """Name the child of this kind."""
        return ChildRef(kind, self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What of the spec goes into the pods besides the release."""

    resources: Mapping[str, Any]
    """Requests and limits of the container, as Kubernetes knows them."""
    window: timedelta
    """The time over which the pods count before they write a line of telemetry."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A generated pod template and the inputs that it was generated from."""

    inputs: str
    """Digest of release, settings and owner."""
    pod: Manifest

    def to_json(self) -> str:
        """Write the annotation."""
        content = {"inputs": self.inputs, "pod": self.pod}
        return json.dumps({**content, "seal": digest(content)}, sort_keys=True)


def companions(owner: Owner) -> tuple[Manifest, ...]:
    """Give the children that need no release, so that they are there before the pods are."""
    return tuple(
        sealed(manifest)
        for manifest in (
            _service_account(owner),
            _network_policy(owner),
            _service(owner),
            _disruption_budget(owner),
        )
    )


def template(owner: Owner, release: Release, settings: Settings, live: Manifest | None) -> Template:
    """Give the pod template: the remembered one as long as its inputs are the same.

    A later operator may generate another template from the same inputs. That must not restart the
    pods: they take the new one with their next release.
    """
    inputs = _inputs(owner, release, settings)
    remembered = remembered_template(live)
    if remembered is not None and remembered.inputs == inputs:
        return remembered
    return Template(inputs=inputs, pod=_pod_template(owner, release, settings))


def remembered_template(live: Manifest | None) -> Template | None:
    """Read the annotation of the live Deployment; None when it is missing, damaged or edited."""
    text = (live or {}).get("metadata", {}).get("annotations", {}).get(TEMPLATE, "")
    try:
        data = json.loads(text)
        seal = data.pop("seal")
        found = Template(inputs=data["inputs"], pod=data["pod"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return found if digest(data) == seal else None


def deployment(owner: Owner, release: Release, pods: Template, replicas: int) -> Manifest:
    """Give the Deployment that runs `release` in pods of the given template."""
    annotations = {RELEASE: release.to_json(), TEMPLATE: pods.to_json()}
    manifest = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _metadata(owner, annotations),
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": owner.selector},
            # All new pods start at once, so that a rollout takes as long as one start, and no old
            # pod goes before its replacement answers. Where there is no room for all of them, they
            # follow one by one as old ones go. The price is the double of the resources meanwhile.
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": "100%", "maxUnavailable": 0},
            },
            "revisionHistoryLimit": 2,
            "progressDeadlineSeconds": PROGRESS_SECONDS,
            "template": pods.pod,
        },
    }
    return sealed(manifest)


def is_ours(owner: Owner, live: Manifest) -> bool:
    """Whether the live object is controlled by this very ModelDeployment."""
    return _controller(live).get("uid") == owner.uid


def is_predecessors(owner: Owner, live: Manifest) -> bool:
    """Whether it belongs to a deleted ModelDeployment of the same name: it is about to go."""
    controller = _controller(live)
    names = (controller.get("kind"), controller.get("name"))
    return names == ("ModelDeployment", owner.name) and controller.get("uid") != owner.uid


def _controller(live: Manifest) -> Mapping[str, Any]:
    owners = live.get("metadata", {}).get("ownerReferences") or []
    return next((reference for reference in owners if reference.get("controller")), {})


def _inputs(owner: Owner, release: Release, settings: Settings) -> str:
    return digest(
        {
            "owner": [owner.namespace, owner.name],
            "revision": release.revision,
            "resources": settings.resources,
            "window": settings.window.total_seconds(),
        }
    )


def _metadata(owner: Owner, annotations: Mapping[str, str] | None = None) -> dict[str, Any]:
    return {
        "name": owner.name,
        "namespace": owner.namespace,
        "labels": _labels(owner),
        "annotations": dict(annotations or {}),
        "ownerReferences": [
            {
                "apiVersion": "modelops.dev/v1alpha1",
                "kind": "ModelDeployment",
                "name": owner.name,
                "uid": owner.uid,
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ],
    }


def _labels(owner: Owner) -> dict[str, str]:
    return {
        "app.kubernetes.io/name": "model-server",
        "app.kubernetes.io/instance": owner.name,
        "app.kubernetes.io/managed-by": "modelops-operator",
        **owner.selector,
    }


def _service_account(owner: Owner) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": _metadata(owner),
        "automountServiceAccountToken": False,
    }


def _network_policy(owner: Owner) -> dict[str, Any]:
    """Let requests in and nothing out.

    The models are in the image and telemetry leaves by standard output, so that a pod has nobody to
    call, not even DNS. Policies add up: whose own model needs a way out writes a second policy for
    the label `modelops.dev/deployment`.
    """
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": _metadata(owner),
        "spec": {
            "podSelector": {"matchLabels": owner.selector},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"ports": [{"port": PORT, "protocol": "TCP"}]}],
        },
    }


def _service(owner: Owner) -> dict[str, Any]:
    port = {
        "name": "http",
        "port": 80,
        "targetPort": "http",
        "protocol": "TCP",
        "appProtocol": "http",
    }
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(owner),
        "spec": {"type": "ClusterIP", "selector": owner.selector, "ports": [port]},
    }


def _disruption_budget(owner: Owner) -> dict[str, Any]:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": _metadata(owner),
        "spec": {
            "selector": {"matchLabels": owner.selector},
            "maxUnavailable": 1,
            # A pod that crashes anyway must not keep a node from being drained.
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }


def _pod_template(owner: Owner, release: Release, settings: Settings) -> dict[str, Any]:
    return {
        "metadata": {"labels": {**_labels(owner), REVISION_LABEL: release.revision}},
        "spec": {
            "serviceAccountName": owner.name,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            # Time for the drain, for the requests still in work and for the last line of telemetry.
            "terminationGracePeriodSeconds": GRACE_SECONDS,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": USER,
                "runAsGroup": USER,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "topologySpreadConstraints": [
                {
                    "maxSkew": 1,
                    "topologyKey": "kubernetes.io/hostname",
                    "whenUnsatisfiable": "ScheduleAnyway",
                    "labelSelector": {"matchLabels": owner.selector},
                    # Old pods, about to go, must not push new ones onto one node.
                    "matchLabelKeys": ["pod-template-hash"],
                }
            ],
            "containers": [_container(owner, release, settings)],
            "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}}],
        },
    }


def _container(owner: Owner, release: Release, settings: Settings) -> dict[str, Any]:
    return {
        "name": "server",
        "image": release.reference,
        "imagePullPolicy": "IfNotPresent",
        "ports": [{"name": "http", "containerPort": PORT, "protocol": "TCP"}],
        "env": _environment(owner, release, settings),
        **({"resources": settings.resources} if settings.resources else {}),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        # The start-up probe asks every second, so that a pod serves the moment it can.
        "startupProbe": _probe("/readyz", period=1, timeout=2, failures=START_SECONDS),
        "readinessProbe": _probe("/readyz", period=2, timeout=2, failures=3),
        "livenessProbe": _probe("/livez", period=10, timeout=5, failures=6),
        # The pod goes on answering while its address disappears from the Service's endpoints.
        "lifecycle": {"preStop": {"sleep": {"seconds": DRAIN_SECONDS}}},
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108 - a volume of its own
    }


def _environment(owner: Owner, release: Release, settings: Settings) -> list[dict[str, Any]]:
    pod_name = {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}
    return [
        {"name": "MODELOPS_DEPLOYMENT", "value": f"{owner.namespace}/{owner.name}"},
        {"name": "MODELOPS_REVISION", "value": release.revision},
        {"name": "MODELOPS_WINDOW_SECONDS", "value": str(int(settings.window.total_seconds()))},
        {"name": "MODELOPS_POD", "valueFrom": pod_name},
    ]


def _probe(path: str, *, period: int, timeout: int, failures: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": path, "port": "http"},
        "periodSeconds": period,
        "timeoutSeconds": timeout,
        "failureThreshold": failures,
    }
