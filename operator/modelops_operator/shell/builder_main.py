"""The builder's process: takes ModelImages, builds them, and says in their status how it went."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import structlog
from pydantic import ValidationError

from modelops_operator.adapters.kubernetes import MODEL_IMAGES, ApiError, Cluster
from modelops_operator.api.conditions import Condition, ConditionType, merge_conditions, timestamp
from modelops_operator.api.config import OperatorConfig
from modelops_operator.api.facts import Failure
from modelops_operator.api.reasons import Reason
from modelops_operator.api.resources import ModelImage, validation_message
from modelops_operator.builder.build import Builder, BuiltImage
from modelops_operator.builder.failures import BuildError
from modelops_operator.shell import endpoints, process
from modelops_operator.shell.cache import Cache, Manifest
from modelops_operator.shell.leader import Always, Leader
from modelops_operator.shell.queue import Key, WorkQueue
from modelops_operator.shell.sweep import Sweeper

RETRY_STALLED: Final = 300.0
"""Seconds until even a hopeless build is tried again: what was wrong may have been mended."""
REPORT_INTERVAL: Final = 1.0
"""Seconds between two writes of a build's progress."""
LONGEST_LOG: Final = 4096

_log = structlog.get_logger()


def main() -> None:
    """Run `modelops-builder`."""
    process.main(run)


async def run(config: OperatorConfig) -> None:
    """Run until a signal."""
    cluster, cache, queue = await Cluster.connect(), Cache(), WorkQueue("modelimages")
    namespace = config.operator.namespace

    def changed(live: Manifest) -> None:
        if wants_work(live):
            queue.add((namespace, live["metadata"]["name"]))

    sweeper = Sweeper(cluster, cache, [(MODEL_IMAGES, (namespace,), "")], changed)
    leader = _leader(cluster, config)
    async with Builder(config) as builder:
        worker = Worker(cluster=cluster, cache=cache, queue=queue, builder=builder, leader=leader)
        runners = await endpoints.serve(
            health_port=config.operator.health_port,
            metrics_port=config.operator.metrics_port,
            ready=sweeper.synced.is_set,
            busy_since=worker.busy_since,
        )
        try:
            await process.until_first(
                _watch(sweeper, cache, namespace, worker),
                sweeper.run(config.operator.sweep_interval, _nothing),
                leader.run() if isinstance(leader, Leader) else asyncio.Event().wait(),
                *(worker.work() for _ in range(config.builder.concurrency)),
            )
        finally:
            await cluster.close()
            for runner in runners:
                await runner.cleanup()


def _leader(cluster: Cluster, config: OperatorConfig) -> Leader | Always:
    election = config.operator.leader_election
    if not election.enabled:
        return Always()
    return Leader(
        cluster,
        namespace=config.operator.namespace,
        lease=f"{election.lease_name}-builder",
        identity=process.identity(),
    )


async def _nothing() -> None:
    return


async def _watch(sweeper: Sweeper, cache: Cache, namespace: str, worker: "Worker") -> None:
    await sweeper.synced.wait()
    registry = process.watches(cache, [(MODEL_IMAGES, False)], worker.changed)
    await process.kopf_operator(registry, [namespace])


def wants_work(live: Manifest) -> bool:
    """Tell whether a ModelImage is neither built, nor given up, nor being deleted."""
    settled = _conditions(live)
    built = settled.get("Ready", {}).get("status") == "True"
    given_up = settled.get("Stalled", {}).get("status") == "True"
    return not (built or given_up or "deletionTimestamp" in live["metadata"])


@dataclass(slots=True)
class Worker:
    """Builds what the queue holds."""

    cluster: Cluster
    cache: Cache
    queue: WorkQueue
    builder: Builder
    leader: Leader | Always
    progress: float = field(default_factory=time.monotonic)
    active: dict[Key, asyncio.Task[BuiltImage]] = field(default_factory=dict)

    def changed(self, live: Manifest) -> None:
        """Take up what wants to be built; end a build that nobody wants any more."""
        key = (live["metadata"]["namespace"], live["metadata"]["name"])
        known = self.cache.get(MODEL_IMAGES.kind, key)
        build = self.active.get(key)
        if build is not None and (known is None or "deletionTimestamp" in known["metadata"]):
            build.cancel()
        if known is not None and wants_work(known):
            self.queue.add(key)

    def busy_since(self) -> float:
        """Give the monotonic time of the last progress; now, where nothing waits for it."""
        waits = self.leader.leading and not self.queue.empty
        return self.progress if waits else time.monotonic()

    async def work(self) -> None:
        """Take keys for ever. No error ends it."""
        while True:
            await self.leader.wait()
            key = await self.queue.get()
            log = _log.bind(image=key[1])
            try:
                settled = await self._build(key)
            except ApiError as error:
                log.warning("pass failed", error=error.message)
                settled = False
            except Exception:
                log.exception("pass crashed")
                settled = False
            self.progress = time.monotonic()
            if settled:
                self.queue.done(key)
            else:
                self.queue.retry(key)

    async def _build(self, key: Key) -> bool:
        """Build one image; False: try again later."""
        live = self.cache.get(MODEL_IMAGES.kind, key)
        if live is None:
            self.queue.forget(key)
            return True
        if not wants_work(live) and not _given_up(live):
            return True
        report = Report(self, key)
        try:
            image = ModelImage.model_validate(live)
        except ValidationError as error:
            message = f"the spec is not understood: {validation_message(error)}"
            return await self._fail(
                report, Failure(reason=Reason.INVALID_SPEC, message=message, permanent=True), ""
            )
        await report.say(_building("Starting"), step="Starting", finished=None)
        build = asyncio.create_task(self.builder.build(image.spec, report))
        self.active[key] = build
        try:
            built = await self._attend(build, report)
        except asyncio.CancelledError:
            if not build.cancelled():
                build.cancel()
                raise
            _log.info("build cancelled", image=key[1])
            return True
        except BuildError as error:
            return await self._fail(report, error.failure, error.log)
        finally:
            del self.active[key]
        message = f"pushed {built.reference}"
        ready = Condition(ConditionType.READY, "True", Reason.IMAGE_BUILT, message)
        await report.say(
            [ready],
            step="Done",
            image={"reference": built.reference, "digest": built.digest, "lock": built.lock},
            bytes={"pushed": built.pushed, "reused": built.reused},
            log=None,
        )
        _log.info("built", image=key[1], reference=built.reference, pushed=built.pushed)
        return True

    async def _attend(self, build: "asyncio.Task[BuiltImage]", report: "Report") -> BuiltImage:
        """Wait for a build and tell of its progress now and then."""
        while True:
            done, _ = await asyncio.wait({build}, timeout=REPORT_INTERVAL)
            self.progress = time.monotonic()
            if done:
                return build.result()
            await report.tell_progress()

    async def _fail(self, report: "Report", failure: Failure, log: str) -> bool:
        told = (failure.reason, failure.message)
        conditions = [Condition(ConditionType.READY, "False", *told)]
        abnormal = ConditionType.STALLED if failure.permanent else ConditionType.RECONCILING
        conditions.append(Condition(abnormal, "True", *told))
        await report.say(conditions, log=log[-LONGEST_LOG:] or None)
        _log.warning("build failed", image=report.key[1], error=failure.message)
        if failure.permanent:
            self.queue.add_later(report.key, RETRY_STALLED)
        return failure.permanent


class Report:
    """Writes the status of one ModelImage."""

    def __init__(self, worker: Worker, key: Key) -> None:
        self._worker = worker
        self.key = key
        self._started = timestamp(datetime.now(UTC))
        self._step = ""
        self._pushed = 0
        self._told: tuple[str, int] = ("", 0)

    def __call__(self, step: str, pushed: int) -> None:
        """Take note of a build's step and of the bytes pushed so far."""
        self._step, self._pushed = step, pushed

    async def tell_progress(self) -> None:
        """Write what was noted, if it is news."""
        now = (self._step, self._pushed)
        if now != self._told:
            self._told = now
            pushed = {"pushed": self._pushed, "reused": 0}
            await self.say(_building(self._step), step=self._step, bytes=pushed, finished=None)

    async def say(
        self, conditions: list[Condition], *, finished: str | None = "now", **fields: Any
    ) -> None:
        """Write conditions and fields over the present status; None takes a field away."""
        live = self._worker.cache.get(MODEL_IMAGES.kind, self.key)
        if live is None or not self._worker.leader.leading:
            return
        generation, now = live["metadata"]["generation"], datetime.now(UTC)
        previous: Mapping[str, Any] = live.get("status") or {}
        status = {
            **previous,
            "observedGeneration": generation,
            "conditions": merge_conditions(
                previous.get("conditions", []), conditions, generation=generation, now=now
            ),
            "startedAt": self._started,
            "finishedAt": finished and timestamp(now),
            **fields,
        }
        status = {name: value for name, value in status.items() if value is not None}
        written = await self._worker.cluster.write_status(MODEL_IMAGES, live, status)
        self._worker.cache.put(written)


def _building(step: str) -> list[Condition]:
    return [
        Condition(ConditionType.READY, "Unknown", Reason.BUILDING, step),
        Condition(ConditionType.RECONCILING, "True", Reason.BUILDING, step),
    ]


def _given_up(live: Manifest) -> bool:
    return _conditions(live).get("Stalled", {}).get("status") == "True"


def _conditions(live: Manifest) -> dict[str, Mapping[str, Any]]:
    return {one["type"]: one for one in (live.get("status") or {}).get("conditions", [])}


if __name__ == "__main__":
    main()
