"""The encoder and the weighted sum: what they make of rows, and what they refuse to be made of."""

from collections.abc import Callable
from typing import Any

import numpy as np
import orjson
import pytest
from modelops_runtime.encoder import Encoder, EncoderError, Numbers, OutOfRange, Tables
from modelops_runtime.linear import Linear, LinearError
from modelops_runtime.schema import UNSEEN

pytestmark = pytest.mark.unit

ENCODER = Encoder(
    features=5,
    numbers=(
        Numbers(
            np.array([0]),
            np.array([1]),
            (
                ("impute", np.array([4.0])),
                ("subtract", np.array([1.0])),
                ("divide", np.array([2.0])),
            ),
        ),
    ),
    tables=(
        # Two levels, then missing, then unseen.
        Tables(
            np.array([1]),
            np.array([0, 3]),
            np.array([2]),
            np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5], [0.0, 0.0]]),
        ),
        # The first column again, as a category with the values 3 and 7; and the second.
        Tables(
            np.array([2, 1]),
            np.array([4, 2]),
            np.array([2, 2]),
            np.array([[30.0], [70.0], [np.nan], [-1.0], [10.0], [11.0], [12.0], [13.0]]),
        ),
    ),
    known=((0, np.array([3.0, 7.0])),),
)
ROWS = np.array([[3.0, 0.0], [np.nan, np.nan], [5.0, UNSEEN], [7.0, 1.0]])
FEATURES = np.array(
    [
        [1.0, 1.0, 10.0, 0.0, 30.0],
        [0.5, 1.5, 12.0, 0.5, np.nan],
        [0.0, 2.0, 13.0, 0.0, -1.0],
        [0.0, 3.0, 11.0, 1.0, 70.0],
    ]
)


def test_rows_become_features() -> None:
    again = Encoder.from_json(ENCODER.to_json())
    np.testing.assert_array_equal(ENCODER(ROWS), FEATURES)
    np.testing.assert_array_equal(again(ROWS), FEATURES)
    assert again.to_json() == ENCODER.to_json()
    assert again(ROWS[:0]).shape == (0, 5)


def test_what_the_model_cannot_hold_is_named_by_its_row() -> None:
    numbers = (Numbers(np.array([0]), np.array([0]), ()),)
    rows = np.array([[1.0], [1e39]])
    wide = Encoder(features=1, numbers=numbers)
    np.testing.assert_array_equal(wide(rows), rows)
    with pytest.raises(OutOfRange, match=r"row 1: a number is too large .* of 32 bits"):
        Encoder(features=1, numbers=numbers, narrow=True)(rows)
    tolerant = Encoder(features=1, numbers=numbers, narrow=True, finite=False)
    assert tolerant(rows)[1, 0] == np.inf


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.pop("tables"), "not an encoder: KeyError"),
        (lambda data: data.update(features=6), "not each of the 6 features is made once"),
        (lambda data: data["numbers"][0]["into"].append(1), "is made once"),
        (lambda data: data["numbers"][0]["steps"][0].__setitem__(0, "eval"), "'eval'.* not known"),
        (lambda data: data["tables"][0]["rows"].pop(), "does not fit its inputs"),
    ],
)
def test_an_encoder_that_is_none_is_refused(change: Callable[[Any], object], message: str) -> None:
    data = orjson.loads(ENCODER.to_json())
    change(data)
    with pytest.raises(EncoderError, match=message):
        Encoder.from_json(orjson.dumps(data))


@pytest.mark.parametrize("link", ["logistic", "softmax", "one against rest"])
def test_probabilities_of_large_sums_stay_probabilities(link: str) -> None:
    linear = Linear(np.array([[1.0], [-1.0]]), np.zeros(2), link)
    answers = linear.answers(linear.sums(np.array([[0.0], [700.0], [-1e308], [1e300]])))
    assert np.isfinite(answers).all()
    assert ((answers >= 0) & (answers <= 1)).all()
    if link != "logistic":
        np.testing.assert_allclose(answers.sum(axis=1), 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.update(link="import os"), "link 'import os' is not one of identity"),
        (lambda data: data["intercept"].append(1.0), "do not fit"),
        (lambda data: data["weights"][0].__setitem__(0, None), "not finite"),
        (lambda data: data.pop("weights"), "not a linear model"),
    ],
)
def test_weights_that_are_none_are_refused(change: Callable[[Any], object], message: str) -> None:
    data = orjson.loads(Linear(np.ones((1, 2)), np.zeros(1), "identity").to_json())
    change(data)
    with pytest.raises(LinearError, match=message):
        Linear.from_json(orjson.dumps(data))
