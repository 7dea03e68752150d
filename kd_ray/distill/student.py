"""A network in training: its parts, its start from weights or a checkpoint, and its learning rate."""

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from kd_ray.distill.batches import Batch, steps_per_epoch
from kd_ray.distill.checkpoint import TrainingState
from kd_ray.distill.device import layout_of
from kd_ray.distill.objectives import (
    Adversary,
    Attacked,
    Background,
    Context,
    Loss,
    objective_of,
    student_loss,
    term_names,
)
from kd_ray.distill.samples import ResidentData
from kd_ray.distill.samples.kind import Inputs
from kd_ray.models.initial_weights import load_initial
from kd_ray.results.record import Epoch, Record
from kd_ray.seeding import stream_seed
from kd_ray.sweep.fields import Attack
from kd_ray.sweep.spec import TrialSpec
from kd_ray.sweep.training import AdamW, ConstantSchedule, LinearSchedule, Sgd, StepSchedule, Training


@dataclass(kw_only=True, eq=False)
class Student:
    """A network in training: a student of a teacher, a teacher, or a network trained from scratch."""

    spec: TrialSpec
    training: Training
    model: nn.Module
    forward: Callable[[Inputs], Tensor]
    """The model's forward pass as training takes it."""
    optimizer: torch.optim.Optimizer
    sums: Tensor
    """Float64 sums over the unfinished epoch: loss, correct predictions, then each term of the loss."""
    background: Background | None = None
    """What its objective reads besides logits and labels; None where it reads nothing else."""
    average: nn.Module | None = None
    """The network with the average of its weights, where the settings ask for one."""
    adversary: Adversary | None = None
    """Its adversary, where the objective has one."""
    step: int = 0
    history: list[Epoch] = field(default_factory=list)
    elapsed_s: float = 0.0
    """Seconds of training; in a pack, this student's share."""
    epoch_started_s: float = 0.0
    """`elapsed_s` at the beginning of the unfinished epoch."""
    restarts: int = 0

    @property
    def taught_by(self) -> str | None:
        """Name of the logits that it learns from. Students with the same name share them."""
        return source_of_logits(self.spec)

    @contextmanager
    def randomness(self) -> Iterator[None]:
        """Dropout, where there is any, follows the stream "dropout" of (seed, step): the same in every pack and after every restart."""
        if self.spec.encoder is None:
            yield
            return
        assert self.spec.seed is not None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(stream_seed(self.spec.seed, "dropout", self.step))
            yield

    @property
    def result(self) -> nn.Module:
        """The network that is validated, tested and kept."""
        return self.model if self.average is None else self.average

    def loss(
        self, logits_BC: Tensor, teacher_BC: Tensor | None, batch: Batch, *, attacked: Attacked | None = None
    ) -> Loss:
        """The loss of its objective; of mixed images λ times that with the samples' labels plus 1 − λ times that with their partners'.

        The divergence from the teacher is the same in both, and its cross-entropy is with mixed labels then.
        """
        smoothing = self.training.label_smoothing
        settings = self.spec.distillation
        context = self.context(batch)
        if context is not None and attacked is not None:
            context = replace(context, attacked=attacked)
        own = student_loss(logits_BC, teacher_BC, batch.labels_B, settings, context, smoothing=smoothing)
        if batch.mix is None:
            return own
        partners_B = batch.mix.partners_B
        labels_B = batch.labels_B[partners_B.to(batch.labels_B.device)]
        context = self.context(batch._replace(samples_B=batch.samples_B[partners_B]))
        other = student_loss(logits_BC, teacher_BC, labels_B, settings, context, smoothing=smoothing)
        weight = batch.mix.weight
        return Loss(
            total=weight * own.total + (1 - weight) * other.total,
            terms={name: weight * term + (1 - weight) * other.terms[name] for name, term in own.terms.items()},
        )

    @torch.no_grad()
    def update_average(self) -> None:
        """e ← d · e + (1 − d) · w of all weights and statistics, after an optimiser step; counters are copied."""
        if self.average is None:
            return
        assert self.training.ema_decay is not None
        for mine, theirs in zip(self.average.state_dict().values(), self.model.state_dict().values(), strict=True):
            if mine.is_floating_point():
                mine.lerp_(theirs, 1 - self.training.ema_decay)
            else:
                mine.copy_(theirs)

    def take_over(self, weights: Mapping[str, Tensor], record: Record, *, num_train: int) -> None:
        """Become the student that a committed trial with the same training has trained."""
        self.model.load_state_dict(weights)
        if self.average is not None:
            self.average.load_state_dict(weights)
        self.step = self.training.epochs * steps_per_epoch(num_train, self.training.batch_size)
        self.history = list(record.epochs)
        self.elapsed_s = record.provenance.elapsed_s
        self.restarts = record.provenance.restarts

    @property
    def attack(self) -> Attack | None:
        """The attack on its training images, where its objective has one."""
        return self.spec.distillation.trains_under_attack if self.spec.distillation else None

    def context(self, batch: Batch) -> Context | None:
        """What its objective reads in this step besides logits and labels."""
        if self.background is None:
            return None
        return Context(samples_B=batch.samples_B, background=self.background, adversary=self.adversary)

    def state(self) -> TrainingState:
        """Everything the next step depends on."""
        return TrainingState(
            step=self.step,
            model=self.model.state_dict(),
            optimizer=_plain(self.optimizer.state_dict()),
            sums=self.sums,
            history=tuple(self.history),
            elapsed_s=self.elapsed_s,
            restarts=self.restarts,
            average=self.average.state_dict() if self.average is not None else {},
            adversary=self.adversary.tensors() if self.adversary is not None else {},
        )


def source_of_logits(spec: TrialSpec) -> str | None:
    """Names a teacher (by its trial_id, or the file of its logits) together with what is done to its logits; None where none is needed."""
    name = spec.given_logits or (spec.teacher.trial_id if spec.teacher else None)
    if name is None or spec.distillation is None:
        return None
    words = [name]
    if spec.teacher_logits != "fp32":
        words.append(spec.teacher_logits)
    if shuffle := spec.distillation.teacher_shuffle:
        words.append(f"shuffled {'within classes ' if shuffle == 'within_class' else ''}by seed {spec.seed}")
    return " ".join(words)


def forward_of(model: nn.Module, training: Training, device: torch.device) -> Callable[[Inputs], Tensor]:
    """The model's forward pass in the arithmetic that the settings ask for, compiled if they do; logits come out as float32."""
    forward: Callable[[Inputs], Tensor] = model
    if training.compile:
        # Shapes are fixed, so the last batch of an epoch has a program of its own. One program serves all students of an architecture.
        forward = torch.compile(model, dynamic=False)
    if training.precision != "bf16":
        return forward

    def in_bf16(inputs: Inputs) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            logits_BC = forward(inputs)
        return logits_BC.float()

    return in_bf16


def optimizer_of(
    parameters: Iterable[nn.Parameter], training: Training, device: torch.device, *, fused: bool = False
) -> torch.optim.Optimizer:
    """The optimiser that the settings ask for. On a GPU it is fused, and its state and its learning rate stay there."""
    settings = training.optimizer
    on_gpu = device.type == "cuda"
    fused = fused or on_gpu
    rate = torch.tensor(settings.lr, device=device) if on_gpu else settings.lr
    if isinstance(settings, Sgd):
        return torch.optim.SGD(
            parameters,
            lr=rate,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
            nesterov=settings.nesterov,
            fused=fused or None,
        )
    kind = torch.optim.AdamW if isinstance(settings, AdamW) else torch.optim.Adam
    return kind(
        parameters,
        lr=rate,
        betas=settings.betas,
        eps=settings.eps,
        weight_decay=settings.weight_decay,
        capturable=on_gpu,
        # All weights in one call; the same bits as one after another.
        foreach=not fused,
        fused=fused or None,
    )


def new_student(
    spec: TrialSpec,
    training: Training,
    data: ResidentData,
    device: torch.device,
    saved: TrainingState | None,
    background: Background | None = None,
    build: Callable[[], nn.Module] | None = None,
    initial: Mapping[str, Tensor] | None = None,
) -> Student:
    """A student with weights from the stream "init" of its seed, with the `initial` ones, or as it was saved; `build` makes a network that
    does not begin with random weights alone.

    Raises:
        ValueError: the initial weights are those of another network.
    """
    assert spec.seed is not None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(spec.seed, "init"))
        model = build() if build is not None else data.train.network(spec.model, data.num_classes)
    if initial is not None:
        load_initial(model, initial)
    model = model.to(device=device, memory_format=layout_of(device, training.precision))  # type: ignore[call-overload]
    optimizer = optimizer_of(model.parameters(), training, device)
    sums = torch.zeros(2 + len(term_names(spec.distillation)), dtype=torch.float64, device=device)
    student = Student(
        spec=spec,
        training=training,
        model=model.train(),
        forward=forward_of(model, training, device),
        optimizer=optimizer,
        sums=sums,
        background=background,
        average=copy.deepcopy(model).eval().requires_grad_(False) if training.ema_decay is not None else None,
        adversary=_adversary(spec, background, data.num_classes, device),
    )
    if saved is not None:
        model.load_state_dict(saved.model)
        if student.average is not None:
            student.average.load_state_dict(saved.average)
        _restore(optimizer, saved.optimizer)
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
    if spec.distillation is None or background is None:
        return None
    make = objective_of(spec.distillation).adversary
    return None if make is None else make(spec.distillation, background, num_classes, device)


def learning_rate(training: Training, step: int, steps: int) -> float:
    """Learning rate of optimiser step `step` (from 0) when an epoch has `steps` of them."""
    schedule = training.schedule
    peak = training.optimizer.lr
    warmup = schedule.warmup_epochs * steps
    if isinstance(schedule, LinearSchedule):
        warmup = warmup or round(schedule.warmup_fraction * training.epochs * steps)
    if step < warmup:
        return peak * (step + 1) / warmup
    if isinstance(schedule, ConstantSchedule):
        return peak
    if isinstance(schedule, StepSchedule):
        return float(peak * schedule.gamma ** sum(step // steps >= milestone for milestone in schedule.milestones))
    done = (step - warmup) / max(1, training.epochs * steps - warmup)
    if isinstance(schedule, LinearSchedule):
        return peak * (1 - done)
    return schedule.final_lr + (peak - schedule.final_lr) * (1 + math.cos(math.pi * done)) / 2


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate; one that is a tensor keeps its place in memory."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def _plain(state: Mapping[str, Any]) -> dict[str, Any]:
    """The state of an optimiser with learning rates as numbers."""
    groups = [{**group, "lr": float(group["lr"])} for group in state["param_groups"]]
    return {**state, "param_groups": groups}


def _restore(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Load a state that may come from another device: how the optimiser computes, and where its learning rate stands, remain."""
    own: list[dict[str, Any]] = [
        {name: group[name] for name in ("lr", "foreach", "fused", "capturable") if name in group}
        for group in optimizer.param_groups
    ]
    groups = [{**saved, **mine} for saved, mine in zip(state["param_groups"], own, strict=True)]
    optimizer.load_state_dict({**state, "param_groups": groups})
    for parameter, slots in optimizer.state.items():
        for name, value in slots.items():
            if parameter.is_cuda and isinstance(value, Tensor) and value.shape == parameter.shape:
                # A fused optimiser asks for the strides of the weights.
                slots[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
    for group, mine in zip(optimizer.param_groups, own, strict=True):
        group.update(mine)
