"""The statistics against scipy.stats and against brute force."""

import math
from collections.abc import Sequence
from itertools import pairwise
from random import Random

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from modelops_operator.core.health.statistics import (
    Table,
    benjamini_hochberg,
    g_test,
    more_often,
    noncentral_bound,
    psi,
    psi_by_itself,
    rate_ratio,
    surges,
)
from modelops_runtime.profile import PRIOR
from modelops_runtime.profile import psi as plain_psi
from scipy import stats

pytestmark = pytest.mark.unit

# A busy machine is no failure.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

Histogram = list[int]


def histograms(highest: int = 100_000) -> st.SearchStrategy[tuple[Histogram, Histogram]]:
    counts = st.one_of(st.just(0), st.integers(0, 3), st.integers(0, highest))
    return st.integers(2, 12).flatmap(
        lambda size: st.tuples(
            st.lists(counts, min_size=size, max_size=size),
            st.lists(counts, min_size=size, max_size=size),
        )
    )


def one(reference: Sequence[int], live: Sequence[int]) -> Table:
    return Table.of(np.array([reference], dtype=np.int64), np.array([live], dtype=np.int64))


def brute_psi(reference: Histogram, live: Histogram) -> float:
    pairs = [(a, b) for a, b in zip(reference, live, strict=True) if a or b]
    n, m = sum(reference), sum(live)
    if not n or not m:
        return 0.0
    total = 0.0
    for a, b in pairs:
        p = (a + PRIOR) / (n + PRIOR * len(pairs))
        q = (b + PRIOR) / (m + PRIOR * len(pairs))
        total += (q - p) * (math.log(q) - math.log(p))
    return max(0.0, total - (len(pairs) - 1) * (1 / n + 1 / m))


@patient
@given(histograms())
def test_psi_is_its_formula(pair: tuple[Histogram, Histogram]) -> None:
    assert psi(one(*pair))[0] == pytest.approx(brute_psi(*pair), rel=1e-9, abs=1e-12)


@patient
@given(histograms(), st.integers(1, 5))
def test_bins_empty_on_both_sides_change_nothing(
    pair: tuple[Histogram, Histogram], padding: int
) -> None:
    reference, live = pair
    padded = one([*reference, *[0] * padding], [*live, *[0] * padding])
    assert psi(padded)[0] == pytest.approx(psi(one(reference, live))[0])
    assert g_test(padded)[0] == pytest.approx(g_test(one(reference, live))[0])


@patient
@given(histograms(), st.randoms(use_true_random=False))
def test_the_order_of_bins_does_not_matter(
    pair: tuple[Histogram, Histogram], random: Random
) -> None:
    bins = list(zip(*pair, strict=True))
    shuffled = list(bins)
    random.shuffle(shuffled)
    reference, live = zip(*shuffled, strict=True)
    assert psi(one(reference, live))[0] == pytest.approx(psi(one(*pair))[0], abs=1e-12)


def test_psi_without_rows_is_nothing() -> None:
    assert psi(one([0, 0], [5, 5]))[0] == 0
    assert psi(one([5, 5], [0, 0]))[0] == 0
    assert psi(one([0], [0]))[0] == 0


def test_psi_grows_with_the_shift() -> None:
    reference = [1000] * 10
    values = [
        psi(one(reference, [1000 - step] * 5 + [1000 + step] * 5))[0]
        for step in range(100, 1000, 100)
    ]
    assert all(smaller < larger for smaller, larger in pairwise(values))


@patient
@given(st.lists(st.integers(50, 5000), min_size=2, max_size=12), st.integers(0, 11))
def test_psi_grows_as_rows_move_into_one_bin(reference: Histogram, which: int) -> None:
    assume(which < len(reference))
    target = np.zeros(len(reference))
    target[which] = sum(reference)
    shares = [0.0, 0.25, 0.5, 0.75]
    moved = [
        np.rint(10 * ((1 - share) * np.array(reference) + share * target)).astype(int)
        for share in shares
    ]
    values = [psi(one(reference, list(live)))[0] for live in moved]
    assert all(smaller <= larger for smaller, larger in pairwise(values))


def test_psi_is_about_nothing_without_drift() -> None:
    """Without the correction its median would be .021."""
    random = np.random.default_rng(20)
    reference = random.multinomial(100_000, [1 / 22] * 22, size=2000)
    live = random.multinomial(1000, [1 / 22] * 22, size=2000)
    assert np.median(psi(Table.of(reference, live))) < 0.0015
    assert np.quantile(psi(Table.of(reference, live)), 0.999) < 0.03


@pytest.mark.parametrize("shift", [0.2, 0.5, 1.0])
def test_psi_of_a_shifted_normal_is_its_square(shift: float) -> None:
    """The symmetric Kullback-Leibler divergence of two normals d apart is d squared."""
    edges = stats.norm.ppf(np.linspace(0, 1, 21))
    p, q = np.diff(stats.norm.cdf(edges)), np.diff(stats.norm.cdf(edges, loc=shift))
    found = psi(one(np.rint(p * 10**7).astype(int), np.rint(q * 10**7).astype(int)))[0]
    assert found == pytest.approx(shift**2, rel=0.1)
    assert found <= shift**2


@patient
@given(histograms())
def test_g_is_scipys(pair: tuple[Histogram, Histogram]) -> None:
    kept = [(a, b) for a, b in zip(*pair, strict=True) if a or b]
    assume(len(kept) > 1)
    reference, live = ([bin_[side] for bin_ in kept] for side in (0, 1))
    assume(sum(reference) and sum(live))
    expected = stats.chi2_contingency(
        [reference, live], correction=False, lambda_="log-likelihood"
    ).pvalue
    assert g_test(one(*pair))[0] == pytest.approx(expected, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize(("reference", "live"), [([0, 0], [3, 4]), ([3, 4], [0, 0]), ([9], [5])])
def test_g_without_anything_to_compare_is_one(reference: Histogram, live: Histogram) -> None:
    assert g_test(one(reference, live))[0] == 1


def test_g_keeps_its_promise_without_drift() -> None:
    random = np.random.default_rng(7)
    shares = random.dirichlet([0.5] * 30)
    reference = random.multinomial(100_000, shares, size=4000)
    live = random.multinomial(1000, shares, size=4000)
    assert np.mean(g_test(Table.of(reference, live)) < 0.01) < 0.02


@patient
@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=50),
    st.sampled_from([0.001, 0.01, 0.05, 0.2]),
)
def test_benjamini_hochberg_is_scipys(p: list[float], q: float) -> None:
    expected = stats.false_discovery_control(p, method="bh")
    # At the very threshold scipy divides where we multiply.
    assume(np.all(np.abs(expected - q) > 1e-9))
    assert list(benjamini_hochberg(np.array(p), q)) == list(expected <= q)


def test_benjamini_hochberg_of_nothing() -> None:
    assert len(benjamini_hochberg(np.array([]), 0.01)) == 0


def test_benjamini_hochberg_takes_ties_together() -> None:
    assert list(benjamini_hochberg(np.array([0.01, 0.01, 0.5]), 0.02)) == [True, True, False]


def brute_more_often(hits: int, rows: int, reference_hits: int, reference_rows: int) -> float:
    together, everything = hits + reference_hits, rows + reference_rows
    ways = sum(
        math.comb(rows, h) * math.comb(reference_rows, together - h)
        for h in range(hits, min(rows, together) + 1)
    )
    return ways / math.comb(everything, together)


@patient
@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 60), st.integers(0, 60))
def test_more_often_is_counted_out(hits: int, misses: int, before: int, other: int) -> None:
    found = more_often(hits, hits + misses, reference_hits=before, reference_rows=before + other)
    expected = brute_more_often(hits, hits + misses, before, before + other)
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-12)


@patient
@given(
    st.integers(0, 3000), st.integers(3000, 10**6), st.integers(0, 3000), st.integers(3000, 10**6)
)
def test_more_often_is_scipys(hits: int, rows: int, before: int, reference_rows: int) -> None:
    found = more_often(hits, rows, reference_hits=before, reference_rows=reference_rows)
    expected = stats.hypergeom.sf(hits - 1, rows + reference_rows, hits + before, rows)
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-9)


def test_more_often_with_millions() -> None:
    same = more_often(10**7, 10**9, reference_hits=10**6, reference_rows=10**8)
    assert same == pytest.approx(0.5, abs=1e-3)
    assert more_often(2 * 10**7, 10**9, reference_hits=10**6, reference_rows=10**8) == 0
    assert more_often(0, 10**9, reference_hits=10**6, reference_rows=10**8) == 1


@pytest.mark.parametrize("bad", [(-1, 5, 1, 5), (6, 5, 1, 5), (1, 5, -1, 5), (1, 5, 6, 5)])
def test_more_often_refuses_what_is_no_rate(bad: tuple[int, int, int, int]) -> None:
    hits, rows, reference_hits, reference_rows = bad
    with pytest.raises(ValueError, match="is not a rate"):
        more_often(hits, rows, reference_hits=reference_hits, reference_rows=reference_rows)


def test_rate_ratio() -> None:
    assert rate_ratio(20, 1000, reference_hits=1000, reference_rows=100_000) == pytest.approx(
        2, rel=0.03
    )
    assert rate_ratio(0, 0, reference_hits=0, reference_rows=0) == 1
    assert math.isfinite(rate_ratio(10, 10, reference_hits=0, reference_rows=10**9))


@pytest.mark.parametrize("chance", [1e-4, 1e-3])
@pytest.mark.parametrize("freedom", [1, 4, 21, 60])
@pytest.mark.parametrize("noncentrality", [0.0, 1.0, 40.0, 2000.0])
def test_the_noncentral_bound_is_near_the_exact_one(
    chance: float, freedom: int, noncentrality: float
) -> None:
    exact = stats.ncx2.isf(chance, freedom, max(noncentrality, 1e-9))
    found = float(noncentral_bound(freedom, np.array(noncentrality), chance))
    assert found == pytest.approx(exact, rel=0.075 if freedom == 1 and not noncentrality else 0.03)


CHANCE = 0.01


@pytest.mark.parametrize("shift", [0.0, 0.2, 0.5])
@pytest.mark.parametrize("rows", [1000, 15_000])
def test_what_moves_by_itself_is_beyond_its_bound_by_chance_only(shift: float, rows: int) -> None:
    random, trials = np.random.default_rng(rows), 4000
    edges = stats.norm.ppf(np.linspace(0, 1, 21)[1:-1])
    at = [np.diff(stats.norm.cdf([-np.inf, *edges, np.inf], each)) for each in (0.0, shift)]
    far = float(((at[1] - at[0]) * np.log(at[1] / at[0])).sum())
    reference = random.multinomial(100_000, at[0], size=trials)
    live = random.multinomial(rows, at[1], size=trials)
    bound = psi_by_itself(Table.of(reference, live), np.full(trials, far), CHANCE)
    beyond = int((psi(Table.of(reference, live)) > bound).sum())
    assert CHANCE / 3 < beyond / trials < CHANCE * 2.5


@pytest.mark.parametrize("variation", [0.0, 0.01])
def test_surges_are_those_of_two_bins_by_brute_force(variation: float) -> None:
    random = np.random.default_rng(3)
    reference = random.multinomial(50_000, [0.5, 0.3, 0.15, 0.05], size=20)
    live = random.multinomial(1000, [0.45, 0.25, 0.2, 0.1], size=20)
    everywhere = np.ones_like(live, dtype=np.bool_)
    found = surges(Table.of(reference, live), np.full(20, variation), CHANCE, everywhere)
    spread = 1 / 50_000 + 1 / 1000
    bound = stats.ncx2.isf(CHANCE, 1, max(variation / spread, 1e-9)) * spread
    for row, bin_ in np.ndindex(found.shape):
        before, now = int(reference[row, bin_]), int(live[row, bin_])
        apart = plain_psi(np.array([before, 50_000 - before]), np.array([now, 1000 - now]))
        ratio = ((now + PRIOR) / 1001) / ((before + PRIOR) / 50_001)
        if abs(apart / bound - 1) > 0.08:  # else the approximate bound may decide otherwise
            assert found[row, bin_] == pytest.approx(
                ratio if ratio > 1 and apart > bound else 0.0, rel=1e-9
            )


@pytest.mark.parametrize("sides", [([5, 5], [0, 0]), ([0, 0], [5, 5])])
@pytest.mark.parametrize("variation", [0.0, 0.02])
def test_nothing_is_known_of_features_without_rows(
    sides: tuple[list[int], list[int]], variation: float
) -> None:
    table, by_itself = one(*sides), np.full(1, variation)
    assert psi_by_itself(table, by_itself, CHANCE).tolist() == [0]
    assert surges(table, by_itself, CHANCE, np.ones((1, 2), dtype=np.bool_)).tolist() == [[0, 0]]
