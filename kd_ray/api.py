"""The Python API: functions for the verbs of the command line, on a `Results` object."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from kd_ray.results.launch_plan import Plan
from kd_ray.results.launch_plan import plan as _plan
from kd_ray.results.query import Results
from kd_ray.results.store import open_store as _open_store
from kd_ray.sweep.load import SweepFile

if TYPE_CHECKING:
    from kd_ray.analysis.compare import SweepComparison
    from kd_ray.analysis.report.build import Report
    from kd_ray.cluster.launch import LaunchReport
    from kd_ray.distill.trained import TrainedTrial


def open_store(url: str | os.PathLike[str]) -> Results:
    """Open a store: a local path, `s3://…`, `gs://…` or `az://…`.

    Raises:
        InvalidInputError: the URL has an unknown scheme.
        StoreError: a local folder cannot be made.
    """
    return Results(_open_store(url))


def plan(sweep: SweepFile, results: Results, *, retry_failed: bool = False) -> Plan:
    """Which trials a launch would run, which are complete, and why. Writes nothing.

    Raises:
        SweepError: pretrained weights cannot be read, or a cell of the grid is not valid.
        DataError: `dataset.version` is `auto`, and the data cannot be read, or have changed since the first launch.
    """
    from kd_ray.cluster.data_version import with_data_version

    return _plan(with_data_version(sweep, results.store), results.store, retry_failed=retry_failed)


def launch(
    sweep: SweepFile,
    results: Results,
    *,
    runner: Literal["ray", "local"] = "ray",
    address: str | None = None,
    retry_failed: bool = False,
    only: str | None = None,
    progress: bool = True,
) -> "LaunchReport":
    """Run every trial that is not complete, and bring the tables up to date.

    Raises:
        InvalidInputError: the sweep, its data, its weights or an argument cannot be used; nothing has been written then.
        StoreError: the store cannot be read or written.
    """
    from rich.console import Console

    from kd_ray.cluster.display import QuietDisplay, TextDisplay
    from kd_ray.cluster.launch import launch as run

    display = TextDisplay(Console()) if progress else QuietDisplay()
    return run(
        sweep, results.store, runner=runner, address=address, retry_failed=retry_failed, only=only, display=display
    )


def compare(
    sweep: str,
    results: Results,
    *,
    normalise: Literal["ratio", "difference"] = "ratio",
    overall: Literal["per_run", "mean"] = "per_run",
    level: float = 0.05,
    split: float = 10.0,
) -> "SweepComparison":
    """Which differences between the conditions of a sweep hold; replaces the sweep's rows of the table `comparisons`.

    `verdict` is the answer in words: what is established after correction over the whole report, what is only a hint, what is held
    back or not tested and why, and the next commands. `rows` has every number; `row.status` says what became of it. Where nothing
    differs, a report has an established row with probability at most `level`.

    Raises:
        InvalidInputError: there is no such sweep, it has no conditions to compare, or an option is out of range.
    """
    from kd_ray.analysis.compare import compare as run

    return run(results, sweep, normalise=normalise, overall=overall, level=level, split=split)


def report(
    sweep: str, results: Results, output: str | os.PathLike[str] | None = None, *, with_pdf: bool = False
) -> "Report":
    """Write the report of a sweep to a local folder, by default to `reports/<sweep>` of a local store; with every figure as PDF on request.

    Raises:
        InvalidInputError: there is no such sweep, none of its trials is complete, or there is no folder to write to.
    """
    from kd_ray.analysis.report.build import report as run

    return run(results, sweep, None if output is None else Path(output), store=results.store.url, with_pdf=with_pdf)


def trained(trial_id: str, results: Results, *, data_root: str | os.PathLike[str] = "./data") -> "TrainedTrial":
    """The network that a trial has trained, as a torch module on the CPU, with its data set.

    `trained(…).model` is the module, `logits()` are those of the test split, and `batches()` gives what the module takes. The data set
    is read below `data_root`; a drawn one is drawn there if need be.

    Raises:
        InvalidInputError: there is no complete trial of that id.
        CorruptObjectError: its record or its weights are damaged.
        DataError: the data set cannot be loaded.
    """
    from kd_ray.distill.trained import trained_trial

    return trained_trial(trial_id, results.store, Path(data_root))
