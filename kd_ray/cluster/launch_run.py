"""Third step of a launch: run packs until this launch can do no more."""

import threading
from collections.abc import Callable, Collection
from contextlib import ExitStack
from dataclasses import replace
from typing import Literal

from kd_ray.cluster.background import BackgroundAggregation, LaunchObserver
from kd_ray.cluster.launch_checks import check_data, check_networks
from kd_ray.cluster.launch_request import LaunchRequest, RequestedTrials
from kd_ray.cluster.mirrors import MIRRORS, MirrorThreads
from kd_ray.cluster.pack_queue import PackQueue
from kd_ray.cluster.runner import LaunchContext, Runner, probe_students
from kd_ray.cluster.shared_data.find_sets import find_sets, to_plan
from kd_ray.errors import CorruptObjectError, InvalidInputError, StoreError, TrialError, count_of
from kd_ray.results import ledger
from kd_ray.results.aggregate import aggregate
from kd_ray.results.launch_plan import plan
from kd_ray.results.probe import UNMEASURED, Probe, chosen_pack_size, read_probe, representative, write_probe
from kd_ray.results.quarantine import quarantined_trials
from kd_ray.results.store import Store, stop_key
from kd_ray.results.table_parts import read_columns
from kd_ray.sweep.load import SweepFile
from kd_ray.sweep.packs import Pack, make_packs
from kd_ray.sweep.placement import Placement, cpu_count
from kd_ray.sweep.plan import PlannedTrial
from kd_ray.sweep.spec import Role, TrialState

_POLL_S = 2.0
"""How often the trials that another launch holds are looked at."""
_MAX_RUNS_WITHOUT_RESULT = 5
"""Runs in a row without a result, after which a launch stops trying."""


def choose_runner(
    runner: Literal["ray", "local"] | Runner, placement: Placement, address: str | None, *, verbose: bool
) -> Runner:
    """The runner of this name, or the given one.

    Raises:
        InvalidInputError: the local runner is given the address of a cluster.
    """
    if not isinstance(runner, str):
        return runner
    if runner == "local":
        if address is not None:
            raise InvalidInputError(f"--address {address} has no effect with --runner local")
        from kd_ray.cluster.local import LocalRunner

        return LocalRunner()
    from kd_ray.cluster.ray_tune.ray_runner import RayRunner

    return RayRunner(placement=placement, address=address, verbose=verbose)


def connect(
    stack: ExitStack,
    request: LaunchRequest,
    trials: Collection[PlannedTrial],
    runner: Literal["ray", "local"] | Runner,
    address: str | None,
    *,
    verbose: bool,
) -> Runner:
    """Check networks and data of the trials to run, then start the runner, the metrics and the display; `stack` ends them.

    Raises:
        InvalidInputError: the runner, a network or the data cannot be used.
    """
    chosen = choose_runner(runner, request.file.sweep.placement, address, verbose=verbose)
    check_networks(request, trials)
    # On a cluster the data lie on its nodes.
    if address is None:
        check_data(request, trials)
    connected = stack.enter_context(chosen)
    # Left after the display, so that the last numbers of the sweep are measured while it ends.
    stack.enter_context(request.metrics)
    stack.enter_context(request.display)
    return connected


def run(
    request: LaunchRequest,
    requested: RequestedTrials,
    runner: Runner,
    update_tables: Callable[[], object] | None = None,
) -> None:
    """Run packs until this launch can do no more. Wait for the trials that another launch holds.

    `update_tables` is called while packs run, where it is not the aggregation of the sweep.

    Raises:
        StoreError: the store cannot be used, or it lacks trials that workers have committed.
    """
    store, sweep, placement = request.store, request.file.sweep.name, request.file.sweep.placement
    before = _mixed_devices(store, sweep, placement) if requested.complete else []
    for note in (*runner.notes(), *before):
        request.warnings.add(note)
    context = LaunchContext(
        store=store,
        placement=placement,
        launch_id=request.launch_id,
        sweep=sweep,
        log_format=request.log_format,
        sets=request.sets,
    )
    pack_sizes = _pack_sizes(request, requested, runner, context)
    if len(pack_sizes) > 1:
        context = replace(context, most_students=pack_sizes)
    mirrors = {name: MIRRORS[name] for name in request.mirrors}
    trial_ids = [trial.trial_id for trial in requested.trials]
    reported: set[str] = set()
    runs_without_result = 0
    with (
        BackgroundAggregation(
            update_tables or (lambda: aggregate(store, sweep, settle=False, records_read=request.records_read)),
            request.warnings,
            every_s=request.aggregate_every_s,
        ) as aggregation,
        MirrorThreads(mirrors, store, sweep, request.warnings.add) as mirror_threads,
    ):
        observer = LaunchObserver(request.display, request.metrics, aggregation, request.warnings, mirror_threads)
        while not request.interrupts.requested():
            statuses = ledger.scan(store, trial_ids)
            for outlived in (status.outlived for status in statuses.values() if status.outlived):
                ledger.supersede(store, outlived, launch_id=context.launch_id)
            states = {trial_id: status.state for trial_id, status in statuses.items()}
            done = {trial_id for trial_id, state in states.items() if state is TrialState.COMPLETE}
            held = {trial_id for trial_id, state in states.items() if state is TrialState.RUNNING}
            stopped = {
                trial_id
                for trial_id, epoch in requested.until.items()
                if trial_id not in done and store.exists(stop_key(trial_id, epoch))
            }
            done |= stopped
            held -= stopped
            _check_reported(store, reported - done)
            skipped = done | held | _failed_or_blocked(requested, states)
            packs = _packs(requested, max(pack_sizes.values()), skipped)
            queue = PackQueue.of(packs, done, placement.max_retries)
            if not queue.is_exhausted() and runs_without_result < _MAX_RUNS_WITHOUT_RESULT:
                runner.run(queue, context, observer, request.interrupts)
                reported |= queue.done
                has_result = bool(queue.done - done or queue.given_up)
                runs_without_result = 0 if has_result else runs_without_result + 1
            elif held:
                request.display.waiting(len(held))
                threading.Event().wait(_POLL_S)
            else:
                return


def _packs(requested: RequestedTrials, pack_size: int, skipped: Collection[str]) -> list[Pack]:
    """The packs of the trials that are not skipped; those of a pack train to the same epoch."""
    by_end: dict[int | None, list[PlannedTrial]] = {}
    for trial in requested.trials:
        by_end.setdefault(requested.until.get(trial.trial_id), []).append(trial)
    packs: list[Pack] = []
    for until, trials in by_end.items():
        made = make_packs(trials, pack_size=pack_size, done=skipped)
        packs += made if until is None else [replace(pack, until_epoch=until) for pack in made]
    return packs


def _failed_or_blocked(requested: RequestedTrials, states: dict[str, TrialState]) -> set[str]:
    """Trials that have failed, and trials whose teacher has."""
    failed = {trial_id for trial_id, state in states.items() if state is TrialState.FAILED}
    blocked = {
        trial.trial_id for trial in requested.trials if trial.spec.teacher and trial.spec.teacher.trial_id in failed
    }
    return failed | blocked


def _check_reported(store: Store, missing: Collection[str]) -> None:
    """Refuse a store that lacks trials which workers have committed, unless they are quarantined."""
    if missing and (lost := set(missing) - quarantined_trials(store)):
        raise StoreError(
            f"store {store.url}: workers have committed {count_of(len(lost), 'trial')} not found here; every node must see the same store, "
            "so on several machines it has to be a shared folder or an object store"
        )


def measure(file: SweepFile, store: Store) -> None:
    """Measure students side by side on this machine and write the result to the store, for `plan` and for `pack_size: auto`.

    Raises:
        TrialError: no student can be trained here.
    """
    placement = file.sweep.placement
    student = representative(plan(to_plan(file), None).planned)
    if student is not None:
        sharers = max(1, cpu_count() // placement.cpus_per_pack)
        context = LaunchContext(store=store, placement=placement, launch_id="", sets=find_sets(file))
        write_probe(store, student, placement, probe_students(student, context, sharers))


def _pack_sizes(
    request: LaunchRequest, requested: RequestedTrials, runner: Runner, context: LaunchContext
) -> dict[str, int]:
    """The pack size on each device, by its name. With `auto` it comes from a measurement on each kind, which is made once per store.

    The name is empty for packs of a size that does not follow the device.
    """
    placement, student = request.file.sweep.placement, representative(requested.to_run)
    probes: list[Probe | None] = []
    if placement.pack_size == "auto" and student is not None and len(requested.to_run) > 1:
        for kind in runner.kinds():
            probe = read_probe(request.store, student, placement, kind)
            if probe is None:
                try:
                    probe = runner.probe(student, context, kind)
                except TrialError as error:
                    request.warnings.add(
                        f"placement.pack_size: auto cannot be measured: {error}; packs have {UNMEASURED} students"
                    )
                    continue
                write_probe(request.store, student, placement, probe, kind)
            probes.append(probe)
    slots = runner.slots()
    return {
        probe.device if probe else "": chosen_pack_size(placement, probe, requested.to_run, done=(), slots=slots)
        for probe in probes or [None]
    }


def _mixed_devices(store: Store, sweep: str, placement: Placement) -> list[str]:
    """What to say where this launch trains students on the other sort of device than those before."""
    try:
        trials = read_columns(store, "trials", sweep, ["role", "device"]).to_pylist()
    except CorruptObjectError:
        # The aggregation at the end names it and makes it again.
        return []
    uses_gpu = placement.gpus_per_pack > 0
    before = [it["device"] for it in trials if it["role"] != Role.TEACHER and (it["device"] != "cpu") != uses_gpu]
    if not before:
        return []
    return [
        f"{count_of(len(before), 'student')} of sweep {sweep} ran on {before[0]}, and the packs of this launch "
        f"{'ask for a GPU' if uses_gpu else 'ask for no GPU'} (placement.gpus_per_pack); comparisons over both carry the flag mixed_devices"
    ]
