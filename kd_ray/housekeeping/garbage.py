"""What may be deleted: its kinds, the reason for each, and the facts of a store that decide it.

`find_garbage.py` searches, `delete_garbage.py` deletes and says why each kind is safe to delete.
"""

import math
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from kd_ray.errors import CorruptObjectError, OtherVersionError
from kd_ray.results import ledger
from kd_ray.results.aggregate import TRIALS_PER_PART, read_index
from kd_ray.results.checkpoints import KEEP
from kd_ray.results.inventory import Entry, SweepObjects, manifests, sweep_objects, take_inventory
from kd_ray.results.manifest import Manifest, find_manifest
from kd_ray.results.object_listing import STAGING_NAME
from kd_ray.results.schema import TABLES
from kd_ray.results.store import SWEEPS, Store, StoredObject, manifest_key

MARGIN_S = ledger.LEASE_TTL_S + ledger.CLOCK_SKEW_S
"""Least age of what is deleted: a running holder has renewed its lease since then, even if the store's clock differs from ours."""
LONG_MARGIN_S = 3600.0
"""Least age of objects that a slow writer may still be writing: table parts, staging files."""
KEPT_MANIFESTS = 2
"""Newest readable manifests of a sweep that stay."""


class GarbageKind(StrEnum):
    """What is deleted."""

    LEASES = "leases"
    CHECKPOINTS = "checkpoints"
    ERRORS = "errors"
    WEIGHTS = "weights"
    SUPERSEDED = "old checkpoints"
    MANIFESTS = "old manifests"
    PARTS = "table parts"
    LOGITS = "teachers' logits"
    DAMAGED = "damaged"
    ORPHANS = "trials of no sweep"
    STAGING = "staging files"


REASONS = {
    GarbageKind.LEASES: "their trials are complete",
    GarbageKind.CHECKPOINTS: "their trials are complete",
    GarbageKind.ERRORS: "their trials are complete by now",
    GarbageKind.WEIGHTS: "the records of their trials name others",
    GarbageKind.SUPERSEDED: f"their trials have {KEEP} newer ones that are whole",
    GarbageKind.MANIFESTS: f"their sweeps have {KEPT_MANIFESTS} newer ones",
    GarbageKind.PARTS: "no sweep accounts for them",
    GarbageKind.LOGITS: "no student of these teachers is left to train",
    GarbageKind.DAMAGED: "they are in quarantine, and no trial waits for another try",
    GarbageKind.ORPHANS: "no manifest lists them",
    GarbageKind.STAGING: "their writers were interrupted",
}


@dataclass(frozen=True, kw_only=True)
class Garbage:
    """An object that is safe to delete."""

    kind: GarbageKind
    item: StoredObject
    owner: str = ""
    """trial_id or sweep that it belongs to."""
    record_tag: str = ""
    """e_tag of the record that makes it superfluous, for objects of complete trials."""


@dataclass(frozen=True, kw_only=True)
class KindTotal:
    """The garbage of one kind together."""

    kind: GarbageKind
    num_objects: int
    size_bytes: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class GarbageReport:
    """What is, or was, safe to delete."""

    store: str
    garbage: tuple[Garbage, ...]
    notes: tuple[str, ...] = ()
    """What was not searched, and why."""

    @property
    def size_bytes(self) -> int:
        """Size of all objects together."""
        return sum(found.item.size_bytes for found in self.garbage)

    def groups(self) -> list[KindTotal]:
        """The garbage by kind."""
        return [
            KindTotal(
                kind=kind,
                num_objects=len(items),
                size_bytes=sum(item.size_bytes for item in items),
                reason=REASONS[kind],
            )
            for kind in GarbageKind
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


def listed_trials(store: Store) -> set[str]:
    """Every trial that a sweep asks for, or has asked for.

    Raises:
        CorruptObjectError: the newest manifest of a sweep cannot be read, so a trial that it lists would be missing.
        OtherVersionError: it was written by another version of kd_ray.
    """
    listed: set[str] = set()
    for sweep, objects in take_inventory(store, SWEEPS).sweeps.items():
        if not objects.manifests:
            continue
        found = find_manifest(store, sweep)
        if found.damaged or found.manifest is None:
            raise CorruptObjectError(f"store {store.url}: the newest manifest of sweep {sweep} cannot be read")
        for trial in found.manifest.trials:
            listed |= {trial.trial_id, *([trial.teacher] if trial.teacher else ())}
    return listed


class ListedTrials:
    """The same, asked before each deletion: manifests are read again only when something under `sweeps/` has changed."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._state: frozenset[tuple[str, str]] | None = None
        self._listed: set[str] = set()

    def now(self) -> set[str]:
        """As `listed_trials`, with its errors."""
        state = frozenset((item.key, item.e_tag) for item in self._store.entries(SWEEPS))
        if state != self._state:
            self._listed = listed_trials(self._store)
            self._state = state
        return self._listed


def old_manifests(store: Store, sweep: str) -> set[str]:
    """Keys of the manifests below the newest readable ones."""
    readable = 0
    old: set[str] = set()
    for generation in sorted(manifests(store, sweep), reverse=True):
        key = manifest_key(sweep, generation)
        if readable == KEPT_MANIFESTS:
            old.add(key)
            continue
        try:
            Manifest.from_json(store.get(key) or b"")
            readable += 1
        except OtherVersionError:
            return set()
        except ValueError:
            continue
    return old


def unknown_parts(store: Store, parts: Iterable[Entry]) -> set[str]:
    """Keys of the parts whose sweep is gone, or whose sweep's index does not name them and whose place no trial has."""
    parts = [part for part in parts if part.place.table in TABLES]
    sweeps = {part.place.sweep for part in parts}
    index = {sweep: read_index(store, sweep) for sweep in sweeps}
    gone = {sweep for sweep in sweeps if sweep_objects(store, sweep) == SweepObjects()}
    places = {sweep: _num_places(store, sweep) for sweep in sweeps - gone}
    unknown = set()
    for part in parts:
        key, sweep = part.item.key, part.place.sweep
        is_left_over = (
            sweep not in gone and index[sweep] and key not in index[sweep] and part.place.number >= places[sweep]
        )
        if sweep in gone or is_left_over:
            unknown.add(key)
    return unknown


def _num_places(store: Store, sweep: str) -> int:
    """Parts below this number belong to trials of the sweep, even when no index names them yet."""
    try:
        manifest = find_manifest(store, sweep).manifest
    except OtherVersionError:
        manifest = None
    return math.ceil(len(manifest.trials) / TRIALS_PER_PART) if manifest else sys.maxsize


def staging_file(root: Path, path: Path) -> StoredObject | None:
    """An unfinished write of a local store, as an object."""
    if not STAGING_NAME.fullmatch(path.name):
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
