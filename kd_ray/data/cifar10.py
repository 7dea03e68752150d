"""CIFAR-10 (Krizhevsky, "Learning multiple layers of features from tiny images", 2009) from its original python files.

`cifar_files` reads them. CIFAR-10 has no sensitive features.
"""

from pathlib import Path

import numpy as np

from kd_ray.data import originals
from kd_ray.data.cifar_files import CifarFile, batch, class_names, fetch_archive, published_md5, unpickle
from kd_ray.data.family import Family, Loading
from kd_ray.data.images import ImageData, Split
from kd_ray.data.normalization import NORMALIZATIONS
from kd_ray.sweep.datasets import Cifar10Dataset

FOLDER = "cifar-10-batches-py"
_TRAIN = [f"data_batch_{n}" for n in range(1, 6)]
FILES = (*_TRAIN, "test_batch", "batches.meta")


def fingerprint(root: Path) -> str:
    """First 16 hex digits of a SHA-256 over names and contents of the seven files. Raises DataError when one is missing."""
    return originals.fingerprint_of(_read_files(root))


def _published() -> dict[str, str]:
    return published_md5("CIFAR10")


def load(dataset: Cifar10Dataset, loading: Loading, *, published: originals.Published = _published) -> ImageData:
    """The images in the files, in their order; `published` gives the MD5 of the original files.

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
    return originals.read_files("cifar10", root / FOLDER, FILES, how="unpack cifar-10-python.tar.gz")


FAMILY = Family[Cifar10Dataset](
    load=load,
    fingerprint=lambda _, loading: fingerprint(loading.root),
    fetch=lambda _, root, on_bytes: fetch_archive("CIFAR10", root, FOLDER, FILES, on_bytes),
)
