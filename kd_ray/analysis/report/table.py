"""A table of a report, as CSV with all digits, as LaTeX for a paper, and as cells for the page."""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

from kd_ray.analysis.conditions import Condition
from kd_ray.analysis.study import Spread, spread
from kd_ray.metrics.arrays import FloatArray
from kd_ray.metrics.catalogue import METRICS
from kd_ray.shown import cleaned, csv_cell, rounded

_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "{": r"\{",
        "}": r"\}",
        "$": r"\$",
        "&": r"\&",
        "%": r"\%",
        "#": r"\#",
        "_": r"\_",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "²": r"\textsuperscript{2}",
        "−": r"\ensuremath{-}",
        "–": "--",
        "…": r"\ldots{}",
        "±": r"\ensuremath{\pm}",
        "÷": r"\ensuremath{\div}",
        "→": r"\ensuremath{\rightarrow}",
    }
)
MISSING = "–"


@dataclass(frozen=True, kw_only=True)
class MeanAndSd:
    """A mean with its standard deviation over trials."""

    mean: float
    sd: float | None = None
    """None with fewer than two trials."""


Cell = str | float | int | MeanAndSd | None
"""None, and NaN, is what is undefined."""


@dataclass(frozen=True, kw_only=True)
class ReportColumn:
    """One column."""

    name: str
    unit: str = ""
    digits: int = 2
    """Digits after the point that people are shown."""
    is_p: bool = False
    """A p or q value: small ones are shown as `< 0.001`."""

    @property
    def title(self) -> str:
        """Name and unit."""
        return f"{self.name} ({self.unit})" if self.unit else self.name


@dataclass(frozen=True, kw_only=True)
class ReportTable:
    """One table; every row has a cell for every column."""

    name: str
    """Stem of its files."""
    title: str
    caption: str
    columns: tuple[ReportColumn, ...]
    rows: tuple[tuple[Cell, ...], ...]

    @property
    def is_numeric(self) -> tuple[bool, ...]:
        """Which columns hold numbers, and nothing else."""
        return tuple(
            not any(isinstance(row[i], str) for row in self.rows) and any(row[i] is not None for row in self.rows)
            for i in range(len(self.columns))
        )

    def to_csv(self) -> str:
        """All digits; a mean with its standard deviation takes two columns; what is undefined is empty."""
        with_sd = [any(isinstance(row[i], MeanAndSd) for row in self.rows) for i in range(len(self.columns))]
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        head = [
            [column.title, f"sd of {column.title}"] if sd else [column.title]
            for column, sd in zip(self.columns, with_sd, strict=True)
        ]
        writer.writerow([csv_cell(name) for names in head for name in names])
        for row in self.rows:
            cells: list[str] = []
            for cell, sd in zip(row, with_sd, strict=True):
                mean = cell.mean if isinstance(cell, MeanAndSd) else cell
                deviation = [_raw(cell.sd if isinstance(cell, MeanAndSd) else None)] if sd else []
                cells += [csv_cell(_raw(mean)), *deviation]
            writer.writerow(cells)
        return out.getvalue()

    def to_latex(self) -> str:
        """A `table` with booktabs rules; needs `\\usepackage{booktabs}`."""
        lines = [
            r"% needs \usepackage{booktabs}",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{latex(self.title)}. {latex(self.caption)}}}",
            rf"\label{{tab:{self.name}}}",
            rf"\begin{{tabular}}{{{''.join('r' if numeric else 'l' for numeric in self.is_numeric)}}}",
            r"\toprule",
            " & ".join(latex(column.title) for column in self.columns) + r" \\",
            r"\midrule",
            *(
                " & ".join(_latex_cell(cell, column) for cell, column in zip(row, self.columns, strict=True)) + r" \\"
                for row in self.rows
            ),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
        return "\n".join(lines) + "\n"


def shown(cell: Cell, column: ReportColumn) -> str:
    """A cell for people."""
    if isinstance(cell, str):
        return cell
    if isinstance(cell, MeanAndSd):
        sd = "" if cell.sd is None or math.isnan(cell.sd) else f" ± {rounded(cell.sd, column.digits)}"
        return MISSING if math.isnan(cell.mean) else _number(cell.mean, column) + sd
    return MISSING if cell is None or math.isnan(cell) else _number(cell, column)


def sort_key(cell: Cell) -> str:
    """What the page sorts a cell by: a number, or text; empty for what is undefined."""
    value = cell.mean if isinstance(cell, MeanAndSd) else cell
    return _raw(value)


def latex(text: str) -> str:
    """Text that LaTeX sets as it is."""
    return cleaned(" ".join(text.split())).translate(_LATEX)


def p_value(p: float) -> str:
    """A p or q value as people write it."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def percent(value: float | None) -> float | None:
    """A rate as percent."""
    return None if value is None else 100 * value


def _number(value: float, column: ReportColumn) -> str:
    if column.is_p:
        return p_value(value)
    if isinstance(value, int):
        return f"{value:,}"
    text = rounded(value, column.digits)
    # Nothing is called minus zero.
    return text.removeprefix("-") if float(text) == 0 else text.replace("-", "−")


def _raw(value: str | float | None) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    # NumPy's numbers print their type, too.
    return value if isinstance(value, str) else repr(float(value) if isinstance(value, float) else int(value))


def _latex_cell(cell: Cell, column: ReportColumn) -> str:
    text = shown(cell, column)
    if isinstance(cell, str) or text == MISSING:
        return latex(text)
    return "$" + text.replace("−", "-").replace("±", r"\pm").replace(",", "{,}") + "$"


def measured(condition: Condition, values_T: FloatArray) -> MeanAndSd | None:
    """Mean and sd over the runs of a condition; None without a defined value."""
    return _measured(spread(condition.over_runs(values_T)))


def cell(value: float | Spread) -> MeanAndSd | float | None:
    """A value as a cell; None where it is undefined."""
    if isinstance(value, Spread):
        return _measured(value)
    return None if math.isnan(value) else float(value)


def named(*names: str, unit: str = "", digits: int = 2, is_p: bool = False) -> list[ReportColumn]:
    """Columns of these names that differ in nothing else."""
    return [ReportColumn(name=name, unit=unit, digits=digits, is_p=is_p) for name in names]


def metric_column(name: str) -> ReportColumn:
    """The column of a metric, with its short name, unit and digits."""
    metric = METRICS[name]
    return ReportColumn(name=metric.short, unit="%" if metric.unit == "rate" else "", digits=metric.digits)


def report_table(
    name: str, title: str, caption: str, columns: Sequence[ReportColumn], rows: Sequence[tuple[Cell, ...]]
) -> ReportTable:
    """A table without the columns that hold nothing."""
    return without_empty_columns(
        ReportTable(name=name, title=title, caption=caption, columns=tuple(columns), rows=tuple(rows))
    )


def _measured(it: Spread) -> MeanAndSd | None:
    return MeanAndSd(mean=it.mean, sd=None if math.isnan(it.sd) else it.sd) if it.n else None


def without_empty_columns(table: ReportTable) -> ReportTable:
    """The table without the columns in which nothing is defined."""
    kept = [i for i in range(len(table.columns)) if any(sort_key(row[i]) for row in table.rows)]
    return ReportTable(
        name=table.name,
        title=table.title,
        caption=table.caption,
        columns=tuple(table.columns[i] for i in kept),
        rows=tuple(tuple(row[i] for i in kept) for row in table.rows),
    )
