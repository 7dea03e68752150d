"""One study: everything that shows a mean over runs shows the same n, mean and standard deviation, whatever taught the students."""

import math
import re
from collections import defaultdict
from statistics import fmean, stdev

import numpy as np
import numpy.typing as npt
import pytest

import kd_ray
from kd_ray.analysis.closing_table import closing_table
from kd_ray.analysis.compare import compare
from kd_ray.analysis.reading import read_study
from kd_ray.analysis.report.measured_tables import condition_table
from kd_ray.analysis.report.table import MeanAndSd
from kd_ray.analysis.study import spread
from kd_ray.cli import text
from kd_ray.cli.text_compare import compared
from kd_ray.results.query import Results
from kd_ray.results.store import open_store
from kd_ray.sweep.spec import TrialSpec
from tests.simulated import simulate

TEACHERS = {
    "one teacher": "teacher={model: resnet20, seed: [1]}",
    "two teachers": "teacher={model: resnet20, seed: [0, 1]}",
    "paired teachers": "teacher={model: resnet20, seed: paired}",
    "given weights": "teacher={model: resnet20, weights: teacher.pth}",
}
LEVELS = ("accuracy", "worst_class_accuracy", "individual_fairness")

Numbers = tuple[int, float, float]
"""n, mean, and sd; NaN with fewer than two runs."""


def rates(spec: TrialSpec, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Students of teacher 1 are worse, so that a mean over teachers is none of them."""
    worse = 0.15 if spec.teacher is not None and spec.teacher.seed == 1 else 0.0
    return np.array([0.9, 0.8, 0.7]) - worse + rng.normal(0, 0.03, 3)


def by_hand(results: Results) -> dict[tuple[str, str], Numbers]:
    """From the table `trials` alone: the mean over the teachers of each seed, then over seeds."""
    seeds: dict[tuple[str, str], dict[object, list[float]]] = defaultdict(lambda: defaultdict(list))
    for trial in results.table("trials", sweep="demo").to_pylist():
        label = trial["role"] if trial["temperature"] is None else f"T={trial['temperature']:g}"
        for metric in LEVELS:
            seeds[label, metric][trial["seed"]].append(trial[metric])
    found = {}
    for key, of_seed in seeds.items():
        runs = [fmean(values) for values in of_seed.values()]
        found[key] = (len(runs), fmean(runs), stdev(runs) if len(runs) > 1 else math.nan)
    return found


def shown(n: int, mean: float, sd: float, *, scale: float, digits: int) -> str:
    """As a table shows it."""
    end = "" if n < 2 else f" ± {sd * scale:.{digits}f}"
    return f"{n} {mean * scale:.{digits}f}{end}"


def accuracies(printed: str) -> dict[str, str]:
    """n and accuracy of each line of a printed table of conditions."""
    lines = re.findall(r"^(teacher|scratch|T=\d+) +(\d+) +(\d+\.\d\d(?: ± \d+\.\d\d)?)", printed, flags=re.MULTILINE)
    return {label: f"{n} {accuracy}" for label, n, accuracy in lines}


SHORT = ("two teachers", "given weights")
"""The two that differ from what is usual; `make test-long` has the others."""


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=[] if name in SHORT else pytest.mark.long) for name in TEACHERS],
)
def results(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Results:
    """A sweep of three seeds and two temperatures with such teachers."""
    store = open_store(tmp_path_factory.mktemp("store"))
    return simulate(store, TEACHERS[request.param], "grid.seed=[0, 1, 2]", "grid.temperature=[1, 4]", rates=rates)


@pytest.mark.slow
def test_all_that_shows_a_condition_shows_the_same_numbers(results: Results) -> None:
    expected = by_hand(results)
    assert {n for (label, _), (n, _, _) in expected.items() if label != "teacher"} == {3}
    study = read_study(results, "demo")
    table = closing_table(study)
    names = [column.metric.name for column in table.columns]
    comparison = compare(results, "demo")
    python = kd_ray.compare("demo", results)

    for condition in study.conditions:
        (line,) = (it for it in table.lines if it.label == condition.label)
        assert (line.n, condition.n) == (expected[condition.label, "accuracy"][0],) * 2
        for metric in LEVELS:
            wanted = expected[condition.label, metric]
            for it in (line.spreads[names.index(metric)], spread(condition.over_runs(study.values(metric)))):
                assert (it.n, it.mean, it.sd) == pytest.approx(wanted, rel=1e-12, nan_ok=True)
            for source in (comparison, python):
                (row,) = (it for it in source.of("condition") if (it.condition, it.metric) == (condition.label, metric))
                sd = math.nan if row.sd_treatment is None else row.sd_treatment
                found = (row.n_treatment, row.mean_treatment, sd)
                assert found == pytest.approx(wanted, rel=1e-12, nan_ok=True), metric

    printed = {
        label: shown(*numbers, scale=100, digits=2)
        for (label, metric), numbers in expected.items()
        if metric == "accuracy"
    }
    assert accuracies(text.conditions(table)) == printed
    assert accuracies(compared(comparison, store=None)) == printed
    report = condition_table(study)
    place = [column.name for column in report.columns].index("accuracy")
    for printed_row in report.rows:
        (n, mean, sd), cell = expected[str(printed_row[1]), "accuracy"], printed_row[place]
        assert isinstance(cell, MeanAndSd)
        measured = (printed_row[2], cell.mean, math.nan if cell.sd is None else cell.sd)
        assert measured == pytest.approx((n, 100 * mean, 100 * sd), rel=1e-12, nan_ok=True)


@pytest.mark.slow
def test_differences_are_between_the_same_means(results: Results) -> None:
    expected = by_hand(results)
    rows = [row for row in compare(results, "demo").of("fairness", "scratch_vs_distilled") if row.metric == "accuracy"]
    assert [row.condition for row in rows] == ["T=1", "T=4"]
    for row in rows:
        n, mean, sd = expected[row.condition, "accuracy"]
        assert (row.n_treatment, row.mean_treatment, row.sd_treatment) == pytest.approx((n, mean, sd), rel=1e-12)
        assert (row.n_baseline, row.mean_baseline) == pytest.approx(expected["scratch", "accuracy"][:2], rel=1e-12)


@pytest.mark.slow
def test_fairness_of_groups_is_the_same_too(results: Results) -> None:
    rows = results.query(
        "SELECT temperature, seed, avg(equalized_odds_difference) AS eod FROM fairness_metrics "
        "WHERE feature = 'color' AND positive_class IS NULL AND temperature = 4 GROUP BY ALL"
    ).to_pylist()
    table = closing_table(read_study(results, "demo"))
    (line,) = (it for it in table.lines if it.label == "T=4")
    found = line.spreads[[column.title for column in table.columns].index("EOD color")]
    values = [row["eod"] for row in rows]
    assert (found.n, found.mean, found.sd) == pytest.approx((3, fmean(values), stdev(values)), rel=1e-12)
    (row,) = (
        it
        for it in compare(results, "demo").of("condition")
        if (it.condition, it.metric, it.sensitive_feature) == ("T=4", "equalized_odds_difference", "color")
    )
    assert (row.n_treatment, row.mean_treatment, row.sd_treatment) == pytest.approx((found.n, found.mean, found.sd))
