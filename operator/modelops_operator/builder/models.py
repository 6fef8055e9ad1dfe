"""Fetches the files of model versions from MLflow, and executes none of them.

Where a model has our flavor, only its files are fetched, checked against their digests, and a
pickle among them is refused; of any other model the whole folder is taken as it is, and so it is
of a predictor that is to be served through MLflow.
"""

import asyncio
import errno
import gc
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import yaml
from modelops_runtime import flavor
from modelops_runtime.bento import ServingRuntime
from modelops_runtime.signature import SignatureError, read_signature
from requests import RequestException

from modelops_operator.adapters.mlflow import MLMODEL, ModelRegistryError, model_files, python_of
from modelops_operator.api.facts import Role
from modelops_operator.api.reasons import Reason
from modelops_operator.api.resources import ImageModel
from modelops_operator.builder.failures import BuildError, broken, passing
from modelops_operator.builder.requirements import CONSTRAINTS, Requirements, read_requirements

_SETTINGS: Final = {
    "MLFLOW_DISABLE_TELEMETRY": "true",  # to MLflow's makers, of who uses what
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # It holds pieces of 100 MB in memory, and each fetch would first ask whether there is such.
    "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
}
"""A build is tried again as a whole: MLflow's own patience of minutes would only hide trouble."""
_MISSING: Final = {"RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"}
_ELSEWHERE: Final = ("dbruntime", "IPython", "pyspark")
"""Modules that MLflow tries to import before each request, to tell whether it is in Databricks: a
search that takes longer than the request, one thread at a time."""
_Loader: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The one in C, where there is one, takes a tenth of the time."""
_STATUS: Final = re.compile(r"(?:^|[\s(])(401|403|404)\b")
"""How stores tell, in words of their own, what HTTP told them."""
_DENIED: Final = {"PERMISSION_DENIED", "UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED"}

Claim = Callable[[str, int], None]
"""Hears what a model is called and how many bytes it has, before they are fetched; may raise."""


@dataclass(frozen=True, slots=True)
class Serving:
    """How what is fetched will be served."""

    runtime: ServingRuntime = ServingRuntime.AUTO
    python: str | None = None
    """Minor version of the image's Python; None where any will do."""


@dataclass(frozen=True, slots=True)
class FetchedModel:
    """A model version in a folder here."""

    model: ImageModel
    folder: Path
    fast: bool
    """It is served by our flavor: no library but the runtime's is needed."""

    @property
    def title(self) -> str:
        """Name it for people."""
        return title(self.model)

    def files(self) -> Mapping[str, Path]:
        """Give its files by their path inside the model; raise BuildError for links and devices."""
        files = {}
        for path in sorted(self.folder.rglob("*")):
            if path.is_symlink() or not (path.is_file() or path.is_dir()):
                name = path.relative_to(self.folder)
                raise _invalid(self.model, f"holds {name}, which is not a plain file")
            if path.is_file():
                files[path.relative_to(self.folder).as_posix()] = path
        return files

    def requirements(self) -> Requirements:
        """Read what it asks to be installed; raise BuildError if that is refused."""
        listed = self.folder / "requirements.txt"
        if not listed.is_file():
            raise _invalid(self.model, "has no requirements.txt; log it with MLflow's `log_model`")
        limits = self.folder / CONSTRAINTS
        constraints = limits.read_text(encoding="utf-8") if limits.is_file() else None
        text = listed.read_text(encoding="utf-8")
        return read_requirements(text, constraints, model=self.title)


def title(model: ImageModel) -> str:
    """Name a model version for people."""
    return f"model {model.name} version {model.version}"


def warm_up() -> None:
    """Prepare a process that does nothing but build: what follows is not for others."""
    import_module("mlflow")
    # Its modules are 150,000 objects; to look through them for garbage takes as long as a build.
    gc.collect()
    gc.freeze()
    for name in _ELSEWHERE:
        if name not in sys.modules and find_spec(name) is None:
            sys.modules[name] = None  # type: ignore[assignment] # Python's way to say: not there


async def fetch(
    model: ImageModel,
    tracking_uri: str,
    folder: Path,
    *,
    serving: Serving = Serving(),
    claim: Claim = lambda _title, _size: None,
) -> FetchedModel:
    """Bring what `serving` needs of a model version into `folder`, which must be empty.

    `claim` hears its bytes before any is fetched, and may raise. Raises BuildError when MLflow does
    not have it, does not give it, it is not what its flavor says, it has no flavor where the
    runtime is Fast, or is to be loaded by another Python than it was logged with.
    """
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    return await asyncio.to_thread(_fetch, model, tracking_uri, folder, serving, claim)


def _fetch(
    model: ImageModel,
    tracking_uri: str,
    folder: Path,
    serving: Serving,
    claim: Claim,
) -> FetchedModel:
    # Imported here, since it takes a second that only those who fetch should pay.
    from mlflow.exceptions import MlflowException  # noqa: PLC0415 (see above)

    runtime = serving.runtime
    try:
        repository = _listed_once(model_files(tracking_uri, model.name, model.version))
        through_mlflow = runtime is ServingRuntime.PYFUNC and model.role is Role.PREDICTOR
        fast = not through_mlflow and _download_flavor(model, repository, folder, claim)
        if runtime is ServingRuntime.FAST and not fast:
            raise _no_fast_form(model)
        if not fast:
            _download_all(model, repository, folder, claim)
        if fast or (flavor.exists(folder) and _has_flavor(model, folder)):
            _verify(model, folder)
        if not fast:
            _check_python(model, folder, serving.python)
        if not fast and model.role is Role.PREDICTOR:
            read_signature(folder)
    except SignatureError as error:
        raise _invalid(model, f"tells no inputs: {error}".replace(f"{folder}/", "")) from error
    except ModelRegistryError as error:
        raise BuildError(error.failure) from error
    except (MlflowException, RequestException) as error:
        raise _failed(model, tracking_uri, error) from error
    return FetchedModel(model, folder, fast=fast)


def _listed_once(repository: Any) -> Any:
    """Have a store remember what it listed: MLflow's own download asks for everything again."""
    ask = repository.list_artifacts
    known: dict[str, Any] = {MLMODEL: []}

    def list_artifacts(path: str | None = None) -> Any:
        path = path or ""
        if path not in known:
            known[path] = ask(path)
            known.update({info.path: [] for info in known[path] if not info.is_dir})
        return known[path]

    repository.list_artifacts = list_artifacts
    return repository


def _download_flavor(model: ImageModel, repository: Any, folder: Path, claim: Claim) -> bool:
    """Bring our flavor's files here, and tell whether the model has it."""
    # Asked for at once: of a model that has it nothing else need be listed.
    if not repository.list_artifacts(flavor.DATA):
        return False
    claim(title(model), sum(_sizes(repository, flavor.DATA)))
    with ThreadPoolExecutor(1) as beside:
        describing = beside.submit(repository.download_artifacts, MLMODEL, str(folder))
        repository.download_artifacts(flavor.DATA, str(folder))
        describing.result()
    return _has_flavor(model, folder)


def _download_all(model: ImageModel, repository: Any, folder: Path, claim: Claim) -> None:
    found = {info.path for info in repository.list_artifacts("")}
    if MLMODEL not in found:
        raise _no_artifact(model, f"there is no {MLMODEL} among {sorted(found)[:10]}")
    claim(title(model), sum(_sizes(repository, "")))
    repository.download_artifacts("", str(folder))


def _sizes(repository: Any, path: str) -> Iterator[int]:
    """Give the bytes of each file under a path, as far as MLflow knows them."""
    for info in repository.list_artifacts(path):
        if info.is_dir:
            yield from _sizes(repository, info.path)
        else:
            yield info.file_size or 0


def _has_flavor(model: ImageModel, folder: Path) -> bool:
    try:
        description = yaml.load((folder / MLMODEL).read_bytes(), _Loader)  # noqa: S506 (a safe one)
        return flavor.FLAVOR in description["flavors"]
    except (yaml.YAMLError, LookupError, TypeError) as error:
        raise _invalid(model, f"has an {MLMODEL} that cannot be read ({error!r})") from error


def _check_python(model: ImageModel, folder: Path, python: str | None) -> None:
    """Refuse what MLflow would load by another Python: what is pickled may not even load there."""
    recorded = python_of((folder / MLMODEL).read_bytes())
    if python and recorded and recorded != python:
        raise broken(
            Reason.BASE_IMAGE_NOT_FOUND,
            f"{title(model)} was logged with Python {recorded} and is served through MLflow, but "
            f"the image would have Python {python}: configure a base image for {recorded} "
            f'(builder.bases["{recorded}"]; --python and --base), or log it again with {python}',
        )


def _verify(model: ImageModel, folder: Path) -> None:
    try:
        info = flavor.read(folder)
        flavor.verify(info)
    except flavor.FlavorError as error:
        raise _invalid(model, f"is damaged: {error}") from error
    if info.role != model.role:
        raise _invalid(model, f"was made as a {info.role} model, and is used as {model.role}")


# --- failures ------------------------------------------------------------------------------


def _failed(model: ImageModel, tracking_uri: str, error: Any) -> BuildError:
    text, code = str(error), getattr(error, "error_code", "")
    status = found[1] if (found := _STATUS.search(text)) else ""
    if code in _MISSING or status == "404":
        return _no_artifact(model, _short(error))
    if code == "INVALID_PARAMETER_VALUE":
        return _invalid(model, f"holds a file whose name is not taken: {_short(error)}")
    if (full := os.strerror(errno.ENOSPC)) in text:
        raise OSError(errno.ENOSPC, full) from error
    if code in _DENIED or status in {"401", "403"}:
        return broken(
            Reason.REGISTRY_DENIED,
            f"{title(model)}: MLflow at {tracking_uri} refuses its files ({_short(error)}); check "
            "the builder's MLflow credentials",
        )
    return _unreachable(model, tracking_uri, error)


def _unreachable(model: ImageModel, tracking_uri: str, error: Exception) -> BuildError:
    return passing(
        Reason.REGISTRY_UNREACHABLE,
        f"{title(model)}: its files cannot be fetched from MLflow at {tracking_uri} "
        f"({_short(error)}); it is tried again",
    )


def _no_artifact(model: ImageModel, why: str) -> BuildError:
    return broken(
        Reason.ARTIFACT_NOT_FOUND,
        f"{title(model)} has no files that can be used: {why[:500]}. Log and register it again",
    )


def _no_fast_form(model: ImageModel) -> BuildError:
    return broken(
        Reason.FAST_FORM_MISSING,
        f"{title(model)} has no fast form (the flavor {flavor.FLAVOR}), and with runtime Fast "
        "nothing else is served: register it with modelops_training, or set spec.serving.runtime "
        "(--runtime) to Auto or Pyfunc",
    )


def _invalid(model: ImageModel, what: str) -> BuildError:
    return broken(Reason.MODEL_INVALID, f"{title(model)} {what}")


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:500]
