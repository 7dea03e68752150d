"""The page: everything in one file, so that it can be sent and opened anywhere without a network."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from kd_ray.analysis.report.style import Drawing, Rendered
from kd_ray.analysis.report.table import MeanAndSd, ReportTable, shown, sort_key
from kd_ray.analysis.verdict import Verdict

MAX_ROWS = 1500
"""Rows of one table on the page; the CSV file has all."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Section:
    """A chapter of the page."""

    name: str
    title: str
    explanation: str = ""
    """What the chapter is about, for a reader who does not know the terms."""
    paragraphs: tuple[str, ...] = ()
    drawings: tuple[Drawing, ...] = ()
    tables: tuple[ReportTable, ...] = ()


def page(
    *,
    title: str,
    lead: str,
    missing: str,
    foot: str,
    verdict: Verdict,
    first: Section,
    sections: Sequence[Section],
    rendered: dict[str, Rendered],
) -> str:
    """The HTML of a report: the verdict beside the figure and the table of `first`, then the other sections.

    Every text is escaped: names of classes, features and settings are anybody's.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("kd_ray.analysis.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    figures = iter(range(1, 1000))
    tables = iter(range(1, 1000))

    def section(it: Section) -> dict[str, Any]:
        return {
            "name": it.name,
            "title": it.title,
            "explanation": unbroken(it.explanation),
            "paragraphs": it.paragraphs,
            "figures": [_figure(drawing, rendered[drawing.name], next(figures)) for drawing in it.drawings],
            "tables": [_table(table, next(tables)) for table in it.tables],
        }

    return environment.get_template("page.html.j2").render(
        title=title,
        lead=lead,
        missing=missing,
        foot=foot,
        verdict=[
            {
                "title": heading,
                "is_command": heading == "NEXT",
                "sentences": [it if heading == "NEXT" else unbroken(it) for it in sentences],
            }
            for heading, sentences in verdict.parts()
        ],
        first=section(first),
        sections=[section(it) for it in sections],
        css=_own("page.css"),
        js=_own("page.js"),
    )


def unbroken(text: str) -> str:
    """Text whose numbers stay on one line with their signs and units."""
    text = re.sub(r"(?<=\d) (?=%)", "\u00a0", text)
    return re.sub(r"\b([npqT]) ([=<]) (?=\d)", "\\1\u00a0\\2\u00a0", text)


def _figure(drawing: Drawing, rendered: Rendered, number: int) -> dict[str, Any]:
    return {
        "name": drawing.name,
        "title": drawing.title,
        "caption": unbroken(drawing.caption),
        "number": number,
        "has_pdf": rendered.pdf is not None,
        # Drawn by us; matplotlib escapes the texts in it.
        "svg": Markup(rendered.inline(drawing.name)),  # noqa: S704
    }


def _table(table: ReportTable, number: int) -> dict[str, Any]:
    numeric = table.is_numeric
    return {
        "name": table.name,
        "title": table.title,
        "caption": unbroken(table.caption),
        "number": number,
        "columns": [
            {"title": c.title, "numeric": is_number} for c, is_number in zip(table.columns, numeric, strict=True)
        ],
        "rows": [
            [
                # Text sorts as it stands.
                {
                    "text": shown(cell, column),
                    "numeric": is_number,
                    "long": isinstance(cell, str) and len(cell) > 40,
                    "key": sort_key(cell) if is_number or isinstance(cell, MeanAndSd) or cell is None else None,
                }
                for cell, column, is_number in zip(row, table.columns, numeric, strict=True)
            ]
            for row in table.rows[:MAX_ROWS]
        ],
        "num_cut": max(0, len(table.rows) - MAX_ROWS),
    }


def _own(name: str) -> Markup:
    return Markup(resources.files("kd_ray.analysis.report").joinpath(name).read_text(encoding="utf-8"))  # noqa: S704
