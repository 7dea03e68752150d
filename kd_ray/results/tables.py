"""Folds records into the Parquet tables that people query.

A trial's rows stand in exactly one part of each table: the part is its position in the manifest divided by `TRIALS_PER_PART`. A part is
rebuilt whole from the records whenever its set of committed trials changed, and put in one atomic write, so a reader never sees a row twice
or half a trial. Tables can be thrown away: the next fold rebuilds them.

Each part carries a fold key, which stands for everything its rows depend on, down to the e_tag of every record. An index remembers the fold
key and the e_tag of each part, so a fold that has nothing to do reads the index and four listings. Whatever was deleted, overwritten or
damaged since has another e_tag and is looked at.
"""

import functools
import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace

import pyarrow as pa

from kd_ray.errors import CorruptObjectError, OtherVersionError
from kd_ray.results.manifest import Manifest, ManifestTrial, read_manifest
from kd_ray.results.record import Record, Samples, decode_table, encode_table, read_record, read_samples
from kd_ray.results.rows import part_rows, sample_rows
from kd_ray.results.schema import COMPARISONS, QUERIED, TABLES
from kd_ray.results.store import (
    DATASETS,
    RECORD_NAME,
    TABLES_FOLDER,
    TRIALS,
    Store,
    fold_index_key,
    part_key,
    samples_key,
    table_folder,
    trial_of,
)

TRIALS_PER_PART = 256
FOLD_VERSION = 2
"""Raised when the same record gives other rows."""

_FOLD_KEY = b"kd_ray_fold"
_READERS = 8
_LOOKS = 3


@dataclass(frozen=True, kw_only=True)
class FoldReport:
    """What a fold did."""

    num_trials: int
    """Committed trials of the sweep that the tables hold now."""
    num_parts_written: int
    problems: tuple[str, ...] = ()
    """What could not be read, and so is missing from the tables."""
    damaged_trials: tuple[str, ...] = ()
    """trial_ids of records that could not be read."""
    damaged_samples: tuple[str, ...] = ()
    """dataset_ids of samples that could not be read."""


def committed(store: Store) -> dict[str, str]:
    """The e_tag of every record by trial_id, from one listing."""
    found = ((trial_of(item.key), item.e_tag) for item in store.entries(TRIALS))
    return {trial_id: e_tag for (trial_id, name), e_tag in found if name == RECORD_NAME}


def fold(store: Store, sweep: str, *, settle: bool = True) -> FoldReport:
    """Bring the tables of a sweep up to date with its newest manifest and the committed trials.

    Two launches may fold at the same time. To `settle`, each looks again after its last write, so whoever writes last leaves the newest
    state. A fold while trials are being committed would never get there, and looks once.

    Raises:
        InvalidInputError: the store has no such sweep.
    """
    written = 0
    for _ in range(_LOOKS if settle else 1):
        report = _Fold(store, read_manifest(store, sweep), committed(store)).run()
        written += report.num_parts_written
        if not report.num_parts_written or report.problems:
            break
    # Whoever commits on and on folds, too.
    return replace(report, num_parts_written=written)


class _Fold:
    """One look at the store, and what it calls for."""

    def __init__(self, store: Store, manifest: Manifest, records: Mapping[str, str]) -> None:
        self._store = store
        self._manifest = manifest
        self._records = records
        self._present = {
            item.key: item.e_tag for item in store.entries(TABLES_FOLDER) if f"/sweep={manifest.sweep}/" in item.key
        }
        self._comparisons = part_key(COMPARISONS.name, manifest.sweep, 0)
        self._known = read_index(store, manifest.sweep)
        self._index: dict[str, list[str]] = {}
        self._samples = _SamplesCache(store)
        self._num_trials = 0
        self._written = 0
        self._damaged_trials: dict[str, str] = {}
        self._damaged_samples: dict[str, str] = {}
        self._problems: list[str] = []

    def run(self) -> FoldReport:
        """Rebuild what is not up to date, drop what has no place, remember what was done."""
        trials = self._manifest.trials
        parts = [trials[i : i + TRIALS_PER_PART] for i in range(0, len(trials), TRIALS_PER_PART)]
        for number, part in enumerate(parts):
            self._bring_up_to_date(
                number, [trial for trial in part if trial.active and trial.trial_id in self._records]
            )
        self._bring_samples_up_to_date()
        for key in set(self._present) - set(self._index) - {self._comparisons}:
            self._changes_a_part()
            self._store.delete(key)
        if self._index != self._known:
            self._store.put(fold_index_key(self._manifest.sweep), json.dumps(self._index).encode())
        return FoldReport(
            num_trials=self._num_trials,
            num_parts_written=self._written,
            problems=(*self._damaged_trials.values(), *self._damaged_samples.values(), *self._problems),
            damaged_trials=tuple(self._damaged_trials),
            damaged_samples=tuple(self._damaged_samples),
        )

    def _bring_up_to_date(self, number: int, trials: list[ManifestTrial]) -> None:
        keys = {name: part_key(name, self._manifest.sweep, number) for name in TABLES if name != "samples"}
        wanted = self._fold_key(trials) if trials else None
        if not all(self._is_up_to_date(key, wanted) for key in keys.values()):
            trials = self._write_part(keys, trials)
        self._num_trials += len(trials)

    def _is_up_to_date(self, key: str, wanted: str | None) -> bool:
        """Whether a part is what it should be; a part that the index does not vouch for is read and checked."""
        there = self._present.get(key)
        if wanted is None or there is None:
            return wanted is None and there is None
        known = self._known.get(key, ["", ""])
        if known != [wanted, there] and (known[1] == there or _whole_part_fold_key(self._store, key) != wanted):
            return False
        self._index[key] = [wanted, there]
        return True

    def _write_part(self, keys: Mapping[str, str], trials: list[ManifestTrial]) -> list[ManifestTrial]:
        """Rebuild one part of every table from the records; returns the trials it holds."""
        self._changes_a_part()
        folded: list[tuple[ManifestTrial, Record, Samples]] = []
        with ThreadPoolExecutor(max_workers=_READERS) as pool:
            records = pool.map(self._try_read, trials)
            for trial, record in zip(trials, records, strict=True):
                samples = self._samples_of(trial.dataset_id)
                if record is None or samples is None:
                    continue
                if len(record.predictions_N) != len(samples.labels_N):
                    self._problems.append(
                        f"trial {trial.trial_id} predicts {len(record.predictions_N)} test samples, and its data set has "
                        f"{len(samples.labels_N)}; the tables lack this trial"
                    )
                    continue
                folded.append((trial, record, samples))
        held = [trial for trial, _, _ in folded]
        if not held:
            for key in keys.values():
                self._drop_part(key)
            return held
        tables = part_rows(
            ((record, samples, trial.settings) for trial, record, samples in folded), self._manifest.fold
        )
        fold_key = self._fold_key(held)
        for name, key in keys.items():
            self._put_part(key, tables[name], fold_key)
        # Arrow keeps what it has freed for its next table, which in a long launch is seldom.
        del tables
        pa.default_memory_pool().release_unused()
        return held

    def _try_read(self, trial: ManifestTrial) -> Record | None:
        try:
            # One that has disappeared since the listing is simply not committed any more.
            return read_record(self._store, trial.trial_id)
        except CorruptObjectError as error:
            self._damaged_trials[trial.trial_id] = f"{error}; the tables lack this trial"
        except OtherVersionError as error:
            self._problems.append(f"{error}; the tables lack this trial")
        return None

    def _samples_of(self, dataset_id: str) -> Samples | None:
        try:
            return self._samples[dataset_id]
        except CorruptObjectError as error:
            self._damaged_samples[dataset_id] = f"{error}; the tables lack its trials"
            return None

    def _bring_samples_up_to_date(self) -> None:
        """One part of the `samples` table for each data set with a committed trial."""
        there = {item.key: item.e_tag for item in self._store.entries(DATASETS)}
        in_use = {trial.dataset_id for trial in self._manifest.active if trial.trial_id in self._records}
        for number, dataset_id in enumerate(dict.fromkeys(trial.dataset_id for trial in self._manifest.trials)):
            key = part_key("samples", self._manifest.sweep, number)
            e_tag = there.get(samples_key(dataset_id))
            wanted = f"{FOLD_VERSION} {self._manifest.sweep} {dataset_id} {e_tag}" if dataset_id in in_use else None
            if self._is_up_to_date(key, wanted):
                continue
            self._changes_a_part()
            samples = self._samples_of(dataset_id) if wanted is not None else None
            if wanted is None or samples is None:
                self._drop_part(key)
            else:
                self._put_part(key, sample_rows(dataset_id, samples, self._manifest.sweep), wanted)

    def _changes_a_part(self) -> None:
        """What was made from the parts goes before the first of them changes, so that a crash leaves no comparison of other trials."""
        self._written += 1
        if self._comparisons in self._present:
            self._store.delete(self._comparisons)
            del self._present[self._comparisons]

    def _put_part(self, key: str, table: pa.Table, fold_key: str) -> None:
        e_tag = self._store.put(key, encode_table(table.replace_schema_metadata({_FOLD_KEY: fold_key})))
        self._index[key] = [fold_key, e_tag]

    def _drop_part(self, key: str) -> None:
        self._index.pop(key, None)
        if key in self._present:
            self._store.delete(key)
            del self._present[key]

    def _fold_key(self, trials: Sequence[ManifestTrial]) -> str:
        """Stands for everything a part's rows depend on."""
        lines = [[trial.trial_id, dict(trial.settings), self._records[trial.trial_id]] for trial in trials]
        content = json.dumps([FOLD_VERSION, _schemas(), asdict(self._manifest.fold), lines], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]


def read_table(store: Store, table: str, sweeps: Collection[str] | None = None) -> pa.Table:
    """All rows of a table, or those of some sweeps.

    Raises:
        CorruptObjectError: a part cannot be read; the next fold rebuilds it.
    """
    parts = [_read_part(store, key) for key in part_keys(store, table, sweeps)]
    return pa.concat_tables([QUERIED[table].arrow_schema.empty_table(), *parts])


def part_keys(store: Store, table: str, sweeps: Collection[str] | None = None) -> Iterator[str]:
    """Keys of the parts of a table, in order."""
    prefixes = None if sweeps is None else {part_key(table, sweep, 0).rsplit("/", 1)[0] for sweep in sweeps}
    for item in sorted(store.entries(table_folder(table)), key=lambda item: item.key):
        if item.key.endswith(".parquet") and (prefixes is None or item.key.rsplit("/", 1)[0] in prefixes):
            yield item.key


def _read_part(store: Store, key: str) -> pa.Table:
    data = store.get(key)
    try:
        table = decode_table(data or b"")
    except (pa.ArrowException, OSError) as error:
        raise CorruptObjectError(
            f"store {store.url}: {key!r} is not a whole table part, `kd-ray verify --repair` rebuilds it: {error}"
        ) from error
    return table.replace_schema_metadata(None)


class _SamplesCache:
    """Samples by dataset_id, each read once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._samples: dict[str, Samples] = {}

    def __getitem__(self, dataset_id: str) -> Samples:
        if dataset_id not in self._samples:
            samples = read_samples(self._store, dataset_id)
            if samples is None:
                raise CorruptObjectError(f"store {self._store.url}: the samples of data set {dataset_id} are missing")
            self._samples[dataset_id] = samples
        return self._samples[dataset_id]


def read_index(store: Store, sweep: str) -> dict[str, list[str]]:
    """[fold key, e_tag] by part; empty when there is no index, or it cannot be read."""
    try:
        index = json.loads(store.get(fold_index_key(sweep)) or b"{}")
    except ValueError:
        return {}
    return (
        {key: it for key, it in index.items() if isinstance(it, list) and len(it) == 2}
        if isinstance(index, dict)
        else {}
    )


def _whole_part_fold_key(store: Store, key: str) -> str | None:
    """The fold key of a part; None when there is no part, or it is damaged."""
    try:
        metadata = decode_table(store.get(key) or b"").schema.metadata or {}
        return str(metadata.get(_FOLD_KEY, b"").decode())
    except (pa.ArrowException, OSError, ValueError):
        return None


@functools.cache
def _schemas() -> str:
    return str({name: str(table.arrow_schema) for name, table in TABLES.items()})
