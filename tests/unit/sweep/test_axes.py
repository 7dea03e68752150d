"""Several objectives in one sweep file: what each gets, what does not multiply, and what is refused."""

from collections import Counter
from typing import Any

import pytest

from kd_ray.errors import SweepError
from kd_ray.sweep.distillation import OBJECTIVES, DecoupledDistillation, LabelSmoothing
from kd_ray.sweep.docstrings import field_docstrings
from kd_ray.sweep.spec import Role, TrialSpec
from kd_ray.sweep.training import StepSchedule
from tests.fakes import make_spec, make_sweep, plan_trials


def plan(*overrides: str) -> list[TrialSpec]:
    return [trial.spec for trial in plan_trials(make_sweep(overrides=overrides))]


def distilled(*overrides: str) -> list[str]:
    trials = plan_trials(make_sweep(overrides=("grid.seed=[0]", *overrides)))
    return [trial.description for trial in trials if trial.spec.role is Role.DISTILLED]


def refusal(*overrides: str) -> str:
    with pytest.raises(SweepError) as caught:
        make_sweep(overrides=overrides)
    return str(caught.value)


def test_an_objective_without_a_temperature_does_not_multiply_over_it() -> None:
    axis = "grid.objective=[kd, {name: dkd, beta: 2}, {name: label_smoothing, smoothing: 0.1}]"
    assert sorted(distilled(axis)) == [
        "distilled lenet5 T=1 alpha=0.9 seed=0",
        "distilled lenet5 T=4 alpha=0.9 seed=0",
        "distilled lenet5 dkd T=1 alpha=0.9 seed=0 distillation.beta=2",
        "distilled lenet5 dkd T=4 alpha=0.9 seed=0 distillation.beta=2",
        "distilled lenet5 label_smoothing seed=0 distillation.smoothing=0.1",
    ]


def test_kd_in_a_grid_of_objectives_is_the_trial_it_is_alone() -> None:
    alone = {spec.trial_id for spec in plan()}
    among = plan("grid.objective=[ada_alpha, kd]", "dataset.validation_fraction=0.1")
    held_out = {spec.trial_id for spec in plan("dataset.validation_fraction=0.1")}
    assert alone < {spec.trial_id for spec in plan("grid.objective=[dkd, kd]", "distillation.beta=3")}
    assert held_out < {spec.trial_id for spec in among}


def test_what_all_share_reaches_those_that_have_it() -> None:
    specs = plan("grid.objective=[kd, dkd, label_smoothing]", "distillation.beta=3", "distillation.smoothing=0.2")
    found = {spec.objective: spec.distillation for spec in specs if spec.role is Role.DISTILLED}
    assert isinstance(found["dkd"], DecoupledDistillation)
    assert (found["dkd"].beta, found["dkd"].alpha) == (3.0, 0.9)
    assert isinstance(found["label_smoothing"], LabelSmoothing)
    assert found["label_smoothing"].smoothing == 0.2


def test_an_axis_of_one_objective_leaves_the_others_alone() -> None:
    """`kd` comes first, and has no beta: the axis is checked with `dkd`, and belongs to its trials only."""
    trials = distilled("grid.objective=[kd, dkd]", "grid.distillation.beta=[1, coupled]", "grid.temperature=[4]")
    assert trials == [
        "distilled lenet5 T=4 alpha=0.9 seed=0",
        "distilled lenet5 dkd T=4 alpha=0.9 seed=0 distillation.beta=1",
        "distilled lenet5 dkd T=4 alpha=0.9 seed=0 distillation.beta=coupled",
    ]


def test_one_objective_can_be_there_twice_with_settings_of_its_own() -> None:
    trials = distilled("grid.objective=[dkd, {name: dkd, beta: 2}]", "grid.temperature=[4]")
    assert trials == [
        "distilled lenet5 dkd T=4 alpha=0.9 seed=0",
        "distilled lenet5 dkd T=4 alpha=0.9 seed=0 distillation.beta=2",
    ]


def test_an_objective_without_a_teacher_has_none() -> None:
    specs = plan("distillation={objective: label_smoothing, smoothing: 0.1}", "grid.temperature=null")
    assert Counter(spec.role for spec in specs) == {Role.SCRATCH: 2, Role.DISTILLED: 2}
    assert all(spec.teacher is None for spec in specs)
    without = plan("distillation={objective: label_smoothing, smoothing: 0.1}", "grid.temperature=null", "teacher=null")
    assert {spec.trial_id for spec in without} == {spec.trial_id for spec in specs}


def test_a_teacher_of_the_students_architecture_is_self_distillation() -> None:
    specs = plan("teacher={model: lenet5, seed: [100]}")
    taught = [spec for spec in specs if spec.role is Role.DISTILLED]
    assert {(spec.model, spec.teacher.model) for spec in taught if spec.teacher} == {("lenet5", "lenet5")}


def test_a_scratch_student_that_trains_longer_is_an_axis() -> None:
    specs = plan("training.epochs=null", "grid.training.epochs=[4, 8]")
    assert Counter(spec.epochs for spec in specs if spec.role is Role.SCRATCH) == {4: 2, 8: 2}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["grid.objective=[kd, {name: dkd, betta: 2}]"],
            "grid.objective[1].betta: unknown or without effect here; did you mean beta? "
            "valid: alpha, beta, objective, t_squared, target_weight, teacher_logits, temperature",
        ),
        (
            ["grid.objective=[kd, {name: kd, beta: 2}, dkd]"],
            "grid.objective[1].beta: unknown or without effect here; valid: alpha, objective, t_squared, teacher_logits, temperature",
        ),
        (
            ["grid.objective=[kd, {name: dkd, beta: loud}]"],
            "grid.objective[1].beta: should be a valid number, got 'loud' or should be 'coupled', got 'loud'",
        ),
        (
            ["grid.objective=[kd, {name: dkd, temperature: 2}]"],
            "grid.objective[1].temperature: has no effect: grid.temperature sets it; remove one of them",
        ),
        (["grid.objective=[kd, {name: kd}]"], "grid.objective[1]: repeats the value {'name': 'kd'}"),
        (
            ["grid.objective=[kd, {beta: 2}]"],
            "grid.objective[1]: must be the name of an objective, or a mapping with its name and settings of its own, "
            "as in {name: dkd, beta: 8}, got {'beta': 2}",
        ),
        (
            ["grid.objective=[kd, iad]", "distillation.apha=1"],
            "distillation.apha: unknown or without effect here; did you mean alpha? "
            "valid: alpha, attack, objective, t_squared, teacher_logits, temperature, trust_exponent",
        ),
        (
            ["grid.objective=[{name: kd_topk, k: 12}]"],
            "grid.objective[0].k: must be below the 10 classes, got 12",
        ),
        (
            ["distillation={objective: 'my_losses.focal', terms: [focal]}", "grid.temperature=null"],
            "distillation.objective: must be one of 'kd', 'kd_shuffled', 'label_smoothing', 'scratch_long', 'dkd', "
            "'logit_standardization', 'ltkd', 'kd_pt', 'kd_sim', 'kd_topk', 'iad', 'kd_groups', 'adversarial', 'ada_alpha', "
            "'ada_margin', 'package.module:function', got 'my_losses.focal'",
        ),
        (
            ["distillation={objective: 'my_losses:focal()', terms: [focal]}", "grid.temperature=null"],
            "distillation.objective: must look like 'package.module:function', got 'my_losses:focal()'",
        ),
        (
            ["grid.objective=[{name: kd_groups, feature: shape}]"],
            "grid.objective[0].feature: is not a sensitive feature of trifeature; valid: texture, color, got 'shape'",
        ),
        (
            ["grid.objective=[{name: adversarial, feature: size}]"],
            "grid.objective[0].feature: is not a sensitive feature of trifeature; valid: texture, color, got 'size'",
        ),
        (
            ["grid.objective=[{name: adversarial, feature: color}]", "training.execution=grouped"],
            "training.execution: adversarial takes steps of its own and cannot be grouped; use loop",
        ),
        (
            ["grid.objective=[{name: adversarial, feature: color}]", "training.compile=true"],
            "training.compile: adversarial takes steps of its own and cannot be compiled",
        ),
        (
            [
                "grid.objective=[{name: iad, attack: {epsilon: 0.1, step_size: 0.05, steps: 2}}]",
                "training.execution=grouped",
            ],
            "training.execution: iad takes steps of its own and cannot be grouped; use loop",
        ),
        (
            ["evaluation={}"],
            "evaluation.pgd: has no effect; ask for pgd or gradient_rescaling, or leave evaluation out",
        ),
        (
            ["grid.objective=[kd, ada_alpha]"],
            "dataset.validation_fraction: objective ada_alpha needs held-out data to judge the teacher by; "
            "set it above 0, as in 0.1, got 0",
        ),
        (
            ["grid.objective=[ada_margin]", "dataset.validation_fraction=0.2", "teacher.weights=a.pt"],
            "teacher.weights: objective ada_margin judges the teacher on the validation split, which a given teacher may have "
            "been trained on; let the sweep train the teacher, or choose another objective",
        ),
        (
            ["grid.objective=[{name: ada_alpha, min_alpha: 0.5, max_alpha: 0.4}]", "dataset.validation_fraction=0.2"],
            "grid.objective[0].min_alpha: must not be above max_alpha = 0.4, got 0.5",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(overrides: list[str], message: str) -> None:
    text = refusal(*overrides)
    assert text.endswith(f": {message}")
    assert "\n" not in text


def test_a_longer_scratch_student_keeps_the_shape_of_its_schedule() -> None:
    step = "training.schedule={name: step, milestones: [1, 2], warmup_epochs: 1}"
    specs = plan("grid.objective=[kd, {name: scratch_long, factor: 3}]", "training.epochs=4", step)
    (long,) = {spec.training for spec in specs if spec.objective == "scratch_long"}
    assert long is not None
    assert long.epochs == 12
    assert isinstance(long.schedule, StepSchedule)
    assert (long.schedule.milestones, long.schedule.warmup_epochs) == ((3, 6), 3)
    assert {spec.epochs for spec in specs if spec.objective in ("kd", "cross_entropy")} == {4}
    assert {(spec.role, spec.teacher) for spec in specs if spec.objective == "scratch_long"} == {(Role.DISTILLED, None)}


def test_what_is_measured_besides_is_a_part_of_the_trials_that_it_concerns() -> None:
    """Guard: nobody trains again a teacher, or a student that no teacher rescales, for a question about others."""
    objectives = "grid.objective=[kd, {name: kd_groups, feature: color}, {name: label_smoothing, smoothing: 0.1}]"
    before = plan(objectives)
    asked = plan(objectives, "evaluation={gradient_rescaling: true}")
    other = {spec.objective for spec in asked} - {spec.objective for spec in asked if spec.evaluation}
    assert other == {"cross_entropy", "kd_groups", "label_smoothing"}
    kept = {spec.trial_id for spec in before} & {spec.trial_id for spec in asked}
    assert {spec.objective for spec in before if spec.trial_id in kept} == other
    attacked = plan(objectives, "evaluation={pgd: {epsilon: 0.03, step_size: 0.01, steps: 20}}")
    assert all(spec.evaluation and not spec.evaluation.gradient_rescaling for spec in attacked)
    assert not {spec.trial_id for spec in before} & {spec.trial_id for spec in attacked}


def test_every_objective_has_the_words_that_explain_it() -> None:
    for name, model in OBJECTIVES.items():
        assert model.__doc__, name
        assert set(model.model_fields) - set(field_docstrings(model)) <= {"objective"}, name


@pytest.mark.parametrize("objective", [name for name in OBJECTIVES if name != "imported"])
def test_an_objective_is_read_back_from_a_record_as_the_same_trial(objective: str) -> None:
    soft: dict[str, Any] = {"temperature": 4.0, "alpha": 0.9, "t_squared": True}
    special: dict[str, dict[str, Any]] = {
        "label_smoothing": {"smoothing": 0.1},
        "scratch_long": {"factor": 3},
        "kd_topk": soft | {"k": 3},
        "adversarial": soft | {"feature": "color"},
        "kd_groups": soft | {"feature": "color"},
    }
    own = special.get(objective, soft)
    spec = make_spec(distillation={"objective": objective, **own})
    again = TrialSpec.model_validate_json(spec.model_dump_json())
    assert again == spec
    assert (again.trial_id == make_spec().trial_id) == (objective == "kd")


def test_identity_of_an_imported_objective_has_its_path_parameters_and_version() -> None:
    def spec(**changes: Any) -> TrialSpec:
        return make_spec(distillation={"objective": "my_losses:focal", "terms": ["focal"]} | changes)

    others: list[dict[str, Any]] = [
        {"objective": "my_losses:other"},
        {"parameters": {"gamma": 2.0}},
        {"parameters": {"gamma": 3.0}},
        {"version": "1.0"},
        {"version": "1.1"},
        {"class_statistics": True},
        {"teacher_logits": "fp16"},
    ]
    assert len({spec().trial_id, *(spec(**changes).trial_id for changes in others)}) == len(others) + 1
    assert spec(parameters={"a": 1, "b": 2}).trial_id == spec(parameters={"b": 2, "a": 1}).trial_id
