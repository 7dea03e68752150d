"""Tiny ImageNet (200 classes of ImageNet at 64 pixels; Stanford's CS231n course) from its unpacked zip file.

    tiny-imagenet-200/   wnids.txt  words.txt  train/<wnid>/images/*.JPEG  val/val_annotations.txt  val/images/*.JPEG

Its test images have no labels, so the validation images are the test split. There are no sensitive features.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from kd_ray.data import originals
from kd_ray.data.family import Family, Loading
from kd_ray.data.image_data import ImageData
from kd_ray.data.normalization import NORMALIZATIONS
from kd_ray.data.prepared import Prepared, files_below, prepare
from kd_ray.errors import DataError
from kd_ray.sweep.datasets import TinyImagenetDataset

FOLDER = "tiny-imagenet-200"
Counts = tuple[int, int, int]
"""Classes, and training and test images of each class."""
PUBLISHED: Counts = (200, 500, 50)

_LISTS = ("wnids.txt", "words.txt", "val/val_annotations.txt")


@dataclass(frozen=True, kw_only=True, eq=False)
class _Listing:
    class_names: tuple[str, ...]
    names: tuple[str, ...]
    """Images of train, then of val, below the folder."""
    labels_N: npt.NDArray[np.int64]
    num_train: int
    lists: dict[str, bytes]


def fingerprint(dataset: TinyImagenetDataset, loading: Loading) -> str:
    """16 hex digits that stand for the images and lists. Raises DataError when something is missing or damaged."""
    return _prepared(dataset, loading, _listing(loading.root)).fingerprint


def load(dataset: TinyImagenetDataset, loading: Loading, *, published: Counts = PUBLISHED) -> ImageData:
    """The images by class in the order of wnids.txt; the test split in the order of its annotations.

    Raises DataError for files that are missing or damaged, and another version; `published` says which counts are the original version.
    """
    listing = _listing(loading.root)
    prepared = _prepared(dataset, loading, listing)
    train_N, test_N = np.split(listing.labels_N, [listing.num_train])
    num_classes = len(listing.class_names)
    counts = [set(np.bincount(labels_N, minlength=num_classes).tolist()) for labels_N in (train_N, test_N)]
    is_published = num_classes == published[0] and counts == [{published[1]}, {published[2]}]
    if dataset.version != "original" or not is_published:
        found = f"it holds {len(train_N):,} and {len(test_N):,} images of {num_classes} classes, not 100,000 and 10,000 of 200"
        prepared.check_version("tiny_imagenet", loading.root / FOLDER, dataset.version, found)
    mean, std = NORMALIZATIONS[dataset.normalization]
    return ImageData(
        train=prepared.split(np.arange(listing.num_train), train_N),
        test=prepared.split(np.arange(listing.num_train, len(listing.labels_N)), test_N),
        class_names=listing.class_names,
        mean=mean,
        std=std,
    )


def _prepared(dataset: TinyImagenetDataset, loading: Loading, listing: _Listing) -> Prepared:
    sources = files_below(loading.root / FOLDER, listing.names, originals.digests(listing.lists))
    return prepare("tiny_imagenet", sources, loading, size=dataset.size)


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
        found = sorted(path.name for path in images.glob("[!.]*.JPEG"))  # not those of a Mac, `._…`
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


def _advice(_: TinyImagenetDataset, root: Path) -> str:
    folder = root / FOLDER
    return (
        "Tiny ImageNet holds images of ImageNet, whose terms of access you have to accept yourself. Unpack "
        f"tiny-imagenet-200.zip of Stanford's course CS231n in {root}, so that these exist:\n"
        f"  {folder}/wnids.txt\n  {folder}/words.txt\n  {folder}/train/<wnid>/images/*.JPEG\n"
        f"  {folder}/val/val_annotations.txt\n  {folder}/val/images/*.JPEG"
    )


FAMILY = Family[TinyImagenetDataset](
    load=load,
    fingerprint=fingerprint,
    can_stream=True,
    advice=_advice,
)
