from typing import get_args

import numpy as np
import pytest
import torch
from torch.nn import functional

from kd_ray.data.image_data import ImageData, Split
from kd_ray.distill.augmentations import AUGMENTATIONS, PADDING, CountableViews, num_views
from kd_ray.distill.batches import Batch, batches, epoch_draw, steps_per_epoch
from kd_ray.distill.samples import to_device
from kd_ray.distill.samples.resident_images import ResidentImages
from kd_ray.sweep.training import Augmentation


def make_data(count: int = 23, size: int = 16) -> ImageData:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, size=(count, size, size, 3), dtype=np.uint8)
    split = Split(images_NHWC=images, labels_N=np.arange(count, dtype=np.int64) % 3)
    return ImageData(train=split, test=split, class_names=("a", "b", "c"), mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.5))


DATA = make_data()
RESIDENT = to_device(DATA, torch.device("cpu"))


def of_epoch(augmentation: Augmentation = "crop_flip", *, seed: int = 0, epoch: int = 0, start: int = 0) -> list[Batch]:
    draw = epoch_draw(len(RESIDENT.train), augmentation, seed=seed, epoch=epoch)
    return list(batches(RESIDENT.train, draw, batch_size=5, start=start))


def test_every_sample_comes_once_in_an_epoch_and_the_last_batch_is_smaller() -> None:
    found = of_epoch("none")
    assert [len(batch.labels_B) for batch in found] == [5, 5, 5, 5, 3]
    assert steps_per_epoch(23, 5) == 5
    seen = torch.cat([batch.images_BCHW for batch in found]).flatten(1)
    plain = torch.cat([images for images, _ in RESIDENT.train.plain_batches(10) if isinstance(images, torch.Tensor)])
    plain = plain.flatten(1)
    assert sorted(seen.tolist()) == sorted(plain.tolist())


def test_order_and_views_change_with_epoch_and_seed_only() -> None:
    def first(seed: int, epoch: int) -> torch.Tensor:
        return of_epoch(seed=seed, epoch=epoch)[0].images_BCHW

    assert torch.equal(first(1, 0), first(1, 0))
    assert not torch.equal(first(1, 0), first(1, 1))
    assert not torch.equal(first(1, 0), first(2, 0))


def test_order_and_views_of_a_seed_are_known() -> None:
    """Guard: each comes from the named stream of the trial's own seed, so a trial is the same wherever and whenever it runs."""
    draw = epoch_draw(8, "crop_flip", seed=3, epoch=1)
    assert draw.samples_N.tolist() == [2, 6, 0, 1, 3, 4, 5, 7]
    assert draw.views_N.tolist() == [7, 144, 107, 156, 65, 44, 107, 42]


def test_starting_in_the_middle_gives_the_rest_of_the_epoch() -> None:
    whole = of_epoch(seed=3, epoch=1)
    rest = of_epoch(seed=3, epoch=1, start=3)
    assert len(rest) == 2
    for a, b in zip(whole[3:], rest, strict=True):
        assert torch.equal(a.images_BCHW, b.images_BCHW)
        assert all(torch.equal(x, y) for x, y in zip(a[1:4], b[1:4], strict=True))


@pytest.mark.parametrize("flip", [0, 1])
@pytest.mark.parametrize("top", [0, 3, 8])
@pytest.mark.parametrize("left", [0, 4, 8])
def test_augmented_equals_pad_crop_flip_of_one_image(top: int, left: int, flip: int) -> None:
    image = torch.from_numpy(DATA.train.images_NHWC[4]).permute(2, 0, 1).float() / 255
    padded = functional.pad(image, (PADDING,) * 4)
    cropped = padded[:, top : top + 16, left : left + 16]
    expected = cropped.flip(2) if flip else cropped
    expected = (expected - torch.tensor(DATA.mean).view(3, 1, 1)) / torch.tensor(DATA.std).view(3, 1, 1)
    view = torch.tensor([(top * 9 + left) * 2 + flip])
    got = RESIDENT.train.inputs(torch.tensor([4]), view, "crop_flip")[0]
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("augmentation", ["none", "flip", "crop_flip"])
def test_images_have_the_bits_of_pixel_times_scale_plus_shift(augmentation: Augmentation) -> None:
    """Whatever way pixels are gathered: a record's bits follow from these."""
    train = RESIDENT.train
    assert isinstance(train, ResidentImages)
    views = AUGMENTATIONS[augmentation]
    assert isinstance(views, CountableViews)
    samples_B = torch.tensor([4, 0, 22, 4, 7])
    views_B = torch.tensor([0, 1, 50, 161, 80]) % views.num_views
    got_BCHW = train.inputs(samples_B, views_B, augmentation)
    for sample, (top, left, flip), got_CHW in zip(samples_B, views.crops(views_B).tolist(), got_BCHW, strict=True):
        cut_HWC = train.images_NHWC[sample, top : top + 16, left : left + 16]
        cut_HWC = cut_HWC.flip(1) if flip else cut_HWC
        assert torch.equal(got_CHW, (cut_HWC.float() * train.scale_C + train.shift_C).permute(2, 0, 1))


def test_all_162_views_of_crop_flip_occur_and_are_about_equally_likely() -> None:
    views = epoch_draw(40_000, "crop_flip", seed=0, epoch=0).views_N.numpy()
    counts = np.bincount(views, minlength=162)
    assert len(counts) == 162
    # Chi-square with 161 degrees of freedom: mean 161, sd 18.
    assert ((counts - 40_000 / 162) ** 2 / (40_000 / 162)).sum() < 161 + 5 * 18


def crops_of(numbers: torch.Tensor, augmentation: Augmentation) -> torch.Tensor:
    views = AUGMENTATIONS[augmentation]
    assert isinstance(views, CountableViews)
    return views.crops(numbers)


def test_flip_leaves_the_place_alone_and_none_leaves_all_alone() -> None:
    flips = crops_of(epoch_draw(1000, "flip", seed=0, epoch=0).views_N, "flip")
    assert (flips[:, :2] == PADDING).all()
    assert 400 < int(flips[:, 2].sum()) < 600
    plain = crops_of(epoch_draw(1000, "none", seed=0, epoch=0).views_N, "none")
    assert (plain == torch.tensor([PADDING, PADDING, 0])).all()


def test_batches_are_channels_last() -> None:
    assert of_epoch()[0].images_BCHW.is_contiguous(memory_format=torch.channels_last)


def test_a_batch_says_which_views_of_which_samples_it_holds() -> None:
    for batch in of_epoch(seed=2):
        shown = RESIDENT.train.inputs(batch.samples_B, batch.views_B, "crop_flip")
        assert isinstance(shown, torch.Tensor)
        assert torch.equal(batch.images_BCHW, shown)
        assert torch.equal(batch.labels_B, RESIDENT.train.labels_N[batch.samples_B])


@pytest.mark.parametrize(("augmentation", "count"), [("none", 1), ("flip", 2), ("crop_flip", 162)])
def test_every_view_has_a_number_of_its_own(augmentation: Augmentation, count: int) -> None:
    assert num_views(augmentation) == count
    crops = crops_of(torch.arange(count), augmentation)
    assert len({tuple(crop) for crop in crops.tolist()}) == count
    assert (crops[:, :2] <= 2 * PADDING).all()
    drawn = epoch_draw(3000, augmentation, seed=0, epoch=0).views_N
    assert sorted(set(drawn.tolist())) == list(range(count))


def test_endless_views_have_no_number_of_views() -> None:
    assert [name for name in AUGMENTATIONS if num_views(name) is None] == ["resized_crop", "randaugment"]
    assert set(AUGMENTATIONS) == set(get_args(Augmentation))
