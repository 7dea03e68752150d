"""Trends with temperature, below and above a temperature at which they may turn.

The temperature `split` belongs to both sides: where a curve turns, the turning point ends the one branch and begins the other.
"""

from collections import defaultdict
from typing import Any

import numpy as np

from kd_ray.analysis.comparisons import Comparison
from kd_ray.analysis.contrast import Options, about, corrected, number
from kd_ray.analysis.fairness import Measured
from kd_ray.analysis.ordered import EXCHANGES, orders_within, trends
from kd_ray.analysis.runs import Condition, SweepRuns

LOW, HIGH = "temperature_low", "temperature_high"


def temperature_trends(runs: SweepRuns, measured: Measured, options: Options) -> list[Comparison]:
    """Rows of each metric, side of the split, and test; the family of each test is all metrics of one side."""
    rows: dict[tuple[str, str], list[Comparison]] = defaultdict(list)
    for series in temperature_series(runs):
        for side in (LOW, HIGH):
            chosen = [it for it in series if _is_on(side, it.key["temperature"], options.split)]
            if len({it.key["temperature"] for it in chosen}) > 1:
                for row in _side(runs, measured, chosen, side, options):
                    rows[side, row.test or ""].append(row)
    return [row for (side, test), found in rows.items() for row in corrected(found, f"trend {side} {test}")]


def temperature_series(runs: SweepRuns) -> list[list[Condition]]:
    """Distilled conditions that differ in nothing but temperature, by temperature."""
    found: dict[Any, list[Condition]] = defaultdict(list)
    for condition in runs.distilled:
        if condition.key["temperature"] is not None:
            others = [condition.key[name] for name in condition.key if name != "temperature"]
            found[tuple(others), tuple(sorted(condition.settings.items()))].append(condition)
    return [sorted(series, key=lambda it: it.key["temperature"]) for series in found.values()]


def _is_on(side: str, temperature: float, split: float) -> bool:
    return temperature <= split if side == LOW else temperature >= split


def _side(
    runs: SweepRuns, measured: Measured, chosen: list[Condition], side: str, options: Options
) -> list[Comparison]:
    values_NM = np.concatenate([measured.of(condition) for condition in chosen])
    temperatures_N = np.concatenate([np.full(it.n, it.key["temperature"]) for it in chosen])
    names = [str(seed) for condition in chosen for seed in condition.seeds]
    orders_WN = orders_within(np.unique(names, return_inverse=True)[1])
    words = f"T={temperatures_N.min():g}…{temperatures_N.max():g}"
    label = " ".join([words, chosen[0].label.split(" ", 1)[1] if " " in chosen[0].label else ""]).strip()
    base = {
        **about(runs, chosen[0], options),
        "temperature": None,
        "condition": label,
        "analysis": "trend",
        "contrast": side,
        "n_treatment": len(temperatures_N),
        "p_permutation_floor": 1 / (EXCHANGES + 1),
        "flags": tuple(["mixed_devices"] if len(frozenset().union(*(it.devices for it in chosen))) > 1 else []),
    }
    rows = []
    for m, metric in enumerate(measured.metrics):
        for found in trends(temperatures_N, values_NM[:, m], orders_WN, level=options.level):
            rows.append(
                Comparison(
                    **{
                        **base,
                        **metric.columns(),
                        "effect": found.effect,
                        "ci_low": number(found.low),
                        "ci_high": number(found.high),
                        "test": found.test,
                        "statistic": number(found.statistic),
                        "p": found.p,
                        "p_permutation": found.p_exchange,
                    }
                )
            )
    return rows
