"""Endless views: Pillow's work as torchvision has it done, crops within the image, and one number that decides it all."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as reference
from torchvision.transforms.autoaugment import RandAugment, _apply_op

from kd_ray.data.random_views import MAGNITUDE, NUM_BINS, OPERATIONS, crop_box, view_of
from tests.datasets import pixels


def smooth(width: int = 60, height: int = 44) -> Image.Image:
    """A picture with edges, not noise."""
    return Image.fromarray(pixels(6, 8, 3, seed=3)).resize((width, height), Image.Resampling.BICUBIC)


def uniforms(*numbers: float) -> Iterator[float]:
    yield from numbers


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_is_torchvisions(name: str, sign: int) -> None:
    image = smooth(40, 40)
    strengths, signed = RandAugment()._augmentation_space(NUM_BINS, (40, 40))[name]
    strength = float(strengths[MAGNITUDE]) if strengths.ndim > 0 else 0.0
    if signed:
        strength *= sign
    expected = _apply_op(image, name, strength, interpolation=InterpolationMode.NEAREST, fill=None)
    assert np.array_equal(np.asarray(OPERATIONS[name](image, sign)), np.asarray(expected))


def test_operations_are_those_of_randaugment() -> None:
    assert set(OPERATIONS) == set(RandAugment()._augmentation_space(NUM_BINS, (40, 40)))
    assert (RandAugment().num_ops, RandAugment().magnitude, RandAugment().num_magnitude_bins) == (2, 9, 31)


def test_a_crop_by_hand() -> None:
    # Area 100 · 50 · (0.08 + 0.92 · 0.1) = 860; ratio exp(log 3/4 + 0.5 · (log 4/3 − log 3/4)) = 1, so 29.3 → 29 each way.
    # Top ⌊0.5 · (50 − 29 + 1)⌋ = 11, left ⌊0.25 · (100 − 29 + 1)⌋ = 18.
    assert crop_box(100, 50, uniforms(0.1, 0.5, 0.5, 0.25)) == (18, 11, 47, 40)
    # Ten crops of all 5,000 pixels do not fit into a height of 50: the central square is left.
    assert crop_box(100, 50, uniforms(*[0.999, 0.5] * 10)) == (25, 0, 75, 50)


@pytest.mark.slow
@given(st.integers(1, 400), st.integers(1, 400), st.lists(st.floats(0, 1, exclude_max=True), min_size=40, max_size=40))
def test_every_crop_lies_within_the_image(width: int, height: int, numbers: list[float]) -> None:
    left, top, right, bottom = crop_box(width, height, uniforms(*numbers))
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height


def test_a_view_is_a_crop_resized_as_torchvision_does() -> None:
    image = smooth()
    found = 0
    for number in range(40):
        view = view_of(image, number, size=24, with_operations=False)
        bits = np.random.PCG64(number)
        draws = iter([(int(raw) >> 11) * 2.0**-53 for raw in bits.random_raw(48)])
        left, top, right, bottom = crop_box(image.width, image.height, draws)
        expected = reference.resized_crop(image, top, left, bottom - top, right - left, [24, 24])
        flips = next(draws) < 0.5
        found += flips
        assert np.array_equal(view, np.asarray(reference.hflip(expected) if flips else expected))
    assert 10 < found < 30


def test_a_view_follows_its_number_and_nothing_else() -> None:
    """Guard: the views of these numbers are those of every trial in every store."""
    image = smooth()
    views = [view_of(image, number, size=16, with_operations=True) for number in range(20)]
    again = [view_of(image, number, size=16, with_operations=True) for number in reversed(range(20))]
    assert all(np.array_equal(a, b) for a, b in zip(views, reversed(again), strict=True))
    assert len({view.tobytes() for view in views}) == 20
    boxes = [
        crop_box(200, 100, (raw * 2.0**-53 for raw in (np.random.PCG64(n).random_raw(44) >> 11).tolist()))
        for n in range(3)
    ]
    assert boxes == [(145, 36, 187, 92), (77, 1, 196, 93), (11, 13, 87, 98)]
