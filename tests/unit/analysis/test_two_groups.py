"""Tests of two groups against scipy and statsmodels, by hand, and as properties."""

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from kd_ray.analysis import two_groups
from kd_ray.analysis.two_groups import (
    benjamini_hochberg,
    exchanges,
    hedges_g,
    holm,
    mean_interval,
    paired_t,
    pooled_sd,
    welch,
)

Array = npt.NDArray[np.float64]
SIZES = [(2, 2), (3, 3), (5, 5), (3, 7), (10, 4)]


def runs(r: int, s: int, c: int = 20, seed: int = 0) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    return rng.normal(0.8, 0.02, (r, c)), rng.normal(0.81, 0.05, (s, c))


@pytest.mark.parametrize(("r", "s"), SIZES)
def test_welch_is_that_of_scipy(r: int, s: int) -> None:
    a, b = runs(r, s)
    mine, theirs = welch(a, b, level=0.1), stats.ttest_ind(b, a, equal_var=False)
    np.testing.assert_allclose(mine.p_C, theirs.pvalue, rtol=1e-10)
    np.testing.assert_allclose(mine.statistic_C, theirs.statistic, rtol=1e-10)
    np.testing.assert_allclose(mine.df_C, theirs.df, rtol=1e-10)
    interval = theirs.confidence_interval(0.9)
    np.testing.assert_allclose([mine.low_C, mine.high_C], [interval.low, interval.high], rtol=1e-9)


def test_welch_by_hand() -> None:
    # Means 2 and 5, variances 1 and 4, three runs each: t = 3 / sqrt(5/3), df = (5/3)² / ((1/9 + 16/9) / 2).
    found = welch(np.array([[1.0], [2.0], [3.0]]), np.array([[3.0], [5.0], [7.0]]), level=0.05)
    assert found.effect_C[0] == 3
    assert found.statistic_C[0] == pytest.approx(3 / math.sqrt(5 / 3))
    assert found.df_C[0] == pytest.approx((25 / 9) / (17 / 18))
    assert hedges_g(np.array([[1.0], [2.0], [3.0]]), np.array([[3.0], [5.0], [7.0]]))[0] == pytest.approx(
        3 / math.sqrt(2.5) * math.gamma(2) / (math.sqrt(2) * math.gamma(1.5))
    )


def test_paired_t_is_that_of_scipy() -> None:
    a, b = runs(5, 5)
    mine, theirs = paired_t(a, b, level=0.05), stats.ttest_rel(b, a)
    np.testing.assert_allclose(mine.p_C, theirs.pvalue, rtol=1e-10)
    np.testing.assert_allclose(mine.low_C, theirs.confidence_interval(0.95).low, rtol=1e-9)
    with pytest.raises(ValueError, match=r"equal shapes, got \(5, 20\) and \(3, 20\)"):
        paired_t(a, b[:3], level=0.05)


def test_paired_t_of_no_pairs_is_undefined() -> None:
    assert np.isnan(paired_t(np.empty((0, 4)), np.empty((0, 4)), level=0.05).p_C).all()
    assert np.isnan(paired_t(np.ones((1, 4)), np.zeros((1, 4)), level=0.05).p_C).all()


def test_interval_of_the_mean_is_students() -> None:
    a, _ = runs(5, 5)
    low_C, high_C = mean_interval(a, level=0.05)
    expected = stats.t.interval(0.95, 4, a.mean(axis=0), stats.sem(a))
    np.testing.assert_allclose([low_C, high_C], expected, rtol=1e-10)
    assert np.isnan(mean_interval(a[:1], level=0.05)[0]).all()


@pytest.mark.parametrize(("r", "s"), [(2, 2), (3, 3), (3, 4), (5, 5)])
def test_exchanges_are_the_exact_permutation_test_of_scipy(r: int, s: int) -> None:
    a, b = runs(r, s, c=6)
    found = exchanges(a, b, level=0.05)
    assert found is not None

    def gap(x: Array, y: Array, axis: int) -> Array:
        return np.asarray(np.abs(x.mean(axis=axis) - y.mean(axis=axis)))

    theirs = stats.permutation_test((b, a), gap, vectorized=True, n_resamples=10**6, alternative="greater", axis=0)
    np.testing.assert_allclose(found.p_C, theirs.pvalue, rtol=1e-12)


def test_exchanges_cannot_go_below_their_floor() -> None:
    """Five against five: 2 / 252 = .0079 (protocol 6.2)."""
    a, b = np.arange(5.0)[:, None], np.arange(5.0)[:, None] + 100
    found = exchanges(a, b, level=0.05)
    assert found is not None
    assert found.p_C[0] == found.floor == found.p_count == pytest.approx(2 / 252)
    uneven = exchanges(a[:3], b, level=0.05)
    assert uneven is not None
    assert uneven.p_C[0] == uneven.floor == pytest.approx(1 / 56)


def test_exchanges_give_no_p_where_they_are_too_many_and_nothing_below_two_runs() -> None:
    a, b = runs(8, 8)
    found = exchanges(a, b, level=0.05)
    assert found is not None
    assert np.isnan([*found.p_C, found.floor, found.p_count]).all()
    assert exchanges(a[:1], b, level=0.05) is None


def test_exchanges_count_as_the_test_itself_does() -> None:
    """Of the ten ways to deal three and three, those whose number of rejections by scipy is at least the observed one."""
    a, b = runs(3, 3, c=30, seed=3)
    b[:, :10] += 0.1
    found = exchanges(a, b, level=0.05)
    assert found is not None
    pool = np.concatenate([a, b])
    counts = []
    for i in range(1, 6):
        for j in range(i + 1, 6):
            first = [0, i, j]
            rest = [k for k in range(6) if k not in first]
            p_C = stats.ttest_ind(pool[first], pool[rest], equal_var=False).pvalue
            counts.append((p_C < 0.05).sum())
    assert found.p_count == pytest.approx(np.mean(np.array(counts) >= counts[0]))
    assert found.usual_count is None, "one of ten ways is more than 5 %, so that no count would exceed it"
    at_fifth = exchanges(a, b, level=0.2)
    assert at_fifth is not None and at_fifth.usual_count is not None


def test_drawn_exchanges_reach_as_far_as_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = runs(5, 6, c=60, seed=4)
    exact = exchanges(a, b, level=0.05)
    monkeypatch.setattr(two_groups, "MOST_EXCHANGES", 100)
    two_groups._ways.cache_clear()
    drawn = exchanges(a, b, level=0.05)
    two_groups._ways.cache_clear()
    assert exact and drawn and exact.usual_count and drawn.usual_count
    assert abs(exact.usual_count - drawn.usual_count) <= 1 < drawn.usual_count


@pytest.mark.parametrize(("r", "s"), [(5, 5), (10, 10)])
def test_noise_seldom_exceeds_the_usual_count_however_classes_go_together(r: int, s: int) -> None:
    """A claim of the product: at most 5 % of the counts of noise are larger, here with classes that share half of their variance."""
    random = np.random.default_rng(7)
    exceeded, counts = [], []
    for _ in range(400):
        common_N1 = random.normal(size=(r + s, 1))
        pool = common_N1 + random.normal(size=(r + s, 40))
        found = exchanges(pool[:r], pool[r:], level=0.05)
        assert found is not None and found.usual_count is not None
        counts.append((welch(pool[:r], pool[r:], level=0.05).p_C < 0.05).sum())
        exceeded.append(counts[-1] > found.usual_count)
    # 400 sweeps: a standard error of 1.1 points. The mean is what the table calls "by chance".
    assert np.mean(exceeded) <= 0.05 + 2 * 0.011
    assert np.mean(exceeded) >= 0.02
    assert np.mean(counts) == pytest.approx(40 * 0.05, abs=0.8)


def test_no_variance_gives_no_p_and_no_interval_whether_means_differ_or_not() -> None:
    a = np.array([[0.9, 0.9, 0.1 + 0.2]] * 3)
    b = np.array([[0.9, 0.8, 0.3]] * 3)
    found = welch(a, b, level=0.05)
    assert np.isnan(found.p_C).all()
    assert found.zero_variance_C.all()
    assert np.isnan(found.statistic_C).all()
    assert np.isnan(found.low_C).all() and np.isnan(found.high_C).all()
    assert found.effect_C.tolist() == pytest.approx([0.0, -0.1, 0.0])
    assert np.isnan(hedges_g(a, b)).all()


def test_one_run_or_an_undefined_one_gives_no_p() -> None:
    a, b = runs(3, 3, c=2)
    alone = welch(a[:1], b, level=0.05)
    assert np.isnan(alone.p_C).all()
    assert not np.isnan(alone.effect_C).any()
    assert np.isnan(hedges_g(a[:1], b)).all() and np.isnan(pooled_sd(a[:1], b)).all()
    a[0, 0] = np.nan
    found, exchanged = welch(a, b, level=0.05), exchanges(a, b, level=0.05)
    assert np.isnan(found.p_C).tolist() == [True, False]
    assert not found.zero_variance_C[0]
    assert exchanged is not None
    assert np.isnan(exchanged.p_C).tolist() == [True, False]


@pytest.mark.slow
def test_corrections_are_those_of_scipy_and_statsmodels() -> None:
    from statsmodels.stats.multitest import multipletests

    p_C = np.random.default_rng(0).random(50) ** 3
    np.testing.assert_allclose(benjamini_hochberg(p_C), stats.false_discovery_control(p_C), rtol=1e-12)
    np.testing.assert_allclose(holm(p_C), multipletests(p_C, method="holm")[1], rtol=1e-12)
    with_gaps_C = np.insert(p_C, [3, 20], np.nan)
    np.testing.assert_array_equal(benjamini_hochberg(with_gaps_C), np.insert(benjamini_hochberg(p_C), [3, 20], np.nan))


def test_corrections_by_hand() -> None:
    p_C = np.array([0.01, 0.04, 0.03])
    np.testing.assert_allclose(benjamini_hochberg(p_C), [0.03, 0.04, 0.04])
    np.testing.assert_allclose(holm(p_C), [0.03, 0.06, 0.06])
    assert benjamini_hochberg(np.array([])).shape == (0,)


probabilities = hnp.arrays(np.float64, st.integers(1, 30), elements=st.floats(0, 1))
values = hnp.arrays(np.float64, (4, 3), elements=st.floats(0, 1).map(lambda x: round(x, 3)))


@pytest.mark.slow
@given(probabilities)
@settings(deadline=None)
def test_corrected_p_keeps_the_order_and_never_falls(p_C: Array) -> None:
    for adjusted_C in (benjamini_hochberg(p_C), holm(p_C)):
        assert (adjusted_C >= p_C).all() and (adjusted_C <= 1).all()
        assert (np.diff(adjusted_C[np.argsort(p_C, kind="stable")]) >= 0).all()
    assert (holm(p_C) >= benjamini_hochberg(p_C) - 1e-15).all()


@pytest.mark.slow
@given(probabilities)
@settings(deadline=None)
def test_corrections_do_not_depend_on_the_order_of_classes(p_C: Array) -> None:
    order_C = np.random.default_rng(len(p_C)).permutation(len(p_C))
    np.testing.assert_allclose(benjamini_hochberg(p_C)[order_C], benjamini_hochberg(p_C[order_C]), rtol=1e-12)
    np.testing.assert_allclose(holm(p_C)[order_C], holm(p_C[order_C]), rtol=1e-12)


@pytest.mark.slow
@given(values, values)
@settings(deadline=None)
def test_swapping_the_conditions_flips_the_sign(a: Array, b: Array) -> None:
    one, other = welch(a, b, level=0.05), welch(b, a, level=0.05)
    np.testing.assert_allclose(one.effect_C, -other.effect_C, atol=1e-15)
    np.testing.assert_allclose(one.p_C, other.p_C, rtol=1e-9)
    np.testing.assert_allclose(one.low_C, -other.high_C, atol=1e-12)
    np.testing.assert_allclose(hedges_g(a, b), -hedges_g(b, a), rtol=1e-9)
    first, second = exchanges(a, b, level=0.05), exchanges(b, a, level=0.05)
    assert first is not None and second is not None
    np.testing.assert_allclose(first.p_C, second.p_C)


@pytest.mark.slow
@given(values, values, st.permutations(range(4)))
@settings(deadline=None)
def test_the_order_of_runs_does_not_matter_and_a_constant_cancels(a: Array, b: Array, order: list[int]) -> None:
    one = welch(a, b, level=0.05)
    for other in (welch(a[order], b, level=0.05), welch(a + 0.25, b + 0.25, level=0.05)):
        np.testing.assert_allclose(one.effect_C, other.effect_C, atol=1e-12)
        np.testing.assert_allclose(one.p_C, other.p_C, atol=1e-7)


def test_pooled_sd_by_hand_needs_two_runs_of_each_side() -> None:
    two_R1, other_S1 = np.array([[0.0], [2.0]]), np.array([[1.0], [5.0]])
    np.testing.assert_allclose(pooled_sd(two_R1, other_S1), [np.sqrt((2 + 8) / 2)])
    assert np.isnan(pooled_sd(two_R1[:1], other_S1)).all()
    assert np.isnan(pooled_sd(two_R1, other_S1[:1])).all()


def test_two_runs_are_enough_for_an_interval_and_an_effect() -> None:
    a, b = np.array([[1.0], [3.0]]), np.array([[4.0], [7.0]])
    low_C, high_C = mean_interval(a, level=0.05)
    expected = stats.t.interval(0.95, 1, loc=2.0, scale=1.0)
    assert (low_C[0], high_C[0]) == pytest.approx(expected)
    # Pooled sd sqrt((2 + 4.5) / 2), and the factor Γ(1) / (√1 · Γ(1/2)).
    assert hedges_g(a, b)[0] == pytest.approx(3.5 / math.sqrt(3.25) / math.sqrt(math.pi))


@pytest.mark.long
@pytest.mark.parametrize(("n", "most"), [(5, 0.20), (10, 0.10)])
def test_counts_of_sides_with_other_spreads_exceed_the_usual_one_more_often(n: int, most: float) -> None:
    """As docs/statistics.md says: exchanges mix the sides, so they show less of what a wide one does."""
    random = np.random.default_rng(11)
    exceeded = []
    for _ in range(400):
        wide, narrow = (sd * (random.normal(size=(n, 1)) + random.normal(size=(n, 60))) for sd in (4.0, 1.0))
        found = exchanges(wide, narrow, level=0.05)
        assert found is not None and found.usual_count is not None
        exceeded.append((welch(wide, narrow, level=0.05).p_C < 0.05).sum() > found.usual_count)
    assert 0.04 <= np.mean(exceeded) <= most


@pytest.mark.long
def test_runs_of_one_seed_that_are_alike_differ_in_fewer_classes_than_chance_gives() -> None:
    """At a correlation of 0.5 about 1 of 100 where independent runs would give 5: the number beside #SC is an upper one."""
    random = np.random.default_rng(11)
    counts = []
    for _ in range(200):
        seed = random.normal(size=(10, 100))
        sides = [seed + random.normal(size=(10, 100)) for _ in range(2)]
        counts.append((welch(*sides, level=0.05).p_C < 0.05).sum())
    assert 0.5 <= np.mean(counts) <= 1.5
