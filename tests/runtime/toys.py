"""Small models of each role and a Bento folder that holds them."""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import orjson
import treelite
from modelops_runtime import bento, flavor
from modelops_runtime.outlier import Mahalanobis
from modelops_runtime.profile import Profile
from modelops_runtime.schema import Input, Output, Schema
from numpy.typing import NDArray

NAMES = {"predictor": "employment/3", "drift": "employment_drift/2", "outlier": "people/2"}


@dataclass(frozen=True)
class Toy:
    """What the models were made of, to compare answers with."""

    schema: Schema
    booster: Any
    detector: Mahalanobis
    profile: Profile
    rows: list[dict[str, Any]]
    files: Mapping[str, Mapping[str, bytes]]
    """By role."""

    def probabilities(self, rows: list[dict[str, Any]]) -> NDArray[np.float64]:
        found = np.asarray(self.booster.predict(self.schema.encode(rows)), dtype=np.float64)
        return np.column_stack([1 - found, found])


def _parity(rows: list[dict[str, Any]], expected: NDArray[Any]) -> bytes:
    return orjson.dumps({"rows": rows, "expected": expected.tolist(), "tolerance": 1e-6})


def make_toy() -> Toy:
    schema = Schema(
        (
            Input(name="age", kind="number", integer=True, nullable=False, unit="years"),
            Input(name="pay", kind="number"),
            Input(name="sex", kind="category", levels=("1", "2")),
        ),
        Output(kind="classifier", name="employed", classes=("no", "yes")),
    )
    random = np.random.default_rng(0)
    count = 2000
    matrix = np.column_stack(
        [
            random.integers(0, 100, count),
            random.normal(100, 10, count),
            random.integers(0, 2, count),
        ]
    ).astype(np.float64)
    target = (matrix.sum(axis=1) + random.normal(0, 20, count) > 150).astype(np.float64)
    settings = {"objective": "binary", "verbosity": -1, "num_threads": 1}
    booster = lightgbm.train(settings, lightgbm.Dataset(matrix, target), num_boost_round=20)
    rows: list[dict[str, Any]] = [
        {"age": int(age), "pay": float(pay), "sex": str(int(sex) + 1)}
        for age, pay, sex in matrix[:50]
    ]
    rows[0]["pay"], rows[1]["sex"], rows[2]["pay"] = None, "never seen", 1e9
    encoded = schema.encode(rows)
    mean = matrix.mean(axis=0)
    detector = Mahalanobis(
        mean=mean,
        precision=np.linalg.inv(np.cov(matrix.T)).astype(np.float64),
        impute=mean,
        unseen=np.array([np.nan, np.nan, mean[2]]),
        threshold=12.0,
        reference_rate=0.01,
    )
    answers = np.asarray(booster.predict(matrix), dtype=np.float64)
    profile = Profile.fit(matrix, schema, scores=answers)
    expected = np.asarray(booster.predict(encoded), dtype=np.float64)
    parity = {
        "predictor": _parity(rows, np.column_stack([1 - expected, expected])),
        "outlier": _parity(rows, detector.score(encoded)),
        "drift": _parity(rows, profile.place(encoded)),
    }
    own = {
        "predictor": {
            flavor.TREELITE: treelite.frontend.from_lightgbm(booster).serialize_bytes(),
            flavor.LIGHTGBM: booster.model_to_string().encode(),
        },
        "outlier": {flavor.DETECTOR: detector.to_json()},
        "drift": {flavor.PROFILE: profile.to_json()},
    }
    files = {
        role: {flavor.SCHEMA: schema.to_json(), flavor.PARITY: parity[role], **own[role]}
        for role in own
    }
    return Toy(schema, booster, detector, profile, rows, files)


def lay_out(toy: Toy, folder: Path, roles: tuple[str, ...]) -> Path:
    names = {role: NAMES[role] for role in roles}
    skeleton = bento.skeleton(name="employment", version="3", python="3.11", models=names)
    for path, content in skeleton.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    for role in roles:
        place = folder / bento.MODELS / role
        flavor.write_data(place, role, role, toy.files[role], train_id="t")
    return folder


def replace_file(model: Path, name: str, content: bytes | None) -> None:
    """Change a file of a model and its digest with it; None takes the file away."""
    place = model / flavor.DATA
    description = orjson.loads((place / flavor.DESCRIPTION).read_bytes())
    if content is None:
        (place / name).unlink()
        del description["files"][name]
    else:
        (place / name).write_bytes(content)
        description["files"][name] = sha256(content).hexdigest()
    (place / flavor.DESCRIPTION).write_bytes(orjson.dumps(description))


def falsify_parity(model: Path) -> None:
    """Expect the opposite of what the model answers."""
    parity = orjson.loads((model / flavor.DATA / flavor.PARITY).read_bytes())
    parity["expected"] = [list(reversed(each)) for each in parity["expected"]]
    replace_file(model, flavor.PARITY, orjson.dumps(parity))
