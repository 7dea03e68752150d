"""What an objective may look at besides logits and labels, worked out once before its training begins.

Everything follows from the teacher's weights and the data set, so a trial that goes on from a checkpoint finds the same.
"""

import torch
from torch import Tensor, nn

from kd_ray.distill.objectives import NEED_CONTEXT, Background
from kd_ray.distill.objectives.imported import load_function
from kd_ray.distill.objectives.reliability import class_alpha, class_margin
from kd_ray.distill.objectives.targets import cosine_similarity
from kd_ray.distill.stream import Resident, ResidentData
from kd_ray.distill.teacher import ShuffledTeacher, Teacher
from kd_ray.errors import TrialError
from kd_ray.sweep.distillation import (
    AdaAlpha,
    AdaMargin,
    Distillation,
    ImportedObjective,
    ShuffledDistillation,
    SimilarityDistillation,
)
from kd_ray.sweep.spec import TrialSpec


def background_of(settings: Distillation, teacher: Teacher, data: ResidentData) -> Background | None:
    """What this objective may look at; None for one that does with logits and labels.

    Raises:
        TrialError: there is no validation split to judge the teacher on, the teacher has no linear layer whose rows stand for the classes,
            or the objective is imported and cannot be.
    """
    if not (isinstance(settings, NEED_CONTEXT) or settings.takes_steps_of_its_own):
        return None
    if isinstance(settings, ImportedObjective):
        # What cannot be imported should not wait for the first batch.
        load_function(settings.objective, settings.version)
    statistics = None
    if settings.needs_held_out:
        if data.validation is None:
            raise TrialError(f"objective {settings.objective} needs a validation split to judge the teacher on")
        statistics = teacher.statistics(data.validation)
    return Background(
        class_counts_C=torch.bincount(data.train.labels_N.cpu(), minlength=data.num_classes),
        statistics=statistics,
        alpha_C=class_alpha(statistics, settings) if statistics and isinstance(settings, AdaAlpha) else None,
        margin_C=class_margin(statistics, settings) if statistics and isinstance(settings, AdaMargin) else None,
        similarity_CC=_similarity(teacher.model, data.num_classes)
        if isinstance(settings, SimilarityDistillation)
        else None,
        sensitive_features={
            name: torch.from_numpy(groups.membership_NG) for name, groups in data.sensitive_features.items()
        },
        group_names={name: groups.names for name, groups in data.sensitive_features.items()},
    )


def _similarity(teacher: nn.Module, num_classes: int) -> Tensor:
    layers = [layer for layer in teacher.modules() if isinstance(layer, nn.Linear)]
    if not layers or layers[-1].out_features != num_classes:
        raise TrialError("kd_sim needs a teacher whose last linear layer has a row for each class")
    return cosine_similarity(layers[-1].weight.detach().cpu())


def teacher_for(spec: TrialSpec, teacher: Teacher, split: Resident) -> Teacher:
    """The teacher as this trial's objective wants to hear it."""
    if not isinstance(spec.distillation, ShuffledDistillation):
        return teacher
    assert spec.seed is not None
    return ShuffledTeacher(teacher, split, seed=spec.seed, within_class=spec.distillation.within_class)
