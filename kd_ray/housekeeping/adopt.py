"""Merges another store into this one: records with all they need, and the sweeps that asked for them.

Each committed trial is read whole and checked first. Then come its pretrained weights, its samples, its weights, and last its record,
which is created only if absent and under the trial's lease: a merge that was interrupted continues when it is run again, no record is ever
overwritten, and a launch that trains the same trial here keeps it. Everything goes through `Store`, so the two may be of different kinds.

A sweep that is not here is taken over. One that is here already is continued: the trials of both, those of this store at their positions.
Its sweep file becomes one grid with the values of both, if that grid asks for these trials and no others; otherwise it stays, and a warning
says what that means. Two sweeps of one name that compare different groups are refused before anything is written.
"""

import threading
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from kd_ray.errors import CorruptObjectError, InvalidInputError, KdRayError, OtherVersionError, count_of
from kd_ray.housekeeping.adopt_search import copy_search
from kd_ray.results import ledger
from kd_ray.results.aggregate import aggregate
from kd_ray.results.declared import united_declared
from kd_ray.results.inventory import committed, sweep_names, trial_objects
from kd_ray.results.manifest import FoundManifest, Manifest, ManifestTrial, find_manifest, read_manifest
from kd_ray.results.record import Record, commit_record, read_record, read_samples, sha256, write_samples
from kd_ray.results.store import Store, features_key, manifest_key, pretrained_key, sweep_key, weights_key
from kd_ray.results.store_proof import prove_store
from kd_ray.sweep.load import SweepFile, parse_sweep
from kd_ray.sweep.plan import expand
from kd_ray.sweep.tuning_settings import is_tuning

Progress = Callable[[str, int, int], None]
"""Told what is done, how many are done, and how many there are."""
_COPIERS = 8


@dataclass(frozen=True, kw_only=True)
class AdoptReport:
    """What was merged, or would be."""

    source: str
    target: str
    is_dry_run: bool
    adopted: tuple[str, ...]
    """trial_ids of the records that are here now and were not before."""
    present: tuple[str, ...]
    """trial_ids of those that were here already, with the same predictions."""
    different: tuple[str, ...]
    """trial_ids of those that were here already, with other predictions; this store keeps its own."""
    skipped: Mapping[str, str]
    """Why a trial of the other store was left where it is, by trial_id."""
    sweeps: tuple[str, ...]
    """Sweeps whose manifest is new or continued."""
    problems: tuple[str, ...]
    """What else could not be taken over."""
    warnings: tuple[str, ...]
    """What to know before the next launch."""

    @property
    def is_incomplete(self) -> bool:
        """Whether anything was left out, or is not the same in both stores."""
        return bool(self.skipped or self.different or self.problems)

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


def adopt(
    source: Store,
    target: Store,
    *,
    sweep: str | None = None,
    dry_run: bool = False,
    on_progress: Progress | None = None,
) -> AdoptReport:
    """Merge the committed trials and the sweeps of `source`, or of one of its sweeps, into `target`.

    Raises:
        InvalidInputError: the stores are one, `source` has no such sweep or nothing at all, or two sweeps of one name compare different
            groups. Nothing has been written then.
    """
    if source.url == target.url:
        raise InvalidInputError(
            f"store {source.url}: it cannot be merged into itself; --store names the one to merge into"
        )
    return _Merge(source, target, dry_run=dry_run, on_progress=on_progress or (lambda *_: None)).run(sweep)


class _Merge:
    """One merge, and its result so far."""

    def __init__(self, source: Store, target: Store, *, dry_run: bool, on_progress: Progress) -> None:
        self._source = source
        self._target = target
        self._dry_run = dry_run
        self._on_progress = on_progress
        self._launch_id = ledger.new_launch_id()
        self._lock = threading.Lock()
        self._num_samples: dict[str, int | str] = {}
        self._pretrained_errors: dict[str, str] = {}
        self._outcome: dict[str, list[str]] = {"adopted": [], "present": [], "different": []}
        self._skipped: dict[str, str] = {}
        self._problems: list[str] = []
        self._warnings: list[str] = []

    def run(self, sweep: str | None) -> AdoptReport:
        """Check everything, then trials, sweeps and tables."""
        manifests = self._manifests(sweep)
        for name, theirs in manifests.items():
            _check_groups(self._source, self._target, theirs, find_manifest(self._target, name))
        trials = sorted(committed(self._source))
        if sweep is not None:
            listed = {trial.trial_id for trial in manifests[sweep].trials}
            trials = [trial_id for trial_id in trials if trial_id in listed]
        if not trials and not manifests:
            raise InvalidInputError(f"store {self._source.url}: it holds neither trials nor sweeps")
        if not self._dry_run:
            prove_store(self._target)
        with ThreadPoolExecutor(max_workers=_COPIERS) as pool:
            for done, _ in enumerate(pool.map(self._trial, trials), start=1):
                self._on_progress("trials", done, len(trials))
        changed = [name for name, theirs in manifests.items() if self._sweep(theirs)]
        if not self._dry_run:
            for theirs in manifests.values():
                self._problems += copy_search(self._source, self._target, theirs, self._samples)
            self._aggregate(set(manifests))
        adopted, present, different = (tuple(sorted(found)) for found in self._outcome.values())
        return AdoptReport(
            source=self._source.url,
            target=self._target.url,
            is_dry_run=self._dry_run,
            adopted=adopted,
            present=present,
            different=different,
            skipped=dict(sorted(self._skipped.items())),
            sweeps=tuple(changed),
            problems=tuple(self._problems),
            warnings=tuple(self._warnings),
        )

    def _manifests(self, sweep: str | None) -> dict[str, Manifest]:
        if sweep is not None:
            return {sweep: read_manifest(self._source, sweep)}
        found = {}
        for name in sweep_names(self._source):
            try:
                found[name] = read_manifest(self._source, name)
            except KdRayError as error:
                self._problems.append(f"sweep {name} is left where it is: {error}")
        return found

    # --- trials ---------------------------------------------------------------------------------------------------------------------

    def _trial(self, trial_id: str) -> None:
        try:
            outcome = self._adopt(trial_id)
        except (CorruptObjectError, OtherVersionError) as error:
            self._skipped[trial_id] = " ".join(str(error).split())
        else:
            self._outcome[outcome].append(trial_id)

    def _adopt(self, trial_id: str) -> str:
        """Adopt one trial; raises CorruptObjectError or OtherVersionError when it is left where it is."""
        record = read_record(self._source, trial_id)
        if record is None:
            raise CorruptObjectError(f"store {self._source.url}: the record of {trial_id} has disappeared")
        mine = read_record(self._target, trial_id)
        if mine is not None:
            return "present" if np.array_equal(mine.test.predictions_N, record.test.predictions_N) else "different"
        weights = self._source.get(record.weights_key)
        if weights is None or sha256(weights) != record.weights_sha256:
            raise CorruptObjectError(f"store {self._source.url}: {record.weights_key!r} is not what its record names")
        num_samples = self._samples(record.spec.dataset_id)
        if len(record.test.predictions_N) != num_samples:
            raise CorruptObjectError(
                f"store {self._source.url}: {trial_id} predicts {len(record.test.predictions_N)} samples of {num_samples}"
            )
        for digest in record.spec.given_files:
            self._take_pretrained(digest)
        if not self._dry_run and not self._commit(record, weights):
            raise CorruptObjectError(f"store {self._target.url}: {trial_id} is in training there; adopt again later")
        return "adopted"

    def _commit(self, record: Record, weights: bytes) -> bool:
        """Weights, then the record; False when a launch is training the trial."""
        trial_id = record.trial_id
        lease = ledger.acquire(self._target, trial_id, launch_id=self._launch_id)
        taken = max(trial_objects(self._target, trial_id).weights, default=0)
        if lease is not None and lease.generation <= taken:
            # The writer of those weights may still be running; ours get a name of their own.
            lease = ledger.acquire(self._target, trial_id, launch_id=self._launch_id, after=taken)
        if lease is None:
            return False
        key = weights_key(trial_id, lease.generation)
        self._target.put(key, weights, durable=True)
        if not commit_record(self._target, replace(record, weights_key=key)):
            self._target.delete(key)
        ledger.remove(self._target, lease)
        return True

    def _samples(self, dataset_id: str) -> int:
        """How many test samples a data set has; they are in the target from now on."""
        with self._lock:
            if dataset_id not in self._num_samples:
                self._num_samples[dataset_id] = self._copy_samples(dataset_id)
            found = self._num_samples[dataset_id]
        if isinstance(found, str):
            raise CorruptObjectError(found)
        return found

    def _copy_samples(self, dataset_id: str) -> int | str:
        try:
            samples = read_samples(self._source, dataset_id)
            if samples is None:
                return f"store {self._source.url}: the samples of data set {dataset_id} are missing"
            if not self._dry_run:
                write_samples(self._target, dataset_id, samples)
        except CorruptObjectError as error:
            return str(error)
        return len(samples.labels_N)

    def _take_pretrained(self, digest: str) -> None:
        """Copy pretrained weights, once."""
        with self._lock:
            if digest not in self._pretrained_errors:
                self._pretrained_errors[digest] = self._copy_pretrained(digest)
        if self._pretrained_errors[digest]:
            raise CorruptObjectError(self._pretrained_errors[digest])

    def _copy_pretrained(self, digest: str) -> str:
        """Copy pretrained weights; returns the reason when that is impossible."""
        key = pretrained_key(digest)
        if self._target.exists(key):
            return ""
        data = self._source.get(key)
        if data is None or sha256(data) != digest:
            return f"store {self._source.url}: {key!r} is missing, or not what its name says"
        if not self._dry_run:
            self._target.put_new(key, data)
        return ""

    # --- sweeps ---------------------------------------------------------------------------------------------------------------------

    def _sweep(self, theirs: Manifest) -> bool:
        """Take a sweep over, or continue the one here; says whether its manifest changed."""
        for digest in sorted(theirs.stored_weights):
            try:
                self._take_pretrained(digest)
            except CorruptObjectError as error:
                self._problems.append(f"sweep {theirs.sweep}: {error}")
        for table in theirs.row_settings.added:
            data = self._source.get(features_key(table.digest))
            if data is None:
                self._problems.append(
                    f"sweep {theirs.sweep}: the added features {', '.join(table.features)} are missing"
                )
            elif not self._dry_run:
                self._target.put_new(features_key(table.digest), data)
        while True:
            found = find_manifest(self._target, theirs.sweep)
            # A launch may have written one since the first look.
            _check_groups(self._source, self._target, theirs, found)
            manifest, warnings = _united(found, theirs)
            is_changed = found.manifest is None or replace(manifest, generation=found.newest) != found.manifest
            if not is_changed or self._dry_run:
                break
            if self._target.put_new(manifest_key(manifest.sweep, manifest.generation), manifest.to_json()):
                self._target.put(sweep_key(manifest.sweep), manifest.sweep_yaml.encode())
                break
        if not self._dry_run and not is_changed:
            # An interrupted merge may have written the manifest without the sweep file.
            self._target.put_new(sweep_key(manifest.sweep), manifest.sweep_yaml.encode())
        self._warnings += warnings
        return is_changed

    def _aggregate(self, sweeps: Collection[str]) -> None:
        """The tables of the sweeps that were merged, and of all others here that ask for an adopted trial."""
        adopted = set(self._outcome["adopted"])
        names = sweep_names(self._target)
        for done, name in enumerate(names, start=1):
            try:
                lines = read_manifest(self._target, name).trials
                if name in sweeps or adopted & {line.trial_id for line in lines}:
                    self._problems += aggregate(self._target, name).problems
            except (CorruptObjectError, OtherVersionError) as error:
                self._problems.append(f"tables of sweep {name} are not up to date: {error}")
            self._on_progress("tables of sweeps", done, len(names))


def _check_groups(source: Store, target: Store, theirs: Manifest, found: FoundManifest) -> None:
    mine = found.manifest
    if mine is None or mine.row_settings == theirs.row_settings:
        return
    raise InvalidInputError(
        f"sweep {theirs.sweep}: the two stores compare different groups under this name: "
        f"{_groups(theirs)} in {source.url}, {_groups(mine)} in {target.url}; "
        f"make them the same with `kd-ray resume {theirs.sweep} --set …` in one of the stores, or choose sweeps with --sweep"
    )


def _groups(manifest: Manifest) -> str:
    crossed = [list(features) for features in manifest.row_settings.intersections]
    return f"sensitive_features {list(manifest.row_settings.sensitive_features)} and intersections {crossed}"


def _united(found: FoundManifest, theirs: Manifest) -> tuple[Manifest, list[str]]:
    """What the target's sweep asks for from now on, and warnings if its sweep file does not ask for all of it."""
    mine = found.manifest
    if mine is None:
        return replace(theirs, generation=found.newest + 1), []
    lines = {line.trial_id: line for line in theirs.trials}
    kept = [_continued(line, lines.pop(line.trial_id, None)) for line in mine.trials]
    trials = (*kept, *lines.values())
    united = replace(
        mine,
        generation=found.newest + 1,
        weights={**theirs.weights, **mine.weights},
        trials=trials,
        declared=united_declared(mine.declared, theirs.declared),
        former_datasets=tuple(dict.fromkeys([*mine.former_datasets, *theirs.former_datasets])),
    )
    warnings = _claim_warnings(mine, united)
    if is_tuning(mine.sweep):
        return united, warnings
    wanted = {line.trial_id for line in united.active}
    for text in _candidates(mine, theirs):
        if wanted in _asked_for(text, united.weights):
            return replace(united, sweep_yaml=text), warnings
    only_theirs = len(wanted - {line.trial_id for line in mine.active})
    warnings.append(
        f"sweep {mine.sweep}: no single grid asks for just the trials of both stores, so its sweep file stays as it is; "
        f"its next launch asks for what that file says, and its tables lose {count_of(only_theirs, 'trial')} then (the records stay)"
    )
    return united, warnings


def _claim_warnings(mine: Manifest, united: Manifest) -> list[str]:
    own = {it.sha256 for it in mine.declared if not it.is_withdrawn}
    missing = [it for it in united.declared if not it.is_withdrawn and it.sha256 not in own]
    return [
        f"sweep {mine.sweep}: its sweep file lacks a claim of the other store, and its next launch withdraws it: {it.to_claim().text()}"
        for it in missing
    ]


def _continued(mine: ManifestTrial, theirs: ManifestTrial | None) -> ManifestTrial:
    """The line of a trial; it is active if either sweep asks for it."""
    return replace(mine, active=mine.active or (theirs is not None and theirs.active))


def _candidates(mine: Manifest, theirs: Manifest) -> list[str]:
    """Sweep files that may ask for the trials of both: ours, or ours with the values of both grids."""
    candidates = [mine.sweep_yaml]
    try:
        file, other = (parse_sweep(one.sweep_yaml, source=one.sweep) for one in (mine, theirs))
    except KdRayError:
        return candidates
    if _settings(file) == _settings(other) and file.raw["grid"].keys() == other.raw["grid"].keys():
        grid = {
            axis: [*values, *(value for value in other.raw["grid"][axis] if value not in values)]
            for axis, values in file.raw["grid"].items()
        }
        candidates.append(replace(file, raw={**file.raw, "grid": grid}).to_yaml())
    return candidates


def _settings(file: SweepFile) -> dict[str, Any]:
    """Everything but the grid, what is claimed of it, how its settings are found, and where it runs."""
    left_out = ("grid", "placement", "claims", "tune", "tuned")
    return {name: value for name, value in file.raw.items() if name not in left_out}


def _asked_for(text: str, weights: Mapping[str, str]) -> list[set[str]]:
    """trial_ids that a sweep file asks for, as they are now and as they were in kd_ray 0.1; none when they cannot be told."""
    try:
        file = parse_sweep(text, source="sweep")
        return [
            {trial.trial_id for trial in expand(file, weights.__getitem__, groups_in_id=is_former)}
            for is_former in (False, True)
        ]
    except (KdRayError, KeyError):
        return []
