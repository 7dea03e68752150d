"""Last step of a launch: bring the tables up to date, quarantine damaged records, and report how the launch ended."""

import time
from dataclasses import dataclass
from pathlib import Path

from kd_ray.cluster.launch_request import LaunchRequest, RequestedTrials
from kd_ray.cluster.runner import cpu_count
from kd_ray.data.families import load_dataset
from kd_ray.distill.stored_samples import samples_of
from kd_ray.results import ledger
from kd_ray.results.aggregate import AggregateReport, aggregate
from kd_ray.results.quarantine import quarantine_trial, trial_damage
from kd_ray.results.record import write_samples
from kd_ray.results.status import TrialLine, count_states, planned_lines, states_html
from kd_ray.sweep.spec import TrialState


@dataclass(frozen=True, kw_only=True)
class LaunchReport:
    """How a launch ended."""

    sweep: str
    store: str
    trials: tuple[TrialLine, ...]
    """The requested trials, as they are in the store at the end."""
    seeds: tuple[int, ...]
    """The sweep's seeds."""
    has_settings: bool
    """Whether the grid has axes without a column of their own."""
    is_selection: bool
    """Whether only some of the sweep's trials were requested."""
    num_trained: int
    """Trials that became complete during this launch."""
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


def update_tables(request: LaunchRequest) -> AggregateReport:
    """Bring the tables of the sweep up to date."""
    return aggregate(request.store, request.file.sweep.name)


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
            # Another launch has quarantined it already; this one runs the trial or waits for it all the same.
            has_changed = True
    placement = request.file.sweep.placement
    datasets = {trial.spec.dataset_id: trial.spec.dataset for trial in requested.trials}
    for dataset_id in tables.damaged_samples:
        if dataset := datasets.get(dataset_id):
            data = load_dataset(
                dataset, Path(placement.data_root), processes=cpu_count(), resident_bytes=placement.resident_bytes
            )
            write_samples(store, dataset_id, samples_of(dataset, data))
            request.warnings.add(
                f"the samples of data set {dataset_id} were missing or damaged; they are written again"
            )
            has_changed = True
    return has_changed


def report(
    request: LaunchRequest, requested: RequestedTrials, tables: AggregateReport, *, started: float
) -> LaunchReport:
    """How the launch ended; `requested` as its first check found them, `started` on the monotonic clock."""
    trials = planned_lines(request.store, requested.trials)
    return LaunchReport(
        sweep=request.file.sweep.name,
        store=request.store.url,
        trials=trials,
        seeds=tuple(request.file.axes["seed"]),
        has_settings=any(trial.settings for trial in requested.trials),
        is_selection=request.only is not None,
        num_trained=sum(
            trial.state == TrialState.COMPLETE and trial.trial_id not in requested.complete for trial in trials
        ),
        elapsed_s=time.monotonic() - started,
        interrupted=request.interrupts.requested(),
        problems=tables.problems,
        warnings=request.warnings.warnings,
    )
