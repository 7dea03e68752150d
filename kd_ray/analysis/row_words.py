"""Words for a row of the table `comparisons`: what it is about, its size, its interval, its p."""

from collections.abc import Sequence

from kd_ray.analysis.study import SCRATCH, TEACHER
from kd_ray.metrics.catalogue import METRICS
from kd_ray.results.comparison_schema import Comparison
from kd_ray.shown import rounded

BASELINE = {SCRATCH: "scratch", TEACHER: "the teacher"}
"""What a contrast compares distilled students with."""


def short(row: Comparison) -> str:
    """What a row is about: `EOD for color`, `accuracy of class cat`."""
    if row.class_name is not None:
        # Divided by the accuracy of the same run, a class may gain where its own accuracy falls.
        relative = " relative to overall accuracy" if row.metric == "relative_accuracy" and row.normalisation else ""
        return f"accuracy of {row.class_name!r}{relative}"
    name = METRICS[row.metric].short if row.metric in METRICS else row.metric.replace("_", " ")
    return f"{name} for {row.sensitive_feature}" if row.sensitive_feature else name


def own_accuracy(row: Comparison) -> str:
    """What the accuracy of a class itself did: divided by overall accuracy, it may gain where it falls. Empty for other rows."""
    if row.metric != "relative_accuracy" or row.accuracy_baseline is None or row.accuracy_treatment is None:
        return ""
    return f"its own accuracy {rounded(100 * row.accuracy_baseline, 1)} → {rounded(100 * row.accuracy_treatment, 1)} %"


def from_to(row: Comparison) -> tuple[float | None, float | None]:
    """Of a class its own accuracy on both sides, else the means that are compared."""
    if row.metric == "relative_accuracy":
        return row.accuracy_baseline, row.accuracy_treatment
    return row.mean_baseline, row.mean_treatment


def amount(row: Comparison, value: float | None, *, sign: bool = False) -> str:
    """A value of a row's metric with its unit: rates in percent points, others as they are."""
    if value is None:
        return "–"
    metric = METRICS.get(row.metric)
    # The effect on a class is in points of accuracy, whatever it is divided by.
    is_rate = row.metric in ("relative_accuracy", "class_accuracy") or (metric is not None and metric.unit == "rate")
    text = rounded(100 * value, 1, sign=sign) if is_rate else rounded(value, 4, sign=sign)
    return text.replace("-", "−")


def points(row: Comparison, value: float | None, *, sign: bool = False) -> str:
    """The same with the word `points` for rates."""
    metric = METRICS.get(row.metric)
    is_rate = row.metric in ("relative_accuracy", "class_accuracy") or (metric is not None and metric.unit == "rate")
    return amount(row, value, sign=sign) + (" points" if is_rate else "")


def shown_p(p: float | None) -> str:
    """A p or q value with its relation: `= 0.012`, `< 0.001`."""
    if p is None:
        return "undefined"
    return "< 0.001" if p < 0.001 else f"= {p:.2g}"


def listed(words: Sequence[str], most: int = 4) -> str:
    """Words as a list in a sentence, cut after `most`."""
    # Names of conditions with several settings have commas in them.
    between = "; " if any(", " in word for word in words) else ", "
    if len(words) > most:
        return f"{between.join(words[:most])} and {len(words) - most} more"
    return " and ".join(filter(None, [between.join(words[:-1]), *words[-1:]]))


def is_or_are(count: int) -> str:
    """The verb for so many things."""
    return "is" if count == 1 else "are"


def capital(text: str) -> str:
    """The text with a capital first letter."""
    return text[:1].upper() + text[1:]


def signed(value: float | None) -> str:
    """A correlation with its sign."""
    return "–" if value is None else f"{value:+.2f}".replace("-", "−")


def interval(row: Comparison) -> str:
    """The interval over seeds, teachers and test samples, or over seeds where there is no other; empty without one."""
    ends = (row.ci_total_low, row.ci_total_high) if row.ci_total_low is not None else (row.ci_low, row.ci_high)
    if ends[0] is None or ends[1] is None:
        return ""
    return (
        f"{100 * (1 - row.level):g} % interval {amount(row, ends[0], sign=True)} to {amount(row, ends[1], sign=True)}"
    )


def scope(row: Comparison) -> str:
    """Which teachers a row speaks of, where these are no sample of teachers."""
    return f", for {row.scope}" if row.scope in ("this teacher", "these teachers") else ""
