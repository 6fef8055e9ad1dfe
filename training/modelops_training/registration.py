"""Logs models to MLflow, registers predictor and detectors, and moves their alias together."""

import sys
import time
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypedDict, Unpack, overload

import mlflow
import pandas as pd
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.utils.git_utils import get_git_commit
from mlflow.utils.mlflow_tags import MLFLOW_GIT_COMMIT
from modelops_runtime import flavor as runtime

from modelops_training import aliases, card, detectors, flavor, naming, native
from modelops_training.adoption import Adopted, adopt
from modelops_training.errors import DataError, RegistrationError, TrainingWarning
from modelops_training.flavor import Contents
from modelops_training.inputs import Overrides
from modelops_training.mover import Move
from modelops_training.signature import Table, example, signature
from modelops_training.training import ROLES, Models

# Without dots and dashes, which Unity Catalog has for itself.
TRAIN_ID_TAG = "modelops_train_id"
ROLE_TAG = "modelops_role"
DIGEST_TAG = "modelops_data_sha256"
ALIAS = "candidate"
REFERENCE_PROFILE = "reference_profile.json"
"""The run's artifact; the drift detector has one of its own, by which it is served."""


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


class Settings(TypedDict, total=False):
    """How models are registered."""

    alias: str | None
    names: Mapping[str, str] | None
    evaluation: Mapping[int, pd.DataFrame] | None
    dataset: str | None
    notes: str
    experiment: str | None
    tracking_uri: str | None


class OwnSettings(Settings, total=False):
    """How a model of your own is registered, and what is made beside it."""

    with_detectors: bool
    overrides: Overrides | None
    known_ahead: Collection[str]
    outlier_kind: detectors.Kind
    outlier_quantile: float
    bins: int
    times: Any
    seed: int


_OF_DETECTOR = {"outlier_kind", "outlier_quantile", "seed"}
# What MLflow tells by whether it is on Databricks.
_ELSEWHERE = ("dbruntime", "IPython", "pyspark")
_SETTINGS = Settings.__annotations__.keys()


@overload
def register(trained: Models, /, name: str, **settings: Unpack[Settings]) -> Registration: ...
@overload
def register(
    model: object,
    /,
    X: Any,  # noqa: N803  # as scikit-learn calls it
    y: Any,
    name: str,
    **settings: Unpack[OwnSettings],
) -> Registration: ...
def register(
    model: object, /, *arguments: Any, tracking_uri: str | None = None, **settings: Any
) -> Registration:
    """Log and register a fitted model of your own with its fast form, and detectors if asked.

        register(model, X, y, "catalog.schema.tumours", with_detectors=True)  # a model of your own
        register(train(frame, "target"), "tumours")                           # what `train` made

    `X` (rows, columns) and `y` (rows,) are what the model was fitted on, or rows like them: a frame
    in the types that the model takes, and the target. They make the schema, the reference rows with
    the model's answers and the reference profile; `with_detectors`, also a drift and an outlier
    detector, which are registered beside the model and released with it. Without, a TrainingWarning
    tells of those that an earlier registration made, under the same alias.

    The model is measured on 10,000 of the rows at most, and asked about the others only where
    `times` are given. Compiled are scikit-learn's linear models, trees, forests and boosting,
    LightGBM, XGBoost and CatBoost, alone or behind a Pipeline that scales, imputes and encodes
    columns; of a search (GridSearchCV, say) what it found. Any other model is registered in
    MLflow's own flavor, and a TrainingWarning says why and what it costs. So is one that reads
    dates, or text of more than 1,000 different values; the detectors watch the other columns then.

    `overrides` replaces fields of single inputs: `{"AGEP": {"unit": "years", "sensitive": True}}`,
    or `{"note": {"storage": "text"}}` for text that is no category.
    A column that gives the target away is refused unless it is among those `known_ahead`.
    `bins` are the quantile bins per number of the reference profile; `times` has a date for each
    row, by which is measured how far each feature moves without any drift. Of the outlier detector
    are `outlier_kind` (how outliers are found, see `detectors.fit`), `outlier_quantile` (the share
    of the rows that are none) and `seed`. The others are said with the second form:

    One run is logged with all models. The predictor is registered as `name`, the detectors as
    `<name>_drift` and `<name>_outlier` unless `names` says otherwise by role. `evaluation` maps a
    step (a year, say) to rows with known targets; their metrics are logged under that step.
    `dataset` names the training data, `notes` say what the model is for and what not: on the run,
    and on the model card of what `train` made. The run is of the `experiment` of that name, which
    is the predictor's unless it is said; on Databricks a path, by default the one of the notebook
    or job. Without `tracking_uri`, MLflow's own setting counts.
    With `alias=None` the versions are only registered, else it leads to all of them or to none. An
    alias move that an earlier run of this could not finish is finished first.

    Raises DataError before anything is logged, and RegistrationError (AliasError for the last step)
    when MLflow refuses something or gives back other files than it was sent; versions registered
    until then stay, without an alias.
    """
    with _tracking(tracking_uri), _known_absent():
        if isinstance(model, Models):
            return _register_models(model, *arguments, **settings)
        return _register_own(model, *arguments, **settings)


def _register_models(  # noqa: PLR0913  # named settings
    trained: Models,
    name: str,
    *,
    alias: str | None = ALIAS,
    names: Mapping[str, str] | None = None,
    evaluation: Mapping[int, pd.DataFrame] | None = None,
    dataset: str | None = None,
    notes: str = "",
    experiment: str | None = None,
) -> Registration:
    called = _called(trained.roles, name, names)
    started = time.perf_counter()
    with _explained(name):
        naming.check(called, alias, experiment)
        aliases.repair(called["predictor"])
        if alias is not None:
            others = _called(set(ROLES).difference(trained.roles), name, names)
            _warn_of_former_detectors(sorted(others.values()), alias)
        measured = {step: trained.evaluate(rows) for step, rows in (evaluation or {}).items()}
        with mlflow.start_run(
            experiment_id=_experiment(experiment, name),
            run_name=f"{name} {trained.train_id}",
            nested=mlflow.active_run() is not None,
            tags={TRAIN_ID_TAG: trained.train_id, DIGEST_TAG: trained.data_digest, **_code()},
            description=notes or None,
        ) as run:
            mlflow.log_params(dict(trained.params))
            mlflow.log_input(Table(trained, dataset or name), context="training")
            described = card.describe(
                trained, name, dataset=dataset or name, notes=notes, later=measured
            )
            _log_files(trained, described)
            models = {role: _log_model(trained, role) for role in trained.roles}
            # After the models: with each of them MLflow would fetch the history of every figure.
            _log_figures(trained, measured, models["predictor"])
        logged = time.perf_counter()
        versions = tuple(
            _register(trained, role, called[role], models[role]) for role in trained.roles
        )
        for version in versions:
            _verify(trained, version)
        registered = time.perf_counter()
        if alias is not None:
            aliases.move(_move(alias, versions))
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


def _register_own(  # named settings
    model: object,
    X: Any,  # noqa: N803  # as scikit-learn calls it
    y: Any,
    name: str,
    *,
    with_detectors: bool = False,
    **settings: Any,
) -> Registration:
    of_registering = {key: settings.pop(key) for key in _SETTINGS & settings.keys()}
    roles = ROLES if with_detectors else ROLES[-1:]
    if not with_detectors and (idle := sorted(_OF_DETECTOR & settings.keys())):
        raise DataError(
            f"{idle[0]}={settings[idle[0]]!r} is of the outlier detector, which is made only if"
            " asked for: give with_detectors=True, too"
        )
    called = _called(roles, name, of_registering.get("names"))
    naming.check(called, of_registering.get("alias", ALIAS), of_registering.get("experiment"))
    adopted = adopt(model, X, y, with_detectors=with_detectors, **settings)
    return _register_models(adopted, name, **of_registering)


def repair(name: str, *, tracking_uri: str | None = None) -> Move | None:
    """Finish the alias move of this predictor and its detectors that was cut short, if any.

    Returns the move that was finished, or None. Raises AliasError when it cannot be finished.
    """
    with _tracking(tracking_uri), _explained(name):
        return aliases.repair(name)


def _called(roles: Collection[str], name: str, names: Mapping[str, str] | None) -> dict[str, str]:
    """Tell the registered model of each role."""
    return {
        role: (names or {}).get(role, name if role == "predictor" else f"{name}_{role}")
        for role in roles
    }


def _warn_of_former_detectors(names: Collection[str], alias: str) -> None:
    """Warn where the predictor would go on without the detectors of these names that it had."""
    if behind := aliases.lead_to(alias, names):
        warnings.warn(
            f"{' and '.join(behind)} keep the alias {alias!r} on versions of another training, and"
            " a deployment that follows it on them, too, waits for versions of this one: register"
            " with detectors (`with_detectors=True`), or take the alias off them",
            TrainingWarning,
            stacklevel=5,
        )


def _code() -> dict[str, str]:
    """Tell the commit that this runs at, where MLflow does not find it: it asks of the program."""
    commit = get_git_commit(str(Path.cwd()))
    return {MLFLOW_GIT_COMMIT: commit} if commit else {}


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
def _known_absent() -> Iterator[None]:
    """Let MLflow know what is not installed: it searches for it with every request."""
    absent = [name for name in _ELSEWHERE if name not in sys.modules and find_spec(name) is None]
    # Python's way to say: not there.
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in absent:
            sys.modules.pop(name, None)


@contextmanager
def _explained(name: str) -> Iterator[None]:
    try:
        yield
    except MlflowException as error:
        raise RegistrationError(
            f"registering {name!r} at {mlflow.get_tracking_uri()}: {error}. No alias has moved"
        ) from error


def _experiment(wanted: str | None, name: str) -> str | None:
    """Find or make the experiment; None leaves the choice to MLflow.

    On Databricks that is the one of the notebook or job, or what `mlflow.set_experiment` says.
    """
    if wanted is None and naming.on_databricks():
        return None
    client, name = MlflowClient(), wanted or name
    if found := client.get_experiment_by_name(name):
        return str(found.experiment_id)
    return str(client.create_experiment(name))


def _log_figures(
    trained: Models, measured: Mapping[int, Mapping[str, float]], predictor: str
) -> None:
    """Log how the predictor of this id did, on the rows held out and later."""
    given = {f"{trained.measured_on}_{key}": value for key, value in trained.metrics.items()}
    mlflow.log_metrics(given, model_id=predictor)
    for step, metrics in measured.items():
        later = {f"later_{key}": value for key, value in metrics.items()}
        mlflow.log_metrics(later, step=step, model_id=predictor)


def _log_files(trained: Models, described: Mapping[str, Any]) -> None:
    """Log the model card, and the reference profile without what is sensitive."""
    profile, inputs = trained.profile, trained.schema.inputs
    told = (
        feature
        for feature, column in zip(profile.features, inputs, strict=True)
        if not column.sensitive
    )
    with TemporaryDirectory() as folder:
        card.write(described, Path(folder))
        public = replace(profile, features=tuple(told))
        (Path(folder) / REFERENCE_PROFILE).write_bytes(public.to_json())
        mlflow.log_artifacts(folder)


def _log_model(trained: Models, role: str) -> str:
    """Log one model under the active run; gives its id."""
    tags = {TRAIN_ID_TAG: trained.train_id, ROLE_TAG: role}
    if isinstance(trained, Adopted) and role not in trained.files:
        return native.log(
            trained.original,
            signature(trained, role),
            example(trained),
            tags=tags,
            why=trained.why,
        )
    contents = Contents(
        role=role,
        kind=trained.kinds[role],
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
        tags=tags,
        # MLflow would load it and ask it, to warn if that fails: its code is ours, and is proved.
        validate_serving_input=False,
    )
    return str(info.model_id)


def _register(trained: Models, role: str, name: str, model_id: str) -> Version:
    made = mlflow.register_model(
        f"models:/{model_id}",
        name,
        tags={TRAIN_ID_TAG: trained.train_id, ROLE_TAG: role},
    )
    return Version(role=role, name=name, version=str(made.version), model_id=model_id)


def _verify(trained: Models, version: Version) -> None:
    """Read a version back the way a builder does, before an alias leads anybody to it."""
    place = f"{version.name} {version.version}"
    if version.role not in trained.files:
        # Of the library's own files nobody keeps digests to compare with.
        return
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
