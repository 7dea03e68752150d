"""What the analyses share when they make rows: options, who a row is about, and the tests of M quantities between two conditions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from kd_ray.analysis.comparisons import Comparison
from kd_ray.analysis.power import POWER, detectable_shift
from kd_ray.analysis.runs import SCRATCH, Condition, SweepRuns
from kd_ray.analysis.two_groups import (
    Exchanges,
    benjamini_hochberg,
    exchanges,
    hedges_g,
    holm,
    paired_t,
    pooled_sd,
    welch,
)
from kd_ray.metrics.arrays import FloatArray


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


def about(runs: SweepRuns, treatment: Condition, options: Options) -> dict[str, Any]:
    """The columns that say whom a row is about."""
    names = ("dataset", "dataset_id", "target", "model", "teacher", "objective", "temperature", "alpha", "t_squared")
    return {
        "sweep": runs.sweep,
        **{name: treatment.key[name] for name in names},
        "role": treatment.role,
        "settings": treatment.settings,
        "condition": treatment.label,
        "level": options.level,
    }


def pairs(contrast: str, baseline: Condition, treatment: Condition) -> list[tuple[int, int]]:
    """Runs of both sides that share a seed; none where equal seeds mean nothing to one another.

    A scratch student and a distilled one of the same seed start from the same weights and see the same batches. A teacher and a student of
    one seed do not, but with paired teachers the one taught the other.
    """
    if contrast != SCRATCH and not treatment.has_paired_teachers:
        return []
    of_treatment = {seed: run for run, seed in enumerate(treatment.seeds)}
    return [
        (run, of_treatment[seed])
        for run, seed in enumerate(baseline.seeds)
        if seed is not None and seed in of_treatment
    ]


def flags(contrast: str, baseline: Condition, treatment: Condition) -> tuple[str, ...]:
    """What to know before believing a contrast."""
    n = min(baseline.n, treatment.n)
    found = {
        "n<2": n < 2,
        "n<3": n == 2,
        # In #TC the students of one teacher are no independent samples of what its kind of teacher does to students.
        "shared_teacher": contrast != SCRATCH and treatment.shares_a_teacher,
        "mixed_devices": len(baseline.devices | treatment.devices) > 1,
    }
    return tuple(name for name, holds in found.items() if holds)


@dataclass(frozen=True, kw_only=True, eq=False)
class Tested:
    """M rows of one contrast, before their family is corrected."""

    rows: tuple[Comparison, ...]
    exchanges: Exchanges | None


def tested(
    base: Mapping[str, Any],
    each: Sequence[Mapping[str, Any]],
    *,
    contrast: str,
    conditions: tuple[Condition, Condition],
    values: tuple[FloatArray, FloatArray],
    scale: float = 1.0,
) -> Tested:
    """Compare two conditions in M quantities; `values` are (R, M) and (S, M) over their runs, `each` the columns of each quantity's row."""
    (baseline, treatment), (baseline_RM, treatment_SM) = conditions, values
    level = base["level"]
    main = welch(baseline_RM, treatment_SM, level=level)
    both = pairs(contrast, baseline, treatment)
    pair = paired_t(baseline_RM[[i for i, _ in both]], treatment_SM[[j for _, j in both]], level=level)
    exchanged = exchanges(baseline_RM, treatment_SM, level=level)
    sd = [_sd(baseline_RM), _sd(treatment_SM)]
    shift_M = detectable_shift(baseline.n, treatment.n, level) * pooled_sd(baseline_RM, treatment_SM) * scale
    known = flags(contrast, baseline, treatment)
    g_M = hedges_g(baseline_RM, treatment_SM)
    mean_b_M, mean_t_M = baseline_RM.mean(axis=0), treatment_SM.mean(axis=0)
    rows = []
    for m, columns in enumerate(each):
        own = [
            *known,
            *(["zero_variance"] if main.zero_variance_C[m] else []),
            *(["undefined"] if np.isnan(main.effect_C[m]) else []),
        ]
        rows.append(
            Comparison(
                **{
                    **base,
                    "contrast": contrast,
                    "n_baseline": baseline.n,
                    "n_treatment": treatment.n,
                    "mean_baseline": number(mean_b_M[m]),
                    "mean_treatment": number(mean_t_M[m]),
                    "sd_baseline": number(sd[0][m]),
                    "sd_treatment": number(sd[1][m]),
                    "effect": number(main.effect_C[m] * scale),
                    "effect_scale": scale,
                    "ci_low": number(main.low_C[m] * scale),
                    "ci_high": number(main.high_C[m] * scale),
                    "hedges_g": number(g_M[m]),
                    "test": "welch_t",
                    "statistic": number(main.statistic_C[m]),
                    "df": number(main.df_C[m]),
                    "p": number(main.p_C[m]),
                    "n_pairs": len(both) or None,
                    "p_paired": number(pair.p_C[m]),
                    "p_permutation": number(exchanged.p_C[m]) if exchanged else None,
                    "p_permutation_floor": exchanged.floor if exchanged else None,
                    "power": POWER,
                    "smallest_detectable_uncorrected": number(shift_M[m]),
                    "flags": tuple(own),
                    **columns,
                }
            )
        )
    return Tested(rows=tuple(rows), exchanges=exchanged)


def corrected(rows: Sequence[Comparison], family: str) -> list[Comparison]:
    """The rows with q, p_holm and q_paired over all of them, and the shift that is detectable then."""
    q_M, holm_M = benjamini_hochberg(_column(rows, "p")), holm(_column(rows, "p"))
    paired_M = benjamini_hochberg(_column(rows, "p_paired"))
    num_tests = int(np.isfinite(q_M).sum())
    return [
        replace(
            row,
            family=family,
            num_tests=num_tests,
            q=number(q_M[m]),
            p_holm=number(holm_M[m]),
            q_paired=number(paired_M[m]),
            **_detectable(row, num_tests),
        )
        for m, row in enumerate(rows)
    ]


def _detectable(row: Comparison, num_tests: int) -> dict[str, Any]:
    """With all other hypotheses null Holm's first step decides, which is Bonferroni's."""
    shift = row.smallest_detectable_uncorrected
    if shift is None or row.n_baseline is None or row.n_treatment is None or not num_tests:
        return {}
    ratio = detectable_shift(row.n_baseline, row.n_treatment, row.level / num_tests)
    here = shift * ratio / detectable_shift(row.n_baseline, row.n_treatment, row.level)
    # Noise of runs and of test samples add up; the second does not shrink with seeds.
    se = here / ratio * (1 / row.n_baseline + 1 / row.n_treatment) ** 0.5
    beyond = None if row.sampling_sd is None or se == 0 else here * (1 + (row.sampling_sd / se) ** 2) ** 0.5
    return {"smallest_detectable": here, "smallest_detectable_new_samples": beyond}


def _column(rows: Sequence[Comparison], name: str) -> FloatArray:
    return np.array([getattr(row, name) for row in rows], dtype=np.float64)


def _sd(values_RM: FloatArray) -> FloatArray:
    return values_RM.std(axis=0, ddof=1) if len(values_RM) > 1 else np.full(values_RM.shape[1], np.nan)
