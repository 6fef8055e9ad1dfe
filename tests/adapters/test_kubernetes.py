"""The Kubernetes API as we use it, against a real API server."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from modelops_operator.adapters.kubernetes import (
    CHILDREN,
    MODEL_DEPLOYMENTS,
    MODEL_IMAGES,
    ApiError,
    Cluster,
    Resource,
)
from modelops_operator.api.reasons import Reason

from tests.apiserver import Kubectl
from tests.mlflow_server import free_port

pytestmark = pytest.mark.contract

CONFIG_MAPS = Resource("v1", "ConfigMap", "configmaps")
SERVICES = CHILDREN["Service"]
Use = Callable[[Cluster], Coroutine[Any, Any, Any]]
_numbers = itertools.count()


@pytest.fixture
def namespace(apiserver: Path) -> Iterator[str]:
    name = f"adapter-{next(_numbers)}"
    Kubectl(apiserver)("create", "namespace", name)
    yield name
    # Nothing collects what is in a namespace here, and an operator of other tests would take it up.
    Kubectl(apiserver)("-n", name, "delete", "modeldeployments", "--all")
    Kubectl(apiserver)("delete", "namespace", name, "--wait=false")


@pytest.fixture
def use(apiserver: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Use], Any]:
    """Run a coroutine with a connected client."""
    monkeypatch.setenv("KUBECONFIG", str(apiserver))
    return lambda what: asyncio.run(_with_cluster(what))


async def _with_cluster(what: Use) -> Any:
    cluster = await Cluster.connect()
    try:
        return await what(cluster)
    finally:
        await cluster.close()


def config_map(namespace: str, **data: str) -> dict[str, Any]:
    metadata = {"namespace": namespace, "name": "settings"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def model_deployment(namespace: str) -> dict[str, Any]:
    return {
        "apiVersion": MODEL_DEPLOYMENTS.api_version,
        "kind": MODEL_DEPLOYMENTS.kind,
        "metadata": {"namespace": namespace, "name": "employment"},
        "spec": {"models": {"predictor": {"name": "employment", "alias": "candidate"}}},
    }


def condition(reason: str) -> dict[str, Any]:
    return {
        "type": "Ready",
        "status": "False",
        "reason": reason,
        "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
        "observedGeneration": 1,
    }


async def refused(attempt: Awaitable[Any]) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await attempt
    return caught.value


def test_what_is_applied_no_more_disappears_and_what_is_others_stays(
    use: Callable[[Use], Any], namespace: str, apiserver: Path
) -> None:
    async def main(cluster: Cluster) -> None:
        await cluster.apply(CONFIG_MAPS, config_map(namespace, a="1", b="2"))
        patch = '{"data": {"b": "3", "theirs": "4"}}'
        Kubectl(apiserver)("-n", namespace, "patch", "configmap", "settings", "-p", patch)
        live = await cluster.apply(CONFIG_MAPS, config_map(namespace, b="2"))
        assert live["data"] == {"b": "2", "theirs": "4"}

    use(main)


def test_nothing_changes_when_the_same_is_applied_again(
    use: Callable[[Use], Any], namespace: str
) -> None:
    async def main(cluster: Cluster) -> None:
        first = await cluster.apply(CONFIG_MAPS, config_map(namespace, a="1"))
        again = await cluster.apply(CONFIG_MAPS, config_map(namespace, a="1"))
        assert again["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]

    use(main)


def test_an_object_that_took_the_name_meanwhile_is_not_adopted(
    use: Callable[[Use], Any], namespace: str
) -> None:
    async def main(cluster: Cluster) -> None:
        manifest = config_map(namespace, a="1")
        live = await cluster.create(CONFIG_MAPS, namespace, manifest)
        manifest["metadata"]["uid"] = live["metadata"]["uid"]
        await cluster.apply(CONFIG_MAPS, manifest)  # it is the very same
        manifest["metadata"]["uid"] = "11111111-2222-3333-4444-555555555555"
        assert (await refused(cluster.apply(CONFIG_MAPS, manifest))).status == 422
        await cluster.delete(CONFIG_MAPS, await cluster.apply(CONFIG_MAPS, config_map(namespace)))
        assert (await refused(cluster.apply(CONFIG_MAPS, manifest))).status == 409

    use(main)


def test_creating_what_exists_is_refused(use: Callable[[Use], Any], namespace: str) -> None:
    async def main(cluster: Cluster) -> None:
        await cluster.create(CONFIG_MAPS, namespace, config_map(namespace))
        error = await refused(cluster.create(CONFIG_MAPS, namespace, config_map(namespace)))
        assert error.status == 409

    use(main)


def test_only_what_was_read_is_deleted(use: Callable[[Use], Any], namespace: str) -> None:
    async def main(cluster: Cluster) -> None:
        old = await cluster.create(CONFIG_MAPS, namespace, config_map(namespace, a="1"))
        new = await cluster.apply(CONFIG_MAPS, config_map(namespace, a="2"))
        await cluster.delete(CONFIG_MAPS, old)
        assert await cluster.get(CONFIG_MAPS, namespace, "settings") is not None
        await cluster.delete(CONFIG_MAPS, new)
        assert await cluster.get(CONFIG_MAPS, namespace, "settings") is None
        await cluster.delete(CONFIG_MAPS, new)  # gone is as good

    use(main)


def test_the_status_is_replaced_as_a_whole(use: Callable[[Use], Any], namespace: str) -> None:
    async def main(cluster: Cluster) -> None:
        live = await cluster.create(MODEL_DEPLOYMENTS, namespace, model_deployment(namespace))
        health = {"rows": 5, "drift": {"severity": "None", "value": "0.1"}}
        first = {"observedGeneration": 1, "conditions": [condition("One")], "health": health}
        live = await cluster.write_status(MODEL_DEPLOYMENTS, live, first)
        assert live["status"] == first
        second = {
            "observedGeneration": 1,
            "conditions": [condition("Two")],
            "health": {"rows": 6},
            "url": "http://somewhere",
        }
        live = await cluster.write_status(MODEL_DEPLOYMENTS, live, second)
        assert live["status"] == second
        assert live["spec"]["models"]["predictor"]["name"] == "employment"

    use(main)


def test_a_status_for_an_older_object_is_refused(
    use: Callable[[Use], Any], namespace: str, apiserver: Path
) -> None:
    async def main(cluster: Cluster) -> None:
        live = await cluster.create(MODEL_DEPLOYMENTS, namespace, model_deployment(namespace))
        arguments = ("-n", namespace, "label", "modeldeployment", "employment", "team=risk")
        Kubectl(apiserver)(*arguments)
        status = {"observedGeneration": 1}
        write = cluster.write_status(MODEL_DEPLOYMENTS, live, status)
        assert (await refused(write)).status == 409
        read = await cluster.get(MODEL_DEPLOYMENTS, namespace, "employment")
        assert read is not None
        assert read["status"] == {"observedGeneration": -1}
        await cluster.delete(MODEL_DEPLOYMENTS, read)
        write = cluster.write_status(MODEL_DEPLOYMENTS, read, status)
        assert (await refused(write)).status == 404

    use(main)


def test_a_list_of_several_chunks_is_complete_and_names_the_kind(
    use: Callable[[Use], Any], namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelops_operator.adapters.kubernetes._CHUNK", 2)

    async def main(cluster: Cluster) -> None:
        for number in range(5):
            manifest = config_map(namespace)
            metadata = {**manifest["metadata"], "name": f"n{number}", "labels": {"ours": "yes"}}
            await cluster.create(CONFIG_MAPS, namespace, {**manifest, "metadata": metadata})
        await cluster.create(CONFIG_MAPS, namespace, config_map(namespace))
        found = [live async for live in cluster.list(CONFIG_MAPS, namespace, "ours=yes")]
        assert [live["metadata"]["name"] for live in found] == [f"n{number}" for number in range(5)]
        assert {(live["apiVersion"], live["kind"]) for live in found} == {("v1", "ConfigMap")}
        everywhere = [live async for live in cluster.list(CONFIG_MAPS, None, "ours=yes")]
        assert len(everywhere) == 5

    use(main)


def test_it_knows_whether_a_kind_is_served(use: Callable[[Use], Any], namespace: str) -> None:
    async def main(cluster: Cluster) -> None:
        assert await cluster.serves(MODEL_IMAGES, namespace)
        unknown = Resource("modelops.dev/v1alpha1", "Nothing", "nothings")
        assert not await cluster.serves(unknown, None)

    use(main)


def test_a_refusal_carries_the_servers_own_words(use: Callable[[Use], Any], namespace: str) -> None:
    async def main(cluster: Cluster) -> None:
        metadata = {"namespace": namespace, "name": "Not_A_Name"}
        wrong = {"apiVersion": "v1", "kind": "Service", "metadata": metadata}
        error = await refused(cluster.create(SERVICES, namespace, wrong))
        told = error.failure("Service")
        assert (error.status, told.reason, told.permanent) == (422, Reason.CHILD_REFUSED, True)
        assert "Not_A_Name" in told.message

    use(main)


POLICY = """
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: no-settings}
spec:
  failurePolicy: Fail
  matchConstraints:
    resourceRules:
    - {apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [configmaps]}
  validations:
  - {expression: "!('a' in object.data)", message: "a is not for you"}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: no-settings}
spec: {policyName: no-settings, validationActions: [Deny]}
"""


def test_a_refusal_by_a_policy_is_told_as_such(
    use: Callable[[Use], Any], namespace: str, apiserver: Path
) -> None:
    async def main(cluster: Cluster) -> ApiError:
        Kubectl(apiserver)("apply", "-f", "-", stdin=POLICY)
        while True:  # until the API server's own cache has it
            try:
                live = await cluster.apply(CONFIG_MAPS, config_map(namespace, a="1"))
            except ApiError as error:
                return error
            await cluster.delete(CONFIG_MAPS, live)
            await asyncio.sleep(0.1)

    try:
        told = use(lambda cluster: asyncio.wait_for(main(cluster), 20)).failure("ConfigMap")
    finally:
        Kubectl(apiserver)("delete", "-f", "-", stdin=POLICY)
    assert (told.reason, told.permanent) == (Reason.ADMISSION_REFUSED, True)
    assert "a is not for you" in told.message


@pytest.mark.parametrize(
    ("status", "message", "reason", "permanent"),
    [
        (403, 'pods "a" is forbidden: exceeded quota: tight', Reason.QUOTA_EXCEEDED, True),
        (400, 'admission webhook "x" denied the request: no', Reason.ADMISSION_REFUSED, True),
        (429, "too many requests", Reason.API_SERVER_UNREACHABLE, False),
        (500, "etcdserver: request timed out", Reason.API_SERVER_UNREACHABLE, False),
        (409, "the object has been modified", Reason.CHILD_REFUSED, False),
    ],
)
def test_what_the_api_server_may_answer(
    status: int,
    message: str,
    reason: Reason,
    permanent: bool,  # noqa: FBT001 - a column of the table
) -> None:
    told = ApiError(status, message).failure("Service a")
    assert (told.reason, told.permanent) == (reason, permanent)
    assert told.message == f"Service a: {message}"


def test_a_lack_of_rights_is_told_as_such(
    use: Callable[[Use], Any], namespace: str, apiserver: Path
) -> None:
    token = Kubectl(apiserver)("-n", namespace, "create", "serviceaccount", "nobody")
    token = Kubectl(apiserver)("-n", namespace, "create", "token", "nobody").strip()

    async def main(cluster: Cluster) -> None:
        cluster.client.configuration.api_key = {"BearerToken": f"Bearer {token}"}
        error = await refused(cluster.apply(SERVICES, {**config_map(namespace), "kind": "Service"}))
        told = error.failure("Service settings")
        assert (error.status, told.reason, told.permanent) == (403, Reason.FORBIDDEN, True)
        assert "nobody" in told.message

    use(main)


def test_a_server_that_is_down_is_tried_again(use: Callable[[Use], Any], namespace: str) -> None:
    async def main(cluster: Cluster) -> None:
        cluster.client.configuration.host = f"https://127.0.0.1:{free_port()}"
        error = await refused(cluster.get(CONFIG_MAPS, namespace, "settings"))
        told = error.failure("ConfigMap")
        assert (error.status, told.reason) == (0, Reason.API_SERVER_UNREACHABLE)
        assert not told.permanent

    use(main)
