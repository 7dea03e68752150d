"""Steps on a GPU: the same bits alone, in a pack, recorded or not, and after an interruption; and no wait in a step."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from kd_ray.distill import captured, checkpoint
from kd_ray.distill.batches import batches, draw_of
from kd_ray.distill.fit import fit
from kd_ray.distill.samples import ResidentData, to_device
from kd_ray.distill.step import take_step
from kd_ray.distill.student import Student, new_student
from kd_ray.distill.teacher import Teacher
from kd_ray.models import build_model
from kd_ray.sweep.spec import TrialSpec
from tests.gpu.device import DEVICE, REHEARSAL
from tests.unit.distill.test_fit import TEACHER_ID, assert_same_bits, make_data, make_spec

ADAMW = {"name": "adamw", "lr": 0.003, "weight_decay": 0.1}


@pytest.fixture(scope="module")
def data() -> ResidentData:
    return to_device(make_data(), DEVICE)


@pytest.fixture(scope="module")
def teachers() -> dict[str, Teacher]:
    torch.manual_seed(1)
    model = build_model("resnet20", num_classes=3, image_size=16).eval().requires_grad_(False)
    return {TEACHER_ID: Teacher(model.to(device=DEVICE, memory_format=torch.channels_last))}  # type: ignore[call-overload]


def start(spec: TrialSpec, data: ResidentData, saved: checkpoint.TrainingState | None = None) -> Student:
    assert spec.training
    return new_student(spec, spec.training, data, DEVICE, saved)


def _raise(student: Student, error: Exception) -> None:
    raise error


def run(specs: Sequence[TrialSpec], teachers: dict[str, Teacher], data: ResidentData) -> list[Student]:
    students = [start(spec, data) for spec in specs]
    for _ in fit(list(students), teachers, data, on_failure=_raise):
        pass
    return students


@contextmanager
def not_recorded() -> Iterator[None]:
    """Within, no step is recorded."""
    before = captured.can_be_captured
    captured.can_be_captured = lambda students, batch: False
    try:
        yield
    finally:
        captured.can_be_captured = before


SETTINGS: dict[str, dict[str, Any]] = {
    "sgd": {},
    "adamw": {"optimizer": ADAMW},
    "clipped and averaged": {"clip_norm": 0.5, "ema_decay": 0.9},
    "bf16": {"precision": "bf16"},
    "tf32": {"precision": "tf32"},
}


@pytest.mark.parametrize("model", ["lenet5", "resnet20"])
@pytest.mark.parametrize("name", SETTINGS)
def test_a_trial_has_the_same_bits_alone_in_company_and_without_a_recording(
    name: str, model: str, teachers: dict[str, Teacher], data: ResidentData
) -> None:
    specs = [make_spec(t, model=model, **SETTINGS[name]) for t in (1.0, 4.0, 10.0)]
    together = run(specs, teachers, data)
    for spec, student in zip(specs, together, strict=True):
        assert_same_bits(run([spec], teachers, data)[0], student)
    with not_recorded():
        for student, plain in zip(together, run(specs, teachers, data), strict=True):
            assert_same_bits(student, plain)


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("stop_at", [1, 4, 7, 14])
def test_a_trial_stopped_at_any_step_goes_on_to_the_same_bits(
    stop_at: int, name: str, teachers: dict[str, Teacher], data: ResidentData
) -> None:
    specs = [make_spec(t, **SETTINGS[name]) for t in (2.0, 8.0)]
    straight = run(specs, teachers, data)
    first = start(specs[0], data)
    for _ in fit([first], teachers, data, on_failure=_raise, report_every_s=0.0):
        if first.step >= stop_at:
            break
    saved = checkpoint.decode(checkpoint.encode(first.state()))
    resumed, fresh = start(specs[0], data, saved), start(specs[1], data)
    for _ in fit([resumed, fresh], teachers, data, on_failure=_raise):
        pass
    assert_same_bits(straight[0], resumed)
    assert_same_bits(straight[1], fresh)


@pytest.mark.parametrize(("model", "more"), [("lenet5", {}), ("resnet20", {}), ("lenet5", {"optimizer": ADAMW})])
def test_a_group_has_the_same_bits_with_and_without_a_recording(
    model: str, more: dict[str, Any], teachers: dict[str, Teacher], data: ResidentData
) -> None:
    specs = [make_spec(t, model=model, execution="grouped", **more) for t in (1.0, 4.0, 10.0)]
    together = run(specs, teachers, data)
    with not_recorded():
        for student, plain in zip(together, run(specs, teachers, data), strict=True):
            assert_same_bits(student, plain)


@pytest.mark.filterwarnings(
    "ignore:Synchronization debug mode is a prototype:UserWarning"
)  # torch says so of its own tool
@pytest.mark.parametrize("model", ["lenet5", "resnet20"])
def test_no_step_waits_for_the_device(model: str, teachers: dict[str, Teacher], data: ResidentData) -> None:
    students = [start(make_spec(t, model=model), data) for t in (1.0, 4.0)]
    training = students[0].training
    draw = draw_of(data.train, training, seed=0, epoch=0)
    found = list(batches(data.train, draw, batch_size=16))
    logits = [teachers[TEACHER_ID].logits(batch) for batch in found]
    for student in students:
        take_step(student, found[0], logits[0], 5)
    if REHEARSAL:
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        for batch, teacher_BC in zip(found, logits, strict=True):
            for student in students:
                take_step(student, batch, teacher_BC, 5)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("model", ["lenet5", "resnet20"])
def test_a_gpu_and_a_cpu_train_alike(model: str, teachers: dict[str, Teacher], data: ResidentData) -> None:
    """Losses of the first epoch agree to a part in a thousand; later ones drift apart as rounding errors grow."""
    spec = make_spec(4.0, model=model)
    on_gpu = run([spec], teachers, data)[0]
    cpu = torch.device("cpu")
    resident = to_device(make_data(), cpu)
    torch.manual_seed(1)
    teacher = Teacher(build_model("resnet20", num_classes=3, image_size=16).eval().requires_grad_(False))
    assert spec.training
    student = new_student(spec, spec.training, resident, cpu, None)
    for _ in fit([student], {TEACHER_ID: teacher}, resident, on_failure=_raise):
        pass
    assert on_gpu.history[0].loss == pytest.approx(student.history[0].loss, rel=1e-3)
