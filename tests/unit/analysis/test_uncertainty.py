"""Intervals and the p of claims: against scipy, by hand, and by simulation far out in the tail."""

from typing import Literal

import numpy as np
import pytest
from scipy import special, stats

from kd_ray.analysis.uncertainty import SampleNoise, certainty, runs_part


def sides(r: int, s: int, sd: float = 1.0, count: int = 1, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng([r, s, seed])
    return rng.normal(0, sd, (r, count)), rng.normal(0, 1, (s, count))


def test_without_test_samples_the_interval_is_welchs() -> None:
    a, b = sides(5, 7, 2.0, count=10)
    effect_M = b.mean(axis=0) - a.mean(axis=0)
    sure = certainty(effect_M, [runs_part(a), runs_part(b)], None, level=0.05, scale_M=np.ones(10))
    theirs = stats.ttest_ind(b, a, equal_var=False).confidence_interval(0.95)
    np.testing.assert_allclose([sure.low_M, sure.high_M], [theirs.low, theirs.high], rtol=1e-9)


def test_a_claim_of_equal_groups_has_degrees_of_freedom_halfway_to_the_smallest() -> None:
    a, b = sides(5, 5, 2.0)
    effect_M = b.mean(axis=0) - a.mean(axis=0)
    sure = certainty(effect_M, [runs_part(a), runs_part(b)], None, level=0.05, scale_M=np.ones(1))
    welch = stats.ttest_ind(b, a, equal_var=False)
    assert sure.df_runs_M[0] == pytest.approx(4 + (welch.df[0] - 4) / 2)
    expected = 2 * special.stdtr(sure.df_runs_M[0], -abs(welch.statistic[0]))
    assert sure.p_two_sided(effect_M)[0] == pytest.approx(expected)


def test_a_claim_of_groups_of_two_sizes_has_those_of_the_smaller() -> None:
    a, b = sides(3, 10)
    effect_M = b.mean(axis=0) - a.mean(axis=0)
    sure = certainty(effect_M, [runs_part(a), runs_part(b)], None, level=0.05, scale_M=np.ones(1))
    assert sure.df_runs_M[0] == 2


def test_test_samples_widen_the_interval_and_raise_the_p() -> None:
    a, b = sides(5, 5)
    effect_M = np.array([2.0])
    parts = [runs_part(a), runs_part(b)]
    alone = certainty(effect_M, parts, None, level=0.05, scale_M=np.ones(1))
    samples = SampleNoise(sd_M=np.array([1.0]), shared_M=np.zeros(1), df=99.0)
    both = certainty(effect_M, parts, samples, level=0.05, scale_M=np.ones(1))
    assert both.high_M[0] - both.low_M[0] > alone.high_M[0] - alone.low_M[0]
    assert both.p_two_sided(effect_M)[0] > alone.p_two_sided(effect_M)[0]
    shared = SampleNoise(sd_M=np.array([1.0]), shared_M=np.array([0.2]), df=99.0)
    less = certainty(effect_M, parts, shared, level=0.05, scale_M=np.ones(1))
    assert less.high_M[0] - less.low_M[0] < both.high_M[0] - both.low_M[0]
    # What both parts hold is taken off the interval, never off the p of a claim.
    assert less.p_two_sided(effect_M)[0] == both.p_two_sided(effect_M)[0]


def test_runs_that_never_differ_have_neither_interval_nor_p() -> None:
    a, b = np.full((3, 2), 0.9), np.full((3, 2), 0.8)
    samples = SampleNoise(sd_M=np.full(2, 0.01), shared_M=np.zeros(2), df=99.0)
    sure = certainty(np.full(2, -0.1), [runs_part(a), runs_part(b)], samples, level=0.05, scale_M=np.ones(2))
    assert np.isnan(sure.p_two_sided(np.full(2, -0.1))).all()
    assert np.isnan(sure.low_M).all()


@pytest.mark.parametrize("n", [3, 5, 10])
@pytest.mark.parametrize("sd", [1 / 3, 1.0, 3.0])
@pytest.mark.parametrize("sampling", [0.0, 0.3, 1.0])
def test_p_of_a_claim_is_no_smaller_than_it_says_far_out(n: int, sd: float, sampling: float) -> None:
    """Runs of unequal spread and a test set that moves both: below 0.001 lie at most 0.1 % of the p, by Rao & Blackwell over the noise.

    Each draw gives the probability that its effect would have been large enough, so 20,000 draws tell 0.001 to a few percent.
    """
    rng = np.random.default_rng([n, round(10 * sd), round(10 * sampling)])
    count, level = 20_000, 1e-3
    variances = [scale**2 * rng.chisquare(n - 1, count) / (n - 1) / n for scale in (sd, 1.0)]
    true = sd**2 / n + 1 / n
    samples = SampleNoise(sd_M=np.full(count, sampling * np.sqrt(true)), shared_M=np.zeros(count), df=200.0)
    parts = [type(runs_part(np.zeros((2, 1))))(variance_M=it, df=float(n - 1)) for it in variances]
    sure = certainty(np.zeros(count), parts, samples, level=0.05, scale_M=np.full(count, 1e-9))
    needed = np.maximum(
        special.stdtrit(sure.df_runs_M, 1 - level / 2) * sure.se_runs_M,
        special.stdtrit(sure.df_M, 1 - level / 2) * sure.se_M,
    )
    rejected = 2 * special.ndtr(-needed / np.sqrt(true * (1 + sampling**2)))
    assert rejected.mean() <= 1.2 * level


@pytest.mark.slow
@pytest.mark.parametrize(("n", "per_class"), [(3, 200), (5, 50), (10, 50)])
def test_intervals_over_seeds_and_samples_cover_what_they_say(n: int, per_class: int) -> None:
    """Difficulties, runs and luck drawn anew: the interval covers the difference of populations in 93 to 97 % of the draws."""
    rng = np.random.default_rng([n, per_class])
    count, covered = 1500, 0
    for _ in range(count):
        difficulty_N = rng.normal(size=per_class)
        right = [
            (0.8 + rng.normal(0, 0.2, (n, 1)) + difficulty_N + rng.normal(0, 0.7, (n, per_class)) > 0).astype(float)
            for _ in range(2)
        ]
        values = [it.mean(axis=1, keepdims=True) for it in right]
        difference_N = right[1].mean(axis=0) - right[0].mean(axis=0)
        shared = sum((it.var(axis=1).mean() - it.mean(axis=0).var()) / (n - 1) / per_class for it in right)
        samples = SampleNoise(
            sd_M=np.array([difference_N.std() / np.sqrt(per_class)]),
            shared_M=np.array([max(shared, 0.0)]),
            df=per_class - 1.0,
        )
        effect_M = values[1].mean(axis=0) - values[0].mean(axis=0)
        sure = certainty(effect_M, [runs_part(it) for it in values], samples, level=0.05, scale_M=np.ones(1))
        covered += bool(sure.low_M[0] <= 0 <= sure.high_M[0])
    assert 0.93 - 0.012 <= covered / count <= 0.97 + 0.012


@pytest.mark.parametrize(("sign", "alternative"), [(1, "greater"), (-1, "less")])
def test_p_beyond_a_margin_is_that_of_a_one_sided_t_test_when_only_runs_vary(
    sign: int, alternative: Literal["greater", "less"]
) -> None:
    values_RM = np.random.default_rng(3).normal(0.02, 0.01, (6, 4))
    effect_M = values_RM.mean(axis=0)
    found = certainty(effect_M, [runs_part(values_RM)], None, level=0.05, scale_M=np.ones(4))
    expected_M = stats.ttest_1samp(values_RM, 0.015, axis=0, alternative=alternative).pvalue
    np.testing.assert_allclose(found.p_beyond(effect_M, 0.015, sign=sign), expected_M, rtol=1e-10)
    np.testing.assert_allclose(
        found.p_two_sided(effect_M), stats.ttest_1samp(values_RM, 0.0, axis=0).pvalue, rtol=1e-10
    )


def test_part_of_two_runs_and_of_one() -> None:
    two = runs_part(np.array([[1.0], [3.0]]))
    assert (two.variance_M[0], two.df) == (1.0, 1.0)
    one = runs_part(np.array([[1.0]]))
    assert np.isnan(one.variance_M[0])
    assert one.df == 0.0
