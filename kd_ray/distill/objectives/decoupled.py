"""Losses that take the divergence apart: the true class against the rest (DKD), and groups of classes (LTKD)."""

import torch
from torch import Tensor
from torch.nn import functional

from kd_ray.distill.objectives.loss import Context, Loss, check_logits, divergence, mixture
from kd_ray.sweep.distillation import DecoupledDistillation, LongTailedDistillation


def dkd_loss(
    student_BC: Tensor,
    teacher_BC: Tensor,
    labels_B: Tensor,
    settings: DecoupledDistillation,
    context: Context | None = None,
) -> Loss:
    """alpha · [T²] · (target_weight · TCKD + beta · NCKD) + (1 − alpha) · CE; Zhao et al., CVPR 2022, equations 6 and 7.

    KL_T = TCKD + (1 − p_teacher(y; T)) · NCKD holds for each sample, so target_weight 1 and beta `coupled` give plain distillation.
    `target_class` is the mean of TCKD, `non_target_class` that of NCKD, with the factor of each sample where beta is `coupled`.
    """
    del context
    check_logits(student_BC, teacher_BC)
    log_student = _decoupled(student_BC / settings.temperature, labels_B)
    log_teacher = _decoupled(teacher_BC / settings.temperature, labels_B)
    target = divergence(log_teacher[0], log_student[0]).mean()
    others_B = divergence(log_teacher[1], log_student[1])
    others = torch.mean(log_teacher[0][:, 1].exp() * others_B) if settings.beta == "coupled" else others_B.mean()
    beta = 1.0 if settings.beta == "coupled" else settings.beta
    hard = functional.cross_entropy(student_BC, labels_B)
    total = mixture(
        hard,
        settings.target_weight * target + beta * others,
        alpha=settings.alpha,
        temperature=settings.temperature,
        t_squared=settings.t_squared,
    )
    return Loss(total=total, terms={"cross_entropy": hard, "target_class": target, "non_target_class": others})


def _decoupled(scaled_BC: Tensor, labels_B: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities of (true class, the rest), (B, 2), and among the rest, (B, C − 1)."""
    batch, classes = scaled_BC.shape
    is_other_BC = torch.arange(classes, device=labels_B.device) != labels_B[:, None]
    others_BC = scaled_BC[is_other_BC].view(batch, classes - 1)
    true_B = scaled_BC.gather(1, labels_B[:, None])[:, 0]
    masses_B2 = torch.stack([true_B, torch.logsumexp(others_BC, dim=1)], dim=1)
    return functional.log_softmax(masses_B2, dim=1), functional.log_softmax(others_BC, dim=1)


def ltkd_loss(
    student_BC: Tensor, teacher_BC: Tensor, labels_B: Tensor, settings: LongTailedDistillation, context: Context
) -> Loss:
    """alpha · [T²] · (between_weight · KL(b̂ ‖ b_student) + Σ_G w_G · KL(p̃_G)) + (1 − alpha) · CE; arXiv 2506.18496, from notes on it.

    b_G = Σ_{i ∈ G} p_i and p̃_G,i = p_i / b_G. b̂ is the teacher's b, with `rebalance` multiplied by factors that make its sums over the
    batch equal and renormalised in each sample. Since KL_T = KL(b_teacher ‖ b_student) + Σ_G b_teacher,G · KL(p̃_G), `rebalance: false`,
    between_weight 1 and within_weight `teacher_mass` give plain distillation.
    """
    check_logits(student_BC, teacher_BC)
    groups = [group.to(labels_B.device) for group in thirds(context.background.class_counts_C)]
    log_student_BG, student_within = _by_group(student_BC / settings.temperature, groups)
    log_teacher_BG, teacher_within = _by_group(teacher_BC / settings.temperature, groups)
    target_BG = rebalanced(log_teacher_BG) if settings.rebalance else log_teacher_BG
    between = divergence(target_BG, log_student_BG).mean()
    inner_BG = torch.stack(
        [divergence(teacher, student) for teacher, student in zip(teacher_within, student_within, strict=True)], dim=1
    )
    if settings.within_weight == "teacher_mass":
        within = (log_teacher_BG.exp() * inner_BG).sum(1).mean()
    else:
        within = settings.within_weight * inner_BG.sum(1).mean()
    hard = functional.cross_entropy(student_BC, labels_B)
    total = mixture(
        hard,
        settings.between_weight * between + within,
        alpha=settings.alpha,
        temperature=settings.temperature,
        t_squared=settings.t_squared,
    )
    return Loss(total=total, terms={"cross_entropy": hard, "between_groups": between, "within_groups": within})


def thirds(counts_C: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Indices of head, medium and tail classes: 33, 34 and 33 % of them, from many samples to few; among equals, in order."""
    order_C = torch.argsort(counts_C, descending=True, stable=True)
    side = (33 * len(counts_C) + 50) // 100
    return order_C[:side], order_C[side : len(order_C) - side], order_C[len(order_C) - side :]


def rebalanced(log_masses_BG: Tensor) -> Tensor:
    """Log group masses, rescaled so that the factors make their sums over the batch equal, and renormalised in each sample."""
    log_sums_G = torch.logsumexp(log_masses_BG, dim=0)
    return functional.log_softmax(log_masses_BG - log_sums_G, dim=1)


def _by_group(scaled_BC: Tensor, groups: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Log masses of the groups, (B, G), and log-probabilities within each, (B, members)."""
    parts = [scaled_BC[:, group] for group in groups]
    masses_BG = torch.stack([torch.logsumexp(part, dim=1) for part in parts], dim=1)
    return functional.log_softmax(masses_BG, dim=1), [functional.log_softmax(part, dim=1) for part in parts]
