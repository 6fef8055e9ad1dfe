"""The verdict on one deployment: conditions and evidence, from its history alone.

    health = evaluate(history, watch, now)

The same history, watch and moment give the same verdict: nothing is remembered, so that a
restarted operator which reads the same lines says the same. What is not known is `Unknown`: a
model without traffic is never healthy.

DriftDetected and OutliersDetected are True at severity Alert only. A warning shows as the
reason, with status False.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, Final

from modelops_runtime.profile import Profile

from modelops_operator.api.conditions import Condition, ConditionType, timestamp
from modelops_operator.api.facts import Failure, Role
from modelops_operator.api.reasons import Reason
from modelops_operator.api.resources import Objectives, Severity
from modelops_operator.core.findings import bounded, count
from modelops_operator.core.health import evidence, service
from modelops_operator.core.health.judgement import (
    NOTHING_LASTS,
    DriftVerdict,
    FeatureVerdict,
    OutlierVerdict,
    counted,
    fits,
    judge_day,
    judge_drift,
    judge_outliers,
    judge_samples,
    sampled,
)
from modelops_operator.core.health.service import Pending, Restart
from modelops_operator.core.health.watch import OfOthers, OutlierReference, Reporter, Watch
from modelops_operator.core.health.windows import MINIMUM_ROWS, Groups, History, Window
from modelops_operator.core.state import Health

PATIENCE_WINDOWS: Final = 3
PATIENCE: Final = timedelta(minutes=1)
"""Three windows, and at least this long: then a pod that reports nothing is silent, and a model
that nobody asks has no traffic."""
DETECTORS: Final = frozenset({Role.DRIFT, Role.OUTLIER})
TOLD: Final = 0.01
"""Share of the requests turned away, or of the time held back, from which that is told."""
_NAMED = 3
"""Features and pods that a message names."""
_NEVER: Final = datetime.max.replace(tzinfo=UTC)


Said = tuple[Reason | str, str]
"""Reason and message."""
Lasting = Mapping[str, FeatureVerdict]


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What all checks look at."""

    history: History
    watch: Watch
    now: datetime
    groups: Groups
    lasting: Lasting
    """What the last day shows."""

    @cached_property
    def recent(self) -> Sequence[Window]:
        """The last windows that have settled."""
        return self.history.recent(self.now)

    @cached_property
    def patience(self) -> timedelta:
        """How long nothing may be heard."""
        windows = PATIENCE_WINDOWS * self.watch.monitoring.window
        return max(windows, PATIENCE) + self.history.settle

    @cached_property
    def silent(self) -> tuple[Reporter, ...]:
        """The pods that should have reported and did not."""
        return tuple(
            reporter
            for reporter in self.watch.reporters
            if self.last_word(reporter) + self.patience <= self.now
        )

    def last_word(self, reporter: Reporter) -> datetime:
        """Give the end of a pod's last window, or when it became ready."""
        return max(reporter.since, self.history.heard().get(reporter.pod, reporter.since))

    @property
    def speechless(self) -> bool:
        """Whether there are pods and none of them reports."""
        return 0 < len(self.watch.reporters) == len(self.silent)

    @property
    def idle(self) -> bool:
        """Whether nobody has asked for a prediction lately."""
        return not self.lately(self.history.traffic)

    def lately(self, moment: datetime | None) -> bool:
        """Whether it is recent enough to tell of."""
        return moment is not None and moment + self.patience > self.now


Check = Callable[[Scene], Said | None]


def evaluate(history: History, watch: Watch, now: datetime) -> Health:
    """Judge what the pods of one revision told."""
    return _judged_in(_scene(history, watch, now))


def _scene(history: History, watch: Watch, now: datetime, lasting: Lasting | None = None) -> Scene:
    """Look at everything; `lasting` where it is known already."""
    groups = history.groups(now)
    return Scene(
        history=history,
        watch=watch,
        now=now,
        groups=groups,
        lasting=_lasting(history, watch) if lasting is None else lasting,
    )


def _judged_in(scene: Scene) -> Health:
    watch, now, judged = scene.watch, scene.now, scene.groups.judged
    figures: dict[str, Any] = {}
    if judged:
        figures = {
            "evaluatedAt": timestamp(now),
            "source": watch.source,
            **evidence.stretch(judged),
        }
    serving, figures["service"] = _service(scene)
    drift, figures["drift"] = _drift(scene)
    outliers, figures["outliers"] = _outliers(scene)
    for name, role in (("drift", Role.DRIFT), ("outliers", Role.OUTLIER)):
        if figures[name] and role in watch.detectors:
            figures[name] = {**figures[name], "detector": watch.detectors[role]}
    return Health.of(
        conditions=(drift, outliers, _monitoring(scene), serving),
        evidence={name: found for name, found in figures.items() if found},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A verdict, and what it was given on."""

    health: Health
    watch: Watch
    revision: str
    at: datetime
    until: datetime
    """When another one may follow, though nothing happens."""
    lasting: Lasting
    """What the last day shows; it changes every eight hours."""

    def holds(self, now: datetime) -> bool:
        """Whether it stands as long as nothing happens; not when the clock was set back."""
        return self.at <= now < self.until


def renewed(known: Standing | None, history: History, watch: Watch, now: datetime) -> Standing:
    """Judge again where that may say something else: most of a fleet has nothing new to tell.

    What says the same but for its moment is the former verdict itself.
    """
    if known is None or history.revision != known.revision:
        known, lasting = None, None
    elif known.holds(now) and watch == known.watch and not history.moved(known.at):
        return known
    elif history.day_moved(known.at) or _held(watch) != _held(known.watch):
        lasting = None
    else:
        lasting = known.lasting
    scene = _scene(history, watch, now, lasting)
    health = _judged_in(scene)
    if known is not None and _timeless(health) == _timeless(known.health):
        health = known.health
    return Standing(
        health=health,
        watch=watch,
        revision=history.revision,
        at=now,
        until=min((each for each in _moments(scene) if each > now), default=_NEVER),
        lasting=scene.lasting,
    )


def _moments(scene: Scene) -> Iterator[datetime]:
    """Give when a verdict may change though nothing happens: mostly as something is long ago."""
    history = scene.history
    yield from history.moments()
    for reporter in scene.watch.reporters:
        yield scene.last_word(reporter) + scene.patience
    for moment in (history.traffic, history.skewed, history.damaged):
        if moment is not None:
            yield moment + scene.patience
    for restart in scene.watch.restarts:
        yield restart.at + service.RECENT
    for pod in scene.watch.pending:
        yield pod.since + service.PENDING_LONG


def _lasting(history: History, watch: Watch) -> Lasting:
    if not isinstance(watch.drift, Profile):
        return NOTHING_LASTS
    return judge_day(history.day(), watch.drift, watch.monitoring.drift)


def _held(watch: Watch) -> tuple[object, ...]:
    """Give what the last day is held against."""
    return watch.drift, watch.monitoring.drift


def _timeless(health: Health) -> tuple[object, ...]:
    evidence = {name: each for name, each in health.evidence.items() if name != "evaluatedAt"}
    return health.conditions, evidence


# --- Why nothing is known ----------------------------------------------------------------


def _nobody_serves(scene: Scene) -> Said | None:
    if scene.watch.reporters or scene.history.heard():
        return None
    return Reason.AWAITING_TELEMETRY, "no pod of the running revision is ready yet"


def _nobody_reports(scene: Scene) -> Said | None:
    if not scene.speechless:
        return None
    if (known := _unreadable(scene)) is not None:
        return known
    since = max(reporter.since for reporter in scene.silent)
    heard = scene.history.heard().values()
    return Reason.NO_TELEMETRY, (
        f"{_pods(scene.silent)} reported nothing since {timestamp(max([since, *heard]))}:"
        " look into the log with `kubectl logs`; every pod writes a line of telemetry at the end"
        f" of each window ({scene.watch.monitoring.window.total_seconds():.0f} s)"
    )


def _nothing_heard_yet(scene: Scene) -> Said | None:
    if scene.history.heard():
        return None
    awaiting = Reason.AWAITING_TELEMETRY, "the first window has not ended yet"
    return _unreadable(scene) or awaiting


def _unreadable(scene: Scene) -> Said | None:
    """Tell why nothing is heard, if that is known: nothing came, or nothing that can be used."""
    if scene.watch.failure is not None:
        return scene.watch.failure.reason, scene.watch.failure.message
    return _skewed(scene) or _damaged(scene)


def _nobody_asks(scene: Scene) -> Said | None:
    if not scene.idle:
        return None
    traffic = scene.history.traffic
    since = "so far" if traffic is None else f"since {timestamp(traffic)}"
    return Reason.NO_TRAFFIC, f"nobody asked for a prediction {since}"


def _too_few_rows(scene: Scene) -> Said | None:
    if scene.groups.closed:
        return None
    rows = scene.groups.open.rows if scene.groups.open is not None else 0
    return Reason.TOO_FEW_ROWS, f"{rows:,} of the {MINIMUM_ROWS:,} rows that a verdict takes"


UNANSWERED: Final[tuple[Check, ...]] = (
    _nobody_serves,  # nothing is to be expected
    _nobody_reports,  # something is, and does not come
    _nothing_heard_yet,
    _nobody_asks,  # the pods say so themselves
)
UNKNOWN: Final[tuple[Check, ...]] = (*UNANSWERED, _too_few_rows)


# --- Drift and outliers ------------------------------------------------------------------


def _drift(scene: Scene) -> tuple[Condition, Mapping[str, Any]]:
    type_, profile = ConditionType.DRIFT_DETECTED, scene.watch.drift
    if profile is None or isinstance(profile, Failure):
        return _unwatched(type_, profile, "spec.models.drift"), {}
    if isinstance(profile, OfOthers):
        return _sampled_drift(scene)
    unknown = _first(UNKNOWN, scene)
    if unknown is None and not any(counted(group, profile) for group in scene.groups.closed):
        unknown = Reason.REFERENCE_MISMATCH, _mismatch(profile)
    if unknown is not None:
        return Condition(type_, "Unknown", *unknown), {}
    thresholds = scene.watch.monitoring.drift
    verdict = judge_drift(scene.groups.closed, profile, thresholds, scene.lasting)
    return _drift_condition(verdict, scene), evidence.drift(verdict)


def _drift_condition(verdict: DriftVerdict, scene: Scene) -> Condition:
    type_, total = ConditionType.DRIFT_DETECTED, len(verdict.features)
    judged = f"judged on {_judged(scene.groups.closed)}"
    if verdict.unconfirmed:
        message = f"{', '.join(verdict.unconfirmed[:_NAMED])} moved in the only window so far"
        return _unconfirmed(type_, f"{message}, {judged}")
    moved = verdict.moved
    worst = ", ".join(_moved(each) for each in moved[:_NAMED])
    if verdict.severity is Severity.ALERT:
        past = [each for each in moved if each.severity is Severity.ALERT]
        head = f"{len(past)} of {count(total, 'feature')} moved{_past(past)}"
        return Condition(type_, "True", Reason.DRIFT_ALERT, bounded(f"{head}: {worst}; {judged}"))
    if verdict.severity is Severity.WARN:
        head = f"{len(moved)} of {count(total, 'feature')} moved{_past(moved, 'the warning at ')}"
        message = bounded(f"{head}: {worst}; {judged}")
        return Condition(type_, "False", Reason.DRIFT_WARNING, message)
    furthest = verdict.features[0]
    message = f"the furthest of {count(total, 'feature')} is {furthest.name}"
    message += f" (PSI {furthest.psi:.2f}); {judged}"
    return Condition(type_, "False", Reason.NO_DRIFT, bounded(message))


def _past(moved: Sequence[FeatureVerdict], which: str = "") -> str:
    """Tell the thresholds that were passed; a level that came too often is past none."""
    passed = sorted(each.threshold for each in moved if each.psi > each.threshold)
    ends = dict.fromkeys(evidence.decimal(each, places=2) for each in (*passed[:1], *passed[-1:]))
    return f" past {which}{' to '.join(ends)}" if ends else ""


def _moved(feature: FeatureVerdict) -> str:
    surge = f', "{feature.level}" {feature.ratio:.1f} times as often' if feature.level else ""
    over = ", for a day" if feature.lasting else ""
    return f"{feature.name} (PSI {feature.psi:.2f}{surge}{over})"


def _sampled_drift(scene: Scene) -> tuple[Condition, Mapping[str, Any]]:
    type_ = ConditionType.DRIFT_DETECTED
    groups = sampled(scene.groups.closed, Role.DRIFT)
    unknown = _first(UNKNOWN, scene) or (None if groups else _says_nothing(scene, Role.DRIFT))
    if unknown is not None:
        return Condition(type_, "Unknown", *unknown), {}
    verdict = judge_samples(groups)
    said = (
        f"the detector finds drift in {verdict.share:.0%} of the samples that it is shown;"
        f" judged on {count(sum(group.rows for group in groups), 'sample')} {_stretch(groups)}"
    )
    figures = evidence.sampled_drift(verdict)
    if verdict.unconfirmed:
        return _unconfirmed(type_, said), figures
    if verdict.severity is Severity.ALERT:
        return Condition(type_, "True", Reason.DRIFT_ALERT, said), figures
    return Condition(type_, "False", Reason.NO_DRIFT, said), figures


def _says_nothing(scene: Scene, role: Role) -> Said:
    """Tell why a detector of others has judged none of the groups."""
    groups = (*scene.groups.closed, *scene.recent)
    errors = [each.verdicts[role].error for each in groups if role in each.verdicts]
    if errors:
        return Reason.DETECTOR_FAILED, _failing(role, errors[-1])
    return Reason.AWAITING_TELEMETRY, (
        f"the {role} detector has been shown no sample yet: it is after the end of a window"
    )


def _failing(role: Role, error: str) -> str:
    return bounded(
        f"the {role} detector says nothing of the samples that it is shown: {error};"
        " the log of the pods tells more"
    )


def _outliers(scene: Scene) -> tuple[Condition, Mapping[str, Any]]:
    type_, reference = ConditionType.OUTLIERS_DETECTED, scene.watch.outliers
    if reference is None or isinstance(reference, Failure):
        return _unwatched(type_, reference, "spec.models.outlier"), {}
    groups, unknown = scene.groups.closed, _first(UNKNOWN, scene)
    if isinstance(reference, OfOthers):
        groups, reference = sampled(groups, Role.OUTLIER), reference.reference
        unknown = unknown or (None if groups else _says_nothing(scene, Role.OUTLIER))
    if unknown is not None:
        return Condition(type_, "Unknown", *unknown), {}
    thresholds = scene.watch.monitoring.outliers
    verdict = judge_outliers(groups, reference, thresholds)
    condition = _outlier_condition(verdict, reference, groups)
    return condition, evidence.outliers(verdict, reference, thresholds)


def _outlier_condition(
    verdict: OutlierVerdict, reference: OutlierReference, groups: Sequence[Window]
) -> Condition:
    type_ = ConditionType.OUTLIERS_DETECTED
    said = (
        f"{verdict.rate:.2%} of the rows are outliers, {reference.rate:.2%} in the reference;"
        f" judged on {_judged(groups)}"
    )
    if verdict.unconfirmed:
        return _unconfirmed(type_, said)
    if verdict.severity is Severity.ALERT:
        return Condition(type_, "True", Reason.OUTLIERS_ALERT, said)
    if verdict.severity is Severity.WARN:
        return Condition(type_, "False", Reason.OUTLIERS_WARNING, said)
    return Condition(type_, "False", Reason.OUTLIERS_NORMAL, said)


# --- The service -------------------------------------------------------------------------


def _service(scene: Scene) -> tuple[Condition, Mapping[str, Any]]:
    windows = scene.recent
    lately = [
        restart for restart in scene.watch.restarts if scene.now - restart.at < service.RECENT
    ]
    waiting = [pod for pod in scene.watch.pending if scene.now - pod.since >= service.PENDING_LONG]
    figures: Mapping[str, Any] = {}
    if windows:
        figures = evidence.service(
            windows,
            scene.watch.monitoring.objectives,
            restarts=len(lately),
            pending=len(waiting),
        )
    type_ = ConditionType.SERVICE_HEALTHY
    if lately:
        return Condition(type_, "False", *_restarted(lately)), figures
    if waiting:
        return Condition(type_, "False", *_waiting(waiting)), figures
    unknown = _first((*UNANSWERED, _nothing_recent), scene)
    if unknown is not None:
        return Condition(type_, "Unknown", *unknown), figures
    return _service_condition(windows, scene.watch.monitoring.objectives, figures), figures


def _nothing_recent(scene: Scene) -> Said | None:
    windows = scene.recent
    if not windows:
        return Reason.AWAITING_TELEMETRY, "no window of late has settled yet"
    if not any(window.requests for window in windows):
        return Reason.NO_TRAFFIC, f"no request in the last {count(len(windows), 'window')}"
    return None


def _service_condition(
    windows: Sequence[Window], objectives: Objectives, figures: Mapping[str, Any]
) -> Condition:
    type_, said = ConditionType.SERVICE_HEALTHY, _answered(figures)
    verdict = service.judge_service(windows, objectives)
    if verdict.unconfirmed:
        return _unconfirmed(type_, said)
    if verdict.failing:
        message = f"more than {objectives.error_rate:.2%} of the requests fail: {said}"
        return Condition(type_, "False", Reason.ERROR_RATE_HIGH, message)
    if verdict.slow:
        bound = figures["objectives"]["p99"]
        message = f"more than 1 of 100 answers takes longer than {bound}: {said}"
        return Condition(type_, "False", Reason.LATENCY_HIGH, message)
    return Condition(type_, "True", Reason.WITHIN_OBJECTIVES, said)


def _restarted(lately: Sequence[Restart]) -> Said:
    last = lately[0]
    others = f" and {count(len(lately) - 1, 'other pod')}" if len(lately) > 1 else ""
    what = f"pod {last.pod}{others} restarted, the last at {timestamp(last.at)}"
    if last.reason == "OOMKilled":
        return Reason.OUT_OF_MEMORY, (
            f"{what}, killed at its memory limit ({count(last.count, 'restart')}): raise"
            " spec.serving.resources.limits.memory"
        )
    return Reason.PODS_RESTARTING, (
        f"{what}, after exit code {last.exit_code} ({last.reason},"
        f" {count(last.count, 'restart')}): `kubectl logs {last.pod} --previous` tells why"
    )


def _waiting(waiting: Sequence[Pending]) -> Said:
    first = waiting[0]
    others = f" and {count(len(waiting) - 1, 'other pod')}" if len(waiting) > 1 else ""
    cause = f": {first.cause}" if first.cause else ""
    return Reason.PODS_PENDING, bounded(
        f"pod {first.pod}{others} waits since {timestamp(first.since)}{cause}"
    )


def _answered(figures: Mapping[str, Any]) -> str:
    """Tell how the requests of the last windows were answered."""
    said = f"{count(figures['requests'], 'request')}, {float(figures['errorRate']):.2%} failed"
    timed = [f"{name} {figures[name]}" for name in ("p50", "p99") if name in figures]
    held = [
        f"{float(figures[name]):.0%} {what}"
        for name, what in (
            ("saturation", "turned away as too many waited: add replicas"),
            ("throttled", "of the time held back at spec.serving.resources.limits.cpu"),
        )
        if float(figures.get(name, 0)) >= TOLD
    ]
    return ", ".join([said, *timed, *held])


# --- The monitoring itself ---------------------------------------------------------------


def _nothing_readable(scene: Scene) -> Said | None:
    return None if scene.history.heard() else _unreadable(scene)


def _some_silent(scene: Scene) -> Said | None:
    if not scene.silent:
        return None
    cause = "" if scene.watch.failure is None else f": {scene.watch.failure.message}"
    message = f"{_pods(scene.silent)} of {len(scene.watch.reporters)} reported nothing lately"
    return Reason.PARTIAL_TELEMETRY, bounded(message + cause)


def _no_reference(scene: Scene) -> Said | None:
    for reference in (scene.watch.drift, scene.watch.outliers):
        if isinstance(reference, Failure):
            return Reason.REFERENCE_UNAVAILABLE, reference.message
    return None


def _other_reference(scene: Scene) -> Said | None:
    profile = scene.watch.drift
    if not isinstance(profile, Profile) or all(
        fits(window, profile) for window in scene.groups.judged
    ):
        return None
    return Reason.REFERENCE_MISMATCH, _mismatch(profile)


def _detector_fails(scene: Scene) -> Said | None:
    for window in reversed(scene.recent):
        for role, verdict in window.verdicts.items():
            if verdict.failed and role in DETECTORS:
                return Reason.DETECTOR_FAILED, _failing(Role(role), verdict.error)
    return None


def _skewed(scene: Scene) -> Said | None:
    if not scene.lately(scene.history.skewed):
        return None
    return Reason.CLOCK_SKEW, (
        "pods report windows of the future, which are left out: set the clocks of the nodes"
    )


def _damaged(scene: Scene) -> Said | None:
    if not scene.lately(scene.history.damaged):
        return None
    return Reason.TELEMETRY_DAMAGED, (
        'lines of telemetry cannot be understood and are left out: look for "mdw1" in the log of'
        " the pods; something else may write to their standard output"
    )


def _incomplete(scene: Scene) -> Said | None:
    number = scene.history.incomplete(scene.now)
    if not number:
        return None
    return Reason.PARTIAL_TELEMETRY, f"{count(number, 'window')} of late lack some of their lines"


MONITORING: Final[tuple[Check, ...]] = (
    _nothing_readable,
    _nobody_reports,
    _some_silent,
    _no_reference,
    _other_reference,
    _detector_fails,
    _skewed,
    _damaged,
    _incomplete,
)
"""What is wrong with the monitoring, the worst first."""


def _monitoring(scene: Scene) -> Condition:
    """Say how the monitoring fares; without detectors, the pods still report their requests."""
    type_ = ConditionType.MONITORING_HEALTHY
    wrong = _first(MONITORING, scene)
    if wrong is not None:
        return Condition(type_, "False", *wrong)
    waiting = _first((_nobody_serves, _nothing_heard_yet), scene)
    if waiting is not None:
        return Condition(type_, "Unknown", *waiting)
    return Condition(type_, "True", Reason.RECEIVING, _receiving(scene))


def _receiving(scene: Scene) -> str:
    forms = sorted(frozenset().union(*(window.forms for window in scene.groups.judged)))
    served = f"; the models are served as {', '.join(forms)}" if forms else ""
    return f"{count(len(scene.watch.reporters), 'pod')} report{served}"


# --- Wording -----------------------------------------------------------------------------


def _first(checks: Sequence[Check], scene: Scene) -> Said | None:
    return next((said for check in checks if (said := check(scene)) is not None), None)


def _unwatched(type_: ConditionType, failure: Failure | None, field: str) -> Condition:
    if failure is not None:
        return Condition(type_, "Unknown", Reason.REFERENCE_UNAVAILABLE, failure.message)
    return Condition(type_, "Unknown", Reason.NO_DETECTOR, f"no detector is given in {field}")


def _unconfirmed(type_: ConditionType, message: str) -> Condition:
    head = "a second window has to agree first: "
    return Condition(type_, "Unknown", Reason.AWAITING_CONFIRMATION, bounded(head + message))


def _judged(groups: Sequence[Window]) -> str:
    return f"{sum(group.rows for group in groups):,} rows {_stretch(groups)}"


def _stretch(groups: Sequence[Window]) -> str:
    return f"from {timestamp(groups[0].start)} to {timestamp(groups[-1].end)}"


def _mismatch(profile: Profile) -> str:
    return (
        "the pods count against another reference profile than that of the drift detector"
        f" ({profile.edges_hash}): release predictor and detector of one training together"
    )


def _pods(reporters: Sequence[Reporter]) -> str:
    names = sorted(reporter.pod for reporter in reporters)
    more = len(names) - _NAMED
    named = ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
    return f"{'pod' if len(names) == 1 else 'pods'} {named}"
