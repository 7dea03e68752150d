"""The size of the groups that decide a difference: launch, `compare` and report name it, and what the difference is without them.

Test samples and predictions are made so that a few people decide: 12 of 2,072 for one feature, joint groups of 1 and of 3 for two.
"""

import numpy as np
import numpy.typing as npt
import pytest

from kd_ray.analysis.closing_table import closing_table
from kd_ray.analysis.compare import compare
from kd_ray.analysis.reading import read_study
from kd_ray.analysis.report.build import compared
from kd_ray.cli import text
from kd_ray.groups import Groups
from kd_ray.results.aggregate import aggregate
from kd_ray.results.query import Results
from kd_ray.results.record import commit_record, write_samples
from kd_ray.results.store import Store
from tests.fakes import make_record, make_samples, make_sweep, plan_trials, write_sweep

SWEEP = """
name: demo
dataset:
  {name: manifest, title: people, path: people.csv, columns: [x], classes: ['no', 'yes'], features: FEATURES, split: split,
   min_group_size: LEAST, version: 0123456789abcdef}
sensitive_features: FEATURES
intersections: JOINT
teacher: {model: mlp-8, seed: [0]}
student: {model: mlp-4}
training: {epochs: 4, batch_size: 8, optimizer: {lr: 0.1}, schedule: {name: constant}}
distillation: {alpha: 0.9, t_squared: true}
grid: {seed: [0, 1, 2], temperature: [4]}
"""

People = tuple[tuple[str, ...], int, int, int, int]
"""Groups, then how many are yes, how many of these are predicted so; how many are no, and how many of these are predicted as yes."""

RACE: tuple[People, ...] = (
    (("White",), 500, 410, 1000, 100),
    (("Black",), 200, 114, 360, 36),
    (("Other",), 4, 1, 8, 1),
)
"""True positive rates 82 %, 57 % and 25 %: 57 points apart, and 25 without the 12 others."""
SEX_AND_RACE: tuple[People, ...] = (
    (("f", "White"), 1000, 903, 400, 40),
    (("f", "Black"), 200, 160, 100, 10),
    (("m", "White"), 200, 120, 100, 10),
    (("m", "Black"), 100, 30, 100, 10),
    (("f", "Other"), 2, 0, 1, 0),
    (("m", "Other"), 1, 1, 0, 0),
)
"""True positive rates from 30 % to 90.3 %, but 0 of 2 and 1 of 1 in the groups of 3 people and of 1."""


def expanded(people: tuple[People, ...]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], list[tuple[str, ...]]]:
    """Labels, predictions and groups, a person each."""
    labels: list[int] = []
    predictions: list[int] = []
    groups: list[tuple[str, ...]] = []
    for names, positive, found, negative, alarms in people:
        labels += [1] * positive + [0] * negative
        predictions += [1] * found + [0] * (positive - found) + [1] * alarms + [0] * (negative - alarms)
        groups += [names] * (positive + negative)
    return np.array(labels), np.array(predictions, dtype=np.int32), groups


def made(
    store: Store, people: tuple[People, ...], *, features: list[str], joint: bool = False, least: int = 1
) -> Results:
    """A complete sweep whose every model predicts the same."""
    names = str(features)
    file = make_sweep(
        SWEEP.replace("FEATURES", names).replace("LEAST", str(least)).replace("JOINT", f"[{names}]" if joint else "[]")
    )
    labels_N, predictions_N, groups = expanded(people)
    probabilities_N = np.linspace(0.5, 0.9, len(labels_N), dtype=np.float32)
    of_feature = {}
    for place, name in enumerate(features):
        values = list(dict.fromkeys(it[place] for it in groups))
        of_feature[name] = Groups.from_codes(np.array([values.index(it[place]) for it in groups]), values)
    for trial in plan_trials(file):
        samples = make_samples(
            dataset="people",
            target="label",
            class_names=("no", "yes"),
            labels_N=labels_N,
            sensitive_features=of_feature,
        )
        write_samples(store, trial.spec.dataset_id, samples)
        predicted = {
            "predictions_N": predictions_N,
            "confidences_N": probabilities_N,
            "true_probabilities_N": probabilities_N,
        }
        commit_record(store, make_record(trial.spec, **predicted))
    aggregate(store, write_sweep(store, file).sweep)
    return Results(store)


def odds(results: Results, feature: str) -> float:
    """Equalized odds difference of every model, as the tables have it."""
    rows = results.query(
        "SELECT DISTINCT round(equalized_odds_difference, 6) AS eod FROM fairness_metrics "
        f"WHERE feature = '{feature}' AND positive_class IS NULL"
    ).to_pylist()
    assert len(rows) == 1
    return float(rows[0]["eod"])


def everywhere(results: Results, words: str) -> None:
    """The table that ends a launch, `compare` and the report say these words."""
    study = read_study(results, "demo")
    launch = " ".join(text.conditions(closing_table(study)).split())
    assert words in launch
    assert words in " ".join(compare(results, "demo").verdict.asked)
    assert words in " ".join(compared(results, study)[1].asked)


@pytest.mark.slow
def test_12_of_2072_people_decide_a_feature(store: Store) -> None:
    """Guard: EOD of 57 % instead of 25 %, and nothing said why."""
    results = made(store, RACE, features=["race"])
    assert len(next(iter(read_study(results, "demo").test_sets.values())).labels_N) == 2072
    assert odds(results, "race") == pytest.approx(0.57)
    everywhere(
        results,
        "race (Other: 12 test samples; Other: 4 of class 'yes'; without 1 group below 10 in a class EOD is 25.0 %, not 57.0 %, in "
        "the mean over all)",
    )


@pytest.mark.slow
def test_joint_groups_of_1_and_3_people_decide_an_intersection(store: Store) -> None:
    results = made(store, SEX_AND_RACE, features=["sex", "race"], joint=True)
    assert odds(results, "sex & race") == pytest.approx(1.0)
    everywhere(
        results,
        "sex & race (m & Other: 1 test sample; without 2 groups below 10 in a class EOD is 60.3 %, not 100.0 %, in the mean over all)",
    )


@pytest.mark.slow
def test_the_smallest_group_size_holds_for_joint_groups(store: Store) -> None:
    """Guard: `min_group_size` ignored intersections, so that groups of 1 and 3 people gave 1.000 instead of 0.603."""
    results = made(store, SEX_AND_RACE, features=["sex", "race"], joint=True, least=4)
    assert odds(results, "sex & race") == pytest.approx(0.603)
    said = " ".join(compare(results, "demo").verdict.asked)
    assert "sex & race (" not in said


@pytest.mark.slow
def test_small_groups_that_decide_nothing_are_named_with_their_size_alone(store: Store) -> None:
    people = (*RACE[:2], (("Other",), 4, 3, 8, 1))
    results = made(store, people, features=["race"])
    assert odds(results, "race") == pytest.approx(0.25)
    everywhere(results, "race (Other: 12 test samples; Other: 4 of class 'yes').")
