"""Aggregates records into the Parquet tables that people query.

The rows of a trial stand in exactly one part of each table: the position of the trial in the manifest, divided by `TRIALS_PER_PART`. When
the set of committed trials of a part changes, the part is rebuilt from the records and written in one atomic write. A reader never sees a
row twice or half a trial. Tables can be deleted: the next aggregation rebuilds them.

Each part carries a fingerprint of everything its rows depend on, including the e_tag of every record. An index keeps the fingerprint and
the e_tag of each part, so an aggregation that has nothing to do reads the index and four listings. A part that was deleted, overwritten or
damaged since has another e_tag and is checked.
"""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Annotated

import pyarrow as pa
from pydantic import Field

from kd_ray.bounded import MEGABYTE, JsonForm
from kd_ray.errors import CorruptObjectError, OtherVersionError, StoreError
from kd_ray.results.comparison_schema import CHANCE_LEVELS, COMPARISONS
from kd_ray.results.inventory import Entry, committed, sweep_names, take_inventory
from kd_ray.results.manifest import Manifest, ManifestTrial, read_manifest
from kd_ray.results.read_once import RecordsRead, SamplesRead
from kd_ray.results.record import Record, Samples, decode_table, misfit
from kd_ray.results.rows import TrialInput, part_rows, sample_rows
from kd_ray.results.schema import TABLES
from kd_ray.results.store import DATASETS, TABLES_FOLDER, Kind, Store, part_key, table_index_key
from kd_ray.results.table_form import columns_digest, has_this_form, write_form
from kd_ray.results.table_parts import FINGERPRINT, encode_part
from kd_ray.sweep.tuning_settings import is_tuning

logger = logging.getLogger("kd_ray")

TRIALS_PER_PART = 256
_READERS = 8
_MOST_PASSES = 3
"""Passes of an aggregation that settles; more would only follow a launch that is still committing."""


@dataclass(frozen=True, kw_only=True)
class AggregateReport:
    """What an aggregation did."""

    num_trials: int
    """Committed trials of the sweep that the tables hold now."""
    num_parts_written: int
    problems: tuple[str, ...] = ()
    """What could not be read, and so is missing from the tables."""
    damaged_trials: tuple[str, ...] = ()
    """trial_ids of records that could not be read."""
    damaged_samples: tuple[str, ...] = ()
    """dataset_ids of samples that could not be read."""


def aggregate(
    store: Store,
    sweep: str,
    *,
    settle: bool = True,
    trials_per_part: int = TRIALS_PER_PART,
    records_read: RecordsRead | None = None,
    records: Mapping[str, str] | None = None,
) -> AggregateReport:
    """Bring the tables of a sweep up to date with its newest manifest and the committed trials.

    Who aggregates again and again passes the same `records_read`, so that a record is read once. Who has just listed the records of the
    sweep passes their e_tags by trial_id as `records`; they are listed again if a part has to be made.

    Two launches may aggregate at the same time. With `settle`, each repeats its listing after its last write, so the last writer leaves the
    newest state. While trials are being committed there is always something new, so a running launch passes `settle=False` and lists once.

    Raises:
        InvalidInputError: the store has no such sweep.
    """
    passes = _MOST_PASSES if settle else 1
    report, has_former = aggregate_alone(
        store, sweep, passes=passes, trials_per_part=trials_per_part, records_read=records_read, records=records
    )
    if has_former or not has_this_form(store):
        upgrade_tables(store, but=sweep)
    return report


def aggregate_alone(
    store: Store,
    sweep: str,
    *,
    passes: int = _MOST_PASSES,
    trials_per_part: int = TRIALS_PER_PART,
    records_read: RecordsRead | None = None,
    records: Mapping[str, str] | None = None,
) -> tuple[AggregateReport, bool]:
    """As `aggregate`, without the tables of other sweeps; also whether other sweeps have tables where kd_ray 0.1 put them."""
    if is_tuning(sweep):  # its candidates are in the table `tuning`, which `kd-ray tune` writes
        return AggregateReport(num_trials=0, num_parts_written=0), False
    written = 0
    for _ in range(passes):
        listed, records = committed(store) if records is None else records, None
        aggregation = _Aggregation(store, read_manifest(store, sweep), trials_per_part, records_read, listed)
        report = aggregation.run()
        written += report.num_parts_written
        if not report.num_parts_written or report.problems:
            break
    mine = [entry.item.key for entry in aggregation.former_parts if entry.place.sweep == sweep]
    for key in mine:
        store.delete(key)
    # A launch that still commits after the last pass also runs its own aggregation.
    return replace(report, num_parts_written=written), len(aggregation.former_parts) > len(mine)


_FORMER = "its tables have the form of kd_ray 0.1"
_ADVICE = "let a user who may write to the store run `kd-ray query` once"


def upgrade_tables(store: Store, *, but: str = "") -> None:
    """Aggregate the sweeps whose tables an older kd_ray has written, but for one that is up to date; nothing to do in other stores.

    Such tables have other columns, or lie where kd_ray 0.1 put them. The new parts are written first, so that an interrupted upgrade is
    repeated. What `kd-ray compare` had made, it makes again. A store that cannot be written keeps tables that only lack columns.

    Raises:
        StoreError: the store cannot be written, and has tables of kd_ray 0.1.
    """
    found = take_inventory(store, TABLES_FOLDER)
    older = list(found.former_parts)
    if not has_this_form(store):
        older += [entry for entry in found.parts if entry.place.table in TABLES]
    if not older:
        return
    try:
        left = _upgrade(store, [entry for entry in older if entry.place.sweep != but], sweep_names(store))
        write_form(store, but=left)
    except StoreError as error:
        if not found.former_parts:
            logger.warning("the tables keep the columns of an older kd_ray: %s", error)
            return
        raise StoreError(f"store {store.url}: {_FORMER} and cannot be replaced: {error}; {_ADVICE}") from error


def refuse_former_parts(store: Store) -> None:
    """For readers that write nothing: raises StoreError where tables lie where kd_ray 0.1 put them."""
    if take_inventory(store, TABLES_FOLDER, keep=lambda place: place.kind is Kind.FORMER_PART).former_parts:
        raise StoreError(f"store {store.url}: {_FORMER}; {_ADVICE}")


def _upgrade(store: Store, older: Sequence[Entry], known: Sequence[str]) -> list[str]:
    """Aggregate the sweeps of these parts; returns those whose parts stay as they are."""
    left = []
    for sweep in sorted({entry.place.sweep for entry in older}):
        if sweep in known:
            try:
                aggregate_alone(store, sweep)
            except (CorruptObjectError, OtherVersionError) as error:
                logger.warning("the tables of sweep %s stay as an older kd_ray wrote them: %s", sweep, error)
                left.append(sweep)
        else:
            left.append(sweep)
            for entry in older:
                if entry.place.sweep == sweep and entry.place.kind is Kind.FORMER_PART:
                    store.delete(entry.item.key)
    return left


_Read = tuple[ManifestTrial, Record, Samples]
"""A trial of a part, as it was read."""


class _Aggregation:
    """One pass: a listing of the store, and the parts that have to change."""

    def __init__(
        self,
        store: Store,
        manifest: Manifest,
        trials_per_part: int,
        records_read: RecordsRead | None,
        records: Mapping[str, str],
    ) -> None:
        self._store = store
        self._manifest = manifest
        self._trials_per_part = trials_per_part
        self._records = records
        found = take_inventory(
            store,
            TABLES_FOLDER,
            keep=lambda place: place.sweep == manifest.sweep or place.kind is Kind.FORMER_PART,
        )
        self._present = {entry.item.key: entry.item.e_tag for entry in found.parts}
        self.former_parts = found.former_parts
        self._comparisons = part_key(COMPARISONS.name, manifest.sweep, 0)
        self._known = read_index(store, manifest.sweep)
        self._index: dict[str, list[str]] = {}
        self._samples = SamplesRead(store, manifest.row_settings.added)
        self._records_read = records_read or RecordsRead()
        self._num_trials = 0
        self._written = 0
        self._damaged_trials: dict[str, str] = {}
        self._damaged_samples: dict[str, str] = {}
        self._lost_features: dict[str, str] = {}
        self._problems: list[str] = []

    def run(self) -> AggregateReport:
        """Rebuild the parts that are out of date, delete those without trials, write the index."""
        trials = self._manifest.trials
        size = self._trials_per_part
        parts = [trials[i : i + size] for i in range(0, len(trials), size)]
        for number, part in enumerate(parts):
            self._bring_up_to_date(number, [it for it in part if it.active and it.trial_id in self._records])
        self._bring_samples_up_to_date()
        # Chance levels belong to single trials, so that they hold whatever other trials do.
        made_by_compare = {self._comparisons, part_key(CHANCE_LEVELS.name, self._manifest.sweep, 0)}
        for key in set(self._present) - set(self._index) - made_by_compare:
            self._changes_a_part()
            self._store.delete(key)
        if self._index != self._known:
            self._store.put(table_index_key(self._manifest.sweep), json.dumps(self._index).encode())
        return AggregateReport(
            num_trials=self._num_trials,
            num_parts_written=self._written,
            problems=(
                *self._damaged_trials.values(),
                *self._damaged_samples.values(),
                *self._lost_features.values(),
                *self._problems,
            ),
            damaged_trials=tuple(self._damaged_trials),
            damaged_samples=tuple(self._damaged_samples),
        )

    def _bring_up_to_date(self, number: int, trials: list[ManifestTrial]) -> None:
        keys = {name: part_key(name, self._manifest.sweep, number) for name in TABLES if name != "samples"}
        wanted = self._fingerprint(trials) if trials else None
        if not all(self._is_up_to_date(key, wanted) for key in keys.values()):
            trials = self._write_part(keys, trials)
        self._num_trials += len(trials)

    def _is_up_to_date(self, key: str, wanted: str | None) -> bool:
        """Whether a part has the wanted rows; a part that is not in the index as it is now is read and checked."""
        there = self._present.get(key)
        if wanted is None or there is None:
            return wanted is None and there is None
        known = self._known.get(key, ["", ""])
        if known != [wanted, there] and (known[1] == there or _fingerprint_of_part(self._store, key) != wanted):
            return False
        self._index[key] = [wanted, there]
        return True

    def _write_part(self, keys: Mapping[str, str], trials: list[ManifestTrial]) -> list[ManifestTrial]:
        """Rebuild one part of every table from the records; returns the trials it holds."""
        self._changes_a_part()
        read: list[_Read] = []
        with ThreadPoolExecutor(max_workers=_READERS) as pool:
            records = pool.map(self._try_read, trials)
            for trial, record in zip(trials, records, strict=True):
                samples = self._samples_of(trial.dataset_id)
                if record is None or samples is None:
                    continue
                if (what := misfit(record, samples)) is not None:
                    self._problems.append(f"trial {trial.trial_id} {what}; the tables lack this trial")
                    continue
                read.append((trial, record, samples))
        encoded, held, fingerprint = self._encoded(read)
        if held:
            self._store.at_once(lambda name: self._put_part(keys[name], encoded[name], fingerprint), keys)
        else:
            for key in keys.values():
                self._drop_part(key)
        # Arrow keeps freed memory for its next table, and a long launch aggregates seldom.
        pa.default_memory_pool().release_unused()
        return held

    def _encoded(self, read: list[_Read]) -> tuple[dict[str, bytes], list[ManifestTrial], str]:
        """The part of each table with these trials, the trials that have rows, and their fingerprint.

        A record may be whole and still not be one that rows can be made of. Tables are encoded one after another, because one alone may
        take 100 MB.
        """
        settings, sweep = self._manifest.row_settings, self._manifest.sweep
        held = [trial for trial, _, _ in read]
        fingerprint = self._fingerprint(held)
        try:
            tables = part_rows(map(_input, read), settings)
            return {name: encode_part(table, name, sweep, fingerprint) for name, table in tables}, held, fingerprint
        except (ValueError, KeyError, TypeError, IndexError, ArithmeticError, pa.ArrowException):
            fitting = []
            for one in read:
                trial = one[0]
                try:
                    dict(part_rows([_input(one)], settings))
                    fitting.append(one)
                except (ValueError, KeyError, TypeError, IndexError, ArithmeticError, pa.ArrowException) as error:
                    reason = " ".join(str(error).split())[:300]
                    self._problems.append(f"trial {trial.trial_id} gives no rows: {reason}; the tables lack this trial")
            if len(fitting) == len(read):
                raise
            return self._encoded(fitting)

    def _try_read(self, trial: ManifestTrial) -> Record | None:
        try:
            # A record that was deleted since the listing counts as not committed.
            return self._records_read.read(self._store, trial.trial_id, self._records[trial.trial_id])
        except CorruptObjectError as error:
            self._damaged_trials[trial.trial_id] = f"{error}; the tables lack this trial"
        except OtherVersionError as error:
            self._problems.append(f"{error}; the tables lack this trial")
        return None

    def _samples_of(self, dataset_id: str) -> Samples | None:
        try:
            return self._samples[dataset_id]
        except CorruptObjectError as error:
            # What was added to the samples cannot be made again by loading the data set.
            found = self._lost_features if self._samples.is_whole(dataset_id) else self._damaged_samples
            found[dataset_id] = f"{error}; the tables lack its trials"
            return None

    def _bring_samples_up_to_date(self) -> None:
        """One part of the `samples` table for each data set with a committed trial."""
        there = take_inventory(self._store, DATASETS).samples
        in_use = {trial.dataset_id for trial in self._manifest.active if trial.trial_id in self._records}
        for number, dataset_id in enumerate(dict.fromkeys(trial.dataset_id for trial in self._manifest.trials)):
            key = part_key("samples", self._manifest.sweep, number)
            e_tag = there[dataset_id].e_tag if dataset_id in there else None
            added = "".join(f" {table.digest}" for table in self._manifest.row_settings.added)
            facts = f"{columns_digest()} {self._manifest.sweep} {dataset_id} {e_tag}{added}"
            wanted = facts if dataset_id in in_use else None
            if self._is_up_to_date(key, wanted):
                continue
            self._changes_a_part()
            samples = self._samples_of(dataset_id) if wanted is not None else None
            if wanted is None or samples is None:
                self._drop_part(key)
            else:
                rows = sample_rows(dataset_id, samples, self._manifest.sweep)
                self._put_part(key, encode_part(rows, "samples", self._manifest.sweep, wanted), wanted)

    def _changes_a_part(self) -> None:
        """Delete the comparisons before the first part changes, so that after a crash none is left that describes other trials."""
        self._written += 1
        if self._comparisons in self._present:
            self._store.delete(self._comparisons)
            del self._present[self._comparisons]

    def _put_part(self, key: str, data: bytes, fingerprint: str) -> None:
        self._index[key] = [fingerprint, self._store.put(key, data)]

    def _drop_part(self, key: str) -> None:
        self._index.pop(key, None)
        if key in self._present:
            self._store.delete(key)
            del self._present[key]

    def _fingerprint(self, trials: Sequence[ManifestTrial]) -> str:
        """Stands for everything a part's rows depend on."""
        lines = [[it.trial_id, dict(it.settings), it.dataset_id, self._records[it.trial_id]] for it in trials]
        content = json.dumps([columns_digest(), asdict(self._manifest.row_settings), lines], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]


def _input(read: _Read) -> TrialInput:
    trial, record, samples = read
    return TrialInput(record, samples, trial.settings, trial.dataset_id)


def read_index(store: Store, sweep: str) -> dict[str, list[str]]:
    """[fingerprint, e_tag] by part; empty when there is no index, or it cannot be read."""
    try:
        return INDEX.read(store.get(table_index_key(sweep), most_bytes=INDEX.most_bytes) or b"{}")
    except (ValueError, CorruptObjectError):
        return {}


INDEX: JsonForm[dict[str, list[str]]] = JsonForm(
    kind=dict[str, Annotated[list[str], Field(min_length=2, max_length=2)]], most_bytes=256 * MEGABYTE
)
"""The index of a sweep's tables."""


def _fingerprint_of_part(store: Store, key: str) -> str | None:
    """The fingerprint of a part; None when there is no part, or it is damaged."""
    try:
        metadata = decode_table(store.get(key) or b"").schema.metadata or {}
        return str(metadata.get(FINGERPRINT, b"").decode())
    except (pa.ArrowException, OSError, ValueError):
        return None
