"""Verdicts: what is known, what is not, and what it takes to change them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from modelops_operator.api.conditions import Condition, ConditionType
from modelops_operator.api.facts import Failure, Role
from modelops_operator.api.reasons import Reason
from modelops_operator.api.resources import DeploymentHealth, DriftThresholds, Monitoring
from modelops_operator.core.health.evaluate import evaluate, renewed
from modelops_operator.core.health.evidence import duration, latency_quantile, seconds
from modelops_operator.core.health.service import Pending, Restart
from modelops_operator.core.health.watch import OfOthers, OutlierReference, Reporter, reporters
from modelops_operator.core.health.windows import History
from modelops_operator.core.state import Health
from modelops_runtime.profile import FeatureProfile, Histogram, Profile
from modelops_runtime.telemetry import BUSY, LATENCY_EDGES, Line, Verdict

from tests.health.builders import (
    REFERENCE,
    REVISION,
    START,
    WINDOW,
    counted,
    line,
    normal_profile,
    watch,
)

pytestmark = pytest.mark.unit

SETTLE = timedelta(seconds=5)
PROFILE = normal_profile(5)
QUIET, WARN, ALERT = 0.0, 0.45, 1.0
"""Shifts, in standard deviations, whose PSI is about 0, 0.2 and 1."""
DRIFT = ConditionType.DRIFT_DETECTED
OUTLIERS = ConditionType.OUTLIERS_DETECTED
MONITORING = ConditionType.MONITORING_HEALTHY


def after(windows: int) -> datetime:
    return START + windows * WINDOW + SETTLE


def told(lines: Sequence[Line], *, windows: int) -> History:
    history = History(REVISION, settle=SETTLE)
    history.add(lines, after(windows))
    return history


def traffic(
    window: int, *, shift: float = QUIET, rows: int = 2000, profile: Profile = PROFILE, **more: Any
) -> Line:
    """Give the line of a window in which the first feature is shifted."""
    columns = np.random.default_rng(window).standard_normal((rows, len(profile.features)))
    columns[:, 0] += shift
    return line(
        window=window,
        rows=rows,
        requests=rows,
        edges=profile.edges_hash,
        features=counted(profile, columns),
        **more,
    )


def condition(health: Health, type_: ConditionType) -> Condition:
    return next(found for found in health.conditions if found.type is type_)


def drift_of(shifts: Sequence[float], **changes: Any) -> Condition:
    lines = [traffic(number, shift=shift) for number, shift in enumerate(shifts)]
    history = told(lines, windows=len(shifts))
    return condition(evaluate(history, watch(drift=PROFILE, **changes), after(len(shifts))), DRIFT)


@pytest.mark.parametrize(
    ("shifts", "status", "reason"),
    [
        ([QUIET], "False", Reason.NO_DRIFT),
        ([ALERT], "Unknown", Reason.AWAITING_CONFIRMATION),
        ([WARN], "Unknown", Reason.AWAITING_CONFIRMATION),
        ([ALERT, ALERT], "True", Reason.DRIFT_ALERT),
        ([WARN, WARN], "False", Reason.DRIFT_WARNING),
        ([WARN, ALERT], "False", Reason.DRIFT_WARNING),
        ([QUIET, ALERT], "False", Reason.NO_DRIFT),
        ([ALERT, QUIET], "False", Reason.NO_DRIFT),
        ([QUIET, QUIET, ALERT], "False", Reason.NO_DRIFT),
        ([QUIET, ALERT, ALERT], "True", Reason.DRIFT_ALERT),
        ([ALERT, QUIET, ALERT], "True", Reason.DRIFT_ALERT),
        ([ALERT, ALERT, QUIET], "True", Reason.DRIFT_ALERT),
        ([ALERT, ALERT, QUIET, QUIET], "False", Reason.NO_DRIFT),
        ([ALERT, ALERT, ALERT, QUIET], "True", Reason.DRIFT_ALERT),
        ([ALERT, WARN, QUIET], "False", Reason.DRIFT_WARNING),
    ],
)
def test_two_of_three_windows_have_to_agree(
    shifts: list[float], status: str, reason: Reason
) -> None:
    found = drift_of(shifts)
    assert (found.status, found.reason) == (status, reason)


def test_the_message_names_the_worst_feature_and_what_was_looked_at() -> None:
    found = drift_of([ALERT, ALERT])
    assert found.message.startswith("1 of 5 features moved past 0.25: x0 (PSI ")
    assert "judged on 4,000 rows from 2026-03-01T12:00:00Z to 2026-03-01T12:10:00Z" in found.message
    assert drift_of([QUIET, QUIET]).message.startswith("the furthest of 5 features is x")


def votes(*found: Verdict | None, role: Role, watched: Mapping[str, Any]) -> Health:
    """Judge windows in each of which a detector of others found something, or nothing."""
    lines = [
        traffic(number, verdicts={} if each is None else {str(role): each})
        for number, each in enumerate(found)
    ]
    history = told(lines, windows=len(found))
    return evaluate(history, watch(**watched), after(len(found)))


YES, NO, SILENT = Verdict(1, 1), Verdict(1, 0), Verdict(failed=1, error="MemoryError in line 3")


@pytest.mark.parametrize(
    ("found", "status", "reason"),
    [
        ([None], "Unknown", Reason.AWAITING_TELEMETRY),
        ([YES], "Unknown", Reason.AWAITING_CONFIRMATION),
        ([NO], "False", Reason.NO_DRIFT),
        ([YES, YES], "True", Reason.DRIFT_ALERT),
        ([YES, NO], "False", Reason.NO_DRIFT),
        ([YES, NO, YES], "True", Reason.DRIFT_ALERT),
        ([YES, None, YES], "True", Reason.DRIFT_ALERT),
        ([YES, SILENT, YES], "True", Reason.DRIFT_ALERT),
        ([Verdict(3, 1), Verdict(3, 1)], "False", Reason.NO_DRIFT),
        ([Verdict(3, 2), Verdict(3, 2)], "True", Reason.DRIFT_ALERT),
        ([SILENT, SILENT], "Unknown", Reason.DETECTOR_FAILED),
    ],
)
def test_a_drift_detector_of_others_has_to_find_it_twice(
    found: list[Verdict | None], status: str, reason: Reason
) -> None:
    health = votes(*found, role=Role.DRIFT, watched={"drift": OfOthers()})
    said = condition(health, DRIFT)
    assert (said.status, said.reason) == (status, reason)
    DeploymentHealth.model_validate(health.evidence)
    if reason is Reason.DRIFT_ALERT:
        assert health.evidence["drift"]["severity"] == "Alert"
        assert health.evidence["drift"]["threshold"] == "0.5"


@pytest.mark.parametrize(
    ("rates", "status"),
    [([0.01, 0.012], "False"), ([0.05, 0.05], "True"), ([0.05, 0.01], "False")],
)
def test_an_outlier_detector_of_others_is_held_against_its_usual_rate(
    rates: list[float], status: str
) -> None:
    found = [Verdict(1000, round(1000 * rate)) for rate in rates]
    health = votes(*found, role=Role.OUTLIER, watched={"outliers": OfOthers(0.01)})
    assert condition(health, OUTLIERS).status == status
    assert health.evidence["outliers"]["reference"] == "0.01"


def test_a_detector_of_others_that_fails_is_told() -> None:
    health = votes(NO, SILENT, role=Role.DRIFT, watched={"drift": OfOthers()})
    said = condition(health, MONITORING)
    assert (said.status, said.reason) == ("False", Reason.DETECTOR_FAILED)
    assert "drift detector says nothing of the samples" in said.message
    assert "MemoryError in line 3" in said.message


def test_thresholds_are_the_users() -> None:
    bold = Monitoring(window=WINDOW, drift=DriftThresholds(warn=Decimal(5), alert=Decimal(6)))
    assert drift_of([ALERT, ALERT], monitoring=bold).reason == Reason.NO_DRIFT
    shy = Monitoring(window=WINDOW, drift=DriftThresholds(warn=Decimal(0), alert=Decimal("0.05")))
    assert drift_of([WARN, WARN], monitoring=shy).reason == Reason.DRIFT_ALERT


def test_a_category_that_surges_is_told_with_its_name() -> None:
    counts = (40_000, 40_000, 15_000, 5_000)
    levels = ("a", "b", "c", "d" * 300)
    feature = FeatureProfile(
        name="shop", kind="category", levels=levels, counts=counts, variation=0.0
    )
    profile = Profile(features=(feature,), rows=100_000)
    lines = [
        line(
            window=number,
            rows=2000,
            requests=2000,
            edges=profile.edges_hash,
            features={0: Histogram((760, 760, 260, 220))},
        )
        for number in range(2)
    ]
    health = evaluate(told(lines, windows=2), watch(drift=profile), after(2))
    DeploymentHealth.model_validate(health.evidence)
    found = condition(health, DRIFT)
    assert (found.status, found.reason) == ("True", Reason.DRIFT_ALERT)
    assert found.message.startswith('1 of 1 feature moved: shop (PSI 0.05, "ddd')
    assert '" 2.2 times as often)' in found.message
    (told_of,) = health.evidence["drift"]["features"]
    assert (told_of["level"], told_of["ratio"]) == ("d" * 255, "2.2")


def test_evidence_has_the_shape_of_the_status() -> None:
    lines = [
        traffic(number, shift=ALERT, outliers=20, errors={"5xx": 2}, latency=((25, 1990), (31, 10)))
        for number in range(2)
    ]
    known = {"source": "PodLogs", "detectors": {Role.DRIFT: "d 7", Role.OUTLIER: "o 3"}}
    watched = watch(drift=PROFILE, outliers=REFERENCE, **known)
    health = evaluate(told(lines, windows=2), watched, after(2))
    DeploymentHealth.model_validate(health.evidence)
    assert health.evidence["source"] == "PodLogs"
    assert health.evidence["window"] == {
        "start": "2026-03-01T12:00:00Z",
        "end": "2026-03-01T12:10:00Z",
    }
    assert health.evidence["rows"] == 4000
    drift = health.evidence["drift"]
    assert (drift["severity"], drift["threshold"]) == ("Alert", "0.25")
    assert (drift["detector"], drift["statistic"]) == ("d 7", "PSI")
    assert drift["features"][0] == {
        "name": "x0",
        "psi": drift["value"],
        "severity": "Alert",
        "threshold": "0.25",
    }
    assert drift["features"][1]["threshold"] == "0.1"
    assert len(drift["features"]) == 5
    assert health.evidence["outliers"] == {
        "severity": "None",
        "rate": "0.01",
        "reference": "0.01",
        "threshold": "1.5",
        "detector": "o 3",
    }
    assert health.evidence["service"]["requests"] == 4000
    assert health.evidence["service"]["errorRate"] == "0.001"
    assert health.evidence["service"]["saturation"] == "0"
    assert "throttled" not in health.evidence["service"]
    assert not any(isinstance(leaf, float) for leaf in leaves(health.evidence))


def leaves(tree: Any) -> list[Any]:
    if isinstance(tree, dict):
        return [leaf for branch in tree.values() for leaf in leaves(branch)]
    if isinstance(tree, list | tuple):
        return [leaf for branch in tree for leaf in leaves(branch)]
    return [tree]


def test_at_most_ten_features_are_told_and_the_worst_first() -> None:
    wide = normal_profile(30)
    lines = [traffic(number, shift=ALERT, profile=wide) for number in range(2)]
    health = evaluate(told(lines, windows=2), watch(drift=wide), after(2))
    features = health.evidence["drift"]["features"]
    assert len(features) == 10
    assert features[0]["name"] == "x0"
    assert [feature["severity"] for feature in features[1:]] == ["None"] * 9


@pytest.mark.parametrize(("name", "shown"), [("y", "y"), ("x1", "x1 (prediction)")])
def test_predictions_drift_like_features(name: str, shown: str) -> None:
    scores = replace(PROFILE.features[0], name=name)
    profile = replace(PROFILE, scores=scores)
    moved = scores.count(np.random.default_rng(4).normal(1, 1, size=2000))
    lines = [traffic(number, profile=profile, scores=moved) for number in range(2)]
    health = evaluate(told(lines, windows=2), watch(drift=profile), after(2))
    assert condition(health, DRIFT).message.startswith(
        f"1 of 6 features moved past 0.25: {shown} ("
    )
    names = [feature["name"] for feature in health.evidence["drift"]["features"]]
    assert len(set(names)) == 6


def test_the_classes_that_are_predicted_drift_like_features() -> None:
    labels = FeatureProfile(name="y", kind="category", levels=("no", "yes"), counts=(900, 100))
    profile = replace(PROFILE, labels=labels)
    counts = Histogram((1000, 1000))
    lines = [traffic(number, profile=profile, labels=counts) for number in range(2)]
    found = condition(evaluate(told(lines, windows=2), watch(drift=profile), after(2)), DRIFT)
    assert found.status == "True"
    assert found.message.startswith("1 of 6 features moved past 0.25: y (predicted class) (")


@pytest.mark.parametrize(
    ("rates", "status", "reason"),
    [
        ([20], "False", Reason.OUTLIERS_NORMAL),
        ([200], "Unknown", Reason.AWAITING_CONFIRMATION),
        ([200, 200], "True", Reason.OUTLIERS_ALERT),
        ([200, 20], "False", Reason.OUTLIERS_NORMAL),
        ([20, 200, 200], "True", Reason.OUTLIERS_ALERT),
        ([200, 200, 0, 0], "False", Reason.OUTLIERS_NORMAL),
        # More often than the alert's twice, and within what chance does.
        ([20, 32, 32], "False", Reason.OUTLIERS_NORMAL),
    ],
)
def test_outliers(rates: list[int], status: str, reason: Reason) -> None:
    lines = [
        line(window=number, rows=2000, requests=1, outliers=rate)
        for number, rate in enumerate(rates)
    ]
    history = told(lines, windows=len(rates))
    found = condition(evaluate(history, watch(outliers=REFERENCE), after(len(rates))), OUTLIERS)
    assert (found.status, found.reason) == (status, reason)


def test_many_rows_and_a_small_excess_are_no_alarm() -> None:
    lines = [line(window=n, rows=10**6, requests=1, outliers=13_000) for n in range(3)]
    found = condition(
        evaluate(told(lines, windows=3), watch(outliers=REFERENCE), after(3)), OUTLIERS
    )
    assert found.reason == Reason.OUTLIERS_NORMAL
    lines = [line(window=n, rows=10**6, requests=1, outliers=17_000) for n in range(3)]
    found = condition(
        evaluate(told(lines, windows=3), watch(outliers=REFERENCE), after(3)), OUTLIERS
    )
    assert (found.status, found.reason) == ("False", Reason.OUTLIERS_WARNING)


FAILED = Failure(reason=Reason.QUERY_DENIED, message="forbidden", permanent=True)
BOTH = {"drift": PROFILE, "outliers": REFERENCE}


@pytest.mark.parametrize(
    ("lines", "windows", "changes", "reason", "monitoring"),
    [
        pytest.param([], 0, {"reporters": ()}, Reason.AWAITING_TELEMETRY,
                     ("Unknown", Reason.AWAITING_TELEMETRY), id="no pod is ready"),
        pytest.param([], 1, {}, Reason.AWAITING_TELEMETRY,
                     ("Unknown", Reason.AWAITING_TELEMETRY), id="the first window runs"),
        pytest.param([], 1, {"failure": FAILED}, Reason.QUERY_DENIED,
                     ("False", Reason.QUERY_DENIED), id="nothing can be read"),
        pytest.param([], 4, {}, Reason.NO_TELEMETRY,
                     ("False", Reason.NO_TELEMETRY), id="pods stay silent"),
        pytest.param([], 4, {"failure": FAILED}, Reason.QUERY_DENIED,
                     ("False", Reason.QUERY_DENIED), id="nothing can be read for long"),
        pytest.param([traffic(0)], 5, {}, Reason.NO_TELEMETRY,
                     ("False", Reason.NO_TELEMETRY), id="pods fall silent"),
        pytest.param([line(window=n) for n in range(3)], 3, {}, Reason.NO_TRAFFIC,
                     ("True", Reason.RECEIVING), id="nobody asks"),
        pytest.param([traffic(0), traffic(1), *(line(window=n) for n in range(2, 5))], 5, {},
                     Reason.NO_TRAFFIC, ("True", Reason.RECEIVING), id="nobody asks any more"),
        pytest.param([traffic(0, rows=999)], 1, {}, Reason.TOO_FEW_ROWS,
                     ("True", Reason.RECEIVING), id="too few rows"),
        pytest.param([line(requests=50, errors={"5xx": 50})], 1, {}, Reason.TOO_FEW_ROWS,
                     ("True", Reason.RECEIVING), id="every request fails"),
    ],
)  # fmt: skip
def test_what_is_not_known_is_unknown(
    lines: list[Line],
    windows: int,
    changes: dict[str, Any],
    reason: Reason,
    monitoring: tuple[str, Reason],
) -> None:
    health = evaluate(told(lines, windows=windows), watch(**BOTH, **changes), after(windows))
    for type_ in (DRIFT, OUTLIERS):
        found = condition(health, type_)
        assert (found.status, found.reason) == ("Unknown", reason)
    found = condition(health, MONITORING)
    assert (found.status, found.reason) == monitoring
    assert "drift" not in health.evidence
    assert "outliers" not in health.evidence


def test_without_detectors_the_requests_are_still_told() -> None:
    health = evaluate(told([traffic(0)], windows=1), watch(), after(1))
    assert condition(health, DRIFT).reason == Reason.NO_DETECTOR
    assert condition(health, OUTLIERS).reason == Reason.NO_DETECTOR
    assert condition(health, MONITORING).status == "True"
    assert health.evidence["service"]["requests"] == 2000


def test_a_reference_that_cannot_be_read() -> None:
    gone = Failure(reason="ArtifactNotFound", message="no profile.json", permanent=True)
    health = evaluate(told([traffic(0)], windows=1), watch(drift=gone, outliers=gone), after(1))
    for type_, status in ((DRIFT, "Unknown"), (OUTLIERS, "Unknown"), (MONITORING, "False")):
        found = condition(health, type_)
        assert (found.status, found.reason) == (status, Reason.REFERENCE_UNAVAILABLE)
        assert found.message == "no profile.json"


def test_counts_against_other_edges_are_never_compared() -> None:
    other = normal_profile(4)
    lines = [traffic(n, shift=ALERT, profile=other) for n in range(3)]
    health = evaluate(told(lines, windows=3), watch(drift=PROFILE), after(3))
    found = condition(health, DRIFT)
    assert (found.status, found.reason) == ("Unknown", Reason.REFERENCE_MISMATCH)
    assert PROFILE.edges_hash in found.message
    found = condition(health, MONITORING)
    assert (found.status, found.reason) == ("False", Reason.REFERENCE_MISMATCH)


def test_one_silent_pod_of_two_is_told_and_the_verdict_stands() -> None:
    pods = (Reporter(pod="pod-a", since=START), Reporter(pod="pod-b", since=START))
    lines = [traffic(n) for n in range(4)]
    health = evaluate(told(lines, windows=4), watch(drift=PROFILE, reporters=pods), after(4))
    assert condition(health, DRIFT).reason == Reason.NO_DRIFT
    found = condition(health, MONITORING)
    assert (found.status, found.reason) == ("False", Reason.PARTIAL_TELEMETRY)
    assert "pod-b" in found.message


def test_a_new_pod_is_given_time() -> None:
    pods = (Reporter(pod="pod-a", since=START), Reporter(pod="pod-b", since=after(3)))
    lines = [traffic(n) for n in range(4)]
    health = evaluate(told(lines, windows=4), watch(drift=PROFILE, reporters=pods), after(4))
    assert condition(health, MONITORING).status == "True"


def test_a_failed_reading_alone_changes_nothing() -> None:
    lines = [traffic(n) for n in range(3)]
    health = evaluate(told(lines, windows=3), watch(drift=PROFILE, failure=FAILED), after(3))
    assert condition(health, DRIFT).reason == Reason.NO_DRIFT
    assert condition(health, MONITORING).status == "True"


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        (line(window=9, worker="w2"), Reason.CLOCK_SKEW),
        (line(window=0, worker="w2", chunks=2), Reason.PARTIAL_TELEMETRY),
    ],
)
def test_lines_that_are_wrong_are_told(extra: Line, reason: Reason) -> None:
    history = told([traffic(0), extra], windows=1)
    found = condition(evaluate(history, watch(**BOTH), after(1)), MONITORING)
    assert (found.status, found.reason) == ("False", reason)


def test_damaged_lines_are_told_for_a_while() -> None:
    history = told([traffic(n) for n in range(2)], windows=2)
    history.damaged = after(2)
    found = condition(evaluate(history, watch(**BOTH), after(2)), MONITORING)
    assert (found.status, found.reason) == ("False", Reason.TELEMETRY_DAMAGED)
    history.add([line(window=n) for n in range(2, 6)], after(6))
    assert condition(evaluate(history, watch(**BOTH), after(6)), MONITORING).status == "True"


def test_reporters_are_the_ready_pods_of_the_revision() -> None:
    def pod(name: str, *, ready: str = "True", revision: str = REVISION, **more: str) -> Any:
        return {
            "metadata": {
                "name": name,
                "creationTimestamp": "2026-03-01T11:00:00Z",
                "labels": {"modelops.dev/revision": revision},
                **more,
            },
            "status": {
                "conditions": [
                    {
                        "type": "Ready",
                        "status": ready,
                        "lastTransitionTime": "2026-03-01T12:00:00Z",
                    }
                ]
            },
        }

    pods = [
        pod("good"),
        pod("starting", ready="False"),
        pod("old", revision="other"),
        pod("going", deletionTimestamp="2026-03-01T12:00:00Z"),
        {"metadata": {"name": "new", "labels": {}}, "status": {}},
    ]
    assert reporters(pods, REVISION) == (Reporter(pod="good", since=START),)


@pytest.mark.parametrize(("rate", "rows"), [(-0.1, 10), (1.1, 10), (0.1, 0), (float("nan"), 5)])
def test_a_reference_rate_has_to_be_one(rate: float, rows: int) -> None:
    with pytest.raises(ValueError, match="says nothing"):
        OutlierReference.of(rate, rows)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.00085, "850us"), (0.003, "3ms"), (0.00321, "3.2ms"), (0.0123, "12ms"), (1.5, "1.5s")],
)
def test_latencies_are_written_for_people(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_quantiles_of_the_latency_are_near_the_true_ones(share: float) -> None:
    seconds = np.random.default_rng(3).lognormal(np.log(0.004), 0.8, size=100_000)
    bins = np.searchsorted(LATENCY_EDGES, seconds, side="right")
    latency = {int(bin_): int(n) for bin_, n in enumerate(np.bincount(bins)) if n}
    assert latency_quantile(latency, share) == pytest.approx(np.quantile(seconds, share), rel=0.03)


def test_no_latency_without_requests() -> None:
    assert latency_quantile({}, 0.5) is None


def test_a_verdict_stands_until_something_happens() -> None:
    history, watched = told([traffic(0), traffic(1)], windows=2), watch(drift=PROFILE)
    first = renewed(None, history, watched, after(2))
    second = timedelta(seconds=1)
    assert first.health == evaluate(history, watched, after(2))
    assert renewed(first, history, watched, after(2) + second) is first
    # The same pods, told anew.
    assert renewed(first, history, watch(drift=PROFILE), after(2) + second) is first

    # Then the first window melts, which changes nothing but might.
    assert renewed(first, history, watched, first.until - second) is first
    reviewed = renewed(first, history, watched, first.until)
    assert reviewed.at == first.until
    assert reviewed.health is first.health
    assert reviewed.until > first.until
    # The clock was set back: who knows what time it is.
    assert renewed(reviewed, history, watched, after(2)).at == after(2)

    failed = renewed(first, history, watch(drift=PROFILE, failure=FAILED), after(2) + second)
    assert failed is not first
    later = Reporter(pod="pod-b", since=after(2))
    assert renewed(first, history, watch(reporters=(later,)), after(2) + second) is not first
    other = History("another", settle=SETTLE)
    assert renewed(first, other, watched, after(2) + second).revision == "another"


@given(
    pods=st.lists(st.sets(st.integers(0, 8)), min_size=1, max_size=3),
    since=st.lists(st.integers(-600, 2700), min_size=3, max_size=3),
    restarted=st.lists(st.integers(-600, 2700), max_size=2),
    pending=st.lists(st.integers(-600, 2700), max_size=2),
    strange=st.sampled_from([None, "skewed", "damaged"]),
    later=st.floats(0, 1, exclude_max=True),
)
@settings(max_examples=60, deadline=None)
def test_nothing_else_is_said_while_a_verdict_stands(
    *,
    pods: list[set[int]],
    since: list[int],
    restarted: list[int],
    pending: list[int],
    strange: str | None,
    later: float,
) -> None:
    def at(seconds: int) -> datetime:
        return START + timedelta(seconds=seconds)

    history, now = History(REVISION, settle=SETTLE), after(9)
    history.add([LINES[number][window] for number, told in enumerate(pods) for window in told], now)
    if strange is not None:
        setattr(history, strange, now)
    watched = watch(
        drift=PROFILE,
        reporters=tuple(
            Reporter(pod=f"pod-{number}", since=at(since[number])) for number in range(len(pods))
        ),
        restarts=tuple(
            Restart(pod="pod-0", reason="Error", exit_code=1, at=at(each), count=1)
            for each in restarted
        ),
        pending=tuple(Pending(pod="pod-9", since=at(each), cause="") for each in pending),
    )
    known = renewed(None, history, watched, now)
    for _ in range(4):
        end = min(known.until, known.at + timedelta(days=2))
        # Before the end: a share close to 1 is rounded to it.
        moment = min(known.at + later * (end - known.at), end - timedelta.resolution)
        history.add([], moment)
        assert timeless(evaluate(history, watched, moment)) == timeless(known.health)
        history.add([], end)
        known = renewed(known, history, watched, end)


LINES = [
    [traffic(window, rows=500, pod=f"pod-{number}") for window in range(9)] for number in range(3)
]


def timeless(health: Health) -> Any:
    evidence = {name: each for name, each in health.evidence.items() if name != "evaluatedAt"}
    return health.conditions, evidence


def test_a_verdict_moves_when_a_line_comes_and_when_its_window_settles() -> None:
    history, watched = told([traffic(0)], windows=1), watch(drift=PROFILE)
    known = renewed(None, history, watched, after(1))
    arrival = after(2) - SETTLE  # the window is over, and its lines may still come
    history.add([traffic(1)], arrival)
    known = renewed(known, history, watched, arrival)
    assert (known.at, known.health.evidence["rows"]) == (arrival, 2000)
    assert renewed(known, history, watched, after(2) - timedelta(seconds=1)) is known
    known = renewed(known, history, watched, after(2))
    assert known.health.evidence["rows"] == 4000


def test_what_holds_the_service_up_is_told() -> None:
    lines = [
        traffic(
            number,
            errors={"5xx": 60, BUSY: 60},
            periods=3000,
            throttled=900,
            latency=((31, 2000),),
        )
        for number in range(3)
    ]
    health = evaluate(told(lines, windows=3), watch(), after(3))
    DeploymentHealth.model_validate(health.evidence)
    assert health.evidence["service"]["throttled"] == "0.3"
    assert health.evidence["service"]["saturation"] == "0.03"
    message = condition(health, ConditionType.SERVICE_HEALTHY).message
    assert "3% turned away as too many waited: add replicas" in message
    assert message.endswith("30% of the time held back at spec.serving.resources.limits.cpu")


def test_clocks_that_are_ahead_and_damaged_lines_are_the_reason_when_nothing_else_comes() -> None:
    for windows in (1, 5):
        ahead = told([traffic(windows + 12)], windows=windows)
        health = evaluate(ahead, watch(**BOTH), after(windows))
        assert condition(health, DRIFT).reason == Reason.CLOCK_SKEW
        found = condition(health, MONITORING)
        assert (found.status, found.reason) == ("False", Reason.CLOCK_SKEW)
        broken = told([], windows=windows)
        broken.damaged = after(windows)
        health = evaluate(broken, watch(**BOTH), after(windows))
        assert condition(health, OUTLIERS).reason == Reason.TELEMETRY_DAMAGED
        assert condition(health, MONITORING).status == "False"


@pytest.mark.parametrize("length", [0.0000123, 0.00085, 0.0032, 0.012, 1.5, 75.0])
def test_what_is_written_of_a_latency_can_be_read(length: float) -> None:
    assert seconds(duration(length)) == pytest.approx(length, rel=0.05)
    with pytest.raises(ValueError, match="'5m' is no latency"):
        seconds("5m")
