"""The commands, but for those that have a module of their own, and how they end.

Heavy imports (torch, ray, duckdb) happen inside the commands that need them, so that `--help`, `plan` and `status` start at once.
Exit codes: 0 done, 1 some trials failed or problems were found, 2 bad input, 130 interrupted.
"""

import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kd_ray.cli.analysis import compare_command, report_command
from kd_ray.cli.base import (
    JSON_OPTION,
    SET_OPTION,
    Command,
    console,
    open_existing,
    open_or_make,
    other_store,
    store_option,
    write,
)
from kd_ray.cli.data import data_group
from kd_ray.cli.jobs import jobs_command, logs_command, stop_command, submit_command
from kd_ray.errors import InvalidInputError, KdRayError

if TYPE_CHECKING:
    from kd_ray.sweep.load import SweepFile


def _launch_options(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option(
            "--only",
            metavar="TRIAL_ID",
            help="Only this trial (and the teacher it needs); the beginning of an id is enough.",
        ),
        click.option("--retry-failed", is_flag=True, help="Run failed trials again."),
        click.option(
            "--address", metavar="ADDR", help="A running Ray cluster; left out, Ray is started on this machine."
        ),
        click.option(
            "--runner",
            type=click.Choice(["ray", "local"]),
            default="ray",
            show_default=True,
            help="local: in this process.",
        ),
        click.option("--verbose", is_flag=True, help="Show Ray's own output too."),
        click.option(
            "--mirror",
            "mirrors",
            metavar="SERVICE",
            multiple=True,
            envvar="KD_RAY_MIRROR",
            help="Copy finished trials to mlflow or wandb, beside the sweep; may be given twice.  [env: KD_RAY_MIRROR]",
        ),
        click.option(
            "--log-format",
            type=click.Choice(["text", "json"]),
            default="text",
            show_default=True,
            envvar="KD_RAY_LOG_FORMAT",
            help="json: one object per line on stderr, with sweep and trial_id, of workers too.  [env: KD_RAY_LOG_FORMAT]",
        ),
    ):
        function = option(function)
    return store_option(function)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="kd_ray", prog_name="kd-ray")
def cli() -> None:
    """Distributed hyperparameter sweeps for knowledge distillation.

    A sweep file goes in; teachers, non-distilled (scratch) and distilled students are trained over a grid of temperatures and seeds;
    per-class and fairness metrics come out as Parquet tables.
    """


@cli.command("plan", cls=Command, example="kd-ray plan sweeps/trifeature-quick.yaml --set grid.temperature='[1,2,4]'")
@click.argument("sweep_file", metavar="SWEEP.yaml", type=click.Path(path_type=Path))
@SET_OPTION
@store_option
@JSON_OPTION
@click.option(
    "--probe", is_flag=True, help="Measure students side by side on this machine first, and keep it in the store."
)
def plan_command(sweep_file: Path, overrides: tuple[str, ...], store_url: str, as_json: bool, probe: bool) -> None:
    """Show what would run, what is done already, and why; touch nothing (but for --probe)."""
    from kd_ray.cli import text
    from kd_ray.results.status import plan

    file = _load(sweep_file, overrides)
    if probe:
        from kd_ray.cluster.launch import measure

        measure(file, open_or_make(store_url))
    plan_ = plan(file, open_or_make(store_url))
    click.echo(json.dumps(plan_.to_dict(), indent=1) if as_json else text.plan(plan_))


@cli.command("launch", cls=Command, example="kd-ray launch sweeps/trifeature-quick.yaml --store ./kd_ray_store")
@click.argument("sweep_file", metavar="SWEEP.yaml", type=click.Path(path_type=Path))
@SET_OPTION
@_launch_options
def launch_command(sweep_file: Path, overrides: tuple[str, ...], **options: Any) -> None:
    """Run everything that is not complete. The same command again is resume."""
    _launch(_load(sweep_file, overrides), None, **options)


@cli.command("resume", cls=Command, example="kd-ray resume trifeature-quick --set grid.seed='[0,1,2]'")
@click.argument("sweep_name", metavar="SWEEP_NAME")
@SET_OPTION
@_launch_options
def resume_command(sweep_name: str, overrides: tuple[str, ...], **options: Any) -> None:
    """Launch a sweep from its manifest in the store; the sweep file is not needed."""
    from kd_ray.cluster.launch import resume_file

    file, weights = resume_file(open_existing(options["store_url"]), sweep_name, overrides)
    _launch(file, weights, **options)


@cli.command("status", cls=Command, example="kd-ray status trifeature-quick --watch")
@click.argument("sweep_name", metavar="[SWEEP_NAME]", required=False)
@store_option
@JSON_OPTION
@click.option("--watch", is_flag=True, help="Show again every two seconds until every trial is settled.")
@click.option("--failed", is_flag=True, help="Show the traceback of each failed trial.")
def status_command(sweep_name: str | None, store_url: str, as_json: bool, watch: bool, failed: bool) -> None:
    """Show how far a sweep is, from the store alone; without a name, list the sweeps."""
    from kd_ray.cli import text
    from kd_ray.results.query import Results
    from kd_ray.results.status import sweep_status

    store = open_existing(store_url)
    if sweep_name is None:
        statuses = [sweep_status(store, name) for name in Results(store).sweeps()]
        click.echo(
            json.dumps([s.to_dict() for s in statuses], indent=1) if as_json else text.sweeps(statuses, store.url)
        )
        return
    shown = ""
    while True:
        status = sweep_status(store, sweep_name)
        words = json.dumps(status.to_dict(), indent=1) if as_json else text.status(status, tracebacks=failed)
        if watch and sys.stdout.isatty():
            click.clear()
        if words != shown or sys.stdout.isatty():
            click.echo(words)
        shown = words
        if not watch or all(trial.is_settled for trial in status.trials):
            return
        time.sleep(2)


@cli.command(
    "query",
    cls=Command,
    example="kd-ray query \"SELECT temperature, avg(accuracy) FROM trials WHERE role = 'distilled' GROUP BY 1 ORDER BY 1\"",
)
@click.argument("sql", metavar="SQL")
@store_option
@click.option(
    "--format",
    "format_",
    type=click.Choice(["table", "csv", "json", "parquet"]),
    help="Left out: by the suffix of FILE, else table.",
)
@click.option(
    "-o", "--output", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False), help="Write to a file."
)
def query_command(sql: str, store_url: str, format_: str | None, output: Path | None) -> None:
    """Ask DuckDB about the tables, by their names; `kd-ray schema` lists them."""
    from kd_ray.cli import text
    from kd_ray.results.query import Results

    suffixes = {".csv": "csv", ".json": "json", ".parquet": "parquet"}
    if format_ is None:
        format_ = suffixes.get(output.suffix, "table") if output else "table"
    if format_ == "parquet" and output is None and sys.stdout.isatty():
        raise InvalidInputError("--format parquet writes bytes; give -o FILE or send the output to a file")
    answer = Results(open_existing(store_url)).query(sql)
    write(text.encode(answer, format_), output)


@cli.command("schema", cls=Command, example="kd-ray schema fairness_metrics")
@click.argument("table", required=False)
@click.option("--sweep-file", is_flag=True, help="Print the JSON Schema of a sweep file instead, for editors.")
def schema_command(table: str | None, sweep_file: bool) -> None:
    """Show the columns of the tables: types, units, meaning."""
    if sweep_file:
        from kd_ray.sweep.config import json_schema

        click.echo(json.dumps(json_schema(), indent=1))
        return
    from kd_ray.cli import text

    click.echo(text.schema(table))


@cli.command("gc", cls=Command, example="kd-ray gc --older-than 7d")
@store_option
@click.option("--yes", is_flag=True, help="Delete without asking.")
@click.option(
    "--older-than",
    metavar="AGE",
    callback=lambda _ctx, _param, value: _seconds(value),
    help="Only what is older: 90s, 30m, 12h, 7d. Nothing younger than a minute and a half is ever touched.",
)
@click.option("--damaged", is_flag=True, help="Also what is in quarantine as damaged.")
@click.option("--orphans", is_flag=True, help="Also trials that no sweep lists, with their records: results are lost.")
@JSON_OPTION
def gc_command(store_url: str, yes: bool, older_than: float, damaged: bool, orphans: bool, as_json: bool) -> None:
    """Show what is safe to delete, and delete it after a question. Launches may be running."""
    from kd_ray.cli import text
    from kd_ray.housekeeping.delete_garbage import delete_garbage
    from kd_ray.housekeeping.find_garbage import find_garbage

    store = open_existing(store_url)
    found = find_garbage(store, older_than_s=older_than, with_damaged=damaged, with_orphans=orphans)
    if not as_json:
        click.echo(text.garbage(found))
    asks = not yes and not as_json and bool(found.garbage) and sys.stdin.isatty() and sys.stdout.isatty()
    deletes = bool(found.garbage) and (yes or (asks and click.confirm("delete all of it?")))
    if deletes:
        show = _progress()
        found = delete_garbage(store, found, on_progress=lambda done, total: show("deleting", done, total))
    if as_json:
        click.echo(json.dumps({"deleted": deletes, **found.to_dict()}, indent=1))
    elif found.garbage or deletes:
        click.echo(text.collected(found, deleted=deletes, asked=asks))


@cli.command("verify", cls=Command, example="kd-ray verify trifeature-quick --repair")
@click.argument("sweep_name", metavar="[SWEEP_NAME]", required=False)
@store_option
@click.option(
    "--repair", is_flag=True, help="Move damaged objects into quarantine, and rebuild the tables that follow from them."
)
@click.option("--rebuild-tables", is_flag=True, help="Delete the tables and aggregate them again from the records.")
@JSON_OPTION
def verify_command(sweep_name: str | None, store_url: str, repair: bool, rebuild_tables: bool, as_json: bool) -> None:
    """Read everything a sweep has in the store and name what is not as it was written; without a name, all sweeps."""
    from kd_ray.cli import text
    from kd_ray.housekeeping import repair as repairing
    from kd_ray.housekeeping.verify import verify

    store, show = open_existing(store_url), _progress()
    report = verify(store, sweep_name, with_tables=not rebuild_tables, on_progress=show)
    repaired = repairing.repair(store, report, on_progress=show) if repair else None
    rebuilt = [repairing.rebuild_tables(store, name) for name in report.sweeps] if rebuild_tables else []
    if as_json:
        words = {**report.to_dict(), "repaired": repaired and repaired.to_dict(), "rebuilt": rebuilt}
        click.echo(json.dumps(words, indent=1))
    else:
        click.echo("\n".join([text.verified(report, repaired, store=other_store(store_url)), *rebuilt]))
    sys.exit(1 if report.problems else 0)


@cli.command("adopt", cls=Command, example="kd-ray adopt s3://lab/kd_ray --sweep trifeature-quick --dry-run")
@click.argument("from_store", metavar="FROM_STORE")
@store_option
@click.option("--sweep", "sweep_name", metavar="NAME", help="Only this sweep and its trials.")
@click.option("--dry-run", is_flag=True, help="Read and check everything, write nothing.")
@JSON_OPTION
def adopt_command(from_store: str, store_url: str, sweep_name: str | None, dry_run: bool, as_json: bool) -> None:
    """Merge the committed trials and the sweeps of another store into this one. The other store stays as it is."""
    from kd_ray.cli import text
    from kd_ray.housekeeping.adopt import adopt

    source, target = open_existing(from_store), open_or_make(store_url)
    report = adopt(source, target, sweep=sweep_name, dry_run=dry_run, on_progress=_progress())
    click.echo(json.dumps(report.to_dict(), indent=1) if as_json else text.adopted(report))
    sys.exit(1 if report.is_incomplete else 0)


cli.add_command(compare_command)
cli.add_command(report_command)
cli.add_command(data_group)
for _command in (submit_command, jobs_command, logs_command, stop_command):
    cli.add_command(_command)


def _load(path: Path, overrides: tuple[str, ...]) -> "SweepFile":
    from kd_ray.sweep.load import load_sweep

    return load_sweep(path, overrides)


def _launch(
    file: "SweepFile", weights: dict[str, str] | None, *, store_url: str, verbose: bool, **options: Any
) -> None:
    from kd_ray.cli import text
    from kd_ray.cluster.display import TextDisplay
    from kd_ray.cluster.launch import launch
    from kd_ray.results.query import Results

    store = open_or_make(store_url)
    # Lines for machines have no display for people among them.
    display = TextDisplay(console()) if options["log_format"] == "text" else None
    report = launch(file, store, display=display, verbose=verbose, weights=weights, **options)
    click.echo(text.launch_report(report, Results(store), store=other_store(store_url)))
    sys.exit(report.exit_code)


def _seconds(age: str | None) -> float:
    """An age such as `12h`."""
    if age is None:
        return 0.0
    match = re.fullmatch(r"(\d+)([smhd])", age)
    if match is None:
        raise InvalidInputError(f"--older-than {age}: expected a number and a unit: 90s, 30m, 12h or 7d")
    return int(match[1]) * {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}[match[2]]


def _progress() -> Callable[[str, int, int], None]:
    """One line on the terminal that says how far a long command is; elsewhere nothing."""
    shown_at = 0.0

    def show(what: str, done: int, total: int) -> None:
        nonlocal shown_at
        if not sys.stderr.isatty() or (done < total and time.monotonic() - shown_at < 0.1):
            return
        shown_at = time.monotonic()
        line = f"{what}: {done:,} / {total:,}" if done < total else ""
        click.echo(f"\r\x1b[K{line}", nl=False, err=True)

    return show


def main() -> None:
    """Entry point: errors become one message and an exit code."""
    try:
        cli.main(standalone_mode=False)
    except (click.exceptions.Abort, KeyboardInterrupt):
        click.echo("stopped at once; nothing that was committed is lost, and the same command goes on", err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except InvalidInputError as error:
        click.echo(str(error), err=True)
        sys.exit(2)
    except KdRayError as error:
        click.echo(str(error), err=True)
        sys.exit(1)
