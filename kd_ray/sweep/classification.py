"""What data sets of classified samples have in common in a sweep file: long tails, and a random validation split."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from kd_ray.sweep.fields import Added, Config, Seed, refuse

ValidationFraction = Annotated[float, Field(ge=0, lt=1)]
Modality = Literal["images", "rows", "texts"]
"""What the samples are: images, rows of numbers, or texts."""


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


class Classification(Config):
    """Base of all data sets."""

    long_tail: Annotated[LongTail | None, Added(None)] = None
    """Cut the training split to a long tail; left out, all samples are used."""

    @property
    def modality(self) -> Modality:
        """What its samples are."""
        return "images"


class RandomValidation(Classification):
    """Base of the data sets whose validation split is drawn from the training split, and that have no sensitive features of their own."""

    validation_fraction: ValidationFraction = 0.0
    """Share of the training split, after `long_tail`, set aside for validation; 0 means none."""
    split_seed: Seed = 0
    """Seed of the validation split."""

    @property
    def has_validation(self) -> bool:
        """Whether part of the data is set aside for validation."""
        return self.validation_fraction > 0

    @model_validator(mode="after")
    def _split_seed_needs_a_split(self) -> Self:
        # Not `model_fields_set`: a record spells every field out, and must be read back.
        if self.split_seed != 0 and self.validation_fraction == 0:
            raise refuse(
                "split_seed", "has no effect without validation_fraction > 0; remove it or set validation_fraction"
            )
        return self

    @property
    def sensitive_feature_names(self) -> tuple[str, ...]:
        """These sets have no sensitive features."""
        return ()
