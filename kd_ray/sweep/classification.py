"""The bases of all data-set settings: long tails, validation splits, and the questions that other modules ask of a data set."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import Field, model_validator

from kd_ray.sweep.fields import Added, Config, Seed, refuse

ValidationFraction = Annotated[float, Field(ge=0, lt=1)]
Side = Annotated[int, Field(ge=16, le=512)]
MaxLength = Annotated[int, Field(ge=8, le=512)]
Modality = Literal["images", "rows", "texts"]
"""The kind of samples: images, rows of numbers, or texts."""


class LongTail(Config):
    """A training split whose classes are cut to a falling number of samples; other splits stay as they are."""

    profile: Literal["exponential", "imagenet_lt"] = "exponential"
    """`exponential`: class c of C keeps n · imbalance_factor^(−c / (C − 1)) samples, n being the largest class (Cui et al. 2019);
    `imagenet_lt`: the counts of the 1,000 classes of ImageNet-LT (Liu et al. 2019)."""
    imbalance_factor: Annotated[float, Field(gt=1)] | None = None
    """Samples of the first class over samples of the last; for `exponential`."""
    seed: Seed = 0
    """Seed of the choice of samples; the published subsets are other choices of the same counts."""

    @model_validator(mode="after")
    def _factor_belongs_to_exponential(self) -> Self:
        if (self.profile == "exponential") != (self.imbalance_factor is not None):
            what = "is required" if self.imbalance_factor is None else "has no effect"
            raise refuse("imbalance_factor", f"{what} with profile {self.profile}")
        return self


@dataclass(frozen=True, kw_only=True)
class Tokenizing:
    """How the texts of a data set become numbers."""

    tokenizer: str
    """`hf:NAME`."""
    version: str | None
    """Fingerprint of the tokenizer; None until `plan` fills it in."""
    max_length: int
    """Most tokens of a text; longer texts are cut."""


class Classification(Config):
    """Base of the settings of all data sets. A family overrides the properties in which it differs from plain images."""

    ASK_FOR_VALIDATION: ClassVar[tuple[str, str]] = ("validation_fraction", "set it above 0, as in 0.1, got 0")
    """The field that gives a validation split, and what to say where it is missing."""

    long_tail: Annotated[LongTail | None, Added(None)] = None
    """Cut the training split to a long tail; left out, all samples are used."""

    evaluated_on: Annotated[Literal["test", "validation"], Added("test")] = "test"
    """The split on which trials are evaluated. With `validation`, as `kd-ray tune` sets it, no sample of the test split is used: the
    validation split takes its place."""

    @model_validator(mode="after")
    def _evaluated_on_a_split(self) -> Self:
        if self.evaluated_on == "validation" and not self.has_validation:
            field, advice = self.ASK_FOR_VALIDATION
            raise refuse("evaluated_on", f"validation needs a validation split: {field}: {advice}")
        return self

    @property
    def modality(self) -> Modality:
        """The kind of samples."""
        return "images"

    @property
    def image_size(self) -> int | None:
        """Side of the images in pixels; None where there are no images."""
        return None

    @property
    def files(self) -> tuple[str, ...]:
        """What must exist below the data root, for a quick look: files, or the folder of many; empty where that is not known."""
        return ()

    @property
    def tokenizing(self) -> Tokenizing | None:
        """How texts become numbers; None where there are no texts."""
        return None

    @property
    def input_size(self) -> int:
        """Side of the images in pixels, or most tokens of a text; 0 for rows, whose width only the data tell."""
        return self.tokenizing.max_length if self.tokenizing else self.image_size or 0

    @property
    def table_name(self) -> str:
        """The name of the data set in the tables."""
        return str(getattr(self, "name"))  # noqa: B009 (each family declares it, with its own literal type)

    @property
    def random_validation(self) -> tuple[float, int] | None:
        """Share of the training split that is drawn at random for validation, and the seed; None where nothing is drawn."""
        return None

    @property
    def has_validation(self) -> bool:
        """Whether there is a validation split."""
        return self.random_validation is not None

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The names of the classes, where the sweep file gives them; None where only the data do."""
        return None

    @property
    def sensitive_feature_names(self) -> tuple[str, ...]:
        """The features that can be examined for fairness."""
        return ()

    def without_grouping(self, used: str | None = None) -> Self:
        """The settings without those that only say into which groups test samples are put. They are not part of a trial's identity.

        `used` is the sensitive feature whose groups the trial is trained with; what says these groups stays.
        """
        return self

    @property
    def least_joint_group(self) -> int:
        """Test samples that a joint group of `intersections` needs to be compared; 1 where there is no limit."""
        return 1


class RandomValidation(Classification):
    """Base of the data sets whose validation split is drawn from the training split."""

    validation_fraction: ValidationFraction = 0.0
    """Share of the training split, after `long_tail`, set aside for validation; 0 means none."""
    split_seed: Seed = 0
    """Seed of the validation split."""

    @property
    def random_validation(self) -> tuple[float, int] | None:
        """As the two fields say."""
        return (self.validation_fraction, self.split_seed) if self.validation_fraction > 0 else None

    @model_validator(mode="after")
    def _split_seed_needs_a_split(self) -> Self:
        # Not `model_fields_set`: a record gives every field, and must be read back.
        if self.split_seed != 0 and self.validation_fraction == 0:
            raise refuse(
                "split_seed", "has no effect without validation_fraction > 0; remove it or set validation_fraction"
            )
        return self


class OfficialValidation(Classification):
    """Base of the data sets that are published with a validation split."""

    ASK_FOR_VALIDATION: ClassVar[tuple[str, str]] = ("validation", "set it to official, got none")

    validation: Literal["none", "official"] = "none"
    """`official`: the validation samples of the published set; `none`: they are not used."""

    @property
    def has_validation(self) -> bool:
        """Whether there is a validation split."""
        return self.validation == "official"


def has_grouping(dataset: Classification) -> bool:
    """Whether its family has settings that only group test samples."""
    return type(dataset).without_grouping is not Classification.without_grouping


def names_of(union: Any) -> tuple[str, ...]:
    """The `name` of each model of a union, in its order."""
    return tuple(get_args(model.model_fields["name"].annotation)[0] for model in get_args(union))
