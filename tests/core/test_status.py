"""Which statuses are news, and which tell only how far a rollout is."""

from typing import Any

import pytest
from modelops_operator.core.status import merely_goes_on

pytestmark = pytest.mark.unit


def status(available: str, *, on_its_way: bool = True, **fields: Any) -> dict[str, Any]:
    conditions = {
        "Available": ("False", available),
        "Ready": ("False", available),
        **({"Reconciling": ("True", available)} if on_its_way else {}),
    }
    told = [
        {"type": type_, "status": state, "reason": reason, "message": reason}
        for type_, (state, reason) in conditions.items()
    ]
    return {"observedGeneration": 1, "conditions": told, "replicas": 0, **fields}


@pytest.mark.parametrize(
    ("title", "after", "goes_on"),
    [
        ("other words", status("PodsStarting"), True),
        ("more pods", status("RollingOut", replicas=2, readyReplicas=1), True),
        ("trouble", status("ImagePullBackOff"), False),
        ("another generation", status("RollingOut", observedGeneration=2), False),
        ("another revision", status("RollingOut", revision="r"), False),
        ("the end", status("RollingOut", on_its_way=False), False),
    ],
)
def test_what_merely_goes_on(title: str, after: dict[str, Any], goes_on: bool) -> None:  # noqa: FBT001 - a table
    assert merely_goes_on(status("RollingOut"), after) is goes_on, title


def test_what_was_at_rest_does_not_merely_go_on() -> None:
    assert not merely_goes_on({}, status("RollingOut"))
    assert not merely_goes_on(status("RollingOut", on_its_way=False), status("RollingOut"))
