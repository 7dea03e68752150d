"""The closing table of a sweep: one line per condition, mean ± sd over its trials."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

import pyarrow as pa

from kd_ray.results.query import Results
from kd_ray.sweep.distillation import shown_objective

_ROLES = ("teacher", "scratch", "distilled")
_FAIRNESS = (
    "trial_id",
    "feature",
    "positive_class",
    "demographic_parity_difference",
    "equalized_odds_difference",
)
_CONDITION = ("role", "model", "objective", "temperature", "alpha", "t_squared")


@dataclass(frozen=True, kw_only=True)
class Statistic:
    """Mean and sample standard deviation (ddof = 1) over the trials where the value is defined."""

    mean: float | None
    sd: float | None
    """None with fewer than two values."""
    n: int


@dataclass(frozen=True, kw_only=True)
class ConditionSummary:
    """One line of the closing table."""

    role: str
    label: str
    """What tells this condition from the others: `T = 4`, and the axes that vary."""
    n: int
    metrics: dict[str, Statistic]
    """By name, in the order in which they are shown; rates in [0, 1]."""


def sweep_summary(results: Results, sweep: str) -> list[ConditionSummary]:
    """The closing table of a sweep in a store. Only the rows and columns it needs are read: a large sweep has millions of others."""
    where = f"WHERE sweep = '{sweep}'"
    columns = ", ".join(
        ("trial_id", *_CONDITION, "settings", "accuracy", "worst_class_accuracy", "individual_fairness")
    )
    trials = results.query(f"SELECT {columns} FROM trials {where}")
    fairness = results.query(
        f"SELECT {', '.join(_FAIRNESS)} FROM fairness_metrics {where} AND positive_class = 'macro'"
    )
    return summarize(trials, fairness)


def summarize(trials: pa.Table, fairness: pa.Table) -> list[ConditionSummary]:
    """Group the `trials` rows of one sweep by condition, with the macro rows of its `fairness_metrics`; other columns may be there."""
    by_trial: dict[str, dict[str, float | None]] = defaultdict(dict)
    for row in fairness.to_pylist():
        # Intersections have many small groups; the table stays narrow without them.
        if row["positive_class"] == "macro" and " & " not in row["feature"]:
            by_trial[row["trial_id"]][f"DPD {row['feature']}"] = row["demographic_parity_difference"]
            by_trial[row["trial_id"]][f"EOD {row['feature']}"] = row["equalized_odds_difference"]
    conditions: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    rows = trials.drop_columns([name for name in ("versions",) if name in trials.column_names]).to_pylist()
    for row in rows:
        conditions[(*(row[name] for name in _CONDITION), tuple(row["settings"]))].append(row)
    varying = [name for name in _CONDITION[1:] if len({row[name] for row in rows if row["role"] == "distilled"}) > 1]
    order = sorted(conditions, key=lambda key: (_ROLES.index(key[0]), key[3] or 0, str(key)))
    return [
        ConditionSummary(
            role=key[0],
            label=condition_label(dict(zip(_CONDITION, key[:-1], strict=True)), key[-1], varying),
            n=len(conditions[key]),
            metrics=_metrics(conditions[key], by_trial),
        )
        for key in order
    ]


def condition_label(condition: dict[str, Any], settings: tuple[tuple[str, str], ...], varying: Sequence[str]) -> str:
    """A condition in words: its temperature, and what tells it from the others."""
    named = {axis.rsplit(".", 1)[-1] for axis, _ in settings}
    words = [] if condition["temperature"] is None else [f"T={condition['temperature']:g}"]
    if condition["role"] == "distilled":
        shown = [name for name in varying if name != "temperature" and name not in named]
        values = condition | {"objective": shown_objective(condition["objective"])}
        words += [f"{name}={values[name]}" for name in shown if values[name] is not None]
    return " ".join([*words, *(f"{axis}={value}" for axis, value in settings)])


def _metrics(rows: Sequence[dict[str, Any]], by_trial: dict[str, dict[str, float | None]]) -> dict[str, Statistic]:
    metrics = {
        "accuracy": statistic([row["accuracy"] for row in rows]),
        "worst class": statistic([row["worst_class_accuracy"] for row in rows]),
    }
    for name in dict.fromkeys(name for row in rows for name in by_trial[row["trial_id"]]):
        metrics[name] = statistic([by_trial[row["trial_id"]].get(name) for row in rows])
    metrics["individual fairness"] = statistic([row["individual_fairness"] for row in rows])
    return metrics


def statistic(values: Sequence[float | None]) -> Statistic:
    """Mean and sd of the defined values."""
    defined = [value for value in values if value is not None]
    return Statistic(
        mean=fmean(defined) if defined else None, sd=stdev(defined) if len(defined) > 1 else None, n=len(defined)
    )
