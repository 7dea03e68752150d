"""The commands that take results to other programs: export, mirror."""

import sys
from pathlib import Path

import click

from kd_ray.cli.base import Command, complete_sweep, open_existing, say, store_option, write
from kd_ray.errors import InvalidInputError, count_of

_FORMATS = ("csv", "parquet", "xlsx", "markdown", "latex")


@click.command("export", cls=Command, example="kd-ray export trifeature-quick --to xlsx --table class_metrics")
@click.argument("sweep_name", metavar="SWEEP_NAME", shell_complete=complete_sweep)
@store_option
@click.option("--to", "to", type=click.Choice(_FORMATS), required=True, help="Format of the file.")
@click.option(
    "--table",
    metavar="TABLE",
    default="conditions",
    show_default=True,
    help="conditions: n, mean, sd and 95 % interval of each condition; or a table that `kd-ray schema` lists.",
)
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    help="File to write, - for stdout.  [default: SWEEP_NAME-TABLE and the suffix of the format]",
)
@click.option("--overwrite", is_flag=True, help="Replace the file if there is one.")
def export_command(
    sweep_name: str, store_url: str, to: str, table: str, output: Path | None, *, overwrite: bool
) -> None:
    """Write a table of a sweep as CSV, Parquet, Excel, Markdown or LaTeX."""
    from kd_ray.analysis.export import SUFFIXES, export
    from kd_ray.results.query import Results

    target = output or Path(f"{sweep_name}-{table}{SUFFIXES[to]}")
    to_stdout = str(target) == "-"
    if to_stdout and to in ("parquet", "xlsx") and sys.stdout.isatty():
        raise InvalidInputError(f"--to {to} writes bytes; give -o FILE or send the output to a file")
    # Links that point nowhere exist, too.
    if not to_stdout and not overwrite and (target.exists() or target.is_symlink()):
        raise InvalidInputError(f"-o {target}: exists already; give another name, or --overwrite")
    data = export(Results(open_existing(store_url)), sweep_name, to=to, table=table)
    write(data, None if to_stdout else target)
    if not to_stdout:
        say(f"{target} ({len(data):,} bytes)")


@click.command("mirror", cls=Command, example="kd-ray mirror trifeature-quick --to mlflow")
@click.argument("sweep_name", metavar="SWEEP_NAME", shell_complete=complete_sweep)
@store_option
@click.option("--to", "service", metavar="SERVICE", required=True, help="mlflow or wandb.")
def mirror_command(sweep_name: str, store_url: str, service: str) -> None:
    """Copy the complete trials of a sweep to MLflow or Weights & Biases; those that are there stay as they are."""
    from kd_ray.cluster.mirrors import copy_complete

    done = copy_complete(open_existing(store_url), sweep_name, service)
    left = f"; {count_of(done.num_incomplete, 'trial')} not complete" if done.num_incomplete else ""
    say(f"mirror {service}: {count_of(done.num_copied, 'trial')} copied, {done.num_known} there already{left}")
