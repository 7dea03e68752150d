"""The figure of the first screen: accuracy, and EOD of the first sensitive feature, over temperature."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kd_ray.analysis.report.axis import (
    ConditionAxis,
    counts_in_words,
    draw_lines,
    draw_references,
    keep_to_rates,
    legend_columns,
    look,
)
from kd_ray.analysis.report.evidence import Evidence
from kd_ray.analysis.report.measured_tables import CHANCE, EOD
from kd_ray.analysis.report.style import CHANCE_LINE, Drawing, drawable, new_figure
from kd_ray.analysis.study import Fairness, Study
from kd_ray.metrics.catalogue import METRICS


def overview(study: Study, evidence: Evidence, axis: ConditionAxis) -> Drawing | None:
    """Accuracy of all conditions, and EOD of the first sensitive feature beside its chance level."""
    if not axis.lines:
        return None
    fairness = study.fairness[0] if study.fairness else None
    figure = new_figure(2.7, 6.4 if fairness else 4.2)
    panels = figure.subplots(1, 2 if fairness else 1, squeeze=False)[0]
    values = [("accuracy", study.values("accuracy"), "accuracy")]
    if fairness:
        values.append((EOD, fairness.metrics[EOD], f"EOD for {drawable(fairness.feature, 24)}"))
    for axes, (metric, values_T, title) in zip(panels, values, strict=True):
        draw_references(axes, study, axis, values_T)
        draw_lines(axes, axis, values_T)
        if fairness and metric == EOD:
            draw_chance(axes, evidence, axis, fairness, metric)
        keep_to_rates(axes)
        axis.dress(axes, label=False)
        axes.set_ylabel(f"{METRICS[metric].short} (%)")
        axes.set_title(title)
    figure.supxlabel(axis.label, fontsize=9)
    legend_above(figure, panels[-1])
    groups = (
        f" EOD, the equalized odds difference, is the largest gap in true or false positive rate between groups of "
        f"{fairness.feature}, mean over classes; 0 is parity. {CHANCE}."
        if fairness
        else ""
    )
    return Drawing(
        name="overview",
        title="Accuracy and fairness",
        caption=f"Points are means, bars and bands 95 % intervals over runs (seeds); {counts_in_words(study)}.{groups}",
        figure=figure,
    )


def draw_chance(axes: Axes, evidence: Evidence, axis: ConditionAxis, fairness: Fairness, metric: str) -> None:
    """Chance level of every distilled condition, where the comparisons know it."""
    for i, line in enumerate(axis.lines):
        levels = [100 * evidence.chance(condition, metric, fairness.feature)[0] for condition in line.conditions]
        if np.isnan(levels).all():
            continue
        style = dict(CHANCE_LINE)
        if len(axis.lines) > 1:
            style["color"] = look(i)["color"]
        if not axis.is_temperature or len(levels) == 1:
            style |= {"linestyle": "none", "marker": "_", "markersize": 14}
        axes.plot(line.x, levels, label="chance level", **style)


def legend_above(figure: Figure, axes: Axes) -> None:
    """One legend above all panels, outside of the axes, with each entry of one panel once."""
    handles, labels = axes.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    figure.legend(unique.values(), unique.keys(), loc="outside upper center", ncols=legend_columns(unique))
