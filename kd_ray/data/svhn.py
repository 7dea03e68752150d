"""SVHN, cropped digits (Netzer et al., "Reading digits in natural images with unsupervised feature learning", 2011), from its .mat files.

The files label the digit 0 with 10; here class c is the digit c. There are no sensitive features.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from kd_ray.data import originals
from kd_ray.data.family import Family, Loading, OnBytes
from kd_ray.data.fetch import download
from kd_ray.data.image_data import ImageData, Split
from kd_ray.data.normalization import NORMALIZATIONS
from kd_ray.errors import DataError
from kd_ray.sweep.datasets import SvhnDataset

FOLDER = "svhn"
ORIGINAL_MD5 = {
    "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
    "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
    "extra_32x32.mat": "a93ce644f1a588dc4d68dda5feec44a7",
}
"""File name → MD5 of the published file, as torchvision has it: a copy, because torchvision imports torch, which takes a driver 770 MB."""
CLASS_NAMES = tuple("0123456789")

_SIDE = 32


def fingerprint(root: Path, *, extra: bool = False) -> str:
    """First 16 hex digits of a SHA-256 over names and contents of the files. Raises DataError when one is missing."""
    return originals.fingerprint_of(_read_files(root, extra=extra))


def load(dataset: SvhnDataset, loading: Loading, *, published: Mapping[str, str] = ORIGINAL_MD5) -> ImageData:
    """The images in the files, in their order; with `extra`, its images follow those of train. `published` has the MD5 of the original
    files.

    Raises DataError for a missing or damaged file, and files of another version.
    """
    root = loading.root
    contents = _read_files(root, extra=dataset.extra)
    originals.check_version("svhn", root / FOLDER, contents, dataset.version, published)
    splits = {name: _split(root / FOLDER / name, content) for name, content in contents.items()}
    test = splits.pop("test_32x32.mat")
    train = Split(
        images_NHWC=np.concatenate([split.images_NHWC for split in splits.values()]),
        labels_N=np.concatenate([split.labels_N for split in splits.values()]),
    )
    mean, std = NORMALIZATIONS[dataset.normalization]
    return ImageData(train=train, test=test, class_names=CLASS_NAMES, mean=mean, std=std)


def fetch(
    dataset: SvhnDataset,
    root: Path,
    on_bytes: OnBytes | None,
    *,
    published: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Fetch the files that are missing; `published` is torchvision's list: split → address, file name and MD5."""
    if published is None:
        from torchvision.datasets import SVHN  # imports torch

        published = SVHN.split_list
    for split in _splits(extra=dataset.extra):
        url, name, md5 = published[split]
        if not (root / FOLDER / name).is_file():
            download(url, root / FOLDER / name, md5=md5, on_bytes=on_bytes)


def _splits(*, extra: bool) -> tuple[str, ...]:
    return ("train", "test", *(("extra",) if extra else ()))


def _names(*, extra: bool) -> tuple[str, ...]:
    return tuple(f"{split}_32x32.mat" for split in _splits(extra=extra))


def _read_files(root: Path, *, extra: bool) -> dict[str, bytes]:
    return originals.read_files(
        "svhn", root / FOLDER, _names(extra=extra), how="put the files of format 2 (cropped digits) there"
    )


def _split(path: Path, content: bytes) -> Split:
    from scipy.io import loadmat  # takes a quarter of a second

    try:
        arrays = loadmat(io.BytesIO(content), variable_names=["X", "y"])  # type: ignore[arg-type]  # takes open files too
        pixels_HWCN, digits_N = np.asarray(arrays["X"]), np.asarray(arrays["y"]).reshape(-1)
    except Exception as error:  # a damaged file may raise anything
        raise _damaged(path, f"{type(error).__name__}: {error}") from error
    if pixels_HWCN.dtype != np.uint8 or pixels_HWCN.shape != (_SIDE, _SIDE, 3, len(digits_N)):
        expected = (_SIDE, _SIDE, 3, len(digits_N))
        raise _damaged(
            path, f"X is {pixels_HWCN.dtype} of shape {pixels_HWCN.shape}, expected uint8 of shape {expected}"
        )
    if not np.isin(digits_N, np.arange(1, 11)).all():
        raise _damaged(path, "y holds something else than 1..10")
    images_NHWC = np.ascontiguousarray(pixels_HWCN.transpose(3, 0, 1, 2))
    return Split(images_NHWC=images_NHWC, labels_N=digits_N.astype(np.int64) % 10)


def _damaged(path: Path, detail: str) -> DataError:
    return DataError(f"svhn: {path} is damaged or not an SVHN file: {detail}")


FAMILY = Family[SvhnDataset](
    load=load,
    fingerprint=lambda dataset, loading: fingerprint(loading.root, extra=dataset.extra),
    fetch=fetch,
)
