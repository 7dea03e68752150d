"""HTML for notebooks: headings, paragraphs, lists and tables, with everything in them escaped."""

from collections.abc import Iterable, Sequence
from html import escape

MAX_ROWS = 20
"""Rows of a table that a notebook shows; the last line says how many are left out."""


def page(title: str, *parts: str) -> str:
    """A heading and what stands below it."""
    return "".join([f"<h4>{escape(title)}</h4>", *parts])


def paragraph(text: str) -> str:
    """One paragraph."""
    return f"<p>{escape(text)}</p>"


def listing(title: str, sentences: Iterable[str]) -> str:
    """A heading with a list below it."""
    return f"<h5>{escape(title)}</h5><ul>{''.join(f'<li>{escape(it)}</li>' for it in sentences)}</ul>"


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table, cut after `MAX_ROWS` rows."""
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    lines = ["".join(f"<td>{escape(str(cell))}</td>" for cell in row) for row in rows[:MAX_ROWS]]
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    more = len(rows) - MAX_ROWS
    left_out = paragraph(f"… and {more:,} more") if more > 0 else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{left_out}"
