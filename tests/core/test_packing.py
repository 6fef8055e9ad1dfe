"""Objects as bytes."""

from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st
from modelops_operator.core.packing import Family, pack, unpack, unpack_alike

LEAVES = st.text(max_size=20) | st.integers(-9, 9)
VALUES = LEAVES | st.lists(LEAVES, max_size=5)
TREES = st.dictionaries(st.text(max_size=5), VALUES, max_size=5)


@given(TREES)
def test_an_object_comes_back(tree: dict[str, Any]) -> None:
    assert unpack(pack(tree)) == tree


@given(st.lists(TREES, min_size=1, max_size=5))
def test_all_of_a_family_come_back(trees: list[dict[str, Any]]) -> None:
    family = Family()
    packed = [family.pack(tree) for tree in trees]
    assert [unpack_alike(*each) for each in packed] == trees


def test_those_that_are_alike_take_little() -> None:
    family = Family()
    pods = [{"name": f"pod-{number}", "said": list(range(300))} for number in range(20)]
    family.pack({"name": "pod-0"})  # of which there was little to tell
    packed = [family.pack(pod) for pod in pods]
    assert max(len(content) for content, _ in packed[1:]) < len(orjson.dumps(pods[1])) / 10
    assert {id(sample) for _, sample in packed} == {id(packed[0][1])}
