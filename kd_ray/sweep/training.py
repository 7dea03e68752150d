"""How a sweep file says that a network is trained: optimisers, schedules, augmentation, arithmetic."""

from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, PositiveFloat, PositiveInt, Tag, model_validator

from kd_ray.sweep.fields import Added, Config, refuse


class Sgd(Config):
    """Stochastic gradient descent with momentum, as `torch.optim.SGD`."""

    name: Literal["sgd"] = "sgd"
    lr: PositiveFloat
    """Peak learning rate."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum factor."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """L2 penalty, added to the gradient."""
    nesterov: bool = False
    """Nesterov's form of momentum."""

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> Self:
        if self.nesterov and self.momentum == 0:
            raise refuse("nesterov", "has no effect with momentum 0; set momentum > 0 or nesterov: false")
        return self


class _Adaptive(Config):
    lr: PositiveFloat
    """Peak learning rate."""
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    """Decay of the averages of the gradient and of its square."""
    eps: PositiveFloat = 1e-8
    """Added to the denominator."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Adam: L2 penalty, added to the gradient. AdamW: share of the weights taken off per step, times the learning rate; of all of them,
    biases and normalisation included."""


class Adam(_Adaptive):
    """Adam (Kingma & Ba 2015), as `torch.optim.Adam`."""

    name: Literal["adam"]


class AdamW(_Adaptive):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019), as `torch.optim.AdamW`."""

    name: Literal["adamw"]


def optimizer_kind(value: Any) -> str:
    """The tag of the union: the name of the optimiser, `sgd` where none is given."""
    return str(value.get("name", "sgd") if isinstance(value, dict) else getattr(value, "name", "sgd"))


Optimizer = Annotated[
    Annotated[Sgd, Tag("sgd")] | Annotated[Adam, Tag("adam")] | Annotated[AdamW, Tag("adamw")],
    Discriminator(optimizer_kind),
]
"""One of the optimisers, selected by `name`."""


class _Schedule(Config):
    warmup_epochs: Annotated[int, Field(ge=0)] = 0
    """Epochs of linear warm-up from 0 to the peak learning rate, step by step."""


class ConstantSchedule(_Schedule):
    """The peak learning rate throughout (after warm-up)."""

    name: Literal["constant"]


class StepSchedule(_Schedule):
    """Multiply the learning rate by `gamma` at each milestone."""

    name: Literal["step"]
    milestones: Annotated[tuple[PositiveInt, ...], Field(min_length=1)]
    """Epochs, counted from 0, at whose beginning the rate drops; increasing."""
    gamma: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Factor at each milestone."""

    @model_validator(mode="after")
    def _milestones_increase(self) -> Self:
        if list(self.milestones) != sorted(set(self.milestones)):
            raise refuse("milestones", f"must increase, got {list(self.milestones)}")
        return self


class CosineSchedule(_Schedule):
    """Half a cosine from the peak to `final_lr` (Loshchilov & Hutter 2017, without restarts)."""

    name: Literal["cosine"]
    final_lr: Annotated[float, Field(ge=0)] = 0.0
    """Learning rate after the last step."""


class LinearSchedule(_Schedule):
    """A straight line from the peak to 0, which it would reach one step after the last."""

    name: Literal["linear"]
    warmup_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of all steps that is linear warm-up; another way to say `warmup_epochs`."""

    @model_validator(mode="after")
    def _one_warmup(self) -> Self:
        if self.warmup_epochs and self.warmup_fraction:
            raise refuse("warmup_fraction", "says the same as warmup_epochs; keep one of them")
        return self


Schedule = Annotated[ConstantSchedule | StepSchedule | CosineSchedule | LinearSchedule, Field(discriminator="name")]
"""How the learning rate moves, selected by `name`."""


Augmentation = Literal["none", "flip", "crop_flip", "resized_crop", "randaugment"]


Execution = Literal["loop", "grouped"]


Precision = Literal["fp32", "tf32", "bf16"]


class Training(Config):
    """How a network is trained."""

    epochs: PositiveInt
    """Passes over the training split."""
    batch_size: PositiveInt
    """Samples per step; a last smaller batch is used too."""
    optimizer: Optimizer
    """The optimiser."""
    schedule: Schedule
    """The learning-rate schedule."""
    augmentation: Augmentation = "none"
    """`flip`: horizontal, p = 0.5; `crop_flip`: also 4 pixels of zero padding and a random crop back to the size; `resized_crop`: a part
    of 8 to 100 % of the original image, at 3:4 to 4:3, resized to the size, and flip; `randaugment`: then two operations of RandAugment
    at strength 9 of 30. The last two have endless views, so a teacher runs for every batch."""
    execution: Execution = "loop"
    """How the students of a pack train: `loop`, one after another on each batch, with the same bits in any company; or `grouped`, as one
    network with their channels side by side, which is faster for LeNet-5 on the CPU and whose last bits follow the company."""
    precision: Precision = "fp32"
    """Arithmetic of training: `fp32`, with TF32 off; `tf32`, where convolutions and matrix products read 10 bits of each fraction, on GPUs
    only; or `bf16`, where they round to bfloat16 while weights, normalisation and losses stay in float32 (`torch.autocast`). Evaluation and
    teachers are always fp32."""
    compile: Annotated[bool, Added(False)] = False
    """Let `torch.compile` fuse the student's operations. The first step takes seconds, and a C++ compiler."""
    clip_norm: Annotated[PositiveFloat | None, Added(None)] = None
    """Largest Euclidean norm of the gradient of all weights together; a longer one is scaled down to it. Left out, none is."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1), Added(0.0)] = 0.0
    """Share of each hard label that is spread evenly over all classes (Szegedy et al. 2016); with objective `kd` in its cross-entropy."""
    mixup: Annotated[float, Field(ge=0, le=1), Added(0.0)] = 0.0
    """α of Beta(α, α), from which each batch's share of the partner image is drawn (Zhang et al. 2018); 0 is off. The teacher sees the same
    mix, and runs for every batch."""
    cutmix: Annotated[float, Field(ge=0, le=1), Added(0.0)] = 0.0
    """The same for a rectangle cut from the partner (Yun et al. 2019). With both, each batch takes one of them, with p = 0.5 each."""
    ema_decay: Annotated[float | None, Field(gt=0, lt=1), Added(None)] = None
    """d of an average of the weights, e ← d · e + (1 − d) · w after every step, from the initial weights on and with the statistics of
    normalisation. It is what is validated, tested and kept; left out, the weights themselves are."""

    @property
    def mixes(self) -> bool:
        """Whether images are mixed with one another."""
        return self.mixup > 0 or self.cutmix > 0

    @model_validator(mode="after")
    def _group_is_plain(self) -> Self:
        if self.execution == "grouped":
            for name in ("clip_norm", "label_smoothing", "mixup", "cutmix", "ema_decay"):
                if getattr(self, name):
                    raise refuse(name, f"is not known to execution: grouped; use loop, got {getattr(self, name)}")
        return self

    @model_validator(mode="after")
    def _schedule_fits_epochs(self) -> Self:
        if isinstance(self.schedule, StepSchedule) and self.schedule.milestones[-1] >= self.epochs:
            got = list(self.schedule.milestones)
            raise refuse(
                "schedule.milestones", f"a milestone at or after epochs = {self.epochs} has no effect, got {got}"
            )
        if self.schedule.warmup_epochs >= self.epochs:
            got_warmup = self.schedule.warmup_epochs
            raise refuse("schedule.warmup_epochs", f"must be below epochs = {self.epochs}, got {got_warmup}")
        if isinstance(self.schedule, CosineSchedule) and self.schedule.final_lr >= self.optimizer.lr:
            got_lr = self.schedule.final_lr
            raise refuse("schedule.final_lr", f"must be below optimizer.lr = {self.optimizer.lr}, got {got_lr}")
        return self
