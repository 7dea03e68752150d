"""The closing table by hand."""

import math

import pyarrow as pa
import pytest

from kd_ray.results.aggregate import aggregate
from kd_ray.results.record import commit_record, write_samples
from kd_ray.results.store import Store
from kd_ray.results.summary import ConditionSummary, Statistic, statistic, summarize
from kd_ray.results.table_parts import read_table
from tests.fakes import LABELS_N, commit_trials, make_record, make_samples, make_sweep, plan_trials, write_sweep


def closing_table(store: Store, *overrides: str) -> list[ConditionSummary]:
    file = make_sweep(overrides=overrides)
    commit_trials(store, plan_trials(file))
    aggregate(store, write_sweep(store, file).sweep)
    return summarize(read_table(store, "trials"), read_table(store, "fairness_metrics"))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], Statistic(mean=None, sd=None, n=0)),
        ([None, None], Statistic(mean=None, sd=None, n=0)),
        ([0.5], Statistic(mean=0.5, sd=None, n=1)),
        ([0.5, None], Statistic(mean=0.5, sd=None, n=1)),
        ([1.0, 3.0], Statistic(mean=2.0, sd=math.sqrt(2.0), n=2)),
        ([2.0, 4.0, 4.0, None, 6.0], Statistic(mean=4.0, sd=math.sqrt(8 / 3), n=4)),
    ],
)
def test_statistic_by_hand(values: list[float | None], expected: Statistic) -> None:
    assert statistic(values) == expected


def test_conditions_stand_by_role_and_temperature(store: Store) -> None:
    table = closing_table(store, "grid.temperature=[10, 1, 4]")
    assert [(line.role, line.label, line.n) for line in table] == [
        ("teacher", "", 2),
        ("scratch", "", 2),
        ("distilled", "T=1", 2),
        ("distilled", "T=4", 2),
        ("distilled", "T=10", 2),
    ]
    assert list(table[0].metrics) == [
        "accuracy",
        "worst class",
        "DPD color",
        "EOD color",
        "DPD texture",
        "EOD texture",
        "individual fairness",
    ]


def test_mean_and_sd_of_two_scratch_students_by_hand(store: Store) -> None:
    """Seed 0: nothing but circles, 4 of 12 right. Seed 1: all right."""
    file = make_sweep()
    scratch = plan_trials(file)[2:4]
    for trial, predictions_N in zip(scratch, (LABELS_N * 0, LABELS_N), strict=True):
        write_samples(store, trial.spec.dataset_id, make_samples())
        scalars = {**make_record().scalars, "individual_fairness": 0.25 if trial is scratch[0] else float("nan")}
        commit_record(store, make_record(trial.spec, predictions_N=predictions_N.astype("int32"), scalars=scalars))
    aggregate(store, write_sweep(store, file).sweep)
    (line,) = summarize(read_table(store, "trials"), read_table(store, "fairness_metrics"))
    assert (line.role, line.label, line.n) == ("scratch", "", 2)
    assert line.metrics["accuracy"].mean == pytest.approx(2 / 3, rel=1e-12)
    assert line.metrics["accuracy"].sd == pytest.approx((2 / 3) / math.sqrt(2), rel=1e-12)
    assert line.metrics["worst class"] == Statistic(mean=0.5, sd=math.sqrt(0.5), n=2)
    assert line.metrics["DPD color"] == Statistic(mean=0.0, sd=0.0, n=2)
    assert line.metrics["individual fairness"] == Statistic(mean=0.25, sd=None, n=1)


def test_label_names_what_varies_among_distilled_students(store: Store) -> None:
    table = closing_table(store, "distillation.alpha=null", "grid.alpha=[0.5, 0.9]", "grid.temperature=[4]")
    assert [line.label for line in table] == ["", "", "T=4 alpha=0.5", "T=4 alpha=0.9"]


def test_label_names_the_values_of_other_axes(store: Store) -> None:
    table = closing_table(
        store, "training.augmentation=null", "grid.training.augmentation=[flip, none]", "grid.temperature=[2.5]"
    )
    assert [(line.role, line.label, line.n) for line in table] == [
        ("teacher", "training.augmentation=flip", 2),
        ("teacher", "training.augmentation=none", 2),
        ("scratch", "training.augmentation=flip", 2),
        ("scratch", "training.augmentation=none", 2),
        ("distilled", "T=2.5 training.augmentation=flip", 2),
        ("distilled", "T=2.5 training.augmentation=none", 2),
    ]


def test_label_names_the_student_model_once(store: Store) -> None:
    table = closing_table(store, "student.model=null", "grid.student.model=[lenet5, resnet20]", "grid.temperature=[4]")
    assert [line.label.count("resnet20") for line in table if line.role == "distilled"] == [0, 1]


def test_nothing_done_gives_no_lines(store: Store) -> None:
    trials: pa.Table = read_table(store, "trials")
    assert summarize(trials, read_table(store, "fairness_metrics")) == []
