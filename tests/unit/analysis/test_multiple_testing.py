"""The procedure over all families of a report: by hand, against scipy, and on reports in which nothing differs."""

import numpy as np
import pytest
from scipy import stats

from kd_ray.analysis.multiple_testing import DECLARED_SHARE, corrected_within, established, exploration_level, simes


def test_simes_by_hand() -> None:
    # min(3 · 0.01, 3/2 · 0.04, 0.9)
    assert simes(np.array([0.9, 0.01, 0.04])) == pytest.approx(0.03)
    assert simes(np.array([0.02, np.nan])) == pytest.approx(0.02)
    assert np.isnan(simes(np.array([np.nan])))
    assert simes(np.array([1.0])) == 1.0


def test_simes_is_the_smallest_q_of_benjamini_and_hochberg() -> None:
    p_M = np.random.default_rng(0).random(20)
    assert simes(p_M) == pytest.approx(stats.false_discovery_control(p_M).min())


def test_members_are_tested_at_the_share_of_families_that_remain() -> None:
    families = {
        "a": np.array([0.001, 0.5]),
        "b": np.array([0.9]),
        "c": np.array([0.8, 0.9]),
        "none": np.array([np.nan]),
    }
    p, levels = established(families, level=0.05)
    # Simes: 0.002, 0.9, 0.9; Holm over three families, not four: 0.006, 1, 1.
    assert (p["a"], p["b"], p["c"]) == pytest.approx((0.006, 1.0, 1.0))
    assert np.isnan(p["none"])
    assert levels["a"].tolist() == pytest.approx([0.05 / 3] * 2)
    assert levels["b"].tolist() == [0.0]
    assert (corrected_within(families["a"]) < levels["a"]).tolist() == [True, False]


@pytest.mark.slow
@pytest.mark.parametrize("rho", [0.5, pytest.param(0.0, marks=pytest.mark.long)])
def test_a_report_in_which_nothing_differs_names_something_in_at_most_a_twentieth(rho: float) -> None:
    """Seven families of 10 to 1000 tests whose statistics share a part."""
    rng = np.random.default_rng(3)
    reports, false = 2000, 0
    for _ in range(reports):
        shared = rng.normal()
        families = {
            str(size): 2 * stats.norm.sf(np.abs(rho**0.5 * shared + (1 - rho) ** 0.5 * rng.normal(size=size)))
            for size in (10, 11, 20, 50, 100, 200, 1000)
        }
        _, levels = established(families, level=0.05)
        false += any((corrected_within(p) < levels[name]).any() for name, p in families.items())
    assert false / reports <= 0.05 + 3 * (0.05 * 0.95 / reports) ** 0.5


@pytest.mark.parametrize(("rho", "share", "shift"), [(0.0, 0.1, 3.0), (0.5, 0.02, 4.0)])
def test_where_something_differs_at_most_a_twentieth_of_what_is_named_is_false(
    rho: float, share: float, shift: float
) -> None:
    """What ASKED promises: the share of false ones, over all that a report names, on average. Two of four families hold something."""
    rng = np.random.default_rng(5)
    shares = []
    for _ in range(1000):
        is_real = [rng.random(100) < (share if family < 2 else 0) for family in range(4)]
        drawn = [rho**0.5 * rng.normal() + (1 - rho) ** 0.5 * rng.normal(size=100) for _ in range(4)]
        families = {
            str(i): 2 * stats.norm.sf(np.abs(z + shift * real))
            for i, (z, real) in enumerate(zip(drawn, is_real, strict=True))
        }
        _, levels = established(families, level=0.05)
        named = [corrected_within(p) < levels[name] for name, p in families.items()]
        false = sum(int((it & ~real).sum()) for it, real in zip(named, is_real, strict=True))
        shares.append(false / max(1, sum(int(it.sum()) for it in named)))
    assert 0.01 < np.mean(shares) <= 0.05


def test_claims_have_four_fifths_of_the_level_and_pass_it_on_when_all_hold() -> None:
    adjusted, level = exploration_level([0.001, 0.3], level=0.05)
    assert adjusted.tolist() == pytest.approx([0.002 / DECLARED_SHARE, 0.3 / DECLARED_SHARE])
    assert level == pytest.approx(0.05 * 0.2)
    adjusted, level = exploration_level([0.001, 0.01], level=0.05)
    assert (adjusted < 0.05).all()
    assert level == 0.05
    adjusted, level = exploration_level([], level=0.05)
    assert (len(adjusted), level) == (0, 0.05)


def test_a_claim_that_cannot_be_tested_keeps_its_share_of_the_level() -> None:
    adjusted, level = exploration_level([np.nan, 0.001], level=0.05)
    assert np.isnan(adjusted[0])
    assert level == pytest.approx(0.01)
