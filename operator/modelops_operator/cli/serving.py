"""Lays out registered models for the server at a desk."""

import asyncio
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from modelops_runtime import bento
from packaging.requirements import Requirement

from modelops_operator.adapters.mlflow import MlflowRegistry, ModelRegistryError
from modelops_operator.api.facts import ModelVersion, Role
from modelops_operator.api.resources import ImageModel
from modelops_operator.builder.failures import BuildError
from modelops_operator.builder.models import FetchedModel, fetch
from modelops_operator.cli.local_server import ServeError
from modelops_operator.cli.naming import DETECTORS, ModelArgument
from modelops_operator.cli.versions import version_of

Tell = Callable[[str], object]


@dataclass(frozen=True, slots=True)
class Wish:
    """Which models are to be served."""

    predictor: ModelArgument
    detectors: Mapping[Role, ModelArgument]
    """Those that were named; the others are looked for."""
    tracking_uri: str


async def find(wish: Wish, tell: Tell) -> Mapping[Role, ModelVersion]:
    """Find the versions; detectors that were not named are those of the predictor's training.

    They are looked for under the names that training gives them, `<predictor>_drift` and
    `<predictor>_outlier`. Raises ModelRegistryError, BuildError.
    """
    registry = MlflowRegistry(wish.tracking_uri)
    try:
        predictor = await version_of(registry, wish.predictor)
        found = {Role.PREDICTOR: predictor}
        for role in DETECTORS:
            named = wish.detectors.get(role)
            detector = (
                await version_of(registry, named)
                if named
                else await _sibling(registry, predictor, role, tell)
            )
            if detector is not None:
                found[role] = detector
    finally:
        registry.close()
    return found


async def _sibling(
    registry: MlflowRegistry, predictor: ModelVersion, role: Role, tell: Tell
) -> ModelVersion | None:
    if predictor.train_id is None:
        return None
    name = f"{predictor.name}_{role}"
    try:
        number = await registry.of_training(name, predictor.train_id)
    except ModelRegistryError as error:
        tell(f"no {role} detector: {error.failure.message}. Name it with --{role}")
        return None
    return await registry.version(name, number) if number else None


async def lay_out(
    models: Mapping[Role, ModelVersion], tracking_uri: str, folder: Path
) -> FetchedModel:
    """Write the Bento of these models into a folder; give the predictor.

    Raises BuildError when a model cannot be had or is not what its flavor says.
    """
    names = {str(role): f"{each.name}/{each.version}" for role, each in models.items()}
    predictor = models[Role.PREDICTOR]
    files = bento.skeleton(
        name=predictor.name,
        version=predictor.version,
        python=f"{sys.version_info.major}.{sys.version_info.minor}",
        models=names,
    )
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    async with asyncio.TaskGroup() as tasks:
        fetching = {
            role: tasks.create_task(_fetch(role, model, tracking_uri, folder))
            for role, model in models.items()
        }
    return fetching[Role.PREDICTOR].result()


async def _fetch(role: Role, model: ModelVersion, tracking_uri: str, folder: Path) -> FetchedModel:
    place = folder / bento.MODELS / role
    place.mkdir(parents=True)
    wanted = ImageModel(
        role=role,
        name=model.name,
        version=model.version,
        run_id=model.run_id,
        source=model.source or "unknown",
    )
    return await fetch(wanted, tracking_uri, place)


def check_requirements(predictor: FetchedModel, tell: Tell) -> None:
    """See whether this environment has what a model without our flavor needs.

    Raises ServeError that names what is missing and how to get it.
    """
    if predictor.fast:
        return
    tell(f"{predictor.title} has no fast form: it runs by MLflow, and so does the code in it")
    try:
        missing = list(_missing(predictor.requirements().wanted))
    except BuildError as error:
        tell(f"no image can be built of it: {error}")
        return
    if missing:
        options = " ".join(f"--with '{each}'" for each in missing)
        raise ServeError(
            f"{predictor.title} needs {', '.join(missing)}, which this Python does not have: "
            f"install it, or run `uv run {options} modelops serve ...`"
        )


def _missing(wanted: Iterable[str]) -> Iterator[str]:
    for line in wanted:
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        try:
            version(requirement.name)
        except PackageNotFoundError:
            yield line
