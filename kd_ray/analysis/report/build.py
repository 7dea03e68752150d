"""The report of a sweep, from start to end: read, draw, tabulate, say, write.

Everything is made in memory first, and a file is moved to its place only when it is whole; the page comes last. So a report that is cut
short leaves the page of the one before.
"""

import json
import re
import shlex
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from kd_ray.analysis.reading import read_study, read_tuned
from kd_ray.analysis.report.evidence import make_evidence
from kd_ray.analysis.report.page import page
from kd_ray.analysis.report.published import find_published
from kd_ray.analysis.report.sections import file_only_tables, first_section, make_sections
from kd_ray.analysis.report.style import Rendered, drawing, render
from kd_ray.analysis.stored import stored_or_made
from kd_ray.analysis.study import Study
from kd_ray.analysis.verdict import Verdict
from kd_ray.bounded import MEGABYTE, JsonForm
from kd_ray.errors import InvalidInputError
from kd_ray.results.comparison_schema import Comparison
from kd_ray.results.query import Results
from kd_ray.results.store import report_folder

Progress = Callable[[str], None]
"""Called with the name of each stage when it begins."""
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


def report(
    results: Results,
    sweep: str,
    output: Path | None = None,
    *,
    store: str | None = None,
    with_pdf: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Make the report of a sweep and write it to a folder, by default to `reports/<sweep>` of a local store.

    Raises:
        InvalidInputError: the store has no such sweep, nothing of it is complete, or there is no folder to write to.
    """
    folder = output or default_folder(results, sweep)
    check_folder(folder)
    files = make_report(results, sweep, store=store, with_pdf=with_pdf, progress=progress)
    if progress:
        progress(f"write {len(files)} files")
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
        StoreError: a link on the way leaves the store.
    """
    store = results.store
    if store.local_root is None:
        raise InvalidInputError(f"store {store.url} is not a local folder; say with -o DIR where the report goes")
    for part in ("figures", "tables"):
        store.local_path(f"{report_folder(sweep)}/{part}")
    return store.local_path(report_folder(sweep))


def check_folder(folder: Path) -> None:
    """Notice before the work that a report cannot be written there. Nothing is left behind.

    Raises:
        InvalidInputError: the folder, or the one in which it would be made, cannot be written.
    """
    nearest = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=nearest):
            return
    except OSError as error:
        raise InvalidInputError(
            f"report folder {folder}: cannot write: {error.strerror}; say with -o DIR where the report goes"
        ) from error


def make_report(
    results: Results,
    sweep: str,
    *,
    store: str | None = None,
    with_pdf: bool = False,
    progress: Progress | None = None,
) -> dict[str, bytes]:
    """Content of every file of a report by its name, `index.html` last; `store` is what a command is told, None for the default one."""
    tell = progress or (lambda stage: None)
    tell(f"read sweep {sweep}")
    study = read_study(results, sweep)
    tell(f"compare {len(study.conditions)} conditions")
    rows, verdict = compared(results, study)
    evidence = make_evidence(rows, study)
    with drawing():
        tell("draw figures and make tables")
        first = first_section(study, evidence)
        sections = make_sections(study, evidence, find_published(study), read_tuned(results, sweep))
        drawings = [it for section in (first, *sections) for it in section.drawings]
        tell(f"render {len(drawings)} figures as SVG{' and PDF' if with_pdf else ''}")
        rendered = {it.name: render(it.figure, with_pdf=with_pdf) for it in drawings}
    files = _figure_files(rendered)
    for table in [*(it for section in (first, *sections) for it in section.tables), *file_only_tables(study, evidence)]:
        files |= {
            f"tables/{table.name}.csv": table.to_csv().encode(),
            f"tables/{table.name}.tex": table.to_latex().encode(),
        }
    html = page(
        title=f"{study.sweep}: distillation on {study.dataset}",
        lead=_lead(study),
        missing=_missing(study),
        foot=_foot(study),
        verdict=replace(verdict, commands=tuple(_of_store(it, store) for it in verdict.commands)),
        first=first,
        sections=sections,
        rendered=rendered,
    )
    files[_LIST] = json.dumps(sorted(files), indent=1).encode()
    return {**files, "index.html": html.encode()}


def compared(results: Results, study: Study) -> tuple[Sequence[Comparison], Verdict]:
    """The comparisons of a sweep and what they say; no rows, and the reason in the verdict, where there is nothing to compare."""
    try:
        return stored_or_made(results, study)
    except InvalidInputError as error:
        others = {field.name for field in fields(Verdict)} - {"not_tested"}
        return (), Verdict(**dict.fromkeys(others, ()), not_tested=(str(error),))


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


def _figure_files(rendered: Mapping[str, Rendered]) -> dict[str, bytes]:
    files = {f"figures/{name}.svg": it.svg for name, it in rendered.items()}
    return files | {f"figures/{name}.pdf": it.pdf for name, it in rendered.items() if it.pdf is not None}


def _of_store(command: str, store: str | None) -> str:
    """The command as it has to be typed for a store other than the default one."""
    return f"{command} --store {shlex.quote(store)}" if store else command


def _lead(study: Study) -> str:
    students = sorted({str(c.axes["model"]) for c in study.conditions if c.role != "teacher"})
    teachers = sorted(
        {str(c.axes["model"]) for c in study.of_role("teacher")}
        | {str(c.axes["teacher"]) for c in study.distilled if c.has_given_logits}
    )
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


def _earlier(folder: Path) -> set[str]:
    """Files of an earlier report, by its own list; a list that is none of ours counts for nothing."""
    try:
        names = _NAMES.read((folder / _LIST).read_bytes())
    except (OSError, ValueError):
        return set()
    return {name for name in names if isinstance(name, str) and _OURS.fullmatch(name)}


_NAMES: JsonForm[list[Any]] = JsonForm(kind=list[Any], most_bytes=16 * MEGABYTE)
