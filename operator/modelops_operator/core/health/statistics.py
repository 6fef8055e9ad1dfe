"""The statistics behind a verdict, on integer histograms.

Histograms are rows of matrices of shape (features, bins), one row a feature, of live ones possibly
several matrices: (groups, features, bins). Features with fewer bins are padded with zeros: a bin
that is empty on both sides counts for nothing in any figure here. Guard bins, missing values and
unseen categories are bins like all others.

`scipy.special` suffices; `scipy.stats` would cost 100 MB of memory.
"""

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from modelops_runtime.profile import PRIOR
from numpy.typing import NDArray
from scipy.special import betaln, chdtrc, ndtri, rel_entr

Counts = NDArray[np.int64]
Figures = NDArray[np.float64]

_TAIL_TERMS: Final = 65_536
"""Terms of a hypergeometric tail that are summed: 40 standard deviations at 10 million hits."""


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Live rows beside those of the reference, counted in the same bins, and what all ask of both.

    Of several groups of live rows, the reference is the same.
    """

    reference: Counts
    """Shape (features, bins)."""
    live: Counts
    """Shape ([groups,] features, bins), which is that of `occupied`, too."""
    n: Counts
    """Rows of the reference, shape (features,)."""
    m: Counts
    """Live rows, shape ([groups,] features), which is that of all the rest, too."""
    occupied: NDArray[np.bool_]
    """The bins that are not empty on both sides."""
    bins: Counts
    """How many these are."""
    known: NDArray[np.bool_]
    """Whether there are rows on both sides."""
    spread: Figures
    """`1/n + 1/m`; 0 where a side has no rows."""

    @classmethod
    def of(cls, reference: Counts, live: Counts) -> Self:
        """Set live rows beside a reference."""
        n, m = reference.sum(axis=-1), live.sum(axis=-1)
        occupied = (reference > 0) | (live > 0)
        known = (n > 0) & (m > 0)
        return cls(
            reference=reference,
            live=live,
            n=n,
            m=m,
            occupied=occupied,
            bins=occupied.sum(axis=-1),
            known=known,
            spread=np.where(known, 1 / np.maximum(n, 1) + 1 / np.maximum(m, 1), 0.0),
        )


def psi(table: Table) -> Figures:
    """Give each feature's population stability index, corrected for the sample sizes.

    With the shares p of the reference's n rows and q of the m live rows over B bins,

        PSI = sum (q - p) ln(q / p),    corrected by    - (B - 1) (1/n + 1/m),

    and never below 0. The correction is what a PSI comes to on average without any drift
    (B. Yurdakul, J. Naranjo, "Statistical properties of the population stability index", Journal
    of Risk Model Validation 14(4), 2020): at 1,000 rows and 23 bins it is .02. B counts the bins
    that are not empty on both sides. Each of those gets half a row on either side (Jeffreys'
    prior), so that a bin which is new or gone weighs much and not infinitely.

    A feature without rows on either side has a PSI of 0.
    """
    prior = PRIOR * table.bins
    p = (table.reference + PRIOR) / _column(np.maximum(table.n + prior, 1))
    q = (table.live + PRIOR) / _column(np.maximum(table.m + prior, 1))
    raw = ((q - p) * np.log(q / p) * table.occupied).sum(axis=-1)
    bias = np.maximum(table.bins - 1, 0) * table.spread
    corrected: Figures = np.where(table.known, np.maximum(raw - bias, 0.0), 0.0)
    return corrected


def psi_by_itself(table: Table, variation: Figures, chance: float) -> Figures:
    """Give the PSI, as `psi` corrects it, that live rows exceed with probability `chance`.

    The rows are taken to be as far from the reference as it is from itself at times: `variation` is
    a PSI for each feature. Near the reference, PSI / (1/n + 1/m) is noncentral chi-squared with
    B - 1 degrees of freedom and the noncentrality variation / (1/n + 1/m) (W. G. Cochran, "The
    chi-squared test of goodness of fit", Annals of Mathematical Statistics 23, 1952, for Pearson's
    sum, from which PSI does not differ in the limit).

    A feature without rows on either side has 0.
    """
    freedom = np.maximum(table.bins - 1, 0)
    # Where there is no spread, any other will do.
    noncentrality = variation / np.where(table.known, table.spread, 1.0)
    bound = noncentral_bound(np.maximum(freedom, 1), noncentrality, chance)
    return np.maximum((bound - freedom) * table.spread, 0.0)


def surges(table: Table, variation: Figures, chance: float, among: NDArray[np.bool_]) -> Figures:
    """Say of each bin how many times as often as in the reference it is met; 0 if that is nothing.

    It is nothing unless the bin has rows, is `among` those that are asked about and, held against
    all the others together, is further from the reference than it comes with probability `chance`:
    `psi_by_itself` with two bins, which the feature's `variation` bounds as well, since merging
    bins never makes a PSI larger (S. Kullback, R. A. Leibler, "On information and sufficiency",
    Annals of Mathematical Statistics 22, 1951). Of the shape of the live counts, as is `among`.
    """
    live = table.live
    times = np.zeros(live.shape)
    places = np.nonzero(among & (live > 0))
    if not len(places[0]):
        return times
    expected, met = np.broadcast_to(table.reference, live.shape)[places], live[places]
    n, m = (np.broadcast_to(each, live.shape[:-1])[places[:-1]] for each in (table.n, table.m))
    spread, apart_by_itself = (
        np.broadcast_to(each, live.shape[:-1])[places[:-1]] for each in (table.spread, variation)
    )
    p, q = (expected + PRIOR) / (n + 2 * PRIOR), (met + PRIOR) / (m + 2 * PRIOR)
    apart = (q - p) * np.log(q * (1 - p) / (p * (1 - q)))
    noncentrality = apart_by_itself / np.where(spread > 0, spread, 1.0)
    bound = noncentral_bound(1, noncentrality, chance) * spread
    times[places] = np.where((q > p) & (apart > bound) & (n > 0), q / p, 0.0)
    return times


def noncentral_bound(freedom: Counts | int, noncentrality: Figures, chance: float) -> Figures:
    """Give what a noncentral chi-squared variable exceeds with probability `chance`.

    For f degrees of freedom and the noncentrality c, (value / (f + c))^h is nearly normal, with

        h = 1 - 2 (f + c) (f + 3 c) / 3 (f + 2 c)^2,
        p = (f + 2 c) / (f + c)^2,  m = (h - 1) (1 - 3 h),
        mean 1 + h p (h - 1 - (2 - h) m p / 2),  variance 2 h^2 p (1 + m p / 2)

    (M. Sankaran, "Approximations to the non-central chi-square distribution", Biometrika 50, 1963):
    within 3 % of the exact bound, 7 % for one degree of freedom and no noncentrality, in a quarter
    of the time.
    """
    centre, wide = freedom + noncentrality, freedom + 2 * noncentrality
    h = 1 - 2 * centre * (freedom + 3 * noncentrality) / (3 * wide**2)
    p, m = wide / centre**2, (h - 1) * (1 - 3 * h)
    mean = 1 + h * p * (h - 1 - (2 - h) * m * p / 2)
    deviation = h * np.sqrt(2 * p * (1 + m * p / 2))
    bound: Figures = centre * (mean + ndtri(1 - chance) * deviation) ** (1 / h)
    return bound


def g_test(table: Table) -> Figures:
    """Give the probability, without any drift, of histograms that differ as much as these.

    The likelihood-ratio test of homogeneity of a 2 x B table (R. R. Sokal, F. J. Rohlf,
    "Biometry", chapter 17): G = 2 sum O ln(O / E), which is chi-squared with B - 1 degrees of
    freedom, B counting the bins that are not empty on both sides. Preferred to Pearson's sum,
    which a single row in a bin that expects a hundredth of one blows up.

    1.0 where there is nothing to compare: no rows on a side, or a single bin.
    """
    pooled = (table.reference + table.live).astype(np.float64)
    total = np.maximum(table.n + table.m, 1)
    surprise = rel_entr(table.reference, pooled * _column(table.n / total))
    surprise += rel_entr(table.live, pooled * _column(table.m / total))
    freedom = table.bins - 1
    statistic = np.maximum(2 * surprise.sum(axis=-1), 0.0)
    p: Figures = np.where(
        table.known & (freedom > 0), chdtrc(np.maximum(freedom, 1), statistic), 1.0
    )
    return p


def benjamini_hochberg(p: Figures, q: float) -> NDArray[np.bool_]:
    """Say which hypotheses to reject so that at most a share `q` of the rejections is false.

    Reject the k smallest p-values, k the largest number with p_(k) <= q k / N
    (Y. Benjamini, Y. Hochberg, Journal of the Royal Statistical Society B 57, 1995). Those along
    the last axis are tested together; NaN is what was not tested.
    """
    count = np.isfinite(p).sum(axis=-1, keepdims=True)
    ordered = np.sort(p, axis=-1)
    passed = ordered <= q * np.arange(1, p.shape[-1] + 1) / np.maximum(count, 1)
    largest = np.max(ordered, axis=-1, initial=-1.0, where=passed, keepdims=True)
    rejected: NDArray[np.bool_] = p <= largest
    return rejected


def more_often(hits: int, rows: int, *, reference_hits: int, reference_rows: int) -> float:
    """Give the probability of at least so many hits if the rate were the reference's.

    The one-sided test of two proportions in its exact form (R. A. Fisher, "Statistical Methods
    for Research Workers", section 21.02): given all hits together, those among the live rows are
    hypergeometric. Right for zero and for millions of hits alike.

    Raises ValueError for counts that are negative, or more hits than rows.
    """
    for count, total in ((hits, rows), (reference_hits, reference_rows)):
        if not 0 <= count <= total:
            raise ValueError(f"{count} of {total} rows is not a rate")
    together, everything = hits + reference_hits, rows + reference_rows
    most = min(together, rows)
    if hits <= max(0, together - reference_rows):
        return 1.0
    if hits * everything <= rows * together:
        # Below the expectation the other tail is the short one.
        least = max(0, together - reference_rows, hits - _TAIL_TERMS)
        lower = np.arange(least, hits)
        return float(max(0.0, 1.0 - _hypergeometric(lower, together, rows, reference_rows).sum()))
    upper = np.arange(hits, min(most, hits + _TAIL_TERMS) + 1)
    return float(min(1.0, _hypergeometric(upper, together, rows, reference_rows).sum()))


def rate_ratio(hits: int, rows: int, *, reference_hits: int, reference_rows: int) -> float:
    """Say how many times as often as in the reference; half a hit is added on both sides.

    So it stays finite where the reference has no hit at all, and near 1 where nobody has rows.
    """
    live = (hits + PRIOR) / (rows + 1)
    return live / ((reference_hits + PRIOR) / (reference_rows + 1))


def _column(figures: NDArray[np.float64] | Counts) -> Figures:
    column: Figures = np.asarray(figures, dtype=np.float64)[..., np.newaxis]
    return column


def _hypergeometric(hits: Counts, together: int, rows: int, reference_rows: int) -> Figures:
    """Probability of `hits` among `rows`, of `together` among all rows."""
    everything = rows + reference_rows
    logarithm = (
        _log_choose(rows, hits)
        + _log_choose(reference_rows, together - hits)
        - _log_choose(everything, together)
    )
    probability: Figures = np.exp(logarithm)
    return probability


def _log_choose(n: int, k: Counts | int) -> Figures:
    """Logarithm of the binomial coefficient; betaln keeps its digits where gammaln loses them."""
    logarithm: Figures = -np.log1p(n) - betaln(n - np.asarray(k) + 1.0, np.asarray(k) + 1.0)
    return logarithm
