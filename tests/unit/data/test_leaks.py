"""Samples in two splits are counted: equal images under other names, equal rows, equal texts, and images that are nearly equal."""

import io
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from kd_ray.data.image_data import ImageData, Split
from kd_ray.data.leaks import Leak, find_leaks
from kd_ray.data.row_data import RowData, RowSplit
from kd_ray.data.text_data import TextData, TextSplit
from tests.datasets import pixels


def labels(count: int) -> npt.NDArray[np.int64]:
    return np.zeros(count, dtype=np.int64)


def images(**splits: Any) -> ImageData:
    made: dict[str, Any] = {
        name: Split(images_NHWC=array, labels_N=labels(len(array))) for name, array in splits.items()
    }
    return ImageData(class_names=("a", "b"), mean=(0.5,) * 3, std=(0.5,) * 3, **made)


def rows(**splits: list[list[float]]) -> RowData:
    made: dict[str, Any] = {
        name: RowSplit(values_NF=np.array(values, dtype=np.float32), labels_N=labels(len(values)))
        for name, values in splits.items()
    }
    return RowData(class_names=("a", "b"), columns=("x", "y"), is_number_F=np.array([True, True]), **made)


def texts(ids: list[list[int]]) -> TextSplit:
    lengths_N = np.array([sum(token > 0 for token in row) for row in ids], dtype=np.int32)
    return TextSplit(ids_NL=np.array(ids, dtype=np.int32), lengths_N=lengths_N, labels_N=labels(len(ids)))


def photographs(count: int, side: int = 32) -> npt.NDArray[np.uint8]:
    """Blocks of color, enlarged: no two are alike."""
    small = pixels(count, 5, 5, 3, seed=4)
    return np.stack(
        [np.asarray(Image.fromarray(each).resize((side, side), Image.Resampling.BICUBIC)) for each in small]
    )


def compressed(image_HWC: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    buffer = io.BytesIO()
    Image.fromarray(image_HWC).save(buffer, format="JPEG", quality=85)
    return np.asarray(Image.open(buffer))


def test_equal_rows_are_counted_in_every_pair_of_splits() -> None:
    data = rows(
        train=[[1, 2], [3, 4], [0.0, 5]], validation=[[1, 2], [9, 9]], test=[[1, 2], [1, 2], [9, 9], [-0.0, 5], [7, 7]]
    )
    leak = {
        (leak.split, leak.other): (leak.num_equal, leak.n, leak.num_near) for leak in find_leaks(data, with_near=True)
    }
    assert leak == {
        ("test", "train"): (3, 5, None),
        ("test", "validation"): (3, 5, None),
        ("validation", "train"): (1, 2, None),
    }


def test_equal_texts_are_counted() -> None:
    data = TextData(train=texts([[5, 6, 0], [5, 6, 7]]), test=texts([[5, 6, 0], [6, 5, 0]]), class_names=("a", "b"))
    (leak,) = find_leaks(data, with_near=False)
    assert leak == Leak(split="test", other="train", n=2, num_equal=1, num_near=None)
    assert leak.sentence("texts") == "1 of 2 test texts are also in train"


def test_equal_and_nearly_equal_images_are_counted() -> None:
    every = photographs(60)
    train = every[:40]
    lighter = np.clip(train[20:24].astype(np.int64) + 2, 0, 255).astype(np.uint8)
    test = np.concatenate([train[:3], np.stack([compressed(image) for image in train[10:18]]), lighter, every[40:]])
    (leak,) = find_leaks(images(train=train, test=test), with_near=True)
    assert leak == Leak(split="test", other="train", n=35, num_equal=3, num_near=12)
    assert leak.sentence("images") == "3 of 35 test images are also in train, 12 more nearly"
    (leak,) = find_leaks(images(train=train, test=test), with_near=False)
    assert (leak.num_equal, leak.num_near) == (3, None)


def test_images_with_equal_thumbnails_and_other_pixels_are_no_leak() -> None:
    """As drawn images are that differ in a small shape or a fine texture."""
    blocks = (photographs(20).astype(np.int64) // 2) + 64
    fine = 50 * (-1) ** np.indices((32, 32)).sum(axis=0)[:, :, None]
    train, test = ((blocks + sign * fine).astype(np.uint8) for sign in (1, -1))
    assert find_leaks(images(train=train, test=test), with_near=True) == ()


def test_what_is_not_shared_is_no_leak() -> None:
    noise, flat = pixels(40, 32, 32, 3), np.repeat(np.arange(40, dtype=np.uint8), 32 * 32 * 3).reshape(40, 32, 32, 3)
    for every in (photographs(40), noise, flat):
        assert find_leaks(images(train=every[:20], test=every[20:]), with_near=True) == ()
