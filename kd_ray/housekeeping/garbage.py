"""What may be deleted, by kind and with the reason, and which facts of a store decide it; `gc.py` says why each is safe."""

import functools
import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from kd_ray.errors import CorruptObjectError, OtherVersionError
from kd_ray.results import ledger
from kd_ray.results.checkpoints import KEEP
from kd_ray.results.manifest import Manifest, find_manifest, sweep_names
from kd_ray.results.schema import TABLES
from kd_ray.results.store import SWEEPS, TABLES_FOLDER, Store, StoredObject, manifest_folder
from kd_ray.results.tables import TRIALS_PER_PART, read_index

MARGIN_S = ledger.LEASE_TTL_S + ledger.CLOCK_SKEW_S
"""Least age of what is deleted: a living holder has renewed its lease since then, even if the store's clock differs from ours."""
LONG_MARGIN_S = 3600.0
"""Least age of what a slow writer may still be about: table parts, staging files."""
KEPT_MANIFESTS = 2
"""Newest readable manifests of a sweep that stay."""
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


def listed_trials(store: Store) -> set[str]:
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


def old_manifests(store: Store, sweep: str) -> set[str]:
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


def unknown_parts(store: Store, keys: Collection[str]) -> set[str]:
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


def staging_file(root: Path, path: Path) -> StoredObject | None:
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
