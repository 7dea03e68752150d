"""The table that ends a launch, by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest

from kd_ray.analysis.closing_table import ClosingLine, ClosingTable, closing_table
from kd_ray.analysis.compare import compare_study
from kd_ray.analysis.contrast import Options
from kd_ray.analysis.reading import read_study
from kd_ray.analysis.study import Spread, spread
from kd_ray.cli import text
from kd_ray.cli.text_compare import compared
from kd_ray.errors import InvalidInputError
from kd_ray.results.aggregate import aggregate
from kd_ray.results.query import Results
from kd_ray.results.record import commit_record, write_samples
from kd_ray.results.row_settings import RowSettings
from kd_ray.results.store import Store, manifest_key
from tests.calibration.drawn import Design, draw
from tests.fakes import LABELS_N, commit_trials, make_record, make_samples, make_sweep, plan_trials, write_sweep


def made(store: Store, *overrides: str) -> ClosingTable:
    file = make_sweep(overrides=overrides)
    commit_trials(store, plan_trials(file))
    aggregate(store, write_sweep(store, file).sweep)
    return closing_table(read_study(Results(store), "demo"))


def labels(table: ClosingTable) -> list[tuple[str, int]]:
    return [(line.label, line.n) for line in table.lines]


def cell(table: ClosingTable, line: ClosingLine, title: str) -> Spread:
    return line.spreads[[column.title for column in table.columns].index(title)]


@pytest.mark.parametrize(
    ("values", "mean", "sd", "n"),
    [
        ([], math.nan, math.nan, 0),
        ([math.nan, math.nan], math.nan, math.nan, 0),
        ([0.5], 0.5, math.nan, 1),
        ([0.5, math.nan], 0.5, math.nan, 1),
        ([1.0, 3.0], 2.0, math.sqrt(2.0), 2),
        ([2.0, 4.0, 4.0, math.nan, 6.0], 4.0, math.sqrt(8 / 3), 4),
    ],
)
def test_spread_by_hand(values: list[float], mean: float, sd: float, n: int) -> None:
    found = spread(np.array(values))
    assert found.n == n
    assert [found.mean, found.sd] == pytest.approx([mean, sd], rel=1e-12, nan_ok=True)


@pytest.mark.slow
def test_conditions_stand_by_role_and_temperature(store: Store) -> None:
    table = made(store, "grid.temperature=[10, 1, 4]")
    assert labels(table) == [("teacher", 2), ("scratch", 2), ("T=1", 2), ("T=4", 2), ("T=10", 2)]
    assert [column.title for column in table.columns] == [
        "accuracy",
        "worst-class accuracy",
        "DPD color",
        "EOD color",
        "DPD texture",
        "EOD texture",
        "individual fairness",
    ]


@pytest.mark.slow
def test_mean_and_sd_of_two_scratch_students_by_hand(store: Store) -> None:
    """Seed 0: nothing but circles, 4 of 12 right. Seed 1: all right."""
    file = make_sweep()
    scratch = plan_trials(file)[2:4]
    for trial, predictions_N in zip(scratch, (LABELS_N * 0, LABELS_N), strict=True):
        write_samples(store, trial.spec.dataset_id, make_samples())
        scalars = {**make_record().test.scalars, "individual_fairness": 0.25 if trial is scratch[0] else float("nan")}
        commit_record(store, make_record(trial.spec, predictions_N=predictions_N.astype("int32"), scalars=scalars))
    aggregate(store, write_sweep(store, file).sweep)
    table = closing_table(read_study(Results(store), "demo"))
    (line,) = table.lines
    assert (line.label, line.n) == ("scratch", 2)
    accuracy = cell(table, line, "accuracy")
    assert accuracy.mean == pytest.approx(2 / 3, rel=1e-12)
    assert accuracy.sd == pytest.approx((2 / 3) / math.sqrt(2), rel=1e-12)
    assert cell(table, line, "worst-class accuracy") == Spread(mean=0.5, sd=math.sqrt(0.5), n=2)
    assert cell(table, line, "DPD color") == Spread(mean=0.0, sd=0.0, n=2)
    known = cell(table, line, "individual fairness")
    assert (known.mean, known.n, math.isnan(known.sd)) == (0.25, 1, True)
    assert table.collapsed == ("scratch: 1 of 2 runs predicts one class",)
    shown = text.conditions(table)
    assert "66.67 ± 47.14" in shown
    assert "0.2500\n" in shown, "one value has no sd"
    assert "collapsed: scratch: 1 of 2 runs predicts one class. Do not read their fairness." in shown


@pytest.mark.slow
def test_label_names_what_varies_among_distilled_students(store: Store) -> None:
    table = made(store, "distillation.alpha=null", "grid.alpha=[0.5, 0.9]", "grid.temperature=[4]")
    assert [line.label for line in table.lines] == ["teacher", "scratch", "T=4, alpha=0.5", "T=4, alpha=0.9"]


@pytest.mark.slow
def test_label_names_the_values_of_other_axes(store: Store) -> None:
    table = made(
        store, "training.augmentation=null", "grid.training.augmentation=[flip, none]", "grid.temperature=[2.5]"
    )
    assert labels(table) == [
        ("teacher, augmentation=flip", 2),
        ("teacher, augmentation=none", 2),
        ("scratch, augmentation=flip", 2),
        ("scratch, augmentation=none", 2),
        ("T=2.5, augmentation=flip", 2),
        ("T=2.5, augmentation=none", 2),
    ]


@pytest.mark.slow
def test_label_names_the_student_model_once(store: Store) -> None:
    table = made(store, "student.model=null", "grid.student.model=[lenet5, resnet20]", "grid.temperature=[4]")
    distilled = [line.label for line in table.lines if line.label.startswith("T=")]
    assert [label.count("resnet20") for label in distilled] == [0, 1]


@pytest.mark.slow
def test_a_seed_with_two_teachers_is_one_run(store: Store) -> None:
    table = made(store, "teacher={model: resnet20, seed: [0, 1]}", "grid.temperature=[4]")
    assert labels(table) == [("teacher", 2), ("scratch", 2), ("T=4", 2)]


def test_intersections_are_left_out_and_a_feature_with_an_ampersand_is_not() -> None:
    study = draw(Design(temperatures=1, seeds=2, intersections=True), 0)
    titles = [column.title for column in closing_table(study).columns]
    assert "EOD color" in titles
    assert not any("&" in title for title in titles)


@pytest.mark.slow
def test_a_feature_whose_name_has_an_ampersand_is_shown(store: Store) -> None:
    """Its name alone does not make it an intersection; the sweep says which features are crossed."""
    groups = make_samples().sensitive_features["color"]
    file = make_sweep()
    for trial in plan_trials(file):
        write_samples(store, trial.spec.dataset_id, make_samples(sensitive_features={"R & D": groups}))
        commit_record(store, make_record(trial.spec))
    manifest = write_sweep(store, file)
    settings = RowSettings(sweep="demo", sensitive_features=("R & D",), intersections=())
    store.put(manifest_key("demo", manifest.generation), replace(manifest, row_settings=settings).to_json())
    aggregate(store, "demo")
    titles = [column.title for column in closing_table(read_study(Results(store), "demo")).columns]
    assert "EOD R & D" in titles


@pytest.mark.slow
def test_failed_trials_are_named_under_the_table(store: Store) -> None:
    table = made(store)
    assert table.failed == ()
    shown = text.conditions(replace(table, small_groups=(), failed=("distilled T=4 seed 1",)))
    assert shown.splitlines()[-1] == "failed, so missing above: distilled T=4 seed 1"


def test_small_groups_are_named_with_their_size() -> None:
    study = draw(Design(temperatures=1, seeds=2, per_class=12, intersections=True), 0)
    table = closing_table(study)
    shown = text.conditions(table)
    assert "small groups, which may decide DPD and EOD alone:" in shown
    # The table has no column of an intersection, but the tables have its numbers.
    assert any(it.is_joint for it in study.fairness)
    assert any("&" in words for words in table.small_groups)


@pytest.mark.slow
def test_nothing_done_is_said(store: Store) -> None:
    write_sweep(store, make_sweep())
    with pytest.raises(InvalidInputError, match="no complete trials yet"):
        read_study(Results(store), "demo")


@pytest.mark.slow
def test_individual_fairness_is_not_called_fair_at_0(store: Store) -> None:
    shown = text.conditions(made(store))
    assert "0 is fair" not in shown
    assert "follows the model's confidence" in shown


@pytest.mark.slow
def test_a_wide_sweep_shows_its_first_conditions_and_all_of_them_on_request() -> None:
    study = draw(Design(seeds=3, temperatures=44, classes=3, per_class=10), 0)
    rest = "and 6 more conditions, which `kd-ray compare --full` shows."
    shown = text.conditions(closing_table(study))
    assert [line.split()[0] for line in shown.splitlines()[1:4]] == ["teacher", "scratch", "T=1"]
    assert shown.count("\nT=") == 38
    assert rest in shown
    comparison = compare_study(study, Options())
    short, full = (compared(comparison, store=None, full=it, width=500) for it in (False, True))
    assert (short.count("\nT=44 "), full.count("\nT=44 ") >= 2) == (0, True)
    # Of the conditions, and of the published counts, which leave teachers and scratch students out.
    assert short.count(rest) == 1
    assert short.count("and 4 more conditions") == 1
    assert "more condition" not in full
