"""The table that ends a launch: one line for each condition, mean ± sd over its runs, and which runs to doubt or to miss.

It reads the small tables of a sweep, and no predictions, unless small groups may decide a difference. It tests nothing.
"""

from dataclasses import dataclass

from kd_ray.analysis.measures import collapsed_in_words, small_groups_in_words
from kd_ray.analysis.study import Spread, Study, spread
from kd_ray.metrics.arrays import FloatArray
from kd_ray.metrics.catalogue import METRICS, Metric

_OF_TRIALS = ("accuracy", "worst_class_accuracy")
_OF_GROUPS = ("demographic_parity_difference", "equalized_odds_difference")
_LAST = "individual_fairness"


@dataclass(frozen=True, kw_only=True)
class ClosingColumn:
    """One metric of the table."""

    metric: Metric
    feature: str | None = None
    """Sensitive feature whose groups it compares; None for a metric of a whole trial."""

    @property
    def title(self) -> str:
        """Its heading, such as `EOD color`."""
        return self.metric.short if self.feature is None else f"{self.metric.short} {self.feature}"


@dataclass(frozen=True, kw_only=True)
class ClosingLine:
    """One condition."""

    label: str
    n: int
    """Runs: seeds, each the mean over its teachers."""
    spreads: tuple[Spread, ...]
    """By column; rates in [0, 1]."""


@dataclass(frozen=True, kw_only=True)
class ClosingTable:
    """Every condition of a sweep."""

    columns: tuple[ClosingColumn, ...]
    lines: tuple[ClosingLine, ...]
    collapsed: tuple[str, ...]
    """Conditions with collapsed runs, in words: `T=10: 5 of 5 runs predict one class`."""
    small_groups: tuple[str, ...]
    """Features with small groups, intersections included, in words: `race (Other: 12 test samples)`."""
    failed: tuple[str, ...]
    """Descriptions of the trials that failed, so that their conditions lack a run."""


def closing_table(study: Study) -> ClosingTable:
    """Accuracy and fairness of every condition. Intersections have many small groups and are left out."""
    found: list[tuple[ClosingColumn, FloatArray]] = [
        (ClosingColumn(metric=METRICS[name]), study.values(name)) for name in _OF_TRIALS
    ]
    found += [
        (ClosingColumn(metric=METRICS[name], feature=it.feature), it.metrics[name])
        for it in study.fairness
        if not it.is_joint
        for name in _OF_GROUPS
    ]
    found.append((ClosingColumn(metric=METRICS[_LAST]), study.values(_LAST)))
    return ClosingTable(
        columns=tuple(column for column, _ in found),
        lines=tuple(
            ClosingLine(
                label=condition.label,
                n=condition.n,
                spreads=tuple(spread(condition.over_runs(values_T)) for _, values_T in found),
            )
            for condition in study.conditions
        ),
        collapsed=tuple(collapsed_in_words(study, study.conditions)),
        small_groups=tuple(small_groups_in_words(study, [it.feature for it in study.fairness])),
        failed=study.failed,
    )
