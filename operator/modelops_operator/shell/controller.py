"""Works on ModelDeployments: gathers, asks the core, carries out, one key at a time."""

import time
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import structlog
from prometheus_client import Counter
from pydantic import ValidationError

from modelops_operator.adapters.kubernetes import MODEL_DEPLOYMENTS, MODEL_IMAGES, ApiError, Cluster
from modelops_operator.api.conditions import ConditionType
from modelops_operator.api.config import OperatorConfig
from modelops_operator.api.facts import Failure, Role
from modelops_operator.api.resources import ModelDeployment
from modelops_operator.core import children
from modelops_operator.core.notices import notices
from modelops_operator.core.owner import Owner
from modelops_operator.core.reconcile import invalid, reconcile
from modelops_operator.core.state import ChildRef, Health, Plan
from modelops_operator.core.status import merely_goes_on
from modelops_operator.core.wishes import PREFIX, REBUILD, RECONCILE, WISH_LENGTH
from modelops_operator.shell.cache import Cache, Manifest, key_of, owner_of
from modelops_operator.shell.execute import Executor, OutdatedError
from modelops_operator.shell.faults import status_with_fault
from modelops_operator.shell.fleet import Fleet
from modelops_operator.shell.follower import ModelFollower
from modelops_operator.shell.gather import Gatherer, Memory
from modelops_operator.shell.leader import Leadership, NotLeadingError
from modelops_operator.shell.queue import Key, Lane, WorkQueue
from modelops_operator.shell.signatures import Signatures
from modelops_operator.shell.webhook import Webhook

KIND: Final = MODEL_DEPLOYMENTS.kind

SECOND_LOOK: Final = 0.5
"""Seconds after a write until the object is looked at as it is then."""
PROGRESS: Final = 15.0
"""Seconds between two words on how far a rollout is: most end before the second."""
FLURRY: Final = 0.2
"""Seconds until a change of a child is looked at: others follow at once."""

_log = structlog.get_logger()
_PASSES: Final = Counter("modelops_passes_total", "Passes over ModelDeployments.", ["outcome"])


@dataclass(slots=True, kw_only=True)
class Controller:
    """What one replica knows and does about ModelDeployments."""

    config: OperatorConfig
    cluster: Cluster
    cache: Cache
    queue: WorkQueue
    fleet: Fleet
    follower: ModelFollower
    signatures: Signatures
    gatherer: Gatherer
    executor: Executor
    leadership: Leadership
    webhook: Webhook | None = None
    """Tells the world of alarms and recoveries."""
    health: dict[Key, Health] = field(default_factory=dict)
    """The last verdict on each."""
    refused: dict[Key, dict[ChildRef, Failure]] = field(default_factory=dict)
    """What the API server refused in the last pass over each."""
    untold: set[Key] = field(default_factory=set)
    """Those that something was written for, of which the status does not tell yet."""
    told: dict[Key, float] = field(default_factory=dict)
    """When the status of those on their way was written last, by the monotonic clock."""

    def judged(self, key: Key, health: Health) -> None:
        """Keep a verdict; look at the object again when it says something else."""
        if self.health.get(key) != health:
            self.health[key] = health
            self.queue.add(key, Lane.REFRESH)

    async def work(self) -> None:
        """Take keys for ever, as long as we lead. No error ends it."""
        while True:
            await self.leadership.wait()
            key = await self.queue.get()
            log = _log.bind(namespace=key[0], name=key[1])
            try:
                complete = await self._pass_over(key)
            except (NotLeadingError, OutdatedError):
                self.queue.done(key)
                self.queue.add(key)
            except ApiError as error:
                _PASSES.labels("failed").inc()
                delay = self.queue.retry(key)
                log.warning("pass failed", error=error.message, again_in=round(delay, 1))
            except Exception as error:
                _PASSES.labels("crashed").inc()
                await self._confess(key, error)
                delay = self.queue.retry(key)
                log.exception("pass crashed", again_in=round(delay, 1))
            else:
                _PASSES.labels("done" if complete else "refused").inc()
                if complete:
                    self.queue.done(key)
                else:
                    self.queue.retry(key)

    async def _pass_over(self, key: Key) -> bool:
        """Do what is to be done for one object; False where something was refused.

        Raises ApiError where the API server did not answer, NotLeadingError where we lead no more,
        OutdatedError where things are not as they were known.
        """
        live = self.cache.get(KIND, key)
        if live is None:
            self._forget(key)
            return True
        plan = await self._plan(key, live)
        before = self.refused.get(key, {})
        for reference in plan.verify:
            self.signatures.ask(reference, key)
        refused = await self.executor.write(plan, _owner(live))
        self.refused[key] = refused
        news, achieved = refused != before, _achieved(plan, refused)
        if achieved:
            # The cache has what we wrote before the watch tells it, so the watch brings no news.
            lane = Lane.EDIT if is_edited(live) else Lane.REFRESH
            self.queue.add_later(key, SECOND_LOOK, lane)
        if achieved and not news and key not in self.untold:
            # The second look tells of it, and by then maybe of its end: one write less.
            self.untold.add(key)
            told, written = plan, False
        else:
            self.untold.discard(key)
            # What was refused shall be told now, and so shall what somebody undoes every time.
            told = await self._plan(key, live) if news or achieved else plan
            written = await self._tell(key, live, told)
        if written or news or achieved:
            _log_decision(key, live.get("status") or {}, plan, told, refused)
        return not refused

    async def _tell(self, key: Key, live: Manifest, plan: Plan) -> bool:
        """Write the status and the Events; False where the status is as it should be."""
        if plan.requeue_after is not None:
            self.queue.add_later(key, plan.requeue_after.total_seconds())
        if self._waits(key, live.get("status") or {}, plan.status):
            return False
        try:
            written = await self.executor.write_status(live, plan.status)
        except ApiError as error:
            if error.status not in {404, 409}:
                raise
            await self._read_again(key)
            return False
        if written:
            for event in plan.events:
                await self.executor.tell(live, event)
            if self.webhook is not None:
                self.webhook.tell(notices(live, plan.status))
        return written

    def _waits(self, key: Key, before: Manifest, after: Manifest) -> bool:
        """Tell whether a status is not worth a write yet, and see to it that it will be."""
        now = time.monotonic()
        if before == after or not merely_goes_on(before, after):
            self.told.pop(key, None)
            if ConditionType.RECONCILING in {one["type"] for one in after.get("conditions") or ()}:
                self.told[key] = now
            return False
        left = self.told.setdefault(key, now) + PROGRESS - now
        if left > 0:
            self.queue.add_later(key, left)
            return True
        self.told[key] = now
        return False

    async def _read_again(self, key: Key) -> None:
        """Look at what became of an object that was written to, or deleted, meanwhile."""
        live = await self.cluster.get(MODEL_DEPLOYMENTS, *key)
        if live is not None and self.cache.put(live):
            self.fleet.note(key, live)
        if live is not None:
            self.queue.add(key)

    async def _plan(self, key: Key, live: Manifest) -> Plan:
        now = datetime.now(UTC)
        memory = Memory(
            health=self.health.get(key),
            refused=self.refused.get(key, {}),
            signatures=self.signatures.known,
        )
        try:
            desired = ModelDeployment.model_validate(live)
        except ValidationError as error:
            observed = await self.gatherer.observe(key, {}, memory)
            return invalid(live["metadata"], live.get("status") or {}, error, observed, now=now)
        references = desired.spec.models.by_role()
        models = await self.follower.resolve(references, fresh=is_edited(live))
        kinds = children.kinds(desired.spec.serving)
        observed = await self.gatherer.observe(key, models, memory, kinds=kinds)
        return reconcile(desired, observed, now=now, config=self.config)

    async def _confess(self, key: Key, error: Exception) -> None:
        """Say in the status that we failed; where even that fails, the log has it all."""
        live = self.cache.get(KIND, key)
        if live is not None:
            with suppress(ApiError, NotLeadingError, ValueError):
                status = status_with_fault(live, error, datetime.now(UTC))
                await self.executor.write_status(live, status)

    def _forget(self, key: Key) -> None:
        self.health.pop(key, None)
        self.refused.pop(key, None)
        self.told.pop(key, None)
        self.untold.discard(key)
        self.queue.forget(key)
        self.gatherer.forget(key)


class Listener:
    """Puts into the queue what is heard of: by the watches, the sweep and the model registry."""

    def __init__(self, cache: Cache, fleet: Fleet, queue: WorkQueue) -> None:
        self._cache = cache
        self._fleet = fleet
        self._queue = queue

    def changed(self, live: Manifest) -> None:
        """Hear of an object that is new, other than before, or gone; the cache has it already."""
        if live["kind"] == KIND:
            key = key_of(live)
            now = self._cache.get(KIND, key)
            self._fleet.note(key, now)
            edited = now is None or is_edited(now)
            self._queue.add(key, Lane.EDIT if edited else Lane.REFRESH)
        elif live["kind"] == MODEL_IMAGES.kind:
            self.refresh(self._fleet.naming(predictor_of(live)))
        elif (owner := owner_of(live)) is not None:
            self._queue.add_later(owner, FLURRY)

    def moved(self, models: Collection[str]) -> None:
        """Hear of models that resolve differently."""
        for model in models:
            self.refresh(self._fleet.naming(model))

    def refresh(self, keys: Iterable[Key]) -> None:
        """Have objects looked at again, of which something else is known now."""
        for key in keys:
            self._queue.add(key, Lane.REFRESH)


def is_edited(live: Manifest) -> bool:
    """Tell whether the user asks for something that the status does not know of yet."""
    metadata, status = live["metadata"], live.get("status") or {}
    if metadata.get("generation") != status.get("observedGeneration"):
        return True
    handled, annotations = status.get("handledRequests") or {}, metadata.get("annotations", {})
    wishes = {name: annotations.get(PREFIX + name, "") for name in (RECONCILE, REBUILD)}
    return any(value and value[:WISH_LENGTH] != handled.get(name) for name, value in wishes.items())


def predictor_of(image: Manifest) -> str:
    """Name the model that a ModelImage predicts with."""
    models: Iterable[Mapping[str, Any]] = image["spec"]["models"]
    return next((model["name"] for model in models if model["role"] == Role.PREDICTOR), "")


def changes(before: Manifest, after: Manifest) -> set[str]:
    """Name what differs between two statuses: fields, and of the conditions their types."""
    fields = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    told, tells = (
        {one["type"]: (one["status"], one["reason"], one["message"]) for one in found}
        for found in (before.get("conditions") or (), after.get("conditions") or ())
    )
    types = {type_ for type_ in told.keys() | tells.keys() if told.get(type_) != tells.get(type_)}
    return types | (fields - {"conditions"})


def _owner(live: Manifest) -> Owner:
    metadata = live["metadata"]
    return Owner(name=metadata["name"], namespace=metadata["namespace"], uid=metadata["uid"])


def _achieved(plan: Plan, refused: Collection[ChildRef]) -> bool:
    """Tell whether anything was written but the status."""
    applied = {ChildRef(one["kind"], one["metadata"]["name"]) for one in plan.apply}
    asked = plan.image is not None and not any(ref.kind == MODEL_IMAGES.kind for ref in refused)
    return asked or plan.handover is not None or bool((applied | set(plan.delete)) - set(refused))


def _log_decision(
    key: Key, before: Manifest, plan: Plan, told: Plan, refused: Mapping[ChildRef, Failure]
) -> None:
    """Say in one line what was done and why; what changes nothing is not worth one."""
    conditions = {one["type"]: one for one in told.status.get("conditions", [])}
    decisive: Mapping[str, Any] = next(
        (conditions[name] for name in ("Stalled", "Reconciling", "Ready") if name in conditions),
        {},
    )
    _log.info(
        "decided",
        namespace=key[0],
        name=key[1],
        ready=conditions.get("Ready", {}).get("status"),
        reason=decisive.get("reason"),
        why=decisive.get("message"),
        revision=told.status.get("revision"),
        **{
            name: value
            for name, value in {
                "image": plan.image["metadata"]["name"] if plan.image else None,
                "changed": sorted(changes(before, told.status)),
                "applied": [manifest["kind"] for manifest in plan.apply],
                "deleted": [f"{ref.kind}/{ref.name}" for ref in plan.delete],
                "refused": {ref.kind: failure.message for ref, failure in refused.items()},
            }.items()
            if value
        },
    )
