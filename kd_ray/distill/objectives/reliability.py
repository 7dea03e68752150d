"""Losses that trust a teacher only as far as it is reliable: on a class (AdaAlpha, AdaMargin) or on a sample (IAD).

`per_class_statistic → alpha_y, margin_y` is `class_statistics` followed by a map. `ALPHA_MAPS` holds ours, as those of the papers are not
known to us; an objective of your own gets the statistics too, to map them otherwise.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from kd_ray.distill.objectives.kd import kd_with_alpha
from kd_ray.distill.objectives.loss import (
    Background,
    ClassStatistics,
    Context,
    Loss,
    by_sample,
    check_logits,
    distillation_loss,
    divergence,
    mixture,
    mixture_by_sample,
)
from kd_ray.sweep.distillation import AdaAlpha, AdaMargin, TrustedDistillation

AlphaMap = Callable[[float, Tensor], Tensor]
"""(alpha, reliability of each class (C,), not negative) → weight of the distillation term for each class (C,), before clipping."""


def _relative(alpha: float, reliability_C: Tensor) -> Tensor:
    return alpha * relative(reliability_C)


def _absolute(alpha: float, reliability_C: Tensor) -> Tensor:
    return alpha * reliability_C


ALPHA_MAPS: dict[str, AlphaMap] = {"relative": _relative, "absolute": _absolute}


def class_statistics(logits_NC: Tensor, labels_N: Tensor) -> ClassStatistics:
    """Accuracy and mean margin of a teacher on held-out samples, class by class, in float64."""
    num_classes = logits_NC.shape[1]
    probabilities_NC = functional.softmax(logits_NC.double(), dim=1)
    own_N1 = probabilities_NC.gather(1, labels_N[:, None])
    rival_N = probabilities_NC.scatter(1, labels_N[:, None], -1.0).max(1).values
    correct_N = (logits_NC.argmax(1) == labels_N).double()

    def mean_by_class(values_N: Tensor) -> Tensor:
        return torch.bincount(labels_N, values_N, minlength=num_classes) / n_C.clamp(min=1)

    n_C = torch.bincount(labels_N, minlength=num_classes).double()
    return ClassStatistics(n_C=n_C, accuracy_C=mean_by_class(correct_N), margin_C=mean_by_class(own_N1[:, 0] - rival_N))


def shrunk(values_C: Tensor, n_C: Tensor, *, shrinkage: float) -> Tensor:
    """(n · value + shrinkage · mean) / (n + shrinkage), the mean over all held-out samples; a class without samples gets the mean.

    Written so that equal values stay what they are, to the last bit.
    """
    seen_C = n_C > 0
    anchor = values_C[seen_C][0]
    mean = anchor + ((values_C - anchor) * n_C).sum() / n_C.sum()
    share_C = torch.where(seen_C, shrinkage / (n_C + shrinkage).clamp(min=1e-300), torch.ones_like(n_C))
    return torch.where(seen_C, values_C + (mean - values_C) * share_C, mean)


def reliability(statistics: ClassStatistics, settings: AdaAlpha | AdaMargin) -> Tensor:
    """The chosen statistic of each class after shrinkage, cut off at 0: (C,), float64."""
    values_C = statistics.margin_C if settings.statistic == "margin" else statistics.accuracy_C
    return shrunk(values_C, statistics.n_C, shrinkage=settings.shrinkage).clamp(min=0)


def relative(reliability_C: Tensor) -> Tensor:
    """As shares of the most reliable class; all 0 where none is reliable."""
    largest = reliability_C.max()
    return reliability_C / largest if largest > 0 else torch.zeros_like(reliability_C)


def class_alpha(statistics: ClassStatistics, settings: AdaAlpha) -> Tensor:
    """Weight of the distillation term for each class, clipped: (C,), float64."""
    alpha_C = ALPHA_MAPS[settings.alpha_map](settings.alpha, reliability(statistics, settings))
    return alpha_C.clamp(settings.min_alpha, settings.max_alpha)


def class_margin(statistics: ClassStatistics, settings: AdaMargin) -> Tensor:
    """Margin for each class in logits, clipped: (C,), float64; 0 for the most reliable one."""
    margin_C = settings.margin_scale * (1 - relative(reliability(statistics, settings)))
    return margin_C.clamp(max=settings.max_margin)


def with_class_alpha(background: Background, settings: AdaAlpha, teacher: nn.Module) -> Background:
    """The background with the alpha of each class."""
    del teacher
    assert background.statistics is not None
    return replace(background, alpha_C=class_alpha(background.statistics, settings))


def with_class_margin(background: Background, settings: AdaMargin, teacher: nn.Module) -> Background:
    """The background with the margin of each class."""
    del teacher
    assert background.statistics is not None
    return replace(background, margin_C=class_margin(background.statistics, settings))


def ada_alpha_loss(
    student_BC: Tensor, teacher_BC: Tensor, labels_B: Tensor, settings: AdaAlpha, context: Context
) -> Loss:
    """Mean of alpha_y · [T²] · KL_T + (1 − alpha_y) · CE. AdaAlpha style, after Lukasik et al. 2022; the map is ours (`class_alpha`).

    Where alpha_y is the same for all classes this is plain distillation with it, to the last bit.
    """
    alpha_C = context.background.alpha_C
    if alpha_C is None:
        raise ValueError("ada_alpha needs an alpha for each class")
    check_logits(student_BC, teacher_BC)
    if bool((alpha_C == alpha_C[0]).all()):
        return kd_with_alpha(
            student_BC,
            teacher_BC,
            labels_B,
            alpha=float(alpha_C[0]),
            temperature=settings.temperature,
            t_squared=settings.t_squared,
        )
    return _by_sample(student_BC, teacher_BC, labels_B, alpha_C.to(student_BC)[labels_B], settings)


def ada_margin_loss(
    student_BC: Tensor, teacher_BC: Tensor, labels_B: Tensor, settings: AdaMargin, context: Context
) -> Loss:
    """alpha · [T²] · KL_T + (1 − alpha) · mean of log(1 + Σ_{j ≠ y} exp(m_y + z_j − z_y)).

    AdaMargin style, after Lukasik et al. 2022; where the margin enters and the map to it (`class_margin`) are ours.
    """
    margin_C = context.background.margin_C
    if margin_C is None:
        raise ValueError("ada_margin needs a margin for each class")
    soft = distillation_loss(student_BC, teacher_BC, temperature=settings.temperature)
    hard = functional.cross_entropy(student_BC, labels_B)
    margin_B1 = margin_C.to(student_BC)[labels_B][:, None]
    # Lowering the true logit is raising all others.
    with_margin = functional.cross_entropy(student_BC.scatter_add(1, labels_B[:, None], -margin_B1), labels_B)
    total = mixture(
        with_margin, soft, alpha=settings.alpha, temperature=settings.temperature, t_squared=settings.t_squared
    )
    return Loss(total=total, terms={"cross_entropy": hard, "margin_cross_entropy": with_margin, "distillation": soft})


def iad_loss(
    student_BC: Tensor,
    teacher_BC: Tensor,
    labels_B: Tensor,
    settings: TrustedDistillation,
    context: Context | None = None,
) -> Loss:
    """Plain distillation with alpha · p_teacher(y | x)^trust_exponent for each sample. IAD style (Zhu et al. 2022) on natural inputs.

    With an attack, `_iad_attacked`.
    """
    if settings.attack is not None:
        return _iad_attacked(student_BC, teacher_BC, labels_B, settings, context)
    if settings.trust_exponent == 0:
        return kd_with_alpha(
            student_BC,
            teacher_BC,
            labels_B,
            alpha=settings.alpha,
            temperature=settings.temperature,
            t_squared=settings.t_squared,
        )
    check_logits(student_BC, teacher_BC)
    alpha_B = settings.alpha * trust(teacher_BC, labels_B, settings)
    return _by_sample(student_BC, teacher_BC, labels_B, alpha_B, settings)


def trust(teacher_BC: Tensor, labels_B: Tensor, settings: TrustedDistillation) -> Tensor:
    """p_teacher(y; T = 1)^trust_exponent of each sample, (B,)."""
    log_true_B = functional.log_softmax(teacher_BC, dim=1).gather(1, labels_B[:, None])[:, 0]
    return torch.exp(settings.trust_exponent * log_true_B)


def _iad_attacked(
    student_BC: Tensor, teacher_BC: Tensor, labels_B: Tensor, settings: TrustedDistillation, context: Context | None
) -> Loss:
    """alpha · [T²] · mean of a · KL(p_teacher(x) ‖ p(x')) + (1 − a) · KL(p(x) ‖ p(x')), + (1 − alpha) · CE(x), x' the attacked image.

    a = p_teacher(y | x')^trust_exponent. Zhu et al., ICLR 2022, and its code for which input stands where; as there, gradients flow through
    the student's own answer to x too.
    """
    if context is None or context.attacked is None:
        raise ValueError("iad with an attack needs the logits of attacked images")
    attacked = context.attacked
    check_logits(attacked.student_BC, teacher_BC)
    log_attacked_BC = functional.log_softmax(attacked.student_BC / settings.temperature, dim=1)
    taught_B = divergence(functional.log_softmax(teacher_BC / settings.temperature, dim=1), log_attacked_BC)
    own_B = divergence(functional.log_softmax(student_BC / settings.temperature, dim=1), log_attacked_BC)
    trust_B = trust(attacked.teacher_BC, labels_B, settings)
    hard = functional.cross_entropy(student_BC, labels_B)
    total = mixture(
        hard,
        torch.mean(trust_B * taught_B + (1 - trust_B) * own_B),
        alpha=settings.alpha,
        temperature=settings.temperature,
        t_squared=settings.t_squared,
    )
    terms = {"cross_entropy": hard, "distillation": taught_B.mean(), "self_distillation": own_B.mean()}
    return Loss(total=total, terms=terms)


def _by_sample(
    student_BC: Tensor, teacher_BC: Tensor, labels_B: Tensor, alpha_B: Tensor, settings: AdaAlpha | TrustedDistillation
) -> Loss:
    hard_B, soft_B = by_sample(student_BC, teacher_BC, labels_B, temperature=settings.temperature)
    total = mixture_by_sample(hard_B, soft_B, alpha_B, temperature=settings.temperature, t_squared=settings.t_squared)
    return Loss(total=total, terms={"cross_entropy": hard_B.mean(), "distillation": soft_B.mean()})
