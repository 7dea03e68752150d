"""Figures of class bias: accuracies of single classes, how many differ, and by how much."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from kd_ray.analysis.report.axis import (
    AxisLine,
    ConditionAxis,
    counts_in_words,
    draw_lines,
    draw_references,
    interval,
    keep_to_rates,
    legend_columns,
    look,
)
from kd_ray.analysis.report.evidence import Evidence, shared_baseline
from kd_ray.analysis.report.style import BLACK, EXPECTED, ORANGE, Drawing, drawable, new_figure
from kd_ray.analysis.row_words import BASELINE
from kd_ray.analysis.study import SCRATCH, TEACHER, Study
from kd_ray.metrics.arrays import FloatArray, IntArray
from kd_ray.results.comparison_schema import Comparison

PANELS = 12
"""Classes with a panel of their own."""
_LINES_PER_CLASS = 3
HEAT_ROWS = 40
"""Classes in a heat map whose names can still be read."""
INTERVAL = "Points are means, bars and bands 95 % t intervals over runs (seeds)"


def class_accuracy(study: Study, evidence: Evidence, axis: ConditionAxis) -> Drawing | None:
    """Accuracy of single classes over temperature, the significant ones marked (Figure 1 of Mohammadshahi & Ioannou)."""
    chosen = largest_effects(study, evidence, PANELS)
    if not len(chosen) or not axis.lines:
        return None
    axis = axis.first(_LINES_PER_CLASS)
    columns = min(len(chosen), 5 if 4 < len(chosen) <= 10 and len(chosen) != 8 else 4)
    rows = math.ceil(len(chosen) / columns)
    figure = new_figure(0.85 + 1.5 * rows)
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True)
    for place, axes in zip(chosen, panels.flat, strict=False):
        values_T = study.class_accuracy_TC[:, place]
        draw_references(axes, study, axis, values_T)
        draw_lines(axes, axis, values_T)
        for line in axis.lines:
            _mark(axes, study, evidence, line, int(place))
        axes.set_title(f"{drawable(study.class_names[place], 16)} ({study.class_n_C[place]})")
    for axes in panels.flat[len(chosen) :]:
        axes.remove()
    _same_span(list(panels.flat[: len(chosen)]))
    for i, axes in enumerate(panels.flat[: len(chosen)]):
        axis.dress(axes, label=False)
        axes.tick_params(labelbottom=i + columns >= len(chosen))
        if i % columns == 0:
            axes.set_ylabel("accuracy (%)")
    figure.supxlabel(axis.label, fontsize=9)
    _legend_above(figure, panels.flat[:1], with_marks=evidence.has_class_tests)
    which = (
        "All classes"
        if len(chosen) == len(study.class_names)
        else f"The {len(chosen)} of {len(study.class_names):,} classes with the largest effects, against scratch if there is one"
    )
    tested = (
        f" Marks stand for a class {evidence.relative} that differs from scratch: ring p < "
        f"{evidence.level:g} uncorrected, star established over the whole report."
        if evidence.has_class_tests
        else ""
    )
    return Drawing(
        name="class-accuracy",
        title="Accuracy of single classes",
        caption=f"{which}; test samples of the class in brackets. {INTERVAL}; {counts_in_words(study)}.{tested} "
        f"All panels span as many points of accuracy.{_left_out(axis)}",
        figure=figure,
    )


def counts(study: Study, evidence: Evidence, axis: ConditionAxis) -> Drawing | None:
    """Accuracy, #SC and #TC over temperature (Figures 3 and 8)."""
    if not axis.lines:
        return None
    shown = [
        contrast
        for contrast in (SCRATCH, TEACHER)
        if any(row.num_significant is not None for row in evidence.of("class_bias_counts", contrast=contrast))
    ]
    figure = new_figure(3.1)
    panels = figure.subplots(1, 1 + len(shown), squeeze=False)[0]
    draw_references(panels[0], study, axis, study.values("accuracy"))
    draw_lines(panels[0], axis, study.values("accuracy"))
    keep_to_rates(panels[0])
    panels[0].set_ylabel("accuracy (%)")
    panels[0].set_title("test accuracy")
    for axes, contrast in zip(panels[1:], shown, strict=True):
        _draw_counts(axes, evidence, axis, contrast)
        axes.set_title(f"{'#SC: scratch' if contrast == SCRATCH else '#TC: teacher'} against distilled")
        axes.set_ylabel(f"classes of {len(study.class_names):,}")
        top = max(1.05, axes.get_ylim()[1])
        axes.set_ylim(-0.03 * top, top)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in panels:
        axis.dress(axes, label=False)
    figure.supxlabel(axis.label, fontsize=9)
    _legend_above(figure, panels, with_marks=False)
    several = len(axis.lines) > 1
    has_band = any(row.usual_significant is not None for row in evidence.of("class_bias_counts"))
    of_first = " of the first line" if several else ""
    band = f"; {100 * (1 - evidence.level):g} % of the ways to exchange the runs{of_first} stay within the band"
    tested = (
        f" Counts are classes whose {evidence.relative} differs: with p < {evidence.level:g} (Welch's t, "
        "uncorrected), as #SC and #TC are published, and those that are established over the whole report. The "
        f"dotted line is the count with p < {evidence.level:g} that chance gives on average if no class differs"
        f"{band if has_band else ''}.{' Open markers: established.' if several else ''}"
    )
    return Drawing(
        name="accuracy-and-counts",
        title="Accuracy, and how many classes differ",
        caption=f"{INTERVAL}; {counts_in_words(study)}.{tested if shown else ''}{_left_out(axis)}",
        figure=figure,
    )


def heat_map(study: Study, evidence: Evidence, axis: ConditionAxis) -> Drawing | None:
    """Effects by class and condition, against scratch and against the teacher."""
    panels = [
        (contrast, line)
        for contrast in (SCRATCH, TEACHER)
        for line in axis.lines[:2]
        if any(evidence.bias(contrast, condition) for condition in line.conditions)
    ]
    chosen = largest_effects(study, evidence, HEAT_ROWS)
    if not panels or not len(chosen):
        return None
    maps = [100 * _effects(evidence, contrast, line, chosen) for contrast, line in panels]
    strongest = max(float(np.nanmax(np.abs(map_))) if np.isfinite(map_).any() else 0.0 for map_ in maps) or 1.0
    names = [drawable(study.class_names[place], 20) for place in chosen]
    height = min(0.24, 8.2 / len(chosen)) * len(chosen)
    side_by_side = min(len(panels), 2 if len(panels[0][1].conditions) <= 15 else 1)
    rows = math.ceil(len(panels) / side_by_side)
    figure = new_figure((height + 1.0) * rows + 0.3)
    grid = figure.subplots(rows, side_by_side, squeeze=False)
    mesh = None
    for axes in grid.flat[len(panels) :]:
        axes.remove()
    for axes, (contrast, line), map_ in zip(grid.flat, panels, maps, strict=False):
        mesh = axes.pcolormesh(
            map_, cmap="PuOr_r", norm=TwoSlopeNorm(0, -strongest, strongest), rasterized=map_.size > 2000
        )
        _mark_cells(axes, evidence, contrast, line, chosen)
        axes.invert_yaxis()
        axes.grid(visible=False)
        axes.set_yticks(np.arange(len(chosen)) + 0.5, names if axes in grid[:, 0] else [], fontsize=7)
        axes.set_xticks(np.arange(len(line.conditions)) + 0.5, [_tick(axis, x) for x in line.x], fontsize=7)
        if not axis.is_temperature:
            for text in axes.get_xticklabels():
                text.set(rotation=60, horizontalalignment="right", rotation_mode="anchor")
        axes.set_xlabel("temperature T" if axis.is_temperature else "")
        name = f", {drawable(line.label, 30)}" if len(axis.lines) > 1 else ""
        axes.set_title(f"distilled − {BASELINE[contrast]}{name}")
        axes.tick_params(length=0)
    assert mesh is not None
    figure.colorbar(
        mesh,
        ax=list(grid.flat[: len(panels)]),
        label="effect (points)",
        shrink=0.8,
        pad=0.01,
    )
    which = (
        "All classes"
        if len(chosen) == len(study.class_names)
        else f"The {len(chosen)} of {len(study.class_names):,} classes with the largest effects, against scratch if there is one"
    )
    at_baseline = " at the baseline's overall accuracy" if evidence.is_ratio else ""
    return Drawing(
        name="class-effects",
        title="Effect of distillation on each class",
        caption=f"{which}. Color is the mean change in class {evidence.relative}, in points of accuracy"
        f"{at_baseline}: a class that falls less than the others gains; {counts_in_words(study)}. Ring: p < {evidence.level:g} "
        "uncorrected, as #SC and #TC count; star: established over the whole report. The largest of "
        f"many noisy effects look larger than they are. {shared_baseline(study)}".rstrip()
        + _left_out(axis, 2),
        figure=figure,
    )


def largest_effects(study: Study, evidence: Evidence, limit: int) -> IntArray:
    """Places of the classes to show, in their order: all with test samples, or those that distillation changes most."""
    present = np.flatnonzero(study.class_n_C > 0)
    if len(present) <= limit:
        return present
    by_contrast = {contrast for contrast, _ in evidence.class_bias}
    main = SCRATCH if SCRATCH in by_contrast else TEACHER
    effects = [np.abs(bias.effect_C) for (contrast, _), bias in evidence.class_bias.items() if contrast == main]
    if effects:
        size_C = np.nanmax(np.nan_to_num(np.array(effects), nan=0.0), axis=0)
    else:
        means = [np.nanmean(study.class_accuracy_TC[c.trials], axis=0) for c in study.conditions if c.role != "teacher"]
        size_C = np.nan_to_num(np.ptp(np.array(means), axis=0), nan=0.0)
    order = np.lexsort((np.arange(len(size_C)), -size_C))
    return np.sort(order[np.isin(order, present)][:limit])


def _mark(axes: Axes, study: Study, evidence: Evidence, line: AxisLine, place: int) -> None:
    for x, condition in zip(line.x, line.conditions, strict=True):
        bias = evidence.bias(SCRATCH, condition)
        if bias is None or not (mark := bias.mark(place)):
            continue
        y = 100 * interval(condition.over_runs(study.class_accuracy_TC[:, place])).mean
        if mark == "published":
            axes.plot(x, y, "o", markersize=9, markerfacecolor="none", markeredgecolor=BLACK, markeredgewidth=1.0)
        else:
            axes.plot(x, y, "*", markersize=11, color=ORANGE, markeredgecolor=BLACK, markeredgewidth=0.7, zorder=4)


def _draw_counts(axes: Axes, evidence: Evidence, axis: ConditionAxis, contrast: str) -> None:
    single = len(axis.lines) == 1
    kinds = [
        ("num_significant", f"p < {evidence.level:g}, as published"),
        ("num_established", "established"),
    ]
    for i, line in enumerate(axis.lines):
        rows = [evidence.about(c, "class_bias_counts", contrast=contrast) for c in line.conditions]
        for k, (column, name) in enumerate(kinds):
            style = look(k + 1 if single else i, joined=axis.is_temperature)
            if not single and k:
                style |= {"markerfacecolor": "white", "linewidth": 0.8}
            label = name if single else drawable(line.label, 40)
            axes.plot(line.x, _counted(rows, column), label=label if single or not k else "_", **style)
        if i == 0:
            _draw_chance(axes, axis, line, rows)


def _draw_chance(axes: Axes, axis: ConditionAxis, line: AxisLine, rows: Sequence[Comparison | None]) -> None:
    """How many classes chance gives, and how many it seldom exceeds, by the first line."""
    expected, usual = (_counted(rows, column) for column in ("expected_significant", "usual_significant"))
    if np.isnan(expected).all():
        return
    label = "chance if none differs"
    if axis.is_temperature and len(line.x) > 1:
        axes.plot(line.x, expected, label=label, **EXPECTED)
        axes.fill_between(line.x, 0, usual, color=EXPECTED["color"], alpha=0.12, linewidth=0)
    else:
        axes.axhline(float(np.nanmean(expected)), label=label, **EXPECTED)
        axes.bar(line.x, usual, width=0.76, color=EXPECTED["color"], alpha=0.12)


def _counted(rows: Sequence[Comparison | None], column: str) -> list[float]:
    found = [None if row is None else getattr(row, column) for row in rows]
    return [np.nan if value is None else value for value in found]


def _effects(evidence: Evidence, contrast: str, line: AxisLine, chosen: IntArray) -> FloatArray:
    columns = []
    for condition in line.conditions:
        bias = evidence.bias(contrast, condition)
        columns.append(np.full(len(chosen), np.nan) if bias is None else bias.effect_C[chosen])
    return np.stack(columns, axis=1)


def _tick(axis: ConditionAxis, x: float) -> str:
    return next(name for place, name in axis.ticks if place == x)


def _mark_cells(axes: Axes, evidence: Evidence, contrast: str, line: AxisLine, chosen: IntArray) -> None:
    spots: dict[str, list[tuple[float, float]]] = {"published": [], "established": []}
    for column, condition in enumerate(line.conditions):
        bias = evidence.bias(contrast, condition)
        for row, place in enumerate(chosen):
            if bias is not None and (mark := bias.mark(int(place))):
                spots[mark].append((column + 0.5, row + 0.5))
    for kind, marker, face, size in (("published", "o", "white", 14), ("established", "*", BLACK, 45)):
        if spots[kind]:
            x, y = zip(*spots[kind], strict=True)
            edge = BLACK if face == "white" else "white"
            axes.scatter(x, y, s=size, marker=marker, facecolor=face, edgecolor=edge, linewidth=0.7)


def _same_span(panels: Sequence[Axes]) -> None:
    """Give all panels the span of the widest, each around its own middle, so that equal differences look equal."""
    for axes in panels:
        keep_to_rates(axes)
    limits = [axes.get_ylim() for axes in panels]
    half = max(high - low for low, high in limits) / 2
    for axes, (low, high) in zip(panels, limits, strict=True):
        # Nothing is below 0 or above 100 %.
        middle = min(max((low + high) / 2, half), 100 - half)
        axes.set_ylim(middle - half, middle + half)


def _legend_above(figure: Figure, panels: Iterable[Axes], *, with_marks: bool) -> None:
    unique: dict[str, Any] = {}
    for axes in panels:
        handles, labels = axes.get_legend_handles_labels()
        unique |= dict(zip(labels, handles, strict=True))
    if with_marks:
        empty: dict[str, Any] = {"linestyle": "none", "markeredgecolor": BLACK}
        unique["p uncorrected, as published"] = Line2D(
            [], [], marker="o", markersize=9, markerfacecolor="none", **empty
        )
        unique["established"] = Line2D([], [], marker="*", markersize=11, color=ORANGE, **empty)
    figure.legend(unique.values(), unique.keys(), loc="outside upper center", ncols=legend_columns(unique))


def _left_out(axis: ConditionAxis, shown: int | None = None) -> str:
    missing = axis.num_left_out + (max(0, len(axis.lines) - shown) if shown else 0)
    return f" {missing} more lines are in the tables." if missing else ""
