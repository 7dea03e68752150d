"""The fields of a sweep file, each checked by itself; `config.py` checks whether they fit together."""

from typing import Annotated, Literal, Self

from pydantic import Field, JsonValue, model_validator

from kd_ray.sweep.claims import Claim
from kd_ray.sweep.datasets import Dataset
from kd_ray.sweep.distillation import Distillation
from kd_ray.sweep.fields import Attack, Config, refuse
from kd_ray.sweep.networks import StudentSettings, TeacherSettings
from kd_ray.sweep.placement import Placement
from kd_ray.sweep.training import Training
from kd_ray.sweep.tuning_settings import Tuned, Tuning


class Evaluation(Config):
    """Optional measurements on the test split. Part of a trial's identity, because the record holds them."""

    pgd: Attack | None = None
    """Robust accuracy: accuracy under projected gradient descent; the time grows with the number of steps."""
    gradient_rescaling: bool = False
    """The factor by which the teacher rescales the gradient of each test sample at its true logit (Tang et al. 2020), for distilled
    students whose loss is a mean over samples. The teacher is evaluated on the test split for it."""

    @model_validator(mode="after")
    def _asks_for_something(self) -> Self:
        if self.pgd is None and not self.gradient_rescaling:
            raise refuse("pgd", "has no effect; ask for pgd or gradient_rescaling, or leave evaluation out")
        return self


class Parts(Config):
    """The fields of a sweep file."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,99}$")]
    """Name of the sweep in the store: lower-case letters, digits, `.`, `_` and `-`."""
    dataset: Dataset
    """The data set."""
    sensitive_features: tuple[str, ...] = ()
    """Features whose groups are compared in `group_metrics` and `fairness_metrics`."""
    intersections: tuple[Annotated[tuple[str, ...], Field(min_length=2)], ...] = ()
    """Lists of sensitive features whose joint groups are compared as well."""
    teacher: TeacherSettings | None = None
    """The network that teaches."""
    student: StudentSettings
    """The network that learns."""
    training: Training
    """How students are trained."""
    distillation: Distillation | None = None
    """The loss of distilled students."""
    evaluation: Evaluation | None = None
    """Optional measurements."""
    baselines: tuple[Literal["scratch"], ...] = ("scratch",)
    """`scratch`: the non-distilled student, once per seed."""
    grid: dict[str, Annotated[tuple[JsonValue, ...], Field(min_length=1)]]
    """Axes of the grid: `seed`, `temperature`, `alpha`, `t_squared`, `objective`, or the dotted path of any setting."""
    claims: tuple[Claim, ...] = ()
    """The questions to answer, declared before training; comparisons test them first. Not part of a trial's identity."""
    tune: Tuning | None = None
    """What `kd-ray tune` searches before the grid is run; no other verb reads it. Not part of a trial's identity."""
    tuned: Tuned | None = None
    """How settings of this sweep were found."""
    placement: Placement = Placement()
    """Where and how it runs."""
