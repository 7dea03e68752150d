"""How large a difference has to be for so many runs to find it, and how often Welch's test rejects when there is none.

Both are exact for normal runs of equal variance. Given the ratio u of the two sample variances, Welch's statistic is the pooled one times a
factor of u, and its degrees of freedom depend on u alone; the pooled statistic has a (noncentral) t distribution and is independent of u.
So the probability of rejection is a mean over u, which follows an F distribution.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from scipy import special

from kd_ray.metrics.arrays import FloatArray

POWER = 0.8
"""Probability with which the smallest detectable shift is found."""
CURVE = (2, 3, 5, 7, 10, 15, 20, 30, 50)
"""Runs per side at which the power curve is drawn."""
MOST_RUNS = 200
"""Where the search for the number of runs ends."""

_RATIOS = 200
_QUANTILES = 50


@lru_cache(maxsize=4096)
def rejection_rate(n_baseline: int, n_treatment: int, level: float, shift: float = 0.0) -> float:
    """Probability that two-sided Welch rejects at `level` when the means differ by `shift` standard deviations of a run.

    With shift 0 it is the share of false alarms: 0.035 for 3 against 3 at 0.05, and towards 0.05 as runs are added.

    Raises:
        ValueError: fewer than two runs on a side.
    """
    r, s = n_baseline, n_treatment
    if min(r, s) < 2:
        raise ValueError(f"Welch's test needs two runs on each side, got {r} and {s}")
    u_K = special.fdtri(r - 1, s - 1, (np.arange(_RATIOS) + 0.5) / _RATIOS)
    b_K, t_K = u_K / r, 1 / s
    df_K = (b_K + t_K) ** 2 / (b_K**2 / (r - 1) + t_K**2 / (s - 1))
    pooled_K = ((r - 1) * u_K + (s - 1)) / (r + s - 2) * (1 / r + 1 / s)
    critical_K = special.stdtrit(df_K, 1 - level / 2) * np.sqrt((b_K + t_K) / pooled_K)
    df = r + s - 2
    if shift == 0:
        return float(np.mean(2 * special.stdtr(df, -critical_K)))
    # The noncentral t as a normal over the root of a chi-square; scipy's nctdtr is wrong far out, where small levels lead.
    noncentral = abs(shift) / math.sqrt(1 / r + 1 / s)
    root_Q = np.sqrt(special.chdtri(df, (np.arange(_QUANTILES) + 0.5) / _QUANTILES) / df)
    bound_KQ = critical_K[:, None] * root_Q
    return float(np.mean(special.ndtr(noncentral - bound_KQ) + special.ndtr(-noncentral - bound_KQ)))


@lru_cache(maxsize=4096)
def detectable_shift(n_baseline: int, n_treatment: int, level: float, power: float = POWER) -> float:
    """The smallest shift, in standard deviations of a run, that is found with that probability; NaN below two runs on a side."""
    if min(n_baseline, n_treatment) < 2:
        return math.nan
    low, high = 0.0, 1.0
    while rejection_rate(n_baseline, n_treatment, level, high) < power:
        low, high = high, 2 * high
    while high - low > 1e-3 * high:
        middle = (low + high) / 2
        if rejection_rate(n_baseline, n_treatment, level, middle) < power:
            low = middle
        else:
            high = middle
    return high


def runs_needed(shifts_C: FloatArray, level: float, power: float = POWER) -> FloatArray:
    """Runs per side, (C,), at which a shift of so many standard deviations is found; infinite above `MOST_RUNS`, NaN for NaN."""
    counts = _counts()
    found_K = np.array([detectable_shift(n, n, level, power) for n in counts])
    # Shifts fall as runs are added, and a search wants rising numbers.
    first_C = np.searchsorted(-found_K, -np.abs(shifts_C), side="left")
    needed_C = np.append(np.array(counts, dtype=np.float64), np.inf)[first_C]
    return np.where(np.isnan(shifts_C), np.nan, needed_C)


def _counts() -> Sequence[int]:
    """Numbers of runs that are worth proposing: every one while they are few, then in steps."""
    return [*range(2, 21), *range(22, 51, 2), *range(55, 101, 5), *range(120, MOST_RUNS + 1, 20)]
