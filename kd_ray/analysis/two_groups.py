"""Two groups of runs compared in C quantities at once: Welch's test, the paired test, exact exchange of runs, corrections.

Everything is an array over the quantities (classes, or metrics), so a thousand of them cost one call. Runs are rows: R of the baseline, S
of the treatment. NaN in a run makes its quantity NaN throughout. Agreement with scipy and statsmodels is tested.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations, islice

import numpy as np
import numpy.typing as npt
from scipy import special

from kd_ray.metrics.arrays import FloatArray
from kd_ray.seeding import order_of, stream

MOST_EXCHANGES = 1000
"""Exchanges of runs that are looked at one by one: up to 6 against 6 (924)."""
DRAWN_EXCHANGES = 400
"""Random ones where there are more, the first of which changes nothing."""

_EQUAL = 1e-12
"""Relative difference below which two means, or a deviation and 0, are the same number."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TwoGroups:
    """Treatment against baseline in C quantities."""

    effect_C: FloatArray
    """Mean of the treatment minus mean of the baseline."""
    statistic_C: FloatArray
    """t; NaN where no run differs from its group's mean."""
    df_C: FloatArray
    """Degrees of freedom; NaN likewise."""
    p_C: FloatArray
    """Two-sided; NaN where no run differs from its group's mean: without a spread nothing says how far chance reaches."""
    low_C: FloatArray
    """Lower end of the 1 - level interval of the effect; NaN where p is."""
    high_C: FloatArray
    """Its upper end."""
    zero_variance_C: npt.NDArray[np.bool_]
    """True where both groups are constant, so that p and interval are undefined."""


def welch(baseline_RC: FloatArray, treatment_SC: FloatArray, *, level: float) -> TwoGroups:
    """Welch's t-test (1947) of unequal variances, two-sided, as scipy's `ttest_ind(equal_var=False)`.

    With fewer than two runs on a side everything but the effect is NaN.
    """
    r, s = len(baseline_RC), len(treatment_SC)
    effect_C = treatment_SC.mean(axis=0) - baseline_RC.mean(axis=0)
    if min(r, s) < 2:
        return _undefined(effect_C)
    part_b_C, part_t_C = baseline_RC.var(axis=0, ddof=1) / r, treatment_SC.var(axis=0, ddof=1) / s
    se_C = np.sqrt(part_b_C + part_t_C)
    with np.errstate(invalid="ignore", divide="ignore"):
        df_C = (part_b_C + part_t_C) ** 2 / (part_b_C**2 / (r - 1) + part_t_C**2 / (s - 1))
    scale_C = np.maximum(np.abs(baseline_RC).max(axis=0), np.abs(treatment_SC).max(axis=0))
    return _t_test(effect_C, se_C, df_C, scale_C, level=level)


def paired_t(baseline_RC: FloatArray, treatment_RC: FloatArray, *, level: float) -> TwoGroups:
    """The paired t-test: row r of both groups has the same seed. As scipy's `ttest_rel`."""
    if baseline_RC.shape != treatment_RC.shape:
        raise ValueError(f"pairs need equal shapes, got {baseline_RC.shape} and {treatment_RC.shape}")
    difference_RC = treatment_RC - baseline_RC
    r = len(difference_RC)
    if r < 2:
        return _undefined(difference_RC.mean(axis=0) if r else np.full(difference_RC.shape[1], np.nan))
    se_C = difference_RC.std(axis=0, ddof=1) / math.sqrt(r)
    scale_C = np.maximum(np.abs(baseline_RC).max(axis=0), np.abs(treatment_RC).max(axis=0))
    return _t_test(difference_RC.mean(axis=0), se_C, np.full(len(se_C), r - 1.0), scale_C, level=level)


def mean_interval(values_RC: FloatArray, *, level: float) -> tuple[FloatArray, FloatArray]:
    """Ends of the 1 - level interval of the mean over runs, after Student; NaN below two runs."""
    r = len(values_RC)
    mean_C = values_RC.mean(axis=0)
    if r < 2:
        return np.full_like(mean_C, np.nan), np.full_like(mean_C, np.nan)
    half_C = special.stdtrit(r - 1, 1 - level / 2) * values_RC.std(axis=0, ddof=1) / math.sqrt(r)
    return mean_C - half_C, mean_C + half_C


def pooled_sd(baseline_RC: FloatArray, treatment_SC: FloatArray) -> FloatArray:
    """Standard deviation within the groups, (C,); NaN when a side has fewer than two runs."""
    r, s = len(baseline_RC), len(treatment_SC)
    if min(r, s) < 2:
        return np.full(baseline_RC.shape[1], np.nan)
    squares_C = (r - 1) * baseline_RC.var(axis=0, ddof=1) + (s - 1) * treatment_SC.var(axis=0, ddof=1)
    return np.asarray(np.sqrt(squares_C / (r + s - 2)))


def hedges_g(baseline_RC: FloatArray, treatment_SC: FloatArray) -> FloatArray:
    """Standardised effect, unbiased in small samples (Hedges 1981, with the exact gamma factor); NaN without any variance."""
    sd_C = pooled_sd(baseline_RC, treatment_SC)
    df = len(baseline_RC) + len(treatment_SC) - 2
    effect_C = treatment_SC.mean(axis=0) - baseline_RC.mean(axis=0)
    scale_C = np.maximum(np.abs(baseline_RC).max(axis=0), np.abs(treatment_SC).max(axis=0))
    varies_C = sd_C > _EQUAL * scale_C
    if df < 2:
        return np.full_like(effect_C, np.nan)
    factor = math.exp(math.lgamma(df / 2) - math.lgamma((df - 1) / 2)) / math.sqrt(df / 2)
    g_C: FloatArray = np.full_like(effect_C, np.nan)
    np.divide(factor * effect_C, sd_C, out=g_C, where=varies_C)
    return g_C


@dataclass(frozen=True, kw_only=True, eq=False)
class Exchanges:
    """Ways to deal the runs to two groups of these sizes: all of them, or some that are drawn."""

    p_C: FloatArray
    """Share of the ways whose means differ at least as much as they do; two-sided. NaN where ways are drawn."""
    floor: float
    """The smallest value that `p_C` can have; NaN likewise."""
    p_count: float
    """Share of the ways in which Welch's test rejects at least as many of the C quantities as it does; NaN likewise."""
    usual_count: int | None
    """The number of rejections that at least 1 - level of the ways do not exceed; None where `floor` is above the level, because then no
    number of rejections would exceed it."""


def exchanges(baseline_RC: FloatArray, treatment_SC: FloatArray, *, level: float) -> Exchanges | None:
    """The exact permutation test, where there are at most `MOST_EXCHANGES` ways; None where a group has fewer than two runs.

    `p_count` and `usual_count` ask all quantities at once, with whatever correlation they have: could so many rejections come from runs
    that do not differ?
    """
    r, s = len(baseline_RC), len(treatment_SC)
    if min(r, s) < 2:
        return None
    pool_NC = np.concatenate([baseline_RC, treatment_SC])
    pool_NC = pool_NC - pool_NC.mean(axis=0)
    chosen_WN = _ways(r, s)
    mean_b_WC, mean_t_WC = chosen_WN @ pool_NC / r, (1 - chosen_WN) @ pool_NC / s
    gap_WC = np.abs(mean_t_WC - mean_b_WC)
    count_W = _rejected(pool_NC, chosen_WN, mean_b_WC, mean_t_WC, level=level)
    can_exceed = len(chosen_WN) * level >= 1
    usual = int(np.quantile(count_W, 1 - level, method="inverted_cdf")) if can_exceed else None
    if math.comb(r + s, r) > MOST_EXCHANGES:
        return Exchanges(p_C=np.full(pool_NC.shape[1], np.nan), floor=math.nan, p_count=math.nan, usual_count=usual)
    scale_C = np.abs(pool_NC).max(axis=0)
    # Not one comparison with NaN is true, so an undefined quantity has to be taken out by hand.
    p_C = np.where(np.isnan(scale_C), np.nan, (gap_WC >= gap_WC[0] - 1e-9 * scale_C).mean(axis=0))
    # The first way leaves everything where it is.
    p_count = float((count_W >= count_W[0]).mean())
    return Exchanges(p_C=p_C, floor=1 / len(chosen_WN), p_count=p_count, usual_count=usual)


@lru_cache(maxsize=16)
def _ways(r: int, s: int) -> FloatArray:
    """Ways to choose r of r + s runs, as zeros and ones, (W, N); the first one chooses the first runs."""
    if math.comb(r + s, r) > MOST_EXCHANGES:
        random = stream(0, "exchanges", r, s)
        orders_WN = order_of(random.bit_generator.random_raw((DRAWN_EXCHANGES, r + s)))
        orders_WN[0] = np.arange(r + s)
        return np.asarray(orders_WN < r, dtype=np.float64)
    # With groups of one size a way and its mirror image differ as much: half of them do, those that leave the first run where it is.
    num_ways = math.comb(r + s, r) // (2 if r == s else 1)
    chosen_WN = np.zeros((num_ways, r + s))
    for way, members in enumerate(islice(combinations(range(r + s), r), num_ways)):
        chosen_WN[way, list(members)] = 1.0
    return chosen_WN


def _rejected(
    pool_NC: FloatArray, chosen_WN: FloatArray, mean_b_WC: FloatArray, mean_t_WC: FloatArray, *, level: float
) -> npt.NDArray[np.int64]:
    """How many quantities Welch's test rejects in each way, (W,)."""
    r = int(chosen_WN[0].sum())
    s = chosen_WN.shape[1] - r
    var_b_WC = np.maximum((chosen_WN @ pool_NC**2 - r * mean_b_WC**2) / (r - 1) / r, 0)
    var_t_WC = np.maximum(((1 - chosen_WN) @ pool_NC**2 - s * mean_t_WC**2) / (s - 1) / s, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        se2_WC = var_b_WC + var_t_WC
        df_WC = se2_WC**2 / (var_b_WC**2 / (r - 1) + var_t_WC**2 / (s - 1))
        t_WC = np.abs(mean_t_WC - mean_b_WC) / np.sqrt(se2_WC)
        # The degrees of freedom are at most r + s - 2, so that few quantities are left to look at.
        rejected_WC = t_WC > (1 - 1e-9) * special.stdtrit(r + s - 2, 1 - level / 2)
        rejected_WC[rejected_WC] = 2 * special.stdtr(df_WC[rejected_WC], -t_WC[rejected_WC]) < level
    return np.asarray(rejected_WC.sum(axis=1))


def benjamini_hochberg(p_C: FloatArray) -> FloatArray:
    """q: reject where q < level to keep the false discovery rate at level, for independent or positively dependent tests.

    Benjamini & Hochberg 1995. NaN is no test: it stays NaN and does not count.
    """
    return _stepwise(p_C, lambda sorted_M: _up(sorted_M * (len(sorted_M) / np.arange(1, len(sorted_M) + 1))))


def holm(p_C: FloatArray) -> FloatArray:
    """p after Holm 1979: reject where it is < level to keep the chance of any false rejection at level, for any dependence."""
    return _stepwise(p_C, lambda sorted_M: np.maximum.accumulate(sorted_M * np.arange(len(sorted_M), 0, -1)))


def _up(values_M: FloatArray) -> FloatArray:
    return np.minimum.accumulate(values_M[::-1])[::-1]


def _stepwise(p_C: FloatArray, adjust: Callable[[FloatArray], FloatArray]) -> FloatArray:
    tested_M = np.flatnonzero(~np.isnan(p_C))
    order_M = tested_M[np.argsort(p_C[tested_M], kind="stable")]
    adjusted_C = np.full(len(p_C), np.nan)
    adjusted_C[order_M] = np.minimum(adjust(p_C[order_M]), 1.0)
    return adjusted_C


def _t_test(
    effect_C: FloatArray, se_C: FloatArray, df_C: FloatArray, scale_C: FloatArray, *, level: float
) -> TwoGroups:
    zero_C = se_C <= _EQUAL * scale_C
    with np.errstate(invalid="ignore", divide="ignore"):
        statistic_C = np.where(zero_C, np.nan, effect_C / se_C)
    df_C = np.where(zero_C, np.nan, df_C)
    half_C = np.where(zero_C, np.nan, special.stdtrit(df_C, 1 - level / 2) * se_C)
    return TwoGroups(
        effect_C=effect_C,
        statistic_C=statistic_C,
        df_C=df_C,
        p_C=2 * special.stdtr(df_C, -np.abs(statistic_C)),
        low_C=effect_C - half_C,
        high_C=effect_C + half_C,
        zero_variance_C=zero_C,
    )


def _undefined(effect_C: FloatArray) -> TwoGroups:
    nothing_C = np.full_like(effect_C, np.nan)
    return TwoGroups(
        effect_C=effect_C,
        statistic_C=nothing_C,
        df_C=nothing_C,
        p_C=nothing_C,
        low_C=nothing_C,
        high_C=nothing_C,
        zero_variance_C=np.zeros(len(effect_C), dtype=np.bool_),
    )
