"""Which objects are looked at when a model moves."""

from typing import Any

import pytest
from modelops_operator.shell.fleet import Fleet

pytestmark = pytest.mark.unit

A, B = ("ns", "a"), ("ns", "b")


def live(**models: Any) -> dict[str, Any]:
    return {"kind": "ModelDeployment", "spec": {"models": models}}


def test_objects_are_found_by_the_models_that_they_name() -> None:
    fleet = Fleet()
    fleet.note(A, live(predictor={"name": "m", "alias": "candidate"}))
    fleet.note(B, live(predictor={"name": "m", "version": "1"}, drift={"name": "d", "alias": "x"}))
    assert set(fleet.naming("m")) == {A, B}
    assert set(fleet.naming("d")) == {B}
    assert set(fleet.naming("nobody")) == set()
    assert fleet.models() == {"m": {"candidate"}, "d": {"x"}}


def test_an_edit_and_an_end_are_noted() -> None:
    fleet = Fleet()
    fleet.note(A, live(predictor={"name": "m", "alias": "candidate"}))
    fleet.note(A, live(predictor={"name": "n", "alias": "candidate"}))
    assert (set(fleet.naming("m")), set(fleet.naming("n"))) == (set(), {A})
    fleet.note(A, None)
    assert set(fleet.naming("n")) == set()
    assert fleet.models() == {}


@pytest.mark.parametrize("spec", [{}, {"models": None}, {"models": {"predictor": "text"}}])
def test_a_spec_that_is_not_understood_names_nothing(spec: dict[str, Any]) -> None:
    fleet = Fleet()
    fleet.note(A, {"spec": spec})
    assert fleet.models() == {}
