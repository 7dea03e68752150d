"""What a sweep file may say under `dataset`: one model for each family of data sets.

Each knows, without looking at a file, how many classes there are, how large the images are and which features can be examined for
fairness; so a sweep is checked before any data are read.
"""

from typing import Annotated, Literal, Self, get_args

from pydantic import Field, PositiveInt, model_validator

from kd_ray.sweep.architectures import TextModelName
from kd_ray.sweep.classification import Classification, Modality, RandomValidation, ValidationFraction
from kd_ray.sweep.fields import Added, Config, Fingerprint, Fraction, Seed, bin_names, refuse
from kd_ray.sweep.row_datasets import AdultDataset, FactoryDataset

Side = Annotated[int, Field(ge=16, le=512)]
MaxLength = Annotated[int, Field(ge=8, le=512)]

CelebaAttribute = Literal[
    "5_o_Clock_Shadow", "Arched_Eyebrows", "Attractive", "Bags_Under_Eyes", "Bald", "Bangs", "Big_Lips", "Big_Nose", "Black_Hair",
    "Blond_Hair", "Blurry", "Brown_Hair", "Bushy_Eyebrows", "Chubby", "Double_Chin", "Eyeglasses", "Goatee", "Gray_Hair",
    "Heavy_Makeup", "High_Cheekbones", "Male", "Mouth_Slightly_Open", "Mustache", "Narrow_Eyes", "No_Beard", "Oval_Face", "Pale_Skin",
    "Pointy_Nose", "Receding_Hairline", "Rosy_Cheeks", "Sideburns", "Smiling", "Straight_Hair", "Wavy_Hair", "Wearing_Earrings",
    "Wearing_Hat", "Wearing_Lipstick", "Wearing_Necklace", "Wearing_Necktie", "Young",
]  # fmt: skip
CELEBA_ATTRIBUTES: tuple[str, ...] = get_args(CelebaAttribute)
"""The 40 attributes, in the order of list_attr_celeba.txt."""


class TrifeatureDataset(Classification):
    """Generated images that differ in shape, texture and color (Hermann & Lampinen, NeurIPS 2020)."""

    name: Literal["trifeature"]
    target: Literal["shape", "texture", "color"] = "shape"
    """The feature to classify; the other two are sensitive features."""
    size: Annotated[int, Field(ge=16, le=224)] = 224
    """Side of the images in pixels; below 224 they are averaged over areas."""
    images_per_combination: PositiveInt = 10
    """Images for each of the 1,000 combinations of shape, texture and color."""
    generator_seed: Seed = 0
    """Seed of the images."""
    split_seed: Seed = 0
    """Seed of the plain random split into train and test."""
    test_fraction: Fraction = 0.5
    """Share of the images in the test split."""
    validation_fraction: ValidationFraction = 0.0
    """Share of the training split set aside for validation; 0 means none."""

    @property
    def has_validation(self) -> bool:
        """Whether part of the data is set aside for validation."""
        return self.validation_fraction > 0

    @property
    def num_classes(self) -> int:
        """Classes of the target."""
        return 10

    @property
    def image_size(self) -> int:
        """Side of the images in pixels."""
        return self.size

    @property
    def sensitive_feature_names(self) -> tuple[str, ...]:
        """The features that can be examined for fairness."""
        return tuple(name for name in ("shape", "texture", "color") if name != self.target)


class Cifar10Dataset(RandomValidation):
    """CIFAR-10 (Krizhevsky 2009) from its original python files under `<data_root>/cifar-10-batches-py`."""

    name: Literal["cifar10"]
    target: Literal["class"] = "class"
    """What is classified: the ten classes."""
    version: Fingerprint = "original"
    """`original` (checksums of the published files), or the fingerprint of another set of files in the same layout."""
    normalization: Literal["cifar10", "imagenet"] = "cifar10"
    """Whose channel means and deviations standardise the pixels; pretrained weights need the ones they were trained with."""

    @property
    def num_classes(self) -> int:
        """Classes of the target."""
        return 10

    @property
    def image_size(self) -> int:
        """Side of the images in pixels."""
        return 32


class Cifar100Dataset(RandomValidation):
    """CIFAR-100 (Krizhevsky 2009) from its original python files under `<data_root>/cifar-100-python`."""

    name: Literal["cifar100"]
    target: Literal["fine", "coarse"] = "fine"
    """What is classified: the 100 classes, or their 20 superclasses."""
    version: Fingerprint = "original"
    """`original` (checksums of the published files), or the fingerprint of another set of files in the same layout."""
    normalization: Literal["cifar100", "imagenet"] = "cifar100"
    """Whose channel means and deviations standardise the pixels; pretrained weights need the ones they were trained with."""

    @property
    def num_classes(self) -> int:
        """Classes of the target."""
        return 100 if self.target == "fine" else 20

    @property
    def image_size(self) -> int:
        """Side of the images in pixels."""
        return 32


class SvhnDataset(RandomValidation):
    """Cropped digits of SVHN (Netzer et al. 2011) from `train_32x32.mat` and `test_32x32.mat` under `<data_root>/svhn`."""

    name: Literal["svhn"]
    target: Literal["digit"] = "digit"
    """What is classified: the ten digits."""
    extra: bool = False
    """Train on `extra_32x32.mat` as well: 531,131 easier images."""
    version: Fingerprint = "original"
    """`original` (checksums of the published files), or the fingerprint of another set of files in the same layout."""
    normalization: Literal["svhn", "imagenet"] = "svhn"
    """Whose channel means and deviations standardise the pixels; pretrained weights need the ones they were trained with."""

    @property
    def num_classes(self) -> int:
        """Classes of the target."""
        return 10

    @property
    def image_size(self) -> int:
        """Side of the images in pixels."""
        return 32


class TinyImagenetDataset(RandomValidation):
    """Tiny ImageNet (200 classes at 64 pixels) from `<data_root>/tiny-imagenet-200`; its validation images are the test split."""

    name: Literal["tiny_imagenet"]
    target: Literal["class"] = "class"
    """What is classified: the classes of wnids.txt, in its order."""
    num_classes: Annotated[int, Field(ge=2, le=200)] = 200
    """Classes in wnids.txt; fewer than 200 for a part of the set."""
    size: Annotated[int, Field(ge=16, le=64)] = 64
    """Side of the images in pixels."""
    version: Fingerprint = "original"
    """`original` (200 classes of 500 and 50 images; nobody publishes checksums of the files), or the fingerprint of what is there."""
    normalization: Literal["imagenet", "half"] = "imagenet"
    """Channel means and deviations: those usual for ImageNet, or 0.5 throughout."""

    @property
    def image_size(self) -> int:
        """Side of the images in pixels."""
        return self.size


class ImagenetDataset(RandomValidation):
    """ImageNet-1k, or other images in its layout, in memory or streamed: `<data_root>/<folder>/{train,val}/<class>/<file>`.

    The validation images are the test split.
    """

    name: Literal["imagenet"]
    target: Literal["class"] = "class"
    """What is classified: the folders of `train`, in the order of their names."""
    folder: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = "imagenet"
    """Name of the folder below the data root."""
    num_classes: Annotated[int, Field(ge=2)] = 1000
    """Folders of `train`; another number than 1000 for other sets."""
    size: Side = 64
    """Side of the images in pixels. All of ImageNet-1k takes 1.33 million · 3 · size² bytes: 16 GB at 64, 200 GB at 224, which
    is more than `placement.resident_gb`, so it is streamed."""
    version: Fingerprint = "original"
    """`original` (1,281,167 and 50,000 images in 1,000 classes), or the fingerprint of what is there."""
    normalization: Literal["imagenet", "half"] = "imagenet"
    """Channel means and deviations: those usual for ImageNet, or 0.5 throughout."""

    @property
    def image_size(self) -> int:
        """Side of the images in pixels."""
        return self.size


class CelebaDataset(Classification):
    """CelebA (Liu et al. 2015), aligned and cropped faces, from `<data_root>/celeba`; every attribute but the target is a feature."""

    name: Literal["celeba"]
    target: CelebaAttribute = "Smiling"
    """The attribute to classify: class 0 does not have it, class 1 has it."""
    size: Side = 64
    """Side of the images in pixels."""
    crop: Annotated[int, Field(ge=16, le=178)] = 178
    """Side of the central square of the 178 × 218 images that is kept, in pixels, before it is resized."""
    balance: Literal["none", "train", "train_and_test"] = "none"
    """In which splits the larger of the two labels is cut at random to the size of the smaller; `train` includes the validation split."""
    balance_seed: Seed = 0
    """Seed of that cut."""
    validation: Literal["none", "official"] = "none"
    """`official`: the set's own validation images; `none`: they are not used."""
    version: Fingerprint = "original"
    """`original` (both lists by published checksum, and all 202,599 images), or the fingerprint of what is there."""
    normalization: Literal["imagenet", "half"] = "half"
    """Channel means and deviations: those usual for ImageNet, or 0.5 throughout."""

    @property
    def has_validation(self) -> bool:
        """Whether part of the data is set aside for validation."""
        return self.validation == "official"

    @property
    def num_classes(self) -> int:
        """Without and with the attribute."""
        return 2

    @property
    def image_size(self) -> int:
        """Side of the images in pixels."""
        return self.size

    @property
    def sensitive_feature_names(self) -> tuple[str, ...]:
        """All attributes but the target."""
        return tuple(name for name in CELEBA_ATTRIBUTES if name != self.target)

    @model_validator(mode="after")
    def _balance_fits(self) -> Self:
        if self.balance == "none" and self.balance_seed != 0:
            raise refuse("balance_seed", "has no effect without balance; remove it or set balance")
        if self.balance != "none" and self.long_tail is not None:
            raise refuse("balance", "makes classes equal, and long_tail makes them unequal; keep one of them")
        return self


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


class ManifestDataset(Classification):
    """Images, rows of numbers or texts of your own, listed in a CSV or Parquet file: a row for each, with a label, and with features."""

    name: Literal["manifest"]
    path: Annotated[str, Field(pattern=r"\.(csv|parquet)$")]
    """The list, below the data root."""
    version: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")] | None = None
    """Fingerprint of the rows and images, which stands for them in a trial's identity. `kd-ray data check` tells it, and a launch
    without it is refused."""
    title: Annotated[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")] | None, Added(None)] = None
    """Name of the set in the tables; left out, it is `manifest` there, as of every list without one. Part of a trial's identity."""
    image: Annotated[str, Field(min_length=1)] = "file"
    """Column with the images: paths relative to the list's folder, or, in Parquet, encoded images or 3 · size² bytes each."""
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
    """Most tokens of a text, the two at its ends included; what is longer is cut."""
    target: Annotated[str, Field(min_length=1)] = "label"
    """Column with the label."""
    classes: tuple[str, ...] = ()
    """The labels, in the order of class indices; left out where the target has bins, which are the classes then."""
    features: tuple[str, ...] = ()
    """Columns with sensitive features."""
    separator: Annotated[str, Field(min_length=1)] | None = None
    """Splits the text of a feature into the groups that the sample belongs to, as `;` does with `a;b`; left out, each has one."""
    bins: tuple[Bins, ...] = ()
    """Edges for the columns with numbers, a feature or the target."""
    min_group_size: PositiveInt = 1
    """Test samples that a group needs to be compared; smaller ones are left out of the feature, their samples stay."""
    missing: Literal["refuse", "leave_out"] = "refuse"
    """What to do with rows whose image file does not exist, or that lack a value in one of `columns`, or a text."""
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
    normalization: Literal["imagenet", "half"] = "imagenet"
    """Channel means and deviations of images: those usual for ImageNet, or 0.5 throughout."""

    @property
    def modality(self) -> Modality:
        """What its samples are."""
        return "texts" if self.text is not None else "rows" if self.columns else "images"

    @property
    def inputs(self) -> tuple[str, ...]:
        """The columns that networks see."""
        return self.columns or (self.text if self.text is not None else self.image,)

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
        for field, before in (("image", "file"), ("size", None), ("normalization", "imagenet")):
            if getattr(self, field) != before:
                raise refuse(field, f"has no effect with {why}; remove it")
        return self

    @model_validator(mode="after")
    def _title_is_free(self) -> Self:
        if self.title in DATASET_NAMES:
            raise refuse("title", f"is the name of another data set, got {self.title!r}")
        return self

    @model_validator(mode="after")
    def _splits_fit(self) -> Self:
        if (self.split is None) == (self.test_fraction is None):
            raise refuse("test_fraction", "give either split, the column that says it, or test_fraction")
        if self.split is not None and self.split_seed != 0 and self.validation_fraction == 0:
            raise refuse("split_seed", "has no effect without a random split; remove it")
        return self


class HatexplainDataset(Classification):
    """HateXplain (Mathew et al., AAAI 2021): posts labelled by three annotators, from `<data_root>/hatexplain/Data`.

    The splits are those of `post_id_divisions.json`; posts on which all three annotators differ are in none of them.
    """

    name: Literal["hatexplain"]
    target: Literal["toxic", "label"] = "toxic"
    """By majority vote: `toxic`, hate speech or offensive against normal; `label`, the three classes."""
    tokenizer: TextModelName
    """`hf:NAME`: whose tokenizer turns posts into numbers; teacher and student must know these numbers."""
    tokenizer_version: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")] | None = None
    """Fingerprint of the tokenizer; left out, `plan` fills in that of the one it finds, so it is part of every trial's identity."""
    max_length: MaxLength = 128
    """Most tokens of a post, the two at its ends included; what is longer is cut."""
    version: Fingerprint = "original"
    """`original` (all 20,148 posts in `dataset.json`), or the fingerprint of what is there."""
    train_file: Literal["dataset", "train_partial"] = "dataset"
    """Where training posts come from: `dataset`, the published `Data/dataset.json`; `train_partial`, a substitute where that file holds
    only the other splits: `train_partial.jsonl.gz`, which has the same posts and votes, and of the communities only a union or the first
    annotator's."""
    min_annotators: Annotated[int, Field(ge=1, le=3)] = 2
    """Annotators of three that must name a community for a post to count as targeting it."""
    several_groups: Literal["each", "leave_out", "own_group"] = "each"
    """A post that targets several groups of a feature: counts in each; in none; or in a group `several` of their own."""
    no_group: Literal["leave_out", "own_group"] = "leave_out"
    """A post that targets no group of a feature: counts in none, or in a group `not targeted` of their own."""
    validation: Literal["none", "official"] = "none"
    """`official`: the set's own validation posts; `none`: they are not used."""

    @property
    def modality(self) -> Modality:
        """What its samples are."""
        return "texts"

    @property
    def image_size(self) -> None:
        """There are no images."""
        return

    @property
    def has_validation(self) -> bool:
        """Whether part of the data is set aside for validation."""
        return self.validation == "official"

    @property
    def num_classes(self) -> int:
        """Normal and toxic, or normal, offensive and hate speech."""
        return 2 if self.target == "toxic" else 3

    @property
    def sensitive_feature_names(self) -> tuple[str, ...]:
        """Each has the groups that `data/hatexplain.py` names."""
        return ("gender", "race", "religion")


def input_size(dataset: "Dataset") -> int:
    """Side of the images in pixels, or most tokens of a text; 0 for rows, whose width only the data tell."""
    if isinstance(dataset, HatexplainDataset | ManifestDataset) and dataset.tokenizer is not None:
        return dataset.max_length
    return dataset.image_size or 0


Dataset = Annotated[
    TrifeatureDataset
    | Cifar10Dataset
    | Cifar100Dataset
    | SvhnDataset
    | TinyImagenetDataset
    | ImagenetDataset
    | CelebaDataset
    | AdultDataset
    | HatexplainDataset
    | ManifestDataset
    | FactoryDataset,
    Field(discriminator="name"),
]
"""One of the data sets, told apart by `name`."""
DATASET_NAMES: tuple[str, ...] = tuple(
    get_args(model.model_fields["name"].annotation)[0] for model in get_args(get_args(Dataset)[0])
)
"""The names, in that order."""


def table_name(dataset: Dataset) -> str:
    """What the tables call the data set: the title of a list, the path of a function, else its name."""
    match dataset:
        case ManifestDataset(title=str(title)):
            return title
        case FactoryDataset():
            return dataset.function
        case _:
            return dataset.name
