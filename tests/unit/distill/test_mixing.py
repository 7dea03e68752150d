"""Mixup, CutMix, averaged weights and smoothed labels: by hand, and with the loop's promises about company and kills."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from kd_ray.distill import checkpoint
from kd_ray.distill.batches import Batch
from kd_ray.distill.device import make_deterministic
from kd_ray.distill.fit import fit
from kd_ray.distill.mixing import Mix, cut_box, draw_mix, mixed, symmetric_beta
from kd_ray.distill.objectives import kd_loss, scratch_loss, student_loss
from kd_ray.distill.student import Student
from kd_ray.distill.teacher import Teacher
from kd_ray.errors import SweepError
from kd_ray.models import build_model
from kd_ray.sweep.distillation import DecoupledDistillation, KnowledgeDistillation
from kd_ray.sweep.load import parse_sweep
from tests.unit.distill.test_fit import DATA, TEACHER_ID, assert_same_bits, make_spec, make_training, start

EVERYTHING: dict[str, Any] = {"mixup": 0.4, "cutmix": 1.0, "ema_decay": 0.9, "label_smoothing": 0.1}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    make_deterministic(1)
    yield
    torch.use_deterministic_algorithms(False)


class RecordingTeacher(Teacher):
    """Remembers what it was shown."""

    shown: list[Tensor]

    def logits(self, batch: Batch) -> Tensor:
        self.shown = [*getattr(self, "shown", []), batch.images_BCHW]
        return super().logits(batch)


def make_teacher() -> RecordingTeacher:
    torch.manual_seed(1)
    return RecordingTeacher(build_model("lenet5", num_classes=3, image_size=16).eval().requires_grad_(False))


def _raise(student: Student, error: Exception) -> None:
    raise error


def test_mixup_by_hand() -> None:
    images = torch.tensor([0.0, 4.0, 8.0]).view(3, 1, 1, 1).expand(3, 3, 2, 2)
    result = mixed(images, Mix(0.75, torch.tensor([1, 2, 0]), None))
    assert result[:, 0, 0, 0].tolist() == [1.0, 5.0, 6.0]


def test_cutmix_by_hand() -> None:
    # √(1 − 0.75) · 8 = 4 pixels around (4, 1): rows 2 to 6, columns cut off at 0 to 3.
    box = cut_box(8, 0.75, 0.5, 0.125)
    assert box == (2, 6, 0, 3)
    images = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).repeat(1, 3, 8, 8)
    result = mixed(images, Mix(1 - 12 / 64, torch.tensor([1, 0]), box))
    assert result.sum((1, 2, 3)).tolist() == [36.0, 3 * 64 - 36]
    assert result[0, :, 2:6, 0:3].min() == 1
    assert images[0].max() == 0


def test_a_draw_of_cutmix_weighs_labels_by_pixels() -> None:
    training = make_training(cutmix=1.0)
    weights = []
    for step in range(200):
        mix = draw_mix(training, 6, 16, seed=0, epoch=0, step=step)
        assert mix is not None
        assert mix.box is not None
        top, bottom, left, right = mix.box
        assert mix.weight == 1 - (bottom - top) * (right - left) / 256
        assert sorted(mix.partners_B.tolist()) == list(range(6))
        weights.append(mix.weight)
    assert 0.5 < float(np.mean(weights)) < 0.8


def test_both_take_turns_and_each_step_has_its_own() -> None:
    training = make_training(mixup=0.2, cutmix=1.0)
    mixes = [draw_mix(training, 6, 16, seed=0, epoch=1, step=step) for step in range(100)]
    again = [draw_mix(training, 6, 16, seed=0, epoch=1, step=step) for step in range(100)]
    assert all(a and b and a.weight == b.weight and a.box == b.box for a, b in zip(mixes, again, strict=True))
    assert 30 < sum(mix is not None and mix.box is None for mix in mixes) < 70
    assert len({mix.weight for mix in mixes if mix}) > 60
    assert draw_mix(make_training(), 6, 16, seed=0, epoch=0, step=0) is None


@pytest.mark.parametrize("alpha", [0.1, 0.2, 0.4, 0.8, 1.0])
def test_lambda_is_beta_distributed(alpha: float) -> None:
    """Kolmogorov-Smirnov against scipy's Beta; at n = 4,000 a distance of 0.03 has p = 0.001."""
    from scipy import stats

    random = np.random.default_rng(0)
    uniforms = iter(random.random, None)
    draws = [symmetric_beta(alpha, uniforms) for _ in range(4000)]
    assert stats.kstest(draws, stats.beta(alpha, alpha).cdf).statistic < 0.03


def test_the_loss_of_a_mix_is_that_of_mixed_labels() -> None:
    """alpha · T² · KL + (1 − alpha) · cross-entropy with λ · one-hot + (1 − λ) · the partner's one-hot, in float64."""
    torch.manual_seed(0)
    logits, teacher = torch.randn(4, 3), torch.randn(4, 3)
    labels, partners = torch.tensor([0, 1, 2, 1]), torch.tensor([2, 0, 1, 3])
    batch = Batch(torch.zeros(4, 3, 2, 2), labels, torch.arange(4), torch.zeros(4, 3), Mix(0.7, partners, None))
    target = 0.7 * functional.one_hot(labels, 3).double() + 0.3 * functional.one_hot(labels[partners], 3).double()
    hard = float(-(target * logits.double().log_softmax(1)).sum(1).mean())
    log_p, log_q = ((each.double() / 4).log_softmax(1) for each in (teacher, logits))
    soft = float((log_p.exp() * (log_p - log_q)).sum(1).mean())
    loss = start(make_spec(4.0, mixup=0.5)).loss(logits, teacher, batch)
    assert float(loss.terms["cross_entropy"]) == pytest.approx(hard, rel=1e-5)
    assert float(loss.terms["distillation"]) == pytest.approx(soft, rel=1e-5)
    assert float(loss.total) == pytest.approx(0.9 * 16 * soft + 0.1 * hard, rel=1e-5)


def test_smoothed_labels_by_hand() -> None:
    """Two classes, logits 0 and log 3: p = 1/4, 3/4; the label 1 smoothed by 0.2 is 0.1, 0.9."""
    logits, labels = torch.tensor([[0.0, math.log(3.0)]]), torch.tensor([1])
    expected = -(0.1 * math.log(0.25) + 0.9 * math.log(0.75))
    assert float(scratch_loss(logits, None, labels, smoothing=0.2).total) == pytest.approx(expected, rel=1e-6)
    settings = KnowledgeDistillation(temperature=1.0, alpha=0.25, t_squared=False)
    loss = kd_loss(logits, logits, labels, settings, smoothing=0.2)
    assert float(loss.total) == pytest.approx(0.75 * expected, rel=1e-6)
    dkd = DecoupledDistillation(objective="dkd", temperature=1.0, alpha=0.5, t_squared=True)
    with pytest.raises(ValueError, match="objective dkd has no place for smoothed labels"):
        student_loss(logits, logits, labels, dkd, smoothing=0.2)


def test_the_average_by_hand_after_three_steps() -> None:
    spec = make_spec(epochs=2, ema_decay=0.75, augmentation="none")
    student = start(spec)
    name = next(iter(dict(student.model.named_parameters())))
    average = student.model.get_parameter(name).detach().clone()
    stream = fit([student], {}, DATA, on_failure=_raise, report_every_s=0.0)
    for _ in range(3):
        next(stream)
        average = 0.75 * average + 0.25 * student.model.get_parameter(name).detach()
    assert student.step == 3
    torch.testing.assert_close(student.result.get_parameter(name), average, rtol=1e-5, atol=1e-7)
    assert not torch.equal(student.result.get_parameter(name), student.model.get_parameter(name))


def test_the_average_is_what_is_validated() -> None:
    student = start(make_spec(epochs=2, ema_decay=0.999999, augmentation="none"))
    before = {name: each.clone() for name, each in student.result.state_dict().items() if each.is_floating_point()}
    for _ in fit([student], {}, DATA, on_failure=_raise):
        pass
    assert len({epoch.validation_accuracy for epoch in student.history}) == 1
    for name, each in before.items():
        torch.testing.assert_close(student.result.state_dict()[name], each, rtol=1e-3, atol=1e-4)


def test_the_teacher_sees_what_the_students_see() -> None:
    teacher, seen = make_teacher(), []
    students = [start(make_spec(t, epochs=2, mixup=0.4, cutmix=1.0)) for t in (1.0, 4.0)]
    students[0].model.register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0]) if students[0].model.training else None
    )
    for _ in fit(list(students), {TEACHER_ID: teacher}, DATA, on_failure=_raise):
        pass
    assert len(seen) == len(teacher.shown) == 10
    assert all(torch.equal(a, b) for a, b in zip(seen, teacher.shown, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("augmentation", ["crop_flip", "randaugment"])
def test_everything_together_has_the_same_bits_in_company_and_after_a_kill(augmentation: str) -> None:
    specs = [make_spec(t, epochs=3, augmentation=augmentation, **EVERYTHING) for t in (1.0, 4.0)]

    def trained(chosen: list[Student]) -> list[Student]:
        for _ in fit(list(chosen), {TEACHER_ID: make_teacher()}, DATA, on_failure=_raise):
            pass
        return chosen

    alone = [trained([start(spec)])[0] for spec in specs]
    together = trained([start(spec) for spec in specs])
    killed = start(specs[0])
    stream = fit([killed], {TEACHER_ID: make_teacher()}, DATA, on_failure=_raise, report_every_s=0.0)
    while killed.step < 7:
        next(stream)
    resumed = trained([start(specs[0], checkpoint.decode(checkpoint.encode(killed.state())))])[0]
    for expected, *others in ((alone[0], together[0], resumed), (alone[1], together[1])):
        for other in others:
            assert_same_bits(expected, other)
            for a, b in zip(expected.result.state_dict().values(), other.result.state_dict().values(), strict=True):
                assert torch.equal(a, b)


def test_new_settings_leave_old_identities_alone() -> None:
    plain = make_spec(4.0)
    assert make_spec(4.0, label_smoothing=0.0, mixup=0.0, cutmix=0.0).trial_id == plain.trial_id
    others = {make_spec(4.0, **{name: value}).trial_id for name, value in EVERYTHING.items()}
    assert len(others | {plain.trial_id}) == 5


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["training.mixup=0.2", "training.execution=grouped"], "training.mixup: is not known to execution: grouped; use loop, got 0.2"),
        (["training.ema_decay=0.9", "training.execution=grouped"], "training.ema_decay: is not known to execution: grouped"),
        (["training.mixup=2"], "training.mixup: .*less than or equal to 1"),
        (["training.ema_decay=1"], "training.ema_decay: .*less than 1"),
        (
            ["training.label_smoothing=0.1", "distillation.objective=dkd"],
            "training.label_smoothing: objective dkd makes its own use of labels; valid with kd and kd_shuffled, got 0.1",
        ),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_refused(overrides: list[str], message: str) -> None:
    text = """
name: x
dataset: {name: cifar10}
teacher: {model: resnet56}
student: {model: resnet20}
training: {epochs: 2, batch_size: 8, optimizer: {lr: 0.1}, schedule: {name: constant}}
distillation: {alpha: 0.9, t_squared: true}
grid: {seed: [0], temperature: [4]}
"""
    with pytest.raises(SweepError, match=message):
        parse_sweep(text, source="x.yaml", overrides=overrides)
