"""Works on ModelDeployments: gathers, asks the core, carries out, one key at a time."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import structlog
from prometheus_client import Counter, Histogram
from pydantic import ValidationError

from modelops_operator.adapters.kubernetes import (
    MODEL_DEPLOYMENTS,
    MODEL_IMAGES,
    ApiError,
    Cluster,
)
from modelops_operator.api.config import OperatorConfig
from modelops_operator.api.facts import Failure
from modelops_operator.api.resources import ModelDeployment
from modelops_operator.core.image import wanted_image
from modelops_operator.core.reconcile import invalid, reconcile
from modelops_operator.core.state import ChildRef, Health, Plan
from modelops_operator.shell.cache import Cache, Manifest, owner_of
from modelops_operator.shell.execute import Executor, NotLeadingError
from modelops_operator.shell.gather import Gatherer
from modelops_operator.shell.leader import Always, Leader
from modelops_operator.shell.models import ModelFollower
from modelops_operator.shell.queue import Key, Lane, WorkQueue
from modelops_operator.shell.sweep import is_young

_log = structlog.get_logger()
_PASSES: Final = Counter("modelops_passes_total", "Passes over objects.", ["outcome"])
_DURATION: Final = Histogram("modelops_pass_seconds", "How long a pass takes.")


@dataclass(slots=True)
class Controller:
    """What one replica knows and does about ModelDeployments."""

    config: OperatorConfig
    cluster: Cluster
    cache: Cache
    queue: WorkQueue
    gatherer: Gatherer
    executor: Executor
    leader: Leader | Always
    health: dict[Key, Health] = field(default_factory=dict)
    """The last verdict on each."""
    refused: dict[Key, dict[ChildRef, Failure]] = field(default_factory=dict)
    """What the API server refused in the last pass over each."""
    progress: float = field(default_factory=time.monotonic)
    """When a worker last finished something, or found nothing to do."""
    follower: ModelFollower = field(init=False)

    # --- what is heard ----------------------------------------------------------------------

    def changed(self, live: Manifest) -> None:
        """Put the keys that an object concerns into the queue."""
        kind = live["kind"]
        if kind == MODEL_DEPLOYMENTS.kind:
            self.queue.add((live["metadata"]["namespace"], live["metadata"]["name"]), Lane.EDIT)
        elif kind == MODEL_IMAGES.kind:
            self._refresh(self._waiting_for(live))
        elif (owner := owner_of(live)) is not None:
            self._refresh([owner])

    def busy_since(self) -> float:
        """Give the monotonic time of the last progress; now, where nothing waits for it."""
        waits = self.leader.leading and not self.queue.empty
        return self.progress if waits else time.monotonic()

    def moved(self, models: Iterable[str] | None) -> None:
        """Look again at what follows these models; None: at whatever is not resolved."""
        names = None if models is None else set(models)
        for key, live in self.cache.all(MODEL_DEPLOYMENTS.kind).items():
            named = {model.get("name") for model in live["spec"].get("models", {}).values()}
            if (names is None and not _resolved(live)) or (names and named & names):
                self.queue.add(key, Lane.EDIT)

    def judged(self, key: Key, health: Health) -> None:
        """Keep a verdict; look at the object again when it says something else."""
        if self.health.get(key) != health:
            self.health[key] = health
            self.queue.add(key, Lane.REFRESH)

    # --- what is done -----------------------------------------------------------------------

    async def work(self) -> None:
        """Take keys for ever. No error ends it."""
        while True:
            await self.leader.wait()
            key = await self.queue.get()
            log = _log.bind(namespace=key[0], name=key[1])
            try:
                with _DURATION.time():
                    again = await self.pass_over(key)
            except NotLeadingError:
                self.queue.retry(key)
            except ApiError as error:
                delay = self.queue.retry(key)
                _PASSES.labels("failed").inc()
                log.warning("pass failed", error=error.message, again_in=round(delay, 1))
            except Exception:
                delay = self.queue.retry(key)
                _PASSES.labels("crashed").inc()
                log.exception("pass crashed", again_in=round(delay, 1))
            else:
                _PASSES.labels("done").inc()
                if again:
                    self.queue.retry(key)
                else:
                    self.queue.done(key)
            self.progress = time.monotonic()

    async def pass_over(self, key: Key) -> bool:
        """Do what is to be done for one object; True: something was refused, try again later.

        Raises ApiError where the API server did not answer, NotLeadingError where we lead no more.
        """
        live = self.cache.get(MODEL_DEPLOYMENTS.kind, key)
        if live is None:
            self._forget(key)
            return False
        plan = await self._plan(key, live)
        refused = await self.executor.execute_writes(plan, key[0])
        if refused != self.refused.get(key, {}):
            self.refused[key] = refused
            if refused:
                plan = await self._plan(key, live)  # The status should say so, now.
        written = await self.executor.write_status(live, plan.status)
        if written:
            _log_decision(key, plan)
            for event in plan.events:
                await self.executor.tell(live, event)
        if plan.requeue_after is not None:
            self.queue.add_later(key, plan.requeue_after.total_seconds())
        return bool(refused)

    async def delete_unwanted_images(self) -> None:
        """Delete the ModelImages that no ModelDeployment asks for or runs. Raises ApiError."""
        images = [
            live
            for live in self.cache.all(MODEL_IMAGES.kind).values()
            if not is_young(live) and "deletionTimestamp" not in live["metadata"]
        ]
        if not images:
            return
        wanted: set[str] = set()
        for namespace in self.config.operator.namespaces or (None,):
            async for live in self.cluster.list(MODEL_DEPLOYMENTS, namespace):
                wanted |= await self._images_of(live)
        for image in images:
            if image["metadata"]["name"] not in wanted and not self._runs(image):
                _log.info("deletes image", image=image["metadata"]["name"])
                await self.executor.delete_image(image)

    async def _plan(self, key: Key, live: Manifest) -> Plan:
        now = datetime.now(UTC)
        previous = live.get("status") or {}
        failures = self.refused.get(key, {})
        health = self.health.get(key)
        try:
            desired = ModelDeployment.model_validate(live)
        except ValidationError as error:
            observed = await self.gatherer.observe(key, models={}, health=health, failures=failures)
            return invalid(live["metadata"], previous, error, observed, now=now)
        edited = previous.get("observedGeneration") != desired.metadata.generation
        models = await self.follower.resolve(
            desired.spec.models.by_role(), fresh=edited or not _resolved(live)
        )
        observed = await self.gatherer.observe(key, models=models, health=health, failures=failures)
        return reconcile(desired, observed, now=now, config=self.config)

    async def _images_of(self, live: Manifest) -> set[str]:
        """Name the images that an object may ask for; all of them where that cannot be told."""
        every = {name for _, name in self.cache.all(MODEL_IMAGES.kind)}
        try:
            desired = ModelDeployment.model_validate(live)
        except ValidationError:
            return every
        models = await self.follower.resolve(desired.spec.models.by_role(), fresh=False)
        found = {role: model for role, model in models.items() if not isinstance(model, Failure)}
        if len(found) < len(models):
            return every
        rebuilds = {desired.status.stored.get("handledRequests", {}).get("rebuild"), None}
        rebuilds.add(desired.metadata.annotations.get("modelops.dev/rebuild"))
        return {
            wanted_image(found, rebuild=rebuild, config=self.config)["metadata"]["name"]
            for rebuild in rebuilds
        }

    def _runs(self, image: Manifest) -> bool:
        """Tell whether a Deployment of ours runs this image, or may be on its way to."""
        reference = image.get("status", {}).get("image", {}).get("reference")
        return reference is not None and any(
            (live.get("status") or {}).get("image", {}).get("reference") == reference
            for live in self.cache.all(MODEL_DEPLOYMENTS.kind).values()
        )

    def _waiting_for(self, image: Manifest) -> list[Key]:
        """Find who serves these models: whoever has the image's predictor in its spec."""
        models = {model["name"] for model in image["spec"]["models"]}
        return [
            key
            for key, live in self.cache.all(MODEL_DEPLOYMENTS.kind).items()
            if live["spec"].get("models", {}).get("predictor", {}).get("name") in models
        ]

    def _refresh(self, keys: Iterable[Key]) -> None:
        for key in keys:
            self.queue.add(key, Lane.REFRESH)

    def _forget(self, key: Key) -> None:
        self.health.pop(key, None)
        self.refused.pop(key, None)
        self.queue.forget(key)
        self.gatherer.forget()


def _resolved(live: Manifest) -> bool:
    conditions: list[Mapping[str, Any]] = (live.get("status") or {}).get("conditions", [])
    return any(one["type"] == "ModelsResolved" and one["status"] == "True" for one in conditions)


def _log_decision(key: Key, plan: Plan) -> None:
    conditions = {one["type"]: one for one in plan.status.get("conditions", [])}
    ready = conditions.get("Ready", {})
    _log.info(
        "decides",
        namespace=key[0],
        name=key[1],
        ready=ready.get("status"),
        reason=ready.get("reason"),
        applies=[f"{one['kind']}/{one['metadata']['name']}" for one in plan.apply],
        deletes=[f"{one.kind}/{one.name}" for one in plan.delete],
        image=plan.image["metadata"]["name"] if plan.image else None,
    )
