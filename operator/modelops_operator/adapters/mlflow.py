"""The model registry: which versions there are, and which of them an alias leads to."""

import asyncio
import os
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, Protocol, TypeVar

from modelops_operator.api.facts import Failure, ModelVersion
from modelops_operator.api.reasons import Reason

Aliases = Mapping[str, str]
"""Alias to version, of one model."""
T = TypeVar("T")

_PAGE: Final = 200
_THREADS: Final = 8
_DENIED: Final = {"PERMISSION_DENIED", "UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED"}
_MISSING: Final = {"RESOURCE_DOES_NOT_EXIST", "NOT_FOUND", "INVALID_PARAMETER_VALUE"}


class ModelRegistryError(Exception):
    """The registry did not give what was asked for."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class ModelRegistry(Protocol):
    """A registry of models."""

    async def walk(self) -> Mapping[str, Aliases]:
        """Read the aliases of every model at once. Absence is not deletion: ask by name."""

    async def model(self, name: str) -> Aliases:
        """Read the aliases of one model. Raises ModelRegistryError when there is none."""

    async def version(self, name: str, version: str) -> ModelVersion:
        """Read one version. Raises ModelRegistryError when there is none, or not READY yet."""

    async def read(self, model: ModelVersion, path: str) -> bytes:
        """Read a small file of a version. Raises ModelRegistryError."""


class MlflowRegistry:
    """MLflow's registry, or Unity Catalog through MLflow's client.

    The client is synchronous: it runs in threads of its own, with short time-outs and few
    attempts, since the caller tries again anyway.
    """

    def __init__(self, tracking_uri: str) -> None:
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "15")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        # Imported here, since it takes a second that only this class's users should pay.
        from mlflow import MlflowClient  # noqa: PLC0415

        self._uri = tracking_uri
        self._client = MlflowClient(tracking_uri)
        self._threads = ThreadPoolExecutor(_THREADS, "mlflow")
        self._versions: dict[tuple[str, str], ModelVersion] = {}

    async def walk(self) -> Mapping[str, Aliases]:
        """Read the aliases of every model, 200 models a request."""
        return await self._call("the registered models", Reason.MODEL_NOT_FOUND, self._walk)

    async def model(self, name: str) -> Aliases:
        """Read the aliases of one model."""

        def ask() -> Aliases:
            return dict(self._client.get_registered_model(name).aliases)

        return await self._call(f"model {name!r}", Reason.MODEL_NOT_FOUND, ask)

    async def version(self, name: str, version: str) -> ModelVersion:
        """Read one version; what is READY is remembered, since it never changes."""
        known = self._versions.get((name, version))
        if known is not None:
            return known
        what = f"version {version} of model {name!r}"
        found = await self._call(
            what,
            Reason.VERSION_NOT_FOUND,
            lambda: self._client.get_model_version(name, version),
        )
        if found.status != "READY":
            message = f"{what} is {found.status} in the registry: wait for it, or register another"
            raise ModelRegistryError(
                Failure(reason=Reason.VERSION_NOT_READY, message=message, permanent=False)
            )
        model = ModelVersion(
            name=name,
            version=str(found.version),
            run_id=found.run_id or "",
            source=found.source or "",
            train_id=found.tags.get("modelops.train_id"),
        )
        self._versions[name, version] = model
        return model

    async def read(self, model: ModelVersion, path: str) -> bytes:
        """Read a small file of a version, through the registry's artifact proxy if it has one."""
        what = f"{path} of version {model.version} of model {model.name!r}"
        return await self._call(what, Reason.ARTIFACT_NOT_FOUND, lambda: self._read(model, path))

    def close(self) -> None:
        """Let go of the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _walk(self) -> Mapping[str, Aliases]:
        found: dict[str, Aliases] = {}
        token: str | None = None
        while True:
            page = self._client.search_registered_models(max_results=_PAGE, page_token=token)
            found |= {model.name: dict(model.aliases) for model in page}
            token = page.token
            if not token:
                return found

    def _read(self, model: ModelVersion, path: str) -> bytes:
        from mlflow.artifacts import download_artifacts  # noqa: PLC0415 - slow, see above

        with tempfile.TemporaryDirectory(prefix="modelops-") as folder:
            uri = f"models:/{model.name}/{model.version}/{path}"
            local = download_artifacts(artifact_uri=uri, dst_path=folder, tracking_uri=self._uri)
            return Path(local).read_bytes()

    async def _call(self, what: str, missing: Reason, ask: Callable[[], T]) -> T:
        from mlflow.exceptions import MlflowException  # noqa: PLC0415 - slow, see above

        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, ask)
        except MlflowException as error:
            raise ModelRegistryError(self._failure(what, missing, error)) from error
        except OSError as error:
            # Requests' errors are OSErrors; artifact stores raise the plain ones, too.
            raise ModelRegistryError(self._unreachable(what, error)) from error

    def _failure(self, what: str, missing: Reason, error: Exception) -> Failure:
        code = getattr(error, "error_code", "")
        status = error.get_http_status_code() if hasattr(error, "get_http_status_code") else 500
        if code in _DENIED or "error code 401" in str(error) or "error code 403" in str(error):
            message = f"MLflow at {self._uri} refused to give {what}: {_short(error)}"
            return Failure(reason=Reason.REGISTRY_DENIED, message=message, permanent=True)
        if code in _MISSING or status == 404:
            message = (
                f"there is no {what} in MLflow at {self._uri}: register it, or correct the spec"
            )
            return Failure(reason=missing, message=message, permanent=True)
        return self._unreachable(what, error)

    def _unreachable(self, what: str, error: Exception) -> Failure:
        message = f"MLflow at {self._uri} did not give {what}: {_short(error)}; it is asked again"
        return Failure(reason=Reason.REGISTRY_UNREACHABLE, message=message, permanent=False)


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
