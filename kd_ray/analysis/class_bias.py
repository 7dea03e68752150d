"""Which classes does distillation treat differently? #SC (scratch against distilled) and #TC (teacher against distilled), class by class.

H0 of Mohammadshahi & Ioannou: b^c / b^M is the same for both, b^c being the accuracy on class c and b^M overall; Welch's t-test over the
seeds. #SC and #TC count the classes of one condition with p < level, as published, beside what would be counted if nothing differed. What
is established is decided over all classes and conditions of a contrast together (`multiple_testing.py`).
"""

import numpy as np

from kd_ray.analysis.conditions import Condition
from kd_ray.analysis.contrast import Options, about, number, tested
from kd_ray.analysis.power import rejection_rate
from kd_ray.analysis.study import CONTRASTS, Study
from kd_ray.analysis.two_groups import Exchanges
from kd_ray.analysis.uncertainty import SampleNoise
from kd_ray.errors import InvalidInputError
from kd_ray.metrics.arrays import FloatArray, IntArray
from kd_ray.results.comparison_schema import Comparison


def class_bias(study: Study, options: Options) -> list[Comparison]:
    """A row for each class, contrast and distilled condition, and one with their counts."""
    found: list[Comparison] = []
    for treatment in study.distilled:
        for contrast in CONTRASTS:
            baseline = study.baseline(contrast, treatment)
            if baseline is not None:
                found += _contrast(study, contrast, baseline, treatment, options)
    return found


def normalised(class_RC: FloatArray, overall_R: FloatArray, options: Options) -> FloatArray:
    """The tested quantity, (R, C): class accuracy relative to overall accuracy, both over R runs."""
    reference_R = overall_R if options.overall == "per_run" else np.full_like(overall_R, overall_R.mean())
    return class_RC / reference_R[:, None] if options.normalise == "ratio" else class_RC - reference_R[:, None]


def class_samples(study: Study, baseline: Condition, treatment: Condition, *, normalise: str) -> SampleNoise:
    """How far the test samples move the effect on each class."""
    dataset_id = treatment.axes["dataset_id"]
    labels_N, num_classes = study.test_sets[dataset_id].labels_N, len(study.classes[dataset_id].names)
    sides = [study.correct(it) for it in (baseline, treatment)]
    sd_C = sampling_sd(
        labels_N, sides[0].mean(axis=0), sides[1].mean(axis=0), num_classes=num_classes, normalise=normalise
    )
    n_C = np.bincount(labels_N, minlength=num_classes)
    shared_C = np.zeros(num_classes)
    with np.errstate(invalid="ignore", divide="ignore"):
        for right_RN in sides:
            if len(right_RN) > 1:
                mean_RC = np.stack([np.bincount(labels_N, it, minlength=num_classes) / n_C for it in right_RN])
                square_RC = np.stack([np.bincount(labels_N, it**2, minlength=num_classes) / n_C for it in right_RN])
                own_C = (square_RC - mean_RC**2).mean(axis=0)
                share_N = right_RN.mean(axis=0)
                common_C = np.bincount(labels_N, share_N**2, minlength=num_classes) / n_C - mean_RC.mean(axis=0) ** 2
                shared_C += (own_C - common_C) / (len(right_RN) - 1) / n_C
    return SampleNoise(sd_M=sd_C, shared_M=np.maximum(shared_C, 0.0), df=float(np.median(n_C[n_C > 0]) - 1))


def _contrast(
    study: Study, contrast: str, baseline: Condition, treatment: Condition, options: Options
) -> list[Comparison]:
    classes = study.classes[treatment.axes["dataset_id"]]
    num_classes = len(classes.names)
    accuracy_T = study.values("accuracy")

    def values(condition: Condition) -> FloatArray:
        class_RC = condition.over_runs(study.class_accuracy_TC[:, :num_classes])
        overall_R = condition.over_runs(accuracy_T)
        _refuse_zero(study, condition, overall_R, options)
        return normalised(class_RC, overall_R, options)

    class_accuracy = [
        it.over_runs(study.class_accuracy_TC[:, :num_classes]).mean(axis=0) for it in (baseline, treatment)
    ]
    overall = [float(it.over_runs(accuracy_T).mean()) for it in (baseline, treatment)]
    samples = class_samples(study, baseline, treatment, normalise=options.normalise)
    base = {
        **about(study, treatment, options),
        "analysis": "class_bias",
        "metric": "relative_accuracy",
        "normalisation": options.normalise,
        "overall": options.overall,
    }
    each = [
        {
            "class_index": c,
            "class_name": name,
            "class_n": int(classes.n_C[c]),
            "accuracy_baseline": number(class_accuracy[0][c]),
            "accuracy_treatment": number(class_accuracy[1][c]),
            "sampling_sd": number(samples.sd_M[c]),
        }
        for c, name in enumerate(classes.names)
    ]
    found = tested(
        study,
        base,
        each,
        contrast=contrast,
        conditions=(baseline, treatment),
        values=values,
        samples=samples,
        scale=overall[0] if options.normalise == "ratio" else 1.0,
    )
    return [_counts(found.rows, found.exchanges, overall), *found.rows]


def _counts(rows: tuple[Comparison, ...], exchanged: Exchanges | None, overall: list[float]) -> Comparison:
    """#SC or #TC of one condition, as one row made from those of its classes."""
    first = rows[0]
    known = [row.p for row in rows if row.p is not None]
    can = min(first.n_baseline or 0, first.n_treatment or 0) >= 2
    return Comparison(
        **{
            **{name: getattr(first, name) for name in _OF_CONDITION},
            "analysis": "class_bias_counts",
            "accuracy_baseline": overall[0],
            "accuracy_treatment": overall[1],
            "test": "welch_t",
            "p_permutation": number(exchanged.p_count) if exchanged else None,
            "num_tests": len(known),
            "num_significant": sum(p < first.level for p in known) if can else None,
            "expected_significant": len(known)
            * rejection_rate(first.n_baseline or 0, first.n_treatment or 0, first.level)
            if can
            else None,
            "usual_significant": exchanged.usual_count if exchanged else None,
            "flags": tuple(sorted({flag for row in rows for flag in row.flags})),
        }
    )


_OF_CONDITION = (
    *("sweep", "dataset", "dataset_id", "target", "model", "teacher", "contrast", "role", "objective", "scope"),
    *("temperature", "alpha", "t_squared", "settings", "condition", "metric", "n_baseline", "n_treatment", "level"),
    *("normalisation", "overall", "p_permutation_floor", "n_pairs"),
)


def _refuse_zero(study: Study, condition: Condition, overall_R: FloatArray, options: Options) -> None:
    if options.normalise == "ratio" and (overall_R == 0).any():
        trial = study.trials[int(condition.runs[int((overall_R == 0).argmax())][0])]["trial_id"]
        raise InvalidInputError(
            f"sweep {study.sweep}: trial {trial} has accuracy 0, so class accuracies relative to it are undefined; "
            "use --normalise difference"
        )


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
