"""What `kd-ray compare` prints: counts, what survives correction, trends, power and what to type next. Computes nothing."""

import shlex
from collections.abc import Sequence

from kd_ray.analysis.compare import SweepComparison
from kd_ray.analysis.comparisons import Comparison
from kd_ray.analysis.planning import NextStep
from kd_ray.analysis.runs import SCRATCH, TEACHER
from kd_ray.cli.tables import render, table_of

_SHORT = {
    "demographic_parity_difference": "DPD",
    "equalized_odds_difference": "EOD",
    "worst_group_accuracy": "worst group",
    "worst_class_accuracy": "worst class",
    "individual_fairness": "individual fairness",
    "relative_accuracy": "class accuracy, relative",
}
_SHOWN = 15
"""Differences listed before the rest is only counted."""
_CURVE = (3, 5, 10, 20, 30)
"""Runs at which the power curve is printed."""
_PLAIN = ("individual_fairness",)
"""Metrics that are no rates."""


def compared(comparison: SweepComparison, *, store: str | None) -> str:
    """The whole answer; `store` is None for the default one."""
    options = comparison.options
    parts = [
        _counts(comparison),
        _fairness_levels(comparison),
        _differences(comparison),
        _trends(comparison),
        _power(comparison),
        "\n".join(f"note: {problem}" for problem in comparison.problems),
        _next(comparison, store),
    ]
    head = (
        f"sweep {comparison.sweep}: level {options.level:g}, class accuracy by {options.normalise}, "
        f"overall accuracy {options.overall.replace('_', ' ')}"
    )
    return "\n\n".join([head, *(part for part in parts if part)])


def _counts(comparison: SweepComparison) -> str:
    first = comparison.of("class_bias_counts")[0]
    names = ["#SC", "expected", "p of #", "BH", "Holm", "paired BH", "smallest shift"]
    table = table_of(["condition", "n", "accuracy", *names, "#TC", *names[1:]], right=range(1, 17))
    accuracy = [row for row in comparison.of("condition") if row.metric == "accuracy"]
    counts = {(row.contrast, _key(row)): row for row in comparison.of("class_bias_counts")}
    for row in accuracy:
        cells = [cell for contrast in (SCRATCH, TEACHER) for cell in _count_cells(counts.get((contrast, _key(row))))]
        table.add_row(row.condition, str(row.n_treatment), _mean(row), *cells)
    of = max(row.num_tests or 0 for row in comparison.of("class_bias_counts"))
    floor = first.p_permutation_floor
    lines = [
        f"class bias: of {of} classes, those whose accuracy differs from scratch (#SC) and from the teacher (#TC) relative to the whole",
        render(table),
        "expected: rejections if nothing differed (Welch, normal runs); p of #: exchanges of runs that give as many or more"
        + (f", {floor:.2g} at the least" if floor else ""),
        "smallest shift: points of a median class that are found with probability 0.8 after Holm; where it moves, so may the counts",
    ]
    return "\n".join(lines)


def _count_cells(row: Comparison | None) -> list[str]:
    if row is None or row.num_significant is None:
        return ["–"] * 7
    return [
        str(row.num_significant),
        f"{row.expected_significant:.1f}",
        "–" if row.p_permutation is None else f"{row.p_permutation:.2g}",
        str(row.num_significant_bh),
        str(row.num_significant_holm),
        "–" if row.num_significant_paired is None else str(row.num_significant_paired),
        _value(row, row.smallest_detectable),
    ]


def _fairness_levels(comparison: SweepComparison) -> str:
    rows = [row for row in comparison.of("condition") if row.sensitive_feature and " & " not in row.sensitive_feature]
    if not rows:
        return ""
    columns = list(dict.fromkeys((row.metric, row.sensitive_feature) for row in rows))
    names = [f"{_SHORT.get(metric, metric)} {feature}" for metric, feature in columns]
    table = table_of(["condition", *names], right=range(1, len(names) + 1))
    best = {(_key(row), row.sensitive_feature) for row in comparison.of("frontier") if "pareto" in row.flags}
    for key in dict.fromkeys(_key(row) for row in rows):
        found = {(row.metric, row.sensitive_feature): row for row in rows if _key(row) == key}
        cells = []
        for column in columns:
            is_best = column[0] == "equalized_odds_difference" and (key, column[1]) in best
            cells.append(_both_noises(found.get(column)) + ("*" if is_best else " "))
        table.add_row(next(iter(found.values())).condition, *cells)
    labels = {
        row.sensitive_feature: f"{row.sensitive_feature} {row.label_difference:.2%}".replace("%", "")
        for row in rows
        if row.label_difference is not None
    }
    lines = [
        "fairness in percent: mean ± sd over seeds [sd over test samples]",
        render(table),
        f"DPD of the true labels: {', '.join(labels.values())}; a DPD below it comes from errors, not from fairness",
        "* on the frontier: no other condition is at least as accurate and as low in EOD; resampling biases max - min upwards",
    ]
    return "\n".join(lines)


def _differences(comparison: SweepComparison) -> str:
    lines = []
    for analysis, words in (
        ("fairness", "accuracy, disagreement and fairness"),
        ("matched_accuracy", "EOD at equal accuracy (regression)"),
    ):
        for contrast in (SCRATCH, TEACHER):
            rows = [row for row in comparison.of(analysis, contrast) if row.q is not None]
            if not rows:
                continue
            found = sorted(
                (row for row in rows if (row.q or 0.0) < row.level), key=lambda row: (row.q or 0.0, row.p or 0.0)
            )
            versus = contrast.removesuffix("_vs_distilled")
            raw = sum((row.p or 0.0) < row.level for row in rows)
            lines.append(
                f"{words}, distilled against {versus}: {raw} of {len(rows)} differences have p < {rows[0].level:g}, "
                f"{len(found)} q < {rows[0].level:g}"
            )
            if found:
                lines.append(_difference_table(found[:_SHOWN]))
            if len(found) > _SHOWN:
                lines.append(f"… and {len(found) - _SHOWN} more; the table `comparisons` has all")
    return "\n".join(lines)


def _difference_table(rows: Sequence[Comparison]) -> str:
    table = table_of(
        ["  condition", "metric", "difference", "interval", "q", "Holm", "sampling sd", "flags"], [2, 3, 4, 5, 6]
    )
    for row in rows:
        table.add_row(
            f"  {row.condition}",
            _metric(row),
            _value(row, row.effect, sign=True),
            f"{_value(row, row.ci_low, sign=True)} to {_value(row, row.ci_high, sign=True)}",
            f"{row.q:.2g}",
            f"{row.p_holm:.2g}",
            _value(row, row.sampling_sd),
            " ".join(row.flags),
        )
    return render(table)


def _trends(comparison: SweepComparison) -> str:
    rows = [
        row for row in comparison.of("trend") if row.test == "spearman" and " & " not in (row.sensitive_feature or "")
    ]
    if not rows:
        return ""
    table = table_of(["metric", "temperatures", "n", "rho", "interval", "q", "p within seeds"], right=range(2, 7))
    for row in rows:
        interval = "–" if row.ci_low is None or row.ci_high is None else f"{row.ci_low:+.2f} to {row.ci_high:+.2f}"
        table.add_row(
            _metric(row),
            row.condition,
            str(row.n_treatment),
            f"{row.effect:+.2f}",
            interval,
            f"{row.q:.2g}",
            f"{row.p_permutation:.2g}",
        )
    note = "p within seeds exchanges temperatures within each seed; q and interval take runs as independent"
    return (
        f"trend with temperature, Spearman (Kendall and Jonckheere–Terpstra are in the table)\n{render(table)}\n{note}"
    )


def _power(comparison: SweepComparison) -> str:
    rows = [
        row
        for row in comparison.of("power")
        if row.metric in ("relative_accuracy", "accuracy", "equalized_odds_difference") and row.n_treatment in _CURVE
    ]
    rows = [row for row in rows if " & " not in (row.sensitive_feature or "")]
    if not rows:
        return ""
    table = table_of(["against", "metric", "tests", "sd of a run", *(f"n = {n}" for n in _CURVE)], right=range(2, 9))
    lines: dict[tuple[str, str], list[Comparison]] = {}
    for row in rows:
        lines.setdefault((row.contrast or "", _metric(row)), []).append(row)
    for (contrast, metric), curve in lines.items():
        at = {row.n_treatment: row for row in curve}
        table.add_row(
            contrast.removesuffix("_vs_distilled"),
            metric,
            str(curve[0].num_tests),
            _value(curve[0], curve[0].sd_treatment),
            *(
                f"{_value(at[n], at[n].smallest_detectable)} ({_value(at[n], at[n].smallest_detectable_uncorrected)})"
                for n in _CURVE
            ),
        )
    note = "points found with probability 0.8 after Holm (without correction), n runs on each side, this test set, normal runs of median sd"
    return f"power: the smallest difference that so many seeds find\n{render(table)}\n{note}"


def _next(comparison: SweepComparison, store: str | None) -> str:
    option = f" --store {shlex.quote(store)}" if store else ""
    lines = [_step(comparison.sweep, step, option) for step in comparison.next_steps]
    per_class = (
        f"SELECT condition, class_name, effect, ci_low, ci_high, q FROM comparisons WHERE sweep = '{comparison.sweep}' "  # noqa: S608 (to be read)
        "AND analysis = 'class_bias' AND contrast = 'scratch_vs_distilled' ORDER BY q"
    )
    return "\n".join([*lines, f'by class:  kd-ray query "{per_class}"{option}'])


def _step(sweep: str, step: NextStep, option: str) -> str:
    versus = step.contrast.removesuffix("_vs_distilled")
    what = f"{step.what.replace('_', ' ')} against {versus}"
    if step.n_needed is None:
        return f"open:      {what}: {step.num_open} differences have p but not q below the level; more seeds than are worth it would tell"
    command = f"kd-ray resume {sweep} {' '.join(f'--set {shlex.quote(it)}' for it in step.overrides)}{option}"
    if step.n_now < 2:
        return f"open:      {what}: one run on a side shows nothing\nadd seeds: {command}"
    return (
        f"open:      {what}: {step.num_open} differences have p but not q below the level; if they are as large as they look (at best), "
        f"{step.n_needed} runs on each side settle half of them\nadd seeds: {command}"
    )


def _key(row: Comparison) -> tuple[object, ...]:
    return row.dataset_id, row.role, row.model, row.condition


def _metric(row: Comparison) -> str:
    return " ".join(filter(None, [_SHORT.get(row.metric, row.metric), row.sensitive_feature]))


def _mean(row: Comparison) -> str:
    sd = "" if row.sd_treatment is None else f" ± {_value(row, row.sd_treatment)}"
    return f"{_value(row, row.mean_treatment)}{sd}"


def _both_noises(row: Comparison | None) -> str:
    if row is None:
        return "–"
    return f"{_mean(row)} [{_value(row, row.sampling_sd)}]"


def _value(row: Comparison, value: float | None, *, sign: bool = False) -> str:
    """Rates in percent, others as they are."""
    if value is None:
        return "–"
    scale, digits = (1.0, 4) if row.metric in _PLAIN else (100.0, 2)
    return f"{value * scale:{'+' if sign else ''}.{digits}f}"
