"""The configuration file that the operator and the builder share."""

import os
import re
from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, ClassVar, Final, Self

import yaml
from pydantic import Field, StringConstraints, ValidationError, model_validator

from modelops_operator.api.maintenance import MaintenanceWindow
from modelops_operator.api.quantities import format_duration, parse_quantity
from modelops_operator.api.resources import validation_message
from modelops_operator.api.schema import (
    Boolean,
    DurationBetween,
    Fields,
    Integer,
    Quantity,
    Rule,
    refusal,
)

DEFAULT_PATH: Final = Path("/etc/modelops/config.yaml")
PATH_VARIABLE: Final = "MODELOPS_CONFIG"

Interval = Annotated[timedelta, DurationBetween("100ms", "24h")]
Port = Annotated[Integer, Field(ge=1, le=65535)]
_PATH_PART: Final = "[a-z0-9]+([._-]+[a-z0-9]+)*"
PythonMinor = Annotated[str, StringConstraints(pattern=r"^3\.[0-9]{1,3}$")]
ByDigest = Annotated[str, StringConstraints(pattern=r"^[^\s@]+/[^\s@]+@sha256:[0-9a-f]{64}$")]
IndexUrl = Annotated[str, StringConstraints(pattern=r"^(https?://|file:///)[^\s]+$")]


class ConfigError(Exception):
    """The configuration cannot be used; the message names the file, the field and the way out."""


class MlflowConfig(Fields):
    """The registry that the models are in. Credentials come as MLflow's own variables."""

    tracking_uri: Annotated[str, StringConstraints(pattern=r"^(https?://[^\s]+|databricks[^\s]*)$")]
    """An http address, or `databricks`."""
    poll_interval: Interval = timedelta(seconds=30)
    """How often the aliases are read: one request for the whole fleet, one per model in Unity."""
    settle: Annotated[timedelta, DurationBetween("0ms", "24h")] = timedelta(seconds=10)
    """How long aliases may lead to different trainings before that is told as a failure.

    Until then they are taken to be on their way. They are followed once they agree."""


class RegistryAuth(StrEnum):
    """How the builder says who it is."""

    AUTO = "Auto"
    """By whatever it has: Basic, DockerConfig, ACR in that order, else Anonymous."""
    ACR = "ACR"
    """To Azure Container Registry, by its workload identity."""
    DOCKER_CONFIG = "DockerConfig"
    """By a Docker configuration file, which may have different entries for different paths."""
    BASIC = "Basic"
    """By `MODELOPS_REGISTRY_USERNAME` and `MODELOPS_REGISTRY_PASSWORD` in the environment."""
    ANONYMOUS = "Anonymous"
    """Not at all."""


class RegistryConfig(Fields):
    """The image registry."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="self.auth != 'ACR' || !self.insecure",
            message="auth ACR needs https, since Azure's tokens are never sent without "
            "encryption; set insecure to false",
            holds=lambda registry: registry.auth is not RegistryAuth.ACR or not registry.insecure,
        ),
        Rule(
            cel="self.auth != 'DockerConfig' || has(self.dockerConfig)",
            message="auth DockerConfig needs dockerConfig, the path of a config.json",
            holds=lambda registry: (
                registry.auth is not RegistryAuth.DOCKER_CONFIG
                or registry.docker_config is not None
            ),
        ),
    )

    host: Annotated[str, StringConstraints(min_length=1, pattern=r"^[^\s/]+$")]
    """Name and port, without a scheme."""
    prefix: Annotated[
        str,
        StringConstraints(
            pattern=r"^([a-z0-9]+([._-]+[a-z0-9]+)*(/[a-z0-9]+([._-]+[a-z0-9]+)*)*)?$"
        ),
    ] = "modelops"
    """Repositories are made under this path."""
    insecure: Boolean = False
    """Speak http instead of https."""
    auth: RegistryAuth = RegistryAuth.AUTO
    """How the builder says who it is."""
    docker_config: Path | None = None
    """A `config.json` as `docker login` writes it; only `auth: DockerConfig` insists on it."""


class SigningConfig(Fields):
    """How images are signed: so that `cosign verify --key` accepts them."""

    key: Path | None = None
    """Private key: ECDSA on P-256, plain PEM. With it, every image, its bill of materials and its
    provenance are signed before the image gets a tag."""


class Rebase(StrEnum):
    """When images that run get the base image that is configured now."""

    ON_REQUEST = "OnRequest"
    """With the annotation modelops.dev/rebuild, or with the next version of a model."""
    AUTOMATIC = "Automatic"
    """As soon as it is configured: every deployment rolls out once."""


PYPI: Final = "https://pypi.org/simple"


class BuilderConfig(Fields):
    """How images are built."""

    index_urls: tuple[IndexUrl, ...] = (PYPI,)
    """Package indexes, the first one first, and folders of wheels (file:///wheels); no other is
    ever asked."""
    ca_bundle: Path | None = None
    """Certificates (PEM) to trust instead of the system's."""
    concurrency: Annotated[Integer, Field(ge=1, le=64)] = 2
    """Builds at the same time."""
    python: PythonMinor = "3.11"
    """Minor version of Python for new images."""
    bases: Mapping[PythonMinor, ByDigest] = Field(default_factory=dict)
    """Base image for each minor version of Python, by digest."""
    rebase: Rebase = Rebase.ON_REQUEST
    """When images that run get another base image; only its own layers are sent."""
    platforms: tuple[str, ...] = ("linux/amd64",)
    """Operating system and processor of the nodes."""
    attest: Boolean = False
    """Attach a bill of materials (CycloneDX) and the provenance (SLSA) to every image."""
    signing: SigningConfig = SigningConfig()
    """How images are signed."""
    scratch: Quantity = "16Gi"
    """Disk for the builds at work; less where less is free."""
    runtime_bundle: Path = Path("/opt/modelops/runtime")
    """Folder with the serving runtime's wheel and lock, a subfolder for each version."""

    @property
    def scratch_bytes(self) -> int:
        """Give `scratch` as a number of bytes."""
        return int(parse_quantity(self.scratch))


class VerificationMode(StrEnum):
    """What an image must prove before it is rolled out."""

    DISABLED = "Disabled"
    """Nothing."""
    ENFORCE = "Enforce"
    """That a trusted key has signed it."""


class VerificationConfig(Fields):
    """Whether the operator verifies images before it rolls them out; what runs goes on running."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="self.mode != 'Enforce' || has(self.keys)",
            message="mode Enforce needs keys, the path of a PEM file with the public keys that are "
            "trusted",
            holds=lambda verification: (
                verification.mode is not VerificationMode.ENFORCE or verification.keys is not None
            ),
        ),
    )

    mode: VerificationMode = VerificationMode.DISABLED
    """What an image must prove."""
    keys: Path | None = None
    """Public keys that are trusted: ECDSA, PEM, one or several in one file."""


class MonitoringBackend(StrEnum):
    """Where telemetry is read from."""

    POD_LOGS = "PodLogs"
    """The logs of the pods, through the API server."""
    LOG_ANALYTICS = "LogAnalytics"
    """Azure Log Analytics, where Container insights brings the logs of the pods."""


SHORTEST_SUMMARY: Final = timedelta(minutes=30)
"""How long lines take through a summary rule: its smallest bin, and what it waits and works."""


class LogAnalyticsConfig(Fields):
    """The Log Analytics workspace that the pods' logs are in.

    With `workspaceId` the workspace is asked, with `resourceId` the cluster's resource; with both,
    the workspace, for the logs of that cluster alone: where several clusters share it. The
    identity comes from the surroundings (AKS workload identity, or a managed identity).
    """

    workspace_id: Annotated[
        str,
        StringConstraints(
            pattern=r"^([0-9a-fA-F]{8}-([0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12})?$",
        ),
    ] = ""
    """The workspace's ID, a GUID (in its overview; not its name, not its resource ID)."""
    resource_id: Annotated[
        str,
        StringConstraints(
            pattern=r"^(/subscriptions/[^/\s]+/resource[gG]roups/[^/\s]+/providers/[^\s]+[^/\s])?$"
        ),
    ] = ""
    """The cluster's resource ID."""
    endpoint: Annotated[str, StringConstraints(pattern=r"^https://[^\s/]+$")] = (
        "https://api.loganalytics.io"
    )
    """Where queries go; other clouds have others, such as https://api.loganalytics.us."""
    audience: Annotated[str, StringConstraints(pattern=r"^(https://[^\s]+)?$")] = ""
    """Whom the identity's tokens are for; the endpoint if not given."""
    summary_table: Annotated[
        str, StringConstraints(pattern=r"^([A-Za-z][A-Za-z0-9_]{0,44}_CL)?$")
    ] = ""
    """A table that a summary rule copies telemetry into (its query: `adapters/kql/rule.kql`), to
    be read instead of ContainerLogV2, which then may be on the Basic plan."""
    interval: Annotated[timedelta, DurationBetween("10s", "1h")] = timedelta(minutes=1)
    """How often the workspace is asked; verdicts follow `monitoring.interval`."""
    lag: Annotated[timedelta, DurationBetween("0s", "1h")] = timedelta(minutes=5)
    """How long after it was written a line may still be on its way."""
    overlap: Annotated[timedelta, DurationBetween("0s", "1h")] = timedelta(minutes=2)
    """How much is read again, since lines appear a little out of the order of their arrival."""
    lookback: Annotated[timedelta, DurationBetween("1m", "24h")] = timedelta(hours=6)
    """How far back is read after a restart or an outage."""


class WebhookConfig(Fields):
    """Who is told of alarms and recoveries, by CloudEvents signed as Standard Webhooks are."""

    url: Annotated[str, StringConstraints(pattern=r"^https?://[^\s]+$")]
    """Where they are posted."""
    secret_file: Path
    """Secrets that they are signed with: `whsec_` and Base64 of 24 to 64 random bytes, one a line.
    While a secret is changed, the old one and the new one; the file is read for each event."""
    timeout: Annotated[timedelta, DurationBetween("1s", "1m")] = timedelta(seconds=10)
    """How long the receiver may take to answer."""


class MonitoringConfig(Fields):
    """How telemetry is read."""

    backend: MonitoringBackend = MonitoringBackend.POD_LOGS
    """Where telemetry is read from."""
    interval: Interval = timedelta(seconds=10)
    """How often."""
    log_analytics: LogAnalyticsConfig = LogAnalyticsConfig()
    """For the backend LogAnalytics."""
    webhook: WebhookConfig | None = None
    """Who is told of alarms and recoveries."""

    @model_validator(mode="after")
    def _know_where(self) -> Self:
        place = self.log_analytics
        asked = self.backend is MonitoringBackend.LOG_ANALYTICS
        if asked and not (place.workspace_id or place.resource_id):
            raise refusal(
                "backend LogAnalytics needs to know where: give logAnalytics.workspaceId (a GUID)"
                " or logAnalytics.resourceId (the cluster's), or take backend PodLogs"
            )
        if place.summary_table and not place.workspace_id:
            raise refusal(
                f"logAnalytics.summaryTable {place.summary_table!r} belongs to a workspace: give"
                " logAnalytics.workspaceId, too"
            )
        if place.summary_table and place.lag < SHORTEST_SUMMARY:
            raise refusal(
                f"logAnalytics.lag is {format_duration(place.lag)}, and a summary rule runs every"
                " 20 minutes at most: give 30m or more beside logAnalytics.summaryTable"
            )
        return self


class PodSecurity(StrEnum):
    """How far `spec.serving.podTemplate` may go."""

    RESTRICTED = "Restricted"
    """As far as the restricted pod security standard, with a read-only root."""
    PRIVILEGED = "Privileged"
    """As far as the API server lets it."""


Pattern = Annotated[str, StringConstraints(min_length=1, max_length=255)]
"""A name in which * stands for any characters."""


class ModelsPolicy(Fields):
    """Models that some namespaces may deploy."""

    namespaces: Annotated[tuple[Pattern, ...], Field(min_length=1)]
    """Names of namespaces; * stands for any characters."""
    models: Annotated[tuple[Pattern, ...], Field(min_length=1)]
    """Names of registered models; * stands for any characters."""


class PolicyConfig(Fields):
    """What the platform's team allows the users of ModelDeployments."""

    models: tuple[ModelsPolicy, ...] = ()
    """Which namespaces may deploy which models; everybody everything if there is no entry."""
    pod_security: PodSecurity = PodSecurity.RESTRICTED
    """How far `spec.serving.podTemplate` may go."""

    def allows(self, namespace: str, model: str) -> bool:
        """Tell whether a namespace may deploy a model."""
        return not self.models or any(
            _matches(pattern, model) for pattern in self.allowed_in(namespace)
        )

    def allowed_in(self, namespace: str) -> tuple[str, ...]:
        """Give the patterns of the models that a namespace may deploy."""
        return tuple(
            model
            for entry in self.models
            if any(_matches(pattern, namespace) for pattern in entry.namespaces)
            for model in entry.models
        )


def _matches(pattern: str, name: str) -> bool:
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), name) is not None


class LeaderElectionConfig(Fields):
    """Which of several replicas acts."""

    enabled: Boolean = True
    """Without it, run one replica only."""
    lease_name: Annotated[str, StringConstraints(min_length=1, max_length=63)] = "modelops-operator"
    """Name of the Lease in the operator's namespace."""


class ProcessConfig(Fields):
    """How the operator itself runs."""

    namespace: Annotated[str, StringConstraints(min_length=1, max_length=63)] = "modelops-system"
    """The operator's own namespace: ModelImages and the Lease are there."""
    namespaces: tuple[str, ...] = ()
    """Namespaces to serve; none means all."""
    workers: Annotated[Integer, Field(ge=1, le=64)] = 4
    """Objects worked on at the same time."""
    sweep_interval: Interval = timedelta(minutes=5)
    """How often everything is listed, to repair what the watches missed."""
    maintenance_window: MaintenanceWindow | None = None
    """When deployments without a window of their own take over what an upgrade brings."""
    leader_election: LeaderElectionConfig = LeaderElectionConfig()
    """Which of several replicas acts."""
    metrics_port: Port = 8080
    """Prometheus metrics at /metrics."""
    health_port: Port = 8081
    """/healthz and /readyz."""


class RuntimeConfig(Fields):
    """The serving runtime that new releases get."""

    version: Annotated[str, StringConstraints(min_length=1, max_length=64)] = "0.1.0"
    """The builder must carry a bundle of it."""


class OperatorConfig(Fields):
    """Everything that operator and builder are told, but for secrets."""

    mlflow: MlflowConfig
    registry: RegistryConfig
    builder: BuilderConfig = BuilderConfig()
    verification: VerificationConfig = VerificationConfig()
    monitoring: MonitoringConfig = MonitoringConfig()
    policy: PolicyConfig = PolicyConfig()
    operator: ProcessConfig = ProcessConfig()
    runtime: RuntimeConfig = RuntimeConfig()


def configured_path() -> Path:
    """Give the path of the configuration: `MODELOPS_CONFIG`, or where the chart mounts it."""
    return Path(os.environ.get(PATH_VARIABLE) or DEFAULT_PATH)


def load(path: Path) -> OperatorConfig:
    """Read the configuration.

    Raises ConfigError when the file cannot be read, is not YAML, or says what is not understood.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"cannot read the configuration {path}: {error.strerror}; "
            f"mount it there, or name another file in {PATH_VARIABLE}"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"the configuration {path} is not YAML: {error}") from error
    try:
        return OperatorConfig.model_validate(content if content is not None else {})
    except ValidationError as error:
        raise ConfigError(f"the configuration {path}: {validation_message(error)}") from error
