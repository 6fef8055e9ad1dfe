"""The two models that are served, in the form that each server wants."""

import logging
import shutil
import subprocess
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import joblib
import lightgbm
import mlflow.sklearn
import numpy as np
import pandas as pd
from modelops_runtime import bento, flavor
from modelops_training import adopt, train
from modelops_training.data import CATEGORIES, FEATURES, NUMBERS, REFERENCE_YEAR, TARGET, employment
from modelops_training.predictor import PARAMETERS, ROUNDS
from modelops_training.training import Models
from sklearn.compose import ColumnTransformer
from sklearn.datasets import make_classification
from sklearn.ensemble import IsolationForest, RandomForestClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OrdinalEncoder, StandardScaler

HERE = Path(__file__).parent
Records: TypeAlias = list[dict[str, Any]]
ASKED_ROWS = 2_000
REFERENCE_ROWS = 1_000
"""What the seed's way tests each request against."""


@dataclass(frozen=True)
class Artifacts:
    """A model's files."""

    name: str
    folder: Path
    """With `model`, MLflow's, and what the seed's way and the thin service need."""
    bento: Path
    """Ours."""
    fallback: Path
    """Ours with the predictor as MLflow has it, without a fast form."""
    rows: Records
    """To ask with."""

    def without(self, role: str, folder: Path) -> "Artifacts":
        """Copy our Bento into a new folder, but for one of its models."""
        shutil.copytree(self.bento, folder)
        shutil.rmtree(folder / bento.MODELS / role)
        return replace(self, bento=folder)


def employment_model(folder: Path, converter: Path) -> Artifacts:
    """Train LightGBM on the employment data, one number and 15 categories."""
    frame = employment([REFERENCE_YEAR])
    unseen: dict[str, Any] = {"handle_unknown": "use_encoded_value", "unknown_value": -1}
    pipeline = Pipeline(
        [
            (
                "columns",
                ColumnTransformer(
                    [
                        ("numbers", "passthrough", list(NUMBERS)),
                        ("categories", OrdinalEncoder(**unseen), list(CATEGORIES)),
                    ]
                ),
            ),
            ("trees", lightgbm.LGBMClassifier(n_estimators=ROUNDS, verbose=-1, **PARAMETERS)),
        ]
    )
    features = frame[list(FEATURES)]
    pipeline.fit(features, frame[TARGET])
    ours = train(frame[[*FEATURES, TARGET]], TARGET)
    return _write("employment", folder, converter, pipeline, features, ours)


def forest_model(folder: Path, converter: Path) -> Artifacts:
    """Train a forest of 100 trees on 30 numbers."""
    values, target = make_classification(5_000, 30, n_informative=12, random_state=0)
    features = pd.DataFrame(values, columns=[f"x{place:02}" for place in range(30)])
    pipeline = Pipeline(
        [("scale", StandardScaler()), ("trees", RandomForestClassifier(100, random_state=0))]
    )
    pipeline.fit(features, target)
    ours = adopt(pipeline, features, pd.Series(target, name="label"), with_detectors=True)
    return _write("forest", folder, converter, pipeline, features, ours)


def _write(  # noqa: PLR0913, PLR0917  # each is another part of one model
    name: str,
    folder: Path,
    converter: Path,
    pipeline: Pipeline,
    features: pd.DataFrame,
    ours: Models,
) -> Artifacts:
    place = folder / name
    place.mkdir()
    joblib.dump(pipeline, place / "pipeline.joblib")
    reference = pipeline[0].transform(features.sample(REFERENCE_ROWS, random_state=0))
    joblib.dump(np.asarray(reference), place / "reference.joblib")
    encoded = np.asarray(pipeline[0].transform(features))
    joblib.dump(IsolationForest(random_state=0).fit(encoded), place / "isolation.joblib")
    # It warns of pickles and of integers that cannot be missing.
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mlflow.sklearn.save_model(
            pipeline,
            place / "model",
            serialization_format="cloudpickle",
            input_example=features.head(3),
            pip_requirements=["scikit-learn", "lightgbm"],
        )
    program = HERE / "peers" / "convert.py"
    subprocess.run([converter / "bin" / "python", program, place], check=True)
    rows = features.sample(ASKED_ROWS, random_state=1).to_dict("records")
    served = write_bento(place / "bento", name, ours)
    fallback = shutil.copytree(served, place / "fallback")
    predictor = fallback / bento.MODELS / "predictor"
    shutil.rmtree(predictor)
    shutil.copytree(place / "model", predictor)
    return Artifacts(name, place, served, fallback, rows)


def write_bento(folder: Path, name: str, ours: Models) -> Path:
    """Lay out the Bento of our three models, as the builder does."""
    names = {role: f"{name}_{role}/1" for role in ours.files}
    files = bento.skeleton(name=name, version="1", python="3.11", models=names)
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    for role, data in ours.files.items():
        flavor.write_data(folder / bento.MODELS / role, role, ours.kinds[role], data)
    return folder
