"""Data of the user's own under `dataset` in a sweep file: samples listed in a file, or returned by a function."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, JsonValue, PositiveInt, model_validator

from kd_ray.sweep.architectures import TextModelName
from kd_ray.sweep.classification import (
    Classification,
    MaxLength,
    Modality,
    RandomValidation,
    Side,
    Tokenizing,
    ValidationFraction,
    names_of,
)
from kd_ray.sweep.distillation import IMPORT_PATH
from kd_ray.sweep.fields import Added, Config, Fraction, Seed, bin_names, refuse
from kd_ray.sweep.image_datasets import ImageDataset
from kd_ray.sweep.public_datasets import PublicDataset

AUTO = "auto"
Version = Annotated[str, Field(pattern=rf"^([0-9a-f]{{16}}|{AUTO})$")]
Fraction01 = Annotated[float, Field(ge=0, le=1)]
Deviation = Annotated[float, Field(gt=0, le=1)]


class Bins(Config):
    """How the numbers of one column become groups or classes."""

    column: Annotated[str, Field(min_length=1)]
    """Name of the column."""
    edges: Annotated[tuple[float, ...], Field(min_length=1)]
    """Increasing; k edges make k + 1 bins, and a number equal to an edge belongs to the bin above it."""

    @model_validator(mode="after")
    def _edges_increase(self) -> Self:
        if list(self.edges) != sorted(set(self.edges)):
            raise refuse("edges", f"must increase, got {list(self.edges)}")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """`<18`, `18-40`, `>=40`."""
        return bin_names(self.edges)


class Normalization(Config):
    """Channel means and deviations of images of one's own."""

    mean: tuple[Fraction01, Fraction01, Fraction01]
    """Of red, green and blue, for pixels in 0..1."""
    std: tuple[Deviation, Deviation, Deviation]
    """Standard deviations of the same."""


class ListedDataset(Classification):
    """Images, rows of numbers or texts of your own, listed in a CSV or Parquet file: a row for each, with a label, and with features."""

    name: Literal["manifest"]
    path: Annotated[str, Field(pattern=r"\.(csv|parquet)$")]
    """The list, below the data root."""
    version: Version | None = None
    """Fingerprint of the rows and images, which stands for them in a trial's identity. `kd-ray data check` prints it; a launch
    without it is refused. `auto`: the first launch of the sweep records it, and later ones refuse other data."""
    title: Annotated[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")] | None, Added(None)] = None
    """Name of the set in the tables; left out, the name is `manifest`. Part of a trial's identity."""
    image: Annotated[str, Field(min_length=1)] = "file"
    """Column with the images: paths relative to the list's folder, or, in Parquet, encoded images or 3 · size² bytes each."""
    channels: Annotated[Literal["first", "last"] | None, Added(None)] = None
    """Order of 3 · size² bytes: `last`, red, green and blue of each pixel; `first`, all of red, then all of green, then all of blue. Left
    out, it is `last`, and images that look like `first` are refused."""
    columns: Annotated[tuple[str, ...], Added([])] = ()
    """Columns that are the inputs, instead of an image: numbers, which are standardised by the training split, in Parquet also lists of
    them; or `categorical`."""
    categorical: Annotated[tuple[str, ...], Added([])] = ()
    """Those of `columns` whose values are categories, and become a 0 or 1 for each value of the training split."""
    text: Annotated[Annotated[str, Field(min_length=1)] | None, Added(None)] = None
    """Column with the texts, instead of an image."""
    tokenizer: Annotated[TextModelName | None, Added(None)] = None
    """`hf:NAME`: whose tokenizer turns texts into numbers; teacher and student must know these numbers."""
    tokenizer_version: Annotated[Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")] | None, Added(None)] = None
    """Fingerprint of the tokenizer; left out, `plan` fills in that of the one it finds, so it is part of every trial's identity."""
    max_length: Annotated[MaxLength, Added(128)] = 128
    """Most tokens of a text, the two at its ends included; longer texts are cut."""
    target: Annotated[str, Field(min_length=1)] = "label"
    """Column with the label."""
    classes: tuple[str, ...] = ()
    """The labels, in the order of class indices; left out where the target has bins, which are the classes then."""
    features: tuple[str, ...] = ()
    """Columns with sensitive features. Not part of a trial's identity: more can be added to a finished sweep."""
    id: Annotated[Annotated[str, Field(min_length=1)] | None, Added(None)] = None
    """Column with a different name for each row, by which attributes can be joined later; left out, it is the image's file, or the row's
    number from 0. Not part of a trial's identity."""
    separator: Annotated[str, Field(min_length=1)] | None = None
    """Splits the text of a feature into the groups that the sample belongs to, as `;` does with `a;b`; left out, each has one."""
    bins: tuple[Bins, ...] = ()
    """Edges for the columns with numbers, a feature or the target."""
    min_group_size: PositiveInt = 1
    """Test samples that a group needs to be compared; smaller ones are left out of the feature, their samples stay. It holds for the
    joint groups of `intersections`, too. Not part of a trial's identity."""
    missing: Literal["refuse", "leave_out"] = "refuse"
    """What to do with rows whose image file does not exist or cannot be used, or that lack a value in one of `columns`, or a text."""
    missing_values: Annotated[tuple[str, ...], Added([])] = ()
    """Texts that mean that there is no value, as `[NA, "?"]`, in features, bins and `columns`; empty texts and nulls always do."""
    split: Annotated[str, Field(min_length=1)] | None = None
    """Column with `train`, `test` or `validation`; left out, the test split is drawn at random."""
    test_fraction: Fraction | None = None
    """Share of a random test split, where there is no column for it."""
    split_seed: Seed = 0
    """Seed of random splits."""
    validation_fraction: ValidationFraction = 0.0
    """Share of the training split, after `long_tail`, set aside for validation; 0 means none, or those of the split column."""
    size: Side | None = None
    """Side of the images in pixels: the central square of each is resized to it."""
    normalization: Literal["imagenet", "half"] | Normalization = "imagenet"
    """Channel means and deviations of images: those usual for ImageNet, 0.5 throughout, or `{mean: […], std: […]}`."""

    @property
    def files(self) -> tuple[str, ...]:
        """The list."""
        return (self.path,)

    @property
    def modality(self) -> Modality:
        """The kind of samples."""
        return "texts" if self.text is not None else "rows" if self.columns else "images"

    @property
    def table_name(self) -> str:
        """The title, where there is one."""
        return self.title or self.name

    @property
    def inputs(self) -> tuple[str, ...]:
        """The columns that networks see."""
        return self.columns or (self.text if self.text is not None else self.image,)

    @property
    def tokenizing(self) -> Tokenizing | None:
        """How texts become numbers; None where there are no texts."""
        if self.tokenizer is None:
            return None
        return Tokenizing(tokenizer=self.tokenizer, version=self.tokenizer_version, max_length=self.max_length)

    @property
    def random_validation(self) -> tuple[float, int] | None:
        """As the two fields say."""
        return (self.validation_fraction, self.split_seed) if self.validation_fraction > 0 else None

    @property
    def has_validation(self) -> bool:
        """Whether part of the data is set aside for validation; with a split column, it may be."""
        return self.split is not None or self.validation_fraction > 0

    @property
    def num_classes(self) -> int:
        """Classes of the target."""
        return len(self.class_names)

    @property
    def image_size(self) -> int | None:
        """Side of the images in pixels, where there are images."""
        return self.size

    @property
    def class_names(self) -> tuple[str, ...]:
        """The labels, or the names of the target's bins."""
        return self.classes or next(bins.names for bins in self.bins if bins.column == self.target)

    @property
    def sensitive_feature_names(self) -> tuple[str, ...]:
        """The columns listed."""
        return self.features

    def without_grouping(self, used: str | None = None) -> Self:
        """Without features, their bins and the rules for their groups. Texts for missing values stay where inputs may have them."""
        kept: dict[str, Any] = {
            "features": () if used is None else (used,),
            "id": None,
            "bins": tuple(bins for bins in self.bins if bins.column in (self.target, used)),
        }
        if used is None:
            kept |= {"separator": None, "min_group_size": 1}
            kept |= {"missing_values": ()} if self.modality == "images" else {}
        return self.model_copy(update=kept)

    @property
    def least_joint_group(self) -> int:
        """As for single groups."""
        return self.min_group_size

    @model_validator(mode="after")
    def _columns_fit(self) -> Self:
        binned = [bins.column for bins in self.bins]
        if (self.target in binned) == bool(self.classes):
            what = "is required" if not self.classes else f"has no effect: the bins of {self.target} are the classes"
            raise refuse("classes", what)
        if self.classes and (len(set(self.classes)) != len(self.classes) or len(self.classes) < 2):
            raise refuse("classes", f"must be at least two different labels, got {list(self.classes)}")
        others = [*self.inputs, self.target, *([self.split] if self.split is not None else [])]
        if len(set(others)) != len(others):
            what = "columns" if self.columns else "image" if self.text is None else "text"
            raise refuse("target", f"{what}, target and split must be different columns, got {', '.join(others)}")
        # A network may see a sensitive feature, if it is among the inputs.
        others = [name for name in others if name not in self.columns]
        if len(set(self.features)) != len(self.features) or set(others) & set(self.features):
            what = f"must be different columns, none of them {', '.join(others)}, got {list(self.features)}"
            raise refuse("features", what)
        if len(set(binned)) != len(binned) or not set(binned) <= {self.target, *self.features}:
            raise refuse("bins", f"must name the target or features, each once, got {binned}")
        if self.separator and not set(self.features) - set(binned):
            raise refuse("separator", "has no effect without a feature of text")
        return self

    @model_validator(mode="after")
    def _inputs_fit(self) -> Self:
        if self.modality == "images" and self.size is None:
            raise refuse("size", "is required for images")
        if self.columns and self.text is not None:
            raise refuse("text", "has no effect with columns; keep one of them")
        if (self.text is None) != (self.tokenizer is None):
            raise refuse(
                "tokenizer", "is required for texts" if self.text is not None else "has no effect without text"
            )
        if self.text is None and (self.max_length != 128 or self.tokenizer_version is not None):
            field = "max_length" if self.max_length != 128 else "tokenizer_version"
            raise refuse(field, "has no effect without text; remove it")
        if not set(self.categorical) <= set(self.columns) or len(set(self.categorical)) != len(self.categorical):
            raise refuse("categorical", f"must name some of columns, each once, got {list(self.categorical)}")
        if self.modality == "images":
            return self
        why = "columns, which are standardised numbers" if self.columns else "text"
        for field, before in (("image", "file"), ("size", None), ("normalization", "imagenet"), ("channels", None)):
            if getattr(self, field) != before:
                raise refuse(field, f"has no effect with {why}; remove it")
        return self

    @model_validator(mode="after")
    def _title_is_free(self) -> Self:
        if self.title in (*names_of(ImageDataset | PublicDataset), "manifest", "factory"):
            raise refuse("title", f"is the name of another data set, got {self.title!r}")
        return self

    @model_validator(mode="after")
    def _splits_fit(self) -> Self:
        if (self.split is None) == (self.test_fraction is None):
            raise refuse("test_fraction", "give either split, the column that says it, or test_fraction")
        if self.split is not None and self.split_seed != 0 and self.validation_fraction == 0:
            raise refuse("split_seed", "has no effect without a random split; remove it")
        return self


class FactoryDataset(RandomValidation):
    """The result of a function of yours, a `kd_ray.data.factory.OwnData`; for data that no list can describe.

    Sweep files and stores cannot make anything run that was not installed for this: launches, workers and `kd-ray data` look the path up
    among the entry points `kd_ray.datasets` of the distributions installed there, and import nothing else.
    """

    name: Literal["factory"]
    function: Annotated[str, Field(pattern=IMPORT_PATH)]
    """`package.module:function`, called as `function(root, parameters)` with the data root; also the set's name in the tables."""
    parameters: Annotated[dict[str, JsonValue], Field(default_factory=dict)]
    """The `parameters` of the call; part of the identity."""
    version: Version | None = None
    """Fingerprint of the result, which stands for it in a trial's identity. `kd-ray data check` prints it; a launch without it is
    refused. `auto`: as in a list."""
    samples: Literal["images", "rows"]
    """The kind of samples: `images`, or `rows` of numbers, which are standardised."""
    size: Annotated[int, Field(ge=16, le=512)] | None = None
    """Side of the images in pixels."""
    normalization: Literal["imagenet", "half"] | Normalization = "imagenet"
    """Channel means and deviations of images: those usual for ImageNet, 0.5 throughout, or `{mean: […], std: […]}`."""
    target: Annotated[str, Field(min_length=1)] = "label"
    """Name of the labels in the tables."""
    classes: Annotated[tuple[str, ...], Field(min_length=2)]
    """Names of the classes, in the order of the labels."""
    features: tuple[str, ...] = ()
    """Names of the sensitive features that it returns."""
    returns_validation: bool = False
    """Whether the function returns a validation split."""

    def __hash__(self) -> int:
        """Of the content, because the dictionary `parameters` has no hash."""
        return hash(self.model_dump_json())

    @property
    def table_name(self) -> str:
        """The path of the function."""
        return self.function

    @property
    def modality(self) -> Modality:
        """The kind of samples."""
        return self.samples

    @property
    def num_classes(self) -> int:
        """Classes of the target."""
        return len(self.classes)

    @property
    def class_names(self) -> tuple[str, ...]:
        """As listed."""
        return self.classes

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

    def without_grouping(self, used: str | None = None) -> Self:
        """Without the names of the features; the function returns all it has, and `version` stands for them."""
        return self.model_copy(update={"features": () if used is None else (used,)})

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
