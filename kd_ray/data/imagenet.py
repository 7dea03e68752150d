"""ImageNet-1k (Russakovsky et al. 2015), or any images in its usual layout, kept in memory at one size or streamed.

    <folder>/   train/<class>/<file>  val/<class>/<file>

Classes are the folders of `train`, by name. The validation images are the test split. There are no sensitive features.
"""

import os
from pathlib import Path

import numpy as np

from kd_ray.data import originals
from kd_ray.data.images import ImageData
from kd_ray.data.normalization import NORMALIZATIONS
from kd_ray.data.prepared import OnProgress, Sources, files_below, prepare
from kd_ray.errors import DataError

SUFFIXES = (".jpeg", ".jpg", ".png", ".ppm", ".bmp", ".webp", ".tif", ".tiff")
"""Of image files, in any case; others are not looked at."""
_ORIGINAL = (1000, 1_281_167, 50_000)


def fingerprint(
    root: Path,
    *,
    folder: str,
    size: int,
    processes: int = 1,
    on_progress: OnProgress | None = None,
    resident_bytes: int | None = None,
) -> str:
    """16 hex digits that stand for the images. Raises DataError when something is missing or damaged."""
    sources, _, _ = _listing(root / folder)
    return prepare(
        root,
        "imagenet",
        sources,
        size=size,
        processes=processes,
        on_progress=on_progress,
        resident_bytes=resident_bytes,
    ).fingerprint


def load(
    *,
    root: Path,
    folder: str = "imagenet",
    size: int = 64,
    version: str = "original",
    normalization: str = "imagenet",
    processes: int = 1,
    on_progress: OnProgress | None = None,
    resident_bytes: int | None = None,
) -> ImageData:
    """The images under `root`/`folder`, by class and file name, the central square of each resized to `size` pixels.

    `version` is "original" (1,281,167 and 50,000 images in 1,000 classes) or the fingerprint of another set in the same layout.

    Raises DataError for what is missing or damaged, and another version.
    """
    sources, class_names, num_train = _listing(root / folder)
    prepared = prepare(
        root,
        "imagenet",
        sources,
        size=size,
        processes=processes,
        on_progress=on_progress,
        resident_bytes=resident_bytes,
    )
    index = {name: c for c, name in enumerate(class_names)}
    labels_N = np.array([index[name.split("/")[1]] for name in sources.names], dtype=np.int64)
    found = (len(class_names), num_train, len(labels_N) - num_train)
    # In this order, because the fingerprint of streamed images takes reading them all.
    if (version != "original" or found != _ORIGINAL) and version != prepared.fingerprint:
        detail = "the fingerprint differs"
        if version == "original":
            detail = f"it holds {found[1]:,} and {found[2]:,} images of {found[0]:,} classes, not 1,281,167 and 50,000 of 1,000"
        raise originals.other_version("imagenet", root / folder, version, detail, prepared.fingerprint)
    mean, std = NORMALIZATIONS[normalization]
    return ImageData(
        train=prepared.split(np.arange(num_train), labels_N[:num_train]),
        test=prepared.split(np.arange(num_train, len(labels_N)), labels_N[num_train:]),
        class_names=class_names,
        mean=mean,
        std=std,
    )


def _listing(folder: Path) -> tuple[Sources, tuple[str, ...], int]:
    """All images, the classes, and how many images are those of train."""
    splits = {name: _images(folder, name) for name in ("train", "val")}
    class_names = tuple(splits["train"])
    if unknown := sorted(set(splits["val"]) - set(class_names)):
        raise DataError(f"imagenet: {folder / 'val'} has classes that train lacks: {', '.join(unknown[:5])}")
    names = {
        split: [f"{split}/{wnid}/{name}" for wnid, names in by_class.items() for name in names]
        for split, by_class in splits.items()
    }
    return files_below(folder, [*names["train"], *names["val"]], {}), class_names, len(names["train"])


def _images(folder: Path, split: str) -> dict[str, list[str]]:
    """Names of the images by class, both in the order of their names."""
    try:
        classes = sorted(entry.name for entry in os.scandir(folder / split) if entry.is_dir())
        found = {
            name: sorted(
                entry.name
                for entry in os.scandir(folder / split / name)
                if entry.name.lower().endswith(SUFFIXES) and entry.is_file()
            )
            for name in classes
        }
    except OSError as error:
        raise DataError(
            f"imagenet: {folder / split} cannot be read ({error.strerror}); expected {folder}/{split}/<class>/<image>"
        ) from error
    empty = [name for name, names in found.items() if not names]
    if empty or not found:
        what = f"the classes {', '.join(empty[:5])} have no images" if empty else "there are no classes"
        raise DataError(f"imagenet: {folder / split}: {what}; expected {folder}/{split}/<class>/<image>")
    return found
