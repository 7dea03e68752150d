"""What a sweep will cost: the time of like trials, epoch by epoch."""

import pytest

from kd_ray.results.aggregate import aggregate
from kd_ray.results.cost import cost
from kd_ray.results.store import Store
from tests.fakes import commit_trials, make_sweep, plan_trials, write_sweep


@pytest.fixture
def done(store: Store) -> Store:
    """A store with the complete sweep `demo`, each trial of 50.5 s."""
    commit_trials(store, plan_trials(make_sweep()))
    write_sweep(store, make_sweep())
    aggregate(store, "demo")
    return store


@pytest.mark.slow
def test_more_seeds_cost_what_like_trials_took(done: Store) -> None:
    more = [
        trial.spec for trial in plan_trials(make_sweep(overrides=["grid.seed=[7]", "baselines=[]", "teacher.seed=[0]"]))
    ]
    students = [spec for spec in more if spec.role == "distilled"]
    found = cost(done, students)
    assert found.num_known == found.num_trials == len(students)
    assert found.seconds == pytest.approx(50.5 * len(students))
    assert found.sentence().startswith("about ")
    assert "of training in one worker, after " in found.sentence()


@pytest.mark.slow
def test_twice_the_epochs_cost_twice_the_time(done: Store) -> None:
    specs = [trial.spec for trial in plan_trials(make_sweep())]
    epochs = specs[-1].epochs
    longer = [trial.spec for trial in plan_trials(make_sweep(overrides=[f"training.epochs={2 * epochs}"]))]
    student = next(spec for spec in longer if spec.role == "distilled" and spec.epochs == 2 * epochs)
    assert cost(done, [student]).seconds == pytest.approx(2 * 50.5)


@pytest.mark.slow
def test_what_has_no_like_is_said(done: Store) -> None:
    other = [trial.spec for trial in plan_trials(make_sweep(overrides=["student.model=resnet32"]))]
    student = next(spec for spec in other if spec.role == "distilled")
    assert cost(done, [student]).sentence().startswith("unknown: this store has no complete trial like these")
    known = next(trial.spec for trial in plan_trials(make_sweep()) if trial.spec.role == "distilled")
    assert cost(done, [student, known]).sentence().endswith("; 1 of 2 trials have no like one and are not counted")
