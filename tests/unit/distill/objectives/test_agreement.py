"""Every objective against a calculation of its own, sample by sample and class by class, from the formulas of `sweep/distillation.py`."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from kd_ray.distill.objectives import Attacked, student_loss
from kd_ray.distill.rescaling import true_logit_pulls
from kd_ray.sweep.distillation import OBJECTIVES
from tests.unit.distill.objectives.examples import (
    CHOICES,
    COUNTS,
    LABELS,
    STATISTICS,
    STUDENT,
    TEACHER,
    WEIGHTS,
    context_of,
    loss_of,
    settings_of,
    softmax,
)

S, Z = STUDENT.detach().numpy(), TEACHER.numpy()
Y = LABELS.tolist()
B, K = S.shape
T, ALPHA = 3.0, 0.7
HARD = [-math.log(softmax(S[n])[Y[n]]) for n in range(B)]


def kl(p: np.ndarray, q: np.ndarray) -> float:
    return sum(float(a) * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


def mixed(hard: float, soft: float) -> float:
    return ALPHA * T**2 * soft + (1 - ALPHA) * hard


def check(objective: str, total: float, terms: dict[str, float], **changes: object) -> None:
    loss = loss_of(settings_of(objective, **changes))
    assert {name: term.item() for name, term in loss.terms.items()} == pytest.approx(terms, rel=1e-12)
    assert loss.total.item() == pytest.approx(total, rel=1e-12)


def test_kd() -> None:
    soft = float(np.mean([kl(softmax(Z[n] / T), softmax(S[n] / T)) for n in range(B)]))
    hard = float(np.mean(HARD))
    check("kd", mixed(hard, soft), {"cross_entropy": hard, "distillation": soft})
    check("kd", ALPHA * soft + (1 - ALPHA) * hard, {"cross_entropy": hard, "distillation": soft}, t_squared=False)


def test_scratch_long() -> None:
    check("scratch_long", float(np.mean(HARD)), {"cross_entropy": float(np.mean(HARD))})


def test_label_smoothing() -> None:
    uniform = float(np.mean([-np.log(softmax(S[n])).mean() for n in range(B)]))
    total = float(0.9 * np.mean(HARD) + 0.1 * uniform)
    check("label_smoothing", total, {"cross_entropy": float(np.mean(HARD)), "uniform": uniform})
    assert total == pytest.approx(functional.cross_entropy(STUDENT, LABELS, label_smoothing=0.1).item(), rel=1e-12)


@pytest.mark.parametrize("beta", [8.0, "coupled"])
def test_dkd(beta: float | str) -> None:
    target, others = 0.0, 0.0
    for n in range(B):
        p, q = softmax(Z[n] / T), softmax(S[n] / T)
        y = Y[n]
        target += kl(np.array([p[y], 1 - p[y]]), np.array([q[y], 1 - q[y]])) / B
        rest_p, rest_q = np.delete(p, y) / (1 - p[y]), np.delete(q, y) / (1 - q[y])
        others += (1 - p[y] if beta == "coupled" else 1.0) * kl(rest_p, rest_q) / B
    soft = 0.5 * target + (1.0 if beta == "coupled" else 8.0) * others
    hard = float(np.mean(HARD))
    terms = {"cross_entropy": hard, "target_class": target, "non_target_class": others}
    check("dkd", mixed(hard, soft), terms, beta=beta, target_weight=0.5)


def test_logit_standardization() -> None:
    def z(x: np.ndarray) -> np.ndarray:
        return np.asarray((x - x.mean()) / (x.std(ddof=1) + 1e-7))

    soft = float(np.mean([kl(softmax(z(Z[n]) / T), softmax(z(S[n]) / T)) for n in range(B)]))
    hard = float(np.mean(HARD))
    check("logit_standardization", mixed(hard, soft), {"cross_entropy": hard, "distillation": soft})


@pytest.mark.parametrize("rebalance", [True, False])
@pytest.mark.parametrize("within_weight", [2.0, "teacher_mass"])
def test_ltkd(rebalance: bool, within_weight: float | str) -> None:
    # Counts 5, 50, 20, 20: class 1 is the head, 2 and 3 are the middle, 0 is the tail.
    groups = [[1], [2, 3], [0]]
    assert COUNTS.tolist() == [5, 50, 20, 20]
    p, q = softmax(Z / T), softmax(S / T)
    masses = np.array([[p[n][g].sum() for g in groups] for n in range(B)])
    sums = masses.sum(0)
    factors = (sums.sum() / 3) / sums if rebalance else np.ones(3)
    between, within = 0.0, 0.0
    for n in range(B):
        target = masses[n] * factors
        target = target / target.sum()
        own = np.array([q[n][g].sum() for g in groups])
        between += kl(target, own) / B
        for i, g in enumerate(groups):
            weight = masses[n][i] if within_weight == "teacher_mass" else 2.0
            within += weight * kl(p[n][g] / masses[n][i], q[n][g] / own[i]) / B
    hard = float(np.mean(HARD))
    terms = {"cross_entropy": hard, "between_groups": between, "within_groups": within}
    changes = {"rebalance": rebalance, "within_weight": within_weight, "between_weight": 1.5}
    check("ltkd", mixed(hard, 1.5 * between + within), terms, **changes)


def test_kd_pt() -> None:
    soft = 0.0
    for n in range(B):
        true = softmax(Z[n] / T)[Y[n]]
        target = np.full(K, (1 - true) / (K - 1))
        target[Y[n]] = true
        soft += kl(target, softmax(S[n] / T)) / B
    hard = float(np.mean(HARD))
    check("kd_pt", mixed(hard, soft), {"cross_entropy": hard, "distillation": soft})


def test_kd_topk() -> None:
    soft = 0.0
    for n in range(B):
        p = softmax(Z[n] / T)
        top = np.argsort(-p)[:2]
        target = np.full(K, (1 - p[top].sum()) / (K - 2))
        target[top] = p[top]
        soft += kl(target, softmax(S[n] / T)) / B
    hard = float(np.mean(HARD))
    check("kd_topk", mixed(hard, soft), {"cross_entropy": hard, "distillation": soft})


def test_kd_sim() -> None:
    w = WEIGHTS.double().numpy()
    unit = w / np.sqrt((w**2).sum(1, keepdims=True))
    soft = 0.0
    for n in range(B):
        target = softmax(np.array([(unit[Y[n]] @ unit[j]) ** 3 for j in range(K)]) / 0.3)
        soft += kl(target, softmax(S[n] / T)) / B
    hard = float(np.mean(HARD))
    check("kd_sim", mixed(hard, soft), {"cross_entropy": hard, "distillation": soft}, power=3)


def by_sample(alpha: list[float]) -> tuple[float, dict[str, float]]:
    soft = [kl(softmax(Z[n] / T), softmax(S[n] / T)) for n in range(B)]
    total = float(np.mean([alpha[n] * T**2 * soft[n] + (1 - alpha[n]) * HARD[n] for n in range(B)]))
    return total, {"cross_entropy": float(np.mean(HARD)), "distillation": float(np.mean(soft))}


def test_iad() -> None:
    total, terms = by_sample([ALPHA * softmax(Z[n])[Y[n]] ** 0.5 for n in range(B)])
    check("iad", total, terms)


def test_iad_with_an_attack() -> None:
    attack = {"epsilon": 0.1, "step_size": 0.1, "steps": 1}
    asked = settings_of("iad", attack=attack)
    attacked = Attacked(student_BC=STUDENT * 0.5 + 0.3 * STUDENT.flip(1), teacher_BC=TEACHER.flip(1))
    loss = student_loss(STUDENT, TEACHER, LABELS, asked, replace(context_of(asked), attacked=attacked))
    after, trusted = attacked.student_BC.detach().numpy(), attacked.teacher_BC.numpy()
    total, taught, own = 0.0, [], []
    for n in range(B):
        trust = softmax(trusted[n])[Y[n]] ** 0.5
        taught.append(kl(softmax(Z[n] / T), softmax(after[n] / T)))
        own.append(kl(softmax(S[n] / T), softmax(after[n] / T)))
        total += mixed(HARD[n], trust * taught[n] + (1 - trust) * own[n]) / B
    assert loss.total.item() == pytest.approx(total, rel=1e-12)
    means = {
        "cross_entropy": float(np.mean(HARD)),
        "distillation": float(np.mean(taught)),
        "self_distillation": float(np.mean(own)),
    }
    assert {name: term.item() for name, term in loss.terms.items()} == pytest.approx(means, rel=1e-12)


@pytest.mark.parametrize(("exponent", "moves"), [(0.0, False), (0.5, True)])
def test_iad_after_an_attack_that_does_nothing_is_plain_where_trust_is_whole(exponent: float, moves: bool) -> None:
    """With x' = x the student's own term is 0 and has no gradient, so trust weighs the teacher's term alone."""
    asked = settings_of("iad", attack={"epsilon": 0.1, "step_size": 0.1, "steps": 1}, trust_exponent=exponent)
    attacked = Attacked(student_BC=STUDENT, teacher_BC=TEACHER)
    total = student_loss(STUDENT, TEACHER, LABELS, asked, replace(context_of(asked), attacked=attacked)).total
    plain = loss_of(settings_of("kd")).total
    assert (abs(total.item() - plain.item()) > 1e-3) == moves
    if not moves:
        gradients = [torch.autograd.grad(each, STUDENT)[0] for each in (total, plain)]
        torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
def test_gradient_of_iad_with_an_attack_agrees_with_finite_differences() -> None:
    asked = settings_of("iad", attack={"epsilon": 0.1, "step_size": 0.1, "steps": 1})

    def total(student_BC: torch.Tensor, attacked_BC: torch.Tensor) -> torch.Tensor:
        attacked = Attacked(student_BC=attacked_BC, teacher_BC=TEACHER.flip(1))
        return student_loss(student_BC, TEACHER, LABELS, asked, replace(context_of(asked), attacked=attacked)).total

    assert torch.autograd.gradcheck(total, (STUDENT, (STUDENT.detach() * 0.5).requires_grad_()))


def test_iad_without_the_attacked_logits_is_refused() -> None:
    asked = settings_of("iad", attack={"epsilon": 0.1, "step_size": 0.1, "steps": 1})
    with pytest.raises(ValueError, match="iad with an attack needs the logits of attacked images"):
        loss_of(asked)


TAUGHT = [name for name in CHOICES if OBJECTIVES[name].NEEDS_TEACHER]
BY_SAMPLE = [name for name in CHOICES if OBJECTIVES[name].IS_BY_SAMPLE]


def test_pulls_of_kd_are_those_of_the_formula() -> None:
    """w of Tang et al. 2020 as derived in `true_logit_pulls`, with and without T²."""
    for t_squared in (True, False):
        settings = settings_of("kd", t_squared=t_squared)
        pulls = true_logit_pulls(STUDENT.detach(), TEACHER, LABELS, settings, None)
        for n in range(B):
            q, soft_p, soft_q = softmax(S[n])[Y[n]], softmax(Z[n] / T)[Y[n]], softmax(S[n] / T)[Y[n]]
            w = (1 - ALPHA) + ALPHA * (T**2 if t_squared else 1) / T * (soft_p - soft_q) / (1 - q)
            assert pulls[n].item() == pytest.approx(w * (1 - q), rel=1e-10)


@pytest.mark.parametrize("objective", BY_SAMPLE)
def test_pulls_of_an_objective_are_those_of_each_sample_alone(objective: str) -> None:
    """Guard of `IS_BY_SAMPLE`: company in the batch changes nothing."""
    settings = settings_of(objective)
    background = context_of(settings).background
    together = true_logit_pulls(STUDENT.detach(), TEACHER, LABELS, settings, background)
    for n in range(B):
        one = slice(n, n + 1)
        alone = true_logit_pulls(STUDENT.detach()[one], TEACHER[one], LABELS[one], settings, background)
        assert alone.item() == pytest.approx(together[n].item(), rel=1e-9)


def test_pulls_are_refused_where_a_batch_is_more_than_its_samples() -> None:
    assert set(TAUGHT) - set(BY_SAMPLE) == {"kd_shuffled", "ltkd", "kd_groups", "adversarial"}
    with pytest.raises(ValueError, match="the loss of objective kd_groups is no mean over samples"):
        true_logit_pulls(STUDENT.detach(), TEACHER, LABELS, settings_of("kd_groups"), None)


def test_kd_groups() -> None:
    soft = [kl(softmax(Z[n] / T), softmax(S[n] / T)) for n in range(B)]
    loss = [mixed(HARD[n], soft[n]) for n in range(B)]
    red, blue = float(np.mean(loss[0::2])), float(np.mean(loss[1::2]))
    weight = math.exp(2 * red) / (math.exp(2 * red) + math.exp(2 * blue))
    terms = {
        "cross_entropy": float(np.mean(HARD)),
        "distillation": float(np.mean(soft)),
        "worst_group": max(red, blue),
    }
    check("kd_groups", weight * red + (1 - weight) * blue, terms)
    check("kd_groups", (red + blue) / 2, terms, sharpness=0.0)


def reliability_by_hand(shrinkage: float) -> list[float]:
    n, margin = STATISTICS.n_C.tolist(), STATISTICS.margin_C.tolist()
    mean = sum(a * b for a, b in zip(n, margin, strict=True)) / sum(n)
    return [max(0.0, (n[c] * margin[c] + shrinkage * mean) / (n[c] + shrinkage)) for c in range(K)]


@pytest.mark.parametrize("alpha_map", ["relative", "absolute"])
def test_ada_alpha(alpha_map: str) -> None:
    reliable = reliability_by_hand(10.0)
    scale = max(reliable) if alpha_map == "relative" else 1.0
    alpha_C = [min(0.65, max(0.05, ALPHA * r / scale)) for r in reliable]
    assert len({round(alpha, 6) for alpha in alpha_C}) >= 3
    total, terms = by_sample([alpha_C[y] for y in Y])
    check("ada_alpha", total, terms, alpha_map=alpha_map, min_alpha=0.05, max_alpha=0.65)


def test_ada_margin() -> None:
    reliable = reliability_by_hand(10.0)
    margin_C = [min(1.5, 2.0 * (1 - r / max(reliable))) for r in reliable]
    assert max(margin_C) == 1.5
    asked = 0.0
    for n in range(B):
        rivals = [math.exp(margin_C[Y[n]] + S[n][j] - S[n][Y[n]]) for j in range(K) if j != Y[n]]
        asked += math.log(1 + sum(rivals)) / B
    soft = float(np.mean([kl(softmax(Z[n] / T), softmax(S[n] / T)) for n in range(B)]))
    terms = {"cross_entropy": float(np.mean(HARD)), "margin_cross_entropy": asked, "distillation": soft}
    check("ada_margin", mixed(asked, soft), terms, margin_scale=2.0, max_margin=1.5)


def test_class_statistics_by_hand() -> None:
    from kd_ray.distill.objectives.reliability import class_statistics

    logits = torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 3.0, 0.0]])
    found = class_statistics(logits, torch.tensor([0, 0, 1]))
    p = softmax(logits.double().numpy())
    assert found.n_C.tolist() == [2, 1, 0]
    assert found.accuracy_C.tolist() == [0.5, 1.0, 0.0]
    margin = [((p[0][0] - p[0][1]) + (p[1][0] - p[1][1])) / 2, p[2][1] - p[2][0], 0.0]
    assert found.margin_C.tolist() == pytest.approx(margin, rel=1e-12)
