"""The sentences of a verdict, made from the rows of `comparisons`, the study and the plan for more seeds."""

from collections.abc import Callable, Sequence

from kd_ray.analysis.chance import MIN_CELL
from kd_ray.analysis.claim_tests import Declared
from kd_ray.analysis.claim_words import claim_sentences
from kd_ray.analysis.conditions import Condition, make_series
from kd_ray.analysis.contrast import MIN_RUNS
from kd_ray.analysis.measures import collapsed_in_words, small_groups_in_words, standing
from kd_ray.analysis.planning import NextStep
from kd_ray.analysis.planning_words import commands, more_seeds
from kd_ray.analysis.row_words import (
    BASELINE,
    amount,
    capital,
    interval,
    is_or_are,
    listed,
    own_accuracy,
    points,
    scope,
    short,
    shown_p,
    signed,
)
from kd_ray.analysis.study import CONTRASTS, SCRATCH, TEACHER, Study
from kd_ray.analysis.verdict import Verdict
from kd_ray.errors import count_of
from kd_ray.results.comparison_schema import Comparison
from kd_ray.shown import shown_number

INDIVIDUAL = "individual_fairness"
"""Begins the names of metrics whose lower values show no fairer model by themselves."""
_MOST_NAMED = 8
"""Conditions that are named one by one, the first of them."""
_MOST = 3
"""Statements of one kind; `kd-ray compare --full` has all."""


def make_verdict(
    study: Study, rows: Sequence[Comparison], declared: Sequence[Declared], steps: Sequence[NextStep], *, level: float
) -> Verdict:
    """Say what the rows hold, and nothing beyond it, in at most ten statements and two commands."""
    claims = claim_sentences([row for row in rows if row.analysis == "claim"], declared)
    # Claims need lines, so the others share theirs.
    few = 1 if claims else 2
    return Verdict(
        asked=(" ".join(_asked(study, rows, level)),),
        accuracy=_accuracy(rows),
        declared=claims,
        established=_established(study, rows, most=_MOST - 1 if claims else _MOST),
        hints=_within(_hints(rows, level), few),
        held_back=_within(_held_back(rows), 1),
        not_tested=_within(_not_tested(study, rows), 1),
        more=_within(more_seeds(study, rows, steps), 1),
        commands=commands(study, steps),
    )


def _within(sentences: Sequence[str], most: int) -> tuple[str, ...]:
    """The sentences as at most so many statements: those that are too many join the last."""
    return (*sentences[: most - 1], *filter(None, [" ".join(sentences[most - 1 :])]))


def _asked(study: Study, rows: Sequence[Comparison], level: float) -> tuple[str, ...]:
    distilled = study.distilled
    counts = sorted({it.n for it in study.conditions if it.role != "teacher"})
    seeds = count_of(counts[0], "seed") if len(counts) == 1 else f"{counts[0]} to {counts[-1]} seeds"
    teachers = {teacher for it in distilled for run in it.teachers for teacher in run}
    samples = sorted({int(trial["num_test"]) for trial in study.trials})
    tests = sum(row.p_claim is not None and row.analysis != "claim" for row in rows)
    against = [
        {SCRATCH: "scratch students", TEACHER: "their teachers" if len(teachers) > 1 else "their teacher"}[contrast]
        for contrast in CONTRASTS
        if any(study.baseline(contrast, it) is not None for it in distilled)
    ]
    sentences = [
        f"{count_of(len(distilled), 'distilled condition')} ({_which(distilled)}) against {listed(against)}.",
        f"{seeds[:1].upper() + seeds[1:]} per condition, {count_of(len(teachers), 'teacher')}, "
        f"{' or '.join(f'{n:,}' for n in samples)} test samples.",
    ]
    if tests:
        sentences.append(
            f"{count_of(tests, 'test')}. Where nothing differs, at most {100 * level:g} % of reports have an ESTABLISHED; where something "
            f"differs, at most about {100 * level:g} % of what is established is false, on average."
        )
    if study.num_missing:
        sentences.append(
            f"{study.num_missing} of {count_of(sum(study.states.values()), 'trial')} {is_or_are(study.num_missing)} missing; "
            "numbers will change."
        )
    if study.failed:
        sentences.append(f"Failed, so missing from the means: {listed(study.failed, 3)}.")
    if small := small_groups_in_words(study, [it.feature for it in study.fairness]):
        sentences.append(f"Small groups, which may decide DPD and EOD alone: {listed(small, 2)}.")
    return tuple(sentences)


def _which(distilled: Sequence[Condition]) -> str:
    """The conditions by name; of many, their temperatures, and which settings differ."""
    lines = make_series(distilled)
    if len(distilled) <= _MOST_NAMED or sum(len(line.conditions) for line in lines) < len(distilled):
        return listed([it.label for it in distilled], _MOST_NAMED)
    values = sorted({it.temperature for it in distilled if it.temperature is not None})
    settings = [f"{count_of(len(lines), 'setting')} of {listed(lines[0].varying)}"] if len(lines) > 1 else []
    ends = f"T = {shown_number(values[0])} to {shown_number(values[-1])}, {len(values)} values"
    return "; ".join([ends, *settings])


def _accuracy(rows: Sequence[Comparison]) -> tuple[str, ...]:
    """The difference from scratch of each condition, of many the lowest and the highest, and what is known of it."""
    found = [
        row
        for row in rows
        if (row.analysis, row.metric, row.contrast) == ("fairness", "accuracy", SCRATCH) and row.effect is not None
    ]
    if not found:
        return ()
    shown = found
    if len(found) > _MOST:
        ordered = sorted(found, key=lambda row: row.effect or 0.0)
        shown = [ordered[0], ordered[-1]]
    texts = [
        f"{row.condition} {points(row, row.effect, sign=True)} "
        f"({'; '.join(filter(None, [interval(row), *_both_p(row), _KNOWN.get(row.status or '', 'not tested')]))})"
        for row in shown
    ]
    if shown is found:
        return (f"Against scratch, with the p that decides, before correction: {'; '.join(texts)}.",)
    of_status = {
        known: [row.condition for row in found if (row.status or "not_tested") == status]
        for status, known in _KNOWN.items()
    }
    counts = [f"{known} at {listed(conditions)}" for known, conditions in of_status.items() if conditions]
    alike = [f"all {len(found)}: {known}" for known, conditions in of_status.items() if len(conditions) == len(found)]
    known = capital("; ".join(alike or counts))
    return (
        f"Against scratch, lowest and highest of {len(found)} conditions, with the p that decides, before correction: {'; '.join(texts)}. "
        f"{known}.",
    )


def _both_p(row: Comparison) -> list[str]:
    """The p that decides, and that of pairs with the same seed, which start alike."""
    if row.p_claim is None:
        return []
    paired = [] if row.p_paired is None else [f"paired by seed p {shown_p(row.p_paired)}"]
    return [f"p {shown_p(row.p_claim)}", *paired]


_KNOWN = {
    "established": "established",
    "hint": "a hint",
    "none": "not shown to differ",
    "held_back": "held back",
    "not_tested": "not tested",
}
"""What is known of a difference, by the status of its row."""


def _established(study: Study, rows: Sequence[Comparison], *, most: int) -> tuple[str, ...]:
    """What differs from scratch and with temperature first, then what differs from the teacher."""
    dead = {it.label: it for it in study.distilled if standing(study, it) is None}
    found = [row for row in rows if row.status == "established" and row.analysis != "claim"]
    follows = [row for row in found if row.condition in dead]
    last = (
        [f"{count_of(len(follows), 'difference')} at {listed(list(dead))}, which collapsed; `--full` lists them."]
        if follows
        else []
    )
    groups = _grouped(
        [row for row in found if row.condition not in dead],
        lambda row: (row.analysis, row.contrast, short(row), (row.effect or 0.0) > 0),
    )
    groups.sort(
        key=lambda same: (
            same[0].contrast == TEACHER,
            same[0].metric.startswith(INDIVIDUAL),
            min((row.q or 0.0, row.p_claim or 0.0) for row in same),
        )
    )
    most -= len(last)
    if len(groups) > most:
        rest = groups[most - 1 :]
        names = list(dict.fromkeys(short(same[0]) for same in rest))
        last.insert(0, f"{len(rest)} more; `--full` lists them: {listed(names, 3)}.")
        groups = groups[: most - 1]
    return (*(_difference(same, _the_other_way(same, found)) for same in groups), *last)


def _the_other_way(same: Sequence[Comparison], found: Sequence[Comparison]) -> list[str]:
    """The conditions in which the same quantity is established with the other sign."""
    first = same[0]
    return [
        row.condition
        for row in found
        if (row.analysis, row.contrast, short(row)) == (first.analysis, first.contrast, short(first))
        and (row.effect or 0.0) * (first.effect or 0.0) < 0
    ]


def _difference(same: Sequence[Comparison], opposite: Sequence[str]) -> str:
    """One quantity that differs one way in some conditions, told by the clearest; and the conditions in which it differs the other way."""
    row = min(same, key=lambda it: (it.q or 0.0, it.p_claim or 0.0))
    others = [it.condition for it in same if it is not row]
    also = f" Also established, the same way, at {listed(others)}." if others else ""
    also += f" Also established, the other way, at {listed(opposite)}." if opposite else ""
    also += " (Higher: predictions change faster; it follows confidence.)" if row.metric.startswith(INDIVIDUAL) else ""
    name = capital(short(row))
    if row.analysis == "trend":
        way = "rises" if (row.effect or 0.0) > 0 else "falls"
        numbers = f"rank correlation {signed(row.effect)}; q {shown_p(row.q)}; {row.n_treatment} runs"
        return f"{name} {way} with temperature over {row.condition} ({numbers}){scope(row)}.{also}"
    against = BASELINE.get(row.contrast or "", row.contrast or "")
    equal = " at equal accuracy" if row.analysis == "matched_accuracy" else ""
    numbers = "; ".join(
        filter(
            None,
            [
                own_accuracy(row),
                interval(row),
                f"q {shown_p(row.q)}",
                f"{row.n_treatment} against {row.n_baseline} runs",
            ],
        )
    )
    return f"{name}{equal}: {points(row, row.effect, sign=True)} against {against} at {row.condition} ({numbers}){scope(row)}.{also}"


def _hints(rows: Sequence[Comparison], level: float) -> tuple[str, ...]:
    """One statement for each baseline, and one for trends."""
    sentences = []
    tests = [row for row in rows if row.p_claim is not None and row.family]
    if tests and not any(row.status == "hint" for row in tests):
        return (f"None. {_below(tests, '', level)}",)
    for same in _grouped(tests, lambda row: (row.contrast if row.contrast in CONTRASTS else "trend",)):
        hints = [row for row in same if row.status == "hint"]
        if not hints:
            continue
        clearest = min(hints, key=lambda row: row.p_claim or 0.0)
        where = f"against {BASELINE[same[0].contrast]}" if same[0].contrast in CONTRASTS else "of trends"
        is_trend = clearest.analysis == "trend"
        size = (
            f"rank correlation {signed(clearest.effect)}"
            if is_trend
            else "; ".join(filter(None, [points(clearest, clearest.effect, sign=True), own_accuracy(clearest)]))
        )
        about = f"{short(clearest)} {'over' if is_trend else 'at'} {clearest.condition}"
        sentences.append(f"{_below(same, where, level)} Clearest hint: {about} ({size}).")
    return tuple(sentences)


def _below(tests: Sequence[Comparison], where: str, level: float) -> str:
    """How many tests are below the level before correction, how many are expected by chance, and how many are established."""
    count, chance = sum((row.p_claim or 0.0) < level for row in tests), level * len(tests)
    known = sum(row.status == "established" for row in tests)
    of = " ".join(
        filter(None, [f"{count:,} of {count_of(len(tests), 'test')}", where, "has" if count == 1 else "have"])
    )
    by_chance = f"{chance:,.{0 if chance >= 100 else 1}f}"
    established = f" {known} of them {is_or_are(known)} established." if known else ""
    return f"{of} p < {level:g} before correction; by chance alone {by_chance} are expected, or fewer.{established}"


def _held_back(rows: Sequence[Comparison]) -> tuple[str, ...]:
    """One statement for each reason."""
    held = [row for row in rows if row.status == "held_back" and row.analysis != "claim"]
    sentences = []
    for same in _grouped(held, lambda row: (row.held_back or "chance level",)):
        names = list(dict.fromkeys(short(row) for row in same))
        why, row = same[0].held_back or "chance level", same[0]
        subject = f"{capital(listed(names, 2))} ({count_of(len(same), 'difference')})"
        equal = " at equal accuracy" if row.analysis == "matched_accuracy" else ""
        if why == "small cells":
            cell = min(row.smallest_cell or 0 for row in same)
            reason = f"groups of {count_of(cell, 'test sample')} decide {'it' if len(same) == 1 else 'them'}; a claim needs {MIN_CELL}"
        elif why == "chance level" and row.analysis != "trend":
            reason = (
                f"a difference beyond chance is not shown ({row.condition}: {amount(row, row.mean_treatment)}, random groups of the same "
                f"sizes {amount(row, row.chance_level)}; {BASELINE[row.contrast or SCRATCH]}: {amount(row, row.mean_baseline)}, random "
                f"groups {amount(row, row.chance_baseline)})"
            )
        elif why == "chance level":
            reason = "a trend beyond what random groups of the same sizes give is not shown"
        elif why == "accuracies differ":
            reason = "the accuracies are further apart than their sd, so a fitted line would decide, not data"
        else:
            reason = f"{why} on a side" if why.endswith(" runs") else why
        sentences.append(f"{subject}{equal}: {reason}.")
    return tuple(sentences)


def _not_tested(study: Study, rows: Sequence[Comparison]) -> tuple[str, ...]:
    sentences = []
    for contrast in CONTRASTS:
        against = BASELINE[contrast]
        without = [it for it in study.distilled if study.baseline(contrast, it) is None]
        unknown = [it.label for it in without if contrast == TEACHER and it.has_given_logits]
        if unknown:
            sentences.append(
                f"Against {against}: for {listed(unknown)} only its logits of the training samples are given; its accuracy and fairness on "
                "the test samples, and the students' disagreement with it, are not known."
            )
        lacking = [it.label for it in without if it.label not in unknown]
        if lacking:
            sentences.append(f"Against {against}: no such trial is complete for {listed(lacking)}.")
        few = [row for row in rows if (row.analysis, row.contrast) == ("class_bias_counts", contrast)]
        few = [row for row in few if min(row.n_baseline or 0, row.n_treatment or 0) < MIN_RUNS]
        if few:
            n = min(min(row.n_baseline or 0, row.n_treatment or 0) for row in few)
            what = "teacher" if contrast == TEACHER and (few[0].n_baseline or 0) == n else "seed"
            teachers = {teacher for it in study.distilled for run in it.teachers for teacher in run}
            each = " for a condition" if what == "teacher" and len(teachers) > n else ""
            sentences.append(
                f"Against {against}: {count_of(n, what)}{each} cannot show how far {what}s are apart; a claim needs {MIN_RUNS} {what}s."
            )
    trends = [row for row in rows if row.analysis == "trend" and row.test == "spearman"]
    few_runs = list(dict.fromkeys(row.condition for row in trends if row.p_claim is None and row.held_back is None))
    # Collapsed runs are left out of trends of fairness, so one range of temperatures may have two floors.
    floors = {
        same[0].condition: min(row.p_permutation_floor or 0.0 for row in same)
        for same in _grouped(trends, lambda row: (row.condition,))
        if same[0].condition not in few_runs
    }
    floors = {condition: floor for condition, floor in floors.items() if floor >= trends[0].level}
    if few_runs:
        sentences.append(f"Trends over {listed(few_runs)}: fewer than {MIN_RUNS} seeds at a temperature.")
    if floors:
        words = [f"{condition} (p cannot be below {floor:.2g})" for condition, floor in floors.items()]
        sentences.append(f"Trends over {listed(words)}: too few seeds and temperatures.")
    collapsed = collapsed_in_words(study, study.conditions)
    if collapsed:
        sentences.append(f"Fairness of collapsed runs: {listed(collapsed)}.")
    return tuple(sentences)


def _grouped(rows: Sequence[Comparison], key: Callable[[Comparison], tuple[object, ...]]) -> list[list[Comparison]]:
    """Rows of one key together, in the order in which keys appear."""
    groups: dict[tuple[object, ...], list[Comparison]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return list(groups.values())
