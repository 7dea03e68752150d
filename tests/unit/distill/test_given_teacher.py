"""A teacher whose logits are given looks them up by sample, rounds them as a network's, and has no network."""

import pytest
import torch

from kd_ray.distill.batches import Batch
from kd_ray.distill.given_teacher import GivenTeacher
from kd_ray.distill.teacher import ShuffledTeacher, permutation
from kd_ray.errors import TrialError
from tests.unit.distill.test_fit import DATA

TRAIN = DATA.train
LOGITS_NC = torch.randn(len(TRAIN), 3, generator=torch.Generator().manual_seed(0))
SAMPLES_B = torch.tensor([5, 0, 5, 2])


def batch() -> Batch:
    views_B = torch.zeros_like(SAMPLES_B)
    return Batch(TRAIN.inputs(SAMPLES_B, views_B, "none"), TRAIN.labels_N[SAMPLES_B], SAMPLES_B, views_B, None)


def test_logits_are_looked_up_by_sample() -> None:
    assert torch.equal(GivenTeacher(LOGITS_NC).logits(batch()), LOGITS_NC[SAMPLES_B])


def test_half_precision_is_that_of_any_teacher() -> None:
    small = GivenTeacher(LOGITS_NC, precision="fp16")
    assert torch.equal(small.logits(batch()), LOGITS_NC[SAMPLES_B].half().float())
    with pytest.raises(TrialError, match="teacher_logits: fp16 changes this teacher"):
        GivenTeacher(1000 * LOGITS_NC, precision="fp16")


def test_the_shuffled_control_gives_each_sample_the_row_of_another() -> None:
    shuffled = ShuffledTeacher(GivenTeacher(LOGITS_NC), TRAIN, augmentation="none", seed=4, within_class=False)
    other_N = permutation(TRAIN.labels_N, seed=4, within_class=False)
    assert torch.equal(shuffled.logits(batch()), LOGITS_NC[other_N[SAMPLES_B]])


def test_there_is_no_network_to_ask() -> None:
    with pytest.raises(TrialError, match=r"teacher\.logits: only logits of the training samples are given"):
        GivenTeacher(LOGITS_NC).answer(batch().inputs)
