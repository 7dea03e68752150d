"""Resamples of the test samples: each draw has the metrics of the samples that were drawn."""

import numpy as np
import pytest
from fairlearn.metrics import demographic_parity_difference, equalized_odds_difference

from kd_ray.analysis.class_bias import sampling_sd
from kd_ray.analysis.resampling import FAIRNESS, resampled_fairness, resampled_worst_class, weights
from kd_ray.groups import Groups
from kd_ray.metrics.fairness import fairness_metrics, group_rates
from kd_ray.metrics.per_class import class_metrics

N, C = 240, 3
RNG = np.random.default_rng(0)
LABELS_N = RNG.integers(0, C, N)
CODES_N = RNG.integers(0, 3, N)
GROUPS = Groups.from_codes(CODES_N, ["red", "blue", "green"])
PREDICTIONS = [np.where(RNG.random(N) < 0.7, LABELS_N, RNG.integers(0, C, N)) for _ in range(2)]


def test_draws_keep_the_size_of_every_group_and_are_always_the_same() -> None:
    weights_BN = weights(GROUPS, resamples=50)
    assert (weights_BN @ GROUPS.membership_NG == GROUPS.membership_NG.sum(axis=0)).all()
    assert (weights_BN == weights(GROUPS, resamples=50)).all()
    assert (weights_BN != weights(GROUPS, resamples=50, seed=1)).any()
    assert (weights_BN[0] != weights_BN[1]).any()


def test_draws_within_overlapping_groups_keep_every_combination() -> None:
    membership_NG = RNG.random((N, 3)) < 0.5
    groups = Groups(names=("a", "b", "c"), membership_NG=membership_NG)
    assert (weights(groups, resamples=20) @ membership_NG == membership_NG.sum(axis=0)).all()


def test_each_draw_has_the_metrics_of_its_samples() -> None:
    weights_BN = weights(GROUPS, resamples=5)
    found_TBM = resampled_fairness(LABELS_N, PREDICTIONS, GROUPS, weights_BN, num_classes=C)
    worst_TB = resampled_worst_class(LABELS_N, PREDICTIONS, weights_BN, num_classes=C)
    for t, predictions_N in enumerate(PREDICTIONS):
        for b, weights_N in enumerate(weights_BN):
            drawn = np.repeat(np.arange(N), weights_N.astype(int))
            groups = Groups(names=GROUPS.names, membership_NG=GROUPS.membership_NG[drawn])
            metrics = fairness_metrics(group_rates(LABELS_N[drawn], predictions_N[drawn], groups, num_classes=C))
            expected = [getattr(metrics.macro, name) for name in FAIRNESS[:2]] + [metrics.worst_group_accuracy]
            np.testing.assert_allclose(found_TBM[t, b], expected, rtol=1e-12)
            per_class = class_metrics(LABELS_N[drawn], predictions_N[drawn], num_classes=C)
            assert worst_TB[t, b] == pytest.approx(per_class.worst_class_accuracy, rel=1e-12)


def test_a_draw_is_fairlearns_on_two_classes() -> None:
    labels_N, predictions_N = (LABELS_N > 0).astype(np.int64), (PREDICTIONS[0] > 0).astype(np.int64)
    weights_BN = weights(GROUPS, resamples=3)
    found_BM = resampled_fairness(labels_N, [predictions_N], GROUPS, weights_BN, num_classes=2)[0]
    for b, weights_N in enumerate(weights_BN):
        drawn = np.repeat(np.arange(N), weights_N.astype(int))
        arguments = (labels_N[drawn], predictions_N[drawn])
        features = {"sensitive_features": CODES_N[drawn]}
        assert found_BM[b, 0] == pytest.approx(demographic_parity_difference(*arguments, **features))
        assert found_BM[b, 1] == pytest.approx(equalized_odds_difference(*arguments, **features))


def test_an_empty_group_stays_out() -> None:
    groups = Groups.from_codes(CODES_N, ["red", "blue", "green", "none"])
    with_empty = resampled_fairness(LABELS_N, PREDICTIONS, groups, weights(groups, resamples=4), num_classes=C)
    without = resampled_fairness(LABELS_N, PREDICTIONS, GROUPS, weights(GROUPS, resamples=4), num_classes=C)
    np.testing.assert_array_equal(with_empty, without)


def test_the_order_of_groups_does_not_matter() -> None:
    order = [2, 0, 1]
    groups = Groups(names=tuple(GROUPS.names[g] for g in order), membership_NG=GROUPS.membership_NG[:, order])
    weights_BN = weights(GROUPS, resamples=4)
    np.testing.assert_allclose(
        resampled_fairness(LABELS_N, PREDICTIONS, groups, weights_BN, num_classes=C),
        resampled_fairness(LABELS_N, PREDICTIONS, GROUPS, weights_BN, num_classes=C),
    )


@pytest.mark.slow
@pytest.mark.parametrize("normalise", ["ratio", "difference"])
def test_sampling_sd_of_a_class_is_that_of_the_bootstrap(normalise: str) -> None:
    """The delta method against 4,000 resamples within classes, of shares of runs that are right."""
    rng = np.random.default_rng(1)
    labels_N = np.repeat(np.arange(4), [200, 300, 100, 400])
    base_N = rng.binomial(3, np.array([0.9, 0.7, 0.6, 0.8])[labels_N]) / 3
    treated_N = np.where(rng.random(1000) < 0.6, base_N, rng.binomial(3, 0.75, 1000) / 3)
    weights_BN = weights(labels_N, resamples=4000)

    def effects(b_N: np.ndarray, t_N: np.ndarray, weights_BN: np.ndarray) -> np.ndarray:
        in_class_NC = labels_N[:, None] == np.arange(4)
        b_BC, t_BC = ((weights_BN * x) @ in_class_NC / (weights_BN @ in_class_NC) for x in (b_N, t_N))
        b_B1, t_B1 = (weights_BN @ x[:, None] / 1000 for x in (b_N, t_N))
        if normalise == "difference":
            return np.asarray((t_BC - t_B1) - (b_BC - b_B1))
        return np.asarray((t_BC / t_B1 - b_BC / b_B1) * b_N.mean())

    expected_C = effects(base_N, treated_N, weights_BN).std(axis=0)
    found_C = sampling_sd(labels_N, base_N, treated_N, num_classes=4, normalise=normalise)
    np.testing.assert_allclose(found_C, expected_C, rtol=0.06)


def test_sampling_sd_of_equal_conditions_is_zero_and_of_an_empty_class_undefined() -> None:
    right_N = (PREDICTIONS[0] == LABELS_N).astype(float)
    found_C = sampling_sd(LABELS_N, right_N, right_N, num_classes=C + 1, normalise="ratio")
    np.testing.assert_allclose(found_C[:C], 0, atol=1e-7)
    assert np.isnan(found_C[C])
