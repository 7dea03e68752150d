"""Data sets of images under `dataset` in a sweep file: one model for each family."""

from typing import Annotated, Literal, Self, get_args

from pydantic import Field, PositiveInt, model_validator

from kd_ray.sweep.classification import Classification, OfficialValidation, RandomValidation, Side, ValidationFraction
from kd_ray.sweep.fields import Fingerprint, Fraction, Seed, refuse

FolderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
NumClasses = Annotated[int, Field(ge=2)]

CelebaAttribute = Literal[
    "5_o_Clock_Shadow", "Arched_Eyebrows", "Attractive", "Bags_Under_Eyes", "Bald", "Bangs", "Big_Lips", "Big_Nose", "Black_Hair",
    "Blond_Hair", "Blurry", "Brown_Hair", "Bushy_Eyebrows", "Chubby", "Double_Chin", "Eyeglasses", "Goatee", "Gray_Hair",
    "Heavy_Makeup", "High_Cheekbones", "Male", "Mouth_Slightly_Open", "Mustache", "Narrow_Eyes", "No_Beard", "Oval_Face", "Pale_Skin",
    "Pointy_Nose", "Receding_Hairline", "Rosy_Cheeks", "Sideburns", "Smiling", "Straight_Hair", "Wavy_Hair", "Wearing_Earrings",
    "Wearing_Hat", "Wearing_Lipstick", "Wearing_Necklace", "Wearing_Necktie", "Young",
]  # fmt: skip
CELEBA_ATTRIBUTES: tuple[str, ...] = get_args(CelebaAttribute)
"""The 40 attributes, in the order of list_attr_celeba.txt."""


def _below(folder: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{folder}/{name}" for name in names)


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
    def random_validation(self) -> tuple[float, int] | None:
        """As the two fields say."""
        return (self.validation_fraction, self.split_seed) if self.validation_fraction > 0 else None

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


class PublishedImages(RandomValidation):
    """Base of the sets of 32 × 32 images that come as a few published files."""

    version: Fingerprint = "original"
    """`original` (checksums of the published files), or the fingerprint of another set of files in the same layout."""

    @property
    def image_size(self) -> int:
        """Side of the images in pixels."""
        return 32


class Cifar10Dataset(PublishedImages):
    """CIFAR-10 (Krizhevsky 2009) from its original python files under `<data_root>/cifar-10-batches-py`."""

    name: Literal["cifar10"]
    target: Literal["class"] = "class"
    """What is classified: the ten classes."""
    normalization: Literal["cifar10", "imagenet"] = "cifar10"
    """Whose channel means and deviations standardise the pixels; pretrained weights need the ones they were trained with."""

    @property
    def files(self) -> tuple[str, ...]:
        """The original files."""
        return _below("cifar-10-batches-py", *(f"data_batch_{n}" for n in range(1, 6)), "test_batch", "batches.meta")

    @property
    def num_classes(self) -> int:
        """Classes of the target."""
        return 10


class Cifar100Dataset(PublishedImages):
    """CIFAR-100 (Krizhevsky 2009) from its original python files under `<data_root>/cifar-100-python`."""

    name: Literal["cifar100"]
    target: Literal["fine", "coarse"] = "fine"
    """What is classified: the 100 classes, or their 20 superclasses."""
    normalization: Literal["cifar100", "imagenet"] = "cifar100"
    """Whose channel means and deviations standardise the pixels; pretrained weights need the ones they were trained with."""

    @property
    def files(self) -> tuple[str, ...]:
        """The original files."""
        return _below("cifar-100-python", "train", "test", "meta")

    @property
    def num_classes(self) -> int:
        """Classes of the target."""
        return 100 if self.target == "fine" else 20


class SvhnDataset(PublishedImages):
    """Cropped digits of SVHN (Netzer et al. 2011) from `train_32x32.mat` and `test_32x32.mat` under `<data_root>/svhn`."""

    name: Literal["svhn"]
    target: Literal["digit"] = "digit"
    """What is classified: the ten digits."""
    extra: bool = False
    """Train on `extra_32x32.mat` as well: 531,131 easier images."""
    normalization: Literal["svhn", "imagenet"] = "svhn"
    """Whose channel means and deviations standardise the pixels; pretrained weights need the ones they were trained with."""

    @property
    def files(self) -> tuple[str, ...]:
        """The files of the splits."""
        return _below(
            "svhn", *(f"{split}_32x32.mat" for split in ("train", "test", *(["extra"] if self.extra else [])))
        )

    @property
    def num_classes(self) -> int:
        """Classes of the target."""
        return 10


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
    def files(self) -> tuple[str, ...]:
        """The list of classes, and the folders of the splits."""
        return _below("tiny-imagenet-200", "wnids.txt", "train", "val")

    @property
    def image_size(self) -> int:
        """Side of the images in pixels."""
        return self.size


class FolderDataset(RandomValidation):
    """Base of the sets with a folder of images for each class: `<data_root>/<folder>/{train,val}/<class>/<file>`.

    Images are kept in memory or streamed. The validation images are the test split. `data/image_folders.py` loads all of these sets.
    """

    target: Literal["class"] = "class"
    """What is classified: the folders of `train`, in the order of their names."""
    folder: FolderName
    """Name of the folder below the data root."""
    num_classes: NumClasses
    """Folders of `train`; another number than the published one for a part of the set."""
    size: Side = 64
    """Side of the images in pixels. All of ImageNet-1k takes 1.33 million · 3 · size² bytes: 16 GB at 64, 200 GB at 224, which
    is more than `placement.resident_gb`, so it is streamed."""
    version: Fingerprint = "original"
    """`original` (the published numbers of classes and images), or the fingerprint of what is there."""
    normalization: Literal["imagenet", "half"] = "imagenet"
    """Channel means and deviations: those usual for ImageNet, or 0.5 throughout."""

    @property
    def files(self) -> tuple[str, ...]:
        """The folders of the splits."""
        return _below(self.folder, "train", "val")

    @property
    def image_size(self) -> int:
        """Side of the images in pixels."""
        return self.size


class ImagenetDataset(FolderDataset):
    """ImageNet-1k (1,281,167 and 50,000 images in 1,000 classes), or other images in its layout."""

    name: Literal["imagenet"]
    folder: FolderName = "imagenet"
    """Name of the folder below the data root."""
    num_classes: NumClasses = 1000
    """Folders of `train`; another number than 1000 for other sets."""


class CelebaDataset(OfficialValidation):
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
    version: Fingerprint = "original"
    """`original` (both lists by published checksum, and all 202,599 images), or the fingerprint of what is there."""
    normalization: Literal["imagenet", "half"] = "half"
    """Channel means and deviations: those usual for ImageNet, or 0.5 throughout."""

    @property
    def files(self) -> tuple[str, ...]:
        """The lists, and the folder of the images."""
        return _below("celeba", "list_attr_celeba.txt", "list_eval_partition.txt", "img_align_celeba")

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


ImageDataset = (
    TrifeatureDataset
    | Cifar10Dataset
    | Cifar100Dataset
    | SvhnDataset
    | TinyImagenetDataset
    | ImagenetDataset
    | CelebaDataset
)
"""One of the families of images."""
