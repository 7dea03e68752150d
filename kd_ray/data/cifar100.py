"""CIFAR-100 (Krizhevsky, "Learning multiple layers of features from tiny images", 2009) from its original python files.

`cifar_files` reads them. Labels are the 100 fine classes or the 20 superclasses; there are no sensitive features.
"""

from collections.abc import Mapping
from pathlib import Path

from kd_ray.data import originals
from kd_ray.data.cifar_files import CifarFile, batch, class_names, fetch_archive, unpickle
from kd_ray.data.family import Family, Loading
from kd_ray.data.image_data import ImageData
from kd_ray.data.normalization import NORMALIZATIONS
from kd_ray.sweep.datasets import Cifar100Dataset

FOLDER = "cifar-100-python"
ORIGINAL_MD5 = {
    "train": "16019d7e3df5f24257cddd939b257f8d",
    "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
    "meta": "7973b15100ade9c7d40fb424638fde48",
}
"""File name → MD5 of the published file, as torchvision has it: a copy, because torchvision imports torch, which takes a driver 770 MB."""
FILES = tuple(ORIGINAL_MD5)


def fingerprint(root: Path) -> str:
    """First 16 hex digits of a SHA-256 over names and contents of the three files. Raises DataError when one is missing."""
    return originals.fingerprint_of(_read_files(root))


def load(dataset: Cifar100Dataset, loading: Loading, *, published: Mapping[str, str] = ORIGINAL_MD5) -> ImageData:
    """The images in the files, in their order; `published` has the MD5 of the original files.

    Raises DataError for a missing or damaged file, and files of another version.
    """
    root, target = loading.root, dataset.target
    folder = root / FOLDER
    contents = _read_files(root)
    originals.check_version("cifar100", folder, contents, dataset.version, published)
    files = {name: CifarFile(dataset="cifar100", title="CIFAR-100", path=folder / name) for name in contents}
    dicts = {name: unpickle(files[name], content) for name, content in contents.items()}
    names = class_names(dicts["meta"], files["meta"], key=f"{target}_label_names")
    train, test = (
        batch(dicts[name], files[name], key=f"{target}_labels", num_classes=len(names)) for name in ("train", "test")
    )
    mean, std = NORMALIZATIONS[dataset.normalization]
    return ImageData(train=train, test=test, class_names=names, mean=mean, std=std)


def _read_files(root: Path) -> dict[str, bytes]:
    return originals.read_files(
        "cifar100",
        root / FOLDER,
        FILES,
        how="`kd-ray data prepare cifar100` fetches them, or unpack cifar-100-python.tar.gz",
    )


FAMILY = Family[Cifar100Dataset](
    load=load,
    fingerprint=lambda _, loading: fingerprint(loading.root),
    fetch=lambda _, root, on_bytes: fetch_archive("CIFAR100", root, FOLDER, FILES, on_bytes),
)
