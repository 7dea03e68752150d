"""What an objective reads besides logits and labels, computed once before its training begins.

Everything depends on the teacher's weights and the data set only, so a trial that continues from a checkpoint gets the same values.
"""

import torch

from kd_ray.distill.objectives import Background, objective_of
from kd_ray.distill.samples import ResidentData
from kd_ray.distill.samples.kind import Resident
from kd_ray.distill.teacher import ShuffledTeacher, Teacher
from kd_ray.errors import TrialError
from kd_ray.sweep.distillation import Distillation
from kd_ray.sweep.spec import TrialSpec


def background_of(settings: Distillation, teacher: Teacher, data: ResidentData) -> Background | None:
    """What this objective reads; None for an objective of logits and labels alone.

    Raises:
        TrialError: there is no validation split to judge the teacher on, or the objective cannot be prepared with this teacher.
    """
    objective = objective_of(settings)
    if not (objective.needs_context or settings.takes_steps_of_its_own):
        return None
    if settings.needs_held_out and data.validation is None:
        raise TrialError(f"objective {settings.objective} needs a validation split to judge the teacher on")
    background = Background(
        class_counts_C=torch.bincount(data.train.labels_N.cpu(), minlength=data.num_classes),
        statistics=teacher.statistics(data.validation) if settings.needs_held_out and data.validation else None,
        sensitive_features={
            name: torch.from_numpy(groups.membership_NG) for name, groups in data.sensitive_features.items()
        },
        group_names={name: groups.names for name, groups in data.sensitive_features.items()},
    )
    return background if objective.prepare is None else objective.prepare(background, settings, teacher.model)


def teacher_for(spec: TrialSpec, teacher: Teacher, split: Resident) -> Teacher:
    """The teacher whose logits this trial learns from: the given one, or one with permuted samples."""
    shuffle = spec.distillation.teacher_shuffle if spec.distillation else None
    if shuffle is None:
        return teacher
    assert spec.seed is not None
    assert spec.training is not None
    return ShuffledTeacher(
        teacher,
        split,
        augmentation=spec.training.augmentation,
        seed=spec.seed,
        within_class=shuffle == "within_class",
    )
