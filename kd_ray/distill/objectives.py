"""Training losses as plain functions of logits, each with its formula and source.

A loss is a mapping of named terms (means over the batch, before weighting) and the weighted total. Terms become columns of `epochs`.
"""

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from kd_ray.sweep.config import Distillation


@dataclass(frozen=True, kw_only=True)
class Loss:
    """Weighted total and its terms; scalars that carry gradients."""

    total: Tensor
    terms: dict[str, Tensor]


def distillation_loss(student_BC: Tensor, teacher_BC: Tensor, *, temperature: float) -> Tensor:
    """Mean over the batch of KL(p(teacher; T) ‖ p(student; T)), p(z; T) = softmax(z / T).

    Hinton et al. 2015; the form of Mohammadshahi & Ioannou 2025. Not multiplied by T².

    Raises:
        ValueError: the two sets of logits differ in shape.
    """
    if student_BC.shape != teacher_BC.shape or student_BC.ndim != 2:
        raise ValueError(
            f"logits have shapes {tuple(student_BC.shape)} and {tuple(teacher_BC.shape)}, expected equal (B, C)"
        )
    log_student_BC = functional.log_softmax(student_BC / temperature, dim=1)
    log_teacher_BC = functional.log_softmax(teacher_BC / temperature, dim=1)
    return functional.kl_div(log_student_BC, log_teacher_BC, reduction="batchmean", log_target=True)


def scratch_loss(student_BC: Tensor, labels_B: Tensor) -> Loss:
    """Cross-entropy with the hard labels."""
    cross_entropy = functional.cross_entropy(student_BC, labels_B)
    return Loss(total=cross_entropy, terms={"cross_entropy": cross_entropy})


def kd_loss(student_BC: Tensor, teacher_BC: Tensor, labels_B: Tensor, settings: Distillation) -> Loss:
    """alpha · [T²] · L_distill + (1 − alpha) · cross-entropy at T = 1.

    alpha weighs the distillation term, as in Mohammadshahi & Ioannou 2025. With T² the gradient of the soft term tends to the difference of
    the centred logits as T grows; without it, it falls like 1 / T².
    """
    soft = distillation_loss(student_BC, teacher_BC, temperature=settings.temperature)
    hard = functional.cross_entropy(student_BC, labels_B)
    scale = settings.temperature**2 if settings.t_squared else 1.0
    total = settings.alpha * scale * soft + (1 - settings.alpha) * hard
    return Loss(total=total, terms={"cross_entropy": hard, "distillation": soft})


def student_loss(
    student_BC: Tensor, teacher_BC: Tensor | None, labels_B: Tensor, settings: Distillation | None
) -> Loss:
    """The loss a trial's settings ask for: cross-entropy without a teacher, else its distillation objective."""
    if settings is None:
        return scratch_loss(student_BC, labels_B)
    if teacher_BC is None:
        raise ValueError(f"objective {settings.objective} needs the teacher's logits")
    return kd_loss(student_BC, teacher_BC, labels_B, settings)


def term_names(settings: Distillation | None) -> tuple[str, ...]:
    """Names of the terms of a trial's loss, in a fixed order."""
    return ("cross_entropy",) if settings is None else ("cross_entropy", "distillation")
