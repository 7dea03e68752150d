"""The metrics of every trial of a study: their values, how they move under resamples of the test samples, and their chance levels."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from kd_ray.analysis.chance import MIN_CELL, SMALL_CELL, SmallestCells, shrunken_fairness, smallest_cells
from kd_ray.analysis.chance_levels import KnownLevels
from kd_ray.analysis.conditions import Condition
from kd_ray.analysis.resampling import FAIRNESS, RESAMPLES, resampled_fairness, resampled_worst_class, weights
from kd_ray.analysis.study import Study
from kd_ray.errors import count_of
from kd_ray.groups import Groups
from kd_ray.metrics.arrays import FloatArray, IntArray
from kd_ray.metrics.fairness import fairness_metrics, group_rates
from kd_ray.sweep.placement import cpu_count

SCALARS = (
    "accuracy",
    "worst_class_accuracy",
    "individual_fairness",
    "individual_fairness_hard",
    "individual_fairness_calibrated",
)
"""Metrics of a whole trial that are compared, as the table `trials` has them."""
DISAGREEMENT = "disagreement"
OF_GROUPS = frozenset(FAIRNESS)
"""Metrics that are differences between groups, or a minimum over them."""
ABOUT_FAIRNESS = OF_GROUPS | {name for name in SCALARS if name.startswith("individual_fairness")}
"""Metrics of which a collapsed model would count as fair."""
_MOST_TRIALS = 100
"""Trials whose EOD without small groups is computed, evenly chosen."""
_TELLING = 0.01
"""Difference of EOD from which it is said."""
_THREADS = 4
"""Most resamplings and deals at once: each takes some 100 MB with 10,000 test samples."""


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One quantity of a trial."""

    name: str
    feature: str | None = None

    def columns(self) -> dict[str, Any]:
        """The columns of a row that say what it measures."""
        has_classes = self.feature is not None and self.name != "worst_group_accuracy"
        return {
            "metric": self.name,
            "sensitive_feature": self.feature,
            "positive_class": "macro" if has_classes else None,
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class Measured:
    """M measures of all T trials of a study, and how they move under B resamples of the test samples."""

    measures: tuple[Measure, ...]
    values_TM: FloatArray
    draws_TBM: FloatArray
    """NaN where a measure is not resampled: individual fairness needs pairs, and the linear ones do not need it."""
    chance_TM: FloatArray
    """Chance level of the differences between groups; NaN for others. See `chance.py`."""
    chance_sd_TM: FloatArray
    shrunken_TM: FloatArray
    """The same differences from shrunken rates; NaN for others."""
    cells: Mapping[tuple[str, str], SmallestCells]
    """Sizes of the smallest groups, by dataset_id and feature."""
    label_difference: Mapping[tuple[str, str], float]
    """Demographic parity difference of the true labels, by dataset_id and feature."""

    def place(self, name: str, feature: str | None = None) -> int | None:
        """Index of a measure; None where the study does not have it."""
        return next((m for m, it in enumerate(self.measures) if (it.name, it.feature) == (name, feature)), None)

    def of(self, condition: Condition) -> FloatArray:
        """Values of the runs of a condition, (R, M)."""
        return condition.over_runs(self.values_TM)

    def chance(self, condition: Condition) -> FloatArray:
        """Chance levels of the runs of a condition, (R, M)."""
        return condition.over_runs(self.chance_TM)

    def draws(self, condition: Condition) -> FloatArray:
        """Values of the runs under each resample, (R, B, M)."""
        return condition.over_runs(self.draws_TBM)

    def smallest_cell(self, condition: Condition, m: int) -> int | None:
        """Test samples of the smallest group that may decide a difference; None for other measures."""
        measure = self.measures[m]
        if measure.name not in OF_GROUPS:
            return None
        cells = self.cells.get((condition.axes["dataset_id"], str(measure.feature)))
        return None if cells is None else cells.of(measure.name)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Tested:
    """The trials of one test set."""

    rows: list[int]
    """Their rows in the study."""
    trial_ids: list[str]
    labels_N: IntArray
    predictions: list[npt.NDArray[np.integer]]
    num_classes: int


def measure(study: Study, known: KnownLevels | None = None) -> Measured:
    """Everything that is compared, of every trial; chance levels that are not `known` are added to it."""
    known = KnownLevels() if known is None else known
    measures = [Measure(name=name) for name in (*SCALARS, DISAGREEMENT)]
    measures += [Measure(name=name, feature=it.feature) for it in study.fairness for name in FAIRNESS]
    values_TM = np.full((len(study.trials), len(measures)), np.nan)
    for m, name in enumerate(SCALARS):
        values_TM[:, m] = study.values(name)
    values_TM[:, len(SCALARS)] = study.disagreement_T
    place = {(it.name, it.feature): m for m, it in enumerate(measures)}
    labels: dict[tuple[str, str], float] = {}
    dataset_ids = study.column("dataset_id")
    for fairness in study.fairness:
        for name in FAIRNESS:
            values_TM[:, place[name, fairness.feature]] = fairness.metrics[name]
        label_T = fairness.metrics["label_demographic_parity_difference"]
        for row in np.flatnonzero(~np.isnan(label_T)).tolist():
            labels[dataset_ids[row], fairness.feature] = float(label_T[row])
    draws_TBM = np.full((len(study.trials), RESAMPLES, len(measures)), np.nan)
    chance_TM, chance_sd_TM, shrunken_TM = (np.full_like(values_TM, np.nan) for _ in range(3))
    cells: dict[tuple[str, str], SmallestCells] = {}
    found = []
    for dataset_id, test_set in study.test_sets.items():
        rows = [row for row, its in enumerate(dataset_ids) if its == dataset_id]
        tested = _Tested(
            rows=rows,
            trial_ids=[study.column("trial_id")[row] for row in rows],
            labels_N=test_set.labels_N,
            predictions=[study.predictions[row] for row in rows],
            num_classes=len(study.classes[dataset_id].names),
        )
        draws_TBM[rows, :, place["worst_class_accuracy", None]] = resampled_worst_class(
            tested.labels_N, tested.predictions, weights(tested.labels_N), num_classes=tested.num_classes
        )
        for feature, groups in test_set.features.items():
            columns = [place[name, feature] for name in FAIRNESS if (name, feature) in place]
            if columns and groups.names:
                found.append((tested, feature, groups, columns))
                cells[dataset_id, feature] = smallest_cells(tested.labels_N, groups, num_classes=tested.num_classes)

    def resample(its: _Tested, groups: Groups, columns: list[int]) -> None:
        draws_TBM[np.ix_(its.rows, range(RESAMPLES), columns)] = resampled_fairness(
            its.labels_N, its.predictions, groups, weights(groups), num_classes=its.num_classes
        )

    def deal(its: _Tested, feature: str, groups: Groups, columns: list[int]) -> None:
        at = np.ix_(its.rows, columns)
        chance = known.of(its.trial_ids, feature, its.labels_N, its.predictions, groups, num_classes=its.num_classes)
        chance_TM[at], chance_sd_TM[at] = chance.mean_TM, chance.sd_TM
        shrunken_TM[at] = shrunken_fairness(its.labels_N, its.predictions, groups, num_classes=its.num_classes)

    # NumPy and SciPy let other threads run while they compute. Each task has its own places in the arrays.
    with ThreadPoolExecutor(min(cpu_count(), _THREADS)) as threads:
        tasks = [threads.submit(resample, its, groups, columns) for its, _, groups, columns in found]
        tasks += [threads.submit(deal, *arguments) for arguments in found]
        for task in tasks:
            task.result()
    return Measured(
        measures=tuple(measures),
        values_TM=values_TM,
        draws_TBM=draws_TBM,
        chance_TM=chance_TM,
        chance_sd_TM=chance_sd_TM,
        shrunken_TM=shrunken_TM,
        cells=cells,
        label_difference=labels,
    )


def standing(study: Study, condition: Condition) -> Condition | None:
    """The condition without its collapsed runs; None where no run is left."""
    kept = [r for r, run in enumerate(condition.runs) if not any(int(row) in study.collapsed for row in run)]
    return condition.only(kept) if kept else None


def collapsed_in_words(study: Study, conditions: Sequence[Condition]) -> list[str]:
    """`T=10: 5 of 5 runs predict one class`, for each condition that has collapsed runs."""
    words = []
    for condition in conditions:
        whys = [
            next((study.collapsed[int(row)] for row in run if int(row) in study.collapsed), "")
            for run in condition.runs
        ]
        for why in dict.fromkeys(filter(None, whys)):
            count = whys.count(why)
            verb = (
                why
                if count == 1
                else {"predicts one class": "predict one class"}.get(why, why.replace("is ", "are ", 1))
            )
            words.append(f"{condition.label}: {count} of {condition.n} runs {verb}")
    return words


def small_groups_in_words(study: Study, features: Sequence[str]) -> list[str]:
    """`race (Other: 12 test samples; Other: 3 of class '>50K')`, for each feature with groups of fewer than `SMALL_CELL` test samples.

    These may have the largest or smallest rate, and so decide a difference alone. What EOD is without them is said where it is another one.
    """
    words = []
    for feature in features:
        for dataset_id, test_set in study.test_sets.items():
            if feature not in test_set.features:
                continue
            class_names = study.classes[dataset_id].names
            cells = smallest_cells(test_set.labels_N, test_set.features[feature], num_classes=len(class_names))
            said = []
            if cells.group < SMALL_CELL:
                said.append(f"{cells.names[0]}: {cells.group} test sample{'' if cells.group == 1 else 's'}")
            if cells.positives < min(SMALL_CELL, cells.group):
                unit = "" if said else " test samples" if cells.positives > 1 else " test sample"
                said.append(f"{cells.names[1]}: {cells.positives}{unit} of class {class_names[cells.positive_class]!r}")
            if said and (without := _without_small_groups(study, feature, dataset_id)):
                said.append(without)
            if said:
                words.append(f"{feature} ({'; '.join(said)})")
    return list(dict.fromkeys(words))


def _without_small_groups(study: Study, feature: str, dataset_id: str) -> str:
    """What EOD is, in the mean over trials, without groups that have fewer than `MIN_CELL` test samples of a class.

    Empty where it is the same, or where no two groups are left.
    """
    test_set, num_classes = study.test_sets[dataset_id], len(study.classes[dataset_id].names)
    labels_N, groups = test_set.labels_N, test_set.features[feature]
    counts_GC = group_rates(labels_N, labels_N, groups, num_classes=num_classes).num_positive_GC
    small_G = ((counts_GC > 0) & (counts_GC < MIN_CELL)).any(axis=1)
    stored = next(it.metrics["equalized_odds_difference"] for it in study.fairness if it.feature == feature)
    rows = [row for row, its in enumerate(study.column("dataset_id")) if its == dataset_id]
    rows = [row for row in rows if row not in study.collapsed and not np.isnan(stored[row])]
    rows = rows[:: max(1, len(rows) // _MOST_TRIALS)]
    large = groups.only(np.flatnonzero(~small_G & (counts_GC.sum(axis=1) > 0)))
    if not small_G.any() or not rows or len(large.names) < 2:
        return ""
    below = f"without {count_of(int(small_G.sum()), 'group')} below {MIN_CELL} in a class"
    odds = [
        fairness_metrics(
            group_rates(labels_N, predictions_N, large, num_classes=num_classes)
        ).macro.equalized_odds_difference
        for predictions_N in study.predictions_of(rows).values()
    ]
    before, after = float(np.mean(stored[rows])), float(np.nanmean(odds)) if not np.isnan(odds).all() else np.nan
    return (
        f"{below} EOD is {100 * after:.1f} %, not {100 * before:.1f} %, in the mean over all"
        if abs(after - before) >= _TELLING
        else ""
    )
