"""The words at the top: found is what survives correction, and nothing else."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kd_ray.analysis.report.evidence import key_of
from kd_ray.analysis.report.findings import Findings, make_findings
from tests.unit.analysis.report.made import SCRATCH, TEACHER, make_bias, make_evidence, make_row, make_study

NOTHING = "Nothing that survives correction for the number of tests."
EOD, DPD = "equalized_odds_difference", "demographic_parity_difference"


def counts(**values: Any) -> dict[str, Any]:
    """A row of counts: 10 classes, 3 of them below the level, none after correction."""
    known = {
        "analysis": "class_bias_counts",
        "metric": "relative_accuracy",
        "num_tests": 10,
        "num_significant": 3,
        "num_significant_bh": 0,
        "num_significant_holm": 0,
        "expected_significant": 0.44,
        "smallest_detectable": 0.052,
        "power": 0.8,
    }
    return make_row(**known | values)


def fairness(**values: Any) -> dict[str, Any]:
    """EOD 1.2 points lower than scratch, which survives."""
    known = {
        "analysis": "fairness",
        "metric": EOD,
        "sensitive_feature": "color",
        "effect": -0.012,
        "ci_low": -0.02,
        "ci_high": -0.004,
        "p": 0.001,
        "q": 0.01,
        "smallest_detectable": 0.01,
        "power": 0.8,
    }
    return make_row(**known | values)


def trend(test: str, **values: Any) -> dict[str, Any]:
    """A test of a trend, which survives."""
    known = {
        "analysis": "trend",
        "contrast": "temperature_low",
        "condition": "T=1…10",
        "metric": EOD,
        "sensitive_feature": "color",
        "test": test,
        "effect": -0.8,
        "p": 0.001,
        "q": 0.004,
        "p_permutation": 0.001,
        "n_treatment": 20,
    }
    return make_row(**known | values)


def of(*rows: dict[str, Any]) -> Findings:
    return make_findings(make_study(), make_evidence(rows))


def test_uncorrected_counts_are_open_with_n_and_what_could_have_been_found() -> None:
    findings = of(counts())
    assert findings.groups()[0].sentences == (NOTHING,)
    assert findings.open == (
        "Class accuracy against scratch (n = 5 against 5 runs): #SC is 3 of 10 classes at p < 0.05 uncorrected "
        "(T=4), where 0.4 would be expected if no class differed. None remains after correction (Benjamini & "
        "Hochberg). With so many runs, a difference has to be about 5.20 points (median) to be found with "
        "probability 0.8 after Holm's correction.",
    )


def test_corrected_counts_are_found_with_their_classes() -> None:
    study = make_study(accuracies={"T=4": (0.45,)})
    condition = study.conditions[-1]
    bias = make_bias(p=[0.001, 0.03], q=[0.002, 0.06], holm=[0.002, 0.06], effect=[-0.05, 0.04])
    rows = [
        counts(num_tests=2, num_significant=2, num_significant_bh=1, num_significant_holm=1, expected_significant=0.09)
    ]
    (sentence,) = make_findings(study, make_evidence(rows, {(SCRATCH, key_of(condition)): bias})).found
    assert sentence == (
        "Class accuracy against scratch (n = 5 against 5 runs): #SC is 2 of 2 classes at p < 0.05 uncorrected (T=4), "
        "where 0.1 would be expected if no class differed. After Benjamini & Hochberg 1 remain (T=4), of which on "
        "average at most 5 % are false, and 1 after Holm (no false one, with probability 0.95). Clearest: cat −5.00 points at T=4 "
        "(95 % interval −7.00 to −3.00, q = 0.002)."
    )


def test_class_that_differs_only_because_the_others_do_is_said_to() -> None:
    study = make_study()
    bias = make_bias(p=[0.001, 0.03], q=[0.002, 0.06], holm=[0.002, 0.06], effect=[-0.005, 0.04])
    rows = [counts(num_significant_bh=1)]
    (sentence,) = make_findings(study, make_evidence(rows, {(SCRATCH, key_of(study.conditions[-1])): bias})).found
    assert "Clearest" not in sentence
    assert sentence.endswith(
        " In 1 case the accuracy of the class itself is the same on both sides: only the overall accuracy that it is divided by differs."
    )


def test_difference_in_fairness_is_told_with_size_interval_q_and_n() -> None:
    findings = of(fairness(), fairness(condition="T=1", effect=0.001, ci_low=-0.01, ci_high=0.012, p=0.8, q=0.8))
    assert findings.found == (
        "Against scratch, after Benjamini & Hochberg (n = 5 against 5 runs): EOD for color lower at 1 of 2 "
        "conditions, clearest at T=4, by 1.20 points (95 % interval −2.00 to −0.40, q = 0.010).",
    )
    assert findings.open[0].startswith(
        "Against scratch, 1 of 2 tests show nothing after correction (EOD; groups of color; n = 5 against 5 runs); 0 "
        "of them have p < 0.05 uncorrected. That is no evidence of equality."
    )


def test_parity_below_that_of_the_labels_is_said_to_take_errors() -> None:
    (sentence,) = of(fairness(metric=DPD, label_difference=0.036, mean_treatment=0.031)).found
    assert sentence.endswith("below that of the true labels in 1 comparison (3.60 points), which takes errors.")
    (sentence,) = of(fairness(metric=DPD, label_difference=0.036, mean_treatment=0.04)).found
    assert "labels" not in sentence


def test_trend_is_found_only_if_every_test_of_it_survives() -> None:
    both = [trend("spearman"), trend("kendall", effect=-0.6)]
    (sentence,) = of(*both).found
    assert sentence == (
        "Over T=1…10, with every test below 0.05 after correction and when temperatures are exchanged within seeds "
        "(n = 20 runs): EOD for color falls (Spearman −0.80, Kendall −0.60)."
    )
    for weaker in (trend("kendall", q=0.06), trend("kendall", p_permutation=0.2)):
        findings = of(trend("spearman"), weaker)
        assert not findings.found
        assert findings.open == ("Over T=1…10, no trend is established (n = 20 runs) of EOD for color.",)


@given(st.lists(st.tuples(st.sampled_from([EOD, DPD, "accuracy"]), st.floats(0, 1), st.floats(0, 1)), max_size=8))
def test_nothing_is_found_that_q_does_not_say(tests: list[tuple[str, float, float]]) -> None:
    rows = [fairness(metric=metric, p=min(p, q), q=max(p, q)) for metric, p, q in tests]
    findings = of(*rows)
    survive = {metric for metric, p, q in tests if max(p, q) < 0.05}
    said = " ".join(findings.found)
    assert {
        metric for metric, word in ((EOD, "EOD"), (DPD, "DPD"), ("accuracy", "accuracy")) if word in said
    } == survive
    assert bool(findings.open) == any(max(p, q) >= 0.05 for _, p, q in tests) or not tests


def test_one_seed_and_a_running_sweep_are_said_to_be_so() -> None:
    findings = make_findings(make_study(seeds=1, missing=3), make_evidence([counts(num_significant=None)]))
    assert not findings.found
    assert findings.open[0].startswith(
        "No difference could be tested: a test needs two seeds on each side (teacher n = 1,"
    )
    assert findings.care[0].startswith("One seed: nothing can be tested")
    assert findings.care[1].startswith("The sweep is not complete")


def test_shared_teacher_is_a_reason_for_care() -> None:
    findings = of(counts(contrast=TEACHER, flags=["shared_teacher"]))
    assert "#TC is 3 of 10" in findings.open[0]
    assert findings.care[0].startswith("Students of several seeds learned from one teacher")


def test_reason_why_nothing_was_compared_is_told() -> None:
    findings = make_findings(make_study(), make_evidence(), problem="no scratch student is complete")
    assert findings.open == ("no scratch student is complete",)


@pytest.mark.parametrize(
    ("detectable", "words"), [(0.3, "about 30.0 points"), (2.5, "not even a difference of 100 points")]
)
def test_smallest_difference_is_a_possible_one(detectable: float, words: str) -> None:
    assert words in of(counts(smallest_detectable=detectable)).open[0]
