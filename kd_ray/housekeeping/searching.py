"""Looks for what nobody needs any more; only reads."""

from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

from kd_ray.errors import CorruptObjectError, OtherVersionError
from kd_ray.housekeeping.garbage import (
    LONG_MARGIN_S,
    MARGIN_S,
    Garbage,
    GarbageReport,
    Kind,
    listed_trials,
    old_manifests,
    staging_file,
    unknown_parts,
)
from kd_ray.results.checkpoints import KEEP, list_checkpoints
from kd_ray.results.manifest import find_manifest, sweep_names
from kd_ray.results.record import read_record, sha256
from kd_ray.results.store import (
    DAMAGED,
    TABLES_FOLDER,
    TEACHERS,
    TRIALS,
    Store,
    StoredObject,
    checkpoint_folder,
    error_key,
    lease_folder,
    manifest_folder,
    record_key,
    trial_of,
    weights_of,
)

_WORKERS = 8


def find_garbage(
    store: Store, *, older_than_s: float = 0.0, with_damaged: bool = False, with_orphans: bool = False
) -> GarbageReport:
    """Everything that is safe to delete now; only reads. Nothing younger than `older_than_s` is named, nor than `MARGIN_S`."""
    return _Search(store, max(older_than_s, MARGIN_S), with_damaged=with_damaged, with_orphans=with_orphans).run()


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
            listed = listed_trials(self._store)
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
        old = old_manifests(self._store, sweep)
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
        unknown = unknown_parts(self._store, [item.key for item in parts])
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
            if (item := staging_file(root, path)) and self._is_old(item, LONG_MARGIN_S):
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
