"""How often students predict another class than their teacher, and which (Figure 2 of Mohammadshahi & Ioannou)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

from kd_ray.analysis.conditions import Condition
from kd_ray.analysis.report.style import Drawing, drawable, new_figure
from kd_ray.analysis.study import Study
from kd_ray.metrics.arrays import FloatArray
from kd_ray.metrics.disagreement import disagreement

LARGEST_NUMBERED = 12
"""Classes up to which the counts are printed into the cells."""
LARGEST_SHOWN = 30


@dataclass(frozen=True, kw_only=True, eq=False)
class TeacherDisagreement:
    """How often the trials of one condition contradict their teachers."""

    condition: Condition
    matrix_CC: FloatArray
    """Mean count over pairs; [i, j]: the teacher predicts i, the student j. The diagonal is 0."""
    rates: FloatArray
    """Share of test samples on which a pair differs, one value per pair."""
    num_test: int

    @property
    def n(self) -> int:
        """Pairs of a student and its teacher."""
        return len(self.rates)


def disagreements(study: Study) -> tuple[TeacherDisagreement, ...]:
    """Every student condition beside the teachers that it is compared with; empty without any teacher."""
    found = [_disagreement(study, condition) for condition in (*study.of_role("scratch"), *study.distilled)]
    return tuple(it for it in found if it is not None)


def matrices(study: Study, found: Sequence[TeacherDisagreement]) -> Drawing | None:
    """Up to three matrices: scratch, and the distilled conditions that agree most and least with the teacher."""
    chosen = _chosen(found)
    if not chosen:
        return None
    size = len(study.class_names)
    places = np.arange(size)
    if size > LARGEST_SHOWN:
        off = np.sum([it.matrix_CC.sum(axis=0) + it.matrix_CC.sum(axis=1) for it in chosen], axis=0)
        places = np.sort(np.lexsort((places, -off))[:LARGEST_SHOWN])
    shown = [it.matrix_CC[np.ix_(places, places)] for it in chosen]
    top = max(float(matrix.max()) for matrix in shown) or 1.0
    numbered = size <= LARGEST_NUMBERED
    names = [drawable(study.class_names[place], 12) for place in places]
    figure = new_figure(3.4)
    panels = figure.subplots(1, len(chosen), squeeze=False)[0]
    for axes, it, matrix in zip(panels, chosen, shown, strict=True):
        masked = np.ma.masked_array(matrix, mask=np.eye(len(places), dtype=bool))
        mesh = axes.pcolormesh(masked, cmap="Blues", vmin=0, vmax=top, rasterized=len(places) > 60)
        axes.invert_yaxis()
        axes.set_aspect("equal")
        axes.grid(visible=False)
        axes.tick_params(length=0)
        axes.set_xticks(np.arange(len(places)) + 0.5, names, rotation=90, fontsize=7 if numbered else 5)
        axes.set_yticks(np.arange(len(places)) + 0.5, names if axes is panels[0] else [], fontsize=7 if numbered else 5)
        axes.set_title(f"{drawable(it.condition.label, 26)}\n{100 * it.rates.mean():.1f} %")
        axes.set_xlabel("student predicts")
        if numbered:
            _number(axes, matrix, top)
    panels[0].set_ylabel("teacher predicts")
    figure.colorbar(mesh, ax=list(panels), label="test samples, mean over pairs", shrink=0.75, pad=0.01)
    which = f" The {len(places)} of {size:,} classes with most disagreement are shown." if size > len(places) else ""
    pairs = ", ".join(f"{it.condition.label} n = {it.n}" for it in chosen)
    more = len(found) - len(chosen)
    others = (
        f" Of the distilled conditions, those with the least and the most disagreement; {more} more are in the table."
        if more > 0
        else ""
    )
    return Drawing(
        name="disagreement",
        title="Where students contradict their teacher",
        caption="Test samples that the teacher predicts as one class (row) and the student as another (column), "
        "whatever their true class; the diagonal is left out. Mean over pairs of a student and its teacher, rounded "
        f"to whole samples; above each panel the share of all test samples. Pairs: {pairs}; {chosen[0].num_test:,} "
        f"test samples.{others}{which}",
        figure=figure,
    )


def _chosen(found: Sequence[TeacherDisagreement]) -> list[TeacherDisagreement]:
    scratch = [it for it in found if it.condition.role == "scratch"][:1]
    distilled = sorted((it for it in found if it.condition.is_distilled), key=lambda it: float(it.rates.mean()))
    ends = distilled if len(distilled) < 3 else [distilled[0], distilled[-1]]
    return [*scratch, *ends]


def _number(axes: Axes, matrix: npt.NDArray[np.float64], top: float) -> None:
    for i, j in np.ndindex(*matrix.shape):
        if i != j:
            color = "white" if matrix[i, j] > 0.6 * top else "black"
            axes.text(j + 0.5, i + 0.5, f"{matrix[i, j]:.0f}", ha="center", va="center", fontsize=5.5, color=color)


def _disagreement(study: Study, condition: Condition) -> TeacherDisagreement | None:
    pairs = study.pairs(condition)
    if not pairs:
        return None
    labels_N, num_classes = study.test_sets[condition.axes["dataset_id"]].labels_N, len(study.class_names)
    found = [
        disagreement(study.predictions[teacher], study.predictions[student], labels_N, num_classes=num_classes)
        for teacher, student in pairs
    ]
    return TeacherDisagreement(
        condition=condition,
        matrix_CC=np.mean([it.matrix_CC for it in found], axis=0),
        rates=np.array([it.rate for it in found]),
        num_test=len(labels_N),
    )
