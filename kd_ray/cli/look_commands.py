"""The commands that show what is in a store: status, query, schema. `compare_commands.py` has compare and report."""

import sys
import time
from pathlib import Path

import click

from kd_ray.cli.base import JSON_OPTION, Command, complete_sweep, open_existing, say, store_option, write
from kd_ray.cli.json_text import json_text
from kd_ray.errors import InvalidInputError

_MOST_TOLD = 3
"""Sweeps without tables that a query names."""


@click.command("status", cls=Command, example="kd-ray status trifeature-quick --watch")
@click.argument("sweep_name", metavar="[SWEEP_NAME]", required=False, shell_complete=complete_sweep)
@store_option
@JSON_OPTION
@click.option(
    "--watch", is_flag=True, help="Refresh every two seconds until every trial is complete, failed or blocked."
)
@click.option("--failed", is_flag=True, help="Show the traceback of each failed trial.")
def status_command(sweep_name: str | None, store_url: str, as_json: bool, watch: bool, failed: bool) -> None:
    """Show the state of a sweep's trials, from the store alone. Without a name, list the sweeps."""
    from kd_ray.cli import text_status
    from kd_ray.results.status import all_statuses, sweep_status

    store = open_existing(store_url)
    if sweep_name is None:
        statuses = all_statuses(store)
        say(json_text([s.to_dict() for s in statuses]) if as_json else text_status.sweeps(statuses, store.url))
        return
    shown = ""
    while True:
        status = sweep_status(store, sweep_name)
        words = json_text(status.to_dict()) if as_json else text_status.status(status, tracebacks=failed)
        if watch and sys.stdout.isatty():
            click.clear()
        if words != shown or sys.stdout.isatty():
            say(words)
        shown = words
        if not watch or all(trial.is_settled for trial in status.trials):
            return
        time.sleep(2)


@click.command(
    "query",
    cls=Command,
    example="kd-ray query \"SELECT temperature, avg(accuracy) FROM trials WHERE role = 'distilled' GROUP BY 1 ORDER BY 1\"",
)
@click.argument("sql", metavar="SQL")
@store_option
@click.option(
    "--sweep",
    metavar="NAME",
    shell_complete=complete_sweep,
    help="Let the tables hold the rows of this sweep alone; quicker in a store with many large sweeps.",
)
@click.option(
    "--format",
    "format_",
    type=click.Choice(["table", "csv", "json", "parquet"]),
    help="[default: by the suffix of FILE, else table]",
)
@click.option(
    "-o", "--output", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False), help="Write to a file."
)
@click.option(
    "--unsafe", is_flag=True, help="Let the SQL read and write files, too, as DuckDB does; never for SQL of a stranger."
)
def query_command(
    sql: str, store_url: str, sweep: str | None, format_: str | None, output: Path | None, *, unsafe: bool
) -> None:
    """Run a DuckDB query on the tables; `kd-ray schema` lists them. The SQL sees the tables and no file."""
    from kd_ray.cli import text
    from kd_ray.results.query import Results

    suffixes = {".csv": "csv", ".json": "json", ".parquet": "parquet"}
    if format_ is None:
        format_ = suffixes.get(output.suffix, "table") if output else "table"
    if format_ == "parquet" and output is None and sys.stdout.isatty():
        raise InvalidInputError("--format parquet writes bytes; give -o FILE or send the output to a file")
    results = Results(open_existing(store_url))
    answer = results.query(sql, sweep=sweep, unsafe=unsafe)
    write(text.encode(answer, format_), output)
    # An empty table gives no row, or one of an aggregate.
    if answer.num_rows <= 1:
        for name in [it for it in results.sweeps_without_tables() if sweep in (None, it)][:_MOST_TOLD]:
            words = f"`kd-ray status {name}` says how far it is, `kd-ray resume {name}` makes them"
            say(f"sweep {name} has no tables: {words}", err=True)


@click.command("schema", cls=Command, example="kd-ray schema fairness_metrics")
@click.argument("table", required=False)
@click.option("--sweep-file", is_flag=True, help="Print the JSON Schema of a sweep file instead, for editors.")
def schema_command(table: str | None, sweep_file: bool) -> None:
    """Show the columns of the tables with type, unit and meaning."""
    if sweep_file:
        from kd_ray.sweep.config import json_schema

        say(json_text(json_schema()))
        return
    from kd_ray.cli import text

    say(text.schema(table))
