"""Accuracy, disagreement and fairness of every condition, and how far distilled students are from scratch students and from teachers.

Two kinds of noise are stated apart: between seeds (sd, interval, tests) and between test samples (`sampling_sd`). The first says whether
another training run would show it, the second whether other samples would.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from kd_ray.analysis.comparisons import Comparison
from kd_ray.analysis.contrast import Options, about, corrected, number, tested
from kd_ray.analysis.resampling import FAIRNESS, RESAMPLES, resampled_fairness, resampled_worst_class, weights
from kd_ray.analysis.runs import SCALARS, SCRATCH, TEACHER, Condition, SweepRuns
from kd_ray.analysis.two_groups import mean_interval
from kd_ray.metrics.arrays import FloatArray

DISAGREEMENT = "disagreement"
_DPD = "demographic_parity_difference"


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One quantity of a trial."""

    name: str
    feature: str | None = None

    def columns(self) -> dict[str, Any]:
        """What a row says about it."""
        has_classes = self.feature is not None and self.name != "worst_group_accuracy"
        return {
            "metric": self.name,
            "sensitive_feature": self.feature,
            "positive_class": "macro" if has_classes else None,
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class Measured:
    """M metrics of all T trials of a sweep, and how they move under B resamples of the test samples."""

    metrics: tuple[Metric, ...]
    values_TM: FloatArray
    draws_TBM: FloatArray
    """NaN where a metric is not resampled: individual fairness needs pairs, and linear metrics do not need it."""
    label_difference: Mapping[tuple[str, str], float]
    """Demographic parity difference of the true labels, by dataset_id and feature."""

    def of(self, condition: Condition) -> FloatArray:
        """Values of the runs of a condition, (R, M)."""
        return condition.over_runs(self.values_TM)

    def draws(self, condition: Condition) -> FloatArray:
        """Mean over the runs under each resample, (B, M)."""
        return np.asarray(np.mean([self.draws_TBM[list(run)].mean(axis=0) for run in condition.runs], axis=0))


def measure(runs: SweepRuns) -> Measured:
    """Everything that is compared, of every trial."""
    features = list(dict.fromkeys(runs.fairness["feature"].to_pylist()))
    metrics = [Metric(name=name) for name in (*SCALARS, DISAGREEMENT)]
    metrics += [Metric(name=name, feature=feature) for feature in features for name in FAIRNESS]
    values_TM = np.full((len(runs.trials), len(metrics)), np.nan)
    values_TM[:, : len(SCALARS)] = runs.scalars_TM
    values_TM[:, len(SCALARS)] = disagreement(runs)
    place = {(metric.name, metric.feature): m for m, metric in enumerate(metrics)}
    labels: dict[tuple[str, str], float] = {}
    for row in runs.fairness.to_pylist():
        trial = runs.index[row["trial_id"]]
        for name in FAIRNESS:
            value = row[name]
            values_TM[trial, place[name, row["feature"]]] = np.nan if value is None else value
        if row["label_demographic_parity_difference"] is not None:
            labels[runs.trials[trial]["dataset_id"], row["feature"]] = row["label_demographic_parity_difference"]
    return Measured(metrics=tuple(metrics), values_TM=values_TM, draws_TBM=_draws(runs, place), label_difference=labels)


def fairness(runs: SweepRuns, measured: Measured, options: Options) -> list[Comparison]:
    """A row for each condition and metric, then one for each contrast, distilled condition and metric."""
    rows = [row for condition in runs.conditions for row in _levels(runs, measured, condition, options)]
    for contrast in (SCRATCH, TEACHER):
        family: list[Comparison] = []
        for treatment in runs.distilled:
            baseline = runs.baseline(contrast, treatment)
            if baseline is not None:
                family += _contrast(runs, measured, contrast, baseline, treatment, options)
        # One question, "is anything fairer or less fair?", so one family over all conditions, features and metrics.
        rows += corrected(family, f"fairness {contrast}")
    return rows


def disagreement(runs: SweepRuns) -> FloatArray:
    """Share of the test samples on which a student and its teacher differ (CMP), (T,); NaN for teachers.

    A scratch student has no teacher; it is compared with those of the distilled students of its seed, as in `teacher_disagreement`.
    """
    teachers_of: dict[int, list[str]] = {}
    for treatment in runs.distilled:
        scratch = runs.baseline(SCRATCH, treatment)
        for seed, run, teachers in zip(treatment.seeds, treatment.runs, treatment.teachers, strict=True):
            for row in run:
                teachers_of[row] = [runs.trials[row]["teacher_trial_id"]]
            if scratch is not None and seed in scratch.seeds:
                for row in scratch.runs[scratch.seeds.index(seed)]:
                    known = teachers_of.setdefault(row, [])
                    known += [teacher for teacher in teachers if teacher not in known]
    values_T = np.full(len(runs.trials), np.nan)
    for row, teachers_K in teachers_of.items():
        mine_N = runs.predictions[runs.trials[row]["trial_id"]]
        shares = [np.mean(mine_N != runs.predictions[it]) for it in teachers_K if it in runs.predictions]
        values_T[row] = np.mean(shares) if shares else np.nan
    return values_T


def _draws(runs: SweepRuns, place: Mapping[tuple[str, str | None], int]) -> FloatArray:
    draws_TBM = np.full((len(runs.trials), RESAMPLES, len(place)), np.nan)
    for dataset_id, test_set in runs.test_sets.items():
        rows = [row for row, trial in enumerate(runs.trials) if trial["dataset_id"] == dataset_id]
        predictions = [runs.predictions[runs.trials[row]["trial_id"]] for row in rows]
        labels_N, num_classes = test_set.labels_N, len(runs.class_names[dataset_id])
        draws_TBM[rows, :, place["worst_class_accuracy", None]] = resampled_worst_class(
            labels_N, predictions, weights(labels_N), num_classes=num_classes
        )
        for feature, groups in test_set.features.items():
            found_TBK = resampled_fairness(labels_N, predictions, groups, weights(groups), num_classes=num_classes)
            for k, name in enumerate(FAIRNESS):
                if (name, feature) in place:
                    draws_TBM[rows, :, place[name, feature]] = found_TBK[:, :, k]
    return draws_TBM


def _levels(runs: SweepRuns, measured: Measured, condition: Condition, options: Options) -> list[Comparison]:
    values_RM, draws_BM = measured.of(condition), measured.draws(condition)
    mean_M = values_RM.mean(axis=0)
    low_M, high_M = mean_interval(values_RM, level=options.level)
    linear_sd = number(runs.correct(condition).std() / np.sqrt(len(runs.correct(condition))))
    base = {**about(runs, condition, options), "analysis": "condition", "n_treatment": condition.n}
    rows = []
    for m, metric in enumerate(measured.metrics):
        if np.isnan(values_RM[:, m]).all():
            continue
        rows.append(
            Comparison(
                **{
                    **base,
                    **metric.columns(),
                    "mean_treatment": number(mean_M[m]),
                    "sd_treatment": number(values_RM[:, m].std(ddof=1)) if condition.n > 1 else None,
                    "accuracy_treatment": number(mean_M[0]),
                    "ci_low": number(low_M[m]),
                    "ci_high": number(high_M[m]),
                    "sampling_sd": linear_sd if metric.name == "accuracy" else number(draws_BM[:, m].std(ddof=1)),
                    "sampling_bias": number(draws_BM[:, m].mean() - mean_M[m]),
                    "label_difference": _label_difference(measured, metric, condition),
                    "flags": (
                        *(["n<2"] if condition.n < 2 else []),
                        *(["undefined"] if np.isnan(mean_M[m]) else []),
                    ),
                }
            )
        )
    return rows


def _contrast(
    runs: SweepRuns,
    measured: Measured,
    contrast: str,
    baseline: Condition,
    treatment: Condition,
    options: Options,
) -> list[Comparison]:
    values_b_RM, values_t_SM = measured.of(baseline), measured.of(treatment)
    # A metric that one side does not have at all (a teacher's disagreement with itself) is not compared.
    chosen = [
        m
        for m in range(len(measured.metrics))
        if not np.isnan(values_b_RM[:, m]).all() and not np.isnan(values_t_SM[:, m]).all()
    ]
    effect_BM = measured.draws(treatment) - measured.draws(baseline)
    difference_N = runs.correct(treatment) - runs.correct(baseline)
    linear_sd = number(difference_N.std() / np.sqrt(len(difference_N)))
    each = []
    for m in chosen:
        metric = measured.metrics[m]
        value = values_t_SM[:, m].mean() - values_b_RM[:, m].mean()
        each.append(
            {
                **metric.columns(),
                "accuracy_baseline": number(values_b_RM[:, 0].mean()),
                "accuracy_treatment": number(values_t_SM[:, 0].mean()),
                "sampling_sd": linear_sd if metric.name == "accuracy" else number(effect_BM[:, m].std(ddof=1)),
                "sampling_bias": number(effect_BM[:, m].mean() - value),
                "label_difference": _label_difference(measured, metric, treatment),
            }
        )
    base = {**about(runs, treatment, options), "analysis": "fairness"}
    values = (values_b_RM[:, chosen], values_t_SM[:, chosen])
    return list(tested(base, each, contrast=contrast, conditions=(baseline, treatment), values=values).rows)


def _label_difference(measured: Measured, metric: Metric, condition: Condition) -> float | None:
    if metric.name != _DPD or metric.feature is None:
        return None
    return measured.label_difference.get((condition.key["dataset_id"], metric.feature))
