"""How far the reference itself moves: a feature that swings by night may do so when it is served.

Rows are grouped by the hour of the day, by the day of the week, and in `STRETCHES` stretches of
time with as many rows each. Each group is held against the rest of the reference.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import pandas as pd
from modelops_runtime.profile import FeatureProfile, Profile, psi
from modelops_runtime.schema import Matrix
from numpy.typing import NDArray
from scipy.special import chdtri

from modelops_training.errors import DataError

STRETCHES: Final = 20
LEAST_ROWS: Final = 1_000
"""A smaller group, or a smaller rest, tells nothing."""
CHANCE: Final = 0.001
"""Probability with which chance alone takes a group further than is subtracted."""
Groups = NDArray[np.int64]
"""For each row the number of its group, -1 for none, shape (rows,)."""


def groups_of(times: Any, rows: int) -> tuple[Groups, ...]:
    """Group rows by their dates, a sequence with one for each: three ways, a group of each a row.

    Dates without a time zone are taken to be UTC. Raises DataError for what are no dates, or not
    as many as there are rows.
    """
    column = pd.Series(times).reset_index(drop=True)
    if len(column) != rows:
        raise DataError(f"there are {len(column)} times for {rows} rows")
    if not pd.api.types.is_datetime64_any_dtype(column):
        raise DataError(f"the times are {column.dtype}, no dates: make them by `pd.to_datetime`")
    utc = pd.to_datetime(column, utc=True)
    stretches = pd.qcut(utc, STRETCHES, labels=False, duplicates="drop")
    return tuple(
        each.fillna(-1).to_numpy(np.int64) for each in (utc.dt.hour, utc.dt.day_of_week, stretches)
    )


def varied(profile: Profile, matrix: Matrix, groups: Sequence[Groups]) -> Profile:
    """Tell each feature's variation among encoded rows, shape (rows, features)."""
    features = (
        replace(feature, variation=variation(feature, matrix[:, place], groups))
        for place, feature in enumerate(profile.features)
    )
    return replace(profile, features=tuple(features))


def predictions_varied(
    profile: Profile,
    scores: NDArray[np.float64] | None,
    labels: NDArray[np.int64] | None,
    groups: Sequence[Groups],
) -> Profile:
    """Tell the variation of what was predicted, each of shape (rows,)."""

    def told(feature: FeatureProfile | None, values: NDArray[Any] | None) -> FeatureProfile | None:
        if feature is None or values is None:
            return feature
        return replace(feature, variation=variation(feature, values.astype(np.float64), groups))

    return replace(
        profile, scores=told(profile.scores, scores), labels=told(profile.labels, labels)
    )


def variation(
    feature: FeatureProfile, values: NDArray[np.float64], groups: Sequence[Groups]
) -> float | None:
    """Give the largest PSI between a group and the rest, less what chance alone comes to.

    Without any difference, PSI / (1/n + 1/m) is chi-squared with B - 1 degrees of freedom for
    groups of n and m rows and B bins (B. Yurdakul, J. Naranjo, "Statistical properties of the
    population stability index", Journal of Risk Model Validation 14(4), 2020); what it exceeds with
    probability `CHANCE` is subtracted. None if no group has `LEAST_ROWS`.
    """
    places, width = feature.place(values), feature.bins + 2
    found = []
    for codes in groups:
        known = codes >= 0
        cells = np.bincount(codes[known] * width + places[known])
        table = np.pad(cells, (0, -len(cells) % width)).reshape(-1, width)
        rests = table.sum(axis=0) - table
        found += [
            _beyond_chance(rest, group)
            for rest, group in zip(rests, table, strict=True)
            if min(rest.sum(), group.sum()) >= LEAST_ROWS
        ]
    return max(found, default=None)


def _beyond_chance(rest: NDArray[np.int64], group: NDArray[np.int64]) -> float:
    freedom = max(int(np.count_nonzero(rest + group)) - 1, 1)
    spread = 1 / float(rest.sum()) + 1 / float(group.sum())
    chance = float(chdtri(freedom, CHANCE)) * spread
    return max(psi(rest, group) - chance, 0.0)
