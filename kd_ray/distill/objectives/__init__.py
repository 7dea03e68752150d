"""Training losses as plain functions of logits, each with its formula and source; their settings stand in `sweep/distillation.py`.

A loss is a mapping of named terms (means over the batch, before weighting) and the weighted total. Terms become columns of `epochs`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kd_ray.distill.objectives.adversarial import Adversary, adversarial_loss, new_adversary
from kd_ray.distill.objectives.decoupled import dkd_loss, ltkd_loss
from kd_ray.distill.objectives.group_robust import kd_groups_loss
from kd_ray.distill.objectives.imported import imported_loss, with_imported_function
from kd_ray.distill.objectives.kd import KdOfGroup, kd_loss, label_smoothing_loss, scratch_loss
from kd_ray.distill.objectives.loss import Attacked, Background, ClassStatistics, Context, Loss, distillation_loss
from kd_ray.distill.objectives.reliability import (
    ada_alpha_loss,
    ada_margin_loss,
    iad_loss,
    with_class_alpha,
    with_class_margin,
)
from kd_ray.distill.objectives.targets import (
    kd_pt_loss,
    kd_sim_loss,
    kd_topk_loss,
    standardized_loss,
    with_class_similarity,
)
from kd_ray.sweep.distillation import Distillation, objective_kind

__all__ = [
    "OBJECTIVES",
    "Adversary",
    "Attacked",
    "Background",
    "ClassStatistics",
    "Context",
    "Loss",
    "Objective",
    "distillation_loss",
    "kd_loss",
    "objective_of",
    "scratch_loss",
    "student_loss",
    "term_names",
]


@dataclass(frozen=True, kw_only=True)
class Objective:
    """How one objective is computed. What it allows and needs besides stands with its settings (`sweep/objective_settings.py`)."""

    loss: Callable[..., Loss]
    """Loss of (student's logits, teacher's logits, labels, settings, context). `smoothing` too, if the settings allow smoothed labels."""
    needs_context: bool = False
    """Whether the loss reads more than logits and labels."""
    prepare: Callable[[Background, Any, nn.Module], Background] | None = None
    """(background, settings, teacher's network) → the background with what this objective adds to it, once before training."""
    adversary: Callable[[Any, Background, int, torch.device], Adversary] | None = None
    """(settings, background, number of classes, device) → the adversary of one student."""
    of_group: Callable[[Any], Callable[[Tensor, Tensor, Tensor], Tensor]] | None = None
    """Settings of K students → all their losses, from logits (K, C, B), teachers' logits and labels; None: one student after another."""


OBJECTIVES: dict[str, Objective] = {
    "kd": Objective(loss=kd_loss, of_group=KdOfGroup),
    "kd_shuffled": Objective(loss=kd_loss),
    "label_smoothing": Objective(loss=label_smoothing_loss),
    "scratch_long": Objective(loss=scratch_loss),
    "dkd": Objective(loss=dkd_loss),
    "logit_standardization": Objective(loss=standardized_loss),
    "ltkd": Objective(loss=ltkd_loss, needs_context=True),
    "kd_pt": Objective(loss=kd_pt_loss),
    "kd_sim": Objective(loss=kd_sim_loss, needs_context=True, prepare=with_class_similarity),
    "kd_topk": Objective(loss=kd_topk_loss),
    "iad": Objective(loss=iad_loss),
    "kd_groups": Objective(loss=kd_groups_loss, needs_context=True),
    "adversarial": Objective(loss=adversarial_loss, needs_context=True, adversary=new_adversary),
    "ada_alpha": Objective(loss=ada_alpha_loss, needs_context=True, prepare=with_class_alpha),
    "ada_margin": Objective(loss=ada_margin_loss, needs_context=True, prepare=with_class_margin),
    "imported": Objective(loss=imported_loss, needs_context=True, prepare=with_imported_function),
}
"""The computation of each objective by its name in a sweep file; `imported` stands for every import path."""


def objective_of(settings: Distillation) -> Objective:
    """The entry of these settings."""
    return OBJECTIVES[objective_kind(settings)]


def student_loss(
    student_BC: Tensor,
    teacher_BC: Tensor | None,
    labels_B: Tensor,
    settings: Distillation | None,
    context: Context | None = None,
    *,
    smoothing: float = 0.0,
) -> Loss:
    """The loss that a trial's settings ask for: cross-entropy without settings, else its objective. `smoothing` is that of the hard labels.

    Raises:
        ValueError: the teacher's logits or the context are missing and the objective needs them, or it does not allow smoothed labels.
    """
    if settings is None:
        return scratch_loss(student_BC, teacher_BC, labels_B, smoothing=smoothing)
    objective = objective_of(settings)
    if smoothing and not settings.ALLOWS_LABEL_SMOOTHING:
        raise ValueError(f"objective {settings.objective} has no place for smoothed labels")
    if teacher_BC is None and settings.NEEDS_TEACHER:
        raise ValueError(f"objective {settings.objective} needs the teacher's logits")
    if context is None and objective.needs_context:
        raise ValueError(f"objective {settings.objective} needs a context")
    options = {"smoothing": smoothing} if settings.ALLOWS_LABEL_SMOOTHING else {}
    return objective.loss(student_BC, teacher_BC, labels_B, settings, context, **options)


def term_names(settings: Distillation | None) -> tuple[str, ...]:
    """Names of the terms of a trial's loss, in a fixed order."""
    return ("cross_entropy",) if settings is None else settings.term_names
