"""Builds what ModelImages ask for, and says in their status how it goes."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import structlog
from prometheus_client import Counter, Histogram
from pydantic import ValidationError

from modelops_operator.adapters.kubernetes import MODEL_IMAGES, ApiError, Cluster
from modelops_operator.api.conditions import Condition, ConditionType, merge_conditions, timestamp
from modelops_operator.api.facts import Failure
from modelops_operator.api.reasons import Reason
from modelops_operator.api.resources import ModelImage, ModelImageSpec, validation_message
from modelops_operator.builder.build import Builder, BuiltImage
from modelops_operator.builder.failures import BuildError, broken, passing
from modelops_operator.core.wishes import PREFIX, RECONCILE
from modelops_operator.shell.cache import Cache, Manifest, key_of
from modelops_operator.shell.leader import Always, Leadership, NotLeadingError, fenced
from modelops_operator.shell.queue import Key, WorkQueue

FIRST_REPORT: Final = 0.5
"""Seconds until a build is told of while it goes on: most end before."""
REPORT_INTERVAL: Final = 1.0
"""Seconds between two words on a build's progress."""
LONGEST_BUILD: Final = 1800.0
"""Seconds after which a build is given up for this time."""
RECOVERY: Final = 300.0
LONGEST_RECOVERY: Final = 3600.0
"""Seconds until what only a person can mend is tried again, since nobody may tell us that it was;
doubled each time."""
LOG_LENGTH: Final = 4000
STEP_LENGTH: Final = 255

_log = structlog.get_logger()
_BUILDS: Final = Counter("modelops_builds_total", "Builds.", ["outcome"])
_SECONDS: Final = Histogram(
    "modelops_build_seconds", "How long builds took.", buckets=(0.1, 0.3, 1, 3, 10, 30, 100, 300)
)
_BYTES: Final = Counter("modelops_build_bytes_total", "Bytes of images.", ["transfer"])


@dataclass(slots=True)
class Progress:
    """How far a build is."""

    started: datetime
    step: str = "Starting"
    pushed: int = 0

    def __call__(self, step: str, pushed: int) -> None:
        """Take note of a step and of the bytes that were pushed so far."""
        self.step, self.pushed = step[:STEP_LENGTH], pushed

    def status(self, **fields: Any) -> dict[str, Any]:
        """Give what the status says of it."""
        return {
            "startedAt": timestamp(self.started),
            "step": self.step,
            "bytes": {"pushed": self.pushed, "reused": 0},
            **fields,
        }


@dataclass(slots=True)
class _Stall:
    """What only a person can mend."""

    wish: str | None
    """The annotation modelops.dev/reconcile at the last attempt: another value asks for another."""
    due: float
    """When to try again all the same, by the monotonic clock."""
    delay: float
    """Seconds between the last attempt and that."""


@dataclass(slots=True, kw_only=True)
class Builds:
    """What the builder knows and does about ModelImages."""

    cluster: Cluster
    cache: Cache
    queue: WorkQueue
    builder: Builder
    leadership: Leadership = field(default_factory=Always)
    active: dict[Key, asyncio.Task[BuiltImage]] = field(default_factory=dict)
    stalls: dict[Key, _Stall] = field(default_factory=dict)

    def changed(self, live: Manifest) -> None:
        """Hear of a ModelImage that is new, other than before, or gone."""
        key = key_of(live)
        build = self.active.get(key)
        if build is not None and not self._exists(key):
            build.cancel()
        self.queue.add(key)

    async def work(self) -> None:
        """Take keys for ever, as long as we lead. No error ends it."""
        while True:
            await self.leadership.wait()
            key = await self.queue.get()
            try:
                settled = await self._pass_over(key)
            except NotLeadingError:
                self.queue.done(key)
                self.queue.add(key)
            except ApiError as error:
                delay = self.queue.retry(key)
                _log.warning(
                    "pass failed", image=key[1], error=error.message, again_in=round(delay, 1)
                )
            except Exception:  # noqa: BLE001 - the fault is logged, and the next pass may do
                delay = self.queue.retry(key)
                _log.exception("pass crashed", image=key[1], again_in=round(delay, 1))
            else:
                if settled:
                    self.queue.done(key)
                else:
                    self.queue.retry(key)

    async def _pass_over(self, key: Key) -> bool:
        """Build what is to be built; False: try again soon. Raises ApiError."""
        live = self.cache.get(MODEL_IMAGES.kind, key)
        if live is None or not self._exists(key):
            self.stalls.pop(key, None)
            self.queue.forget(key)
            return True
        if _condition(live, ConditionType.READY).get("status") == "True":
            self.stalls.pop(key, None)
            return True
        stall = self.stalls.get(key)
        if stall is not None and _wish(live) == stall.wish:
            remaining = stall.due - time.monotonic()
            if remaining > 0:
                self.queue.add_later(key, remaining)
                return True
        return await self._build(key, live)

    async def _build(self, key: Key, live: Manifest) -> bool:
        progress = Progress(datetime.now(UTC))
        started = time.monotonic()
        try:
            built = await self._attend(key, _spec(live), progress, quiet=_has_failed(live))
        except NotLeadingError:
            raise
        except BuildError as error:
            return await self._failed(key, live, progress, error)
        except Exception as error:  # noqa: BLE001 - ours, but whoever waits shall hear of it
            _log.exception("build crashed", image=key[1])
            told = f"the builder failed by a fault of its own ({error!r}); its log has the details"
            return await self._failed(key, live, progress, passing(Reason.INTERNAL_ERROR, told))
        if built is None:
            return True
        _BUILDS.labels("done").inc()
        _SECONDS.observe(time.monotonic() - started)
        _BYTES.labels("pushed").inc(built.pushed)
        _BYTES.labels("reused").inc(built.reused)
        self.stalls.pop(key, None)
        await self._write(key, _built_status(progress, built), _ready(built))
        _log.info(
            "built",
            image=key[1],
            reference=built.reference,
            pushed=built.pushed,
            reused=built.reused,
            seconds=round(time.monotonic() - started, 2),
        )
        return True

    async def _attend(
        self, key: Key, spec: ModelImageSpec, progress: Progress, *, quiet: bool
    ) -> BuiltImage | None:
        """Build and tell of it meanwhile; None if nobody wants it any more.

        Raises BuildError, or NotLeadingError where another builder has taken over.
        """
        build = asyncio.create_task(self.builder.build(spec, progress))
        self.active[key] = build
        try:
            async with asyncio.timeout(LONGEST_BUILD):
                pause = FIRST_REPORT
                while not (await asyncio.wait({build}, timeout=pause))[0]:
                    if not self.leadership.leading:
                        raise NotLeadingError
                    if not quiet:
                        await self._report(key, progress)
                    pause = REPORT_INTERVAL
        except TimeoutError:
            message = (
                f"the build took longer than {LONGEST_BUILD / 60:.0f} minutes, the last of them "
                f"with {progress.step!r}; it is tried again"
            )
            raise passing(Reason.BUILD_FAILED, message) from None
        finally:
            del self.active[key]
            build.cancel()
            await asyncio.wait({build})
        return None if build.cancelled() else build.result()

    async def _report(self, key: Key, progress: Progress) -> None:
        """Tell of a build that goes on; what cannot be told is no reason to end it."""
        try:
            await self._write(key, progress.status(), _building(progress.step))
        except ApiError as error:
            _log.warning("progress not told", image=key[1], error=error.message)

    async def _failed(
        self, key: Key, live: Manifest, progress: Progress, error: BuildError
    ) -> bool:
        failure = error.failure
        _BUILDS.labels("stalled" if failure.permanent else "failed").inc()
        if not _says(live, failure):
            status = progress.status(finishedAt=timestamp(datetime.now(UTC)))
            if error.log:
                status["log"] = error.log[-LOG_LENGTH:]
            await self._write(key, status, _not_ready(failure))
            _log.warning("build failed", image=key[1], reason=failure.reason, why=failure.message)
        if not failure.permanent:
            self.stalls.pop(key, None)
            return False
        former = self.stalls.get(key)
        delay = RECOVERY if former is None else min(2 * former.delay, LONGEST_RECOVERY)
        self.stalls[key] = _Stall(_wish(live), time.monotonic() + delay, delay)
        self.queue.add_later(key, delay)
        return True

    async def _write(
        self, key: Key, status: Mapping[str, Any], conditions: Sequence[Condition]
    ) -> None:
        """Write the whole status; of an object that is gone, nothing. Raises ApiError."""
        while (live := self.cache.get(MODEL_IMAGES.kind, key)) is not None:
            try:
                written = await self._send(live, _complete(live, status, conditions))
            except ApiError as error:
                if error.status not in {404, 409}:
                    raise
                present = await self.cluster.get(MODEL_IMAGES, *key)
                if present is None or not self.cache.put(present):
                    return  # Gone; or a newer one is about to be heard of.
            else:
                self.cache.put(written)
                return

    async def _send(self, live: Manifest, status: Mapping[str, Any]) -> Manifest:
        return await fenced(
            self.leadership, lambda: self.cluster.write_status(MODEL_IMAGES, live, status)
        )

    def _exists(self, key: Key) -> bool:
        live = self.cache.get(MODEL_IMAGES.kind, key)
        return live is not None and "deletionTimestamp" not in live["metadata"]


def _spec(live: Manifest) -> ModelImageSpec:
    """Read the spec. Raises BuildError."""
    try:
        return ModelImage.model_validate(live).spec
    except ValidationError as error:
        message = f"the spec is not understood: {validation_message(error)}"
        raise broken(Reason.INVALID_SPEC, message) from error


def _complete(
    live: Manifest, status: Mapping[str, Any], conditions: Sequence[Condition]
) -> dict[str, Any]:
    generation = live["metadata"]["generation"]
    previous = (live.get("status") or {}).get("conditions") or ()
    return {
        **status,
        "observedGeneration": generation,
        "conditions": merge_conditions(
            previous, conditions, generation=generation, now=datetime.now(UTC)
        ),
    }


def _built_status(progress: Progress, built: BuiltImage) -> dict[str, Any]:
    return progress.status(
        step="Done",
        finishedAt=timestamp(datetime.now(UTC)),
        bytes={"pushed": built.pushed, "reused": built.reused},
        image={
            "reference": built.reference,
            "digest": built.digest,
            "lock": built.lock,
            "form": str(built.form),
        },
    )


def _ready(built: BuiltImage) -> Sequence[Condition]:
    message = f"{built.reference} is in the registry"
    return [Condition(ConditionType.READY, "True", Reason.IMAGE_BUILT, message)]


def _building(step: str) -> Sequence[Condition]:
    return [
        Condition(ConditionType.READY, "Unknown", Reason.BUILDING, step),
        Condition(ConditionType.RECONCILING, "True", Reason.BUILDING, step),
    ]


def _not_ready(failure: Failure) -> Sequence[Condition]:
    abnormal = ConditionType.STALLED if failure.permanent else ConditionType.RECONCILING
    return [
        Condition(ConditionType.READY, "False", failure.reason, failure.message),
        Condition(abnormal, "True", failure.reason, failure.message),
    ]


def _says(live: Manifest, failure: Failure) -> bool:
    """Tell whether the status has this very failure already."""
    ready = _condition(live, ConditionType.READY)
    stalled = _condition(live, ConditionType.STALLED).get("status") == "True"
    told = (ready.get("reason"), ready.get("message"), stalled)
    return told == (failure.reason, failure.message, failure.permanent)


def _has_failed(live: Manifest) -> bool:
    """Tell whether the last attempt failed: the next one is not to hide why."""
    return _condition(live, ConditionType.READY).get("status") == "False"


def _condition(live: Manifest, type_: ConditionType) -> Mapping[str, Any]:
    conditions = (live.get("status") or {}).get("conditions") or ()
    return next((one for one in conditions if one["type"] == type_), {})


def _wish(live: Manifest) -> str | None:
    wish: str | None = live["metadata"].get("annotations", {}).get(PREFIX + RECONCILE)
    return wish
