"""From a sweep's `dataset` section to images in memory: the only place that knows every family."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from kd_ray.data import celeba, cifar10, cifar100, imagenet, manifest, svhn, tiny_imagenet, trifeature
from kd_ray.data.images import ImageData, split_off_validation
from kd_ray.data.subsets import long_tailed
from kd_ray.errors import DataError
from kd_ray.sweep.datasets import (
    CelebaDataset,
    Cifar10Dataset,
    Cifar100Dataset,
    Dataset,
    ImagenetDataset,
    ManifestDataset,
    SvhnDataset,
    TinyImagenetDataset,
    TrifeatureDataset,
)

CONTENT_VERSION = str(trifeature.GENERATOR_VERSION)
"""Changes when the code here would load other content for the same settings."""

FROM_FILES = (TinyImagenetDataset, ImagenetDataset, CelebaDataset, ManifestDataset)
"""Data sets whose images can stay in their files."""

OnProgress = Callable[[int, int], None]
"""Called with (done, total) while something is made that takes long."""


def load_dataset(
    dataset: Dataset,
    root: Path,
    *,
    processes: int = 1,
    on_progress: OnProgress | None = None,
    resident_bytes: int | None = None,
) -> ImageData:
    """The data set as the sweep describes it: the training split cut to its long tail, then the validation split set aside.

    Images that come from files and would take more than `resident_bytes` stay there (`Split.files`).

    Raises:
        DataError: files are missing, damaged, or not the version asked for.
    """
    data = _load(dataset, root, processes, on_progress, resident_bytes)
    if len(data.class_names) != dataset.num_classes:
        raise DataError(
            f"{dataset.name}: {len(data.class_names):,} classes are there, and the sweep file means {dataset.num_classes:,}"
        )
    if len(data.train) == 0 or len(data.test) == 0:
        raise DataError(
            f"{dataset.name}: {len(data.train):,} training and {len(data.test):,} test samples; both are needed"
        )
    if dataset.long_tail is not None:
        data = replace(data, train=long_tailed(data.train, dataset.long_tail, num_classes=dataset.num_classes))
    if isinstance(dataset, CelebaDataset) or dataset.validation_fraction == 0:
        return data
    try:
        train, validation = split_off_validation(
            data.train, fraction=dataset.validation_fraction, seed=dataset.split_seed
        )
    except ValueError as error:
        raise DataError(f"{dataset.name}: validation_fraction: {error}") from error
    return replace(data, train=train, validation=validation)


def _load(  # noqa: PLR0911
    dataset: Dataset, root: Path, processes: int, on_progress: OnProgress | None, resident_bytes: int | None
) -> ImageData:
    match dataset:
        case TrifeatureDataset():
            return trifeature.load(
                root=root,
                size=dataset.size,
                images_per_combination=dataset.images_per_combination,
                generator_seed=dataset.generator_seed,
                split_seed=dataset.split_seed,
                test_fraction=dataset.test_fraction,
                target=dataset.target,
                processes=processes,
                on_progress=on_progress,
            )
        case Cifar10Dataset():
            return cifar10.load(root=root, version=dataset.version, normalization=dataset.normalization)
        case Cifar100Dataset():
            return cifar100.load(
                root=root, target=dataset.target, version=dataset.version, normalization=dataset.normalization
            )
        case SvhnDataset():
            return svhn.load(
                root=root, extra=dataset.extra, version=dataset.version, normalization=dataset.normalization
            )
        case TinyImagenetDataset():
            return tiny_imagenet.load(
                root=root,
                size=dataset.size,
                version=dataset.version,
                normalization=dataset.normalization,
                processes=processes,
                on_progress=on_progress,
                resident_bytes=resident_bytes,
            )
        case ImagenetDataset():
            return imagenet.load(
                root=root,
                folder=dataset.folder,
                size=dataset.size,
                version=dataset.version,
                normalization=dataset.normalization,
                processes=processes,
                on_progress=on_progress,
                resident_bytes=resident_bytes,
            )
        case CelebaDataset():
            return celeba.load(
                root=root,
                target=dataset.target,
                size=dataset.size,
                crop=dataset.crop,
                balance=dataset.balance,
                balance_seed=dataset.balance_seed,
                with_validation=dataset.validation == "official",
                version=dataset.version,
                normalization=dataset.normalization,
                processes=processes,
                on_progress=on_progress,
                resident_bytes=resident_bytes,
            )
        case ManifestDataset():
            return manifest.load(
                dataset, root=root, processes=processes, on_progress=on_progress, resident_bytes=resident_bytes
            )


def fingerprint(  # noqa: PLR0911
    dataset: Dataset,
    root: Path,
    *,
    processes: int = 1,
    on_progress: OnProgress | None = None,
    resident_bytes: int | None = None,
) -> str | None:
    """The `dataset.version` that names exactly the files that are there; None for a set that is generated.

    Raises:
        DataError: files are missing or damaged.
    """
    match dataset:
        case TrifeatureDataset():
            return None
        case Cifar10Dataset():
            return cifar10.fingerprint(root)
        case Cifar100Dataset():
            return cifar100.fingerprint(root)
        case SvhnDataset():
            return svhn.fingerprint(root, extra=dataset.extra)
        case TinyImagenetDataset():
            return tiny_imagenet.fingerprint(
                root,
                size=dataset.size,
                processes=processes,
                on_progress=on_progress,
                resident_bytes=resident_bytes,
            )
        case ImagenetDataset():
            return imagenet.fingerprint(
                root,
                folder=dataset.folder,
                size=dataset.size,
                processes=processes,
                on_progress=on_progress,
                resident_bytes=resident_bytes,
            )
        case CelebaDataset():
            return celeba.fingerprint(
                root,
                size=dataset.size,
                crop=dataset.crop,
                processes=processes,
                on_progress=on_progress,
                resident_bytes=resident_bytes,
            )
        case ManifestDataset():
            return manifest.fingerprint(
                dataset, root=root, processes=processes, on_progress=on_progress, resident_bytes=resident_bytes
            )
