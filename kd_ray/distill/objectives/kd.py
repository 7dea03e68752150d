"""Cross-entropy alone, with smoothed labels, and plain distillation."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from kd_ray.distill.objectives.loss import Context, Loss, distillation_loss, mixture
from kd_ray.sweep.distillation import KnowledgeDistillation, LabelSmoothing, LongerScratch, ShuffledDistillation


def scratch_loss(
    student_BC: Tensor,
    teacher_BC: Tensor | None,
    labels_B: Tensor,
    settings: LongerScratch | None = None,
    context: Context | None = None,
    *,
    smoothing: float = 0.0,
) -> Loss:
    """Cross-entropy with the hard labels; a share `smoothing` of each label is spread evenly over all classes."""
    del teacher_BC, settings, context
    cross_entropy = functional.cross_entropy(student_BC, labels_B, label_smoothing=smoothing)
    return Loss(total=cross_entropy, terms={"cross_entropy": cross_entropy})


def kd_loss(
    student_BC: Tensor,
    teacher_BC: Tensor,
    labels_B: Tensor,
    settings: KnowledgeDistillation | ShuffledDistillation,
    context: Context | None = None,
    *,
    smoothing: float = 0.0,
) -> Loss:
    """alpha · [T²] · L_distill + (1 − alpha) · cross-entropy at T = 1, its labels smoothed or not.

    alpha weighs the distillation term, as in Mohammadshahi & Ioannou 2025. With T² the gradient of the soft term tends to the difference of
    the centred logits as T grows; without it, it falls like 1 / T². For `kd_shuffled` the logits come from a `ShuffledTeacher`.
    """
    del context
    return kd_with_alpha(
        student_BC,
        teacher_BC,
        labels_B,
        alpha=settings.alpha,
        temperature=settings.temperature,
        t_squared=settings.t_squared,
        smoothing=smoothing,
    )


class KdOfGroup:
    """`kd_loss` of K students at once."""

    def __init__(self, settings: Sequence[KnowledgeDistillation]) -> None:
        scales = [each.temperature**2 if each.t_squared else 1.0 for each in settings]
        self._weights_3K = torch.tensor(
            [
                [each.temperature for each in settings],
                [each.alpha * scale for each, scale in zip(settings, scales, strict=True)],
                [1 - each.alpha for each in settings],
            ],
            dtype=torch.float64,
        )
        """Temperature, weight of the distillation term, weight of the cross-entropy."""

    def __call__(self, logits_KCB: Tensor, teacher_KCB: Tensor, labels_B: Tensor) -> Tensor:
        """Total, cross-entropy and divergence of each student, (K, 3); a single teacher has K = 1."""
        count = len(labels_B)
        self._weights_3K = self._weights_3K.to(logits_KCB)
        temperature_K, soft_weight_K, hard_weight_K = self._weights_3K
        temperature_K11 = temperature_K[:, None, None]
        log_student_KCB = functional.log_softmax(logits_KCB / temperature_K11, dim=1)
        log_teacher_KCB = functional.log_softmax(teacher_KCB / temperature_K11, dim=1)
        divergence_KCB = functional.kl_div(log_student_KCB, log_teacher_KCB, reduction="none", log_target=True)
        soft_K = divergence_KCB.sum((1, 2)) / count
        labels_K1B = labels_B.expand(len(logits_KCB), 1, count)
        hard_K = -functional.log_softmax(logits_KCB, dim=1).gather(1, labels_K1B).sum((1, 2)) / count
        total_K = soft_weight_K * soft_K + hard_weight_K * hard_K
        return torch.stack([total_K, hard_K, soft_K], dim=1)


def kd_with_alpha(
    student_BC: Tensor,
    teacher_BC: Tensor,
    labels_B: Tensor,
    *,
    alpha: float,
    temperature: float,
    t_squared: bool,
    smoothing: float = 0.0,
) -> Loss:
    """Plain distillation with these numbers."""
    soft = distillation_loss(student_BC, teacher_BC, temperature=temperature)
    hard = functional.cross_entropy(student_BC, labels_B, label_smoothing=smoothing)
    total = mixture(hard, soft, alpha=alpha, temperature=temperature, t_squared=t_squared)
    return Loss(total=total, terms={"cross_entropy": hard, "distillation": soft})


def label_smoothing_loss(
    student_BC: Tensor,
    teacher_BC: Tensor | None,
    labels_B: Tensor,
    settings: LabelSmoothing,
    context: Context | None = None,
) -> Loss:
    """(1 − smoothing) · CE + smoothing · mean over classes of −log p: cross-entropy with the smoothed target.

    Szegedy et al. 2016; the form of `torch.nn.functional.cross_entropy(label_smoothing=…)`.
    """
    del teacher_BC, context
    hard = functional.cross_entropy(student_BC, labels_B)
    uniform = -functional.log_softmax(student_BC, dim=1).mean()
    total = (1 - settings.smoothing) * hard + settings.smoothing * uniform
    return Loss(total=total, terms={"cross_entropy": hard, "uniform": uniform})
