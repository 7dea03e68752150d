"""Every metric that is stored, compared or shown: its short name, its meaning, its unit and its range, in one dict.

The columns of the tables, the comparisons, the report and the terminal take names and meanings from here. The values are computed in the
other modules of this package. `docs/contributing.md` says how a metric is added.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One number that a trial gets, for its whole test set, a class or the groups of a sensitive feature."""

    name: str
    """Name of the column in the tables."""
    short: str
    """Name in sentences, headings and the terminal."""
    meaning: str
    """Definition in one line; the meaning of the column."""
    of: Literal["trial", "class", "groups", "pair"]
    """What has one such number: a trial, a class of a trial, all groups of a sensitive feature, or two trials."""
    unit: Literal["rate", "ratio", "nat"] = "rate"
    """`rate`: shown in percent, differences in points. `ratio`: a number without a unit. `nat`: natural logarithm."""
    digits: int = 2
    """Digits after the decimal point where the value is shown; for a rate, digits of the percentage."""
    better: Literal["higher", "lower"] | None
    """The direction of an improvement; None where neither direction is one."""
    low: float = 0.0
    """Smallest possible value."""
    high: float = 1.0
    """Largest possible value."""

    @property
    def scale(self) -> float:
        """Factor from the stored value to the shown one: 100 for a rate, otherwise 1."""
        return 100.0 if self.unit == "rate" else 1.0


_INFINITY = float("inf")

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(name="accuracy", short="accuracy", meaning="test accuracy", of="trial", better="higher"),
        Metric(
            name="loss",
            short="loss",
            meaning="mean test cross-entropy, natural logarithm",
            of="trial",
            unit="nat",
            digits=4,
            better="lower",
            high=_INFINITY,
        ),
        Metric(
            name="expected_calibration_error",
            short="ECE",
            meaning="ECE over 15 equal-width bins (Guo et al. 2017)",
            of="trial",
            better="lower",
        ),
        Metric(
            name="worst_class_accuracy",
            short="worst-class accuracy",
            meaning="lowest accuracy of a class that has test samples",
            of="trial",
            better="higher",
        ),
        Metric(
            name="balanced_accuracy",
            short="balanced accuracy",
            meaning="mean accuracy of the classes that have test samples",
            of="trial",
            better="higher",
        ),
        Metric(
            name="individual_fairness",
            short="individual fairness",
            meaning="mean total variation of probabilities per unit distance; it follows mean_confidence",
            of="trial",
            unit="ratio",
            digits=4,
            better="lower",
            high=_INFINITY,
        ),
        Metric(
            name="individual_fairness_hard",
            short="individual fairness on labels",
            meaning="the same on predicted labels, where confidence plays no part",
            of="trial",
            unit="ratio",
            digits=4,
            better="lower",
            high=_INFINITY,
        ),
        Metric(
            name="individual_fairness_calibrated",
            short="individual fairness after calibration",
            meaning="the same on probabilities after temperature scaling; null for records of kd_ray 0.1",
            of="trial",
            unit="ratio",
            digits=4,
            better="lower",
            high=_INFINITY,
        ),
        Metric(
            name="mean_confidence",
            short="mean confidence",
            meaning="mean probability of the predicted class; individual_fairness follows it",
            of="trial",
            better=None,
        ),
        Metric(
            name="relative_accuracy",
            short="class accuracy, relative",
            meaning="class accuracy / accuracy of the trial: the quantity tested for class bias",
            of="class",
            unit="ratio",
            digits=3,
            better="higher",
            high=_INFINITY,
        ),
        Metric(
            name="demographic_parity_difference",
            short="DPD",
            meaning="largest minus smallest selection rate between groups; 0 is parity",
            of="groups",
            better="lower",
        ),
        Metric(
            name="demographic_parity_ratio",
            short="DP ratio",
            meaning="smallest / largest selection rate; 1 is parity",
            of="groups",
            unit="ratio",
            digits=3,
            better="higher",
        ),
        Metric(
            name="equalized_odds_difference",
            short="EOD",
            meaning="larger of the differences in true and false positive rate; 0 is parity",
            of="groups",
            better="lower",
        ),
        Metric(
            name="equalized_odds_ratio",
            short="EO ratio",
            meaning="smaller of the ratios of true and false positive rate; 1 is parity",
            of="groups",
            unit="ratio",
            digits=3,
            better="higher",
        ),
        Metric(
            name="worst_group_accuracy",
            short="worst-group accuracy",
            meaning="lowest accuracy of a group that has test samples",
            of="groups",
            better="higher",
        ),
        Metric(
            name="label_demographic_parity_difference",
            short="DPD of the labels",
            meaning="the difference of the true labels: what a perfect model shows",
            of="groups",
            better=None,
        ),
        Metric(
            name="disagreement",
            short="disagreement with the teacher",
            meaning="share of test samples on which two models predict different classes",
            of="pair",
            better=None,
        ),
    )
}
"""All metrics, by the name of their column."""
