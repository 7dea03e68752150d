"""A network in training: what it consists of, how it begins or goes on, and its learning rate."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from kd_ray.distill.checkpoint import TrainingState
from kd_ray.distill.objectives import Background, Context, term_names
from kd_ray.distill.objectives.adversarial import Adversary
from kd_ray.distill.stream import Batch, ResidentData
from kd_ray.models import build_model
from kd_ray.results.record import Epoch
from kd_ray.seeding import stream_seed
from kd_ray.sweep.config import ConstantSchedule, StepSchedule, Training
from kd_ray.sweep.distillation import AdversarialDistillation, ShuffledDistillation, TrustedDistillation
from kd_ray.sweep.fields import Attack
from kd_ray.sweep.spec import TrialSpec


@dataclass(kw_only=True, eq=False)
class Student:
    """A network in training, whatever its role."""

    spec: TrialSpec
    training: Training
    model: nn.Module
    forward: Callable[[Tensor], Tensor]
    """The model's forward pass as training takes it."""
    optimizer: torch.optim.Optimizer
    sums: Tensor
    """Float64 sums over the unfinished epoch: loss, correct predictions, then each term of the loss."""
    background: Background | None = None
    """What its objective may look at throughout; None where logits and labels do."""
    adversary: Adversary | None = None
    """Whom it works against, where its objective asks for it."""
    step: int = 0
    history: list[Epoch] = field(default_factory=list)
    elapsed_s: float = 0.0
    """Seconds of training; in a pack, this student's share."""
    epoch_started_s: float = 0.0
    """`elapsed_s` at the beginning of the unfinished epoch."""
    restarts: int = 0

    @property
    def taught_by(self) -> str | None:
        """Names the logits it learns from: students with the same name share them."""
        return source_of_logits(self.spec)

    @property
    def attack(self) -> Attack | None:
        """What is done to its training images, where its objective trains on attacked ones."""
        settings = self.spec.distillation
        return settings.attack if isinstance(settings, TrustedDistillation) else None

    def context(self, batch: Batch) -> Context | None:
        """What its objective may look at in this step besides logits and labels."""
        if self.background is None:
            return None
        return Context(samples_B=batch.samples_B, background=self.background, adversary=self.adversary)

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
            adversary=self.adversary.tensors() if self.adversary is not None else {},
        )


def source_of_logits(spec: TrialSpec) -> str | None:
    """Names a teacher (by its trial_id) together with what is done to its logits; None where none is needed."""
    if spec.teacher is None or spec.distillation is None:
        return None
    words = [spec.teacher.trial_id]
    if spec.teacher_logits != "fp32":
        words.append(spec.teacher_logits)
    if isinstance(spec.distillation, ShuffledDistillation):
        words.append(f"shuffled {'within classes ' if spec.distillation.within_class else ''}by seed {spec.seed}")
    return " ".join(words)


def forward_of(model: nn.Module, training: Training, device: torch.device) -> Callable[[Tensor], Tensor]:
    """The model's forward pass in the arithmetic that the settings ask for, compiled if they do; logits come out as float32."""
    forward: Callable[[Tensor], Tensor] = model
    if training.compile:
        # Shapes are fixed, so the last batch of an epoch has a program of its own. One program serves all students of an architecture.
        forward = torch.compile(model, dynamic=False, mode="reduce-overhead" if device.type == "cuda" else None)
    if training.precision == "fp32":
        return forward

    def in_bf16(images_BCHW: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            logits_BC = forward(images_BCHW)
        return logits_BC.float()

    return in_bf16


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
    spec: TrialSpec,
    training: Training,
    data: ResidentData,
    device: torch.device,
    saved: TrainingState | None,
    background: Background | None = None,
) -> Student:
    """A student with weights from the stream "init" of its seed, or as it was saved."""
    assert spec.seed is not None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(spec.seed, "init"))
        model = build_model(spec.model, num_classes=data.num_classes, image_size=data.train.image_size)
    model = model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = sgd(model.parameters(), training)
    sums = torch.zeros(2 + len(term_names(spec.distillation)), dtype=torch.float64, device=device)
    student = Student(
        spec=spec,
        training=training,
        model=model.train(),
        forward=forward_of(model, training, device),
        optimizer=optimizer,
        sums=sums,
        background=background,
        adversary=_adversary(spec, background, data.num_classes, device),
    )
    if saved is not None:
        model.load_state_dict(saved.model)
        optimizer.load_state_dict(dict(saved.optimizer))
        if student.adversary is not None:
            student.adversary.restore(saved.adversary)
        student.sums.copy_(saved.sums)
        student.step = saved.step
        student.history = list(saved.history)
        student.elapsed_s = saved.elapsed_s
        student.epoch_started_s = sum(epoch.elapsed_s for epoch in saved.history)
        student.restarts = saved.restarts + 1
    return student


def _adversary(
    spec: TrialSpec, background: Background | None, num_classes: int, device: torch.device
) -> Adversary | None:
    settings = spec.distillation
    if not isinstance(settings, AdversarialDistillation) or background is None:
        return None
    groups = len(background.group_names[settings.feature])
    return Adversary(settings, num_classes=num_classes, num_groups=groups, device=device)


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
