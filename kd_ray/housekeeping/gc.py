"""What lies in a store and serves nobody any more: `find_garbage` names it, `collect` deletes it.

A launch may run at the same time, on any machine. Why nothing that it needs can go:

- Nothing younger than `MARGIN_S` is touched, and nothing of a trial that has such an object among its leases: a holder renews its lease
  several times within that span, so the trial may be in training. Before anything is deleted its state is looked at again.
- Complete trials (leases, checkpoints, error, weights of other generations) are cleared under their own lease, and only while the record is
  the very object that was read. So no repair can set the record aside meanwhile, and nobody trains a trial that has a record. A worker that
  froze between its weights and its record finds the record of another and leaves. The lease of the collector is the last to go.
- Leases of a trial without a record are never touched: their number is the fencing token. Were the numbers to start again, a frozen worker
  could pass for the holder, and two workers could train one trial.
- Of an unfinished trial's checkpoints, those go that two newer whole ones make superfluous. Both were read and checked, and only a holder,
  who writes a newer one first, deletes those.
- A manifest goes when two newer ones can be read: readers want the newest, and the numbers continue from the newest.
- Table parts are rebuilt from the records by any fold. A fold writes its index last, so a part that the index does not know may be its
  work: only parts older than `LONG_MARGIN_S` go. Without an index nothing tells, and nothing goes.
- Logits of teachers are a cache: whoever misses them computes them. They go when every student that a sweep asks for is complete.
- Damaged objects go on request only. Those of a trial that is not complete stay: a running launch concludes from them why a record that its
  worker reported is gone.
- Trials of no sweep go on request only, and only while every manifest of the store can be read, which happens again before each of them. A
  launch that begins a sweep with the same trial in that very moment may find it pending again at its end, and the next launch trains it.
- A staging file is where a local store gathers the bytes of one write before it renames it. One that is `LONG_MARGIN_S` old has no writer.
"""

import functools
import re
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

from kd_ray.errors import CorruptObjectError, OtherVersionError
from kd_ray.results import ledger
from kd_ray.results.checkpoints import KEEP, list_checkpoints
from kd_ray.results.manifest import Manifest, find_manifest, sweep_names
from kd_ray.results.record import read_record, sha256
from kd_ray.results.schema import TABLES
from kd_ray.results.store import (
    DAMAGED,
    RECORD_NAME,
    SWEEPS,
    TABLES_FOLDER,
    TEACHERS,
    TRIALS,
    Store,
    StoredObject,
    checkpoint_folder,
    error_key,
    lease_folder,
    lease_key,
    manifest_folder,
    record_key,
    trial_of,
    weights_of,
)
from kd_ray.results.tables import TRIALS_PER_PART, read_index
from kd_ray.sweep.spec import TrialState

MARGIN_S = ledger.LEASE_TTL_S + ledger.CLOCK_SKEW_S
"""Least age of what is deleted: a living holder has renewed its lease since then, even if the store's clock differs from ours."""
LONG_MARGIN_S = 3600.0
"""Least age of what a slow writer may still be about: table parts, staging files."""
KEPT_MANIFESTS = 2
"""Newest readable manifests of a sweep that stay."""
_WORKERS = 8
_PART = re.compile(rf"{TABLES_FOLDER}/(?P<table>\w+)/sweep=(?P<sweep>[^/]+)/part-(?P<part>\d+)\.parquet")
_STAGING = re.compile(r".+#\d+")
"""How obstore's local store names the file of a write that is not finished; its listings pass over them."""


class Kind(StrEnum):
    """What is deleted."""

    LEASES = "leases"
    CHECKPOINTS = "checkpoints"
    ERRORS = "errors"
    WEIGHTS = "weights"
    SUPERSEDED = "old checkpoints"
    MANIFESTS = "old manifests"
    PARTS = "table parts"
    VIEWS = "teachers' logits"
    DAMAGED = "damaged"
    ORPHANS = "trials of no sweep"
    STAGING = "staging files"


REASONS = {
    Kind.LEASES: "their trials are complete",
    Kind.CHECKPOINTS: "their trials are complete",
    Kind.ERRORS: "their trials are complete by now",
    Kind.WEIGHTS: "the records of their trials name others",
    Kind.SUPERSEDED: f"their trials have {KEEP} newer ones that are whole",
    Kind.MANIFESTS: f"their sweeps have {KEPT_MANIFESTS} newer ones",
    Kind.PARTS: "no sweep accounts for them",
    Kind.VIEWS: "no student of these teachers is left to train",
    Kind.DAMAGED: "they were set aside, and no trial waits for another try",
    Kind.ORPHANS: "no manifest lists them",
    Kind.STAGING: "their writers were interrupted",
}
_OF_COMPLETE = {Kind.LEASES, Kind.CHECKPOINTS, Kind.ERRORS, Kind.WEIGHTS}


@dataclass(frozen=True, kw_only=True)
class Garbage:
    """An object that is safe to delete."""

    kind: Kind
    item: StoredObject
    owner: str = ""
    """trial_id or sweep that it belongs to."""
    record_tag: str = ""
    """e_tag of the record that makes it superfluous, for objects of complete trials."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """Garbage of one kind."""

    kind: Kind
    num_objects: int
    size_bytes: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class GarbageReport:
    """What is, or was, safe to delete."""

    store: str
    garbage: tuple[Garbage, ...]
    notes: tuple[str, ...] = ()
    """What was passed over, and why."""

    @property
    def size_bytes(self) -> int:
        """Of all objects together."""
        return sum(found.item.size_bytes for found in self.garbage)

    def groups(self) -> list[Group]:
        """The garbage by kind."""
        return [
            Group(
                kind=kind,
                num_objects=len(items),
                size_bytes=sum(item.size_bytes for item in items),
                reason=REASONS[kind],
            )
            for kind in Kind
            if (items := [found.item for found in self.garbage if found.kind is kind])
        ]

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "store": self.store,
            "num_objects": len(self.garbage),
            "size_bytes": self.size_bytes,
            "objects": [
                {"kind": found.kind.value, "key": found.item.key, "size_bytes": found.item.size_bytes}
                for found in self.garbage
            ],
            "notes": self.notes,
        }


def find_garbage(
    store: Store, *, older_than_s: float = 0.0, with_damaged: bool = False, with_orphans: bool = False
) -> GarbageReport:
    """Everything that is safe to delete now; only reads. Nothing younger than `older_than_s` is named, nor than `MARGIN_S`."""
    return _Search(store, max(older_than_s, MARGIN_S), with_damaged=with_damaged, with_orphans=with_orphans).run()


def collect(
    store: Store, report: GarbageReport, *, on_progress: Callable[[int, int], None] | None = None
) -> GarbageReport:
    """Delete what `find_garbage` named, as far as it is still safe; returns what was deleted."""
    units: dict[tuple[str, str], list[Garbage]] = defaultdict(list)
    for found in report.garbage:
        family = "complete" if found.kind in _OF_COMPLETE else found.kind.value
        units[(family, found.owner or found.item.key)].append(found)
    deleted: list[Garbage] = []
    with ThreadPoolExecutor(max_workers=_WORKERS) as pool:
        for done, gone in enumerate(pool.map(lambda unit: _delete(store, unit), units.values()), start=1):
            deleted += gone
            if on_progress is not None:
                on_progress(done, len(units))
    left = len(report.garbage) - len(deleted)
    notes = (f"{left} objects were left alone: something has changed since they were found",) if left else ()
    return GarbageReport(store=store.url, garbage=tuple(deleted), notes=notes)


# --- finding --------------------------------------------------------------------------------------------------------------------------


class _Search:
    """One look at the whole store."""

    def __init__(self, store: Store, age_s: float, *, with_damaged: bool, with_orphans: bool) -> None:
        self._store = store
        self._age_s = age_s
        self._with_damaged = with_damaged
        self._with_orphans = with_orphans
        self._notes: list[str] = []
        self._trials: dict[str, dict[str, StoredObject]] = defaultdict(dict)
        for item in store.entries(TRIALS):
            trial_id, _ = trial_of(item.key)
            if trial_id:
                self._trials[trial_id][item.key] = item

    def run(self) -> GarbageReport:
        """Every kind, one after another."""
        found = list(self._of_trials())
        found += self._orphans() if self._with_orphans else ()
        for sweep in sweep_names(self._store):
            found += self._manifests(sweep)
        found += self._views()
        found += self._parts()
        found += self._damaged() if self._with_damaged else ()
        found += self._staging()
        return GarbageReport(
            store=self._store.url,
            garbage=tuple({one.item.key: one for one in found if self._is_old(one.item)}.values()),
            notes=tuple(self._notes),
        )

    def _is_old(self, item: StoredObject, age_s: float = 0.0) -> bool:
        return datetime.now(UTC) - item.modified_at > timedelta(seconds=max(self._age_s, age_s))

    def _is_held(self, trial_id: str) -> bool:
        """Whether the trial may be in training."""
        folder = lease_folder(trial_id) + "/"
        leases = [item for key, item in self._trials[trial_id].items() if key.startswith(folder)]
        return not all(datetime.now(UTC) - item.modified_at > timedelta(seconds=MARGIN_S) for item in leases)

    def _of_trials(self) -> Iterator[Garbage]:
        resting = [trial_id for trial_id in self._trials if not self._is_held(trial_id)]
        with ThreadPoolExecutor(max_workers=_WORKERS) as pool:
            for found in pool.map(lambda trial_id: list(self._of_trial(trial_id)), resting):
                yield from found

    def _of_trial(self, trial_id: str) -> Iterator[Garbage]:
        items = self._trials[trial_id]
        if (record := items.get(record_key(trial_id))) is None:
            yield from self._superseded(trial_id)
            return
        for key, item in items.items():
            kind = _kind_of_complete(trial_id, key)
            if kind is not None:
                yield Garbage(kind=kind, item=item, owner=trial_id, record_tag=record.e_tag)
        weights = [item for key, item in items.items() if weights_of(trial_of(key)[1]) is not None]
        if len(weights) > 1:
            named = self._named_weights(trial_id)
            # Where the named ones are missing, `verify` has something to say first.
            if named in items:
                for item in weights:
                    if item.key != named:
                        yield Garbage(kind=Kind.WEIGHTS, item=item, owner=trial_id, record_tag=record.e_tag)

    def _named_weights(self, trial_id: str) -> str | None:
        try:
            record = read_record(self._store, trial_id)
        except (CorruptObjectError, OtherVersionError) as error:
            self._notes.append(f"weights of {trial_id} stay: {error}")
            return None
        return record.weights_key if record else None

    def _superseded(self, trial_id: str) -> Iterator[Garbage]:
        """Checkpoints below the newest whole ones."""
        folder = checkpoint_folder(trial_id) + "/"
        if sum(key.startswith(folder) for key in self._trials[trial_id]) <= KEEP:
            return
        whole = 0
        for found in reversed(list_checkpoints(self._store, trial_id)):
            if whole < KEEP:
                data = self._store.get(found.key)
                whole += data is not None and sha256(data)[:16] == found.digest
            elif found.key in self._trials[trial_id]:
                yield Garbage(kind=Kind.SUPERSEDED, item=self._trials[trial_id][found.key], owner=trial_id)

    def _orphans(self) -> Iterator[Garbage]:
        try:
            listed = _listed_trials(self._store)
        except (CorruptObjectError, OtherVersionError) as error:
            self._notes.append(f"trials of no sweep stay: {error}")
            return
        for trial_id in self._trials.keys() - listed:
            items = self._trials[trial_id].values()
            # All of it or nothing.
            if all(self._is_old(item) for item in items):
                for item in items:
                    yield Garbage(kind=Kind.ORPHANS, item=item, owner=trial_id)

    def _manifests(self, sweep: str) -> Iterator[Garbage]:
        old = _old_manifests(self._store, sweep)
        for item in self._store.entries(manifest_folder(sweep)):
            if item.key in old:
                yield Garbage(kind=Kind.MANIFESTS, item=item, owner=sweep)

    def _views(self) -> Iterator[Garbage]:
        try:
            manifests = [find_manifest(self._store, sweep).manifest for sweep in sweep_names(self._store)]
        except OtherVersionError as error:
            self._notes.append(f"{Kind.VIEWS} stay: {error}")
            return
        teaching = {
            trial.teacher
            for manifest in manifests
            if manifest
            for trial in manifest.active
            if record_key(trial.trial_id) not in self._trials.get(trial.trial_id, {})
        }
        for item in self._store.entries(TEACHERS):
            if item.key.split("/")[1] not in teaching:
                yield Garbage(kind=Kind.VIEWS, item=item)

    def _parts(self) -> Iterator[Garbage]:
        parts = list(self._store.entries(TABLES_FOLDER))
        unknown = _unknown_parts(self._store, [item.key for item in parts])
        for item in parts:
            if item.key in unknown and self._is_old(item, LONG_MARGIN_S):
                yield Garbage(kind=Kind.PARTS, item=item)

    def _damaged(self) -> Iterator[Garbage]:
        for item in self._store.entries(DAMAGED):
            trial_id = _damaged_trial(item.key)
            if trial_id is None or record_key(trial_id) in self._trials[trial_id]:
                yield Garbage(kind=Kind.DAMAGED, item=item, owner=trial_id or "")

    def _staging(self) -> Iterator[Garbage]:
        root = self._store.local_root
        if root is None or not root.is_dir():
            return
        for path in root.rglob("*#*"):
            if (item := _staging_file(root, path)) and self._is_old(item, LONG_MARGIN_S):
                yield Garbage(kind=Kind.STAGING, item=item)


def _kind_of_complete(trial_id: str, key: str) -> Kind | None:
    """What of a complete trial has done its work; its record and weights have not."""
    if key.startswith(lease_folder(trial_id) + "/"):
        return Kind.LEASES
    if key.startswith(checkpoint_folder(trial_id) + "/"):
        return Kind.CHECKPOINTS
    return Kind.ERRORS if key == error_key(trial_id) else None


def _damaged_trial(key: str) -> str | None:
    """The trial that a damaged object belonged to."""
    return trial_of(key.removeprefix(f"{DAMAGED}/"))[0] if key.startswith(f"{DAMAGED}/{TRIALS}/") else None


def _listed_trials(store: Store) -> set[str]:
    """Every trial that a sweep asks for, or has asked for; raises when that cannot be told."""
    return _listed_in(store, frozenset((item.key, item.e_tag) for item in store.entries(SWEEPS)))


@functools.lru_cache(maxsize=1)
def _listed_in(store: Store, state: frozenset[tuple[str, str]]) -> set[str]:  # noqa: ARG001 (what is remembered goes by it)
    """Read anew only when anything under `sweeps/` has changed: it is asked for each trial that is to be deleted."""
    listed: set[str] = set()
    for sweep in sweep_names(store):
        found = find_manifest(store, sweep)
        if found.damaged or found.manifest is None:
            raise CorruptObjectError(f"store {store.url}: the newest manifest of sweep {sweep} cannot be read")
        for trial in found.manifest.trials if found.manifest else ():
            listed |= {trial.trial_id, *([trial.teacher] if trial.teacher else ())}
    return listed


def _old_manifests(store: Store, sweep: str) -> set[str]:
    """Keys of the manifests below the newest readable ones."""
    items = [item.key for item in store.entries(manifest_folder(sweep)) if Path(item.key).stem.isdigit()]
    readable = 0
    old: set[str] = set()
    for key in sorted(items, reverse=True):
        if readable == KEPT_MANIFESTS:
            old.add(key)
            continue
        try:
            Manifest.from_json(store.get(key) or b"")
            readable += 1
        except OtherVersionError:
            return set()
        except (ValueError, KeyError, TypeError):
            continue
    return old


def _unknown_parts(store: Store, keys: Collection[str]) -> set[str]:
    """Parts of sweeps that are not there, and parts that the fold index of their sweep does not know."""
    parts = {key: match for key in keys if (match := _PART.fullmatch(key)) and match["table"] in TABLES}
    sweeps = {match["sweep"] for match in parts.values()}
    index = {sweep: read_index(store, sweep) for sweep in sweeps}
    gone = {sweep for sweep in sweeps if not any(True for _ in store.entries(f"{SWEEPS}/{sweep}"))}
    places = {sweep: _num_places(store, sweep) for sweep in sweeps - gone}
    return {
        key
        for key, match in parts.items()
        if match["sweep"] in gone
        or (index[match["sweep"]] and key not in index[match["sweep"]] and int(match["part"]) >= places[match["sweep"]])
    }


def _num_places(store: Store, sweep: str) -> int:
    """Parts below this number have their place in the tables, whether a fold has come to write the index or not."""
    try:
        manifest = find_manifest(store, sweep).manifest
    except OtherVersionError:
        manifest = None
    return -(-len(manifest.trials) // TRIALS_PER_PART) if manifest else 1 << 30


def _staging_file(root: Path, path: Path) -> StoredObject | None:
    """An unfinished write of a local store, as an object."""
    if not _STAGING.fullmatch(path.name):
        return None
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return StoredObject(
        key=str(path.relative_to(root)),
        size_bytes=status.st_size,
        modified_at=datetime.fromtimestamp(status.st_mtime, UTC),
        e_tag="",
    )


# --- deleting -------------------------------------------------------------------------------------------------------------------------


def _delete(store: Store, unit: list[Garbage]) -> list[Garbage]:
    """Delete garbage of one family and one owner, if it is still garbage; returns what is gone."""
    kind, owner = unit[0].kind, unit[0].owner
    if kind in _OF_COMPLETE:
        return _delete_of_complete(store, owner, unit)
    if kind is Kind.ORPHANS:
        return _delete_orphan(store, owner, unit)
    if kind is Kind.STAGING:
        return [found for found in unit if _delete_staging(store, found)]
    return _delete_all(store, [found for found in unit if _is_still(store, found)])


def _is_still(store: Store, found: Garbage) -> bool:
    """Whether nothing has happened since that would make the object useful."""
    key, owner = found.item.key, found.owner
    match found.kind:
        case Kind.SUPERSEDED:
            return ledger.scan_few(store, [owner])[owner].state is not TrialState.RUNNING
        case Kind.MANIFESTS:
            return key in _old_manifests(store, owner)
        case Kind.PARTS:
            return _is_unchanged(store, found) and key in _unknown_parts(store, [key])
        case _:
            return not owner or store.exists(record_key(owner))


def _is_unchanged(store: Store, found: Garbage) -> bool:
    there = store.head(found.item.key)
    return there is not None and there.e_tag == found.item.e_tag


def _delete_all(store: Store, unit: Iterable[Garbage]) -> list[Garbage]:
    found = list(unit)
    for one in found:
        store.delete(one.item.key)
    return found


def _delete_of_complete(store: Store, trial_id: str, unit: list[Garbage]) -> list[Garbage]:
    """Under the trial's lease, with its record as it was."""
    lease = ledger.acquire(store, trial_id, launch_id=ledger.new_launch_id())
    if lease is None:
        return []
    record = store.head(record_key(trial_id))
    if record is None or record.e_tag != unit[0].record_tag:
        ledger.release(store, lease)
        return []
    _delete_all(store, (found for found in unit if found.kind is not Kind.LEASES))
    _delete_all(store, (found for found in unit if found.kind is Kind.LEASES))
    # Ours is the last: until then nobody else gets one.
    store.delete(lease_key(trial_id, lease.generation))
    return unit


def _delete_orphan(store: Store, trial_id: str, unit: list[Garbage]) -> list[Garbage]:
    """The record first, so that no reader sees it without its weights; the leases last, ours after all others."""
    lease = ledger.acquire(store, trial_id, launch_id=ledger.new_launch_id())
    if lease is None:
        return []
    try:
        is_orphan = trial_id not in _listed_trials(store)
    except (CorruptObjectError, OtherVersionError):
        is_orphan = False
    if not is_orphan:
        ledger.release(store, lease)
        return []
    leases = lease_folder(trial_id) + "/"
    _delete_all(store, sorted(unit, key=lambda found: (found.item.key.startswith(leases), not _is_record(found))))
    store.delete(lease_key(trial_id, lease.generation))
    return unit


def _is_record(found: Garbage) -> bool:
    return trial_of(found.item.key)[1] == RECORD_NAME


def _delete_staging(store: Store, found: Garbage) -> bool:
    root = store.local_root
    path = root / found.item.key if root else None
    if root is None or path is None or _staging_file(root, path) is None:
        return False
    if time.time() - path.stat().st_mtime < LONG_MARGIN_S:
        return False
    path.unlink(missing_ok=True)
    return True
