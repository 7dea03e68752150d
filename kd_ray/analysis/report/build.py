"""The report of a sweep, from start to end: read, draw, tabulate, say, write.

Everything is made in memory first, and a file is moved to its place only when it is whole; the page comes last. So a report that is cut
short leaves the page of the one before.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kd_ray.analysis.compare import compare
from kd_ray.analysis.report import bias, contents, equity, runs
from kd_ray.analysis.report.axis import ConditionAxis, condition_axis
from kd_ray.analysis.report.beside import published_table
from kd_ray.analysis.report.disagreement import Disagreement, disagreements, matrices
from kd_ray.analysis.report.evidence import Evidence, read_evidence
from kd_ray.analysis.report.findings import make_findings
from kd_ray.analysis.report.next_step import commands, in_words, open_steps
from kd_ray.analysis.report.page import Section, page
from kd_ray.analysis.report.power import power_curves
from kd_ray.analysis.report.published import Published, find_published
from kd_ray.analysis.report.study import Study, read_study
from kd_ray.analysis.report.style import Drawing, drawing, render
from kd_ray.analysis.report.table import ReportTable
from kd_ray.analysis.report.vectors import MAX_ROWS, class_vectors, vector_table
from kd_ray.errors import InvalidInputError
from kd_ray.results.query import Results
from kd_ray.results.store import report_folder

_MAX_FEATURES = 6
"""Sensitive features and intersections with a figure of their own."""
_LIST = "files.json"
_OURS = re.compile(r"(figures|tables)/[a-z0-9-]+\.(svg|pdf|csv|tex)")


@dataclass(frozen=True, kw_only=True)
class Report:
    """A report that has been written."""

    page: Path
    """`index.html`; it needs none of the other files."""
    num_figures: int
    num_tables: int
    size_bytes: int
    """Size of the page."""


def report(results: Results, sweep: str, output: Path | None = None, *, store: str | None = None) -> Report:
    """Make the report of a sweep and write it to a folder, by default to `reports/<sweep>` of a local store.

    Raises:
        InvalidInputError: the store has no such sweep, nothing of it is complete, or there is no folder to write to.
    """
    folder = output or default_folder(results, sweep)
    files = make_report(results, sweep, store=store)
    write_files(folder, files)
    names = list(files)
    return Report(
        page=folder / "index.html",
        num_figures=sum(name.endswith(".svg") for name in names),
        num_tables=sum(name.endswith(".csv") for name in names),
        size_bytes=len(files["index.html"]),
    )


def default_folder(results: Results, sweep: str) -> Path:
    """Where the report of a sweep lies if nobody says otherwise.

    Raises:
        InvalidInputError: the store is not a local folder.
    """
    root = results.store.local_root
    if root is None:
        raise InvalidInputError(
            f"store {results.store.url} is not a local folder; say with -o DIR where the report goes"
        )
    return root / report_folder(sweep)


def make_report(results: Results, sweep: str, *, store: str | None = None) -> dict[str, bytes]:
    """Content of every file of a report by its name, `index.html` last; `store` is what a command is told, None for the default one."""
    study = read_study(results, sweep)
    if not study.trials:
        raise InvalidInputError(
            f"sweep {sweep}: none of its {sum(study.states.values())} trials is complete, so there is nothing to "
            f"report; `kd-ray status {sweep}` tells how far they are"
        )
    problem = compared(results, sweep)
    evidence = read_evidence(results, study)
    steps = [] if problem else open_steps(results, sweep)
    published = find_published(study)
    with drawing():
        sections = make_sections(study, evidence, published)
        drawings = [it for section in sections for it in section.drawings]
        rendered = {it.name: render(it.figure) for it in drawings}
    tables = [it for section in sections for it in section.tables]
    files: dict[str, bytes] = {}
    for name, it in rendered.items():
        files |= {f"figures/{name}.svg": it.svg, f"figures/{name}.pdf": it.pdf}
    for table in [*tables, *file_only_tables(study, evidence)]:
        files |= {
            f"tables/{table.name}.csv": table.to_csv().encode(),
            f"tables/{table.name}.tex": table.to_latex().encode(),
        }
    html = page(
        title=f"{study.sweep}: distillation on {study.dataset}",
        lead=_lead(study),
        missing=_missing(study),
        foot=_foot(study),
        findings=make_findings(
            study,
            evidence,
            problem=problem,
            steps=list(dict.fromkeys(in_words(step) for step in steps)),
            commands=commands(steps, sweep, store),
        ),
        sections=sections,
        rendered=rendered,
    )
    files[_LIST] = json.dumps(sorted(files), indent=1).encode()
    return {**files, "index.html": html.encode()}


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write a report over an earlier one, each file whole; what only the earlier one had is removed, and nothing else.

    Raises:
        InvalidInputError: the folder cannot be written.
    """
    try:
        earlier = _earlier(folder)
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".{path.name}.part")
            temporary.write_bytes(content)
            temporary.replace(path)
        for name in earlier - set(files):
            (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise InvalidInputError(f"report folder {folder}: cannot write: {error.strerror}") from error


def make_sections(study: Study, evidence: Evidence, published: Published | None) -> list[Section]:
    """The chapters of the page; one without anything to show is left out."""
    axis = condition_axis(study)
    found = disagreements(study)
    sections = [
        _bias_section(study, evidence, axis, found),
        *([_group_section(study, evidence, axis)] if study.fairness else []),
        _individual_section(study, axis),
        _trend_section(evidence),
        _power_section(evidence, study),
        *([_published_section(study, evidence, published, found)] if published else []),
        _runs_section(study),
    ]
    return [section for section in sections if section.drawings or section.tables]


def file_only_tables(study: Study, evidence: Evidence) -> list[ReportTable]:
    """Tables that are too long for a page."""
    vectors = [] if len(study.class_names) <= MAX_ROWS else [vector_table(study)]
    return _some([contents.class_effect_table(study, evidence), *vectors])


def compared(results: Results, sweep: str) -> str:
    """Make the comparisons of a sweep if the store has none: they are gone as soon as a trial changes.

    Returns why there is nothing to compare; empty otherwise.
    """
    if results.query(f"SELECT count(*) AS n FROM comparisons WHERE sweep = '{sweep}'").column("n")[0].as_py():
        return ""
    try:
        compare(results, sweep)
    except InvalidInputError as error:
        return str(error)
    return ""


def _bias_section(study: Study, evidence: Evidence, axis: ConditionAxis, found: tuple[Disagreement, ...]) -> Section:
    return Section(
        name="classes",
        title="Classes",
        drawings=_drawn(
            bias.counts(study, evidence, axis),
            bias.class_accuracy(study, evidence, axis),
            bias.heat_map(study, evidence, axis),
            matrices(study, found),
            class_vectors(study),
        ),
        tables=tuple(
            _some(
                [
                    contents.condition_table(study),
                    contents.count_table(evidence),
                    contents.class_table(study, evidence),
                    contents.disagreement_table(found),
                    *([vector_table(study)] if len(study.class_names) <= MAX_ROWS else []),
                ]
            )
        ),
    )


def _group_section(study: Study, evidence: Evidence, axis: ConditionAxis) -> Section:
    shown = study.fairness[:_MAX_FEATURES]
    figures = [
        equity.group_fairness(study, fairness, axis, f"fairness-{i}-{_slug(fairness.feature)}")
        for i, fairness in enumerate(shown, start=1)
    ]
    more = len(study.fairness) - len(shown)
    return Section(
        name="groups",
        title="Groups",
        paragraphs=(f"{more} more sensitive features and intersections are in the tables.",) if more else (),
        drawings=_drawn(*figures, equity.frontier(study, study.fairness, axis)),
        tables=tuple(
            _some(
                [
                    contents.fairness_table(study),
                    contents.test_table(
                        evidence,
                        "fairness",
                        "fairness-tests",
                        "Differences in fairness",
                        "Distilled minus baseline with its interval over runs; rates in percent, differences in "
                        "points. Sampling sd: what other test samples of the same size would add. q after Benjamini "
                        "& Hochberg over the family.",
                    ),
                    contents.test_table(
                        evidence,
                        "matched_accuracy",
                        "matched-accuracy",
                        "Differences at equal accuracy",
                        "The same with the accuracy of each run held equal by regression; flagged extrapolated where "
                        "the two sides have no accuracy in common.",
                    ),
                ]
            )
        ),
    )


def _individual_section(study: Study, axis: ConditionAxis) -> Section:
    return Section(name="individuals", title="Individuals", drawings=_drawn(equity.individual(study, axis)))


def _trend_section(evidence: Evidence) -> Section:
    table = contents.test_table(
        evidence,
        "trend",
        "trends",
        "Trends over temperature",
        "Rank correlation of a metric with temperature over all runs, or Jonckheere & Terpstra's test; low and high "
        "temperatures apart, because trends reported in the literature turn.",
    )
    return Section(name="trends", title="Trends", tables=tuple(_some([table])))


def _power_section(evidence: Evidence, study: Study) -> Section:
    return Section(name="power", title="How much could have been found", drawings=_drawn(power_curves(study, evidence)))


def _published_section(
    study: Study, evidence: Evidence, published: Published, found: tuple[Disagreement, ...]
) -> Section:
    words = (
        f"This sweep has the data set and the models of the {published.name} experiment in {published.paper}. Values "
        "of the paper stand beside those of this sweep; what could not be read is left out, not guessed.",
        f"Not known of the paper: {published.unknown}. Whatever this sweep sets them to is a substitute, so a "
        "difference between the columns is no failed replication, and equal columns are no proof of one.",
        *([published.statement] if published.statement else []),
    )
    table = published_table(study, evidence, published, found)
    return Section(name="paper", title="Beside the paper", paragraphs=words, tables=tuple(_some([table])))


def _runs_section(study: Study) -> Section:
    return Section(
        name="runs",
        title="Runs",
        drawings=_drawn(runs.training_curves(study), runs.cost(study)),
        tables=tuple(_some([contents.cost_table(study)])),
    )


def _drawn(*drawings: Drawing | None) -> tuple[Drawing, ...]:
    return tuple(it for it in drawings if it is not None)


def _some(tables: list[ReportTable]) -> list[ReportTable]:
    return [table for table in tables if table.rows]


def _lead(study: Study) -> str:
    students = sorted({str(c.axes["model"]) for c in study.conditions if c.role != "teacher"})
    teachers = sorted({str(c.axes["model"]) for c in study.of_role("teacher")})
    samples = sorted({row["num_test"] for row in study.trials})
    count = sum(study.states.values())
    taught = f"{', '.join(teachers) or 'no teacher'} → {', '.join(students) or 'no student'}"
    return (
        f"{study.dataset}, target {study.target}, {len(study.class_names):,} classes, "
        f"{', '.join(f'{n:,}' for n in samples)} test samples; {taught}; {len(study.trials):,} of {count:,} trials."
    )


def _missing(study: Study) -> str:
    """What to know of a sweep that is not complete; empty for one that is."""
    if not study.num_missing:
        return ""
    states = ", ".join(f"{count} {state}" for state, count in study.states.items() if count and state != "complete")
    return f"{study.num_missing} of {sum(study.states.values())} trials are missing ({states}): this report is of the others."


def _foot(study: Study) -> str:
    newest = max(row["finished_at"] for row in study.trials)
    return f"Made by kd_ray from the tables of sweep {study.sweep}; its newest trial is of {newest:%Y-%m-%d %H:%M} UTC."


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower())[:40].strip("-") or "feature"


def _earlier(folder: Path) -> set[str]:
    """Files of an earlier report, by its own list; a list that is none of ours counts for nothing."""
    try:
        names = json.loads((folder / _LIST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return set()
    return (
        {name for name in names if isinstance(name, str) and _OURS.fullmatch(name)}
        if isinstance(names, list)
        else set()
    )
