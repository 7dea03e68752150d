"""A loss in which the groups of a sensitive feature count, not the samples."""

import torch
from torch import Tensor

from kd_ray.distill.objectives.loss import Context, Loss, by_sample, mixture
from kd_ray.sweep.distillation import GroupDistillation


def kd_groups_loss(
    student_BC: Tensor, teacher_BC: Tensor, labels_B: Tensor, settings: GroupDistillation, context: Context
) -> Loss:
    """Σ_g w_g · L_g over the groups in the batch, L_g the mean of `kd` over the members of g.

    w = softmax(sharpness · L_g), through which no gradient flows. Ours, in the style of group DRO (Sagawa et al. 2020). A batch without a
    member of any group has loss 0. `worst_group` is the largest L_g.
    """
    hard_B, soft_B = by_sample(student_BC, teacher_BC, labels_B, temperature=settings.temperature)
    loss_B = mixture(
        hard_B, soft_B, alpha=settings.alpha, temperature=settings.temperature, t_squared=settings.t_squared
    )
    member_BG = context.membership(settings.feature)
    member_BG = member_BG[:, member_BG.any(0)].to(loss_B)
    terms = {"cross_entropy": hard_B.mean(), "distillation": soft_B.mean()}
    if member_BG.shape[1] == 0:
        return Loss(total=0 * loss_B.sum(), terms=terms | {"worst_group": torch.zeros_like(loss_B[0])})
    loss_G = (member_BG * loss_B[:, None]).sum(0) / member_BG.sum(0)
    weight_G = torch.softmax(settings.sharpness * loss_G.detach(), dim=0)
    return Loss(total=(weight_G * loss_G).sum(), terms=terms | {"worst_group": loss_G.max()})
