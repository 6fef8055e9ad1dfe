"""A model of everything around `reconcile`: a cluster as dictionaries, obeying the same rules.

It stands in for nothing that is integrated with: the end-to-end tests run against the real thing.
Here it lets Hypothesis go through thousands of histories.
"""

import copy
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from modelops_operator.api.config import OperatorConfig
from modelops_operator.api.facts import Failure, ModelVersion, Pod, Role, Signed
from modelops_operator.api.resources import ModelDeployment
from modelops_operator.core.reconcile import reconcile
from modelops_operator.core.state import ChildRef, Event, Health, Observed, Plan

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
BASE = "registry.example:5000/modelops/base@sha256:" + "b" * 64
NAMES = {
    Role.PREDICTOR: "employment",
    Role.DRIFT: "employment_drift",
    Role.OUTLIER: "employment_outlier",
}
DEPLOYMENT = ChildRef("Deployment", "employment")
AUTOSCALER = ChildRef("HorizontalPodAutoscaler", "employment")
CHILDREN = {
    ChildRef(kind, "employment")
    for kind in ("Deployment", "NetworkPolicy", "PodDisruptionBudget", "Service", "ServiceAccount")
}


def configuration(**changes: Any) -> OperatorConfig:
    content: dict[str, Any] = {
        "mlflow": {"trackingUri": "http://mlflow.example:5000", "settle": "10s"},
        "registry": {"host": "registry.example:5000", "prefix": "modelops"},
        "builder": {"bases": {"3.11": BASE}},
    }
    return OperatorConfig.model_validate(content | changes)


def version(role: Role, number: str, train_id: str | None = "t") -> ModelVersion:
    """Give a version whose training is called after its number, unless told otherwise."""
    return ModelVersion(
        name=NAMES[role],
        version=number,
        run_id=f"run-{role}-{number}",
        source=f"mlflow-artifacts:/{role}/{number}",
        train_id=f"training-{number}" if train_id == "t" else train_id,
    )


def manifest(**spec: Any) -> dict[str, Any]:
    """Give a ModelDeployment as a user would write it, as the API server returns it at first."""
    models = {str(role): {"name": NAMES[role], "alias": "candidate"} for role in Role}
    return {
        "apiVersion": "modelops.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {
            "name": "employment",
            "namespace": "staging",
            "uid": "uid-1",
            "generation": 1,
            "annotations": {},
        },
        "spec": {
            "models": models,
            "serving": {
                "replicas": 2,
                "resources": {"requests": {"cpu": "0.5", "memory": "1024Mi"}},
            },
        }
        | spec,
        "status": {"observedGeneration": -1},
    }


def conditions(status: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Give status and reason of each condition."""
    return {
        condition["type"]: (condition["status"], condition["reason"])
        for condition in status.get("conditions", ())
    }


def message(status: Mapping[str, Any], type_: str) -> str:
    """Give the message of a condition."""
    found: str = next(
        condition["message"] for condition in status["conditions"] if condition["type"] == type_
    )
    return found


@dataclass
class Cluster:
    """One ModelDeployment and all that is around it."""

    object: dict[str, Any] = field(default_factory=manifest)
    registry: dict[Role, ModelVersion | Failure] = field(
        default_factory=lambda: {role: version(role, "1") for role in Role}
    )
    images: dict[str, dict[str, Any]] = field(default_factory=dict)
    children: dict[ChildRef, dict[str, Any]] = field(default_factory=dict)
    pods: tuple[Pod, ...] = ()
    signatures: dict[str, Signed | Failure] = field(default_factory=dict)
    health: Health | None = None
    write_failures: dict[ChildRef, Failure] = field(default_factory=dict)
    now: datetime = START
    config: OperatorConfig = field(default_factory=configuration)
    broken_builds: set[str] = field(default_factory=set)
    """Versions of the predictor whose image cannot be built."""
    plain_versions: set[str] = field(default_factory=set)
    """Versions of the predictor that have no fast form."""
    broken_versions: set[str] = field(default_factory=set)
    """Versions of the predictor whose pods crash."""
    events: list[Event] = field(default_factory=list)
    replica_owners: set[str] = field(default_factory=set)
    """Field managers that own the Deployment's number of replicas."""
    lowest_replicas: int = 1000
    """The fewest replicas that an apply of ours has left, since it was set."""
    written: Counter[str] = field(default_factory=Counter)
    """Writes by their kind, `status` for one that says something else than the one before."""

    # --- what the user does ----------------------------------------------------------------

    def edit(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Change the spec, as `kubectl apply` does."""
        before = copy.deepcopy(self.object["spec"])
        change(self.object["spec"])
        if self.object["spec"] != before:
            self.object["metadata"]["generation"] += 1

    def annotate(self, name: str, value: str) -> None:
        self.object["metadata"]["annotations"][name] = value

    # --- what the operator does ------------------------------------------------------------

    @property
    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.object["status"]
        return found

    @property
    def conditions(self) -> dict[str, tuple[str, str]]:
        return conditions(self.status)

    def observe(self) -> Observed:
        return Observed(
            models=dict(self.registry),
            images=copy.deepcopy(self.images),
            children=copy.deepcopy(self.children),
            pods=self.pods,
            signatures=dict(self.signatures),
            health=self.health,
            write_failures=dict(self.write_failures),
        )

    def decide(self) -> Plan:
        """Make the plan, without executing it."""
        desired = ModelDeployment.model_validate(copy.deepcopy(self.object))
        return reconcile(desired, self.observe(), now=self.now, config=self.config)

    def decide_conditions(self) -> dict[str, tuple[str, str]]:
        """Give the conditions that the plan has."""
        return conditions(self.decide().status)

    def reconcile(self, *, killed_after: int | None = None) -> Plan:
        """Make the plan and execute it, or only its first writes."""
        plan = self.decide()
        for write in self._writes(plan)[:killed_after]:
            write()
        self.now += timedelta(seconds=1)
        return plan

    def converge(self) -> None:
        """Let everybody act until nobody has anything to do."""
        for _ in range(20):
            plan = self.reconcile()
            acted = self.build() | self.roll()
            if not acted and not plan.apply and plan.status == self.decide().status:
                return
        raise AssertionError(f"it never comes to rest: {self.status}")

    def _writes(self, plan: Plan) -> list[Callable[[], None]]:
        writes: list[Callable[[], None]] = []
        if plan.image is not None:
            writes.append(lambda: self._create_image(plan.image))
        if plan.handover is not None:
            writes.append(lambda: self._hand_over(plan.handover))
        writes += [partial(self.apply, child) for child in plan.apply]
        writes += [partial(self._delete, ref) for ref in plan.delete]
        writes.append(lambda: self._write_status(plan))
        return writes

    def _create_image(self, image: Any) -> None:
        live = copy.deepcopy(dict(image))
        live["metadata"]["generation"] = 1
        live["status"] = {"observedGeneration": -1}
        assert live["metadata"]["name"] not in self.images
        self.written["ModelImage"] += 1
        self.images[live["metadata"]["name"]] = live

    def _write_status(self, plan: Plan) -> None:
        assert json.loads(json.dumps(plan.status)) == plan.status, "not as JSON would have it"
        self.written["status"] += self.status != plan.status
        self.object["status"] = copy.deepcopy(dict(plan.status))
        self.events += plan.events

    def apply(self, child: Mapping[str, Any]) -> None:
        """Do as the API server does with a server-side apply of a manifest in full."""
        ref = ChildRef(child["kind"], child["metadata"]["name"])
        self.written[ref.kind] += 1
        old = self.children.get(ref)
        new = normalised(child)
        if ref == DEPLOYMENT:
            self._apply_replicas(old, new)
        new["metadata"] |= {"generation": 1, "uid": f"uid of {ref.kind}"}
        if old is not None:
            new["metadata"]["generation"] = old["metadata"]["generation"] + (
                old.get("spec") != new.get("spec")
            )
            new |= {"status": old["status"]} if "status" in old else {}
        self.children[ref] = new

    def _apply_replicas(self, old: Mapping[str, Any] | None, new: dict[str, Any]) -> None:
        """Do as the API server does: what nobody owns any more goes back to its default."""
        before = 1 if old is None else old["spec"]["replicas"]
        owners = self.replica_owners - {"us"} if old is not None else set()
        if "replicas" in new["spec"]:
            kept = owners if new["spec"]["replicas"] == before else set()
            self.replica_owners = {"us"} | kept
        else:
            self.replica_owners = owners
            new["spec"]["replicas"] = before if owners else 1
        self.lowest_replicas = min(self.lowest_replicas, new["spec"]["replicas"])

    def _delete(self, ref: ChildRef) -> None:
        self.written[ref.kind] += 1
        del self.children[ref]

    def _hand_over(self, manifest: Any) -> None:
        self.written["handover"] += 1
        live = self.children[DEPLOYMENT]
        if live["spec"]["replicas"] != manifest["spec"]["replicas"]:
            live["spec"]["replicas"] = manifest["spec"]["replicas"]
            live["metadata"]["generation"] += 1
            self.replica_owners = set()
        self.replica_owners.add("handover")

    def autoscale(self, replicas: int) -> None:
        """Do as a HorizontalPodAutoscaler does, where there is one."""
        live = self.children.get(DEPLOYMENT)
        if live is not None and AUTOSCALER in self.children and live["spec"]["replicas"] != 0:
            live["spec"]["replicas"] = replicas
            live["metadata"]["generation"] += 1
            self.replica_owners = {"autoscaler"}

    # --- what the others do ----------------------------------------------------------------

    def build(self) -> bool:
        """Let the builder act. Tells whether it had anything to do."""
        before = copy.deepcopy(self.images)
        for image in self.images.values():
            predictor = image["spec"]["models"][0]["version"]
            profile = image["spec"]["runtime"].get("profile", "Auto")
            plain = predictor in self.plain_versions
            if predictor in self.broken_builds:
                image["status"] = failed_build()
            elif plain and profile == "Fast":
                image["status"] = failed_build("FastFormMissing", "register it with ...")
            else:
                form = "Pyfunc" if plain or profile == "Pyfunc" else "Fast"
                image["status"] = finished_build(image, form)
        return self.images != before

    def roll(self) -> bool:
        """Let the Deployment controller and the kubelet act, to the end."""
        live = self.children.get(DEPLOYMENT)
        if live is None:
            acted, self.pods = bool(self.pods), ()
            return acted
        before = copy.deepcopy((live, self.pods))
        image = live["spec"]["template"]["spec"]["containers"][0]["image"]
        if self.versions_by_reference.get(image) in self.broken_versions:
            self._crash(live)
        else:
            self._serve(live)
        return (live, self.pods) != before

    @property
    def versions_by_reference(self) -> dict[str, str]:
        """Tell which version of the predictor is in each image."""
        return {
            image["status"]["image"]["reference"]: image["spec"]["models"][0]["version"]
            for image in self.images.values()
            if "image" in image["status"]
        }

    def _serve(self, live: dict[str, Any]) -> None:
        replicas = live["spec"]["replicas"]
        live["status"] = deployment_status(live, updated=replicas, available=replicas)
        self.pods = tuple(
            pod(f"p{index}", revision_of(live), ready=True) for index in range(replicas)
        )

    def _crash(self, live: dict[str, Any]) -> None:
        """The new pods crash; the old ones go on, as maxUnavailable is 0."""
        replicas, revision = live["spec"]["replicas"], revision_of(live)
        old = [p for p in self.pods if p.ready and p.revision != revision][:replicas]
        crashing = [
            pod(f"c{index}", revision, exit_code=1, terminated="Error", restarts=4, log_tail="boom")
            for index in range(replicas)
        ]
        self.pods = tuple(old + crashing)
        live["status"] = deployment_status(
            live, updated=replicas, total=len(self.pods), available=len(old)
        )


def pod(name: str, revision: str, *, ready: bool = False, **more: Any) -> Pod:
    return Pod(name=name, revision=revision, ready=ready, phase="Running", created=START, **more)


def revision_of(live: Mapping[str, Any]) -> str:
    revision: str = live["spec"]["template"]["metadata"]["labels"]["modelops.dev/revision"]
    return revision


def deployment_status(
    live: Mapping[str, Any],
    *,
    updated: int,
    available: int,
    total: int | None = None,
    progressing: str = "NewReplicaSetAvailable",
) -> dict[str, Any]:
    """Give a Deployment's status; counts of zero are absent, as the API server has it."""
    counts = {
        "replicas": updated if total is None else total,
        "updatedReplicas": updated,
        "readyReplicas": available,
        "availableReplicas": available,
    }
    return {
        "observedGeneration": live["metadata"]["generation"],
        **{key: value for key, value in counts.items() if value},
        "conditions": [{"type": "Progressing", "status": "True", "reason": progressing}],
    }


def finished_build(image: Mapping[str, Any], form: str = "Fast") -> dict[str, Any]:
    digest = "sha256:" + hashlib.sha256(json.dumps(image["spec"]).encode()).hexdigest()
    reference = f"{image['spec']['repository']}@{digest}"
    return {
        "observedGeneration": 1,
        "image": {
            "reference": reference,
            "digest": digest,
            "lock": "sha256:" + "c" * 64,
            "form": form,
        },
        "conditions": [condition("Ready", "True", "Built", "pushed")],
    }


def failed_build(
    reason: str = "RequirementsUnresolvable", text: str = "no wheels for pandas==99"
) -> dict[str, Any]:
    told = (reason, text)
    return {
        "observedGeneration": 1,
        "conditions": [
            condition("Ready", "False", *told),
            condition("Stalled", "True", *told),
        ],
    }


def condition(type_: str, status: str, reason: str, text: str) -> dict[str, Any]:
    return {"type": type_, "status": status, "reason": reason, "message": text}


# --- what the API server makes of a manifest -----------------------------------------------


def normalised(child: Mapping[str, Any]) -> dict[str, Any]:
    """Add the API server's defaults, write quantities its way, and drop what is empty."""
    live = copy.deepcopy(dict(child))
    live["metadata"] |= {"resourceVersion": "1", "creationTimestamp": "2026-03-01T12:00:00Z"}
    if child["kind"] in DEFAULTS:
        DEFAULTS[child["kind"]](live)
    pruned: dict[str, Any] = _prune(live)
    return pruned


def _prune(tree: Any) -> Any:
    if isinstance(tree, dict):
        kept = {key: _prune(value) for key, value in tree.items()}
        return {
            key: value
            for key, value in kept.items()
            if value not in ([], {}) or key in {"podSelector", "emptyDir"}
        }
    return [_prune(item) for item in tree] if isinstance(tree, list | tuple) else tree


def _default_deployment(live: dict[str, Any]) -> None:
    spec = live["spec"]["template"]["spec"]
    usual = {"dnsPolicy": "ClusterFirst", "restartPolicy": "Always", "schedulerName": "default"}
    spec |= usual | spec
    spec["serviceAccount"] = spec["serviceAccountName"]
    container = spec["containers"][0]
    container |= {"terminationMessagePolicy": "File", "terminationMessagePath": "/dev/log"}
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        container[name] |= {"successThreshold": 1}
        container[name]["httpGet"]["scheme"] = "HTTP"
    for amounts in container.get("resources", {}).values():
        amounts |= {key: CANONICAL.get(value, value) for key, value in amounts.items()}


def _default_service(live: dict[str, Any]) -> None:
    live["spec"] |= {
        "clusterIP": "10.96.0.7",
        "clusterIPs": ["10.96.0.7"],
        "internalTrafficPolicy": "Cluster",
        "sessionAffinity": "None",
    }


CANONICAL = {"0.5": "500m", "1024Mi": "1Gi", "1.0": "1", "2000m": "2"}
DEFAULTS: Mapping[str, Callable[[dict[str, Any]], None]] = {
    "Deployment": _default_deployment,
    "Service": _default_service,
}
