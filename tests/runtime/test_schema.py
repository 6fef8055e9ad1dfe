"""Rows become a matrix, or an error that says which value is wrong."""

import math
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from modelops_runtime.schema import (
    SHOWN_PROBLEMS,
    Input,
    InvalidRows,
    Output,
    Schema,
    SchemaError,
)

pytestmark = pytest.mark.unit

OUTPUT = Output(kind="classifier", name="employed", classes=(0, 1))
SCHEMA = Schema(
    (
        Input(name="AGEP", kind="number", integer=True, nullable=False, unit="years"),
        Input(name="WAGE", kind="number"),
        Input(name="SEX", kind="category", levels=("1", "2", "07", "", "True"), nullable=False),
        Input(name="MAR", kind="category", levels=("single", "1.0", "-3", "ä")),
    ),
    OUTPUT,
)


def row(**changes: Any) -> dict[str, Any]:
    return {"AGEP": 34, "WAGE": 1.5, "SEX": "1", "MAR": "single"} | changes


@pytest.mark.parametrize(
    ("changes", "codes"),
    [
        ({}, [34, 1.5, 0, 0]),
        ({"AGEP": 34.0, "WAGE": 7}, [34, 7, 0, 0]),
        ({"AGEP": 2**53}, [2**53, 1.5, 0, 0]),
        ({"WAGE": None}, [34, math.nan, 0, 0]),
        ({"WAGE": -1.7976931348623157e308}, [34, -1.7976931348623157e308, 0, 0]),
        ({"SEX": 2}, [34, 1.5, 1, 0]),
        ({"SEX": 2.0}, [34, 1.5, 1, 0]),
        ({"SEX": True}, [34, 1.5, 4, 0]),
        ({"SEX": False}, [34, 1.5, -1, 0]),
        ({"SEX": 7}, [34, 1.5, -1, 0]),
        ({"SEX": "07"}, [34, 1.5, 2, 0]),
        ({"SEX": ""}, [34, 1.5, 3, 0]),
        ({"SEX": "never seen"}, [34, 1.5, -1, 0]),
        ({"MAR": None}, [34, 1.5, 0, math.nan]),
        ({"MAR": 1.0}, [34, 1.5, 0, 1]),
        ({"MAR": 1}, [34, 1.5, 0, -1]),
        ({"MAR": -3}, [34, 1.5, 0, 2]),
        ({"MAR": "ä"}, [34, 1.5, 0, 3]),
    ],
)
def test_encodes(changes: dict[str, Any], codes: list[float]) -> None:
    np.testing.assert_array_equal(SCHEMA.encode([row(**changes)]), [codes])


def test_what_may_be_missing_may_be_left_out() -> None:
    assert np.isnan(SCHEMA.encode([{"AGEP": 1, "SEX": "1"}])[0, [1, 3]]).all()


def test_no_rows_are_a_matrix_without_rows() -> None:
    assert SCHEMA.encode([]).shape == (0, 4)


@pytest.mark.parametrize(
    ("changes", "field", "value", "expected"),
    [
        ({"AGEP": "34"}, "AGEP", '"34"', "a whole number"),
        ({"AGEP": True}, "AGEP", "true", "a whole number"),
        ({"AGEP": 34.5}, "AGEP", "34.5", "a whole number"),
        ({"AGEP": None}, "AGEP", "null", "a whole number"),
        ({"AGEP": 2**53 + 1}, "AGEP", str(2**53 + 1), "9007199254740992"),
        ({"AGEP": 2.0**60}, "AGEP", "1.152921504606847e+18", "9007199254740992"),
        ({"AGEP": math.nan}, "AGEP", "nan", "a whole number"),
        ({"WAGE": []}, "WAGE", "[]", "a finite number or null"),
        ({"WAGE": math.inf}, "WAGE", "inf", "a finite number or null"),
        ({"WAGE": -math.inf}, "WAGE", "-inf", "a finite number or null"),
        ({"WAGE": {"a": 1}}, "WAGE", '{"a":1}', "a finite number or null"),
        ({"SEX": None}, "SEX", "null", "a category"),
        ({"SEX": ["1"]}, "SEX", '["1"]', "a category"),
        ({"MAR": math.inf}, "MAR", "inf", "a category"),
        ({"AGE": 1}, "AGE", "1", "no such field; the fields are AGEP, WAGE, SEX, MAR"),
        ({"WAGE": "x" * 1000}, "WAGE", f'"{"x" * 76}...', "a finite number"),
    ],
)
def test_refuses(changes: dict[str, Any], field: str, value: str, expected: str) -> None:
    with pytest.raises(InvalidRows) as caught:
        SCHEMA.encode([row(), row(**changes)])
    (problem,) = caught.value.problems
    assert (problem.row, problem.field, problem.value) == (1, field, value)
    assert expected in problem.expected
    assert caught.value.total == 1
    assert "row 1" in str(caught.value)


def test_a_required_input_may_not_be_left_out() -> None:
    with pytest.raises(InvalidRows, match="row 0, AGEP: got null"):
        SCHEMA.encode([{"SEX": "1"}])


@pytest.mark.parametrize("value", [None, 1, "x", [], [1], math.nan])
def test_a_row_has_to_be_an_object(value: Any) -> None:
    with pytest.raises(InvalidRows, match="expected an object with the fields AGEP"):
        SCHEMA.encode([row(), value])


def test_spells_out_a_handful_and_counts_the_rest() -> None:
    with pytest.raises(InvalidRows) as caught:
        SCHEMA.encode([row(AGEP="x", SEX=[])] * 50)
    assert len(caught.value.problems) == SHOWN_PROBLEMS
    assert caught.value.total == 100
    assert "(and 99 more)" in str(caught.value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=3,
)


@given(st.lists(st.dictionaries(st.sampled_from([*SCHEMA.names, "else"]), json_values)))
def test_either_encodes_or_says_what_is_wrong(rows: list[dict[str, Any]]) -> None:
    try:
        matrix = SCHEMA.encode(rows)
    except InvalidRows as error:
        assert error.total >= len(error.problems) > 0  # noqa: PT017 (either way is right)
    else:
        assert matrix.shape == (len(rows), 4)
        assert not np.isinf(matrix).any()
        assert not np.isnan(matrix[:, [0, 2]]).any()


texts = st.text(max_size=8)


@st.composite
def schemas(draw: st.DrawFn) -> Schema:
    names = draw(st.lists(st.text(min_size=1), min_size=1, max_size=5, unique=True))
    inputs = [
        Input(
            name=name,
            kind="category" if levels else "number",
            levels=tuple(levels),
            nullable=draw(st.booleans()),
            unit=draw(st.none() | texts),
            minimum=draw(st.none() | st.floats(allow_nan=False, allow_infinity=False)),
            storage=draw(st.none() | st.just("int32")) if not levels else None,
            sensitive=draw(st.booleans()),
        )
        for name in names
        for levels in [draw(st.lists(texts, max_size=5, unique=True))]
    ]
    classes = draw(st.lists(texts | st.integers(-5, 5), min_size=2, max_size=4))
    return Schema(tuple(inputs), Output(kind="classifier", name="y", classes=tuple(classes)))


@given(schemas())
def test_comes_back_from_json(schema: Schema) -> None:
    content = schema.to_json()
    assert Schema.from_json(content) == schema
    assert Schema.from_json(content).to_json() == content


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inputs": []}, "no inputs"),
        ({"inputs": [{"name": "a", "kind": "number"}] * 2}, "appears twice"),
        ({"inputs": [{"name": "a", "kind": "text"}]}, "'text' is not number or category"),
        ({"inputs": [{"name": "a", "kind": "category", "levels": ["x", "x"]}]}, "level appears"),
        ({"inputs": [{"name": "a", "kind": "number", "levels": ["x"]}]}, "has no levels"),
        ({"inputs": [{"name": "", "kind": "number"}]}, "has no name"),
        ({"inputs": [{"name": "a", "kind": "number", "storage": "text"}]}, "does not hold a num"),
        (
            {"inputs": [{"name": "a", "kind": "category", "levels": ["x"], "storage": "text"}]},
            "'text' does not hold a category",
        ),
        ({"inputs": [{"name": "a", "kind": "number", "colour": 1}]}, "colour"),
        ({"inputs": 3}, "not a schema"),
        ({"output": {"kind": "classifier", "name": "y"}}, "at least two classes"),
        ({"output": {"kind": "regressor", "name": "y", "classes": [1, 2]}}, "no classes"),
        ({"output": {"kind": "ranker", "name": "y"}}, "'ranker' is not known"),
        ({"output": None}, "not a schema"),
    ],
)
def test_refuses_what_is_no_schema(change: dict[str, Any], message: str) -> None:
    content = {
        "inputs": [{"name": "a", "kind": "number"}],
        "output": {"kind": "regressor", "name": "y"},
    }
    with pytest.raises(SchemaError, match=message):
        Schema.from_json(orjson.dumps(content | change))


def test_refuses_what_is_no_json() -> None:
    with pytest.raises(SchemaError, match="not a schema"):
        Schema.from_json(b"{")
