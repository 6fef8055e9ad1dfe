"""Logs a training to MLflow, registers its three models, and moves their alias together."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mlflow
import pandas as pd
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from modelops_runtime import flavor as runtime

from modelops_training import aliases, card, flavor
from modelops_training.errors import RegistrationError
from modelops_training.flavor import Contents
from modelops_training.mover import Move
from modelops_training.signature import Table, example, signature
from modelops_training.training import KINDS, ROLES, Trained

TRAIN_ID_TAG = "modelops.train_id"
ROLE_TAG = "modelops.role"
DIGEST_TAG = "modelops.data_sha256"


@dataclass(frozen=True, kw_only=True)
class Version:
    """One registered model version."""

    role: str
    name: str
    version: str
    model_id: str


@dataclass(frozen=True, kw_only=True)
class Registration:
    """What `register` did."""

    train_id: str
    run_id: str
    experiment_id: str
    tracking_uri: str
    alias: str | None
    """The alias that leads to the versions now; None if none was asked for."""
    versions: tuple[Version, ...]
    """Drift, outlier, predictor."""
    evaluation: Mapping[int, Mapping[str, float]]
    """Metrics by step, of the frames given for evaluation."""
    seconds: Mapping[str, float]
    """Wall time by step."""


def register(  # noqa: PLR0913  # named settings
    trained: Trained,
    name: str,
    *,
    alias: str | None = "candidate",
    names: Mapping[str, str] | None = None,
    evaluation: Mapping[int, pd.DataFrame] | None = None,
    dataset: str | None = None,
    notes: str = "",
    experiment: str | None = None,
    tracking_uri: str | None = None,
) -> Registration:
    """Log one run with three models, register them, and set the alias on all or on none.

    The predictor is registered as `name`, the detectors as `<name>_drift` and `<name>_outlier`
    unless `names` says otherwise by role. `evaluation` maps a step (a year, say) to rows with known
    targets; their metrics are logged under that step. `dataset` names the training data, and
    `notes` say on the model card what the model is for and what not. Without `tracking_uri`,
    MLflow's own setting counts. With `alias=None` the versions are only registered.

    An alias move that an earlier run of this could not finish is finished first. Raises
    RegistrationError (AliasError for the last step) when MLflow refuses something or gives back
    other files than it was sent; versions registered until then stay, without an alias.
    """
    called = {role: f"{name}_{role}" for role in ROLES} | {"predictor": name} | dict(names or {})
    started = time.perf_counter()
    with _tracking(tracking_uri), _explained(name), aliases.Mover() as program:
        aliases.repair(called["predictor"])
        measured = {step: trained.evaluate(rows) for step, rows in (evaluation or {}).items()}
        with mlflow.start_run(
            experiment_id=_experiment(experiment or name),
            run_name=f"{name} {trained.train_id}",
            nested=mlflow.active_run() is not None,
            tags={TRAIN_ID_TAG: trained.train_id, DIGEST_TAG: trained.data_digest},
        ) as run:
            _log_figures(trained, measured, dataset or name)
            _log_card(
                card.describe(trained, name, dataset=dataset or name, notes=notes, later=measured)
            )
            models = {role: _log_model(trained, role) for role in ROLES}
        logged = time.perf_counter()
        versions = tuple(_register(trained, role, called[role], models[role]) for role in ROLES)
        for version in versions:
            _verify(trained, version)
        registered = time.perf_counter()
        if alias is not None:
            program.move(_move(alias, versions))
        moved = time.perf_counter()
        return Registration(
            train_id=trained.train_id,
            run_id=run.info.run_id,
            experiment_id=run.info.experiment_id,
            tracking_uri=mlflow.get_tracking_uri(),
            alias=alias,
            versions=versions,
            evaluation=measured,
            seconds={
                "log": round(logged - started, 3),
                "register": round(registered - logged, 3),
                "aliases": round(moved - registered, 3),
            },
        )


def repair(name: str, *, tracking_uri: str | None = None) -> Move | None:
    """Finish the alias move of this predictor and its detectors that was cut short, if any.

    Returns the move that was finished, or None. Raises AliasError when it cannot be finished.
    """
    with _tracking(tracking_uri), _explained(name):
        return aliases.repair(name)


@contextmanager
def _tracking(uri: str | None) -> Iterator[None]:
    """Use this server for a while; MLflow knows only one at a time, for the whole process."""
    before = mlflow.get_tracking_uri()
    if uri is None:
        yield
        return
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)


@contextmanager
def _explained(name: str) -> Iterator[None]:
    try:
        yield
    except MlflowException as error:
        raise RegistrationError(
            f"registering {name!r} at {mlflow.get_tracking_uri()}: {error}. No alias has moved"
        ) from error


def _experiment(name: str) -> str:
    client = MlflowClient()
    if found := client.get_experiment_by_name(name):
        return str(found.experiment_id)
    return str(client.create_experiment(name))


def _log_figures(
    trained: Trained, measured: Mapping[int, Mapping[str, float]], dataset: str
) -> None:
    mlflow.log_params(dict(trained.params))
    mlflow.log_metrics({f"held_out_{key}": value for key, value in trained.metrics.items()})
    for step, metrics in measured.items():
        mlflow.log_metrics({f"later_{key}": value for key, value in metrics.items()}, step=step)
    mlflow.log_input(Table(trained, dataset), context="training")


def _log_card(described: Mapping[str, Any]) -> None:
    with TemporaryDirectory() as folder:
        card.write(described, Path(folder))
        mlflow.log_artifacts(folder)


def _log_model(trained: Trained, role: str) -> str:
    """Log one model under the active run; gives its id."""
    contents = Contents(
        role=role,
        kind=KINDS[role],
        files=trained.files[role],
        train_id=trained.train_id,
        signature=signature(trained, role),
        example=example(trained),
    )
    info = Model.log(
        artifact_path=None,
        name=role,
        flavor=flavor,
        contents=contents,
        tags={TRAIN_ID_TAG: trained.train_id, ROLE_TAG: role},
    )
    return str(info.model_id)


def _register(trained: Trained, role: str, name: str, model_id: str) -> Version:
    made = mlflow.register_model(
        f"models:/{model_id}",
        name,
        tags={TRAIN_ID_TAG: trained.train_id, ROLE_TAG: role},
    )
    return Version(role=role, name=name, version=str(made.version), model_id=model_id)


def _verify(trained: Trained, version: Version) -> None:
    """Read a version back the way a builder does, before an alias leads anybody to it."""
    place = f"{version.name} {version.version}"
    with TemporaryDirectory() as folder:
        got = mlflow.artifacts.download_artifacts(
            f"models:/{version.name}/{version.version}/{runtime.DATA}", dst_path=folder
        )
        try:
            info = runtime.read(Path(got).parent)
            runtime.verify(info)
        except runtime.FlavorError as error:
            raise RegistrationError(f"{place} cannot be read back: {error}") from error
    if info.train_id != trained.train_id or info.role != version.role:
        raise RegistrationError(
            f"{place} came back as the {info.role} of training {info.train_id}, expected the "
            f"{version.role} of {trained.train_id}: does something rewrite artifacts on the way?"
        )


def _move(alias: str, versions: tuple[Version, ...]) -> Move:
    return Move(
        alias=alias,
        versions=tuple((version.name, version.version) for version in versions),
        tracking_uri=mlflow.get_tracking_uri(),
        registry_uri=mlflow.get_registry_uri(),
    )
