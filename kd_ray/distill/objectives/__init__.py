"""Training losses as plain functions of logits, each with its formula and source; their settings stand in `sweep/distillation.py`.

A loss is a mapping of named terms (means over the batch, before weighting) and the weighted total. Terms become columns of `epochs`.
"""

from collections.abc import Callable

from torch import Tensor

from kd_ray.distill.objectives.adversarial import adversarial_loss
from kd_ray.distill.objectives.decoupled import dkd_loss, ltkd_loss
from kd_ray.distill.objectives.groups import kd_groups_loss
from kd_ray.distill.objectives.imported import imported_loss
from kd_ray.distill.objectives.kd import kd_loss, label_smoothing_loss, scratch_loss
from kd_ray.distill.objectives.loss import Attacked, Background, ClassStatistics, Context, Loss, distillation_loss
from kd_ray.distill.objectives.reliability import ada_alpha_loss, ada_margin_loss, iad_loss
from kd_ray.distill.objectives.targets import kd_pt_loss, kd_sim_loss, kd_topk_loss, standardized_loss
from kd_ray.sweep.distillation import (
    SMOOTHED,
    AdaAlpha,
    AdaMargin,
    AdversarialDistillation,
    DecoupledDistillation,
    Distillation,
    GroupDistillation,
    ImportedObjective,
    KnowledgeDistillation,
    LabelSmoothing,
    LongerScratch,
    LongTailedDistillation,
    ShuffledDistillation,
    SimilarityDistillation,
    StandardizedDistillation,
    TopKDistillation,
    TrueProbabilityDistillation,
    TrustedDistillation,
)

__all__ = [
    "NEED_CONTEXT",
    "Attacked",
    "Background",
    "ClassStatistics",
    "Context",
    "Loss",
    "distillation_loss",
    "kd_loss",
    "scratch_loss",
    "student_loss",
    "term_names",
]

_TAUGHT: dict[type[Distillation], Callable[..., Loss]] = {
    KnowledgeDistillation: kd_loss,
    ShuffledDistillation: kd_loss,
    DecoupledDistillation: dkd_loss,
    StandardizedDistillation: standardized_loss,
    LongTailedDistillation: ltkd_loss,
    TrueProbabilityDistillation: kd_pt_loss,
    SimilarityDistillation: kd_sim_loss,
    TopKDistillation: kd_topk_loss,
    TrustedDistillation: iad_loss,
    GroupDistillation: kd_groups_loss,
    AdversarialDistillation: adversarial_loss,
    AdaAlpha: ada_alpha_loss,
    AdaMargin: ada_margin_loss,
    ImportedObjective: imported_loss,
}
"""Loss of (student's logits, teacher's logits, labels, settings, context) by the type of its settings."""

NEED_CONTEXT = (
    *(LongTailedDistillation, SimilarityDistillation, GroupDistillation),
    *(AdversarialDistillation, AdaAlpha, AdaMargin, ImportedObjective),
)
"""Settings of the objectives that look at more than logits and labels."""


def student_loss(
    student_BC: Tensor,
    teacher_BC: Tensor | None,
    labels_B: Tensor,
    settings: Distillation | None,
    context: Context | None = None,
    *,
    smoothing: float = 0.0,
) -> Loss:
    """The loss a trial's settings ask for: cross-entropy without any, else its objective; `smoothing` is that of the hard labels.

    Raises:
        ValueError: the objective needs a teacher's logits, or a context, that are not there, or has no place for smoothed labels.
    """
    if settings is None or isinstance(settings, LongerScratch):
        return scratch_loss(student_BC, labels_B, smoothing=smoothing)
    if smoothing and not isinstance(settings, SMOOTHED):
        raise ValueError(f"objective {settings.objective} has no place for smoothed labels")
    if isinstance(settings, LabelSmoothing):
        return label_smoothing_loss(student_BC, labels_B, settings)
    if teacher_BC is None:
        raise ValueError(f"objective {settings.objective} needs the teacher's logits")
    if context is None and isinstance(settings, NEED_CONTEXT):
        raise ValueError(f"objective {settings.objective} needs a context")
    own = {"smoothing": smoothing} if isinstance(settings, SMOOTHED) else {}
    return _TAUGHT[type(settings)](student_BC, teacher_BC, labels_B, settings, context, **own)


def term_names(settings: Distillation | None) -> tuple[str, ...]:
    """Names of the terms of a trial's loss, in a fixed order."""
    return ("cross_entropy",) if settings is None else settings.term_names
