"""Accuracy, disagreement and fairness of every condition, and how far distilled students are from scratch students and from teachers.

Two kinds of noise are stated apart: between seeds (sd, interval, tests) and between test samples (`sampling_sd`). The first says whether
another training run would show it, the second whether other samples would. `ci_total_low` and `ci_total_high` hold both.

A difference between groups is claimed only where three things hold: the groups that decide it are not tiny (`MIN_CELL`), the difference
between the conditions stands, and so does the difference of what exceeds the chance levels (`chance.py`). Collapsed runs stay out.
"""

from typing import Any

import numpy as np

from kd_ray.analysis.chance import MIN_CELL
from kd_ray.analysis.conditions import Condition
from kd_ray.analysis.contrast import Options, about, number, tested
from kd_ray.analysis.measures import ABOUT_FAIRNESS, OF_GROUPS, Measured, standing
from kd_ray.analysis.study import CONTRASTS, Study, spread
from kd_ray.analysis.two_groups import mean_interval
from kd_ray.analysis.uncertainty import SampleNoise
from kd_ray.metrics.arrays import FloatArray
from kd_ray.results.comparison_schema import Comparison

_DPD = "demographic_parity_difference"


def fairness(study: Study, measured: Measured, options: Options) -> list[Comparison]:
    """A row for each condition and metric, then one for each contrast, distilled condition and metric."""
    rows = [row for condition in study.conditions for row in _levels(study, measured, condition, options)]
    for contrast in CONTRASTS:
        for treatment in study.distilled:
            baseline = study.baseline(contrast, treatment)
            if baseline is not None:
                rows += _contrast(study, measured, contrast, baseline, treatment, options)
    return rows


def _levels(study: Study, measured: Measured, condition: Condition, options: Options) -> list[Comparison]:
    values_RM = measured.of(condition)
    low_M, high_M = mean_interval(values_RM, level=options.level)
    base = {**about(study, condition, options), "analysis": "condition"}
    accuracy = spread(values_RM[:, 0]).mean
    sampling_M = _sampling(study, measured, condition)
    draws_M = measured.draws(condition).mean(axis=(0, 1))
    chance_M, chance_sd_M = (
        measured.chance(condition).mean(axis=0),
        condition.over_runs(measured.chance_sd_TM).mean(axis=0),
    )
    shrunken_M = condition.over_runs(measured.shrunken_TM).mean(axis=0)
    rows = []
    for m, measure in enumerate(measured.measures):
        found = spread(values_RM[:, m])
        if not found.n:
            continue
        bias = draws_M[m] - found.mean
        rows.append(
            Comparison(
                **{
                    **base,
                    **measure.columns(),
                    "n_treatment": found.n,
                    "mean_treatment": number(found.mean),
                    "sd_treatment": number(found.sd),
                    "accuracy_treatment": number(accuracy),
                    "ci_low": number(low_M[m]),
                    "ci_high": number(high_M[m]),
                    "sampling_sd": number(sampling_M[m]),
                    "sampling_bias": number(bias),
                    "bias_corrected": number(found.mean - bias) if measure.name in OF_GROUPS else None,
                    "shrunken": number(shrunken_M[m]),
                    "chance_level": number(chance_M[m]),
                    "chance_sd": number(chance_sd_M[m]),
                    "smallest_cell": measured.smallest_cell(condition, m),
                    "label_difference": _label_difference(measured, m, condition),
                    "flags": (
                        *(["n<2"] if condition.n < 2 else []),
                        *(["undefined"] if found.n < condition.n else []),
                        *(["collapsed"] if any(int(row) in study.collapsed for row in condition.trials) else []),
                    ),
                }
            )
        )
    return rows


def _sampling(study: Study, measured: Measured, condition: Condition) -> FloatArray:
    """Standard deviation of the mean over runs under other test samples, (M,); NaN where it is unknown."""
    sd_M = measured.draws(condition).mean(axis=0).std(axis=0, ddof=1)
    right_N = study.correct(condition).mean(axis=0)
    sd_M[0] = right_N.std() / np.sqrt(len(right_N))
    return np.asarray(sd_M)


def _contrast(
    study: Study,
    measured: Measured,
    contrast: str,
    baseline: Condition,
    treatment: Condition,
    options: Options,
) -> list[Comparison]:
    """Rows of one distilled condition. Fairness is compared without collapsed runs, everything else with all."""
    everything = _some_measures(measured, (baseline, treatment), about_fairness=False)
    rows = _compared(study, measured, contrast, (baseline, treatment), everything, options)
    upright = [standing(study, it) for it in (baseline, treatment)]
    chosen = _some_measures(measured, (baseline, treatment), about_fairness=True)
    if upright[0] is None or upright[1] is None:
        base = {**about(study, treatment, options), "analysis": "fairness", "contrast": contrast}
        return rows + [
            Comparison(**{**base, **measured.measures[m].columns(), "held_back": "collapsed", "flags": ("collapsed",)})
            for m in chosen
        ]
    return rows + _compared(study, measured, contrast, (upright[0], upright[1]), chosen, options)


def _some_measures(measured: Measured, conditions: tuple[Condition, Condition], *, about_fairness: bool) -> list[int]:
    """Measures that both sides have: a teacher does not disagree with itself."""
    return [
        m
        for m, measure in enumerate(measured.measures)
        if (measure.name in ABOUT_FAIRNESS) == about_fairness
        and not any(np.isnan(measured.of(it)[:, m]).all() for it in conditions)
    ]


def _compared(
    study: Study,
    measured: Measured,
    contrast: str,
    conditions: tuple[Condition, Condition],
    chosen: list[int],
    options: Options,
) -> list[Comparison]:
    if not chosen:
        return []
    baseline, treatment = conditions
    samples = measure_samples(study, measured, conditions, chosen)
    values_b_RM, values_t_SM = measured.of(baseline)[:, chosen], measured.of(treatment)[:, chosen]
    effect_M = values_t_SM.mean(axis=0) - values_b_RM.mean(axis=0)
    draws_M = (measured.draws(treatment).mean(axis=(0, 1)) - measured.draws(baseline).mean(axis=(0, 1)))[chosen]
    chance_M = [measured.chance(it).mean(axis=0) for it in conditions]
    each: list[dict[str, Any]] = [
        {
            **measured.measures[m].columns(),
            "accuracy_baseline": number(measured.of(baseline)[:, 0].mean()),
            "accuracy_treatment": number(measured.of(treatment)[:, 0].mean()),
            "sampling_sd": number(samples.sd_M[i]),
            "sampling_bias": number(draws_M[i] - effect_M[i]),
            "label_difference": _label_difference(measured, m, treatment),
            "chance_baseline": number(chance_M[0][m]),
            "chance_level": number(chance_M[1][m]),
            "smallest_cell": measured.smallest_cell(treatment, m),
        }
        for i, m in enumerate(chosen)
    ]
    base = {**about(study, treatment, options), "analysis": "fairness"}
    found = tested(
        study,
        base,
        each,
        contrast=contrast,
        conditions=conditions,
        values=lambda condition: measured.of(condition)[:, chosen],
        samples=samples,
    )
    excess = tested(
        study,
        base,
        each,
        contrast=contrast,
        conditions=conditions,
        values=lambda condition: (measured.of(condition) - measured.chance(condition))[:, chosen],
        samples=samples,
    )
    return [
        claimable(row, beside) if measured.measures[m].name in OF_GROUPS else row
        for m, row, beside in zip(chosen, found.rows, excess.rows, strict=True)
    ]


def claimable(row: Comparison, excess: Comparison) -> Comparison:
    """A difference between groups held to the same test of what exceeds its chance levels; held back where its groups are tiny."""
    if row.smallest_cell is not None and row.smallest_cell < MIN_CELL:
        return row.but(p_claim=None, held_back="small cells")
    if row.p_claim is None or excess.p_claim is None or row.effect is None or excess.effect is None:
        return row.but(p_claim=None)
    if row.effect * excess.effect <= 0:
        return row.but(p_claim=1.0, flags=(*row.flags, "chance_level"))
    flag = ("chance_level",) if row.p_claim < row.level <= excess.p_claim else ()
    return row.but(p_claim=max(row.p_claim, excess.p_claim), flags=(*row.flags, *flag))


def measure_samples(
    study: Study, measured: Measured, conditions: tuple[Condition, Condition], chosen: list[int]
) -> SampleNoise:
    """How far the test samples move the difference of each chosen measure."""
    draws_RBM = [measured.draws(it)[:, :, chosen] for it in conditions]
    sd_M = (draws_RBM[1].mean(axis=0) - draws_RBM[0].mean(axis=0)).std(axis=0, ddof=1)
    shared_M = np.zeros(len(chosen))
    for side in draws_RBM:
        if len(side) > 1:
            shared_M += (side.var(axis=1, ddof=1).mean(axis=0) - side.mean(axis=0).var(axis=0, ddof=1)) / (
                len(side) - 1
            )
    num_test = len(study.test_sets[conditions[1].axes["dataset_id"]].labels_N)
    rights = [study.correct(it) for it in conditions]
    linear: dict[str, list[FloatArray]] = {"accuracy": rights}
    for i, m in enumerate(chosen):
        sides = linear.get(measured.measures[m].name)
        if sides is None:
            continue
        sd_M[i] = (sides[1].mean(axis=0) - sides[0].mean(axis=0)).std() / np.sqrt(num_test)
        shared_M[i] = sum(
            (side.var(axis=1).mean() - side.mean(axis=0).var()) / (len(side) - 1) / num_test
            for side in sides
            if len(side) > 1
        )
    return SampleNoise(sd_M=np.asarray(sd_M), shared_M=np.maximum(shared_M, 0.0), df=float(num_test - 1))


def _label_difference(measured: Measured, m: int, condition: Condition) -> float | None:
    measure = measured.measures[m]
    if measure.name != _DPD or measure.feature is None:
        return None
    return measured.label_difference.get((condition.axes["dataset_id"], measure.feature))
