"""The commands that say what the results mean; `commands.py` adds them to the others."""

import sys
from pathlib import Path
from typing import Literal

import click

from kd_ray.cli.base import JSON_OPTION, Command, complete_sweep, open_existing, other_store, say, store_option
from kd_ray.cli.json_text import json_text


@click.command("compare", cls=Command, example="kd-ray compare trifeature-quick --normalise ratio --level 0.05")
@click.argument("sweep_name", metavar="SWEEP_NAME", shell_complete=complete_sweep)
@store_option
@click.option(
    "--normalise",
    type=click.Choice(["ratio", "difference"]),
    default="ratio",
    show_default=True,
    help="Class bias: class accuracy divided by overall accuracy, or minus it.",
)
@click.option(
    "--overall",
    type=click.Choice(["per-run", "mean"]),
    default="per-run",
    show_default=True,
    help="Overall accuracy of each run, or its mean over the runs.",
)
@click.option(
    "--level",
    type=click.FloatRange(0, 0.5, min_open=True, max_open=True),
    default=0.05,
    show_default=True,
    help="Probability of a false ESTABLISHED in a report where nothing differs; intervals cover 1 - level.",
)
@click.option(
    "--split",
    type=click.FloatRange(0, min_open=True),
    default=10.0,
    show_default=True,
    help="Temperature that ends one trend and begins the other; it belongs to both.",
)
@click.option(
    "--full", is_flag=True, help="Also print every established difference and hint, trends, power and group sizes."
)
@JSON_OPTION
def compare_command(
    sweep_name: str,
    store_url: str,
    normalise: Literal["ratio", "difference"],
    overall: str,
    level: float,
    split: float,
    full: bool,
    as_json: bool,
) -> None:
    """Say which differences between conditions hold; writes the table `comparisons`.

    \b
    DECLARED     what became of each claim of the sweep file
    ESTABLISHED  holds after correction over the whole report: where
                 nothing differs, a report names any with probability
                 at most --level
    HINTS        below --level before correction only, beside the
                 number that is expected by chance, or fewer
    HELD BACK    below --level, and not claimed: groups too small,
                 accuracies too far apart, or what random groups give
    NOT TESTED   what these trials cannot answer, as with two seeds
    MORE SEEDS   for planning: what so many seeds would establish, and
                 how many would settle half of the hints
    """
    from kd_ray.analysis.compare import compare
    from kd_ray.cli import text_compare
    from kd_ray.results.query import Results

    if sys.stderr.isatty():
        _stage(f"compare the conditions of {sweep_name}")
    comparison = compare(
        Results(open_existing(store_url)),
        sweep_name,
        normalise=normalise,
        overall="mean" if overall == "mean" else "per_run",
        level=level,
        split=split,
    )
    if comparison.not_written:
        say(f"the table `comparisons` is not written: {comparison.not_written}", err=True)
    if as_json:
        say(json_text(comparison.to_dict()))
    else:
        say(text_compare.compared(comparison, store=other_store(store_url), full=full))


@click.command("report", cls=Command, example="kd-ray report trifeature-quick -o ./trifeature-report")
@click.argument("sweep_name", metavar="SWEEP_NAME", shell_complete=complete_sweep)
@store_option
@click.option(
    "-o",
    "--output",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder to write to.  [default: reports/SWEEP_NAME in a local store]",
)
@click.option("--pdf", "with_pdf", is_flag=True, help="Write every figure as PDF, too; this takes longer.")
def report_command(sweep_name: str, store_url: str, output: Path | None, *, with_pdf: bool) -> None:
    """Write a page about a sweep that needs no network, its figures (SVG) and its tables (CSV, LaTeX)."""
    from kd_ray.analysis.report.build import report
    from kd_ray.results.query import Results

    done = report(
        Results(open_existing(store_url)),
        sweep_name,
        output,
        store=other_store(store_url),
        with_pdf=with_pdf,
        progress=_stage if sys.stderr.isatty() else None,
    )
    say(f"report: {done.page} ({done.size_bytes / 1e6:.1f} MB, {done.num_figures} figures, {done.num_tables} tables)")


def _stage(words: str) -> None:
    """Say what is being done, while a person waits for it."""
    say(f"{words} ...", err=True)
