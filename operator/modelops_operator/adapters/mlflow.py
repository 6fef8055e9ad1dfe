"""The model registry: which versions there are, and which of them an alias leads to."""

import asyncio
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar
from urllib.parse import urlsplit

import yaml

from modelops_operator.api.facts import Failure, ModelVersion
from modelops_operator.api.reasons import Reason

Aliases = Mapping[str, str]
"""Alias to version, of one model."""
T = TypeVar("T")

MLMODEL: Final = "MLmodel"
TRAIN_IDS: Final = ("modelops_train_id", "modelops.train_id")
"""The tag that names the training: Unity Catalog takes no dots. Older versions have the second."""
_PAGE: Final = 200
_THREADS: Final = 8
_MOST_ASKED: Final = 20
_PATIENCE: Final = 60.0
"""Seconds for one question, which may take several requests."""
_SETTINGS: Final = {
    "MLFLOW_DISABLE_TELEMETRY": "true",  # to MLflow's makers, of who uses what
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
}
"""Whoever asks asks again: MLflow's own patience of minutes would only hide trouble."""
_DENIED: Final = {"PERMISSION_DENIED", "UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED"}
_MISSING: Final = {"RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"}


class ModelRegistryError(Exception):
    """The registry did not give what was asked for."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class ModelRegistry(Protocol):
    """A registry of models. All of it raises ModelRegistryError."""

    async def walk(self) -> Mapping[str, Aliases]:
        """Read the aliases of every model at once. Absence is not deletion: ask by name."""

    async def model(self, name: str) -> Aliases:
        """Read the aliases of one model."""

    async def version(self, name: str, version: str) -> ModelVersion:
        """Read one version, which has to be READY."""

    async def read(self, name: str, version: str, path: str) -> bytes:
        """Read a small file of a version."""


class MlflowRegistry:
    """MLflow's registry, or Unity Catalog through MLflow's client.

    The client is synchronous: it runs in threads of its own, with short time-outs and few
    attempts.
    """

    def __init__(self, tracking_uri: str, *, pythons: bool = False) -> None:
        """`pythons`: versions tell their Python, which costs one more file of each to read."""
        for name, value in _SETTINGS.items():
            os.environ.setdefault(name, value)
        # Imported here, since it takes a second that only this class's users should pay.
        from mlflow import MlflowClient  # noqa: PLC0415

        self._uri = tracking_uri
        self._pythons = pythons
        self._client = MlflowClient(tracking_uri, _registry_uri(tracking_uri))
        self._threads = ThreadPoolExecutor(_THREADS, "mlflow")
        self._versions: dict[tuple[str, str], ModelVersion] = {}

    async def walk(self) -> Mapping[str, Aliases]:
        """Read the aliases of every model, 200 models a request; of none in Unity Catalog."""
        return await self._ask("its registered models", Reason.MODEL_NOT_FOUND, self._walk)

    async def model(self, name: str) -> Aliases:
        """Read the aliases of one model."""
        what = f"registered model {name!r}"
        return await self._ask(what, Reason.MODEL_NOT_FOUND, lambda: self._aliases(name))

    async def version(self, name: str, version: str) -> ModelVersion:
        """Read one version; what is READY is remembered, since it never changes."""
        known = self._versions.get((name, version))
        if known is not None:
            return known
        what = f"version {version} of model {name!r}"
        found = await self._ask(
            what,
            Reason.VERSION_NOT_FOUND,
            lambda: _named(self._client.get_model_version(name, version)),
        )
        if found.status != "READY":
            detail = f" ({found.status_message})" if found.status_message else ""
            message = (
                f"{what} is {found.status} in MLflow{detail}: wait until its registration is "
                "complete, or register another version"
            )
            raise ModelRegistryError(
                Failure(reason=Reason.VERSION_NOT_READY, message=message, permanent=False)
            )
        model = ModelVersion(
            name=name,
            version=str(found.version),
            run_id=found.run_id or "",
            source=found.source or "",
            train_id=_training(found),
            python=await self._python(name, str(found.version)) if self._pythons else None,
        )
        self._versions[name, version] = model
        return model

    async def _python(self, name: str, version: str) -> str | None:
        try:
            return python_of(await self.read(name, version, MLMODEL))
        except ModelRegistryError as error:
            if error.failure.permanent:
                return None  # the builder tells what is wrong with the files
            raise

    async def of_training(self, name: str, train_id: str) -> str | None:
        """Find the newest version of a model that came of a training.

        None when there is no such version, or no such model. Unity Catalog, whose lists know no
        tags, is asked about the newest `_MOST_ASKED` versions one by one.
        """
        what = f"versions of model {name!r} by their tag {TRAIN_IDS[0]}"
        return await self._ask(
            what, Reason.VERSION_NOT_FOUND, lambda: self._of_training(name, train_id)
        )

    async def read(self, name: str, version: str, path: str) -> bytes:
        """Read a small file of a version, through the registry's artifact proxy if it has one."""
        what = f"file {path} in version {version} of model {name!r}"
        return await self._ask(
            what, Reason.ARTIFACT_NOT_FOUND, lambda: self._read(name, version, path)
        )

    def close(self) -> None:
        """Let go of the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _walk(self) -> Mapping[str, Aliases]:
        search = self._client.search_registered_models
        if is_databricks(self._uri):
            # Its lists tell no aliases: one entry shows that it answers.
            search(max_results=1)
            return {}
        return {model.name: dict(model.aliases) for model in _all(search, max_results=_PAGE)}

    def _of_training(self, name: str, train_id: str) -> str | None:
        if is_databricks(self._uri):
            listed = _all(self._client.search_model_versions, filter_string=f"name='{name}'")
            newest = sorted((int(each.version) for each in listed), reverse=True)[:_MOST_ASKED]
            versions = (self._client.get_model_version(name, str(number)) for number in newest)
            return next(
                (str(each.version) for each in versions if _training(each) == train_id), None
            )
        for tag in TRAIN_IDS:
            found = self._client.search_model_versions(
                f"name = '{name}' AND tags.`{tag}` = '{train_id}'",
                max_results=1,
                order_by=["version_number DESC"],
            )
            if found:
                return str(found[0].version)
        return None

    def _aliases(self, name: str) -> Aliases:
        return dict(_named(self._client.get_registered_model(name)).aliases)

    def _read(self, name: str, version: str, path: str) -> bytes:
        repository = model_files(self._uri, name, version)
        with tempfile.TemporaryDirectory(prefix="modelops-") as folder:
            return Path(repository.download_artifacts(path, folder)).read_bytes()

    async def _ask(self, what: str, missing: Reason, ask: Callable[[], T]) -> T:
        from mlflow.exceptions import MlflowException  # noqa: PLC0415 - slow, see above

        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_PATIENCE):
                return await loop.run_in_executor(self._threads, ask)
        except ModelRegistryError:
            raise
        except MlflowException as error:
            raise ModelRegistryError(self._failure(what, missing, error)) from error
        except ImportError as error:
            message = (
                f"{what} is in a store that is read with {error.name}, which is not installed here:"
                " run the MLflow server with --artifacts-destination, so that it hands files out"
            )
            failure = Failure(reason=missing, message=message, permanent=True)
            raise ModelRegistryError(failure) from error
        except Exception as error:
            # Requests' errors, a store's own, and whatever a client makes of garbage.
            raise ModelRegistryError(self._unreachable(what, error)) from error

    def _failure(self, what: str, missing: Reason, error: Any) -> Failure:
        code, told = error.error_code, str(error)
        if code in _DENIED or "error code 401" in told or "error code 403" in told:
            message = (
                f"MLflow at {self._uri} refuses to give {what} ({_short(error)}); check the "
                "operator's MLflow credentials and their rights"
            )
            return Failure(reason=Reason.REGISTRY_DENIED, message=message, permanent=True)
        if code in _MISSING:
            message = f"MLflow at {self._uri} has no {what}: register it, or correct the spec"
            return Failure(reason=missing, message=message, permanent=True)
        return self._unreachable(what, error)

    def _unreachable(self, what: str, error: BaseException) -> Failure:
        cause = _cause(error)
        if isinstance(cause, OSError):
            # The same for whatever was asked: a fleet shall not hear a different story each time.
            told = f"does not answer ({_short(cause)})"
        else:
            told = f"does not give {what} ({_short(error)})"
        message = f"MLflow at {self._uri} {told}; it is asked again"
        return Failure(reason=Reason.REGISTRY_UNREACHABLE, message=message, permanent=False)


def _all(search: Callable[..., Any], **wanted: Any) -> Iterator[Any]:
    """Read a list of MLflow's to its end."""
    token: str | None = None
    while True:
        page = search(page_token=token, **wanted)
        yield from page
        if not (token := page.token):
            return


def _training(version: Any) -> str | None:
    return next((version.tags[tag] for tag in TRAIN_IDS if tag in version.tags), None)


def is_databricks(tracking_uri: str) -> bool:
    """Tell whether models are in Unity Catalog."""
    return tracking_uri.startswith("databricks")


def is_on_this_disk(tracking_uri: str) -> bool:
    """Tell whether the registry is a file or a folder here, and no server: so are its models."""
    return urlsplit(tracking_uri).scheme in {"", "file", "sqlite"}


def _named(entity: Any) -> Any:
    """Refuse what the client makes of an empty answer: an entity with nothing in it."""
    if not entity.name:
        raise ValueError("the answer is empty")
    return entity


def _cause(error: BaseException) -> BaseException:
    """Find what began it: clients wrap a refused connection four times."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return error


def _registry_uri(tracking_uri: str) -> str:
    """Give the address of the registry beside the tracking server: Databricks has it in Unity."""
    if is_databricks(tracking_uri):
        return tracking_uri.replace("databricks", "databricks-uc", 1)
    return tracking_uri


def python_of(description: bytes) -> str | None:
    """Read which minor version of Python an MLmodel names; None for whatever tells none."""
    try:
        version = yaml.safe_load(description)["flavors"]["python_function"]["python_version"]
        major, minor, *_ = str(version).split(".")
        return f"{int(major)}.{int(minor)}"
    except (yaml.YAMLError, UnicodeDecodeError, LookupError, TypeError, ValueError):
        return None


def model_files(tracking_uri: str, name: str, version: str) -> Any:
    """Give the store (MLflow's ArtifactRepository) that a version's files are in.

    Raises ModelRegistryError when they are where we must not read, and MlflowException.
    """
    from mlflow import MlflowClient  # noqa: PLC0415 - slow, see above
    from mlflow.store.artifact.artifact_repository_registry import (  # noqa: PLC0415 - the same
        get_artifact_repository,
    )

    uris = {"tracking_uri": tracking_uri, "registry_uri": _registry_uri(tracking_uri)}
    if is_databricks(tracking_uri):
        # MLflow's reader makes a client of its own, which would look for runs in a database here.
        os.environ.setdefault("MLFLOW_TRACKING_URI", tracking_uri)
        # Unity Catalog lends a short-lived credential for each version, by way of this address.
        return get_artifact_repository(f"models:/{name}/{version}", **uris)
    client: Any = MlflowClient(**uris)
    # As the client's method of this name, which asks first whether the name is a prompt's.
    registry = client._get_registry_client()  # noqa: SLF001 - see above
    address = registry.get_model_version_download_uri(name, version)
    if address.startswith("models:/m-"):
        address = client.get_logged_model(address.removeprefix("models:/")).artifact_location
    if urlsplit(address).scheme in {"", "file"} and not is_on_this_disk(tracking_uri):
        # Whoever registers a model chooses this path: it would read our own files.
        message = (
            f"version {version} of model {name!r} is at {address}, a path on somebody's disk: run "
            "the MLflow server with --artifacts-destination, so that it hands artifacts out"
        )
        raise ModelRegistryError(
            Failure(reason=Reason.ARTIFACT_NOT_FOUND, message=message, permanent=True)
        )
    return get_artifact_repository(address, **uris)


def _short(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else text[:299] + "…"
