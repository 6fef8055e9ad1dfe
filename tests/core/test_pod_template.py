"""What the user says of the pods reaches them, and disappears again."""

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from modelops_operator.api.pods import PodSettings
from modelops_operator.core.differences import differs
from modelops_operator.core.owner import Owner
from modelops_operator.core.pod_security import violations
from modelops_operator.core.pod_template import Settings, generated, objection
from modelops_operator.core.release import Release

from tests.api.objects import POD_SETTINGS
from tests.core.simulation import AUTOSCALER, DEPLOYMENT, Cluster, configuration

pytestmark = pytest.mark.unit

OWNER = Owner(name="employment", namespace="staging", uid="uid-1")
RELEASE = Release(models=(), reference="registry/a@sha256:1", lock="", runtime="0.1.0")

Reached = Callable[[Mapping[str, Any]], Any]


def server(pod: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = pod["spec"]["containers"][0]
    return found


def named(items: Any, wanted: Any, key: str = "name") -> Any:
    """Give the items of a list that are called as the wanted ones are."""
    names = {item[key] for item in wanted}
    return [item for item in items if item[key] in names]


PLACES: Mapping[str, Reached] = {
    "nodeSelector": lambda pod: pod["spec"].get("nodeSelector"),
    "tolerations": lambda pod: pod["spec"].get("tolerations"),
    "affinity": lambda pod: pod["spec"].get("affinity"),
    "topologySpreadConstraints": lambda pod: [
        {
            key: value
            for key, value in each.items()
            if key not in {"labelSelector", "matchLabelKeys"}
        }
        for each in pod["spec"]["topologySpreadConstraints"]
    ],
    "priorityClassName": lambda pod: pod["spec"].get("priorityClassName"),
    "serviceAccountName": lambda pod: pod["spec"]["serviceAccountName"],
    "env": lambda pod: named(server(pod)["env"], POD_SETTINGS["env"]),
    "envFrom": lambda pod: server(pod).get("envFrom"),
    "volumes": lambda pod: named(pod["spec"]["volumes"], POD_SETTINGS["volumes"]),
    "volumeMounts": lambda pod: named(server(pod)["volumeMounts"], POD_SETTINGS["volumeMounts"]),
    "imagePullSecrets": lambda pod: pod["spec"].get("imagePullSecrets"),
    "podLabels": lambda pod: {
        key: value for key, value in pod["metadata"]["labels"].items() if key == "team"
    },
    "podAnnotations": lambda pod: pod["metadata"].get("annotations"),
    "podTemplate": lambda pod: {
        "spec": {
            "dnsPolicy": pod["spec"].get("dnsPolicy"),
            "containers": [
                {
                    "name": "server",
                    "startupProbe": {
                        "failureThreshold": server(pod)["startupProbe"]["failureThreshold"]
                    },
                }
            ],
        }
    },
}
"""Where in a pod template each field of the spec is found."""

SERVING: Mapping[str, Any] = POD_SETTINGS | {
    "replicas": 3,
    "resources": {"requests": {"cpu": "250m"}, "limits": {"memory": "1Gi"}},
    "autoscaling": {"minReplicas": 2, "maxReplicas": 4},
}
subsets = st.sets(st.sampled_from(sorted(SERVING))).map(
    # What needs another field comes with it.
    lambda names: (
        names
        | ({"resources"} if "autoscaling" in names else set())
        | ({"volumes"} if "volumeMounts" in names else set())
    )
)


def pod(**fields: Any) -> dict[str, Any]:
    settings = Settings(resources={}, window=timedelta(minutes=5), pods=fields)
    return dict(generated(OWNER, RELEASE, settings).pod)


def refused(overlay: Any, *, restricted: bool = True, **fields: Any) -> str:
    """Give the message of the refusal; empty where there is none."""
    settings = Settings(
        resources={}, window=timedelta(minutes=5), pods={**fields, "podTemplate": overlay}
    )
    failure = objection(OWNER, settings, restricted=restricted)
    if failure is None:
        return ""
    assert (failure.reason, failure.permanent) == ("PodTemplateRefused", True)
    return failure.message


def test_every_field_of_the_spec_is_tried() -> None:
    assert {field.alias for field in PodSettings.model_fields.values()} == set(POD_SETTINGS)
    assert set(PLACES) == set(POD_SETTINGS)


@pytest.mark.parametrize("field", PLACES)
def test_every_field_reaches_the_pods_and_nothing_is_there_without_it(field: str) -> None:
    reached = PLACES[field]
    assert reached(pod(**POD_SETTINGS)) == POD_SETTINGS[field]
    without = {name: value for name, value in POD_SETTINGS.items() if name != field}
    assert reached(pod(**without)) == reached(pod()) != POD_SETTINGS[field]


def serving(names: set[str]) -> dict[str, Any]:
    return {name: SERVING[name] for name in sorted(names)}


def applied(cluster: Cluster) -> dict[str, Any]:
    """Give what is applied, without what differs from time to time."""
    return {
        ref.kind: {key: value for key, value in live.items() if key not in {"status", "metadata"}}
        | {"annotations": live["metadata"]["annotations"]}
        for ref, live in cluster.children.items()
    }


@given(st.lists(subsets, min_size=1, max_size=4))
def test_any_path_of_edits_ends_where_the_last_alone_would(path: list[set[str]]) -> None:
    """R4, R6 and R7: what is declared reaches the children, what is removed disappears."""
    cluster, direct = Cluster(), Cluster()
    for names in path:
        set_serving(cluster, **serving(names))
    set_serving(direct, **serving(path[-1]))
    if AUTOSCALER in cluster.children:
        # How many there are is the autoscaler's.
        for each in (cluster, direct):
            assert 2 <= each.children[DEPLOYMENT]["spec"].pop("replicas") <= 4
    assert applied(cluster) == applied(direct)
    assert cluster.decide().apply == ()
    assert cluster.conditions["Ready"] == ("True", "Serving")
    assert "UpdateAvailable" not in cluster.conditions
    assert (AUTOSCALER in cluster.children) == ("autoscaling" in path[-1])


def test_the_users_labels_do_not_replace_ours() -> None:
    labels = pod(podLabels={"team": "census", "modelops.dev/deployment": "x"})["metadata"]["labels"]
    assert (labels["team"], labels["modelops.dev/deployment"]) == ("census", "employment")


def test_spread_constraints_are_about_the_deployments_own_pods() -> None:
    (spread,) = pod(**POD_SETTINGS)["spec"]["topologySpreadConstraints"]
    assert spread["labelSelector"] == {"matchLabels": {"modelops.dev/deployment": "employment"}}


def test_what_the_validated_fields_make_keeps_to_the_standard() -> None:
    assert violations(pod(**POD_SETTINGS)) == ()


# --- the overlay ---------------------------------------------------------------------------

SIDECAR = {
    "name": "proxy",
    "image": "example/proxy@sha256:1",
    "securityContext": {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    },
}


def test_an_overlay_merges_lists_by_their_keys() -> None:
    overlay = {
        "spec": {
            "containers": [
                {
                    "name": "server",
                    "env": [{"name": "A", "value": "2"}, {"name": "B", "value": "3"}],
                },
                SIDECAR,
            ],
            "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "5Gi"}}],
        }
    }
    assert refused(overlay) == ""
    spec = pod(env=[{"name": "A", "value": "1"}], podTemplate=overlay)["spec"]
    assert [one["name"] for one in spec["containers"]] == ["server", "proxy"]
    variables = {one["name"]: one.get("value") for one in spec["containers"][0]["env"]}
    assert (variables["A"], variables["B"]) == ("2", "3")
    assert variables["MODELOPS_DEPLOYMENT"] == "staging/employment"
    assert spec["volumes"] == [{"name": "tmp", "emptyDir": {"sizeLimit": "5Gi"}}]


def test_an_overlay_removes_by_null_and_by_directive() -> None:
    overlay = {
        "spec": {
            "topologySpreadConstraints": [
                {
                    "$patch": "delete",
                    "topologyKey": "kubernetes.io/hostname",
                    "whenUnsatisfiable": "ScheduleAnyway",
                }
            ],
            "containers": [{"name": "server", "lifecycle": None}],
            "securityContext": {
                "$patch": "replace",
                "runAsNonRoot": True,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
        }
    }
    assert refused(overlay) == ""
    spec = pod(podTemplate=overlay)["spec"]
    assert spec["topologySpreadConstraints"] == []
    assert "lifecycle" not in spec["containers"][0]
    assert "runAsUser" not in spec["securityContext"]


def context(**fields: Any) -> dict[str, Any]:
    return {"spec": {"containers": [{"name": "server", "securityContext": fields}]}}


REFUSED: Mapping[str, tuple[Any, str]] = {
    "the host's network": ({"spec": {"hostNetwork": True}}, "spec.hostNetwork must not be true"),
    "a path of the node": (
        {"spec": {"volumes": [{"name": "root", "hostPath": {"path": "/"}}]}},
        "spec.volumes[root].hostPath is not among",
    ),
    "a privileged server": (
        context(privileged=True),
        "spec.containers[server].securityContext.privileged must not be true",
    ),
    "a writable root": (
        context(readOnlyRootFilesystem=False),
        "spec.containers[server].securityContext.readOnlyRootFilesystem must be true",
    ),
    "a capability": (
        context(capabilities={"add": ["SYS_ADMIN"]}),
        "spec.containers[server].securityContext.capabilities.add may hold NET_BIND_SERVICE only",
    ),
    "capabilities kept": (
        context(capabilities=None),
        "spec.containers[server].securityContext.capabilities.drop must hold ALL",
    ),
    "root": (
        {"spec": {"securityContext": {"runAsUser": 0}}},
        "spec.securityContext.runAsUser must not be 0",
    ),
    "root for the server": (
        context(runAsUser=0, runAsNonRoot=False),
        "spec.containers[server].securityContext.runAsNonRoot must be true",
    ),
    "no seccomp": (
        {"spec": {"securityContext": {"seccompProfile": {"type": "Unconfined"}}}},
        "spec.securityContext.seccompProfile.type must be Localhost or RuntimeDefault",
    ),
    "seccomp left out": (
        {"spec": {"securityContext": {"seccompProfile": None}}},
        "spec.containers[server].securityContext.seccompProfile.type must be",
    ),
    "no AppArmor": (
        context(appArmorProfile={"type": "Unconfined"}),
        "spec.containers[server].securityContext.appArmorProfile.type must be",
    ),
    "no AppArmor, in the former way": (
        {
            "metadata": {
                "annotations": {
                    "container.apparmor.security.beta.kubernetes.io/server": "unconfined"
                }
            }
        },
        "metadata.annotations[container.apparmor.security.beta.kubernetes.io/server] must be",
    ),
    "another SELinux type": (
        context(seLinuxOptions={"type": "spc_t"}),
        "spec.containers[server].securityContext.seLinuxOptions.type must be container_",
    ),
    "an unmasked /proc": (
        context(procMount="Unmasked"),
        "spec.containers[server].securityContext.procMount must be Default",
    ),
    "a port of the node": (
        {"spec": {"containers": [{**SIDECAR, "ports": [{"containerPort": 1, "hostPort": 1}]}]}},
        "spec.containers[proxy].ports.hostPort must be absent",
    ),
    "a probe of another host": (
        {"spec": {"containers": [{"name": "server", "livenessProbe": {"httpGet": {"host": "x"}}}]}},
        "spec.containers[server].livenessProbe.httpGet.host must be absent",
    ),
    "a sysctl": (
        {"spec": {"securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}}},
        "spec.securityContext.sysctls may not hold kernel.msgmax",
    ),
    "a host process": (
        {"spec": {"securityContext": {"windowsOptions": {"hostProcess": True}}}},
        "spec.securityContext.windowsOptions.hostProcess must not be true",
    ),
    "a weak sidecar": (
        {"spec": {"initContainers": [{"name": "init", "image": "a"}]}},
        "spec.initContainers[init].securityContext.allowPrivilegeEscalation must be false",
    ),
}
TOUCHED: Mapping[str, tuple[Any, str]] = {
    "another image": (
        {"spec": {"containers": [{"name": "server", "image": "mine"}]}},
        "spec.containers[server].image must not be given",
    ),
    "no server": (
        {"spec": {"containers": [{"name": "server", "$patch": "delete"}]}},
        "spec.containers[server] must stay",
    ),
    "no containers": ({"spec": {"containers": None}}, "spec.containers[server] must stay"),
    "another port": (
        {"spec": {"containers": [{"name": "server", "ports": [{"containerPort": 9}]}]}},
        "spec.containers[server].ports must not be given",
    ),
    "a variable of ours": (
        {
            "spec": {
                "containers": [
                    {"name": "server", "env": [{"name": "MODELOPS_REVISION", "value": "x"}]}
                ]
            }
        },
        "spec.containers[server].env[MODELOPS_REVISION] must not be given",
    ),
    "a label of ours": (
        {"metadata": {"labels": {"modelops.dev/deployment": "other"}}},
        "metadata.labels[modelops.dev/deployment] must stay 'employment'",
    ),
    "no labels": ({"metadata": None}, "metadata.labels[app.kubernetes.io/name] must stay"),
    "text for a map": ({"spec": "x"}, "spec must be an object with fields (is 'x')"),
    "a list for a map": (
        {"spec": {"securityContext": []}},
        "spec.securityContext must not be a list",
    ),
    "a map for a list": (
        {"spec": {"containers": {"server": {}}}},
        "spec.containers must not be an object with fields",
    ),
    "an item without a name": (
        {"spec": {"volumes": [{"emptyDir": {}}]}},
        "spec.volumes must hold objects, each with name",
    ),
    "an unknown directive": (
        {"spec": {"securityContext": {"$patch": "erase"}}},
        'spec.securityContext.$patch must be "merge" or "replace" here',
    ),
}


@pytest.mark.parametrize(("overlay", "says"), REFUSED.values(), ids=REFUSED)
def test_what_weakens_the_pods_is_refused_unless_it_is_allowed(overlay: Any, says: str) -> None:
    message = refused(overlay)
    assert f"spec.serving.podTemplate.{says}" in message
    assert "policy.podSecurity: Privileged" in message
    assert refused(overlay, restricted=False) == ""


def test_a_refusal_of_many_fields_still_tells_the_way_out() -> None:
    weak = [{"name": f"sidecar-{number}", "image": "a"} for number in range(9)]
    message = refused({"spec": {"containers": weak}})
    assert message.endswith("(policy.podSecurity: Privileged)")


@pytest.mark.parametrize(("overlay", "says"), TOUCHED.values(), ids=TOUCHED)
def test_what_the_operator_needs_stays_whatever_is_allowed(overlay: Any, says: str) -> None:
    assert f"spec.serving.podTemplate.{says}" in refused(overlay)
    assert refused(overlay, restricted=False) == refused(overlay)


def test_zeros_that_the_api_server_drops_are_no_difference() -> None:
    wanted = {"metadata": {}, "spec": {"hostNetwork": False, "env": [{"name": "A", "value": ""}]}}
    assert not differs(wanted, {"metadata": {}, "spec": {"env": [{"name": "A"}]}})
    token = {"metadata": {}, "spec": {"automountServiceAccountToken": False}}
    assert differs(token, {"metadata": {}, "spec": {}})
    escalation = {"metadata": {}, "securityContext": {"allowPrivilegeEscalation": False}}
    assert differs(escalation, {"metadata": {}, "securityContext": {}})


# --- in the life of a deployment -----------------------------------------------------------


def set_serving(cluster: Cluster, **fields: Any) -> None:
    cluster.edit(lambda spec: spec.update(serving=fields))
    cluster.converge()


def test_a_refused_pod_template_is_told_and_what_runs_goes_on() -> None:
    cluster = Cluster()
    cluster.converge()
    before = cluster.children[DEPLOYMENT]["spec"]["template"]
    set_serving(cluster, podTemplate={"spec": {"hostPID": True}}, replicas=3)
    assert cluster.conditions["Stalled"] == ("True", "PodTemplateRefused")
    assert cluster.conditions["Ready"] == ("True", "Serving")
    assert cluster.conditions["Available"] == ("True", "MinimumReplicasAvailable")
    assert cluster.children[DEPLOYMENT]["spec"]["template"] == before
    assert cluster.children[DEPLOYMENT]["spec"]["replicas"] == 3
    cluster.config = configuration(policy={"podSecurity": "Privileged"})
    cluster.converge()
    assert cluster.children[DEPLOYMENT]["spec"]["template"]["spec"]["hostPID"] is True
    assert "Stalled" not in cluster.conditions


def test_with_a_refused_pod_template_nothing_is_deployed() -> None:
    cluster = Cluster()
    set_serving(cluster, podTemplate={"spec": {"hostPID": True}})
    assert cluster.conditions["Stalled"] == ("True", "PodTemplateRefused")
    assert cluster.conditions["Ready"][0] == "False"
    assert DEPLOYMENT not in cluster.children


# --- replicas and the autoscaler -----------------------------------------------------------

CPU = {"requests": {"cpu": "500m"}}


@pytest.mark.parametrize("killed_after", [None, 0, 1, 2, 3])
def test_the_number_of_replicas_is_handed_over_and_never_dips(killed_after: int | None) -> None:
    cluster = Cluster()
    set_serving(cluster, replicas=3, resources=CPU)
    cluster.lowest_replicas = 1000
    scaling = {"minReplicas": 1, "maxReplicas": 9}
    cluster.edit(lambda spec: spec["serving"].update(autoscaling=scaling))
    cluster.reconcile(killed_after=killed_after)
    cluster.converge()
    assert cluster.lowest_replicas == cluster.children[DEPLOYMENT]["spec"]["replicas"] == 3
    cluster.autoscale(7)
    set_serving(cluster, autoscaling=scaling, resources={"requests": {"cpu": "1"}})
    assert cluster.children[DEPLOYMENT]["spec"]["replicas"] == 7
    assert cluster.decide().apply == ()
    assert cluster.decide().handover is None
    set_serving(cluster, replicas=2, resources=CPU)
    assert cluster.children[DEPLOYMENT]["spec"]["replicas"] == 2
    assert AUTOSCALER not in cluster.children


def test_an_autoscaled_deployment_starts_within_its_bounds() -> None:
    cluster = Cluster()
    set_serving(cluster, resources=CPU, autoscaling={"minReplicas": 2, "maxReplicas": 9})
    assert cluster.children[DEPLOYMENT]["spec"]["replicas"] == 2
    cluster.autoscale(6)
    cluster.converge()
    cluster.children.pop(DEPLOYMENT)
    cluster.converge()
    assert cluster.children[DEPLOYMENT]["spec"]["replicas"] == 6


def test_an_autoscaled_deployment_without_replicas_is_woken() -> None:
    cluster = Cluster()
    set_serving(cluster, replicas=0)
    assert cluster.conditions["Ready"] == ("True", "ScaledToZero")
    set_serving(cluster, resources=CPU, autoscaling={"minReplicas": 2, "maxReplicas": 9})
    assert cluster.children[DEPLOYMENT]["spec"]["replicas"] == 2
    cluster.children[DEPLOYMENT]["spec"]["replicas"] = 0
    cluster.converge()
    assert cluster.children[DEPLOYMENT]["spec"]["replicas"] == 2


def test_the_autoscaler_says_what_the_spec_says() -> None:
    cluster = Cluster()
    scaling = {
        "minReplicas": 2,
        "maxReplicas": 9,
        "targetCPUUtilizationPercentage": 60,
        "targetMemoryUtilizationPercentage": 70,
        "scaleDownAfter": "10m",
    }
    both = {"requests": {"cpu": "1", "memory": "1Gi"}}
    set_serving(cluster, resources=both, autoscaling=scaling)
    spec = cluster.children[AUTOSCALER]["spec"]
    assert spec["scaleTargetRef"] == {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "name": "employment",
    }
    assert (spec["minReplicas"], spec["maxReplicas"]) == (2, 9)
    targets = {
        each["resource"]["name"]: each["resource"]["target"]["averageUtilization"]
        for each in spec["metrics"]
    }
    assert targets == {"cpu": 60, "memory": 70}
    assert spec["behavior"] == {"scaleDown": {"stabilizationWindowSeconds": 600}}


def test_an_autoscaler_of_somebody_else_is_not_adopted() -> None:
    cluster = Cluster()
    cluster.converge()
    cluster.children[AUTOSCALER] = theirs = {
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "employment"},
    }
    cluster.converge()
    assert "Stalled" not in cluster.conditions
    set_serving(cluster, resources=CPU, autoscaling={"maxReplicas": 9})
    assert cluster.conditions["Stalled"] == ("True", "NameCollision")
    assert cluster.children[AUTOSCALER] is theirs
