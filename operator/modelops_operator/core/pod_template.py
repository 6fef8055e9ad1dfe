"""The pods that serve one release: generated from it, and from what the user says of them.

A later operator may generate another template from the same inputs. That must not restart the pods,
so the template travels in an annotation of the Deployment with a digest of its inputs.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from modelops_operator.api.facts import Failure
from modelops_operator.api.pods import OWN_DOMAIN, OWN_LABELS, OWN_VOLUME, is_own_variable
from modelops_operator.api.reasons import Reason
from modelops_operator.core.differences import digest
from modelops_operator.core.findings import bounded
from modelops_operator.core.overlay import OverlayError, merged
from modelops_operator.core.owner import Owner
from modelops_operator.core.pod_security import violations
from modelops_operator.core.release import Release
from modelops_operator.core.state import Manifest

TEMPLATE = "modelops.dev/template"
"""Annotation of the Deployment: the pod template as it was generated, see `remembered_template`."""
REVISION_LABEL = "modelops.dev/revision"
CONTAINER = "server"

PORT = 3000
USER = 65532
GRACE_SECONDS = 30
DRAIN_SECONDS = 5
START_SECONDS = 120

SPREAD = (
    {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
    },
)
"""How pods are spread where the user does not say."""
SHOWN = 4
"""Fields that a refusal names."""
AS_THEY_ARE = ("nodeSelector", "tolerations", "affinity", "priorityClassName", "imagePullSecrets")
"""Fields of `spec.serving` that are fields of a pod's spec."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What of the spec goes into the pods besides the release."""

    resources: Mapping[str, Any]
    """Requests and limits of the container, as Kubernetes knows them."""
    window: timedelta
    """The time over which the pods count before they write a line of telemetry."""
    pods: Mapping[str, Any] = field(default_factory=dict)
    """What `api.pods.PodSettings` has, as it is written."""


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


def generated(owner: Owner, release: Release, settings: Settings) -> Template:
    """Give the template as this operator makes it. Raises OverlayError, see `objection`."""
    base = _pod_template(owner, release, settings)
    pod = merged(base, settings.pods.get("podTemplate", {}))
    return Template(inputs=_inputs(owner, release, settings), pod=pod)


def remembered_template(live: Manifest | None) -> Template | None:
    """Read the annotation of the live Deployment; None when it is missing, damaged or edited."""
    text = (live or {}).get("metadata", {}).get("annotations", {}).get(TEMPLATE, "")
    try:
        data = json.loads(text)
        seal = data.pop("seal")
        found = Template(inputs=data["inputs"], pod=data["pod"])
        return found if digest(data) == seal else None
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def objection(owner: Owner, settings: Settings, *, restricted: bool) -> Failure | None:
    """Say why `spec.serving.podTemplate` is refused; None where it is not.

    Nothing else of the spec can weaken the pods.
    """
    overlay = settings.pods.get("podTemplate")
    if not overlay:
        return None
    nothing = Release(models=(), reference="", lock="", runtime="")
    base = _pod_template(owner, nothing, settings)
    try:
        pod = merged(base, overlay)
    except OverlayError as error:
        return _refusal([str(error)], "")
    touched = [*_touched(base, pod)]
    if touched:
        return _refusal(touched, "; leave to the operator what it needs")
    weakened = violations(pod) if restricted else ()
    if weakened:
        way_out = (
            " under the restricted pod security standard; mend it, or have the operator's"
            " configuration allow it (policy.podSecurity: Privileged)"
        )
        return _refusal(weakened, way_out)
    return None


def _refusal(told: Iterable[str], way_out: str) -> Failure:
    first = list(told)[:SHOWN]  # so that the way out is not cut off
    message = "; ".join(f"spec.serving.podTemplate.{each}" for each in first)
    return Failure(
        reason=Reason.POD_TEMPLATE_REFUSED, message=bounded(message + way_out), permanent=True
    )


def _touched(base: Manifest, pod: Manifest) -> Iterator[str]:
    """Name what of the operator's own the overlay changes."""
    labels = (pod.get("metadata") or {}).get("labels") or {}
    for name, value in base["metadata"]["labels"].items():
        if labels.get(name) != value and (name in OWN_LABELS or name.startswith(OWN_DOMAIN)):
            yield f"metadata.labels[{name}] must stay {value!r}"
    containers = (pod.get("spec") or {}).get("containers") or ()
    server = next((one for one in containers if one["name"] == CONTAINER), None)
    if server is None:
        yield f"spec.containers[{CONTAINER}] must stay"
        return
    former = base["spec"]["containers"][0]
    for name in ("image", "ports"):
        if server.get(name) != former[name]:
            yield f"spec.containers[{CONTAINER}].{name} must not be given"
    own = {one["name"]: one for one in former["env"] if is_own_variable(one["name"])}
    given = {one["name"]: one for one in server.get("env", ()) if is_own_variable(one["name"])}
    for name in sorted(own.keys() | given.keys()):
        if own.get(name) != given.get(name):
            yield f"spec.containers[{CONTAINER}].env[{name}] must not be given"


def _inputs(owner: Owner, release: Release, settings: Settings) -> str:
    return digest(
        {
            **settings.pods,
            "owner": [owner.namespace, owner.name],
            "revision": release.revision,
            "resources": settings.resources,
            "window": settings.window.total_seconds(),
        }
    )


def _pod_template(owner: Owner, release: Release, settings: Settings) -> dict[str, Any]:
    given = settings.pods
    return {
        "metadata": {
            "labels": {
                **given.get("podLabels", {}),
                **owner.labels,
                REVISION_LABEL: release.revision,
            },
            **_present("annotations", given.get("podAnnotations")),
        },
        "spec": {
            **{name: given[name] for name in AS_THEY_ARE if name in given},
            "serviceAccountName": given.get("serviceAccountName", owner.name),
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
                _spread(owner, wish) for wish in given.get("topologySpreadConstraints", SPREAD)
            ],
            "containers": [_container(owner, release, settings)],
            "volumes": [
                {"name": OWN_VOLUME, "emptyDir": {"sizeLimit": "1Gi"}},
                *given.get("volumes", ()),
            ],
        },
    }


def _spread(owner: Owner, wish: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **wish,
        "labelSelector": {"matchLabels": owner.selector},
        # Old pods, about to go, must not push new ones onto one node.
        "matchLabelKeys": ["pod-template-hash"],
    }


def _container(owner: Owner, release: Release, settings: Settings) -> dict[str, Any]:
    return {
        "name": CONTAINER,
        "image": release.reference,
        "imagePullPolicy": "IfNotPresent",
        "ports": [{"name": "http", "containerPort": PORT, "protocol": "TCP"}],
        "env": _environment(owner, release, settings),
        **_present("envFrom", settings.pods.get("envFrom")),
        **_present("resources", settings.resources),
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
        "volumeMounts": [
            {"name": OWN_VOLUME, "mountPath": "/tmp"},  # noqa: S108 - a volume of its own
            *settings.pods.get("volumeMounts", ()),
        ],
    }


def _present(name: str, value: Any) -> dict[str, Any]:
    """Give the field; nothing where it would be empty."""
    return {name: value} if value else {}


def _environment(owner: Owner, release: Release, settings: Settings) -> list[dict[str, Any]]:
    pod_name = {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}
    return [
        {"name": "MODELOPS_DEPLOYMENT", "value": f"{owner.namespace}/{owner.name}"},
        {"name": "MODELOPS_REVISION", "value": release.revision},
        {"name": "MODELOPS_WINDOW_SECONDS", "value": str(int(settings.window.total_seconds()))},
        {"name": "MODELOPS_POD", "valueFrom": pod_name},
        *settings.pods.get("env", ()),
    ]


def _probe(path: str, *, period: int, timeout: int, failures: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": path, "port": "http"},
        "periodSeconds": period,
        "timeoutSeconds": timeout,
        "failureThreshold": failures,
    }
