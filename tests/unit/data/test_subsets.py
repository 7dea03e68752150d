"""Long tails and classes of equal size."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kd_ray.data.image_data import Split
from kd_ray.data.subsets import balanced, exponential_counts, imagenet_lt_counts, long_tailed
from kd_ray.errors import DataError
from kd_ray.sweep.classification import LongTail


def _split(*counts: int) -> Split:
    """As many samples of each class, their classes in a fixed disorder; pixel = number of the sample."""
    labels_N = np.repeat(np.arange(len(counts)), counts)
    labels_N = labels_N[np.random.default_rng(0).permutation(len(labels_N))].astype(np.int64)
    images_NHWC = np.zeros((len(labels_N), 1, 1, 3), dtype=np.uint8)
    images_NHWC[:, 0, 0] = np.stack([np.arange(len(labels_N)) // 256, np.arange(len(labels_N)) % 256, labels_N], axis=1)
    return Split(images_NHWC=images_NHWC, labels_N=labels_N)


def _numbers(split: Split) -> list[int]:
    return [256 * int(a) + int(b) for a, b, _ in split.images_NHWC[:, 0, 0]]


def test_exponential_counts_are_the_published_ones_of_cifar100_lt(shared_data: Path) -> None:
    published = json.loads((shared_data / "longtail-lists" / "cifar100lt_if100_class_count.json").read_text())
    counts_C = exponential_counts(np.full(100, 500), 100)
    assert counts_C.tolist() == published["class_counts"]
    assert counts_C.sum() == 10_847


def test_exponential_counts_by_hand() -> None:
    # 100 · 100^(-c/2) = 100, 10, 1; a class that has fewer keeps them.
    assert exponential_counts(np.array([100, 100, 100]), 100).tolist() == [100, 10, 1]
    assert exponential_counts(np.array([100, 7, 100]), 100).tolist() == [100, 7, 1]
    assert exponential_counts(np.array([10, 10, 10]), 1000).tolist() == [10, 1, 1]


@given(
    st.lists(st.integers(1, 2000), min_size=1, max_size=60),
    st.floats(1.001, 10_000, allow_nan=False),
)
def test_exponential_counts_fall_and_stay_within_what_there_is(available: list[int], factor: float) -> None:
    counts_C = exponential_counts(np.array(available), factor)
    assert (counts_C >= 1).all()
    assert (counts_C <= available).all()
    assert counts_C[0] == available[0]
    equal = exponential_counts(np.full(len(available), max(available)), factor)
    assert (np.diff(equal) <= 0).all()
    # The ratio of the ends is the factor, up to the floor and the least of one sample.
    assert equal[-1] == max(1, int(max(available) * (1 / factor) ** (1 if len(available) > 1 else 0)))


def test_imagenet_lt_counts_are_the_published_ones(shared_data: Path) -> None:
    counts_C = imagenet_lt_counts()
    assert (counts_C.sum(), counts_C.max(), counts_C.min()) == (115_846, 1280, 5)
    # Many-shot classes have more than 100 samples, few-shot ones fewer than 20 (Liu et al. 2019).
    assert [int((counts_C > 100).sum()), int((counts_C < 20).sum())] == [385, 136]
    published = json.loads((shared_data / "longtail-lists" / "imagenetlt_class_count.txt").read_text())
    assert counts_C.tolist() == [published[str(c)] for c in range(1000)]


def test_long_tailed_keeps_the_order_and_follows_the_seed() -> None:
    train = _split(40, 40, 40)
    kept = long_tailed(train, LongTail(imbalance_factor=16), num_classes=3)
    assert np.bincount(kept.labels_N).tolist() == [40, 10, 2]
    assert _numbers(kept) == sorted(_numbers(kept))
    assert _numbers(long_tailed(train, LongTail(imbalance_factor=16), num_classes=3)) == _numbers(kept)
    other = long_tailed(train, LongTail(imbalance_factor=16, seed=1), num_classes=3)
    assert np.bincount(other.labels_N).tolist() == [40, 10, 2]
    assert _numbers(other) != _numbers(kept)


@pytest.mark.slow
def test_long_tailed_with_the_counts_of_imagenet_lt() -> None:
    kept = long_tailed(_split(*[1300] * 1000), LongTail(profile="imagenet_lt"), num_classes=1000)
    assert np.bincount(kept.labels_N).tolist() == imagenet_lt_counts().tolist()


def test_imagenet_lt_is_refused_for_other_sets() -> None:
    with pytest.raises(DataError, match="profile imagenet_lt is for 1,000 classes, not for 3"):
        long_tailed(_split(5, 5, 5), LongTail(profile="imagenet_lt"), num_classes=3)
    with pytest.raises(DataError, match=r"takes 50 samples of class 0, which has 2; 1,000 classes are too small"):
        long_tailed(_split(*[2] * 1000), LongTail(profile="imagenet_lt"), num_classes=1000)


def test_balanced_cuts_the_larger_classes_only() -> None:
    split = _split(30, 10)
    cut = balanced(split, seed=0, name="train", num_classes=2)
    assert np.bincount(cut.labels_N).tolist() == [10, 10]
    rare = [n for n, label in zip(_numbers(split), split.labels_N, strict=True) if label == 1]
    assert set(rare) <= set(_numbers(cut))
    assert _numbers(cut) == sorted(_numbers(cut))
    others = {
        tuple(_numbers(balanced(split, seed=s, name=name, num_classes=2))) for s in (0, 1) for name in ("train", "test")
    }
    assert len(others) == 4


@pytest.mark.parametrize(
    "setting",
    [{}, {"profile": "imagenet_lt", "imbalance_factor": 10}, {"imbalance_factor": 1}, {"imbalance_factor": 0.5}],
)
def test_long_tail_settings_that_mean_nothing_are_refused(setting: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"is required with|has no effect with|greater than 1"):
        LongTail.model_validate(setting)
