"""Group fairness of hard predictions: what each group gets, and how far the groups are apart.

Definitions and names are fairlearn's, applied one-vs-rest to every class as the positive one. With all rates
defined the numbers are fairlearn's too. On undefined rates the two differ on purpose. fairlearn sets the true
positive rate of a group without positives to 0 (and likewise the false positive rate without negatives), which
reads as the worst treatment of a group about which nothing is known, and calls a single group perfectly fair. Here
such a rate is NaN and stays out of the maximum and minimum, and with fewer than two defined groups the difference
and the ratio are NaN.

A binary task has two rows, one for each class as the positive one. Their demographic parity and equalized odds
*differences* are the same (P(Yhat=0|a) = 1 - P(Yhat=1|a)); their *ratios* are not. The mean over both rows is
therefore the usual binary difference.
"""

from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
import numpy.typing as npt

from kd_ray.groups import Groups
from kd_ray.metrics.arrays import FloatArray, IntArray, check_classes, divide, nan_min


@dataclass(frozen=True, kw_only=True, eq=False)
class GroupRates:
    """Counts and one-vs-rest rates, in [0, 1], of G groups and C classes. Yhat is the prediction, A the group."""

    names: tuple[str, ...]
    """Names of the G groups."""
    n_G: IntArray
    """Members of group g. A sample in several groups counts in each, one in no group in none."""
    accuracy_G: FloatArray
    """P(Yhat = Y | A = g). 0: all wrong. NaN: no members."""
    num_positive_GC: IntArray
    """Members of group g whose true class is c."""
    num_predicted_GC: IntArray
    """Members of group g predicted as c."""
    num_correct_GC: IntArray
    """Members of group g whose true class is c and who are predicted as c."""
    selection_rate_GC: FloatArray
    """P(Yhat = c | A = g). 0: c is never predicted in the group. NaN: no members."""
    true_positive_rate_GC: FloatArray
    """P(Yhat = c | A = g, Y = c). 0: no positive is found. NaN: no member has class c."""
    false_positive_rate_GC: FloatArray
    """P(Yhat = c | A = g, Y != c). 0: no false alarm. NaN: every member has class c."""
    label_rate_GC: FloatArray
    """P(Y = c | A = g), the base rate. 0: no member has class c. NaN: no members."""


def group_rates(
    labels_N: npt.NDArray[np.integer], predictions_N: npt.NDArray[np.integer], groups: Groups, *, num_classes: int
) -> GroupRates:
    """Rates of every group for every class as the positive one; only margins are counted, O(N + G C) of memory.

    Where defined they agree with fairlearn's `selection_rate`, `true_positive_rate` and `false_positive_rate`.
    Raises ValueError for arrays that are not (N,) integers in 0..num_classes-1, or groups of another N.
    """
    labels_N, predictions_N = check_classes(num_classes, labels=labels_N, predictions=predictions_N)
    if len(groups) != len(labels_N):
        raise ValueError(f"lengths differ: groups has {len(groups)}, labels has {len(labels_N)}")
    correct_N = labels_N == predictions_N
    everyone_N = np.ones_like(correct_N)
    n_G1 = groups.membership_NG.sum(axis=0, dtype=np.int64)[:, None]
    num_positive_GC = _count(labels_N, everyone_N, groups, num_classes)
    num_predicted_GC = _count(predictions_N, everyone_N, groups, num_classes)
    num_correct_GC = _count(labels_N, correct_N, groups, num_classes)
    return GroupRates(
        names=groups.names,
        n_G=n_G1[:, 0],
        accuracy_G=divide(num_correct_GC.sum(axis=1), n_G1[:, 0]),
        num_positive_GC=num_positive_GC,
        num_predicted_GC=num_predicted_GC,
        num_correct_GC=num_correct_GC,
        selection_rate_GC=divide(num_predicted_GC, n_G1),
        true_positive_rate_GC=divide(num_correct_GC, num_positive_GC),
        false_positive_rate_GC=divide(num_predicted_GC - num_correct_GC, n_G1 - num_positive_GC),
        label_rate_GC=divide(num_positive_GC, n_G1),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class OneVsRest:
    """The per-class vectors of the same names in `FairnessMetrics`, each reduced over the C classes."""

    demographic_parity_difference: float
    """0: equal selection rates for every class."""
    demographic_parity_ratio: float
    """As a mean, 1: equal selection rates for every class."""
    equalized_odds_difference: float
    """0: equal true and false positive rates for every class."""
    equalized_odds_ratio: float
    """As a mean, 1: equal true and false positive rates for every class."""
    label_demographic_parity_difference: float
    """0: equal base rates of every class."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FairnessMetrics:
    """Distances between groups, with each class c as the positive one. Made by `fairness_metrics`.

    Everything lies in [0, 1]. Maxima and minima run over the groups g where the rate is defined; with fewer than
    two of them: NaN.
    """

    num_groups: int
    """Groups with members: those that demographic parity compares."""
    num_groups_with_positives_C: IntArray
    """Groups that have members of class c: those whose true positive rates are compared."""
    num_groups_with_negatives_C: IntArray
    """Groups that have members of another class: those whose false positive rates are compared."""
    demographic_parity_difference_C: FloatArray
    """max_g - min_g of P(Yhat=c | A=g). 0: all groups are predicted as c equally often."""
    demographic_parity_ratio_C: FloatArray
    """min_g / max_g of the same. 1: equally often; 0: some group never; NaN: no group ever (0/0, as fairlearn)."""
    equalized_odds_difference_C: FloatArray
    """Larger of the differences (max_g - min_g) of true and false positive rates. 0: both equal. NaN: either is."""
    equalized_odds_ratio_C: FloatArray
    """Smaller of the ratios (min_g / max_g) of both rates. 1: both equal; 0: some group has none. As fairlearn: where
    no group has a false positive (0/0) the ratio of true positive rates; where none has a true positive NaN."""
    label_demographic_parity_difference_C: FloatArray
    """max_g - min_g of P(Y=c | A=g), the demographic parity difference of a perfect classifier. 0: same base rate."""
    worst_group_accuracy: float
    """The smallest accuracy over groups with members. 0: one is always wrong. NaN: no group has members."""

    @property
    def macro(self) -> OneVsRest:
        """The one-vs-rest mean over the classes: the number to report."""
        return one_vs_rest(self, reduce="mean")


def fairness_metrics(rates: GroupRates) -> FairnessMetrics:
    """Demographic parity and equalized odds between groups, one-vs-rest for each of the C classes.

    Agrees with fairlearn's functions of the same names (method="between_groups", agg="worst_case") where all rates
    are defined. Mohammadshahi & Ioannou use the same two differences.
    """
    tpr_max_C, tpr_min_C = _extremes(rates.true_positive_rate_GC)
    fpr_max_C, fpr_min_C = _extremes(rates.false_positive_rate_GC)
    selection_max_C, selection_min_C = _extremes(rates.selection_rate_GC)
    label_max_C, label_min_C = _extremes(rates.label_rate_GC)
    tpr_ratio_C, fpr_ratio_C = divide(tpr_min_C, tpr_max_C), divide(fpr_min_C, fpr_max_C)
    odds_difference_C = np.maximum(tpr_max_C - tpr_min_C, fpr_max_C - fpr_min_C)
    odds_ratio_C = np.where(fpr_ratio_C < tpr_ratio_C, fpr_ratio_C, tpr_ratio_C)
    return FairnessMetrics(
        num_groups=int((rates.n_G > 0).sum()),
        num_groups_with_positives_C=(rates.num_positive_GC > 0).sum(axis=0, dtype=np.int64),
        num_groups_with_negatives_C=(rates.num_positive_GC < rates.n_G[:, None]).sum(axis=0, dtype=np.int64),
        demographic_parity_difference_C=selection_max_C - selection_min_C,
        demographic_parity_ratio_C=divide(selection_min_C, selection_max_C),
        equalized_odds_difference_C=odds_difference_C,
        equalized_odds_ratio_C=np.where(np.isnan(odds_difference_C), np.nan, odds_ratio_C),
        label_demographic_parity_difference_C=label_max_C - label_min_C,
        worst_group_accuracy=nan_min(rates.accuracy_G),
    )


def one_vs_rest(metrics: FairnessMetrics, *, reduce: Literal["mean", "sum"] = "mean") -> OneVsRest:
    """Mean or sum over the classes of each per-class vector, NaN classes left out, NaN if all are.

    Algorithm 1 of Mohammadshahi & Ioannou prints a sum, but the values they report can only be means; so report the
    mean. The sum of the differences lies in [0, C]; a sum of ratios has no reading of its own.
    """
    if reduce not in ("mean", "sum"):
        raise ValueError(f"reduce is {reduce!r}, expected 'mean' or 'sum'")

    def reduced(values_C: FloatArray) -> float:
        defined = values_C[~np.isnan(values_C)]
        if not defined.size:
            return float("nan")
        return float(defined.mean() if reduce == "mean" else defined.sum())

    return OneVsRest(**{field.name: reduced(getattr(metrics, f"{field.name}_C")) for field in fields(OneVsRest)})


def _count(classes_N: IntArray, counted_N: npt.NDArray[np.bool_], groups: Groups, num_classes: int) -> IntArray:
    """How many counted members of each group have each class, (G, C)."""
    counts_GC = np.zeros((len(groups.names), num_classes), dtype=np.int64)
    for g in range(len(groups.names)):
        counts_GC[g] = np.bincount(classes_N[groups.membership_NG[:, g] & counted_N], minlength=num_classes)
    return counts_GC


def _extremes(rate_GC: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Per class the largest and smallest defined rate, both NaN where fewer than two groups have one."""
    defined_GC = ~np.isnan(rate_GC)
    comparable_C = defined_GC.sum(axis=0) >= 2
    max_C = np.max(rate_GC, axis=0, where=defined_GC, initial=-np.inf)
    min_C = np.min(rate_GC, axis=0, where=defined_GC, initial=np.inf)
    return np.where(comparable_C, max_C, np.nan), np.where(comparable_C, min_C, np.nan)
