"""The commands that plan and run a sweep: plan, launch, resume."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kd_ray.cli.base import (
    CELLS_OPTION,
    JSON_OPTION,
    SET_OPTION,
    Command,
    complete_sweep,
    console,
    open_existing,
    open_or_make,
    other_store,
    say,
    store_option,
)
from kd_ray.cli.json_text import json_text

if TYPE_CHECKING:
    from kd_ray.sweep.load import SweepFile


def _launch_options(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option(
            "--only",
            metavar="TRIAL_ID",
            help="Run only this trial and the teacher it needs; the first characters of its id are enough.",
        ),
        click.option(
            "--mirror",
            "mirrors",
            metavar="SERVICE",
            multiple=True,
            envvar="KD_RAY_MIRROR",
            help="Also copy finished trials to mlflow or wandb; may be given twice.  [env: KD_RAY_MIRROR]",
        ),
    ):
        function = option(function)
    return run_options(function)


def run_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options of everything that trains."""
    for option in (
        click.option("--retry-failed", is_flag=True, help="Run failed trials again."),
        click.option("--address", metavar="ADDR", help="A running Ray cluster.  [default: start Ray on this machine]"),
        click.option(
            "--runner",
            type=click.Choice(["ray", "local"]),
            default="ray",
            show_default=True,
            help="local: without Ray, in this process.",
        ),
        click.option("--verbose", is_flag=True, help="Show Ray's own output too."),
        click.option(
            "--log-format",
            type=click.Choice(["text", "json"]),
            default="text",
            show_default=True,
            envvar="KD_RAY_LOG_FORMAT",
            help="json: one object per line on stderr, with sweep and trial_id, also from workers.  [env: KD_RAY_LOG_FORMAT]",
        ),
    ):
        function = option(function)
    return store_option(function)


@click.command("plan", cls=Command, example="kd-ray plan sweeps/trifeature-quick.yaml --set grid.temperature='[1,2,4]'")
@click.argument("sweep_file", metavar="SWEEP.yaml", type=click.Path(path_type=Path))
@SET_OPTION
@CELLS_OPTION
@store_option
@JSON_OPTION
@click.option(
    "--probe", is_flag=True, help="First measure students side by side on this machine; the store keeps the result."
)
def plan_command(
    sweep_file: Path,
    overrides: tuple[str, ...],
    most_cells: int | None,
    store_url: str,
    as_json: bool,
    probe: bool,
) -> None:
    """Show which trials would run, which are complete, and why. Writes nothing, except with --probe.

    Also says how long training will take, after complete trials of the store like these, and which files of the data are missing.
    """
    from kd_ray.cli import text
    from kd_ray.cluster.data_version import with_data_version
    from kd_ray.results.cost import cost
    from kd_ray.results.launch_plan import plan
    from kd_ray.sweep.packs import advice_for_teachers
    from kd_ray.sweep.placement import cpu_count

    store = open_or_make(store_url)
    file = with_data_version(load(sweep_file, overrides, most_cells), store)
    if probe:
        from kd_ray.cluster.launch import measure

        measure(file, store)
    missing = None
    if file.sweep.placement.data_url is not None:
        # Its modules take long to import.
        from kd_ray.cluster.display import TextDisplay
        from kd_ray.cluster.shared_data.find_sets import missing_sets, to_plan

        missing = missing_sets(file)
        file = to_plan(file, TextDisplay(console()))
    plan_ = plan(file, store)
    to_run = {trial.trial_id: trial.spec for pack in plan_.packs for trial in pack.trials}
    expected = cost(store, to_run.values())
    datasets = {spec.dataset_id: spec.dataset for spec in to_run.values()}
    if missing is None:
        root = Path(file.sweep.placement.data_root).expanduser()
        files = dict.fromkeys(root / name for dataset in datasets.values() for name in dataset.files)
        missing = [str(path) for path in files if not path.exists()]
    if as_json:
        say(json_text({**plan_.to_dict(), "cost": expected.to_dict(), "missing_files": missing}))
    else:
        of_teachers = advice_for_teachers(plan_.packs, file.sweep.placement, cpu_count())
        say("\n".join([text.plan(plan_), *text.needs(expected, missing), *filter(None, [of_teachers])]))


@click.command("launch", cls=Command, example="kd-ray launch sweeps/trifeature-quick.yaml --store ./kd_ray_store")
@click.argument("sweep_file", metavar="SWEEP.yaml", type=click.Path(path_type=Path))
@SET_OPTION
@CELLS_OPTION
@_launch_options
def launch_command(sweep_file: Path, overrides: tuple[str, ...], most_cells: int | None, **options: Any) -> None:
    """Run every trial that is not complete. The same command again resumes the sweep."""
    _launch(load(sweep_file, overrides, most_cells), None, **options)


@click.command("resume", cls=Command, example="kd-ray resume trifeature-quick --set grid.seed=0..9")
@click.argument("sweep_name", metavar="SWEEP_NAME", shell_complete=complete_sweep)
@SET_OPTION
@CELLS_OPTION
@_launch_options
def resume_command(sweep_name: str, overrides: tuple[str, ...], most_cells: int | None, **options: Any) -> None:
    """Launch a sweep from its manifest in the store, without its sweep file."""
    from kd_ray.cluster.launch import resume_file
    from kd_ray.sweep.load import MOST_CELLS

    store = open_existing(options["store_url"])
    file, weights = resume_file(store, sweep_name, overrides, most_cells=most_cells or MOST_CELLS)
    _launch(file, weights, **options)


def load(path: Path, overrides: tuple[str, ...], most_cells: int | None) -> "SweepFile":
    """The sweep file of a command."""
    from kd_ray.sweep.load import MOST_CELLS, load_sweep

    return load_sweep(path, overrides, most_cells=most_cells or MOST_CELLS)


def _launch(
    file: "SweepFile", weights: dict[str, str] | None, *, store_url: str, verbose: bool, **options: Any
) -> None:
    from kd_ray.cli import text
    from kd_ray.cluster.display import TextDisplay
    from kd_ray.cluster.launch import launch
    from kd_ray.results.query import Results

    store = open_or_make(store_url)
    # JSON lines are not mixed with a display.
    display = TextDisplay(console()) if options["log_format"] == "text" else None
    report = launch(file, store, display=display, verbose=verbose, weights=weights, **options)
    say(text.launch_report(report, Results(store), store=other_store(store_url)))
    sys.exit(report.exit_code)
