"""CIFAR-10 (Krizhevsky, "Learning multiple layers of features from tiny images", 2009) from its original python files.

`cifar_files` reads them. CIFAR-10 has no sensitive features.
"""

from pathlib import Path

import numpy as np

from kd_ray.data import originals
from kd_ray.data.cifar_files import CifarFile, batch, class_names, unpickle
from kd_ray.data.images import ImageData, Split
from kd_ray.data.normalization import NORMALIZATIONS

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
"""File name → MD5 of the published file."""

_TRAIN = [name for name in ORIGINAL_MD5 if name.startswith("data_batch")]


def fingerprint(root: Path) -> str:
    """First 16 hex digits of a SHA-256 over names and contents of the seven files. Raises DataError when one is missing."""
    return originals.fingerprint_of(_read_files(root))


def load(*, root: Path, version: str = "original", normalization: str = "cifar10") -> ImageData:
    """The images under `root`/cifar-10-batches-py, as many as the files hold, in their order.

    `version` is "original" (the published files, by checksum) or the fingerprint of other files in the same layout.

    Raises DataError for a missing or damaged file, and files of another version.
    """
    folder = root / FOLDER
    contents = _read_files(root)
    originals.check_version("cifar10", folder, contents, version, ORIGINAL_MD5)
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
    mean, std = NORMALIZATIONS[normalization]
    return ImageData(train=train, test=batches["test_batch"], class_names=names, mean=mean, std=std)


def _read_files(root: Path) -> dict[str, bytes]:
    return originals.read_files("cifar10", root / FOLDER, tuple(ORIGINAL_MD5), how="unpack cifar-10-python.tar.gz")
