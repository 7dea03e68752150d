"""The bootstrap over test samples: how far fairness would move with other samples of the same groups.

Samples are drawn with replacement within each group (within each combination of groups, where they overlap), so that group sizes stay.
All trials see the same draws: a difference between two conditions is resampled as a pair, and what both owe to the test set cancels.
Every rate is a ratio of sums over samples, so a draw is a row of weights and all draws are one sparse product.
"""

from collections.abc import Sequence
from dataclasses import dataclass

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
    first_K = group_K * num_classes
    weights_NB = np.ascontiguousarray(weights_BN.T)

    def count(class_N: npt.NDArray[np.integer], is_right_N: npt.NDArray[np.bool_]) -> FloatArray:
        """Weights of the samples of a group that are predicted as a class, (2, G, C, B): wrongly, and rightly."""
        cell_K = first_K + class_N[sample_K] + g * num_classes * is_right_N[sample_K]
        order_K = np.argsort(cell_K, kind="stable")
        ends = np.cumsum(np.bincount(cell_K, minlength=2 * g * num_classes))
        # By hand, because to sort coordinates takes SciPy longer than the product.
        select = sparse.csr_array(
            (np.ones(len(cell_K)), sample_K[order_K], np.concatenate([[0], ends])),
            shape=(2 * g * num_classes, len(labels_N)),
        )
        return np.asarray(select @ weights_NB).reshape(2, g, num_classes, b)

    sizes = GroupSizes.of(count(labels_N, np.ones(len(labels_N), dtype=np.bool_))[1])
    found_TBM = np.empty((len(predictions), b, len(FAIRNESS)))
    for t, predictions_N in enumerate(predictions):
        wrong_GCB, right_GCB = count(predictions_N, predictions_N == labels_N)
        found_TBM[t] = macro_fairness(sizes, wrong_GCB, right_GCB)
    return found_TBM


@dataclass(frozen=True, kw_only=True, eq=False)
class GroupSizes:
    """What the rates of groups are shares of, under B draws; NaN in the place of 0, so that such rates are undefined."""

    positive_GCB: FloatArray
    """Samples of a class."""
    negative_GCB: FloatArray
    """Samples of the other classes."""
    n_G1B: FloatArray
    """All samples."""

    @classmethod
    def of(cls, positive_GCB: FloatArray) -> "GroupSizes":
        """From the samples of each group and class."""
        n_G1B = positive_GCB.sum(axis=1, keepdims=True)
        sizes = (positive_GCB, n_G1B - positive_GCB, n_G1B)
        positive, negative, n = (np.where(size == 0, np.nan, size) for size in sizes)
        return cls(positive_GCB=positive, negative_GCB=negative, n_G1B=n)


def macro_fairness(sizes: GroupSizes, wrong_GCB: FloatArray, right_GCB: FloatArray) -> FloatArray:
    """The three `FAIRNESS` metrics under B draws, (B, 3): one-vs-rest means over the classes.

    Counts are of the samples of a group that are predicted as a class, wrongly and rightly.
    """
    return macro_of_rates(
        (wrong_GCB + right_GCB) / sizes.n_G1B,
        right_GCB / sizes.positive_GCB,
        wrong_GCB / sizes.negative_GCB,
        right_GCB.sum(axis=1) / sizes.n_G1B[:, 0],
    )


def macro_of_rates(
    selection_GCB: FloatArray, true_positive_GCB: FloatArray, false_positive_GCB: FloatArray, accuracy_GB: FloatArray
) -> FloatArray:
    """The same from rates, (B, 3), or (3,) without an axis of draws."""
    odds_CB = np.maximum(_gap(true_positive_GCB), _gap(false_positive_GCB))
    return np.stack([_mean_of_defined(_gap(selection_GCB)), _mean_of_defined(odds_CB), _worst(accuracy_GB)], axis=-1)


def resampled_worst_class(
    labels_N: IntArray, predictions: Sequence[npt.NDArray[np.integer]], weights_BN: FloatArray, *, num_classes: int
) -> FloatArray:
    """Accuracy of the worst class of each of T predictions under each draw, (T, B)."""

    weights_NB = np.ascontiguousarray(weights_BN.T)

    def count(chosen_K: IntArray) -> FloatArray:
        shape = (num_classes, len(labels_N))
        select_CN = sparse.csr_array((np.ones(len(chosen_K)), (labels_N[chosen_K], chosen_K)), shape=shape)
        return np.asarray(select_CN @ weights_NB)

    n_CB = count(np.arange(len(labels_N)))
    return np.stack(
        [_worst(divide(count(np.flatnonzero(predictions_N == labels_N)), n_CB)) for predictions_N in predictions]
    )


def _strata(groups: Groups) -> IntArray:
    """One index for all samples that are in the same groups."""
    _, inverse_N = np.unique(groups.membership_NG, axis=0, return_inverse=True)
    return inverse_N.reshape(-1).astype(np.int64)


def _gap(rate_GCB: FloatArray) -> FloatArray:
    """Largest minus smallest defined rate over groups, (C, B); NaN with fewer than two."""
    if len(rate_GCB) >= 2:
        # Where a rate is undefined, so is this.
        width_CB = np.maximum.reduce(rate_GCB, axis=0) - np.minimum.reduce(rate_GCB, axis=0)
        if not np.isnan(width_CB).any():
            return np.asarray(width_CB)
    undefined_GCB = np.isnan(rate_GCB)
    # fmax and fmin leave NaN out.
    width_CB = np.fmax.reduce(rate_GCB, axis=0) - np.fmin.reduce(rate_GCB, axis=0)
    num_undefined_CB = np.add.reduce(undefined_GCB, axis=0, dtype=np.int32)
    return np.where(num_undefined_CB <= len(rate_GCB) - 2, width_CB, np.nan)


def _mean_of_defined(values_CB: FloatArray) -> FloatArray:
    defined_CB = ~np.isnan(values_CB)
    return divide(np.where(defined_CB, values_CB, 0.0).sum(axis=0), defined_CB.sum(axis=0))


def _worst(rate_GB: FloatArray) -> FloatArray:
    """The smallest defined rate of each draw; NaN where none is."""
    worst_B = np.where(np.isnan(rate_GB), np.inf, rate_GB).min(axis=0)
    return np.where(np.isinf(worst_B), np.nan, worst_B)
