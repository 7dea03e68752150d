"""How sure a difference between two conditions is, with everything that could have come out otherwise: seeds, teachers and test samples.

The variance of a difference has up to four parts: runs of the baseline, runs of the treatment, teachers (where at least three taught the
same seeds) and test samples. Runs and test samples are crossed, so what both share (a run that is right about one image by accident) is
counted in both parts and taken off once (the two-way random-effects model; Owen 2007, "The pigeonhole bootstrap").

The *interval* uses the best estimate of that variance, with Satterthwaite's degrees of freedom. A *claim* is held to more, because its p
has to hold far out in the tail, where these degrees of freedom are too many: with standard deviations 3 : 1, Welch's test of 5 against 5
runs at 0.0001 rejects twice as often as it says, and adding well-known noise of test samples to that of 3 runs makes it hundreds of
times. So a claim needs two tests:

    of the runs alone, with degrees of freedom halfway between Welch's and the smaller group's, or the smaller group's where the groups
    differ in size (never too many: Mickey & Brown 1966): would another training show it? of runs and test samples together, with three
    tenths of the degrees of freedom that the samples add: would other samples show it?

Their larger p exceeds the true one by at most a fifth, down to 0.00001 and for every share of both variances (docs/statistics.md).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from kd_ray.metrics.arrays import FloatArray

RUNS_DF_SHARE = 0.5
"""Share of the degrees of freedom that Welch adds to the smaller group's, of which a claim makes use."""
SAMPLES_DF_SHARE = 0.3
"""Share of those that test samples add."""
_EQUAL = 1e-12
"""Relative size below which a standard error is rounding."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """One independent part of the variance of M differences."""

    variance_M: FloatArray
    df: float
    """Degrees of freedom of its estimate."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SampleNoise:
    """The part of the test samples."""

    sd_M: FloatArray
    """Standard deviation of the difference over resamples of the test samples; NaN where it is unknown."""
    shared_M: FloatArray
    """Variance that the runs' part holds as well: runs and samples in interaction."""
    df: float
    """Number of test samples minus 1."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Certainty:
    """M differences with all that is uncertain about them; NaN where nothing varies or a group has fewer than two runs."""

    low_M: FloatArray
    """Lower end of the 1 - level interval over seeds, teachers and test samples."""
    high_M: FloatArray
    se_runs_M: FloatArray
    """Standard error from the runs alone."""
    df_runs_M: FloatArray
    se_M: FloatArray
    """Standard error from runs and test samples."""
    df_M: FloatArray

    def p_two_sided(self, effect_M: FloatArray) -> FloatArray:
        """p that a claim of any difference is held to."""
        return np.minimum(2 * self._tail(np.abs(effect_M)), 1.0)

    def p_beyond(self, effect_M: FloatArray, margin: float, *, sign: int) -> FloatArray:
        """p that a claim of an effect above (`sign` 1) or below (-1) a margin is held to."""
        return self._tail(sign * (effect_M - margin))

    def _tail(self, distance_M: FloatArray) -> FloatArray:
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(
                np.maximum(
                    special.stdtr(self.df_runs_M, -distance_M / self.se_runs_M),
                    special.stdtr(self.df_M, -distance_M / self.se_M),
                )
            )


def runs_part(values_RM: FloatArray) -> Part:
    """Variance of a mean over R independent runs."""
    r = len(values_RM)
    variance_M = values_RM.var(axis=0, ddof=1) / r if r > 1 else np.full(values_RM.shape[1], np.nan)
    return Part(variance_M=variance_M, df=float(r - 1))


def certainty(
    effect_M: FloatArray, parts: Sequence[Part], samples: SampleNoise | None, *, level: float, scale_M: FloatArray
) -> Certainty:
    """Interval and p of M differences from the parts of their variance; `scale_M` is the size of the values, for what counts as 0."""
    parts_PM = np.stack([part.variance_M for part in parts])
    df_P = np.array([part.df for part in parts])
    runs_M = parts_PM.sum(axis=0)
    sampling_M = np.zeros_like(runs_M) if samples is None else np.nan_to_num(samples.sd_M) ** 2
    shared_M = np.zeros_like(runs_M) if samples is None else np.nan_to_num(samples.shared_M)
    with np.errstate(invalid="ignore", divide="ignore"):
        spread_M = (parts_PM**2 / df_P[:, None]).sum(axis=0)
        interval_M = np.maximum(runs_M + sampling_M - shared_M, np.maximum(runs_M, sampling_M))
        sampling_df = max(samples.df, 1.0) if samples is not None else np.inf
        interval_df_M = interval_M**2 / (spread_M + sampling_M**2 / sampling_df)
        df_runs_M = claim_df(runs_M, spread_M, smallest=float(df_P.min()), is_balanced=bool((df_P == df_P.min()).all()))
        total_M = runs_M + sampling_M
        all_df_M = total_M**2 / (runs_M**2 / df_runs_M + sampling_M**2 / sampling_df)
        df_M = df_runs_M + SAMPLES_DF_SHARE * (all_df_M - df_runs_M)
        nothing_M = ~(np.sqrt(runs_M) > _EQUAL * scale_M)
        half_M = special.stdtrit(interval_df_M, 1 - level / 2) * np.sqrt(interval_M)
    undefined_M = np.full_like(runs_M, np.nan)
    half_M = np.where(nothing_M, undefined_M, half_M)
    return Certainty(
        low_M=effect_M - half_M,
        high_M=effect_M + half_M,
        se_runs_M=np.where(nothing_M, undefined_M, np.sqrt(runs_M)),
        df_runs_M=df_runs_M,
        se_M=np.where(nothing_M, undefined_M, np.sqrt(total_M)),
        df_M=df_M,
    )


def claim_df(runs_M: FloatArray, spread_M: FloatArray, *, smallest: float, is_balanced: bool) -> FloatArray:
    """Degrees of freedom of the runs' variance that a claim is held to; `spread_M` is the sum of each part squared over its own."""
    with np.errstate(invalid="ignore", divide="ignore"):
        welch_M = runs_M**2 / spread_M
    if not is_balanced:
        return np.full_like(welch_M, smallest)
    return smallest + RUNS_DF_SHARE * (np.nan_to_num(np.maximum(welch_M, smallest), nan=smallest) - smallest)
