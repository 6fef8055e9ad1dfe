"""A model of one's own: what is refused, what is warned of, what is registered."""

import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import sklearn
import yaml
from mlflow import MlflowClient
from modelops_runtime import flavor as runtime
from modelops_runtime.answering import Answerer, Deployment
from modelops_runtime.models import load
from modelops_runtime.predictors import RowsRefused
from modelops_runtime.profile import Profile
from modelops_runtime.schema import Input, Output, Schema
from modelops_training import (
    Adopted,
    DataError,
    Registration,
    RegistrationError,
    TrainingWarning,
    adopt,
    card,
    checks,
    flavor,
    naming,
    native,
    register,
    train,
)
from modelops_training.adoption import ASKED_ROWS
from modelops_training.flavor import Contents
from modelops_training.original import Original
from modelops_training.proving import Probe, changed
from modelops_training.signature import example, signature
from sklearn import ensemble, linear_model, svm, tree
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

pytestmark = [
    pytest.mark.contract,
    # MLflow compares the columns of an input example with a range, which pandas 3 deprecates.
    pytest.mark.filterwarnings("ignore:Operation with range is deprecated"),
    # MLflow's own database queries, where it works without a server.
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated"),
]

NUMBERS, TEXTS = ["size", "gaps", "whole"], ["colour", "flag"]
DEPLOYMENT = Deployment(model="ns/name", revision="r", pod="p", window=60)


@pytest.fixture(scope="module")
def rows(mixed: pd.DataFrame) -> pd.DataFrame:
    """What a user's model is fitted on."""
    return mixed[[*NUMBERS, *TEXTS]]


@pytest.fixture(scope="module")
def bought(mixed: pd.DataFrame) -> pd.Series:
    """What it predicts."""
    return mixed["bought"].map({0: "no", 1: "yes"}).rename("bought")


def pipeline(last: Any) -> Pipeline:
    """Put a model behind what people usually put before it."""
    numbers = make_pipeline(SimpleImputer(add_indicator=True), StandardScaler())
    columns = ColumnTransformer(
        [("n", numbers, NUMBERS), ("t", OneHotEncoder(handle_unknown="ignore"), TEXTS)]
    )
    return make_pipeline(columns, last)


@pytest.fixture(scope="module")
def logistic(rows: pd.DataFrame, bought: pd.Series) -> Pipeline:
    """A fitted pipeline."""
    fitted: Pipeline = pipeline(linear_model.LogisticRegression()).fit(rows, bought)
    return fitted


@pytest.fixture(scope="module")
def adopted(logistic: Pipeline, rows: pd.DataFrame, bought: pd.Series) -> Adopted:
    """The same with detectors, not registered."""
    return adopt(logistic, rows, bought, with_detectors=True)


def fetch(made: Registration, folder: Path) -> Path:
    """Bring registered models into a folder for each role."""
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(made.tracking_uri)
    for version in made.versions:
        uri = f"models:/{version.name}/{version.version}"
        mlflow.artifacts.download_artifacts(uri, dst_path=str(folder / version.role))
    mlflow.set_tracking_uri(before)
    return folder


def save(adopted: Adopted, folder: Path) -> Path:
    """Write all models as MLflow would, and as a Bento has them."""
    for role in adopted.roles:
        contents = Contents(
            role=role,
            kind=adopted.kinds[role],
            files=adopted.files[role],
            train_id=adopted.train_id,
            signature=signature(adopted, role),
            example=example(adopted),
        )
        flavor.save_model(str(folder / role), contents=contents)
    return folder


def test_one_call_registers_three_models(
    logistic: Pipeline, rows: pd.DataFrame, bought: pd.Series, server: str, tmp_path: Path
) -> None:
    made = register(
        logistic,
        rows,
        bought,
        "own",
        with_detectors=True,
        tracking_uri=server,
        overrides={"size": {"unit": "m"}},
    )
    assert [version.name for version in made.versions] == ["own_drift", "own_outlier", "own"]
    client = MlflowClient(server, server)
    for version in made.versions:
        found = client.get_model_version_by_alias(version.name, "candidate")
        assert found.version == version.version
        assert found.tags["modelops_train_id"] == made.train_id
    run = client.get_run(made.run_id)
    assert run.data.params["form"] == "linear"
    assert run.data.metrics["given_accuracy"] > 0.6
    assert len(run.data.tags["mlflow.source.git.commit"]) == 40
    path = fetch(made, tmp_path)
    described = yaml.safe_load((path / "predictor" / "MLmodel").read_text())
    assert set(described["flavors"]) == {"modelops", "python_function"}
    info = runtime.read(path / "predictor")
    assert set(info.files) == {"schema.json", "encoder.json", "linear.json", "parity.json"}
    models = load(path)
    assert (models.predictor.form, dict(models.rejected)) == ("linear", {})
    asked: list[dict[str, object]] = [
        {"size": 11.5, "gaps": None, "whole": 4, "colour": "violet", "flag": True},
        {"size": 3.5, "gaps": 0.5, "whole": 4, "colour": None, "flag": False},
    ]
    answered = Answerer(models, DEPLOYMENT).answer(asked)
    frame = pd.DataFrame(asked).astype({"gaps": "float64"})
    known = logistic.predict_proba(frame.fillna({"colour": np.nan}))
    np.testing.assert_allclose(answered.content["probabilities"], known, atol=1e-9)
    assert answered.content["predictions"] == logistic.predict(frame).tolist()
    assert answered.content["outliers"] is not None
    assert answered.matrix is not None


def test_a_model_alone_has_the_reference_profile_with_its_run(
    logistic: Pipeline, rows: pd.DataFrame, bought: pd.Series, adopted: Adopted, server: str
) -> None:
    made = register(
        logistic,
        rows,
        bought,
        "lonely",
        tracking_uri=server,
        overrides={"size": {"sensitive": True}},
    )
    assert [version.name for version in made.versions] == ["lonely"]
    assert None not in sys.modules.values()  # nothing is left to be not there
    client = MlflowClient(server, server)
    path = client.download_artifacts(made.run_id, "reference_profile.json")
    profile = Profile.from_json(Path(path).read_bytes())
    # Nobody's size is told.
    assert profile.features == adopted.profile.features[1:]
    assert [feature.name for feature in profile.features] == ["gaps", "whole", "colour", "flag"]
    assert profile.scores == adopted.profile.scores
    assert profile.labels == adopted.profile.labels


def test_detectors_that_stay_behind_are_told(
    logistic: Pipeline, rows: pd.DataFrame, bought: pd.Series, server: str
) -> None:
    register(logistic, rows, bought, "followed", with_detectors=True, tracking_uri=server)
    with warnings.catch_warnings():
        warnings.simplefilter("error", TrainingWarning)
        register(logistic, rows, bought, "followed", tracking_uri=server, alias="other")
        register(logistic, rows, bought, "followed", tracking_uri=server, alias=None)
    told = "followed_drift and followed_outlier keep the alias 'candidate' on versions of another"
    with pytest.warns(TrainingWarning, match=told) as heard:
        register(logistic, rows, bought, "followed", tracking_uri=server)
    (own,) = [each for each in heard if each.category is TrainingWarning]
    assert own.filename == __file__


def test_what_is_of_the_detectors_asks_for_them(
    logistic: Pipeline, rows: pd.DataFrame, bought: pd.Series
) -> None:
    with pytest.raises(DataError, match="outlier_kind='neighbours' is of the outlier detector, wh"):
        register(logistic, rows, bought, "never", outlier_kind="neighbours")


def test_plain_mlflow_takes_the_users_own_frame(
    adopted: Adopted, logistic: Pipeline, rows: pd.DataFrame, tmp_path: Path
) -> None:
    model = mlflow.pyfunc.load_model(str(save(adopted, tmp_path) / "predictor"))
    answers = model.predict(rows)
    assert answers["prediction"].tolist() == logistic.predict(rows).tolist()
    np.testing.assert_allclose(answers["probability_yes"], logistic.predict_proba(rows)[:, 1])
    assert (tmp_path / "predictor" / "requirements.txt").read_text().count("treelite") == 0


def files_of(folder: Path) -> dict[str, bytes]:
    """Read what the flavor keeps."""
    found = folder.rglob("modelops/*")
    return {str(each.relative_to(folder)): each.read_bytes() for each in found}


def test_the_same_bytes_again_and_on_databricks(
    adopted: Adopted,
    rows: pd.DataFrame,
    bought: pd.Series,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = files_of(save(adopted, tmp_path / "here"))
    monkeypatch.setenv("DATABRICKS_RUNTIME_VERSION", "17.3")
    again = pipeline(linear_model.LogisticRegression()).fit(rows, bought)
    there = save(adopt(again, rows, bought, with_detectors=True), tmp_path / "there")
    assert files_of(there) == here
    assert len(here) == 4 + 4 + 5
    assert not [each for each in there.rglob("*") if each.suffix in {".pkl", ".skops", ".joblib"}]


@pytest.mark.parametrize("kind", ["isolation_forest", "neighbours"])
def test_forests_and_other_detectors_are_the_same_bytes(
    rows: pd.DataFrame, bought: pd.Series, tmp_path: Path, kind: Any
) -> None:
    numbers = rows[["size", "whole"]]

    def make() -> Adopted:
        forest = ensemble.RandomForestClassifier(n_estimators=5, random_state=1)
        forest.fit(numbers, bought)
        return adopt(forest, numbers, bought, with_detectors=True, outlier_kind=kind)

    one, other = make(), make()
    assert one.files == other.files
    assert one.train_id == other.train_id
    models = load(save(one, tmp_path))
    assert models.detector is not None
    answered = Answerer(models, DEPLOYMENT).answer(
        [{"size": 1e5, "whole": 4}, {"size": 10.0, "whole": 4}]
    )
    assert answered.content["outliers"].tolist() == [kind == "neighbours", False]
    scored = mlflow.pyfunc.load_model(str(tmp_path / "outlier")).predict(numbers.head(5))
    assert list(scored.columns) == ["score", "outlier"]
    kept = train(numbers.assign(y=bought), "y", rounds=2, outlier_kind=kind)
    assert kept.kinds["outlier"] == kind


def test_of_a_search_what_it_found(rows: pd.DataFrame, bought: pd.Series) -> None:
    search = GridSearchCV(
        pipeline(linear_model.LogisticRegression()), {"logisticregression__C": [0.1, 1.0]}, cv=2
    )
    adopted = adopt(search.fit(rows, bought), rows, bought)
    assert adopted.kinds["predictor"] == "linear"
    assert adopted.original.model is search.best_estimator_
    assert adopted.params["model"] == "Pipeline with LogisticRegression"


def test_an_answer_beyond_all_numbers_is_a_refusal(mixed: pd.DataFrame, tmp_path: Path) -> None:
    rows, counts = mixed[["whole"]], np.exp(mixed["size"] / 9)
    model = linear_model.PoissonRegressor(alpha=0).fit(rows, counts)
    adopted = adopt(model, rows, counts)
    assert adopted.kinds["predictor"] == "linear"
    answerer = Answerer(load(save(adopted, tmp_path)), DEPLOYMENT)
    (answer,) = answerer.answer([{"whole": 3}]).content["predictions"]
    assert answer == pytest.approx(model.predict(pd.DataFrame({"whole": [3]}))[0])
    far = int(np.copysign(10**15, model.coef_[0]))
    with pytest.raises(RowsRefused, match="row 1: it answers inf, which JSON cannot tell"):
        answerer.answer([{"whole": 3}, {"whole": far}])


@pytest.mark.parametrize(
    ("model", "told"),
    [
        (linear_model.LogisticRegression(), None),
        (linear_model.LogisticRegression(solver="saga", max_iter=1000), "LogisticRegression: "),
        (linear_model.Ridge(), None),
        (linear_model.Ridge(solver="sag"), "Ridge: "),
        (linear_model.ElasticNetCV(cv=2), None),
        (linear_model.ElasticNetCV(cv=2, selection="random"), "ElasticNetCV: "),
        (linear_model.Lars(), None),
        (linear_model.Lars(jitter=0.1), "Lars: "),
        (tree.DecisionTreeRegressor(), "DecisionTreeRegressor: "),
        (make_pipeline(OneHotEncoder(), linear_model.LinearRegression()), None),
    ],
)
def test_chance_is_told_where_there_is_some(model: Any, told: str | None) -> None:
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        checks.warn_of_chance(model)
    assert len(heard) == (told is not None)
    assert all(str(each.message).startswith(told or "") for each in heard)


def test_a_model_without_a_fast_form_says_what_that_costs(
    rows: pd.DataFrame, bought: pd.Series, server: str, tmp_path: Path
) -> None:
    model = pipeline(ensemble.AdaBoostClassifier(n_estimators=2, random_state=0)).fit(rows, bought)
    with pytest.warns(
        TrainingWarning, match=r"AdaBoostClassifier has no compiled form.* ms of CPU"
    ):
        made = register(
            model,
            rows,
            bought,
            "slow",
            with_detectors=True,
            alias=None,
            tracking_uri=server,
            dataset="mixed",
        )
    (version,) = [each for each in made.versions if each.role == "predictor"]
    fetch(made, tmp_path)
    assert not runtime.exists(tmp_path / "predictor")
    lines = (tmp_path / "predictor" / "requirements.txt").read_text().split()
    assert all(line.count("==") == 1 for line in lines)
    assert {"mlflow", "scikit-learn", "cloudpickle"} <= {line.split("==")[0] for line in lines}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what MLflow says while it loads
        models = load(tmp_path)
        asked = [{"size": 11.5, "gaps": None, "whole": 4, "colour": "red", "flag": True}]
        answered = Answerer(models, DEPLOYMENT).answer(asked)
    assert models.predictor.form == "pyfunc"
    assert models.rejected == {"compiled": "AdaBoostClassifier has no compiled form"}
    assert answered.content["predictions"] == model.predict(pd.DataFrame(asked)).tolist()
    assert answered.content["outliers"].tolist() == [False]
    assert version.name == "slow"


DAYS = """
def days(frame):
    return frame.astype("datetime64[s]").astype("int64") / 86400
"""


def test_free_text_and_dates_are_left_to_the_model(
    mixed: pd.DataFrame, server: str, tmp_path: Path
) -> None:
    whole = pd.concat([mixed, mixed], ignore_index=True)
    rows = whole[["size", "whole"]].assign(
        note=[f"case {number} was {'good' if number % 3 else 'bad'}" for number in whole.index],
        day=pd.date_range("2020-01-01", periods=len(whole)),
    )
    notebook: dict[str, Any] = {"__name__": "__main__"}
    exec(DAYS, notebook)  # as in a notebook: pickled whole
    columns = ColumnTransformer(
        [
            ("note", TfidfVectorizer(), "note"),
            ("day", FunctionTransformer(notebook["days"]), ["day"]),
            ("size", StandardScaler(), ["size"]),
        ]
    )
    model = make_pipeline(columns, linear_model.LogisticRegression(max_iter=500))
    model.fit(rows, whole["bought"])
    with pytest.warns(TrainingWarning, match="only the model itself reads note, day: free text or"):
        made = register(
            model,
            rows,
            whole["bought"],
            "notes",
            with_detectors=True,
            alias=None,
            tracking_uri=server,
        )
    asked = [
        {"size": 10.5, "whole": 3, "note": "case 7 was good", "day": "2021-02-03"},
        {"size": 10500.0, "whole": 3, "note": "", "day": "2021-02-03T10:00:00"},
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what MLflow says while it loads
        models = load(fetch(made, tmp_path))
        answered = Answerer(models, DEPLOYMENT).answer(asked)
    expected = model.predict(pd.DataFrame(asked).assign(day=pd.to_datetime(["2021-02-03"] * 2)))
    assert answered.content["predictions"] == expected.tolist()
    assert answered.content["outliers"].tolist() == [False, True]
    assert models.reference is not None
    assert models.reference.hidden == {2, 3}


HALVING = """
class Halving:
    def predict(self, frame):
        return frame["size"].to_numpy() / 2
"""


class Doubling:
    """A model whose code lies in a file that no package has."""

    def predict(self, frame: pd.DataFrame) -> Any:
        return frame["size"].to_numpy() * 2


def test_what_only_has_a_predict_is_registered_alone(mixed: pd.DataFrame, tmp_path: Path) -> None:
    notebook: dict[str, Any] = {"__name__": "__main__"}
    exec(HALVING, notebook)  # as in a notebook: pickled whole
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    rows = mixed[["size", "gaps"]]
    with pytest.warns(TrainingWarning, match="Halving has no fast form"):
        made = register(
            notebook["Halving"](),
            rows,
            mixed["price"],
            "half",
            tracking_uri=uri,
            alias=None,
        )
    assert [version.name for version in made.versions] == ["half"]
    path = fetch(made, tmp_path / "models") / "predictor"
    assert not (path / "uv.lock").exists()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what MLflow says while it loads
        answers = mlflow.pyfunc.load_model(str(path)).predict(rows.head(3))
    np.testing.assert_array_equal(answers, mixed["size"].head(3) / 2)


class Counting:
    """A model that notes how many rows it was asked about at most."""

    most = 0

    def predict(self, frame: pd.DataFrame) -> Any:
        self.most = max(self.most, len(frame))
        return frame["size"].to_numpy() * 2


def test_a_slow_model_is_asked_about_a_sample() -> None:
    count = ASKED_ROWS + 2_000
    size = np.random.default_rng(0).normal(size=count)
    rows, target = pd.DataFrame({"size": size, "more": size**2}), pd.Series(size.round(1))
    model = Counting()
    with pytest.warns(TrainingWarning, match="no fast form"):
        sampled = adopt(model, rows, target)
    assert model.most == ASKED_ROWS
    assert sampled.profile is not None
    assert sampled.profile.scores is not None
    assert sampled.profile.scores.histogram.total == ASKED_ROWS
    assert sampled.profile.features[0].histogram.total == count
    assert card.describe(sampled, "slow", dataset="it")["data"]["measured_rows"] == ASKED_ROWS
    times = pd.Series(pd.date_range("2026-01-01", periods=count, freq="min"))
    with pytest.warns(TrainingWarning, match="no fast form"):
        dated = adopt(model, rows, target, times=times)
    assert model.most == count
    assert dated.profile is not None
    assert dated.profile.scores is not None
    assert dated.profile.scores.variation is not None


def test_what_cython_brings_into_every_module_is_no_package_to_name() -> None:
    model = KNeighborsClassifier().fit([[0.0], [1.0]] * 5, [0, 1] * 5)
    assert f"scikit-learn=={sklearn.__version__}" in native.requirements(Original(model))


def test_code_that_no_package_brings_is_named() -> None:
    with pytest.raises(DataError, match="needs the module 'tests', which no installed package"):
        native.requirements(Original(Doubling()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f, y: (f.drop(columns="gaps"), y), r"fitted on: \['gaps'\] are missing, none are"),
        (lambda f, y: (f.assign(more=1.5), y), r"none are missing, \['more'\] are unknown to it"),
        (lambda f, y: (f, y.head(99)), "X has 600 rows and y has 99; give one for each row"),
        (lambda f, y: (f, y.rename("size")), "y is called 'size', as a column of X is"),
        (lambda f, y: (f, pd.DataFrame({"a": y, "b": y})), r"y has shape \(600, 2\); one target"),
        (lambda f, y: (f, y.replace("yes", "maybe")), "y has the class 'maybe', the model knows"),
        (lambda f, y: (f.head(50), y.head(50)), "50 rows are too few to train on; give 100"),
        (lambda f, y: (f.assign(gaps=np.nan), y), "column 'gaps' is empty"),
        (lambda f, y: (f.assign(whole=3), y), "column 'whole' has one value only"),
        (lambda f, y: (f.assign(colour=y), y), "column 'colour' tells the target 'bought' one to"),
        (
            lambda f, y: (f.assign(gaps=(y == "yes") + f["size"] / 100), y),
            "column 'gaps' tells the target 'bought' one to one.*known_ahead",
        ),
        (lambda _, y: (np.ones(3), y), r"X has shape \(3,\)"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_logged(
    logistic: Pipeline,
    rows: pd.DataFrame,
    bought: pd.Series,
    change: Callable[[pd.DataFrame, pd.Series], tuple[Any, Any]],
    message: str,
) -> None:
    X, y = change(rows, bought)  # noqa: N806  # as scikit-learn calls it
    with pytest.raises(DataError, match=message):
        register(logistic, X, y, "never", tracking_uri="http://127.0.0.1:9")


def test_a_model_of_a_column_is_told_to_take_a_frame(rows: pd.DataFrame, bought: pd.Series) -> None:
    texts = rows[["colour"]].fillna("none")
    model = make_pipeline(TfidfVectorizer(), linear_model.LogisticRegression())
    model.fit(texts["colour"], bought)
    with pytest.raises(DataError, match=r"LogisticRegression does not take the rows .*Column"):
        adopt(model, texts, bought)


def test_a_model_that_answers_no_number_is_refused(mixed: pd.DataFrame) -> None:
    rows = mixed[["size", "whole"]]
    model = linear_model.Ridge().fit(rows, mixed["price"])
    model.coef_[0] = np.nan
    with pytest.raises(DataError, match=r"Ridge answers \[nan\] to row \d+ of X: fit it so that"):
        adopt(model, rows, mixed["price"])


def test_the_target_in_another_unit_is_a_leak(mixed: pd.DataFrame) -> None:
    rows = mixed[["size", "whole"]].assign(cents=mixed["price"] * 100)
    model = linear_model.LinearRegression().fit(rows, mixed["price"])
    with pytest.raises(DataError, match="column 'cents' tells the target 'price' one to one"):
        adopt(model, rows, mixed["price"])
    known = adopt(model, rows, mixed["price"], known_ahead=["cents"])
    assert known.kinds["predictor"] == "linear"
    assert known.roles == ("predictor",)


def test_columns_in_another_order_are_put_right(
    adopted: Adopted, logistic: Pipeline, rows: pd.DataFrame, bought: pd.Series
) -> None:
    turned = adopt(logistic, rows[rows.columns[::-1]], bought, with_detectors=True)
    assert turned.files == adopted.files


def test_an_array_gets_names(mixed: pd.DataFrame) -> None:
    values = mixed[["size", "whole"]].to_numpy()
    model = linear_model.Ridge().fit(values, mixed["price"])
    made = adopt(model, values, mixed["price"].to_numpy())
    assert made.schema.names == ("x0", "x1")
    with pytest.raises(DataError, match="fitted on 2 columns, X has 1"):
        adopt(model, values[:, :1], mixed["price"])


@pytest.mark.parametrize(
    ("model", "warned"),
    [
        (ensemble.RandomForestClassifier(n_estimators=2), "RandomForestClassifier: random_state"),
        (linear_model.LogisticRegression(), None),
        (ensemble.ExtraTreesClassifier(n_estimators=2, random_state=0), None),
    ],
)
def test_chance_without_a_seed_is_warned_of(
    rows: pd.DataFrame, bought: pd.Series, model: Any, warned: str | None
) -> None:
    fitted = pipeline(model).fit(rows, bought)
    if warned is None:
        adopt(fitted, rows, bought)
        return
    with pytest.warns(TrainingWarning, match=warned):
        adopt(fitted, rows, bought)


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (svm.SVC(random_state=0), "Pipeline with SVC gives labels only, no probabilities"),
        (svm.SVR(), "SVR has no compiled form"),
    ],
)
def test_why_there_is_no_fast_form(
    mixed: pd.DataFrame, rows: pd.DataFrame, model: Any, why: str
) -> None:
    target = mixed["bought"] if isinstance(model, svm.SVC) else mixed["price"]
    with pytest.warns(TrainingWarning, match=why):
        made = adopt(pipeline(model).fit(rows, target), rows, target, with_detectors=True)
    assert made.why == why
    assert set(made.files) == {"drift", "outlier"}
    assert made.params["no_faster_form"] == why
    with pytest.warns(TrainingWarning, match=why):
        again = adopt(pipeline(model).fit(rows, target), rows, target, with_detectors=True)
    assert again.train_id == made.train_id
    profile = json.loads(made.files["drift"]["profile.json"])
    # Labels are no numbers to watch; these are 0 and 1.
    assert profile["scores"] is not None
    assert ("labels" in profile) == isinstance(model, svm.SVC)


@pytest.mark.parametrize(
    ("name", "registry", "message"),
    [
        ("", None, "name of the predictor model, ''"),
        ("a/b", None, "'a/b'"),
        ("employment", "databricks-uc", "takes three names, such as catalog.schema.model"),
        ("main.ml.my model", "databricks-uc", "takes three names"),
        ("main..employment", "databricks-uc", "takes three names"),
        ("main.ml.employment", "databricks-uc", None),
        ("employment", None, None),
    ],
)
def test_names_follow_the_registrys_rules(
    monkeypatch: pytest.MonkeyPatch, name: str, registry: str | None, message: str | None
) -> None:
    if registry:
        monkeypatch.setattr(mlflow, "get_registry_uri", lambda: registry)
    if message is None:
        naming.check({"predictor": name}, "candidate", None)
        return
    with pytest.raises(RegistrationError, match=message):
        naming.check({"predictor": name}, "candidate", None)


@pytest.mark.parametrize("alias", ["v1", "latest", "a b", ""])
def test_aliases_that_mean_something_else_are_refused(
    logistic: Pipeline, rows: pd.DataFrame, bought: pd.Series, alias: str
) -> None:
    with pytest.raises(RegistrationError, match=f"alias '{alias}'"):
        register(logistic, rows, bought, "x", alias=alias, tracking_uri="http://127.0.0.1:9")


def test_each_model_needs_a_name_of_its_own() -> None:
    with pytest.raises(RegistrationError, match="each model needs one of its own"):
        naming.check({"predictor": "a", "drift": "a"}, None, None)


def test_a_probe_of_a_missing_category_names_no_other() -> None:
    frame = pd.DataFrame({"colour": pd.Categorical(["red", "blue"])})
    colour = Input(name="colour", kind="category", levels=("blue", "red"))
    schema = Schema((colour,), Output(kind="regressor", name="price"))
    missing = changed(frame, schema, [Probe(0, "missing")])["colour"]
    assert missing.isna().all()
    assert list(missing.cat.categories) == ["blue", "red"]
    unseen = changed(frame, schema, [Probe(0, "unseen")])["colour"]
    assert len(unseen.cat.categories) == 3
