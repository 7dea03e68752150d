"""The bootstrap over test samples: how far fairness would move with other samples of the same groups.

Samples are drawn with replacement within each group (within each combination of groups, where they overlap), so that group sizes stay. All
trials see the same draws: a difference between two conditions is resampled as a pair, and what both owe to the test set cancels. Every rate
is a ratio of sums over samples, so a draw is a row of weights and all draws are one sparse product.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import sparse

from kd_ray.groups import Groups
from kd_ray.metrics.arrays import FloatArray, IntArray, divide
from kd_ray.seeding import integers, stream

RESAMPLES = 200
"""Draws; the standard deviation over them is itself uncertain by 5 %."""

FAIRNESS = ("demographic_parity_difference", "equalized_odds_difference", "worst_group_accuracy")
"""The resampled metrics, in order: macro over classes for the first two."""


def weights(groups: Groups | IntArray, *, resamples: int = RESAMPLES, seed: int = 0) -> npt.NDArray[np.float64]:
    """How often each sample is drawn, (B, N); drawn within groups, or within the strata of an index per sample."""
    strata_N = _strata(groups) if isinstance(groups, Groups) else groups
    random = stream(seed, "resampling")
    weights_BN = np.zeros((resamples, len(strata_N)))
    for stratum in np.unique(strata_N):
        members_M = np.flatnonzero(strata_N == stratum)
        m = len(members_M)
        drawn_BM = integers(m, resamples * m, random).reshape(resamples, m) + m * np.arange(resamples)[:, None]
        weights_BN[:, members_M] = np.bincount(drawn_BM.ravel(), minlength=resamples * m).reshape(resamples, m)
    return weights_BN


def resampled_fairness(
    labels_N: IntArray,
    predictions: Sequence[npt.NDArray[np.integer]],
    groups: Groups,
    weights_BN: FloatArray,
    *,
    num_classes: int,
) -> FloatArray:
    """The three `FAIRNESS` metrics of each of T predictions under each draw, (T, B, 3).

    They are those of `kd_ray.metrics.fairness` on the drawn samples; an undefined rate stays out, as there.
    """
    b, g = len(weights_BN), len(groups.names)
    sample_K, group_K = np.nonzero(groups.membership_NG)

    def count(chosen_K: npt.NDArray[np.bool_], class_N: npt.NDArray[np.integer]) -> FloatArray:
        column_K = group_K[chosen_K] * num_classes + class_N[sample_K[chosen_K]]
        ones_K = np.ones(int(chosen_K.sum()))
        select = sparse.csr_array((ones_K, (sample_K[chosen_K], column_K)), shape=(len(labels_N), g * num_classes))
        return np.asarray((select.T @ weights_BN.T).T).reshape(b, g, num_classes)

    every_K = np.ones(len(sample_K), dtype=np.bool_)
    positive_BGC = count(every_K, labels_N)
    n_BG1 = positive_BGC.sum(axis=2, keepdims=True)
    found_TBM = np.empty((len(predictions), b, len(FAIRNESS)))
    for t, predictions_N in enumerate(predictions):
        predicted_BGC = count(every_K, predictions_N)
        correct_BGC = count((predictions_N == labels_N)[sample_K], predictions_N)
        selection_BC = _gap(divide(predicted_BGC, n_BG1))
        odds_BC = np.maximum(
            _gap(divide(correct_BGC, positive_BGC)), _gap(divide(predicted_BGC - correct_BGC, n_BG1 - positive_BGC))
        )
        found_TBM[t, :, 0] = _mean_of_defined(selection_BC)
        found_TBM[t, :, 1] = _mean_of_defined(odds_BC)
        found_TBM[t, :, 2] = _worst(divide(correct_BGC.sum(axis=2), n_BG1[:, :, 0]))
    return found_TBM


def resampled_worst_class(
    labels_N: IntArray, predictions: Sequence[npt.NDArray[np.integer]], weights_BN: FloatArray, *, num_classes: int
) -> FloatArray:
    """Accuracy of the worst class of each of T predictions under each draw, (T, B)."""

    def count(chosen_K: IntArray) -> FloatArray:
        shape = (len(labels_N), num_classes)
        select_NC = sparse.csr_array((np.ones(len(chosen_K)), (chosen_K, labels_N[chosen_K])), shape=shape)
        return np.asarray((select_NC.T @ weights_BN.T).T)

    n_BC = count(np.arange(len(labels_N)))
    return np.stack(
        [_worst(divide(count(np.flatnonzero(predictions_N == labels_N)), n_BC)) for predictions_N in predictions]
    )


def _strata(groups: Groups) -> IntArray:
    """One index for all samples that are in the same groups."""
    _, inverse_N = np.unique(groups.membership_NG, axis=0, return_inverse=True)
    return inverse_N.reshape(-1).astype(np.int64)


def _gap(rate_BGC: FloatArray) -> FloatArray:
    """Largest minus smallest defined rate over groups, (B, C); NaN with fewer than two."""
    defined_BGC = ~np.isnan(rate_BGC)
    gap_BC = np.max(rate_BGC, axis=1, where=defined_BGC, initial=-np.inf) - np.min(
        rate_BGC, axis=1, where=defined_BGC, initial=np.inf
    )
    return np.where(defined_BGC.sum(axis=1) >= 2, gap_BC, np.nan)


def _mean_of_defined(values_BC: FloatArray) -> FloatArray:
    defined_BC = ~np.isnan(values_BC)
    return divide(np.where(defined_BC, values_BC, 0.0).sum(axis=1), defined_BC.sum(axis=1))


def _worst(rate_BG: FloatArray) -> FloatArray:
    """The smallest defined rate of each draw; NaN where none is."""
    worst_B = np.min(rate_BG, axis=1, where=~np.isnan(rate_BG), initial=np.inf)
    return np.where(np.isinf(worst_B), np.nan, worst_B)
