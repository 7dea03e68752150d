import numpy as np
import pytest
import torch
from torch.nn import functional

from kd_ray.data.images import ImageData, Split
from kd_ray.distill.stream import PADDING, augmented, epoch_batches, plain_batches, steps_per_epoch, to_device
from kd_ray.sweep.config import ConstantSchedule, Sgd, Training


def make_data(count: int = 23, size: int = 16) -> ImageData:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, size=(count, size, size, 3), dtype=np.uint8)
    split = Split(images_NHWC=images, labels_N=np.arange(count, dtype=np.int64) % 3)
    return ImageData(train=split, test=split, class_names=("a", "b", "c"), mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.5))


def training(augmentation: str = "crop_flip", batch_size: int = 5) -> Training:
    return Training.model_validate(
        {
            "epochs": 2,
            "batch_size": batch_size,
            "optimizer": Sgd(lr=0.1),
            "schedule": ConstantSchedule(name="constant"),
            "augmentation": augmentation,
        }
    )


DATA = make_data()
RESIDENT = to_device(DATA, torch.device("cpu"))


def test_every_sample_comes_once_in_an_epoch_and_the_last_batch_is_smaller() -> None:
    batches = list(epoch_batches(RESIDENT.train, training("none"), seed=0, epoch=0, start=0))
    assert [len(labels) for _, labels in batches] == [5, 5, 5, 5, 3]
    assert steps_per_epoch(23, 5) == 5
    seen = torch.cat([images for images, _ in batches]).flatten(1)
    plain = torch.cat([images for images, _ in plain_batches(RESIDENT.train, 10)]).flatten(1)
    assert sorted(seen.tolist()) == sorted(plain.tolist())


def test_order_and_views_change_with_epoch_and_seed_only() -> None:
    def first(seed: int, epoch: int) -> torch.Tensor:
        return next(epoch_batches(RESIDENT.train, training(), seed=seed, epoch=epoch, start=0))[0]

    assert torch.equal(first(1, 0), first(1, 0))
    assert not torch.equal(first(1, 0), first(1, 1))
    assert not torch.equal(first(1, 0), first(2, 0))


def test_starting_in_the_middle_gives_the_rest_of_the_epoch() -> None:
    whole = list(epoch_batches(RESIDENT.train, training(), seed=3, epoch=1, start=0))
    rest = list(epoch_batches(RESIDENT.train, training(), seed=3, epoch=1, start=3))
    assert len(rest) == 2
    for (a, x), (b, y) in zip(whole[3:], rest, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(x, y)


@pytest.mark.parametrize("flip", [0, 1])
@pytest.mark.parametrize("top", [0, 3, 8])
@pytest.mark.parametrize("left", [0, 4, 8])
def test_augmented_equals_pad_crop_flip_of_one_image(top: int, left: int, flip: int) -> None:
    image = torch.from_numpy(DATA.train.images_NHWC[4]).permute(2, 0, 1).float() / 255
    padded = functional.pad(image, (PADDING,) * 4)
    cropped = padded[:, top : top + 16, left : left + 16]
    expected = cropped.flip(2) if flip else cropped
    expected = (expected - torch.tensor(DATA.mean).view(3, 1, 1)) / torch.tensor(DATA.std).view(3, 1, 1)
    got = augmented(RESIDENT.train, torch.tensor([4]), torch.tensor([[top, left, flip]]))[0]
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


def test_all_162_views_of_crop_flip_occur_and_are_about_equally_likely() -> None:
    data = to_device(make_data(count=40_000, size=16), torch.device("cpu"))
    from kd_ray.distill.stream import _views

    views = _views(len(data.train), "crop_flip", seed=0, epoch=0).numpy()
    counts = np.bincount(views[:, 0] * 18 + views[:, 1] * 2 + views[:, 2], minlength=162)
    assert len(counts) == 162
    # Chi-square with 161 degrees of freedom: mean 161, sd 18.
    assert ((counts - 40_000 / 162) ** 2 / (40_000 / 162)).sum() < 161 + 5 * 18


def test_flip_leaves_the_place_alone_and_none_leaves_all_alone() -> None:
    from kd_ray.distill.stream import _views

    flips = _views(1000, "flip", seed=0, epoch=0)
    assert (flips[:, :2] == PADDING).all()
    assert 400 < int(flips[:, 2].sum()) < 600
    assert (_views(1000, "none", seed=0, epoch=0) == torch.tensor([PADDING, PADDING, 0])).all()


def test_batches_are_channels_last() -> None:
    images, _ = next(epoch_batches(RESIDENT.train, training(), seed=0, epoch=0, start=0))
    assert images.is_contiguous(memory_format=torch.channels_last)
