"""What a user may say of the pods that serve: a validated part of what Kubernetes takes.

The fields are called and shaped as in a Pod, so that what people know holds here, and what this
module reads goes into the pod template as it is. What it does not know goes into `podTemplate`.
"""

from collections.abc import Callable, Mapping
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Final

from pydantic import Field, StringConstraints, WithJsonSchema

from modelops_operator.api.schema import (
    ATOMIC,
    Boolean,
    DurationBetween,
    Fields,
    Integer,
    Quantity,
    Rule,
    keyed_by,
)

OWN_DOMAIN: Final = "modelops.dev/"
OWN_LABELS: Final = tuple(
    f"app.kubernetes.io/{name}" for name in ("name", "instance", "managed-by")
)
OWN_VARIABLES: Final = "MODELOPS_"
TUNABLE_VARIABLES: Final = (
    "MODELOPS_QUEUE",
    "MODELOPS_WORKERS",
    "MODELOPS_LOG_FORMAT",
    "MODELOPS_DETECTOR_SECONDS",
    "MODELOPS_DETECTOR_MEGABYTES",
)
"""Variables of the serving runtime that are the user's to set."""
OWN_VOLUME: Final = "tmp"
OWN_PATHS: Final = ("/", "/tmp", "/opt/bento")  # noqa: S108 - a path in the pod

_DNS_LABEL = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
_DNS_NAME = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
ObjectName = Annotated[str, StringConstraints(min_length=1, max_length=253, pattern=_DNS_NAME)]
VolumeName = Annotated[str, StringConstraints(min_length=1, max_length=63, pattern=_DNS_LABEL)]
LabelKey = Annotated[str, StringConstraints(min_length=1, max_length=317)]
LabelValue = Annotated[
    str,
    StringConstraints(max_length=63, pattern=r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$"),
]
DataKey = Annotated[
    str, StringConstraints(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$")
]
Labels = Annotated[Mapping[str, LabelValue], Field(max_length=64)]
Weight = Annotated[Integer, Field(ge=1, le=100)]


def _exactly_one(*fields: str) -> Rule:
    """Hold that one of the fields is given, and only one; they are named as outside."""
    given = " + ".join(f"(has(self.{field}) ? 1 : 0)" for field in fields)
    return Rule(
        cel=f"{given} == 1",
        message=f"give exactly one of {', '.join(fields)}",
        holds=lambda part: (
            len(part.model_dump(by_alias=True, exclude_none=True).keys() & fields) == 1
        ),
    )


# --- where pods run ------------------------------------------------------------------------


class TolerationOperator(StrEnum):
    """How a toleration compares with a taint."""

    EQUAL = "Equal"
    EXISTS = "Exists"


class TaintEffect(StrEnum):
    """What a taint does to pods that do not tolerate it."""

    NO_SCHEDULE = "NoSchedule"
    PREFER_NO_SCHEDULE = "PreferNoSchedule"
    NO_EXECUTE = "NoExecute"


class Toleration(Fields):
    """A taint of nodes that the pods put up with."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="has(self.key) || has(self.operator) && self.operator == 'Exists'",
            message="give key, or operator Exists to tolerate every taint",
            holds=lambda one: one.key is not None or one.operator is TolerationOperator.EXISTS,
        ),
        Rule(
            cel="!has(self.value) || !has(self.operator) || self.operator != 'Exists'",
            message="operator Exists takes no value",
            holds=lambda one: one.value is None or one.operator is not TolerationOperator.EXISTS,
        ),
        Rule(
            cel="!has(self.tolerationSeconds) || has(self.effect) && self.effect == 'NoExecute'",
            message="tolerationSeconds needs effect NoExecute",
            holds=lambda one: (
                one.toleration_seconds is None or one.effect is TaintEffect.NO_EXECUTE
            ),
        ),
    )

    key: LabelKey | None = None
    """Key of the taint."""
    operator: TolerationOperator | None = None
    """Equal (if not given): the taint has this value. Exists: whatever its value."""
    value: LabelValue | None = None
    """Value of the taint."""
    effect: TaintEffect | None = None
    """Effect of the taint; any if not given."""
    toleration_seconds: Annotated[Integer, Field(ge=0)] | None = None
    """How long a pod stays on a node that gets the taint; for ever if not given."""


class SelectorOperator(StrEnum):
    """How labels of objects are compared."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"


class NodeOperator(StrEnum):
    """How labels of nodes are compared."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"
    GT = "Gt"
    LT = "Lt"


Values = Annotated[
    tuple[LabelValue, ...], Field(min_length=1, max_length=64, json_schema_extra=ATOMIC)
]


class LabelRequirement(Fields):
    """A condition on one label."""

    key: LabelKey
    """Key of the label."""
    operator: SelectorOperator
    """In, NotIn, Exists or DoesNotExist."""
    values: Values | None = None
    """Values, for In and NotIn."""


class LabelSelector(Fields):
    """Selects objects by their labels; all conditions must hold."""

    match_labels: Labels | None = None
    """Labels with exactly these values."""
    match_expressions: (
        Annotated[tuple[LabelRequirement, ...], Field(max_length=32, json_schema_extra=ATOMIC)]
        | None
    ) = None
    """Conditions on single labels."""


class NodeRequirement(Fields):
    """A condition on one label, or one field, of a node."""

    key: LabelKey
    """Key of the label, or path of the field."""
    operator: NodeOperator
    """In, NotIn, Exists, DoesNotExist, Gt or Lt."""
    values: Values | None = None
    """Values: for In and NotIn, and one whole number for Gt and Lt."""


NodeRequirements = Annotated[
    tuple[NodeRequirement, ...], Field(max_length=32, json_schema_extra=ATOMIC)
]


class NodeTerm(Fields):
    """Conditions on a node, all of which must hold."""

    match_expressions: NodeRequirements | None = None
    """Conditions on labels."""
    match_fields: NodeRequirements | None = None
    """Conditions on fields, such as metadata.name."""


class PreferredNodes(Fields):
    """Nodes to be preferred."""

    weight: Weight
    """How much, from 1 to 100."""
    preference: NodeTerm
    """Which."""


class RequiredNodes(Fields):
    """Nodes that are possible at all."""

    node_selector_terms: Annotated[
        tuple[NodeTerm, ...], Field(min_length=1, max_length=16, json_schema_extra=ATOMIC)
    ]
    """A node must fit one of these."""


class NodeAffinity(Fields):
    """Which nodes the pods want."""

    required_during_scheduling_ignored_during_execution: RequiredNodes | None = None
    """Nodes that are possible at all."""
    preferred_during_scheduling_ignored_during_execution: (
        Annotated[tuple[PreferredNodes, ...], Field(max_length=16, json_schema_extra=ATOMIC)] | None
    ) = None
    """Nodes to be preferred."""


class PodTerm(Fields):
    """Pods whose neighbourhood is wanted or not."""

    label_selector: LabelSelector | None = None
    """The pods."""
    namespaces: (
        Annotated[
            tuple[ObjectName, ...],
            Field(max_length=32, json_schema_extra={"x-kubernetes-list-type": "set"}),
        ]
        | None
    ) = None
    """Their namespaces; that of the ModelDeployment if none are given."""
    namespace_selector: LabelSelector | None = None
    """Their namespaces, by label."""
    topology_key: LabelKey
    """Label of nodes that makes neighbours: kubernetes.io/hostname, topology.kubernetes.io/zone."""


class WeightedPodTerm(Fields):
    """Pods whose neighbourhood is preferred or avoided."""

    weight: Weight
    """How much, from 1 to 100."""
    pod_affinity_term: PodTerm
    """Which."""


class PodAffinity(Fields):
    """Which pods the pods want, or do not want, as neighbours."""

    required_during_scheduling_ignored_during_execution: (
        Annotated[tuple[PodTerm, ...], Field(max_length=16, json_schema_extra=ATOMIC)] | None
    ) = None
    """What must hold."""
    preferred_during_scheduling_ignored_during_execution: (
        Annotated[tuple[WeightedPodTerm, ...], Field(max_length=16, json_schema_extra=ATOMIC)]
        | None
    ) = None
    """What is to be preferred."""


class Affinity(Fields):
    """Which nodes and which neighbours the pods want."""

    node_affinity: NodeAffinity | None = None
    """Which nodes the pods want."""
    pod_affinity: PodAffinity | None = None
    """Which pods they want as neighbours."""
    pod_anti_affinity: PodAffinity | None = None
    """Which pods they do not want as neighbours."""


class Unsatisfiable(StrEnum):
    """What happens where pods cannot be spread as asked for."""

    DO_NOT_SCHEDULE = "DoNotSchedule"
    SCHEDULE_ANYWAY = "ScheduleAnyway"


class TopologySpread(Fields):
    """How the pods of the deployment are spread."""

    max_skew: Annotated[Integer, Field(ge=1, le=1000)]
    """By how many pods two places may differ."""
    topology_key: LabelKey
    """Label of nodes that makes a place: kubernetes.io/hostname, topology.kubernetes.io/zone."""
    when_unsatisfiable: Unsatisfiable
    """DoNotSchedule: pods wait. ScheduleAnyway: it is a wish."""
    min_domains: Annotated[Integer, Field(ge=1, le=1000)] | None = None
    """Number of places that there must be, for DoNotSchedule."""


# --- what containers are given -------------------------------------------------------------


class KeyRef(Fields):
    """One entry of a ConfigMap or a Secret in the namespace."""

    name: ObjectName
    """Name of the object."""
    key: DataKey
    """Key of the entry."""
    optional: Boolean | None = None
    """Pods start without it, too."""


class EnvSource(Fields):
    """Where a variable has its value from."""

    rules: ClassVar[tuple[Rule, ...]] = (_exactly_one("configMapKeyRef", "secretKeyRef"),)

    config_map_key_ref: KeyRef | None = None
    """An entry of a ConfigMap."""
    secret_key_ref: KeyRef | None = None
    """An entry of a Secret."""


class EnvVar(Fields):
    """A variable in the environment of the server."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="!has(self.value) || !has(self.valueFrom)",
            message="give value or valueFrom, not both",
            holds=lambda one: one.value is None or one.value_from is None,
        ),
        Rule(
            cel=f"!self.name.startsWith('{OWN_VARIABLES}') || self.name in {[*TUNABLE_VARIABLES]}",
            message=f"variables that begin with {OWN_VARIABLES} are the operator's, but for "
            f"{', '.join(TUNABLE_VARIABLES)}; take another name",
            holds=lambda one: not is_own_variable(one.name),
        ),
    )

    name: Annotated[
        str,
        StringConstraints(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z][-._a-zA-Z0-9]*$"),
    ]
    """Name of the variable."""
    value: Annotated[str, StringConstraints(max_length=32768)] | None = None
    """Its value, as text."""
    value_from: EnvSource | None = None
    """Where it has its value from."""


def is_own_variable(name: str) -> bool:
    """Tell whether an environment variable is set by the operator and nobody else."""
    return name.startswith(OWN_VARIABLES) and name not in TUNABLE_VARIABLES


class ObjectRef(Fields):
    """A ConfigMap or a Secret in the namespace."""

    name: ObjectName
    """Name of the object."""
    optional: Boolean | None = None
    """Pods start without it, too."""


class EnvFrom(Fields):
    """All entries of an object as variables."""

    rules: ClassVar[tuple[Rule, ...]] = (_exactly_one("configMapRef", "secretRef"),)

    prefix: Annotated[str, StringConstraints(max_length=253)] | None = None
    """Put before every key."""
    config_map_ref: ObjectRef | None = None
    """A ConfigMap."""
    secret_ref: ObjectRef | None = None
    """A Secret."""


class KeyToPath(Fields):
    """An entry as a file."""

    key: DataKey
    """Key of the entry."""
    path: Annotated[str, StringConstraints(min_length=1, max_length=1024, pattern=r"^[^/]")]
    """Path of the file inside the volume."""


Items = Annotated[tuple[KeyToPath, ...], Field(max_length=64, json_schema_extra=ATOMIC)]


class ConfigMapVolume(Fields):
    """Entries of a ConfigMap as files."""

    name: ObjectName
    """Name of the ConfigMap."""
    items: Items | None = None
    """Which entries, and under which paths; all if not given."""
    optional: Boolean | None = None
    """Pods start without it, too."""


class SecretVolume(Fields):
    """Entries of a Secret as files."""

    secret_name: ObjectName
    """Name of the Secret."""
    items: Items | None = None
    """Which entries, and under which paths; all if not given."""
    optional: Boolean | None = None
    """Pods start without it, too."""


class Medium(StrEnum):
    """What an empty folder is made of."""

    MEMORY = "Memory"


class EmptyDirVolume(Fields):
    """A folder that is as old as the pod."""

    medium: Medium | None = None
    """Memory; the node's disk if not given."""
    size_limit: Quantity | None = None
    """How much fits into it, such as 1Gi."""


class ClaimVolume(Fields):
    """A PersistentVolumeClaim in the namespace."""

    claim_name: ObjectName
    """Name of the claim."""
    read_only: Boolean | None = None
    """Nothing can be written to it."""


class Volume(Fields):
    """A volume of the pods."""

    rules: ClassVar[tuple[Rule, ...]] = (
        _exactly_one("configMap", "secret", "emptyDir", "persistentVolumeClaim"),
        Rule(
            cel=f"self.name != '{OWN_VOLUME}'",
            message=f'the volume "{OWN_VOLUME}" is the operator\'s; take another name',
            holds=lambda volume: volume.name != OWN_VOLUME,
        ),
    )

    name: VolumeName
    """Name of the volume, for volumeMounts."""
    config_map: ConfigMapVolume | None = None
    """Entries of a ConfigMap as files."""
    secret: SecretVolume | None = None
    """Entries of a Secret as files."""
    empty_dir: EmptyDirVolume | None = None
    """A folder that is as old as the pod."""
    persistent_volume_claim: ClaimVolume | None = None
    """A PersistentVolumeClaim in the namespace."""


class VolumeMount(Fields):
    """Where the server finds a volume."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel=f"!(self.mountPath in {[*OWN_PATHS]})",
            message=f"mountPath may be none of {', '.join(OWN_PATHS)}, which are the server's own",
            holds=lambda mount: mount.mount_path not in OWN_PATHS,
        ),
    )

    name: VolumeName
    """One of volumes."""
    mount_path: Annotated[
        str,
        StringConstraints(min_length=1, max_length=1024, pattern=r"^/([^:/]+(/[^:/]+)*)?$"),
    ]
    """Absolute path in the container, without a / at its end."""
    sub_path: (
        Annotated[str, StringConstraints(min_length=1, max_length=1024, pattern=r"^[^/]")] | None
    ) = None
    """Path inside the volume, if not its root."""
    read_only: Boolean | None = None
    """Nothing can be written to it."""


class PullSecret(Fields):
    """Credentials of an image registry."""

    name: ObjectName
    """Name of a Secret of the type kubernetes.io/dockerconfigjson."""


PodTemplate = Annotated[
    Mapping[str, Any],
    WithJsonSchema({"type": "object", "x-kubernetes-preserve-unknown-fields": True}),
]
"""Whatever a pod template may hold; only the API server knows all of it."""


def _mounts_known(settings: "PodSettings") -> bool:
    names = {volume.name for volume in settings.volumes or ()}
    return all(mount.name in names for mount in settings.volume_mounts or ())


def _foreign(field: str) -> Callable[[Any], bool]:
    def holds(settings: "PodSettings") -> bool:
        keys = getattr(settings, field) or {}
        return not any(key.startswith(OWN_DOMAIN) or key in OWN_LABELS for key in keys)

    return holds


def _foreign_rule(field: str, alias: str) -> Rule:
    own = f"key.startsWith('{OWN_DOMAIN}') || key in {[*OWN_LABELS]}"
    return Rule(
        cel=f"!has(self.{alias}) || self.{alias}.all(key, !({own}))",
        message=f"{alias} may hold neither {OWN_DOMAIN}... nor {', '.join(OWN_LABELS)}, which are "
        "the operator's",
        holds=_foreign(field),
    )


class PodSettings(Fields):
    """What a user may say of the pods; each field goes into the pod template as it is."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="!has(self.volumeMounts) || self.volumeMounts.all(mount, has(self.volumes) && "
            "self.volumes.exists(volume, volume.name == mount.name))",
            message="volumeMounts must name one of volumes; "
            "what podTemplate adds is mounted there, too",
            holds=_mounts_known,
        ),
        _foreign_rule("pod_labels", "podLabels"),
        _foreign_rule("pod_annotations", "podAnnotations"),
    )

    node_selector: Labels | None = None
    """Labels that a node must have for the pods to run there."""
    tolerations: (
        Annotated[tuple[Toleration, ...], Field(max_length=32, json_schema_extra=ATOMIC)] | None
    ) = None
    """Taints of nodes that the pods put up with."""
    affinity: Affinity | None = None
    """Which nodes and which neighbours the pods want."""
    topology_spread_constraints: (
        Annotated[
            tuple[TopologySpread, ...],
            Field(max_length=8, json_schema_extra=keyed_by("topologyKey", "whenUnsatisfiable")),
        ]
        | None
    ) = None
    """How the pods of this deployment are spread; if not given, over nodes where that is
    possible."""
    priority_class_name: ObjectName | None = None
    """PriorityClass of the pods."""
    service_account_name: ObjectName | None = None
    """ServiceAccount of the pods, instead of their own one. Its token is not mounted, unless
    podTemplate asks for it."""
    env: (
        Annotated[tuple[EnvVar, ...], Field(max_length=128, json_schema_extra=keyed_by("name"))]
        | None
    ) = None
    """Variables in the environment of the server."""
    env_from: (
        Annotated[tuple[EnvFrom, ...], Field(max_length=32, json_schema_extra=ATOMIC)] | None
    ) = None
    """ConfigMaps and Secrets whose entries become variables; what env says wins."""
    volumes: (
        Annotated[tuple[Volume, ...], Field(max_length=32, json_schema_extra=keyed_by("name"))]
        | None
    ) = None
    """Further volumes of the pods."""
    volume_mounts: (
        Annotated[
            tuple[VolumeMount, ...],
            Field(max_length=32, json_schema_extra=keyed_by("mountPath")),
        ]
        | None
    ) = None
    """Where the server finds the volumes."""
    image_pull_secrets: (
        Annotated[tuple[PullSecret, ...], Field(max_length=16, json_schema_extra=keyed_by("name"))]
        | None
    ) = None
    """Secrets in the namespace that the image is pulled with."""
    pod_labels: Labels | None = None
    """Further labels of the pods."""
    pod_annotations: (
        Annotated[
            Mapping[str, Annotated[str, StringConstraints(max_length=16384)]],
            Field(max_length=64),
        ]
        | None
    ) = None
    """Annotations of the pods."""
    pod_template: PodTemplate | None = None
    """A pod template (metadata and spec) that is merged over what results from all the other
    fields, as kubectl patch --type=strategic does: for whatever they do not have. The server's
    container is called "server". It may not weaken the restricted pod security standard, unless
    the operator's configuration allows it, nor touch what the operator needs."""


# --- how many there are --------------------------------------------------------------------


class Autoscaling(Fields):
    """How many pods there are, by how busy they are: a HorizontalPodAutoscaler."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="self.minReplicas <= self.maxReplicas",
            message="minReplicas must not exceed maxReplicas",
            holds=lambda scaling: scaling.min_replicas <= scaling.max_replicas,
        ),
    )

    min_replicas: Annotated[Integer, Field(ge=1, le=1000)] = 1
    """Fewest pods, 1 if not given."""
    max_replicas: Annotated[Integer, Field(ge=1, le=1000)]
    """Most pods."""
    target_cpu_utilization_percentage: Annotated[Integer, Field(ge=1, le=1000)] = Field(
        default=80, alias="targetCPUUtilizationPercentage"
    )
    """Processor time that the pods use on average, in percent of what they request; 80 if not
    given."""
    target_memory_utilization_percentage: Annotated[Integer, Field(ge=1, le=1000)] | None = None
    """Memory that they use on average, in percent of what they request; not looked at if not
    given."""
    scale_down_after: Annotated[timedelta, DurationBetween("0s", "1h")] | None = None
    """How long fewer pods must have been enough until there are fewer; 5m if not given."""

    def clamp(self, replicas: int) -> int:
        """Give the number within the bounds that is nearest."""
        return min(max(replicas, self.min_replicas), self.max_replicas)

    def to_spec(self) -> dict[str, Any]:
        """Give the part of a HorizontalPodAutoscaler's spec that says all this."""
        targets = {
            "cpu": self.target_cpu_utilization_percentage,
            "memory": self.target_memory_utilization_percentage,
        }
        after = self.scale_down_after
        window = {} if after is None else {"stabilizationWindowSeconds": int(after.total_seconds())}
        return {
            "minReplicas": self.min_replicas,
            "maxReplicas": self.max_replicas,
            "metrics": [
                {
                    "type": "Resource",
                    "resource": {
                        "name": name,
                        "target": {"type": "Utilization", "averageUtilization": percent},
                    },
                }
                for name, percent in targets.items()
                if percent is not None
            ],
            **({"behavior": {"scaleDown": window}} if window else {}),
        }
