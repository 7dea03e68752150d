"""Deletes garbage from a store. `find_garbage.py` finds it, `garbage.py` defines its kinds.

A launch may run at the same time, on any machine. Why it loses nothing:

- Nothing younger than `MARGIN_S` is touched, and nothing of a trial that has such an object among its leases: a holder renews its lease
  several times within that span, so the trial may be in training. Its state is checked again before anything is deleted.
- Complete trials (leases, checkpoints, error, weights of other generations) are cleared under their own lease, and only while the record is
  the very object that was read. So no repair can move the record into quarantine meanwhile, and no launch trains a trial that has a
  record. A worker that stopped between its weights and its record finds another record and ends. The lease of the collector is deleted
  last.
- Leases of a trial without a record are never touched: their number is the fencing token. If the numbers started again, a worker that did
  not respond for a while could be taken for the holder, and two workers could train one trial.
- Of the checkpoints of an unfinished trial, those are deleted that two newer whole ones replace. Both were read and checked, and only a
  holder, who writes a newer one first, deletes those two.
- A manifest is deleted when two newer ones can be read: readers want the newest, and the numbers continue from the newest.
- Table parts are rebuilt from the records by any aggregation. An aggregation writes its index last, so a part that the index does not name
  may be its work: only parts older than `LONG_MARGIN_S` are deleted. Without an index no part is deleted.
- Logits of teachers are a cache: a worker computes those that are missing. They are deleted when every student of the teacher is complete.
- Objects in quarantine are deleted on request only. Those of a trial that is not complete stay: a running launch looks there for a record
  that its worker reported and that is gone.
- Trials of no sweep are deleted on request only, and only while every manifest of the store can be read, which is checked again before each
  of them. A launch that begins a sweep with the same trial at that moment may find it pending again at its end; the next launch trains it.
- A staging file is where a local store gathers the bytes of one write before it renames it. One that is `LONG_MARGIN_S` old has no writer.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from kd_ray.errors import CorruptObjectError, OtherVersionError, count_of
from kd_ray.housekeeping.garbage import (
    LONG_MARGIN_S,
    Garbage,
    GarbageKind,
    GarbageReport,
    ListedTrials,
    old_manifests,
    staging_file,
    unknown_parts,
)
from kd_ray.results import ledger
from kd_ray.results.inventory import Entry
from kd_ray.results.store import Kind as ObjectKind
from kd_ray.results.store import Store, lease_key, parse_key, record_key
from kd_ray.sweep.spec import TrialState

_WORKERS = 8
_OF_COMPLETE = {GarbageKind.LEASES, GarbageKind.CHECKPOINTS, GarbageKind.ERRORS, GarbageKind.WEIGHTS}


def delete_garbage(
    store: Store, report: GarbageReport, *, on_progress: Callable[[int, int], None] | None = None
) -> GarbageReport:
    """Delete what `find_garbage` named, as far as it is still safe; returns what was deleted."""
    units: dict[tuple[str, str], list[Garbage]] = defaultdict(list)
    for found in report.garbage:
        family = "complete" if found.kind in _OF_COMPLETE else found.kind.value
        units[(family, found.owner or found.item.key)].append(found)
    listed = ListedTrials(store)
    deleted: list[Garbage] = []
    with ThreadPoolExecutor(max_workers=_WORKERS) as pool:
        for done, gone in enumerate(pool.map(lambda unit: _delete(store, unit, listed), units.values()), start=1):
            deleted += gone
            if on_progress is not None:
                on_progress(done, len(units))
    left = len(report.garbage) - len(deleted)
    notes = (f"{count_of(left, 'object')} left alone: changed since found",) if left else ()
    return GarbageReport(store=store.url, garbage=tuple(deleted), notes=notes)


def _delete(store: Store, unit: list[Garbage], listed: ListedTrials) -> list[Garbage]:
    """Delete garbage of one family and one owner, if it is still garbage; returns what is gone."""
    kind, owner = unit[0].kind, unit[0].owner
    if kind in _OF_COMPLETE:
        return _delete_of_complete(store, owner, unit)
    if kind is GarbageKind.ORPHANS:
        return _delete_orphan(store, owner, unit, listed)
    if kind is GarbageKind.STAGING:
        return [found for found in unit if _delete_staging(store, found)]
    return _delete_all(store, [found for found in unit if _is_still(store, found)])


def _is_still(store: Store, found: Garbage) -> bool:
    """Whether nothing has happened since that would make the object useful."""
    key, owner = found.item.key, found.owner
    match found.kind:
        case GarbageKind.SUPERSEDED:
            return ledger.scan_few(store, [owner])[owner].state is not TrialState.RUNNING
        case GarbageKind.MANIFESTS:
            return key in old_manifests(store, owner)
        case GarbageKind.PARTS:
            place = parse_key(key)
            part = [Entry(place=place, item=found.item)] if place else []
            return _is_unchanged(store, found) and key in unknown_parts(store, part)
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
    _delete_all(store, (found for found in unit if found.kind is not GarbageKind.LEASES))
    _delete_all(store, (found for found in unit if found.kind is GarbageKind.LEASES))
    # Ours is deleted last: until then no other process can take the lease.
    store.delete(lease_key(trial_id, lease.generation))
    return unit


def _delete_orphan(store: Store, trial_id: str, unit: list[Garbage], listed: ListedTrials) -> list[Garbage]:
    """The record first, so that no reader sees it without its weights; the leases last, ours after all others."""
    lease = ledger.acquire(store, trial_id, launch_id=ledger.new_launch_id())
    if lease is None:
        return []
    try:
        is_orphan = trial_id not in listed.now()
    except (CorruptObjectError, OtherVersionError):
        is_orphan = False
    if not is_orphan:
        ledger.release(store, lease)
        return []
    _delete_all(store, sorted(unit, key=_turn_of_orphan))
    store.delete(lease_key(trial_id, lease.generation))
    return unit


def _turn_of_orphan(found: Garbage) -> int:
    place = parse_key(found.item.key)
    if place is None:
        return 1
    return {ObjectKind.RECORD: 0, ObjectKind.LEASE: 2}.get(place.kind, 1)


def _delete_staging(store: Store, found: Garbage) -> bool:
    root = store.local_root
    if root is None:
        return False
    path = store.local_path(found.item.key)
    if staging_file(root, path) is None:
        return False
    if time.time() - path.stat().st_mtime < LONG_MARGIN_S:
        return False
    path.unlink(missing_ok=True)
    return True
