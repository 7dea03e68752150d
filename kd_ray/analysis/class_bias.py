"""Which classes does distillation treat differently? #SC (scratch against distilled) and #TC (teacher against distilled), class by class.

H0 of Mohammadshahi & Ioannou: b^c / b^M is the same for both, b^c being the accuracy on class c and b^M overall; Welch's t-test over the
seeds. Beside their count of rejections stand the counts after correction, and what would be counted if nothing differed.
"""

import numpy as np

from kd_ray.analysis.comparisons import Comparison
from kd_ray.analysis.contrast import Options, about, corrected, number, tested
from kd_ray.analysis.power import rejection_rate
from kd_ray.analysis.runs import SCRATCH, TEACHER, Condition, SweepRuns
from kd_ray.errors import InvalidInputError
from kd_ray.metrics.arrays import FloatArray, IntArray


def class_bias(runs: SweepRuns, options: Options) -> list[Comparison]:
    """A row for each class, contrast and distilled condition, and one with their counts."""
    found: list[Comparison] = []
    for treatment in runs.distilled:
        for contrast in (SCRATCH, TEACHER):
            baseline = runs.baseline(contrast, treatment)
            if baseline is not None:
                found += _contrast(runs, contrast, baseline, treatment, options)
    return found


def normalised(class_RC: FloatArray, overall_R: FloatArray, options: Options) -> FloatArray:
    """The tested quantity, (R, C): class accuracy relative to overall accuracy, both over R runs."""
    reference_R = overall_R if options.overall == "per_run" else np.full_like(overall_R, overall_R.mean())
    return class_RC / reference_R[:, None] if options.normalise == "ratio" else class_RC - reference_R[:, None]


def _contrast(
    runs: SweepRuns, contrast: str, baseline: Condition, treatment: Condition, options: Options
) -> list[Comparison]:
    dataset_id = treatment.key["dataset_id"]
    names = runs.class_names[dataset_id]
    accuracy = [_accuracy(runs, it, dataset_id) for it in (baseline, treatment)]
    values = [_values(runs, it, dataset_id, options) for it in (baseline, treatment)]
    overall = [_overall(runs, it).mean() for it in (baseline, treatment)]
    class_n_C = np.bincount(runs.test_sets[dataset_id].labels_N, minlength=len(names))
    scale = float(overall[0]) if options.normalise == "ratio" else 1.0
    sampling_C = sampling_sd(
        runs.test_sets[dataset_id].labels_N,
        runs.correct(baseline),
        runs.correct(treatment),
        num_classes=len(names),
        normalise=options.normalise,
    )
    base = {
        **about(runs, treatment, options),
        "analysis": "class_bias",
        "metric": "relative_accuracy",
        "normalisation": options.normalise,
        "overall": options.overall,
    }
    each = [
        {
            "class_index": c,
            "class_name": name,
            "class_n": int(class_n_C[c]),
            "accuracy_baseline": number(accuracy[0][c]),
            "accuracy_treatment": number(accuracy[1][c]),
            "sampling_sd": number(sampling_C[c]),
        }
        for c, name in enumerate(names)
    ]
    found = tested(
        base,
        each,
        contrast=contrast,
        conditions=(baseline, treatment),
        values=(values[0], values[1]),
        scale=scale,
    )
    family = f"class_bias {contrast} {treatment.label}"
    rows = corrected(found.rows, family)
    return [_counts(rows, found.exchanges.p_count if found.exchanges else None, overall), *rows]


def _counts(rows: list[Comparison], p_count: float | None, overall: list[FloatArray]) -> Comparison:
    """#SC or #TC of one condition, as one row made from those of its classes."""
    first = rows[0]
    detectable = [row.smallest_detectable for row in rows if row.smallest_detectable is not None]
    uncorrected = [
        row.smallest_detectable_uncorrected for row in rows if row.smallest_detectable_uncorrected is not None
    ]
    beyond = [row.smallest_detectable_new_samples for row in rows if row.smallest_detectable_new_samples is not None]
    counted = first.num_tests or 0
    can = min(first.n_baseline or 0, first.n_treatment or 0) >= 2

    def below(name: str) -> int | None:
        return (
            sum((getattr(row, name) or 0.0) < row.level for row in rows if getattr(row, name) is not None)
            if can
            else None
        )

    return Comparison(
        **{
            **{name: getattr(first, name) for name in _OF_CONDITION},
            "analysis": "class_bias_counts",
            "accuracy_baseline": float(overall[0]),
            "accuracy_treatment": float(overall[1]),
            "test": "welch_t",
            "p_permutation": p_count,
            "num_tests": counted,
            "num_significant": below("p"),
            "num_significant_bh": below("q"),
            "num_significant_holm": below("p_holm"),
            "num_significant_paired": below("q_paired") if first.n_pairs else None,
            "expected_significant": counted * rejection_rate(first.n_baseline or 0, first.n_treatment or 0, first.level)
            if can
            else None,
            "smallest_detectable": float(np.median(detectable)) if detectable else None,
            "smallest_detectable_uncorrected": float(np.median(uncorrected)) if uncorrected else None,
            "smallest_detectable_new_samples": float(np.median(beyond)) if beyond else None,
            "flags": tuple(sorted({flag for row in rows for flag in row.flags})),
        }
    )


_OF_CONDITION = (
    *("sweep", "dataset", "dataset_id", "target", "model", "teacher", "contrast", "family", "role", "objective"),
    *("temperature", "alpha", "t_squared", "settings", "condition", "metric", "n_baseline", "n_treatment", "level"),
    *("normalisation", "overall", "power", "p_permutation_floor", "n_pairs"),
)


def _overall(runs: SweepRuns, condition: Condition) -> FloatArray:
    return condition.over_runs(runs.scalars_TM[:, :1])[:, 0]


def _accuracy(runs: SweepRuns, condition: Condition, dataset_id: str) -> FloatArray:
    return np.asarray(condition.over_runs(runs.class_accuracy[dataset_id]).mean(axis=0))


def _values(runs: SweepRuns, condition: Condition, dataset_id: str, options: Options) -> FloatArray:
    class_RC, overall_R = condition.over_runs(runs.class_accuracy[dataset_id]), _overall(runs, condition)
    if options.normalise == "ratio" and (overall_R == 0).any():
        trial = runs.trials[condition.runs[int((overall_R == 0).argmax())][0]]["trial_id"]
        raise InvalidInputError(
            f"sweep {runs.sweep}: trial {trial} has accuracy 0, so class accuracies relative to it are undefined; "
            "use --normalise difference"
        )
    return normalised(class_RC, overall_R, options)


def sampling_sd(
    labels_N: IntArray, baseline_N: FloatArray, treatment_N: FloatArray, *, num_classes: int, normalise: str
) -> FloatArray:
    """Standard deviation of each class's effect over resamples of the test samples within classes, (C,), by the delta method.

    `baseline_N` and `treatment_N` are the shares of runs that are right about each sample: both sides see the same samples, so what
    they have in common cancels. The effect is that of the table: of the ratio, times the baseline's overall accuracy. NaN for classes
    without samples.
    """
    n_C = np.bincount(labels_N, minlength=num_classes)
    with np.errstate(invalid="ignore", divide="ignore"):
        share_C = n_C / len(labels_N)

        def mean(values_N: FloatArray) -> FloatArray:
            return np.asarray(np.bincount(labels_N, weights=values_N, minlength=num_classes) / n_C)

        b_C, t_C = mean(baseline_N), mean(treatment_N)
        var_b_C = (mean(baseline_N**2) - b_C**2) / n_C
        var_t_C = (mean(treatment_N**2) - t_C**2) / n_C
        cov_C = (mean(baseline_N * treatment_N) - b_C * t_C) / n_C
        overall_b, overall_t = baseline_N.mean(), treatment_N.mean()
        # Derivatives of the effect of class c: by its own accuracies, and by the overall accuracies.
        own_t, own_b = (overall_b / overall_t, -1.0) if normalise == "ratio" else (1.0, -1.0)
        all_t_C = -overall_b * t_C / overall_t**2 if normalise == "ratio" else np.full(num_classes, -1.0)
        all_b_C = b_C / overall_b if normalise == "ratio" else np.full(num_classes, 1.0)
        total_b, total_t = np.nansum(share_C**2 * var_b_C), np.nansum(share_C**2 * var_t_C)
        total = np.nansum(share_C**2 * cov_C)
        variance_C = (
            own_t**2 * var_t_C
            + 2 * own_t * own_b * cov_C
            + own_b**2 * var_b_C
            + all_t_C**2 * total_t
            + 2 * all_t_C * all_b_C * total
            + all_b_C**2 * total_b
            + 2
            * share_C
            * (own_t * all_t_C * var_t_C + (own_t * all_b_C + own_b * all_t_C) * cov_C + own_b * all_b_C * var_b_C)
        )
    return np.asarray(np.sqrt(np.maximum(variance_C, 0)))
