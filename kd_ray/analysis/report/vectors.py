"""What an objective held of each class because of its teacher: the weight of the distillation term, or a margin, against reliability."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from kd_ray.analysis.conditions import Condition
from kd_ray.analysis.report.axis import legend_columns
from kd_ray.analysis.report.style import (
    SERIES_COLORS,
    SERIES_MARKERS,
    Drawing,
    drawable,
    new_figure,
)
from kd_ray.analysis.report.table import ReportColumn, ReportTable, without_empty_columns
from kd_ray.analysis.study import Study
from kd_ray.metrics.arrays import FloatArray

_SHOWN = {"class_alpha": "alpha of the class", "class_margin": "margin of the class (logits)"}
_RELIABILITY = "teacher_held_out_margin"
_MAX_VECTORS = len(SERIES_COLORS)
MAX_ROWS = 40
"""Classes with which the table still stands on the page."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Vector:
    """One vector, and the first of the conditions that had it."""

    name: str
    condition: Condition
    values_C: FloatArray
    """Mean over runs."""
    reliability_C: FloatArray


def class_vectors(study: Study) -> Drawing | None:
    """A point for each class: what it got over the teacher's mean margin on its held-out samples."""
    vectors = list(_vectors(study))[:_MAX_VECTORS]
    names = [name for name in _SHOWN if any(vector.name == name for vector in vectors)]
    if not names:
        return None
    figure = new_figure(2.9)
    panels = figure.subplots(1, len(names), squeeze=False)[0]
    for axes, name in zip(panels, names, strict=True):
        for i, vector in enumerate(vectors):
            if vector.name == name:
                style = {"color": SERIES_COLORS[i], "marker": SERIES_MARKERS[i], "linestyle": "none"}
                label = drawable(vector.condition.label, 40)
                axes.plot(vector.reliability_C, vector.values_C, label=label, **style)
        axes.set_xlabel("mean margin of the teacher on held-out samples")
        axes.set_ylabel(_SHOWN[name])
        axes.set_ylim(bottom=0)
    handles = [handle for axes in panels for handle in axes.get_legend_handles_labels()[0]]
    labels = [label for axes in panels for label in axes.get_legend_handles_labels()[1]]
    figure.legend(handles, labels, loc="outside lower center", ncols=legend_columns(labels))
    return Drawing(
        name="class-vectors",
        title="What unreliable classes got",
        caption="Each point is a class, mean over runs (seeds; their teachers may differ): the weight of the "
        "distillation term in the style of AdaAlpha, or the margin in the style of AdaMargin (Lukasik et al. 2022; "
        "the maps are ours), over the teacher's mean of p(y) − the largest other p on the validation split. Vectors "
        "follow shrinkage and clipping too, and the accuracy where the sweep says so. Conditions with the same vector "
        f"are shown once{_and_more(study)}.",
        figure=figure,
    )


def vector_table(study: Study) -> ReportTable:
    """A row for each class: held-out samples, the teacher's reliability on them, and every different vector."""
    vectors = list(_vectors(study))
    first = vectors[0].condition if vectors else None
    held_out = [
        _mean(study, first, name) if first else np.full(len(study.class_names), np.nan)
        for name in ("held_out_n", "teacher_held_out_accuracy", _RELIABILITY)
    ]
    columns_C = [held_out[0], 100 * held_out[1], held_out[2], *(vector.values_C for vector in vectors)]
    kinds = {"class_alpha": "alpha", "class_margin": "margin"}
    table = ReportTable(
        name="class-vectors",
        title="What each class got because of its teacher",
        caption="Means over runs (seeds). Reliability is that of the teachers of the first condition, on the "
        "validation split; alpha is the weight of the distillation term, in the style of AdaAlpha, margins are in "
        "logits, in the style of AdaMargin (Lukasik et al. 2022; the maps are ours).",
        columns=(
            ReportColumn(name="class"),
            ReportColumn(name="held out", digits=0),
            ReportColumn(name="teacher's accuracy", unit="%"),
            ReportColumn(name="teacher's margin", digits=3),
            *(ReportColumn(name=f"{kinds[v.name]}: {v.condition.label}", digits=3) for v in vectors),
        ),
        rows=tuple(
            (name, *(None if np.isnan(column_C[c]) else float(column_C[c]) for column_C in columns_C))
            for c, name in enumerate(study.class_names)
        )
        if vectors
        else (),
    )
    return without_empty_columns(table)


def _vectors(study: Study) -> Iterator[_Vector]:
    """The different vectors, in the order of the conditions."""
    seen: list[tuple[str, FloatArray]] = []
    for condition in study.distilled:
        for name in _SHOWN:
            values_C = _mean(study, condition, name)
            known = any(other == name and np.array_equal(values_C, it_C, equal_nan=True) for other, it_C in seen)
            if np.isnan(values_C).all() or known:
                continue
            seen.append((name, values_C))
            reliability_C = _mean(study, condition, _RELIABILITY)
            yield _Vector(name=name, condition=condition, values_C=values_C, reliability_C=reliability_C)


def _mean(study: Study, condition: Condition, name: str) -> FloatArray:
    values_TC = study.class_vectors.get(name)
    if values_TC is None:
        return np.full(len(study.class_names), np.nan)
    return np.asarray(values_TC[condition.trials].mean(axis=0))


def _and_more(study: Study) -> str:
    more = len(list(_vectors(study))) - _MAX_VECTORS
    return f"; {more} more are in the table" if more > 0 else ""
