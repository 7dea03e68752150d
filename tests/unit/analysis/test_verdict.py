"""The sentences of a verdict, from rows made by hand: each case says what its rows hold, and no more."""

import re
from typing import Any

import numpy as np
import pytest

from kd_ray.analysis.claim_tests import Declared
from kd_ray.analysis.compare import compare_study
from kd_ray.analysis.contrast import Options
from kd_ray.analysis.planning import NextStep
from kd_ray.analysis.study import Study
from kd_ray.analysis.verdict import Verdict
from kd_ray.analysis.verdict_words import make_verdict
from kd_ray.results.comparison_schema import Comparison
from kd_ray.sweep.claims import Claim
from tests.calibration.drawn import Arrays, Design, as_study, draw

STUDY = draw(Design(seeds=5, temperatures=2, per_class=6), 0)


def row(**columns: Any) -> Comparison:
    """An established loss of accuracy at T=4, but for `columns`."""
    base: dict[str, Any] = {
        "sweep": "drawn",
        "dataset": "trifeature",
        "dataset_id": "d",
        "target": "shape",
        "model": "lenet5",
        "role": "distilled",
        "analysis": "fairness",
        "contrast": "scratch_vs_distilled",
        "family": "fairness scratch_vs_distilled",
        "condition": "T=4",
        "metric": "accuracy",
        "n_baseline": 5,
        "n_treatment": 5,
        "effect": -0.052,
        "ci_total_low": -0.071,
        "ci_total_high": -0.033,
        "level": 0.05,
        "p": 0.0001,
        "p_claim": 0.0002,
        "q": 0.004,
        "status": "established",
    }
    return Comparison(**{**base, **columns})


def said(*rows: Comparison, steps: tuple[NextStep, ...] = (), claims: tuple[Declared, ...] = ()) -> Verdict:
    return make_verdict(STUDY, rows, claims, steps, level=0.05)


def test_asked_says_conditions_seeds_teachers_samples_and_the_level() -> None:
    assert said(row(), row(p_claim=None, status="not_tested")).asked == (
        "2 distilled conditions (T=2 and T=3) against scratch students and their teacher. 5 seeds per condition, 1 teacher, "
        "60 test samples. 1 test. Where nothing differs, at most 5 % of reports have an ESTABLISHED; where something differs, at most "
        "about 5 % of what is established is false, on average. "
        "Small groups, which may decide DPD and EOD alone: color (g1: 17 test samples; g0: 1 of class 'class 3').",
    )


def test_accuracy_is_told_whether_anything_is_established_or_not() -> None:
    """Guard: it is what everybody asks first; a loss of six points that is only a hint must not be missing."""
    near = {"effect": 0.003, "ci_total_low": -0.01, "ci_total_high": 0.016}
    rows = (row(status="hint"), row(condition="T=8", p_claim=0.7, status="none", **near))
    assert said(*rows).accuracy == (
        "Against scratch, with the p that decides, before correction: T=4 −5.2 points (95 % interval −7.1 to −3.3; p < 0.001; a hint); "
        "T=8 +0.3 points (95 % interval −1.0 to +1.6; p = 0.7; not shown to differ).",
    )
    few = {"p_claim": None, "status": "not_tested", "ci_total_low": None}
    many = [*rows, row(condition="T=1", effect=0.02, **few), row(condition="T=2", effect=0.0, **few)]
    assert said(*many).accuracy == (
        "Against scratch, lowest and highest of 4 conditions, with the p that decides, before correction: T=4 −5.2 points "
        "(95 % interval −7.1 to −3.3; p < 0.001; a hint); "
        "T=1 +2.0 points (not tested). "
        "A hint at T=4; not shown to differ at T=8; not tested at T=1 and T=2.",
    )
    assert said(row(metric="loss")).accuracy == said(row(contrast="teacher_vs_distilled")).accuracy == ()


def test_an_established_difference_has_its_size_interval_and_runs() -> None:
    assert said(row(), row(condition="T=8", q=0.01)).established == (
        "Accuracy: −5.2 points against scratch at T=4 (95 % interval −7.1 to −3.3; q = 0.004; 5 against 5 runs). "
        "Also established, the same way, at T=8.",
    )


def test_with_one_teacher_the_sentence_speaks_of_that_teacher() -> None:
    (sentence,) = said(row(scope="this teacher")).established
    assert sentence.endswith("5 against 5 runs), for this teacher.")
    assert not said(row(scope="teachers")).established[0].endswith("teacher.")


def test_a_class_is_told_relative_to_overall_accuracy() -> None:
    one = row(
        analysis="class_bias", metric="relative_accuracy", class_name="cat", normalisation="ratio", ci_total_low=None
    )
    (sentence,) = said(one).established
    assert sentence == (
        "Accuracy of 'cat' relative to overall accuracy: −5.2 points against scratch at T=4 (q = 0.004; 5 against 5 runs)."
    )


def test_a_class_that_falls_less_than_others_shows_its_own_accuracy() -> None:
    """Guard: +13.9 points were read as a gain of a class whose accuracy had fallen by 15."""
    one = row(
        analysis="class_bias",
        metric="relative_accuracy",
        class_name="cat",
        normalisation="ratio",
        effect=0.1386,
        accuracy_baseline=0.8583,
        accuracy_treatment=0.7083,
    )
    assert (
        "+13.9 points against scratch at T=4 (its own accuracy 85.8 → 70.8 %; 95 % interval" in said(one).established[0]
    )
    hint = said(one.but(status="hint", p_claim=0.01)).hints[0]
    assert hint.endswith("relative to overall accuracy at T=4 (+13.9 points; its own accuracy 85.8 → 70.8 %).")


def test_what_is_established_the_other_way_is_said() -> None:
    """Guard: a third condition in which it went the other way was among "2 more"."""
    found = said(row(), row(condition="T=8", q=0.01), row(condition="T=1", effect=0.04, q=0.02)).established
    assert found[0].endswith("Also established, the same way, at T=8. Also established, the other way, at T=1.")
    assert found[1].endswith("runs). Also established, the other way, at T=4 and T=8.")


def test_individual_fairness_does_not_lead_and_says_what_higher_means() -> None:
    rows = [row(metric="individual_fairness", effect=0.06, q=0.0), row()]
    found = said(*rows).established
    assert found[0].startswith("Accuracy") and found[1].startswith("Individual fairness: +0.0600")
    assert found[1].endswith("(Higher: predictions change faster; it follows confidence.)")


def test_accuracy_has_the_p_of_pairs_beside_the_one_that_decides() -> None:
    (sentence,) = said(row(p_claim=0.2, p_paired=0.003, status="none")).accuracy
    assert "p = 0.2; paired by seed p = 0.003; not shown to differ)" in sentence


def test_a_trend_has_its_direction() -> None:
    trend = row(
        analysis="trend", contrast="temperature_low", test="spearman", condition="T=1…10", effect=-0.81, n_treatment=20
    )
    assert said(trend).established == (
        "Accuracy falls with temperature over T=1…10 (rank correlation −0.81; q = 0.004; 20 runs).",
    )


def test_differences_from_scratch_come_before_those_from_the_teacher_and_the_rest_is_counted() -> None:
    teacher = [row(contrast="teacher_vs_distilled", metric=name, q=0.0) for name in ("accuracy", "disagreement")]
    scratch = [row(metric=name) for name in ("accuracy", "worst_class_accuracy")]
    found = said(*teacher, *scratch).established
    assert [sentence.split(":")[0] for sentence in found[:2]] == ["Accuracy", "Worst-class accuracy"]
    assert found[2] == "2 more; `--full` lists them: accuracy and disagreement with the teacher."


def test_hints_stand_beside_what_chance_gives() -> None:
    none = [row(metric=f"m{i}", p_claim=0.5, status="none") for i in range(18)]
    hints = [
        row(metric="disagreement", p_claim=0.01, status="hint"),
        row(p_claim=0.03, status="hint", metric="accuracy"),
    ]
    assert said(*none, *hints).hints == (
        "2 of 20 tests against scratch have p < 0.05 before correction; by chance alone 1.0 are expected, or fewer. "
        "Clearest hint: disagreement with the teacher at T=4 (−5.2 points).",
    )
    assert (
        "1 of 38 tests against scratch has p < 0.05 before correction; by chance alone 1.9 are expected, or fewer."
        in said(*none, *none, row(metric="m", p_claim=0.5, status="none"), hints[0]).hints[0]
    )
    assert said(*none).hints == (
        "None. 0 of 18 tests have p < 0.05 before correction; by chance alone 0.9 are expected, or fewer.",
    )
    assert said(row(p_claim=None, status="not_tested")).hints == ()
    assert said(row(), *none).hints == (
        "None. 1 of 19 tests has p < 0.05 before correction; by chance alone 1.0 are expected, or fewer. 1 of them is established.",
    )


def test_hints_count_what_is_established_apart() -> None:
    (sentence,) = said(row(), row(metric="disagreement", p_claim=0.01, status="hint")).hints
    assert "2 of 2 tests" in sentence
    assert "1 of them is established." in sentence


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (
            {"held_back": "small cells", "smallest_cell": 1},
            "EOD for color (1 difference): groups of 1 test sample decide it; a claim needs 10.",
        ),
        (
            {"mean_treatment": 0.26, "chance_level": 0.19, "mean_baseline": 0.175, "chance_baseline": 0.16},
            "EOD for color (1 difference): a difference beyond chance is not shown (T=4: 26.0, random groups of the same sizes 19.0; "
            "scratch: 17.5, random groups 16.0).",
        ),
        (
            {"analysis": "matched_accuracy", "held_back": "accuracies differ"},
            "EOD for color (1 difference) at equal accuracy: the accuracies are further apart than their sd, so a fitted line "
            "would decide, not data.",
        ),
        (
            {"analysis": "matched_accuracy", "held_back": "fewer than 5 runs"},
            "EOD for color (1 difference) at equal accuracy: fewer than 5 runs on a side.",
        ),
    ],
)
def test_what_is_held_back_has_its_reason(columns: dict[str, Any], expected: str) -> None:
    held = row(
        metric="equalized_odds_difference", sensitive_feature="color", status="held_back", p_claim=None, **columns
    )
    assert said(held).held_back == (expected,)


@pytest.mark.slow
def test_two_seeds_and_one_teacher_are_said_to_be_too_few() -> None:
    found = compare_study(draw(Design(seeds=2, per_class=6), 0), Options()).verdict
    assert (found.established, found.hints, found.held_back) == ((), (), ())
    (sentence,) = found.not_tested
    assert "Against scratch: 2 seeds cannot show how far seeds are apart; a claim needs 3 seeds." in sentence
    assert (
        "Against the teacher: 1 teacher cannot show how far teachers are apart; a claim needs 3 teachers." in sentence
    )
    assert "Trends over T=2…4: fewer than 3 seeds at a temperature." in sentence
    assert found.commands == (
        "kd-ray resume drawn --set grid.seed=0..4",
        "kd-ray resume drawn --set grid.seed=0..4 --set teacher.seed=paired",
    )


def test_a_range_without_a_possible_trend_is_named_with_its_smallest_p() -> None:
    trend = row(analysis="trend", test="spearman", contrast="temperature_high", condition="T=10…20", status="none")
    found = said(trend.but(p_permutation_floor=0.25), trend.but(p_permutation_floor=0.5, metric="disagreement"))
    assert found.not_tested == ("Trends over T=10…20 (p cannot be below 0.25): too few seeds and temperatures.",)
    assert said(trend.but(p_permutation_floor=0.02), trend.but(p_permutation_floor=0.5)).not_tested == ()


def collapsed_study() -> Study:
    """All students of T=3 predict the first class."""
    study = draw(Design(seeds=4, temperatures=2, per_class=20), 0)
    source = study.source
    assert isinstance(source, Arrays)
    predictions_TN = source.predictions_TN.copy()
    predictions_TN[[trial["temperature"] == 3 for trial in study.trials]] = 0
    specs = [dict(trial) for trial in study.trials]
    return as_study(specs, source.labels_N, predictions_TN, source.features, 10, np.random.default_rng(0))


@pytest.mark.slow
def test_a_collapsed_condition_is_named_and_its_differences_are_one_statement() -> None:
    found = compare_study(collapsed_study(), Options()).verdict
    (sentence,) = found.established
    assert re.fullmatch(r"\d+ differences at T=3, which collapsed; `--full` lists them\.", sentence)
    assert "Fairness of collapsed runs: T=3: 4 of 4 runs predict one class." in found.not_tested[0]


def step(**fields: Any) -> NextStep:
    base: dict[str, Any] = {
        "contrast": "scratch_vs_distilled",
        "what": "fairness",
        "num_open": 4,
        "n_now": 5,
        "n_needed": 9,
        "n_proposed": 9,
        "overrides": ("grid.seed=[0,1]",),
    }
    return NextStep(**{**base, **fields})


def test_seeds_that_are_needed_are_said_and_commands_stay_short() -> None:
    found = said(row(), steps=(step(), step(what="class_bias", n_needed=70, n_proposed=20)))
    assert found.more == (
        "Seeds that would settle half of the hints, if these are true: about 9 for metrics and about 70 for classes against "
        "scratch. The commands ask for at most 20, which will not settle what takes more.",
    )
    never = said(row(), steps=(step(n_needed=None, n_proposed=0, overrides=()),))
    assert never.more == (
        "Seeds that would settle half of the hints, if these are true: more than 200 for metrics against scratch.",
    )
    assert never.commands == ()


def test_two_commands_that_train_as_much_say_it_once() -> None:
    one = step(num_trials=60, train_s=3030.0)
    same = said(
        row(), steps=(one, step(what="class_bias", overrides=("grid.seed=0..8",), num_trials=60, train_s=3030.0))
    )
    assert same.more[0].endswith("Each command of NEXT trains 60 more trials, about 50.5 min in one worker.")
    other = said(
        row(), steps=(one, step(what="class_bias", n_needed=70, overrides=("x",), num_trials=90, train_s=5400.0))
    )
    assert other.more[0].endswith("NEXT trains 60 or 90 more trials, about 50.5 min or 1.5 h in one worker.")


def test_what_the_seeds_find_is_said_and_what_they_cannot() -> None:
    (sentence,) = said(row(smallest_detectable=0.123)).more
    assert sentence == (
        "For planning: 5 seeds establish a single true difference from scratch with probability 0.8 if it is at least 12.3 points in "
        "accuracy, smaller ones less often; what is possible now is in the intervals."
    )
    (sentence,) = said(row(smallest_detectable=2.0)).more
    assert sentence == (
        "5 seeds establish no single difference from scratch in accuracy with probability 0.8, however large: the sd is hardly known."
    )


def declared(*, num_complete: int = 0, num_withdrawn: int = 0) -> Declared:
    return Declared(
        claim=Claim(metric="accuracy"),
        declared_at="2026-11-01T10:00:00+00:00",
        num_complete=num_complete,
        num_withdrawn=num_withdrawn,
    )


def test_claims_come_with_what_became_of_them_and_when_they_were_declared() -> None:
    holds = row(analysis="claim", claim="accuracy of T=4 is lower than scratch", p_holm=0.012)
    fails = holds.but(status="none", p_holm=0.4)
    found = said(holds, fails, claims=(declared(num_withdrawn=1), declared(num_complete=7))).declared
    assert found == (
        "Established: accuracy of T=4 is lower than scratch (−5.2 points, 95 % interval −7.1 to −3.3, p = 0.012 after Holm); "
        "declared 2026-11-01 before training.",
        "Not established: accuracy of T=4 is lower than scratch (−5.2 points, 95 % interval −7.1 to −3.3, p = 0.4 after Holm); "
        "declared 2026-11-01, with 7 trials complete. 1 claim of this sweep was taken back.",
    )


@pytest.mark.parametrize(
    ("direction", "margin", "contradicted"),
    [
        ("higher", None, True), ("lower", None, False), ("lower", 0.08, True), ("not_lower", 0.01, True), ("not_lower", 0.04, False),
        ("not_higher", 0.01, False), ("equivalent", 0.02, True), ("equivalent", 0.05, False), ("different", None, False),
    ],
)  # fmt: skip
def test_a_claim_that_the_whole_interval_speaks_against_is_told_so(
    direction: str, margin: float | None, contradicted: bool
) -> None:
    """The interval is −7.1 to −3.3 points."""
    claim = Claim.model_validate(
        {"metric": "accuracy", "direction": direction} | ({"margin": margin} if margin else {})
    )
    lost = row(analysis="claim", claim=claim.text(), status="none", p_holm=1.0)
    (sentence,) = said(lost, claims=(Declared(claim=claim, declared_at="2026-11-01", num_complete=0),)).declared
    against = "Not established, and the whole interval lies where the claim is false: "
    assert sentence.startswith(against if contradicted else "Not established: ")


def test_a_verdict_has_at_most_ten_statements_and_two_commands() -> None:
    claims = [row(analysis="claim", claim=f"claim {i}", p_holm=0.2, status="none") for i in range(8)]
    many = [
        row(metric=f"m{i}", contrast=contrast, status=status, held_back=why, p_claim=0.01, smallest_cell=3)
        for contrast in ("scratch_vs_distilled", "teacher_vs_distilled")
        for status, why in (
            ("established", None),
            ("hint", None),
            *(("held_back", why) for why in ("small cells", "accuracies differ", "collapsed")),
        )
        for i in range(6)
    ]
    steps = (step(), step(what="class_bias", n_needed=12, overrides=("grid.seed=[2]",)), step(n_needed=11))
    for rows, given in (([*many], ()), ([*claims, *many], tuple(declared() for _ in claims))):
        found = said(*rows, claims=given, steps=steps)
        assert sum(len(statements) for title, statements in found.parts() if title != "NEXT") <= 10
        assert len(found.commands) <= 2
    assert found.declared[-1] == "7 more claims: 0 established, 7 not; `--full` lists them."


@pytest.mark.slow
def test_the_verdict_is_in_the_json() -> None:
    comparison = compare_study(draw(Design(seeds=2, per_class=6), 0), Options())
    assert comparison.to_dict()["verdict"] == {title: list(said) for title, said in comparison.verdict.parts()}
    assert comparison.to_dict()["verdict"]["ESTABLISHED"] == ["Nothing."]
