"""Releases to build: three models with our flavor whose files say nothing."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from modelops_operator.api.config import OperatorConfig
from modelops_operator.api.facts import Role
from modelops_operator.api.resources import ImageModel, ImageRuntime, ModelImageSpec
from modelops_operator.builder.build import Builder, BuiltImage
from modelops_runtime import flavor

if TYPE_CHECKING:
    from tests.builder.conftest import RunningMlflow

FILES: Mapping[Role, Mapping[str, bytes]] = {
    Role.PREDICTOR: {"schema.json": b"{}", "model.treelite": b"trees", "parity.json": b"{}"},
    Role.DRIFT: {"schema.json": b"{}", "profile.json": b"{}", "parity.json": b"{}"},
    Role.OUTLIER: {"schema.json": b"{}", "detector.json": b"{}", "parity.json": b"{}"},
}
SIGNED = (
    b"flavors: {python_function: {loader_module: mlflow.sklearn}}\n"
    b"""signature: {inputs: '[{"name": "age", "type": "long"}]',"""
    b""" outputs: '[{"name": "answer", "type": "double"}]'}\n"""
)
"""MLmodel of a model without our flavor."""
KINDS = {Role.PREDICTOR: "treelite", Role.DRIFT: "profile", Role.OUTLIER: "mahalanobis"}


def release(
    mlflow: "RunningMlflow", folder: Path, seed: str, name: str = "release"
) -> Sequence[ImageModel]:
    """Register one version of each of three models with our flavor."""
    models = []
    for role, place in write_release(folder, seed).items():
        model = mlflow.register(f"{name}_{role}", {}, place)
        models.append(model.model_copy(update={"role": role}))
    return models


def write_release(folder: Path, seed: str) -> Mapping[Role, Path]:
    """Write three models with our flavor as MLflow lays them out; give the folder of each."""
    places = {}
    for role, files in FILES.items():
        places[role] = place = folder / seed / role
        place.mkdir(parents=True)
        content = {name: data + seed.encode() for name, data in files.items()}
        settings = flavor.write_data(place, str(role), KINDS[role], content)
        described = yaml.safe_load(SIGNED)
        described["flavors"] = {"modelops": settings, "python_function": {}}
        (place / "MLmodel").write_text(yaml.safe_dump(described))
        (place / "requirements.txt").write_text("lightgbm==4.7.0\n")
        (place / "unwanted.txt").write_text("not for the image")
    return places


def spec_of(models: Sequence[ImageModel], config: OperatorConfig, name: str) -> ModelImageSpec:
    return ModelImageSpec(
        models=tuple(models),
        tracking_uri=config.mlflow.tracking_uri,
        repository=f"{config.registry.host}/modelops/{name}",
        runtime=ImageRuntime(version="0.1.0"),
        python="3.11",
        platforms=("linux/amd64",),
        base=config.builder.bases["3.11"],
    )


async def build(config: OperatorConfig, spec: ModelImageSpec) -> BuiltImage:
    async with Builder(config) as builder:
        return await builder.build(spec, lambda *_: None)
