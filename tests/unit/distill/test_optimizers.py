"""Optimisers, the linear schedule and clipping: what torch does, and the same bits in any company and after any interruption."""

import pytest
import torch
from torch import nn

from kd_ray.distill import checkpoint
from kd_ray.distill.batches import batches, draw_of
from kd_ray.distill.fit import fit
from kd_ray.distill.student import Student, learning_rate
from kd_ray.distill.teacher import Teacher
from kd_ray.models import build_model
from kd_ray.seeding import stream_seed
from kd_ray.sweep.spec import TrialSpec
from tests.unit.distill.test_fit import (  # noqa: F401 (fixtures)
    DATA,
    _one_thread,
    assert_same_bits,
    make_spec,
    make_training,
    start,
    teachers,
)

SETTINGS = {
    "adamw": {"name": "adamw", "lr": 0.003, "weight_decay": 0.1, "betas": [0.8, 0.95]},
    "adam": {"name": "adam", "lr": 0.003, "weight_decay": 0.01, "eps": 1e-6},
}
LINEAR = {"name": "linear", "warmup_fraction": 0.2}


def _raise(student: Student, error: Exception) -> None:
    raise error


def spec_of(name: str, temperature: float | None = 4.0) -> TrialSpec:
    return make_spec(temperature, optimizer=SETTINGS[name], schedule=LINEAR, clip_norm=0.5)


def test_linear_schedule_by_hand() -> None:
    training = make_training(schedule={"name": "linear", "warmup_fraction": 0.25}, epochs=2, optimizer={"lr": 0.8})
    # Eight steps: two of warm-up, then six down to 0, which a ninth would have.
    rates = [learning_rate(training, step, 4) for step in range(8)]
    assert rates == pytest.approx([0.4, 0.8, 0.8, 0.8 * 5 / 6, 0.8 * 4 / 6, 0.4, 0.8 / 3, 0.8 / 6])
    by_epochs = make_training(schedule={"name": "linear", "warmup_epochs": 1}, epochs=2, optimizer={"lr": 0.8})
    assert [learning_rate(by_epochs, step, 4) for step in (0, 3, 4, 7)] == pytest.approx([0.2, 0.8, 0.8, 0.2])


@pytest.mark.parametrize("name", SETTINGS)
def test_training_equals_a_plain_loop_of_torch(name: str) -> None:
    spec = spec_of(name, None)
    assert spec.training
    student = start(spec)
    for _ in fit([student], {}, DATA, on_failure=_raise):
        pass
    torch.manual_seed(stream_seed(0, "init"))
    model = build_model("lenet5", num_classes=3, image_size=16).to(memory_format=torch.channels_last)
    settings = {key: value for key, value in SETTINGS[name].items() if key not in ("name", "lr")}
    kind = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[name]
    optimizer = kind(model.parameters(), lr=1.0, **settings)
    step = 0
    for epoch in range(spec.training.epochs):
        draw = draw_of(DATA.train, spec.training, seed=0, epoch=epoch)
        for batch in batches(DATA.train, draw, batch_size=16):
            optimizer.param_groups[0]["lr"] = learning_rate(spec.training, step, 5)
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(batch.inputs), batch.labels_B).backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
            step += 1
    for ours, theirs in zip(student.model.parameters(), model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("stop_at", [1, 7, 10])
def test_interrupted_training_goes_on_to_the_same_bits(name: str, stop_at: int, teachers: dict[str, Teacher]) -> None:  # noqa: F811
    whole, cut = start(spec_of(name)), start(spec_of(name))
    for _ in fit([whole], teachers, DATA, on_failure=_raise):
        pass
    for _ in fit([cut], teachers, DATA, on_failure=_raise, report_every_s=0):
        if cut.step == stop_at:
            break
    saved = checkpoint.decode(checkpoint.encode(cut.state()))
    assert {key.split(".")[-1] for key in saved.optimizer["state"][0]} == {"step", "exp_avg", "exp_avg_sq"}
    again = start(spec_of(name), saved)
    for _ in fit([again], teachers, DATA, on_failure=_raise):
        pass
    assert_same_bits(again, whole)
    for slot, value in whole.optimizer.state_dict()["state"][0].items():
        assert torch.equal(again.optimizer.state_dict()["state"][0][slot], value)


@pytest.mark.slow
def test_pack_gives_the_bits_of_a_student_alone(teachers: dict[str, Teacher]) -> None:  # noqa: F811
    alone = start(spec_of("adamw"))
    for _ in fit([alone], teachers, DATA, on_failure=_raise):
        pass
    pack = [start(spec_of("adamw", temperature)) for temperature in (1.0, 4.0, None)]
    for _ in fit(list(pack), teachers, DATA, on_failure=_raise):
        pass
    assert_same_bits(pack[1], alone)


def test_clipping_bounds_a_step_of_sgd() -> None:
    students = [
        start(
            make_spec(
                optimizer={"lr": 1.0, "momentum": 0.0},
                schedule={"name": "constant"},
                epochs=1,
                batch_size=70,
                clip_norm=clip_norm,
            )
        )
        for clip_norm in (0.01, None)
    ]
    steps = []
    for student in students:
        before = [parameter.detach().clone() for parameter in student.model.parameters()]
        for _ in fit([student], {}, DATA, on_failure=_raise):
            pass
        moved = [
            float((after.detach() - each).norm())
            for after, each in zip(student.model.parameters(), before, strict=True)
        ]
        steps.append(sum(distance**2 for distance in moved) ** 0.5)
    assert steps[0] == pytest.approx(0.01, rel=1e-3)
    assert steps[1] > 0.02
