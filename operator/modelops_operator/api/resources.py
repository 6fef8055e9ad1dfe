"""The custom resources, ModelDeployment and ModelImage, as pydantic models.

The schemas that the API server enforces are generated from these models (see `crd`), so the
docstrings of the fields are what `kubectl explain` prints.

Spec and status are read differently. A spec is strict: what is not understood is refused, with
`validation_message` telling why. A status is lenient: it may have been written by an older or a
newer operator, so what is not understood is left out, never an error.
"""

from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal, Self

from modelops_runtime.bento import ServingRuntime
from pydantic import (
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    ModelWrapValidatorHandler,
    PrivateAttr,
    StringConstraints,
    ValidationError,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic_core import CoreSchema, ErrorDetails

from modelops_operator.api.conditions import ConditionType
from modelops_operator.api.facts import Role
from modelops_operator.api.maintenance import MaintenanceWindow
from modelops_operator.api.pods import Autoscaling, PodSettings
from modelops_operator.api.quantities import parse_quantity
from modelops_operator.api.schema import (
    Boolean,
    DecimalBetween,
    DurationBetween,
    Fields,
    Integer,
    JsonSchema,
    Quantity,
    Rule,
    Text,
    keyed_by,
)

GROUP = "modelops.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

# An alias and a model's name, as MLflow 3 takes them. Unity Catalog's `catalog.schema.model` is
# a name like any other.
ModelName = Annotated[
    str,
    StringConstraints(min_length=1, max_length=255, pattern=r"^[^\s/:]([^/:\x00-\x1f]*[^\s/:])?$"),
]
Alias = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=r"^[A-Za-z0-9_-]+$")]
ModelVersionNumber = Annotated[
    str, StringConstraints(min_length=1, max_length=18, pattern=r"^[1-9][0-9]*$")
]
Short = Annotated[str, StringConstraints(max_length=255)]
Reference = Annotated[str, StringConstraints(max_length=512)]
Location = Annotated[str, StringConstraints(max_length=2048)]
Figure = Annotated[str, StringConstraints(max_length=32)]


class Metadata(Fields):
    """What every Kubernetes object carries, as far as we read it."""

    model_config = ConfigDict(extra="ignore")

    name: str = ""
    namespace: str = ""
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    labels: Mapping[str, str] = Field(default_factory=dict)
    annotations: Mapping[str, str] = Field(default_factory=dict)
    finalizers: tuple[str, ...] = ()
    managed_fields: Annotated[tuple[Mapping[str, Any], ...], WithJsonSchema({"type": "array"})] = ()
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None


class Lenient(Fields):
    """A part of a status: reads what it understands and leaves out the rest."""

    model_config = ConfigDict(extra="ignore")

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchema:
        """Leave the defaults out: what the API server adds would look like a finding of ours."""
        json_schema = super().__get_pydantic_json_schema__(schema, handler)
        for field in handler.resolve_ref_schema(json_schema).get("properties", {}).values():
            field.pop("default", None)
        return json_schema


class Severity(StrEnum):
    """How far a measured value is from what it should be."""

    NONE = "None"
    WARN = "Warn"
    ALERT = "Alert"


# --- ModelDeployment: spec -----------------------------------------------------------------


class ModelRef(Fields):
    """A registered model, and which version of it."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="has(self.alias) != has(self.version)",
            message="give either alias, to follow it, or version, to pin it: "
            "one of the two, not both",
            holds=lambda model: (model.alias is None) != (model.version is None),
        ),
        Rule(
            cel="!has(self.alias) || self.alias.lowerAscii() != 'latest' && "
            "!self.alias.matches('^[vV][0-9]+$')",
            message='alias may be neither "latest" nor "v" and digits, which MLflow reserves; '
            "give an alias that was set on the model, or a version",
            holds=lambda model: model.alias is None or not _is_reserved(model.alias),
        ),
    )

    name: ModelName
    """Name of the registered model in MLflow, or `catalog.schema.model` in Unity Catalog."""
    alias: Alias | None = None
    """Alias to follow: when it moves to another version, that version is rolled out."""
    version: ModelVersionNumber | None = None
    """Version to stay at, in quotes: "7"."""


def _is_reserved(alias: str) -> bool:
    return alias.lower() == "latest" or (alias[0] in "vV" and alias[1:].isdecimal())


class Models(Fields):
    """The models that are released together."""

    predictor: ModelRef
    """The model that answers the requests."""
    drift: ModelRef | None = None
    """The drift detector: it carries the profile of the reference data, which the traffic is
    compared with."""
    outlier: ModelRef | None = None
    """The outlier detector: it flags single rows that are unlike the reference data."""

    def by_role(self) -> dict[Role, ModelRef]:
        """Give the models that the spec names, the predictor first."""
        named = {
            Role.PREDICTOR: self.predictor,
            Role.DRIFT: self.drift,
            Role.OUTLIER: self.outlier,
        }
        return {role: model for role, model in named.items() if model is not None}


class ResourceList(Fields):
    """Amounts of processor time and memory."""

    cpu: Quantity | None = None
    """Processor time in cores: 500m is half a core."""
    memory: Quantity | None = None
    """Memory in bytes: 512Mi."""


def _within(resource: str) -> Callable[["Resources"], bool]:
    def holds(resources: "Resources") -> bool:
        request, limit = (
            getattr(amounts, resource, None) for amounts in (resources.requests, resources.limits)
        )
        return request is None or limit is None or parse_quantity(request) <= parse_quantity(limit)

    return holds


def _within_rule(resource: str) -> Rule:
    request, limit = f"self.requests.{resource}", f"self.limits.{resource}"
    # Text that is no quantity is refused by the pattern, and `quantity` would fail on it here.
    return Rule(
        cel=f"!has(self.requests) || !has({request}) || !has(self.limits) || !has({limit}) || "
        f"!isQuantity(string({request})) || !isQuantity(string({limit})) || "
        f"quantity(string({request})).compareTo(quantity(string({limit}))) <= 0",
        message=f"requests.{resource} must not exceed limits.{resource}",
        holds=_within(resource),
    )


class Resources(Fields):
    """What each pod is given, as in every Kubernetes container."""

    rules: ClassVar[tuple[Rule, ...]] = (_within_rule("cpu"), _within_rule("memory"))

    requests: ResourceList | None = None
    """What each pod is guaranteed; the scheduler finds a node with that much room."""
    limits: ResourceList | None = None
    """What each pod can have at most; a pod that needs more memory is killed."""


def _measurable(resource: str) -> Callable[["Serving"], bool]:
    def holds(serving: "Serving") -> bool:
        scaling, resources = serving.autoscaling, serving.resources
        target = scaling and getattr(scaling, f"target_{resource}_utilization_percentage")
        given = (resources.requests, resources.limits) if resources else ()
        return not target or any(getattr(amounts, resource, None) for amounts in given)

    return holds


def _measurable_rule(resource: str, target: str) -> Rule:
    requests, limits = (f"self.resources.{part}" for part in ("requests", "limits"))
    return Rule(
        cel=f"!has(self.autoscaling) || !has(self.autoscaling.{target}) || has(self.resources) && "
        f"(has({requests}) && has({requests}.{resource}) || "
        f"has({limits}) && has({limits}.{resource}))",
        message=f"autoscaling by {resource} is measured in percent of "
        f"resources.requests.{resource}; give that, too",
        holds=_measurable(resource),
    )


class Serving(PodSettings):
    """How the models are served."""

    rules: ClassVar[tuple[Rule, ...]] = (
        *PodSettings.rules,
        _measurable_rule("cpu", "targetCPUUtilizationPercentage"),
        _measurable_rule("memory", "targetMemoryUtilizationPercentage"),
    )

    replicas: Annotated[Integer, Field(ge=0, le=1000)] = 1
    """Number of pods, 1 if not given; `kubectl scale` and autoscalers change it. Not looked at
    where there is autoscaling."""
    autoscaling: Autoscaling | None = None
    """Let the number of pods follow their load, instead of replicas."""
    resources: Resources | None = None
    """Processor time and memory of each pod."""
    maintenance_window: MaintenanceWindow | None = None
    """When pods may be replaced because a new operator would make them otherwise; if not given, the
    operator's configuration says. Until then UpdateAvailable tells of it."""
    runtime: ServingRuntime = ServingRuntime.AUTO
    """How the predictor is served. Fast: from its compiled form, in a lean image that runs no code
    of the model's; a model without one is refused. Pyfunc: through MLflow, in an image with all
    that the model requires; code that came with the model runs in the pod, and a model that is a
    pickle is executed as it is loaded. Auto, if not given: Fast where the model has a compiled
    form, else Pyfunc."""


_WARN_WITHIN_ALERT = (
    Rule(
        cel="!has(self.warn) || !has(self.alert) || "
        "!isQuantity(self.warn) || !isQuantity(self.alert) || "
        "quantity(self.warn).compareTo(quantity(self.alert)) <= 0",
        message="warn must not exceed alert",
        holds=lambda thresholds: (
            thresholds.warn is None
            or thresholds.alert is None
            or thresholds.warn <= thresholds.alert
        ),
    ),
)


class DriftThresholds(Fields):
    """How far a feature may move: bounds on its population stability index (PSI).

    Where the reference profile tells how far a feature moves by itself, no threshold is below that.
    """

    rules: ClassVar[tuple[Rule, ...]] = _WARN_WITHIN_ALERT

    warn: Annotated[Decimal, DecimalBetween("0", "10", example="0.25")] | None = None
    """A feature whose PSI is above this is reported as a warning; in quotes. If not given "0.1", or
    "0.05" where the reference profile tells how far the feature moves by itself."""
    alert: Annotated[Decimal, DecimalBetween("0", "10", example="0.25")] | None = None
    """A feature whose PSI is above this sets DriftDetected; in quotes. If not given "0.25". Where
    the reference profile tells how far the feature moves by itself "0.1", and then a category, or
    missing values, half as frequent again set it, too."""


class OutlierThresholds(Fields):
    """Bounds on the rate of outliers, as a multiple of the rate in the reference data."""

    rules: ClassVar[tuple[Rule, ...]] = _WARN_WITHIN_ALERT

    warn: Annotated[Decimal, DecimalBetween("1", "1000", example="1.5")] = Decimal("1.5")
    """A multiple above this is reported as a warning; in quotes, "1.5" if not given."""
    alert: Annotated[Decimal, DecimalBetween("1", "1000", example="1.5")] = Decimal(2)
    """A multiple above this sets OutliersDetected; in quotes, "2" if not given."""


class Objectives(Fields):
    """What the service is held to."""

    error_rate: Annotated[Decimal, DecimalBetween("0", "1", example="0.05")] = Decimal("0.05")
    """Share of the requests that may fail by the server's fault; in quotes, "0.05" if not given."""
    p99: Annotated[timedelta, DurationBetween("1ms", "10m")] | None = None
    """How long 99 of 100 answers may take, such as 50ms. Not judged if not given."""


class Monitoring(Fields):
    """How the traffic is watched."""

    window: Annotated[timedelta, DurationBetween("5s", "1h")] = timedelta(minutes=5)
    """How long each pod counts before it reports, 5m if not given. Short windows of little traffic
    are merged until they hold enough rows for a verdict."""
    drift: DriftThresholds = DriftThresholds()
    """When a feature counts as drifted."""
    outliers: OutlierThresholds = OutlierThresholds()
    """When there are too many outliers."""
    objectives: Objectives = Objectives()
    """When the service counts as unhealthy."""


class ModelDeploymentSpec(Fields):
    """What should be served, and how."""

    suspend: Boolean | None = None
    """While true, the operator changes nothing: aliases are not followed, edits wait, and what
    runs goes on running."""
    models: Models
    """The models that are released together: a predictor, and the detectors that watch it."""
    serving: Serving = Serving()
    """How the models are served."""
    monitoring: Monitoring = Monitoring()
    """How the traffic is watched."""


# --- status --------------------------------------------------------------------------------


class StoredCondition(Lenient):
    """A condition as the API stores it; the same shape as metav1.Condition."""

    type: Annotated[
        str,
        StringConstraints(
            max_length=316,
            pattern=r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?"
            r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$",
        ),
    ]
    """Type of the condition in CamelCase."""
    status: Literal["True", "False", "Unknown"]
    """True, False or Unknown."""
    observed_generation: Annotated[Integer, Field(ge=0)] = Field(default=0)
    """The metadata.generation that the condition was written for."""
    last_transition_time: datetime
    """When the status of the condition last changed."""
    reason: Annotated[
        str,
        StringConstraints(
            min_length=1, max_length=1024, pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"
        ),
    ]
    """Why, as a word for scripts and alerts."""
    message: Text
    """Why, for people, and what to do about it."""


class ResolvedModel(Lenient):
    """A model of the spec, down to its version."""

    role: Role
    """What the model does: predictor, drift or outlier."""
    name: Short
    """Name of the registered model."""
    alias: Short | None = None
    """The alias that led to the version; absent when the version is pinned."""
    version: Figure
    """The version that the spec names or its alias leads to."""
    run_id: Short | None = None
    """The MLflow run that logged the model."""


class DeployedImage(Lenient):
    """The image that serves the models."""

    reference: Reference
    """Repository and digest."""
    lock: Short | None = None
    """Digest over the locked requirements: images that share it have the same libraries."""


class DeployedRuntime(Lenient):
    """The serving runtime inside the image."""

    version: Figure
    """Version of the serving runtime. It changes with the models only, or on request."""
    profile: Figure | None = None
    """The spec.serving.runtime that the image was built for; absent for Auto."""
    form: Figure | None = None
    """How the image serves the predictor: Fast or Pyfunc."""
    message: Text | None = None
    """Why it is not served Fast."""


class Window(Lenient):
    """A stretch of time."""

    start: datetime
    """When the first window that was counted began."""
    end: datetime
    """When the last window that was counted ended."""


class FeatureDrift(Lenient):
    """How far one feature has moved."""

    name: Short
    """Name of the feature, as the model knows it."""
    psi: Figure
    """Population stability index, corrected for the sample size."""
    severity: Severity
    """None, Warn or Alert."""
    threshold: Figure | None = None
    """The threshold that the PSI was held against."""
    level: Short | None = None
    """A category, or the missing or unseen values, that came so much more often that this alone is
    an alert."""
    ratio: Figure | None = None
    """How many times as often as in the reference the level came."""
    lasting: Boolean | None = None
    """Only the last 24 hours show it, and no window of late."""


class DriftHealth(Lenient):
    """How far the traffic is from the reference data."""

    detector: Short | None = None
    """Name and version of the model whose reference data the traffic is held against."""
    statistic: Short | None = None
    """PSI, or ShareOfSamples of a detector that is no modelops one."""
    severity: Severity | None = None
    """None, Warn or Alert."""
    value: Figure | None = None
    """The population stability index of the worst feature, or the share of samples that drift."""
    threshold: Figure | None = None
    """The threshold that the value was held against."""
    features: Annotated[tuple[FeatureDrift, ...], Field(max_length=10)] = Field(
        default=(),
        json_schema_extra=keyed_by("name"),
    )
    """The features that moved furthest, the worst first."""


class OutlierHealth(Lenient):
    """How many rows are unlike the reference data."""

    detector: Short | None = None
    """Name and version of the model that flags them."""
    severity: Severity | None = None
    """None, Warn or Alert."""
    rate: Figure | None = None
    """Share of the rows that were flagged as outliers."""
    reference: Figure | None = None
    """Share of the rows of the reference data that the detector flags."""
    threshold: Figure | None = None
    """The multiple of the reference's share that the rate was held against."""


class ServiceObjectives(Lenient):
    """The objectives of the spec when the service was judged."""

    error_rate: Figure | None = None
    """Share of the requests that may fail."""
    p99: Figure | None = None
    """How long 99 of 100 answers may take."""


class ServiceHealth(Lenient):
    """How requests were answered."""

    window: Window | None = None
    """The stretch of time that was judged: the last windows."""
    requests: Annotated[Integer, Field(ge=0)] | None = None
    """Number of requests in the window."""
    error_rate: Figure | None = None
    """Share of the requests that ended in an error of the server's."""
    saturation: Figure | None = None
    """Share of the requests that were turned away because too many others waited."""
    throttled: Figure | None = None
    """Share of the time in which the kernel held the pods back at their CPU limit, if they have
    one."""
    p50: Figure | None = None
    """Median of the answers' latency."""
    p99: Figure | None = None
    """99th percentile of the answers' latency."""
    objectives: ServiceObjectives | None = None
    """What it was held against."""
    restarts: Annotated[Integer, Field(ge=0)] | None = None
    """Number of pods whose container was started again lately."""
    pending: Annotated[Integer, Field(ge=0)] | None = None
    """Number of pods that have waited long for a node or an image."""


class DeploymentHealth(Lenient):
    """What the telemetry of the pods tells, with the evidence."""

    evaluated_at: datetime | None = None
    """When the evidence was last written. Live figures are in the metrics."""
    source: Location | None = None
    """Where the telemetry was read from: PodLogs, or a workspace or resource of LogAnalytics."""
    window: Window | None = None
    """The stretch of time that was judged."""
    rows: Annotated[Integer, Field(ge=0)] | None = None
    """Number of rows predicted in the window."""
    drift: DriftHealth | None = None
    """How far the traffic is from the reference data."""
    outliers: OutlierHealth | None = None
    """How many rows are unlike the reference data."""
    service: ServiceHealth | None = None
    """How requests were answered."""


class Status(Lenient):
    """What both statuses have. Reading one never fails: see `stored` for what is not understood."""

    _stored: Mapping[str, Any] = PrivateAttr(default_factory=dict)

    observed_generation: Integer = Field(default=-1)
    """The metadata.generation that the status was written for; -1 before the first time."""
    conditions: Annotated[tuple[StoredCondition, ...], Field(max_length=32)] = Field(
        default=(),
        json_schema_extra=keyed_by("type"),
    )
    """What is the case, one condition for each type."""

    @property
    def stored(self) -> Mapping[str, Any]:
        """The status as the API server has it, unknown fields and all; not to be changed."""
        return self._stored

    def condition(self, type_: ConditionType) -> StoredCondition | None:
        """Give the condition of that type, or None."""
        return next((found for found in self.conditions if found.type == type_), None)

    @model_validator(mode="wrap")
    @classmethod
    def _read_what_is_understood(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        stored = data if isinstance(data, Mapping) else {}
        understood: Any = _plain(stored)
        while True:
            try:
                status = handler(understood)
            except ValidationError as error:
                _leave_out(understood, [problem["loc"] for problem in error.errors()])
            else:
                status._stored = stored  # noqa: SLF001  # our own, of the object just made
                return status


def _plain(tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return {key: _plain(value) for key, value in tree.items()}
    return [_plain(item) for item in tree] if isinstance(tree, list | tuple) else deepcopy(tree)


def _leave_out(tree: Any, paths: Iterable[tuple[int | str, ...]]) -> None:
    """Remove what each path leads to, or else the nearest thing around it that is there."""
    # From the back, so that the places of list items hold until they are removed.
    for path in sorted({_existing(tree, path) for path in paths}, reverse=True):
        *way, last = path
        holder = tree
        for step in way:
            holder = holder[step]
        del holder[last]


def _existing(tree: Any, path: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Cut the path where the tree ends."""
    for length, step in enumerate(path):
        is_there = (isinstance(tree, dict) and step in tree) or (
            isinstance(tree, list) and isinstance(step, int) and step < len(tree)
        )
        if not is_there:
            return path[:length]
        tree = tree[step]
    return path


class RevisionCause(StrEnum):
    """What a revision came from."""

    EDIT = "Edit"
    """The spec names other models, or another runtime."""
    ALIAS_MOVED = "AliasMoved"
    """An alias leads to another version."""
    REBUILD = "Rebuild"
    """The annotation modelops.dev/rebuild."""
    UPDATE = "Update"
    """A newer serving runtime or base image, on request or in the maintenance window."""


class Outcome(StrEnum):
    """What became of a revision."""

    PROGRESSING = "Progressing"
    """Its pods are on their way."""
    SUCCEEDED = "Succeeded"
    """All its pods have served."""
    FAILED = "Failed"
    """Its pods cannot serve, and only a person can mend that."""
    SUPERSEDED = "Superseded"
    """Another revision came before it was decided."""


class Revision(Lenient):
    """One revision that was rolled out."""

    number: Annotated[Integer, Field(ge=1)]
    """Counts the revisions of the object."""
    revision: Figure
    """Short name of exactly these models and this image."""
    models: Annotated[tuple[ResolvedModel, ...], Field(max_length=3)] = Field(
        default=(),
        json_schema_extra=keyed_by("role"),
    )
    """The models, down to their versions."""
    image: Short | None = None
    """Digest of the image."""
    profile: Figure | None = None
    """The spec.serving.runtime that the image was built for; absent for Auto."""
    cause: Figure | None = None
    """What it came from: Edit, AliasMoved, Rebuild or Update."""
    requested_by: Short | None = None
    """The field manager that asked for it in the object, or what else did."""
    started_at: datetime | None = None
    """When its rollout was begun."""
    finished_at: datetime | None = None
    """When that was decided."""
    outcome: Figure | None = None
    """Progressing, Succeeded, Failed or Superseded."""
    message: Location | None = None
    """Why it failed."""


class ModelDeploymentStatus(Status):
    """What is served, how it fares, and what the operator is doing about it."""

    models: Annotated[tuple[ResolvedModel, ...], Field(max_length=3)] = Field(
        default=(),
        json_schema_extra=keyed_by("role"),
    )
    """The models down to their versions."""
    image: DeployedImage | None = None
    """The image that serves them."""
    runtime: DeployedRuntime | None = None
    """The serving runtime inside the image."""
    revision: Figure | None = None
    """Short name of exactly these models and this image; pods carry it as a label."""
    url: Location | None = None
    """Where the service answers inside the cluster."""
    replicas: Annotated[Integer, Field(ge=0)] | None = None
    """Number of pods that there are."""
    ready_replicas: Annotated[Integer, Field(ge=0)] | None = None
    """Number of pods that are ready to answer."""
    selector: Annotated[str, StringConstraints(max_length=512)] | None = None
    """Label selector of the pods, for autoscalers."""
    health: DeploymentHealth | None = None
    """What the telemetry of the pods tells, with the evidence."""
    history: Annotated[tuple[Revision, ...], Field(max_length=10)] = Field(
        default=(),
        json_schema_extra=keyed_by("number"),
    )
    """The last ten revisions, the newest first."""
    handled_requests: Annotated[
        Mapping[Short, Annotated[str, StringConstraints(max_length=1024)]],
        Field(max_length=16),
    ] = Field(default_factory=dict)
    """Values of the annotations modelops.dev/reconcile, modelops.dev/rebuild and
    modelops.dev/update that were acted on; a new value is a new request."""


# --- ModelImage ----------------------------------------------------------------------------


class ImageModel(Fields):
    """A model version that goes into the image."""

    role: Role
    """What the model does: predictor, drift or outlier."""
    name: ModelName
    """Name of the registered model."""
    version: ModelVersionNumber
    """Its version."""
    run_id: Annotated[str, StringConstraints(max_length=255)] = Field(default="")
    """The MLflow run that logged it."""
    source: Annotated[str, StringConstraints(min_length=1, max_length=2048)]
    """Where its artifacts are, as the registry records it."""


class ImageRuntime(Fields):
    """The serving runtime that goes into the image."""

    version: Annotated[
        str, StringConstraints(min_length=1, max_length=64, pattern=r"^[0-9][0-9A-Za-z.+!-]*$")
    ]
    """Version of the serving runtime."""
    profile: ServingRuntime = ServingRuntime.AUTO
    """How the predictor is served: Fast, Pyfunc, or Auto if not given, see
    modeldeployment.spec.serving.runtime."""


_REPOSITORY = (
    r"[a-zA-Z0-9]([a-zA-Z0-9.-]*[a-zA-Z0-9])?(:[0-9]{1,5})?"
    r"(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)+"
)


class ModelImageSpec(Fields):
    """What goes into the image. It never changes: another image is another ModelImage."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="self == oldSelf",
            message="a ModelImage never changes; create another one, of another name",
            holds=None,
        ),
        Rule(
            cel="self.models.exists(model, model.role == 'predictor')",
            message="one of the models must have the role predictor",
            holds=lambda spec: any(model.role is Role.PREDICTOR for model in spec.models),
        ),
    )

    models: Annotated[tuple[ImageModel, ...], Field(min_length=1, max_length=3)] = Field(
        json_schema_extra=keyed_by("role"),
    )
    """The model versions, one for each role."""
    tracking_uri: Annotated[
        str,
        StringConstraints(
            min_length=1, max_length=2048, pattern=r"^(https?://[^\s]+|databricks[^\s]*)$"
        ),
    ]
    """The MLflow server that has the models: an http address, or databricks."""
    repository: Annotated[
        str, StringConstraints(min_length=3, max_length=255, pattern=rf"^{_REPOSITORY}$")
    ]
    """Where the image is pushed to: registry, prefix and name, without a tag."""
    runtime: ImageRuntime
    """The serving runtime."""
    python: Annotated[
        str, StringConstraints(min_length=3, max_length=5, pattern=r"^3\.[0-9]{1,3}$")
    ]
    """Minor version of Python, in quotes: "3.11"."""
    platforms: Annotated[
        tuple[
            Annotated[
                str,
                StringConstraints(
                    min_length=3, max_length=64, pattern=r"^[a-z0-9]+/[a-z0-9_]+(/[a-z0-9]+)?$"
                ),
            ],
            ...,
        ],
        Field(min_length=1, max_length=8),
    ] = Field(json_schema_extra={"x-kubernetes-list-type": "set"})
    """Operating system and processor, such as linux/amd64."""
    base: Annotated[
        str,
        StringConstraints(
            min_length=3, max_length=512, pattern=rf"^{_REPOSITORY}@sha256:[0-9a-f]{{64}}$"
        ),
    ]
    """The base image, by digest."""
    rebuild: Annotated[str, StringConstraints(max_length=1024)] | None = None
    """Value of the annotation modelops.dev/rebuild that asked for this build, if one did."""

    @field_validator("models")
    @classmethod
    def _one_for_each_role(cls, models: tuple[ImageModel, ...]) -> tuple[ImageModel, ...]:
        if len({model.role for model in models}) < len(models):
            raise ValueError("has two models of one role")
        return models

    @field_validator("platforms")
    @classmethod
    def _one_of_each(cls, platforms: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(platforms)) < len(platforms):
            raise ValueError("has an item twice")
        return platforms


class BuiltImage(Lenient):
    """The image in the registry."""

    reference: Reference
    """Repository and digest."""
    digest: Short
    """Digest of the image's manifest."""
    lock: Short | None = None
    """Digest over the locked requirements: images that share it have the same libraries."""
    form: Figure | None = None
    """How it serves the predictor: Fast or Pyfunc."""


class Transfer(Lenient):
    """How much of the image was new to the registry."""

    pushed: Annotated[Integer, Field(ge=0)] = Field(default=0)
    """Bytes that were sent."""
    reused: Annotated[Integer, Field(ge=0)] = Field(default=0)
    """Bytes that the registry had already."""


class ModelImageStatus(Status):
    """How the build went."""

    image: BuiltImage | None = None
    """The image in the registry."""
    step: Short | None = None
    """What the builder is doing, or did last."""
    started_at: datetime | None = None
    """When the builder took the object up."""
    finished_at: datetime | None = None
    """When the build ended."""
    bytes: Transfer | None = None
    """How much of the image was new to the registry."""
    log: Text | None = None
    """The last lines of a build that failed."""


# --- the objects ---------------------------------------------------------------------------


class ModelDeployment(Fields):
    """Models of an MLflow registry, served and watched.

    A predictor is released together with the detectors that watch its traffic for drift and
    outliers. Aliases are followed: when they move, the new versions are rolled out.
    """

    model_config = ConfigDict(extra="ignore")

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="size(self.metadata.name) <= 52 && "
            "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
            message="metadata.name must have at most 52 characters, begin with a lower-case "
            "letter, hold only lower-case letters, digits and -, and not end with -: "
            "the Service and the pods are named after it",
            holds=lambda object_: _is_dns_1035_label(object_.metadata.name),
        ),
    )

    api_version: Literal["modelops.dev/v1alpha1"] = "modelops.dev/v1alpha1"
    kind: Literal["ModelDeployment"] = "ModelDeployment"
    metadata: Metadata
    spec: ModelDeploymentSpec
    """What should be served, and how."""
    status: ModelDeploymentStatus = ModelDeploymentStatus()
    """What is served, how it fares, and what the operator is doing about it. Written by the
    operator."""


def _is_dns_1035_label(name: str) -> bool:
    return (
        0 < len(name) <= 52
        and name.isascii()
        and name.replace("-", "a").isalnum()
        and name == name.lower()
        and name[0].isalpha()
        and name[-1] != "-"
    )


class ModelImage(Fields):
    """A container image of some model versions, asked for by the operator.

    The builder makes it and pushes it to the registry. Deployments of the same versions share
    one.
    """

    model_config = ConfigDict(extra="ignore")

    api_version: Literal["modelops.dev/v1alpha1"] = "modelops.dev/v1alpha1"
    kind: Literal["ModelImage"] = "ModelImage"
    metadata: Metadata
    spec: ModelImageSpec
    """What goes into the image."""
    status: ModelImageStatus = ModelImageStatus()
    """How the build went. Written by the builder."""


# --- telling people ------------------------------------------------------------------------


def validation_message(error: ValidationError) -> str:
    """Tell a person which fields of an object are refused, why, and what would be taken.

    One sentence per field, such as `spec.serving.replicas: must be at most 1000 (is 5000)`.
    """
    return "; ".join(_sentence(problem) for problem in error.errors(include_url=False))


_WORDS: dict[str, str] = {
    "missing": "is required",
    "extra_forbidden": "is not a field that this version knows; remove it, or correct its name",
    "string_type": "must be text; put it in quotes",
    "bool_type": "must be true or false, without quotes",
    "string_too_long": "must have at most {max_length} characters",
    "string_too_short": "must have at least {min_length} character(s)",
    "string_pattern_mismatch": "must match {pattern}",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "too_long": "must have at most {max_length} item(s)",
    "too_short": "must have at least {min_length} item(s)",
    "enum": "must be one of {expected}",
    "literal_error": "must be {expected}",
    "model_type": "must be an object with fields",
    "model_attributes_type": "must be an object with fields",
    "dict_type": "must be an object with fields",
    "tuple_type": "must be a list",
    "int_from_float": "must be a whole number",
    "value_error": "{error}",
}


def _sentence(problem: ErrorDetails) -> str:
    path = "".join(
        f"[{step}]" if isinstance(step, int) else f".{step}" for step in problem["loc"]
    ).removeprefix(".")
    wording = _WORDS.get(problem["type"])
    text = wording.format(**problem.get("ctx", {})) if wording else problem["msg"]
    value = problem.get("input")
    shown = f" (is {value!r:.80})" if isinstance(value, str | int | float) else ""
    return f"{path}: {text}{shown}" if path else f"{text}{shown}"
