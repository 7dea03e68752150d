"""What the device computes in a step: the host reads no value of it, so that it never waits for a GPU."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from kd_ray.distill.batches import Batch
from kd_ray.distill.captured import first_places
from kd_ray.distill.grouped import GroupedStudents
from kd_ray.distill.objectives import OBJECTIVES, objective_of
from kd_ray.distill.step import compute
from kd_ray.distill.student import Student
from kd_ray.sweep.plan import expand
from kd_ray.sweep.spec import TrialSpec
from tests.gpu.test_sweeps import WITH_SETTINGS
from tests.sweeps import tiny_sweep
from tests.unit.distill.test_fit import make_spec, start

_READING = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_consecutive")
"""Operations whose result, or its shape, the host has to know."""


class NothingIsRead(TorchDispatchMode):
    """Within, an operation that reads a value raises an error."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        name = str(func)
        if any(reading in name for reading in _READING):
            raise AssertionError(f"{name} reads a value")
        return func(*args, **(kwargs or {}))


def batch_and_logits(classes: int) -> tuple[Batch, Tensor]:
    random = torch.Generator().manual_seed(0)
    labels_B = torch.randint(classes, (16,), generator=random)
    images_BCHW = torch.randn(16, 3, 16, 16, generator=random)
    batch = Batch(images_BCHW, labels_B, torch.arange(16), torch.zeros(16, dtype=torch.int64))
    return batch, torch.randn(16, classes, generator=random)


@pytest.mark.parametrize(
    "training",
    [{}, {"clip_norm": 1.0, "ema_decay": 0.9, "label_smoothing": 0.1}, {"precision": "bf16", "model": "resnet20"}],
)
def test_no_step_reads_a_value(training: dict[str, Any]) -> None:
    student = start(make_spec(4.0, **training))
    batch, teacher_BC = batch_and_logits(3)
    with NothingIsRead():
        for _ in range(2):
            compute(student, batch, teacher_BC)


@pytest.mark.parametrize("optimizer", [{"lr": 0.05, "momentum": 0.9}, {"name": "adamw", "lr": 0.003}])
def test_no_step_of_a_group_reads_a_value(optimizer: dict[str, Any]) -> None:
    students = [start(make_spec(t, execution="grouped", optimizer=optimizer)) for t in (1.0, 4.0)]
    batch, teacher_BC = batch_and_logits(3)
    group = GroupedStudents(students)
    with NothingIsRead():
        for _ in range(2):
            group.compute(batch, [teacher_BC, teacher_BC])


def specs_of_recorded_objectives() -> dict[str, TrialSpec]:
    names = ", ".join(WITH_SETTINGS.get(name, name) for name in OBJECTIVES if name != "imported")
    sweep = tiny_sweep(
        Path("data"),
        f"grid.objective=[{names}]",
        "grid.seed=[0]",
        "grid.temperature=[4]",
        "dataset.validation_fraction=0.2",
    )
    specs = [trial.spec for trial in expand(sweep, lambda path: "")]
    return {
        spec.distillation.objective: spec
        for spec in specs
        if spec.distillation
        and not objective_of(spec.distillation).needs_context
        and not spec.distillation.trains_under_attack
    }


RECORDED = specs_of_recorded_objectives()


@pytest.mark.parametrize("name", RECORDED)
def test_no_objective_that_is_recorded_reads_a_value(name: str) -> None:
    spec = make_spec(4.0).model_copy(update={"distillation": RECORDED[name].distillation})
    student: Student = start(spec)
    batch, teacher_BC = batch_and_logits(3)
    with NothingIsRead():
        compute(student, batch, teacher_BC)


def test_the_guard_sees_a_value_that_is_read() -> None:
    student = start(make_spec(4.0))
    with NothingIsRead(), pytest.raises(AssertionError, match="reads a value"):
        float(student.sums[0])


def test_logits_of_one_teacher_are_copied_once() -> None:
    a, b = torch.zeros(2, 3), torch.zeros(2, 3)
    assert first_places([a, None, b, a, b]) == [0, None, 2, 0, 2]
