"""CIFAR-10 (Krizhevsky, "Learning multiple layers of features from tiny images", 2009) from its original python files.

`cifar_files` reads them. CIFAR-10 has no sensitive features.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from kd_ray.data import originals
from kd_ray.data.cifar_files import CifarFile, batch, class_names, fetch_archive, unpickle
from kd_ray.data.family import Family, Loading
from kd_ray.data.image_data import ImageData, Split
from kd_ray.data.normalization import NORMALIZATIONS
from kd_ray.sweep.datasets import Cifar10Dataset

FOLDER = "cifar-10-batches-py"
ORIGINAL_MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
    "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
}
"""File name → MD5 of the published file, as torchvision has it: a copy, because torchvision imports torch, which takes a driver 770 MB."""
FILES = tuple(ORIGINAL_MD5)

_TRAIN = FILES[:5]


def fingerprint(root: Path) -> str:
    """First 16 hex digits of a SHA-256 over names and contents of the seven files. Raises DataError when one is missing."""
    return originals.fingerprint_of(_read_files(root))


def load(dataset: Cifar10Dataset, loading: Loading, *, published: Mapping[str, str] = ORIGINAL_MD5) -> ImageData:
    """The images in the files, in their order; `published` has the MD5 of the original files.

    Raises DataError for a missing or damaged file, and files of another version.
    """
    root = loading.root
    folder = root / FOLDER
    contents = _read_files(root)
    originals.check_version("cifar10", folder, contents, dataset.version, published)
    files = {name: CifarFile(dataset="cifar10", title="CIFAR-10", path=folder / name) for name in contents}
    dicts = {name: unpickle(files[name], content) for name, content in contents.items()}
    names = class_names(dicts["batches.meta"], files["batches.meta"], key="label_names")
    batches = {
        name: batch(dicts[name], files[name], key="labels", num_classes=len(names)) for name in [*_TRAIN, "test_batch"]
    }
    train = Split(
        images_NHWC=np.concatenate([batches[name].images_NHWC for name in _TRAIN]),
        labels_N=np.concatenate([batches[name].labels_N for name in _TRAIN]),
    )
    mean, std = NORMALIZATIONS[dataset.normalization]
    return ImageData(train=train, test=batches["test_batch"], class_names=names, mean=mean, std=std)


def _read_files(root: Path) -> dict[str, bytes]:
    return originals.read_files(
        "cifar10",
        root / FOLDER,
        FILES,
        how="`kd-ray data prepare cifar10` fetches them, or unpack cifar-10-python.tar.gz",
    )


FAMILY = Family[Cifar10Dataset](
    load=load,
    fingerprint=lambda _, loading: fingerprint(loading.root),
    fetch=lambda _, root, on_bytes: fetch_archive("CIFAR10", root, FOLDER, FILES, on_bytes),
)
