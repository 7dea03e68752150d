"""A network in training: what it consists of, how it begins or goes on, and its learning rate."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from kd_ray.distill.checkpoint import TrainingState
from kd_ray.distill.objectives import term_names
from kd_ray.distill.stream import ResidentData
from kd_ray.models import build_model
from kd_ray.results.record import Epoch
from kd_ray.seeding import stream_seed
from kd_ray.sweep.config import ConstantSchedule, StepSchedule, Training
from kd_ray.sweep.spec import TrialSpec


@dataclass(kw_only=True, eq=False)
class Student:
    """A network in training, whatever its role."""

    spec: TrialSpec
    training: Training
    model: nn.Module
    optimizer: torch.optim.Optimizer
    sums: Tensor
    """Float64 sums over the unfinished epoch: loss, correct predictions, then each term of the loss."""
    step: int = 0
    history: list[Epoch] = field(default_factory=list)
    elapsed_s: float = 0.0
    """Seconds of training; in a pack, this student's share."""
    epoch_started_s: float = 0.0
    """`elapsed_s` at the beginning of the unfinished epoch."""
    restarts: int = 0

    def state(self) -> TrainingState:
        """Everything the next step depends on."""
        return TrainingState(
            step=self.step,
            model=self.model.state_dict(),
            optimizer=self.optimizer.state_dict(),
            sums=self.sums,
            history=tuple(self.history),
            elapsed_s=self.elapsed_s,
            restarts=self.restarts,
        )


def sgd(parameters: Iterable[nn.Parameter], training: Training, *, fused: bool = False) -> torch.optim.SGD:
    """The optimiser that the settings ask for."""
    settings = training.optimizer
    return torch.optim.SGD(
        parameters,
        lr=settings.lr,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        nesterov=settings.nesterov,
        fused=fused or None,
    )


def new_student(
    spec: TrialSpec, training: Training, data: ResidentData, device: torch.device, saved: TrainingState | None
) -> Student:
    """A student with weights from the stream "init" of its seed, or as it was saved."""
    assert spec.seed is not None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(spec.seed, "init"))
        model = build_model(spec.model, num_classes=data.num_classes, image_size=data.train.image_size)
    model = model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = sgd(model.parameters(), training)
    sums = torch.zeros(2 + len(term_names(spec.distillation)), dtype=torch.float64, device=device)
    student = Student(spec=spec, training=training, model=model.train(), optimizer=optimizer, sums=sums)
    if saved is not None:
        model.load_state_dict(saved.model)
        optimizer.load_state_dict(dict(saved.optimizer))
        student.sums.copy_(saved.sums)
        student.step = saved.step
        student.history = list(saved.history)
        student.elapsed_s = saved.elapsed_s
        student.epoch_started_s = sum(epoch.elapsed_s for epoch in saved.history)
        student.restarts = saved.restarts + 1
    return student


def learning_rate(training: Training, step: int, steps: int) -> float:
    """Learning rate of optimiser step `step` (from 0) when an epoch has `steps` of them."""
    schedule = training.schedule
    peak = training.optimizer.lr
    warmup = schedule.warmup_epochs * steps
    if step < warmup:
        return peak * (step + 1) / warmup
    if isinstance(schedule, ConstantSchedule):
        return peak
    if isinstance(schedule, StepSchedule):
        return float(peak * schedule.gamma ** sum(step // steps >= milestone for milestone in schedule.milestones))
    done = (step - warmup) / max(1, training.epochs * steps - warmup)
    return schedule.final_lr + (peak - schedule.final_lr) * (1 + math.cos(math.pi * done)) / 2
