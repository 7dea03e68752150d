"""False alarms of Welch's test, and the difference that runs establish: against simulation."""

import math

import numpy as np
import pytest
from scipy import special, stats

from kd_ray.analysis.power import (
    MOST_RUNS,
    Spreads,
    _counts,
    _t_quantile,
    detectable,
    rejection_rate,
    seeds_for_share,
    seeds_needed,
)
from kd_ray.analysis.uncertainty import SampleNoise, certainty, runs_part

DRAWS = 20_000


@pytest.mark.parametrize(("r", "s"), [(2, 2), (3, 3), (5, 5), (10, 10), (3, 10)])
@pytest.mark.parametrize("level", [0.05, 0.005])
def test_rejection_rate_is_that_of_simulated_runs(r: int, s: int, level: float) -> None:
    rng = np.random.default_rng(r * 100 + s)
    a, b = rng.normal(size=(r, DRAWS)), rng.normal(size=(s, DRAWS))
    simulated = float((stats.ttest_ind(a, b, equal_var=False).pvalue < level).mean())
    expected = rejection_rate(r, s, level)
    # Four standard errors, and the grid of the integral.
    assert simulated == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / DRAWS) + 1e-3)


def test_few_runs_reject_less_often_than_the_level() -> None:
    assert rejection_rate(3, 3, 0.05) == pytest.approx(0.035, abs=5e-4)
    assert rejection_rate(5, 5, 0.05) == pytest.approx(0.044, abs=5e-4)
    assert rejection_rate(200, 200, 0.05) == pytest.approx(0.05, abs=1e-4)


def test_unequal_numbers_of_runs_reject_more_often_than_the_level() -> None:
    assert rejection_rate(2, 5, 0.05) > 0.06


def spreads(sd: float, n: int, sampling: float = 0.0) -> Spreads:
    return Spreads(
        sd_baseline_M=np.array([sd]),
        sd_treatment_M=np.array([sd]),
        n_baseline=n,
        n_treatment=n,
        sampling_sd_M=np.array([sampling]),
    )


@pytest.mark.parametrize(("now", "later"), [(2, 5), (3, 3), (3, 10), (5, 5), (5, 10), (10, 10)])
@pytest.mark.parametrize("level", [0.05, 0.002])
@pytest.mark.parametrize("sampling", [0.0, 0.6])
def test_what_is_said_to_be_found_with_probability_four_fifths_is(
    now: int, later: int, level: float, sampling: float
) -> None:
    """Sweeps with an unknown sd that show sd 1 in `now` runs; `later` new runs are tested at the difference that was printed.

    The prior of the true sd is flat in its logarithm, which is what "no better known than these runs tell" means.
    """
    rng = np.random.default_rng([now, later, round(level * 1000)])
    shift = detectable(spreads(1.0, now, sampling), later, later, level)[0]
    count = 4000
    sd = np.sqrt((now - 1) / rng.chisquare(now - 1, (2, count)))
    sides = [sd[i] * rng.normal(size=(later, count)) for i in (0, 1)]
    effect = sides[1].mean(axis=0) - sides[0].mean(axis=0) + shift
    samples = SampleNoise(sd_M=np.full(count, sampling), shared_M=np.zeros(count), df=1e9)
    sure = certainty(effect, [runs_part(it) for it in sides], samples, level=0.05, scale_M=np.ones(count))
    found = float((sure.p_two_sided(effect) < level).mean())
    # Within 5 points of what is printed: that is the promise.
    assert found == pytest.approx(0.8, abs=0.05)


def test_detectable_falls_with_runs_and_with_the_knowledge_of_the_sd_and_rises_with_tests() -> None:
    by_runs = [detectable(spreads(1.0, 5), n, n, 0.001)[0] for n in (3, 5, 10, 20, 50)]
    assert by_runs == sorted(by_runs, reverse=True)
    by_pilot = [detectable(spreads(1.0, n), 5, 5, 0.001)[0] for n in (2, 3, 5, 10)]
    assert by_pilot == sorted(by_pilot, reverse=True)
    by_level = [detectable(spreads(1.0, 5), 5, 5, 0.05 / tests)[0] for tests in (1, 10, 100)]
    assert by_level == sorted(by_level)
    assert detectable(spreads(1.0, 5, 0.5), 5, 5, 0.05)[0] > detectable(spreads(1.0, 5), 5, 5, 0.05)[0]


def test_detectable_of_many_runs_is_that_of_the_normal_test() -> None:
    expected = (special.ndtri(0.975) + special.ndtri(0.8)) * math.sqrt(2 / 1000)
    assert detectable(spreads(1.0, 1000), 1000, 1000, 0.05)[0] == pytest.approx(expected, rel=0.06)


def test_nothing_is_said_of_one_run_or_of_runs_that_never_differ() -> None:
    assert np.isnan(detectable(spreads(1.0, 1), 5, 5, 0.05)).all()
    assert np.isnan(detectable(spreads(1.0, 5), 1, 5, 0.05)).all()
    assert np.isnan(detectable(spreads(0.0, 5), 5, 5, 0.05)).all()
    with pytest.raises(ValueError, match="two runs on each side, got 1 and 5"):
        rejection_rate(1, 5, 0.05)


def test_seeds_needed_takes_a_selected_effect_for_smaller_than_it_looks() -> None:
    known = spreads(1.0, 5)
    clear, weak = seeds_needed(3.0, 0.6, known, 0.001), seeds_needed(1.5, 0.6, known, 0.001)
    assert clear is not None and weak is not None and clear < weak
    assert detectable(known, clear, clear, 0.001)[0] <= 3.0 * (1 - (0.6 / 3.0) ** 2)
    # An effect of less than its standard error is likely to be none.
    assert seeds_needed(0.5, 0.6, known, 0.001) is None
    assert seeds_needed(0.0, 0.6, known, 0.001) is None
    assert seeds_needed(1.0, 0.0, known, 0.001) is None
    assert MOST_RUNS == 200


def test_runs_for_half_of_the_hints_are_those_of_a_search_one_by_one() -> None:
    hints = [(effect, 0.6, spreads(1.0, 5, 0.1 * i), 0.001) for i, effect in enumerate((0.5, 2.0, 2.5, 3.0, 4.0))]
    needed = sorted(seeds_needed(*hint) or np.inf for hint in hints)
    assert needed[-1] == np.inf
    one_by_one = [
        next(
            (n for n in _counts() if detectable(known, n, n, level)[0] <= effect * (1 - (error / effect) ** 2)), np.inf
        )
        for effect, error, known, level in hints[1:]
    ]
    assert needed[:4] == sorted(one_by_one)
    assert [seeds_for_share(hints, count) for count in (1, 2, 3, 4, 5)] == [*needed[:4], None]


def test_quantiles_of_many_values_are_interpolated_to_their_last_digits() -> None:
    df = np.random.default_rng(0).uniform(2, 60, 200_000)
    for quantile in (0.975, 1 - 0.05 / 26_000):
        np.testing.assert_allclose(_t_quantile(df, quantile), special.stdtrit(df, quantile), rtol=1e-11)
        assert (_t_quantile(df[:1000], quantile) == special.stdtrit(df[:1000], quantile)).all()


def test_many_quantities_are_as_detectable_as_each_alone() -> None:
    sd_M = np.linspace(0.5, 2, 1_500)
    many = Spreads(sd_baseline_M=sd_M, sd_treatment_M=sd_M, n_baseline=5, n_treatment=5, sampling_sd_M=0.1 * sd_M)
    found_M = detectable(many, 5, 5, 0.01)
    for i in (0, 999, 1_000, 1_499):
        np.testing.assert_allclose(found_M[i], detectable(many.only(slice(i, i + 1)), 5, 5, 0.01)[0], rtol=1e-11)
