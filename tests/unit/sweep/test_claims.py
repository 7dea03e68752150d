"""Declared questions: what they say, what they are refused for, and which trials they are about."""

import hashlib
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from kd_ray.errors import SweepError
from kd_ray.sweep.claim_checks import check_classes
from kd_ray.sweep.claims import GROUP_METRICS, METRICS, RATES, Claim
from kd_ray.sweep.load import SweepFile, load_sweep
from tests.fakes import SWEEP_YAML, make_sweep, plan_trials

ROOT = Path(__file__).parents[3]
NO_HARM = "{metric: worst_class_accuracy, condition: {temperature: 4}, direction: not_lower, margin: 0.01}"
GROUPS = "metric: equalized_odds_difference, feature: color"
TREND = "metric: accuracy, trend: temperature, direction: rises"


def with_claims(*claims: str, overrides: tuple[str, ...] = ()) -> SweepFile:
    return make_sweep(overrides=[*overrides, f"claims=[{', '.join(claims)}]"])


def claim(text: str, *overrides: str) -> Claim:
    (only,) = with_claims(text, overrides=overrides).sweep.claims
    return only


def refusal(*claims: str, overrides: tuple[str, ...] = ()) -> str:
    with pytest.raises(SweepError) as caught:
        plan_trials(with_claims(*claims, overrides=overrides))
    return str(caught.value)


def test_a_claim_of_a_file_is_read_with_its_defaults() -> None:
    read = claim("{metric: class_accuracy, class: square}")
    assert (read.metric, read.class_name, read.against, read.direction) == (
        "class_accuracy",
        "square",
        "scratch",
        "different",
    )
    assert (read.feature, read.condition, read.trend, read.from_temperature, read.up_to, read.margin) == (None,) * 6
    with pytest.raises(ValidationError, match="frozen"):
        read.metric = "accuracy"
    assert make_sweep().sweep.claims == ()


def test_names_of_metrics() -> None:
    assert GROUP_METRICS == ("demographic_parity_difference", "equalized_odds_difference", "worst_group_accuracy")
    assert set(METRICS) - set(RATES) == {"individual_fairness", "individual_fairness_hard"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (NO_HARM, "worst-class accuracy of T=4 is not lower than scratch by more than 1 point"),
        ("{metric: accuracy}", "accuracy of all distilled students differs from scratch"),
        (
            "{metric: accuracy, against: teacher, direction: not_higher, margin: 0.005}",
            "accuracy of all distilled students is not higher than the teacher by more than 0.5 points",
        ),
        (
            "{metric: accuracy, condition: {temperature: 1.0, alpha: 0.9, t_squared: true}, direction: higher}",
            "accuracy of T=1, alpha=0.9, T²=on is higher than scratch",
        ),
        (
            "{metric: accuracy, condition: {temperature: 4}, direction: higher, margin: 0.02}",
            "accuracy of T=4 is higher than scratch by more than 2 points",
        ),
        (
            "{metric: class_accuracy, class: square, direction: lower}",
            "accuracy on class square of all distilled students is lower than scratch",
        ),
        (
            "{metric: individual_fairness, condition: {temperature: 4}, direction: equivalent, margin: 0.05}",
            "individual fairness of T=4 differs from scratch by less than 0.05",
        ),
        (
            "{metric: disagreement, condition: {objective: kd}, direction: lower}",
            "disagreement with the teacher of objective=kd is lower than scratch",
        ),
        (
            "{metric: worst_group_accuracy, feature: color & texture, direction: lower}",
            "worst-group accuracy (color & texture) of all distilled students is lower than scratch",
        ),
        (f"{{{TREND}}}", "accuracy of distilled students rises with temperature"),
        (
            f"{{{GROUPS}, trend: temperature, from: 1, up_to: 4, direction: falls}}",
            "equalized odds difference (color) of distilled students falls with temperature from T=1 up to T=4",
        ),
    ],
)
def test_text_says_the_claim_in_plain_words(text: str, words: str) -> None:
    assert claim(text).text() == words


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("accuracy", "claims[0]: should be an object, got 'accuracy'"),
        ("{direction: higher}", "claims[0].metric: is required"),
        (
            "{metric: recall}",
            "claims[0].metric: should be 'accuracy', 'worst_class_accuracy', 'class_accuracy', 'individual_fairness', "
            "'individual_fairness_hard', 'disagreement', 'demographic_parity_difference', 'equalized_odds_difference' or "
            "'worst_group_accuracy', got 'recall'",
        ),
        (
            "{metric: accuracy, klass: square}",
            "claims[0].klass: unknown or without effect here; did you mean class? "
            "valid: against, class, condition, direction, feature, from, margin, metric, trend, up_to",
        ),
        ("{metric: accuracy, against: nds}", "claims[0].against: should be 'scratch' or 'teacher', got 'nds'"),
        ("{metric: class_accuracy}", "claims[0].class: is required with metric class_accuracy"),
        (
            "{metric: accuracy, class: square}",
            "claims[0].class: has no effect with metric accuracy, got 'square'; it is for class_accuracy",
        ),
        (
            "{metric: equalized_odds_difference}",
            "claims[0].feature: is required with metric equalized_odds_difference",
        ),
        (
            "{metric: accuracy, feature: color}",
            "claims[0].feature: has no effect with metric accuracy, got 'color'; it is for "
            "demographic_parity_difference, equalized_odds_difference, worst_group_accuracy",
        ),
        (
            "{metric: equalized_odds_difference, feature: texture & color}",
            "claims[0].feature: must be among sensitive_features or intersections, "
            "valid: 'color', 'texture', 'color & texture', got 'texture & color'",
        ),
        (
            "{metric: disagreement, against: teacher}",
            "claims[0].against: disagreement is that with the teacher already; use scratch",
        ),
        (
            "{metric: accuracy, direction: not_lower}",
            "claims[0].margin: is required with direction not_lower; 0.01 is one point of a rate",
        ),
        (
            "{metric: accuracy, margin: 0.01}",
            "claims[0].margin: has no effect with direction different, got 0.01; "
            "it is for higher, lower, equivalent, not_lower, not_higher",
        ),
        (
            "{metric: accuracy, direction: equivalent, margin: 1}",
            "claims[0].margin: must be below 1 for a rate, where 0.01 is one point, got 1",
        ),
        (
            "{metric: accuracy, direction: equivalent, margin: 0}",
            "claims[0].margin: should be greater than 0, got 0",
        ),
        (
            "{metric: accuracy, direction: rises}",
            "claims[0].direction: rises is for a trend; add trend: temperature, "
            "or choose one of higher, lower, different, equivalent, not_lower, not_higher",
        ),
        (
            "{metric: accuracy, trend: temperature}",
            "claims[0].direction: must be one of rises, falls with trend, got 'different'",
        ),
        ("{metric: accuracy, up_to: 4}", "claims[0].up_to: has no effect without trend: temperature, got 4"),
        (f"{{{TREND}, against: teacher}}", "claims[0].against: has no effect with trend, got 'teacher'"),
        (
            f"{{{TREND}, condition: {{alpha: 0.9}}}}",
            "claims[0].condition: cannot stand beside trend; use from and up_to to choose temperatures",
        ),
        (f"{{{TREND}, from: 4, up_to: 4}}", "claims[0].from: must be below up_to = 4, got 4"),
        (
            f"{{{TREND}, up_to: 3}}",
            "claims[0].trend: needs at least 2 temperatures between from and up_to; the sweep has: 1, 4",
        ),
        (
            "{metric: accuracy, condition: {temperature: 3}}",
            "claims[0].condition.temperature: must be a value that the sweep has, valid: 1, 4, got 3",
        ),
        (
            "{metric: accuracy, condition: {alpha: 0.5}}",
            "claims[0].condition.alpha: must be a value that the sweep has, valid: 0.9, got 0.5",
        ),
        (
            "{metric: accuracy, condition: {t_squared: 1}}",
            "claims[0].condition.t_squared: must be a value that the sweep has, valid: True, got 1",
        ),
        (
            "{metric: accuracy, condition: {seed: 0}}",
            "claims[0].condition.seed: cannot choose a condition; valid: temperature, alpha, t_squared, objective",
        ),
        (
            "{metric: accuracy, condition: {training.epochs: 4}}",
            "claims[0].condition.training.epochs: cannot choose a condition; valid: temperature, alpha, t_squared, objective",
        ),
    ],
)
def test_bad_claim_is_refused_with_field_value_and_choices(text: str, message: str) -> None:
    assert re.sub(r"^--set claims=.*\]: (?=claims\[)", "", refusal(text)) == message


def test_refusal_names_the_line_of_each_claim() -> None:
    text = (
        f"{SWEEP_YAML}claims:\n  - {NO_HARM}\n  - {{metric: accuracy, condition: {{temperature: 3}}}}\n  - {NO_HARM}\n"
    )
    with pytest.raises(SweepError) as caught:
        make_sweep(text)
    assert str(caught.value).splitlines() == [
        "demo.yaml:18: claims[1].condition.temperature: must be a value that the sweep has, valid: 1, 4, got 3",
        "demo.yaml:19: claims[2]: repeats claims[0]",
    ]


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        ("{metric: accuracy}", ("teacher=null", "distillation=null", "grid.temperature=null"), "has none; give teacher"),
        ("{metric: accuracy}", ("baselines=[]",), "claims[0].against: scratch needs baselines: [scratch]; or use teacher"),
        (
            "{metric: accuracy, against: teacher}",
            ("teacher=null", "grid.temperature=null", "distillation={objective: label_smoothing, smoothing: 0.1}"),
            "claims[0].against: this sweep has no teacher; use scratch",
        ),
        (
            "{metric: disagreement}",
            ("teacher=null", "grid.temperature=null", "distillation={objective: label_smoothing, smoothing: 0.1}"),
            "claims[0].metric: disagreement is that with the teacher, and this sweep has none",
        ),
        (
            f"{{{TREND}}}",
            ("grid.temperature=[4]",),
            "claims[0].trend: needs at least 2 temperatures; the sweep has: 4",
        ),
        ("{metric: equalized_odds_difference, feature: color}", ("sensitive_features=[]", "intersections=null"), "valid: none,"),
    ],
)  # fmt: skip
def test_claim_that_this_sweep_cannot_answer_is_refused(text: str, overrides: tuple[str, ...], message: str) -> None:
    assert message in refusal(text, overrides=overrides)


def test_claims_are_no_axis() -> None:
    with pytest.raises(SweepError, match=re.escape("grid.claims: cannot be an axis")):
        make_sweep(overrides=["grid.claims=[[{metric: accuracy}]]"])


OBJECTIVES = (
    "grid.objective=[kd, {name: dkd, beta: 2}, {name: dkd, beta: 8, alpha: 0.5}, scratch_long]",
    "grid.temperature=[1, 4]",
)


def chosen(text: str, *overrides: str) -> list[str]:
    """Descriptions of the seed 0 trials that the claim is about."""
    file = with_claims(text, overrides=overrides)
    (only,) = file.sweep.claims
    return [
        trial.description.removeprefix("distilled lenet5 ").replace(" seed=0", "")
        for trial in plan_trials(file)
        if trial.spec.distillation and trial.spec.seed == 0 and trial.is_chosen_by(only)
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{metric: accuracy, condition: {objective: kd, temperature: 4.0}}", ["T=4 alpha=0.9"]),
        ("{metric: accuracy, condition: {objective: scratch_long}}", ["scratch_long"]),
        (
            "{metric: accuracy, condition: {distillation.temperature: 1, objective: dkd}}",
            ["dkd T=1 alpha=0.9 distillation.beta=2", "dkd T=1 alpha=0.5 distillation.beta=8 distillation.alpha=0.5"],
        ),
        (
            "{metric: accuracy, condition: {alpha: 0.5, temperature: 4}}",
            ["dkd T=4 alpha=0.5 distillation.beta=8 distillation.alpha=0.5"],
        ),
        (
            "{metric: accuracy, condition: {distillation.beta: 2, temperature: 4}}",
            ["dkd T=4 alpha=0.9 distillation.beta=2"],
        ),
        (
            "{metric: accuracy, trend: temperature, direction: rises}",
            [
                "T=1 alpha=0.9",
                "dkd T=1 alpha=0.9 distillation.beta=2",
                "dkd T=1 alpha=0.5 distillation.beta=8 distillation.alpha=0.5",
                "T=4 alpha=0.9",
                "dkd T=4 alpha=0.9 distillation.beta=2",
                "dkd T=4 alpha=0.5 distillation.beta=8 distillation.alpha=0.5",
            ],
        ),
    ],
)
def test_condition_chooses_trials(text: str, expected: list[str]) -> None:
    assert sorted(chosen(text, *OBJECTIVES)) == sorted(expected)


def test_condition_may_name_any_axis_of_the_grid() -> None:
    axis = ("training.augmentation=null", "grid.training.augmentation=[flip, none]")
    found = chosen("{metric: accuracy, condition: {training.augmentation: flip}}", *axis)
    assert found == ["T=1 alpha=0.9 training.augmentation=flip", "T=4 alpha=0.9 training.augmentation=flip"]
    rates = ("training.optimizer.lr=null", "grid.training.optimizer.lr=[1.0, 0.1]")
    found = chosen("{metric: accuracy, condition: {training.optimizer.lr: 1, temperature: 4}}", *rates)
    assert found == ["T=4 alpha=0.9 training.optimizer.lr=1.0"]
    assert len(chosen("{metric: accuracy}", *rates)) == 4


def test_condition_that_no_trial_has_whole_is_refused() -> None:
    condition = "{metric: accuracy, condition: {objective: scratch_long, temperature: 4}}"
    expected = "demo.yaml: claims[1].condition: no trial of the sweep has all of it, got {'objective': 'scratch_long', 'temperature': 4}"
    assert refusal("{metric: accuracy}", condition, overrides=OBJECTIVES) == expected


CANONICAL = '{"against":"scratch","condition":{"temperature":4},"direction":"not_lower","margin":0.01,"metric":"worst_class_accuracy"}'


def test_digest_is_that_of_the_canonical_json() -> None:
    assert claim(NO_HARM).sha256 == hashlib.sha256(CANONICAL.encode()).hexdigest()
    assert claim(NO_HARM).to_json() == {
        "metric": "worst_class_accuracy",
        "against": "scratch",
        "condition": {"temperature": 4},
        "direction": "not_lower",
        "margin": 0.01,
    }


@pytest.mark.parametrize(
    "same",
    [
        "{margin: 1.0e-2, direction: not_lower, condition: {temperature: 4.0}, metric: worst_class_accuracy}",
        "{metric: worst_class_accuracy, against: scratch, condition: {temperature: 4}, direction: not_lower, margin: 0.01}",
    ],
)
def test_digest_ignores_order_defaults_and_how_numbers_are_written(same: str) -> None:
    assert claim(same).sha256 == claim(NO_HARM).sha256


@pytest.mark.parametrize(
    "other",
    [
        NO_HARM.replace("worst_class_accuracy", "accuracy"),
        NO_HARM.replace("temperature: 4", "temperature: 1"),
        NO_HARM.replace("temperature: 4", "alpha: 0.9"),
        NO_HARM.replace("not_lower", "not_higher"),
        NO_HARM.replace("0.01", "0.02"),
        NO_HARM.replace("}, d", "}, against: teacher, d"),
        NO_HARM.replace("condition: {temperature: 4}, ", ""),
    ],
)
def test_digest_changes_with_what_is_claimed(other: str) -> None:
    assert claim(other).sha256 != claim(NO_HARM).sha256


def test_claim_reads_back_from_its_json() -> None:
    for text in (NO_HARM, "{metric: class_accuracy, class: square}", f"{{{TREND}, from: 1, up_to: 4}}"):
        read: dict[str, Any] = claim(text).to_json()
        assert Claim.model_validate(read) == claim(text)


def test_claims_are_not_part_of_any_trial_id() -> None:
    ids = [[trial.trial_id for trial in plan_trials(file)] for file in (make_sweep(), with_claims(NO_HARM))]
    assert ids[0] == ids[1]


def test_classes_that_the_sweep_file_names_are_checked_with_it() -> None:
    dataset = "dataset={name: factory, function: 'a.b:c', classes: [cat, dog], samples: images, size: 32, version: '0123456789abcdef'}"
    own = ("sensitive_features=null", "intersections=null", dataset)
    assert claim("{metric: class_accuracy, class: dog}", *own).class_name == "dog"
    message = "claims[0].class: must be a class of the data, valid: cat, dog, got 'bird'"
    assert message in refusal("{metric: class_accuracy, class: bird}", overrides=own)


def test_classes_of_the_data_are_checked_when_they_are_known() -> None:
    sweep = with_claims("{metric: accuracy}", "{metric: class_accuracy, class: circle}").sweep
    check_classes(sweep, ["circle", "square"], source="demo.yaml")
    expected = "demo.yaml: claims[1].class: must be a class of the data, valid: star, square, got 'circle'"
    with pytest.raises(SweepError, match=re.escape(expected) + "$"):
        check_classes(sweep, ["star", "square"], source="demo.yaml")


def test_quick_sweep_declares_that_the_worst_class_is_not_harmed() -> None:
    file = load_sweep(ROOT / "sweeps" / "trifeature-quick.yaml")
    assert [each.text() for each in file.sweep.claims] == [
        "worst-class accuracy of T=4 is not lower than scratch by more than 1 point"
    ]


def test_documentation_shows_claims_as_plan_says_them() -> None:
    blocks = re.findall(r"```(?:yaml)?\n(.*?)```", (ROOT / "docs" / "statistics.md").read_text(), re.DOTALL)
    (example,) = [block for block in blocks if block.startswith("claims:")]
    (shown,) = [block for block in blocks if block.startswith("claim:")]
    claims = make_sweep(SWEEP_YAML + example).sweep.claims
    assert [f"claim: {each.text()}" for each in claims] == shown.splitlines()
