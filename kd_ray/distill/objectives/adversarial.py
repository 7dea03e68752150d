"""Adversarial debiasing (Zhang, Lemoine & Mitchell 2018): an adversary that guesses groups from answers, and steps against it.

Plain functions say what the adversary computes and where a student steps; `Adversary` holds its weights and its optimiser from step to
step, which a checkpoint keeps beside the student's.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from kd_ray.distill.objectives.kd import kd_with_alpha
from kd_ray.distill.objectives.loss import Background, Context, Loss
from kd_ray.sweep.distillation import AdversarialDistillation


def adversarial_loss(
    student_BC: Tensor, teacher_BC: Tensor, labels_B: Tensor, settings: AdversarialDistillation, context: Context
) -> Loss:
    """Plain distillation, and beside it the adversary's loss: two gradients that `Adversary.backward` puts together.

    Raises:
        ValueError: the context has no adversary.
    """
    if context.adversary is None:
        raise ValueError("adversarial needs an adversary")
    loss = kd_with_alpha(
        student_BC,
        teacher_BC,
        labels_B,
        alpha=settings.alpha,
        temperature=settings.temperature,
        t_squared=settings.t_squared,
    )
    member_BG = context.membership(settings.feature).to(student_BC)
    against = adversary_loss(context.adversary(student_BC, labels_B), member_BG)
    return Loss(total=loss.total, terms=loss.terms | {"adversary": against}, adversary=against)


def adversary_loss(guess_BG: Tensor, member_BG: Tensor) -> Tensor:
    """Mean over groups and samples of the cross-entropy with membership, from logits; samples of no group are left out.

    0 for a batch without a member of any group.
    """
    is_known_B1 = member_BG.any(1, keepdim=True).to(guess_BG)
    entropy_BG = functional.binary_cross_entropy_with_logits(guess_BG, member_BG, reduction="none")
    return (is_known_B1 * entropy_BG).sum() / (is_known_B1.sum() * member_BG.shape[1]).clamp(min=1)


def guesses(
    student_BC: Tensor,
    labels_B: Tensor,
    *,
    sharpness: Tensor,
    own_SG: Tensor,
    by_class_CSG: Tensor | None,
    bias_G: Tensor,
) -> Tensor:
    """Logits (B, G) of belonging to each group: s · own + s · by_class[y] + bias, s = softmax((1 + |sharpness|) · z).

    S is C, or 1 where there are two classes: the probability of the second one, the other being what is left. With `by_class_CSG` and two
    classes this is the paper's w · (s, s·y, s·(1 − y)) + b.
    """
    s_BS = functional.softmax((1 + sharpness.abs()) * student_BC, dim=1)
    s_BS = s_BS[:, 1:] if student_BC.shape[1] == 2 else s_BS
    guess_BG = s_BS @ own_SG + bias_G
    if by_class_CSG is None:
        return guess_BG
    return guess_BG + torch.einsum("bs,bsg->bg", s_BS, by_class_CSG[labels_B])


def debiased(own: Sequence[Tensor], against: Sequence[Tensor], *, weight: float) -> list[Tensor]:
    """g − proj_h g − weight · h, with g and h the gradients of all weights, each as one vector; cut into the weights' shapes again.

    Where h is 0 there is nothing to project on, and g is returned as it is.
    """
    g_P, h_P = (torch.cat([tensor.flatten() for tensor in tensors]) for tensors in (own, against))
    squared = torch.dot(h_P, h_P)
    share = torch.where(squared > 0, torch.dot(g_P, h_P) / torch.where(squared > 0, squared, 1), 0)
    step_P = g_P - (share + weight) * h_P
    parts = torch.split(step_P, [tensor.numel() for tensor in own])
    return [part.view(tensor.shape) for part, tensor in zip(parts, own, strict=True)]


class Adversary(nn.Module):
    """The adversary of one student. It begins knowing nothing: weights 0, sharpness 1 (at 0 its gradient would be 0 for ever)."""

    def __init__(
        self, settings: AdversarialDistillation, *, num_classes: int, num_groups: int, device: torch.device
    ) -> None:
        super().__init__()
        self._settings = settings
        seen = 1 if num_classes == 2 else num_classes
        self.sharpness = nn.Parameter(torch.ones((), device=device))
        self.own_SG = nn.Parameter(torch.zeros(seen, num_groups, device=device))
        self.by_class_CSG = (
            nn.Parameter(torch.zeros(num_classes, seen, num_groups, device=device))
            if settings.criterion == "equalized_odds"
            else None
        )
        self.bias_G = nn.Parameter(torch.zeros(num_groups, device=device))
        self._optimizer = torch.optim.Adam(self.parameters(), lr=settings.adversary_lr)

    def forward(self, student_BC: Tensor, labels_B: Tensor) -> Tensor:
        """Logits (B, G) of belonging to each group."""
        return guesses(
            student_BC,
            labels_B,
            sharpness=self.sharpness,
            own_SG=self.own_SG,
            by_class_CSG=self.by_class_CSG,
            bias_G=self.bias_G,
        )

    def backward(self, model: nn.Module, loss: Loss, *, step: int) -> None:
        """Leave in the student's weights the gradient that it follows at this step (from 0), and take the adversary's own step.

        Both gradients are of the same moment: neither sees the other's step.
        """
        assert loss.adversary is not None
        weights, its_own = list(model.parameters()), list(self.parameters())
        own = torch.autograd.grad(loss.total, weights, retain_graph=True)
        against = torch.autograd.grad(loss.adversary, [*weights, *its_own])
        scale = (step + 1) ** 0.5 if self._settings.debiasing_schedule == "sqrt" else 1.0
        for weight, gradient in zip(
            weights, debiased(own, against[: len(weights)], weight=self._settings.debiasing * scale), strict=True
        ):
            # A fused optimiser asks for the strides of the weights.
            weight.grad = torch.empty_like(weight).copy_(gradient)
        for weight, gradient in zip(its_own, against[len(weights) :], strict=True):
            weight.grad = gradient
        self._optimizer.step()

    def tensors(self) -> dict[str, Tensor]:
        """Weights and the optimiser's state by name: all that its next step depends on."""
        found = {f"weights.{name}": tensor for name, tensor in self.state_dict().items()}
        for index, slots in self._optimizer.state_dict()["state"].items():
            found |= {f"optimizer.{index}.{name}": tensor for name, tensor in slots.items()}
        return found

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from what `tensors` gave."""
        self.load_state_dict(
            {key.removeprefix("weights."): tensor for key, tensor in tensors.items() if key.startswith("weights.")}
        )
        state: dict[int, dict[str, Tensor]] = {}
        for key, tensor in tensors.items():
            if key.startswith("optimizer."):
                _, index, name = key.split(".", 2)
                state.setdefault(int(index), {})[name] = tensor
        self._optimizer.load_state_dict({"state": state, "param_groups": self._optimizer.state_dict()["param_groups"]})


def new_adversary(
    settings: AdversarialDistillation, background: Background, num_classes: int, device: torch.device
) -> Adversary:
    """The adversary of one student, for the groups of the feature that the settings name."""
    groups = len(background.group_names[settings.feature])
    return Adversary(settings, num_classes=num_classes, num_groups=groups, device=device)
