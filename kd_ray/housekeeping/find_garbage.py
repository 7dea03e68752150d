"""Finds what is safe to delete in a store; only reads. `garbage.py` defines the kinds of garbage."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

from kd_ray.errors import CorruptObjectError, OtherVersionError
from kd_ray.housekeeping.garbage import (
    LONG_MARGIN_S,
    MARGIN_S,
    Garbage,
    GarbageKind,
    GarbageReport,
    listed_trials,
    old_manifests,
    staging_file,
    unknown_parts,
)
from kd_ray.results import ledger
from kd_ray.results.checkpoints import KEEP, stored_checkpoints
from kd_ray.results.inventory import TrialObjects, take_inventory
from kd_ray.results.manifest import find_manifest
from kd_ray.results.record import read_record, sha256
from kd_ray.results.store import Store, StoredObject, manifest_key

_WORKERS = 8


def find_garbage(
    store: Store,
    *,
    older_than_s: float = 0.0,
    with_damaged: bool = False,
    with_orphans: bool = False,
    margin_s: float = MARGIN_S,
) -> GarbageReport:
    """Everything that is safe to delete now; only reads. Nothing younger than `older_than_s` or `margin_s` is named.

    A smaller `margin_s` than the default is safe only while no launch is running.
    """
    search = _Search(store, max(older_than_s, margin_s), margin_s, with_damaged=with_damaged, with_orphans=with_orphans)
    return search.run()


class _Search:
    """One search of the whole store."""

    def __init__(self, store: Store, age_s: float, margin_s: float, *, with_damaged: bool, with_orphans: bool) -> None:
        self._store = store
        self._age_s = age_s
        self._margin_s = margin_s
        self._with_damaged = with_damaged
        self._with_orphans = with_orphans
        self._notes: list[str] = []
        self._found = take_inventory(store)

    def run(self) -> GarbageReport:
        """Every kind, one after another."""
        found = list(self._of_trials())
        found += self._orphans() if self._with_orphans else ()
        for sweep in self._found.sweeps:
            found += self._manifests(sweep)
        found += self._logits()
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

    def _is_held(self, trial: TrialObjects) -> bool:
        """Whether the trial may be in training."""
        margin = timedelta(seconds=self._margin_s)
        return any(datetime.now(UTC) - item.modified_at <= margin for item in trial.leases.values())

    def _of_trials(self) -> Iterator[Garbage]:
        resting = [trial_id for trial_id, trial in self._found.trials.items() if not self._is_held(trial)]
        begun = [trial_id for trial_id, trial in self._found.trials.items() if trial.leases and trial.record is None]
        with ThreadPoolExecutor(max_workers=_WORKERS) as pool:
            for found in pool.map(lambda trial_id: list(self._of_trial(trial_id)), resting):
                yield from found
            self._notes += [note for note in pool.map(self._wrong_clock, begun) if note]

    def _wrong_clock(self, trial_id: str) -> str:
        """A note on a lease whose end cannot be told from its time stamp; while it is young, nothing of its trial is deleted."""
        newest = ledger.newest_lease(self._store, trial_id, self._found.trials[trial_id])
        what = newest.wrong_clock() if newest else ""
        return f"{newest.item.key} stays: {what}" if newest and what else ""

    def _of_trial(self, trial_id: str) -> Iterator[Garbage]:
        trial = self._found.trials[trial_id]
        if trial.record is None:
            yield from self._superseded(trial_id, trial)
            return
        done = {
            GarbageKind.LEASES: trial.leases.values(),
            GarbageKind.CHECKPOINTS: [entry.item for entry in trial.checkpoints],
            GarbageKind.ERRORS: [trial.error] if trial.error else [],
            GarbageKind.WEIGHTS: self._other_weights(trial_id, trial),
        }
        for kind, items in done.items():
            for item in items:
                yield Garbage(kind=kind, item=item, owner=trial_id, record_tag=trial.record.e_tag)

    def _other_weights(self, trial_id: str, trial: TrialObjects) -> list[StoredObject]:
        """Weights that the record does not name; none where the named ones are missing, which `verify` reports."""
        if len(trial.weights) < 2:
            return []
        named = self._named_weights(trial_id)
        others = [item for item in trial.weights.values() if item.key != named]
        return others if len(others) < len(trial.weights) else []

    def _named_weights(self, trial_id: str) -> str | None:
        try:
            record = read_record(self._store, trial_id)
        except (CorruptObjectError, OtherVersionError) as error:
            self._notes.append(f"weights of {trial_id} stay: {error}")
            return None
        return record.weights_key if record else None

    def _superseded(self, trial_id: str, trial: TrialObjects) -> Iterator[Garbage]:
        """Checkpoints below the newest whole ones."""
        if len(trial.checkpoints) <= KEEP:
            return
        items = {entry.item.key: entry.item for entry in trial.checkpoints}
        num_whole = 0
        for found in reversed(stored_checkpoints(trial)):
            if num_whole == KEEP:
                yield Garbage(kind=GarbageKind.SUPERSEDED, item=items[found.key], owner=trial_id)
                continue
            data = self._store.get(found.key)
            if data is not None and sha256(data)[:16] == found.digest:
                num_whole += 1

    def _orphans(self) -> Iterator[Garbage]:
        try:
            listed = listed_trials(self._store)
        except (CorruptObjectError, OtherVersionError) as error:
            self._notes.append(f"trials of no sweep stay: {error}")
            return
        for trial_id in self._found.trials.keys() - listed:
            items = list(self._found.trials[trial_id].items())
            # A trial is deleted whole or not at all.
            if all(self._is_old(item) for item in items):
                for item in items:
                    yield Garbage(kind=GarbageKind.ORPHANS, item=item, owner=trial_id)

    def _manifests(self, sweep: str) -> Iterator[Garbage]:
        old = old_manifests(self._store, sweep)
        for generation, item in self._found.sweeps[sweep].manifests.items():
            if manifest_key(sweep, generation) in old:
                yield Garbage(kind=GarbageKind.MANIFESTS, item=item, owner=sweep)

    def _logits(self) -> Iterator[Garbage]:
        try:
            manifests = [find_manifest(self._store, sweep).manifest for sweep in self._found.sweeps]
        except OtherVersionError as error:
            self._notes.append(f"{GarbageKind.LOGITS} stay: {error}")
            return
        teaching = {
            trial.teacher
            for manifest in manifests
            if manifest
            for trial in manifest.active
            if not self._is_complete(trial.trial_id)
        }
        for entry in self._found.logits:
            if entry.place.trial_id not in teaching:
                yield Garbage(kind=GarbageKind.LOGITS, item=entry.item)

    def _is_complete(self, trial_id: str) -> bool:
        trial = self._found.trials.get(trial_id)
        return trial is not None and trial.record is not None

    def _parts(self) -> Iterator[Garbage]:
        unknown = unknown_parts(self._store, self._found.parts)
        for part in self._found.parts:
            if part.item.key in unknown and self._is_old(part.item, LONG_MARGIN_S):
                yield Garbage(kind=GarbageKind.PARTS, item=part.item)

    def _damaged(self) -> Iterator[Garbage]:
        for one in self._found.quarantined:
            trial_id = one.place.trial_id if one.place else ""
            if not trial_id or self._is_complete(trial_id):
                yield Garbage(kind=GarbageKind.DAMAGED, item=one.item, owner=trial_id)

    def _staging(self) -> Iterator[Garbage]:
        root = self._store.local_root
        if root is None or not root.is_dir():
            return
        links = tuple(f"{link}/" for link in self._store.leaving_links())
        for path in root.rglob("*#*"):
            if f"{path.relative_to(root)}/".startswith(links):
                continue
            if (item := staging_file(root, path)) and self._is_old(item, LONG_MARGIN_S):
                yield Garbage(kind=GarbageKind.STAGING, item=item)
