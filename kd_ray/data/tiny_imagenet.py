"""Tiny ImageNet (200 classes of ImageNet at 64 pixels; Stanford's CS231n course) from its unpacked zip file.

    tiny-imagenet-200/   wnids.txt  words.txt  train/<wnid>/images/*.JPEG  val/val_annotations.txt  val/images/*.JPEG

Its test images have no labels, so the validation images are the test split. There are no sensitive features.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from kd_ray.data import originals
from kd_ray.data.images import ImageData
from kd_ray.data.normalization import NORMALIZATIONS
from kd_ray.data.prepared import OnProgress, Prepared, files_below, prepare
from kd_ray.errors import DataError

FOLDER = "tiny-imagenet-200"
NUM_CLASSES, TRAIN_PER_CLASS, TEST_PER_CLASS = 200, 500, 50
"""Of the whole set."""

_LISTS = ("wnids.txt", "words.txt", "val/val_annotations.txt")


@dataclass(frozen=True, kw_only=True, eq=False)
class _Listing:
    class_names: tuple[str, ...]
    names: tuple[str, ...]
    """Images of train, then of val, below the folder."""
    labels_N: npt.NDArray[np.int64]
    num_train: int
    lists: dict[str, bytes]


def fingerprint(
    root: Path,
    *,
    size: int,
    processes: int = 1,
    on_progress: OnProgress | None = None,
    resident_bytes: int | None = None,
) -> str:
    """16 hex digits that stand for the images and lists. Raises DataError when something is missing or damaged."""
    return _prepared(root, _listing(root), size, processes, on_progress, resident_bytes).fingerprint


def load(
    *,
    root: Path,
    size: int = 64,
    version: str = "original",
    normalization: str = "imagenet",
    processes: int = 1,
    on_progress: OnProgress | None = None,
    resident_bytes: int | None = None,
) -> ImageData:
    """The images under `root`/tiny-imagenet-200, by class in the order of wnids.txt; the test split in the order of its annotations.

    `version` is "original" (200 classes with 500 and 50 images) or the fingerprint of another set in the same layout.

    Raises DataError for what is missing or damaged, and another version.
    """
    listing = _listing(root)
    prepared = _prepared(root, listing, size, processes, on_progress, resident_bytes)
    train_N, test_N = np.split(listing.labels_N, [listing.num_train])
    _check_version(root / FOLDER, version, prepared, train_N, test_N, len(listing.class_names))
    mean, std = NORMALIZATIONS[normalization]
    return ImageData(
        train=prepared.split(np.arange(listing.num_train), train_N),
        test=prepared.split(np.arange(listing.num_train, len(listing.labels_N)), test_N),
        class_names=listing.class_names,
        mean=mean,
        std=std,
    )


def _prepared(
    root: Path,
    listing: _Listing,
    size: int,
    processes: int,
    on_progress: OnProgress | None,
    resident_bytes: int | None,
) -> Prepared:
    sources = files_below(root / FOLDER, listing.names, originals.digests(listing.lists))
    return prepare(
        root,
        "tiny_imagenet",
        sources,
        size=size,
        processes=processes,
        on_progress=on_progress,
        resident_bytes=resident_bytes,
    )


def _check_version(
    folder: Path,
    version: str,
    prepared: Prepared,
    train_N: npt.NDArray[np.int64],
    test_N: npt.NDArray[np.int64],
    classes: int,
) -> None:
    detail = "the fingerprint differs"
    if version == "original":
        counts = [set(np.bincount(labels_N, minlength=classes).tolist()) for labels_N in (train_N, test_N)]
        if classes == NUM_CLASSES and counts == [{TRAIN_PER_CLASS}, {TEST_PER_CLASS}]:
            return
        detail = (
            f"it holds {len(train_N):,} and {len(test_N):,} images of {classes} classes, not 100,000 and 10,000 of 200"
        )
    if version != prepared.fingerprint:
        raise originals.other_version("tiny_imagenet", folder, version, detail, prepared.fingerprint)


def _listing(root: Path) -> _Listing:
    folder = root / FOLDER
    lists = originals.read_files("tiny_imagenet", folder, _LISTS, how="unpack tiny-imagenet-200.zip")
    wnids = lists["wnids.txt"].decode(errors="replace").split()
    if not wnids or len(set(wnids)) != len(wnids):
        raise DataError(f"tiny_imagenet: {folder / 'wnids.txt'} does not list different classes")
    words = dict(
        line.split("\t", maxsplit=1)
        for line in lists["words.txt"].decode(errors="replace").splitlines()
        if "\t" in line
    )
    index = {wnid: c for c, wnid in enumerate(wnids)}
    names, labels = [], []
    for wnid in wnids:
        images = folder / "train" / wnid / "images"
        found = sorted(path.name for path in images.glob("*.JPEG"))
        if not found:
            raise DataError(f"tiny_imagenet: {images} has no images (*.JPEG)")
        names += [f"train/{wnid}/images/{name}" for name in found]
        labels += [index[wnid]] * len(found)
    num_train = len(names)
    for number, line in enumerate(lists["val/val_annotations.txt"].decode(errors="replace").splitlines(), start=1):
        name, wnid, *_ = [*line.split("\t"), ""]
        if wnid not in index or Path(name).name != name:
            raise DataError(
                f"tiny_imagenet: {folder / 'val/val_annotations.txt'}:{number}: expected a file and a class of wnids.txt, got {line!r}"
            )
        names.append(f"val/images/{name}")
        labels.append(index[wnid])
    return _Listing(
        class_names=tuple(f"{wnid} {words[wnid].split(',')[0]}" if wnid in words else wnid for wnid in wnids),
        names=tuple(names),
        labels_N=np.array(labels, dtype=np.int64),
        num_train=num_train,
        lists=lists,
    )
