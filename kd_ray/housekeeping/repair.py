"""Repairs what `verify` has found: damaged objects go into quarantine, and tables are aggregated again. Nothing is trained or lost.

A trial whose record is in quarantine is pending, so the next launch of its sweep trains it. What another version of kd_ray wrote stays.
"""

from dataclasses import asdict, dataclass
from typing import Any

from kd_ray.errors import CorruptObjectError, InvalidInputError, OtherVersionError, count_of
from kd_ray.housekeeping.problems import Problem, Progress, Remedy, VerifyReport
from kd_ray.results import ledger
from kd_ray.results.aggregate import aggregate
from kd_ray.results.inventory import table_parts
from kd_ray.results.manifest import Manifest, read_manifest
from kd_ray.results.quarantine import quarantine_trial
from kd_ray.results.schema import TABLES
from kd_ray.results.store import Store, pretrained_key, quarantine, record_key, samples_key, table_index_key


@dataclass(frozen=True, kw_only=True)
class RepairReport:
    """What was done."""

    done: tuple[str, ...]
    """One line for each thing that was mended."""
    left: tuple[str, ...]
    """One line for each thing that was not, and why."""
    to_resume: tuple[str, ...]
    """Sweeps that have trials to train again, or inputs to write again."""

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


def repair(store: Store, report: VerifyReport, *, on_progress: Progress | None = None) -> RepairReport:
    """Move damaged objects into quarantine, and aggregate the tables again that follow from them."""
    work = _Repair(store)
    for number, problem in enumerate(report.problems, start=1):
        work.mend(problem)
        if on_progress is not None:
            on_progress("repairs", number, len(report.problems))
    to_resume = [sweep for sweep in report.sweeps if work.finish(sweep)]
    return RepairReport(done=tuple(work.done), left=tuple(work.left), to_resume=tuple(to_resume))


class _Repair:
    """One repair: what has been done so far, and which sweeps it concerns."""

    def __init__(self, store: Store) -> None:
        self.done: list[str] = []
        self.left: list[str] = []
        self._store = store
        self._launch_id = ledger.new_launch_id()
        self._again: set[str] = set()
        self._lost: set[str] = set()
        self._rebuild: set[str] = set()

    def mend(self, problem: Problem) -> None:
        """Apply the remedy of a problem."""
        match problem.remedy:
            case Remedy.TRAIN:
                self._train_again(problem)
            case Remedy.QUARANTINE:
                self._lost.add(problem.key)
                data = self._store.get(problem.key)
                if data is not None and (kept := quarantine(self._store, problem.key, data)):
                    self.done.append(f"{problem.key}: moved into quarantine as {kept}")
            case Remedy.REBUILD:
                # While the index names the part, an aggregation would not read it.
                self._store.delete(problem.key)
                self._rebuild.add(problem.owner)
            case Remedy.RESTORE:
                self._store.put_new(problem.key, read_manifest(self._store, problem.owner).sweep_yaml.encode())
                self.done.append(f"{problem.key}: written again")
            case _:
                self.left.append(f"{problem.key}: {problem.what}")

    def _train_again(self, problem: Problem) -> None:
        trial_id = problem.owner
        if quarantine_trial(self._store, trial_id, launch_id=self._launch_id):
            self._again.add(trial_id)
            self.done.append(f"{record_key(trial_id)}: moved into quarantine; the next launch trains the trial again")
        elif trial_id not in self._again:
            self.left.append(f"{problem.key}: left alone: a launch is training its trial, or has repaired it already")

    def finish(self, sweep: str) -> bool:
        """Bring the tables of a sweep up to date; says whether it has something to launch for."""
        try:
            manifest = read_manifest(self._store, sweep)
            is_short = bool(self._again & {trial.trial_id for trial in manifest.active})
            if sweep in self._rebuild or is_short:
                self.done.append(_rebuilt(self._store, sweep))
        except (CorruptObjectError, OtherVersionError, InvalidInputError) as error:
            self.left.append(f"tables of sweep {sweep}: {error}")
            return False
        return is_short or bool(self._lost & _inputs(manifest))


def rebuild_tables(store: Store, sweep: str) -> str:
    """Delete the tables of a sweep and aggregate them again from the records; returns the result in a sentence.

    Raises:
        InvalidInputError: the store has no such sweep.
    """
    read_manifest(store, sweep)
    store.delete(table_index_key(sweep))
    for part in table_parts(store, sweep=sweep):
        if part.place.table in TABLES:
            store.delete(part.item.key)
    return _rebuilt(store, sweep)


def _rebuilt(store: Store, sweep: str) -> str:
    report = aggregate(store, sweep)
    lacking = f"; {len(report.problems)} could not be read" if report.problems else ""
    return f"tables of sweep {sweep}: rebuilt from {count_of(report.num_trials, 'trial')}{lacking}"


def _inputs(manifest: Manifest) -> set[str]:
    """Keys of what a launch of the sweep writes again."""
    samples = {samples_key(trial.dataset_id) for trial in manifest.trials}
    return samples | {pretrained_key(digest) for digest in manifest.stored_weights}
