"""The Kubernetes API as the operator needs it: plain dicts, server-side apply, errors for people.

It stands on `kubernetes.aio`'s ApiClient, which knows kubeconfigs, service accounts and their
renewal; the typed half of that library would cost memory and hide unknown fields.
"""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

import aiohttp
import orjson
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration

from modelops_operator.api.facts import Failure
from modelops_operator.api.reasons import Reason

_Body = Mapping[str, Any] | Sequence[Mapping[str, Any]]
FIELD_MANAGER: Final = "modelops-operator"
SCALE_MANAGER: Final = "modelops-operator-scale"
"""Owns the number of replicas from when we let go of it until an autoscaler changes it."""
_CHUNK: Final = 250
"""Objects in one answer of a list."""
_TIMEOUT: Final = aiohttp.ClientTimeout(total=30.0)
"""For one request; nobody waits longer for an answer, since everything is tried again."""
_LONGEST_TAIL: Final = 4096
"""Bytes of a log that are read for a message."""


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
        Resource("autoscaling/v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers"),
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Some of the objects of a list."""

    version: int
    """The moment that the list tells of, comparable with the objects' own versions."""
    items: Sequence[dict[str, Any]]


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
        passing = self.status in {401, 409}
        return Failure(reason=self._reason(), message=told, permanent=not passing)

    def _reason(self) -> Reason:
        if "exceeded quota" in self.message:
            return Reason.QUOTA_EXCEEDED
        if "cannot " in self.message and "User " in self.message:
            return Reason.FORBIDDEN
        denied = "denied request" in self.message or "denied the request" in self.message
        admission = self.status == 403 or denied
        return Reason.ADMISSION_REFUSED if admission else Reason.CHILD_REFUSED


class Cluster:
    """One API server, spoken to under one identity."""

    def __init__(self, client: ApiClient) -> None:
        self.client = client

    @classmethod
    async def connect(cls, context: str | None = None) -> "Cluster":
        """Connect as the pod's service account, or as the kubeconfig says.

        A `context` is always the kubeconfig's. Raises ApiError.
        """
        configuration = Configuration()
        # With `trust_env`, every request looks for ~/.netrc, in a thread.
        proxied = any(name.lower().endswith("_proxy") for name in os.environ)
        configuration.client_session_kwargs = {"trust_env": proxied}
        if context is None:
            with suppress(config.ConfigException):
                config.load_incluster_config(client_configuration=configuration)
                return cls(ApiClient(configuration))
        try:
            # The library reads the variable when it is imported, and never again.
            path = os.environ.get("KUBECONFIG")
            await config.load_kube_config(
                config_file=path, context=context, client_configuration=configuration
            )
        except config.ConfigException as error:
            told = f"no cluster to connect to ({error}): run in a pod, or set KUBECONFIG"
            raise ApiError(0, told) from error
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
        async for page in self.pages(resource, namespace, labels):
            for item in page.items:
                yield item

    async def pages(
        self, resource: Resource, namespace: str | None, labels: str = ""
    ) -> AsyncIterator[Page]:
        """List objects in chunks; all of them are from the same moment.

        Each is asked for before the one before is handed over, so that nobody waits for the other.
        """
        asked = asyncio.create_task(self._page(resource, namespace, labels, ""))
        try:
            while True:
                page, following = await asked
                if not following:
                    yield page
                    return
                asked = asyncio.create_task(self._page(resource, namespace, labels, following))
                yield page
        finally:
            asked.cancel()

    async def _page(
        self, resource: Resource, namespace: str | None, labels: str, place: str
    ) -> tuple[Page, str]:
        """Give a page, and where to go on."""
        query = {"limit": str(_CHUNK), "labelSelector": labels, "continue": place}
        page = await self._json("GET", resource.path(namespace), query=query)
        names = {"apiVersion": resource.api_version, "kind": resource.kind}
        items = [{**names, **item} for item in page["items"]]
        metadata = page["metadata"]
        version = int(metadata["resourceVersion"])
        return Page(version=version, items=items), metadata.get("continue", "")

    async def serves(self, resource: Resource, namespace: str | None) -> bool:
        """Tell whether the API server knows the kind, which it does once its CRD is there."""
        try:
            await self._json("GET", resource.path(namespace), query={"limit": "1"})
        except ApiError as error:
            if error.status == 404:
                return False
            raise
        return True

    async def apply(
        self, resource: Resource, manifest: Mapping[str, Any], *, manager: str = FIELD_MANAGER
    ) -> dict[str, Any]:
        """Apply a manifest on the server; fields that it had and has no more disappear.

        With a `metadata.uid`, it is refused (409, 422) where that very object is gone.
        """
        metadata = manifest["metadata"]
        return await self._json(
            "PATCH",
            resource.path(metadata["namespace"], metadata["name"]),
            query={"fieldManager": manager, "force": "true"},
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
        """Replace the whole status; refused (409, 404) unless the object is as it was read."""
        metadata = live["metadata"]
        version = metadata["resourceVersion"]
        # A merge patch would leave what is in the status and not in ours. As a value of the patch,
        # the version makes the API server compare and swap.
        patch = [
            {"op": "replace", "path": "/metadata/resourceVersion", "value": version},
            {"op": "add", "path": "/status", "value": status},
        ]
        return await self._json(
            "PATCH",
            resource.path(metadata["namespace"], metadata["name"], "status"),
            query={"fieldManager": FIELD_MANAGER},
            body=patch,
            content="application/json-patch+json",
        )

    async def log_tail(
        self, namespace: str, pod: str, container: str, *, lines: int, previous: bool
    ) -> str:
        """Read the last lines of a container, or of the instance before the present one."""
        query = {"container": container, "tailLines": str(lines)}
        query |= {"previous": "true"} if previous else {}
        text = await self._ask("GET", PODS.path(namespace, pod, "log"), query, None)
        return text[-_LONGEST_TAIL:].decode(errors="replace")

    async def _json(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: _Body | None = None,
        content: str = "application/json",
    ) -> dict[str, Any]:
        answer = await self._ask(method, path, query or {}, body, content)
        try:
            tree: dict[str, Any] = orjson.loads(answer)
        except ValueError as error:
            raise ApiError(0, f"the API server answers garbage ({answer[:80]!r})") from error
        return tree

    async def _ask(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: _Body | None,
        content: str = "application/json",
    ) -> bytes:
        words = {name: value for name, value in query.items() if value}
        place = path + (f"?{urlencode(words)}" if words else "")
        headers = {
            **self.client.default_headers,
            "Content-Type": content,
            "Accept": "application/json, */*",
        }
        # Not `param_serialize`, which goes through every leaf of a body in search of its models.
        await self.client.update_params_for_auth(headers, [], ["BearerToken"], place, method, body)
        address = self.client.configuration.host + place
        try:
            response = await self.client.call_api(
                method, address, headers, body, _request_timeout=_TIMEOUT
            )
            answer: bytes = await response.read()
        except (aiohttp.ClientError, OSError) as error:  # a TimeoutError is an OSError
            told = str(error) or type(error).__name__
            raise ApiError(0, f"the API server does not answer ({told})") from error
        if response.status >= 400:
            raise ApiError(response.status, _told(answer))
        return answer


def namespace_of(context: str | None) -> str:
    """Give the namespace that a context of the kubeconfig is set to. Raises ApiError.

    None is the current one.
    """
    try:
        contexts, current = config.list_kube_config_contexts(os.environ.get("KUBECONFIG"))
    except (config.ConfigException, OSError) as error:
        raise ApiError(0, f"the kubeconfig cannot be read ({error})") from error
    wanted = context or current["name"]
    found = (each["context"] for each in contexts if each["name"] == wanted)
    chosen: Mapping[str, str] = next(found, {})
    return chosen.get("namespace", "default")


def _told(body: bytes | str) -> str:
    """Find the message in what the API server answers: a Status, or text."""
    text = body.decode(errors="replace") if isinstance(body, bytes) else body
    try:
        tree = json.loads(text)
    except ValueError:
        return text[:500]
    return str(tree.get("message", text)) if isinstance(tree, dict) else text[:500]
