import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kd_ray.distill.objectives import distillation_loss, kd_loss, scratch_loss, student_loss
from kd_ray.sweep.distillation import KnowledgeDistillation

STUDENT = torch.tensor([[1.0, 2.0, 0.5], [0.0, -1.0, 3.0]], dtype=torch.float64, requires_grad=True)
TEACHER = torch.tensor([[2.0, 1.0, 0.0], [-1.0, 0.5, 2.0]], dtype=torch.float64)
LABELS = torch.tensor([0, 2])


def settings(temperature: float = 4.0, alpha: float = 0.9, t_squared: bool = True) -> KnowledgeDistillation:
    return KnowledgeDistillation(temperature=temperature, alpha=alpha, t_squared=t_squared)


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(1, keepdims=True))
    return np.asarray(e / e.sum(1, keepdims=True))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 40.0])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("t_squared", [True, False])
def test_kd_loss_equals_a_line_by_line_calculation(temperature: float, alpha: float, t_squared: bool) -> None:
    student, teacher = STUDENT.detach().numpy(), TEACHER.numpy()
    p, q = softmax(teacher / temperature), softmax(student / temperature)
    soft = (p * (np.log(p) - np.log(q))).sum(1).mean()
    hard = -np.log(softmax(student)[[0, 1], [0, 2]]).mean()
    expected = alpha * (temperature**2 if t_squared else 1) * soft + (1 - alpha) * hard
    loss = kd_loss(STUDENT, TEACHER, LABELS, settings(temperature, alpha, t_squared))
    assert loss.total.item() == pytest.approx(expected, rel=1e-12)
    assert loss.terms["distillation"].item() == pytest.approx(soft, rel=1e-12)
    assert loss.terms["cross_entropy"].item() == pytest.approx(hard, rel=1e-12)


def test_distillation_loss_is_zero_for_equal_logits_up_to_a_shift() -> None:
    assert distillation_loss(TEACHER + 7, TEACHER, temperature=3.0).item() == pytest.approx(0, abs=1e-15)


def test_alpha_zero_is_scratch() -> None:
    assert torch.equal(
        kd_loss(STUDENT, TEACHER, LABELS, settings(alpha=0.0)).total, scratch_loss(STUDENT, None, LABELS).total
    )


def test_gradient_with_t_squared_tends_to_difference_of_centred_logits() -> None:
    """With T², d/dz of the soft term → (centred student − centred teacher) / (classes · batch) as T grows; without it, → 0."""
    centred = (STUDENT - STUDENT.mean(1, keepdim=True)) - (TEACHER - TEACHER.mean(1, keepdim=True))

    def gradient(t_squared: bool) -> torch.Tensor:
        loss = kd_loss(STUDENT, TEACHER, LABELS, settings(temperature=1e4, alpha=1.0, t_squared=t_squared))
        return torch.autograd.grad(loss.total, STUDENT)[0]

    torch.testing.assert_close(gradient(True), centred.detach() / 6, rtol=1e-3, atol=1e-6)
    assert gradient(False).abs().max() < 1e-7


@pytest.mark.slow
@given(temperature=st.floats(0.5, 40), alpha=st.floats(0, 1), t_squared=st.booleans())
def test_gradient_agrees_with_finite_differences(temperature: float, alpha: float, t_squared: bool) -> None:
    def total(student_BC: torch.Tensor) -> torch.Tensor:
        return kd_loss(student_BC, TEACHER, LABELS, settings(temperature, alpha, t_squared)).total

    assert torch.autograd.gradcheck(total, (STUDENT,))


def test_shapes_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match=r"logits have shapes \(2, 3\) and \(2, 2\), expected equal"):
        distillation_loss(STUDENT, TEACHER[:, :2], temperature=1.0)


def test_student_loss_without_teacher_is_refused_for_kd() -> None:
    with pytest.raises(ValueError, match="objective kd needs the teacher's logits"):
        student_loss(STUDENT, None, LABELS, settings())
