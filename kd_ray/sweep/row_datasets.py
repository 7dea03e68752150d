"""Data sets under `dataset` that need not be images: Adult, and what a function of yours returns."""

from typing import Annotated, Literal, Self

from pydantic import Field, JsonValue, model_validator

from kd_ray.sweep.classification import Modality, RandomValidation
from kd_ray.sweep.distillation import IMPORT_PATH
from kd_ray.sweep.fields import Fingerprint, refuse


class AdultDataset(RandomValidation):
    """Adult, also known as Census Income (Becker & Kohavi 1996, UCI), from `adult.data` and `adult.test` under `<data_root>/adult`.

    Inputs are all columns but `fnlwgt`, which says how many people a row stands for: numbers, standardised, and categories as 0 and 1.
    """

    name: Literal["adult"]
    target: Literal["income"] = "income"
    """What is classified: `<=50K` or `>50K` dollars a year."""
    missing: Literal["leave_out", "category"] = "leave_out"
    """What becomes of rows with `?` in workclass, occupation or native-country: 2,399 of the training split's 32,561 and 1,221 of the test
    split's 16,281. `leave_out` removes them from both, `category` makes `?` a category."""
    sensitive_inputs: bool = True
    """Whether the networks see sex, race and age. Without them, other columns still tell much: `relationship` has husbands and wives."""
    age_edges: Annotated[tuple[Annotated[int, Field(ge=18, le=90)], ...], Field(min_length=1)] = (25, 60)
    """Where the ages are cut into groups; an age equal to an edge belongs to the group above it."""
    version: Fingerprint = "original"
    """`original` (checksums of the published files), or the fingerprint of another set of files in the same layout."""

    @property
    def modality(self) -> Modality:
        """What its samples are."""
        return "rows"

    @property
    def num_classes(self) -> int:
        """Up to and above 50,000 dollars."""
        return 2

    @property
    def image_size(self) -> None:
        """There are no images."""
        return

    @property
    def sensitive_feature_names(self) -> tuple[str, ...]:
        """Of the census."""
        return ("sex", "race", "age")

    @model_validator(mode="after")
    def _edges_increase(self) -> Self:
        if list(self.age_edges) != sorted(set(self.age_edges)):
            raise refuse("age_edges", f"must increase, got {list(self.age_edges)}")
        return self


class FactoryDataset(RandomValidation):
    """What a function of yours returns, as `kd_ray.data.factory.OwnData`; the last resort, where no list says it.

    Sweep files and stores cannot make anything run that was not installed for this: launches, workers and `kd-ray data` look the path up
    among the entry points `kd_ray.datasets` of the distributions installed there, and import nothing else.
    """

    name: Literal["factory"]
    function: Annotated[str, Field(pattern=IMPORT_PATH)]
    """`package.module:function`, called as `function(root, parameters)` with the data root; also the set's name in the tables."""
    parameters: Annotated[dict[str, JsonValue], Field(default_factory=dict)]
    """What the function gets as `parameters`; part of the identity."""
    version: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")] | None = None
    """Fingerprint of what it returns, which stands for it in a trial's identity. `kd-ray data check` tells it, and a launch without it is
    refused."""
    samples: Literal["images", "rows"]
    """What it returns: `images` or `rows` of numbers, which are standardised."""
    size: Annotated[int, Field(ge=16, le=512)] | None = None
    """Side of the images in pixels."""
    normalization: Literal["imagenet", "half"] = "imagenet"
    """Channel means and deviations of images: those usual for ImageNet, or 0.5 throughout."""
    target: Annotated[str, Field(min_length=1)] = "label"
    """What the labels are called in the tables."""
    classes: Annotated[tuple[str, ...], Field(min_length=2)]
    """Names of the classes, in the order of the labels."""
    features: tuple[str, ...] = ()
    """Names of the sensitive features that it returns."""
    returns_validation: bool = False
    """Whether it returns a validation split of its own."""

    def __hash__(self) -> int:
        """Over the content: `parameters`, a dictionary, has no hash of its own."""
        return hash(self.model_dump_json())

    @property
    def modality(self) -> Modality:
        """What its samples are."""
        return self.samples

    @property
    def num_classes(self) -> int:
        """Classes of the target."""
        return len(self.classes)

    @property
    def image_size(self) -> int | None:
        """Side of the images in pixels, where there are images."""
        return self.size

    @property
    def has_validation(self) -> bool:
        """Whether part of the data is set aside for validation."""
        return self.returns_validation or self.validation_fraction > 0

    @property
    def sensitive_feature_names(self) -> tuple[str, ...]:
        """As listed."""
        return self.features

    @model_validator(mode="after")
    def _settings_fit(self) -> Self:
        for field in ("classes", "features"):
            names = list(getattr(self, field))
            if len(set(names)) != len(names):
                raise refuse(field, f"repeats a value: {names}")
        if (self.samples == "images") != (self.size is not None):
            raise refuse("size", "is required for images" if self.size is None else "has no effect on rows of numbers")
        if self.samples == "rows" and self.normalization != "imagenet":
            raise refuse("normalization", "has no effect on rows of numbers, which are standardised; remove it")
        if self.returns_validation and self.validation_fraction > 0:
            raise refuse("validation_fraction", "has no effect with returns_validation; keep one of them")
        return self
