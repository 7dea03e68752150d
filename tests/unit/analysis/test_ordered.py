"""Trends against scipy, by hand, and where runs of one seed go together."""

import math

import numpy as np
import pytest
from scipy import stats

from kd_ray.analysis.ordered import EXCHANGES, exchange_floor, orders_within, rank_exchange, trends

T_N = np.repeat([1.0, 2.0, 4.0, 10.0], 5)
SEEDS_N = np.tile(np.arange(5), 4)
ORDERS_WN = orders_within(SEEDS_N)


def values(seed: int, *, ties: bool) -> np.ndarray:
    values_N = np.random.default_rng(seed).normal(size=20) + 0.1 * T_N
    return np.asarray(values_N.round(0) if ties else values_N)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_spearman_and_kendall_are_those_of_scipy(seed: int, *, ties: bool) -> None:
    values_N = values(seed, ties=ties)
    spearman, kendall, jonckheere = trends(T_N, values_N, ORDERS_WN, level=0.05)
    rho, tau = stats.spearmanr(T_N, values_N), stats.kendalltau(T_N, values_N, method="asymptotic")
    assert (spearman.effect, spearman.p) == pytest.approx((rho.statistic, rho.pvalue), rel=1e-9)
    assert (kendall.effect, kendall.p) == pytest.approx((tau.statistic, tau.pvalue), rel=1e-9)
    # Both count concordant pairs; the variance given all ties is the same.
    assert jonckheere.p == kendall.p
    assert jonckheere.effect == pytest.approx(stats.somersd(T_N, values_N).statistic)


def test_jonckheere_by_hand() -> None:
    """Groups (1, 3), (2, 5), (4, 6): J = 3 + 4 + 3 of 12 pairs rising; without ties E[J] = 6, Var[J] = (6²·15 - 3·2²·7)/72 = 19/3."""
    values_N = np.array([1.0, 3.0, 2.0, 5.0, 4.0, 6.0])
    found = trends(np.array([1.0, 1, 2, 2, 3, 3]), values_N, orders_within(np.array([0, 1] * 3)), level=0.05)[2]
    assert found.effect == pytest.approx((10 - 2) / 12)
    assert found.statistic == pytest.approx((10 - 6) / math.sqrt(19 / 3))
    assert math.isnan(found.low)


def test_intervals_contain_the_correlation_and_widen_with_their_level() -> None:
    values_N = values(0, ties=False)
    wide, narrow = (trends(T_N, values_N, ORDERS_WN, level=level)[:2] for level in (0.01, 0.2))
    for a, b in zip(wide, narrow, strict=True):
        assert -1 <= a.low < b.low < a.effect < b.high < a.high <= 1
    # Fisher's z by hand for rho.
    rho = wide[0].effect
    half = stats.norm.ppf(0.995) * math.sqrt((1 + rho**2 / 2) / 17)
    assert wide[0].low == pytest.approx(math.tanh(math.atanh(rho) - half))


def test_reversing_the_values_flips_the_sign() -> None:
    values_N = values(1, ties=False)
    for up, down in zip(
        trends(T_N, values_N, ORDERS_WN, level=0.05), trends(T_N, -values_N, ORDERS_WN, level=0.05), strict=True
    ):
        assert up.effect == pytest.approx(-down.effect)
        assert (up.p, up.p_exchange) == pytest.approx((down.p, down.p_exchange), nan_ok=True)


def test_exchanges_within_seeds_see_a_trend_that_differences_between_seeds_hide() -> None:
    values_N = 100.0 * SEEDS_N + 0.1 * np.arange(20)
    spearman = trends(T_N, values_N, ORDERS_WN, level=0.05)[0]
    assert spearman.p > 0.1
    assert spearman.p_exchange == 1 / (EXCHANGES + 1)


def test_the_floor_is_what_so_few_exchanges_allow() -> None:
    """Two seeds at three temperatures: 3! · 3! orders, of which the rising and the falling one are the most extreme."""
    temperatures_N, seeds_N = np.repeat([1.0, 2.0, 4.0], 2), np.tile([0, 1], 3)
    assert exchange_floor(temperatures_N, seeds_N) == pytest.approx(2 / 36)
    orders_WN = orders_within(seeds_N)
    rho, p = rank_exchange(temperatures_N, temperatures_N, orders_WN)
    assert rho == pytest.approx(1)
    assert p == pytest.approx(2 / 36, abs=0.01)
    assert exchange_floor(T_N, SEEDS_N) == 1 / (EXCHANGES + 1)


def test_one_sided_exchanges_count_one_direction() -> None:
    values_N = values(0, ties=False)
    rho, p = rank_exchange(T_N, values_N, ORDERS_WN)
    up, down = (rank_exchange(T_N, values_N, ORDERS_WN, sign=sign)[1] for sign in (1.0, -1.0))
    assert rho > 0
    assert up < p < down
    assert rank_exchange(T_N, np.ones(20), ORDERS_WN) == (0.0, 1.0)


def test_exchanges_stay_within_seeds_and_begin_with_what_was_observed() -> None:
    assert (SEEDS_N[ORDERS_WN] == SEEDS_N).all()
    assert (ORDERS_WN[0] == np.arange(20)).all()
    assert (orders_within(SEEDS_N) == ORDERS_WN).all()


def test_exchange_p_is_uniform_without_a_trend() -> None:
    rng = np.random.default_rng(5)
    small_p = [
        trends(T_N, rng.normal(size=5)[SEEDS_N] + rng.normal(size=20), ORDERS_WN, level=0.05)[0].p_exchange <= 0.1
        for _ in range(60)
    ]
    # Binomial(60, 0.1): 0 to 14 with probability 0.999.
    assert sum(small_p) <= 14


def test_nothing_can_be_said_of_constants_gaps_and_three_runs() -> None:
    constant_N, with_gap_N = np.ones(20), np.append(values(0, ties=False)[:19], np.nan)
    assert trends(T_N, constant_N, ORDERS_WN, level=0.05) == []
    assert trends(T_N, with_gap_N, ORDERS_WN, level=0.05) == []
    assert trends(constant_N, values(0, ties=False), ORDERS_WN, level=0.05) == []
    assert trends(T_N[:3], np.arange(3.0), orders_within(SEEDS_N[:3]), level=0.05) == []


def test_few_exchanges_are_all_counted_so_no_p_is_below_what_is_possible() -> None:
    """Guard: drawn at random, 8 exchanges gave p 0.24 where 0.25 is the least."""
    seeds_N = np.repeat([0, 1, 2], 2)
    temperatures_N = np.tile([1.0, 4.0], 3)
    orders_WN = orders_within(seeds_N)
    assert {tuple(it) for it in orders_WN} == {
        (*a, *b, *c) for a in ((0, 1), (1, 0)) for b in ((2, 3), (3, 2)) for c in ((4, 5), (5, 4))
    }
    assert orders_WN[0].tolist() == list(range(6))
    assert rank_exchange(temperatures_N, np.arange(6.0) + temperatures_N * 10, orders_WN)[1] == 0.25
    assert exchange_floor(temperatures_N, seeds_N) == 0.25
