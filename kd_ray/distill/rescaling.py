"""How much more, or less, a teacher makes a sample pull at its true logit than its hard label does (Tang et al. 2020)."""

import torch
from torch import Tensor

from kd_ray.distill.objectives import Background, Context, student_loss
from kd_ray.sweep.distillation import Distillation


def true_logit_pulls(
    student_NC: Tensor, teacher_NC: Tensor, labels_N: Tensor, settings: Distillation, background: Background | None
) -> Tensor:
    """Minus the derivative of each sample's loss by the student's logit of its true class: (N,), float64.

    The cross-entropy alone pulls with 1 − q_y, q the student's probability at T = 1. For `kd` the ratio of the two is
    w = (1 − alpha) + alpha · [T²] / T · (p̃_y − q̃_y) / (1 − q_y), p̃ and q̃ the softened probabilities of teacher and student: below 1 the
    teacher takes weight from the sample, below 0 it pulls the other way. For other objectives it is what their losses give.

    Raises:
        ValueError: the loss of these settings is no mean over samples.
    """
    if not settings.IS_BY_SAMPLE:
        raise ValueError(f"the loss of objective {settings.objective} is no mean over samples")
    logits_NC = student_NC.double().requires_grad_()
    context = Context(samples_B=torch.arange(len(labels_N)), background=background) if background else None
    loss = student_loss(logits_NC, teacher_NC.double(), labels_N, settings, context)
    (gradient_NC,) = torch.autograd.grad(loss.total, logits_NC)
    return -len(labels_N) * gradient_NC.gather(1, labels_N[:, None])[:, 0]
