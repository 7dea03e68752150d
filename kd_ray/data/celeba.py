"""CelebA (Liu et al., "Deep learning face attributes in the wild", ICCV 2015): aligned and cropped faces with 40 binary attributes.

    celeba/   list_attr_celeba.txt  list_eval_partition.txt  img_align_celeba/000001.jpg …

Any attribute is the target; all others are sensitive features of two groups each. The images may be used for research only.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from kd_ray.data import originals
from kd_ray.data.family import Family, Loading
from kd_ray.data.image_data import ImageData, Split
from kd_ray.data.normalization import NORMALIZATIONS
from kd_ray.data.prepared import Prepared, files_below, prepare
from kd_ray.data.subsets import balanced
from kd_ray.errors import DataError
from kd_ray.groups import Groups
from kd_ray.sweep.datasets import CelebaDataset

FOLDER = "celeba"
IMAGES = "img_align_celeba"
ORIGINAL_MD5 = {
    "list_attr_celeba.txt": "75e246fa4810816ffd6ee81facbd244c",
    "list_eval_partition.txt": "d32c9cbf5e040fd4025c592c306e6668",
}
"""File name → MD5 of the published file, as torchvision has it: a copy, because torchvision imports torch, which takes a driver 770 MB."""
LISTS = tuple(ORIGINAL_MD5)
NUM_IMAGES = 202_599
"""Of the whole set."""

_PARTITIONS = {"train": 0, "validation": 1, "test": 2}


@dataclass(frozen=True, kw_only=True, eq=False)
class _Listing:
    attributes: tuple[str, ...]
    names: tuple[str, ...]
    has_NA: npt.NDArray[np.bool_]
    """Whether image n has attribute a."""
    partition_N: npt.NDArray[np.int64]
    lists: dict[str, bytes]


def fingerprint(dataset: CelebaDataset, loading: Loading) -> str:
    """16 hex digits that stand for the images and lists. Raises DataError when something is missing or damaged."""
    return _prepared(dataset, loading, _listing(loading.root)).fingerprint


def load(dataset: CelebaDataset, loading: Loading, *, num_images: int = NUM_IMAGES) -> ImageData:
    """The images in the order of the list, split as list_eval_partition.txt says; `num_images` is the number of the original version.

    Raises DataError for files that are missing or damaged, a split without images of both classes, and another version.
    """
    root, target, balance = loading.root, dataset.target, dataset.balance
    listing = _listing(root)
    if target not in listing.attributes:
        raise DataError(f"celeba: target is {target!r}, expected one of {', '.join(listing.attributes)}")
    prepared = _prepared(dataset, loading, listing)
    difference = _difference(listing, num_images) if dataset.version == "original" else "the fingerprint differs"
    # The fingerprint last: for streamed images, all of them are read for it.
    if difference is not None:
        prepared.check_version("celeba", root / FOLDER, dataset.version, difference)
    splits = {}
    for name, number in _PARTITIONS.items():
        if name == "validation" and not dataset.has_validation:
            continue
        split = _split(listing, prepared, np.flatnonzero(listing.partition_N == number), target)
        _check_classes(root, split, name, target)
        if balance == "train_and_test" or (balance == "train" and name != "test"):
            split = balanced(split, seed=dataset.balance_seed, name=name, num_classes=2)
        splits[name] = split
    mean, std = NORMALIZATIONS[dataset.normalization]
    return ImageData(
        train=splits["train"],
        validation=splits.get("validation"),
        test=splits["test"],
        class_names=_groups(target),
        mean=mean,
        std=std,
    )


def _difference(listing: _Listing, num_images: int) -> str | None:
    """In what the set is not the published one; None when number and lists are the published ones."""
    if len(listing.names) != num_images:
        return f"it lists {len(listing.names):,} images, not {num_images:,}"
    return originals.published_difference(listing.lists, ORIGINAL_MD5)


def _split(listing: _Listing, prepared: Prepared, chosen_M: npt.NDArray[np.int64], target: str) -> Split:
    has_MA = listing.has_NA[chosen_M].astype(np.int64)
    column = {name: has_MA[:, a] for a, name in enumerate(listing.attributes)}
    return prepared.split(
        chosen_M,
        column[target],
        {name: Groups.from_codes(codes_M, _groups(name)) for name, codes_M in column.items() if name != target},
    )


def _groups(attribute: str) -> tuple[str, str]:
    return f"not {attribute}", attribute


def _check_classes(root: Path, split: Split, name: str, target: str) -> None:
    counts = np.bincount(split.labels_N, minlength=2).tolist()
    if min(counts) == 0:
        raise DataError(
            f"celeba: the {name} split of {root / FOLDER} has {counts[0]:,} images without and {counts[1]:,} with {target}; "
            "it needs both"
        )


def _prepared(dataset: CelebaDataset, loading: Loading, listing: _Listing) -> Prepared:
    sources = files_below(loading.root / FOLDER / IMAGES, listing.names, originals.digests(listing.lists))
    return prepare("celeba", sources, loading, size=dataset.size, crop=dataset.crop)


def _listing(root: Path) -> _Listing:
    folder = root / FOLDER
    lists = originals.read_files(
        "celeba", folder, LISTS, how="put the lists there, and unpack img_align_celeba.zip beside them,"
    )
    attributes_path, partition_path = (folder / name for name in LISTS)
    _, header, *rows = [*lists["list_attr_celeba.txt"].decode(errors="replace").splitlines(), "", ""]
    attributes = tuple(header.split())
    names, values = [], []
    for number, row in enumerate(rows, start=3):
        name, *signs = row.split() or [""]
        if not name:
            continue
        if len(signs) != len(attributes) or not set(signs) <= {"-1", "1"} or Path(name).name != name:
            raise DataError(f"celeba: {attributes_path}:{number}: expected a file and {len(attributes)} times 1 or -1")
        names.append(name)
        values.append([sign == "1" for sign in signs])
    partition = {}
    for number, row in enumerate(lists["list_eval_partition.txt"].decode(errors="replace").splitlines(), start=1):
        name, *rest = row.split() or [""]
        if name and (len(rest) != 1 or rest[0] not in ("0", "1", "2")):
            raise DataError(f"celeba: {partition_path}:{number}: expected a file and 0, 1 or 2")
        partition[name] = int(rest[0]) if name else -1
    if not names or (unknown := [name for name in names if name not in partition]):
        what = f"has no row for {unknown[0]}" if names else f"cannot be used: {attributes_path} lists no image"
        raise DataError(f"celeba: {partition_path} {what}")
    return _Listing(
        attributes=attributes,
        names=tuple(names),
        has_NA=np.array(values, dtype=np.bool_),
        partition_N=np.array([partition[name] for name in names], dtype=np.int64),
        lists=lists,
    )


def _advice(_: CelebaDataset, root: Path) -> str:
    folder = root / FOLDER
    names = "\n".join(f"  {folder}/{name}" for name in LISTS)
    return (
        "CelebA is for non-commercial research, by agreement with its authors, so it is not fetched. From the folders Anno, Eval "
        f"and Img (img_align_celeba.zip, unpacked) of its project page, put these:\n{names}\n"
        f"  {folder}/{IMAGES}/000001.jpg … 202599.jpg"
    )


FAMILY = Family[CelebaDataset](
    load=load,
    fingerprint=fingerprint,
    can_stream=True,
    advice=_advice,
)
