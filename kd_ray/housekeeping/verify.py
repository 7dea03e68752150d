"""Checks that everything in a store is what was written: `verify` reads it all and names what is not.

It checks every record with its weights and against its samples; the checkpoints of unfinished trials; pretrained weights; samples;
manifests; and the tables, which `table_check.py` computes again. A table part that the next aggregation will write is not damaged; it is
named unless a launch is running. Files that kd_ray did not write are listed apart, and are no problem. `repair.py` mends what can be
mended.
"""

import functools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from kd_ray.errors import CorruptObjectError, OtherVersionError
from kd_ray.housekeeping.problems import Problem, Progress, Remedy, VerifyReport
from kd_ray.housekeeping.table_check import check_tables
from kd_ray.results import ledger
from kd_ray.results.aggregate import INDEX
from kd_ray.results.checkpoints import stored_checkpoints
from kd_ray.results.inventory import SweepObjects, TrialObjects, take_inventory
from kd_ray.results.manifest import Manifest, read_manifest
from kd_ray.results.record import Record, Samples, misfit, read_record, read_samples, read_stop, sha256
from kd_ray.results.store import (
    Store,
    manifest_folder,
    manifest_key,
    pretrained_key,
    record_key,
    samples_key,
    sweep_key,
    table_index_key,
)

_READERS = 8


def verify(
    store: Store, sweep: str | None = None, *, with_tables: bool = True, on_progress: Progress | None = None
) -> VerifyReport:
    """Read everything that belongs to a sweep, or everything in the store.

    Raises:
        InvalidInputError: the store has no such sweep.
    """
    return _Verification(store, sweep, on_progress or (lambda *_: None)).run(with_tables=with_tables)


class _Verification:
    """One check of the whole store, or of the objects that one sweep needs."""

    def __init__(self, store: Store, sweep: str | None, on_progress: Progress) -> None:
        self._store = store
        self._on_progress = on_progress
        self._problems: list[Problem] = []
        self._num_checked = 0
        self._num_records = 0
        self._is_whole_store = sweep is None
        self._manifests: dict[str, Manifest] = {}
        # The name of a sweep that the store does not have is refused before anything is listed.
        name = None if sweep is None else read_sweep_name(store, sweep)
        for link in store.leaving_links():
            self._add(link, "it is a link that leaves the store, or is of no use; what lies behind it does not count")
        self._found = take_inventory(store)
        self._sweeps = tuple(sorted(self._found.sweeps)) if name is None else (name,)
        self._samples: Callable[[str], Samples | None] = functools.cache(self._read_samples)

    def run(self, *, with_tables: bool) -> VerifyReport:
        """Inputs first, then trials, then what is derived from them."""
        for name in self._sweeps:
            self._check_manifests(name)
        self._check_pretrained_weights()
        for dataset_id in self._dataset_ids():
            self._samples(dataset_id)
        self._each("trials", self._trials(), lambda entry: list(self._check_trial(*entry)))
        if with_tables:
            for done, (name, manifest) in enumerate(self._manifests.items(), start=1):
                num_parts, problems = check_tables(self._store, name, manifest)
                self._num_checked += num_parts
                self._problems += problems
                self._on_progress("tables of sweeps", done, len(self._manifests))
        return VerifyReport(
            store=self._store.url,
            asked=() if self._is_whole_store else self._sweeps,
            sweeps=self._sweeps,
            num_records=self._num_records,
            num_checked=self._num_checked,
            problems=tuple(dict.fromkeys(self._problems)),
            num_quarantined=len(self._found.quarantined),
            strangers=tuple(self._found.strangers),
        )

    def _each(self, what: str, entries: Iterable[Any], check: Callable[[Any], list[Problem]]) -> None:
        entries = list(entries)
        with ThreadPoolExecutor(max_workers=_READERS) as pool:
            for done, problems in enumerate(pool.map(check, entries), start=1):
                self._problems += problems
                self._on_progress(what, done, len(entries))

    # --- what a sweep asked for -----------------------------------------------------------------------------------------------------

    def _check_manifests(self, sweep: str) -> None:
        objects = self._found.sweeps.get(sweep, SweepObjects())
        damaged = {}
        for generation in sorted(objects.manifests):
            key = manifest_key(sweep, generation)
            self._num_checked += 1
            data = self._store.get(key)
            if data is None:
                continue
            try:
                manifest = Manifest.from_json(data)
                if (manifest.sweep, manifest.generation) != (sweep, generation):
                    damaged[generation] = f"it is the manifest {manifest.generation} of sweep {manifest.sweep}"
                    continue
                self._manifests[sweep] = manifest
            except OtherVersionError as error:
                self._add(key, str(error))
            except ValueError as error:
                damaged[generation] = f"it is not a whole manifest: {error}"
        if not objects.manifests and objects != SweepObjects():
            self._add(manifest_folder(sweep), f"sweep {sweep} has no manifest; launching its sweep file writes one")
        newest = self._manifests.get(sweep)
        # Where no manifest can be read, damaged ones stay in place, so that `resume` finds the sweep and reads its sweep file.
        remedy = Remedy.QUARANTINE if newest is not None else Remedy.NONE
        for generation, what in damaged.items():
            is_newer = newest is not None and generation > newest.generation
            hint = "; an older one holds until the sweep file is launched again" if is_newer else ""
            self._add(manifest_key(sweep, generation), f"{what}{hint}", remedy, owner=sweep)
        if newest is not None and not self._store.exists(sweep_key(sweep)):
            self._add(sweep_key(sweep), "it is missing; the manifest holds a copy", Remedy.RESTORE, owner=sweep)
        index = self._store.get(table_index_key(sweep))
        if index is not None and not _is_index(index):
            what = "it is not a whole index of the tables"
            self._add(table_index_key(sweep), what, Remedy.REBUILD, owner=sweep)

    def _add(self, key: str, what: str, remedy: Remedy = Remedy.NONE, *, owner: str = "") -> None:
        self._problems.append(Problem(key=key, what=what, remedy=remedy, owner=owner))

    def _check_pretrained_weights(self) -> None:
        wanted = {digest for manifest in self._manifests.values() for digest in manifest.stored_weights}
        there = set(self._found.pretrained)
        for digest in wanted - there:
            what = "these pretrained weights are missing; a launch on a machine that has the file writes them again"
            self._add(pretrained_key(digest), what)
        self._each("pretrained weights", there if self._is_whole_store else wanted & there, self._check_pretrained)

    def _check_pretrained(self, digest: str) -> list[Problem]:
        self._num_checked += 1
        data = self._store.get(pretrained_key(digest))
        if data is None or sha256(data) == digest:
            return []
        what = "its content is not what its name says"
        return [Problem(key=pretrained_key(digest), what=what, remedy=Remedy.QUARANTINE)]

    # --- samples --------------------------------------------------------------------------------------------------------------------

    def _dataset_ids(self) -> set[str]:
        ids = {trial.dataset_id for found in self._manifests.values() for trial in found.trials}
        there = set(self._found.samples)
        return there if self._is_whole_store else ids & there

    def _read_samples(self, dataset_id: str) -> Samples | None:
        """The samples, or None when there are none that can be used; damage is named once."""
        self._num_checked += 1
        key = samples_key(dataset_id)
        try:
            return read_samples(self._store, dataset_id)
        except (CorruptObjectError, TypeError, IndexError) as error:
            self._add(key, _reason(error), Remedy.QUARANTINE)
        return None

    # --- trials ---------------------------------------------------------------------------------------------------------------------

    def _trials(self) -> list[tuple[str, TrialObjects]]:
        wanted = {trial.trial_id for found in self._manifests.values() for trial in found.trials}
        trials = self._found.trials.items()
        return [(trial_id, found) for trial_id, found in trials if self._is_whole_store or trial_id in wanted]

    def _check_trial(self, trial_id: str, found: TrialObjects) -> Iterator[Problem]:
        yield from self._check_stops(trial_id, found)
        if found.record is None:
            yield from self._check_checkpoints(found)
            yield from self._check_lease(trial_id, found)
            yield from self._check_error(trial_id, found)
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
                yield Problem(key=samples_key(dataset_id), what=what, remedy=Remedy.QUARANTINE)
            return
        if (wrong := misfit(record, samples)) is not None:
            yield Problem(key=record_key(record.trial_id), what=f"it {wrong}", remedy=Remedy.NONE)

    def _check_stops(self, trial_id: str, found: TrialObjects) -> Iterator[Problem]:
        """What a search has measured in the middle of a training."""
        for epoch, item in found.stops.items():
            self._num_checked += 1
            try:
                read_stop(self._store, trial_id, epoch)
            except (CorruptObjectError, OtherVersionError) as error:
                what = f"{_reason(error)}; the same `kd-ray tune` measures it again"
                yield Problem(key=item.key, what=what, remedy=Remedy.NONE)

    def _check_checkpoints(self, found: TrialObjects) -> Iterator[Problem]:
        for checkpoint in stored_checkpoints(found):
            self._num_checked += 1
            data = self._store.get(checkpoint.key)
            # One that was deleted since the listing has been superseded.
            if data is not None and sha256(data)[:16] != checkpoint.digest:
                what = "its content is not what its name says; the checkpoint before it is used"
                yield Problem(key=checkpoint.key, what=what, remedy=Remedy.QUARANTINE)

    def _check_lease(self, trial_id: str, found: TrialObjects) -> Iterator[Problem]:
        """A lease that needs time to run out. Leases stay where they are: their numbers tell old holders from new ones."""
        newest = ledger.newest_lease(self._store, trial_id, found)
        if newest is None:
            return
        self._num_checked += 1
        if newest.problem:
            what = f"it is not a whole lease, and the next launch replaces it: {newest.problem}"
        elif not (what := newest.wrong_clock()):
            return
        yield Problem(key=newest.item.key, what=what, remedy=Remedy.NONE)

    def _check_error(self, trial_id: str, found: TrialObjects) -> Iterator[Problem]:
        if found.error is None:
            return
        self._num_checked += 1
        if problem := ledger.error_problem(self._store, trial_id):
            yield Problem(
                key=found.error.key, what=f"it is not the cause of a failure: {problem}", remedy=Remedy.QUARANTINE
            )


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


def _is_index(data: bytes) -> bool:
    try:
        INDEX.read(data)
    except ValueError:
        return False
    return True


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())
