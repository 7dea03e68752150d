"""The command that searches settings before the grid is run: tune."""

import sys
from pathlib import Path
from typing import Any

import click

from kd_ray.cli.base import (
    CELLS_OPTION,
    JSON_OPTION,
    SET_OPTION,
    Command,
    console,
    open_or_make,
    other_store,
    say,
    write,
)
from kd_ray.cli.json_text import json_text
from kd_ray.cli.run_commands import load, run_options


@click.command("tune", cls=Command, example="kd-ray tune sweeps/trifeature-quick.yaml -o tuned.yaml")
@click.argument("sweep_file", metavar="SWEEP.yaml", type=click.Path(path_type=Path))
@SET_OPTION
@CELLS_OPTION
@run_options
@JSON_OPTION
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the sweep file with the chosen settings here.",
)
def tune_command(
    sweep_file: Path,
    overrides: tuple[str, ...],
    most_cells: int | None,
    store_url: str,
    as_json: bool,
    output: Path | None,
    **options: Any,
) -> None:
    """Search settings on the validation split, as the `tune` section says. The same command again resumes.

    A larger budget extends a search. Candidates are trials of their own: comparisons and reports leave them out, and the test split is not
    read. The page of docs/tuning.md says how a search is described.
    """
    from kd_ray.analysis.report.tuning_figure import slices
    from kd_ray.cli import text_tune
    from kd_ray.cluster.display import TextDisplay
    from kd_ray.cluster.tune import tune
    from kd_ray.results.store import report_folder
    from kd_ray.tuning.outcome import tuned_yaml

    file = load(sweep_file, overrides, most_cells)
    store = open_or_make(store_url)
    display = TextDisplay(console()) if options["log_format"] == "text" else None
    report = tune(file, store, display=display, **options)
    outcome = report.outcome
    written = []
    if drawn := slices(outcome):
        key = f"{report_folder(outcome.name)}/slices.svg"
        store.put(key, drawn)
        written.append(f"{store.url.rstrip('/')}/{key}")
    if (yaml := tuned_yaml(outcome, file.raw)) is not None:
        key = f"{report_folder(outcome.name)}/sweep.yaml"
        store.put(key, yaml.encode())
        written.append(f"{store.url.rstrip('/')}/{key}")
        if output is not None:
            write(yaml.encode(), output)
            written.append(str(output))
    if as_json:
        say(json_text(text_tune.to_dict(report, written)))
    else:
        say(text_tune.tuned(report, written, store=other_store(store_url)))
    sys.exit(report.exit_code)
