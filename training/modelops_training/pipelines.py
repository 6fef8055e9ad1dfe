"""Follows each input of a fitted scikit-learn pipeline, and writes down what becomes of it.

Nothing is traced by running code: of each known transformer its fitted numbers are read. An input
is a `Number`, to which elementwise steps are added, or it is `Coded`: then each of its levels has a
value, which the transformers change until it is a number. `plan` makes the runtime's encoder of it.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import singledispatch
from typing import Any, Final, TypeAlias

import numpy as np
import pandas as pd
from modelops_runtime.encoder import STEPS, Encoder, Numbers, Tables
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import FeatureUnion, Pipeline
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

from modelops_training.errors import NoFastForm

UNKNOWN: Final = type("Unknown", (), {"__repr__": lambda _: "an unseen category"})()
"""Stands for every category that training never met."""
_FUNCTIONS: Final = {
    **{
        getattr(np, name): name
        for name in STEPS.keys() - {"add", "subtract", "multiply", "divide"}
        if hasattr(np, name) and isinstance(getattr(np, name), np.ufunc)
    },
}


@dataclass(frozen=True)
class Number:
    """A feature that is a number of the request, after some steps."""

    input: int
    steps: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Coded:
    """A feature that has one value for each level of its input."""

    input: int
    becomes: tuple[Any, ...]
    """For each level, then for a missing value, then for an unseen one."""
    known: tuple[float, ...] | None = None
    """The levels themselves, where the input is a number."""


Feature: TypeAlias = Number | Coded


@singledispatch
def trace(transformer: object, features: list[Feature]) -> list[Feature]:
    """Tell what a fitted transformer makes of features. Raises NoFastForm."""
    if transformer == "passthrough" or transformer is None:
        return features
    # By name, since their packages would load scikit-learn's neighbours and decompositions.
    kinds = {kind.__name__ for kind in type(transformer).__mro__}
    if "SelectorMixin" in kinds:
        return _selected(transformer, features)
    if "SimpleImputer" in kinds:
        return _imputed(transformer, features)
    raise NoFastForm(f"{type(transformer).__name__} has no form in tables")


@trace.register
def _(transformer: Pipeline, features: list[Feature]) -> list[Feature]:
    for _, step in transformer.steps:
        features = trace(step, features)
    return features


@trace.register
def _(transformer: FeatureUnion, features: list[Feature]) -> list[Feature]:
    parts = [step for _, step in transformer.transformer_list if step != "drop"]
    return [feature for step in parts for feature in trace(step, features)]


@trace.register
def _(transformer: ColumnTransformer, features: list[Feature]) -> list[Feature]:
    # What a sparse matrix does not hold is 0 there as here.
    names = getattr(transformer, "feature_names_in_", range(len(features)))
    table = pd.DataFrame([range(len(features))], columns=list(names))
    found: list[Feature] = []
    for _, step, columns in transformer.transformers_:
        if isinstance(step, str) and step == "drop":
            continue
        named = _first(columns)
        chosen = table.loc[:, columns] if isinstance(named, str) else table.iloc[:, columns]
        if chosen.ndim == 1:
            raise NoFastForm(f"{type(step).__name__} takes the column {columns!r} as text")
        if places := chosen.iloc[0].tolist():
            found += trace(step, [features[place] for place in places])
    return found


def _first(columns: Any) -> object:
    if isinstance(columns, slice):
        return columns.start if columns.start is not None else columns.stop
    if isinstance(columns, str) or np.isscalar(columns):
        return columns
    return next(iter(columns), None)


@trace.register
def _(transformer: FunctionTransformer, features: list[Feature]) -> list[Feature]:
    if transformer.func is None:
        return features
    name = _FUNCTIONS.get(transformer.func)
    if name is None or transformer.kw_args:
        raise NoFastForm(f"FunctionTransformer of {transformer.func!r} has no form in tables")
    return [_stepped(feature, name, 0.0) for feature in features]


@trace.register
def _(transformer: StandardScaler, features: list[Feature]) -> list[Feature]:
    means = transformer.mean_ if transformer.with_mean else None
    return _all_stepped(features, ("subtract", means), ("divide", transformer.scale_))


@trace.register
def _(transformer: RobustScaler, features: list[Feature]) -> list[Feature]:
    return _all_stepped(
        features,
        ("subtract", transformer.center_ if transformer.with_centering else None),
        ("divide", transformer.scale_ if transformer.with_scaling else None),
    )


@trace.register
def _(transformer: MaxAbsScaler, features: list[Feature]) -> list[Feature]:
    scaled = _all_stepped(features, ("divide", transformer.scale_))
    return _clipped(scaled, -1.0, 1.0) if getattr(transformer, "clip", False) else scaled


@trace.register
def _(transformer: MinMaxScaler, features: list[Feature]) -> list[Feature]:
    scaled = _all_stepped(features, ("multiply", transformer.scale_), ("add", transformer.min_))
    return _clipped(scaled, *transformer.feature_range) if transformer.clip else scaled


def _selected(selector: Any, features: list[Feature]) -> list[Feature]:
    kept = selector.get_support()
    return [feature for feature, wanted in zip(features, kept, strict=True) if wanted]


def _imputed(transformer: Any, features: list[Feature]) -> list[Feature]:
    gap = transformer.missing_values
    found: list[Feature] = []
    for feature, statistic in zip(features, transformer.statistics_, strict=True):
        if _alike(statistic, np.nan):
            raise NoFastForm("SimpleImputer met a column without any value")
        if isinstance(feature, Coded):
            values = tuple(statistic if _alike(value, gap) else value for value in feature.becomes)
            found.append(replace(feature, becomes=values))
        elif gap is pd.NA or _alike(gap, np.nan):
            found.append(_stepped(feature, "impute", float(statistic)))
        else:
            raise NoFastForm(f"SimpleImputer takes the number {gap!r} for a missing value")
    told = transformer.indicator_.features_ if transformer.add_indicator else ()
    return found + [_indicated(features[place], gap) for place in told]


def _indicated(feature: Feature, gap: object) -> Feature:
    if isinstance(feature, Number):
        return _stepped(feature, "missing", 0.0)
    return replace(feature, becomes=tuple(float(_alike(each, gap)) for each in feature.becomes))


@trace.register
def _(transformer: OneHotEncoder, features: list[Feature]) -> list[Feature]:
    found: list[Feature] = []
    for place, feature in enumerate(features):
        categories, rare = _grouped(transformer, place)
        dropped = None
        if transformer.drop_idx_ is not None and transformer.drop_idx_[place] is not None:
            name = transformer.categories_[place][transformer.drop_idx_[place]]
            dropped = _column(name, categories, rare)
        unknown = None
        if rare and transformer.handle_unknown in {"infrequent_if_exist", "warn"}:
            unknown = len(categories)
        coded = _coded(feature, transformer.categories_[place])
        columns = [_column(value, categories, rare, unknown) for value in coded.becomes]
        found += [
            replace(coded, becomes=tuple(float(column == each) for column in columns))
            for each in range(len(categories) + bool(rare))
            if each != dropped
        ]
    return found


@trace.register
def _(transformer: OrdinalEncoder, features: list[Feature]) -> list[Feature]:
    found: list[Feature] = []
    for place, feature in enumerate(features):
        categories, rare = _grouped(transformer, place)
        coded = _coded(feature, transformer.categories_[place])
        unknown = transformer.unknown_value if transformer.unknown_value is not None else np.nan
        gap = transformer.encoded_missing_value
        has_gap = any(_alike(each, np.nan) for each in categories)
        columns = [
            gap if has_gap and _alike(value, np.nan) else _column(value, categories, rare)
            for value in coded.becomes
        ]
        values = tuple(float(unknown if each is None else each) for each in columns)
        found.append(replace(coded, becomes=values))
    return found


@trace.register
def _(transformer: TargetEncoder, features: list[Feature]) -> list[Feature]:
    if transformer.target_type_ == "multiclass":
        raise NoFastForm("TargetEncoder of more than two classes has no form in tables")
    found: list[Feature] = []
    for place, feature in enumerate(features):
        categories = list(transformer.categories_[place])
        means = transformer.encodings_[place]
        coded = _coded(feature, categories)
        columns = [_column(value, categories, ()) for value in coded.becomes]
        known = (transformer.target_mean_ if each is None else means[each] for each in columns)
        found.append(replace(coded, becomes=tuple(map(float, known))))
    return found


def categories_of(model: object) -> dict[str, list[Any]]:
    """Collect what the encoders inside a pipeline know of each named column, as far as it is text.

    More than the rows at hand may show: their table needs a row for it.
    """
    found: dict[str, list[Any]] = defaultdict(list)
    for step in _parts(model):
        for name, known in zip(
            getattr(step, "feature_names_in_", ()), getattr(step, "categories_", ()), strict=False
        ):
            found[name] += [each for each in known if isinstance(each, str)]
    return found


def _parts(model: object) -> list[object]:
    if isinstance(model, ColumnTransformer):
        return [part for _, step, _ in model.transformers_ for part in _parts(step)]
    if isinstance(model, FeatureUnion):
        return [part for _, step in model.transformer_list for part in _parts(step)]
    # Steps behind the first no longer see columns by their names; imputers keep the values.
    if isinstance(model, Pipeline):
        names = getattr(model, "feature_names_in_", None)
        inner = [part for _, step in model.steps for part in _parts(step)]
        return [
            _Named(names, part) if not hasattr(part, "feature_names_in_") else part
            for part in inner
        ]
    return [model]


class _Named:
    """An encoder inside a pipeline, with the names of the columns that come in."""

    def __init__(self, names: Any, encoder: Any) -> None:
        known = getattr(encoder, "categories_", ())
        fits = names is not None and len(names) == len(known)
        self.feature_names_in_ = names if fits else ()
        self.categories_ = known if fits else ()


def plan(features: Sequence[Feature], inputs: int, *, narrow: bool, finite: bool) -> Encoder:
    """Make the runtime's encoder of features; `inputs` is the width of the schema's matrix.

    Raises NoFastForm for a feature that is text to the end.
    """
    numbers: dict[tuple[str, ...], list[tuple[int, Number]]] = defaultdict(list)
    sources: dict[tuple[int, tuple[float, ...] | None], list[tuple[int, Coded]]] = defaultdict(list)
    for place, feature in enumerate(features):
        if isinstance(feature, Number):
            numbers[tuple(name for name, _ in feature.steps)].append((place, feature))
        else:
            sources[feature.input, feature.known].append((place, feature))
    known = [(place, each) for place, each in sources if each is not None]
    column = {source: inputs + place for place, source in enumerate(known)}
    widths: dict[int, list[tuple[int, list[tuple[int, Coded]]]]] = defaultdict(list)
    for source, made in sources.items():
        widths[len(made)].append((column.get(source, source[0]), made))  # type: ignore[arg-type]
    return Encoder(
        features=len(features),
        numbers=tuple(_numbers(block) for block in numbers.values()),
        tables=tuple(_tables(block) for block in widths.values()),
        known=tuple((place, np.array(values)) for place, values in known),
        narrow=narrow,
        finite=finite,
    )


def _numbers(block: Sequence[tuple[int, Number]]) -> Numbers:
    steps = zip(*(feature.steps for _, feature in block), strict=True)
    return Numbers(
        np.array([feature.input for _, feature in block], np.intp),
        np.array([place for place, _ in block], np.intp),
        tuple((each[0][0], np.array([number for _, number in each])) for each in steps),
    )


def _tables(block: Sequence[tuple[int, list[tuple[int, Coded]]]]) -> Tables:
    rows = [
        np.column_stack([[as_number(each) for each in feature.becomes] for _, feature in made])
        for _, made in block
    ]
    return Tables(
        np.array([column for column, _ in block], np.intp),
        np.array([place for _, made in block for place, _ in made], np.intp),
        np.array([len(each) - 2 for each in rows], np.intp),
        np.concatenate(rows),
    )


def as_number(value: object) -> float:
    """Read what a model reads of a value; what it cannot know is missing. Raises NoFastForm."""
    if value is UNKNOWN or value is None or value is pd.NA:
        return np.nan
    if isinstance(value, str):
        raise NoFastForm(f"the model reads the text {value!r} itself, without an encoder")
    return float(value)  # type: ignore[arg-type]


def _stepped(feature: Feature, name: str, number: float) -> Feature:
    if isinstance(feature, Number):
        return replace(feature, steps=(*feature.steps, (name, float(number))))
    values = np.array([as_number(each) for each in feature.becomes])
    with np.errstate(all="ignore"):
        return replace(feature, becomes=tuple(STEPS[name](values, float(number)).tolist()))


def _all_stepped(features: list[Feature], *steps: tuple[str, Any]) -> list[Feature]:
    for name, numbers in steps:
        if numbers is not None:
            features = [
                _stepped(feature, name, number)
                for feature, number in zip(features, numbers, strict=True)
            ]
    return features


def _clipped(features: list[Feature], low: float, high: float) -> list[Feature]:
    bounded = [_stepped(feature, "least", low) for feature in features]
    return [_stepped(feature, "most", high) for feature in bounded]


def _coded(feature: Feature, categories: Sequence[Any]) -> Coded:
    """Take a number for a category whose levels are the known ones."""
    if isinstance(feature, Coded):
        return feature
    if any(name != "impute" for name, _ in feature.steps):
        raise NoFastForm("an encoder of categories after a change of numbers has no form in tables")
    filled = [number for _, number in feature.steps]
    found = {float(each) for each in (*categories, *filled) if not _alike(each, np.nan)}
    known = tuple(sorted(found))
    gap = filled[0] if filled else np.nan
    return Coded(feature.input, (*known, gap, UNKNOWN), known)


def _grouped(encoder: Any, place: int) -> tuple[list[Any], tuple[Any, ...]]:
    """Split an encoder's categories into those with a column of their own, and the rare ones."""
    categories = list(encoder.categories_[place])
    rare = getattr(encoder, "infrequent_categories_", None)
    group = () if rare is None or rare[place] is None else tuple(rare[place])
    return [each for each in categories if not _among(each, group)], group


def _column(
    value: object, categories: Sequence[Any], rare: Sequence[Any], unknown: int | None = None
) -> int | None:
    """Tell the place of a value among the categories, behind which the rare ones share a place."""
    for place, category in enumerate(categories):
        if _alike(value, category):
            return place
    return len(categories) if _among(value, rare) else unknown


def _among(value: object, group: Sequence[Any]) -> bool:
    return any(_alike(value, each) for each in group)


def _alike(one: Any, other: Any) -> bool:
    if one is other:
        return True
    if one is UNKNOWN or one is None or other is None or one is pd.NA or other is pd.NA:
        return False
    if isinstance(one, float) and isinstance(other, float) and np.isnan(one):
        return bool(np.isnan(other))
    return bool(one == other) if isinstance(one, str) == isinstance(other, str) else False
