"""The fast form of a fitted model: an encoder from tables, and trees or a weighted sum behind it.

    form = compiled(original, schema, frame, finite=True)   # raises NoFastForm, which says why not

Nothing here is trusted: `proving` asks both, the model and the runtime's own code over the files.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import treelite
from modelops_runtime import flavor
from modelops_runtime.schema import Schema

from modelops_training import heads, pipelines
from modelops_training.errors import NoFastForm
from modelops_training.heads import Head
from modelops_training.inputs import text_of
from modelops_training.original import Original
from modelops_training.pipelines import Coded, Feature, Number


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

        return features, heads.trees(lambda: catboost_trees.convert(model), narrow=True)
    if library != "sklearn":
        raise NoFastForm(f"{type(model).__module__}.{type(model).__name__} is not known here")
    from modelops_training import scikit_learn  # noqa: PLC0415  # it loads all estimators

    return scikit_learn.convert(model, features)


def _lightgbm(
    model: Any, features: list[Feature], categories: Mapping[int, list[Any]]
) -> tuple[list[Feature], Head]:
    booster = getattr(model, "booster_", model)
    known = booster.pandas_categorical or []
    if len(known) != len(categories):
        raise NoFastForm(f"it knows {len(known)} columns of categories, X has {len(categories)}")
    own = dict(zip(categories, known, strict=True))
    native = {flavor.LIGHTGBM: booster.model_to_string().encode()}
    return _by_places(features, own), heads.trees(
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
    return heads.trees(lambda: treelite.frontend.from_xgboost_json(json.dumps(data)))


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
