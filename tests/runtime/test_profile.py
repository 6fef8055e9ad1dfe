"""Bins: where values fall, and that counts add up."""

import math
from dataclasses import replace

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from modelops_runtime.profile import (
    MOST_BINS,
    FeatureProfile,
    Histogram,
    Profile,
    ProfileError,
)
from modelops_runtime.schema import Input, Output, Schema

pytestmark = pytest.mark.unit

SCHEMA = Schema(
    (
        Input(name="age", kind="number"),
        Input(name="sex", kind="category", levels=("m", "f")),
    ),
    Output(kind="regressor", name="wage"),
)
AGE = FeatureProfile(name="age", kind="number", edges=(0.0, 1.0, 2.0), counts=(0, 0, 0, 0))


@pytest.mark.parametrize(
    ("value", "place"),
    [
        (-0.1, 0),
        (-math.inf, 0),
        (0.0, 1),
        (-0.0, 1),
        (0.99, 1),
        (1.0, 2),
        (2.0, 2),
        (np.nextafter(2.0, 3), 3),
        (math.inf, 3),
        (math.nan, 4),
    ],
)
def test_numbers_fall_into_bins_that_are_open_above_but_for_the_last(
    value: float, place: int
) -> None:
    assert AGE.place(np.array([value])).tolist() == [place]


@pytest.mark.parametrize(("value", "place"), [(4.9, 0), (5.0, 1), (5.1, 2), (math.nan, 3)])
def test_a_constant_has_one_bin_between_the_guards(value: float, place: int) -> None:
    profile = Profile.fit(np.full((10, 2), [5.0, 0.0]), SCHEMA)
    assert profile.features[0].edges == (5.0, 5.0)
    assert profile.features[0].counts == (0, 10, 0)
    assert profile.features[0].place(np.array([value])).tolist() == [place]


def test_categories_have_a_bin_each() -> None:
    matrix = np.array([[1.0, 0], [1.0, 1], [2.0, 1], [2.0, -1], [2.0, math.nan]])
    sex = Profile.fit(matrix, SCHEMA).features[1]
    assert sex.levels == ("m", "f")
    assert sex.histogram == Histogram((1, 2), missing=1, unseen=1)


def test_many_levels_share_bins() -> None:
    levels = tuple(str(code) for code in range(MOST_BINS + 2))
    schema = Schema((Input(name="zip", kind="category", levels=levels),), SCHEMA.output)
    codes = np.arange(len(levels), dtype=float).reshape(-1, 1)
    (zip_code,) = Profile.fit(codes, schema).features
    assert zip_code.counts == (2, 2) + (1,) * (MOST_BINS - 2)
    assert zip_code.unseen == 0


def test_a_column_of_nothing_has_guards_for_what_may_come() -> None:
    age = Profile.fit(np.full((3, 2), math.nan), SCHEMA).features[0]
    assert age.histogram == Histogram((0, 0, 0), missing=3)
    assert age.place(np.array([-1.0, 0.0, 1.0])).tolist() == [0, 1, 2]


def test_quantiles_are_bins_of_like_size() -> None:
    values = np.arange(1000.0)
    matrix = np.stack([values, np.zeros(1000)], axis=1)
    profile = Profile.fit(matrix, SCHEMA, bins=20, scores=values)
    age = profile.features[0]
    assert len(age.edges) == 21
    assert (age.edges[0], age.edges[-1]) == (0.0, 999.0)
    assert age.counts[0] == age.counts[-1] == 0
    assert min(age.counts[1:-1]) >= 49
    assert max(age.counts[1:-1]) <= 51
    assert profile.rows == 1000
    assert profile.scores is not None
    assert profile.scores.counts == age.counts


def test_the_largest_floats_do_no_harm() -> None:
    largest = np.finfo(float).max
    matrix = np.array([[-largest, 0], [0, 0], [largest, 0]])
    age = Profile.fit(matrix, SCHEMA).features[0]
    assert age.edges == (-largest, 0.0, largest)
    assert sum(age.counts) == 3


columns = st.lists(
    st.floats(allow_infinity=False) | st.sampled_from([0.0, 1.0, 2.0]), min_size=1, max_size=50
)


@given(columns, st.integers(1, 30))
def test_the_reference_is_counted_whole_and_never_falls_into_guards(
    values: list[float], bins: int
) -> None:
    matrix = np.stack([np.array(values), np.zeros(len(values))], axis=1)
    age = Profile.fit(matrix, SCHEMA, bins=bins).features[0]
    assert age.histogram.total == len(values)
    assert age.counts[0] == age.counts[-1] == 0
    assert age.bins <= max(bins, 1) + 2


@given(st.lists(st.floats(), max_size=40), st.integers(0, 40))
def test_histograms_of_parts_add_up_to_that_of_the_whole(values: list[float], cut: int) -> None:
    whole, parts = np.array(values), (np.array(values[:cut]), np.array(values[cut:]))
    assert AGE.count(parts[0]) + AGE.count(parts[1]) == AGE.count(whole)
    assert AGE.count(whole).total == len(values)


@given(st.lists(st.sampled_from([math.nan, -1.0, 0.0, 1.0, 2.0, 7.0]), max_size=40))
def test_categories_of_parts_add_up_too(codes: list[float]) -> None:
    sex = FeatureProfile(name="sex", kind="category", levels=("m", "f"), counts=(0, 0))
    values = np.array(codes)
    added = sum((sex.count(values[i : i + 1]) for i in range(len(codes))), Histogram((0, 0)))
    assert added == sex.count(values)
    assert added.total == len(codes)


def test_histograms_of_other_bins_do_not_add() -> None:
    with pytest.raises(ValueError, match="2 bins do not add to 3"):
        Histogram((1, 2)) + Histogram((1, 2, 3))


def test_the_hash_names_the_bins_and_not_the_counts() -> None:
    one = Profile.fit(np.array([[1.0, 0], [2.0, 1]]), SCHEMA)
    same = Profile.fit(np.array([[1.0, 0], [2.0, 1], [2.0, 1]]), SCHEMA)
    other = Profile.fit(np.array([[1.0, 0], [3.0, 1]]), SCHEMA)
    scored = Profile.fit(np.array([[1.0, 0], [2.0, 1]]), SCHEMA, scores=np.array([0.0, 1.0]))
    assert one.edges_hash == same.edges_hash
    assert len({one.edges_hash, other.edges_hash, scored.edges_hash}) == 3
    assert len(one.edges_hash) == 16


CLASSES = Schema(
    (Input(name="x", kind="number"),), Output(kind="classifier", name="y", classes=(True, "b"))
)


def labelled(*labels: int) -> Profile:
    return Profile.fit(np.zeros((len(labels), 1)), CLASSES, labels=np.array(labels))


def test_predicted_classes_are_counted_by_their_names() -> None:
    profile = labelled(0, 1, 1, -1)
    assert profile.labels is not None
    assert profile.labels.histogram == Histogram((1, 2), unseen=1)
    assert profile.labels.tally([True, "b", "b", None, "True"]) == Histogram((2, 2), unseen=1)
    assert profile.labels.tally([["b"]]) == Histogram((0, 0), unseen=1)
    assert profile.labels.tally([]) == Histogram((0, 0))


def test_classes_belong_to_the_bins() -> None:
    profile, bare = labelled(0, 1), replace(labelled(0, 1), labels=None)
    assert Profile.from_json(profile.to_json()) == profile
    assert Profile.from_json(bare.to_json()) == bare
    assert labelled(1, 1).edges_hash == profile.edges_hash != bare.edges_hash


@given(columns)
def test_comes_back_from_json(values: list[float]) -> None:
    matrix = np.stack([np.array(values), np.zeros(len(values))], axis=1)
    profile = Profile.fit(matrix, SCHEMA, scores=np.nan_to_num(matrix[:, 0]))
    content = profile.to_json()
    assert Profile.from_json(content) == profile
    assert Profile.from_json(content).edges_hash == profile.edges_hash
    assert Profile.from_json(content).to_json() == content


def test_counts_and_places_of_a_matrix_agree() -> None:
    matrix = np.array([[0.0, 0], [1.0, -1], [math.nan, 1], [9.0, math.nan]])
    profile = Profile.fit(np.array([[0.0, 0], [1.0, 1]]), SCHEMA)
    places = profile.place(matrix)
    assert places.tolist() == [[1, 0], [1, 3], [3, 1], [2, 2]]
    assert profile.count(matrix) == [
        Histogram((0, 2, 1), missing=1),
        Histogram((1, 1), missing=1, unseen=1),
    ]


@pytest.mark.parametrize("shape", [(0, 2), (2, 3), (2,)])
def test_refuses_matrices_of_another_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="shape"):
        Profile.fit(np.zeros(shape), SCHEMA)
    if shape[0]:
        with pytest.raises(ProfileError, match="shape"):
            Profile.fit(np.zeros((1, 2)), SCHEMA).count(np.zeros(shape))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"edges_hash": "0" * 16}, "edges_hash is 0000000000000000"),
        ({"features": [{"name": "a", "kind": "number", "edges": [1]}]}, "at least two"),
        ({"features": [{"name": "a", "kind": "number", "edges": [2, 1]}]}, "in order"),
        ({"features": [{"name": "a", "kind": "number", "edges": [1, 2]}]}, "0 counts for 3"),
        ({"features": [{"name": "a", "kind": "text"}]}, "'text' is not"),
        ({"features": 1}, "not a reference profile"),
        ({"rows": "many"}, "not a reference profile"),
    ],
)
def test_refuses_what_is_no_profile(change: dict[str, object], message: str) -> None:
    content = orjson.loads(Profile.fit(np.zeros((1, 2)), SCHEMA).to_json())
    with pytest.raises(ProfileError, match=message):
        Profile.from_json(orjson.dumps(content | change))


def test_how_far_features_move_by_themselves_is_kept_and_not_needed() -> None:
    matrix = np.array([[0.0, 0], [1.0, 1], [2.0, 1]])
    plain = Profile.fit(matrix, SCHEMA, scores=matrix[:, 0])
    assert b"variations" not in plain.to_json()
    age, sex = plain.features
    told = replace(plain, features=(replace(age, variation=0.03), sex))
    assert Profile.from_json(told.to_json()) == told
    assert Profile.from_json(told.to_json()).features[1].variation is None
    assert told.edges_hash == plain.edges_hash
    # Those who do not know of it read all else as before.
    content = orjson.loads(told.to_json())
    assert content.pop("variations") == {"features": [0.03, None], "scores": None, "labels": None}
    assert orjson.dumps(content, option=orjson.OPT_INDENT_2) == plain.to_json()
    for broken in ({"features": [0.1]}, {"features": ["far", None]}, [1]):
        with pytest.raises(ProfileError, match="not a reference profile"):
            Profile.from_json(orjson.dumps(content | {"variations": broken}))
