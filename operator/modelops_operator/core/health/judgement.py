"""From groups of windows to severities: significant, large, and seen twice.

A feature has moved when all of this holds: its histogram differs from the reference's
significantly, among all features (Benjamini-Hochberg on the G test); its PSI is above its
threshold; it has at least 1,000 rows; and two of the last three groups agree. Recovery takes two
groups of the last three as well. Nothing is remembered between evaluations.

A reference profile may tell how far each feature moves by itself: by night, on Sundays, from month
to month. Then its threshold is not below what it reaches by that and by chance, however few the
rows; smaller moves than elsewhere are told, as they are known to be unusual; and a category that
comes half as often again as in the reference is an alert, as are missing and unseen values, though
the PSI of a rare one is small. (Not where the spec says what PSI is an alert.)

Beside these stands the last day, in three sums of eight hours: what is too small for an alarm and
yet lasts is a warning, by a lower threshold, when two of the three agree. It names that day.

The figure that is told is the one on which two groups agree: the second largest of the last
three. So a value above the threshold and the verdict go together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import takewhile
from typing import Final, NamedTuple, Self
from weakref import WeakKeyDictionary

import numpy as np
from modelops_runtime.profile import FeatureProfile, Profile
from modelops_runtime.telemetry import NO_VERDICT
from numpy.typing import NDArray

from modelops_operator.api.resources import DriftThresholds, OutlierThresholds, Severity
from modelops_operator.core.health.histograms import Key, Places, packed
from modelops_operator.core.health.statistics import (
    Counts,
    Figures,
    Table,
    benjamini_hochberg,
    g_test,
    more_often,
    psi,
    psi_by_itself,
    rate_ratio,
    surges,
)
from modelops_operator.core.health.watch import OutlierReference
from modelops_operator.core.health.windows import GROUPS, LABELS, MINIMUM_ROWS, SCORES, Window

FALSE_DISCOVERIES: Final = 0.01
"""Share of the features found to differ in one group that may do so by chance."""
SIZES: Final = (Decimal("0.1"), Decimal("0.25"))
"""PSI of a warning and of an alert, where neither the spec nor the reference says more: below 0.1 a
change is small by convention, above 0.25 large (N. Siddiqi, "Credit Risk Scorecards", 2006)."""
CALIBRATED_SIZES: Final = (Decimal("0.05"), Decimal("0.1"))
"""The same where the reference tells how far a feature moves by itself, which is less than this."""
SURGE: Final = 1.5
"""So many times as often as in the reference is an alert. It is the warning's ratio for outliers,
between what nobody minds and twice as often."""
SURGE_CHANCE: Final = 1e-3
"""Probability below which that is no accident: the ratio alone is a bar for all but rare
categories, and the feature as a whole has to differ significantly, too."""
LASTING: Final = Decimal("0.7")
"""The share of the warning's threshold that holds for a day. A daily rhythm of 0.2 standard
deviations makes a PSI of at most 0.03 in eight hours, three years in the employment data 0.058."""
CHANCE: Final = 1e-4
"""Probability below which an outlier rate is no accident, nor a feature further away than it moves
by itself. The rate-ratio gate alone is a weak one: at 1,000 rows and a reference of 1 %, every
tenth window has 1.5 times as many outliers by chance."""

MAJORITY: Final = 0.5
"""Share of a group's samples that has to show drift."""

_LEVELS: Final = (Severity.NONE, Severity.WARN, Severity.ALERT)
_RANKS: Final = {severity: rank for rank, severity in enumerate(_LEVELS)}
_ALERT: Final = len(_LEVELS) - 1
Levels = NDArray[np.int64]
"""Indices of `_LEVELS`."""
Compared = tuple[int, FeatureProfile]
"""The index of a feature among the histograms, or `SCORES` or `LABELS`; and its reference."""


class FeatureVerdict(NamedTuple):
    """How far one feature is from the reference."""

    name: str
    psi: float
    severity: Severity
    bounds: tuple[float, float]
    """The PSI that is a warning, and the one that is an alert."""
    level: str = ""
    """What came so much more often that this alone is an alert: a category, or `missing` or
    `unseen` values."""
    ratio: float = 0.0
    """How many times as often as in the reference the level came."""
    lasting: bool = False
    """Only the last day shows it, and no window of late."""

    @property
    def threshold(self) -> float:
        """The bound that was passed, or the first one that was not."""
        return self.bounds[self.severity is Severity.ALERT]


NOTHING_LASTS: Final[Mapping[str, FeatureVerdict]] = {}
"""One for all: thousands of deployments keep what lasts."""


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
        moved = self.moved
        return bool(moved) and all(each.lasting for each in moved)

    @property
    def moved(self) -> tuple[FeatureVerdict, ...]:
        """Those that are past a threshold."""
        return tuple(takewhile(lambda each: each.severity is not Severity.NONE, self.features))

    @property
    def severity(self) -> Severity:
        """Of the worst feature."""
        return self.features[0].severity if self.features else Severity.NONE


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
    lasting: Mapping[str, FeatureVerdict] = NOTHING_LASTS,
) -> DriftVerdict:
    """Compare each group with the profile; `groups` has one to three windows, oldest first.

    `lasting` is what `judge_day` finds. Where no group shows it, it is a warning.
    """
    reference = _reference(profile)
    found = _compare(groups, reference, thresholds, Decimal(1))
    verdicts = _agreement(reference.features, found)
    for name, verdict in lasting.items():
        if verdicts[name].severity is Severity.NONE:
            verdicts[name] = verdict
    suspected = (found.levels[0] > 0) | (found.surges[0] > 0).any(axis=1)
    suspects = [name for name, suspect in zip(verdicts, suspected.tolist(), strict=True) if suspect]
    worst = sorted(
        verdicts.values(), key=lambda each: (-_RANKS[each.severity], -each.psi, each.name)
    )
    return DriftVerdict(
        features=tuple(worst), unconfirmed=tuple(suspects) if len(groups) == 1 else ()
    )


def judge_day(
    day: Sequence[Window], profile: Profile, thresholds: DriftThresholds
) -> Mapping[str, FeatureVerdict]:
    """Give the warnings, by feature, on which blocks of the last day agree."""
    if len(day) <= 1:
        return NOTHING_LASTS
    reference = _reference(profile)
    found = _compare(day, reference, thresholds, LASTING)
    if not (found.levels.any() or found.surges.any()):
        return NOTHING_LASTS
    lasting = {
        name: verdict._replace(severity=Severity.WARN, lasting=True)
        for name, verdict in _agreement(reference.features, found).items()
        if verdict.severity is not Severity.NONE
    }
    return lasting or NOTHING_LASTS


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
    return packed(window.histograms).sizes.items() <= _reference(profile).sizes_by_key.items()


@dataclass(frozen=True, slots=True)
class _Reference:
    """A profile in matrices, a row for each feature."""

    features: Mapping[str, Compared]
    places: Places
    """Where a window has the same."""
    sizes_by_key: Mapping[Key, int]
    """The number of bins at each of these places."""
    counts: Counts
    """Shape (features, bins)."""
    variation: Figures
    """How far each feature moves by itself, shape (features,); 0 where nobody knows."""
    known: NDArray[np.bool_]
    """Where somebody does, shape (features,)."""
    sudden: NDArray[np.bool_]
    """Where a surge is looked for: categories, missing and unseen values. (features, bins)."""

    @classmethod
    def of(cls, profile: Profile) -> Self:
        named = compared(profile)
        features = [feature for _, feature in named.values()]
        counts = _matrix([_expected(feature) for feature in features])
        known = np.array([feature.variation is not None for feature in features], dtype=np.bool_)
        ends = np.array([[feature.bins] for feature in features])
        first = np.where([[feature.kind == "category"] for feature in features], 0, ends)
        places = np.arange(counts.shape[1])
        sizes = {
            (profile.edges_hash, index): len(feature.counts) + 2
            for index, feature in named.values()
        }
        return cls(
            features=named,
            places=tuple(sizes.items()),
            sizes_by_key=sizes,
            counts=counts,
            variation=np.array([feature.variation or 0.0 for feature in features]),
            known=known,
            sudden=known[:, np.newaxis] & (first <= places) & (places <= ends + 1),
        )

    def sizes(self, thresholds: DriftThresholds, share: Decimal) -> Figures:
        """Give the PSI that matters as a warning and as an alert, shape (features, 2)."""
        usual, calibrated = (_sizes(thresholds, each, share) for each in (SIZES, CALIBRATED_SIZES))
        return np.where(self.known[:, np.newaxis], calibrated, usual)


_REFERENCES: Final[WeakKeyDictionary[Profile, _Reference]] = WeakKeyDictionary()
"""As long as somebody holds the profile."""


def _reference(profile: Profile) -> _Reference:
    known = _REFERENCES.get(profile)
    if known is None:
        known = _REFERENCES[profile] = _Reference.of(profile)
    return known


def _sizes(
    thresholds: DriftThresholds, usual: tuple[Decimal, Decimal], share: Decimal
) -> tuple[float, float]:
    """Fill in what the spec leaves out; a given threshold moves the other one out of its way."""
    warn, alert = thresholds.warn, thresholds.alert
    if alert is None:
        alert = usual[1] if warn is None else max(usual[1], warn)
    if warn is None:
        warn = min(usual[0], alert)
    return float(warn * share), float(alert)


@dataclass(frozen=True, slots=True)
class _Comparison:
    """Groups against the reference; the first axis is the groups."""

    psi: Figures
    """Shape (groups, features)."""
    bounds: Figures
    """Of a warning and of an alert, shape (groups, features, 2)."""
    levels: Levels
    """By the PSI, shape (groups, features)."""
    surges: Figures
    """Times as often as in the reference, where that is an alert: (groups, features, bins)."""


def _compare(
    windows: Sequence[Window], reference: _Reference, thresholds: DriftThresholds, share: Decimal
) -> _Comparison:
    """Hold windows against the reference, all features of all of them at once.

    `share` of the warning is enough.
    """
    places, width = reference.places, reference.counts.shape[1]
    live = np.stack([packed(each.histograms).rows(places, width) for each in windows])
    table = Table.of(reference.counts, live)
    enough = table.m >= MINIMUM_ROWS
    significant = benjamini_hochberg(np.where(enough, g_test(table), np.nan), FALSE_DISCOVERIES)
    values = np.where(enough, psi(table), 0.0)
    bounds = np.broadcast_to(reference.sizes(thresholds, share), (*values.shape, 2))
    surged = np.zeros(live.shape)
    if reference.known.any():
        by_itself = psi_by_itself(table, reference.variation, CHANCE)
        bounds = np.maximum(bounds, np.where(reference.known, by_itself, 0.0)[..., np.newaxis])
        if thresholds.alert is None and significant.any():
            among = reference.sudden & significant[..., np.newaxis]
            ratios = surges(table, reference.variation, SURGE_CHANCE, among)
            surged = np.where(ratios >= SURGE, ratios, 0.0)
    levels = np.where(significant, (values[..., np.newaxis] > bounds).sum(axis=-1), 0)
    return _Comparison(psi=values, bounds=bounds, levels=levels, surges=surged)


def _agreement(features: Mapping[str, Compared], found: _Comparison) -> dict[str, FeatureVerdict]:
    """Say for each feature, by its name, what two groups agree on; nothing where there is one."""
    values, levels, ratios = (_agreed(each) for each in (found.psi, found.levels, found.surges))
    alone = len(found.psi) == 1
    told = zip(
        features.items(),
        values.tolist(),
        levels.tolist(),
        found.bounds.min(axis=0).tolist(),
        ratios.max(axis=-1).tolist(),
        ratios.argmax(axis=-1).tolist(),
        strict=True,
    )
    verdicts = {}
    for (name, (_, feature)), value, level, bounds, ratio, most in told:
        surged = not alone and ratio > 0
        verdicts[name] = FeatureVerdict(
            name=name,
            psi=value,
            severity=_LEVELS[0 if alone else _ALERT if surged else level],
            bounds=tuple(bounds),
            level=_named(feature, most) if surged else "",
            ratio=ratio if surged else 0.0,
        )
    return verdicts


def _named(feature: FeatureProfile, place: int) -> str:
    """Name a bin in which a surge is looked for."""
    if place >= feature.bins:
        return ("missing", "unseen")[place - feature.bins]
    return feature.levels[place]


def _outlier_level(
    group: Window, reference: OutlierReference, thresholds: OutlierThresholds
) -> int:
    against = {"reference_hits": reference.hits, "reference_rows": reference.rows}
    ratio = Decimal(rate_ratio(group.outliers, group.rows, **against))
    level = sum(ratio > bound for bound in (thresholds.warn, thresholds.alert))
    by_chance = level and more_often(group.outliers, group.rows, **against) >= CHANCE
    return 0 if by_chance else level


def _agreed(figures: NDArray[np.float64] | Levels) -> NDArray[np.float64]:
    """Give what two of the last three groups reach, for each column; a lone group's own figure."""
    if len(figures) == GROUPS:  # by hand, as nearly always there are so many
        one, two, three = figures
        least, most = np.minimum(one, two), np.maximum(one, two)
        return np.asarray(np.maximum(least, np.minimum(most, three)))
    return np.asarray(np.min(figures, axis=0))


def _expected(feature: FeatureProfile) -> Counts:
    return np.array([*feature.counts, feature.missing, feature.unseen], dtype=np.int64)


def _matrix(histograms: Sequence[Counts]) -> Counts:
    width = max((len(counts) for counts in histograms), default=0)
    matrix = np.zeros((len(histograms), width), dtype=np.int64)
    for row, counts in zip(matrix, histograms, strict=True):
        row[: len(counts)] = counts
    return matrix
