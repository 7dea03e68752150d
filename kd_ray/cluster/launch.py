"""The verb `launch`: bring the store to the state that a sweep asks for.

    check ──▶ write inputs ──▶ run what is missing ──▶ aggregate tables and report

Each step has a module of its own: `launch_checks`, `launch_inputs`, `launch_run`, `launch_report`. Launching the same sweep again runs the
trials that are still missing, and none if none is missing. Where `launch_finished` finds that, only the last step is done.
"""

import time
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from typing import Literal

from kd_ray import telemetry
from kd_ray.cluster.background import AGGREGATE_EVERY_S, WarningLog
from kd_ray.cluster.data_version import with_data_version
from kd_ray.cluster.display import Display, QuietDisplay
from kd_ray.cluster.launch_checks import check, warn_of_unused_settings, with_absolute_paths
from kd_ray.cluster.launch_finished import find_finished
from kd_ray.cluster.launch_inputs import resume_file, write_inputs
from kd_ray.cluster.launch_report import LaunchReport, repair, report
from kd_ray.cluster.launch_request import LaunchRequest, RequestedTrials
from kd_ray.cluster.launch_run import connect, measure, run
from kd_ray.cluster.log_display import LogDisplay
from kd_ray.cluster.mirrors import check_mirrors
from kd_ray.cluster.pretrained import fetch_pretrained_files
from kd_ray.cluster.runner import Runner
from kd_ray.results.aggregate import aggregate
from kd_ray.results.launch_plan import planned_lines
from kd_ray.results.plan_mark import write_mark
from kd_ray.results.store import Store
from kd_ray.sweep.load import SweepFile
from kd_ray.telemetry import LogFormat

__all__ = ["LaunchReport", "launch", "measure", "resume_file"]

_MAX_REPAIRS = 5
"""How often one launch checks and runs again because of damaged objects."""


def launch(
    file: SweepFile,
    store: Store,
    *,
    runner: Literal["ray", "local"] | Runner = "ray",
    address: str | None = None,
    retry_failed: bool = False,
    only: str | None = None,
    display: Display | None = None,
    verbose: bool = False,
    weights: Mapping[str, str] | None = None,
    log_format: LogFormat = "text",
    mirrors: Collection[str] = (),
    aggregate_every_s: float = AGGREGATE_EVERY_S,
) -> LaunchReport:
    """Run every trial of a sweep that is not complete, then bring its tables up to date.

    `only` is a trial_id, or the beginning of one: run that trial and its teacher. `weights` are known digests of pretrained weights, by
    path. `aggregate_every_s` is the shortest pause between two updates of the tables while the sweep runs.

    Raises:
        InvalidInputError: the sweep, its data, its weights or `only` cannot be used; nothing has been written then.
        StoreError: the store cannot be read or written.
    """
    started = time.monotonic()
    check_mirrors(mirrors)
    telemetry.log_as(log_format)
    telemetry.work_on(sweep=file.sweep.name, trial_ids=())
    display = display or (LogDisplay() if log_format == "json" else QuietDisplay())
    request = LaunchRequest(
        file=with_data_version(with_absolute_paths(file), store),
        store=store,
        display=display,
        warnings=WarningLog(display),
        only=only,
        weights=weights or {},
        log_format=log_format,
        mirrors=mirrors,
        aggregate_every_s=aggregate_every_s,
    )
    fetch_pretrained_files(request.file, weights)
    warn_of_unused_settings(request)
    if only is None and (ended := _end_finished(request, started)) is not None:
        return ended
    with ExitStack() as stack:
        connected: Runner | None = None
        first: RequestedTrials | None = None
        damaged: set[str] = set()
        for _ in range(_MAX_REPAIRS):
            plan, requested = check(request, retry_failed=retry_failed and first is None)
            if requested.to_run and connected is None:
                connected = connect(stack, request, requested.to_run, runner, address, verbose=verbose)
            # After the runner, because Ray replaces signal handlers when it starts.
            with request.interrupts.watch():
                # Up to here nothing was written.
                write_mark(store, write_inputs(request, plan, requested), request.file)
                if first is None:
                    first = requested
                    _name_uncopied(request, len(requested.complete))
                    display.begin(plan, requested.to_run)
                    request.metrics.begin(plan, requested.to_run)
                # Where nothing runs, the states stay as they are, and are not listed again.
                is_unchanged = not requested.to_run
                lines = plan.trials if is_unchanged and only is None else None
                records = plan.records if is_unchanged else None
                del plan  # as large as the sweep, and outdated from here on
                if requested.to_run and connected is not None:
                    run(request, requested, connected)
                tables = aggregate(store, file.sweep.name, records_read=request.records_read, records=records)
                if request.interrupts.requested() or not repair(request, requested, tables):
                    break
                damaged.update(tables.damaged_trials)
                lines = None
        assert first is not None
        lines = lines or planned_lines(store, first.trials)
        return report(
            request,
            tables,
            lines,
            complete_before=first.complete - damaged,
            has_settings=any(trial.settings for trial in first.trials),
            started=started,
        )


def _end_finished(request: LaunchRequest, started: float) -> LaunchReport | None:
    """The end of a launch that has nothing to run; None where there is something to run, or to mend."""
    if (finished := find_finished(request)) is None:
        return None
    with request.interrupts.watch():
        tables = aggregate(
            request.store, request.file.sweep.name, records_read=request.records_read, records=finished.records
        )
    if tables.damaged_trials or tables.damaged_samples:
        return None
    _name_uncopied(request, len(finished.trials))
    request.display.nothing_to_run(request.file.sweep.name, len(finished.trials))
    return report(
        request,
        tables,
        finished.trials,
        complete_before=finished.records,
        has_settings=finished.has_settings,
        started=started,
    )


def _name_uncopied(request: LaunchRequest, count: int) -> None:
    """Say which command copies the trials that were complete before: a launch copies those that it sees become complete."""
    sweep = request.file.sweep.name
    for name in request.mirrors if count else ():
        request.warnings.add(
            f"mirror {name}: {count:,} {'trial was' if count == 1 else 'trials were'} complete before this launch; "
            f"`kd-ray mirror {sweep} --to {name}` copies those that it lacks"
        )
