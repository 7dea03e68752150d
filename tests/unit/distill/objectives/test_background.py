"""What an objective may look at besides logits and labels: where it comes from, and that a restart finds the same."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from kd_ray.data.image_data import ImageData, Split
from kd_ray.distill.fit import fit
from kd_ray.distill.objective_background import background_of
from kd_ray.distill.objectives import Background
from kd_ray.distill.samples import ResidentData, to_device
from kd_ray.distill.student import Student, new_student
from kd_ray.distill.teacher import Teacher
from kd_ray.errors import TrialError
from kd_ray.groups import Groups
from kd_ray.models import build_model
from tests.fakes import make_spec
from tests.unit.distill.objectives.examples import CHOICES, settings_of

CPU = torch.device("cpu")


def make_data(*, validation: bool = True) -> ResidentData:
    random = np.random.default_rng(0)

    def split(count: int) -> Split:
        return Split(
            images_NHWC=random.integers(0, 256, (count, 16, 16, 3), dtype=np.uint8),
            labels_N=np.arange(count) % 4,
            sensitive_features={"color": Groups.from_codes(np.arange(count) % 3, ["red", "blue", "green"])},
        )

    data = ImageData(
        train=split(40),
        test=split(8),
        validation=split(30) if validation else None,
        class_names=("a", "b", "c", "d"),
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
    )
    return to_device(data, CPU)


def make_teacher() -> Teacher:
    torch.manual_seed(5)
    return Teacher(build_model("lenet5", num_classes=4, image_size=16).eval().requires_grad_(False))


def background(objective: str, data: ResidentData, **changes: Any) -> Background | None:
    return background_of(settings_of(objective, **changes), make_teacher(), data)


@pytest.mark.parametrize("objective", CHOICES)
def test_only_what_looks_at_more_than_logits_has_a_background(objective: str) -> None:
    found = background(objective, make_data())
    assert (found is not None) == (
        objective in {"ltkd", "kd_sim", "kd_groups", "adversarial", "ada_alpha", "ada_margin"}
    )


def test_a_teacher_is_judged_on_the_validation_split_only() -> None:
    data = make_data()
    found = background("ada_alpha", data, statistic="accuracy")
    assert found is not None
    assert found.statistics is not None
    assert found.statistics.n_C.tolist() == [8, 8, 7, 7]
    assert found.class_counts_C.tolist() == [10, 10, 10, 10]
    assert data.validation is not None
    teacher = make_teacher()
    assert teacher.statistics(data.validation) is teacher.statistics(data.validation)
    with pytest.raises(TrialError, match="objective ada_margin needs a validation split to judge the teacher on"):
        background("ada_margin", make_data(validation=False))


def test_membership_is_that_of_the_training_samples() -> None:
    found = background("kd_groups", make_data())
    assert found is not None
    assert found.group_names == {"color": ("red", "blue", "green")}
    assert found.sensitive_features["color"][[0, 4, 39]].tolist() == [
        [True, False, False],
        [False, True, False],
        [True, False, False],
    ]


def test_a_teacher_without_a_row_for_each_class_cannot_say_what_is_similar() -> None:
    teacher = Teacher(nn.Sequential(nn.Flatten(), nn.Linear(768, 5), nn.ReLU()))
    with pytest.raises(TrialError, match="kd_sim needs a teacher whose last linear layer has a row for each class"):
        background_of(settings_of("kd_sim"), teacher, make_data())


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["ada_alpha", "ada_margin", "kd_shuffled"])
def test_a_restart_in_the_middle_goes_on_to_the_same_bits(objective: str) -> None:
    data = make_data()
    own = CHOICES[objective] | ({} if objective == "kd_shuffled" else {"statistic": "accuracy", "shrinkage": 1.0})
    spec = make_spec(**{"distillation": {"objective": objective, **own}})
    assert spec.training is not None
    assert spec.distillation is not None

    def start(saved: Any = None) -> Student:
        assert spec.training is not None
        assert spec.distillation is not None
        return new_student(
            spec, spec.training, data, CPU, saved, background_of(spec.distillation, make_teacher(), data)
        )

    def run(student: Student, until: int) -> Student:
        name = student.taught_by
        assert name is not None
        for _ in fit([student], {name: make_teacher()}, data, on_failure=_raise, report_every_s=0.0):
            if student.step >= until:
                break
        return student

    undisturbed = run(start(), 20)
    resumed = run(start(run(start(), 7).state()), 20)
    assert undisturbed.step == resumed.step == 20
    for a, b in zip(undisturbed.model.state_dict().values(), resumed.model.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert [epoch.terms for epoch in undisturbed.history] == [epoch.terms for epoch in resumed.history]


def _raise(student: Student, error: Exception) -> None:
    raise error
