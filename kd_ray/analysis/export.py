"""Tables for other programs: the means of a sweep's conditions, or a table of the store, as CSV, Parquet, Excel, Markdown or LaTeX."""

import io
import json
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from kd_ray.analysis.closing_table import closing_table
from kd_ray.analysis.reading import read_study
from kd_ray.analysis.report.table import latex
from kd_ray.analysis.study import Study
from kd_ray.errors import InvalidInputError
from kd_ray.results.axis_columns import plain
from kd_ray.results.query import Results
from kd_ray.results.record import encode_table
from kd_ray.results.schema import QUERIED
from kd_ray.shown import csv_cell

if TYPE_CHECKING:
    import pandas as pd

CONDITIONS = "conditions"
"""The table that is exported unless another is named."""
_KEYS = ("dataset", "target", "model", "teacher", "objective", "alpha", "t_squared")
_MOST_IN_EXCEL = {"rows": 1_048_576, "columns": 16_384, "characters in a cell": 32_767}


def export(results: Results, sweep: str, *, to: str, table: str = CONDITIONS) -> bytes:
    """The file of a table in one of `FORMATS`.

    `conditions` is made from the runs as they are now; the other tables are those of `kd-ray schema`, with a column for each grid axis.

    Raises:
        InvalidInputError: the store has no such sweep or table, none of its trials is complete, or the format cannot hold the table.
        QueryError: the tables cannot be read.
    """
    if table != CONDITIONS and table not in QUERIED:
        raise InvalidInputError(f"no table {table!r}; valid: {', '.join([CONDITIONS, *QUERIED])}")
    study = read_study(results, sweep)
    frame = conditions_frame(study) if table == CONDITIONS else results.frame(table, sweep=sweep)
    try:
        return FORMATS[to](frame, table)
    except ImportError as error:
        raise InvalidInputError(f"--to {to}: {error}; `pip install 'kd_ray[export]'` installs it") from error


def conditions_frame(study: Study) -> "pd.DataFrame":
    """One row for each condition and metric of the closing table: n runs, mean, sd (ddof = 1), and a 95 % interval of the mean.

    Rates lie in [0, 1]. The interval is Student's, over the runs that have a value; it does not hold the chance of the test samples.
    """
    import pandas as pd

    table = closing_table(study)
    rows = []
    for condition, line in zip(study.conditions, table.lines, strict=True):
        settings = {name: text for name, text in condition.settings if name.rsplit(".", 1)[-1] not in _KEYS}
        for column, it in zip(table.columns, line.spreads, strict=True):
            half = it.half_width()
            keys = {name: condition.axes[name] for name in _KEYS}
            rows.append(
                {"sweep": study.sweep, "condition": line.label, "role": condition.role, **keys}
                | {"temperature": condition.temperature}
                | {name: plain(text) for name, text in settings.items() if name != "distillation.temperature"}
                | {"metric": column.metric.name, "feature": column.feature, "unit": column.metric.unit}
                | {"n": it.n, "mean": it.mean, "sd": it.sd, "ci_low": it.mean - half, "ci_high": it.mean + half}
            )
    frame = pd.DataFrame(rows).astype({"t_squared": "boolean"})
    last = ["metric", "feature", "unit", "n", "mean", "sd", "ci_low", "ci_high"]
    return frame[[name for name in frame if name not in last] + last]


# --- formats --------------------------------------------------------------------------------------------------------------------------


def _csv(frame: "pd.DataFrame", _table: str) -> bytes:
    return bytes(_safe(frame).to_csv(index=False, lineterminator="\n").encode())


def _parquet(frame: "pd.DataFrame", table: str) -> bytes:
    """With the unit and meaning of each column that a table of the store has."""
    found = pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)
    known = {field.name: field for field in QUERIED[table].arrow_schema} if table in QUERIED else {}
    fields = [
        field.with_metadata(known[field.name].metadata) if field.name in known else field for field in found.schema
    ]
    return encode_table(found.cast(pa.schema(fields)))


def _xlsx(frame: "pd.DataFrame", table: str) -> bytes:
    import pandas as pd

    safe = _safe(frame)
    longest = max((len(it) for name in safe for it in safe[name] if isinstance(it, str)), default=0)
    for (what, most), there in zip(_MOST_IN_EXCEL.items(), (len(safe) + 1, len(safe.columns), longest), strict=True):
        if there > most:
            raise InvalidInputError(
                f"--to xlsx: table {table} has {there:,} {what}, and Excel takes {most:,}; use csv or parquet"
            )
    buffer = io.BytesIO()
    with pd.ExcelWriter(buffer, engine="openpyxl") as writer:
        safe.to_excel(writer, sheet_name=table, index=False, freeze_panes=(1, 0))
    return buffer.getvalue()


def _markdown(frame: "pd.DataFrame", _table: str) -> bytes:
    return f"{_shown(frame, _markdown_cell).to_markdown(index=False, disable_numparse=True)}\n".encode()


def _latex(frame: "pd.DataFrame", _table: str) -> bytes:
    shown = _shown(frame, latex)
    columns = "".join("r" if _is_number(frame[name]) else "l" for name in frame)
    return (
        f"% needs \\usepackage{{booktabs}}\n{shown.to_latex(index=False, escape=False, column_format=columns)}".encode()
    )


FORMATS: dict[str, Callable[["pd.DataFrame", str], bytes]] = {
    "csv": _csv,
    "parquet": _parquet,
    "xlsx": _xlsx,
    "markdown": _markdown,
    "latex": _latex,
}
"""What writes a frame, by the name of the format."""
SUFFIXES = {"csv": ".csv", "parquet": ".parquet", "xlsx": ".xlsx", "markdown": ".md", "latex": ".tex"}
"""How the names of its files end."""


def _safe(frame: "pd.DataFrame") -> "pd.DataFrame":
    """The frame with no text that a spreadsheet would compute; lists as JSON, and times as text with all digits."""
    return _mapped(frame, lambda it: it if _is_plain(it) else csv_cell(_text(it)), csv_cell)


def _shown(frame: "pd.DataFrame", escape: Callable[[str], str]) -> "pd.DataFrame":
    """The frame as text, as it stands in a page: numbers with four significant digits or more, `–` for what is missing."""
    return _mapped(frame, lambda it: escape(_text(it)), escape)


def _mapped(frame: "pd.DataFrame", cell: Callable[[Any], Any], name: Callable[[str], str]) -> "pd.DataFrame":
    import pandas as pd

    columns = {
        str(it): pd.Series(
            [cell(None if _is_missing(value) else value) for value in frame[it].tolist()], dtype="object"
        )
        for it in frame
    }
    return pd.DataFrame({name(it): values for it, values in columns.items()})


def _is_missing(value: Any) -> bool:
    import pandas as pd

    return value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and math.isnan(value))


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float)


def _is_number(column: "pd.Series[Any]") -> bool:
    import pandas as pd

    return bool(pd.api.types.is_numeric_dtype(column)) or column.name == "temperature"


def _text(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4f}" if 1e-3 <= abs(value) < 1e5 and not value.is_integer() else f"{value:.4g}"
    if isinstance(value, str | bool | int):
        return str(value)
    if hasattr(value, "isoformat"):
        return str(value.isoformat())
    return json.dumps(value.tolist() if hasattr(value, "tolist") else value)


def _markdown_cell(text: str) -> str:
    """Text that Markdown shows as it is."""
    text = " ".join(csv_cell(text).removeprefix("'").split())
    for character in "\\|*_`<[":
        text = text.replace(character, f"\\{character}")
    return text
