"""The x axis of a report: temperature where there is one, else the conditions side by side; and lines with intervals over it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator

from kd_ray.analysis.conditions import Condition, make_series
from kd_ray.analysis.report.style import (
    SCRATCH,
    SERIES_COLORS,
    SERIES_DASHES,
    SERIES_MARKERS,
    TEACHER,
    drawable,
)
from kd_ray.analysis.study import SCRATCH as AGAINST_SCRATCH
from kd_ray.analysis.study import TEACHER as AGAINST_TEACHER
from kd_ray.analysis.study import Study, spread
from kd_ray.metrics.arrays import FloatArray
from kd_ray.shown import shown_number

MAX_SERIES = len(SERIES_COLORS)
"""Most lines in one panel that a reader can distinguish: each has a color of its own."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """Mean of the defined values with its 95 % interval."""

    mean: float
    """NaN without a value."""
    half_width: float
    """Student's t over the runs; NaN with fewer than two values."""
    n: int


@dataclass(frozen=True, kw_only=True, eq=False)
class AxisLine:
    """Distilled conditions that a panel joins by a line; a single point for a category."""

    label: str
    conditions: tuple[Condition, ...]
    x: FloatArray


@dataclass(frozen=True, kw_only=True, eq=False)
class ConditionAxis:
    """Where the distilled conditions of a study stand on the x axis."""

    lines: tuple[AxisLine, ...]
    num_left_out: int
    """Lines beyond `MAX_SERIES`; tables have them all."""
    ticks: tuple[tuple[float, str], ...]
    label: str
    """What stands under the axis."""
    is_temperature: bool

    def first(self, count: int) -> "ConditionAxis":
        """The same axis with its first lines only."""
        return replace(self, lines=self.lines[:count], num_left_out=self.num_left_out + max(0, len(self.lines) - count))

    def dress(self, axes: Axes, *, label: bool = True) -> None:
        """Scale, ticks and label of the x axis."""
        positions = [x for x, _ in self.ticks]
        shown = _spaced(self.ticks, width=_width_in(axes)) if self.is_temperature else self.ticks
        axes.xaxis.set_major_locator(FixedLocator([x for x, _ in shown]))
        axes.xaxis.set_minor_locator(FixedLocator(positions) if self.is_temperature else NullLocator())
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xticklabels([name for _, name in shown])
        if not self.is_temperature:
            is_wide = sum(0.075 * len(name) + 0.1 for _, name in shown) > _width_in(axes)
            axes.tick_params(axis="x", labelrotation=60 if is_wide else 0, length=0)
            for text in axes.get_xticklabels():
                text.set(
                    horizontalalignment="right" if is_wide else "center", rotation_mode="anchor" if is_wide else None
                )
            axes.set_xlim(-0.6, max(len(positions), 1) - 0.4)
        if label:
            axes.set_xlabel(self.label)


def condition_axis(study: Study) -> ConditionAxis:
    """Temperature if at least two temperatures were distilled with, else one place for each distilled condition."""
    over_t = make_series(study.conditions)
    temperatures = sorted({c.temperature for s in over_t for c in s.conditions if c.temperature is not None})
    if len(temperatures) > 1:
        is_even = _would_crowd(temperatures)
        place = {t: float(i) if is_even else t for i, t in enumerate(temperatures)}
        lines = [
            AxisLine(
                label=s.label, conditions=s.conditions, x=np.array([place[c.temperature or 0.0] for c in s.conditions])
            )
            for s in over_t
        ]
        ticks = tuple((place[t], shown_number(t)) for t in temperatures)
        label = "temperature T, tested values evenly spaced" if is_even else "temperature T"
        return _axis(lines, ticks, label=label, is_temperature=True)
    distilled = study.distilled
    lines = (
        [AxisLine(label="distilled", conditions=distilled, x=np.arange(len(distilled), dtype=float))]
        if distilled
        else []
    )
    ticks = tuple((float(i), drawable(name, 30)) for i, name in enumerate(_short_labels(distilled)))
    return _axis(lines, ticks, label="", is_temperature=False)


def interval(values: FloatArray) -> Interval:
    """Mean and 95 % t interval (ddof = 1) of the values that are defined."""
    it = spread(values)
    return Interval(mean=it.mean, half_width=it.half_width(), n=it.n)


def draw_lines(axes: Axes, axis: ConditionAxis, values_T: FloatArray, *, scale: float = 100.0) -> None:
    """Mean and interval of every distilled condition. Lines are moved aside a little, so that their bars do not hide one another."""
    for i, line in enumerate(axis.lines):
        found = [interval(scale * condition.over_runs(values_T)) for condition in line.conditions]
        drawn = axes.errorbar(
            _aside(axis, i),
            [it.mean for it in found],
            yerr=[0.0 if np.isnan(it.half_width) else it.half_width for it in found],
            label=drawable(line.label, 40),
            capsize=2,
            elinewidth=0.9,
            **look(i, joined=axis.is_temperature),
        )
        # A marker on the edge, such as at 100 %, is drawn whole; intervals end there.
        drawn.lines[0].set_clip_on(False)


def draw_references(
    axes: Axes, study: Study, axis: ConditionAxis, values_T: FloatArray, *, scale: float = 100.0
) -> None:
    """Teacher and scratch as horizontal lines with their intervals as bands; where there are several, each beside its own students."""
    for role, contrast, drawn in (
        ("teacher", AGAINST_TEACHER, TEACHER),
        ("scratch", AGAINST_SCRATCH, SCRATCH),
    ):
        conditions = study.of_role(role)
        if len(conditions) == 1 or not axis.is_temperature:
            spans = [(None, conditions[0])] if len(conditions) == 1 else _beside(study, axis, contrast)
            for place, condition in spans:
                _draw_reference(axes, role, interval(scale * condition.over_runs(values_T)), place, drawn)
            continue
        own = [study.baseline(contrast, line.conditions[0]) for line in axis.lines]
        # Each baseline once, with the color of the first of its students; the legend has one entry for all of them.
        colors = {id(it): (it, look(i)["color"]) for i, it in reversed([*enumerate(own)]) if it is not None}
        for baseline, color in colors.values():
            level = interval(scale * baseline.over_runs(values_T)).mean
            axes.axhline(
                level, label="_", zorder=1.5, **{**drawn, "color": color if len(colors) > 1 else drawn["color"]}
            )
        if colors:
            axes.plot([], [], label=f"{role}, colored like its students" if len(colors) > 1 else role, **drawn)


def legend_columns(labels: Iterable[str]) -> int:
    """Entries of a legend that stand side by side without leaving the page."""
    lengths = [len(label) for label in labels]
    return max(1, min(len(lengths), int(100 / (max(lengths, default=1) + 7))))


def _beside(study: Study, axis: ConditionAxis, contrast: str) -> list[tuple[float, Condition]]:
    return [
        (float(x), reference)
        for line in axis.lines
        for x, condition in zip(line.x, line.conditions, strict=True)
        if (reference := study.baseline(contrast, condition)) is not None
    ]


def _draw_reference(axes: Axes, role: str, it: Interval, place: float | None, drawn: dict[str, Any]) -> None:
    """One line with its band: across the panel, or only around a place on the x axis."""
    if np.isnan(it.mean):
        return
    band = {"color": drawn["color"], "alpha": 0.12, "linewidth": 0}
    low, high = it.mean - it.half_width, it.mean + it.half_width
    if place is None:
        axes.axhline(it.mean, label=role, zorder=1.5, **drawn)
    else:
        axes.plot([place - 0.38, place + 0.38], [it.mean, it.mean], label=role, zorder=1.5, **drawn)
    if np.isnan(it.half_width):
        return
    if place is None:
        axes.axhspan(low, high, **band)
    else:
        axes.fill_between([place - 0.38, place + 0.38], low, high, **band)


def keep_to_rates(axes: Axes) -> None:
    """End the axis at 0 and 100 %: intervals of two runs go far beyond what a rate can be. Markers on the edge stay whole."""
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, 0.0), min(high, 100.0))


def look(i: int, *, joined: bool = True) -> dict[str, Any]:
    """Color, marker and dashes of the i-th line."""
    return {
        "color": SERIES_COLORS[i % len(SERIES_COLORS)],
        "marker": SERIES_MARKERS[i % len(SERIES_MARKERS)],
        "linestyle": SERIES_DASHES[i % len(SERIES_DASHES)] if joined else "none",
    }


def seeds(conditions: Sequence[Condition]) -> str:
    """`n = 5` or `n = 3–5`: runs per condition."""
    counts = [condition.n for condition in conditions]
    if not counts:
        return "n = 0"
    return f"n = {counts[0]}" if min(counts) == max(counts) else f"n = {min(counts)}–{max(counts)}"


def counts_in_words(study: Study) -> str:
    """Runs per condition, by role, for captions."""
    parts = []
    for role in ("teacher", "scratch", "distilled"):
        if conditions := study.of_role(role):
            parts.append(f"{seeds(conditions)} {role} run{'s' if max(c.n for c in conditions) > 1 else ''}")
    per = " per condition" if len(study.of_role("distilled")) > 1 else ""
    return ", ".join(parts) + per


def _short_labels(conditions: Sequence[Condition]) -> list[str]:
    """Labels without what they all have in common."""
    parts = [condition.label.split(", ") for condition in conditions]
    common = set(parts[0]).intersection(*parts[1:]) if len(parts) > 1 else set()
    return [
        ", ".join(part for part in it if part not in common) or condition.label
        for it, condition in zip(parts, conditions, strict=True)
    ]


def _axis(
    lines: Sequence[AxisLine], ticks: tuple[tuple[float, str], ...], *, label: str, is_temperature: bool
) -> ConditionAxis:
    return ConditionAxis(
        lines=tuple(lines[:MAX_SERIES]),
        num_left_out=max(0, len(lines) - MAX_SERIES),
        ticks=ticks,
        label=label,
        is_temperature=is_temperature,
    )


def _would_crowd(temperatures: Sequence[float]) -> bool:
    """Whether true spacing would press some temperatures together: 1 to 10 beside 40, say, or powers of two."""
    gaps = np.diff(temperatures)
    return bool(gaps.min() < 0.5 * (temperatures[-1] - temperatures[0]) / len(gaps))


def _aside(axis: ConditionAxis, i: int) -> FloatArray:
    """Places of the i-th line, moved a little from its neighbours."""
    ticks = [x for x, _ in axis.ticks]
    gap = min(np.diff(ticks), default=1.0)
    return axis.lines[i].x + 0.08 * gap * (i - (len(axis.lines) - 1) / 2)


def _width_in(axes: Axes) -> float:
    """About how wide a panel is, in inches, before it has been laid out."""
    figure = axes.get_figure(root=True)
    spec = axes.get_subplotspec()
    assert figure is not None
    columns = spec.get_gridspec().ncols if spec is not None else 1
    return float(figure.get_figwidth()) / columns * 0.8


def _spaced(ticks: Sequence[tuple[float, str]], *, width: float) -> list[tuple[float, str]]:
    """Ticks whose labels do not touch: the ends, then round values, then whatever has room."""
    span = ticks[-1][0] - ticks[0][0]
    inches = [(x - ticks[0][0]) / span * width for x, _ in ticks]
    needed = [0.085 * len(name) + 0.06 for _, name in ticks]
    kept = [0, len(ticks) - 1]
    for i in sorted(range(1, len(ticks) - 1), key=lambda i: not _is_round(float(ticks[i][1]))):
        if all(abs(inches[i] - inches[k]) >= (needed[i] + needed[k]) / 2 for k in kept):
            kept.append(i)
    return [ticks[i] for i in sorted(kept)]


def _is_round(value: float) -> bool:
    """1, 2 or 5 times a power of ten."""
    return f"{value:e}"[0] in "125" and float(f"{value:.0e}") == value
