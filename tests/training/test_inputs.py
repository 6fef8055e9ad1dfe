"""From a table to its schema: what is derived, what is refused and how that is said."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from modelops_training import DataError, inputs
from modelops_training.data import employment
from modelops_training.inputs import describe, encode, records

pytestmark = pytest.mark.unit

FEATURES = ["size", "gaps", "whole", "maybe", "flag", "colour", "grade", "code"]


def test_kinds_levels_and_integers_are_derived(mixed: pd.DataFrame) -> None:
    schema = describe(mixed, "bought", features=FEATURES)
    found = {column.name: column for column in schema.inputs}
    assert {name: column.kind for name, column in found.items()} == {
        **dict.fromkeys(("size", "gaps", "whole", "maybe"), "number"),
        **dict.fromkeys(("flag", "colour", "grade", "code"), "category"),
    }
    assert [name for name in found if found[name].integer] == ["whole", "maybe"]
    assert found["flag"].levels == ("False", "True")
    assert found["colour"].levels == ("", "blue", "grün", "red")
    assert found["grade"].levels == ("low", "mid", "high")  # an ordered category keeps its order
    assert found["code"].levels == ("9", "10", "100")  # codes are sorted as numbers
    assert found["whole"].minimum == mixed["whole"].min()
    assert schema.output.classes == (0, 1)


def test_the_output_follows_the_target(mixed: pd.DataFrame) -> None:
    assert describe(mixed, "price", features=FEATURES).output.kind == "regressor"
    assert describe(mixed, "kind", features=FEATURES).output.classes == ("a", "b", "c")
    assert describe(mixed, "flag", features=["size", "gaps"]).output.classes == (False, True)
    assert describe(mixed, "whole", features=["size"]).output.kind == "regressor"
    forced = describe(mixed, "whole", features=["size"], task="regressor")
    assert forced.output.kind == "regressor"


def test_overrides_replace_single_fields(mixed: pd.DataFrame) -> None:
    schema = describe(
        mixed,
        "bought",
        features=FEATURES,
        overrides={
            "size": {"unit": "cm", "nullable": False},
            "whole": {"kind": "category"},
            "grade": {"levels": ["high", "mid", "low"]},
        },
    )
    found = {column.name: column for column in schema.inputs}
    assert (found["size"].unit, found["size"].nullable) == ("cm", False)
    assert found["whole"].levels[:2] == ("-5", "-4")
    assert found["grade"].levels == ("high", "mid", "low")


def test_columns_are_encoded_as_the_records_are(mixed: pd.DataFrame) -> None:
    for overrides in ({}, {"whole": {"kind": "category"}, "maybe": {"kind": "category"}}):
        schema = describe(mixed, "bought", features=FEATURES, overrides=overrides)
        matrix = encode(mixed, schema)
        np.testing.assert_array_equal(matrix, schema.encode(records(mixed, schema)))
    people = employment([2018]).head(3000)
    schema = describe(employment([2015]), "employed", features=list(people.columns[:16]))
    np.testing.assert_array_equal(encode(people, schema), schema.encode(records(people, schema)))


def test_unseen_categories_have_a_code_of_their_own(mixed: pd.DataFrame) -> None:
    schema = describe(mixed, "bought", features=FEATURES)
    later = mixed.assign(colour="violet")
    place = schema.names.index("colour")
    assert (encode(later, schema)[:, place] == -1).all()


def _changed(frame: pd.DataFrame, **columns: Any) -> pd.DataFrame:
    return frame[["size", "whole", "bought"]].assign(**columns)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"same": 1}, "column 'same' has one value only"),
        ({"none": np.nan}, "column 'none' is empty"),
        ({"copy": lambda f: f["bought"]}, "column 'copy' tells the target 'bought' one to one"),
        ({"copy": lambda f: 5 - f["bought"]}, "column 'copy' tells the target"),
        ({"when": pd.date_range("2020", periods=600)}, "column 'when' holds datetime64"),
        ({"when": pd.date_range("2020", periods=600, tz="UTC")}, "know no time zones"),
        ({"far": lambda f: np.where(f["whole"] > 9, np.inf, 1.0)}, "'far' holds an infinity"),
        ({"id": lambda f: 2**53 + 2 * f.index.to_numpy()}, "'id' holds integers beyond 2"),
        ({"text": [f"t{i}" for i in range(600)] * 1}, None),
        ({"list": [[i] for i in range(600)]}, "holds"),
    ],
)
def test_what_cannot_be_trained_on_is_refused_by_name(
    mixed: pd.DataFrame, change: dict[str, Any], message: str | None
) -> None:
    frame = _changed(mixed, **change)
    if message is None:
        describe(frame, "bought")
        return
    with pytest.raises(DataError, match=message):
        describe(frame, "bought")


def test_identifiers_are_refused(mixed: pd.DataFrame) -> None:
    frame = pd.concat([mixed] * 3)[["size", "bought"]]
    frame["id"] = [f"customer {number}" for number in range(len(frame))]
    with pytest.raises(DataError, match="'id' has 1800 different values, 1000 are the limit"):
        describe(frame, "bought")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": "sold"}, "column 'sold' is missing; the frame has"),
        ({"target": "bought", "features": ["size", "weight"]}, "column 'weight' is missing"),
        ({"target": "bought", "features": ["bought"]}, "target 'bought' is among the features"),
        ({"target": "bought", "features": []}, "there are no features"),
        ({"target": "bought", "overrides": {"x": {}}}, r"overrides: \['x'\] are no features"),
        ({"target": "bought", "overrides": {"size": {"uni": "cm"}}}, r"\['uni'\] are no fields"),
        ({"target": "gaps"}, r"target 'gaps' is missing in \d+ rows; drop them"),
    ],
)
def test_wrong_arguments_are_refused(
    mixed: pd.DataFrame, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        describe(mixed, **arguments)


def test_too_few_rows_and_doubled_columns_are_refused(mixed: pd.DataFrame) -> None:
    with pytest.raises(DataError, match="99 rows are too few to train on; give 100 or more"):
        describe(mixed.head(99), "bought")
    with pytest.raises(DataError, match=r"columns \['size'\] appear twice"):
        describe(pd.concat([mixed, mixed[["size"]]], axis=1), "bought")


def test_a_target_with_too_many_or_too_few_classes_is_refused(mixed: pd.DataFrame) -> None:
    one = mixed.assign(same="x")
    with pytest.raises(DataError, match="target 'same' has 1 classes"):
        describe(one, "same", features=["size"])
    with pytest.raises(DataError, match='is it a quantity\\? pass task="regressor"'):
        describe(mixed, "size", features=["whole"], task="classifier")


def test_later_rows_need_the_columns_and_classes(mixed: pd.DataFrame) -> None:
    schema = describe(mixed, "bought", features=FEATURES)
    with pytest.raises(DataError, match=r"columns \['size'\] are missing"):
        encode(mixed.drop(columns="size"), schema)
    with pytest.raises(DataError, match="target 'bought': 7 is none of the classes"):
        inputs.target_codes(mixed.assign(bought=7), schema)
    with pytest.raises(DataError, match=r"column 'size' holds .*, not numbers"):
        encode(mixed.assign(size="tall"), schema)
