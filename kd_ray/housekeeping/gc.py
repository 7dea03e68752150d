"""Deletes what lies in a store and serves nobody any more; `searching.py` names it, `garbage.py` says what there is.

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

import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from kd_ray.errors import CorruptObjectError, OtherVersionError
from kd_ray.housekeeping.garbage import (
    LONG_MARGIN_S,
    Garbage,
    GarbageReport,
    Kind,
    listed_trials,
    old_manifests,
    staging_file,
    unknown_parts,
)
from kd_ray.results import ledger
from kd_ray.results.store import RECORD_NAME, Store, lease_folder, lease_key, record_key, trial_of
from kd_ray.sweep.spec import TrialState

_WORKERS = 8
_OF_COMPLETE = {Kind.LEASES, Kind.CHECKPOINTS, Kind.ERRORS, Kind.WEIGHTS}


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
            return key in old_manifests(store, owner)
        case Kind.PARTS:
            return _is_unchanged(store, found) and key in unknown_parts(store, [key])
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
        is_orphan = trial_id not in listed_trials(store)
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
    if root is None or path is None or staging_file(root, path) is None:
        return False
    if time.time() - path.stat().st_mtime < LONG_MARGIN_S:
        return False
    path.unlink(missing_ok=True)
    return True
