"""Plain distillation from other targets than the teacher's softened probabilities: z-scores, and the parts of Tang et al. 2020."""

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from kd_ray.distill.objectives.loss import (
    Background,
    Context,
    Loss,
    check_logits,
    distillation_loss,
    divergence_from,
    mixture,
)
from kd_ray.errors import TrialError
from kd_ray.sweep.distillation import (
    SimilarityDistillation,
    StandardizedDistillation,
    TopKDistillation,
    TrueProbabilityDistillation,
)

_STD_EPSILON = 1e-7

_AnyOfThem = SimilarityDistillation | StandardizedDistillation | TopKDistillation | TrueProbabilityDistillation


def standardized_loss(
    student_BC: Tensor,
    teacher_BC: Tensor,
    labels_B: Tensor,
    settings: StandardizedDistillation,
    context: Context | None = None,
) -> Loss:
    """Plain distillation on z-scores of both logits; Sun et al., CVPR 2024, deviation and epsilon as in the released code."""
    del context
    soft = distillation_loss(standardized(student_BC), standardized(teacher_BC), temperature=settings.temperature)
    return _mixed(student_BC, labels_B, soft, settings)


def standardized(logits_BC: Tensor) -> Tensor:
    """(z − mean) / (standard deviation + 1e-7) over the classes of each sample, deviation with ddof = 1."""
    mean_B1, std_B1 = logits_BC.mean(1, keepdim=True), logits_BC.std(1, keepdim=True)
    return (logits_BC - mean_B1) / (std_B1 + _STD_EPSILON)


def kd_pt_loss(
    student_BC: Tensor,
    teacher_BC: Tensor,
    labels_B: Tensor,
    settings: TrueProbabilityDistillation,
    context: Context | None = None,
) -> Loss:
    """Target: p_teacher(y; T) for the true class, (1 − p_teacher(y; T)) / (K − 1) for each other. KD-pt style, after Tang et al. 2020."""
    del context
    check_logits(student_BC, teacher_BC)
    true_B1 = functional.softmax(teacher_BC / settings.temperature, dim=1).gather(1, labels_B[:, None])
    target_BC = ((1 - true_B1) / (student_BC.shape[1] - 1)).expand_as(student_BC)
    target_BC = target_BC.scatter(1, labels_B[:, None], true_B1)
    soft = divergence_from(target_BC, student_BC, temperature=settings.temperature)
    return _mixed(student_BC, labels_B, soft, settings)


def kd_topk_loss(
    student_BC: Tensor,
    teacher_BC: Tensor,
    labels_B: Tensor,
    settings: TopKDistillation,
    context: Context | None = None,
) -> Loss:
    """Target: the teacher's k largest softened probabilities, the rest evenly over the others. KD-topk style, after Tang et al. 2020."""
    del context
    check_logits(student_BC, teacher_BC)
    teacher = functional.softmax(teacher_BC / settings.temperature, dim=1)
    top_Bk, places_Bk = teacher.topk(settings.k, dim=1)
    rest_B1 = (1 - top_Bk.sum(1, keepdim=True)).clamp(min=0)
    target_BC = (rest_B1 / (student_BC.shape[1] - settings.k)).expand_as(student_BC).scatter(1, places_Bk, top_Bk)
    soft = divergence_from(target_BC, student_BC, temperature=settings.temperature)
    return _mixed(student_BC, labels_B, soft, settings)


def kd_sim_loss(
    student_BC: Tensor, teacher_BC: Tensor, labels_B: Tensor, settings: SimilarityDistillation, context: Context
) -> Loss:
    """Target: softmax over j of cos(w_y, w_j)^power / similarity_temperature. KD-sim style, after Tang et al. 2020."""
    del teacher_BC
    similarity_CC = context.background.similarity_CC
    if similarity_CC is None:
        raise ValueError("kd_sim needs the similarity of the teacher's classes")
    similarity_BC = similarity_CC.to(student_BC)[labels_B] ** settings.power
    target_BC = functional.softmax(similarity_BC / settings.similarity_temperature, dim=1)
    soft = divergence_from(target_BC, student_BC, temperature=settings.temperature)
    return _mixed(student_BC, labels_B, soft, settings)


def with_class_similarity(background: Background, settings: SimilarityDistillation, teacher: nn.Module) -> Background:
    """The background with the cosines between the rows of the teacher's last linear layer.

    Raises:
        TrialError: the teacher has no linear layer with a row for each class.
    """
    del settings
    layers = [layer for layer in teacher.modules() if isinstance(layer, nn.Linear)]
    if not layers or layers[-1].out_features != len(background.class_counts_C):
        raise TrialError("kd_sim needs a teacher whose last linear layer has a row for each class")
    return replace(background, similarity_CC=cosine_similarity(layers[-1].weight.detach().cpu()))


def cosine_similarity(weights_CD: Tensor) -> Tensor:
    """Cosines between the rows: float64 (C, C)."""
    unit_CD = functional.normalize(weights_CD.double(), dim=1)
    return torch.clamp(unit_CD @ unit_CD.t(), -1, 1)


def _mixed(student_BC: Tensor, labels_B: Tensor, soft: Tensor, settings: _AnyOfThem) -> Loss:
    hard = functional.cross_entropy(student_BC, labels_B)
    total = mixture(hard, soft, alpha=settings.alpha, temperature=settings.temperature, t_squared=settings.t_squared)
    return Loss(total=total, terms={"cross_entropy": hard, "distillation": soft})
