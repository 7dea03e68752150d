"""Is everything in the store what was written? `verify` reads it all and names what is not; `repair` mends what can be mended.

What is checked: every record whole, with its weights and against its samples; the checkpoints of unfinished trials; given weights; samples;
manifests; and the tables, which are folded anew into memory and compared row by row. A part that a fold has not reached yet is no damage;
it is named unless a launch is at work, whose fold will come.

`repair` sets what is damaged aside, never deletes it, and trains nothing: a trial whose record is set aside is pending, and the next launch
of its sweep trains it. What another version of kd_ray wrote is named and left as it is.
"""

import functools
import json
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import pyarrow as pa

from kd_ray.errors import CorruptObjectError, InvalidInputError, OtherVersionError
from kd_ray.housekeeping.rehearsal import BEHIND, Rehearsal
from kd_ray.results import ledger
from kd_ray.results.checkpoints import list_checkpoints
from kd_ray.results.manifest import Manifest, read_manifest
from kd_ray.results.record import Record, Samples, read_record, read_samples, sha256
from kd_ray.results.repair import set_aside_trial
from kd_ray.results.schema import TABLES
from kd_ray.results.store import (
    DAMAGED,
    DATASETS,
    SWEEPS,
    TABLES_FOLDER,
    TRIALS,
    Store,
    StoredObject,
    fold_index_key,
    given_weights_key,
    manifest_folder,
    manifest_key,
    part_key,
    record_key,
    samples_key,
    sweep_key,
    trial_of,
)
from kd_ray.results.tables import fold
from kd_ray.sweep.spec import TrialState

Progress = Callable[[str, int, int], None]
"""Told what is looked at, how many are done, and how many there are."""
_READERS = 8


class Remedy(StrEnum):
    """What `repair` does about a problem."""

    TRAIN = "train again"
    """Set the record aside."""
    SET_ASIDE = "set aside"
    REBUILD = "rebuild"
    """Fold the tables of the sweep again."""
    RESTORE = "restore"
    """Write the sweep file again, from the manifest."""
    NONE = "none"
    """It needs a person."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """An object that is not what it should be."""

    key: str
    what: str
    remedy: Remedy
    owner: str = ""
    """The trial that is trained again, or the sweep whose tables are rebuilt."""


@dataclass(frozen=True, kw_only=True)
class VerifyReport:
    """What was looked at, and what was found."""

    store: str
    asked: tuple[str, ...]
    """The sweep that was asked for; empty for the whole store."""
    sweeps: tuple[str, ...]
    num_records: int
    num_checked: int
    """Objects that were read, records and their weights included."""
    problems: tuple[Problem, ...]
    num_set_aside: int
    """Objects that were set aside before."""

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


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


def verify(
    store: Store, sweep: str | None = None, *, with_tables: bool = True, on_progress: Progress | None = None
) -> VerifyReport:
    """Read everything that belongs to a sweep, or everything in the store.

    Raises:
        InvalidInputError: the store has no such sweep.
    """
    return _Verification(store, sweep, on_progress or (lambda *_: None)).run(with_tables=with_tables)


class _Verification:
    """One look at the store, or at the part of it that a sweep needs."""

    def __init__(self, store: Store, sweep: str | None, on_progress: Progress) -> None:
        self._store = store
        self._on_progress = on_progress
        self._problems: list[Problem] = []
        self._num_checked = 0
        self._num_records = 0
        self._is_whole_store = sweep is None
        self._manifests: dict[str, Manifest] = {}
        self._sweeps = tuple(_folders(store)) if sweep is None else (read_sweep_name(store, sweep),)
        self._samples: Callable[[str], Samples | None] = functools.cache(self._read_samples)

    def run(self, *, with_tables: bool) -> VerifyReport:
        """Inputs first, then trials, then what is derived from them."""
        for name in self._sweeps:
            self._check_manifests(name)
        self._check_given_weights()
        items = self._trial_items()
        for dataset_id in self._dataset_ids():
            self._samples(dataset_id)
        self._each("trials", items.items(), lambda entry: list(self._check_trial(*entry)))
        if with_tables:
            for done, (name, manifest) in enumerate(self._manifests.items(), start=1):
                self._problems += self._check_tables(name, manifest)
                self._on_progress("tables of sweeps", done, len(self._manifests))
        return VerifyReport(
            store=self._store.url,
            asked=() if self._is_whole_store else self._sweeps,
            sweeps=self._sweeps,
            num_records=self._num_records,
            num_checked=self._num_checked,
            problems=tuple(dict.fromkeys(self._problems)),
            num_set_aside=sum(1 for _ in self._store.entries(DAMAGED)),
        )

    def _each(self, what: str, entries: Iterable[Any], check: Callable[[Any], list[Problem]]) -> None:
        entries = list(entries)
        with ThreadPoolExecutor(max_workers=_READERS) as pool:
            for done, problems in enumerate(pool.map(check, entries), start=1):
                self._problems += problems
                self._on_progress(what, done, len(entries))

    # --- what a sweep asked for -----------------------------------------------------------------------------------------------------

    def _check_manifests(self, sweep: str) -> None:
        keys = sorted(item.key for item in self._store.entries(manifest_folder(sweep)) if Path(item.key).stem.isdigit())
        damaged = {}
        for key in keys:
            self._num_checked += 1
            data = self._store.get(key)
            if data is None:
                continue
            try:
                manifest = Manifest.from_json(data)
                if (manifest.sweep, manifest.generation) != (sweep, int(Path(key).stem)):
                    damaged[key] = f"it is the manifest {manifest.generation} of sweep {manifest.sweep}"
                    continue
                self._manifests[sweep] = manifest
            except OtherVersionError as error:
                self._add(key, str(error))
            except (ValueError, KeyError, TypeError) as error:
                damaged[key] = f"it is not a whole manifest: {error}"
        if not keys and any(True for _ in self._store.entries(f"{SWEEPS}/{sweep}")):
            self._add(manifest_folder(sweep), f"sweep {sweep} has no manifest; launching its sweep file writes one")
        # The last resort stays where it is: without any, `resume` goes by the sweep file beside it.
        remedy = Remedy.SET_ASIDE if sweep in self._manifests else Remedy.NONE
        for key, what in damaged.items():
            newest = self._manifests.get(sweep)
            hint = "; an older one holds until the sweep file is launched again"
            is_newer = newest is not None and key > manifest_key(sweep, newest.generation)
            self._add(key, what + hint * is_newer, remedy, owner=sweep)
        if sweep in self._manifests and not self._store.exists(sweep_key(sweep)):
            self._add(sweep_key(sweep), "it is missing; the manifest holds a copy", Remedy.RESTORE, owner=sweep)
        index = self._store.get(fold_index_key(sweep))
        if index is not None and not _is_index(index):
            what = "it is not a whole index of the tables"
            self._add(fold_index_key(sweep), what, Remedy.REBUILD, owner=sweep)

    def _add(self, key: str, what: str, remedy: Remedy = Remedy.NONE, *, owner: str = "") -> None:
        self._problems.append(Problem(key=key, what=what, remedy=remedy, owner=owner))

    def _check_given_weights(self) -> None:
        wanted = {given_weights_key(digest) for found in self._manifests.values() for digest in found.weights.values()}
        there = {item.key for item in self._store.entries("weights")}
        for key in wanted - there:
            self._add(key, "these given weights are missing; a launch on a machine that has the file writes them again")
        self._each("given weights", there if self._is_whole_store else wanted & there, self._check_given)

    def _check_given(self, key: str) -> list[Problem]:
        self._num_checked += 1
        data = self._store.get(key)
        if data is None or sha256(data) == key.rsplit("/", 1)[1]:
            return []
        return [Problem(key=key, what="its content is not what its name says", remedy=Remedy.SET_ASIDE)]

    # --- samples --------------------------------------------------------------------------------------------------------------------

    def _dataset_ids(self) -> set[str]:
        ids = {trial.dataset_id for found in self._manifests.values() for trial in found.trials}
        there = {item.key.split("/")[1] for item in self._store.entries(DATASETS) if item.key.count("/") == 2}
        return there if self._is_whole_store else ids & there

    def _read_samples(self, dataset_id: str) -> Samples | None:
        """The samples, or None when there are none that can be used; damage is named once."""
        self._num_checked += 1
        key = samples_key(dataset_id)
        try:
            return read_samples(self._store, dataset_id)
        except (CorruptObjectError, TypeError, IndexError) as error:
            self._add(key, _reason(error), Remedy.SET_ASIDE)
        return None

    # --- trials ---------------------------------------------------------------------------------------------------------------------

    def _trial_items(self) -> dict[str, list[StoredObject]]:
        wanted = {trial.trial_id for found in self._manifests.values() for trial in found.trials}
        items: dict[str, list[StoredObject]] = {}
        for item in self._store.entries(TRIALS):
            trial_id, _ = trial_of(item.key)
            if trial_id and (self._is_whole_store or trial_id in wanted):
                items.setdefault(trial_id, []).append(item)
        return items

    def _check_trial(self, trial_id: str, items: list[StoredObject]) -> Iterator[Problem]:
        if not any(item.key == record_key(trial_id) for item in items):
            yield from self._check_checkpoints(trial_id)
            return
        self._num_checked += 1
        try:
            record = read_record(self._store, trial_id)
        except OtherVersionError as error:
            yield Problem(key=record_key(trial_id), what=_reason(error), remedy=Remedy.NONE)
            return
        except CorruptObjectError as error:
            yield Problem(key=record_key(trial_id), what=_reason(error), remedy=Remedy.TRAIN, owner=trial_id)
            return
        if record is not None:
            self._num_records += 1
            yield from self._check_weights(record)
            yield from self._check_predictions(record)

    def _check_weights(self, record: Record) -> Iterator[Problem]:
        self._num_checked += 1
        weights = self._store.get(record.weights_key)
        if weights is None:
            what = f"it is missing, and the record of {record.trial_id} names it"
        elif sha256(weights) != record.weights_sha256:
            what = f"it is not what the record of {record.trial_id} names"
        else:
            return
        yield Problem(key=record.weights_key, what=what, remedy=Remedy.TRAIN, owner=record.trial_id)

    def _check_predictions(self, record: Record) -> Iterator[Problem]:
        dataset_id = record.spec.dataset_id
        samples = self._samples(dataset_id)
        if samples is None:
            if not self._store.exists(samples_key(dataset_id)):
                what = "these samples are missing; the next launch writes them again"
                yield Problem(key=samples_key(dataset_id), what=what, remedy=Remedy.SET_ASIDE)
            return
        n = len(samples.labels_N)
        lengths = {len(record.predictions_N), len(record.confidences_N), len(record.true_probabilities_N)}
        lengths |= {len(values_N) for values_N in record.per_sample.values()}
        if lengths != {n}:
            what = f"it predicts {sorted(lengths)} samples, and data set {dataset_id} has {n}"
            yield Problem(key=record_key(record.trial_id), what=what, remedy=Remedy.NONE)

    def _check_checkpoints(self, trial_id: str) -> Iterator[Problem]:
        for found in list_checkpoints(self._store, trial_id):
            self._num_checked += 1
            data = self._store.get(found.key)
            # One that has gone since the listing was superseded.
            if data is not None and sha256(data)[:16] != found.digest:
                what = "its content is not what its name says; the checkpoint before it is used"
                yield Problem(key=found.key, what=what, remedy=Remedy.SET_ASIDE)

    # --- tables ---------------------------------------------------------------------------------------------------------------------

    def _check_tables(self, sweep: str, manifest: Manifest) -> list[Problem]:
        running = self._is_running(manifest)
        rehearsal = Rehearsal(self._store, sweep)
        try:
            report = fold(rehearsal, sweep)
        except (CorruptObjectError, OtherVersionError, pa.ArrowException, ValueError, LookupError) as error:
            what = f"the tables of sweep {sweep} cannot be checked: {_reason(error)}"
            return [Problem(key=f"{TABLES_FOLDER}/*/sweep={sweep}", what=what, remedy=Remedy.NONE)]
        # The trials and data sets that it could not read have been named; where they stood is the business of the fold after the repair.
        found = rehearsal.compare()
        self._num_checked += len(found)
        is_behind = running or self._is_running(manifest) or bool(report.problems)
        return [
            Problem(key=key, what=verdict, remedy=Remedy.REBUILD, owner=sweep)
            for key, verdict in found.items()
            if verdict and not (is_behind and verdict in BEHIND)
        ]

    def _is_running(self, manifest: Manifest) -> bool:
        states = ledger.scan(self._store, [trial.trial_id for trial in manifest.active]).values()
        return any(status.state is TrialState.RUNNING for status in states)


def read_sweep_name(store: Store, sweep: str) -> str:
    """The name, if the store has such a sweep, with a manifest that can be read or without.

    Raises:
        InvalidInputError: it has not; the message names those it has.
    """
    try:
        read_manifest(store, sweep)
    except (CorruptObjectError, OtherVersionError):
        return sweep
    return sweep


def _folders(store: Store) -> list[str]:
    """Sweeps of which there is anything; the empty folder of an interrupted first write is none."""
    return sorted({item.key.split("/")[1] for item in store.entries(SWEEPS) if item.key.count("/") >= 2})


def _is_index(data: bytes) -> bool:
    try:
        index = json.loads(data)
    except ValueError:
        return False
    return isinstance(index, dict) and all(isinstance(tags, list) and len(tags) == 2 for tags in index.values())


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())


# --- mending --------------------------------------------------------------------------------------------------------------------------


def repair(store: Store, report: VerifyReport, *, on_progress: Progress | None = None) -> RepairReport:
    """Set what is damaged aside, and fold the tables that follow from it again."""
    mending = _Mending(store)
    for number, problem in enumerate(report.problems, start=1):
        mending.mend(problem)
        if on_progress is not None:
            on_progress("repairs", number, len(report.problems))
    to_resume = [sweep for sweep in report.sweeps if mending.finish(sweep)]
    return RepairReport(done=tuple(mending.done), left=tuple(mending.left), to_resume=tuple(to_resume))


class _Mending:
    """What has been done so far, and what follows from it."""

    def __init__(self, store: Store) -> None:
        self.done: list[str] = []
        self.left: list[str] = []
        self._store = store
        self._launch_id = ledger.new_launch_id()
        self._again: set[str] = set()
        self._lost: set[str] = set()
        self._rebuild: set[str] = set()

    def mend(self, problem: Problem) -> None:
        """Do about a problem what can be done."""
        match problem.remedy:
            case Remedy.TRAIN:
                self._train_again(problem)
            case Remedy.SET_ASIDE:
                self._lost.add(problem.key)
                data = self._store.get(problem.key)
                if data is not None and (kept := self._store.set_aside(problem.key, data)):
                    self.done.append(f"{problem.key}: set aside as {kept}")
            case Remedy.REBUILD:
                # Or the index would vouch for it, and the fold would pass it over.
                self._store.delete(problem.key)
                self._rebuild.add(problem.owner)
            case Remedy.RESTORE:
                self._store.put_new(problem.key, read_manifest(self._store, problem.owner).sweep_yaml.encode())
                self.done.append(f"{problem.key}: written again")
            case _:
                self.left.append(f"{problem.key}: {problem.what}")

    def _train_again(self, problem: Problem) -> None:
        trial_id = problem.owner
        if set_aside_trial(self._store, trial_id, launch_id=self._launch_id):
            self._again.add(trial_id)
            self.done.append(f"{record_key(trial_id)}: set aside; the next launch trains the trial again")
        elif trial_id not in self._again:
            self.left.append(f"{problem.key}: left alone: a launch is at work on its trial, or has mended it already")

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
    """Throw the tables of a sweep away and fold them again from the records; says what became of it.

    Raises:
        InvalidInputError: the store has no such sweep.
    """
    read_manifest(store, sweep)
    folders = {part_key(name, sweep, 0).rsplit("/", 1)[0] for name in TABLES}
    store.delete(fold_index_key(sweep))
    for item in store.entries(TABLES_FOLDER):
        if item.key.rsplit("/", 1)[0] in folders:
            store.delete(item.key)
    return _rebuilt(store, sweep)


def _rebuilt(store: Store, sweep: str) -> str:
    report = fold(store, sweep)
    lacking = f"; {len(report.problems)} could not be read" if report.problems else ""
    return f"tables of sweep {sweep}: rebuilt from {report.num_trials} trials{lacking}"


def _inputs(manifest: Manifest) -> set[str]:
    """Keys of what a launch of the sweep writes again."""
    samples = {samples_key(trial.dataset_id) for trial in manifest.trials}
    return samples | {given_weights_key(digest) for digest in manifest.weights.values()}
