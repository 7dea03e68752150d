"""How large a difference between groups is by chance alone, and what is left of it for small groups.

A largest minus a smallest rate is above 0 even where groups do not matter: the more groups and the smaller they are, the more. Its
*chance level* is its mean when the groups are dealt anew to the test samples of each true class, which leaves the model's errors, the
class shares of every group and the group sizes as they are. What exceeds it is what groups have to do with errors.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kd_ray.analysis.resampling import FAIRNESS, macro_fairness
from kd_ray.groups import Groups
from kd_ray.metrics.arrays import FloatArray, IntArray, divide
from kd_ray.seeding import shuffled, stream

DRAWS = 200
"""Deals of the groups; the mean over them is uncertain by sd / 14."""
MIN_CELL = 10
"""Test samples of a class in a group below which a rate of that group decides nothing: one sample would move it by ten points."""


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
    random = stream(seed, "chance")
    places = [np.flatnonzero(labels_N == c) for c in range(num_classes)]
    dealt_DN = np.tile(codes_N, (DRAWS, 1))
    for dealt_N in dealt_DN:
        for place_M in places:
            dealt_N[place_M] = codes_N[place_M][shuffled(len(place_M), random)]
    first_DN = dealt_DN * num_classes + (np.arange(DRAWS) * len(strata) * num_classes)[:, None]

    def count(class_N: npt.NDArray[np.integer], chosen_N: npt.NDArray[np.bool_] | slice) -> FloatArray:
        cells = (first_DN[:, chosen_N] + class_N[chosen_N]).ravel()
        counts = np.bincount(cells, minlength=DRAWS * len(strata) * num_classes)
        counts_DSC = counts.reshape(DRAWS, len(strata), num_classes).astype(np.float64)
        return np.asarray(np.einsum("sg,dsc->gcd", strata.astype(np.float64), counts_DSC))

    positive_GCD = count(labels_N, slice(None))
    found_TDM = np.stack(
        [
            macro_fairness(
                positive_GCD, count(predictions_N, slice(None)), count(predictions_N, labels_N == predictions_N)
            )
            for predictions_N in predictions
        ]
    )
    return Chance(mean_TM=found_TDM.mean(axis=1), sd_TM=found_TDM.std(axis=1, ddof=1))


@dataclass(frozen=True, kw_only=True)
class SmallestCells:
    """How many test samples decide a difference between groups."""

    group: int
    """Members of the smallest group: for demographic parity and worst-group accuracy."""
    positives: int
    """Members of the smallest group within a class that it has: for equalized odds."""

    def of(self, metric: str) -> int:
        """The one that matters for a metric."""
        return self.positives if metric == "equalized_odds_difference" else self.group


def smallest_cells(labels_N: IntArray, groups: Groups, *, num_classes: int) -> SmallestCells:
    """Sizes of the smallest group with members, and of the smallest cell group × class with members."""
    counts_GC = np.stack(
        [np.bincount(labels_N[groups.membership_NG[:, g]], minlength=num_classes) for g in range(len(groups.names))]
    )
    n_G = counts_GC.sum(axis=1)
    return SmallestCells(
        group=int(n_G[n_G > 0].min(initial=len(labels_N))),
        positives=int(counts_GC[counts_GC > 0].min(initial=len(labels_N))),
    )


def shrunken(rate_G: FloatArray, n_G: FloatArray) -> FloatArray:
    """Rates of groups drawn towards their common mean by what sampling noise explains (empirical Bayes, normal; Herlihy et al. 2024).

    The variance between groups is the observed one minus the mean sampling variance, at least 0 (Lum et al. 2022, the double-corrected
    estimator). Each rate keeps the share between / (between + its own sampling variance) of its distance from the mean. NaN stays NaN.
    """
    known_G = ~np.isnan(rate_G) & (n_G > 0)
    if known_G.sum() < 2:
        return rate_G
    rate, n = rate_G[known_G], n_G[known_G]
    mean = float((rate * n).sum() / n.sum())
    noise = np.maximum(mean * (1 - mean), 1e-12) / n
    between = max(float(rate.var(ddof=1) - noise.mean()), 0.0)
    found_G = rate_G.copy()
    found_G[known_G] = mean + (rate - mean) * between / (between + noise)
    return found_G


def shrunken_fairness(
    labels_N: IntArray, predictions_N: npt.NDArray[np.integer], groups: Groups, *, num_classes: int
) -> FloatArray:
    """The metrics of `resampling.FAIRNESS` from shrunken rates, one-vs-rest mean over classes, (3,)."""
    membership_GN = groups.membership_NG.T

    def count(class_N: npt.NDArray[np.integer], chosen_N: npt.NDArray[np.bool_]) -> FloatArray:
        return np.stack(
            [np.bincount(class_N[member_N & chosen_N], minlength=num_classes) for member_N in membership_GN]
        ).astype(np.float64)

    every_N = np.ones(len(labels_N), dtype=np.bool_)
    positive_GC, predicted_GC = count(labels_N, every_N), count(predictions_N, every_N)
    correct_GC = count(labels_N, labels_N == predictions_N)
    n_G = positive_GC.sum(axis=1)
    odds, parity = [], []
    for c in range(num_classes):
        negative_G = n_G - positive_GC[:, c]
        tpr_G = shrunken(divide(correct_GC[:, c], positive_GC[:, c]), positive_GC[:, c])
        fpr_G = shrunken(divide(predicted_GC[:, c] - correct_GC[:, c], negative_G), negative_G)
        odds.append(np.maximum(_gap(tpr_G), _gap(fpr_G)))
        parity.append(_gap(shrunken(divide(predicted_GC[:, c], n_G), n_G)))
    worst = shrunken(divide(correct_GC.sum(axis=1), n_G), n_G)
    by_name: Mapping[str, float] = {
        "equalized_odds_difference": _mean(odds),
        "demographic_parity_difference": _mean(parity),
        "worst_group_accuracy": float(np.nanmin(worst)) if not np.isnan(worst).all() else np.nan,
    }
    return np.array([by_name[name] for name in FAIRNESS])


def _gap(rate_G: FloatArray) -> float:
    defined = rate_G[~np.isnan(rate_G)]
    return float(np.ptp(defined)) if len(defined) > 1 else np.nan


def _mean(values: Sequence[float]) -> float:
    defined = [value for value in values if not np.isnan(value)]
    return float(np.mean(defined)) if defined else np.nan
