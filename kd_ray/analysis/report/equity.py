"""Figures of fairness between groups and between individuals, and what they cost in accuracy."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kd_ray.analysis.report.axis import (
    ConditionAxis,
    counts_in_words,
    draw_lines,
    draw_references,
    interval,
    keep_to_rates,
    legend_columns,
    look,
)
from kd_ray.analysis.report.bias import INTERVAL
from kd_ray.analysis.report.study import Condition, Fairness, FloatArray, Study
from kd_ray.analysis.report.style import BLACK, EXPECTED, GREY, Drawing, drawable, new_figure

EOD, DPD, LABEL_DPD = (
    "equalized_odds_difference",
    "demographic_parity_difference",
    "label_demographic_parity_difference",
)
NAMES = {EOD: "EOD", DPD: "DPD"}


def group_fairness(study: Study, fairness: Fairness, axis: ConditionAxis, name: str) -> Drawing | None:
    """EOD and DPD of one sensitive feature over temperature (Figures 4 and 5 of Mohammadshahi & Ioannou)."""
    if not axis.lines:
        return None
    figure = new_figure(2.9)
    panels = figure.subplots(1, 2)
    for axes, metric in zip(panels, (EOD, DPD), strict=True):
        draw_references(axes, study, axis, fairness.metrics[metric])
        draw_lines(axes, axis, fairness.metrics[metric])
        if metric == DPD:
            _label_line(axes, fairness)
        keep_to_rates(axes)
        axis.dress(axes)
        axes.set_ylabel(f"{NAMES[metric]} (%)")
    panels[0].set_title("equalized odds difference")
    panels[1].set_title("demographic parity difference")
    _legend_below(figure, panels[1])
    return Drawing(
        name=name,
        title=f"Fairness between groups of {fairness.feature}",
        caption=f"Differences between {fairness.num_groups} groups of {fairness.feature}, one-vs-rest mean over "
        f"classes; 0 is parity. {INTERVAL}, which hold for this test set; {counts_in_words(study)}. The dotted line "
        "is the DPD that the true labels have: a model that falls below it does so by erring. A largest minus a "
        "smallest rate grows with the number of groups and with their noise.",
        figure=figure,
    )


def _legend_below(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    figure.legend(unique.values(), unique.keys(), loc="outside lower center", ncols=legend_columns(unique))


def _label_line(axes: Axes, fairness: Fairness) -> None:
    values_R = fairness.metrics[LABEL_DPD]
    if not np.isnan(values_R).all():
        axes.axhline(100 * float(np.nanmean(values_R)), label="true labels", **EXPECTED)


def frontier(study: Study, features: Sequence[Fairness], axis: ConditionAxis) -> Drawing | None:
    """EOD and DPD against accuracy: whether what is fairer is so because it is more accurate."""
    shown = features[:3]
    if not shown or not axis.lines:
        return None
    figure = new_figure(0.5 + 2.3 * 2)
    grid = figure.subplots(2, len(shown), squeeze=False)
    accuracy_R = study.values("accuracy")
    for j, fairness in enumerate(shown):
        for axes, metric in zip(grid[:, j], (EOD, DPD), strict=True):
            _draw_frontier(axes, study, axis, accuracy_R, fairness.metrics[metric])
            axes.set_ylabel(f"{NAMES[metric]} (%)")
            if metric == DPD:
                axes.set_xlabel("accuracy (%)")
                _label_line(axes, fairness)
            else:
                axes.set_title(drawable(fairness.feature, 30))
    _legend_below(figure, grid[1, 0])
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
    """Individual fairness over temperature, on probabilities and on predicted labels (Table 4)."""
    soft_R, hard_R = study.values("individual_fairness"), study.values("individual_fairness_hard")
    if not axis.lines or np.isnan(soft_R).all():
        return None
    figure = new_figure(2.8)
    panels = figure.subplots(1, 2)
    for axes, values_R, title in zip(
        panels, (soft_R, hard_R), ("on probabilities", "on predicted labels"), strict=True
    ):
        draw_references(axes, study, axis, values_R, scale=1)
        draw_lines(axes, axis, values_R, scale=1)
        axis.dress(axes)
        axes.set_title(title)
        axes.set_ylabel("individual fairness (0 is fair)")
    _legend_below(figure, panels[0])
    return Drawing(
        name="individual-fairness",
        title="Fairness between individuals",
        caption="Mean change of the prediction (total variation) per unit of distance between two test samples. "
        f"{INTERVAL}; {counts_in_words(study)}. Flatter probabilities alone lower the left panel without any other "
        "decision; the right panel counts decisions only.",
        figure=figure,
    )


def _draw_frontier(axes: Axes, study: Study, axis: ConditionAxis, accuracy_R: FloatArray, values_R: FloatArray) -> None:
    """Students with their frontier; the teacher is a larger network and only shown where it lies among them."""
    students: list[tuple[str, tuple[float, float], bool]] = []
    for condition in study.of_role("scratch")[:1]:
        point = _point(axes, condition, accuracy_R, values_R, marker="X", color=GREY, label="scratch", zorder=3)
        students.append(("", point, False))
    for i, line in enumerate(axis.lines):
        style = {name: value for name, value in look(i).items() if name != "linestyle"}
        label = drawable(line.label, 30)
        points = [_point(axes, c, accuracy_R, values_R, label=label, **style) for c in line.conditions]
        names = [c.label.split(" ")[0] if axis.is_temperature else drawable(c.label, 18) for c in line.conditions]
        ends = [k in (0, len(points) - 1) for k in range(len(points))]
        students += zip(names, points, ends, strict=True)
    best = _pareto([point for _, point, _ in students if not np.isnan(point[0] + point[1])])
    label = "no student is better in both"
    axes.plot([x for x, _ in best], [y for _, y in best], color=BLACK, linewidth=0.9, zorder=1, label=label)
    _name_points(axes, [(name, point) for name, point, is_end in students if point in best or is_end])
    _teacher_if_near(axes, study, accuracy_R, values_R)


def _name_points(axes: Axes, named: Sequence[tuple[str, tuple[float, float]]]) -> None:
    """Write names beside points, where they do not cover one another."""
    axes.autoscale_view()
    placed: list[tuple[float, float]] = []
    for name, point in named:
        x, y = axes.transAxes.inverted().transform(axes.transData.transform(point))
        if np.isfinite(x + y) and all(abs(x - px) > 0.2 or abs(y - py) > 0.07 for px, py in placed):
            axes.annotate(name, point, xytext=(4, 4), textcoords="offset points", fontsize=6.5)
            placed.append((float(x), float(y)))


def _teacher_if_near(axes: Axes, study: Study, accuracy_R: FloatArray, values_R: FloatArray) -> None:
    """Draw the teacher if that takes no more than half of the panel from the students; else say where it is."""
    for condition in study.of_role("teacher")[:1]:
        x, y = (interval(100 * condition.over_runs(them)).mean for them in (accuracy_R, values_R))
        if np.isnan(x + y):
            continue
        (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
        if max((max(right, x) - min(left, x)) / (right - left), (max(top, y) - min(bottom, y)) / (top - bottom)) <= 2:
            _point(axes, condition, accuracy_R, values_R, marker="*", color=BLACK, label="teacher", markersize=7)
            return
        axes.text(
            0.98, 0.98, f"teacher: {x:.1f}, {y:.2f}", transform=axes.transAxes, ha="right", va="top", fontsize=6.5
        )


def _point(
    axes: Axes, condition: Condition, accuracy_R: FloatArray, values_R: FloatArray, **style: object
) -> tuple[float, float]:
    x, y = (interval(100 * condition.over_runs(them)) for them in (accuracy_R, values_R))
    axes.errorbar(
        [x.mean],
        [y.mean],
        xerr=[0.0 if np.isnan(x.half_width) else x.half_width],
        yerr=[0.0 if np.isnan(y.half_width) else y.half_width],
        linestyle="none",
        elinewidth=0.6,
        ecolor=(0.5, 0.5, 0.5, 0.4),
        **style,  # type: ignore[arg-type]
    )
    return x.mean, y.mean


def _pareto(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Points (accuracy, difference) that no other one beats in both, by accuracy."""
    best: list[tuple[float, float]] = []
    for x, y in sorted(points, key=lambda point: (-point[0], point[1])):
        if not best or y < best[-1][1]:
            best.append((x, y))
    return best
