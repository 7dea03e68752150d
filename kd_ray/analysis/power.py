"""How large a difference has to be for so many runs to establish it, and how often Welch's test rejects when there is none.

The rate of rejection is exact for normal runs of equal variance. Given the ratio u of the two sample variances, Welch's statistic is the
pooled one times a factor of u, and its degrees of freedom depend on u alone; the pooled statistic has a (noncentral) t distribution and
is independent of u. So the probability of rejection is a mean over u, which follows an F distribution.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from scipy import special

from kd_ray.analysis.uncertainty import SAMPLES_DF_SHARE, claim_df
from kd_ray.metrics.arrays import FloatArray, IntArray
from kd_ray.sweep.placement import cpu_count

POWER = 0.8
"""Probability with which the smallest detectable shift is found."""
CURVE = (2, 3, 5, 7, 10, 15, 20, 30, 50)
"""Runs per side at which the power curve is drawn."""
MOST_RUNS = 200
"""Where the search for the number of runs ends."""

_RATIOS = 200
_AT_ONCE = 1000
"""Quantities whose possible futures are held together."""
_THREADS = 4
"""Most such parts at once: each takes 50 MB."""
_MANY, _NODES = 200_000, 2_000
"""From so many values on, quantiles are interpolated between so many exact ones."""
_IN_CACHE = 16_384
"""Values of an array that are interpolated together."""


@lru_cache(maxsize=4096)
def rejection_rate(n_baseline: int, n_treatment: int, level: float) -> float:
    """Probability that two-sided Welch rejects at `level` when the means are equal: 0.035 for 3 against 3 at 0.05, towards 0.05 with more
    runs.

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
    return float(np.mean(2 * special.stdtr(r + s - 2, -critical_K)))


DRAWS = 600
"""Possible futures from which a detectable difference is taken; evenly spread, so that its power is right to about 2 points."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Spreads:
    """What is known of how far the runs of both sides are apart, in M quantities."""

    sd_baseline_M: FloatArray
    sd_treatment_M: FloatArray
    n_baseline: int
    """Runs from which the standard deviations come."""
    n_treatment: int
    sampling_sd_M: FloatArray
    """Standard deviation of the difference over resamples of the test samples; 0 where it is unknown."""

    def only(self, quantities: slice | IntArray) -> "Spreads":
        """Some of the quantities."""
        return replace(
            self,
            sd_baseline_M=self.sd_baseline_M[quantities],
            sd_treatment_M=self.sd_treatment_M[quantities],
            sampling_sd_M=self.sampling_sd_M[quantities],
        )


def detectable(spreads: Spreads, n_baseline: int, n_treatment: int, level: float, power: float = POWER) -> FloatArray:
    """The smallest true difference on this test set, (M,), that so many new runs establish at `level` with that probability.

    The true standard deviations are not known: they are drawn from what the observed ones leave open (s² · df / chi²), so that the
    probability holds on average over sweeps that look like this one. Then new runs are drawn and held to the test of a claim
    (`uncertainty.py`). NaN below two runs on any side, or where no run differs from its group's mean.
    """
    return detectable_at(spreads, n_baseline, n_treatment, [level], power)[0]


def detectable_at(
    spreads: Spreads, n_baseline: int, n_treatment: int, levels: Sequence[float], power: float = POWER
) -> list[FloatArray]:
    """The same at each of the levels, from the same possible futures."""
    count = len(spreads.sd_baseline_M)
    if min(n_baseline, n_treatment, spreads.n_baseline, spreads.n_treatment) < 2:
        return [np.full(count, np.nan) for _ in levels]
    if count > _AT_ONCE:
        parts = [spreads.only(slice(i, i + _AT_ONCE)) for i in range(0, count, _AT_ONCE)]
        # NumPy and SciPy let other threads run while they compute.
        with ThreadPoolExecutor(min(cpu_count(), _THREADS)) as threads:
            found = list(threads.map(lambda part: detectable_at(part, n_baseline, n_treatment, levels, power), parts))
        return [np.concatenate(at_level) for at_level in zip(*found, strict=True)]
    futures = _Futures.of(spreads, n_baseline, n_treatment)
    nothing_M = (spreads.sd_baseline_M == 0) & (spreads.sd_treatment_M == 0)
    return [
        np.where(nothing_M, np.nan, np.maximum(np.quantile(futures.needed(level), power, axis=0), 0.0))
        for level in levels
    ]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Futures:
    """What new runs may be like, in D draws of M quantities."""

    runs_DM: FloatArray
    """Squared standard error of the difference over runs."""
    df_DM: FloatArray
    """Its degrees of freedom."""
    total_DM: FloatArray
    """The same with the error over test samples."""
    all_df_DM: FloatArray
    """Its degrees of freedom."""
    noise_DM: FloatArray
    """How far the difference of the new runs is from the true one."""

    @classmethod
    def of(cls, spreads: Spreads, n_baseline: int, n_treatment: int) -> "_Futures":
        uniform_D5 = _spread_evenly(DRAWS, 5)
        known = (
            (spreads.sd_baseline_M, spreads.n_baseline, n_baseline, uniform_D5[:, 0], uniform_D5[:, 1]),
            (spreads.sd_treatment_M, spreads.n_treatment, n_treatment, uniform_D5[:, 2], uniform_D5[:, 3]),
        )
        parts_PDM = []
        noise_DM = np.zeros((DRAWS, len(spreads.sd_baseline_M)))
        for sd_M, n_now, n, true_D, shown_D in known:
            variance_DM = sd_M**2 / (special.chdtri(n_now - 1, true_D) / (n_now - 1))[:, None]
            parts_PDM.append(variance_DM * (special.chdtri(n - 1, shown_D) / (n - 1))[:, None] / n)
            noise_DM = noise_DM + variance_DM / n
        noise_DM = np.sqrt(noise_DM) * special.ndtri(uniform_D5[:, 4])[:, None]
        runs_DM = parts_PDM[0] + parts_PDM[1]
        spread_DM = parts_PDM[0] ** 2 / (n_baseline - 1) + parts_PDM[1] ** 2 / (n_treatment - 1)
        smallest = float(min(n_baseline, n_treatment) - 1)
        df_DM = claim_df(runs_DM, spread_DM, smallest=smallest, is_balanced=n_baseline == n_treatment)
        total_DM = runs_DM + spreads.sampling_sd_M**2
        with np.errstate(invalid="ignore", divide="ignore"):
            all_df_DM = df_DM + SAMPLES_DF_SHARE * (total_DM**2 / (runs_DM**2 / df_DM) - df_DM)
        return cls(df_DM=df_DM, all_df_DM=all_df_DM, runs_DM=runs_DM, total_DM=total_DM, noise_DM=noise_DM)

    def needed(self, level: float) -> FloatArray:
        """The true difference from which on each is established, (D, M)."""
        quantile = 1 - level / 2
        needed_DM = np.maximum(
            _t_quantile(self.df_DM, quantile) * np.sqrt(self.runs_DM),
            _t_quantile(self.all_df_DM, quantile) * np.sqrt(self.total_DM),
        )
        return np.asarray(needed_DM - self.noise_DM)


def _t_quantile(df_DM: FloatArray, quantile: float) -> FloatArray:
    """Quantile of Student's t. Of many values it is interpolated over 1 / df, which takes a tenth of the time, to 1e-12 of its size."""
    low, high = df_DM.min(initial=np.inf), df_DM.max(initial=-np.inf)
    if df_DM.size < _MANY or not 1 <= low < high < np.inf:
        return np.asarray(special.stdtrit(df_DM, quantile), dtype=np.float64)
    from scipy.interpolate import CubicSpline

    inverse_K = np.linspace(1 / high, 1 / low, _NODES)
    cubic, square, slope, start = CubicSpline(inverse_K, np.log(special.stdtrit(1 / inverse_K, quantile))).c
    per_node = (_NODES - 1) / (inverse_K[-1] - inverse_K[0])
    found = np.empty(df_DM.size)
    # The nodes are evenly spaced, so that no search for the interval of a value is needed. Arrays of this size stay in the cache.
    for first in range(0, found.size, _IN_CACHE):
        some = slice(first, first + _IN_CACHE)
        inverse = 1 / df_DM.reshape(-1)[some]
        places = np.minimum(((inverse - inverse_K[0]) * per_node).astype(np.intp), _NODES - 2)
        x = inverse - inverse_K[places]
        found[some] = np.exp(((cubic[places] * x + square[places]) * x + slope[places]) * x + start[places])
    return found.reshape(df_DM.shape)


@lru_cache(maxsize=4)
def _spread_evenly(count: int, dimensions: int) -> FloatArray:
    """Points that fill the unit cube more evenly than random ones do, (count, dimensions): an additive recurrence (Roberts 2018)."""
    ratio = 2.0
    for _ in range(60):
        ratio = (1 + ratio) ** (1 / (dimensions + 1))
    steps = ratio ** -np.arange(1.0, dimensions + 1)
    return np.asarray((0.5 + np.arange(1, count + 1)[:, None] * steps) % 1.0)


def seeds_needed(
    effect: float, standard_error: float, spreads: Spreads, level: float, power: float = POWER
) -> int | None:
    """Runs per side that establish a difference with that probability; None above `MOST_RUNS`.

    The difference was singled out because it looks large, and looks larger than it is: it is taken as effect · (1 - 1 / t²), t = effect /
    its standard error (James & Stein 1961), and never found where t is below 1.
    """
    return seeds_for_share([(effect, standard_error, spreads, level)], 1, power)


Hint = tuple[float, float, Spreads, float]
"""A difference, its standard error, the spreads of its one quantity, and the level at which it is to be found."""


def seeds_for_share(hints: Sequence[Hint], count: int, power: float = POWER) -> int | None:
    """The smallest number of runs per side with which at least `count` of the hints are established, each as in `seeds_needed`.

    More runs never find less, so that the numbers are searched by halving.
    """
    alike: dict[tuple[int, int, float], list[int]] = defaultdict(list)
    likely_H = np.array([_likely(effect, error) for effect, error, _, _ in hints])
    for i, (_, _, spreads, level) in enumerate(hints):
        if likely_H[i] > 0:
            alike[spreads.n_baseline, spreads.n_treatment, level].append(i)
    groups = [(likely_H[them], stacked([hints[i][2] for i in them]), level) for (_, _, level), them in alike.items()]

    def settles(n: int) -> bool:
        found = sum(int((detectable(them, n, n, level, power) <= likely_M).sum()) for likely_M, them, level in groups)
        return found >= count

    counts = _counts()
    place = bisect_left(counts, True, key=settles)
    return counts[place] if place < len(counts) else None


def _likely(effect: float, standard_error: float) -> float:
    if not standard_error > 0:
        return 0.0
    t = effect / standard_error
    return abs(effect) * max(1 - 1 / t**2, 0.0) if t else 0.0


def stacked(some: Sequence[Spreads]) -> Spreads:
    """The quantities of several, of which as many runs are known."""
    return replace(
        some[0],
        sd_baseline_M=np.concatenate([it.sd_baseline_M for it in some]),
        sd_treatment_M=np.concatenate([it.sd_treatment_M for it in some]),
        sampling_sd_M=np.concatenate([it.sampling_sd_M for it in some]),
    )


def _counts() -> Sequence[int]:
    """Numbers of runs that are worth proposing: every one while they are few, then in steps."""
    return [*range(2, 21), *range(22, 51, 2), *range(55, 101, 5), *range(120, MOST_RUNS + 1, 20)]
