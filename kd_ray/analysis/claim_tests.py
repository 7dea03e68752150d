"""Tests of the claims that a sweep file declares before training."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kd_ray.analysis.chance import MIN_CELL
from kd_ray.analysis.conditions import Condition
from kd_ray.analysis.contrast import MIN_RUNS, Options, Values, about, number, variance_parts
from kd_ray.analysis.fairness_comparisons import measure_samples
from kd_ray.analysis.measures import ABOUT_FAIRNESS, OF_GROUPS, Measured, standing
from kd_ray.analysis.ordered import exchange_floor, orders_within, rank_exchange
from kd_ray.analysis.study import SCRATCH, TEACHER, Study
from kd_ray.analysis.uncertainty import Certainty, SampleNoise, certainty
from kd_ray.errors import InvalidInputError
from kd_ray.metrics.arrays import FloatArray
from kd_ray.results.comparison_schema import Comparison
from kd_ray.sweep.claims import Claim


@dataclass(frozen=True, kw_only=True)
class Declared:
    """A claim, and when it was declared according to the manifest."""

    claim: Claim
    declared_at: str
    """UTC, ISO 8601."""
    num_complete: int
    """Trials of the sweep that were complete at that time; 0 means that the claim was declared before training."""
    num_withdrawn: int = 0
    """Claims that this sweep declared and withdrew."""


def declared_rows(study: Study, measured: Measured, declared: Sequence[Declared], options: Options) -> list[Comparison]:
    """A row for each claim, with its p. If these trials cannot answer the claim, p is undefined and `held_back` gives the reason."""
    return [_row(study, measured, it.claim, options) for it in declared]


def _row(study: Study, measured: Measured, claim: Claim, options: Options) -> Comparison:
    chosen = [
        it
        for it in study.distilled
        if claim.chooses(
            temperature=it.temperature,
            alpha=it.axes["alpha"],
            t_squared=it.axes["t_squared"],
            objective=it.axes["objective"],
            settings=dict(it.settings),
        )
    ]
    contrast = SCRATCH if claim.against == "scratch" else TEACHER
    if claim.metric in ABOUT_FAIRNESS:
        chosen = [kept for it in chosen if (kept := standing(study, it)) is not None]
    first = chosen[0] if chosen else study.distilled[0]
    base = {
        **about(study, first, options),
        "temperature": first.temperature if len(chosen) == 1 else None,
        "analysis": "claim",
        "contrast": None if claim.trend else contrast,
        "condition": first.label if len(chosen) == 1 else f"{len(chosen)} conditions",
        "metric": claim.metric,
        "sensitive_feature": claim.feature,
        "class_name": claim.class_name,
        "claim": claim.text(),
    }
    if not chosen:
        return Comparison(**base, held_back="no complete condition that did not collapse")
    if claim.trend:
        return _trend(study, measured, claim, chosen, base)
    return _difference(study, measured, claim, contrast, chosen, base, options)


def _difference(
    study: Study,
    measured: Measured,
    claim: Claim,
    contrast: str,
    chosen: Sequence[Condition],
    base: dict[str, Any],
    options: Options,
) -> Comparison:
    baselines = [study.baseline(contrast, it) for it in chosen]
    baseline = baselines[0]
    if baseline is None or any(it is not baseline for it in baselines):
        return Comparison(**base, held_back="its conditions have no baseline in common")
    if claim.metric in ABOUT_FAIRNESS:
        baseline = standing(study, baseline)
        if baseline is None:
            return Comparison(**base, held_back="every run of the baseline collapsed")
    treatment = _pooled(chosen)
    values = _values(study, measured, claim)
    means = [values(it).mean(axis=0) for it in (baseline, treatment)]
    effect_M = means[1] - means[0]
    parts = variance_parts(study, contrast, baseline, treatment, values)
    samples = _samples(study, measured, claim, (baseline, treatment))
    size_M = np.maximum(np.abs(means[0]), np.abs(means[1]))
    sure = certainty(effect_M, parts, samples, level=options.level, scale_M=size_M)
    p = p_of_claim(claim, effect_M, sure)
    row = Comparison(
        **{
            **base,
            "n_baseline": baseline.n,
            "n_treatment": treatment.n,
            "mean_baseline": number(means[0][0]),
            "mean_treatment": number(means[1][0]),
            "effect": number(effect_M[0]),
            "ci_total_low": number(sure.low_M[0]),
            "ci_total_high": number(sure.high_M[0]),
            "standard_error": number(sure.se_M[0]),
            "df_claim": number(sure.df_M[0]),
            "test": "equivalence" if claim.margin else "welch_t",
            "p": number(p),
            "p_claim": number(p),
            "smallest_cell": None if claim.feature is None else _cell(measured, claim, treatment),
        }
    )
    if min(baseline.n, treatment.n) < MIN_RUNS:
        return row.but(p_claim=None, held_back=f"fewer than {MIN_RUNS} runs on a side")
    if row.smallest_cell is not None and row.smallest_cell < MIN_CELL:
        return row.but(p_claim=None, held_back="small cells")
    if claim.metric in OF_GROUPS and claim.margin is None:
        return _beyond_chance(study, measured, claim, contrast, (baseline, treatment), row, options)
    return row


def _beyond_chance(
    study: Study,
    measured: Measured,
    claim: Claim,
    contrast: str,
    conditions: tuple[Condition, Condition],
    row: Comparison,
    options: Options,
) -> Comparison:
    """A difference between groups must also exceed its chance levels."""
    place = measured.place(claim.metric, claim.feature)
    assert place is not None

    def excess(condition: Condition) -> FloatArray:
        return (measured.of(condition) - measured.chance(condition))[:, [place]]

    baseline, treatment = conditions
    means = [excess(it).mean(axis=0) for it in conditions]
    parts = variance_parts(study, contrast, baseline, treatment, excess)
    samples = _samples(study, measured, claim, conditions)
    sure = certainty(means[1] - means[0], parts, samples, level=options.level, scale_M=np.ones(1))
    p = p_of_claim(claim, means[1] - means[0], sure)
    same_sign = (means[1] - means[0])[0] * (row.effect or 0.0) > 0
    if row.p_claim is None or np.isnan(p):
        return row.but(p_claim=None)
    return row.but(p_claim=max(row.p_claim, p) if same_sign else 1.0)


def p_of_claim(claim: Claim, effect_M: FloatArray, sure: Certainty) -> float:
    """p of the null hypothesis, the opposite of the claim. Equivalence: the larger p of two one-sided tests (Schuirmann 1987)."""
    margin = claim.margin or 0.0
    match claim.direction:
        case "different":
            p_M = sure.p_two_sided(effect_M)
        case "higher":
            p_M = sure.p_beyond(effect_M, margin, sign=1)
        case "lower":
            p_M = sure.p_beyond(effect_M, -margin, sign=-1)
        case "not_lower":
            p_M = sure.p_beyond(effect_M, -margin, sign=1)
        case "not_higher":
            p_M = sure.p_beyond(effect_M, margin, sign=-1)
        case _:
            p_M = np.maximum(sure.p_beyond(effect_M, -margin, sign=1), sure.p_beyond(effect_M, margin, sign=-1))
    return float(p_M[0])


def _trend(
    study: Study, measured: Measured, claim: Claim, chosen: Sequence[Condition], base: dict[str, Any]
) -> Comparison:
    values = _values(study, measured, claim)
    values_N = np.concatenate([values(it)[:, 0] for it in chosen])
    temperatures_N = np.concatenate([np.full(it.n, it.temperature) for it in chosen])
    seeds_N = np.unique([str(seed) for it in chosen for seed in it.seeds], return_inverse=True)[1]
    orders_WN = orders_within(seeds_N)
    sign = 1.0 if claim.direction == "rises" else -1.0
    rho, p = rank_exchange(temperatures_N, values_N, orders_WN, sign=sign)
    if claim.metric in OF_GROUPS:
        place = measured.place(claim.metric, claim.feature)
        chance_N = np.concatenate([measured.chance(it)[:, place] for it in chosen])
        p = max(p, rank_exchange(temperatures_N, values_N - chance_N, orders_WN, sign=sign)[1])
    cell = None if claim.feature is None else _cell(measured, claim, chosen[0])
    row = Comparison(
        **{
            **base,
            "n_treatment": len(values_N),
            "effect": rho,
            "test": "spearman",
            "p": p,
            "p_permutation": p,
            "p_permutation_floor": exchange_floor(temperatures_N, seeds_N) / 2,
            "p_claim": p,
            "smallest_cell": cell,
        }
    )
    if min(it.n for it in chosen) < MIN_RUNS:
        return row.but(p_claim=None, held_back=f"fewer than {MIN_RUNS} runs at a temperature")
    if cell is not None and cell < MIN_CELL:
        return row.but(p_claim=None, held_back="small cells")
    return row


def _values(study: Study, measured: Measured, claim: Claim) -> Values:
    """One quantity, (R, 1)."""
    if claim.metric == "class_accuracy":
        if claim.class_name not in study.class_names:
            raise InvalidInputError(
                f"sweep {study.sweep}: claims: class {claim.class_name!r} is not a class of {study.dataset}; "
                f"valid: {', '.join(study.class_names[:20])}"
            )
        index = study.class_names.index(str(claim.class_name))
        return lambda condition: condition.over_runs(study.class_accuracy_TC[:, [index]])
    place = measured.place(claim.metric, claim.feature)
    if place is None:
        raise InvalidInputError(
            f"sweep {study.sweep}: claims: {claim.metric} of {claim.feature!r} is not in the tables; "
            f"valid features: {', '.join(it.feature for it in study.fairness) or 'none'}"
        )
    return lambda condition: measured.of(condition)[:, [place]]


def _samples(
    study: Study, measured: Measured, claim: Claim, conditions: tuple[Condition, Condition]
) -> SampleNoise | None:
    if claim.metric == "class_accuracy":
        dataset_id = conditions[1].axes["dataset_id"]
        labels_N = study.test_sets[dataset_id].labels_N
        chosen_N = labels_N == study.class_names.index(str(claim.class_name))
        sides = [study.correct(it)[:, chosen_N] for it in conditions]
        n = int(chosen_N.sum())
        sd = (sides[1].mean(axis=0) - sides[0].mean(axis=0)).std() / np.sqrt(max(n, 1))
        return SampleNoise(sd_M=np.array([sd]), shared_M=np.zeros(1), df=float(n - 1))
    place = measured.place(claim.metric, claim.feature)
    assert place is not None
    return measure_samples(study, measured, conditions, [place])


def _cell(measured: Measured, claim: Claim, condition: Condition) -> int | None:
    place = measured.place(claim.metric, claim.feature)
    return None if place is None else measured.smallest_cell(condition, place)


def _pooled(conditions: Sequence[Condition]) -> Condition:
    """Several conditions as one: the runs of a seed become one run, their mean."""
    first = conditions[0]
    if len(conditions) == 1:
        return first
    rows: dict[Any, list[np.ndarray[Any, Any]]] = {}
    teachers: dict[Any, list[str]] = {}
    for condition in conditions:
        for seed, run, taught in zip(condition.seeds, condition.runs, condition.teachers, strict=True):
            rows.setdefault(seed, []).append(run)
            teachers.setdefault(seed, []).extend(it for it in taught if it not in teachers.get(seed, []))
    return first.merged(
        list(rows), [np.concatenate(it) for it in rows.values()], [tuple(it) for it in teachers.values()]
    )
