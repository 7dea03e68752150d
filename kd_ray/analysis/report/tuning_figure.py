"""The figure of a search: the metric of every candidate over each setting that was searched."""

import json
from typing import Any

from matplotlib.ticker import NullFormatter

from kd_ray.analysis.report.style import BLUE, GREY, VERMILLION, drawable, drawing, new_figure, render
from kd_ray.metrics.catalogue import METRICS
from kd_ray.sweep.tuning_settings import LogUniform
from kd_ray.tuning.outcome import Outcome

_COLUMNS = 3
_LOOKS: dict[str, dict[str, Any]] = {
    "complete": {"color": BLUE, "marker": "o", "label": "complete"},
    "stopped": {"color": GREY, "marker": "x", "label": "stopped early"},
}


def slices(outcome: Outcome) -> bytes | None:
    """As SVG: a panel for each setting, a point for each candidate, the chosen one ringed. None while no candidate has a value."""
    shown = [one for one in outcome.placed if one.value is not None and one.state in _LOOKS]
    if not shown:
        return None
    metric = METRICS[outcome.tuning.metric]
    space = outcome.tuning.space
    num_rows = -(-len(space) // _COLUMNS)
    with drawing():
        figure = new_figure(2.6 * num_rows)
        panels = figure.subplots(num_rows, min(_COLUMNS, len(space)), squeeze=False, sharey=True).ravel()
        for axes, (path, dimension) in zip(panels, space.items(), strict=False):
            names = [json.dumps(value) for value in dimension] if isinstance(dimension, tuple) else []

            def x_of(value: Any, names: list[str] = names) -> float:
                return names.index(json.dumps(value)) if names else float(value)

            for state, look in _LOOKS.items():
                points = [
                    (x_of(one.candidate.settings[path]), metric.scale * (one.value or 0.0))
                    for one in shown
                    if one.state == state
                ]
                if points:
                    axes.plot(*zip(*points, strict=True), linestyle="none", markersize=5, **look)
            if outcome.chosen is not None:
                x, y = x_of(outcome.chosen.candidate.settings[path]), metric.scale * (outcome.chosen.value or 0.0)
                ring = {"markersize": 11, "markerfacecolor": "none", "color": VERMILLION, "label": "chosen"}
                axes.plot([x], [y], "o", linestyle="none", **ring)
            if isinstance(dimension, tuple):
                labels = [drawable(name, 16) for name in _short(dimension)]
                axes.set_xticks(range(len(names)), labels, rotation=20)
                axes.set_xlim(-0.5, len(names) - 0.5)
            if isinstance(dimension, LogUniform):
                axes.set_xscale("log")
                # Matplotlib would write powers of ten as formulas, which `drawing` turns off.
                axes.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
                axes.xaxis.set_minor_formatter(NullFormatter())
            axes.set_xlabel(drawable(path, 40))
            axes.margins(x=0.1, y=0.15)
        for axes in panels[len(space) :]:
            axes.set_visible(False)
        unit = " (%)" if metric.unit == "rate" else ""
        panels[0].set_ylabel(f"{metric.short}{unit}, validation")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=3)
        return render(figure).svg


def _short(choices: tuple[Any, ...]) -> list[str]:
    """A word for each value of a list: of mappings their names, where these differ."""
    names = [value.get("name") if isinstance(value, dict) else value for value in choices]
    if len({json.dumps(name) for name in names}) < len(choices):
        names = list(choices)
    return [name if isinstance(name, str) else json.dumps(name) for name in names]
