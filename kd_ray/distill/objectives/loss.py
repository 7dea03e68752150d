"""What every objective is made of: a loss with named terms, what it may look at, and the divergences and mixtures that several share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True, kw_only=True)
class Loss:
    """Weighted total and its terms; scalars that carry gradients."""

    total: Tensor
    terms: dict[str, Tensor]
    adversary: Tensor | None = None
    """Loss of an adversary that the student works against, where there is one; no part of the total."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassStatistics:
    """Statistics of a teacher on the validation split, per class; float64, (C,)."""

    n_C: Tensor
    """Held-out samples of the class."""
    accuracy_C: Tensor
    """Share of them that the teacher classifies correctly; 0 where there is none."""
    margin_C: Tensor
    """Mean of p(y) − the largest other p at T = 1, in [−1, 1]; 0 where there is none."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Background:
    """What stays the same throughout a training run."""

    class_counts_C: Tensor
    """Training samples of each class; on the CPU."""
    statistics: ClassStatistics | None = None
    """Where the objective asks for it."""
    alpha_C: Tensor | None = None
    """Weight of the distillation term for samples of the class; float64, on the CPU."""
    margin_C: Tensor | None = None
    """Margin that the cross-entropy asks for, in logits; float64, on the CPU."""
    similarity_CC: Tensor | None = None
    """Cosine of the rows of the teacher's last linear layer; float64."""
    sensitive_features: Mapping[str, Tensor] = field(default_factory=dict)
    """By name of the feature, whether a training sample belongs to a group, bool (N, G); on the CPU."""
    group_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By name of the feature, the G groups."""

    def per_class(self) -> dict[str, tuple[float, ...]]:
        """What a record keeps of it, by name."""
        found = {"class_alpha": self.alpha_C, "class_margin": self.margin_C}
        if self.statistics is not None:
            found |= {
                "held_out_n": self.statistics.n_C,
                "teacher_held_out_accuracy": self.statistics.accuracy_C,
                "teacher_held_out_margin": self.statistics.margin_C,
            }
        return {name: tuple(values_C.tolist()) for name, values_C in found.items() if values_C is not None}


@dataclass(frozen=True, kw_only=True, eq=False)
class Attacked:
    """Logits for the batch's images after an attack on the student."""

    student_BC: Tensor
    teacher_BC: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Context:
    """What an objective may look at besides logits and labels."""

    samples_B: Tensor
    """Which training samples the batch holds; on the CPU."""
    background: Background
    adversary: Callable[[Tensor, Tensor], Tensor] | None = None
    """(student's logits (B, C), labels (B,)) → logits (B, G) of belonging to each group; for `adversarial`."""
    attacked: Attacked | None = None
    """Logits of attacked images, for an objective that trains on them."""

    def membership(self, feature: str) -> Tensor:
        """Whether each sample of the batch belongs to each group of a sensitive feature: bool (B, G), on the CPU.

        Raises:
            KeyError: the data set has no such feature.
        """
        return self.background.sensitive_features[feature][self.samples_B]


def check_logits(student_BC: Tensor, teacher_BC: Tensor) -> None:
    """Raises ValueError unless both are (B, C)."""
    if student_BC.shape != teacher_BC.shape or student_BC.ndim != 2:
        raise ValueError(
            f"logits have shapes {tuple(student_BC.shape)} and {tuple(teacher_BC.shape)}, expected equal (B, C)"
        )


def distillation_loss(student_BC: Tensor, teacher_BC: Tensor, *, temperature: float) -> Tensor:
    """Mean over the batch of KL(p(teacher; T) ‖ p(student; T)), p(z; T) = softmax(z / T).

    Hinton et al. 2015; the form of Mohammadshahi & Ioannou 2025. Not multiplied by T².

    Raises:
        ValueError: the two sets of logits differ in shape.
    """
    check_logits(student_BC, teacher_BC)
    log_student_BC = functional.log_softmax(student_BC / temperature, dim=1)
    log_teacher_BC = functional.log_softmax(teacher_BC / temperature, dim=1)
    return functional.kl_div(log_student_BC, log_teacher_BC, reduction="batchmean", log_target=True)


def divergence(log_target_BC: Tensor, log_student_BC: Tensor) -> Tensor:
    """KL(target ‖ student) of each sample, (B,), from log-probabilities."""
    return (log_target_BC.exp() * (log_target_BC - log_student_BC)).sum(1)


def divergence_from(target_BC: Tensor, student_BC: Tensor, *, temperature: float) -> Tensor:
    """Mean over the batch of KL(target ‖ p(student; T)) for target probabilities, which may be 0."""
    log_student_BC = functional.log_softmax(student_BC / temperature, dim=1)
    return functional.kl_div(log_student_BC, target_BC, reduction="batchmean")


def mixture(hard: Tensor, soft: Tensor, *, alpha: float, temperature: float, t_squared: bool) -> Tensor:
    """alpha · [T²] · soft + (1 − alpha) · hard."""
    scale = temperature**2 if t_squared else 1.0
    return alpha * scale * soft + (1 - alpha) * hard


def by_sample(student_BC: Tensor, teacher_BC: Tensor, labels_B: Tensor, *, temperature: float) -> tuple[Tensor, Tensor]:
    """Cross-entropy and KL(p(teacher; T) ‖ p(student; T)) of each sample, (B,)."""
    check_logits(student_BC, teacher_BC)
    log_student_BC = functional.log_softmax(student_BC / temperature, dim=1)
    log_teacher_BC = functional.log_softmax(teacher_BC / temperature, dim=1)
    return functional.cross_entropy(student_BC, labels_B, reduction="none"), divergence(log_teacher_BC, log_student_BC)


def mixture_by_sample(
    hard_B: Tensor, soft_B: Tensor, alpha_B: Tensor, *, temperature: float, t_squared: bool
) -> Tensor:
    """Mean over the batch of the mixture with an alpha for each sample."""
    scale = temperature**2 if t_squared else 1.0
    return torch.mean(alpha_B * scale * soft_B + (1 - alpha_B) * hard_B)
