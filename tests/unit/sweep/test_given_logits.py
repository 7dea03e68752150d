"""A teacher given by a file of its logits: which trials there are, what is their identity, and which settings it excludes."""

from hashlib import sha256

import pytest

from kd_ray.errors import SweepError
from kd_ray.sweep.load import SweepFile
from kd_ray.sweep.plan import PlannedTrial, expand
from kd_ray.sweep.spec import LOGITS
from tests.fakes import make_sweep, plan_trials

GIVEN = ("teacher={logits: l.npy}", "training.augmentation=none")
AXIS = "teacher.logits: [a.npy, b.parquet]"


def plan(*overrides: str, content: str = "") -> tuple[PlannedTrial, ...]:
    return expand(given(*overrides), lambda path: sha256(f"{path} {content}".encode()).hexdigest())


def given(*overrides: str) -> SweepFile:
    return make_sweep(overrides=(*GIVEN, *overrides))


def test_there_is_no_trial_of_the_teacher_and_students_name_the_file() -> None:
    trials = plan()
    digest = sha256(b"l.npy ").hexdigest()
    assert [trial.spec.role.value for trial in trials] == ["scratch"] * 2 + ["distilled"] * 4
    assert {
        (trial.spec.given_logits, trial.spec.teacher_name) for trial in trials if trial.spec.role == "distilled"
    } == {(digest, f"{LOGITS}{digest[:8]}")}
    assert {(trial.spec.given_logits, trial.spec.teacher_name) for trial in trials if trial.spec.role == "scratch"} == {
        (None, None)
    }
    assert {trial.spec.teacher for trial in trials} == {None}


def test_the_content_of_the_file_is_identity_of_distilled_students_alone() -> None:
    before, after = plan(), plan(content="other")
    for mine, theirs in zip(before, after, strict=True):
        assert (mine.trial_id == theirs.trial_id) == (mine.spec.role == "scratch")


def test_a_file_may_be_an_axis() -> None:
    trials = expand(
        make_sweep(
            overrides=[
                "teacher=null",
                "training.augmentation=none",
                f"grid={{seed: [0, 1], temperature: [1, 4], {AXIS}}}",
            ]
        ),
        lambda path: sha256(path.encode()).hexdigest(),
    )
    distilled = [trial for trial in trials if trial.spec.role == "distilled"]
    assert len(trials) == 2 + 2 * 4
    assert {trial.settings["teacher.logits"] for trial in distilled} == {"a.npy", "b.parquet"}
    assert len({trial.spec.given_logits for trial in distilled}) == 2


def test_a_control_without_a_teacher_does_not_name_the_file() -> None:
    trials = plan("distillation={objective: label_smoothing, smoothing: 0.1}", "grid.temperature=null")
    assert {trial.spec.given_logits for trial in trials} == {None}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["training.augmentation=flip"], "training.augmentation: teacher.logits has one row for each sample, so each has one view; "
         "valid: none, got flip"),
        (["training.mixup=0.2"], "training.mixup: teacher.logits has no rows of mixed images"),
        (["training.cutmix=0.2"], "training.cutmix: teacher.logits has no rows of mixed images"),
        (["teacher.logits=l.csv"], r"teacher.logits: should be the path of an .npy or .parquet file, got 'l.csv'"),
        (["teacher.model=resnet20"], "teacher.model: unknown or without effect here; valid: logits"),
        (["teacher.weights=w.pt"], "teacher.weights: unknown or without effect here; valid: logits"),
        (["distillation.objective=kd_sim"], "distillation.objective: kd_sim needs the teacher's network"),
        (["dataset.validation_fraction=0.1", "distillation.objective=ada_alpha"], "ada_alpha needs the teacher's network"),
        (["distillation.objective=iad", "distillation.attack={epsilon: 0.1, step_size: 0.1, steps: 1}"], "iad needs the teacher's network"),
        (["grid.objective=[kd, kd_sim]"], r"grid.objective\[1\]: kd_sim needs the teacher's network"),
        (["evaluation.gradient_rescaling=true"], "evaluation.gradient_rescaling: needs the teacher's logits of the test split"),
        (["student.init=teacher"], "student.init: teacher"),
        (["claims=[{metric: accuracy, against: teacher}]"], r"claims\[0\].against: needs the teacher's predictions on the test split"),
        (["claims=[{metric: disagreement}]"], r"claims\[0\].metric: needs the teacher's predictions on the test split"),
    ],
)  # fmt: skip
def test_what_needs_more_of_a_teacher_is_refused_in_one_line(overrides: list[str], message: str) -> None:
    with pytest.raises(SweepError, match=message) as raised:
        given(*overrides)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("objective", ["kd_shuffled", "dkd, beta: 8.0", "iad", "kd_pt", "logit_standardization"])
def test_objectives_of_logits_alone_are_taken(objective: str) -> None:
    file = given("grid.objective=null", f"distillation={{objective: {objective}, alpha: 0.9, t_squared: true}}")
    distilled = [trial.spec for trial in plan_trials(file) if trial.spec.distillation]
    assert {spec.objective for spec in distilled} == {objective.split(",", maxsplit=1)[0]}
    assert all(spec.given_logits and spec.teacher is None for spec in distilled)
