"""The objects that serve one ModelDeployment, as complete manifests.

All are called like the ModelDeployment and are its children: deleted with it, repaired when edited.
"""

from typing import Any

from modelops_operator.api.pods import Autoscaling
from modelops_operator.api.resources import Serving
from modelops_operator.core.differences import sealed
from modelops_operator.core.owner import Owner
from modelops_operator.core.pod_template import PORT, TEMPLATE, Template
from modelops_operator.core.release import RELEASE, Release
from modelops_operator.core.state import Manifest

PROGRESS_SECONDS = 300

KINDS = ("ServiceAccount", "NetworkPolicy", "Service", "PodDisruptionBudget", "Deployment")
"""What every ModelDeployment has, in the order in which it is created."""
AUTOSCALER = "HorizontalPodAutoscaler"
SCALED_BY = "modelops.dev/scaled-by"
"""Annotation of the Deployment: who owns the number of its replicas, if not we."""


def kinds(serving: Serving) -> tuple[str, ...]:
    """Name the kinds of children that the spec asks for."""
    return KINDS if serving.autoscaling is None else (*KINDS, AUTOSCALER)


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


def deployment(owner: Owner, release: Release, pods: Template, replicas: int | None) -> Manifest:
    """Give the Deployment that runs `release` in pods of the given template.

    `replicas` is None where an autoscaler owns their number.
    """
    autoscaled = {SCALED_BY: AUTOSCALER} if replicas is None else {}
    annotations = {RELEASE: release.to_json(), TEMPLATE: pods.to_json(), **autoscaled}
    manifest = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": owner.metadata(annotations),
        "spec": {
            **({} if replicas is None else {"replicas": replicas}),
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


def autoscaler(owner: Owner, scaling: Autoscaling) -> Manifest:
    """Give the HorizontalPodAutoscaler of the Deployment."""
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": owner.name}
    return sealed(
        {
            "apiVersion": "autoscaling/v2",
            "kind": AUTOSCALER,
            "metadata": owner.metadata(),
            "spec": {"scaleTargetRef": target, **scaling.to_spec()},
        }
    )


def handover(live: Manifest, replicas: int) -> Manifest:
    """Give what another field manager applies before we leave the number of replicas out.

    An apply without a field that it alone owned removes it, and with it all pods but one.
    """
    names = {key: live["metadata"][key] for key in ("name", "namespace", "uid")}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": names,
        "spec": {"replicas": replicas},
    }


def _service_account(owner: Owner) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": owner.metadata(),
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
        "metadata": owner.metadata(),
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
        "metadata": owner.metadata(),
        "spec": {"type": "ClusterIP", "selector": owner.selector, "ports": [port]},
    }


def _disruption_budget(owner: Owner) -> dict[str, Any]:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": owner.metadata(),
        "spec": {
            "selector": {"matchLabels": owner.selector},
            "maxUnavailable": 1,
            # A pod that crashes anyway must not keep a node from being drained.
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }
