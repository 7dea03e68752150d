"""What the commands print: text made of the typed values of other packages. No computation."""

import contextlib
import csv
import io
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pyarrow as pa

from kd_ray.cli.json_text import json_text, text_of_bytes
from kd_ray.cli.tables import MOST_CONDITIONS, more_conditions, wrapped
from kd_ray.cli.tables import render as render  # noqa: PLC0414 (used by text_compare too)
from kd_ray.cli.tables import table_of as table_of  # noqa: PLC0414
from kd_ray.cli.text_status import SHOWN, counts, listed
from kd_ray.errors import InvalidInputError, QueryError, count_of, some
from kd_ray.results.cost import Cost
from kd_ray.results.launch_plan import Plan
from kd_ray.results.query import Results
from kd_ray.results.record import encode_table
from kd_ray.results.schema import QUERIED
from kd_ray.results.sql_views import SQL_VIEWS
from kd_ray.shown import cleaned, csv_cell, rounded
from kd_ray.sweep.short_axes import shortest
from kd_ray.sweep.spec import Role, TrialState

if TYPE_CHECKING:
    from kd_ray.analysis.closing_table import ClosingColumn, ClosingTable
    from kd_ray.analysis.study import Spread
    from kd_ray.cluster.launch import LaunchReport

_FEW = 4
"""Most features whose small groups are named."""


def plan(plan: Plan) -> str:
    """What would run, and why."""
    to_run = sum(len(pack.trials) for pack in plan.packs)
    head = f"sweep {plan.sweep}: {count_of(len(plan.trials), 'trial')} ({counts(plan.trials)})"
    if plan.num_dropped:
        head += f"\n{plan.dropped()}"
    head += "".join(f"\nclaim: {claim}" for claim in plan.claims)
    if not to_run:
        return f"{head}\n{listed(plan.trials)}\nnothing to run"
    advice = f"\n{plan.advice}" if plan.advice else ""
    return f"{head}\n{listed(plan.trials)}\n{to_run} to run, in {count_of(len(plan.packs), 'pack')}{advice}"


def needs(cost: Cost, missing: Sequence[str]) -> list[str]:
    """What the trials that would run need: time, and files that are not there."""
    if not cost.num_trials:
        return []
    lines = [wrapped(f"cost: {cost.sentence()}")]
    if missing:
        lines.append(wrapped(f"missing: {some(missing)}; `kd-ray data check` says more"))
    return lines


def launch_report(report: "LaunchReport", results: Results, *, store: str | None) -> str:
    """The last output of a launch: a table of the conditions, and the next commands. `store` is None for the default store."""
    counts = report.counts()
    lines = []
    if counts[TrialState.COMPLETE]:
        # No table where no complete trial can be read; the problems below say why.
        with contextlib.suppress(InvalidInputError):
            lines.append(_conditions(results, report))
    complete = f"{counts[TrialState.COMPLETE]} of {len(report.trials)} {'chosen ' if report.is_selection else ''}trials complete"
    elsewhere = f", {report.num_trained_elsewhere} meanwhile by other launches" if report.num_trained_elsewhere else ""
    if report.num_trained or elsewhere:
        now = f"{report.num_trained} trained now in {report.elapsed_s:.0f} s"
        lines.append(f"sweep {report.sweep}: {complete}, {now}{elsewhere}")
    elif report.exit_code == 0:
        lines.append(f"sweep {report.sweep}: nothing to do, {complete}")
    else:
        lines.append(f"sweep {report.sweep}: {complete}")
    lines += [
        f"failed: {trial.trial_id} ({trial.description}): {trial.why}"
        for trial in report.trials
        if trial.state == TrialState.FAILED
    ]
    lines += [f"problem: {problem}" for problem in report.problems]
    option = f" --store {shlex.quote(store)}" if store else ""
    if report.interrupted:
        return "\n".join([*lines, f"interrupted; continue with:  kd-ray resume {report.sweep}{option}"])
    if counts[TrialState.FAILED]:
        lines.append(f"see why:    kd-ray status {report.sweep} --failed{option}")
        lines.append(f"try again:  kd-ray resume {report.sweep} --retry-failed{option}")
    columns = "role, settings, temperature" if report.has_settings else "role, temperature"
    where = f"WHERE sweep = '{report.sweep}'"
    sql = f"SELECT {columns}, avg(accuracy) AS accuracy FROM trials {where} GROUP BY ALL ORDER BY ALL"  # noqa: S608 (to be read)
    lines.append(f'query:      kd-ray query "{sql}"{option}')
    if any(trial.role == Role.DISTILLED and trial.state == TrialState.COMPLETE for trial in report.trials):
        lines.append(f"compare:    kd-ray compare {report.sweep}{option}")
        lines.append(f"report:     kd-ray report {report.sweep}{option}")
    lines.append(
        f"add a seed: kd-ray resume {report.sweep} --set grid.seed={shlex.quote(shortest(_more_seeds(report)))}{option}"
    )
    return "\n".join(lines)


def _more_seeds(report: "LaunchReport") -> list[int]:
    """The sweep's seeds and one more."""
    return [*report.seeds, max(report.seeds) + 1]


def _conditions(results: Results, report: "LaunchReport") -> str:
    # numpy and scipy are imported here: commands that print no such table start without them.
    from kd_ray.analysis.closing_table import closing_table
    from kd_ray.analysis.reading import read_study

    lines = None if report.is_selection else report.trials
    return conditions(closing_table(read_study(results, report.sweep, lines)))


def conditions(table: "ClosingTable") -> str:
    """One line per condition; rates in percent, mean ± sd over runs."""
    shown = table_of(["condition", "n", *(it.title for it in table.columns)], right=range(1, len(table.columns) + 2))
    for line in table.lines[:MOST_CONDITIONS]:
        cells = map(mean_and_sd, table.columns, line.spreads)
        shown.add_row(line.label, str(line.n), *cells)
    notes = [more_conditions(left)] if (left := len(table.lines) - MOST_CONDITIONS) > 0 else []
    notes += [
        "n: runs (seeds); mean ± sd over them, rates in percent. Individual fairness is no rate and follows the model's confidence."
    ]
    if any(it.feature for it in table.columns):
        notes.append(
            "DPD, EOD: differences between groups, mean over classes; above 0 by chance alone, as `kd-ray compare` shows."
        )
    if table.small_groups:
        more = f" and {len(table.small_groups) - _FEW} more" if len(table.small_groups) > _FEW else ""
        listed = ", ".join(table.small_groups[:_FEW]) + more
        notes.append(f"small groups, which may decide DPD and EOD alone: {listed}.")
    if table.collapsed:
        more = f"; and {len(table.collapsed) - SHOWN} more" if len(table.collapsed) > SHOWN else ""
        notes.append(f"collapsed: {'; '.join(table.collapsed[:SHOWN])}{more}. Do not read their fairness.")
    if table.failed:
        more = f" and {len(table.failed) - SHOWN} more" if len(table.failed) > SHOWN else ""
        notes.append(f"failed, so missing above: {', '.join(table.failed[:SHOWN])}{more}")
    return "\n".join([render(shown), *map(wrapped, notes)])


def mean_and_sd(column: "ClosingColumn", value: "Spread") -> str:
    """A mean with its sd, in the unit and digits of the metric; `–` where there is none."""
    if not value.n:
        return "–"
    scale, digits = column.metric.scale, column.metric.digits
    sd = f" ± {rounded(value.sd * scale, digits)}" if value.n > 1 else ""
    return f"{rounded(value.mean * scale, digits)}{sd}"


def schema(name: str | None) -> str:
    """The columns of one table, or of all."""
    views = {name: f"{view.signature}: {view.meaning}" for name, view in SQL_VIEWS.items()}
    if name in views:
        return views[name]
    if name is not None and name not in QUERIED:
        raise QueryError(f"no table {name!r}; valid: {', '.join([*QUERIED, *views])}")
    parts = []
    for table_name in [name] if name else list(QUERIED):
        table = table_of(["column", "type", "unit", "range", "better", "meaning"])
        for column in QUERIED[table_name].columns:
            if name or not column.is_axis:
                row = (column.name, str(column.type), column.unit, column.range, column.better or "", column.meaning)
                table.add_row(*row)
        num_axes = sum(column.is_axis for column in QUERIED[table_name].columns)
        more = f"\nand {num_axes} settings that can be grid axes, null where they are none: `kd-ray schema {table_name}` lists them"
        parts.append(
            f"{table_name}: one row per {QUERIED[table_name].one_row_per}\n{render(table)}{more if num_axes and not name else ''}"
        )
    if name is None:
        parts.append(
            "views for SQL\n" + "\n".join(f"  {view.signature}: {view.meaning}" for view in SQL_VIEWS.values())
        )
    return "\n\n".join(parts)


def encode(answer: pa.Table, format_: str) -> bytes:
    """A query's answer as a text table, CSV, JSON (a list of objects) or Parquet.

    Raises:
        QueryError: the format is JSON or Parquet, and two columns have the same name.
    """
    names = answer.column_names
    rows = list(zip(*(column.to_pylist(maps_as_pydicts="strict") for column in answer.columns), strict=True))
    if format_ in ("json", "parquet") and len(set(names)) != len(names):
        repeated = ", ".join(sorted({name for name in names if names.count(name) > 1}))
        raise QueryError(f"--format {format_}: two columns are named {repeated}; give them different names with AS")
    if format_ == "parquet":
        return encode_table(answer)
    if format_ == "json":
        return (json_text([dict(zip(names, row, strict=True)) for row in rows]) + "\n").encode()
    if format_ == "csv":
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerows([_csv_value(value) for value in row] for row in [names, *rows])
        return buffer.getvalue().encode()
    table = table_of(names, right=[i for i, kind in enumerate(answer.schema.types) if _is_number(kind)])
    for row in rows:
        table.add_row(*map(_cell, row))
    return cleaned(render(table) + f"\n{count_of(answer.num_rows, 'row')}\n").encode()


def _csv_value(value: object) -> object:
    """Texts, and bytes as texts, without formulas; lists and maps as JSON; everything else as it is."""
    if isinstance(value, bytes):
        value = text_of_bytes(value)
    if isinstance(value, str):
        return csv_cell(value)
    return json_text(value, indent=None) if isinstance(value, list | dict) else value


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _cell(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4f}" if 1e-3 <= abs(value) < 1e5 else f"{value:.4g}"
    text = " ".join((text_of_bytes(value) if isinstance(value, bytes) else str(value)).splitlines())
    return text if len(text) <= 60 else text[:59] + "…"
