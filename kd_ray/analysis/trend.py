"""Trends with temperature, below and above a temperature at which they may turn.

The temperature `split` belongs to both sides: where a curve turns, the turning point ends the one branch and begins the other. The
exchange of temperatures within seeds decides: it is right however runs of one seed go together. A difference between groups has a trend
only where what exceeds its chance level has one too. Collapsed runs stay out.
"""

import numpy as np

from kd_ray.analysis.chance import MIN_CELL
from kd_ray.analysis.conditions import Condition, make_series
from kd_ray.analysis.contrast import MIN_RUNS, Options, about, number
from kd_ray.analysis.measures import ABOUT_FAIRNESS, OF_GROUPS, Measured, standing
from kd_ray.analysis.ordered import exchange_floor, orders_within, rank_exchange, trends
from kd_ray.analysis.study import Study
from kd_ray.metrics.arrays import FloatArray, IntArray
from kd_ray.results.comparison_schema import Comparison

LOW, HIGH = "temperature_low", "temperature_high"


def temperature_trends(study: Study, measured: Measured, options: Options) -> list[Comparison]:
    """Rows of each metric, side of the split, and test. Spearman's row carries the p of a claim."""
    rows = []
    for series in make_series(study.conditions):
        for side in (LOW, HIGH):
            chosen = [it for it in series.conditions if _is_on(side, it.temperature or 0.0, options.split)]
            for is_about_fairness in (False, True):
                kept = [it for c in chosen if (it := standing(study, c) if is_about_fairness else c) is not None]
                if len({it.temperature for it in kept}) > 1:
                    rows += _side(study, measured, kept, side, options, is_about_fairness=is_about_fairness)
    return rows


def _is_on(side: str, temperature: float, split: float) -> bool:
    return temperature <= split if side == LOW else temperature >= split


def _side(
    study: Study,
    measured: Measured,
    chosen: list[Condition],
    side: str,
    options: Options,
    *,
    is_about_fairness: bool,
) -> list[Comparison]:
    values_NM = np.concatenate([measured.of(condition) for condition in chosen])
    excess_NM = values_NM - np.concatenate([measured.chance(condition) for condition in chosen])
    temperatures_N = np.concatenate([np.full(it.n, it.temperature) for it in chosen])
    names = [str(seed) for condition in chosen for seed in condition.seeds]
    seeds_N = np.unique(names, return_inverse=True)[1]
    orders_WN = orders_within(seeds_N)
    words = f"T={temperatures_N.min():g}…{temperatures_N.max():g}"
    base = {
        **about(study, chosen[0], options),
        "temperature": None,
        "condition": ", ".join([words, *chosen[0].label.split(", ")[1:]]),
        "analysis": "trend",
        "contrast": side,
        "n_treatment": len(temperatures_N),
        "p_permutation_floor": exchange_floor(temperatures_N, seeds_N),
        "flags": tuple(["mixed_devices"] if len(frozenset().union(*(it.devices for it in chosen))) > 1 else []),
    }
    can_claim = min(it.n for it in chosen) >= MIN_RUNS
    rows = []
    for m, measure in enumerate(measured.measures):
        if (measure.name in ABOUT_FAIRNESS) != is_about_fairness:
            continue
        cell = measured.smallest_cell(chosen[0], m)
        for found in trends(temperatures_N, values_NM[:, m], orders_WN, level=options.level):
            row = Comparison(
                **{
                    **base,
                    **measure.columns(),
                    "effect": found.effect,
                    "ci_low": number(found.low),
                    "ci_high": number(found.high),
                    "test": found.test,
                    "statistic": number(found.statistic),
                    "p": found.p,
                    "p_permutation": number(found.p_exchange),
                    "smallest_cell": cell,
                }
            )
            if found.test == "spearman" and can_claim:
                p_excess = (
                    _excess(temperatures_N, excess_NM[:, m], found.effect, orders_WN)
                    if measure.name in OF_GROUPS
                    else 0.0
                )
                row = row.but(p_claim=max(found.p_exchange, p_excess))
            if cell is not None and cell < MIN_CELL:
                row = row.but(p_claim=None, held_back="small cells")
            rows.append(row)
    return rows


def _excess(temperatures_N: FloatArray, excess_N: FloatArray, effect: float, orders_WN: IntArray) -> float:
    """p of the trend of what exceeds the chance level; 1 where it goes the other way."""
    rho, p = rank_exchange(temperatures_N, excess_N, orders_WN)
    return p if rho * effect > 0 else 1.0
