"""Tables as files: literal CSV and LaTeX, and what no name may do to them."""

import csv
import io
import math

import pytest

from kd_ray.analysis.report.table import Cell, MeanAndSd, ReportColumn, ReportTable, latex, shown, without_empty_columns
from kd_ray.shown import cleaned
from tests.unit.analysis.report.made import HOSTILE

TABLE = ReportTable(
    name="t",
    title="Accuracy & more",
    caption="100 % of it.",
    columns=(
        ReportColumn(name="class"),
        ReportColumn(name="accuracy", unit="%"),
        ReportColumn(name="q", digits=3, is_p=True),
        ReportColumn(name="n"),
    ),
    rows=(
        ("a_b", MeanAndSd(mean=93.125, sd=0.25), 0.0001, 1234),
        ("c, d", MeanAndSd(mean=-1.5), float("nan"), 5),
        ("e", None, 0.25, None),
    ),
)


def test_csv_has_all_digits_and_a_column_for_the_sd() -> None:
    assert TABLE.to_csv() == (
        'class,accuracy (%),sd of accuracy (%),q,n\na_b,93.125,0.25,0.0001,1234\n"c, d",-1.5,,,5\ne,,,0.25,\n'
    )


def test_latex_is_a_booktabs_table() -> None:
    assert TABLE.to_latex() == (
        "% needs \\usepackage{booktabs}\n"
        "\\begin{table}\n"
        "\\centering\n"
        "\\caption{Accuracy \\& more. 100 \\% of it.}\n"
        "\\label{tab:t}\n"
        "\\begin{tabular}{lrrr}\n"
        "\\toprule\n"
        "class & accuracy (\\%) & q & n \\\\\n"
        "\\midrule\n"
        "a\\_b & $93.13 \\pm 0.25$ & $< 0.001$ & $1{,}234$ \\\\\n"
        "c, d & $-1.50$ & -- & $5$ \\\\\n"
        "e & -- & $0.250$ & -- \\\\\n"
        "\\bottomrule\n"
        "\\end{tabular}\n"
        "\\end{table}\n"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("50% & $x_1^2$ #{}", r"50\% \& \$x\_1\textasciicircum{}2\$ \#\{\}"),
        ("a\\b~c", r"a\textbackslash{}b\textasciitilde{}c"),
        ("<T²>\n−1", r"\textless{}T\textsuperscript{2}\textgreater{} \ensuremath{-}1"),
    ],
)
def test_latex_sets_text_as_it_is(text: str, expected: str) -> None:
    assert latex(text) == expected


def test_names_come_back_from_csv_as_they_were_but_for_what_a_terminal_obeys() -> None:
    table = ReportTable(
        name="t", title="", caption="", columns=(ReportColumn(name="class"),), rows=tuple((name,) for name in HOSTILE)
    )
    assert [row[0] for row in csv.reader(io.StringIO(table.to_csv()))][1:] == [cleaned(name) for name in HOSTILE]


@pytest.mark.parametrize(
    ("cell", "column", "expected"),
    [
        (None, ReportColumn(name="x"), "–"),
        (math.nan, ReportColumn(name="x"), "–"),
        (MeanAndSd(mean=math.nan), ReportColumn(name="x"), "–"),
        (MeanAndSd(mean=2.0, sd=0.5), ReportColumn(name="x"), "2.00 ± 0.50"),
        (-0.001, ReportColumn(name="x"), "0.00"),
        (-1.25, ReportColumn(name="x", digits=1), "−1.3"),
        (0.0009, ReportColumn(name="p", is_p=True), "< 0.001"),
        (0.04, ReportColumn(name="p", is_p=True), "0.040"),
        (12345, ReportColumn(name="n"), "12,345"),
    ],
)
def test_cells_for_people(cell: Cell, column: ReportColumn, expected: str) -> None:
    assert shown(cell, column) == expected


def test_columns_without_anything_are_left_out() -> None:
    columns = (ReportColumn(name="a"), ReportColumn(name="b"), ReportColumn(name="c"))
    table = ReportTable(name="t", title="", caption="", columns=columns, rows=((1, None, math.nan), (None, None, None)))
    assert [column.name for column in without_empty_columns(table).columns] == ["a"]
    assert without_empty_columns(table).rows == ((1,), (None,))
