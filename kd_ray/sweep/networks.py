"""Teacher and student in a sweep file, and their initial weights; a teacher may be a file with its logits."""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from kd_ray.sweep.architectures import ModelName
from kd_ray.sweep.fields import Config, Seed, refuse
from kd_ray.sweep.training import Training

Layers = Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]
"""Numbers of layers, counted from 0."""
PRETRAINED = "pretrained"
"""In place of a path: the weights that the library of the network publishes, or that its folder holds."""
INIT_WORDS = (PRETRAINED, "random", "teacher")
"""Words that are allowed in place of a path."""
HUB = "hub:"
"""Begins `hub:ORGANISATION/NAME`, a repository of the Hugging Face Hub whose `model.safetensors` are the weights."""
_REPOSITORY = re.compile(rf"{HUB}[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9][A-Za-z0-9_.-]*")


def _check_source(value: str) -> str:
    if value.startswith(HUB) and not _REPOSITORY.fullmatch(value):
        raise PydanticCustomError("repository", "Input should be a path, or a repository as in hub:ORGANISATION/NAME")
    return value


Init = Annotated[str, Field(min_length=1), AfterValidator(_check_source)]


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


class PretrainedTeacher(Config):
    """A teacher whose weights are given; it is evaluated, never trained."""

    model: ModelName
    """Architecture."""
    weights: Init
    """Path of a `.safetensors` file or of a PyTorch checkpoint (read with `weights_only=True`), `pretrained`, or
    `hub:ORGANISATION/NAME`: the `model.safetensors` of a repository of the Hugging Face Hub, from its cache on this machine, else fetched
    by the launch."""


LOGITS_FILES = (".npy", ".parquet")
"""Endings of a file with logits."""


def _check_logits_file(value: str) -> str:
    if not value.endswith(LOGITS_FILES):
        raise PydanticCustomError("logits", "Input should be the path of an .npy or .parquet file")
    return value


class LogitsTeacher(Config):
    """A teacher of which only its logits of the training samples are given, with `augmentation: none`. How it does on the test split is not
    known."""

    logits: Annotated[str, AfterValidator(_check_logits_file)]
    """Path of an `.npy` file, training samples × classes in the order of the training split, or of a `.parquet` file with a column
    `sample_id`, and one column of lists or one column for each class, named as the class."""


def teacher_kind(value: Any) -> str:
    """`given_logits` where a file of logits stands, `pretrained` where weights stand, else `trained`."""
    keys = value if isinstance(value, dict) else getattr(value, "model_fields_set", ())
    return "given_logits" if "logits" in keys else "pretrained" if "weights" in keys else "trained"


TeacherSettings = Annotated[
    Annotated[TrainedTeacher, Tag("trained")]
    | Annotated[PretrainedTeacher, Tag("pretrained")]
    | Annotated[LogitsTeacher, Tag("given_logits")],
    Discriminator(teacher_kind),
]
"""Trained by the sweep, pretrained (`weights`), or known by its logits alone (`logits`)."""


class StudentSettings(Config):
    """The network that scratch and distilled students share."""

    model: ModelName
    """Architecture."""
    init: Init | None = None
    """Weights to start from: path of a `.safetensors` file or of a PyTorch checkpoint, `hub:ORGANISATION/NAME`, a repository of the
    Hugging Face Hub with a `model.safetensors`, or `pretrained`, for a network of timm or torchvision: the weights that this library
    publishes, which a launch lets it fetch. A head for another number of classes is drawn from the seed; left out, everything is. Of
    `hf:` models: `pretrained`, the default, the weights of the folder under a new head; `random`; or `teacher`, the weights of the
    trained teacher of the same model, its head included, for scratch students too."""
    layers: Layers | None = None
    """Of `hf:` models: which of their layers there are, as in [0, 2, 4]; left out, all. With `init: teacher`, the teacher's."""
