"""From a sweep's `dataset` section to images in memory: the only place that knows every family."""

from collections.abc import Callable
from pathlib import Path

from kd_ray.data import cifar10, trifeature
from kd_ray.data.images import ImageData, split_off_validation
from kd_ray.sweep.config import Cifar10Dataset, Dataset, TrifeatureDataset

CONTENT_VERSION = str(trifeature.GENERATOR_VERSION)
"""Changes when the code here would load other content for the same settings."""

OnProgress = Callable[[int, int], None]
"""Called with (done, total) while something is made that takes long."""


def load_dataset(
    dataset: Dataset, root: Path, *, processes: int = 1, on_progress: OnProgress | None = None
) -> ImageData:
    """The data set as the sweep describes it, with its validation split set aside.

    Raises:
        DataError: files are missing, damaged, or not the version asked for.
    """
    data = _load(dataset, root, processes, on_progress)
    if dataset.validation_fraction == 0:
        return data
    train, validation = split_off_validation(data.train, fraction=dataset.validation_fraction, seed=dataset.split_seed)
    return ImageData(
        train=train, test=data.test, validation=validation, class_names=data.class_names, mean=data.mean, std=data.std
    )


def _load(dataset: Dataset, root: Path, processes: int, on_progress: OnProgress | None) -> ImageData:
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
