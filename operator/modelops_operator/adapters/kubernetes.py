"""The Kubernetes API as the operator needs it: plain dicts, server-side apply, errors for people.

It stands on `kubernetes.aio`'s ApiClient, which knows kubeconfigs, service accounts and their
renewal; the typed half of that library would cost memory and hide unknown fields.
"""

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

import aiohttp
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, ApiException, Configuration

from modelops_operator.api.facts import Failure
from modelops_operator.api.reasons import Reason

FIELD_MANAGER: Final = "modelops-operator"
_CHUNK: Final = 500
"""Objects in one answer of a list."""
_TIMEOUT: Final = 30.0
"""Seconds for one request."""


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind of namespaced object and where the API server has it."""

    api_version: str
    kind: str
    plural: str

    def path(self, namespace: str | None, name: str = "", subresource: str = "") -> str:
        """Give the path of an object or, without a name, of the list; None: all namespaces."""
        group = "api" if "/" not in self.api_version else "apis"
        parts = ["", group, self.api_version]
        if namespace is not None:
            parts += ["namespaces", namespace]
        return "/".join([*parts, self.plural, *filter(None, (name, subresource))])


MODEL_DEPLOYMENTS: Final = Resource("modelops.dev/v1alpha1", "ModelDeployment", "modeldeployments")
MODEL_IMAGES: Final = Resource("modelops.dev/v1alpha1", "ModelImage", "modelimages")
PODS: Final = Resource("v1", "Pod", "pods")
EVENTS: Final = Resource("v1", "Event", "events")
LEASES: Final = Resource("coordination.k8s.io/v1", "Lease", "leases")
CHILDREN: Final = {
    resource.kind: resource
    for resource in (
        Resource("apps/v1", "Deployment", "deployments"),
        Resource("v1", "Service", "services"),
        Resource("v1", "ServiceAccount", "serviceaccounts"),
        Resource("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets"),
        Resource("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies"),
    )
}


class ApiError(Exception):
    """The API server refused a request, or did not answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        """HTTP status; 0 where there was no answer."""
        self.message = message

    def failure(self, what: str) -> Failure:
        """Tell it for the person who reads the condition; `what` was attempted."""
        told = f"{what}: {self.message}"
        if self.status in {0, 429} or self.status >= 500:
            return Failure(reason=Reason.API_SERVER_UNREACHABLE, message=told, permanent=False)
        return Failure(reason=self._reason(), message=told, permanent=True)

    def _reason(self) -> Reason:
        if "exceeded quota" in self.message:
            return Reason.QUOTA_EXCEEDED
        if "cannot " in self.message and "User " in self.message:
            return Reason.FORBIDDEN
        admission = self.status == 403 or "admission webhook" in self.message
        return Reason.ADMISSION_REFUSED if admission else Reason.CHILD_REFUSED


class Cluster:
    """One API server, spoken to under one identity."""

    def __init__(self, client: ApiClient) -> None:
        self.client = client

    @classmethod
    async def connect(cls) -> "Cluster":
        """Connect as the pod's service account, or as the kubeconfig says."""
        configuration = Configuration()
        try:
            config.load_incluster_config(client_configuration=configuration)
        except config.ConfigException:
            await config.load_kube_config(client_configuration=configuration)
        return cls(ApiClient(configuration))

    async def close(self) -> None:
        """Close the connections."""
        await self.client.close()

    async def get(self, resource: Resource, namespace: str, name: str) -> dict[str, Any] | None:
        """Read an object; None where there is none."""
        try:
            return await self._json("GET", resource.path(namespace, name))
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def list(
        self, resource: Resource, namespace: str | None, labels: str = ""
    ) -> AsyncIterator[dict[str, Any]]:
        """List objects in chunks, each with its apiVersion and kind."""
        following = ""
        while True:
            query = {"limit": str(_CHUNK), "labelSelector": labels, "continue": following}
            page = await self._json("GET", resource.path(namespace), query=query)
            for item in page["items"]:
                yield {"apiVersion": resource.api_version, "kind": resource.kind, **item}
            following = page["metadata"].get("continue", "")
            if not following:
                return

    async def apply(self, resource: Resource, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """Apply a manifest on the server; fields that it had and has no more disappear."""
        metadata = manifest["metadata"]
        return await self._json(
            "PATCH",
            resource.path(metadata["namespace"], metadata["name"]),
            query={"fieldManager": FIELD_MANAGER, "force": "true"},
            body=manifest,
            content="application/apply-patch+yaml",
        )

    async def create(
        self, resource: Resource, namespace: str, manifest: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Create an object."""
        query = {"fieldManager": FIELD_MANAGER}
        return await self._json("POST", resource.path(namespace), query=query, body=manifest)

    async def replace(self, resource: Resource, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """Replace an object if it is still the one that was read (409 otherwise)."""
        metadata = manifest["metadata"]
        path = resource.path(metadata["namespace"], metadata["name"])
        return await self._json("PUT", path, body=manifest)

    async def delete(self, resource: Resource, live: Mapping[str, Any]) -> None:
        """Delete an object if it is still the one that was read; gone already is as good."""
        metadata = live["metadata"]
        keys = ("uid", "resourceVersion")
        body = {
            "preconditions": {key: metadata[key] for key in keys},
            "propagationPolicy": "Background",
        }
        try:
            await self._json(
                "DELETE", resource.path(metadata["namespace"], metadata["name"]), body=body
            )
        except ApiError as error:
            if error.status not in {404, 409}:
                raise

    async def write_status(
        self, resource: Resource, live: Mapping[str, Any], status: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Replace the whole status; refused (409, 404) if the object is another one by now."""
        metadata = live["metadata"]
        stale = {key: None for key in live.get("status") or {} if key not in status}
        patch = {"metadata": {"uid": metadata["uid"]}, "status": _replacing(live, status) | stale}
        return await self._json(
            "PATCH",
            resource.path(metadata["namespace"], metadata["name"], "status"),
            query={"fieldManager": FIELD_MANAGER},
            body=patch,
            content="application/merge-patch+json",
        )

    async def log_tail(self, namespace: str, pod: str, container: str, lines: int) -> str:
        """Read the last lines of the container instance before the present one."""
        query = {"container": container, "previous": "true", "tailLines": str(lines)}
        text = await self._ask("GET", PODS.path(namespace, pod, "log"), query, None)
        return text.decode(errors="replace")

    async def _json(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content: str = "application/json",
    ) -> dict[str, Any]:
        answer = await self._ask(method, path, query or {}, body, content)
        tree: dict[str, Any] = json.loads(answer)
        return tree

    async def _ask(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Mapping[str, Any] | None,
        content: str = "application/json",
    ) -> bytes:
        words = {name: value for name, value in query.items() if value}
        request = await self.client.param_serialize(
            method=method,
            resource_path=path + (f"?{urlencode(words)}" if words else ""),
            header_params={"Content-Type": content, "Accept": "application/json, */*"},
            body=body,
            auth_settings=["BearerToken"],
        )
        try:
            response: Any = await self.client.call_api(*request, _request_timeout=_TIMEOUT)
            await response.read()
        except ApiException as error:
            raise ApiError(error.status or 0, _message(error)) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            told = str(error) or type(error).__name__
            raise ApiError(0, f"the API server does not answer ({told})") from error
        if response.status >= 400:
            raise ApiError(response.status, _told(response.data))
        data: bytes = response.data
        return data


def _replacing(live: Mapping[str, Any], status: Mapping[str, Any]) -> dict[str, Any]:
    """Write a merge patch that leaves nothing of the former status' nested keys."""
    return {
        key: _patch((live.get("status") or {}).get(key), value) for key, value in status.items()
    }


def _patch(old: Any, new: Any) -> Any:
    if not isinstance(old, Mapping) or not isinstance(new, Mapping):
        return new
    gone = {key: None for key in old if key not in new}
    return {key: _patch(old.get(key), value) for key, value in new.items()} | gone


def _message(error: ApiException) -> str:
    return _told(error.body) if error.body else str(error.reason or error)


def _told(body: bytes | str) -> str:
    """Find the message in what the API server answers: a Status, or text."""
    text = body.decode(errors="replace") if isinstance(body, bytes) else body
    try:
        tree = json.loads(text)
    except ValueError:
        return text[:500]
    return str(tree.get("message", text)) if isinstance(tree, dict) else text[:500]
