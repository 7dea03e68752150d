"""From a sweep to its trials, and to packs."""

from collections import Counter
from pathlib import Path

import pytest

from kd_ray.sweep.load import load_sweep
from kd_ray.sweep.packs import advice_for_teachers, make_packs
from kd_ray.sweep.placement import Placement, TeacherPlacement
from kd_ray.sweep.plan import PlannedTrial, settings_json
from kd_ray.sweep.spec import Role
from tests.fakes import WEIGHTS_DIGEST, make_sweep, plan_trials

SWEEPS = Path(__file__).parents[3] / "sweeps"
OWN_TRAINING = "{epochs: 2, batch_size: 8, optimizer: {lr: 0.1}, schedule: {name: constant}}"


def plan(*overrides: str) -> tuple[PlannedTrial, ...]:
    return plan_trials(make_sweep(overrides=overrides))


def roles(trials: tuple[PlannedTrial, ...]) -> dict[str, int]:
    return dict(Counter(trial.spec.role.value for trial in trials))


def lines(trials: tuple[PlannedTrial, ...]) -> list[str]:
    return [trial.spec.describe() for trial in trials]


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("trifeature-color", {"teacher": 5, "scratch": 5, "distilled": 65}),
        ("cifar10", {"teacher": 5, "scratch": 5, "distilled": 45}),
        ("trifeature-quick", {"teacher": 1, "scratch": 5, "distilled": 10}),
    ],
)
def test_committed_sweeps_have_the_trials_they_say(name: str, counts: dict[str, int]) -> None:
    trials = plan_trials(load_sweep(SWEEPS / f"{name}.yaml"))
    assert roles(trials) == counts
    assert len({trial.trial_id for trial in trials}) == len(trials)


def test_trials_stand_in_the_order_of_roles_and_grid() -> None:
    assert lines(plan()) == [
        "teacher resnet20 seed=0",
        "teacher resnet20 seed=1",
        "scratch lenet5 seed=0",
        "scratch lenet5 seed=1",
        "distilled lenet5 T=1 alpha=0.9 seed=0",
        "distilled lenet5 T=1 alpha=0.9 seed=1",
        "distilled lenet5 T=4 alpha=0.9 seed=0",
        "distilled lenet5 T=4 alpha=0.9 seed=1",
    ]


def test_scratch_runs_once_per_seed_and_not_per_temperature() -> None:
    assert roles(plan("grid.temperature=[1, 2, 3, 4, 5]", "grid.seed=[0, 1, 2]")) == {
        "teacher": 3,
        "scratch": 3,
        "distilled": 15,
    }


def test_scratch_is_left_out_on_request() -> None:
    assert roles(plan("baselines=[]")) == {"teacher": 2, "distilled": 4}


def test_paired_teacher_has_the_seed_of_its_student() -> None:
    trials = plan()
    teachers = {trial.trial_id: trial.spec.seed for trial in trials if trial.spec.role is Role.TEACHER}
    students = [trial.spec for trial in trials if trial.spec.role is Role.DISTILLED]
    assert sorted(seed for seed in teachers.values() if seed is not None) == [0, 1]
    for spec in students:
        assert spec.teacher is not None
        assert teachers[spec.teacher.trial_id] == spec.teacher.seed == spec.seed
        assert spec.teacher.model == "resnet20"


def test_listed_teachers_each_teach_every_student() -> None:
    trials = plan("teacher.seed=[5, 6, 7]", "grid.temperature=[4]")
    assert roles(trials) == {"teacher": 3, "scratch": 2, "distilled": 6}
    pairs = [(t.spec.seed, t.spec.teacher.seed) for t in trials if t.spec.teacher]
    assert pairs == [(0, 5), (0, 6), (0, 7), (1, 5), (1, 6), (1, 7)]


def test_given_weights_are_one_teacher_that_is_not_trained() -> None:
    trials = plan("teacher.weights=w.pt")
    assert roles(trials) == {"teacher": 1, "scratch": 2, "distilled": 4}
    teacher = trials[0].spec
    assert (teacher.training, teacher.seed, teacher.initial_weights, teacher.epochs) == (None, None, WEIGHTS_DIGEST, 0)
    assert {t.spec.teacher.trial_id for t in trials if t.spec.teacher} == {teacher.trial_id}
    assert {t.spec.teacher.seed for t in trials if t.spec.teacher} == {None}
    assert {t.spec.initial_weights for t in trials[1:]} == {None}


def test_teacher_trains_as_students_do_unless_it_says_otherwise() -> None:
    same, own = plan(), plan(f"teacher.training={OWN_TRAINING}")
    assert same[0].spec.training == same[2].spec.training
    assert own[0].spec.epochs == 2
    assert own[2].spec.training == same[2].spec.training


def test_same_architecture_for_teacher_and_student_stays_two_trials() -> None:
    assert roles(plan("teacher.model=lenet5")) == {"teacher": 2, "scratch": 2, "distilled": 4}


def test_alpha_zero_is_not_taken_for_the_scratch_student() -> None:
    assert roles(plan("distillation.alpha=0", "grid.temperature=[4]")) == {"teacher": 2, "scratch": 2, "distilled": 2}


def test_extending_the_grid_keeps_every_trial() -> None:
    small = {trial.trial_id for trial in plan()}
    large = {trial.trial_id for trial in plan("grid.temperature=[1, 2, 4]", "grid.seed=[0, 1, 2]")}
    assert small < large
    assert len(large - small) == 7


# --- axes that concern some roles only ---------------------------------------------------------------------------------------------------


def test_student_learning_rate_multiplies_all_that_train_with_it() -> None:
    axis = ("training.optimizer.lr=null", "grid.training.optimizer.lr=[0.1, 0.2]")
    assert roles(plan(*axis)) == {"teacher": 4, "scratch": 4, "distilled": 8}


def test_student_learning_rate_does_not_multiply_a_teacher_of_its_own_training() -> None:
    axis = ("training.optimizer.lr=null", "grid.training.optimizer.lr=[0.1, 0.2]")
    assert roles(plan(*axis, f"teacher.training={OWN_TRAINING}")) == {"teacher": 2, "scratch": 4, "distilled": 8}


def test_teacher_epochs_do_not_multiply_scratch_students() -> None:
    trials = plan(
        f"teacher.training={OWN_TRAINING}", "teacher.training.epochs=null", "grid.teacher.training.epochs=[2, 3]"
    )
    assert roles(trials) == {"teacher": 4, "scratch": 2, "distilled": 8}


def test_student_model_does_not_multiply_teachers() -> None:
    trials = plan("student.model=null", "grid.student.model=[lenet5, resnet20]")
    assert roles(trials) == {"teacher": 2, "scratch": 4, "distilled": 8}


def test_distillation_axes_multiply_distilled_students_only() -> None:
    trials = plan("distillation={}", "grid.alpha=[0.5, 0.9]", "grid.t_squared=[true, false]")
    assert roles(trials) == {"teacher": 2, "scratch": 2, "distilled": 16}


def test_data_set_axis_multiplies_everything() -> None:
    trials = plan("dataset.split_seed=null", "grid.dataset.split_seed=[0, 1, 2]")
    assert roles(trials) == {"teacher": 6, "scratch": 6, "distilled": 12}


def test_settings_hold_the_axes_without_a_column_of_their_own() -> None:
    trials = plan("training.optimizer.lr=null", "grid.training.optimizer.lr=[0.1, 0.2]")
    assert Counter((t.spec.role.value, *t.settings.items()) for t in trials) == {
        ("teacher", ("training.optimizer.lr", 0.1)): 2,
        ("teacher", ("training.optimizer.lr", 0.2)): 2,
        ("scratch", ("training.optimizer.lr", 0.1)): 2,
        ("scratch", ("training.optimizer.lr", 0.2)): 2,
        ("distilled", ("training.optimizer.lr", 0.1)): 4,
        ("distilled", ("training.optimizer.lr", 0.2)): 4,
    }


def test_settings_leave_out_temperature_and_seed() -> None:
    assert {tuple(trial.settings) for trial in plan()} == {()}


@pytest.mark.parametrize(
    ("overrides", "axis", "concerned"),
    [
        (("student.model=null", "grid.student.model=[lenet5, resnet20]"), "student.model", {"scratch", "distilled"}),
        (
            ("teacher.model=null", "grid.teacher.model=[resnet20, resnet32]"),
            "teacher.model",
            {"teacher", "distilled"},
        ),
    ],
)
def test_settings_name_only_axes_that_concern_the_role(
    overrides: tuple[str, ...], axis: str, concerned: set[str]
) -> None:
    assert {trial.spec.role.value for trial in plan(*overrides) if axis in trial.settings} == concerned


def test_settings_of_a_teacher_do_not_name_the_students_training() -> None:
    trials = plan(
        "training.optimizer.lr=null", "grid.training.optimizer.lr=[0.4, 0.2]", f"teacher.training={OWN_TRAINING}"
    )
    assert [dict(trial.settings) for trial in trials if trial.spec.role is Role.TEACHER] == [{}, {}]


def test_settings_as_text() -> None:
    assert settings_json({"a": "crop_flip", "b": 0.0005, "c": [2, 3], "d": True}) == {
        "a": "crop_flip",
        "b": "0.0005",
        "c": "[2, 3]",
        "d": "true",
    }


# --- packs -----------------------------------------------------------------------------------------------------------------------------


def test_packs_hold_one_stream_each_in_the_order_of_their_start() -> None:
    packs = make_packs(plan("grid.temperature=[1, 2, 4]"), pack_size=2)
    assert [lines(pack.trials) for pack in packs] == [
        ["teacher resnet20 seed=0"],
        ["teacher resnet20 seed=1"],
        ["distilled lenet5 T=1 alpha=0.9 seed=0", "distilled lenet5 T=2 alpha=0.9 seed=0"],
        ["distilled lenet5 T=4 alpha=0.9 seed=0"],
        ["distilled lenet5 T=1 alpha=0.9 seed=1", "distilled lenet5 T=2 alpha=0.9 seed=1"],
        ["distilled lenet5 T=4 alpha=0.9 seed=1"],
        ["scratch lenet5 seed=0"],
        ["scratch lenet5 seed=1"],
    ]


@pytest.mark.parametrize("pack_size", [1, 2, 3, 8, 100])
def test_packs_hold_every_trial_once_and_one_stream(pack_size: int) -> None:
    trials = plan_trials(load_sweep(SWEEPS / "trifeature-color.yaml"))
    packs = make_packs(trials, pack_size=pack_size)
    assert sorted(t.trial_id for pack in packs for t in pack.trials) == sorted(t.trial_id for t in trials)
    assert all(1 <= len(pack.trials) <= pack_size for pack in packs)
    assert all(len({t.spec.stream_key() for t in pack.trials}) == 1 for pack in packs)
    assert len(packs) == {1: 75, 2: 45, 3: 35, 8: 20, 100: 15}[pack_size]
    assert len({pack.pack_id for pack in packs}) == len(packs)


def test_packs_leave_out_what_is_done() -> None:
    trials = plan()
    done = {trials[0].trial_id, trials[4].trial_id}
    packs = make_packs(trials, pack_size=8, done=done)
    assert sorted(t.trial_id for pack in packs for t in pack.trials) == sorted(
        t.trial_id for t in trials if t.trial_id not in done
    )
    assert make_packs(trials, pack_size=8, done={trial.trial_id for trial in trials}) == ()


def test_packs_are_a_pure_function() -> None:
    assert make_packs(plan(), pack_size=2) == make_packs(plan(), pack_size=2)
    assert [pack.pack_id for pack in make_packs(plan(), pack_size=2)] == [
        pack.pack_id for pack in make_packs(plan(), pack_size=2)
    ]


def test_pack_names_itself_and_the_teachers_it_waits_for() -> None:
    trials = plan("teacher.seed=[5, 6]", "grid.seed=[0]", "grid.temperature=[4]")
    teacher, _, distilled, _ = make_packs(trials, pack_size=8)
    assert teacher.pack_id == f"teacher-{trials[0].trial_id}x1"
    assert teacher.teachers == frozenset()
    assert distilled.pack_id == f"distilled-{trials[3].trial_id}x2"
    assert distilled.teachers == {trials[0].trial_id, trials[1].trial_id}


@pytest.mark.parametrize(
    ("overrides", "placement", "cpus", "advice"),
    [
        (("teacher.seed=[0]", "baselines=[]"), Placement(), 2, "1 of 2 CPUs here would be idle while the teacher trains: "
            "placement.teacher.cpus_per_pack: 2 uses them; a teacher's last bits follow this number"),
        (("teacher.seed=[0, 1]", "baselines=[]"), Placement(), 8, "6 of 8 CPUs here would be idle while teachers train: "
            "placement.teacher.cpus_per_pack: 4 uses them; a teacher's last bits follow this number"),
        # Scratch students use the other CPU; there is none; it is taken; students train on a GPU; fewer CPUs than teachers are left.
        (("teacher.seed=[0]", "grid.seed=[0]"), Placement(), 2, None),
        (("teacher.seed=[0]", "baselines=[]"), Placement(), 1, None),
        (("teacher.seed=[0]", "baselines=[]"), Placement(teacher=TeacherPlacement(cpus_per_pack=2)), 2, None),
        (("teacher.seed=[0]", "baselines=[]"), Placement(gpus_per_pack=1), 2, None),
        (("teacher.seed=[0, 1]", "baselines=[]"), Placement(), 3, None),
    ],
)  # fmt: skip
def test_advice_for_cpus_that_a_teacher_leaves_idle(
    overrides: tuple[str, ...], placement: Placement, cpus: int, advice: str | None
) -> None:
    packs = make_packs(plan_trials(make_sweep(overrides=overrides)), pack_size=8)
    assert advice_for_teachers(packs, placement, cpus) == advice
    teachers = {trial.trial_id for pack in packs if pack.is_teacher for trial in pack.trials}
    left = make_packs(plan_trials(make_sweep(overrides=overrides)), pack_size=8, done=teachers)
    assert advice_for_teachers(left, placement, cpus) is None
