"""Views that go with the objectives, each against a calculation of its own from the predictions."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from kd_ray.metrics.per_class import expected_calibration_error
from kd_ray.results.aggregate import aggregate
from kd_ray.results.query import Results
from kd_ray.results.record import commit_record, write_samples
from kd_ray.results.store import Store, open_store
from tests.fakes import (
    CLASSES,
    COLORS_N,
    LABELS_N,
    commit_trials,
    make_record,
    make_samples,
    make_sweep,
    plan_trials,
    random_predictions,
    write_sweep,
)

TRIALS = plan_trials(make_sweep())
CONFIDENCES_N = np.linspace(0.4, 0.95, len(LABELS_N), dtype=np.float32)
PARTS: dict[tuple[Any, ...], npt.NDArray[np.bool_]] = {
    (None, None, None): LABELS_N >= 0,
    **{(name, None, None): np.equal(LABELS_N, c) for c, name in enumerate(CLASSES)},
    **{(None, "color", name): np.equal(COLORS_N, g) for g, name in enumerate(("red", "blue"))},
}
"""Samples of the parts that are looked at; a group without samples has no row."""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    store = open_store(tmp_path_factory.mktemp("store"))
    commit_trials(store, TRIALS)
    aggregate(store, write_sweep(store, make_sweep()).sweep)
    return Results(store)


def by_part(results: Results, sql: str) -> dict[tuple[Any, ...], dict[str, Any]]:
    rows = results.query(sql).to_pylist()
    found = {(row["trial_id"], row["class_name"], row["feature"], row["group"]): row for row in rows}
    assert len(found) == len(rows)
    return found


@pytest.mark.slow
def test_teacher_errors_by_hand(results: Results) -> None:
    found = by_part(results, "FROM teacher_errors WHERE feature IS NULL OR feature = 'color'")
    teachers = {trial.spec.seed: random_predictions(trial.spec) for trial in TRIALS[:2]}
    assert len(found) == 6 * len(PARTS)
    for trial in TRIALS[2:]:
        teacher_N, student_N = teachers[trial.spec.seed], random_predictions(trial.spec)
        for part, of_part_N in PARTS.items():
            errors_N = of_part_N & (teacher_N != LABELS_N)
            same = int((errors_N & (student_N == teacher_N)).sum())
            row = found[trial.trial_id, *part]
            assert (row["n"], row["num_teacher_errors"], row["num_transferred"]) == (
                of_part_N.sum(),
                errors_N.sum(),
                same,
            )
            assert row["transfer_rate"] == (same / errors_N.sum() if errors_N.any() else None)
            assert row["role"] == trial.spec.role.value


def test_calibration_agrees_with_the_metric(results: Results) -> None:
    found = by_part(results, "FROM calibration WHERE feature IS NULL OR feature = 'color'")
    assert len(found) == len(TRIALS) * len(PARTS)
    for trial in TRIALS:
        correct_N = random_predictions(trial.spec) == LABELS_N
        for part, of_part_N in PARTS.items():
            row = found[trial.trial_id, *part]
            assert row["n"] == of_part_N.sum()
            assert row["accuracy"] == pytest.approx(correct_N[of_part_N].mean())
            assert row["confidence"] == pytest.approx(CONFIDENCES_N[of_part_N].mean())
            expected = expected_calibration_error(CONFIDENCES_N[of_part_N], correct_N[of_part_N])
            assert row["expected_calibration_error"] == pytest.approx(expected)
            assert row["calibrated_confidence"] is row["calibrated_expected_calibration_error"] is None


def test_calibration_after_temperature_scaling_agrees_with_the_metric(store: Store) -> None:
    (trial, *_) = TRIALS
    scaled_N = np.sqrt(CONFIDENCES_N)
    write_samples(store, trial.spec.dataset_id, make_samples())
    commit_record(store, make_record(trial.spec, per_sample={"calibrated_confidences": scaled_N}))
    aggregate(store, write_sweep(store, make_sweep()).sweep)
    results = Results(store)
    found = by_part(results, "FROM calibration WHERE feature IS NULL OR feature = 'color'")
    correct_N = make_record(trial.spec).test.predictions_N == LABELS_N
    for part, of_part_N in PARTS.items():
        row = found[trial.trial_id, *part]
        assert row["n"] == of_part_N.sum()
        assert row["confidence"] == pytest.approx(CONFIDENCES_N[of_part_N].mean())
        assert row["calibrated_confidence"] == pytest.approx(scaled_N[of_part_N].mean())
        for name, values_N in (("", CONFIDENCES_N), ("calibrated_", scaled_N)):
            expected = expected_calibration_error(values_N[of_part_N], correct_N[of_part_N])
            assert row[f"{name}expected_calibration_error"] == pytest.approx(expected)
    assert results.table("trials")["calibrated_on"].to_pylist() == ["halves of test"]


def test_gradient_rescaling_by_hand(store: Store) -> None:
    (trial, *_) = TRIALS
    pulls_N = np.linspace(-0.2, 0.8, len(LABELS_N), dtype=np.float32)
    record = make_record(trial.spec, per_sample={"true_logit_pulls": pulls_N})
    write_samples(store, trial.spec.dataset_id, make_samples())
    commit_record(store, record)
    aggregate(store, write_sweep(store, make_sweep()).sweep)
    found = by_part(Results(store), "FROM gradient_rescaling WHERE feature IS NULL OR feature = 'color'")
    hard_N = 1 - record.test.true_probabilities_N.astype(np.float64)
    for part, of_part_N in PARTS.items():
        row = found[trial.trial_id, *part]
        assert row["n"] == of_part_N.sum()
        assert row["rescaling"] == pytest.approx(pulls_N[of_part_N].sum() / hard_N[of_part_N].sum(), rel=1e-6)
        assert row["median_rescaling"] == pytest.approx(np.median((pulls_N / hard_N)[of_part_N]), rel=1e-6)


def test_robust_accuracy_stands_beside_the_natural_one_per_class_and_group(store: Store) -> None:
    (trial, *_) = TRIALS
    attacked_N = np.where(np.arange(len(LABELS_N)) % 3 == 0, LABELS_N, -1)
    record = make_record(trial.spec, per_sample={"robust_predictions": attacked_N.astype(np.float32)})
    write_samples(store, trial.spec.dataset_id, make_samples())
    commit_record(store, record)
    aggregate(store, write_sweep(store, make_sweep()).sweep)
    results = Results(store)
    right_N = attacked_N == LABELS_N
    assert results.table("trials")["robust_accuracy"].to_pylist() == [pytest.approx(right_N.mean())]
    classes = results.table("class_metrics")["robust_accuracy"].to_pylist()
    assert classes == pytest.approx([right_N[c == LABELS_N].mean() for c in range(len(CLASSES))])
    for row in results.query("FROM group_metrics WHERE feature = 'color' AND n > 0").to_pylist():
        of_group_N = ("red", "blue").index(row["group"]) == COLORS_N
        assert row["robust_accuracy"] == pytest.approx(right_N[of_group_N].mean())


@pytest.mark.parametrize(("k", "count"), [(1, 1), (2, 2), (0.05, 1), (0.5, 2), (10, 3)])
def test_worst_classes_are_chosen_on_one_half_and_scored_on_the_other(results: Results, k: float, count: int) -> None:
    rows = {row["trial_id"]: row for row in results.query(f"FROM worst_classes({k})").to_pylist()}
    half_N = (np.arange(len(LABELS_N)) * 2654435761 // 65536) % 2
    assert all(len({*half_N[c == LABELS_N]}) == 2 for c in range(3))
    for trial in TRIALS:
        correct_N = random_predictions(trial.spec) == LABELS_N
        chosen, scored = [], []
        for half in (0, 1):
            here_C, there_C = (
                [correct_N[(c == LABELS_N) & (half_N == which)].mean() for c in range(3)] for which in (half, 1 - half)
            )
            for c in np.argsort(here_C, kind="stable")[:count]:
                chosen.append(here_C[c])
                scored.append(there_C[c])
        row = rows[trial.trial_id]
        assert row["num_worst"] == count
        assert row["accuracy"] == pytest.approx(np.mean(scored))
        assert row["accuracy_where_chosen"] == pytest.approx(np.mean(chosen))
        assert not math.isnan(row["accuracy"])


def test_class_shares_by_hand(store: Store) -> None:
    (trial, *_) = TRIALS
    samples = make_samples()
    write_samples(store, trial.spec.dataset_id, samples)
    commit_record(store, make_record(trial.spec, per_class={"train_n": (5.0, 50.0, 20.0)}))
    aggregate(store, write_sweep(store, make_sweep()).sweep)
    rows = Results(store).query("FROM class_shares ORDER BY train_n").to_pylist()
    assert [(row["share"], row["num_classes"], row["train_n"], row["n"]) for row in rows] == [
        ("tail", 1, 5, 4),
        ("medium", 1, 20, 4),
        ("head", 1, 50, 4),
    ]
    assert [row["accuracy"] for row in rows] == [row["mean_class_accuracy"] for row in rows] == [0.75, 0.75, 0.75]


@pytest.mark.parametrize("num_classes", [3, 5, 10, 50, 100, 200])
def test_class_shares_are_the_groups_of_ltkd(num_classes: int) -> None:
    """SQL and training cut the classes in the same places."""
    import duckdb
    import torch

    from kd_ray.distill.objectives.decoupled import thirds
    from kd_ray.results.sql_views import SQL_VIEWS

    counts = [(7 * c) % 11 for c in range(num_classes)]
    expected = dict(
        zip(("head", "medium", "tail"), (group.tolist() for group in thirds(torch.tensor(counts))), strict=True)
    )
    with duckdb.connect() as connection:
        values = ", ".join(f"({c}, {n})" for c, n in enumerate(counts))
        keys = "'s' AS sweep, 't' AS trial_id, '' AS role, '' AS model, '' AS objective, 1 AS temperature, 1 AS alpha, true AS t_squared"
        connection.execute(
            f"CREATE VIEW class_metrics AS SELECT {keys}, class_index AS seed, class_index, train_n, 1 AS n, 1 AS num_correct, "
            f"1.0 AS accuracy FROM (VALUES {values}) v(class_index, train_n)"
        )
        connection.execute(SQL_VIEWS["class_shares"].sql)
        found = connection.sql("SELECT share, list(seed ORDER BY seed) FROM class_shares GROUP BY 1").fetchall()
    assert dict(found) == {share: sorted(group) for share, group in expected.items()}
