"""Figures of fairness between groups and between individuals, and what they cost in accuracy."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from kd_ray.analysis.conditions import Condition
from kd_ray.analysis.report.axis import (
    ConditionAxis,
    counts_in_words,
    draw_lines,
    draw_references,
    interval,
    keep_to_rates,
    look,
)
from kd_ray.analysis.report.bias import INTERVAL
from kd_ray.analysis.report.evidence import Evidence
from kd_ray.analysis.report.measured_tables import CHANCE, DPD, EOD, LABEL_DPD, OF_GROUPS
from kd_ray.analysis.report.overview import draw_chance, legend_above
from kd_ray.analysis.report.style import BLACK, EXPECTED, GREY, Drawing, drawable, new_figure
from kd_ray.analysis.study import Fairness, Study
from kd_ray.metrics.arrays import FloatArray
from kd_ray.metrics.catalogue import METRICS


def group_fairness(
    study: Study, evidence: Evidence, fairness: Fairness, axis: ConditionAxis, name: str
) -> Drawing | None:
    """EOD, DPD and worst-group accuracy of one sensitive feature over temperature (Figures 4 and 5 of Mohammadshahi & Ioannou)."""
    if not axis.lines:
        return None
    figure = new_figure(2.9)
    panels = figure.subplots(1, len(OF_GROUPS))
    for axes, metric in zip(panels, OF_GROUPS, strict=True):
        draw_references(axes, study, axis, fairness.metrics[metric])
        draw_lines(axes, axis, fairness.metrics[metric])
        draw_chance(axes, evidence, axis, fairness, metric)
        if metric == DPD:
            _label_line(axes, fairness)
        keep_to_rates(axes)
        axis.dress(axes, label=False)
        axes.set_ylabel(f"{METRICS[metric].short} (%)")
    for axes, title in zip(panels, ("equalized odds", "demographic parity", "worst group"), strict=True):
        axes.set_title(title)
    figure.supxlabel(axis.label, fontsize=9)
    legend_above(figure, panels[1])
    return Drawing(
        name=name,
        title=f"Fairness between groups of {fairness.feature}",
        caption=f"Differences between {fairness.num_groups} groups of {fairness.feature}, one-vs-rest mean over "
        "classes; 0 is parity. Worst-group accuracy is the lowest accuracy of a group. "
        f"{INTERVAL}, which hold for this test set; {counts_in_words(study)}. {CHANCE}; only what exceeds it has to do with the "
        "groups. The dotted line is the DPD that the true labels have: a model that falls below it does so by erring.",
        figure=figure,
    )


def _label_line(axes: Axes, fairness: Fairness) -> None:
    values_T = fairness.metrics[LABEL_DPD]
    if not np.isnan(values_T).all():
        axes.axhline(100 * float(np.nanmean(values_T)), label="true labels", **EXPECTED)


def frontier(study: Study, features: Sequence[Fairness], axis: ConditionAxis) -> Drawing | None:
    """EOD and DPD against accuracy: whether what is fairer is so because it is more accurate."""
    shown = features[:3]
    if not shown or not axis.lines:
        return None
    figure = new_figure(0.5 + 2.3 * 2)
    grid = figure.subplots(2, len(shown), squeeze=False)
    accuracy_T = study.values("accuracy")
    for j, fairness in enumerate(shown):
        for axes, metric in zip(grid[:, j], (EOD, DPD), strict=True):
            _draw_frontier(axes, study, axis, accuracy_T, fairness.metrics[metric])
            keep_to_rates(axes)
            axes.set_xlim(right=min(axes.get_xlim()[1], 100.0))
            axes.set_ylabel(f"{METRICS[metric].short} (%)")
            if metric == DPD:
                axes.set_xlabel("accuracy (%)")
                _label_line(axes, fairness)
            else:
                # Room above the axes for the numbers of a teacher that is far away.
                axes.set_title(drawable(fairness.feature, 30), pad=15)
    legend_above(figure, grid[1, 0])
    return Drawing(
        name="frontier",
        title="Accuracy and fairness",
        caption="Each point is the mean of a condition, bars are 95 % t intervals over runs (seeds); right and below "
        "is better. The black line joins the students that no other student beats in both; these and the ends of "
        f"each line are named. A teacher far from its students is given by its numbers. {counts_in_words(study)}. "
        "EOD tends to fall with the error rate: a condition that is only further down the slope is not fairer at "
        "the same accuracy.",
        figure=figure,
    )


def individual(study: Study, axis: ConditionAxis) -> Drawing | None:
    """Individual fairness over temperature (Table 4), on probabilities, on predicted labels and after calibration, beside confidence."""
    panels = [
        (study.values("individual_fairness"), 1.0, "on probabilities", "change per distance"),
        (study.values("individual_fairness_hard"), 1.0, "on predicted labels", "change per distance"),
        (study.values("individual_fairness_calibrated"), 1.0, "after calibration", "change per distance"),
        (study.values("mean_confidence"), 100.0, "mean confidence", "confidence (%)"),
    ]
    shown = [panel for panel in panels if not np.isnan(panel[0]).all()]
    if not axis.lines or np.isnan(panels[0][0]).all():
        return None
    columns = 2 if len(shown) == 4 else len(shown)
    figure = new_figure(2.7 if len(shown) < 4 else 4.6)
    grid = figure.subplots(math.ceil(len(shown) / columns), columns, squeeze=False)
    for axes, (values_T, scale, title, label) in zip(grid.flat, shown, strict=True):
        draw_references(axes, study, axis, values_T, scale=scale)
        draw_lines(axes, axis, values_T, scale=scale)
        if scale == 1.0:
            axes.set_ylim(bottom=max(axes.get_ylim()[0], 0.0))
        else:
            keep_to_rates(axes)
        axis.dress(axes, label=False)
        axes.set_title(title)
        axes.set_ylabel(label)
    figure.supxlabel(axis.label, fontsize=9)
    legend_above(figure, grid.flat[0])
    calibrated = (
        " After calibration: with each model's probabilities scaled by its own temperature." if columns == 2 else ""
    )
    return Drawing(
        name="individual-fairness",
        title="Fairness between individuals",
        caption="Mean change of the prediction (total variation) per unit of distance between two test samples. It follows "
        "the model's confidence: a perfect and certain classifier scores about 0.9 to 1 with ten equal classes, less with fewer, and "
        "flatter probabilities alone lower it without any other decision. On predicted labels confidence plays no part."
        f"{calibrated} {INTERVAL}; {counts_in_words(study)}.",
        figure=figure,
    )


def _draw_frontier(axes: Axes, study: Study, axis: ConditionAxis, accuracy_T: FloatArray, values_T: FloatArray) -> None:
    """Students with their frontier; the teacher is a larger network and only shown where it lies among them."""
    students: list[tuple[str, tuple[float, float], bool]] = []
    for condition in study.of_role("scratch")[:1]:
        point = _point(axes, condition, accuracy_T, values_T, marker="X", color=GREY, label="scratch", zorder=3)
        students.append(("", point, False))
    for i, line in enumerate(axis.lines):
        style = {name: value for name, value in look(i).items() if name != "linestyle"}
        label = drawable(line.label, 30)
        points = [_point(axes, c, accuracy_T, values_T, label=label, **style) for c in line.conditions]
        names = [c.label.split(" ")[0] if axis.is_temperature else drawable(c.label, 18) for c in line.conditions]
        ends = [k in (0, len(points) - 1) for k in range(len(points))]
        students += zip(names, points, ends, strict=True)
    best = _pareto([point for _, point, _ in students if not np.isnan(point[0] + point[1])])
    label = "no student is better in both"
    axes.plot([x for x, _ in best], [y for _, y in best], color=BLACK, linewidth=0.9, zorder=1, label=label)
    _name_points(axes, [(name, point) for name, point, is_end in students if point in best or is_end])
    _teacher_if_near(axes, study, accuracy_T, values_T)


def _name_points(axes: Axes, named: Sequence[tuple[str, tuple[float, float]]]) -> None:
    """Write names beside points, where they do not cover one another."""
    axes.autoscale_view()
    placed: list[tuple[float, float]] = []
    for name, point in named:
        x, y = axes.transAxes.inverted().transform(axes.transData.transform(point))
        if np.isfinite(x + y) and all(abs(x - px) > 0.2 or abs(y - py) > 0.07 for px, py in placed):
            axes.annotate(name, point, xytext=(4, 4), textcoords="offset points", fontsize=6.5)
            placed.append((float(x), float(y)))


def _teacher_if_near(axes: Axes, study: Study, accuracy_T: FloatArray, values_T: FloatArray) -> None:
    """Draw the teacher if that takes no more than half of the panel from the students; else say where it is."""
    for condition in study.of_role("teacher")[:1]:
        x, y = (interval(100 * condition.over_runs(them)).mean for them in (accuracy_T, values_T))
        if np.isnan(x + y):
            continue
        (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
        if max((max(right, x) - min(left, x)) / (right - left), (max(top, y) - min(bottom, y)) / (top - bottom)) <= 2:
            _point(axes, condition, accuracy_T, values_T, marker="*", color=BLACK, label="teacher", markersize=7)
            return
        axes.text(
            1.0, 1.01, f"teacher: {x:.1f}, {y:.2f}", transform=axes.transAxes, ha="right", va="bottom", fontsize=6.5
        )


def _point(
    axes: Axes, condition: Condition, accuracy_T: FloatArray, values_T: FloatArray, **style: object
) -> tuple[float, float]:
    x, y = (interval(100 * condition.over_runs(them)) for them in (accuracy_T, values_T))
    drawn = axes.errorbar(
        [x.mean],
        [y.mean],
        xerr=[0.0 if np.isnan(x.half_width) else x.half_width],
        yerr=[0.0 if np.isnan(y.half_width) else y.half_width],
        linestyle="none",
        elinewidth=0.6,
        ecolor=(0.5, 0.5, 0.5, 0.4),
        **style,  # type: ignore[arg-type]
    )
    drawn.lines[0].set_clip_on(False)
    return x.mean, y.mean


def _pareto(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Points (accuracy, difference) that no other one beats in both, by accuracy."""
    best: list[tuple[float, float]] = []
    for x, y in sorted(points, key=lambda point: (-point[0], point[1])):
        if not best or y < best[-1][1]:
            best.append((x, y))
    return best
