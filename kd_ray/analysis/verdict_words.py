"""The sentences of a verdict, made from the rows of `comparisons`, the study and the plan for more seeds."""

import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from statistics import median

from kd_ray.analysis.chance import MIN_CELL
from kd_ray.analysis.comparisons import Comparison
from kd_ray.analysis.contrast import MIN_RUNS
from kd_ray.analysis.declared import Declared
from kd_ray.analysis.measures import collapsed_in_words
from kd_ray.analysis.planning import NextStep
from kd_ray.analysis.study import CONTRASTS, SCRATCH, TEACHER, Study
from kd_ray.analysis.verdict import Verdict
from kd_ray.metrics.catalogue import METRICS

BASELINE = {SCRATCH: "scratch", TEACHER: "the teacher"}
_MOST = 4
"""Statements of one kind; the tables have all."""


def make_verdict(
    study: Study, rows: Sequence[Comparison], declared: Sequence[Declared], steps: Sequence[NextStep], *, level: float
) -> Verdict:
    """Say what the rows hold, and nothing beyond it."""
    return Verdict(
        asked=_asked(study, rows, level),
        declared=tuple(
            _claim(row, it) for row, it in zip((r for r in rows if r.analysis == "claim"), declared, strict=True)
        ),
        established=_established(rows),
        hints=_hints(rows, level),
        held_back=_held_back(rows),
        not_tested=_not_tested(study, rows),
        more=_more(study, rows, steps),
        commands=_commands(study, steps),
    )


def short(row: Comparison) -> str:
    """What a row is about: `EOD for color`, `accuracy of class cat`."""
    if row.class_name is not None:
        return f"accuracy of {row.class_name!r}"
    name = METRICS[row.metric].short if row.metric in METRICS else row.metric.replace("_", " ")
    return f"{name} for {row.sensitive_feature}" if row.sensitive_feature else name


def amount(row: Comparison, value: float | None, *, sign: bool = False) -> str:
    """A value of a row's metric with its unit: rates in percent points, others as they are."""
    if value is None:
        return "–"
    metric = METRICS.get(row.metric)
    # The effect on a class is in points of accuracy, whatever it is divided by.
    is_rate = row.metric in ("relative_accuracy", "class_accuracy") or (metric is not None and metric.unit == "rate")
    text = f"{100 * value:{'+' if sign else ''}.1f}" if is_rate else f"{value:{'+' if sign else ''}.4f}"
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
    if len(words) > most:
        return f"{', '.join(words[:most])} and {len(words) - most} more"
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def plural(count: int, noun: str) -> str:
    """A count and its noun."""
    return f"{count:,} {noun}{'' if count == 1 else 'es' if noun.endswith('ss') else 's'}"


def _asked(study: Study, rows: Sequence[Comparison], level: float) -> tuple[str, ...]:
    distilled = study.distilled
    counts = sorted({it.n for it in study.conditions if it.role != "teacher"})
    seeds = plural(counts[0], "seed") if len(counts) == 1 else f"{counts[0]} to {counts[-1]} seeds"
    teachers = {teacher for it in distilled for run in it.teachers for teacher in run}
    samples = sorted({int(trial["num_test"]) for trial in study.trials})
    tests = sum(row.p_claim is not None and row.analysis != "claim" for row in rows)
    first = (
        f"{plural(len(distilled), 'distilled condition')} ({listed([it.label for it in distilled], 5)}) against scratch students "
        f"and teachers: {seeds} per condition, {plural(len(teachers), 'teacher')}, {', '.join(f'{n:,}' for n in samples)} test samples; "
        f"{plural(tests, 'test')}, level {level:g} for all of them together."
    )
    missing = []
    if study.num_missing:
        missing.append(
            f"{study.num_missing} of {plural(sum(study.states.values()), 'trial')} are missing; numbers will change."
        )
    if study.failed:
        missing.append(f"Failed, so missing from the means: {listed(study.failed)}.")
    return (first, *missing)


def _claim(row: Comparison, declared: Declared) -> str:
    when = (
        f"declared {declared.declared_at[:10]} before training"
        if declared.num_complete == 0
        else f"declared {declared.declared_at[:10]}, when {declared.num_complete} trials were complete"
    )
    text = (row.claim or "")[:1].upper() + (row.claim or "")[1:]
    if row.p_claim is None:
        return f"{text}: not tested ({_REASONS.get(row.held_back or '', row.held_back or 'too few runs')}); {when}."
    holds = "ESTABLISHED" if row.status == "established" else "not established"
    size = (
        f"rho {row.effect:+.2f}"
        if row.test == "spearman" and row.effect is not None
        else f"{points(row, row.effect, sign=True)}{_interval(row)}"
    )
    return f"{text}: {holds} ({size}, p {shown_p(row.p_holm)} after Holm); {when}."


_REASONS = {
    "small cells": f"a group has fewer than {MIN_CELL} test samples",
    "collapsed": "its runs collapsed",
    "accuracies differ": "accuracies are further apart than the smaller sd",
}


def _established(rows: Sequence[Comparison]) -> tuple[str, ...]:
    found = [row for row in rows if row.status == "established" and row.analysis != "claim"]
    groups = _grouped(found, lambda row: (row.analysis, row.contrast, short(row), (row.effect or 0.0) > 0))
    groups.sort(key=lambda same: min((row.q or 0.0, row.p_claim or 0.0) for row in same))
    sentences = [_difference(same) for same in groups[:_MOST]]
    if len(groups) > _MOST:
        sentences.append(f"{len(groups) - _MOST} more; `--full` lists them.")
    return tuple(sentences)


def _difference(same: Sequence[Comparison]) -> str:
    """One quantity that differs one way in some conditions, told by the clearest."""
    row = min(same, key=lambda it: (it.q or 0.0, it.p_claim or 0.0))
    others = [it.condition for it in same if it is not row]
    also = f" Also at {listed(others)}." if others else ""
    name = short(row)
    name = name[:1].upper() + name[1:]
    if row.analysis == "trend":
        way = "rises" if (row.effect or 0.0) > 0 else "falls"
        return f"{name} {way} over {row.condition} (rho {row.effect:+.2f}, q {shown_p(row.q)}, n = {row.n_treatment} runs){_scope(row)}.{also}"
    against = BASELINE.get(row.contrast or "", row.contrast or "")
    equal = " at equal accuracy" if row.analysis == "matched_accuracy" else ""
    relative = " relative to the whole" if row.metric == "relative_accuracy" and row.normalisation else ""
    return (
        f"{name}{relative}{equal}: {points(row, row.effect, sign=True)} against {against} at {row.condition}{_interval(row)}, "
        f"q {shown_p(row.q)}, n = {row.n_baseline} and {row.n_treatment}{_scope(row)}.{also}"
    )


def _interval(row: Comparison) -> str:
    ends = (row.ci_total_low, row.ci_total_high) if row.ci_total_low is not None else (row.ci_low, row.ci_high)
    if ends[0] is None or ends[1] is None:
        return ""
    return f" ({100 * (1 - row.level):g} % interval {amount(row, ends[0], sign=True)} to {amount(row, ends[1], sign=True)})"


def _scope(row: Comparison) -> str:
    return f", for {row.scope}" if row.scope in ("this teacher", "these teachers") else ""


def _hints(rows: Sequence[Comparison], level: float) -> tuple[str, ...]:
    sentences = []
    for same in _grouped([row for row in rows if row.p_claim is not None and row.family], lambda row: (row.family,)):
        hints = [row for row in same if row.status == "hint"]
        if not hints:
            continue
        first = same[0]
        clearest = min(hints, key=lambda row: row.p_claim or 0.0)
        question = {
            "class_bias": f"Class accuracies against {BASELINE.get(first.contrast or '', '')}",
            "fairness": f"Metrics against {BASELINE.get(first.contrast or '', '')}",
            "matched_accuracy": f"EOD at equal accuracy against {BASELINE.get(first.contrast or '', '')}",
        }.get(first.analysis, f"Trends at {'low' if first.contrast == 'temperature_low' else 'high'} temperatures")
        count = sum((row.p_claim or 0.0) < level for row in same)
        sentences.append(
            f"{question}: {count} of {plural(len(same), 'test')} below {level:g} before correction, where chance alone gives up to "
            f"{level * len(same):.1f}; clearest: {short(clearest)} at {clearest.condition}."
        )
    return tuple(sentences)


def _held_back(rows: Sequence[Comparison]) -> tuple[str, ...]:
    held = [row for row in rows if row.status == "held_back" and row.analysis != "claim"]
    sentences = []
    for same in _grouped(held, lambda row: (row.held_back or "chance level",)):
        names = list(Counter(short(row) for row in same))
        why = same[0].held_back or "chance level"
        subject = listed([name[:1].upper() + name[1:] if i == 0 else name for i, name in enumerate(names)], 3)
        where = plural(len(same), "difference")
        if why == "small cells":
            cell = min(row.smallest_cell or 0 for row in same)
            sentences.append(
                f"{subject} ({where}): the smallest group that decides them has {plural(cell, 'test sample')}; a claim needs {MIN_CELL}."
            )
        elif why == "chance level":
            row = same[0]
            sentences.append(
                f"{subject} ({where}): no larger than what chance gives (at {row.condition} {amount(row, row.mean_treatment)}, chance level "
                f"{amount(row, row.chance_level)})."
            )
        elif why == "accuracies differ":
            sentences.append(
                f"{subject} at equal accuracy ({where}): the accuracies are further apart than the smaller sd, so a regression would decide."
            )
        else:
            sentences.append(f"{subject} ({where}): {why}.")
    return tuple(sentences)


def _not_tested(study: Study, rows: Sequence[Comparison]) -> tuple[str, ...]:
    sentences = []
    for contrast in CONTRASTS:
        against = BASELINE[contrast]
        lacking = [it.label for it in study.distilled if study.baseline(contrast, it) is None]
        if lacking:
            sentences.append(f"Against {against}: no such trial is complete for {listed(lacking)}.")
        few = [row for row in rows if (row.analysis, row.contrast) == ("class_bias_counts", contrast)]
        few = [row for row in few if min(row.n_baseline or 0, row.n_treatment or 0) < MIN_RUNS]
        if few:
            n = min(min(row.n_baseline or 0, row.n_treatment or 0) for row in few)
            what = "teacher" if contrast == TEACHER and (few[0].n_baseline or 0) == n else "seed"
            sentences.append(
                f"Against {against}: {plural(n, what)} cannot show how far {what}s are apart; a claim needs {MIN_RUNS}."
            )
    floors = {
        row.condition: row.p_permutation_floor
        for row in rows
        if row.analysis == "trend" and (row.p_permutation_floor or 0.0) >= row.level
    }
    if floors:
        words = [f"{condition} (smallest possible p {floor:.2g})" for condition, floor in floors.items()]
        sentences.append(f"Trends: too few seeds and temperatures to show any over {listed(words)}.")
    collapsed = collapsed_in_words(study, study.conditions)
    if collapsed:
        sentences.append(f"{listed(collapsed)}; fairness is not compared for collapsed runs.")
    return tuple(sentences)


def _more(study: Study, rows: Sequence[Comparison], steps: Sequence[NextStep]) -> tuple[str, ...]:
    sentences = []
    sizes = []
    for analysis, metric in (
        ("class_bias", "relative_accuracy"),
        ("fairness", "accuracy"),
        ("fairness", "equalized_odds_difference"),
    ):
        mine = [
            row
            for row in rows
            if (row.analysis, row.metric, row.contrast) == (analysis, metric, SCRATCH)
            and row.smallest_detectable is not None
            and row.p_claim is not None
        ]
        if mine:
            size = median(row.smallest_detectable or 0.0 for row in mine)
            name = "a class" if analysis == "class_bias" else METRICS[metric].short
            sizes.append(f"{amount(mine[0], size)} points in {name}" if size < 1 else f"more than 100 points in {name}")
    counts = sorted({it.n for it in study.conditions if it.role != "teacher"})
    if sizes:
        sentences.append(
            f"With {plural(counts[0], 'seed')}, a difference from scratch of about {listed(sizes)} would be established with "
            "probability 0.8 (normal runs; their sd is known no better than these seeds tell)."
        )
    for step in steps:
        about = f"{'class' if step.what == 'class_bias' else 'metric'} differences against {BASELINE[step.contrast]}"
        if step.n_now < MIN_RUNS:
            continue
        if step.n_needed is None:
            sentences.append(
                f"Of {plural(step.num_open, 'hint')} of {about}, most are too small to settle with 200 seeds."
            )
        else:
            sentences.append(f"About {step.n_needed} seeds would settle half of the {about} that are hints now.")
    return tuple(sentences[:3])


def _commands(study: Study, steps: Sequence[NextStep]) -> tuple[str, ...]:
    """The commands of the step that takes least and of the one that takes most, which includes the others."""
    possible = sorted((step for step in steps if step.overrides), key=lambda step: step.n_needed or 0)
    ends = [possible[0], possible[-1]] if possible else []
    return tuple(
        dict.fromkeys(
            " ".join(["kd-ray resume", study.sweep, *(f"--set {shlex.quote(it)}" for it in step.overrides)])
            for step in ends
        )
    )


def _grouped(rows: Sequence[Comparison], key: Callable[[Comparison], tuple[object, ...]]) -> list[list[Comparison]]:
    """Rows of one key together, in the order in which keys appear."""
    groups: dict[tuple[object, ...], list[Comparison]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return list(groups.values())
