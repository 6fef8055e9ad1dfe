"""The fast form of a fitted model: an encoder from tables, and trees or a weighted sum behind it.

    form = compiled(original, schema, frame, finite=True)   # raises NoFastForm, which says why not

Nothing here is trusted: `proving` asks both, the model and the runtime's own code over the files.
"""

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import pandas as pd
import treelite
from modelops_runtime import flavor
from modelops_runtime.linear import Linear
from modelops_runtime.schema import Schema
from sklearn import ensemble, linear_model, tree
from treelite.core import TreeliteError

from modelops_training import pipelines
from modelops_training.errors import NoFastForm
from modelops_training.inputs import text_of
from modelops_training.original import Original
from modelops_training.pipelines import Coded, Feature, Number

_REGRESSIONS: Final = (
    *(linear_model.LinearRegression, linear_model.Ridge, linear_model.RidgeCV),
    *(linear_model.Lasso, linear_model.LassoCV, linear_model.ElasticNet),
    *(linear_model.ElasticNetCV, linear_model.HuberRegressor, linear_model.SGDRegressor),
    *(linear_model.BayesianRidge, linear_model.Lars, linear_model.LassoLars),
)
_EXPONENTIALS: Final = (
    *(linear_model.PoissonRegressor, linear_model.GammaRegressor),
    linear_model.TweedieRegressor,
)
_FORESTS: Final = (
    *(ensemble.RandomForestClassifier, ensemble.RandomForestRegressor),
    *(ensemble.ExtraTreesClassifier, ensemble.ExtraTreesRegressor),
)
_TREES: Final = {
    tree.DecisionTreeClassifier: ensemble.RandomForestClassifier,
    tree.DecisionTreeRegressor: ensemble.RandomForestRegressor,
    tree.ExtraTreeClassifier: ensemble.RandomForestClassifier,
    tree.ExtraTreeRegressor: ensemble.RandomForestRegressor,
}
_BOOSTED: Final = (ensemble.GradientBoostingClassifier, ensemble.GradientBoostingRegressor)
_HISTOGRAMS: Final = (
    *(ensemble.HistGradientBoostingClassifier, ensemble.HistGradientBoostingRegressor),
)


@dataclass(frozen=True, eq=False)
class Head:
    """What answers behind the encoder."""

    kind: str
    """treelite or linear."""
    files: Mapping[str, bytes]
    """The flavor's files, name to content."""
    narrow: bool = False
    """It wants its features rounded to 32 bits."""


def compiled(original: Original, schema: Schema, frame: pd.DataFrame, *, finite: bool) -> Head:
    """Make the fast form; `finite` says that the model refuses infinite numbers.

    `frame` has the rows as the model was fitted on them. Raises NoFastForm with the reason.
    """
    features = _inputs(schema, frame)
    categories: dict[int, list[Any]] = {}
    if original.last is original.model:
        categories = {
            place: [_plain(each) for each in frame[name].cat.categories]
            for place, name in enumerate(schema.names)
            if isinstance(frame[name].dtype, pd.CategoricalDtype)
        }
    else:
        for _, step in original.model.steps[:-1]:
            features = pipelines.trace(step, features)
    features, head = _with_head(original.last, features, categories)
    encoder = pipelines.plan(features, len(schema.inputs), narrow=head.narrow, finite=finite)
    return replace(head, files={**head.files, flavor.ENCODER: encoder.to_json()})


def _inputs(schema: Schema, frame: pd.DataFrame) -> list[Feature]:
    """Give each input as the pipeline receives it: in the frame's own types."""
    features: list[Feature] = []
    for place, column in enumerate(schema.inputs):
        values = frame[column.name]
        if column.kind == "number":
            steps = (("float32", 0.0),) if values.dtype == np.float32 else ()
            features.append(Number(place, steps))
            continue
        met = (
            values.cat.categories
            if isinstance(values.dtype, pd.CategoricalDtype)
            else (values.dropna().unique())
        )
        own = {text_of(value, column.name): _plain(value) for value in met}
        gap = values[values.isna()].iloc[0] if values.isna().any() else np.nan
        levels = (own.get(level, level) for level in column.levels)
        features.append(Coded(place, (*levels, gap, pipelines.UNKNOWN)))
    return features


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _with_head(
    model: Any, features: list[Feature], categories: Mapping[int, list[Any]]
) -> tuple[list[Feature], Head]:
    """Find what answers, and what it makes of pandas' categories, by the place of their input."""
    library = type(model).__module__.partition(".")[0]
    if library == "lightgbm":
        return _lightgbm(model, features, categories)
    if library == "xgboost":
        return _by_places(features, categories), _xgboost(model)
    if library == "catboost":
        from modelops_training import catboost_trees  # noqa: PLC0415  # it is an extra

        return features, _trees(lambda: catboost_trees.convert(model), narrow=True)
    if library != "sklearn":
        raise NoFastForm(f"{type(model).__module__}.{type(model).__name__} is not known here")
    if isinstance(model, _HISTOGRAMS):
        return _histograms(model, features)
    return features, _sklearn(model)


def _sklearn(model: Any) -> Head:
    if getattr(model, "n_outputs_", 1) != 1:
        raise NoFastForm(f"{type(model).__name__} predicts several targets")
    if type(model) in _TREES:
        model = _as_forest(model)
    if isinstance(model, (*_FORESTS, *_BOOSTED)):
        whole = copy.copy(model)
        # Early stopping keeps fewer than were asked for, and treelite reads as many as that.
        whole.n_estimators = len(model.estimators_)
        # scikit-learn's trees read 32 bits: without the rounding 13 of 50,000 labels differ.
        return _trees(lambda: treelite.sklearn.import_model(whole), narrow=True)
    if isinstance(model, _REGRESSIONS):
        return _linear(model.coef_, model.intercept_, "identity")
    if isinstance(model, _EXPONENTIALS):
        if getattr(model, "link", "log") not in {"log", "auto"} or getattr(model, "power", 1) <= 0:
            raise NoFastForm(f"{model!r} has a link that is not known here")
        return _linear(model.coef_, model.intercept_, "exp")
    if isinstance(model, linear_model.LogisticRegression | linear_model.LogisticRegressionCV):
        several = len(model.classes_) > 2 and getattr(model, "solver", "") != "liblinear"
        link = "softmax" if several else "one against rest"
        return _linear(
            model.coef_, model.intercept_, "logistic" if len(model.classes_) == 2 else link
        )
    if isinstance(model, linear_model.SGDClassifier):
        if model.loss != "log_loss":
            raise NoFastForm(f"SGDClassifier has no plain probabilities with loss={model.loss!r}")
        binary = len(model.classes_) == 2
        return _linear(model.coef_, model.intercept_, "logistic" if binary else "one against rest")
    raise NoFastForm(f"{type(model).__name__} has no compiled form")


def _as_forest(model: Any) -> Any:
    """Wrap one tree as a forest of one, which is what treelite reads."""
    forest = _TREES[type(model)](n_estimators=1)
    forest.estimators_ = [model]
    forest.n_features_in_, forest.n_outputs_ = model.n_features_in_, model.n_outputs_
    if hasattr(model, "classes_"):
        forest.classes_, forest.n_classes_ = model.classes_, model.n_classes_
    return forest


def _linear(weights: Any, intercept: Any, link: str) -> Head:
    rows = np.atleast_2d(np.asarray(weights, dtype=np.float64))
    constant = np.broadcast_to(np.asarray(intercept, dtype=np.float64), len(rows))
    if rows.ndim != 2 or not np.isfinite(rows).all():
        raise NoFastForm("its weights are not finite")
    linear = Linear(rows, constant.copy(), link)
    return Head("linear", {flavor.LINEAR: linear.to_json()})


def _trees(
    convert: Callable[[], treelite.Model],
    *,
    narrow: bool = False,
    native: Mapping[str, bytes] | None = None,
) -> Head:
    try:
        checkpoint = convert().serialize_bytes()
    except (TreeliteError, NotImplementedError, AssertionError, ValueError) as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise NoFastForm(f"treelite does not read it: {said}") from error
    return Head("treelite", {flavor.TREELITE: checkpoint, **(native or {})}, narrow)


def _histograms(model: Any, features: list[Feature]) -> tuple[list[Feature], Head]:
    """Read histogram boosting, whose trees count categories first and know them by their place."""
    preprocessor = getattr(model, "_preprocessor", None)
    if preprocessor is not None:
        categorical = model.is_categorical_
        coded = [each for each, yes in zip(features, categorical, strict=True) if yes]
        plain = [each for each, yes in zip(features, categorical, strict=True) if not yes]
        encoder = preprocessor.named_transformers_["encoder"]
        features = [*pipelines.trace(encoder, coded), *plain]
        model = copy.copy(model)
        model._preprocessor = None  # noqa: SLF001  # there is no other way to its trees
    # In 64 bits as it reads them: with rounding 72 of 50,000 labels differ.
    return features, _trees(lambda: treelite.sklearn.import_model(model))


def _lightgbm(
    model: Any, features: list[Feature], categories: Mapping[int, list[Any]]
) -> tuple[list[Feature], Head]:
    booster = getattr(model, "booster_", model)
    known = booster.pandas_categorical or []
    if len(known) != len(categories):
        raise NoFastForm(f"it knows {len(known)} columns of categories, X has {len(categories)}")
    own = dict(zip(categories, known, strict=True))
    native = {flavor.LIGHTGBM: booster.model_to_string().encode()}
    return _by_places(features, own), _trees(
        lambda: treelite.frontend.from_lightgbm(booster), native=native
    )


def _xgboost(model: Any) -> Head:
    booster = model
    if hasattr(model, "get_booster"):
        booster = model.get_booster()
        if booster.attr("best_iteration") is not None:
            booster = booster[: int(booster.attr("best_iteration")) + 1]
    data = json.loads(bytes(booster.save_raw("json")))
    trees = data["learner"]["gradient_booster"].get("model", {})
    if "cats" in trees:
        # Names of categories, which treelite does not take: the trees compare places.
        trees["cats"] = {"enc": [], "feature_segments": [], "sorted_idx": []}
    return _trees(lambda: treelite.frontend.from_xgboost_json(json.dumps(data)))


def _by_places(features: list[Feature], categories: Mapping[int, list[Any]]) -> list[Feature]:
    """Give each level its place among the categories; what is not there is missing."""
    return [
        replace(feature, becomes=_places(feature.becomes, categories[place]))
        if place in categories and isinstance(feature, Coded)
        else feature
        for place, feature in enumerate(features)
    ]


def _places(values: tuple[Any, ...], categories: list[Any]) -> tuple[float, ...]:
    places = {each: float(place) for place, each in enumerate(categories)}
    return tuple(
        np.nan if each is pipelines.UNKNOWN or pd.isna(each) else places.get(each, np.nan)
        for each in values
    )
