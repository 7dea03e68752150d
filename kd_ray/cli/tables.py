"""Tables in the terminal. A table that is wider than the terminal is wrapped, or written as one block per row."""

import io
import re
import shutil
import sys
import textwrap
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from kd_ray.errors import count_of

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

# Functions that need rich import it, so that commands without a table do not wait for it.


MOST_CONDITIONS = 40
"""Conditions in a table that nobody has asked to be full: the answer above it stays in sight."""


def more_conditions(count: int) -> str:
    """What is said below a table of conditions that lacks so many."""
    return f"and {count_of(count, 'more condition')}, which `kd-ray compare --full` shows."


def table_of(columns: Sequence[str], right: Collection[int] = ()) -> "Table":
    """An empty table; `right` are the indices of the columns that are aligned to the right and never wrapped."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for i, name in enumerate(columns):
        table.add_column(name, justify="right" if i in right else "left", no_wrap=i in right, overflow="fold")
    return table


def terminal_width() -> int | None:
    """Columns of the terminal that stdout writes to; None for a file or a pipe."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def render(table: "Table", *, width: int | None = None) -> str:
    """The table as plain text.

    `width` is the width to fit, by default that of the terminal. A file or a pipe gets every row on one line.
    """
    width = width or terminal_width()
    measured = _console(10_000).measure(table)
    if width is None or measured.maximum <= width:
        return _text(table, measured.maximum)
    if measured.minimum <= width:
        return _text(table, width)
    return "\n\n".join(_text(block, width) for block in _blocks(table))


def render_in_parts(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1, width: int | None = None
) -> str:
    """A table of numbers as text. One that is too wide is cut into tables of some columns each, all with the first `left` columns.

    `width` is the width to fit, by default that of the terminal. A file or a pipe gets one table.
    """
    width = width or terminal_width()
    sizes = [max(len(name), *(len(row[i]) for row in rows)) if rows else len(name) for i, name in enumerate(columns)]
    parts: list[list[int]] = [[]]
    for i in range(left, len(columns)):
        wide = sum(sizes[j] + 2 for j in (*range(left), *parts[-1], i)) - 2
        if width is not None and parts[-1] and wide > width:
            parts.append([])
        parts[-1].append(i)
    made = []
    for part in parts:
        chosen = [*range(left), *part]
        table = table_of([columns[i] for i in chosen], right=range(left, len(chosen)))
        for row in rows:
            table.add_row(*(row[i] for i in chosen))
        made.append(render(table, width=width))
    return "\n\n".join(made)


def wrapped(text: str, *, first: str = "", then: str = "", width: int | None = None) -> str:
    """A paragraph: `first` begins its first line, `then` every other one.

    `width` is the width to fit, by default that of the terminal. A file or a pipe gets it on one line.
    """
    width = width or terminal_width()
    if width is None:
        return first + text
    # A value and its unit, or a letter and its relation, stay on one line: "5 %", "p < 0.05".
    together = re.sub(r" (?=[%<=±])|(?<= [<=±]) ", _UNBROKEN, text)
    filled = textwrap.fill(
        together, max(width, 20), initial_indent=first, subsequent_indent=then, break_on_hyphens=False
    )
    return filled.replace(_UNBROKEN, " ")


_UNBROKEN = "\N{NO-BREAK SPACE}"


def _blocks(table: "Table") -> "list[Table]":
    """A small table for each row, with the names of the columns on the left and the values on the right."""
    from rich.table import Table

    blocks = []
    for row in zip(*(column.cells for column in table.columns), strict=True):
        block = Table(box=None, pad_edge=False, show_header=False)
        block.add_column(no_wrap=True)
        block.add_column(overflow="fold")
        for column, cell in zip(table.columns, row, strict=True):
            block.add_row(column.header, cell)
        blocks.append(block)
    return blocks


def _text(table: "Table", width: int) -> str:
    console = _console(max(width, 20))
    with console.capture() as capture:
        console.print(table)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def _console(width: int) -> "Console":
    from rich.console import Console

    return Console(file=io.StringIO(), width=width, no_color=True, highlight=False, markup=False)
