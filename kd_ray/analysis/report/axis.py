"""The x axis of a report: temperature where there is one, else the conditions side by side; and lines with intervals over it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator

from kd_ray.analysis.report.study import Condition, FloatArray, Study, number, series
from kd_ray.analysis.report.style import (
    SCRATCH,
    SERIES_COLORS,
    SERIES_DASHES,
    SERIES_MARKERS,
    TEACHER,
    drawable,
)

MAX_SERIES = 8
"""Lines in one panel that can still be told apart."""
MAX_REFERENCES = 3


@dataclass(frozen=True, kw_only=True)
class Interval:
    """Mean of the defined values with its 95 % interval."""

    mean: float
    """NaN without a value."""
    half_width: float
    """Student's t over the runs; NaN with fewer than two values."""
    n: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Line:
    """Distilled conditions that a panel joins by a line; a single point for a category."""

    label: str
    conditions: tuple[Condition, ...]
    x: FloatArray


@dataclass(frozen=True, kw_only=True, eq=False)
class ConditionAxis:
    """Where the distilled conditions of a study stand on the x axis."""

    lines: tuple[Line, ...]
    num_left_out: int
    """Lines beyond `MAX_SERIES`; tables have them all."""
    ticks: tuple[tuple[float, str], ...]
    is_temperature: bool
    is_log: bool

    def dress(self, axes: Axes, *, label: bool = True) -> None:
        """Scale, ticks and label of the x axis."""
        if self.is_log:
            axes.set_xscale("log")
        positions = [x for x, _ in self.ticks]
        shown = _spaced(self.ticks, is_log=self.is_log, width=_width_in(axes)) if self.is_temperature else self.ticks
        axes.xaxis.set_major_locator(FixedLocator([x for x, _ in shown]))
        axes.xaxis.set_minor_locator(FixedLocator(positions) if self.is_temperature else NullLocator())
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xticklabels([name for _, name in shown])
        if not self.is_temperature:
            long = max((len(name) for _, name in shown), default=0) * len(shown) > 60
            axes.tick_params(axis="x", labelrotation=60 if long else 0, length=0)
            axes.set_xlim(-0.6, max(len(positions), 1) - 0.4)
        if label:
            axes.set_xlabel(self.label)

    @property
    def label(self) -> str:
        """What stands under the axis."""
        return ("temperature T (log scale)" if self.is_log else "temperature T") if self.is_temperature else ""


def condition_axis(study: Study) -> ConditionAxis:
    """Temperature if at least two temperatures were distilled with, else one place for each distilled condition."""
    over_t = series(study)
    temperatures = sorted({c.temperature for s in over_t for c in s.conditions if c.temperature is not None})
    if len(temperatures) > 1:
        is_log = temperatures[0] > 0 and temperatures[-1] / temperatures[0] >= 4
        lines = [
            Line(label=s.label, conditions=s.conditions, x=np.array([c.temperature for c in s.conditions], dtype=float))
            for s in over_t
        ]
        ticks = tuple((t, number(t)) for t in temperatures)
        return _axis(lines, ticks, is_temperature=True, is_log=is_log)
    distilled = study.of_role("distilled")
    lines = (
        [Line(label="distilled", conditions=distilled, x=np.arange(len(distilled), dtype=float))] if distilled else []
    )
    ticks = tuple((float(i), drawable(condition.label, 30)) for i, condition in enumerate(distilled))
    return _axis(lines, ticks, is_temperature=False, is_log=False)


def interval(values: FloatArray) -> Interval:
    """Mean and 95 % t interval (ddof = 1) of the values that are defined."""
    from scipy.special import stdtrit

    defined = values[~np.isnan(values)]
    n = len(defined)
    mean = float(defined.mean()) if n else np.nan
    half = float(stdtrit(n - 1, 0.975) * defined.std(ddof=1) / np.sqrt(n)) if n > 1 else np.nan
    return Interval(mean=mean, half_width=half, n=n)


def draw_lines(axes: Axes, axis: ConditionAxis, values_R: FloatArray, *, scale: float = 100.0) -> None:
    """Mean and interval of every distilled condition. Lines are moved aside a little, so that their bars do not hide one another."""
    for i, line in enumerate(axis.lines):
        found = [interval(scale * condition.over_runs(values_R)) for condition in line.conditions]
        axes.errorbar(
            _aside(line.x, i, len(axis.lines), is_log=axis.is_log),
            [it.mean for it in found],
            yerr=[0.0 if np.isnan(it.half_width) else it.half_width for it in found],
            label=drawable(line.label, 40),
            capsize=2,
            elinewidth=0.9,
            **look(i, joined=axis.is_temperature),
        )


def draw_references(axes: Axes, study: Study, values_R: FloatArray, *, scale: float = 100.0) -> None:
    """Teacher and scratch as horizontal lines, their intervals as bands."""
    for role, drawn in (("teacher", TEACHER), ("scratch", SCRATCH)):
        for condition in study.of_role(role)[:MAX_REFERENCES]:
            it = interval(scale * condition.over_runs(values_R))
            if np.isnan(it.mean):
                continue
            axes.axhline(it.mean, label=drawable(condition.label, 40), zorder=1.5, **drawn)
            if not np.isnan(it.half_width):
                axes.axhspan(
                    it.mean - it.half_width, it.mean + it.half_width, color=drawn["color"], alpha=0.12, linewidth=0
                )


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


def _axis(
    lines: Sequence[Line], ticks: tuple[tuple[float, str], ...], *, is_temperature: bool, is_log: bool
) -> ConditionAxis:
    return ConditionAxis(
        lines=tuple(lines[:MAX_SERIES]),
        num_left_out=max(0, len(lines) - MAX_SERIES),
        ticks=ticks,
        is_temperature=is_temperature,
        is_log=is_log,
    )


def _aside(x: FloatArray, i: int, count: int, *, is_log: bool) -> FloatArray:
    step = i - (count - 1) / 2
    return x * 1.012**step if is_log else x + 0.04 * step


def _width_in(axes: Axes) -> float:
    """About how wide a panel is, in inches, before it has been laid out."""
    figure = axes.get_figure(root=True)
    spec = axes.get_subplotspec()
    assert figure is not None
    columns = spec.get_gridspec().ncols if spec is not None else 1
    return float(figure.get_figwidth()) / columns * 0.8


def _spaced(ticks: Sequence[tuple[float, str]], *, is_log: bool, width: float) -> list[tuple[float, str]]:
    """Ticks whose labels do not touch: the ends, then round values, then whatever has room."""
    place = [np.log(x) if is_log else x for x, _ in ticks]
    span = place[-1] - place[0]
    inches = [(p - place[0]) / span * width for p in place]
    needed = [0.085 * len(name) + 0.06 for _, name in ticks]
    kept = [0, len(ticks) - 1]
    for i in sorted(range(1, len(ticks) - 1), key=lambda i: not _is_round(ticks[i][0])):
        if all(abs(inches[i] - inches[k]) >= (needed[i] + needed[k]) / 2 for k in kept):
            kept.append(i)
    return [ticks[i] for i in sorted(kept)]


def _is_round(value: float) -> bool:
    """1, 2 or 5 times a power of ten."""
    return f"{value:e}"[0] in "125" and float(f"{value:.0e}") == value
