"""Last step of a launch: bring the tables up to date, quarantine damaged records, and report how the launch ended."""

import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import pyarrow.compute as pc

from kd_ray.cluster.launch_request import LaunchRequest, RequestedTrials
from kd_ray.data.families import load_dataset
from kd_ray.distill.stored_samples import samples_of
from kd_ray.results import ledger
from kd_ray.results.aggregate import AggregateReport
from kd_ray.results.quarantine import quarantine_trial, trial_damage
from kd_ray.results.record import write_samples
from kd_ray.results.store import samples_key
from kd_ray.results.table_parts import read_columns
from kd_ray.results.trial_lines import TrialLine, count_states, states_html
from kd_ray.sweep.placement import cpu_count
from kd_ray.sweep.spec import TrialState


@dataclass(frozen=True, kw_only=True)
class LaunchReport:
    """How a launch ended."""

    sweep: str
    store: str
    trials: tuple[TrialLine, ...]
    """The requested trials, as they are in the store at the end. In the order of the grid, or of the manifest where nothing was planned."""
    seeds: tuple[int, ...]
    """The sweep's seeds."""
    has_settings: bool
    """Whether the grid has axes without a column of their own."""
    is_selection: bool
    """Whether only some of the sweep's trials were requested."""
    num_trained: int
    """Trials that this launch has trained."""
    num_trained_elsewhere: int
    """Trials that other launches have trained meanwhile."""
    elapsed_s: float
    interrupted: bool
    problems: tuple[str, ...]
    """Unreadable records, whose trials are missing from the tables."""
    warnings: tuple[str, ...]
    """Problems that did not stop the launch."""

    def counts(self) -> dict[str, int]:
        """Trials by state."""
        return count_states(self.trials)

    def _repr_html_(self) -> str:
        """For notebooks: how the trials ended."""
        return states_html(f"sweep {self.sweep}: {self.num_trained} trained in {self.elapsed_s:.0f} s", self.trials)

    @property
    def exit_code(self) -> int:
        """0 all trials are complete, 1 some are not, 130 interrupted."""
        if self.interrupted:
            return 130
        return 0 if all(trial.state == TrialState.COMPLETE for trial in self.trials) and not self.problems else 1


def _trained_elsewhere(request: LaunchRequest) -> set[str]:
    """trial_ids of the trials of the sweep that other launches have trained, from the tables."""
    rows = read_columns(request.store, "trials", request.file.sweep.name, ["trial_id", "launch_id"])
    return set(rows.filter(pc.field("launch_id") != request.launch_id)["trial_id"].to_pylist())


def repair(request: LaunchRequest, requested: RequestedTrials, tables: AggregateReport) -> bool:
    """Quarantine damaged records, so that their trials run again, and write damaged samples anew; returns whether anything has changed."""
    store = request.store
    has_changed = False
    launch_id = ledger.new_launch_id()
    for trial_id, problem in zip(tables.damaged_trials, tables.problems, strict=False):
        if quarantine_trial(store, trial_id, launch_id=launch_id):
            request.warnings.add(f"{problem}; it is quarantined, and the trial is trained again")
            has_changed = True
        elif trial_damage(store, trial_id) is None:
            # Another launch has quarantined it already; this launch also runs the trial, or waits for it.
            has_changed = True
    datasets = {trial.dataset_id: trial.dataset for trial in requested.trials}
    for dataset_id in tables.damaged_samples:
        if dataset := datasets.get(dataset_id):
            is_there = store.exists(samples_key(dataset_id))
            placement = request.local_file.sweep.placement
            data = load_dataset(
                dataset, Path(placement.data_root), processes=cpu_count(), resident_bytes=placement.resident_bytes
            )
            write_samples(store, dataset_id, samples_of(dataset, data))
            what = (
                "were damaged and are written again"
                if is_there
                else "are written, with the groups that are asked for now"
            )
            request.warnings.add(f"the test samples of data set {dataset_id} {what}")
            has_changed = True
    return has_changed


def report(
    request: LaunchRequest,
    tables: AggregateReport,
    trials: tuple[TrialLine, ...],
    *,
    complete_before: Collection[str],
    has_settings: bool,
    started: float,
) -> LaunchReport:
    """How the launch ended, with the `trials` as they are now. `complete_before` are trial_ids, `started` is on the monotonic clock."""
    new = {trial.trial_id for trial in trials if trial.state == TrialState.COMPLETE}.difference(complete_before)
    num_elsewhere = len(new & _trained_elsewhere(request)) if new else 0
    return LaunchReport(
        sweep=request.file.sweep.name,
        store=request.store.url,
        trials=trials,
        seeds=tuple(request.file.axes["seed"]),
        has_settings=has_settings,
        is_selection=request.only is not None,
        num_trained=len(new) - num_elsewhere,
        num_trained_elsewhere=num_elsewhere,
        elapsed_s=time.monotonic() - started,
        interrupted=request.interrupts.requested(),
        problems=tables.problems,
        warnings=request.warnings.warnings,
    )
