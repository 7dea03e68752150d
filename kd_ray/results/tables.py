"""Folds records into the Parquet tables that people query.

A trial's rows stand in exactly one part of each table: the part is its position in the manifest divided by `TRIALS_PER_PART`. A part is
rebuilt whole from the records whenever its set of committed trials changed, and put in one atomic write, so a reader never sees a row twice
or half a trial. Tables can be thrown away: the next fold rebuilds them.
"""

import hashlib
import json
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace

import pyarrow as pa
import pyarrow.parquet as pq

from kd_ray.errors import CorruptObjectError
from kd_ray.results.manifest import Manifest, ManifestTrial, read_manifest
from kd_ray.results.record import Record, Samples, decode_table, encode_table, read_record, read_samples
from kd_ray.results.rows import sample_rows, trial_rows
from kd_ray.results.schema import TABLES
from kd_ray.results.store import TRIALS, Store, part_key, record_key, table_folder, trial_of

TRIALS_PER_PART = 256
FOLD_VERSION = 1
"""Raised when the same record gives other rows."""

_FOLD_KEY = b"kd_ray_fold"
_FOOTER_BYTES = 65_536


@dataclass(frozen=True, kw_only=True)
class FoldReport:
    """What a fold did."""

    num_trials: int
    """Committed trials of the sweep that the tables hold now."""
    num_parts_written: int
    problems: tuple[str, ...] = ()
    """Records that could not be read, and so are missing from the tables."""


def committed(store: Store) -> set[str]:
    """trial_ids of all committed trials, from one listing."""
    return {trial_of(item.key)[0] for item in store.entries(TRIALS) if item.key == record_key(trial_of(item.key)[0])}


def fold(store: Store, sweep: str) -> FoldReport:
    """Bring the tables of a sweep up to date with its newest manifest and the committed trials.

    Two launches may fold at the same time. Each looks again after its last write, so whoever writes last leaves the newest state.

    Raises:
        InvalidInputError: the store has no such sweep.
    """
    written = 0
    while True:
        manifest, done = read_manifest(store, sweep), committed(store)
        report = _fold_once(store, manifest, done)
        written += report.num_parts_written
        if not report.num_parts_written or report.problems:
            return replace(report, num_parts_written=written)


def _fold_once(store: Store, manifest: Manifest, done: Collection[str]) -> FoldReport:
    parts = [manifest.trials[i : i + TRIALS_PER_PART] for i in range(0, len(manifest.trials), TRIALS_PER_PART)]
    names = [name for name in TABLES if name != "samples"]
    num_trials, written = 0, 0
    problems: list[str] = []
    for number, part in enumerate(parts):
        trials = [trial for trial in part if trial.active and trial.trial_id in done]
        num_trials += len(trials)
        wanted = _fold_key(manifest, trials) if trials else None
        if all(_part_fold_key(store, part_key(name, manifest.sweep, number)) == wanted for name in names):
            continue
        problems += _write_part(store, manifest, number, trials)
        written += 1
    written += _fold_samples(store, manifest, done)
    return FoldReport(num_trials=num_trials - len(problems), num_parts_written=written, problems=tuple(problems))


def read_table(store: Store, table: str, sweeps: Collection[str] | None = None) -> pa.Table:
    """All rows of a table, or those of some sweeps.

    Raises:
        CorruptObjectError: a part cannot be read; `fold` after deleting it rebuilds it.
    """
    parts = [_read_part(store, key) for key in part_keys(store, table, sweeps)]
    return pa.concat_tables([TABLES[table].arrow_schema.empty_table(), *parts])


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
        raise CorruptObjectError(f"store {store.url}: {key!r} is not a whole table part: {error}") from error
    return table.replace_schema_metadata(None)


def _write_part(store: Store, manifest: Manifest, number: int, trials: list[ManifestTrial]) -> list[str]:
    """Rebuild one part of every table; says what was wrong with records that had to be left out."""
    rows: dict[str, list[pa.Table]] = {name: [] for name in TABLES if name != "samples"}
    folded: list[ManifestTrial] = []
    problems: list[str] = []
    samples = _SamplesCache(store)
    with ThreadPoolExecutor(max_workers=8) as pool:
        records = pool.map(lambda trial: _try_read(store, trial.trial_id), trials)
        for trial, (record, problem) in zip(trials, records, strict=True):
            if record is None:
                problems.append(problem)
                continue
            folded.append(trial)
            for name, table in trial_rows(record, samples[trial.dataset_id], manifest.fold, trial.settings).items():
                rows[name].append(table)
    for name, tables in rows.items():
        key = part_key(name, manifest.sweep, number)
        if folded:
            _put_part(store, key, pa.concat_tables(tables), _fold_key(manifest, folded))
        else:
            store.delete(key)
    return problems


def _try_read(store: Store, trial_id: str) -> tuple[Record | None, str]:
    try:
        record = read_record(store, trial_id)
    except CorruptObjectError as error:
        return None, f"{error}; the tables lack this trial, and deleting the object lets the next launch train it again"
    return record, "" if record else f"store {store.url}: {record_key(trial_id)!r} disappeared"


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


def _fold_samples(store: Store, manifest: Manifest, done: Collection[str]) -> int:
    """One part of the `samples` table for each data set with a committed trial; returns how many were written."""
    written = 0
    cache = _SamplesCache(store)
    numbers = {
        dataset_id: i for i, dataset_id in enumerate(dict.fromkeys(trial.dataset_id for trial in manifest.trials))
    }
    in_use = {trial.dataset_id for trial in manifest.active if trial.trial_id in done}
    for dataset_id, number in numbers.items():
        key = part_key("samples", manifest.sweep, number)
        wanted = f"{FOLD_VERSION} {dataset_id}" if dataset_id in in_use else None
        if _part_fold_key(store, key) == wanted:
            continue
        if wanted is None:
            store.delete(key)
        else:
            _put_part(store, key, sample_rows(dataset_id, cache[dataset_id], manifest.sweep), wanted)
        written += 1
    return written


def _put_part(store: Store, key: str, table: pa.Table, fold_key: str) -> None:
    store.put(key, encode_table(table.replace_schema_metadata({_FOLD_KEY: fold_key})))


def _part_fold_key(store: Store, key: str) -> str | None:
    """The fold key of a part, from its footer; None when there is no part, or it cannot be read."""
    tail = store.get_tail(key, _FOOTER_BYTES)
    if tail is None:
        return None
    try:
        size = int.from_bytes(tail[-8:-4], "little") + 8
        if size > len(tail):
            tail = store.get_tail(key, size) or b""
        metadata = pq.read_metadata(pa.BufferReader(tail)).metadata or {}
    except (pa.ArrowException, OSError):
        return None
    return str(metadata.get(_FOLD_KEY, b"").decode())


def _fold_key(manifest: Manifest, trials: Sequence[ManifestTrial]) -> str:
    """Stands for everything a part's rows depend on."""
    schemas = {name: str(table.arrow_schema) for name, table in TABLES.items()}
    lines = [[trial.trial_id, dict(trial.settings)] for trial in trials]
    content = json.dumps([FOLD_VERSION, schemas, asdict(manifest.fold), lines], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]
