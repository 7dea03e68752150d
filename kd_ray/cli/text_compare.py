"""What `kd-ray compare` prints: the answer in words, then the conditions and the published counts. Computes nothing.

`text_compare_full.py` has the tables of `--full`.
"""

import shlex
from collections.abc import Collection, Sequence

from kd_ray.analysis.compare import SweepComparison
from kd_ray.analysis.study import SCRATCH, TEACHER
from kd_ray.cli.comparison_values import mean_and_sd, title, value
from kd_ray.cli.tables import MOST_CONDITIONS, more_conditions, render_in_parts, terminal_width, wrapped
from kd_ray.cli.text_compare_full import full_tables
from kd_ray.results.comparison_schema import Comparison

_WITH_CHANCE = ("equalized_odds_difference", "demographic_parity_difference")
_SHOWN = ("accuracy", "worst_class_accuracy", *_WITH_CHANCE, "individual_fairness")
"""Metrics in the table of conditions; `--full` has all."""
_COMMANDS = "NEXT"
_NARROW = 60
"""In a terminal with fewer columns, a heading has its own line."""


def compared(comparison: SweepComparison, *, store: str | None, full: bool = False, width: int | None = None) -> str:
    """The whole answer; `store` is None for the default one. `width` is the width to fit, by default that of the terminal."""
    width = width or terminal_width()
    parts = [
        _verdict(comparison, store, width),
        _conditions(comparison, width, full=full),
        _counts(comparison, width, full=full),
    ]
    if full:
        parts += full_tables(comparison, width)
    else:
        option = "" if store is None else f" --store {shlex.quote(store)}"
        parts.append(command(f"kd-ray compare {comparison.sweep} --full{option}", width, before="every difference: "))
    return "\n\n".join(filter(None, parts))


def _verdict(comparison: SweepComparison, store: str | None, width: int | None) -> str:
    parts = comparison.verdict.parts()
    wide = max(len(heading) for heading, _ in parts) + 2
    is_narrow = width is not None and width < _NARROW
    option = "" if store is None else f" --store {shlex.quote(store)}"
    lines = []
    for heading, statements in parts:
        if is_narrow:
            lines.append(heading)
        for i, statement in enumerate(statements):
            first = "  " if is_narrow else (heading if i == 0 else "").ljust(wide)
            then = "  " if is_narrow else " " * wide
            if heading == _COMMANDS:
                lines.append(command(statement + option, width, before=first))
            else:
                mark = "- " if len(statements) > 1 else ""
                lines.append(wrapped(statement, first=first + mark, then=then + " " * len(mark), width=width))
    return "\n".join(lines)


def command(text: str, width: int | None, *, before: str = "") -> str:
    """A command that a shell reads as one, over several lines where it is longer than `width`.

    Between words a line ends with a backslash. A word that is too long by itself, such as a list of seeds, is cut after its commas; between
    single quotes a new line is kept, and a list of a sweep file may have one.
    """
    if width is None or len(before) + len(text) <= width:
        return before + text
    indent = " " * min(len(before), 4)
    lines, line = [], before
    for word in shlex.split(text):
        quoted = shlex.quote(word)
        if len(line) + len(quoted) + 3 > width and line.strip() and line != before:
            lines.append(f"{line.rstrip()} \\")
            line = indent
        if len(line) + len(quoted) + 3 > width and "," in quoted:
            pieces = quoted.split(",")
            for piece in pieces[:-1]:
                if len(line) + len(piece) + 1 > width:
                    lines.append(line)
                    line = indent
                line += f"{piece},"
            if len(line) + len(pieces[-1]) + 2 > width:
                lines.append(line)
                line = indent
            line += f"{pieces[-1]} "
        else:
            line += f"{quoted} "
    return "\n".join([*lines, line.rstrip()])


def _conditions(comparison: SweepComparison, width: int | None, *, full: bool) -> str:
    rows = [
        row
        for row in comparison.of("condition")
        if full or (row.metric in _SHOWN and row.sensitive_feature not in comparison.joint_features)
    ]
    rows.sort(key=_place)
    columns = list(dict.fromkeys((row.metric, row.sensitive_feature) for row in rows))
    found = {(_key(row), row.metric, row.sensitive_feature): row for row in rows}
    accuracy = [row for row in comparison.of("condition") if row.metric == "accuracy"]
    collapsed = _collapsed(comparison)
    cells = [
        [_name(row, collapsed), str(row.n_treatment), *(_level(found.get((_key(row), *column))) for column in columns)]
        for row in accuracy
    ]
    cells, notes = _first(cells, full=full)
    notes += [
        "conditions: mean ± sd over n runs (seeds); rates in percent. Individual fairness is no rate: how fast predictions "
        "change between samples, which follows the model's confidence."
    ]
    if any(feature for _, feature in columns):
        notes.append(
            "EOD (equalized odds) and DPD (demographic parity): largest differences between groups, mean over classes; 0 is parity. "
            "chance: what random groups of the same sizes give."
        )
    if any("collapsed" in row.flags for row in accuracy):
        notes.append("*: runs of it collapsed; their fairness and class accuracies say nothing.")
    table = render_in_parts(["condition", "n", *(title(*column) for column in columns)], cells, left=1, width=width)
    return "\n".join([table, *(wrapped(note, width=width) for note in notes)])


def _first(cells: list[list[str]], *, full: bool) -> tuple[list[list[str]], list[str]]:
    """The lines that are shown, and a note on the others."""
    left = 0 if full else max(0, len(cells) - MOST_CONDITIONS)
    return cells[: len(cells) - left], [more_conditions(left)] if left else []


def _place(row: Comparison) -> int:
    """Where the metric of a row stands: accuracies, then differences between groups, then the rest."""
    if row.sensitive_feature is not None:
        return 2
    return _SHOWN.index(row.metric) if row.metric in _SHOWN else len(_SHOWN)


def _level(row: Comparison | None) -> str:
    if row is None:
        return "–"
    chance = (
        f" (chance {value(row, row.chance_level)})"
        if row.metric in _WITH_CHANCE and row.chance_level is not None
        else ""
    )
    return f"{mean_and_sd(row)}{chance}"


def _collapsed(comparison: SweepComparison) -> set[tuple[object, ...]]:
    """The conditions with collapsed runs, each as its `_key`."""
    return {_key(row) for row in comparison.of("condition") if "collapsed" in row.flags}


def _name(row: Comparison, collapsed: Collection[tuple[object, ...]]) -> str:
    """Name of a condition, marked where runs of it collapsed."""
    return f"{row.condition}{'*' if _key(row) in collapsed else ''}"


def _counts(comparison: SweepComparison, width: int | None, *, full: bool) -> str:
    counts = comparison.of("class_bias_counts")
    if not counts:
        return ""
    first = counts[0]
    by_condition = {(row.contrast, _key(row)): row for row in counts}
    collapsed = _collapsed(comparison)
    cells = [
        [
            _name(row, collapsed),
            *(cell for contrast in (SCRATCH, TEACHER) for cell in _count(by_condition.get((contrast, _key(row))))),
        ]
        for row in {_key(row): row for row in counts}.values()
    ]
    cells, notes = _first(cells, full=full)
    table = render_in_parts(["condition", "#SC", "by chance", "#TC", "by chance"], cells, width=width)
    of = max(row.num_tests or 0 for row in counts)
    way = "divided by" if first.normalisation == "ratio" else "minus"
    notes += [
        f"#SC: of {of} classes, those whose accuracy ({way} overall accuracy) differs from scratch with p < {first.level:g} by Welch's "
        "t-test, as Mohammadshahi & Ioannou (2025) count; uncorrected, so not each of them is real.",
        "#TC: the same against the teacher.",
        f"by chance: how many to expect if nothing differed, or fewer where runs of one seed are alike{_reach(counts)}.",
    ]
    return "\n".join([table, *(wrapped(note, width=width) for note in notes)])


def _reach(counts: Sequence[Comparison]) -> str:
    """What the numbers in brackets are, where there are any."""
    if all(row.usual_significant is None for row in counts):
        return ""
    share = f"{100 * (1 - counts[0].level):g} %"
    return f"; in brackets what {share} of the ways to exchange the runs do not exceed. Among many conditions, some do"


def _count(row: Comparison | None) -> list[str]:
    if row is None or row.num_significant is None:
        return ["–", "–"]
    expected = "–" if row.expected_significant is None else f"{row.expected_significant:.1f}"
    usual = "" if row.usual_significant is None else f" (≤ {row.usual_significant})"
    return [str(row.num_significant), f"{expected}{usual}"]


def _key(row: Comparison) -> tuple[object, ...]:
    return row.dataset_id, row.role, row.model, row.condition
