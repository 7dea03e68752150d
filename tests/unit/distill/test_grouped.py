"""A group's promises: the steps of the plain loop, members that stay themselves, and state that goes through bytes.

Against the plain loop the arithmetic is the same and the order of some sums is not, so equality is asked for in float64, where what
rounding leaves is far below what any mistake would. In float32 a few steps of LeNet-5 stay close as well.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kd_ray.distill import checkpoint
from kd_ray.distill.augmentations import PADDING
from kd_ray.distill.batches import Batch
from kd_ray.distill.device import make_deterministic
from kd_ray.distill.grouped import GroupedStudents, GroupLoss, grouped_model
from kd_ray.distill.objectives import Background, Context, student_loss
from kd_ray.distill.samples import ResidentData
from kd_ray.distill.samples.resident_images import ResidentImages
from kd_ray.distill.step import take_step
from kd_ray.distill.student import Student, new_student
from kd_ray.errors import TrialError
from kd_ray.sweep.datasets import TrifeatureDataset
from kd_ray.sweep.distillation import (
    DecoupledDistillation,
    Distillation,
    KnowledgeDistillation,
    LabelSmoothing,
    LongTailedDistillation,
)
from kd_ray.sweep.spec import Role, TeacherRef, TrialSpec
from kd_ray.sweep.training import Training

CPU = torch.device("cpu")
CLASSES = 3
STEPS_PER_EPOCH = 3
_SPLIT = ResidentImages(
    images_NHWC=torch.zeros(1, 16 + 2 * PADDING, 16 + 2 * PADDING, 3, dtype=torch.uint8),
    labels_N=torch.zeros(1, dtype=torch.int64),
    mean=(0.0,) * 3,
    std=(1 / 255,) * 3,
)
DATA = ResidentData(train=_SPLIT, test=_SPLIT, validation=None, num_classes=CLASSES)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    make_deterministic(1)
    yield
    torch.use_deterministic_algorithms(False)


OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-3, "nesterov": True},
    "adam": {"name": "adam", "lr": 0.003, "weight_decay": 1e-3},
    "adamw": {"name": "adamw", "lr": 0.003, "weight_decay": 0.1, "betas": (0.8, 0.99)},
}


def make_spec(temperature: float | None, *, model: str = "lenet5", seed: int = 0, optimizer: str = "sgd") -> TrialSpec:
    training = Training.model_validate(
        {
            "epochs": 3,
            "batch_size": 16,
            "optimizer": OPTIMIZERS[optimizer],
            "schedule": {"name": "cosine", "warmup_epochs": 1},
        }
    )
    settings = (
        KnowledgeDistillation(temperature=temperature, alpha=0.7, t_squared=temperature < 5) if temperature else None
    )
    return TrialSpec(
        role=Role.DISTILLED if settings else Role.SCRATCH,
        dataset=TrifeatureDataset(name="trifeature"),
        model=model,
        training=training,
        distillation=settings,
        teacher=TeacherRef(trial_id="0" * 16, model="resnet20", seed=0) if settings else None,
        seed=seed,
    )


def start(
    spec: TrialSpec, saved: checkpoint.TrainingState | None = None, *, dtype: torch.dtype = torch.float32
) -> Student:
    assert spec.training
    student = new_student(spec, spec.training, DATA, CPU, saved)
    student.model.to(dtype)
    return student


def specs_of(size: int, model: str, optimizer: str = "sgd") -> list[TrialSpec]:
    """Different temperatures, and different weights at the start."""
    temperatures = enumerate((1.0, 4.0, 10.0)[:size])
    return [make_spec(temperature, model=model, seed=k, optimizer=optimizer) for k, temperature in temperatures]


def make_batches(count: int, *, size: int = 16, dtype: torch.dtype = torch.float32) -> list[tuple[Batch, Tensor]]:
    """Batches, each with the logits of a teacher."""
    random = torch.Generator().manual_seed(0)
    batches = []
    for _ in range(count):
        images_BHWC = torch.randn(size, 16, 16, 3, generator=random, dtype=torch.float64).to(dtype)
        batch = Batch(
            images_BHWC.permute(0, 3, 1, 2),
            torch.randint(CLASSES, (size,), generator=random),
            torch.arange(size),
            torch.zeros(size, 3, dtype=torch.int64),
        )
        batches.append((batch, 3 * torch.randn(size, CLASSES, generator=random, dtype=torch.float64).to(dtype)))
    return batches


def step_group(students: Sequence[Student], batches: Sequence[tuple[Batch, Tensor]]) -> None:
    group = GroupedStudents(students)
    for batch, teacher_BC in batches:
        group.step(batch, [teacher_BC if student.spec.teacher else None for student in students], steps=STEPS_PER_EPOCH)


def step_alone(student: Student, batches: Sequence[tuple[Batch, Tensor]]) -> None:
    for batch, teacher_BC in batches:
        take_step(student, batch, teacher_BC if student.spec.teacher else None, STEPS_PER_EPOCH)


def tensors_of(student: Student) -> dict[str, Tensor]:
    slots = {
        f"{slot} {index}": value
        for index, slots in student.optimizer.state_dict()["state"].items()
        for slot, value in sorted(slots.items())
    }
    return {**student.model.state_dict(), **slots, "sums": student.sums}


def copies_of(student: Student) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in tensors_of(student).items()}


def assert_close(a: Student, b: Student, *, rtol: float, atol: float) -> None:
    for (name, x), y in zip(tensors_of(a).items(), tensors_of(b).values(), strict=True):
        torch.testing.assert_close(x, y, rtol=rtol, atol=atol, msg=lambda text, name=name: f"{name}: {text}")  # type: ignore[misc]
    assert a.step == b.step
    assert a.optimizer.state_dict()["param_groups"] == b.optimizer.state_dict()["param_groups"]


def assert_same_bits(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    for name, x in a.items():
        assert torch.equal(x, b[name]), name


KINDS = pytest.mark.parametrize(
    ("model", "optimizer"), [("lenet5", "sgd"), ("resnet20", "sgd"), ("lenet5", "adam"), ("lenet5", "adamw")]
)
"""Networks and optimisers."""


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 3])
@KINDS
def test_a_group_takes_the_steps_of_the_plain_loop(model: str, optimizer: str, size: int) -> None:
    batches = [*make_batches(4, dtype=torch.float64), *make_batches(1, size=7, dtype=torch.float64)]
    together = [start(spec, dtype=torch.float64) for spec in specs_of(size, model, optimizer)]
    step_group(together, batches)
    for spec, member in zip(specs_of(size, model, optimizer), together, strict=True):
        alone = start(spec, dtype=torch.float64)
        step_alone(alone, batches)
        assert_close(member, alone, rtol=1e-8, atol=1e-11)
        assert member.step == 5


def test_a_group_stays_close_to_the_plain_loop_in_float32() -> None:
    """Convolutions and matrix products of another shape add in another order: a few units in the last place at each step."""
    batches = make_batches(6)
    together = [start(spec) for spec in specs_of(3, "lenet5")]
    step_group(together, batches)
    for spec, member in zip(specs_of(3, "lenet5"), together, strict=True):
        alone = start(spec)
        step_alone(alone, batches)
        assert_close(member, alone, rtol=1e-4, atol=1e-5)


def test_scratch_students_and_different_teachers_take_the_steps_of_the_plain_loop() -> None:
    ((batch, teacher_BC),) = make_batches(1, dtype=torch.float64)
    other_BC = teacher_BC.flip(0)
    for specs, teachers in (
        ([make_spec(None), make_spec(4.0)], [None, teacher_BC]),
        ([make_spec(2.0), make_spec(4.0)], [other_BC, teacher_BC]),
    ):
        together = [start(spec, dtype=torch.float64) for spec in specs]
        GroupedStudents(together).step(batch, teachers, steps=STEPS_PER_EPOCH)
        for spec, teacher, member in zip(specs, teachers, together, strict=True):
            alone = start(spec, dtype=torch.float64)
            take_step(alone, batch, teacher, STEPS_PER_EPOCH)
            assert_close(member, alone, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
@KINDS
def test_a_group_goes_on_from_checkpoints_to_the_same_bits(model: str, optimizer: str) -> None:
    batches = make_batches(4)
    straight = [start(spec) for spec in specs_of(3, model, optimizer)]
    step_group(straight, batches)
    stopped = [start(spec) for spec in specs_of(3, model, optimizer)]
    step_group(stopped, batches[:2])
    states = [checkpoint.decode(checkpoint.encode(student.state())) for student in stopped]
    resumed = [start(student.spec, state) for student, state in zip(stopped, states, strict=True)]
    step_group(resumed, batches[2:])
    for a, b in zip(straight, resumed, strict=True):
        assert_same_bits(tensors_of(a), tensors_of(b))
        assert a.step == b.step == 4


@pytest.mark.slow
@KINDS
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_student_that_is_not_finite_spoils_no_other(model: str, optimizer: str, value: float) -> None:
    healthy = [start(spec) for spec in specs_of(3, model, optimizer)]
    spoilt = [start(spec) for spec in specs_of(3, model, optimizer)]
    with torch.no_grad():
        next(spoilt[1].model.parameters()).fill_(value)
    for students in (healthy, spoilt):
        step_group(students, make_batches(3))
    assert not spoilt[1].sums[0].isfinite()
    for k in (0, 2):
        assert healthy[k].sums[0].isfinite()
        assert_same_bits(tensors_of(healthy[k]), tensors_of(spoilt[k]))


@pytest.mark.slow
@KINDS
def test_losing_a_member_leaves_all_as_they_were(model: str, optimizer: str) -> None:
    students = [start(spec) for spec in specs_of(3, model, optimizer)]
    step_group(students, make_batches(2))
    before = [copies_of(student) for student in students]
    smaller = GroupedStudents([students[0], students[2]])
    for student, tensors in zip(students, before, strict=True):
        assert_same_bits(tensors_of(student), tensors)
    batch, teacher_BC = make_batches(1)[0]
    smaller.step(batch, [teacher_BC, teacher_BC], steps=STEPS_PER_EPOCH)
    assert_same_bits(tensors_of(students[1]), before[1])
    assert [student.step for student in students] == [3, 2, 3]
    for k in (0, 2):
        assert not torch.equal(tensors_of(students[k])["sums"], before[k]["sums"])


@pytest.mark.slow
@KINDS
def test_a_plain_step_of_a_member_reaches_the_group(model: str, optimizer: str) -> None:
    batches = make_batches(2, dtype=torch.float64)
    students = [start(spec, dtype=torch.float64) for spec in specs_of(2, model, optimizer)]
    group = GroupedStudents(students)
    for student in students:
        step_alone(student, batches[:1])
    group.step(batches[1][0], [batches[1][1]] * 2, steps=STEPS_PER_EPOCH)
    for spec, member in zip(specs_of(2, model, optimizer), students, strict=True):
        alone = start(spec, dtype=torch.float64)
        step_alone(alone, batches)
        assert_close(member, alone, rtol=1e-8, atol=1e-11)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["lenet5", "resnet20"])
def test_a_students_own_model_gives_the_logits_of_the_group(model: str) -> None:
    students = [start(spec) for spec in specs_of(3, model)]
    step_group(students, make_batches(2))
    group = GroupedStudents(students)
    group.model.eval()
    images_BCHW = make_batches(1)[0][0].images_BCHW
    with torch.no_grad():
        logits_KCB = group.logits(images_BCHW)
        assert logits_KCB.shape == (3, CLASSES, 16)
        for k, student in enumerate(students):
            torch.testing.assert_close(logits_KCB[k].t(), student.model.eval()(images_BCHW), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_convolutions_of_group_and_members_are_channels_last() -> None:
    students = [start(spec) for spec in specs_of(3, "resnet20")]
    group = GroupedStudents(students)
    for model in (group.model, *(student.model for student in students)):
        for name, weight in model.named_parameters():
            if weight.ndim == 4:
                assert weight.is_contiguous(memory_format=torch.channels_last), name
    assert [int(student.model.get_buffer("bn1.num_batches_tracked")) for student in students] == [0, 0, 0]
    batch, teacher_BC = make_batches(1)[0]
    group.step(batch, [teacher_BC] * 3, steps=STEPS_PER_EPOCH)
    assert [int(student.model.get_buffer("bn1.num_batches_tracked")) for student in students] == [1, 1, 1]


def test_the_loss_of_a_group_is_each_students_own() -> None:
    (batch, teacher_BC), (_, other_BC) = make_batches(2, dtype=torch.float64)
    settings = [
        KnowledgeDistillation(temperature=1.0, alpha=1.0, t_squared=False),
        KnowledgeDistillation(temperature=4.0, alpha=0.9, t_squared=True),
        KnowledgeDistillation(temperature=20.0, alpha=0.0, t_squared=True),
    ]
    logits_KCB = torch.randn(3, CLASSES, 16, dtype=torch.float64, requires_grad=True)
    for teachers, each in (
        ([teacher_BC] * 3, settings),
        ([teacher_BC, other_BC, teacher_BC], settings),
        ([teacher_BC, None, teacher_BC], [settings[0], None, settings[2]]),
    ):
        losses_KL = GroupLoss(each)(logits_KCB, teachers, batch.labels_B)
        (gradient_KCB,) = torch.autograd.grad(losses_KL[:, 0].sum(), logits_KCB)
        for k, one in enumerate(each):
            loss = student_loss(logits_KCB[k].t(), teachers[k], batch.labels_B, one)
            (expected_KCB,) = torch.autograd.grad(loss.total, logits_KCB)
            expected = torch.stack([loss.total, *loss.terms.values()])
            torch.testing.assert_close(losses_KL[k, : len(expected)], expected, rtol=1e-12, atol=1e-14)
            torch.testing.assert_close(gradient_KCB[k], expected_KCB[k], rtol=1e-12, atol=1e-14)


def test_the_loss_of_a_group_refuses_logits_that_do_not_fit() -> None:
    batch, teacher_BC = make_batches(1)[0]
    loss = GroupLoss([KnowledgeDistillation(temperature=4.0, alpha=0.9, t_squared=True)] * 2)
    logits_KCB = torch.zeros(2, CLASSES, 16)
    with pytest.raises(ValueError, match="2 students with objective kd, but the teacher's logits for 1"):
        loss(logits_KCB, [teacher_BC, None], batch.labels_B)
    with pytest.raises(ValueError, match=r"a teacher's logits have shape \(16, 2\), the students' \(16, 3\)"):
        loss(logits_KCB, [teacher_BC, teacher_BC[:, :2]], batch.labels_B)


def test_students_that_cannot_step_together_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one student"):
        GroupedStudents([])
    ahead, behind = start(make_spec(2.0)), start(make_spec(4.0))
    ahead.step = 3
    with pytest.raises(ValueError, match="differ in step, so they cannot step together: 3 and 0"):
        GroupedStudents([ahead, behind])
    with pytest.raises(ValueError, match=r"differ in model.*lenet5 and resnet20"):
        GroupedStudents([start(make_spec(2.0)), start(make_spec(2.0, model="resnet20"))])


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4)), "it has GroupNorm"),
        (nn.Sequential(nn.Flatten(), nn.Linear(768, 3)), "it does not begin with a convolution"),
        (nn.Sequential(nn.Flatten()), "it does not begin with a convolution"),
    ],
)
def test_a_network_that_cannot_be_grouped_is_named(model: nn.Module, reason: str) -> None:
    with pytest.raises(TrialError, match=f"model other cannot be trained as a group: {reason}; LeNet and the ResNets"):
        grouped_model([model], name="other")


def test_a_group_with_other_objectives_takes_each_students_own_loss() -> None:
    """Only `kd` has a form for all students at once; what an objective looks at besides logits reaches it."""
    (batch, teacher_BC), _ = make_batches(2, dtype=torch.float64)
    soft: dict[str, Any] = {"temperature": 3.0, "alpha": 0.7, "t_squared": True}
    asked: list[Distillation | None] = [
        KnowledgeDistillation(**soft),
        DecoupledDistillation(objective="dkd", **soft),
        LongTailedDistillation(objective="ltkd", **soft),
        LabelSmoothing(objective="label_smoothing", smoothing=0.2),
        None,
    ]
    teachers = [teacher_BC, teacher_BC, teacher_BC, None, None]
    context = Context(samples_B=torch.arange(16), background=Background(class_counts_C=torch.tensor([3, 2, 1])))
    contexts = [None, None, context, None, None]
    logits_KCB = torch.randn(5, CLASSES, 16, dtype=torch.float64, requires_grad=True)
    losses_KL = GroupLoss(asked)(logits_KCB, teachers, batch.labels_B, contexts)
    assert losses_KL.shape == (5, 4)
    for k, one in enumerate(asked):
        loss = student_loss(logits_KCB[k].t(), teachers[k], batch.labels_B, one, contexts[k])
        expected = torch.stack([loss.total, *loss.terms.values()])
        torch.testing.assert_close(losses_KL[k, : len(expected)], expected, rtol=1e-12, atol=1e-14)
        assert not losses_KL[k, len(expected) :].any()
