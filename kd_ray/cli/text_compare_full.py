"""The tables of `kd-ray compare --full`: every established difference and hint, and what they rest on. Computes nothing."""

from kd_ray.analysis.chance import MIN_CELL
from kd_ray.analysis.compare import SweepComparison
from kd_ray.analysis.row_words import from_to
from kd_ray.cli.comparison_values import chosen, mean_and_sd, title, value
from kd_ray.cli.tables import render_in_parts, wrapped
from kd_ray.metrics.catalogue import METRICS
from kd_ray.results.comparison_schema import Comparison

_CURVE = (3, 5, 10, 20, 30)
"""Runs at which the power curve is printed."""
_CURVES = ("relative_accuracy", "accuracy", "equalized_odds_difference")
_TESTED = ("class_bias", "fairness", "matched_accuracy")


def full_tables(comparison: SweepComparison, width: int | None) -> list[str]:
    """The parts that `--full` adds, each with a heading and the meaning of its columns; empty ones are empty texts."""
    return [
        _claims(comparison, width),
        _differences(comparison, width),
        _trends(comparison, width),
        _matched(comparison, width),
        _groups(comparison, width),
        _frontier(comparison, width),
        _counts(comparison, width),
        _power(comparison, width),
        _collapsed(comparison, width),
    ]


def _part(heading: str, table: str, notes: list[str], width: int | None) -> str:
    return "\n".join([wrapped(heading, width=width), table, *(wrapped(note, width=width) for note in notes)])


def _claims(comparison: SweepComparison, width: int | None) -> str:
    lines = [
        wrapped(
            f"{row.claim}: {(row.status or '').replace('_', ' ')} (p {number(row.p_claim)}, after Holm {number(row.p_holm)})",
            first="- ",
            then="  ",
            width=width,
        )
        for row in comparison.of("claim")
    ]
    return "\n".join(["declared claims", *lines]) if lines else ""


def _differences(comparison: SweepComparison, width: int | None) -> str:
    tested = [row for row in comparison.rows if row.analysis in _TESTED]
    rows = chosen(tested, "established", "hint")
    if not rows:
        return ""
    cells = [
        [
            str(i),
            row.condition,
            subject(row),
            against(row),
            (row.status or "").replace("_", " "),
            f"{value(row, from_to(row)[0])} → {value(row, from_to(row)[1])}",
            value(row, row.effect, sign=True),
            interval(row),
            number(row.p_claim),
            number(row.q),
            f"{row.n_treatment}, {row.n_baseline}",
            value(row, row.sampling_sd),
            " ".join(row.flags) or "–",
        ]
        for i, row in enumerate(rows, start=1)
    ]
    names = [
        "#",
        "condition",
        "what",
        "against",
        "status",
        "from → to",
        "difference",
        "interval",
        "p",
        "q",
        "runs",
        "sampling sd",
        "flags",
    ]
    level = comparison.options.level
    relative = (
        "as if overall accuracy had stayed that of the baseline, so a class that falls less than others gains"
        if comparison.options.normalise == "ratio"
        else "less the change of overall accuracy"
    )
    notes = [
        f"difference, interval ({100 * (1 - level):g} %): rates in points, over seeds, teachers and test samples; of a class: {relative}. "
        "from → to: the accuracy of the class itself, or the means.",
        "p: before correction, of the stricter of two tests, of groups also of what exceeds chance; so it may be above the level although "
        "the interval is without 0, or #SC counts the class. q: p corrected over all conditions of the same question (Benjamini and "
        "Hochberg).",
        "sampling sd: how far other test samples would move the difference.",
    ]
    return _part(
        "differences: established ones, then hints", render_in_parts(names, cells, left=1, width=width), notes, width
    )


def _trends(comparison: SweepComparison, width: int | None) -> str:
    rows = [row for row in comparison.of("trend") if row.test == "spearman"]
    if not rows:
        return ""
    cells = [
        [
            subject(row),
            row.condition,
            (row.status or "–").replace("_", " "),
            f"{row.effect:+.2f}".replace("-", "−"),
            str(row.n_treatment),
            number(row.p_permutation),
            number(row.p_permutation_floor),
            number(row.p_claim),
            number(row.q),
        ]
        for row in rows
    ]
    names = ["metric", "over", "status", "correlation", "runs", "p of ranks", "smallest", "p", "q"]
    notes = [
        "correlation: of ranks (Spearman), at low and at high temperatures (`--split`). p of ranks: exchanges of temperatures within "
        "seeds. smallest: what these seeds and temperatures allow; above the level, no trend can be shown. p: decides; of a difference "
        "between groups, the larger of p of ranks and the same p without what random groups give.",
    ]
    return _part("trends with temperature", render_in_parts(names, cells, left=1, width=width), notes, width)


def _matched(comparison: SweepComparison, width: int | None) -> str:
    rows = comparison.of("matched_accuracy")
    if not rows:
        return ""
    cells = [
        [
            str(i),
            row.condition,
            subject(row),
            against(row),
            f"{value(row, row.accuracy_treatment)}, {value(row, row.accuracy_baseline)}",
            value(row, row.effect, sign=True),
            interval(row),
            number(row.p_claim),
            (row.status or "–").replace("_", " "),
            row.held_back or "–",
        ]
        for i, row in enumerate(rows, start=1)
    ]
    names = ["#", "condition", "what", "against", "accuracies", "difference", "interval", "p", "status", "held back"]
    notes = ["difference: in EOD, after a line of EOD over accuracy that all conditions share; points. p: decides."]
    return _part("EOD at equal accuracy", render_in_parts(names, cells, left=1, width=width), notes, width)


def _groups(comparison: SweepComparison, width: int | None) -> str:
    rows = [row for row in comparison.of("condition") if row.sensitive_feature is not None]
    if not rows:
        return ""
    cells = [
        [
            row.condition,
            subject(row),
            mean_and_sd(row),
            value(row, row.chance_level),
            value(row, row.bias_corrected),
            value(row, row.shrunken),
            value(row, row.sampling_sd),
            value(row, row.label_difference),
            "–" if row.smallest_cell is None else f"{row.smallest_cell}{'!' if row.smallest_cell < MIN_CELL else ''}",
        ]
        for row in rows
    ]
    names = ["condition", "what", "mean ± sd", "chance", "corrected", "shrunken", "sampling sd", "labels", "cell"]
    notes = [
        "chance: with random groups. corrected: minus the bias of max - min under resampling. shrunken: from rates drawn together by "
        "what noise explains. labels: the same difference of the true labels.",
        f"cell: test samples of the smallest group that decides; !: below {MIN_CELL}, so nothing is claimed.",
    ]
    return _part(
        "differences between groups, percent", render_in_parts(names, cells, left=2, width=width), notes, width
    )


def _frontier(comparison: SweepComparison, width: int | None) -> str:
    best: dict[str, list[str]] = {}
    for row in comparison.of("frontier"):
        if "pareto" in row.flags:
            best.setdefault(str(row.sensitive_feature), []).append(row.condition)
    lines = [
        wrapped(f"{feature}: {'; '.join(conditions)}", first="- ", then="  ", width=width)
        for feature, conditions in best.items()
    ]
    head = "no other condition is at least as accurate and as low in EOD (means alone, no test)"
    return "\n".join([wrapped(head, width=width), *lines]) if lines else ""


def _counts(comparison: SweepComparison, width: int | None) -> str:
    rows = comparison.of("class_bias_counts")
    if not rows:
        return ""
    cells = [
        [
            row.condition,
            against(row),
            "–" if row.num_significant is None else str(row.num_significant),
            "–" if row.num_established is None else str(row.num_established),
            "–" if row.usual_significant is None else str(row.usual_significant),
            number(row.p_permutation),
            _size(row, row.smallest_detectable),
        ]
        for row in rows
    ]
    names = ["condition", "against", "published", "established", "seldom more than", "p of the count", "would find"]
    notes = [
        "published: #SC, #TC. established: after correction over all conditions. seldom more than: what "
        f"{100 * (1 - rows[0].level):g} % of the exchanges of runs do not exceed; –: so few runs cannot exceed it. p of the count: "
        "exchanges of runs that give at least as many; –: too many to look at all.",
        "would find: points of a median class that are established with probability 0.8; –: none, however large.",
    ]
    return _part("counts of classes", render_in_parts(names, cells, left=1, width=width), notes, width)


def _power(comparison: SweepComparison, width: int | None) -> str:
    curves: dict[tuple[str, str], dict[int, Comparison]] = {}
    for row in comparison.of("power"):
        if row.metric in _CURVES and row.n_treatment in _CURVE:
            curves.setdefault((against(row), subject(row)), {})[row.n_treatment] = row
    if not curves:
        return ""
    cells = [
        [
            versus,
            what,
            str(next(iter(curve.values())).num_tests),
            *(_sizes(curve.get(n)) for n in _CURVE),
        ]
        for (versus, what), curve in curves.items()
    ]
    names = ["against", "what", "tests", *(f"{n} seeds" for n in _CURVE)]
    notes = [
        "points that so many runs on each side establish with probability 0.8; in brackets: if it were the only test. Assumes normal runs "
        "of median sd, known no better than these runs tell. –: none, however large."
    ]
    return _part("what more seeds would find", render_in_parts(names, cells, left=2, width=width), notes, width)


def _size(row: Comparison, number: float | None) -> str:
    """A difference that can be found; one of more than 100 points cannot occur."""
    text = value(row, number)
    is_rate = row.metric == "relative_accuracy" or row.metric not in METRICS or METRICS[row.metric].unit == "rate"
    return "–" if is_rate and number is not None and number > 1 else text


def _sizes(row: Comparison | None) -> str:
    if row is None:
        return "–"
    return f"{_size(row, row.smallest_detectable)} ({_size(row, row.smallest_detectable_uncorrected)})"


def _collapsed(comparison: SweepComparison, width: int | None) -> str:
    rows = [row for row in comparison.of("condition") if row.metric == "accuracy" and "collapsed" in row.flags]
    if not rows:
        return ""
    names = "; ".join(dict.fromkeys(row.condition for row in rows))
    return wrapped(f"collapsed runs, left out of every comparison of fairness: {names}", width=width)


def subject(row: Comparison) -> str:
    """What a row is about: a class, or a metric with its feature."""
    return row.class_name if row.class_name is not None else title(row.metric, row.sensitive_feature)


def against(row: Comparison) -> str:
    """The baseline of a row."""
    return (row.contrast or "").removesuffix("_vs_distilled")


def interval(row: Comparison) -> str:
    """The interval with everything that could have come out otherwise, where there is one; else that over runs."""
    low, high = (row.ci_low, row.ci_high) if row.ci_total_low is None else (row.ci_total_low, row.ci_total_high)
    return "–" if low is None or high is None else f"{value(row, low, sign=True)} to {value(row, high, sign=True)}"


def number(p: float | None) -> str:
    """A p value, short."""
    return "–" if p is None else "<0.001" if p < 0.001 else f"{p:.2g}"
