"""The words at the top of a report, made from the comparisons and never stronger than they are.

Found is what survives correction over its family, and it is said with its level, its effect and its n. Everything else is open, and it is
said how large an effect would have had to be. An uncorrected count is never called a finding, only set beside what chance gives.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from kd_ray.analysis.report.evidence import SCRATCH, TEACHER, Evidence, Row
from kd_ray.analysis.report.study import Condition, Study, matching
from kd_ray.analysis.report.wording import distinct, equals, listed, plural, points, signed, span

_SHORT = {
    "accuracy": "accuracy",
    "equalized_odds_difference": "EOD",
    "demographic_parity_difference": "DPD",
    "worst_class_accuracy": "worst-class accuracy",
    "worst_group_accuracy": "worst-group accuracy",
    "individual_fairness": "individual fairness",
    "individual_fairness_hard": "individual fairness on labels",
    "disagreement": "disagreement with the teacher",
}
_TESTS = {"spearman": "Spearman", "kendall": "Kendall", "jonckheere_terpstra": "Jonckheere–Terpstra"}
IN_PERCENT = frozenset(_SHORT) - {"individual_fairness", "individual_fairness_hard"}
"""Metrics that are rates, and so shown in percent."""
_MOST = {SCRATCH: 6, TEACHER: 3}
"""Metrics named in a sentence; the tables have all. Students differ from a larger teacher in almost everything."""
_FLAGS = {
    "shared_teacher": "Students of several seeds learned from one teacher: against the teacher they are no independent samples, "
    "and nothing is said about other teachers.",
    "zero_variance": "Some quantities do not vary between runs at all; their p is 0 or 1 by convention and no probability.",
    "mixed_devices": "Trials ran on several kinds of devices, which differ in their last bits.",
}
BASELINE = {SCRATCH: "scratch", TEACHER: "the teacher"}


@dataclass(frozen=True, kw_only=True)
class Group:
    """Statements of one kind."""

    kind: str
    """`found`, `open` or `care`."""
    title: str
    sentences: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Findings:
    """All statements of a report."""

    found: tuple[str, ...]
    open: tuple[str, ...]
    care: tuple[str, ...]
    commands: tuple[str, ...] = ()
    """What would settle more."""

    def groups(self) -> tuple[Group, ...]:
        """What there is, in the order in which it is read."""
        groups = (
            Group(
                kind="found",
                title="Found",
                sentences=self.found or ("Nothing that survives correction for the number of tests.",),
            ),
            Group(kind="open", title="Open", sentences=self.open),
            Group(kind="care", title="To be read with care", sentences=self.care),
        )
        return tuple(group for group in groups if group.sentences)


def make_findings(
    study: Study, evidence: Evidence, *, problem: str = "", steps: Sequence[str] = (), commands: Sequence[str] = ()
) -> Findings:
    """The statements that the comparisons of a sweep carry.

    `problem` says why there are no comparisons; `steps` what more runs would settle, with the `commands` for it.
    """
    found: list[str] = []
    still_open: list[str] = []
    for contrast in (SCRATCH, TEACHER):
        _class_bias(study, evidence, contrast, found, still_open)
        for analysis in ("fairness", "matched_accuracy"):
            _differences(evidence, analysis, contrast, found, still_open)
    _trends(evidence, found, still_open)
    if not found and not still_open:
        still_open.append(problem or _nothing_compared(study))
    return Findings(
        found=tuple(found),
        open=(*still_open, *steps),
        care=tuple(_care(study, evidence)),
        commands=tuple(commands),
    )


def _class_bias(study: Study, evidence: Evidence, contrast: str, found: list[str], still_open: list[str]) -> None:
    rows = [
        row
        for row in evidence.of("class_bias_counts", contrast=contrast)
        if row["num_significant"] is not None and row["num_tests"]
    ]
    if not rows:
        return
    name = "#SC" if contrast == SCRATCH else "#TC"
    classes = max(row["num_tests"] for row in rows)
    raw, expected = span([row["num_significant"] for row in rows]), _span_of(rows, "expected_significant")
    head = (
        f"Class accuracy against {BASELINE[contrast]} ({_runs(rows)}): {name} is {raw} of {classes:,} classes at p < "
        f"{evidence.level:g} uncorrected{_over(rows)}, where {expected} would be expected if no class differed"
    )
    corrected = [row for row in rows if row["num_significant_bh"]]
    bh, holm = (span([row[column] or 0 for row in rows]) for column in ("num_significant_bh", "num_significant_holm"))
    if not corrected:
        detectable = _detectable(rows)
        still_open.append(f"{head}. None remains after correction (Benjamini & Hochberg).{detectable}")
        return
    where = listed([row["condition"] for row in corrected])
    none_holm = not any(row["num_significant_holm"] for row in rows)
    holm_words = (
        "and none after Holm"
        if none_holm
        else f"and {holm} after Holm (no false one, with probability {1 - evidence.level:g})"
    )
    found.append(
        f"{head}. After Benjamini & Hochberg {bh} remain ({where}), of which on average at most "
        f"{100 * evidence.level:g} % are false, {holm_words}.{_strongest(study, evidence, contrast)}"
    )


def _strongest(study: Study, evidence: Evidence, contrast: str) -> str:
    """The classes with the smallest q, each with its interval; and how many differ only because others do."""
    best: list[tuple[float, str]] = []
    num_unchanged = 0
    for condition in study.of_role("distilled"):
        bias = evidence.bias(contrast, condition)
        if bias is None:
            continue
        is_same_C = _has_same_accuracy(study, contrast, condition)
        for place in np.flatnonzero(bias.q_C < bias.level):
            if is_same_C[place]:
                num_unchanged += 1
                continue
            ends = f"{points(bias.ci_low_C[place])} to {points(bias.ci_high_C[place])}"
            effect = f"{study.class_names[place]} {points(bias.effect_C[place])} points at {condition.label}"
            interval = f"{100 * (1 - bias.level):g} % interval {ends}, q {equals(bias.q_C[place])}"
            best.append((float(bias.q_C[place]), f"{effect} ({interval})"))
    shown = [words for _, words in sorted(best)[:3]]
    clearest = f" Clearest: {'; '.join(shown)}." if shown else ""
    if num_unchanged:
        clearest += (
            f" In {plural(num_unchanged, 'case')} the accuracy of the class itself is the same on both sides: only "
            "the overall accuracy that it is divided by differs."
        )
    return clearest


def _has_same_accuracy(study: Study, contrast: str, condition: Condition) -> npt.NDArray[np.bool_]:
    """Classes, (C,), of equal mean accuracy in a condition and its baseline."""
    baselines = matching(study, "scratch" if contrast == SCRATCH else "teacher", condition)
    if not baselines:
        return np.zeros(len(study.class_names), dtype=np.bool_)
    means = [study.class_accuracy_RC[it.trials].mean(axis=0) for it in (baselines[0], condition)]
    return np.asarray(np.abs(means[0] - means[1]) < 1e-9)


def _differences(evidence: Evidence, analysis: str, contrast: str, found: list[str], still_open: list[str]) -> None:
    """What differs after correction, metric by metric, and one sentence for all tests that show nothing."""
    rows = [row for row in evidence.of(analysis, contrast=contrast) if row["p"] is not None]
    survive = [row for row in rows if _survives(row, evidence.level)]
    groups = _grouped(survive, lambda row: (row["metric"], row["sensitive_feature"], row["effect"] > 0))
    groups.sort(key=lambda same: min((row["q"], row["p"]) for row in same))
    tried = Counter((row["metric"], row["sensitive_feature"]) for row in rows)
    sentences = [_difference(same, tried, evidence.level) for same in groups]
    before = "At equal accuracy, against" if analysis == "matched_accuracy" else "Against"
    if sentences:
        most = _MOST[contrast]
        more = f" {len(sentences) - most} more in the tables." if len(sentences) > most else ""
        found.append(
            f"{before} {BASELINE[contrast]}, after Benjamini & Hochberg ({_runs(survive)}): "
            f"{'; '.join(sentences[:most])}.{more}{_remarks(survive)}"
        )
    rest = [row for row in rows if not _survives(row, evidence.level)]
    if rest:
        raw = sum(row["p"] < evidence.level for row in rest)
        features = listed(distinct(row["sensitive_feature"] for row in rest))
        metrics = listed(distinct(short(row["metric"]) for row in rest), 8)
        still_open.append(
            f"{before} {BASELINE[contrast]}, {len(rest)} of {plural(len(rows), 'test')} show nothing after "
            f"correction ({metrics}{'; groups of ' + features if features else ''}; {_runs(rest)}); {raw} of them "
            f"have p < {evidence.level:g} uncorrected. That is no evidence of equality.{_detectable(rest)}"
        )


def _difference(same: Sequence[Row], tried: Mapping[tuple[str, str | None], int], level: float) -> str:
    """One metric that differs one way in some conditions."""
    clearest = min(same, key=lambda row: (row["q"], row["p"], -abs(row["effect"])))
    count = tried[clearest["metric"], clearest["sensitive_feature"]]
    where = (
        clearest["condition"]
        if count == 1
        else f"{len(same)} of {plural(count, 'condition')}, clearest at {clearest['condition']}"
    )
    way = "higher" if clearest["effect"] > 0 else "lower"
    return f"{_subject(clearest)} {way} at {where}, by {_size(clearest)} ({_ends(clearest, level)}, q {equals(clearest['q'])})"


def _trends(evidence: Evidence, found: list[str], still_open: list[str]) -> None:
    """A trend is found when every test of it survives, and the exchange of temperatures within seeds agrees."""
    rows = [row for row in evidence.of("trend") if row["p"] is not None]
    ranges = _grouped(rows, lambda row: (row["contrast"], row["condition"]))
    if len(ranges) > 3:
        _many_trends(ranges, evidence.level, found, still_open)
        return
    for over in ranges:
        tests = _grouped(over, lambda row: (row["metric"], row["sensitive_feature"]))
        established = [same for same in tests if _is_established(same, evidence.level)]
        rest = [_subject(same[0]) for same in tests if same not in established]
        runs = f"n = {over[0]['n_treatment']} runs"
        if established:
            words = [f"{_direction(same)} ({', '.join(_correlation(row) for row in same)})" for same in established]
            found.append(
                f"Over {over[0]['condition']}, with every test below {evidence.level:g} after correction and when "
                f"temperatures are exchanged within seeds ({runs}): {listed(words, 8, '; ')}."
            )
        if rest:
            still_open.append(f"Over {over[0]['condition']}, no trend is established ({runs}) of {listed(rest, 8)}.")


def _many_trends(ranges: Sequence[list[Row]], level: float, found: list[str], still_open: list[str]) -> None:
    """The same in one sentence each, where there are many lines over temperature."""
    tests = [same for over in ranges for same in _grouped(over, lambda row: (row["metric"], row["sensitive_feature"]))]
    established = Counter(_direction(same) for same in tests if _is_established(same, level))
    if established:
        words = [f"{direction} in {plural(count, 'line')}" for direction, count in established.most_common()]
        found.append(
            f"Over temperature, with every test below {level:g} after correction and when temperatures are exchanged "
            f"within seeds, of {plural(len(ranges), 'line')}: {listed(words, 8, '; ')}."
        )
    rest = len(tests) - established.total()
    if rest:
        still_open.append(
            f"Of {plural(len(tests), 'trend')} over temperature in {plural(len(ranges), 'line')}, {rest} are not "
            "established."
        )


def _is_established(same: Sequence[Row], level: float) -> bool:
    exchanged = [row["p_permutation"] for row in same if row["p_permutation"] is not None]
    return all(_survives(row, level) for row in same) and all(p < level for p in exchanged)


def _direction(same: Sequence[Row]) -> str:
    return f"{_subject(same[0])} {'rises' if same[0]['effect'] > 0 else 'falls'}"


def _correlation(row: Row) -> str:
    return f"{_TESTS.get(row['test'], row['test'])} {signed(row['effect'])}"


def _care(study: Study, evidence: Evidence) -> list[str]:
    """What to know before believing any of it."""
    flags = {flag for row in evidence.rows for flag in row["flags"] or ()}
    sentences = [words for flag, words in _FLAGS.items() if flag in flags]
    distilled = study.of_role("distilled")
    if distilled and max(condition.n for condition in distilled) < 2:
        sentences.append(
            "One seed: nothing can be tested, and no interval can be drawn. What differs may differ by chance."
        )
    elif distilled and min(condition.n for condition in distilled) < 3:
        sentences.append(
            "Some conditions have fewer than three seeds: their intervals are wide, and little can be found."
        )
    if study.num_missing:
        sentences.append("The sweep is not complete: all numbers are of the trials that are, and will change.")
    if distilled:
        sentences.append(
            "Intervals are over seeds, on one test set. What other test samples would add stands as sampling sd in "
            "the tables."
        )
    if len({c.temperature for c in distilled}) > 1 and {c.axes["t_squared"] for c in distilled} == {False}:
        sentences.append(
            "T² is off: with temperature, the weight of the soft term changes too, and the two are confounded."
        )
    return sentences


def _nothing_compared(study: Study) -> str:
    if not study.of_role("distilled"):
        return "No distilled student is complete yet, so nothing could be compared."
    counts = ", ".join(f"{c.label} n = {c.n}" for c in study.conditions[:6])
    return f"No difference could be tested: a test needs two seeds on each side ({counts})."


def _survives(row: Row, level: float) -> bool:
    return row["q"] is not None and row["q"] < level


def _grouped(rows: Sequence[Row], key: Callable[[Row], tuple[Any, ...]]) -> list[list[Row]]:
    """Rows of one key together, in the order in which keys appear."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return list(groups.values())


def _subject(row: Row) -> str:
    return short(row["metric"]) + (f" for {row['sensitive_feature']}" if row["sensitive_feature"] else "")


def _remarks(rows: Sequence[Row]) -> str:
    """What to know of these rows before believing them."""
    below = [
        row
        for row in rows
        if row["metric"] == "demographic_parity_difference"
        and None not in (row["label_difference"], row["mean_treatment"])
        and row["effect"] < 0
        and row["mean_treatment"] < row["label_difference"]
    ]
    remarks = ""
    if below:
        label = span([100 * row["label_difference"] for row in below], digits=2)
        remarks += (
            f" Where DPD is lower it is below that of the true labels in {plural(len(below), 'comparison')} ({label} "
            "points), which takes errors."
        )
    beyond = sum("extrapolated" in (row["flags"] or ()) for row in rows)
    if beyond:
        remarks += (
            f" In {plural(beyond, 'comparison')} the two sides have no accuracy in common, so the line is drawn "
            "beyond the runs."
        )
    return remarks


def _size(row: Row) -> str:
    return (
        f"{points(abs(row['effect']), sign=False)} points"
        if row["metric"] in IN_PERCENT
        else f"{abs(row['effect']):.4f}"
    )


def _ends(row: Row, level: float) -> str:
    if row["ci_low"] is None or row["ci_high"] is None:
        return "no interval"
    show = points if row["metric"] in IN_PERCENT else lambda value: f"{value:+.4f}".replace("-", "−")
    return f"{100 * (1 - level):g} % interval {show(row['ci_low'])} to {show(row['ci_high'])}"


def _detectable(rows: Sequence[Row]) -> str:
    """How large an effect on a rate had to be."""
    rates = [
        row
        for row in rows
        if row["smallest_detectable"] is not None
        and (row["metric"] in IN_PERCENT or row["analysis"] == "class_bias_counts")
    ]
    if not rates:
        return ""
    power = next((row["power"] for row in rates if row["power"] is not None), 0.8)
    middle = median(row["smallest_detectable"] for row in rates)
    kind = " in a rate" if len(rates) < len(rows) else ""
    found = f"found with probability {power:g} after Holm's correction."
    if middle > 1:
        return f" With so few runs, not even a difference of 100 points{kind} would be {found}"
    return f" With so many runs, a difference{kind} has to be {_about(middle)} (median) to be {found}"


def _about(value: float) -> str:
    return f"about {points(value, sign=False)} points" if value >= 1e-4 else "less than 0.01 points"


def _runs(rows: Sequence[Row]) -> str:
    pairs = {(row["n_baseline"], row["n_treatment"]) for row in rows if row["n_treatment"] is not None}
    if not pairs:
        return "n unknown"
    baselines, treatments = ([pair[i] for pair in pairs if pair[i] is not None] for i in (0, 1))
    return f"n = {span(baselines)} against {span(treatments)} runs" if baselines else f"n = {span(treatments)} runs"


def _over(rows: Sequence[Row]) -> str:
    return f", depending on the condition ({len(rows)})" if len(rows) > 1 else f" ({rows[0]['condition']})"


def _span_of(rows: Sequence[Row], column: str) -> str:
    values = [row[column] for row in rows if row[column] is not None]
    return span(values, digits=1) if values else "an unknown number"


def short(metric: str) -> str:
    """A metric as people say it."""
    return _SHORT.get(metric, metric.replace("_", " "))
