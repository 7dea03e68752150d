"""The loop's promises: schedules, bit-identity in any company and after any interruption, failures that cost only themselves."""

import shutil
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from kd_ray.data.image_data import ImageData, Split
from kd_ray.distill import checkpoint
from kd_ray.distill.batches import batches, epoch_draw
from kd_ray.distill.device import make_deterministic
from kd_ray.distill.fit import fit
from kd_ray.distill.samples import ResidentData, to_device
from kd_ray.distill.student import Student, learning_rate, new_student
from kd_ray.distill.teacher import Teacher
from kd_ray.errors import NonFiniteLossError
from kd_ray.models import build_model
from kd_ray.sweep.datasets import TrifeatureDataset
from kd_ray.sweep.distillation import KnowledgeDistillation
from kd_ray.sweep.spec import Role, TeacherRef, TrialSpec
from kd_ray.sweep.training import Training

CPU = torch.device("cpu")
TEACHER_ID = "0" * 16


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    make_deterministic(1)
    yield
    torch.use_deterministic_algorithms(False)


def make_data() -> ImageData:
    """Three classes of noisy bars that a small network can tell apart."""
    random = np.random.default_rng(0)

    def split(count: int) -> Split:
        labels = random.integers(0, 3, size=count)
        images = random.integers(0, 120, size=(count, 16, 16, 3))
        images[np.arange(count), :, 4 * labels + 2] += 100
        return Split(images_NHWC=images.astype(np.uint8), labels_N=labels.astype(np.int64))

    return ImageData(
        train=split(70),
        test=split(30),
        validation=split(20),
        class_names=("a", "b", "c"),
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
    )


DATA: ResidentData = to_device(make_data(), CPU)


def make_training(**changes: object) -> Training:
    settings: dict[str, object] = {
        "epochs": 3,
        "batch_size": 16,
        "optimizer": {"lr": 0.05, "weight_decay": 1e-4},
        "schedule": {"name": "cosine", "warmup_epochs": 1},
        "augmentation": "crop_flip",
    }
    import json

    return Training.model_validate_json(json.dumps(settings | changes))


def make_spec(
    temperature: float | None = None, *, model: str = "lenet5", seed: int = 0, **training: object
) -> TrialSpec:
    return TrialSpec(
        role=Role.DISTILLED if temperature else Role.SCRATCH,
        dataset=TrifeatureDataset(name="trifeature"),
        model=model,
        training=make_training(**training),
        distillation=KnowledgeDistillation(temperature=temperature, alpha=0.9, t_squared=True) if temperature else None,
        teacher=TeacherRef(trial_id=TEACHER_ID, model="resnet20", seed=0) if temperature else None,
        seed=seed,
    )


def start(spec: TrialSpec, saved: checkpoint.TrainingState | None = None) -> Student:
    assert spec.training
    return new_student(spec, spec.training, DATA, CPU, saved)


@pytest.fixture(scope="module")
def teachers() -> dict[str, Teacher]:
    torch.manual_seed(1)
    return {TEACHER_ID: Teacher(build_model("resnet20", num_classes=3, image_size=16).eval().requires_grad_(False))}


def run(specs: Sequence[TrialSpec], teachers: dict[str, Teacher]) -> list[Student]:
    students = [start(spec) for spec in specs]
    for _ in fit(list(students), teachers, DATA, on_failure=_raise):
        pass
    return students


def _raise(student: Student, error: Exception) -> None:
    raise error


def assert_same_bits(a: Student, b: Student) -> None:
    assert a.step == b.step
    for (name, x), y in zip(a.model.state_dict().items(), b.model.state_dict().values(), strict=True):
        assert torch.equal(x, y), name
    for x_epoch, y_epoch in zip(a.history, b.history, strict=True):
        assert x_epoch.loss == y_epoch.loss
        assert x_epoch.terms == y_epoch.terms
        assert (x_epoch.train_accuracy, x_epoch.validation_accuracy) == (
            y_epoch.train_accuracy,
            y_epoch.validation_accuracy,
        )
        assert x_epoch.lr == y_epoch.lr


@pytest.mark.slow
def test_a_trial_has_the_same_bits_alone_and_in_any_company(teachers: dict[str, Teacher]) -> None:
    specs = [make_spec(1.0), make_spec(4.0), make_spec(10.0), make_spec()]
    together = run(specs, teachers)
    for spec, in_company in zip(specs, together, strict=True):
        assert_same_bits(run([spec], teachers)[0], in_company)
    reordered = run(specs[::-1], teachers)[::-1]
    for a, b in zip(together, reordered, strict=True):
        assert_same_bits(a, b)


@pytest.mark.slow
@pytest.mark.parametrize("execution", ["loop", "grouped"])
def test_bf16_rounds_in_training_and_nowhere_else(teachers: dict[str, Teacher], execution: str) -> None:
    """Same bits in any company as the loop promises; other bits than fp32, near them; weights stay float32."""
    specs = [make_spec(t, precision="bf16", execution=execution, augmentation="none") for t in (1.0, 4.0)]
    together = run(specs, teachers)
    again = run(specs, teachers)
    for spec, student, twin in zip(specs, together, again, strict=True):
        assert_same_bits(student, twin)
        if execution == "loop":
            assert_same_bits(run([spec], teachers)[0], student)
        assert {parameter.dtype for parameter in student.model.parameters()} == {torch.float32}
    exact = run([make_spec(t, execution=execution, augmentation="none") for t in (1.0, 4.0)], teachers)
    for student, reference in zip(together, exact, strict=True):
        first, reference_first = student.history[0].loss, reference.history[0].loss
        assert first != reference_first
        assert first == pytest.approx(reference_first, rel=0.02)


@pytest.mark.long
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler: g++")
def test_a_compiled_student_learns_the_same_in_any_company(teachers: dict[str, Teacher]) -> None:
    specs = [make_spec(4.0, compile=True, epochs=2), make_spec(1.0, compile=True, epochs=2)]
    together = run(specs, teachers)
    for spec, student in zip(specs, together, strict=True):
        assert_same_bits(run([spec], teachers)[0], student)
    plain = run([make_spec(4.0, epochs=2)], teachers)[0]
    assert list(together[0].model.state_dict()) == list(plain.model.state_dict())
    assert together[0].history[-1].loss == pytest.approx(plain.history[-1].loss, rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "stop_at"),
    [
        *(("lenet5", step) for step in (1, 4, 5, 7, 14)),
        ("resnet20", 5),
        *(pytest.param("resnet20", step, marks=pytest.mark.long) for step in (1, 4, 7, 14)),
    ],
)
def test_a_trial_stopped_at_any_step_goes_on_to_the_same_bits(
    teachers: dict[str, Teacher], model: str, stop_at: int
) -> None:
    """Through bytes, in another company: the guard is that a checkpoint holds all the next step depends on."""
    specs = [make_spec(2.0, model=model), make_spec(8.0, model=model)]
    straight = run(specs, teachers)
    first = start(specs[0])
    for _ in fit([first], teachers, DATA, on_failure=_raise, report_every_s=0.0):
        if first.step >= stop_at:
            break
    assert first.step == stop_at
    saved = checkpoint.decode(checkpoint.encode(first.state()))
    resumed, fresh = start(specs[0], saved), start(specs[1])
    for _ in fit([resumed, fresh], teachers, DATA, on_failure=_raise):
        pass
    assert_same_bits(straight[0], resumed)
    assert_same_bits(straight[1], fresh)
    assert (resumed.restarts, fresh.restarts) == (1, 0)


@pytest.mark.slow
def test_training_equals_a_plain_loop_with_torch_schedulers(teachers: dict[str, Teacher]) -> None:
    """The same random streams through an independent loop, its scheduler and its KL written as torch users write them."""
    spec = make_spec(4.0, schedule={"name": "step", "milestones": [1, 2], "gamma": 0.1})
    trained = run([spec], teachers)[0]
    other = start(spec)
    optimizer = torch.optim.SGD(other.model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [1, 2], gamma=0.1)
    for epoch in range(3):
        assert spec.training
        draw = epoch_draw(len(DATA.train), spec.training.augmentation, seed=0, epoch=epoch)
        for images, labels, *_ in batches(DATA.train, draw, batch_size=spec.training.batch_size):
            optimizer.zero_grad()
            logits = other.model(images)
            p = nn.functional.softmax(teachers[TEACHER_ID].model(images) / 4, dim=1)
            log_q = nn.functional.log_softmax(logits / 4, dim=1)
            loss = 0.9 * 16 * nn.functional.kl_div(log_q, p, reduction="batchmean") + 0.1 * nn.functional.cross_entropy(
                logits, labels
            )
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        scheduler.step()
    for (name, x), y in zip(trained.model.state_dict().items(), other.model.state_dict().values(), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.slow
def test_students_learn() -> None:
    student = run([make_spec(epochs=20, augmentation="none", schedule={"name": "constant"})], {})[0]
    assert student.history[-1].train_accuracy > 0.9
    assert [epoch.epoch for epoch in student.history] == list(range(1, 21))
    assert student.history[-1].validation_accuracy is not None
    assert student.history[-1].validation_accuracy > 0.9


@pytest.mark.slow
def test_a_student_whose_loss_is_not_finite_fails_alone(teachers: dict[str, Teacher]) -> None:
    good, bad = make_spec(4.0), make_spec(2.0, optimizer={"lr": 1e30})
    students = [start(good), start(bad)]
    expected = run([good], teachers)[0]
    failures: list[tuple[str, Exception]] = []
    for _ in fit(
        students, teachers, DATA, on_failure=lambda student, error: failures.append((student.spec.trial_id, error))
    ):
        pass
    assert [trial_id for trial_id, _ in failures] == [bad.trial_id]
    assert isinstance(failures[0][1], NonFiniteLossError)
    assert f"trial {bad.trial_id} (distilled lenet5 T=2" in str(failures[0][1])
    assert "in epoch 1" in str(failures[0][1])
    assert_same_bits(expected, students[0])


@pytest.mark.slow
def test_an_exception_in_one_students_step_costs_only_that_student(teachers: dict[str, Teacher]) -> None:
    good, bad = start(make_spec(4.0)), start(make_spec(2.0))
    expected = run([good.spec], teachers)[0]
    bad.model.get_submodule("0").register_forward_hook(_explode)
    failed: list[Student] = []
    students = [bad, good]
    for _ in fit(students, teachers, DATA, on_failure=lambda student, _: failed.append(student)):
        pass
    assert failed == [bad]
    assert_same_bits(expected, good)


def _explode(*_: object) -> None:
    raise RuntimeError("injected")


def test_learning_rate_schedules_at_literal_steps() -> None:
    step = make_training(epochs=6, schedule={"name": "step", "milestones": [2, 4], "gamma": 0.5}, optimizer={"lr": 0.8})
    assert [learning_rate(step, s, 10) for s in (0, 19, 20, 39, 40, 59)] == [0.8, 0.8, 0.4, 0.4, 0.2, 0.2]
    warm = make_training(epochs=3, schedule={"name": "constant", "warmup_epochs": 1}, optimizer={"lr": 1.0})
    assert [learning_rate(warm, s, 4) for s in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    cosine = make_training(epochs=2, schedule={"name": "cosine", "final_lr": 0.1}, optimizer={"lr": 0.3})
    rates = [learning_rate(cosine, s, 5) for s in range(10)]
    assert rates[0] == pytest.approx(0.3)
    assert rates[5] == pytest.approx(0.2)
    assert all(a > b for a, b in pairwise(rates))
    assert rates[-1] > 0.1


def test_cosine_agrees_with_torch() -> None:
    cosine = make_training(epochs=4, schedule={"name": "cosine", "final_lr": 0.01}, optimizer={"lr": 0.5})
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.5)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=40, eta_min=0.01)
    for s in range(40):
        assert learning_rate(cosine, s, 10) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        optimizer.step()
        scheduler.step()


@pytest.mark.slow
def test_progress_is_reported_between_steps_and_at_the_end_of_each_epoch(teachers: dict[str, Teacher]) -> None:
    students = [start(make_spec(4.0))]
    reports = list(fit(students, teachers, DATA, on_failure=_raise, report_every_s=0.0))
    assert [report.epoch for report in reports if report.end_of_epoch] == [1, 2, 3]
    # 70 samples in batches of 16 are 5 steps; the last of an epoch is its end.
    assert len(reports) == 15
    assert all(report.images_per_s > 0 for report in reports)
