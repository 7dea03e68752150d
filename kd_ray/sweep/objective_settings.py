"""What the settings of every objective say about it: its terms, what it needs, and which training options it allows.

`sweep/distillation.py` holds one class of settings for each objective. The rest of kd_ray asks these properties and never the class.
"""

from typing import Annotated, ClassVar, Literal, Protocol

from pydantic import Field, PositiveFloat

from kd_ray.sweep.classification import Modality
from kd_ray.sweep.fields import Added, Attack, Config, UnitInterval, refuse

LogitPrecision = Literal["fp32", "fp16"]
NonNegativeFloat = Annotated[float, Field(ge=0)]
TeacherShuffle = Literal["all", "within_class"]
"""Among which training samples the teacher's logits are permuted."""

MIXED = ("cross_entropy", "distillation")


class TargetDataset(Protocol):
    """What an objective may ask of a data set before training."""

    @property
    def name(self) -> str:
        """Name of the data-set family."""

    @property
    def num_classes(self) -> int:
        """Number of classes."""

    @property
    def sensitive_feature_names(self) -> tuple[str, ...]:
        """Names of its sensitive features."""

    @property
    def modality(self) -> Modality:
        """What its samples are."""


class ObjectiveSettings(Config):
    """Base of the settings of all objectives. The defaults hold for a loss of logits and labels, learned from a teacher."""

    TERMS: ClassVar[tuple[str, ...]] = MIXED
    """Names of the terms of the loss, in a fixed order; each becomes a column of `epochs`."""
    NEEDS_TEACHER: ClassVar[bool] = True
    """Whether it learns from a teacher's logits."""
    IS_BY_SAMPLE: ClassVar[bool] = False
    """Whether the loss is a mean over samples, each with a loss of its own logits, the teacher's logits and its class."""
    IS_STYLE: ClassVar[bool] = False
    """Whether it is only in the style of its source, whose exact form could not be read; people are shown that beside its name."""
    ALLOWS_LABEL_SMOOTHING: ClassVar[bool] = False
    """Whether `training.label_smoothing` applies to its cross-entropy."""

    @property
    def term_names(self) -> tuple[str, ...]:
        """Names of the terms with these settings."""
        return self.TERMS

    @property
    def takes_steps_of_its_own(self) -> bool:
        """Whether a step is more than the gradient of one loss of one forward pass. Grouping, compiling and mixing are then refused."""
        return False

    @property
    def needs_held_out(self) -> bool:
        """Whether it uses the teacher's accuracy or margin on the validation split, class by class."""
        return False

    @property
    def needs_network(self) -> bool:
        """Whether the teacher's logits of the training samples are not all that it needs of the teacher."""
        return self.needs_held_out or self.trains_under_attack is not None

    @property
    def trains_under_attack(self) -> Attack | None:
        """The attack on its training images, for an objective that trains on attacked images."""
        return None

    @property
    def teacher_shuffle(self) -> TeacherShuffle | None:
        """Among which samples the teacher's logits are permuted; None leaves them where they are."""
        return None

    @property
    def epoch_factor(self) -> int:
        """Epochs of the student, as a multiple of `training.epochs`."""
        return 1

    @property
    def import_path(self) -> str | None:
        """Where the loss is imported from; None for an objective of kd_ray."""
        return None

    def check_dataset(self, dataset: TargetDataset) -> None:
        """Refuse, by `fields.refuse`, a data set with which this objective cannot be trained."""


class SoftSettings(ObjectiveSettings):
    """Base of the objectives with a distillation term at a temperature."""

    temperature: PositiveFloat
    """T of both softmaxes in the distillation term."""
    alpha: UnitInterval
    """Weight of the distillation term, as in Mohammadshahi & Ioannou; other code bases use it for the other term."""
    t_squared: bool
    """Multiply the distillation term by T², so that its gradient does not vanish as T grows."""
    teacher_logits: Annotated[LogitPrecision, Added("fp32")] = "fp32"
    """`fp16` rounds the teacher's logits to half precision, which halves the table of them; refused where that changes the teacher."""


class FeatureSettings(SoftSettings):
    """Base of the objectives that use the groups of a sensitive feature."""

    feature: Annotated[str, Field(min_length=1)]
    """Sensitive feature of the data set."""

    def check_dataset(self, dataset: TargetDataset) -> None:
        """Refuse a feature that the data set does not have."""
        valid = dataset.sensitive_feature_names
        if self.feature not in valid:
            choices = f"valid: {', '.join(valid) or 'none'}, got {self.feature!r}"
            raise refuse("distillation.feature", f"is not a sensitive feature of {dataset.name}; {choices}")
