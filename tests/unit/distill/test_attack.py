"""Attacks by hand on a linear network, their bounds, and training on them: the same bits in company and after an interruption."""

from collections.abc import Iterator
from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kd_ray.distill import checkpoint
from kd_ray.distill.attack import pgd, random_start, robust_predictions
from kd_ray.distill.device import make_deterministic
from kd_ray.distill.evaluate import predict
from kd_ray.distill.fit import fit
from kd_ray.distill.objective_background import background_of
from kd_ray.distill.samples.resident_images import ResidentImages, plain_pixels, standardised
from kd_ray.distill.student import Student, new_student
from kd_ray.distill.teacher import Teacher
from kd_ray.models import build_model
from kd_ray.sweep.distillation import TrustedDistillation
from kd_ray.sweep.fields import Attack
from kd_ray.sweep.spec import TrialSpec
from tests.unit.distill.test_fit import CPU, DATA, TEACHER_ID, assert_same_bits, make_spec

TEST = cast(ResidentImages, DATA.test)
PIXELS = TEST.pixels
WEAK, STRONG = (Attack(epsilon=epsilon, step_size=epsilon / 2, steps=5) for epsilon in (0.02, 0.3))


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    make_deterministic(1)
    yield
    torch.use_deterministic_algorithms(False)


def network(name: str = "lenet5", seed: int = 1) -> nn.Module:
    torch.manual_seed(seed)
    return build_model(name, num_classes=3, image_size=16).eval()


def thirty() -> tuple[Tensor, Tensor]:
    """Images and labels of the test split."""
    images_BHWC, labels_B = next(plain_pixels(TEST, 30))
    return standardised(TEST, images_BHWC), labels_B


def test_black_and_white_are_the_bounds_of_pixels() -> None:
    images_BCHW, _ = thirty()
    assert PIXELS.low.flatten().tolist() == pytest.approx([-2.0] * 3)
    assert PIXELS.width.flatten().tolist() == pytest.approx([4.0] * 3)
    assert (images_BCHW >= PIXELS.low).all()
    assert (images_BCHW <= PIXELS.low + PIXELS.width).all()


def test_a_linear_network_is_attacked_along_its_weights() -> None:
    """Two classes, z = (0, w · x): for label 1 every pixel goes down where w > 0 and up where w < 0, to the edge of the box."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 2 * 2, 2, bias=False))
    weight_I = torch.tensor([1.0, -2.0, 0.5, -0.5] * 3)
    with torch.no_grad():
        model[1].weight.copy_(torch.stack([torch.zeros(12), weight_I]))  # type: ignore[operator]
    images_BCHW = torch.zeros(2, 3, 2, 2)
    # Two steps of 0.6 epsilon reach the edge from the middle; from 0.9 epsilon the other way they do not.
    start_BCHW = torch.stack([torch.zeros(3, 2, 2), 0.9 * weight_I.sign().view(3, 2, 2)])
    attack = Attack(epsilon=0.1, step_size=0.06, steps=2)
    found_BCHW = pgd(model, images_BCHW, torch.tensor([1, 1]), attack, PIXELS, start_BCHW)
    torch.testing.assert_close(found_BCHW[0].flatten(), -0.4 * weight_I.sign())
    torch.testing.assert_close(found_BCHW[1].flatten(), (0.36 - 0.48) * weight_I.sign())


@pytest.mark.parametrize("attack", [WEAK, STRONG])
def test_attacked_images_stay_in_the_box_and_between_black_and_white(attack: Attack) -> None:
    model = network()
    model.train()
    images_BCHW, labels_B = thirty()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found_BCHW = pgd(model, images_BCHW, labels_B, attack, PIXELS, random_start(images_BCHW, 0, "a"))
    assert ((found_BCHW - images_BCHW).abs() <= attack.epsilon * PIXELS.width + 1e-6).all()
    assert (found_BCHW >= PIXELS.low - 1e-6).all()
    assert (found_BCHW <= PIXELS.low + PIXELS.width + 1e-6).all()
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_start_is_uniform_and_follows_its_names() -> None:
    like = torch.empty(8, 3, 16, 16)
    start = random_start(like, 3, "attack", 7)
    assert torch.equal(start, random_start(like, 3, "attack", 7))
    assert not torch.equal(start, random_start(like, 3, "attack", 8))
    assert (start.min().item(), start.max().item()) == pytest.approx((-1, 1), abs=0.01)
    assert start.mean().item() == pytest.approx(0, abs=0.05)


@pytest.mark.slow
def test_the_stronger_the_attack_the_fewer_are_right() -> None:
    student = start_student(make_spec(epochs=40, augmentation="none", schedule={"name": "constant"}))
    run([student], {})
    natural_N = predict(student.model, DATA.test).argmax(1).numpy()
    labels_N = DATA.test.labels_N.numpy()
    right = [float((natural_N == labels_N).mean())]
    right += [float((robust_predictions(student.model, TEST, it) == labels_N).mean()) for it in (WEAK, STRONG)]
    assert right[0] > 0.8
    assert right[0] >= right[1] > right[2]
    again_N = robust_predictions(student.model, TEST, WEAK)
    np.testing.assert_array_equal(again_N, robust_predictions(student.model, TEST, WEAK))


# Training


@pytest.fixture(scope="module")
def teachers() -> dict[str, Teacher]:
    return {TEACHER_ID: Teacher(network("resnet20").requires_grad_(False))}


def iad_spec(**changes: object) -> TrialSpec:
    settings = TrustedDistillation(
        objective="iad", temperature=2.0, alpha=0.8, t_squared=True, attack=WEAK.model_copy(update={"steps": 2})
    )
    return make_spec(2.0, **changes).model_copy(update={"distillation": settings})  # type: ignore[arg-type]


def start_student(
    spec: TrialSpec, teacher: Teacher | None = None, saved: checkpoint.TrainingState | None = None
) -> Student:
    assert spec.training
    background = background_of(spec.distillation, teacher, DATA) if spec.distillation and teacher else None
    return new_student(spec, spec.training, DATA, CPU, saved, background)


def run(students: list[Student], teachers: dict[str, Teacher], *, stop_at: int | None = None) -> None:
    def fail(student: Student, error: Exception) -> None:
        raise error

    for _ in fit(list(students), teachers, DATA, on_failure=fail, report_every_s=0.0):
        if students[0].step == stop_at:
            break


@pytest.mark.slow
def test_training_on_attacks_has_the_same_bits_in_company_and_after_an_interruption(
    teachers: dict[str, Teacher],
) -> None:
    teacher = teachers[TEACHER_ID]
    attacked, natural = start_student(iad_spec(), teacher), start_student(make_spec(2.0), teacher)
    run([attacked, natural], teachers)
    first = start_student(iad_spec(), teacher)
    run([first], teachers, stop_at=7)
    assert first.step == 7
    resumed = start_student(iad_spec(), teacher, checkpoint.decode(checkpoint.encode(first.state())))
    run([resumed], teachers)
    assert_same_bits(attacked, resumed)
    alone = start_student(make_spec(2.0), teacher)
    run([alone], teachers)
    assert_same_bits(natural, alone)
    assert set(attacked.history[-1].terms) == {"cross_entropy", "distillation", "self_distillation"}
    assert attacked.history[-1].terms["self_distillation"] > 0
