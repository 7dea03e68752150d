"""Chance levels, small cells, shrunken rates, and collapsed models."""

import numpy as np
import pytest

from kd_ray.analysis import chance
from kd_ray.analysis.chance import DRAWS, chance_levels, shrunken, shrunken_fairness, smallest_cells
from kd_ray.analysis.collapse import collapses
from kd_ray.analysis.resampling import FAIRNESS
from kd_ray.groups import Groups, intersect
from kd_ray.metrics.arrays import IntArray
from kd_ray.metrics.fairness import fairness_metrics, group_rates
from kd_ray.seeding import shuffled, stream
from tests.counted import count_predictions

EOD, DPD, WORST = (
    FAIRNESS.index(name)
    for name in ("equalized_odds_difference", "demographic_parity_difference", "worst_group_accuracy")
)
RNG = np.random.default_rng(0)
LABELS_N = np.repeat(np.arange(3), 60)
CODES_N = RNG.integers(0, 3, 180)
GROUPS = Groups.from_codes(CODES_N, ["a", "b", "c"])
PREDICTIONS_N = np.where(RNG.random(180) < 0.7, LABELS_N, RNG.integers(0, 3, 180))


def metrics_of(codes_N: np.ndarray, predictions_N: np.ndarray = PREDICTIONS_N) -> list[float]:
    found = fairness_metrics(
        group_rates(LABELS_N, predictions_N, Groups.from_codes(codes_N, ["a", "b", "c"]), num_classes=3)
    )
    return [
        found.worst_group_accuracy if name == "worst_group_accuracy" else getattr(found.macro, name)
        for name in FAIRNESS
    ]


@pytest.mark.slow
def test_chance_level_is_the_mean_over_groups_dealt_within_classes() -> None:
    found = chance_levels(LABELS_N, [PREDICTIONS_N], GROUPS, num_classes=3)
    rng = np.random.default_rng(1)
    dealt = []
    for _ in range(2000):
        codes_N = CODES_N.copy()
        for c in range(3):
            codes_N[c == LABELS_N] = rng.permutation(codes_N[c == LABELS_N])
        dealt.append(metrics_of(codes_N))
    # 200 deals against 2,000: four standard errors.
    error_M = 4 * np.std(dealt, axis=0) / np.sqrt(200)
    assert (np.abs(found.mean_TM[0] - np.mean(dealt, axis=0)) < error_M).all()
    np.testing.assert_allclose(found.sd_TM[0], np.std(dealt, axis=0), rtol=0.25)


@pytest.mark.parametrize("at_once", [1, 180 * 7, 10**6])
def test_chance_levels_are_those_of_deals_made_one_by_one(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kd_ray.analysis.chance._AT_ONCE", at_once)
    random, dealt = stream(0, "chance"), []
    for _ in range(DRAWS):
        codes_N = CODES_N.copy()
        for c in range(3):
            codes_N[c == LABELS_N] = codes_N[c == LABELS_N][shuffled(60, random)]
        dealt.append(metrics_of(codes_N))
    found = chance_levels(LABELS_N, [PREDICTIONS_N], GROUPS, num_classes=3)
    np.testing.assert_allclose(found.mean_TM[0], np.mean(dealt, axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.sd_TM[0], np.std(dealt, axis=0, ddof=1), rtol=1e-12)


def test_chance_levels_are_always_the_same_and_do_not_depend_on_other_trials() -> None:
    alone = chance_levels(LABELS_N, [PREDICTIONS_N], GROUPS, num_classes=3)
    beside = chance_levels(LABELS_N, [LABELS_N, PREDICTIONS_N], GROUPS, num_classes=3)
    np.testing.assert_array_equal(alone.mean_TM[0], beside.mean_TM[1])
    # A perfect model errs in no group, however groups are dealt; its DPD is that of the labels.
    assert beside.mean_TM[0, EOD] == 0
    assert beside.mean_TM[0, WORST] == 1
    assert beside.mean_TM[0, DPD] == pytest.approx(metrics_of(CODES_N, LABELS_N)[DPD])


def test_a_model_that_errs_in_one_group_exceeds_its_chance_level() -> None:
    predictions_N = np.where((CODES_N == 0) & (RNG.random(180) < 0.5), (LABELS_N + 1) % 3, LABELS_N)
    found = chance_levels(LABELS_N, [predictions_N], GROUPS, num_classes=3)
    assert metrics_of(CODES_N, predictions_N)[EOD] > found.mean_TM[0, EOD] + 5 * found.sd_TM[0, EOD]


def test_samples_of_several_groups_keep_them_together() -> None:
    membership_NG = RNG.random((180, 3)) < 0.5
    groups = Groups(names=("a", "b", "c"), membership_NG=membership_NG)
    found = chance_levels(LABELS_N, [PREDICTIONS_N], groups, num_classes=3)
    assert np.isfinite(found.mean_TM).all()


def test_smallest_cells_by_hand() -> None:
    labels_N = np.array([0, 0, 0, 1, 1, 1, 1])
    groups = Groups.from_codes(np.array([0, 0, 1, 0, 0, 0, 1]), ["a", "b", "empty"])
    found = smallest_cells(labels_N, groups, num_classes=2)
    assert (found.group, found.positives) == (2, 1)
    assert (found.of("demographic_parity_difference"), found.of("equalized_odds_difference")) == (2, 1)
    joint = intersect([groups, Groups.from_codes(np.array([0, 1, 0, 0, 0, 1, 0]), ["x", "y"])])
    assert smallest_cells(labels_N, joint, num_classes=2).group == 2
    # b has one sample of each class; the first is named.
    assert (found.names, found.positive_class) == (("b", "b"), 0)
    nobody = smallest_cells(labels_N, groups.only(np.array([2])), num_classes=2)
    assert (nobody.group, nobody.positives, nobody.names) == (7, 7, ("", ""))


def test_rates_shrink_to_their_mean_where_noise_explains_them_and_stay_where_it_does_not() -> None:
    noise, real = np.array([[0.48], [0.52]]), np.array([[0.1], [0.9]])
    np.testing.assert_allclose(shrunken(noise, np.full((2, 1), 50.0)), 0.5)
    # Between 0.32 - 0.25/1000, noise 0.25/1000: the share that is kept is 0.31975 / 0.32.
    np.testing.assert_allclose(
        shrunken(real, np.full((2, 1), 1000.0)), 0.5 + np.array([[-0.4], [0.4]]) * 0.31975 / 0.32
    )
    one = np.array([[0.3], [np.nan]])
    np.testing.assert_array_equal(shrunken(one, np.array([[10.0], [0.0]])), one)


def test_shrunken_differences_are_no_larger_than_the_plain_ones() -> None:
    found = shrunken_fairness(LABELS_N, [PREDICTIONS_N], GROUPS, num_classes=3)[0]
    plain = metrics_of(CODES_N)
    assert found[EOD] <= plain[EOD] and found[DPD] <= plain[DPD] and found[WORST] >= plain[WORST]


def test_many_trials_shrink_as_each_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(5)
    many = [
        np.where(random.random(len(LABELS_N)) < 0.6, LABELS_N, random.integers(0, 3, len(LABELS_N))) for _ in range(5)
    ]
    alone = [shrunken_fairness(LABELS_N, [it], GROUPS, num_classes=3)[0] for it in many]
    np.testing.assert_allclose(shrunken_fairness(LABELS_N, many, GROUPS, num_classes=3), alone, rtol=1e-12)
    monkeypatch.setattr(chance, "_AT_ONCE", 2 * len(LABELS_N))
    np.testing.assert_allclose(shrunken_fairness(LABELS_N, many, GROUPS, num_classes=3), alone, rtol=1e-12)
    assert shrunken_fairness(LABELS_N, [], GROUPS, num_classes=3).shape == (0, 3)


def test_models_that_say_nothing_are_named() -> None:
    def why(labels_N: IntArray, predictions_N: IntArray) -> str:
        return collapses(count_predictions(labels_N, predictions_N[None]))[0]

    labels_N = np.repeat([0, 1], 100)
    assert why(labels_N, np.zeros(200, dtype=np.int64)) == "predicts one class"
    nearly_N = np.where(np.arange(200) == 0, 1, 0)
    assert why(labels_N, nearly_N) == "predicts one class"
    assert why(labels_N, np.arange(200) % 2) == "is at chance level"
    assert why(labels_N, np.where(np.arange(200) % 4, labels_N, 1 - labels_N)) == ""
    # An imbalanced task: better than its own shares would be by chance, though below the most frequent label.
    rare_N = np.repeat([0, 1], [180, 20])
    found_N = np.concatenate([np.repeat([0, 1], [140, 40]), np.repeat([0, 1], [2, 18])])
    assert (rare_N == found_N).mean() < 0.9
    assert why(rare_N, found_N) == ""
