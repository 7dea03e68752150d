"""Figures of the trials themselves: how they trained, and what they took."""

from typing import Any

import numpy as np
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from kd_ray.analysis.conditions import Condition
from kd_ray.analysis.report.axis import legend_columns, seeds
from kd_ray.analysis.report.style import BLACK, BLUE, SCRATCH, SERIES_DASHES, TEACHER, Drawing, drawable, new_figure
from kd_ray.analysis.study import Study
from kd_ray.errors import count_of
from kd_ray.metrics.arrays import FloatArray

MAX_CURVES = 8


def training_curves(study: Study) -> Drawing | None:
    """Training loss and accuracy by epoch."""
    trained = [condition for condition in study.conditions if _curve(study, condition) is not None]
    if not trained:
        return None
    distilled = [condition for condition in trained if condition.is_distilled]
    kept = {
        id(distilled[i])
        for i in np.linspace(0, len(distilled) - 1, min(len(distilled), MAX_CURVES)).round().astype(int)
    }
    shown = [c for c in trained if not c.is_distilled or id(c) in kept]
    figure = new_figure(3.0)
    panels = figure.subplots(1, 2)
    colors = _shades(sum(condition.is_distilled for condition in shown))
    for condition in shown:
        curve = _curve(study, condition)
        assert curve is not None
        epoch, loss, accuracy = curve
        style = _style(condition, colors)
        panels[0].plot(epoch, loss, label=drawable(condition.label, 30), **style)
        panels[1].plot(epoch, 100 * accuracy, label=drawable(condition.label, 30), **style)
    panels[0].set_yscale("log")
    panels[0].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panels[0].yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panels[0].yaxis.set_minor_formatter(NullFormatter())
    for axes, name in zip(panels, ("mean training loss (nat, log scale)", "training accuracy (%)"), strict=True):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("epoch")
        axes.set_ylabel(name)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=legend_columns(labels))
    more = f" {len(trained) - len(shown)} more conditions are left out." if len(trained) > len(shown) else ""
    return Drawing(
        name="training-curves",
        title="Training",
        caption=f"Mean over the trials of a condition, {seeds(shown)}; no intervals are drawn. Losses of different "
        "objectives, temperatures and weights are not on one scale. Accuracy is that on the samples as they were "
        f"trained on, augmentation included.{more}",
        figure=figure,
    )


def cost(study: Study) -> Drawing | None:
    """Training time of each trial, by condition."""
    elapsed_T = study.values("elapsed_s")
    shown = [condition for condition in study.conditions if np.isfinite(elapsed_T[condition.trials]).any()]
    if not shown:
        return None
    shown = shown[:40]
    figure = new_figure(0.9 + 0.19 * len(shown))
    axes = figure.subplots()
    for i, condition in enumerate(shown):
        values = elapsed_T[condition.trials]
        axes.plot(values, np.full(len(values), i), "o", color=BLUE, markersize=4, markerfacecolor="none")
        axes.plot([np.nanmean(values)], [i], "|", color=BLACK, markersize=9, markeredgewidth=1.6)
    axes.set_yticks(range(len(shown)), [drawable(condition.label, 34) for condition in shown])
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.set_xlabel("training time per trial (s)")
    more = (
        f" {len(study.conditions) - len(shown)} more conditions are in the table."
        if len(study.conditions) > len(shown)
        else ""
    )
    return Drawing(
        name="cost",
        title="What the sweep took",
        caption=f"Rings are trials, bars their means; {seeds(shown)} per condition. {cost_in_words(study)} In a "
        f"pack, a trial's time is its share.{more}",
        figure=figure,
    )


def cost_in_words(study: Study) -> str:
    """Trials, total time and devices."""
    elapsed_T = study.values("elapsed_s")
    devices: dict[str, int] = {}
    for row in study.trials:
        devices[str(row["device"])] = devices.get(str(row["device"]), 0) + 1
    words = ", ".join(f"{count} on {name}" for name, count in devices.items())
    hosts = len({row["host"] for row in study.trials})
    return (
        f"{count_of(len(study.trials), 'trial')} took {duration(float(np.nansum(elapsed_T)))} of training in all ({words}; "
        f"{hosts} host{'s' if hosts != 1 else ''})."
    )


def duration(seconds: float) -> str:
    """A time for people."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _curve(study: Study, condition: Condition) -> tuple[FloatArray, FloatArray, FloatArray] | None:
    found = [study.epochs[id_] for i in condition.trials if (id_ := study.trials[i]["trial_id"]) in study.epochs]
    if not found:
        return None
    # Trials of a condition have as many epochs; one that was given has none.
    length = min(len(epoch) for epoch, _, _ in found)
    epoch, loss, accuracy = (np.mean([curves[k][:length] for curves in found], axis=0) for k in range(3))
    return epoch, loss, accuracy


def _shades(count: int) -> list[Any]:
    from matplotlib import colormaps

    return [colormaps["viridis"](value) for value in np.linspace(0.0, 0.85, max(count, 1))]


def _style(condition: Condition, colors: list[Any]) -> dict[str, Any]:
    if not condition.is_distilled:
        return TEACHER if condition.role == "teacher" else SCRATCH
    color = colors.pop(0)
    return {"color": color, "linestyle": SERIES_DASHES[len(colors) % 3], "linewidth": 1.1}
