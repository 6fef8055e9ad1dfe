"""Loads what a Bento serves, and proves it before anybody is answered.

    models = load(folder)       # folder has predictor/ and perhaps outlier/ and drift/

Each model with our flavor answers its own parity rows first. The predictor falls back from
treelite to LightGBM where that is installed; a model without the flavor goes through MLflow. The
Bento's runtime.json may ask for one of the two ways, see `ServingRuntime`.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, TypeVar

import orjson

from modelops_runtime import detectors, flavor
from modelops_runtime.bento import RUNTIME, ServingRuntime
from modelops_runtime.flavor import FlavorError, FlavorInfo
from modelops_runtime.joining import JoiningPredictor
from modelops_runtime.judging import DRIFT, OUTLIER
from modelops_runtime.outlier import DetectorError, OutlierDetector
from modelops_runtime.parity import Parity, ParityError
from modelops_runtime.predictors import (
    LinearPredictor,
    Predictor,
    PredictorError,
    PyfuncPredictor,
    RowsRefused,
    TreelitePredictor,
    forms,
)
from modelops_runtime.profile import Profile, ProfileError
from modelops_runtime.schema import Schema, SchemaError
from modelops_runtime.signature import SignatureError, read_example, read_signature

T = TypeVar("T")

NAMES: Final = "models.json"
ROLES: Final = (DRIFT, OUTLIER)
"""Of detectors."""
_LOG: Final = logging.getLogger("bentoml.modelops")

_Broken = (
    *(FlavorError, SchemaError, ProfileError, DetectorError, ParityError),
    *(PredictorError, RowsRefused),
)
COMPILED: Final = frozenset({LinearPredictor.form, TreelitePredictor.form})
"""Forms that `ServingRuntime.FAST` takes."""


class ModelsError(RuntimeError):
    """The models cannot be served; the message is one line for people."""


@dataclass(frozen=True, slots=True, eq=False)
class Detector:
    """An outlier detector and the table that encodes rows for it."""

    model: OutlierDetector
    schema: Schema


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """A reference profile and the table that encodes rows for it."""

    profile: Profile
    schema: Schema
    hidden: frozenset[int] = frozenset()
    """Places of the inputs that are never logged."""


@dataclass(frozen=True, slots=True, eq=False)
class Models:
    """What a Bento serves."""

    names: Mapping[str, str]
    """By role: "name/version" of the registered model, where known."""
    schema: Schema
    predictor: Predictor
    detector: Detector | None = None
    reference: Reference | None = None
    rejected: Mapping[str, str] = field(default_factory=dict)
    """Faster forms of the predictor that do not serve, and why."""
    others: Mapping[str, Path] = field(default_factory=dict)
    """By role: folders of detectors without our flavor, which `watching` runs."""

    @property
    def name(self) -> str:
        """Name of the predictor."""
        return self.names.get("predictor", "").rpartition("/")[0]

    @property
    def version(self) -> str:
        """Version of the predictor."""
        return self.names.get("predictor", "").rpartition("/")[2]


def load(folder: Path) -> Models:
    """Load and prove the models. Raises ModelsError."""
    names = _names(folder)
    models = _load_predictor(folder / "predictor", names, _runtime(folder))
    schema = models.schema
    return replace(
        models,
        detector=_optional(folder, "outlier", names, lambda info: _detector(info, schema)),
        reference=_optional(folder, "drift", names, lambda info: _reference(info, schema)),
        others={role: folder / role for role in ROLES if _is_of_others(folder / role)},
    )


def describe(folder: Path) -> tuple[Schema, tuple[Mapping[str, Any], ...]]:
    """Give the predictor's inputs and a few example rows, without loading the model.

    Raises ModelsError.
    """
    place = folder / "predictor"
    try:
        if not flavor.exists(place):
            return read_signature(place).schema, read_example(place)
        info = flavor.read(place)
        rows = orjson.loads(info.load(flavor.PARITY))["rows"]
        return Schema.from_json(info.load(flavor.SCHEMA)), tuple(rows[-2:])
    except (*_Broken, SignatureError, ValueError, LookupError, TypeError) as error:
        raise ModelsError(f"predictor: {error}") from error


def _names(folder: Path) -> Mapping[str, str]:
    try:
        names: dict[str, str] = orjson.loads((folder / NAMES).read_bytes())
    except (OSError, ValueError):
        return {}
    return names


def _runtime(folder: Path) -> ServingRuntime:
    path = folder / RUNTIME
    try:
        return ServingRuntime(orjson.loads(path.read_bytes())["runtime"])
    except FileNotFoundError:
        return ServingRuntime.AUTO
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ModelsError(f"{path}: is not understood ({error!r})") from error


def _load_predictor(place: Path, names: Mapping[str, str], runtime: ServingRuntime) -> Models:
    title = f"predictor {names.get('predictor', place)}"
    if not place.is_dir():
        raise ModelsError(f"{title}: there is no folder {place}")
    try:
        if runtime is ServingRuntime.PYFUNC or not flavor.exists(place):
            return _load_any(place, names, runtime)
        return _load_flavored(place, names, runtime)
    except (*_Broken, SignatureError) as error:
        raise ModelsError(f"{title}: {error}") from error


def _load_flavored(place: Path, names: Mapping[str, str], runtime: ServingRuntime) -> Models:
    """Take the fastest form that answers the parity rows as expected."""
    info = _verified(place, "predictor")
    schema = Schema.from_json(info.load(flavor.SCHEMA))
    parity = Parity.from_json(info.load(flavor.PARITY), schema)
    rejected: dict[str, str] = {}
    for form in forms(info):
        name = form.form
        if runtime is ServingRuntime.FAST and name not in COMPILED:
            continue
        try:
            predictor = form(info, schema.output)
            parity.prove_predictor(predictor)
        except _Broken as error:
            rejected[name] = str(error)
            _LOG.warning("the predictor is not served by %s: %s", name, error)
        else:
            _LOG.info("the predictor is served by %s: no code that came with it is run", name)
            return Models(names, schema, predictor, rejected=rejected)
    reasons = "; ".join(f"{name}: {why}" for name, why in rejected.items())
    if runtime is ServingRuntime.FAST:
        reasons += "; runtime Fast takes no other: register the model again, or ask for Pyfunc"
    raise PredictorError(f"no form of it holds: {reasons}")


def _load_any(place: Path, names: Mapping[str, str], runtime: ServingRuntime) -> Models:
    if runtime is ServingRuntime.FAST:
        raise PredictorError(
            "it has no fast form, and runtime Fast takes no other: register it with"
            " modelops_training, or ask for Auto or Pyfunc"
        )
    signature = read_signature(place)
    schema = signature.schema
    why = signature.why_not_faster or "it was not registered by modelops_training"
    rejected = {"compiled": why}
    if flavor.exists(place):
        # The same rows are taken and the same is answered as by the fast form.
        info = _verified(place, "predictor")
        schema = Schema.from_json(info.load(flavor.SCHEMA))
        rejected = {form.form: "runtime Pyfunc is asked for" for form in forms(info)}
    pyfunc = PyfuncPredictor(place, signature.types, schema.output)
    pyfunc.prove()
    joined = pyfunc.answers_rows_alone()
    pickles = ", ".join(flavor.pickles(place))
    _LOG.warning(
        "the predictor is served through MLflow: code that came with it runs in this pod%s (%s)",
        f", and reading {pickles} executes what is in there" if pickles else "",
        "; ".join(f"{name}: {reason}" for name, reason in rejected.items()),
    )
    if not joined:
        _LOG.info(
            "each request is one call of the model: its example does not show that it answers"
            " a row the same whatever stands beside it"
        )
    predictor = JoiningPredictor(pyfunc) if joined else pyfunc
    return Models(names, schema, predictor, rejected=rejected)


def _optional(
    folder: Path, role: str, names: Mapping[str, str], read: Callable[[FlavorInfo], T]
) -> T | None:
    place = folder / role
    if not place.is_dir():
        return None
    title = f"{role} detector {names.get(role, place)}"
    if _is_of_others(place):
        _LOG.warning(
            "%s has not the modelops flavor: a process of its own shows it samples of the windows,"
            " and runs the code that came with it",
            title,
        )
        return None
    try:
        return read(_verified(place, role))
    except _Broken as error:
        raise ModelsError(f"{title}: {error}") from error


def _is_of_others(place: Path) -> bool:
    return place.is_dir() and not flavor.exists(place)


def _verified(place: Path, role: str) -> FlavorInfo:
    info = flavor.read(place)
    flavor.verify(info)
    if info.role != role:
        raise FlavorError(f"was made as a {info.role} model, and is used as {role}")
    return info


def _detector(info: FlavorInfo, served: Schema) -> Detector:
    own = Schema.from_json(info.load(flavor.SCHEMA))
    model = detectors.read(info)
    Parity.from_json(info.load(flavor.PARITY), own).prove_detector(model)
    return Detector(model, _shared(own, served))


def _reference(info: FlavorInfo, served: Schema) -> Reference:
    own = Schema.from_json(info.load(flavor.SCHEMA))
    profile = Profile.from_json(info.load(flavor.PROFILE))
    Parity.from_json(info.load(flavor.PARITY), own).prove_profile(profile)
    sensitive = {each.name for each in (*own.inputs, *served.inputs) if each.sensitive}
    untold = sensitive | {each.name for each in own.inputs if each.opaque}
    hidden = (place for place, name in enumerate(own.names) if name in untold)
    return Reference(profile, _shared(own, served), frozenset(hidden))


def _shared(own: Schema, served: Schema) -> Schema:
    """Give the table that encodes rows for a detector.

    It is the predictor's, so that rows are encoded once, if both were trained together. Else it
    is the detector's own, made lenient: what the predictor accepted is not refused a second time.
    """
    if own.inputs == served.inputs:
        return served
    kinds = {column.name: column.kind for column in served.inputs}
    for column in own.inputs:
        if kinds.get(column.name) != column.kind:
            raise SchemaError(
                f"takes {column.name} as a {column.kind}, which the predictor does not:"
                " release predictor and detectors of one training together"
            )
    if len(kinds) != len(own.inputs):
        extra = ", ".join(sorted(kinds.keys() - set(own.names)))
        raise SchemaError(
            f"does not know the predictor's {extra}:"
            " release predictor and detectors of one training together"
        )
    inputs = (replace(column, nullable=True, integer=False) for column in own.inputs)
    return Schema(tuple(inputs), own.output)
