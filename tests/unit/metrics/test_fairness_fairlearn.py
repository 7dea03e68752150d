"""Agreement with fairlearn where all rates are defined, and the pinned differences where they are not."""

import math

import fairlearn.metrics as fl
import numpy as np
import pytest

from kd_ray.groups import Groups
from kd_ray.metrics.arrays import IntArray
from kd_ray.metrics.fairness import FairnessMetrics, fairness_metrics, group_rates


def random_case(seed: int, *, num_classes: int, num_groups: int) -> tuple[IntArray, IntArray, IntArray]:
    """Labels, predictions (right with probability 0.6) and group codes with every rate defined in every group."""
    rng = np.random.default_rng(seed)
    labels_N = np.tile(np.arange(num_classes), 40 * num_groups)
    codes_N = np.sort(np.tile(np.arange(num_groups), 40 * num_classes))
    labels_N = np.concatenate([labels_N, rng.integers(0, num_classes, size=37)])
    codes_N = np.concatenate([codes_N, rng.integers(0, num_groups, size=37)])
    right_N = rng.random(len(labels_N)) < 0.6
    return labels_N, np.where(right_N, labels_N, rng.integers(0, num_classes, size=len(labels_N))), codes_N


def measure(labels_N: IntArray, predictions_N: IntArray, codes_N: IntArray, *, num_classes: int = 2) -> FairnessMetrics:
    groups = Groups.from_codes(codes_N, [f"g{g}" for g in range(int(codes_N.max()) + 1)])
    return fairness_metrics(group_rates(labels_N, predictions_N, groups, num_classes=num_classes))


@pytest.mark.slow
@pytest.mark.parametrize(("num_classes", "num_groups"), [(2, 2), (2, 5), (4, 3)])
@pytest.mark.parametrize("seed", range(3))
def test_differences_and_ratios_agree_with_fairlearn_one_vs_rest(seed: int, num_classes: int, num_groups: int) -> None:
    labels_N, predictions_N, codes_N = random_case(seed, num_classes=num_classes, num_groups=num_groups)
    metrics = measure(labels_N, predictions_N, codes_N, num_classes=num_classes)
    pairs = [
        (metrics.demographic_parity_difference_C, fl.demographic_parity_difference),
        (metrics.demographic_parity_ratio_C, fl.demographic_parity_ratio),
        (metrics.equalized_odds_difference_C, fl.equalized_odds_difference),
        (metrics.equalized_odds_ratio_C, fl.equalized_odds_ratio),
    ]
    for ours_C, theirs in pairs:
        expected_C = [
            theirs((labels_N == c).astype(int), (predictions_N == c).astype(int), sensitive_features=codes_N)
            for c in range(num_classes)
        ]
        np.testing.assert_allclose(ours_C, expected_C, rtol=1e-12)
        assert 0 < min(expected_C) <= max(expected_C) < 1


def test_rates_per_group_agree_with_fairlearn() -> None:
    labels_N, predictions_N, codes_N = random_case(7, num_classes=3, num_groups=4)
    rates = group_rates(labels_N, predictions_N, Groups.from_codes(codes_N, "abcd"), num_classes=3)
    for c in range(3):
        frame = fl.MetricFrame(
            metrics={
                "selection": fl.selection_rate,
                "tpr": fl.true_positive_rate,
                "fpr": fl.false_positive_rate,
                "n": fl.count,
            },
            y_true=(labels_N == c).astype(int),
            y_pred=(predictions_N == c).astype(int),
            sensitive_features=codes_N,
        ).by_group
        np.testing.assert_allclose(rates.selection_rate_GC[:, c], frame["selection"], rtol=1e-12)
        np.testing.assert_allclose(rates.true_positive_rate_GC[:, c], frame["tpr"], rtol=1e-12)
        np.testing.assert_allclose(rates.false_positive_rate_GC[:, c], frame["fpr"], rtol=1e-12)
        np.testing.assert_array_equal(rates.n_G, frame["n"])


LABELS_N = np.array([0, 1, 1, 0, 1, 1])
CODES_N = np.array([0, 0, 0, 1, 1, 1])


@pytest.mark.parametrize(
    ("predictions", "parity_ratio", "odds_ratio"),
    [
        ([0, 0, 0, 0, 0, 0], math.nan, math.nan),  # nobody selected: 0/0 throughout
        ([1, 1, 1, 1, 1, 1], 1.0, 1.0),
        ([0, 1, 1, 0, 1, 0], 0.5, 0.5),  # no false positive: the ratio of true positive rates remains
        ([1, 0, 0, 0, 0, 0], 0.0, math.nan),  # no true positive: NaN, although the false positive ratio is 0
        ([1, 1, 0, 0, 1, 0], 0.5, 0.0),
    ],
)
def test_ratio_with_a_maximum_of_zero_is_as_in_fairlearn(
    predictions: list[int], parity_ratio: float, odds_ratio: float
) -> None:
    predictions_N = np.array(predictions)
    metrics = measure(LABELS_N, predictions_N, CODES_N)
    theirs = [f(LABELS_N, predictions_N, sensitive_features=CODES_N) for f in _RATIOS]
    np.testing.assert_array_equal(theirs, [parity_ratio, odds_ratio])
    np.testing.assert_array_equal(
        [metrics.demographic_parity_ratio_C[1], metrics.equalized_odds_ratio_C[1]], [parity_ratio, odds_ratio]
    )


_RATIOS = (fl.demographic_parity_ratio, fl.equalized_odds_ratio)


def test_group_without_positives_counts_as_zero_in_fairlearn_and_not_here() -> None:
    # Group 2 has no positives. Both groups that have some find them all, and nobody raises a false alarm.
    labels_N = np.array([0, 1, 0, 1, 0, 0])
    codes_N = np.array([0, 0, 1, 1, 2, 2])
    assert fl.equalized_odds_difference(labels_N, labels_N, sensitive_features=codes_N) == 1.0
    metrics = measure(labels_N, labels_N, codes_N)
    assert metrics.equalized_odds_difference_C.tolist() == [0.0, 0.0]
    assert metrics.num_groups_with_positives_C.tolist() == [3, 2]


def test_single_group_is_fair_in_fairlearn_and_undefined_here() -> None:
    codes_N = np.zeros_like(LABELS_N)
    assert fl.demographic_parity_difference(LABELS_N, LABELS_N, sensitive_features=codes_N) == 0.0
    assert fl.demographic_parity_ratio(LABELS_N, LABELS_N, sensitive_features=codes_N) == 1.0
    metrics = measure(LABELS_N, LABELS_N, codes_N)
    assert np.isnan(metrics.demographic_parity_difference_C).all()
    assert np.isnan(metrics.demographic_parity_ratio_C).all()
