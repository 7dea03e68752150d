"""How large a difference between groups is by chance alone, and what is left of it for small groups.

A largest minus a smallest rate is above 0 even where groups do not matter: the more groups and the smaller they are, the more. Its
*chance level* is its mean when the groups are dealt anew to the test samples of each true class, which leaves the model's errors, the
class shares of every group and the group sizes as they are. What exceeds it is what groups have to do with errors.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kd_ray.analysis.resampling import FAIRNESS, GroupSizes, macro_fairness, macro_of_rates
from kd_ray.groups import Groups
from kd_ray.metrics.arrays import FloatArray, IntArray, divide
from kd_ray.seeding import order_of, stream

DRAWS = 200
"""Deals of the groups; the mean over them is uncertain by sd / 14."""
_AT_ONCE = 500_000
"""Samples, over all deals, that are dealt together: few enough for the cache of a core, and for memory with millions of test samples."""
MIN_CELL = 10
"""Test samples of a class in a group below which a rate of that group decides nothing: one sample would move it by ten points."""


SMALL_CELL = 30
"""Test samples below which the size of a group is said beside its difference: a rate of 30 samples has a standard error of up to 9
points, and one sample moves it by 3."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Chance:
    """Chance level of T trials for one sensitive feature; metrics as in `resampling.FAIRNESS`."""

    mean_TM: FloatArray
    sd_TM: FloatArray
    """Standard deviation over the deals: how far one deal is from the chance level."""


def chance_levels(
    labels_N: IntArray,
    predictions: Sequence[npt.NDArray[np.integer]],
    groups: Groups,
    *,
    num_classes: int,
    seed: int = 0,
) -> Chance:
    """The metrics of each of T predictions when groups are dealt anew within each true class, `DRAWS` times.

    A sample that belongs to several groups keeps its set of groups; whole sets are dealt. All trials see the same deals.
    """
    strata, inverse_N = np.unique(groups.membership_NG, axis=0, return_inverse=True)
    codes_N = inverse_N.reshape(-1)
    strata_SG = strata.astype(np.float64)
    places = [np.flatnonzero(labels_N == c) for c in range(num_classes)]
    random = stream(seed, "chance")

    def deal(count: int) -> IntArray:
        """The strata of all samples in so many deals, (D, N)."""
        raw_DN = random.bit_generator.random_raw(count * len(labels_N)).reshape(count, len(labels_N))
        dealt_DN = np.empty((count, len(labels_N)), dtype=np.int64)
        first = 0
        for place_M in places:
            order_DM = order_of(raw_DN[:, first : first + len(place_M)])
            dealt_DN[:, place_M] = codes_N[place_M][order_DM]
            first += len(place_M)
        return dealt_DN

    def count(
        first_DN: IntArray, class_N: npt.NDArray[np.integer], is_right_N: npt.NDArray[np.bool_]
    ) -> tuple[FloatArray, FloatArray]:
        """By group, class and deal: the samples that are not right, and those that are; in one pass over all of them."""
        cells = (first_DN + (class_N + num_classes * is_right_N)).ravel()
        counts = np.bincount(cells, minlength=len(first_DN) * len(strata) * 2 * num_classes)
        counts_DSKC = counts.reshape(len(first_DN), len(strata), 2, num_classes).astype(np.float64)
        wrong_GCD, right_GCD = (np.einsum("sg,dsc->gcd", strata_SG, counts_DSKC[:, :, k]) for k in range(2))
        return wrong_GCD, right_GCD

    found_TDM = np.empty((len(predictions), DRAWS, len(FAIRNESS)))
    at_once = max(1, _AT_ONCE // max(1, len(labels_N)))
    for first in range(0, DRAWS, at_once):
        dealt_DN = deal(min(at_once, DRAWS - first))
        num_dealt = len(dealt_DN)
        first_DN = 2 * num_classes * (dealt_DN + (np.arange(num_dealt) * len(strata))[:, None])
        sizes = GroupSizes.of(count(first_DN, labels_N, np.ones(len(labels_N), dtype=np.bool_))[1])
        for t, predictions_N in enumerate(predictions):
            wrong_GCD, right_GCD = count(first_DN, predictions_N, labels_N == predictions_N)
            found_TDM[t, first : first + num_dealt] = macro_fairness(sizes, wrong_GCD, right_GCD)
    return Chance(mean_TM=found_TDM.mean(axis=1), sd_TM=found_TDM.std(axis=1, ddof=1))


@dataclass(frozen=True, kw_only=True)
class SmallestCells:
    """How many test samples decide a difference between groups."""

    group: int
    """Members of the smallest group: for demographic parity and worst-group accuracy."""
    positives: int
    """Members of the smallest group within a class that it has: for equalized odds."""
    names: tuple[str, str]
    """The smallest group, and the group of the smallest cell; empty where no group has members."""
    positive_class: int
    """The class of the smallest cell."""

    def of(self, metric: str) -> int:
        """The one that matters for a metric."""
        return self.positives if metric == "equalized_odds_difference" else self.group


def smallest_cells(labels_N: IntArray, groups: Groups, *, num_classes: int) -> SmallestCells:
    """Sizes of the smallest group with members, and of the smallest cell group × class with members."""
    num = len(labels_N)
    counts_GC = np.full((len(groups.names), num_classes), 0)
    for g in range(len(groups.names)):
        counts_GC[g] = np.bincount(labels_N[groups.membership_NG[:, g]], minlength=num_classes)
    if not counts_GC.any():
        return SmallestCells(group=num, positives=num, names=("", ""), positive_class=0)
    n_G = counts_GC.sum(axis=1)
    smallest = int(np.where(n_G > 0, n_G, num + 1).argmin())
    cell, c = divmod(int(np.where(counts_GC > 0, counts_GC, num + 1).argmin()), num_classes)
    return SmallestCells(
        group=int(n_G[smallest]),
        positives=int(counts_GC[cell, c]),
        names=(groups.names[smallest], groups.names[cell]),
        positive_class=c,
    )


def shrunken(rate_GC: FloatArray, n_GC: FloatArray) -> FloatArray:
    """Rates of groups, in C columns (or more axes), drawn towards their common mean by what sampling noise explains (empirical Bayes;
    Herlihy et al. 2024).

    The variance between groups is the observed one minus the mean sampling variance, at least 0 (Lum et al. 2022, the double-corrected
    estimator). Each rate keeps the share between / (between + its own sampling variance) of its distance from the mean. NaN stays NaN.
    """
    known_GC = ~np.isnan(rate_GC) & (n_GC > 0)
    count_C = known_GC.sum(axis=0)
    weight_GC, rate = np.where(known_GC, n_GC, 0.0), np.where(known_GC, rate_GC, 0.0)
    mean_C = divide((rate * weight_GC).sum(axis=0), weight_GC.sum(axis=0))
    noise_GC = np.where(known_GC, np.maximum(mean_C * (1 - mean_C), 1e-12) / np.maximum(weight_GC, 1.0), 0.0)
    centre_C = divide(rate.sum(axis=0), count_C)
    observed_C = divide(np.where(known_GC, (rate - centre_C) ** 2, 0.0).sum(axis=0), count_C - 1)
    between_C = np.maximum(observed_C - divide(noise_GC.sum(axis=0), count_C), 0.0)
    drawn_GC = mean_C + (rate - mean_C) * divide(np.broadcast_to(between_C, rate.shape), between_C + noise_GC)
    # A column with a single group has nothing to be drawn to.
    return np.where(known_GC & (count_C > 1), drawn_GC, rate_GC)


def shrunken_fairness(
    labels_N: IntArray, predictions: Sequence[npt.NDArray[np.integer]], groups: Groups, *, num_classes: int
) -> FloatArray:
    """The metrics of `resampling.FAIRNESS` of each of T predictions from shrunken rates, one-vs-rest mean over classes, (T, 3)."""
    at_once = max(1, _AT_ONCE // max(1, len(labels_N)))
    blocks = [predictions[first : first + at_once] for first in range(0, len(predictions), at_once)]
    found = [_shrunken_fairness(labels_N, np.stack(block), groups, num_classes=num_classes) for block in blocks]
    return np.concatenate(found) if found else np.empty((0, len(FAIRNESS)))


def _shrunken_fairness(
    labels_N: IntArray, predictions_TN: npt.NDArray[np.integer], groups: Groups, *, num_classes: int
) -> FloatArray:
    num_trials = len(predictions_TN)
    # Samples that are not right are counted in the first half, those that are in the second.
    cells_TN = predictions_TN + num_classes * (predictions_TN == labels_N)
    cells_TN = cells_TN + 2 * num_classes * np.arange(num_trials)[:, None]

    def count(member_N: npt.NDArray[np.bool_]) -> IntArray:
        counts = np.bincount(cells_TN[:, member_N].ravel(), minlength=2 * num_classes * num_trials)
        return counts.reshape(num_trials, 2, num_classes).transpose(1, 2, 0)

    membership_GN = groups.membership_NG.T
    counts_G2CT = np.stack([count(member_N) for member_N in membership_GN]).astype(np.float64)
    correct_GCT, predicted_GCT = counts_G2CT[:, 1], counts_G2CT.sum(axis=1)
    positive_GC = np.stack([np.bincount(labels_N[it], minlength=num_classes) for it in membership_GN])
    sizes = (positive_GC, positive_GC.sum(axis=1, keepdims=True))
    positive_GCT, n_GCT = (np.broadcast_to(it[:, :, None], correct_GCT.shape) for it in sizes)
    negative_GCT = n_GCT - positive_GCT
    right_GCT = shrunken(divide(correct_GCT, positive_GCT), positive_GCT)
    wrong_GCT = shrunken(divide(predicted_GCT - correct_GCT, negative_GCT), negative_GCT)
    chosen_GCT = shrunken(divide(predicted_GCT, n_GCT), n_GCT)
    n_GT = n_GCT[:, 0]
    accuracy_GT = shrunken(divide(correct_GCT.sum(axis=1), n_GT), n_GT)
    return macro_of_rates(chosen_GCT, right_GCT, wrong_GCT, accuracy_GT)
