"""The figures of a report one by one, for notebooks: each function takes the name of a sweep and `Results`, and returns matplotlib axes.

A figure with one panel gives its `Axes`; one with several gives a list of them. `axes.figure.savefig(…)` keeps it.
"""

from collections.abc import Callable

from matplotlib.axes import Axes

from kd_ray.analysis.reading import read_study
from kd_ray.analysis.report import bias, equity, runs
from kd_ray.analysis.report import overview as _overview
from kd_ray.analysis.report.axis import ConditionAxis, condition_axis
from kd_ray.analysis.report.build import compared
from kd_ray.analysis.report.evidence import Evidence, make_evidence
from kd_ray.analysis.report.power_figure import power_curves
from kd_ray.analysis.report.style import Drawing, drawing
from kd_ray.analysis.report.teacher_disagreement import disagreements, matrices
from kd_ray.analysis.study import Study
from kd_ray.errors import InvalidInputError
from kd_ray.results.query import Results

__all__ = [
    "class_accuracy",
    "class_effects",
    "cost",
    "disagreement",
    "frontier",
    "group_fairness",
    "individual_fairness",
    "overview",
    "power",
    "significant_classes",
    "training",
]


def overview(sweep: str, results: Results) -> Axes | list[Axes]:
    """Accuracy and fairness of every condition: the first figure of the report."""
    return _draw(sweep, results, _overview.overview)


def significant_classes(sweep: str, results: Results) -> Axes | list[Axes]:
    """Classes that differ from scratch and from the teacher: as published, established, and expected by chance."""
    return _draw(sweep, results, bias.counts)


def class_accuracy(sweep: str, results: Results) -> Axes | list[Axes]:
    """Accuracy of single classes."""
    return _draw(sweep, results, bias.class_accuracy)


def class_effects(sweep: str, results: Results) -> Axes | list[Axes]:
    """Map of the effects on classes."""
    return _draw(sweep, results, bias.heat_map)


def disagreement(sweep: str, results: Results) -> Axes | list[Axes]:
    """Pairs of classes on which students and teachers disagree."""
    return _draw(sweep, results, lambda study, *_: matrices(study, disagreements(study)))


def group_fairness(sweep: str, results: Results, feature: str) -> Axes | list[Axes]:
    """Fairness metrics of one sensitive feature, beside teacher, scratch and chance.

    Raises:
        InvalidInputError: the sweep does not compare this feature.
    """

    def draw(study: Study, evidence: Evidence, axis: ConditionAxis) -> Drawing | None:
        found = {it.feature: it for it in study.fairness}
        if feature not in found:
            raise InvalidInputError(
                f"sweep {sweep}: no sensitive feature {feature!r}; valid: {', '.join(found) or 'none'}"
            )
        return equity.group_fairness(study, evidence, found[feature], axis, "fairness")

    return _draw(sweep, results, draw)


def frontier(sweep: str, results: Results) -> Axes | list[Axes]:
    """Accuracy against fairness."""
    return _draw(sweep, results, lambda study, _, axis: equity.frontier(study, study.fairness, axis))


def individual_fairness(sweep: str, results: Results) -> Axes | list[Axes]:
    """Individual fairness beside confidence."""
    return _draw(sweep, results, lambda study, _, axis: equity.individual(study, axis))


def power(sweep: str, results: Results) -> Axes | list[Axes]:
    """Differences that these and more seeds can find."""
    return _draw(sweep, results, lambda study, evidence, _: power_curves(study, evidence))


def training(sweep: str, results: Results) -> Axes | list[Axes]:
    """Training curves."""
    return _draw(sweep, results, lambda study, *_: runs.training_curves(study))


def cost(sweep: str, results: Results) -> Axes | list[Axes]:
    """Training time."""
    return _draw(sweep, results, lambda study, *_: runs.cost(study))


def _draw(
    sweep: str, results: Results, draw: Callable[[Study, Evidence, ConditionAxis], Drawing | None]
) -> Axes | list[Axes]:
    study = read_study(results, sweep)
    with drawing():
        drawn = draw(study, make_evidence(compared(results, study)[0], study), condition_axis(study))
    if drawn is None:
        raise InvalidInputError(f"sweep {sweep}: its trials have nothing for this figure")
    axes = drawn.figure.axes
    return axes[0] if len(axes) == 1 else axes
