"""From groups of windows to severities: significant, large, and seen twice.

A feature has moved when all of this holds: its histogram differs from the reference's
significantly, among all features (Benjamini-Hochberg on the G test); its PSI is above the
threshold; it has at least 1,000 rows; and two of the last three groups agree. Recovery takes two
groups of the last three as well. Nothing is remembered between evaluations.

Beside these stands the last day, in three sums of eight hours: what is too small for an alarm and
yet lasts is a warning, by a lower threshold, when two of the three agree. It names that day.

The figure that is told is the one on which two groups agree: the second largest of the last
three. So a value above the threshold and the verdict go together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Final

import numpy as np
from modelops_runtime.profile import FeatureProfile, Profile
from modelops_runtime.telemetry import NO_VERDICT
from numpy.typing import NDArray

from modelops_operator.api.resources import DriftThresholds, OutlierThresholds, Severity
from modelops_operator.core.health.statistics import (
    Counts,
    Figures,
    benjamini_hochberg,
    g_test,
    more_often,
    psi,
    rate_ratio,
)
from modelops_operator.core.health.watch import OutlierReference
from modelops_operator.core.health.windows import LABELS, MINIMUM_ROWS, SCORES, Window

FALSE_DISCOVERIES: Final = 0.01
"""Share of the features found to differ in one group that may do so by chance."""
LASTING: Final = Decimal("0.7")
"""The share of the warning's threshold that holds for a day. A daily rhythm of 0.2 standard
deviations makes a PSI of at most 0.03 in eight hours, three years in the employment data 0.058."""
CHANCE: Final = 1e-4
"""Probability below which an outlier rate is no accident. There is one rate and not dozens of
features, but the rate-ratio gate alone is a weak one: at 1,000 rows and a reference of 1 %, every
tenth window has 1.5 times as many by chance."""

MAJORITY: Final = 0.5
"""Share of a group's samples that has to show drift."""

_LEVELS: Final = (Severity.NONE, Severity.WARN, Severity.ALERT)
Levels = NDArray[np.int64]
"""Indices of `_LEVELS`."""
Compared = tuple[int, FeatureProfile]
"""The index of a feature among the histograms, or `SCORES` or `LABELS`; and its reference."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureVerdict:
    """How far one feature is from the reference."""

    name: str
    psi: float
    severity: Severity
    lasting: bool = False
    """Only the last day shows it, and no window of late."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftVerdict:
    """What the groups say of drift."""

    features: tuple[FeatureVerdict, ...]
    """All of them, the worst first."""
    unconfirmed: tuple[str, ...] = ()
    """Features past the warning in the only group that there is."""

    @property
    def lasting(self) -> bool:
        """Whether nothing but the last day shows any drift."""
        moved = [each for each in self.features if each.severity is not Severity.NONE]
        return bool(moved) and all(each.lasting for each in moved)

    @property
    def severity(self) -> Severity:
        """Of the worst feature."""
        return max((each.severity for each in self.features), key=_LEVELS.index, default=_LEVELS[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledDrift:
    """What a drift detector of others says of the groups."""

    share: float
    """Of the samples that it was shown, those that show drift, 0 to 1."""
    severity: Severity
    unconfirmed: bool = False
    """The only group that there is shows it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutlierVerdict:
    """What the groups say of outliers."""

    rate: float
    """Share of the rows, 0 to 1."""
    severity: Severity
    unconfirmed: bool = False
    """The only group that there is has too many."""


def judge_drift(
    groups: Sequence[Window],
    profile: Profile,
    thresholds: DriftThresholds,
    day: Sequence[Window] = (),
) -> DriftVerdict:
    """Compare each group with the profile; `groups` has one to three windows, oldest first.

    `day` has the blocks of the last day. What lasts in there, and no group shows, is a warning.
    """
    values, levels = _figures(groups, profile, thresholds)
    verdicts = _agreement(profile, values, levels)
    past = _figures(day, profile, lasting(thresholds)) if len(day) > 1 else None
    if past is not None and past[1].any():
        for each in _agreement(profile, *past).values():
            hidden = verdicts[each.name].severity is Severity.NONE
            if hidden and each.severity is not Severity.NONE:
                verdicts[each.name] = replace(each, severity=Severity.WARN, lasting=True)
    suspects = [name for name, level in zip(verdicts, levels[0], strict=True) if level]
    worst = sorted(
        verdicts.values(), key=lambda each: (-_LEVELS.index(each.severity), -each.psi, each.name)
    )
    return DriftVerdict(
        features=tuple(worst), unconfirmed=tuple(suspects) if len(groups) == 1 else ()
    )


def lasting(thresholds: DriftThresholds) -> DriftThresholds:
    """Give the thresholds for the blocks of a day: the warning at `LASTING` of that for windows."""
    return thresholds.model_copy(update={"warn": thresholds.warn * LASTING})


def judge_outliers(
    groups: Sequence[Window], reference: OutlierReference, thresholds: OutlierThresholds
) -> OutlierVerdict:
    """Compare the rate of outliers in one to three windows with the reference's."""
    levels = np.array([_outlier_level(group, reference, thresholds) for group in groups])
    rates = np.array([group.outliers / max(group.rows, 1) for group in groups])
    alone = len(groups) == 1
    return OutlierVerdict(
        rate=float(_agreed(rates)),
        severity=_LEVELS[0] if alone else _LEVELS[int(_agreed(levels))],
        unconfirmed=alone and bool(levels[0]),
    )


def judge_samples(groups: Sequence[Window]) -> SampledDrift:
    """Judge one to three windows of `sampled`: drift is what half of a window's samples show."""
    shares = np.array([group.outliers / group.rows for group in groups])
    share, alone = float(_agreed(shares)), len(groups) == 1
    found = share >= MAJORITY
    return SampledDrift(
        share=share,
        severity=Severity.ALERT if found and not alone else Severity.NONE,
        unconfirmed=found and alone,
    )


def sampled(groups: Sequence[Window], role: str) -> tuple[Window, ...]:
    """Give the groups as a detector of others sees them: what it judged stands for the rows.

    Groups that it did not judge are left out.
    """
    return tuple(
        replace(group, rows=found.judged, outliers=found.positive)
        for group in groups
        if (found := group.verdicts.get(role, NO_VERDICT)).judged
    )


def compared(profile: Profile) -> Mapping[str, Compared]:
    """Name what is compared: features, scores and predicted classes, each by a name of its own."""
    found = {each.name: (index, each) for index, each in enumerate(profile.features)}
    if profile.scores is not None:
        name = profile.scores.name
        found[f"{name} (prediction)" if name in found else name] = (SCORES, profile.scores)
    if profile.labels is not None:
        found[f"{profile.labels.name} (predicted class)"] = (LABELS, profile.labels)
    return found


def counted(window: Window, profile: Profile) -> bool:
    """Whether anything in the window was counted against this profile."""
    return any(edges == profile.edges_hash for edges, _ in window.histograms)


def fits(window: Window, profile: Profile) -> bool:
    """Whether all that was counted in the window was counted against this profile."""
    sizes = {index: len(_expected(feature)) for index, feature in compared(profile).values()}
    return all(
        edges == profile.edges_hash and len(counts) == sizes.get(index)
        for (edges, index), counts in window.histograms.items()
    )


def _figures(
    groups: Sequence[Window], profile: Profile, thresholds: DriftThresholds
) -> tuple[Figures, Levels]:
    """Give PSI and levels, each of shape (groups, features)."""
    features = compared(profile)
    reference = _matrix([_expected(feature) for _, feature in features.values()])
    found = [
        _compare(reference, _observed(group, profile, features, reference.shape[1]), thresholds)
        for group in groups
    ]
    return np.array([values for values, _ in found]), np.array([levels for _, levels in found])


def _agreement(profile: Profile, values: Figures, levels: Levels) -> dict[str, FeatureVerdict]:
    """Say for each feature, by its name, what two groups agree on; nothing where there is one."""
    agreed = _agreed(levels) if len(levels) > 1 else np.zeros_like(levels[0])
    return {
        name: FeatureVerdict(name=name, psi=float(value), severity=_LEVELS[level])
        for name, value, level in zip(compared(profile), _agreed(values), agreed, strict=True)
    }


def _compare(
    reference: Counts, live: Counts, thresholds: DriftThresholds
) -> tuple[Figures, Levels]:
    enough = live.sum(axis=1) >= MINIMUM_ROWS
    values = np.where(enough, psi(reference, live), 0.0)
    significant = np.zeros(len(enough), dtype=np.bool_)
    p = g_test(reference[enough], live[enough])
    significant[enough] = benjamini_hochberg(p, FALSE_DISCOVERIES)
    bounds = [float(thresholds.warn), float(thresholds.alert)]
    return values, np.where(significant, np.searchsorted(bounds, values, side="left"), 0)


def _outlier_level(
    group: Window, reference: OutlierReference, thresholds: OutlierThresholds
) -> int:
    against = {"reference_hits": reference.hits, "reference_rows": reference.rows}
    if more_often(group.outliers, group.rows, **against) >= CHANCE:
        return 0
    ratio = Decimal(rate_ratio(group.outliers, group.rows, **against))
    return sum(ratio > bound for bound in (thresholds.warn, thresholds.alert))


def _agreed(figures: NDArray[np.float64] | Levels) -> NDArray[np.float64]:
    """Give what two of the last three groups reach, for each column; a lone group's own figure."""
    return np.asarray(np.sort(figures, axis=0)[-min(2, len(figures))])


def _expected(feature: FeatureProfile) -> Counts:
    return np.array([*feature.counts, feature.missing, feature.unseen], dtype=np.int64)


def _observed(
    group: Window, profile: Profile, features: Mapping[str, Compared], width: int
) -> Counts:
    """Lay out a group's counts as the reference's are; what was counted otherwise is left out."""
    rows = np.zeros((len(features), width), dtype=np.int64)
    for row, (index, feature) in enumerate(features.values()):
        counts = group.histograms.get((profile.edges_hash, index))
        if counts is not None and len(counts) == len(feature.counts) + 2:
            rows[row, : len(counts)] = counts
    return rows


def _matrix(histograms: Sequence[Counts]) -> Counts:
    width = max((len(counts) for counts in histograms), default=0)
    matrix = np.zeros((len(histograms), width), dtype=np.int64)
    for row, counts in zip(matrix, histograms, strict=True):
        row[: len(counts)] = counts
    return matrix
