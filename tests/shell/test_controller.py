"""When a pass tells of what it wrote."""

import asyncio
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from modelops_operator.api.facts import Failure
from modelops_operator.api.reasons import Reason
from modelops_operator.core.state import ChildRef, Plan
from modelops_operator.shell.cache import Cache
from modelops_operator.shell.controller import SECOND_LOOK, Controller
from modelops_operator.shell.queue import Key, WorkQueue

from tests.shell.conftest import Run

pytestmark = pytest.mark.unit

KEY = ("ns", "employment")
SERVICE = {"kind": "Service", "metadata": {"name": "employment", "namespace": "ns"}}
LIVE = {
    "kind": "ModelDeployment",
    "metadata": {
        "namespace": "ns",
        "name": "employment",
        "uid": "u",
        "generation": 2,
        "resourceVersion": "1",
    },
    "spec": {"models": {"predictor": {"name": "m", "alias": "a"}}},
    "status": {"observedGeneration": 1},
}


class Written:
    """Carries plans out, and remembers what the status was to say."""

    leading = True

    def __init__(self) -> None:
        self.statuses: list[Mapping[str, Any]] = []
        self.refuses: dict[ChildRef, Failure] = {}

    async def write(self, *_: object) -> dict[ChildRef, Failure]:
        return self.refuses

    async def write_status(self, _: object, status: Mapping[str, Any]) -> bool:
        self.statuses.append(status)
        return True

    async def tell(self, *_: object) -> None:
        return


class Planned(Controller):
    """Finds what the test says that there is to do."""

    applies: tuple[Mapping[str, Any], ...] = ()

    async def _plan(self, key: Key, live: Mapping[str, Any]) -> Plan:
        del key, live
        return Plan(apply=self.applies, status={"observedGeneration": 2, "conditions": []})


def controller(*applies: Mapping[str, Any]) -> tuple[Planned, Written]:
    cache, executor = Cache(), Written()
    cache.put(LIVE)
    nobody: Any = SimpleNamespace()
    made = Planned(
        config=nobody,
        cluster=nobody,
        cache=cache,
        queue=WorkQueue("test"),
        fleet=nobody,
        follower=nobody,
        signatures=nobody,
        gatherer=nobody,
        executor=executor,  # type: ignore[arg-type]  # as far as it is asked
        leadership=nobody,
    )
    made.applies = applies
    return made, executor


def test_what_is_written_is_told_by_the_second_look(run: Run) -> None:
    async def main() -> None:
        made, executor = controller(SERVICE)
        start = asyncio.get_running_loop().time()
        assert await made._pass_over(KEY)
        assert executor.statuses == []
        assert await made.queue.get() == KEY
        assert asyncio.get_running_loop().time() - start == pytest.approx(SECOND_LOOK, abs=0.01)
        made.applies = ()
        assert await made._pass_over(KEY)
        assert len(executor.statuses) == 1

    run(main())


def test_what_somebody_undoes_every_time_is_told_nevertheless(run: Run) -> None:
    async def main() -> None:
        made, executor = controller(SERVICE)
        for _ in range(4):
            await made._pass_over(KEY)
        assert len(executor.statuses) == 2

    run(main())


def test_what_is_refused_is_told_at_once(run: Run) -> None:
    async def main() -> None:
        made, executor = controller(SERVICE)
        refused = Failure(reason=Reason.FORBIDDEN, message="no", permanent=True)
        executor.refuses = {ChildRef("Service", "employment"): refused}
        assert not await made._pass_over(KEY)
        assert len(executor.statuses) == 1

    run(main())
