"""What goes into the queue, and into which lane."""

import asyncio
from typing import Any

import pytest
from modelops_operator.shell.cache import Cache
from modelops_operator.shell.controller import FLURRY, Listener, is_edited
from modelops_operator.shell.fleet import Fleet
from modelops_operator.shell.queue import Key, WorkQueue

from tests.shell.conftest import Run

pytestmark = pytest.mark.unit

A, B = ("ns", "a"), ("ns", "b")


def model_deployment(key: Key, model: str = "m", *, observed: int = 1, **status: Any) -> Any:
    metadata = {"namespace": key[0], "name": key[1], "generation": 1, "resourceVersion": "1"}
    return {
        "kind": "ModelDeployment",
        "metadata": {**metadata, "annotations": {}},
        "spec": {"models": {"predictor": {"name": model, "alias": "candidate"}}},
        "status": {"observedGeneration": observed, **status},
    }


def child(kind: str, key: Key) -> Any:
    labels = {"modelops.dev/deployment": key[1]}
    metadata = {"namespace": key[0], "name": key[1], "labels": labels, "resourceVersion": "1"}
    return {"kind": kind, "metadata": metadata}


def image(predictor: str, drift: str) -> Any:
    models = [{"role": "drift", "name": drift}, {"role": "predictor", "name": predictor}]
    metadata = {"namespace": "modelops-system", "name": "i", "resourceVersion": "1"}
    return {"kind": "ModelImage", "metadata": metadata, "spec": {"models": models}}


class World:
    def __init__(self, *known: Any) -> None:
        self.cache, self.queue = Cache(), WorkQueue("test")
        self.listener = Listener(self.cache, Fleet(), self.queue)
        for live in known:
            self.hear(live)

    def hear(self, live: Any) -> None:
        self.cache.put(live)
        self.listener.changed(live)

    async def queued(self, patience: float = 0.01) -> list[Key]:
        found = []
        while True:
            try:
                found.append(await asyncio.wait_for(self.queue.get(), patience))
            except TimeoutError:
                return found
            self.queue.done(found[-1])


def test_edits_go_before_what_was_seen_already() -> None:
    async def main() -> None:
        world = World(model_deployment(A), model_deployment(B, observed=-1))
        assert await world.queued() == [B, A]

    asyncio.run(main())


def test_a_child_that_changes_concerns_its_owner(run: Run) -> None:
    async def main() -> None:
        world = World()
        for kind in ("Deployment", "Pod", "Service"):
            world.hear(child(kind, A))
            assert await world.queued(2 * FLURRY) == [A]

    run(main())


def test_of_changes_that_come_together_there_is_one_look(run: Run) -> None:
    async def main() -> None:
        world = World()
        for kind in ("Deployment", "Pod", "Service"):
            world.hear(child(kind, A))
        assert await world.queued(2 * FLURRY) == [A]

    run(main())


def test_an_image_concerns_those_who_predict_with_its_model() -> None:
    async def main() -> None:
        world = World(model_deployment(A, "m"), model_deployment(B, "n"))
        await world.queued()
        world.hear(image("n", drift="m"))
        assert await world.queued() == [B]

    asyncio.run(main())


def test_a_model_that_moves_concerns_those_who_name_it() -> None:
    async def main() -> None:
        world = World(model_deployment(A, "m"), model_deployment(B, "n"))
        await world.queued()
        world.listener.moved(["m", "unknown"])
        assert await world.queued() == [A]

    asyncio.run(main())


def test_an_object_that_went_concerns_nobody_but_itself() -> None:
    async def main() -> None:
        world = World(model_deployment(A))
        await world.queued()
        world.cache.drop(model_deployment(A))
        world.listener.changed(model_deployment(A))
        assert await world.queued() == [A]
        world.listener.moved(["m"])
        assert await world.queued() == []

    asyncio.run(main())


@pytest.mark.parametrize(
    ("annotations", "handled", "edited"),
    [
        ({}, {}, False),
        ({"modelops.dev/reconcile": "now"}, {}, True),
        ({"modelops.dev/reconcile": "now"}, {"reconcile": "now"}, False),
        ({"modelops.dev/rebuild": "2"}, {"rebuild": "1"}, True),
        ({}, {"rebuild": "1"}, False),
        ({"modelops.dev/anything": "else"}, {}, False),
        ({"modelops.dev/rebuild": "x" * 2000}, {"rebuild": "x" * 1024}, False),
    ],
)
def test_a_wish_is_an_edit(
    annotations: dict[str, str],
    handled: dict[str, str],
    edited: bool,  # noqa: FBT001 - a column of the table
) -> None:
    live = model_deployment(A, handledRequests=handled)
    live["metadata"]["annotations"] = annotations
    assert is_edited(live) is edited


def test_a_new_generation_is_an_edit() -> None:
    assert is_edited(model_deployment(A, observed=0))
    assert is_edited({"metadata": {"generation": 1}})
