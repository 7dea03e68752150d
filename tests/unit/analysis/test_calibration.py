"""Does the comparison keep its promises? Simulated classes: false discoveries, coverage, expected counts and power are what is printed.

The long form has twenty times as many sweeps: `pytest tests/unit/analysis/test_calibration.py -m calibration`. Every bound is four standard
errors over the simulated sweeps.
"""

import os
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest

from kd_ray.analysis.class_bias import normalised
from kd_ray.analysis.contrast import Options
from kd_ray.analysis.power import detectable_shift, rejection_rate
from kd_ray.analysis.two_groups import benjamini_hochberg, exchanges, holm, welch

LEVEL = 0.05
SIZES = [(n, classes) for n in (3, 5, 10) for classes in (10, 100, 1000)]


@dataclass(frozen=True, kw_only=True)
class Simulated:
    """What tests say about sweeps in which some classes are shifted, one row per sweep."""

    rejected_W: npt.NDArray[np.float64]
    """Share of the unshifted classes with p < level."""
    covered_W: npt.NDArray[np.float64]
    """Share of the intervals that contain the true effect."""
    false_share_W: npt.NDArray[np.float64]
    """Unshifted share of the classes with q < level; 0 where there are none."""
    any_false_W: npt.NDArray[np.float64]
    """Whether an unshifted class has p_holm < level."""
    found_W: npt.NDArray[np.float64]
    """Share of the shifted classes with p_holm < level; NaN without any."""


def simulate(n: int, classes: int, *, sweeps: int, shifted: int = 0, shift: float = 0.0, seed: int = 0) -> Simulated:
    """Runs as they are when accuracies of classes vary independently with one sd; a few classes move by `shift` of these."""
    rng = np.random.default_rng([n, classes, shifted, seed])
    effect_C = np.where(np.arange(classes) < shifted, shift, 0.0)
    rows = []
    for _ in range(sweeps):
        found = welch(rng.normal(size=(n, classes)), effect_C + rng.normal(size=(n, classes)), level=LEVEL)
        null_C = effect_C == 0
        by_bh_C, by_holm_C = benjamini_hochberg(found.p_C) < LEVEL, holm(found.p_C) < LEVEL
        rows.append(
            (
                (found.p_C[null_C] < LEVEL).mean(),
                ((found.low_C <= effect_C) & (effect_C <= found.high_C)).mean(),
                (by_bh_C & null_C).sum() / max(by_bh_C.sum(), 1),
                float((by_holm_C & null_C).any()),
                by_holm_C[~null_C].mean() if shifted else np.nan,
            )
        )
    return Simulated(
        **dict(
            zip(
                ("rejected_W", "covered_W", "false_share_W", "any_false_W", "found_W"),
                np.array(rows, dtype=np.float64).T,
                strict=True,
            )
        )
    )


def within(values_W: npt.NDArray[np.float64], expected: float, *, floor: float = 1e-3) -> bool:
    """Is the mean that value, up to four standard errors?"""
    return bool(abs(values_W.mean() - expected) <= 4 * values_W.std(ddof=1) / np.sqrt(len(values_W)) + floor)


def at_most(values_W: npt.NDArray[np.float64], limit: float) -> bool:
    """Is the mean at most that, up to four standard errors?"""
    return bool(values_W.mean() <= limit + 4 * max(values_W.std(ddof=1), 0.05) / np.sqrt(len(values_W)))


def check_null(n: int, classes: int, sweeps: int) -> None:
    found = simulate(n, classes, sweeps=sweeps)
    assert within(found.rejected_W, rejection_rate(n, n, LEVEL))
    # As few runs make the test reject too seldom, its interval covers too often.
    assert within(found.covered_W, 1 - rejection_rate(n, n, LEVEL))
    assert found.covered_W.mean() >= 1 - LEVEL - 4 * found.covered_W.std(ddof=1) / np.sqrt(sweeps)
    assert at_most(found.false_share_W, LEVEL)
    assert at_most(found.any_false_W, LEVEL)


def check_mixed(n: int, classes: int, sweeps: int) -> None:
    """A fifth of the classes are shifted by what the curve says is found with probability 0.8 if it is alone."""
    shift = detectable_shift(n, n, LEVEL / classes)
    found = simulate(n, classes, sweeps=sweeps, shifted=classes // 5, shift=shift)
    assert at_most(found.false_share_W, LEVEL)
    assert at_most(found.any_false_W, LEVEL)
    # Holm goes on after its first step, so that it finds a little more than Bonferroni, of which the curve is.
    assert found.found_W.mean() >= 0.8 - 4 * found.found_W.std(ddof=1) / np.sqrt(sweeps)
    alone = simulate(n, classes, sweeps=5 * sweeps, shifted=1, shift=shift)
    assert within(alone.found_W, 0.8, floor=0.01)


@pytest.mark.parametrize(("n", "classes"), SIZES)
def test_nothing_is_found_where_nothing_is(n: int, classes: int) -> None:
    check_null(n, classes, 200)


@pytest.mark.parametrize(("n", "classes"), SIZES)
def test_false_discoveries_and_power_among_true_shifts(n: int, classes: int) -> None:
    check_mixed(n, classes, 100)


def test_counts_of_normalised_accuracies_are_near_those_expected() -> None:
    """The whole chain of binomial accuracies over 50 test samples per class, normalised: a little below the normal's count.

    Protocol 6.1 found 4.6 % of classes for five against five; the printed expectation is 4.4 %.
    """
    rng = np.random.default_rng(0)
    options = Options()
    shares = []
    for _ in range(60):
        sides = []
        for _side in range(2):
            class_RC = rng.binomial(50, 0.7, (5, 100)) / 50
            sides.append(normalised(class_RC, class_RC.mean(axis=1), options))
        shares.append((welch(*sides, level=LEVEL).p_C < LEVEL).mean())
    assert np.mean(shares) == pytest.approx(rejection_rate(5, 5, LEVEL), abs=0.01)


def test_p_of_a_count_is_valid_however_classes_go_together() -> None:
    """All classes share half their noise, so counts vary wildly; a tenth of the sweeps reach p ≤ 0.1."""
    rng = np.random.default_rng(1)
    small = 0
    for _ in range(200):
        values_NC = rng.normal(size=(6, 1)) + rng.normal(size=(6, 40))
        found = exchanges(values_NC[:3], values_NC[3:], level=LEVEL)
        assert found is not None
        small += found.p_count <= 0.1
    # Ten ways, ties count against: binomial(200, 0.1) is below 38 with probability 0.9999.
    assert small <= 38


@pytest.mark.calibration
@pytest.mark.parametrize(("n", "classes"), SIZES)
def test_calibration_at_length(n: int, classes: int) -> None:
    sweeps = int(os.environ.get("KD_RAY_CALIBRATION_SWEEPS") or 4000)
    check_null(n, classes, sweeps)
    check_mixed(n, classes, sweeps)
