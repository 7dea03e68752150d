"""Claims: what is tested, against what, and what is said; on drawn sweeps whose truth is known."""

import numpy as np
import pytest
from scipy import special

from kd_ray.analysis.claim_tests import Declared
from kd_ray.analysis.compare import SweepComparison, compare_study
from kd_ray.analysis.contrast import Options
from kd_ray.errors import InvalidInputError
from kd_ray.results.comparison_schema import Comparison
from kd_ray.sweep.claims import Claim
from tests.calibration.drawn import Design, draw

LOWER = Design(seeds=6, per_class=60, class_shift=-0.9, run_sd=0.1, temperatures=3)


def found_of(design: Design, *claims: Claim, seed: int = 0, num_complete: int = 0) -> SweepComparison:
    declared = [Declared(claim=it, declared_at="2026-11-01T10:00:00+00:00", num_complete=num_complete) for it in claims]
    return compare_study(draw(design, seed), Options(), declared=declared)


def row_of(design: Design, **claim: object) -> Comparison:
    (row,) = found_of(design, Claim.model_validate(claim)).of("claim")
    return row


@pytest.mark.slow
def test_a_claim_is_tested_over_all_conditions_that_it_chooses() -> None:
    everywhere = row_of(LOWER, **{"metric": "class_accuracy", "class": "class 0", "direction": "lower"})
    at_two = row_of(LOWER, **{"metric": "class_accuracy", "class": "class 0", "condition": {"temperature": 2}})
    assert (everywhere.condition, at_two.condition) == ("3 conditions", "T=2")
    assert (everywhere.n_baseline, everywhere.n_treatment) == (6, 6)
    study = draw(LOWER, 0)
    scratch, *distilled = (it for it in study.conditions if it.role != "teacher")
    means = [study.class_accuracy_TC[it.trials, 0].mean() for it in (scratch, *distilled)]
    assert everywhere.effect == pytest.approx(np.mean(means[1:]) - means[0])
    assert at_two.effect == pytest.approx(means[1] - means[0])
    assert everywhere.status == "established"


@pytest.mark.long
def test_directions_are_one_sided_and_margins_move_what_is_tested() -> None:
    claims: dict[str, dict[str, object]] = {
        "different": {},
        "lower": {"direction": "lower"},
        "higher": {"direction": "higher"},
        "lower by 50": {"direction": "lower", "margin": 0.5},
        "not_lower": {"direction": "not_lower", "margin": 0.5},
        "equivalent": {"direction": "equivalent", "margin": 0.5},
    }
    rows = {
        name: row_of(LOWER, **{"metric": "class_accuracy", "class": "class 0", **more}) for name, more in claims.items()
    }
    p = {name: row.p_claim for name, row in rows.items()}
    effect, se, df = (getattr(rows["different"], name) for name in ("effect", "standard_error", "df_claim"))
    # The larger p of both tests decides; it is at least that of runs and samples together.
    assert p["lower"] is not None and p["lower"] >= special.stdtr(df, effect / se) * (1 - 1e-9)
    assert p["different"] == pytest.approx(2 * p["lower"])
    assert p["higher"] is not None and p["higher"] > 0.99
    assert p["lower by 50"] is not None and p["lower by 50"] > 0.9
    assert p["not_lower"] is not None and p["not_lower"] < 0.05
    # Two one-sided tests: the effect is far below +50 points, so the lower bound decides.
    assert p["equivalent"] == pytest.approx(p["not_lower"])


@pytest.mark.slow
def test_no_harm_beyond_a_margin_can_be_shown() -> None:
    calm = Design(seeds=8, classes=4, per_class=200, run_sd=0.02)
    row = row_of(calm, metric="worst_class_accuracy", direction="not_lower", margin=0.08)
    assert row.status == "established"
    assert row_of(calm, metric="worst_class_accuracy", direction="not_lower", margin=0.001).status == "none"


@pytest.mark.long
def test_claims_of_nothing_hold_in_few_sweeps() -> None:
    """Three claims; a false one in at most four percent of the sweeps, and a twentieth with what is explored."""
    design = Design(seeds=5, temperatures=2, classes=4, per_class=30)
    claims = [
        Claim(metric="accuracy"),
        Claim(metric="worst_class_accuracy", direction="lower"),
        Claim(metric="equalized_odds_difference", feature="color", direction="higher"),
    ]
    reports = 60
    false = sum(
        any(row.status == "established" for row in found_of(design, *claims, seed=seed).rows) for seed in range(reports)
    )
    # Binomial(60, 0.05): at most 9 with probability 0.999.
    assert false <= 9


@pytest.mark.slow
def test_a_trend_is_tested_in_its_direction() -> None:
    rising = Design(seeds=5, temperatures=5, trend=0.6, run_sd=0.05, per_class=60)
    up = row_of(rising, metric="accuracy", trend="temperature", direction="rises")
    down = row_of(rising, metric="accuracy", trend="temperature", direction="falls")
    assert up.effect is not None and up.effect > 0.5
    assert up.status == "established"
    assert down.p_claim is not None and down.p_claim > 0.9


@pytest.mark.slow
def test_what_cannot_be_answered_is_said() -> None:
    two_seeds = found_of(Design(seeds=2), Claim(metric="accuracy"))
    (row,) = two_seeds.of("claim")
    assert (row.status, row.held_back) == ("not_tested", "fewer than 3 runs on a side")
    assert two_seeds.verdict.declared == (
        "Not tested: accuracy of all distilled students differs from scratch (fewer than 3 runs on a side); "
        "declared 2026-11-01 before training.",
    )
    cells = row_of(Design(seeds=4, intersections=True), metric="equalized_odds_difference", feature="color & texture")
    assert (cells.status, cells.held_back) == ("not_tested", "small cells")
    with pytest.raises(InvalidInputError, match=r"claims: class 'dog' is not a class of trifeature; valid: class 0, "):
        row_of(LOWER, **{"metric": "class_accuracy", "class": "dog"})
    with pytest.raises(
        InvalidInputError,
        match="claims: equalized_odds_difference of 'sex' is not in the tables; valid features: color",
    ):
        row_of(LOWER, metric="equalized_odds_difference", feature="sex")


@pytest.mark.slow
def test_a_claim_that_was_declared_after_results_says_so() -> None:
    found = found_of(LOWER, Claim(metric="accuracy"), num_complete=7)
    assert found.verdict.declared[0].endswith("declared 2026-11-01, with 7 trials complete.")


@pytest.mark.slow
def test_claims_leave_a_fifth_of_the_level_to_exploration() -> None:
    none, some = found_of(LOWER), found_of(LOWER, Claim(metric="accuracy", direction="higher"))
    (claim,) = some.of("claim")
    assert claim.status == "none"
    sizes = [
        [row.smallest_detectable for row in it.of("class_bias") if row.smallest_detectable is not None]
        for it in (none, some)
    ]
    assert all(b > a for a, b in zip(*sizes, strict=True))
