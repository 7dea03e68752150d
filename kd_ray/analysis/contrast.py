"""What the analyses share when they make rows: options, who a row is about, and the tests of M quantities between two conditions."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from kd_ray.analysis.conditions import Condition, taught_by
from kd_ray.analysis.study import SCRATCH, TEACHER, Study
from kd_ray.analysis.two_groups import Exchanges, exchanges, hedges_g, paired_t, welch
from kd_ray.analysis.uncertainty import Certainty, Part, SampleNoise, certainty, runs_part
from kd_ray.metrics.arrays import FloatArray
from kd_ray.results.comparison_schema import Comparison

MIN_RUNS = 3
"""Runs on a side below which nothing is claimed: two runs do not tell how far runs are apart."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a person can choose about a comparison."""

    normalise: Literal["ratio", "difference"] = "ratio"
    """Class bias: class accuracy divided by overall accuracy (Mohammadshahi & Ioannou), or minus it (as Hooker et al. 2019)."""
    overall: Literal["per_run", "mean"] = "per_run"
    """Overall accuracy of each run, or its mean over the runs of the condition."""
    level: float = 0.05
    """Significance level; intervals cover 1 - level."""
    split: float = 10.0
    """Temperature that ends the low trend and begins the high one; it belongs to both."""


def number(value: Any) -> float | None:
    """As a table keeps it: NaN and infinity are None."""
    return float(value) if np.isfinite(value) else None


def numbers(values_M: FloatArray) -> list[float | None]:
    """The same of every value of an array."""
    return [it if math.isfinite(it) else None for it in values_M.tolist()]


def about(study: Study, treatment: Condition, options: Options) -> dict[str, Any]:
    """The columns that name the sweep and the condition of a row."""
    return {
        "sweep": study.sweep,
        **treatment.axes,
        "temperature": treatment.temperature,
        "role": treatment.role,
        "settings": dict(treatment.settings),
        "condition": treatment.label,
        "level": options.level,
        "scope": study.scope(treatment),
    }


def pairs(contrast: str, baseline: Condition, treatment: Condition) -> list[tuple[int, int]]:
    """Runs of both sides that share a seed; none where equal seeds mean nothing to one another.

    A scratch student and a distilled one of the same seed start from the same weights and see the same batches. A teacher and a student
    of one seed do not, but with paired teachers the one taught the other.
    """
    if contrast != SCRATCH and not treatment.has_paired_teachers:
        return []
    of_treatment = {seed: run for run, seed in enumerate(treatment.seeds)}
    return [
        (run, of_treatment[seed])
        for run, seed in enumerate(baseline.seeds)
        if seed is not None and seed in of_treatment
    ]


def flags(baseline: Condition, treatment: Condition) -> tuple[str, ...]:
    """What to know before believing a contrast."""
    n = min(baseline.n, treatment.n)
    taught = [teacher for run in treatment.teachers for teacher in run]
    found = {
        "n<2": n < 2,
        "n<3": n == 2,
        # Students of one teacher are no independent samples of what its kind of teacher does to students.
        "shared_teacher": len(set(taught)) < len(taught),
        "mixed_devices": len(baseline.devices | treatment.devices) > 1,
    }
    return tuple(name for name, holds in found.items() if holds)


Values = Callable[[Condition], FloatArray]
"""Values of the runs of a condition, (R, M)."""


def by_teacher(study: Study, condition: Condition) -> tuple[list[str], Condition]:
    """The teachers of a distilled condition, and the condition with the students of each teacher as one run."""
    of_teacher: dict[str, list[int]] = {}
    for row in condition.trials:
        of_teacher.setdefault(str(taught_by(study.trials[int(row)])), []).append(int(row))
    grouped = condition.regrouped([np.array(rows) for rows in of_teacher.values()])
    return list(of_teacher), grouped


def variance_parts(
    study: Study, contrast: str, baseline: Condition, treatment: Condition, values: Values
) -> list[Part]:
    """The independent parts of the variance of a difference between means over runs.

    Against scratch: runs of both sides, and teachers where at least three taught the same seeds (with paired teachers their spread is in
    that of the runs). Against teachers: the difference between each teacher and the mean of its students, and, unless each has one
    student, the students' seeds.
    """
    if contrast == TEACHER:
        teachers, grouped = by_teacher(study, treatment)
        seed_of = {study.trials[int(run[0])]["trial_id"]: r for r, run in enumerate(baseline.runs)}
        difference_KM = values(grouped) - values(baseline)[[seed_of[it] for it in teachers]]
        parts = [runs_part(difference_KM)]
        return parts if len(teachers) == len(treatment.trials) else [*parts, runs_part(values(treatment))]
    parts = [runs_part(values(baseline)), runs_part(values(treatment))]
    if study.scope(treatment) == "teachers" and not treatment.has_paired_teachers:
        parts.append(runs_part(values(by_teacher(study, treatment)[1])))
    return parts


@dataclass(frozen=True, kw_only=True, eq=False)
class Tested:
    """M rows of one contrast, before their family is corrected."""

    rows: tuple[Comparison, ...]
    exchanges: Exchanges | None
    certainty: Certainty


def tested(
    study: Study,
    base: Mapping[str, Any],
    each: Sequence[Mapping[str, Any]],
    *,
    contrast: str,
    conditions: tuple[Condition, Condition],
    values: Values,
    samples: SampleNoise | None = None,
    scale: float = 1.0,
) -> Tested:
    """Compare two conditions in M quantities; `values` gives those of the runs of a condition, `each` the columns of each quantity's row.

    `samples` is in the unit of the effect, which is the difference times `scale`.
    """
    baseline, treatment = conditions
    baseline_RM, treatment_SM = values(baseline), values(treatment)
    level = base["level"]
    main = welch(baseline_RM, treatment_SM, level=level)
    both = pairs(contrast, baseline, treatment)
    pair = paired_t(baseline_RM[[i for i, _ in both]], treatment_SM[[j for _, j in both]], level=level)
    exchanged = exchanges(baseline_RM, treatment_SM, level=level)
    parts = variance_parts(study, contrast, baseline, treatment, lambda condition: scale * values(condition))
    size_M = scale * np.maximum(np.abs(baseline_RM).max(axis=0), np.abs(treatment_SM).max(axis=0))
    sure = certainty(main.effect_C * scale, parts, samples, level=level, scale_M=size_M)
    p_M = sure.p_two_sided(main.effect_C * scale)
    known = flags(baseline, treatment)
    is_claimable = min(baseline.n, treatment.n) >= MIN_RUNS
    same = {
        **base,
        "contrast": contrast,
        "n_baseline": baseline.n,
        "n_treatment": treatment.n,
        "effect_scale": scale,
        "test": "welch_t",
        "n_pairs": len(both) or None,
        "p_permutation_floor": number(exchanged.floor) if exchanged else None,
    }
    differing = {
        "mean_baseline": baseline_RM.mean(axis=0),
        "mean_treatment": treatment_SM.mean(axis=0),
        "sd_baseline": _sd(baseline_RM),
        "sd_treatment": _sd(treatment_SM),
        "effect": main.effect_C * scale,
        "ci_low": main.low_C * scale,
        "ci_high": main.high_C * scale,
        "ci_total_low": sure.low_M,
        "ci_total_high": sure.high_M,
        "standard_error": sure.se_M,
        "df_claim": sure.df_M,
        "hedges_g": hedges_g(baseline_RM, treatment_SM),
        "statistic": main.statistic_C,
        "df": main.df_C,
        "p": main.p_C,
        "p_paired": pair.p_C,
        **({"p_claim": p_M} if is_claimable else {}),
        **({"p_permutation": exchanged.p_C} if exchanged else {}),
    }
    rows = []
    for columns, zero_variance, *its in zip(
        each, main.zero_variance_C.tolist(), *map(numbers, differing.values()), strict=True
    ):
        own = dict(zip(differing, its, strict=True))
        flagged = [("zero_variance", zero_variance), ("undefined", own["effect"] is None)]
        flags_ = (*known, *(name for name, holds in flagged if holds))
        rows.append(Comparison(**{**same, **own, "flags": flags_, **columns}))
    return Tested(rows=tuple(rows), exchanges=exchanged, certainty=sure)


def _sd(values_RM: FloatArray) -> FloatArray:
    return values_RM.std(axis=0, ddof=1) if len(values_RM) > 1 else np.full(values_RM.shape[1], np.nan)
