"""What a sweep file may say, as typed models.

Every field is checked when the file is read, a docstring under it gives its unit and meaning, and `json_schema()` hands the same
knowledge to editors. Nothing here knows how to train: `spec.py` turns a valid sweep into trials, `load.py` reads the YAML.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Discriminator, Field, JsonValue, PositiveFloat, PositiveInt, Tag, model_validator
from pydantic_core import PydanticCustomError

from kd_ray.sweep.architectures import ARCHITECTURES, ModelName, is_text_model, library_of, modality_of
from kd_ray.sweep.classification import Modality
from kd_ray.sweep.datasets import CelebaDataset, Dataset, HatexplainDataset
from kd_ray.sweep.distillation import (
    OBJECTIVES,
    SMOOTHED,
    AdversarialDistillation,
    Distillation,
    GroupDistillation,
    TopKDistillation,
    TrustedDistillation,
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
"""One of the optimisers, told apart by `name`."""


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
"""How the learning rate moves, told apart by `name`."""


Augmentation = Literal["none", "flip", "crop_flip", "resized_crop", "randaugment"]


Execution = Literal["loop", "grouped"]


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
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of training: `fp32`, with TF32 off; or `bf16`, where convolutions and matrix products round to bfloat16 while weights,
    normalisation and losses stay in float32 (`torch.autocast`). Evaluation is always fp32."""
    compile: Annotated[bool, Added(False)] = False
    """Let `torch.compile` fuse the student's operations, on a GPU into CUDA graphs. The first step takes seconds, and a C++ compiler."""
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
            for name in ("label_smoothing", "mixup", "cutmix", "ema_decay"):
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
        if self.execution == "grouped" and (self.optimizer.name != "sgd" or self.clip_norm is not None):
            what = "clip_norm" if self.optimizer.name == "sgd" else f"optimizer {self.optimizer.name}"
            raise refuse("execution", f"grouped knows only sgd without clip_norm, not {what}; use loop")
        return self


Layers = Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]
"""Numbers of layers, counted from 0."""
PRETRAINED = "pretrained"
"""In the place of a path of weights: those that the library of the network publishes, or that its folder holds."""
INIT_WORDS = (PRETRAINED, "random", "teacher")
"""What may stand there and is no path."""
Init = Annotated[str, Field(min_length=1)]


class TrainedTeacher(Config):
    """A teacher trained by this sweep, once per teacher seed."""

    model: ModelName
    """Architecture."""
    training: Training | None = None
    """Its own training settings; left out, it trains as the students do."""
    init: Init | None = None
    """Weights to start from, as `student.init`, but for `teacher`."""
    layers: Layers | None = None
    """Of `hf:` models: which of their layers there are; left out, all."""
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
    """Path of a `.safetensors` file or of a PyTorch checkpoint (read with `weights_only=True`), or `pretrained`."""


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
    init: Init | None = None
    """Weights to start from: path of a `.safetensors` file or of a PyTorch checkpoint, or `pretrained`, for a network of timm or
    torchvision: the weights that this library publishes, which a launch lets it fetch. A head for another number of classes is drawn from
    the seed; left out, everything is. Of `hf:` models: `pretrained`, the default, the weights of the folder under a new head; `random`; or
    `teacher`, the weights of the trained teacher of the same model, its head included, for scratch students too."""
    layers: Layers | None = None
    """Of `hf:` models: which of their layers there are, as in [0, 2, 4]; left out, all. With `init: teacher`, the teacher's."""


def _whole_above_one(gpus: float) -> float:
    if gpus > 1 and gpus != int(gpus):
        raise PydanticCustomError("gpus", "must be a fraction below 1 or a whole number")
    return gpus


Gpus = Annotated[float, Field(ge=0), AfterValidator(_whole_above_one)]
Gigabytes = Annotated[float, Field(ge=0)]
CustomResources = dict[Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_.:-]*$")], PositiveFloat]


class TeacherPlacement(Config):
    """What a pack with a teacher asks for where it differs from a pack of students."""

    cpus_per_pack: PositiveInt | None = None
    """CPUs, and threads."""
    gpus_per_pack: Gpus | None = None
    """GPUs; fractions are allowed below 1."""
    memory_gb_per_pack: Gigabytes | None = None
    """Memory of the node in GB; 0 reserves none."""
    resources_per_pack: CustomResources | None = None
    """Resources of your own."""


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
    gpus_per_pack: Gpus = 0.0
    """GPUs of one pack; fractions are allowed below 1."""
    memory_gb_per_pack: Gigabytes = 0.0
    """Memory of the node, in GB, that one pack reserves, so that no more packs are placed on a node than it holds; 0 reserves none."""
    resources_per_pack: CustomResources = Field(default_factory=dict)
    """Resources of your own that one pack takes, by the names with which nodes were started (`ray start --resources='{"a100": 8}'`); so
    packs are kept to one type of GPU."""
    teacher: TeacherPlacement | None = None
    """What packs with a teacher ask for instead; what is left out is as for students."""
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
    resident_gb: Annotated[float, Field(ge=0)] = 16.0
    """Most memory for the images of one data set, in GB; images in files of their own that would take more are decoded for every batch.
    Results are the same."""
    loader_threads: PositiveInt = 2
    """Threads of one pack that decode images ahead of training, where these are not in memory or have endless views. Results are the
    same."""
    max_retries: Annotated[int, Field(ge=0)] = 2
    """How often a pack whose worker died is started again within one launch."""

    @property
    def resident_bytes(self) -> int:
        """`resident_gb` in bytes."""
        return int(self.resident_gb * 1e9)

    def of(self, *, is_teacher: bool) -> "Placement":
        """Of a pack with a teacher, or of one with students."""
        if self.teacher is None:
            return self
        own = self.teacher.model_dump(exclude_none=True) if is_teacher else {}
        return self.model_copy(update={"teacher": None, **own})


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
        _check_initial(self)
        if self.distillation is None and not self.baselines:
            raise refuse("baselines", "nothing to train: give teacher and distillation, or baselines: [scratch]")
        if len(set(self.baselines)) != len(self.baselines):
            raise refuse("baselines", f"repeats a value: {list(self.baselines)}")
        return self


def _check_initial(sweep: Sweep) -> None:
    """Refuse pretrained weights of a network that no library publishes."""
    teacher = sweep.teacher
    wanted = {"student.init": (sweep.student.model, sweep.student.init)}
    if isinstance(teacher, GivenTeacher):
        wanted["teacher.weights"] = (teacher.model, teacher.weights)
    elif teacher is not None:
        wanted["teacher.init"] = (teacher.model, teacher.init)
    for field, (model, value) in wanted.items():
        if value == PRETRAINED and library_of(model) is None:
            raise refuse(
                field,
                f"no library publishes weights of {model}; give the path of a file, or a timm: or torchvision: network",
            )


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
    """Refuse networks that cannot take the samples, settings that make no sense for them, and groups of networks that cannot be grouped."""
    users: dict[str, tuple[Student | TrainedTeacher | GivenTeacher, Training | None]] = {
        "student": (sweep.student, sweep.training)
    }
    if isinstance(sweep.teacher, TrainedTeacher):
        users["teacher"] = (sweep.teacher, sweep.teacher.training or sweep.training)
    elif sweep.teacher is not None:
        users["teacher"] = (sweep.teacher, None)
    for user, (network, training) in users.items():
        name = network.model
        known, size = ARCHITECTURES.get(name), sweep.dataset.image_size
        _check_modality(user, name, sweep.dataset)
        if not isinstance(network, GivenTeacher):
            _check_beginning(user, network)
        if known and size is not None and size < known.min_image_size:
            least = known.min_image_size
            raise refuse(
                f"{user}.model",
                f"{name} needs images of at least {least} pixels, and those of the data set have {size}",
            )
        if training and training.execution == "grouped" and not (known and known.can_be_grouped):
            valid = ", ".join(other for other, each in ARCHITECTURES.items() if each.can_be_grouped)
            raise refuse("training.execution", f"{name} cannot be grouped; use loop, or one of {valid}")
        if training and sweep.dataset.modality != "images":
            where = "teacher.training" if training is not sweep.training else "training"
            _check_no_images(where, training, sweep.dataset.modality)
    if sweep.evaluation and sweep.evaluation.pgd and sweep.dataset.modality != "images":
        raise refuse("evaluation.pgd", f"is for images, and {sweep.dataset.name} holds {sweep.dataset.modality}")
    _check_start(sweep)


def _check_modality(user: str, name: str, dataset: Dataset) -> None:
    """Refuse a network that takes something else than the samples."""
    takes = modality_of(name)
    if takes != dataset.modality:
        valid = {
            "images": f"{', '.join(ARCHITECTURES)}, timm:NAME or torchvision:NAME",
            "rows": "mlp-WIDTHS, as in mlp-64-32",
            "texts": "hf:NAME",
        }[dataset.modality]
        words = {"images": "images", "rows": "rows of numbers", "texts": "texts"}
        message = f"{name} takes {words[takes]}, and {dataset.name} holds {words[dataset.modality]}; use {valid}"
        raise refuse(f"{user}.model", message)


def _check_beginning(user: str, network: Student | TrainedTeacher) -> None:
    """Refuse beginnings that this kind of network cannot have."""
    name, init = network.model, network.init
    if is_text_model(name):
        words = INIT_WORDS if user == "student" else INIT_WORDS[:2]
        if init is not None and init not in words:
            message = f"must be one of {', '.join(words)} for {name}, whose weights are in its folder, got {init!r}"
            raise refuse(f"{user}.init", message)
        return
    if network.layers is not None:
        raise refuse(f"{user}.layers", f"has no effect with {name}; it is for hf:NAME")
    if init in INIT_WORDS[1:]:
        raise refuse(
            f"{user}.init", f"{init} is for hf:NAME; for {name}, a path of weights or pretrained, or leave it out"
        )


def _check_no_images(where: str, training: Training, modality: Modality) -> None:
    """Refuse settings that only images can have."""
    words = {"images": "images", "rows": "rows of numbers", "texts": "texts"}[modality]
    if training.augmentation != "none":
        raise refuse(f"{where}.augmentation", f"{training.augmentation} is for images; {words} have none")
    if training.mixes:
        raise refuse(f"{where}.{'mixup' if training.mixup else 'cutmix'}", f"is for images; {words} have none")
    if training.compile and modality == "texts":
        raise refuse(f"{where}.compile", "is for inputs of one shape; texts have many lengths")


def _check_start(sweep: Sweep) -> None:
    """Refuse layers that repeat, and a student that starts from a teacher it cannot start from."""
    for user in ("teacher", "student"):
        layers = getattr(getattr(sweep, user), "layers", None)
        if layers is not None and list(layers) != sorted(set(layers)):
            raise refuse(f"{user}.layers", f"must increase, got {list(layers)}")
    if sweep.student.init != "teacher":
        return
    teacher = sweep.teacher
    if not isinstance(teacher, TrainedTeacher) or teacher.model != sweep.student.model:
        found = teacher.model if isinstance(teacher, TrainedTeacher) else "none that the sweep trains"
        raise refuse("student.init", f"teacher needs a trained teacher of the model {sweep.student.model}, got {found}")
    if sweep.distillation is not None and not sweep.distillation.NEEDS_TEACHER:
        raise refuse("student.init", f"teacher needs a teacher, and objective {sweep.distillation.objective} has none")
    if "scratch" in sweep.baselines and teacher.seed != "paired" and len(teacher.seed) > 1:
        message = (
            "teacher with several teachers per seed leaves open where a scratch student starts; use one, or paired"
        )
        raise refuse("student.init", message)
    if teacher.layers is not None and sweep.student.layers and not set(sweep.student.layers) <= set(teacher.layers):
        valid = f"the teacher has {list(teacher.layers)}, got {list(sweep.student.layers)}"
        raise refuse("student.layers", f"must be among the teacher's layers; {valid}")


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
        if isinstance(sweep.dataset, CelebaDataset | HatexplainDataset):
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
    if name == "ltkd" and sweep.dataset.num_classes < 3:
        raise refuse("distillation.objective", f"ltkd needs at least 3 classes, got {sweep.dataset.num_classes}")
    _check_training_of(settings, sweep)


def _check_training_of(settings: Distillation, sweep: Sweep) -> None:
    """Refuse ways of training that this objective does not know."""
    if sweep.training.label_smoothing and not isinstance(settings, SMOOTHED):
        message = f"objective {settings.objective} makes its own use of labels; valid with kd and kd_shuffled"
        raise refuse("training.label_smoothing", f"{message}, got {sweep.training.label_smoothing}")
    if settings.takes_steps_of_its_own:
        if sweep.training.execution == "grouped":
            raise refuse(
                "training.execution", f"{settings.objective} takes steps of its own and cannot be grouped; use loop"
            )
        if sweep.training.compile:
            raise refuse("training.compile", f"{settings.objective} takes steps of its own and cannot be compiled")
        if sweep.training.mixes:
            field = "mixup" if sweep.training.mixup else "cutmix"
            raise refuse(
                f"training.{field}", f"{settings.objective} takes steps of its own, and they know no mixed images"
            )
    if isinstance(settings, TrustedDistillation) and settings.attack and sweep.dataset.modality != "images":
        raise refuse("distillation.attack", f"is for images, and {sweep.dataset.name} holds {sweep.dataset.modality}")


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
