"""The verb `tune`: search settings on the validation split, with the packs, leases and workers of a launch.

    check ──▶ replay the search ──▶ run what it still needs ──▶ replay … ──▶ outcome

The search is a function of its settings and the results in the store (`tuning/replay.py`), so nothing is kept
between two rounds.
"""

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from kd_ray import telemetry
from kd_ray.cluster.background import AGGREGATE_EVERY_S, WarningLog
from kd_ray.cluster.data_version import with_data_version
from kd_ray.cluster.display import Display, QuietDisplay
from kd_ray.cluster.launch_checks import with_absolute_paths
from kd_ray.cluster.launch_inputs import write_inputs
from kd_ray.cluster.launch_request import LaunchRequest, RequestedTrials
from kd_ray.cluster.launch_run import connect, run
from kd_ray.cluster.log_display import LogDisplay
from kd_ray.cluster.pretrained import fetch_pretrained_files
from kd_ray.cluster.runner import Runner
from kd_ray.cluster.shared_data.find_sets import to_plan
from kd_ray.errors import InvalidInputError
from kd_ray.results import ledger
from kd_ray.results.inventory import trial_objects
from kd_ray.results.launch_plan import Plan, input_digest, planned_lines
from kd_ray.results.manifest import find_manifest
from kd_ray.results.quarantine import quarantine_trial
from kd_ray.results.store import Store, quarantine, stop_key
from kd_ray.sweep.load import SweepFile, parse_sweep
from kd_ray.sweep.plan import PlannedTrial
from kd_ray.sweep.spec import TrialState
from kd_ray.sweep.tuning_settings import SUFFIX
from kd_ray.telemetry import LogFormat
from kd_ray.tuning.candidates import (
    Candidate,
    candidate_file,
    check_space,
    ends,
    make_candidate,
    most_epochs,
    tuning_of,
)
from kd_ray.tuning.outcome import Outcome, outcome_of, sign_of, write_table
from kd_ray.tuning.replay import HalvingLike, Replayed, replay
from kd_ray.tuning.stored_values import StoredValues


@dataclass(frozen=True, kw_only=True)
class TuneReport:
    """How a search ended."""

    outcome: Outcome
    store: str
    elapsed_s: float
    interrupted: bool
    warnings: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """0 the search is over and has chosen, 1 it has not, 130 interrupted."""
        if self.interrupted:
            return 130
        return 0 if self.outcome.is_over and self.outcome.chosen is not None else 1


def tune(
    file: SweepFile,
    store: Store,
    *,
    runner: Literal["ray", "local"] | Runner = "ray",
    address: str | None = None,
    retry_failed: bool = False,
    display: Display | None = None,
    verbose: bool = False,
    log_format: LogFormat = "text",
    aggregate_every_s: float = AGGREGATE_EVERY_S,
) -> TuneReport:
    """Search the space of the sweep's `tune` section, as far as its budget goes.

    Raises:
        InvalidInputError: the section, the sweep or its data cannot be used; nothing has been written then.
        StoreError: the store cannot be read or written.
    """
    started = time.monotonic()
    telemetry.log_as(log_format)
    telemetry.work_on(sweep=f"{file.sweep.name}{SUFFIX}", trial_ids=())
    display = display or (LogDisplay() if log_format == "json" else QuietDisplay())
    whole = with_data_version(with_absolute_paths(file), store, name=f"{file.sweep.name}{SUFFIX}")
    fetch_pretrained_files(whole, {})
    search = _Search(file=whole, store=store)
    search.check()
    small = candidate_file(whole, {path: ends(dimension)[0] for path, dimension in search.tuning.space.items()})
    request = LaunchRequest(
        # The manifest keeps the whole sweep file, so that a later search can be compared with this one.
        file=replace(whole, sweep=small.sweep),
        store=store,
        display=display,
        warnings=WarningLog(display),
        only=None,
        weights={},
        log_format=log_format,
        mirrors=(),
        aggregate_every_s=aggregate_every_s,
    )
    replayed = search.replay(retry_failed=retry_failed)
    with ExitStack() as stack:
        connected: Runner | None = None
        while replayed.to_run and not request.interrupts.requested():
            requested = search.requested(replayed)
            if connected is None:
                connected = connect(stack, request, requested.to_run, runner, address, verbose=verbose)
            with request.interrupts.watch():
                plan = search.plan(replayed, requested)
                write_inputs(request, plan, requested)
                display.begin(plan, requested.to_run)
                request.metrics.begin(plan, requested.to_run)
                run(request, requested, connected, update_tables=lambda: search.write_table(search.replay()))
            before, replayed = replayed, search.replay()
            search.write_table(replayed)
            if _is_stuck(before, replayed) and not search.repair(request):
                break
    outcome = search.write_table(replayed)
    return TuneReport(
        outcome=outcome,
        store=store.url,
        elapsed_s=time.monotonic() - started,
        interrupted=request.interrupts.requested(),
        warnings=request.warnings.warnings,
    )


def _is_stuck(before: Replayed, now: Replayed) -> bool:
    return now.to_run == before.to_run and len(now.placed) == len(before.placed)


@dataclass(kw_only=True)
class _Search:
    """The search of one sweep in one store."""

    file: SweepFile
    store: Store
    _digests: dict[str, str] = field(default_factory=dict)
    _made: dict[int, Candidate] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.tuning = tuning_of(self.file)
        self._halving()
        self.values = StoredValues(store=self.store, tuning=self.tuning, rungs=self._rungs)

    def check(self) -> None:
        """Refuse a space that has no valid candidate, and a search that differs from the one in the store in more than its budget."""
        from kd_ray.tuning.tune_search import make_searcher

        check_space(self.file, self._digest)
        make_searcher(self.tuning)
        before = find_manifest(self.store, f"{self.file.sweep.name}{SUFFIX}").manifest
        if before is None:
            return
        old = parse_sweep(before.sweep_yaml, source="the search in the store").sweep.tune
        assert old is not None
        mine, theirs = (it.model_dump(exclude={"budget"}) for it in (self.tuning, old))
        for name, value in mine.items():
            if value != theirs[name]:
                raise InvalidInputError(
                    f"{self.file.source}: tune.{name}: the store {self.store.url} has a search of this sweep with another value; only the "
                    "budget can change. Give the sweep another name, or use another store"
                )

    def _digest(self, name: str) -> str:
        if name not in self._digests:
            self._digests[name] = input_digest(name, to_plan(self.file))
        return self._digests[name]

    def _halving(self) -> HalvingLike | None:
        from kd_ray.tuning.tune_search import Halving

        halving = Halving(self.tuning.scheduler, most_epochs(self.file)) if self.tuning.scheduler else None
        self._rungs: Sequence[int] = halving.rungs if halving else ()
        return halving

    def _make(self, number: int, settings: Mapping[str, Any]) -> Candidate:
        made = self._made.get(number)
        if made is None or made.settings != settings:
            made = self._made[number] = make_candidate(self.file, number, settings, self._digest)
        return made

    def replay(self, *, retry_failed: bool = False) -> Replayed:
        """The search as the store knows it now; with `retry_failed`, the errors of its failed trials are deleted first."""
        from kd_ray.tuning.tune_search import make_searcher

        found = replay(
            self.tuning,
            make_searcher(self.tuning),
            self._halving(),
            self._make,
            self.values,
            sign=sign_of(self.tuning),
        )
        failed = [one.candidate for one in found.placed if one.state == "failed" and one.candidate.problem is None]
        if not (retry_failed and failed):
            return found
        for trial in (trial for one in failed for trial in (*one.teachers, *one.trials)):
            ledger.clear_error(self.store, trial.trial_id)
        return self.replay(retry_failed=retry_failed)

    def requested(self, replayed: Replayed) -> RequestedTrials:
        """The trials that have to be trained further, with their teachers."""
        trials: dict[str, PlannedTrial] = {}
        until: dict[str, int] = {}
        for one in replayed.placed:
            candidate = one.candidate
            if candidate.number not in replayed.to_run:
                continue
            trials |= {teacher.trial_id: teacher for teacher in candidate.teachers}
            rung = replayed.to_run[candidate.number]
            for trial in candidate.trials:
                trials.setdefault(trial.trial_id, trial)
                if rung is None:
                    until[trial.trial_id] = trial.spec.epochs
                else:
                    until[trial.trial_id] = max(until.get(trial.trial_id, 0), candidate.until(trial, rung))
        until = {trial_id: epoch for trial_id, epoch in until.items() if epoch < trials[trial_id].spec.epochs}
        states = ledger.scan(self.store, list(trials))
        complete = frozenset(id_ for id_, status in states.items() if status.state is TrialState.COMPLETE)
        return RequestedTrials(
            trials=tuple(trials.values()),
            to_run=tuple(trial for trial in trials.values() if trial.trial_id not in complete),
            complete=complete,
            until=until,
            retries_failed=False,
        )

    def plan(self, replayed: Replayed, requested: RequestedTrials) -> Plan:
        """All trials of the search so far, for the manifest and the display."""
        trials = {
            trial.trial_id: trial
            for one in reversed(replayed.placed)
            for trial in (*one.candidate.teachers, *one.candidate.trials)
        }
        planned = tuple(reversed(trials.values()))
        return Plan(
            sweep=f"{self.file.sweep.name}{SUFFIX}",
            store=self.store.url,
            trials=planned_lines(self.store, planned),
            planned=planned,
            pack_size=1,
            not_run=frozenset(trials) - {trial.trial_id for trial in requested.to_run},
            num_dropped=0,
            advice=None,
            weights=dict(self._digests),
        )

    def write_table(self, replayed: Replayed) -> Outcome:
        """Bring the table `tuning` up to date."""
        outcome = outcome_of(self.file, replayed, self.values)
        write_table(self.store, outcome)
        return outcome

    def repair(self, request: LaunchRequest) -> bool:
        """Quarantine damaged records and stops, so that their trials run again; returns whether there was one."""
        damaged, self.values.damaged = self.values.damaged, set()
        stops, self.values.damaged_stops = self.values.damaged_stops, set()
        for trial_id in damaged:
            if quarantine_trial(self.store, trial_id, launch_id=ledger.new_launch_id()):
                request.warnings.add(f"the record of {trial_id} is damaged and quarantined; the trial is trained again")
        for trial_id, epoch in stops:
            key = stop_key(trial_id, epoch)
            if (data := self.store.get(key)) is None:
                continue
            # A checkpoint of a later epoch cannot say how the trial did at this one.
            for checkpoint in trial_objects(self.store, trial_id).checkpoints:
                self.store.delete(checkpoint.item.key)
            quarantine(self.store, key, data)
            request.warnings.add(f"{key} is damaged and quarantined; the trial is trained to epoch {epoch} again")
        return bool(damaged or stops)
