"""Objects that are taken or refused, by pydantic and by the API server alike."""

from copy import deepcopy
from dataclasses import dataclass
from typing import Any

PREDICTOR = {"name": "employment", "alias": "candidate"}
DRIFT = {"name": "employment_drift", "alias": "candidate"}
OUTLIER = {"name": "employment_outlier", "version": "7"}

XOR = "give either alias, to follow it, or version, to pin it: one of the two, not both"
RESERVED = 'alias may be neither "latest" nor "v" and digits, which MLflow reserves'
NAME = "metadata.name must have at most 52 characters, begin with a lower-case letter"
WINDOW = "must be a duration between 5s and 1h, such as 30s, 5m or 1h30m"
SHARE = 'must be a decimal number between 0 and 1, in quotes, such as "0.05"'
LATENCY = "must be a duration between 1ms and 10m, such as 50ms, 2s or 5m"
DRIFT_RANGE = 'must be a decimal number between 0 and 10, in quotes, such as "0.25"'
OUTLIER_RANGE = 'must be a decimal number between 1 and 1000, in quotes, such as "1.5"'
WARN = "warn must not exceed alert"
IMMUTABLE = "a ModelImage never changes; create another one, of another name"


@dataclass(frozen=True, kw_only=True)
class Good:
    title: str
    spec: dict[str, Any]
    name: str = "employment"
    kind: str = "ModelDeployment"

    def manifest(self) -> dict[str, Any]:
        return manifest(self.kind, self.name, self.spec)


@dataclass(frozen=True, kw_only=True)
class Bad:
    title: str
    spec: Any
    field: str
    """Path of the field that both must name; empty for the whole object."""
    says: str
    """What pydantic's message must say, as told by `validation_message`."""
    server_says: str = ""
    """What the API server's message must say, where it is in other words."""
    name: str = "employment"
    kind: str = "ModelDeployment"

    def manifest(self) -> dict[str, Any]:
        return manifest(self.kind, self.name, self.spec)


def manifest(kind: str, name: str, spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "modelops.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": deepcopy(spec),
    }


def predictor(**fields: Any) -> dict[str, Any]:
    return {"models": {"predictor": fields}}


def serving(**fields: Any) -> dict[str, Any]:
    return {"models": {"predictor": PREDICTOR}, "serving": fields}


def monitoring(**fields: Any) -> dict[str, Any]:
    return {"models": {"predictor": PREDICTOR}, "monitoring": fields}


def amounts(requests: Any = None, limits: Any = None) -> dict[str, Any]:
    given = {"requests": requests, "limits": limits}
    return serving(resources={key: value for key, value in given.items() if value is not None})


def autoscaling(resources: Any = None, **fields: Any) -> dict[str, Any]:
    requests = {"requests": {"cpu": "500m"}} if resources is None else resources
    return serving(autoscaling={"maxReplicas": 5, **fields}, resources=requests)


def variable(**fields: Any) -> dict[str, Any]:
    return serving(env=[{"name": "A", **fields}])


def volume(**fields: Any) -> dict[str, Any]:
    return serving(volumes=[{"name": "data", **fields}])


def mount(**fields: Any) -> dict[str, Any]:
    volumes = [{"name": "data", "emptyDir": {}}]
    return serving(volumes=volumes, volumeMounts=[{"name": "data", "mountPath": "/data", **fields}])


def window(**fields: Any) -> dict[str, Any]:
    return serving(maintenanceWindow={"start": "02:30", "duration": "2h", **fields})


_PODS = {"labelSelector": {"matchLabels": {"app": "db"}}, "topologyKey": "kubernetes.io/hostname"}
_EXPRESSIONS = {"matchExpressions": [{"key": "tier", "operator": "In", "values": ["a", "b"]}]}
POD_SETTINGS: dict[str, Any] = {
    "nodeSelector": {"kubernetes.io/arch": "amd64"},
    "tolerations": [
        {"key": "gpu", "operator": "Exists", "effect": "NoSchedule"},
        {"key": "team", "value": "census"},
        {"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 30},
    ],
    "affinity": {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [
                    {
                        "matchExpressions": [{"key": "cores", "operator": "Gt", "values": ["4"]}],
                        "matchFields": [
                            {"key": "metadata.name", "operator": "NotIn", "values": ["n1"]}
                        ],
                    }
                ]
            },
            "preferredDuringSchedulingIgnoredDuringExecution": [
                {
                    "weight": 5,
                    "preference": {"matchExpressions": [{"key": "ssd", "operator": "Exists"}]},
                }
            ],
        },
        "podAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": 100, "podAffinityTerm": _PODS | {"namespaces": ["other"]}}
            ]
        },
        "podAntiAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": [
                _PODS | {"labelSelector": _EXPRESSIONS, "namespaceSelector": {}}
            ]
        },
    },
    "topologySpreadConstraints": [
        {
            "maxSkew": 1,
            "topologyKey": "topology.kubernetes.io/zone",
            "whenUnsatisfiable": "DoNotSchedule",
            "minDomains": 2,
        }
    ],
    "priorityClassName": "important",
    "serviceAccountName": "reader",
    "env": [
        {"name": "PLAIN", "value": "x"},
        {"name": "EMPTY", "value": ""},
        {"name": "MODELOPS_QUEUE", "value": "16"},
        {"name": "MAPPED", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "a.b"}}},
        {
            "name": "SECRET",
            "valueFrom": {"secretKeyRef": {"name": "token", "key": "k", "optional": True}},
        },
    ],
    "envFrom": [
        {"configMapRef": {"name": "settings"}},
        {"prefix": "S_", "secretRef": {"name": "token", "optional": False}},
    ],
    "volumes": [
        {"name": "settings", "configMap": {"name": "s", "items": [{"key": "a", "path": "b/c"}]}},
        {"name": "token", "secret": {"secretName": "token", "optional": True}},
        {"name": "scratch", "emptyDir": {"medium": "Memory", "sizeLimit": "64Mi"}},
        {"name": "data", "persistentVolumeClaim": {"claimName": "data", "readOnly": True}},
    ],
    "volumeMounts": [
        {"name": "settings", "mountPath": "/etc/settings", "readOnly": True},
        {"name": "scratch", "mountPath": "/scratch", "subPath": "models"},
    ],
    "imagePullSecrets": [{"name": "pull"}],
    "podLabels": {"team": "census"},
    "podAnnotations": {"prometheus.io/scrape": "true"},
    "podTemplate": {
        "spec": {
            "dnsPolicy": "Default",
            "containers": [{"name": "server", "startupProbe": {"failureThreshold": 600}}],
        }
    },
}
"""Something for each field of `api.pods.PodSettings`."""

IMAGE_MODEL = {
    "role": "predictor",
    "name": "employment",
    "version": "12",
    "runId": "3f" * 16,
    "source": "models:/m-3f3f3f3f",
}
IMAGE_SPEC: dict[str, Any] = {
    "models": [IMAGE_MODEL],
    "trackingUri": "http://10.1.1.1:5001",
    "repository": "10.1.1.1:5000/modelops/employment",
    "runtime": {"version": "0.1.0"},
    "python": "3.11",
    "platforms": ["linux/amd64"],
    "base": "10.1.1.1:5000/modelops/base@sha256:" + "0" * 64,
}


def image(**fields: Any) -> dict[str, Any]:
    return IMAGE_SPEC | fields


GOOD = (
    Good(title="the least", spec=predictor(**PREDICTOR)),
    Good(
        title="everything",
        spec={
            "suspend": False,
            "models": {"predictor": PREDICTOR, "drift": DRIFT, "outlier": OUTLIER},
            "serving": {
                "replicas": 2,
                "runtime": "Auto",
                "resources": {
                    "requests": {"cpu": "500m", "memory": "512Mi"},
                    "limits": {"cpu": 2, "memory": "1Gi"},
                },
            },
            "monitoring": {
                "window": "5m",
                "drift": {"warn": "0.1", "alert": "0.25"},
                "outliers": {"warn": "1.5", "alert": "2"},
                "objectives": {"errorRate": "0.01", "p99": "50ms"},
            },
        },
    ),
    Good(title="suspended", spec={"suspend": True, "models": {"predictor": PREDICTOR}}),
    Good(title="a pinned version", spec=predictor(name="employment", version="7")),
    Good(title="Unity Catalog's name", spec=predictor(name="main.census.employment", alias="a")),
    Good(title="a name with blanks", spec=predictor(name="Employment (census)", alias="a")),
    Good(title="a name of one letter", spec=predictor(name="e", alias="a")),
    Good(title="a name in another script", spec=predictor(name="Beschäftigung", alias="a")),
    Good(title="a name of 255 letters", spec=predictor(name="e" * 255, alias="a")),
    Good(title="an alias with digits and signs", spec=predictor(name="e", alias="EU-2_candidate")),
    Good(title="an alias that begins with v", spec=predictor(name="e", alias="v2-eu")),
    Good(title="no replicas", spec=serving(replicas=0)),
    Good(title="a thousand replicas", spec=serving(replicas=1000)),
    Good(title="all that there is to say of pods", spec=serving(**POD_SETTINGS)),
    Good(title="autoscaling", spec=autoscaling()),
    Good(
        title="autoscaling in full",
        spec=autoscaling(
            {"limits": {"cpu": "1", "memory": "1Gi"}},
            minReplicas=2,
            targetCPUUtilizationPercentage=60,
            targetMemoryUtilizationPercentage=90,
            scaleDownAfter="10m",
        ),
    ),
    Good(title="a tolerated taint", spec=serving(tolerations=[{"operator": "Exists"}])),
    Good(title="a variable without value", spec=variable()),
    Good(title="an anonymous folder", spec=volume(emptyDir={})),
    Good(title="a mount", spec=mount()),
    Good(title="a maintenance window", spec=window()),
    Good(title="a local window", spec=window(days=["Sat", "Sun"], timeZone="Europe/Berlin")),
    Good(title="fast or not at all", spec=serving(runtime="Fast")),
    Good(title="through MLflow", spec=serving(runtime="Pyfunc")),
    Good(title="empty sections", spec=serving() | {"monitoring": {"drift": {}, "outliers": {}}}),
    Good(title="null for absent", spec=serving(replicas=None, resources=None) | {"suspend": None}),
    Good(title="requests alone", spec=amounts({"cpu": "250m"})),
    Good(title="limits alone", spec=amounts(None, {"memory": "1Gi"})),
    Good(title="a request equal to its limit", spec=amounts({"cpu": "0.5"}, {"cpu": "500m"})),
    Good(title="whole cores as numbers", spec=amounts({"cpu": 1}, {"cpu": 2})),
    Good(title="an exponent", spec=amounts({"memory": "5e8"}, {"memory": "500M"})),
    Good(title="the shortest window", spec=monitoring(window="5s")),
    Good(title="the longest window", spec=monitoring(window="1h")),
    Good(title="a window in two units", spec=monitoring(window="1m30s")),
    Good(title="a window in many seconds", spec=monitoring(window="3600s")),
    Good(title="drift: no tolerance", spec=monitoring(drift={"warn": "0", "alert": "0"})),
    Good(title="drift: the bound", spec=monitoring(drift={"warn": "10", "alert": "10.000000"})),
    Good(title="drift: alert alone", spec=monitoring(drift={"alert": "0.5"})),
    Good(title="drift: warn alone", spec=monitoring(drift={"warn": "0.3"})),
    Good(title="outliers: any excess", spec=monitoring(outliers={"warn": "1", "alert": "1"})),
    Good(title="outliers: digits", spec=monitoring(outliers={"warn": "1.25", "alert": "12.125"})),
    Good(title="objectives: none fails", spec=monitoring(objectives={"errorRate": "0"})),
    Good(title="objectives: patience", spec=monitoring(objectives={"p99": "10m"})),
    Good(title="an object's name of 52 letters", spec=predictor(**PREDICTOR), name="e" * 52),
    Good(title="an object's name of one letter", spec=predictor(**PREDICTOR), name="e"),
    Good(title="an object's name with -", spec=predictor(**PREDICTOR), name="eu--west-1"),
    Good(kind="ModelImage", title="an image", spec=IMAGE_SPEC),
    Good(
        kind="ModelImage",
        title="an image of three models",
        spec=image(
            models=[IMAGE_MODEL | {"role": role} for role in ("predictor", "drift", "outlier")],
            rebuild="again",
        ),
        name="employment-0123456789ab",
    ),
    Good(
        kind="ModelImage",
        title="an image through MLflow",
        spec=image(runtime={"version": "0.1.0", "profile": "Pyfunc"}),
    ),
    Good(
        kind="ModelImage",
        title="an image for Azure",
        spec=image(
            trackingUri="databricks://profile",
            repository="acme.azurecr.io/team_a/model-ops/employment",
            platforms=["linux/amd64", "linux/arm64/v8"],
        ),
    ),
    Good(
        kind="ModelImage",
        title="an image of a model without a run",
        spec=image(
            models=[{key: IMAGE_MODEL[key] for key in ("role", "name", "version", "source")}]
        ),
    ),
)

_MODEL = "spec.models.predictor"
_SERVING = "spec.serving"
_RESOURCES = "spec.serving.resources"
_DRIFT = "spec.monitoring.drift"
_OUTLIERS = "spec.monitoring.outliers"
_OBJECTIVES = "spec.monitoring.objectives"

BAD = (
    # --- models
    Bad(title="no models", spec={}, field="spec.models", says="is required",
        server_says="Required value"),
    Bad(title="no predictor", spec={"models": {"drift": DRIFT}}, field=_MODEL, says="is required",
        server_says="Required value"),
    Bad(title="models is null", spec={"models": None}, field="spec.models", says="is required",
        server_says="Required value"),
    Bad(title="models is a list", spec={"models": [PREDICTOR]}, field="spec.models",
        says="must be an object with fields", server_says="unknown field"),
    Bad(title="a model is text", spec={"models": {"predictor": "employment"}}, field=_MODEL,
        says="must be an object with fields", server_says="must be of type object"),
    Bad(title="neither alias nor version", spec=predictor(name="employment"), field=_MODEL,
        says=XOR),
    Bad(title="alias and version", spec=predictor(name="e", alias="a", version="1"), field=_MODEL,
        says=XOR),
    Bad(title="a detector with alias and version",
        spec={"models": {"predictor": PREDICTOR, "drift": DRIFT | {"version": "1"}}},
        field="spec.models.drift", says=XOR),
    Bad(title="a detector without name",
        spec={"models": {"predictor": PREDICTOR, "outlier": {"alias": "a"}}},
        field="spec.models.outlier.name", says="is required", server_says="Required value"),
    Bad(title="no name", spec=predictor(alias="a"), field=f"{_MODEL}.name", says="is required",
        server_says="Required value"),
    Bad(title="an empty name", spec=predictor(name="", alias="a"), field=f"{_MODEL}.name",
        says="must have at least 1 character", server_says="at least 1 char"),
    Bad(title="a name of 256 letters", spec=predictor(name="e" * 256, alias="a"),
        field=f"{_MODEL}.name", says="must have at most 255 characters",
        server_says="may not be more than 255 bytes"),
    Bad(title="a name with /", spec=predictor(name="a/b", alias="a"), field=f"{_MODEL}.name",
        says="must match", server_says="should match"),
    Bad(title="a name with :", spec=predictor(name="models:a", alias="a"), field=f"{_MODEL}.name",
        says="must match", server_says="should match"),
    Bad(title="a name that begins with a blank", spec=predictor(name=" a", alias="a"),
        field=f"{_MODEL}.name", says="must match", server_says="should match"),
    Bad(title="a name with a line break", spec=predictor(name="a\nb", alias="a"),
        field=f"{_MODEL}.name", says="must match", server_says="should match"),
    Bad(title="a name that ends with a line break", spec=predictor(name="a\n", alias="a"),
        field=f"{_MODEL}.name", says="must match", server_says="should match"),
    Bad(title="a name that is a number", spec=predictor(name=5, alias="a"), field=f"{_MODEL}.name",
        says="must be text; put it in quotes", server_says="must be of type string"),
    Bad(title="an empty alias", spec=predictor(name="e", alias=""), field=f"{_MODEL}.alias",
        says="must have at least 1 character", server_says="at least 1 char"),
    Bad(title="an alias with a blank", spec=predictor(name="e", alias="a b"),
        field=f"{_MODEL}.alias", says="must match", server_says="should match"),
    Bad(title="the alias latest", spec=predictor(name="e", alias="latest"), field=_MODEL,
        says=RESERVED),
    Bad(title="the alias Latest", spec=predictor(name="e", alias="Latest"), field=_MODEL,
        says=RESERVED),
    Bad(title="the alias v7", spec=predictor(name="e", alias="v7"), field=_MODEL, says=RESERVED),
    Bad(title="an alias of 256 letters", spec=predictor(name="e", alias="a" * 256),
        field=f"{_MODEL}.alias", says="must have at most 255 characters",
        server_says="may not be more than 255 bytes"),
    Bad(title="a version as a number", spec=predictor(name="e", version=7),
        field=f"{_MODEL}.version", says="must be text; put it in quotes (is 7)",
        server_says="must be of type string"),
    Bad(title="a version with v", spec=predictor(name="e", version="v7"),
        field=f"{_MODEL}.version", says="must match", server_says="should match"),
    Bad(title="version 0", spec=predictor(name="e", version="0"), field=f"{_MODEL}.version",
        says="must match", server_says="should match"),
    Bad(title="a version in other digits", spec=predictor(name="e", version="7٣"),
        field=f"{_MODEL}.version", says="must match", server_says="should match"),
    Bad(title="a version of 19 digits", spec=predictor(name="e", version="1" * 19),
        field=f"{_MODEL}.version", says="must have at most 18 characters",
        server_says="may not be more than 18 bytes"),
    Bad(title="a stage", spec=predictor(name="e", stage="Production"), field=f"{_MODEL}.stage",
        says="is not a field that this version knows", server_says="unknown field"),
    Bad(title="an unknown role",
        spec={"models": {"predictor": PREDICTOR, "explainer": DRIFT}},
        field="spec.models.explainer", says="is not a field that this version knows",
        server_says="unknown field"),
    # --- serving
    Bad(title="replicas below 0", spec=serving(replicas=-1), field=f"{_SERVING}.replicas",
        says="must be at least 0 (is -1)", server_says="greater than or equal to 0"),
    Bad(title="1001 replicas", spec=serving(replicas=1001), field=f"{_SERVING}.replicas",
        says="must be at most 1000 (is 1001)", server_says="less than or equal to 1000"),
    Bad(title="replicas as text", spec=serving(replicas="2"), field=f"{_SERVING}.replicas",
        says="must be a whole number, without quotes", server_says="must be of type integer"),
    Bad(title="a whole number written as a fraction", spec=serving(replicas=2.0),
        field=f"{_SERVING}.replicas", says="must be a whole number", server_says="expected int64"),
    Bad(title="half a replica", spec=serving(replicas=1.5), field=f"{_SERVING}.replicas",
        says="must be a whole number", server_says="must be of type integer"),
    Bad(title="replicas as a boolean", spec=serving(replicas=True), field=f"{_SERVING}.replicas",
        says="must be a whole number, without quotes", server_says="must be of type int64"),
    Bad(title="a misspelt field", spec=serving(replica=2), field=f"{_SERVING}.replica",
        says="is not a field that this version knows; remove it, or correct its name",
        server_says="unknown field"),
    Bad(title="more processor asked for than allowed",
        spec=amounts({"cpu": "2"}, {"cpu": "1500m"}), field=_RESOURCES,
        says="requests.cpu must not exceed limits.cpu"),
    Bad(title="more cores asked for than allowed", spec=amounts({"cpu": 2}, {"cpu": 1}),
        field=_RESOURCES, says="requests.cpu must not exceed limits.cpu"),
    Bad(title="more memory asked for than allowed",
        spec=amounts({"memory": "1Gi"}, {"memory": "1G"}), field=_RESOURCES,
        says="requests.memory must not exceed limits.memory"),
    Bad(title="an unknown unit", spec=amounts({"memory": "512MB"}),
        field=f"{_RESOURCES}.requests.memory", says="is not a quantity; write it like 500m",
        server_says="should match"),
    Bad(title="less than no processor", spec=amounts({"cpu": "-1"}),
        field=f"{_RESOURCES}.requests.cpu", says="is not a quantity", server_says="should match"),
    Bad(title="less than no cores", spec=amounts({"cpu": -1}),
        field=f"{_RESOURCES}.requests.cpu", says="is not a quantity",
        server_says="greater than or equal to 0"),
    Bad(title="a fraction without quotes", spec=amounts({"cpu": 0.5}),
        field=f"{_RESOURCES}.requests.cpu", says="must be text; put it in quotes",
        server_says="must be of type"),
    Bad(title="a quantity of 33 characters", spec=amounts(None, {"memory": "1" * 33}),
        field=f"{_RESOURCES}.limits.memory", says="must have at most 32 characters",
        server_says="may not be more than 32 bytes"),
    Bad(title="another resource", spec=amounts({"nvidia.com/gpu": "1"}),
        field=f"{_RESOURCES}.requests.nvidia.com/gpu",
        says="is not a field that this version knows", server_says="unknown field"),
    # --- autoscaling
    Bad(title="no most replicas", spec=serving(autoscaling={"minReplicas": 1}),
        field=f"{_SERVING}.autoscaling.maxReplicas", says="is required",
        server_says="Required value"),
    Bad(title="scaled to nothing", spec=autoscaling(minReplicas=0),
        field=f"{_SERVING}.autoscaling.minReplicas", says="must be at least 1 (is 0)",
        server_says="greater than or equal to 1"),
    Bad(title="more at least than at most", spec=autoscaling(minReplicas=6),
        field=f"{_SERVING}.autoscaling", says="minReplicas must not exceed maxReplicas"),
    Bad(title="autoscaling without a request", spec=autoscaling({"requests": {"memory": "1Gi"}}),
        field=_SERVING, says="autoscaling by cpu is measured in percent of resources.requests.cpu"),
    Bad(title="autoscaling by memory without a request",
        spec=autoscaling(targetMemoryUtilizationPercentage=80), field=_SERVING,
        says="autoscaling by memory is measured in percent of resources.requests.memory"),
    # --- pods
    Bad(title="a toleration of nothing", spec=serving(tolerations=[{"effect": "NoSchedule"}]),
        field=f"{_SERVING}.tolerations[0]", says="give key, or operator Exists"),
    Bad(title="a toleration of any value", field=f"{_SERVING}.tolerations[0]",
        spec=serving(tolerations=[{"key": "a", "operator": "Exists", "value": "b"}]),
        says="operator Exists takes no value"),
    Bad(title="patience without eviction", field=f"{_SERVING}.tolerations[0]",
        spec=serving(tolerations=[{"key": "a", "tolerationSeconds": 5}]),
        says="tolerationSeconds needs effect NoExecute"),
    Bad(title="an unknown effect", field=f"{_SERVING}.tolerations[0].effect",
        spec=serving(tolerations=[{"key": "a", "effect": "Never"}]),
        says="must be one of 'NoSchedule'", server_says='supported values: "NoSchedule"'),
    Bad(title="a spread without skew", field=f"{_SERVING}.topologySpreadConstraints[0].maxSkew",
        spec=serving(topologySpreadConstraints=[
            {"topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}]),
        says="is required", server_says="Required value"),
    Bad(title="a weight of 0", spec=serving(affinity={"nodeAffinity": {
        "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 0, "preference": {}}]}}),
        field=f"{_SERVING}.affinity.nodeAffinity."
        "preferredDuringSchedulingIgnoredDuringExecution[0].weight",
        says="must be at least 1", server_says="greater than or equal to 1"),
    Bad(title="a node label that is no label", spec=serving(nodeSelector={"a": "b c"}),
        field=f"{_SERVING}.nodeSelector.a", says="must match", server_says="should match"),
    Bad(title="a variable of the operator's",
        spec=serving(env=[{"name": "MODELOPS_REVISION", "value": "1"}]),
        field=f"{_SERVING}.env[0]",
        says="variables that begin with MODELOPS_ are the operator's"),
    Bad(title="a variable twice over", field=f"{_SERVING}.env[0]",
        spec=variable(value="1", valueFrom={"secretKeyRef": {"name": "a", "key": "b"}}),
        says="give value or valueFrom, not both"),
    Bad(title="a variable from two places", field=f"{_SERVING}.env[0].valueFrom",
        spec=variable(valueFrom={"secretKeyRef": {"name": "a", "key": "b"},
                                 "configMapKeyRef": {"name": "a", "key": "b"}}),
        says="give exactly one of configMapKeyRef, secretKeyRef"),
    Bad(title="a variable with a number", spec=variable(value=5),
        field=f"{_SERVING}.env[0].value", says="must be text; put it in quotes",
        server_says="must be of type string"),
    Bad(title="a variable named =", spec=serving(env=[{"name": "A=B"}]),
        field=f"{_SERVING}.env[0].name", says="must match", server_says="should match"),
    Bad(title="variables from nowhere", spec=serving(envFrom=[{"prefix": "A_"}]),
        field=f"{_SERVING}.envFrom[0]", says="give exactly one of configMapRef, secretRef"),
    Bad(title="a volume of nothing", spec=volume(), field=f"{_SERVING}.volumes[0]",
        says="give exactly one of configMap, secret, emptyDir, persistentVolumeClaim"),
    Bad(title="a folder of the node", spec=volume(hostPath={"path": "/"}),
        field=f"{_SERVING}.volumes[0].hostPath", says="is not a field that this version knows",
        server_says="unknown field"),
    Bad(title="the operator's volume", spec=serving(volumes=[{"name": "tmp", "emptyDir": {}}]),
        field=f"{_SERVING}.volumes[0]", says='the volume "tmp" is the operator\'s'),
    Bad(title="a mount over /tmp", spec=mount(mountPath="/tmp"),
        field=f"{_SERVING}.volumeMounts[0]", says="mountPath may be none of /, /tmp, /opt/bento"),
    Bad(title="a mount over the root", spec=mount(mountPath="/"),
        field=f"{_SERVING}.volumeMounts[0]", says="mountPath may be none of /, /tmp, /opt/bento"),
    Bad(title="a mount at a relative path", spec=mount(mountPath="data"),
        field=f"{_SERVING}.volumeMounts[0].mountPath", says="must match",
        server_says="should match"),
    Bad(title="a mount of no volume", spec=mount(name="date"), field=_SERVING,
        says="volumeMounts must name one of volumes"),
    Bad(title="a label of the operator's", field=_SERVING,
        spec=serving(podLabels={"modelops.dev/deployment": "other"}),
        says="podLabels may hold neither modelops.dev/..."),
    Bad(title="an annotation of the operator's", field=_SERVING,
        spec=serving(podAnnotations={"modelops.dev/revision": "other"}),
        says="podAnnotations may hold neither modelops.dev/..."),
    Bad(title="a pod template of text", spec=serving(podTemplate="spec: {}"),
        field=f"{_SERVING}.podTemplate", says="must be an object with fields",
        server_says="must be of type object"),
    # --- maintenance
    Bad(title="a window at 25 o'clock", spec=window(start="25:00"),
        field=f"{_SERVING}.maintenanceWindow.start", says="must match",
        server_says="should match"),
    Bad(title="a window of a minute", spec=window(duration="1m"),
        field=f"{_SERVING}.maintenanceWindow.duration",
        says="must be a duration between 15m and 24h"),
    Bad(title="a window on a holiday", spec=window(days=["Xmas"]),
        field=f"{_SERVING}.maintenanceWindow.days[0]", says="must be one of 'Mon'",
        server_says='supported values: "Mon"'),
    # --- runtime
    Bad(title="a runtime in lower case", spec=serving(runtime="fast"),
        field="spec.serving.runtime", says="must be one of 'Auto', 'Fast' or 'Pyfunc'",
        server_says='supported values: "Auto", "Fast", "Pyfunc"'),
    Bad(title="a runtime of its version", spec=serving(runtime={"version": "0.1.0"}),
        field="spec.serving.runtime", says="must be one of 'Auto', 'Fast' or 'Pyfunc'",
        server_says="unknown field"),
    # --- suspend
    Bad(title="suspend as text", spec=predictor(**PREDICTOR) | {"suspend": "true"},
        field="spec.suspend", says="must be true or false, without quotes",
        server_says="must be of type boolean"),
    Bad(title="suspend as a number", spec=predictor(**PREDICTOR) | {"suspend": 1},
        field="spec.suspend", says="must be true or false, without quotes",
        server_says="must be of type boolean"),
    # --- monitoring
    Bad(title="a window of 4 s", spec=monitoring(window="4s"), field="spec.monitoring.window",
        says=WINDOW),
    Bad(title="a window above an hour", spec=monitoring(window="1h1s"),
        field="spec.monitoring.window", says=WINDOW),
    Bad(title="an empty window", spec=monitoring(window=""), field="spec.monitoring.window",
        says=WINDOW),
    Bad(title="a window without a unit", spec=monitoring(window="300"),
        field="spec.monitoring.window", says=WINDOW),
    Bad(title="a window as a number", spec=monitoring(window=300),
        field="spec.monitoring.window", says=WINDOW, server_says="must be of type string"),
    Bad(title="a window in fractions", spec=monitoring(window="1.5m"),
        field="spec.monitoring.window", says=WINDOW),
    Bad(title="a window in words", spec=monitoring(window="5 minutes"),
        field="spec.monitoring.window", says=WINDOW),
    Bad(title="a window in milliseconds", spec=monitoring(window="60000ms"),
        field="spec.monitoring.window", says=WINDOW),
    Bad(title="drift: a number without quotes", spec=monitoring(drift={"warn": 0.1}),
        field=f"{_DRIFT}.warn", says=DRIFT_RANGE, server_says="must be of type string"),
    Bad(title="drift: no number", spec=monitoring(drift={"warn": "high"}), field=f"{_DRIFT}.warn",
        says=DRIFT_RANGE),
    Bad(title="drift: below 0", spec=monitoring(drift={"warn": "-0.1"}), field=f"{_DRIFT}.warn",
        says=DRIFT_RANGE),
    Bad(title="drift: above 10", spec=monitoring(drift={"alert": "10.01"}),
        field=f"{_DRIFT}.alert", says=DRIFT_RANGE),
    Bad(title="drift: an exponent", spec=monitoring(drift={"alert": "1e0"}),
        field=f"{_DRIFT}.alert", says=DRIFT_RANGE),
    Bad(title="drift: no digit before the point", spec=monitoring(drift={"warn": ".1"}),
        field=f"{_DRIFT}.warn", says=DRIFT_RANGE),
    Bad(title="drift: seven digits behind the point", spec=monitoring(drift={"warn": "0.1234567"}),
        field=f"{_DRIFT}.warn", says=DRIFT_RANGE),
    Bad(title="drift: warn above alert", spec=monitoring(drift={"warn": "0.3", "alert": "0.25"}),
        field=_DRIFT, says=WARN),
    Bad(title="outliers: below the reference", spec=monitoring(outliers={"warn": "0.9"}),
        field=f"{_OUTLIERS}.warn", says=OUTLIER_RANGE),
    Bad(title="outliers: above 1000", spec=monitoring(outliers={"alert": "1000.1"}),
        field=f"{_OUTLIERS}.alert", says=OUTLIER_RANGE),
    Bad(title="outliers: alert below the default warn", spec=monitoring(outliers={"alert": "1.2"}),
        field=_OUTLIERS, says=WARN),
    Bad(title="outliers: 10 is more than 9", spec=monitoring(outliers={"warn": "10", "alert": "9"}),
        field=_OUTLIERS, says=WARN),
    Bad(title="objectives: a share above 1", spec=monitoring(objectives={"errorRate": "5"}),
        field=f"{_OBJECTIVES}.errorRate", says=SHARE),
    Bad(title="objectives: a percentage", spec=monitoring(objectives={"errorRate": "5%"}),
        field=f"{_OBJECTIVES}.errorRate", says=SHARE),
    Bad(title="objectives: no time at all", spec=monitoring(objectives={"p99": "0s"}),
        field=f"{_OBJECTIVES}.p99", says=LATENCY),
    Bad(title="objectives: microseconds", spec=monitoring(objectives={"p99": "500us"}),
        field=f"{_OBJECTIVES}.p99", says=LATENCY),
    # --- the object's name
    Bad(title="an object's name of 53 letters", spec=predictor(**PREDICTOR), name="e" * 53,
        field="", says=NAME),
    Bad(title="an object's name with a dot", spec=predictor(**PREDICTOR), name="e.v2",
        field="", says=NAME),
    Bad(title="an object's name that begins with a digit", spec=predictor(**PREDICTOR), name="2e",
        field="", says=NAME),
    # --- the object
    Bad(title="no spec", spec=None, field="spec", says="is required", server_says="Required value"),
    Bad(title="a spec of text", spec="employment", field="spec",
        says="must be an object with fields", server_says="must be of type object"),
    # --- ModelImage
    Bad(kind="ModelImage", title="an image of nothing", spec=image(models=[]), field="spec.models",
        says="must have at least 1 item", server_says="at least 1 items"),
    Bad(kind="ModelImage", title="an image without predictor",
        spec=image(models=[IMAGE_MODEL | {"role": "drift"}]), field="spec",
        says="one of the models must have the role predictor"),
    Bad(kind="ModelImage", title="an image of two predictors",
        spec=image(models=[IMAGE_MODEL, IMAGE_MODEL]), field="spec.models",
        says="has two models of one role", server_says="Duplicate value"),
    Bad(kind="ModelImage", title="an image of an unknown role",
        spec=image(models=[IMAGE_MODEL, IMAGE_MODEL | {"role": "explainer"}]),
        field="spec.models[1].role", says="must be one of 'predictor', 'drift' or 'outlier'",
        server_says='supported values: "predictor", "drift", "outlier"'),
    Bad(kind="ModelImage", title="an image of another runtime",
        spec=image(runtime={"version": "0.1.0", "profile": "Slow"}), field="spec.runtime.profile",
        says="must be one of 'Auto', 'Fast' or 'Pyfunc'",
        server_says='supported values: "Auto", "Fast", "Pyfunc"'),
    Bad(kind="ModelImage", title="an image with a tag",
        spec=image(repository="10.1.1.1:5000/modelops/employment:latest"), field="spec.repository",
        says="must match", server_says="should match"),
    Bad(kind="ModelImage", title="an image on a base without digest",
        spec=image(base="10.1.1.1:5000/modelops/base:3.11"), field="spec.base", says="must match",
        server_says="should match"),
    Bad(kind="ModelImage", title="an image from a file",
        spec=image(trackingUri="file:///tmp/mlruns"), field="spec.trackingUri", says="must match",
        server_says="should match"),
    Bad(kind="ModelImage", title="an image for a platform twice",
        spec=image(platforms=["linux/amd64", "linux/amd64"]), field="spec.platforms",
        says="has an item twice", server_says="Duplicate value"),
    Bad(kind="ModelImage", title="an image of Python 3.11.7", spec=image(python="3.11.7"),
        field="spec.python", says="must have at most 5 characters",
        server_says="may not be more than 5 bytes"),
    Bad(kind="ModelImage", title="an image of Python as a number", spec=image(python=3.11),
        field="spec.python", says="must be text; put it in quotes",
        server_says="must be of type string"),
)  # fmt: skip
