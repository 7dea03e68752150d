"""The control whose teacher answers for another sample."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kd_ray.distill.augmentations import PADDING
from kd_ray.distill.batches import Batch
from kd_ray.distill.samples.kind import Draw
from kd_ray.distill.samples.resident_images import ResidentImages
from kd_ray.distill.teacher import ShuffledTeacher, Teacher, permutation

labels = st.lists(st.integers(0, 4), min_size=1, max_size=60).map(torch.tensor)


@given(labels_N=labels, seed=st.integers(0, 5), within_class=st.booleans())
@settings(max_examples=50)
def test_each_sample_stands_in_once(labels_N: torch.Tensor, seed: int, within_class: bool) -> None:
    other_N = permutation(labels_N, seed=seed, within_class=within_class)
    assert sorted(other_N.tolist()) == list(range(len(labels_N)))
    assert torch.equal(other_N, permutation(labels_N, seed=seed, within_class=within_class))
    if within_class:
        assert torch.equal(labels_N[other_N], labels_N)


@pytest.mark.parametrize("within_class", [True, False])
def test_seeds_differ_and_few_samples_stay(within_class: bool) -> None:
    labels_N = torch.arange(1000) % 5
    first, second = (permutation(labels_N, seed=seed, within_class=within_class) for seed in (0, 1))
    assert not torch.equal(first, second)
    # One in a class of 200, or of all, is expected to stay.
    assert int((first == torch.arange(1000)).sum()) < 20


def test_the_answer_is_the_other_samples_in_the_same_view() -> None:
    random = torch.Generator().manual_seed(0)
    side = 8 + 2 * PADDING
    split = ResidentImages(
        images_NHWC=torch.randint(256, (20, side, side, 3), dtype=torch.uint8, generator=random),
        labels_N=torch.arange(20) % 4,
        mean=(0.0,) * 3,
        std=(1.0,) * 3,
    )
    torch.manual_seed(0)
    teacher = Teacher(nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 4)).requires_grad_(False))
    shuffled = ShuffledTeacher(teacher, split, augmentation="crop_flip", seed=3, within_class=False)
    # Row offset, column offset and flip: (0, 8, 1), (4, 4, 0) and (2, 1, 1).
    samples_B, views_B = torch.tensor([4, 0, 19]), torch.tensor([17, 80, 39])
    batch = Batch(split.inputs(samples_B, views_B, "crop_flip"), split.labels_N[samples_B], samples_B, views_B)
    other_B = permutation(split.labels_N, seed=3, within_class=False)[samples_B]
    expected = teacher.logits(batch._replace(inputs=split.inputs(other_B, views_B, "crop_flip")))
    assert torch.equal(shuffled.logits(batch), expected)
    assert not torch.equal(shuffled.logits(batch), teacher.logits(batch))
    assert list(shuffled.prepare(split, Draw(samples_B, views_B, "crop_flip"), batch_size=3, start=0)) == []
