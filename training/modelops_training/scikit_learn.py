"""scikit-learn's estimators as weighted sums, or as trees that treelite reads."""

import copy
from typing import Any, Final

import treelite
from sklearn import ensemble, linear_model, svm, tree
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from modelops_training import heads, pipelines
from modelops_training.errors import NoFastForm
from modelops_training.heads import Head
from modelops_training.pipelines import Feature

_REGRESSIONS: Final = (
    *(linear_model.LinearRegression, linear_model.Ridge, linear_model.RidgeCV),
    *(linear_model.Lasso, linear_model.LassoCV, linear_model.ElasticNet),
    *(linear_model.ElasticNetCV, linear_model.HuberRegressor, linear_model.SGDRegressor),
    *(linear_model.BayesianRidge, linear_model.ARDRegression, linear_model.Lars),
    *(linear_model.LassoLars, linear_model.OrthogonalMatchingPursuit),
    *(linear_model.OrthogonalMatchingPursuitCV, linear_model.QuantileRegressor),
    *(linear_model.TheilSenRegressor, svm.LinearSVR),
)
_LOGISTIC: Final = (
    *(linear_model.LogisticRegression, linear_model.LogisticRegressionCV),
    LinearDiscriminantAnalysis,
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

_RATES: Final = (
    *(linear_model.PoissonRegressor, linear_model.GammaRegressor),
    linear_model.TweedieRegressor,
)
COMPILED: Final = frozenset(
    (
        *(*_REGRESSIONS, *_RATES, *_LOGISTIC, linear_model.SGDClassifier),
        *(*_FORESTS, *_TREES, *_BOOSTED, *_HISTOGRAMS),
    )
)
"""Estimators that have a fast form."""


def convert(model: Any, features: list[Feature]) -> tuple[list[Feature], Head]:
    """Find what answers in a fitted estimator, and in which order it takes the features.

    Raises NoFastForm.
    """
    return (
        _histograms(model, features) if isinstance(model, _HISTOGRAMS) else (features, _head(model))
    )


def _head(model: Any) -> Head:
    if type(model) in _TREES:
        model = _as_forest(model)
    if isinstance(model, (*_FORESTS, *_BOOSTED)):
        if getattr(model, "n_outputs_", 1) != 1:
            raise NoFastForm(f"{type(model).__name__} predicts several targets")
        whole = copy.copy(model)
        # Early stopping keeps fewer than were asked for, and treelite reads as many as that.
        whole.n_estimators = len(model.estimators_)
        # scikit-learn's trees read 32 bits: without the rounding 13 of 50,000 labels differ.
        return heads.trees(lambda: treelite.sklearn.import_model(whole), narrow=True)
    if isinstance(model, _REGRESSIONS):
        return heads.linear(model.coef_, model.intercept_, "identity")
    if isinstance(model, _RATES):
        return heads.linear(model.coef_, model.intercept_, _rate_link(model))
    if isinstance(model, _LOGISTIC):
        several = len(model.classes_) > 2 and getattr(model, "solver", "") != "liblinear"
        link = "softmax" if several else "one against rest"
        return heads.linear(
            model.coef_, model.intercept_, "logistic" if len(model.classes_) == 2 else link
        )
    if isinstance(model, linear_model.SGDClassifier):
        if model.loss != "log_loss":
            raise NoFastForm(f"SGDClassifier has no plain probabilities with loss={model.loss!r}")
        binary = len(model.classes_) == 2
        return heads.linear(
            model.coef_, model.intercept_, "logistic" if binary else "one against rest"
        )
    raise NoFastForm(f"{type(model).__name__} has no compiled form")


def _rate_link(model: Any) -> str:
    if not isinstance(model, linear_model.TweedieRegressor):
        return "exp"
    plain = model.link == "identity" or (model.link == "auto" and model.power <= 0)
    return "identity" if plain else "exp"


def _as_forest(model: Any) -> Any:
    """Wrap one tree as a forest of one, which is what treelite reads."""
    forest = _TREES[type(model)](n_estimators=1)
    forest.estimators_ = [model]
    forest.n_features_in_, forest.n_outputs_ = model.n_features_in_, model.n_outputs_
    if hasattr(model, "classes_"):
        forest.classes_, forest.n_classes_ = model.classes_, model.n_classes_
    return forest


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
    return features, heads.trees(lambda: treelite.sklearn.import_model(model))
