"""How `kd-ray compare` writes single values of a comparison: headings, means, numbers in the units of their metrics."""

from collections.abc import Sequence

from kd_ray.metrics.catalogue import METRICS
from kd_ray.results.comparison_schema import Comparison
from kd_ray.shown import rounded


def title(metric: str, feature: str | None = None) -> str:
    """Heading of a metric, such as `EOD color`."""
    name = METRICS[metric].short if metric in METRICS else metric.replace("_", " ")
    return " ".join(filter(None, [name, feature]))


def mean_and_sd(row: Comparison) -> str:
    """Mean of a condition, with its sd where there is one."""
    sd = "" if row.sd_treatment is None else f" ± {value(row, row.sd_treatment)}"
    return f"{value(row, row.mean_treatment)}{sd}"


def value(row: Comparison, number: float | None, *, sign: bool = False) -> str:
    """A number in the unit and digits of the row's metric; effects on classes in points."""
    if number is None:
        return "–"
    metric = METRICS.get(row.metric)
    if row.metric in ("relative_accuracy", "class_accuracy") or metric is None:
        scale, digits = 100.0, 2
    else:
        scale, digits = metric.scale, metric.digits
    return rounded(number * scale, digits, sign=sign).replace("-", "−")


def chosen(rows: Sequence[Comparison], *statuses: str) -> list[Comparison]:
    """The rows with one of these statuses, the clearest first."""
    found = [row for row in rows if row.status in statuses]
    return sorted(found, key=lambda row: (statuses.index(row.status or ""), row.q or 0.0, row.p_claim or 0.0))
