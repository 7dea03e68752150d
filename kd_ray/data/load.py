"""From a sweep's `dataset` section to samples in memory: the only place that knows every family."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from kd_ray.data import (
    adult,
    celeba,
    cifar10,
    cifar100,
    factory,
    hatexplain,
    imagenet,
    manifest,
    svhn,
    tiny_imagenet,
    trifeature,
)
from kd_ray.data.images import split_off_validation
from kd_ray.data.modalities import Data
from kd_ray.data.rows import RowData, standardised
from kd_ray.data.samples import S
from kd_ray.data.subsets import long_tailed
from kd_ray.data.texts import TextData
from kd_ray.errors import DataError
from kd_ray.sweep.datasets import (
    CelebaDataset,
    Cifar10Dataset,
    Cifar100Dataset,
    Dataset,
    HatexplainDataset,
    ImagenetDataset,
    ManifestDataset,
    SvhnDataset,
    TinyImagenetDataset,
    TrifeatureDataset,
)
from kd_ray.sweep.row_datasets import AdultDataset, FactoryDataset

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
) -> Data:
    """The data set as the sweep describes it: the training split cut to its long tail, then the validation split set aside, then rows
    standardised by what is left.

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
    if isinstance(data, RowData):
        rows, rows_held_out = _cut(data.train, dataset)
        return standardised(replace(data, train=rows, validation=rows_held_out or data.validation))
    if isinstance(data, TextData):
        texts, texts_held_out = _cut(data.train, dataset)
        return replace(data, train=texts, validation=texts_held_out or data.validation)
    images, images_held_out = _cut(data.train, dataset)
    return replace(data, train=images, validation=images_held_out or data.validation)


def _cut(train: S, dataset: Dataset) -> tuple[S, S | None]:
    """The training split as the sweep wants it, and what is drawn from it for validation."""
    if dataset.long_tail is not None:
        train = long_tailed(train, dataset.long_tail, num_classes=dataset.num_classes)
    if isinstance(dataset, CelebaDataset | HatexplainDataset) or dataset.validation_fraction == 0:
        return train, None
    try:
        return split_off_validation(train, fraction=dataset.validation_fraction, seed=dataset.split_seed)
    except ValueError as error:
        raise DataError(f"{dataset.name}: validation_fraction: {error}") from error


def _load(  # noqa: PLR0911
    dataset: Dataset, root: Path, processes: int, on_progress: OnProgress | None, resident_bytes: int | None
) -> Data:
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
        case AdultDataset():
            return adult.load(dataset, root=root)
        case HatexplainDataset():
            return hatexplain.load(dataset, root=root)
        case ManifestDataset():
            return manifest.load(
                dataset, root=root, processes=processes, on_progress=on_progress, resident_bytes=resident_bytes
            )
        case FactoryDataset():
            return factory.load(dataset, root=root)


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
        case AdultDataset():
            return adult.fingerprint(root)
        case HatexplainDataset():
            return hatexplain.fingerprint(dataset, root)
        case ManifestDataset():
            return manifest.fingerprint(
                dataset, root=root, processes=processes, on_progress=on_progress, resident_bytes=resident_bytes
            )
        case FactoryDataset():
            return factory.fingerprint(dataset, root=root)
