"""Parts of a split that are chosen by label: long tails, and classes of equal size."""

from importlib.resources import files

import numpy as np
import numpy.typing as npt

from kd_ray.data.labelled import S
from kd_ray.errors import DataError
from kd_ray.seeding import shuffled, stream
from kd_ray.sweep.classification import LongTail

_Counts = npt.NDArray[np.int64]


def exponential_counts(available_C: npt.NDArray[np.integer], imbalance_factor: float) -> _Counts:
    """Samples that each class keeps: ⌊n · imbalance_factor^(−c / (C − 1))⌋ of class c, n being the largest class, but at least one.

    A class that has fewer keeps all of its samples. The formula of Cui et al., "Class-balanced loss based on effective number of samples"
    (CVPR 2019), as Cao et al. (NeurIPS 2019) use it for CIFAR-100-LT, where n = 500.
    """
    num_classes = len(available_C)
    largest = int(available_C.max())
    # Python's floats, in this order: the floor follows the last bit.
    wanted = [
        max(1, int(largest * (1 / imbalance_factor) ** (c / max(1, num_classes - 1)))) for c in range(num_classes)
    ]
    return np.minimum(available_C.astype(np.int64), np.array(wanted, dtype=np.int64))


def imagenet_lt_counts() -> _Counts:
    """Training samples of the 1,000 classes of ImageNet-LT (Liu et al., CVPR 2019), in the order of ImageNet's class names."""
    text = (files("kd_ray.data") / "imagenet_lt_counts.txt").read_text(encoding="utf-8")
    return np.array(text.split(), dtype=np.int64)


def long_tailed(train: S, setting: LongTail, *, num_classes: int) -> S:
    """The training samples that remain, in their order; the seed of the setting chooses the samples of each class.

    Raises DataError when the profile needs other classes, or more samples of a class, than the split has.
    """
    available_C = np.bincount(train.labels_N, minlength=num_classes)
    if setting.imbalance_factor is not None:
        counts_C = exponential_counts(available_C, setting.imbalance_factor)
    else:
        counts_C = imagenet_lt_counts()
        if num_classes != len(counts_C):
            raise DataError(f"long_tail: profile imagenet_lt is for {len(counts_C):,} classes, not for {num_classes:,}")
        if (short_C := np.flatnonzero(counts_C > available_C)).size:
            c = int(short_C[0])
            raise DataError(
                f"long_tail: profile imagenet_lt takes {counts_C[c]:,} samples of class {c}, which has {available_C[c]:,}; "
                f"{len(short_C):,} classes are too small"
            )
    return _keep(train, counts_C, seed=setting.seed, name="long tail")


def balanced(split: S, *, seed: int, name: str, num_classes: int) -> S:
    """A random choice of samples, in their order, with as many of each class as the smallest class has. `name` is that of the split: each
    split has its own random stream."""
    available_C = np.bincount(split.labels_N, minlength=num_classes)
    return _keep(split, np.full(num_classes, available_C.min()), seed=seed, name=f"balance {name}")


def _keep(split: S, counts_C: _Counts, *, seed: int, name: str) -> S:
    """`counts_C[c]` random samples of each class c, in the order of the split; `name` and the class name the random stream."""
    by_class_N = np.argsort(split.labels_N, kind="stable")
    ends_C = np.cumsum(np.bincount(split.labels_N, minlength=len(counts_C)))
    kept = []
    for c, members in enumerate(np.split(by_class_N, ends_C[:-1])):
        kept.append(members[shuffled(len(members), stream(seed, name, c))[: counts_C[c]]])
    return split.take(np.sort(np.concatenate(kept)))
