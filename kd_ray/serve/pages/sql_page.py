"""SQL over the tables: the tables' columns, example queries, and an answer as rows of text."""

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from kd_ray.results.schema import QUERIED
from kd_ray.results.sql_views import SQL_VIEWS
from kd_ray.serve.csv_text import csv_text
from kd_ray.serve.sql import Answer

MAX_ROWS = 1_000
"""Rows on the page."""
MAX_CSV_ROWS = 200_000
_MAX_CELL = 400
"""Letters of a cell on the page; the CSV has all."""
EXAMPLES = (
    (
        "Accuracy by temperature",
        "SELECT sweep, role, temperature, count(*) AS n, avg(accuracy) AS accuracy, stddev(accuracy) AS sd\n"
        "FROM trials GROUP BY ALL ORDER BY ALL",
    ),
    (
        "Classes that change most",
        "SELECT class_name, temperature, avg(accuracy) AS accuracy, avg(relative_accuracy) AS relative\n"
        "FROM class_metrics WHERE role = 'distilled' GROUP BY ALL ORDER BY relative LIMIT 20",
    ),
    (
        "Fairness by temperature",
        "SELECT feature, role, temperature, avg(equalized_odds_difference) AS eod, avg(demographic_parity_difference) AS dpd\n"
        "FROM fairness_metrics WHERE positive_class IS NULL GROUP BY ALL ORDER BY ALL",
    ),
    (
        "Worst groups",
        'SELECT feature, "group", role, max(n) AS n, avg(accuracy) AS accuracy\n'
        "FROM group_metrics GROUP BY ALL ORDER BY accuracy LIMIT 20",
    ),
    (
        "What holds",
        "SELECT analysis, contrast, condition, metric, class_name, sensitive_feature, effect, q\n"
        "FROM comparisons WHERE status = 'established' ORDER BY q",
    ),
    (
        "Training time by device",
        "SELECT device, host, sum(elapsed_s) / 3600 AS hours, count(*) AS trials FROM trials GROUP BY ALL",
    ),
)


def view(sql: str, found: Answer | None, error: str, *, elapsed_s: float, time_limit_s: float) -> Mapping[str, Any]:
    """What the page shows."""
    columns: list[str] = []
    rows: list[list[str]] = []
    is_number: list[bool] = []
    if found is not None:
        columns = list(found.table.column_names)
        is_number = [
            str(field.type).startswith(("int", "uint", "float", "double", "decimal")) for field in found.table.schema
        ]
        cells = [column.to_pylist() for column in found.table.columns]
        rows = [[_shown(cell) for cell in row] for row in zip(*cells, strict=True)]
    return {
        "sql": sql,
        "error": error,
        "columns": columns,
        "is_number": is_number,
        "rows": rows,
        "has_answer": found is not None,
        "is_cut": found is not None and found.is_cut,
        "elapsed_s": elapsed_s,
        "time_limit_s": time_limit_s,
        "max_rows": MAX_ROWS,
        "tables": QUERIED,
        "views": SQL_VIEWS,
        "examples": EXAMPLES,
    }


def to_csv(found: Answer) -> str:
    """All rows, with all digits; what is undefined is empty."""
    return csv_text(found.table.column_names, zip(*(column.to_pylist() for column in found.table.columns), strict=True))


def _shown(cell: Any) -> str:
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return "–"
    if isinstance(cell, float):
        return f"{cell:.6g}".replace("-", "−", 1)
    if isinstance(cell, datetime):
        return f"{cell:%Y-%m-%d %H:%M:%S}"
    text = str(cell)
    return text if len(text) <= _MAX_CELL else f"{text[:_MAX_CELL]}…"
