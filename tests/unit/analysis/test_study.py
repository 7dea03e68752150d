"""One study: conditions, runs, baselines, scope of teachers, disagreement; and what runs have to do with teachers in an interval."""

import numpy as np
import pytest

from kd_ray.analysis.compare import decided
from kd_ray.analysis.contrast import Options, variance_parts
from kd_ray.analysis.measures import collapsed_in_words, measure, standing
from kd_ray.analysis.study import SCRATCH, TEACHER, Study, spread
from tests.calibration.drawn import Design, as_study, draw


def test_a_seed_with_several_teachers_is_one_run() -> None:
    study = draw(Design(seeds=3, teachers=2, temperatures=1), 0)
    (distilled,) = study.distilled
    assert (distilled.n, len(distilled.trials)) == (3, 6)
    accuracy_T = study.values("accuracy")
    expected = [accuracy_T[run].mean() for run in distilled.runs]
    np.testing.assert_allclose(distilled.over_runs(accuracy_T), expected)
    found = spread(distilled.over_runs(accuracy_T))
    assert (found.mean, found.sd, found.n) == pytest.approx((np.mean(expected), np.std(expected, ddof=1), 3))


def test_spread_leaves_undefined_runs_out() -> None:
    found = spread(np.array([0.2, np.nan, 0.4]))
    assert (found.mean, found.sd, found.n) == pytest.approx((0.3, np.std([0.2, 0.4], ddof=1), 2))
    assert np.isnan(spread(np.array([np.nan])).mean)
    assert np.isnan(spread(np.array([0.3])).sd)


@pytest.mark.parametrize(
    ("teachers", "scope"), [(1, "this teacher"), (2, "these teachers"), (3, "teachers"), (0, "teachers")]
)
def test_the_scope_of_a_sentence_follows_the_number_of_teachers(teachers: int, scope: str) -> None:
    study = draw(Design(seeds=4, teachers=teachers, temperatures=1), 0)
    assert study.scope(study.distilled[0]) == scope
    assert study.scope(study.of_role("scratch")[0]) is None


def parts_of(teachers: int, contrast: str) -> list[float]:
    study = draw(Design(seeds=4, teachers=teachers, temperatures=1), 0)
    treatment = study.distilled[0]
    baseline = study.baseline(contrast, treatment)
    assert baseline is not None
    accuracy_T = study.values("accuracy")
    parts = variance_parts(study, contrast, baseline, treatment, lambda it: it.over_runs(accuracy_T)[:, None])
    return [part.df for part in parts]


def test_an_interval_has_a_part_for_teachers_where_three_taught_the_same_seeds() -> None:
    assert parts_of(1, SCRATCH) == [3, 3]
    assert parts_of(2, SCRATCH) == [3, 3]
    assert parts_of(3, SCRATCH) == [3, 3, 2]
    # With a teacher of its own for each seed, the spread of teachers is in that of the runs.
    assert parts_of(0, SCRATCH) == [3, 3]


def test_against_teachers_each_is_compared_with_its_own_students() -> None:
    assert parts_of(0, TEACHER) == [3]
    assert parts_of(3, TEACHER) == [2, 3]
    study = draw(Design(seeds=4, teachers=1, temperatures=1), 0)
    row = next(row for row in decided(study, Options())[1] if row.contrast == TEACHER and row.analysis == "fairness")
    assert (row.n_baseline, row.p_claim, row.status) == (1, None, "not_tested")


def test_disagreement_is_with_its_own_teacher_and_of_scratch_with_those_of_its_seed() -> None:
    study = draw(Design(seeds=3, teachers=0, temperatures=2), 0)
    row = int(study.distilled[0].runs[1][0])
    teacher = study.index[study.trials[row]["teacher_trial_id"]]
    assert study.trials[teacher]["seed"] == 1
    assert study.disagreement_T[row] == (study.predictions[row] != study.predictions[teacher]).mean()
    scratch = int(study.of_role("scratch")[0].runs[1][0])
    assert study.pairs(study.of_role("scratch")[0]) == [
        (study.index[f"t{s}t0kNone"], study.index[f"s{s}t0kNone"]) for s in range(3)
    ]
    assert study.disagreement_T[scratch] == (study.predictions[scratch] != study.predictions[teacher]).mean()
    assert np.isnan(study.disagreement_T[teacher])


def with_collapse(runs: int) -> Study:
    """Four seeds at two temperatures; at T=3, the first runs predict one class."""
    study = draw(Design(seeds=4, temperatures=2, classes=4, per_class=40), 0)
    predictions_TN = np.stack([study.predictions[row] for row in range(len(study.trials))])
    for r in range(runs):
        predictions_TN[study.distilled[1].runs[r]] = 2
    test_set = study.test_sets["d"]
    specs = [dict(trial) for trial in study.trials]
    return as_study(specs, test_set.labels_N, predictions_TN, test_set.features, 4, np.random.default_rng(0))


def test_collapsed_runs_are_named_and_stay_out_of_fairness_but_not_of_accuracy() -> None:
    study = with_collapse(4)
    assert collapsed_in_words(study, study.conditions) == ["T=3: 4 of 4 runs predict one class"]
    assert standing(study, study.distilled[1]) is None
    rows = [row for row in decided(study, Options())[1] if row.condition == "T=3" and row.contrast == SCRATCH]
    fair = [row for row in rows if row.analysis == "fairness" and row.metric.startswith(("equalized", "individual"))]
    assert fair and {(row.p_claim, row.status, row.held_back) for row in fair} == {(None, "not_tested", "collapsed")}
    accuracy = next(row for row in rows if row.metric == "accuracy")
    assert accuracy.n_treatment == 4 and accuracy.p_claim is not None
    trends = [row for row in decided(study, Options())[1] if row.analysis == "trend"]
    assert {row.metric for row in trends} & {"equalized_odds_difference", "individual_fairness"} == set()


def test_one_collapsed_run_leaves_the_others() -> None:
    study = with_collapse(1)
    assert collapsed_in_words(study, study.conditions) == ["T=3: 1 of 4 runs predicts one class"]
    upright = standing(study, study.distilled[1])
    assert upright is not None and upright.n == 3
    measured = measure(study)
    place = measured.place("equalized_odds_difference", "color")
    row = next(
        row
        for row in decided(study, Options())[1]
        if (row.condition, row.contrast, row.metric) == ("T=3", SCRATCH, "equalized_odds_difference")
        and row.analysis == "fairness"
    )
    assert row.n_treatment == 3
    assert row.mean_treatment == pytest.approx(measured.of(upright)[:, place].mean())
