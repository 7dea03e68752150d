"""Sets with a folder of images for each class, kept in memory at one size or streamed; ImageNet-1k (Russakovsky et al. 2015) is one.

    <folder>/   train/<class>/<file>  val/<class>/<file>

Classes are the folders of `train`, by name. The validation images are the test split. There are no sensitive features.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kd_ray.data.family import Family, Loading
from kd_ray.data.image_data import ImageData
from kd_ray.data.normalization import NORMALIZATIONS
from kd_ray.data.prepared import Prepared, Sources, files_below, prepare
from kd_ray.data.unicode_forms import alike, in_words
from kd_ray.errors import DataError, some
from kd_ray.sweep.image_datasets import FolderDataset

SUFFIXES = (".jpeg", ".jpg", ".png", ".ppm", ".bmp", ".webp", ".tif", ".tiff")
"""Endings of image files, in capitals or not; other files are left out, and a note names them."""


@dataclass(frozen=True, kw_only=True)
class ImageFolder:
    """One such set."""

    name: str
    """`dataset.name` in a sweep file."""
    counts: tuple[int, int, int]
    """Classes, training images and validation images of the published set."""
    terms: str
    """Where the images come from, and on which terms."""

    def family(self) -> Family[FolderDataset]:
        """The functions that load the set."""
        return Family(
            load=self.load,
            fingerprint=self.fingerprint,
            can_stream=True,
            advice=self.advice,
        )

    def load(self, dataset: FolderDataset, loading: Loading) -> ImageData:
        """The images by class and file name, the central square of each resized.

        Raises DataError for files that are missing or damaged, and another version.
        """
        folder = loading.root / dataset.folder
        sources, class_names, num_train, notes = _listing(self.name, folder)
        prepared = self._prepared(dataset, loading, sources)
        index = {name: c for c, name in enumerate(class_names)}
        labels_N = np.array([index[name.split("/")[1]] for name in sources.names], dtype=np.int64)
        found = (len(class_names), num_train, len(labels_N) - num_train)
        # The fingerprint last: for streamed images, all of them are read for it.
        if dataset.version != "original" or found != self.counts:
            classes, train, test = self.counts
            difference = f"it holds {found[1]:,} and {found[2]:,} images of {found[0]:,} classes, not {train:,} and {test:,} of {classes:,}"
            prepared.check_version(self.name, folder, dataset.version, difference)
        mean, std = NORMALIZATIONS[dataset.normalization]
        return ImageData(
            train=prepared.split(np.arange(num_train), labels_N[:num_train]),
            test=prepared.split(np.arange(num_train, len(labels_N)), labels_N[num_train:]),
            class_names=class_names,
            mean=mean,
            std=std,
            notes=notes,
        )

    def fingerprint(self, dataset: FolderDataset, loading: Loading) -> str:
        """16 hex digits that stand for the images. Raises DataError for files that are missing or damaged."""
        sources, _, _, _ = _listing(self.name, loading.root / dataset.folder)
        return self._prepared(dataset, loading, sources).fingerprint

    def advice(self, dataset: FolderDataset, root: Path) -> str:
        """Which files to put where."""
        folder = root / dataset.folder
        return (
            f"{self.terms} into a folder for each class, so that these exist:\n"
            f"  {folder}/train/<class>/<image>\n  {folder}/val/<class>/<image>\n"
            f"Files of images end with {', '.join(SUFFIXES)}."
        )

    def _prepared(self, dataset: FolderDataset, loading: Loading, sources: Sources) -> Prepared:
        return prepare(self.name, sources, loading, size=dataset.size)


_SETS = (
    ImageFolder(
        name="imagenet",
        counts=(1000, 1_281_167, 50_000),
        terms="ImageNet has terms of access that you have to accept yourself, at image-net.org. Unpack ILSVRC2012_img_train.tar and "
        "ILSVRC2012_img_val.tar",
    ),
)
FAMILIES = {each.name: each.family() for each in _SETS}
"""The families of this module, by name."""


def _listing(name: str, folder: Path) -> tuple[Sources, tuple[str, ...], int, tuple[str, ...]]:
    """All images, the classes, how many images are those of train, and a note on the files that are left out."""
    left_out: list[str] = []
    splits = {split: _images(name, folder, split, left_out) for split in ("train", "val")}
    class_names = tuple(splits["train"])
    if unknown := sorted(set(splits["val"]) - set(class_names)):
        same = alike(unknown, class_names)
        why = f"; {in_words(*same)}: rename one of the folders" if same else ""
        raise DataError(f"{name}: {folder / 'val'} has classes that train lacks: {', '.join(unknown[:5])}{why}")
    names = {
        split: [f"{split}/{wnid}/{image}" for wnid, images in by_class.items() for image in images]
        for split, by_class in splits.items()
    }
    notes = (f"{len(left_out):,} of the files and folders left out: {some(left_out)}",) if left_out else ()
    return files_below(folder, [*names["train"], *names["val"]], {}), class_names, len(names["train"]), notes


def _images(name: str, folder: Path, split: str, left_out: list[str]) -> dict[str, list[str]]:
    """Names of the images by class, both in the order of their names; what is no image of a class is added to `left_out`."""
    found: dict[str, list[str]] = {}
    try:
        for entry in _entries(name, folder / split):
            if entry.is_dir() and not _is_of_a_system(entry.name):
                found[entry.name] = _images_of_class(name, folder, Path(split, entry.name), left_out)
            else:
                left_out.append(f"{split}/{entry.name} ({'no class' if entry.is_dir() else 'outside the classes'})")
    except OSError as error:
        raise DataError(
            f"{name}: {folder / split} cannot be read ({error.strerror}); expected {folder}/{split}/<class>/<image>"
        ) from error
    empty = [wnid for wnid, names in found.items() if not names]
    if empty or not found:
        what = f"the classes {', '.join(empty[:5])} have no images" if empty else "there are no classes"
        raise DataError(f"{name}: {folder / split}: {what}; expected {folder}/{split}/<class>/<image>")
    return found


def _images_of_class(name: str, folder: Path, of_class: Path, left_out: list[str]) -> list[str]:
    images = []
    for entry in _entries(name, folder / of_class):
        why = None
        if entry.is_dir():
            why = "a folder in a class"
        elif not entry.is_file():
            why = "a link to nothing"
        elif _is_of_a_system(entry.name):
            why = "a file of the system"
        elif not entry.name.lower().endswith(SUFFIXES):
            why = "no ending of images"
        if why is None:
            images.append(entry.name)
        else:
            left_out.append(f"{of_class.as_posix()}/{entry.name} ({why})")
    return images


def _entries(name: str, folder: Path) -> list[os.DirEntry[str]]:
    """What lies in a folder, by name. Raises DataError for a name that is not UTF-8, which no table could hold."""
    entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    for entry in entries:
        if not entry.name.isprintable() and any("\udc80" <= letter <= "\udcff" for letter in entry.name):
            readable = os.fsencode(entry.name).decode(errors="backslashreplace")
            raise DataError(
                f"{name}: {folder}: the name {readable} is not UTF-8; rename it, as `convmv` does for whole folders"
            )
    return entries


def _is_of_a_system(name: str) -> bool:
    """Whether desktops, notebooks or network disks make files or folders of this name beside those of people."""
    return name.startswith(".") or name in ("@eaDir", "__MACOSX", "Thumbs.db", "desktop.ini")
