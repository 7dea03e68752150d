"""How small a difference the runs could have shown, and how small it could be with more of them."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter

from kd_ray.analysis.report.axis import look
from kd_ray.analysis.report.evidence import Evidence
from kd_ray.analysis.report.measured_tables import DPD, EOD
from kd_ray.analysis.report.style import EXPECTED, Drawing, drawable, new_figure
from kd_ray.analysis.row_words import BASELINE
from kd_ray.analysis.study import SCRATCH, TEACHER, Study
from kd_ray.metrics.catalogue import METRICS
from kd_ray.results.comparison_schema import Comparison

_MAX_FEATURES = 4
_TICKS = (2, 3, 5, 10, 20, 50)
_KINDS = (
    ("smallest_detectable_uncorrected", "one test alone"),
    ("smallest_detectable", "to be established"),
)


def power_curves(study: Study, evidence: Evidence) -> Drawing | None:
    """The smallest difference that is found, by the number of seeds, as far as the spread between seeds is known."""
    rows = evidence.of("power")
    contrast = next((it for it in (SCRATCH, TEACHER) if any(row.contrast == it for row in rows)), None)
    chosen = [row for row in rows if row.contrast == contrast]
    classes = [row for row in chosen if row.metric == "relative_accuracy"]
    by_feature = {metric: [row for row in chosen if row.metric == metric] for metric in (EOD, DPD)}
    panels = [("class accuracy", classes), *((METRICS[metric].short, found) for metric, found in by_feature.items())]
    panels = [(name, found) for name, found in panels if any(_is_possible(row, "smallest_detectable") for row in found)]
    if not panels:
        return None
    figure = new_figure(3.0, 7.2 if len(panels) > 1 else 4.5)
    n_now = max((condition.n for condition in study.distilled), default=0)
    for axes, (name, found) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        if found is classes:
            for i, (column, label) in enumerate(_KINDS):
                _draw(axes, found, column, label, i)
        else:
            features = list(dict.fromkeys(row.sensitive_feature for row in found))[:_MAX_FEATURES]
            for i, feature in enumerate(features):
                mine = [row for row in found if row.sensitive_feature == feature]
                _draw(axes, mine, "smallest_detectable", f"{drawable(str(feature), 20)}", i)
        _dress(axes, n_now)
        axes.set_title(name)
        axes.set_ylabel("smallest difference found (points)")
        axes.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.24))
    power = next(row.power for row in chosen)
    return Drawing(
        name="power",
        title="How small a difference these and more seeds find",
        caption=f"True difference between {BASELINE[contrast or '']} and distilled that is found with probability {power:g}, by the "
        "number of seeds on each side; both axes are logarithmic. One test alone: at level "
        f"{evidence.level:g}. To be established: with the correction for as many tests as this report has. From the median spread "
        f"between seeds (n = {n_now} now: the dotted line); runs are taken to be normal, and their spread is known no better than "
        "these seeds tell.",
        figure=figure,
    )


def _draw(axes: Axes, rows: Sequence[Comparison], column: str, label: str, i: int) -> None:
    points = sorted((row.n_treatment, 100 * getattr(row, column)) for row in rows if _is_possible(row, column))
    if points:
        axes.plot(*zip(*points, strict=True), label=label, **look(i))


def _is_possible(row: Comparison, column: str) -> bool:
    """Whether rates can differ by that much."""
    value = getattr(row, column)
    return value is not None and value <= 1


def _dress(axes: Axes, n_now: int) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.xaxis.set_major_locator(FixedLocator(_TICKS))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    for it in (axes.xaxis, axes.yaxis):
        it.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        it.set_minor_formatter(NullFormatter())
    # No difference of rates is larger.
    axes.set_ylim(top=min(100.0, axes.get_ylim()[1]))
    if n_now > 1:
        axes.axvline(n_now, **EXPECTED)
    axes.set_xlabel("seeds on each side (log scale)")
