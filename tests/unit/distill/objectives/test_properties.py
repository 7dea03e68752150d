"""What must hold of every objective, and when one is another."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kd_ray.distill.objectives import ClassStatistics, scratch_loss, student_loss, term_names
from kd_ray.distill.objectives.decoupled import thirds
from kd_ray.distill.objectives.reliability import class_alpha, class_margin
from kd_ray.sweep.distillation import OBJECTIVES, AdaAlpha, AdaMargin
from tests.unit.distill.objectives.examples import (
    CHOICES,
    LABELS,
    SOFT,
    STUDENT,
    TEACHER,
    context_of,
    loss_of,
    settings_of,
)

TAUGHT = [name for name in CHOICES if name not in ("label_smoothing", "scratch_long")]


def constant(reliability: float) -> ClassStatistics:
    values_C = torch.full((4,), reliability, dtype=torch.float64)
    n_C = torch.tensor([3.0, 7.0, 1.0, 11.0], dtype=torch.float64)
    return ClassStatistics(n_C=n_C, accuracy_C=values_C, margin_C=values_C)


def gradient(total: Tensor) -> Tensor:
    return torch.autograd.grad(total, STUDENT)[0]


def test_every_objective_of_ours_is_tried() -> None:
    assert {*CHOICES, "imported"} == set(OBJECTIVES)


@pytest.mark.parametrize("objective", CHOICES)
def test_terms_are_those_that_are_announced(objective: str) -> None:
    asked = settings_of(objective)
    assert tuple(loss_of(asked).terms) == term_names(asked)


@pytest.mark.slow
@pytest.mark.parametrize("objective", CHOICES)
@pytest.mark.parametrize("changes", [{}, {"alpha": 1.0, "t_squared": False}])
def test_gradient_agrees_with_finite_differences(objective: str, changes: dict[str, Any]) -> None:
    changes = changes if objective in TAUGHT else {}
    # The weights of groups follow the loss, but no gradient flows through them.
    asked = settings_of(objective, **changes, **({"sharpness": 0.0} if objective == "kd_groups" else {}))
    assert torch.autograd.gradcheck(lambda student_BC: loss_of(asked, student_BC).total, (STUDENT,))


@pytest.mark.parametrize("objective", CHOICES)
@given(shift=st.floats(-30, 30), teacher_shift=st.floats(-30, 30))
@settings(max_examples=5)
def test_a_shift_of_the_logits_changes_nothing(objective: str, shift: float, teacher_shift: float) -> None:
    asked = settings_of(objective)
    shifted = loss_of(asked, STUDENT + shift, TEACHER + teacher_shift)
    torch.testing.assert_close(shifted.total, loss_of(asked).total, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("objective", CHOICES)
@given(order=st.permutations(range(5)))
@settings(max_examples=3)
def test_the_order_of_the_batch_does_not_matter(objective: str, order: list[int]) -> None:
    asked = settings_of(objective)
    context = replace(context_of(asked), samples_B=torch.tensor(order))
    permuted = student_loss(STUDENT[order], TEACHER[order], LABELS[order], asked, context)
    torch.testing.assert_close(permuted.total, loss_of(asked).total, rtol=1e-12, atol=1e-12)


SAME_AS_KD: dict[str, dict[str, Any]] = {
    "kd_shuffled": {},
    "dkd": {"beta": "coupled"},
    "ltkd": {"rebalance": False, "within_weight": "teacher_mass"},
    "kd_topk": {"k": 3},
    "iad": {"trust_exponent": 0.0},
}
"""Settings with which an objective is plain distillation: the teacher does a permutation, not the loss, and the smallest of K
probabilities is 1 minus the K − 1 largest."""


@pytest.mark.slow
@pytest.mark.parametrize("objective", SAME_AS_KD)
@given(temperature=st.floats(0.5, 40), alpha=st.floats(0, 1), t_squared=st.booleans())
@settings(max_examples=10)
def test_identity_settings_give_plain_distillation(
    objective: str, temperature: float, alpha: float, t_squared: bool
) -> None:
    soft = {"temperature": temperature, "alpha": alpha, "t_squared": t_squared}
    total = loss_of(settings_of(objective, **SAME_AS_KD[objective], **soft)).total
    expected = loss_of(settings_of("kd", **soft)).total
    torch.testing.assert_close(total, expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(gradient(total), gradient(expected), rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("objective", ["ada_alpha", "ada_margin"])
@pytest.mark.parametrize("reliability", [0.1, 0.3, 0.7, 1.0])
def test_constant_reliability_gives_plain_distillation_exactly(objective: str, reliability: float) -> None:
    total = loss_of(settings_of(objective), statistics=constant(reliability)).total
    expected = loss_of(settings_of("kd")).total
    assert torch.equal(total, expected)
    assert torch.equal(gradient(total), gradient(expected))


@pytest.mark.parametrize("changes", [{"max_alpha": 0.0}, {"alpha": 0.0}])
def test_no_weight_for_any_class_gives_scratch_exactly(changes: dict[str, Any]) -> None:
    total = loss_of(settings_of("ada_alpha", **changes)).total
    expected = scratch_loss(STUDENT, None, LABELS).total
    assert torch.equal(total, expected)
    assert torch.equal(gradient(total), gradient(expected))


def test_a_teacher_that_is_reliable_nowhere_gives_scratch_exactly() -> None:
    total = loss_of(settings_of("ada_alpha"), statistics=constant(-0.2)).total
    assert torch.equal(total, scratch_loss(STUDENT, None, LABELS).total)


accuracies = st.lists(st.integers(0, 20).map(lambda k: k / 20), min_size=4, max_size=4)


@pytest.mark.slow
@given(accuracy=accuracies, lower=st.floats(0.01, 0.5), c=st.integers(0, 3), shrinkage=st.sampled_from([0.0, 5.0]))
def test_a_lower_accuracy_on_a_class_lowers_its_alpha(
    accuracy: list[float], lower: float, c: int, shrinkage: float
) -> None:
    n_C = torch.full((4,), 20.0, dtype=torch.float64)

    def alphas(values: list[float], alpha_map: str) -> Tensor:
        values_C = torch.tensor(values, dtype=torch.float64)
        asked = settings_of("ada_alpha", statistic="accuracy", alpha_map=alpha_map, shrinkage=shrinkage)
        assert isinstance(asked, AdaAlpha)
        return class_alpha(ClassStatistics(n_C=n_C, accuracy_C=values_C, margin_C=values_C), asked)

    worse = [max(0.0, value - lower) if i == c else value for i, value in enumerate(accuracy)]
    if worse[c] == accuracy[c]:
        return
    assert alphas(worse, "absolute")[c] < alphas(accuracy, "absolute")[c]
    # Relative to the most reliable class, which may be this one itself before and after.
    before, after = alphas(accuracy, "relative"), alphas(worse, "relative")
    assert after[c] <= before[c]
    if accuracy[c] < max(accuracy):
        assert after[c] < before[c]


def test_few_held_out_samples_say_little() -> None:
    """A class of one sample that the teacher gets wrong keeps nearly the mean; a class of a thousand does not."""
    accuracy_C = torch.tensor([0.8, 0.0, 0.8, 0.8], dtype=torch.float64)
    asked = settings_of("ada_alpha", statistic="accuracy")
    assert isinstance(asked, AdaAlpha)
    few, many = (
        class_alpha(
            ClassStatistics(
                n_C=torch.tensor([1000.0, n, 1000.0, 1000.0], dtype=torch.float64),
                accuracy_C=accuracy_C,
                margin_C=accuracy_C,
            ),
            asked,
        )
        for n in (1.0, 1000.0)
    )
    assert few[1] > 0.9 * SOFT["alpha"]
    assert many[1] < 0.02


def test_margins_are_zero_for_the_most_reliable_class_and_clipped() -> None:
    asked = settings_of("ada_margin", margin_scale=100.0, max_margin=2.0, shrinkage=0.0)
    assert isinstance(asked, AdaMargin)
    margin_C = class_margin(context_of(asked).background.statistics, asked)  # type: ignore[arg-type]
    assert margin_C.tolist()[0] == 0.0
    assert margin_C.max() == 2.0


def test_one_group_for_all_gives_plain_distillation_and_no_group_gives_nothing() -> None:
    asked = settings_of("kd_groups")
    context = context_of(asked)
    for members, expected in (
        (torch.ones(5, 1), loss_of(settings_of("kd")).total),
        (torch.zeros(5, 2), STUDENT.sum() * 0),
    ):
        background = replace(context.background, sensitive_features={"color": members.bool()})
        loss = student_loss(STUDENT, TEACHER, LABELS, asked, replace(context, background=background))
        torch.testing.assert_close(loss.total, expected, rtol=1e-12, atol=0)
        torch.testing.assert_close(gradient(loss.total), gradient(expected), rtol=1e-12, atol=1e-15)


def test_a_group_counts_alike_whatever_its_size_and_a_sharp_loss_is_the_worst_groups() -> None:
    def total(sharpness: float, members: list[list[bool]]) -> float:
        asked = settings_of("kd_groups", sharpness=sharpness)
        context = context_of(asked)
        background = replace(context.background, sensitive_features={"color": torch.tensor(members)})
        return student_loss(STUDENT, TEACHER, LABELS, asked, replace(context, background=background)).total.item()

    few, many = [[True, False]] + [[False, True]] * 4, [[False, False]] + [[False, True]] * 4
    alone = total(0.0, [[True, False]] + [[False, False]] * 4)
    rest = total(0.0, many)
    assert total(0.0, few) == pytest.approx((alone + rest) / 2, rel=1e-12)
    assert total(1e4, few) == pytest.approx(max(alone, rest), rel=1e-12)


@pytest.mark.parametrize("objective", TAUGHT)
@pytest.mark.parametrize("edge", [0.0, 1.0])
def test_the_loss_is_continuous_where_alpha_is_0_and_1(objective: str, edge: float) -> None:
    near = abs(edge - 1e-9)
    at, beside = (loss_of(settings_of(objective, alpha=alpha)).total for alpha in (edge, near))
    torch.testing.assert_close(at, beside, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("objective", [name for name in TAUGHT if name not in ("ada_margin", "kd_groups")])
def test_alpha_0_is_scratch(objective: str) -> None:
    total = loss_of(settings_of(objective, alpha=0.0)).total
    torch.testing.assert_close(total, scratch_loss(STUDENT, None, LABELS).total, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("counts", "sizes"), [([3] * 10, (3, 4, 3)), ([1] * 100, (33, 34, 33)), ([1] * 3, (1, 1, 1)), ([1] * 5, (2, 1, 2))]
)
def test_head_medium_and_tail_have_their_shares(counts: list[int], sizes: tuple[int, ...]) -> None:
    groups = thirds(torch.tensor(counts))
    assert tuple(map(len, groups)) == sizes
    assert sorted(torch.cat(groups).tolist()) == list(range(len(counts)))


def test_head_has_the_most_samples() -> None:
    head, medium, tail = thirds(torch.tensor([5, 50, 20, 30, 1, 7]))
    assert (head.tolist(), medium.tolist(), tail.tolist()) == ([1, 3], [2, 5], [0, 4])


@pytest.mark.parametrize("objective", ["dkd", "ltkd", "kd_pt", "kd_topk", "logit_standardization", "iad"])
def test_shapes_that_differ_are_refused(objective: str) -> None:
    with pytest.raises(ValueError, match=r"logits have shapes \(5, 4\) and \(5, 3\), expected equal"):
        loss_of(settings_of(objective), teacher_BC=TEACHER[:, :3])


def test_what_an_objective_needs_and_has_not_got_is_named() -> None:
    refusals: list[tuple[Callable[[], object], str]] = [
        (lambda: student_loss(STUDENT, None, LABELS, settings_of("dkd")), "objective dkd needs the teacher's logits"),
        (lambda: student_loss(STUDENT, TEACHER, LABELS, settings_of("ltkd")), "objective ltkd needs a context"),
    ]
    for call, message in refusals:
        with pytest.raises(ValueError, match=message):
            call()
