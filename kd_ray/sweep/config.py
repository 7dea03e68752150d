"""What a sweep file may say, as typed models.

Every field is checked when the file is read, a docstring under it gives its unit and meaning, and `json_schema()` hands the same
knowledge to editors. Nothing here knows how to train: `spec.py` turns a valid sweep into trials, `load.py` reads the YAML.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, JsonValue, PositiveFloat, PositiveInt, Tag, model_validator

from kd_ray.sweep.architectures import ARCHITECTURES, ModelName
from kd_ray.sweep.datasets import CelebaDataset, Dataset
from kd_ray.sweep.distillation import (
    OBJECTIVES,
    AdversarialDistillation,
    Distillation,
    GroupDistillation,
    TopKDistillation,
)
from kd_ray.sweep.fields import Added, Attack, Config, Seed, refuse


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


Schedule = Annotated[ConstantSchedule | StepSchedule | CosineSchedule, Field(discriminator="name")]
"""How the learning rate moves, told apart by `name`."""


Augmentation = Literal["none", "flip", "crop_flip"]


Execution = Literal["loop", "grouped"]


class Training(Config):
    """How a network is trained."""

    epochs: PositiveInt
    """Passes over the training split."""
    batch_size: PositiveInt
    """Samples per step; a last smaller batch is used too."""
    optimizer: Sgd
    """The optimiser."""
    schedule: Schedule
    """The learning-rate schedule."""
    augmentation: Augmentation = "none"
    """`flip`: horizontal, p = 0.5; `crop_flip`: also 4 pixels of zero padding and a random crop back to the size."""
    execution: Execution = "loop"
    """How the students of a pack train: `loop`, one after another on each batch, with the same bits in any company; or `grouped`, as one
    network with their channels side by side, which is faster for LeNet-5 on the CPU and whose last bits follow the company."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of training: `fp32`, with TF32 off; or `bf16`, where convolutions and matrix products round to bfloat16 while weights,
    normalisation and losses stay in float32 (`torch.autocast`). Evaluation is always fp32."""
    compile: Annotated[bool, Added(False)] = False
    """Let `torch.compile` fuse the student's operations, on a GPU into CUDA graphs. The first step takes seconds, and a C++ compiler."""

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


class TrainedTeacher(Config):
    """A teacher trained by this sweep, once per teacher seed."""

    model: ModelName
    """Architecture."""
    training: Training | None = None
    """Its own training settings; left out, it trains as the students do."""
    seed: Literal["paired"] | Annotated[tuple[Seed, ...], Field(min_length=1)] = "paired"
    """`paired`: student seed s learns from teacher seed s; a list: every student learns from each of these teachers."""

    @model_validator(mode="after")
    def _seeds_differ(self) -> Self:
        if self.seed != "paired" and len(set(self.seed)) != len(self.seed):
            raise refuse("seed", f"repeats a value: {list(self.seed)}")
        return self


class GivenTeacher(Config):
    """A teacher whose weights are given; it is evaluated, never trained."""

    model: ModelName
    """Architecture."""
    weights: Annotated[str, Field(min_length=1)]
    """Path of a `.safetensors` file or of a PyTorch checkpoint (read with `weights_only=True`)."""


def teacher_kind(value: Any) -> str:
    """`given` where weights stand, else `trained`."""
    keys = value if isinstance(value, dict) else getattr(value, "model_fields_set", ())
    return "given" if "weights" in keys else "trained"


Teacher = Annotated[
    Annotated[TrainedTeacher, Tag("trained")] | Annotated[GivenTeacher, Tag("given")], Discriminator(teacher_kind)
]
"""Trained by the sweep, or given by `weights`."""


class Student(Config):
    """The network that scratch and distilled students share."""

    model: ModelName
    """Architecture."""


class Evaluation(Config):
    """What is measured on the test split besides what always is. Part of a trial's identity, because the record holds it."""

    pgd: Attack | None = None
    """Robust accuracy: what is left under projected gradient descent, which takes so many times longer as it has steps."""
    gradient_rescaling: bool = False
    """How the teacher rescales the pull of each test sample at its true logit (Tang et al. 2020), for distilled students whose loss is a
    mean over samples; the teacher runs over the test split for it."""

    @model_validator(mode="after")
    def _asks_for_something(self) -> Self:
        if self.pgd is None and not self.gradient_rescaling:
            raise refuse("pgd", "has no effect; ask for pgd or gradient_rescaling, or leave evaluation out")
        return self


class Placement(Config):
    """Where and how trials run. Never part of a trial's identity."""

    cpus_per_pack: PositiveInt = 1
    """CPUs, and threads, of one pack. On the CPU the last bits of a result follow it: keep it the same within a sweep."""
    gpus_per_pack: Annotated[float, Field(ge=0)] = 0.0
    """GPUs of one pack; fractions are allowed below 1."""
    pack_size: PositiveInt | Literal["auto"] = 8
    """Most students trained side by side on one batch stream; `auto` follows a short measurement of their time and memory on a worker, and
    the number of workers."""
    data_root: str = "./data"
    """Folder with the data sets, the same path on every node."""
    checkpoint_interval_s: Annotated[float, Field(ge=0)] = 30.0
    """Least time in seconds between two checkpoints of a trial; 0 writes one after every epoch."""
    checkpoint_every_epochs: PositiveInt | None = None
    """Write a checkpoint after so many epochs too, however little time they took."""
    view_table_gb: Annotated[float, Field(ge=0)] = 4.0
    """Most disk space, on each node, for one teacher's logits of the augmented views, in GB; where it does not do, as with 0, the teacher
    runs for every batch. Results are the same."""
    max_retries: Annotated[int, Field(ge=0)] = 2
    """How often a pack whose worker died is started again within one launch."""

    @model_validator(mode="after")
    def _whole_gpus_above_one(self) -> Self:
        if self.gpus_per_pack > 1 and self.gpus_per_pack != int(self.gpus_per_pack):
            raise refuse("gpus_per_pack", f"must be a fraction below 1 or a whole number, got {self.gpus_per_pack}")
        return self


class Sweep(Config):
    """A named sweep: fixed settings and a grid."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,99}$")]
    """Name of the sweep in the store: lower-case letters, digits, `.`, `_` and `-`."""
    dataset: Dataset
    """What to learn from."""
    sensitive_features: tuple[str, ...] = ()
    """Features whose groups are compared in `group_metrics` and `fairness_metrics`."""
    intersections: tuple[Annotated[tuple[str, ...], Field(min_length=2)], ...] = ()
    """Lists of sensitive features whose joint groups are compared as well."""
    teacher: Teacher | None = None
    """Who teaches."""
    student: Student
    """Who learns."""
    training: Training
    """How students are trained."""
    distillation: Distillation | None = None
    """The loss of distilled students."""
    evaluation: Evaluation | None = None
    """What is measured besides what always is."""
    baselines: tuple[Literal["scratch"], ...] = ("scratch",)
    """`scratch`: the non-distilled student, once per seed."""
    grid: dict[str, Annotated[tuple[JsonValue, ...], Field(min_length=1)]]
    """Axes of the grid: `seed`, `temperature`, `alpha`, `t_squared`, `objective`, or the dotted path of any setting."""
    placement: Placement = Placement()
    """Where and how it runs."""

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        _check_features(self)
        _check_models(self)
        _check_objective(self)
        if self.distillation is None and not self.baselines:
            raise refuse("baselines", "nothing to train: give teacher and distillation, or baselines: [scratch]")
        if len(set(self.baselines)) != len(self.baselines):
            raise refuse("baselines", f"repeats a value: {list(self.baselines)}")
        return self


def _check_features(sweep: Sweep) -> None:
    """Refuse sensitive features that the data set does not have, and intersections of features that are not listed."""
    valid = sweep.dataset.sensitive_feature_names
    for feature in sweep.sensitive_features:
        if feature not in valid:
            choices = ", ".join(valid) or "none"
            where = f"{sweep.dataset.name} with target {sweep.dataset.target!r}"
            raise refuse("sensitive_features", f"{feature!r} is not a sensitive feature of {where}; valid: {choices}")
    if len(set(sweep.sensitive_features)) != len(sweep.sensitive_features):
        raise refuse("sensitive_features", f"repeats a value: {list(sweep.sensitive_features)}")
    for features in sweep.intersections:
        if len(set(features)) != len(features) or not set(features) <= set(sweep.sensitive_features):
            valid_list = list(sweep.sensitive_features)
            raise refuse(
                "intersections", f"must name different entries of sensitive_features {valid_list}, got {list(features)}"
            )


def _check_models(sweep: Sweep) -> None:
    """Refuse networks for which the images are too small, and groups of networks that cannot be grouped."""
    users: dict[str, tuple[str, Training | None]] = {"student": (sweep.student.model, sweep.training)}
    if isinstance(sweep.teacher, TrainedTeacher):
        users["teacher"] = (sweep.teacher.model, sweep.teacher.training or sweep.training)
    elif sweep.teacher is not None:
        users["teacher"] = (sweep.teacher.model, None)
    for user, (name, training) in users.items():
        size = sweep.dataset.image_size
        if (known := ARCHITECTURES.get(name)) and size < known.min_image_size:
            least = known.min_image_size
            raise refuse(
                f"{user}.model",
                f"{name} needs images of at least {least} pixels, and those of the data set have {size}",
            )
        if training and training.execution == "grouped" and not (known and known.can_be_grouped):
            valid = ", ".join(other for other, each in ARCHITECTURES.items() if each.can_be_grouped)
            raise refuse("training.execution", f"{name} cannot be grouped; use loop, or one of {valid}")


def _check_objective(sweep: Sweep) -> None:
    """Refuse an objective that cannot do with this teacher and data set, and a teacher or an objective without the other."""
    settings, teacher = sweep.distillation, sweep.teacher
    if settings is None:
        if teacher is not None:
            raise refuse(
                "teacher", "has no effect without distillation; give both, or neither for scratch students only"
            )
        return
    name = settings.objective
    if settings.NEEDS_TEACHER and teacher is None:
        raise refuse("distillation", "has no effect without teacher; give both, or neither for scratch students only")
    if settings.needs_held_out and not sweep.dataset.has_validation:
        message = f"objective {name} needs held-out data to judge the teacher by"
        if isinstance(sweep.dataset, CelebaDataset):
            raise refuse("dataset.validation", f"{message}; set it to official, got none")
        raise refuse("dataset.validation_fraction", f"{message}; set it above 0, as in 0.1, got 0")
    if settings.needs_held_out and isinstance(teacher, GivenTeacher):
        message = (
            f"objective {name} judges the teacher on the validation split, which a given teacher may have been trained on; "
            "let the sweep train the teacher, or choose another objective"
        )
        raise refuse("teacher.weights", message)
    if isinstance(settings, TopKDistillation) and settings.k >= sweep.dataset.num_classes:
        raise refuse("distillation.k", f"must be below the {sweep.dataset.num_classes} classes, got {settings.k}")
    valid = sweep.dataset.sensitive_feature_names
    if isinstance(settings, GroupDistillation | AdversarialDistillation) and settings.feature not in valid:
        choices = f"valid: {', '.join(valid) or 'none'}, got {settings.feature!r}"
        raise refuse("distillation.feature", f"is not a sensitive feature of {sweep.dataset.name}; {choices}")
    if settings.takes_steps_of_its_own:
        if sweep.training.execution == "grouped":
            raise refuse("training.execution", f"{name} takes steps of its own and cannot be grouped; use loop")
        if sweep.training.compile:
            raise refuse("training.compile", f"{name} takes steps of its own and cannot be compiled")
    if name == "ltkd" and sweep.dataset.num_classes < 3:
        raise refuse("distillation.objective", f"ltkd needs at least 3 classes, got {sweep.dataset.num_classes}")


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a sweep file, for editors that complete and check YAML."""
    schema = Sweep.model_json_schema()
    # One objective for all members of the union: a sweep with several objectives gives their settings side by side, and the grid supplies
    # others, so none is required.
    names = [name for name in OBJECTIVES if name != "imported"]
    members = {name: schema["$defs"].pop(model.__name__) for name, model in OBJECTIVES.items()}
    properties: dict[str, Any] = {}
    for member in members.values():
        properties |= member["properties"]
    meanings = "\n\n".join(f"{name}: {member['description']}" for name, member in members.items())
    properties["objective"] = {"anyOf": [{"enum": names}, properties["objective"]], "default": "kd"}
    schema["$defs"]["Distillation"] = {
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
        "description": f"The training loss of distilled students, by objective.\n\n{meanings}",
    }
    schema["properties"]["distillation"] |= {"anyOf": [{"$ref": "#/$defs/Distillation"}, {"type": "null"}]}
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "kd_ray sweep"
    return schema
