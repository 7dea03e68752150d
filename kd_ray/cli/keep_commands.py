"""The commands that keep a store in order, or change what it says: gc, verify, adopt, regroup."""

import re
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import click

from kd_ray.cli.base import (
    JSON_OPTION,
    Command,
    complete_sweep,
    open_existing,
    open_or_make,
    other_store,
    say,
    store_option,
)
from kd_ray.cli.json_text import json_text
from kd_ray.errors import InvalidInputError


@click.command("gc", cls=Command, example="kd-ray gc --older-than 7d")
@store_option
@click.option("--yes", is_flag=True, help="Delete without a question.")
@click.option(
    "--older-than",
    metavar="AGE",
    callback=lambda _ctx, _param, value: _seconds(value),
    help="Only older objects: 90s, 30m, 12h, 7d. Objects younger than a minute and a half are always kept.",
)
@click.option("--damaged", is_flag=True, help="Also the quarantined objects, which were found damaged.")
@click.option(
    "--orphans", is_flag=True, help="Also trials that no sweep lists, with their records; their results are lost."
)
@JSON_OPTION
def gc_command(store_url: str, yes: bool, older_than: float, damaged: bool, orphans: bool, as_json: bool) -> None:
    """Show what is safe to delete, ask, and delete it. Launches may be running."""
    from kd_ray.cli import text_keep as text
    from kd_ray.housekeeping.delete_garbage import delete_garbage
    from kd_ray.housekeeping.find_garbage import find_garbage

    store = open_existing(store_url)
    found = find_garbage(store, older_than_s=older_than, with_damaged=damaged, with_orphans=orphans)
    if not as_json:
        say(text.garbage(found))
    asks = not yes and not as_json and bool(found.garbage) and sys.stdin.isatty() and sys.stdout.isatty()
    deletes = bool(found.garbage) and (yes or (asks and click.confirm("delete all of these?")))
    if deletes:
        show = _progress()
        found = delete_garbage(store, found, on_progress=lambda done, total: show("deleting", done, total))
    if as_json:
        say(json_text({"deleted": deletes, **found.to_dict()}))
    elif found.garbage or deletes:
        say(text.collected(found, deleted=deletes, asked=asks))


@click.command("verify", cls=Command, example="kd-ray verify trifeature-quick --repair")
@click.argument("sweep_name", metavar="[SWEEP_NAME]", required=False, shell_complete=complete_sweep)
@store_option
@click.option("--repair", is_flag=True, help="Quarantine damaged objects, and rebuild the tables made from them.")
@click.option("--rebuild-tables", is_flag=True, help="Delete the tables and aggregate the records again.")
@click.option(
    "--audit",
    "with_audit",
    is_flag=True,
    help="Recompute per-class numbers with scikit-learn and fairness numbers with fairlearn.",
)
@JSON_OPTION
def verify_command(
    sweep_name: str | None, store_url: str, repair: bool, rebuild_tables: bool, with_audit: bool, as_json: bool
) -> None:
    """Read every object of a sweep and report those that are damaged. Without a name, check all sweeps."""
    from kd_ray.cli import text_keep as text
    from kd_ray.housekeeping import repair as repairing
    from kd_ray.housekeeping.audit import audit
    from kd_ray.housekeeping.verify import verify

    store, show = open_existing(store_url), _progress()
    report = verify(store, sweep_name, with_tables=not rebuild_tables, on_progress=show)
    repaired = repairing.repair(store, report, on_progress=show) if repair else None
    rebuilt = [repairing.rebuild_tables(store, name) for name in report.sweeps] if rebuild_tables else []
    audited = audit(store, report.sweeps, on_progress=show) if with_audit else None
    if as_json:
        words = {**report.to_dict(), "repaired": repaired and repaired.to_dict(), "rebuilt": rebuilt}
        say(json_text(words | ({"audit": audited.to_dict()} if audited else {})))
    else:
        lines = [text.verified(report, repaired, store=other_store(store_url)), *rebuilt]
        say("\n".join([*lines, *([text.audited(audited)] if audited else [])]))
    sys.exit(1 if report.problems or (audited and audited.disagreements) else 0)


@click.command("adopt", cls=Command, example="kd-ray adopt s3://lab/kd_ray --sweep trifeature-quick --dry-run")
@click.argument("from_store", metavar="FROM_STORE")
@store_option
@click.option("--sweep", "sweep_name", metavar="NAME", help="Only this sweep and its trials.")
@click.option("--dry-run", is_flag=True, help="Read and check everything, write nothing.")
@JSON_OPTION
def adopt_command(from_store: str, store_url: str, sweep_name: str | None, dry_run: bool, as_json: bool) -> None:
    """Copy the committed trials and the sweeps of another store into this one. The other store is not changed."""
    from kd_ray.cli import text_keep as text
    from kd_ray.housekeeping.adopt import adopt

    source, target = open_existing(from_store), open_or_make(store_url)
    report = adopt(source, target, sweep=sweep_name, dry_run=dry_run, on_progress=_progress())
    say(json_text(report.to_dict()) if as_json else text.adopted(report))
    sys.exit(1 if report.is_incomplete else 0)


@click.command(
    "regroup",
    cls=Command,
    example="kd-ray regroup trifeature-quick --features annotations.csv --id file --column light",
)
@click.argument("sweep_name", metavar="SWEEP_NAME", shell_complete=complete_sweep)
@store_option
@click.option(
    "--features",
    "table",
    metavar="FILE",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="CSV or Parquet file with a row for each test sample; other rows are kept for later.",
)
@click.option(
    "--id",
    "id_column",
    metavar="COLUMN",
    required=True,
    help="Column with the names of the samples: samples.sample_id.",
)
@click.option(
    "--column", "columns", metavar="COLUMN", multiple=True, help="Only this column becomes a feature.  [default: all]"
)
@JSON_OPTION
def regroup_command(
    sweep_name: str, store_url: str, table: Path, id_column: str, columns: tuple[str, ...], as_json: bool
) -> None:
    """Add sensitive features from a table to a sweep that is trained already, without training."""
    from kd_ray.cluster.regroup import regroup

    report = regroup(open_existing(store_url), sweep_name, table, id_column=id_column, columns=columns)
    if as_json:
        say(json_text(asdict(report)))
    else:
        say(
            f"{', '.join(report.features)} joined to {report.num_samples:,} test samples; the tables of sweep {sweep_name} have "
            f"{report.tables.num_trials:,} trials with it. Next: kd-ray compare {sweep_name}"
        )
    sys.exit(1 if report.tables.problems else 0)


def _seconds(age: str | None) -> float:
    """An age such as `12h`."""
    if age is None:
        return 0.0
    match = re.fullmatch(r"(\d+)([smhd])", age)
    if match is None:
        raise InvalidInputError(f"--older-than {age}: expected a number and a unit: 90s, 30m, 12h or 7d")
    return int(match[1]) * {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}[match[2]]


def _progress() -> Callable[[str, int, int], None]:
    """Shows the progress of a long command in one line of a terminal; shows nothing elsewhere."""
    shown_at = 0.0

    def show(what: str, done: int, total: int) -> None:
        nonlocal shown_at
        if not sys.stderr.isatty() or (done < total and time.monotonic() - shown_at < 0.1):
            return
        shown_at = time.monotonic()
        line = f"{what}: {done:,} / {total:,}" if done < total else ""
        click.echo(f"\r\x1b[K{line}", nl=False, err=True)

    return show
