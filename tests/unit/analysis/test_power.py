"""Power and false alarms of Welch's test: against simulation, statsmodels, and what the protocol notes."""

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.power import TTestIndPower

from kd_ray.analysis.power import detectable_shift, rejection_rate, runs_needed

DRAWS = 20_000


@pytest.mark.parametrize(("r", "s"), [(2, 2), (3, 3), (5, 5), (10, 10), (3, 10)])
@pytest.mark.parametrize(("shift", "level"), [(0.0, 0.05), (2.0, 0.05), (3.0, 0.005)])
def test_rejection_rate_is_that_of_simulated_runs(r: int, s: int, shift: float, level: float) -> None:
    rng = np.random.default_rng(r * 100 + s)
    a, b = rng.normal(size=(r, DRAWS)), rng.normal(shift, 1, size=(s, DRAWS))
    simulated = float((stats.ttest_ind(a, b, equal_var=False).pvalue < level).mean())
    expected = rejection_rate(r, s, level, shift)
    # Four standard errors, and the grid of the integral.
    assert simulated == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / DRAWS) + 1e-3)


def test_few_runs_reject_less_often_than_the_level() -> None:
    assert rejection_rate(3, 3, 0.05) == pytest.approx(0.035, abs=5e-4)
    assert rejection_rate(5, 5, 0.05) == pytest.approx(0.044, abs=5e-4)
    assert rejection_rate(200, 200, 0.05) == pytest.approx(0.05, abs=1e-4)


def test_unequal_numbers_of_runs_reject_more_often_than_the_level() -> None:
    assert rejection_rate(2, 5, 0.05) > 0.06


def test_power_is_that_of_the_noncentral_t_where_welch_is_students_test() -> None:
    expected = TTestIndPower().power(0.5, nobs1=100, alpha=0.05)
    assert rejection_rate(100, 100, 0.05, 0.5) == pytest.approx(expected, abs=2e-3)


def test_power_of_the_protocol() -> None:
    """6.2: seed sd of 2.5 points, five seeds, uncorrected: 75 % of shifts of 5 points are found."""
    assert rejection_rate(5, 5, 0.05, 5 / 2.5) == pytest.approx(0.76, abs=0.02)


@pytest.mark.parametrize("n", [2, 3, 5, 20])
@pytest.mark.parametrize("level", [0.05, 0.0005])
def test_detectable_shift_is_found_with_its_power(n: int, level: float) -> None:
    shift = detectable_shift(n, n, level)
    assert rejection_rate(n, n, level, shift) == pytest.approx(0.8, abs=2e-3)


def test_detectable_shift_falls_with_runs_and_rises_with_classes() -> None:
    by_runs = [detectable_shift(n, n, 0.05 / 100) for n in (3, 5, 10, 20, 50)]
    assert by_runs == sorted(by_runs, reverse=True)
    by_classes = [detectable_shift(5, 5, 0.05 / classes) for classes in (1, 10, 100, 1000)]
    assert by_classes == sorted(by_classes)


def test_runs_needed_is_the_first_that_finds_it() -> None:
    (needed,) = runs_needed(np.array([2.0]), 0.05)
    assert (
        detectable_shift(int(needed), int(needed), 0.05) <= 2 < detectable_shift(int(needed) - 1, int(needed) - 1, 0.05)
    )
    found = runs_needed(np.array([-2.0, 0.01, np.nan]), 0.05)
    assert found[0] == needed
    assert np.isinf(found[1])
    assert np.isnan(found[2])


def test_one_run_has_no_power() -> None:
    assert math.isnan(detectable_shift(1, 5, 0.05))
    with pytest.raises(ValueError, match="two runs on each side, got 1 and 5"):
        rejection_rate(1, 5, 0.05)
