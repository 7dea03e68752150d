"""Every metric against any axis: seeds as points, means with intervals, baselines as lines, and the table beside it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from kd_ray.analysis.conditions import Condition
from kd_ray.analysis.study import spread
from kd_ray.serve import charts
from kd_ray.serve.chart_layout import CONDITION, Layout, axis_names, lay_out
from kd_ray.serve.charts import Chart, Dot, Level, Point, Scale, Series, Tick
from kd_ray.serve.csv_text import csv_text
from kd_ray.serve.page_data import Read
from kd_ray.serve.quantities import GROUP_ACCURACY, OF_CLASS, OF_GROUPS, Chosen, Quantity, metric_names, quantity
from kd_ray.shown import rounded

MAX_DOTS = 40
"""Runs of one condition that are drawn; the mean and the interval are over all."""
_SORTS = ("condition", "n", "mean", "sd")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One condition in the table; numbers in the unit of the metric."""

    role: str
    label: str
    n: int
    mean: float
    sd: float
    low: float
    high: float


def view(read: Read, chosen: Chosen, *, axis: str, sort: str, is_down: bool) -> Mapping[str, Any]:
    """What the page shows."""
    it = quantity(read, chosen)
    layout = lay_out(read.study, axis)
    rows = table(read, it, sort=sort, is_down=is_down)
    digits = it.metric.digits
    return {
        "quantity": it,
        "layout": layout,
        "chart": chart(it, layout),
        "rows": rows,
        "show": lambda value: "–" if math.isnan(value) else rounded(value, digits).replace("-", "−"),
        "metrics": metric_names(read),
        "axes": {name: name for name in axis_names(read.study)},
        "classes": read.study.class_names if it.chosen.metric in OF_CLASS else (),
        "features": [f.feature for f in read.study.fairness]
        if it.chosen.metric in (*OF_GROUPS, GROUP_ACCURACY)
        else (),
        "groups": list(read.groups.get(it.chosen.feature, ())) if it.chosen.metric == GROUP_ACCURACY else (),
        "sort": sort if sort in _SORTS else "",
        "is_down": is_down,
        "max_dots": MAX_DOTS if any(c.n > MAX_DOTS for c in read.study.conditions) else 0,
    }


def table(read: Read, it: Quantity, *, sort: str = "", is_down: bool = False) -> list[Row]:
    """A row for each condition: in the order of the study, or sorted. What is undefined stands last."""
    rows = [_row(condition, it) for condition in read.study.conditions]
    if sort == "condition":
        rows.sort(key=lambda row: row.label, reverse=is_down)
    elif sort in _SORTS:
        known = [row for row in rows if not math.isnan(getattr(row, sort))]
        known.sort(key=lambda row: getattr(row, sort), reverse=is_down)
        rows = known + [row for row in rows if math.isnan(getattr(row, sort))]
    return rows


def to_csv(read: Read, chosen: Chosen) -> str:
    """A line for each run of each condition, in the unit of the table: `condition, seed, value`."""
    it = quantity(read, chosen)
    unit = f" ({it.unit})" if it.unit else ""
    rows = []
    for condition in read.study.conditions:
        row = _row(condition, it)
        seeds = zip(condition.seeds, it.over_runs(condition).tolist(), strict=True)
        rows += [
            (row.role, row.label, seed, value, row.n, row.mean, row.sd, row.low, row.high) for seed, value in seeds
        ]
    return csv_text(["role", "condition", "seed", f"{it.title}{unit}", "n", "mean", "sd", "from", "to"], rows)


def _row(condition: Condition, it: Quantity) -> Row:
    """The interval ends where a value can be no further."""
    found = spread(it.over_runs(condition))
    low, high = it.metric.low * it.metric.scale, _highest(it)
    half = found.half_width()
    return Row(
        role=condition.role,
        label=condition.label,
        n=found.n,
        mean=found.mean,
        sd=found.sd,
        low=math.nan if math.isnan(half) else max(found.mean - half, low),
        high=math.nan if math.isnan(half) else min(found.mean + half, high),
    )


def _highest(it: Quantity) -> float:
    """The largest value in the unit that is shown; a class can be any number of times as accurate as the whole."""
    return math.inf if it.metric.name == "relative_accuracy" else it.metric.high * it.metric.scale


# --- the chart ------------------------------------------------------------------------------------------------------------------------


def chart(it: Quantity, layout: Layout, *, scale: Scale | None = None) -> Chart:
    """Where everything stands; `scale` for a chart beside others."""
    scale = scale or charts.y_scale(extent(it, layout), limits=_limits(it))
    count = len(layout.ticks)
    return Chart(
        x_title=f"{layout.axis}, tested values evenly spaced" if layout.axis != CONDITION else "",
        y_title=f"{it.title} ({it.unit})" if it.unit else it.title,
        x_ticks=_x_ticks(layout),
        y_ticks=charts.y_ticks(scale),
        series=tuple(_series(it, layout, i, count, scale) for i in range(len(layout.lines))),
        levels=_levels(it, layout, scale),
        words=f"{it.title} over {layout.axis}: the table below has every number.",
        is_joined=layout.axis != CONDITION,
    )


def extent(it: Quantity, layout: Layout) -> list[float]:
    """Everything that a chart has to hold."""
    conditions = [c for line in layout.lines for _, c in line.points] + [c for _, c in layout.baselines]
    values = [] if it.label is None else [it.metric.scale * it.label]
    for condition in conditions:
        row = _row(condition, it)
        values += [row.mean, row.low, row.high, *_dot_values(condition, it)[1]]
    return values


def shared_scale(values: Sequence[float], it: Quantity) -> Scale:
    """One scale for several charts."""
    return charts.y_scale(values, limits=_limits(it))


def _limits(it: Quantity) -> tuple[float, float]:
    high = _highest(it)
    room = 0.02 * (high - it.metric.low) if math.isfinite(high) else 0.0
    return (it.metric.low * it.metric.scale - room, high + room)


def _x_ticks(layout: Layout) -> tuple[Tick, ...]:
    count = len(layout.ticks)
    every = max(1, -(-count // 16))
    return tuple(
        Tick(at=charts.x_place(i, count), text=text if len(text) <= 14 else f"{text[:13]}…")
        for i, text in enumerate(layout.ticks)
        if i % every == 0
    )


def _series(it: Quantity, layout: Layout, number: int, count: int, scale: Scale) -> Series:
    line = layout.lines[number]
    aside = 0.09 * (number - (len(layout.lines) - 1) / 2) if len(layout.lines) > 1 else 0.0
    points, dots, way = [], [], []
    for place, condition in line.points:
        x = charts.x_place(place + aside, count)
        row = _row(condition, it)
        if math.isnan(row.mean):
            way.append((x, math.nan))
            continue
        points.append(
            Point(
                x=x,
                y=scale(row.mean),
                low=None if math.isnan(row.low) else scale(row.low),
                high=None if math.isnan(row.high) else scale(row.high),
                words=_words(row, it),
            )
        )
        way.append((x, scale(row.mean)))
        seeds, values = _dot_values(condition, it)
        for i, (seed, value) in enumerate(zip(seeds, values, strict=True)):
            shift = 0.028 * (i % 5 - 2) if len(values) > 5 else 0.0
            words = f"{condition.label}, seed {seed}: {rounded(value, it.metric.digits)}{it.unit and f' {it.unit}'}"
            dots.append(Dot(x=charts.x_place(place + aside + shift, count), y=scale(value), words=words))
    return Series(label=line.label, number=number, path=charts.path(way), points=tuple(points), dots=tuple(dots))


def _dot_values(condition: Condition, it: Quantity) -> tuple[list[str], list[float]]:
    """Some of the runs, evenly chosen, with their seeds; the same ones every time."""
    values_R = it.over_runs(condition)
    defined = np.flatnonzero(np.isfinite(values_R))
    if len(defined) > MAX_DOTS:
        defined = defined[np.linspace(0, len(defined) - 1, MAX_DOTS).astype(int)]
    return [str(condition.seeds[r]) for r in defined], values_R[defined].tolist()


def _levels(it: Quantity, layout: Layout, scale: Scale) -> tuple[Level, ...]:
    found = []
    for name, condition in layout.baselines:
        row = replace(_row(condition, it), label=name)
        if math.isnan(row.mean):
            continue
        low, high = (None, None) if math.isnan(row.low) else (scale(row.low), scale(row.high))
        found.append(
            Level(label=name, kind=condition.role, y=scale(row.mean), low=low, high=high, words=_words(row, it))
        )
    if it.label is not None:
        value = it.metric.scale * it.label
        words = f"true labels: {it.shown(it.label)} {it.unit}: what a perfect model shows"
        found.append(Level(label="true labels", kind="label", y=scale(value), low=None, high=None, words=words))
    return tuple(found)


def _words(row: Row, it: Quantity) -> str:
    """`T=4: mean 81.20 %, sd 1.10, 95 % interval 78.1 to 84.3, n = 5`."""
    digits, unit = it.metric.digits, it.unit and f" {it.unit}"
    words = f"{row.label}: mean {rounded(row.mean, digits)}{unit}"
    if not math.isnan(row.sd):
        ends = f"{rounded(row.low, digits)} to {rounded(row.high, digits)}"
        words += f", sd {rounded(row.sd, digits)}, 95 % interval {ends}"
    return f"{words}, n = {row.n}".replace("-", "−")
