"""Rows as CSV: all digits, undefined values empty, and no cell that a spreadsheet would compute."""

import csv
import io
import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

from kd_ray.shown import csv_cell


def csv_text(names: Sequence[str], rows: Iterable[Iterable[Any]]) -> str:
    """A CSV file with these columns."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(map(csv_cell, names))
    writer.writerows(map(_value, row) for row in rows)
    return out.getvalue()


def _value(value: Any) -> Any:
    """A cell: numbers and times as they are, lists and maps as JSON."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, list | dict):
        return csv_cell(json.dumps(value, default=str))
    if isinstance(value, bytes):
        return value.hex()
    return csv_cell(value) if isinstance(value, str) else value
