"""Adversarial debiasing: the adversary, the projection and a whole step against calculations by hand; resuming and company."""

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from kd_ray.data.image_data import ImageData, Split
from kd_ray.distill import checkpoint
from kd_ray.distill.device import make_deterministic
from kd_ray.distill.fit import fit
from kd_ray.distill.objective_background import background_of
from kd_ray.distill.objectives import Context, student_loss
from kd_ray.distill.objectives.adversarial import Adversary, adversary_loss, debiased
from kd_ray.distill.samples import ResidentData, to_device
from kd_ray.distill.student import Student, new_student
from kd_ray.distill.teacher import Teacher
from kd_ray.groups import Groups
from kd_ray.models import build_model
from kd_ray.sweep.distillation import AdversarialDistillation
from kd_ray.sweep.spec import TrialSpec
from tests.unit.distill.objectives.examples import (
    LABELS,
    STUDENT,
    TEACHER,
    adversary_of,
    context_of,
    settings_of,
    softmax,
)
from tests.unit.distill.test_fit import TEACHER_ID, assert_same_bits, make_spec

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    make_deterministic(1)
    yield
    torch.use_deterministic_algorithms(False)


def asked(**changes: object) -> AdversarialDistillation:
    settings = settings_of("adversarial", **changes)
    assert isinstance(settings, AdversarialDistillation)
    return settings


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize("criterion", ["demographic_parity", "equalized_odds"])
def test_with_two_classes_the_adversary_is_the_papers(criterion: str) -> None:
    """w · s + b, and w · (s, s·y, s·(1 − y)) + b, with s = sigmoid((1 + |c|) · σ⁻¹(ŷ)) and ŷ the probability of the second class."""
    adversary = adversary_of(asked(criterion=criterion), num_classes=2, num_groups=1)
    logits, labels = STUDENT.detach()[:, :2], torch.tensor([0, 1, 1, 0, 1])
    c, b, w = adversary.sharpness.item(), adversary.bias_G.item(), adversary.own_SG.item()
    of_class = [0.0, 0.0] if adversary.by_class_CSG is None else adversary.by_class_CSG.flatten().tolist()
    for n, guess in enumerate(adversary(logits, labels)[:, 0].tolist()):
        answer = softmax(logits[n].numpy())[1]
        s = sigmoid((1 + abs(c)) * math.log(answer / (1 - answer)))
        y = labels[n].item()
        assert guess == pytest.approx(w * s + of_class[1] * s * y + of_class[0] * s * (1 - y) + b, rel=1e-12)


@pytest.mark.parametrize("criterion", ["demographic_parity", "equalized_odds"])
def test_with_several_classes_and_groups_by_hand(criterion: str) -> None:
    settings = asked(criterion=criterion)
    context = context_of(settings)
    adversary = context.adversary
    assert isinstance(adversary, Adversary)
    members = context.membership("color").clone()
    members[1] = torch.tensor([True, True, False])
    members[4] = False
    background = replace(context.background, sensitive_features={"color": members})
    loss = student_loss(STUDENT, TEACHER, LABELS, settings, replace(context, background=background))
    own, bias = adversary.own_SG.tolist(), adversary.bias_G.tolist()
    total, count = 0.0, 0
    for n in range(4):
        s = softmax((1 + abs(adversary.sharpness.item())) * STUDENT.detach().numpy()[n])
        for g in range(3):
            guess = bias[g] + sum(s[k] * own[k][g] for k in range(4))
            if adversary.by_class_CSG is not None:
                guess += sum(s[k] * adversary.by_class_CSG[LABELS[n]].tolist()[k][g] for k in range(4))
            total -= math.log(sigmoid(guess) if members[n][g] else 1 - sigmoid(guess))
            count += 1
    assert loss.adversary is not None
    assert loss.adversary.item() == pytest.approx(total / count, rel=1e-12)
    assert loss.terms["adversary"] is loss.adversary
    expected = student_loss(STUDENT, TEACHER, LABELS, settings_of("kd"), None)
    assert loss.total.item() == expected.total.item()


def test_a_batch_of_which_nobody_is_in_a_group_says_nothing() -> None:
    guess = torch.randn(4, 2, requires_grad=True)
    loss = adversary_loss(guess, torch.zeros(4, 2))
    (gradient,) = torch.autograd.grad(loss, guess)
    assert loss.item() == 0
    assert not gradient.any()


def test_the_projection_by_hand_is_of_the_whole_gradient() -> None:
    g = [torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([5.0])]
    h = [torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([-1.0])]
    # g · h = 1 + 8 − 5 = 4 and h · h = 1 + 4 + 1 = 6.
    share = 4 / 6
    matrix, vector = debiased(g, h, weight=0.5)
    expected = [[1 - (share + 0.5), 2.0], [3.0, 4 - 2 * (share + 0.5)]]
    torch.testing.assert_close(matrix, torch.tensor(expected))
    torch.testing.assert_close(vector, torch.tensor([5 + share + 0.5]))
    # Tensor by tensor it would have been 9 / 5 and −5.
    assert not torch.allclose(debiased(g[:1], h[:1], weight=0.5)[0], matrix)


def test_without_an_adversarys_gradient_the_own_one_is_kept_exactly() -> None:
    g = [torch.randn(3, 2), torch.randn(4)]
    kept = debiased(g, [torch.zeros(3, 2), torch.zeros(4)], weight=2.0)
    assert all(torch.equal(a, b) for a, b in zip(g, kept, strict=True))


vectors = st.lists(st.floats(-10, 10), min_size=3, max_size=3)


@pytest.mark.slow
@given(g=vectors, h=vectors, weight=st.floats(0, 5))
def test_a_step_never_helps_the_adversary(g: list[float], h: list[float], weight: float) -> None:
    """Along h, what is left of the step is −weight · |h|²; across it, g is untouched."""
    g_P, h_P = torch.tensor(g, dtype=torch.float64), torch.tensor(h, dtype=torch.float64)
    (step_P,) = debiased([g_P], [h_P], weight=weight)
    if h_P.norm() < 1e-3:
        return
    assert torch.dot(step_P, h_P).item() == pytest.approx(-weight * h_P.norm().item() ** 2, abs=1e-8)
    across_P = torch.linalg.cross(h_P, g_P)
    torch.testing.assert_close(torch.linalg.cross(h_P, step_P), across_P, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("schedule", ["constant", "sqrt"])
def test_a_step_of_a_linear_student_against_numpy(schedule: str) -> None:
    """z = x W, two classes, one feature of two groups: gradients, projection and the adversary's own gradient line by line."""
    settings = asked(criterion="demographic_parity", debiasing=0.7, debiasing_schedule=schedule, adversary_lr=0.05)
    random = np.random.default_rng(0)
    x, weights, teacher = random.normal(size=(6, 3)), random.normal(size=(3, 2)), random.normal(size=(6, 2))
    labels, member = np.array([0, 1, 1, 0, 1, 0]), np.eye(2)[[0, 0, 1, 1, 0, 1]]

    model = nn.Linear(3, 2, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.tensor(weights.T))
    adversary = adversary_of(settings, num_classes=2, num_groups=2)
    c, u, b = adversary.sharpness.item(), adversary.own_SG.detach().numpy()[0].copy(), adversary.bias_G.tolist()
    background = replace(context_of(settings).background, sensitive_features={"color": torch.tensor(member).bool()})
    context = Context(samples_B=torch.arange(6), background=background, adversary=adversary)
    loss = student_loss(model(torch.tensor(x)), torch.tensor(teacher), torch.tensor(labels), settings, context)
    adversary.backward(model, loss, step=8)

    z = x @ weights
    t, alpha = settings.temperature, settings.alpha
    soft = alpha * t**2 * (softmax(z / t) - softmax(teacher / t)) / t
    hard = (1 - alpha) * (softmax(z) - np.eye(2)[labels])
    g = x.T @ (soft + hard) / 6
    margin = z[:, 1] - z[:, 0]
    s = 1 / (1 + np.exp(-(1 + abs(c)) * margin))
    error = 1 / (1 + np.exp(-(s[:, None] * u + b))) - member
    by_margin = (error * u).sum(1) * s * (1 - s) * (1 + abs(c)) / 12
    h = x.T @ np.stack([-by_margin, by_margin], axis=1)
    weight = 0.7 * (3.0 if schedule == "sqrt" else 1.0)
    expected = g - (g * h).sum() / (h * h).sum() * h - weight * h
    assert model.weight.grad is not None
    np.testing.assert_allclose(model.weight.grad.numpy().T, expected, rtol=1e-10)
    # Adam's first step is the learning rate against the sign of the gradient.
    own_gradient = (error * s[:, None]).sum(0) / 12
    np.testing.assert_allclose(adversary.own_SG.detach().numpy()[0], u - 0.05 * np.sign(own_gradient), rtol=1e-5)


# Training


def make_data() -> ImageData:
    """Three classes of noisy bars; most of one group have the first class."""
    random = np.random.default_rng(0)

    def split(count: int) -> Split:
        labels = random.integers(0, 3, size=count)
        images = random.integers(0, 120, size=(count, 16, 16, 3))
        images[np.arange(count), :, 4 * labels + 2] += 100
        codes = np.where(random.random(count) < 0.8, labels == 0, random.integers(-1, 2, size=count))
        groups = Groups.from_codes(codes.astype(np.int64), ["a", "b"])
        return Split(images_NHWC=images.astype(np.uint8), labels_N=labels, sensitive_features={"kind": groups})

    return ImageData(train=split(70), test=split(30), class_names=("x", "y", "z"), mean=(0.5,) * 3, std=(0.25,) * 3)


DATA: ResidentData = to_device(make_data(), CPU)


def spec_of(criterion: str = "equalized_odds", **changes: object) -> TrialSpec:
    return make_spec(4.0).model_copy(
        update={"distillation": asked(feature="kind", criterion=criterion, debiasing_schedule="sqrt", **changes)}
    )


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    torch.manual_seed(1)
    return Teacher(build_model("resnet20", num_classes=3, image_size=16).eval().requires_grad_(False))


def start(spec: TrialSpec, teacher: Teacher, saved: checkpoint.TrainingState | None = None) -> Student:
    assert spec.training
    assert spec.distillation
    return new_student(spec, spec.training, DATA, CPU, saved, background_of(spec.distillation, teacher, DATA))


def run(students: list[Student], teacher: Teacher) -> list[Student]:
    def fail(student: Student, error: Exception) -> None:
        raise error

    for _ in fit(list(students), {TEACHER_ID: teacher}, DATA, on_failure=fail):
        pass
    return students


def adversary_tensors(student: Student) -> dict[str, Tensor]:
    assert student.adversary is not None
    return student.adversary.tensors()


@pytest.mark.slow
def test_a_trial_stopped_in_an_epoch_goes_on_to_the_same_bits_and_company_changes_none(teacher: Teacher) -> None:
    specs = [spec_of(), spec_of("demographic_parity"), make_spec(4.0)]
    together = run([start(spec, teacher) for spec in specs], teacher)
    first = start(specs[0], teacher)
    for _ in fit([first], {TEACHER_ID: teacher}, DATA, on_failure=lambda student, error: None, report_every_s=0.0):
        if first.step >= 7:
            break
    assert first.step == 7
    resumed = start(specs[0], teacher, checkpoint.decode(checkpoint.encode(first.state())))
    run([resumed], teacher)
    assert_same_bits(together[0], resumed)
    ours, theirs = adversary_tensors(together[0]), adversary_tensors(resumed)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    assert any(name.startswith("optimizer.0.exp_avg") for name in ours)
    for spec, in_company in zip(specs[1:], together[1:], strict=True):
        assert_same_bits(run([start(spec, teacher)], teacher)[0], in_company)


@pytest.mark.slow
def test_a_checkpoint_without_the_adversary_would_go_on_differently(teacher: Teacher) -> None:
    """Guards the test above: the adversary's state is a part of what the next step depends on."""
    spec = spec_of()
    (whole,) = run([start(spec, teacher)], teacher)
    first = start(spec, teacher)
    for _ in fit([first], {TEACHER_ID: teacher}, DATA, on_failure=lambda student, error: None, report_every_s=0.0):
        if first.step >= 7:
            break
    fresh = start(spec, teacher)
    resumed = start(spec, teacher, replace(first.state(), adversary=adversary_tensors(fresh)))
    run([resumed], teacher)
    assert resumed.history[-1].terms["adversary"] != whole.history[-1].terms["adversary"]


@pytest.mark.slow
def test_an_adversary_learns_and_its_student_hides_the_group_from_it(teacher: Teacher) -> None:
    left_alone, worked_against = run(
        [start(spec_of("demographic_parity", debiasing=weight, adversary_lr=0.1), teacher) for weight in (0.0, 1.0)],
        teacher,
    )
    losses = [student.history[-1].terms["adversary"] for student in (left_alone, worked_against)]
    assert losses[0] < losses[1]
    assert losses[0] < math.log(2)
