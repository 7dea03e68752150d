"""One optimiser step of a student: what the device computes, and what the host counts.

What the device computes has fixed shapes and no value that the host waits for, so that `captured.py` can record it as a CUDA graph.
"""

import torch
from torch import Tensor, nn

from kd_ray.distill.batches import Batch
from kd_ray.distill.device import arithmetic_of
from kd_ray.distill.objectives import Attacked
from kd_ray.distill.student import Student, learning_rate, set_rate


def take_step(
    student: Student, batch: Batch, teacher_BC: Tensor | None, steps: int, found: Attacked | None = None
) -> None:
    """One optimiser step of a student; an epoch has `steps` of them."""
    set_rate(student.optimizer, learning_rate(student.training, student.step, steps))
    compute(student, batch, teacher_BC, found)
    student.step += 1


def compute(student: Student, batch: Batch, teacher_BC: Tensor | None, found: Attacked | None = None) -> None:
    """Forward, loss, backward, update, and the sums of the epoch."""
    with arithmetic_of(student.training.precision):
        _compute(student, batch, teacher_BC, found)


def _compute(student: Student, batch: Batch, teacher_BC: Tensor | None, found: Attacked | None) -> None:
    with student.randomness():
        logits_BC = student.forward(batch.inputs)
    loss = student.loss(logits_BC, teacher_BC, batch, attacked=found)
    student.optimizer.zero_grad(set_to_none=True)
    if student.adversary is None:
        loss.total.backward()  # type: ignore[no-untyped-call]
    else:
        student.adversary.backward(student.model, loss, step=student.step)
    if student.training.clip_norm is not None:
        nn.utils.clip_grad_norm_(student.model.parameters(), student.training.clip_norm)
    student.optimizer.step()
    student.update_average()
    with torch.no_grad():
        means = torch.stack([loss.total, *loss.terms.values()]).double() * len(batch.labels_B)
        student.sums[0] += means[0]
        student.sums[1] += _num_correct(logits_BC, batch)
        student.sums[2:] += means[1:]


def _num_correct(logits_BC: Tensor, batch: Batch) -> Tensor:
    """Number of correct predictions; for mixed images, each label counts with its share."""
    predicted_B, labels_B = logits_BC.argmax(1), batch.labels_B
    if batch.mix is None:
        return (predicted_B == labels_B).sum()
    others_B = labels_B[batch.mix.partners_B.to(labels_B.device)]
    weight = batch.mix.weight
    return weight * (predicted_B == labels_B).sum().double() + (1 - weight) * (predicted_B == others_B).sum().double()
