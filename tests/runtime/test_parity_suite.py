"""Every estimator and encoder with a fast form answers 50,000 awkward rows as its own library does.

Labels are identical and probabilities within 1e-6; values within 1e-6 of their size. The rows have
missing values, unseen categories, empty and Unicode text, and the extremes of every width of
integer, as far as the model itself takes them: what it refuses, the schema refuses as well.

Exceptions, and their reasons:
- integers reach to 2**53: beyond, a JSON number no longer tells neighbours apart;
- infinities are no JSON; a number too large for a model that reads 32 bits is refused by both;
- where a model weighs both sides exactly the same (p = 0.5 to the last bit), the order of its sum
  decides; none of the rows here is such a one.
"""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import catboost
import lightgbm
import numpy as np
import pandas as pd
import pytest
import xgboost
from modelops_runtime import detectors as read_detectors
from modelops_runtime import flavor
from modelops_runtime.predictors import RowsRefused, forms
from modelops_runtime.schema import UNSEEN, InvalidRows, Schema
from modelops_training import Adopted, adopt, detectors, inputs, scikit_learn
from numpy.typing import NDArray
from sklearn import discriminant_analysis, ensemble, linear_model, neighbors, svm, tree
from sklearn.compose import ColumnTransformer
from sklearn.feature_selection import VarianceThreshold
from sklearn.impute import SimpleImputer
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    RobustScaler,
    StandardScaler,
    TargetEncoder,
)
from threadpoolctl import threadpool_limits

pytestmark = pytest.mark.unit

ROWS = 50_000
FITTED = 1_000
TOLERANCE = 1e-6
WIDTHS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
TEXTS = ("", "red", "grün", "日本語", "👩‍🔬", "naïve", "a\tb")
STRANGE = (" ", "GRÜN", "nai\u0308ve", "null", "-1")
NUMBERS = ["size", "gaps", *WIDTHS]
CATEGORIES = ["colour", "code", "flag"]
TREES: dict[str, Any] = {"n_estimators": 6, "random_state": 0}
ONE: dict[str, Any] = {"max_depth": 8, "random_state": 0}
QUICK: dict[str, Any] = {"cv": 2, "n_jobs": 1}
SCORED: dict[str, Any] = {
    "l1_ratios": (0,),
    "scoring": "neg_log_loss",
    "use_legacy_attributes": False,
}
"""What will be the default."""
STOPPED: dict[str, Any] = {"n_estimators": 50, "n_iter_no_change": 1, "random_state": 0}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that wait for each other on a busy machine take minutes of CPU."""
    with threadpool_limits(1):
        yield


def table(rows: int, seed: int) -> pd.DataFrame:
    """Make rows without gaps, with the extremes of their types."""
    random = np.random.default_rng(seed)
    size = random.normal(size=rows)
    columns: dict[str, Any] = {"size": size, "gaps": random.lognormal(2, 3, rows)}
    for width in WIDTHS:
        bounds = np.iinfo(width)
        least, most = max(bounds.min, -(2**53)), min(bounds.max, 2**53)
        usual = random.integers(0, 100, rows).astype(width)
        edge = np.array([least, most, least + 1, most - 1], dtype=width)[
            random.integers(0, 4, rows)
        ]
        columns[width] = np.where(random.random(rows) < 0.05, edge, usual)
    columns["colour"] = random.choice(TEXTS, rows)
    columns["code"] = random.choice(["9", "10", "100", "7"], rows)
    columns["flag"] = random.random(rows) < 0.4
    frame = pd.DataFrame(columns)
    extremes = [0.0, -0.0, 5e-324, 1e-40, 3e38, -3e38, 0.1 + 0.2, 1e16 + 2]
    # Fitted to extremes, a scaler would see nothing else any more.
    if seed:
        frame.loc[random.random(rows) < 0.02, "gaps"] = random.choice(extremes)
        for place, extreme in enumerate(extremes):
            frame.loc[place * 7 :: 997, "size"] = extreme
    return frame


def targets(frame: pd.DataFrame) -> dict[str, pd.Series]:
    random = np.random.default_rng(5)
    value = frame["size"] + (frame["colour"] == "grün") + frame["int8"].astype(float) / 90
    value += np.where(frame["flag"], 0.7, 0.0) + random.normal(size=len(frame)) / 2
    return {
        "binary": pd.Series(np.where(value > value.median(), "yes", "no"), name="y"),
        "codes": pd.Series((value > value.median()).astype(int), name="y"),
        "classes": pd.Series(np.digitize(value, value.quantile([0.3, 0.6])), name="y"),
        "value": pd.Series(value * 100, name="y"),
        "positive": pd.Series(np.exp(value / 4), name="y"),
    }


FRAME = table(FITTED, 0)
FRAME.loc[::9, "gaps"] = np.nan
FRAME.loc[::13, "colour"] = np.nan
TARGETS = targets(FRAME)
HARD = table(ROWS, 1)
WHOLE = FRAME[[name for name in NUMBERS if name != "gaps"]]


@cache
def awkward(schema: Schema) -> tuple[pd.DataFrame, NDArray[np.float64]]:
    """Give the rows that a model of this schema takes, with all it takes, and their matrix."""
    random = np.random.default_rng(2)
    frame = HARD[list(schema.names)].copy()
    for column in schema.inputs:
        unseen = column.kind == "category" and not column.closed
        if unseen and frame[column.name].dtype != bool:
            chosen = random.random(ROWS) < 0.05
            frame.loc[chosen, column.name] = random.choice(STRANGE, int(chosen.sum()))
        if column.nullable:
            gap = random.random(ROWS) < 0.05
            values = frame[column.name]
            kept = values.astype(object if values.dtype == bool else values.dtype)
            frame[column.name] = kept.mask(gap)
    matrix = inputs.encode(frame, schema)
    records = inputs.records(frame.head(1_000), schema)
    np.testing.assert_array_equal(matrix[:1_000], schema.encode(records))
    return frame, matrix


class Case(NamedTuple):
    model: Callable[[], Any]
    target: str
    rows: pd.DataFrame = FRAME
    form: str = "treelite"


def columns(numbers: Any, categories: Any) -> Any:
    return ColumnTransformer([("n", numbers, NUMBERS), ("c", categories, CATEGORIES)])


def usual() -> Any:
    numbers = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    return columns(numbers, OneHotEncoder(handle_unknown="ignore"))


def behind(model: Any) -> Callable[[], Any]:
    return lambda: make_pipeline(usual(), model)


LINEAR: dict[str, Case] = {
    "logistic": Case(behind(linear_model.LogisticRegression(max_iter=20)), "binary"),
    "logistic, 3 classes": Case(behind(linear_model.LogisticRegression(max_iter=20)), "classes"),
    "sgd": Case(behind(linear_model.SGDClassifier(loss="log_loss", random_state=0)), "binary"),
    "sgd, 3": Case(behind(linear_model.SGDClassifier(loss="log_loss", random_state=0)), "classes"),
    "least squares": Case(behind(linear_model.LinearRegression()), "value"),
    "ridge": Case(behind(linear_model.Ridge()), "value"),
    "lasso": Case(behind(linear_model.Lasso(alpha=0.1)), "value"),
    "elastic net": Case(behind(linear_model.ElasticNet()), "value"),
    "logistic, cv": Case(behind(linear_model.LogisticRegressionCV(**QUICK, **SCORED)), "binary"),
    "discriminant": Case(behind(discriminant_analysis.LinearDiscriminantAnalysis()), "binary"),
    "discriminant, 3": Case(behind(discriminant_analysis.LinearDiscriminantAnalysis()), "classes"),
    "ridge, cv": Case(behind(linear_model.RidgeCV()), "value"),
    "lasso, cv": Case(behind(linear_model.LassoCV(**QUICK)), "value"),
    "elastic net, cv": Case(behind(linear_model.ElasticNetCV(**QUICK)), "value"),
    "huber": Case(behind(linear_model.HuberRegressor(max_iter=20)), "value"),
    "sgd, value": Case(behind(linear_model.SGDRegressor(random_state=0)), "value"),
    "bayesian": Case(behind(linear_model.BayesianRidge()), "value"),
    "relevance": Case(behind(linear_model.ARDRegression(max_iter=5)), "value"),
    "lars": Case(behind(linear_model.Lars(n_nonzero_coefs=5)), "value"),
    "lasso lars": Case(behind(linear_model.LassoLars(alpha=0.1)), "value"),
    "pursuit": Case(behind(linear_model.OrthogonalMatchingPursuit()), "value"),
    "pursuit, cv": Case(behind(linear_model.OrthogonalMatchingPursuitCV(cv=2)), "value"),
    "quantile": Case(behind(linear_model.QuantileRegressor(alpha=0.1)), "value"),
    "theil sen": Case(behind(linear_model.TheilSenRegressor(max_iter=5, random_state=0)), "value"),
    "support vectors": Case(behind(svm.LinearSVR(max_iter=20, random_state=0)), "value"),
    "poisson": Case(behind(linear_model.PoissonRegressor()), "positive"),
    "gamma": Case(behind(linear_model.GammaRegressor()), "positive"),
    "tweedie": Case(behind(linear_model.TweedieRegressor(power=1.5)), "positive"),
    "tweedie, normal": Case(behind(linear_model.TweedieRegressor()), "value"),
    "tweedie, logarithm": Case(behind(linear_model.TweedieRegressor(link="log")), "positive"),
}
FORESTS: dict[str, Case] = {
    "forest": Case(behind(ensemble.RandomForestClassifier(**TREES)), "binary"),
    "forest, 3 classes": Case(behind(ensemble.RandomForestClassifier(**TREES)), "classes"),
    "forest, value": Case(behind(ensemble.RandomForestRegressor(**TREES)), "value"),
    "extra trees": Case(behind(ensemble.ExtraTreesClassifier(**TREES)), "classes"),
    "extra trees, value": Case(behind(ensemble.ExtraTreesRegressor(**TREES)), "value"),
    "one tree": Case(behind(tree.DecisionTreeClassifier(**ONE)), "classes"),
    "one tree, value": Case(behind(tree.DecisionTreeRegressor(**ONE)), "value"),
    "one extra tree": Case(behind(tree.ExtraTreeClassifier(**ONE)), "classes"),
    "one extra tree, value": Case(behind(tree.ExtraTreeRegressor(**ONE)), "value"),
    "boosting": Case(behind(ensemble.GradientBoostingClassifier(**TREES)), "binary"),
    "boosting, 3 classes": Case(behind(ensemble.GradientBoostingClassifier(**TREES)), "classes"),
    "boosting, value": Case(behind(ensemble.GradientBoostingRegressor(**TREES)), "value"),
    "boosting, stopped": Case(behind(ensemble.GradientBoostingClassifier(**STOPPED)), "binary"),
    "forest of numbers": Case(lambda: ensemble.RandomForestClassifier(**TREES), "binary", WHOLE),
    "forest, gaps": Case(
        lambda: ensemble.RandomForestClassifier(**TREES), "binary", FRAME[NUMBERS]
    ),
}


def categorical(frame: pd.DataFrame = FRAME) -> pd.DataFrame:
    return frame.astype({"colour": "category", "code": "category"})


def histogram(kind: Any = ensemble.HistGradientBoostingClassifier) -> Any:
    return kind(max_iter=6, random_state=0, early_stopping=False)


def light(kind: Any = lightgbm.LGBMClassifier) -> Any:
    return kind(n_estimators=6, verbose=-1, n_jobs=1)


def xgb(kind: Any = xgboost.XGBClassifier, **settings: Any) -> Any:
    return kind(n_estimators=6, n_jobs=1, **settings)


def cat(kind: Any, **settings: Any) -> Any:
    quiet = {"verbose": False, "allow_writing_files": False, "thread_count": 1}
    return kind(iterations=6, depth=4, random_seed=0, **quiet, **settings)


BOOSTED: dict[str, Case] = {
    "histogram": Case(behind(histogram()), "binary"),
    "histogram, 3 classes": Case(behind(histogram()), "classes"),
    "histogram, value": Case(behind(histogram(ensemble.HistGradientBoostingRegressor)), "value"),
    "histogram, gaps": Case(histogram, "binary", FRAME[NUMBERS]),
    "histogram, categories": Case(histogram, "classes", categorical()),
    "lightgbm": Case(behind(light()), "binary"),
    "lightgbm, categories": Case(light, "classes", categorical()),
    "lightgbm, value": Case(lambda: light(lightgbm.LGBMRegressor), "value", categorical()),
    "xgboost": Case(behind(xgb()), "codes"),
    "xgboost, 3 classes": Case(behind(xgb()), "classes"),
    "xgboost, value": Case(lambda: xgb(xgboost.XGBRegressor), "value", FRAME[NUMBERS]),
    "xgboost, categories": Case(lambda: xgb(enable_categorical=True), "codes", categorical()),
    "catboost": Case(lambda: cat(catboost.CatBoostClassifier), "binary", FRAME[NUMBERS]),
    "catboost, 3 classes": Case(behind(cat(catboost.CatBoostClassifier)), "classes"),
    "catboost, value": Case(lambda: cat(catboost.CatBoostRegressor), "value", FRAME[NUMBERS]),
    "catboost, by leaves": Case(
        lambda: cat(catboost.CatBoostClassifier, grow_policy="Lossguide"), "classes", FRAME[NUMBERS]
    ),
}

ONE_HOT: dict[str, dict[str, Any]] = {
    "ignore": {"handle_unknown": "ignore"},
    "error": {},
    "first dropped": {"handle_unknown": "ignore", "drop": "first"},
    "binary dropped": {"handle_unknown": "ignore", "drop": "if_binary"},
    "infrequent": {"handle_unknown": "infrequent_if_exist", "min_frequency": 130},
    "at most 3": {"handle_unknown": "infrequent_if_exist", "max_categories": 3, "drop": "first"},
    "dense float32": {"handle_unknown": "ignore", "sparse_output": False, "dtype": np.float32},
}
ORDINAL: dict[str, dict[str, Any]] = {
    "error": {},
    "unknown": {"handle_unknown": "use_encoded_value", "unknown_value": -1},
    "missing": {
        "handle_unknown": "use_encoded_value",
        "unknown_value": np.nan,
        "encoded_missing_value": -2,
    },
    "rare": {"handle_unknown": "use_encoded_value", "unknown_value": -1, "min_frequency": 170},
}
SCALERS: dict[str, Any] = {
    "standard": StandardScaler(),
    "mean only": StandardScaler(with_std=False),
    "min max": MinMaxScaler((-1, 2)),
    "min max, clipped": MinMaxScaler(clip=True),
    "robust": RobustScaler(),
    "robust, uncentred": RobustScaler(with_centering=False),
    "max abs": MaxAbsScaler(),
    "logarithm": make_pipeline(FunctionTransformer(np.abs), FunctionTransformer(np.log1p)),
}
IMPUTERS: dict[str, dict[str, Any]] = {
    "mean": {},
    "median, told": {"strategy": "median", "add_indicator": True},
    "most frequent": {"strategy": "most_frequent"},
    "constant": {"strategy": "constant", "fill_value": -7},
}


FILLED = SimpleImputer()
SCALED = make_pipeline(SimpleImputer(), StandardScaler())
TEXT_FILLED = SimpleImputer(strategy="most_frequent")
ENCODERS: dict[str, tuple[Any, Any]] = {
    **{f"one-hot {name}": (SCALED, OneHotEncoder(**each)) for name, each in ONE_HOT.items()},
    **{
        f"ordinal {name}": (SCALED, make_pipeline(OrdinalEncoder(**each), SimpleImputer()))
        for name, each in ORDINAL.items()
    },
    **{f"{name}": (make_pipeline(FILLED, each), "drop") for name, each in SCALERS.items()},
    **{
        f"{name} imputed": (make_pipeline(SimpleImputer(**each), MinMaxScaler()), "drop")
        for name, each in IMPUTERS.items()
    },
    "text imputed": (
        SCALED,
        make_pipeline(TEXT_FILLED, OneHotEncoder(handle_unknown="ignore")),
    ),
    "constant text": (
        SCALED,
        make_pipeline(
            SimpleImputer(strategy="constant", fill_value="?", add_indicator=False),
            OneHotEncoder(handle_unknown="ignore"),
        ),
    ),
    "target": (SCALED, TargetEncoder()),
    "union": (
        make_pipeline(FILLED, FeatureUnion([("a", StandardScaler()), ("b", MinMaxScaler())])),
        "drop",
    ),
    "selected": (make_pipeline(FILLED, StandardScaler(), VarianceThreshold()), "drop"),
}
ROUNDED = ("one-hot dense float32", "ordinal missing", "min max, clipped", "logarithm", "target")
"""Those that trees, which read 32 bits, could round differently."""


def files_of(adopted: Adopted, folder: Path) -> Any:
    files = adopted.files["predictor"]
    flavor.write_data(folder, "predictor", adopted.kinds["predictor"], files)
    info = flavor.read(folder)
    return forms(info)[0](info, adopted.schema.output)


def hold(case: Case, folder: Path) -> Adopted:
    """Compare a model with its fast form on the awkward rows."""
    target = TARGETS[case.target]
    model = case.model().fit(case.rows, target)
    adopted = adopt(model, case.rows, target)
    assert adopted.kinds["predictor"] == case.form
    served = files_of(adopted, folder)
    rows, matrix = awkward(adopted.schema)
    answer = served.predict((), matrix)
    given = typed(rows, case.rows)
    if isinstance(model, Pipeline):
        given, model = model[:-1].transform(given), model[-1]
    ask = model.predict_proba if hasattr(model, "predict_proba") else model.predict
    with np.errstate(over="ignore"):  # of the extremes
        expected = ask(given)
    found = answer.scores if answer.probabilities is None else answer.probabilities
    size = np.maximum(np.abs(expected), max(1.0, float(np.median(np.abs(expected)))))
    with np.errstate(invalid="ignore"):  # where both are infinite
        off = np.where(found == expected, 0.0, np.abs(found - expected) / size)
    assert float(off.max()) <= TOLERANCE
    if answer.probabilities is not None:
        labels = np.asarray(model.predict(given)).reshape(-1)
        assert int((np.array(answer.predictions) != labels).sum()) == 0
    return adopted


def typed(rows: pd.DataFrame, fitted: pd.DataFrame) -> pd.DataFrame:
    """Give rows the pandas categories of those that the model was fitted on, and others beside."""
    rows = rows.copy()
    for name in rows.columns:
        if isinstance(fitted[name].dtype, pd.CategoricalDtype):
            known = list(fitted[name].cat.categories)
            more = [each for each in rows[name].dropna().unique() if each not in known]
            rows[name] = pd.Categorical(rows[name], [*known, *more])
    return rows


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("name", LINEAR)
def test_linear_models(name: str, tmp_path: Path) -> None:
    case = LINEAR[name]
    adopted = hold(Case(case.model, case.target, case.rows, "linear"), tmp_path)
    assert all(column.nullable for column in adopted.schema.inputs)


def test_every_estimator_of_scikit_learn_with_a_fast_form_is_here() -> None:
    cases = [*LINEAR.values(), *FORESTS.values(), *BOOSTED.values()]
    models = [case.model() for case in cases]
    last = {type(each.steps[-1][1] if isinstance(each, Pipeline) else each) for each in models}
    assert last >= scikit_learn.COMPILED


@pytest.mark.parametrize("name", FORESTS)
def test_trees_of_scikit_learn(name: str, tmp_path: Path) -> None:
    hold(FORESTS[name], tmp_path)


@pytest.mark.parametrize("name", BOOSTED)
def test_boosting(name: str, tmp_path: Path) -> None:
    hold(BOOSTED[name], tmp_path)


@pytest.mark.filterwarnings("ignore:Found unknown categories", "ignore:An ill-conditioned matrix")
@pytest.mark.parametrize(
    ("form", "name"),
    [*(("linear", name) for name in ENCODERS), *(("treelite", name) for name in ROUNDED)],
)
def test_encoders(name: str, form: str, tmp_path: Path) -> None:
    numbers, categories = ENCODERS[name]

    def model() -> Any:
        last = ensemble.RandomForestClassifier(**TREES)
        return make_pipeline(
            columns(numbers, categories), linear_model.Ridge() if form == "linear" else last
        )

    target = "binary" if form == "treelite" else "value"
    hold(Case(model, target, form=form), tmp_path)


@pytest.mark.parametrize("kind", [OneHotEncoder, OrdinalEncoder])
def test_numbers_that_are_categories(kind: Any, tmp_path: Path) -> None:
    unknown: dict[str, Any] = {"handle_unknown": "ignore"}
    if kind is OrdinalEncoder:
        unknown = {"handle_unknown": "use_encoded_value", "unknown_value": -5}
    encoder = make_pipeline(SimpleImputer(strategy="most_frequent"), kind(**unknown))
    both = ColumnTransformer(
        [("as categories", encoder, ["int8", "uint16"]), ("as numbers", FILLED, NUMBERS)]
    )
    forest = ensemble.RandomForestClassifier(**TREES)
    adopted = hold(Case(lambda: make_pipeline(both, forest), "classes", FRAME[NUMBERS]), tmp_path)
    assert {column.kind for column in adopted.schema.inputs} == {"number"}


@pytest.mark.parametrize("target", ["codes", "classes", "value"])
def test_bare_boosters(target: str, tmp_path: Path) -> None:
    objectives = {
        "codes": ("binary", "binary:logistic", {}),
        "classes": ("multiclass", "multi:softprob", {"num_class": 3}),
        "value": ("regression", "reg:squarederror", {}),
    }
    light, extreme, more = objectives[target]
    rows, answers = FRAME[NUMBERS], TARGETS[target]
    boosters: dict[str, Any] = {
        "lightgbm": lightgbm.train(
            {"objective": light, "verbosity": -1, "num_threads": 1, **more},
            lightgbm.Dataset(rows, answers),
            num_boost_round=5,
        ),
        "xgboost": xgboost.train(
            {"objective": extreme, "nthread": 1, **more},
            xgboost.DMatrix(rows, answers),
            num_boost_round=5,
        ),
    }
    for library, booster in boosters.items():
        adopted = adopt(booster, rows, answers)
        frame, matrix = awkward(adopted.schema)
        asked = xgboost.DMatrix(frame) if library == "xgboost" else frame
        known = np.asarray(booster.predict(asked))
        answer = files_of(adopted, tmp_path / library).predict((), matrix)
        found = answer.scores if answer.probabilities is None or known.ndim == 1 else None
        np.testing.assert_allclose(
            answer.probabilities if found is None else found, known, atol=1e-6, rtol=1e-4
        )


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")  # scikit-learn's own
@pytest.mark.parametrize(
    "model",
    [
        ensemble.RandomForestClassifier(**TREES),
        ensemble.GradientBoostingClassifier(**TREES),
        make_pipeline(StandardScaler(), linear_model.LogisticRegression()),
    ],
)
def test_what_the_model_finds_too_large_is_refused(model: Any, tmp_path: Path) -> None:
    rows, target = FRAME[["size", "int8"]], TARGETS["binary"]
    model.fit(rows, target)
    adopted = adopt(model, rows, target)
    served = files_of(adopted, tmp_path)
    huge = {"size": 1.7e308, "int8": 3}
    if isinstance(model.steps[-1][1] if hasattr(model, "steps") else model, ensemble.BaseEnsemble):
        with pytest.raises(ValueError, match="too large"):
            model.predict(pd.DataFrame([huge]))
        with pytest.raises(RowsRefused, match="row 0: a number is too large"):
            served.predict((), adopted.schema.encode([huge]))
    for infinite in (np.inf, -np.inf):
        with pytest.raises(InvalidRows, match="row 0, size: got"):
            adopted.schema.encode([{"size": infinite, "int8": 3}])


def test_what_the_model_refuses_the_schema_refuses(tmp_path: Path) -> None:
    columns_ = ColumnTransformer(
        [("n", StandardScaler(), ["size"]), ("c", OneHotEncoder(), ["colour"])]
    )
    rows, target = (
        FRAME[["size", "colour"]].assign(colour=FRAME["colour"].fillna("")),
        TARGETS["binary"],
    )
    model = make_pipeline(columns_, linear_model.LogisticRegression()).fit(rows, target)
    adopted = adopt(model, rows, target)
    size, colour = adopted.schema.inputs
    assert (size.nullable, colour.nullable, colour.closed) == (False, False, True)
    again = Schema.from_json(adopted.schema.to_json())
    assert again == adopted.schema
    with pytest.raises(InvalidRows, match=r'got "violet", expected one of the 7 categories'):
        again.encode([{"size": 1.0, "colour": "violet"}])
    with pytest.raises(InvalidRows, match="size: got null, expected a finite number"):
        again.encode([{"colour": "red"}])
    assert files_of(adopted, tmp_path).predict((), again.encode([{"size": 1.0, "colour": "red"}]))


@pytest.mark.parametrize("kind", ["isolation_forest", "neighbours"])
def test_outlier_detectors(kind: detectors.Kind, tmp_path: Path) -> None:
    names = ["size", "int8", "uint16", "colour"]
    rows = FRAME[names]
    schema = inputs.describe(rows.assign(y=TARGETS["binary"]), "y")
    matrix = inputs.encode(rows, schema)
    fitted = detectors.fit(kind, matrix[300:], matrix[:300], schema, quantile=0.99, seed=3)
    files = {flavor.SCHEMA: schema.to_json(), flavor.PARITY: b"{}", **detectors.files(fitted)}
    flavor.write_data(tmp_path, "outlier", kind, files)
    detector = read_detectors.read(flavor.read(tmp_path))
    count = ROWS if kind == "isolation_forest" else 3_000
    hard = inputs.encode(HARD[names].head(count), schema)
    np.testing.assert_array_equal(detector.score(hard), fitted.score(hard))
    filled = fitted.impute  # type: ignore[attr-defined]
    known = np.where(np.isnan(matrix[300:]), filled, matrix[300:])
    usual = np.isfinite(hard).all(axis=1) & (np.abs(hard) < 1e30).all(axis=1)
    usual &= (hard != UNSEEN).all(axis=1)
    if kind == "isolation_forest":
        forest = ensemble.IsolationForest(random_state=3).fit(known)
        np.testing.assert_allclose(
            detector.score(hard[usual]), -forest.score_samples(hard[usual]), atol=1e-9
        )
    else:
        reference, spread = fitted.rows, fitted.spread  # type: ignore[attr-defined]
        nearest = neighbors.NearestNeighbors(n_neighbors=detectors.NEAREST).fit(reference)
        distances = nearest.kneighbors(hard[usual] / spread)[0][:, -1]
        np.testing.assert_allclose(detector.score(hard[usual]), distances**2, rtol=1e-6)
    assert 0 <= detector.reference_rate < 0.05
    wrong = matrix.copy()
    wrong[:, 0] = 1e6
    assert detector.flag(wrong).mean() > (0.9 if kind == "neighbours" else 0.0)
