"""Sweeps side by side: one metric over one axis, in charts with one scale, and in one table."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kd_ray.serve.chart_layout import lay_out
from kd_ray.serve.charts import Chart
from kd_ray.serve.page_data import Read
from kd_ray.serve.pages.conditions_page import Row, chart, extent, shared_scale, table
from kd_ray.serve.quantities import OF_CLASS, OF_TRIAL, Chosen, Quantity, metric_names, quantity

MAX_SWEEPS = 6


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One sweep."""

    sweep: str
    dataset: str
    title: str
    """What its numbers are: a sweep that lacks the chosen metric shows another one, and says so."""
    chart: Chart
    rows: tuple[Row, ...]
    gap: str
    """Largest difference between a distilled condition and its scratch baseline, in the unit of the metric."""


def view(reads: Sequence[Read], chosen: Chosen, *, axis: str) -> Mapping[str, Any]:
    """What the page shows of the chosen sweeps."""
    names: dict[str, str] = {}
    for read in reads:
        names |= metric_names(read)
    names = {name: words for name, words in names.items() if name not in OF_CLASS and name != "group_accuracy"}
    found = [(read, quantity(read, chosen), lay_out(read.study, axis)) for read in reads]
    values = [value for _, it, layout in found for value in extent(it, layout)]
    panels = []
    for read, it, layout in found:
        scale = shared_scale(values, it)
        panels.append(
            Panel(
                sweep=read.study.sweep,
                dataset=read.study.dataset,
                title=f"{it.title} ({it.unit})" if it.unit else it.title,
                chart=chart(it, layout, scale=scale),
                rows=tuple(table(read, it)),
                gap=_gap(read, it),
            )
        )
    is_of_groups = chosen.metric not in OF_TRIAL and chosen.metric in names
    return {
        "panels": panels,
        "metrics": names or {"accuracy": "accuracy"},
        "metric": found[0][1].chosen.metric if found else chosen.metric,
        "features": sorted({it.feature for read in reads for it in read.study.fairness}) if is_of_groups else (),
        "feature": chosen.feature,
        "digits": found[0][1].metric.digits if found else 2,
        "is_nan": math.isnan,
    }


def _gap(read: Read, it: Quantity) -> str:
    """`+1.20 at T=4`: the distilled condition that is furthest from its scratch baseline, as means."""
    rows = {id(condition): row for condition, row in zip(read.study.conditions, table(read, it), strict=True)}
    gaps = []
    for condition in read.study.distilled:
        baseline = read.study.baseline("scratch_vs_distilled", condition)
        if baseline is not None:
            gap = rows[id(condition)].mean - rows[id(baseline)].mean
            if not math.isnan(gap):
                gaps.append((abs(gap), gap, condition.label))
    if not gaps:
        return "–"
    _, gap, label = max(gaps)
    return f"{gap:+.{it.metric.digits}f} at {label}".replace("-", "−", 1)
