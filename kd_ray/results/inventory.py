"""What lies in a store: one listing, sorted into trials, sweeps, data sets, table parts and the rest.

Other modules ask here what a store holds, and take no key apart themselves. Only names that kd_ray writes count. Other files (copies by a
sync tool, `._part-00000.parquet`, `.DS_Store`) are kept apart as `strangers`, and are never read as data.
"""

from collections.abc import Callable, Collection, Container, Iterator
from dataclasses import dataclass, field

from kd_ray.results.store import (
    SWEEPS,
    TABLES_FOLDER,
    TRIALS,
    Kind,
    ParsedKey,
    Store,
    StoredObject,
    is_trial_id,
    manifest_folder,
    parse_key,
    record_key,
    sweep_folder,
    table_folder,
    trial_folder,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """An object under a key that kd_ray writes, with its place."""

    place: ParsedKey
    item: StoredObject


@dataclass(kw_only=True, slots=True)
class TrialObjects:
    """The objects of one trial."""

    record: StoredObject | None = None
    error: StoredObject | None = None
    leases: dict[int, StoredObject] = field(default_factory=dict)
    """By generation."""
    checkpoints: list[Entry] = field(default_factory=list)
    weights: dict[int, StoredObject] = field(default_factory=dict)
    """By generation."""
    stops: dict[int, StoredObject] = field(default_factory=dict)
    """By epoch."""

    def items(self) -> Iterator[StoredObject]:
        """All of them."""
        yield from (item for item in (self.record, self.error) if item is not None)
        yield from self.leases.values()
        yield from (entry.item for entry in self.checkpoints)
        yield from self.weights.values()
        yield from self.stops.values()


@dataclass(kw_only=True, slots=True)
class SweepObjects:
    """What a sweep has under its name, but for tables and reports."""

    sweep_file: StoredObject | None = None
    table_index: StoredObject | None = None
    manifests: dict[int, StoredObject] = field(default_factory=dict)
    """By generation."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Quarantined:
    """An object that was found damaged and moved away."""

    key: str
    """Where it was."""
    place: ParsedKey | None
    """The same, taken apart; None when kd_ray does not write such a key."""
    item: StoredObject
    """Where it is now."""


@dataclass(kw_only=True)
class Inventory:
    """The objects of a store, or of some of its folders."""

    trials: dict[str, TrialObjects] = field(default_factory=dict)
    """By trial_id."""
    sweeps: dict[str, SweepObjects] = field(default_factory=dict)
    """By name."""
    samples: dict[str, StoredObject] = field(default_factory=dict)
    """By dataset_id."""
    pretrained: dict[str, StoredObject] = field(default_factory=dict)
    """By SHA-256."""
    logits: list[Entry] = field(default_factory=list)
    parts: list[Entry] = field(default_factory=list)
    """Table parts, in the order of their keys."""
    former_parts: list[Entry] = field(default_factory=list)
    """Table parts where kd_ray 0.1 put them; the next aggregation replaces them."""
    quarantined: list[Quarantined] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)
    """Keys that kd_ray does not write, in order."""


def take_inventory(store: Store, *folders: str, keep: Callable[[ParsedKey], bool] | None = None) -> Inventory:
    """List `folders`, or the whole store, and sort what is found; only entries that are to be kept are remembered."""
    found = Inventory()

    # Folders are sorted at once: each has its own kinds of objects, and to append is safe.
    def sort(folder: str) -> None:
        for item in store.entries(folder):
            place = parse_key(item.key)
            if place is None:
                found.strangers.append(item.key)
            elif keep is None or keep(place):
                _add(found, Entry(place=place, item=item))

    store.at_once(sort, folders or ("",))
    found.parts.sort(key=lambda entry: entry.item.key)
    found.strangers.sort()
    return found


def _add(found: Inventory, entry: Entry) -> None:
    place, item = entry.place, entry.item
    if place.trial_id and place.kind is not Kind.LOGITS:
        _add_to_trial(found.trials.setdefault(place.trial_id, TrialObjects()), entry)
        return
    match place.kind:
        case Kind.SWEEP_FILE:
            found.sweeps.setdefault(place.sweep, SweepObjects()).sweep_file = item
        case Kind.TABLE_INDEX:
            found.sweeps.setdefault(place.sweep, SweepObjects()).table_index = item
        case Kind.MANIFEST:
            found.sweeps.setdefault(place.sweep, SweepObjects()).manifests[place.number] = item
        case Kind.SAMPLES:
            found.samples[place.dataset_id] = item
        case Kind.PRETRAINED:
            found.pretrained[place.sha256] = item
        case Kind.LOGITS:
            found.logits.append(entry)
        case Kind.TABLE_PART:
            found.parts.append(entry)
        case Kind.FORMER_PART:
            found.former_parts.append(entry)
        case Kind.QUARANTINED:
            found.quarantined.append(Quarantined(key=place.path, place=parse_key(place.path), item=item))


def _add_to_trial(trial: TrialObjects, entry: Entry) -> None:
    place, item = entry.place, entry.item
    match place.kind:
        case Kind.RECORD:
            trial.record = item
        case Kind.ERROR:
            trial.error = item
        case Kind.LEASE:
            trial.leases[place.number] = item
        case Kind.CHECKPOINT:
            trial.checkpoints.append(entry)
        case Kind.WEIGHTS:
            trial.weights[place.number] = item
        case Kind.STOP:
            trial.stops[place.number] = item


def trial_objects(store: Store, trial_id: str) -> TrialObjects:
    """The objects of one trial, from a listing of its folder alone."""
    return take_inventory(store, trial_folder(trial_id)).trials.get(trial_id) or TrialObjects()


def sweep_objects(store: Store, sweep: str) -> SweepObjects:
    """The objects of one sweep, from a listing of its folder alone."""
    return take_inventory(store, sweep_folder(sweep)).sweeps.get(sweep) or SweepObjects()


def manifests(store: Store, sweep: str) -> dict[int, StoredObject]:
    """The manifests of one sweep by generation, from a listing of their folder alone."""
    found = take_inventory(store, manifest_folder(sweep)).sweeps.get(sweep)
    return found.manifests if found else {}


def committed(store: Store) -> dict[str, str]:
    """The e_tag of every record by trial_id."""
    trials = deciding_objects(store, only_records=True)
    return {trial_id: trial.record.e_tag for trial_id, trial in trials.items() if trial.record}


def deciding_objects(
    store: Store, asked: Container[str] | None = None, *, only_records: bool = False
) -> dict[str, TrialObjects]:
    """What says in which state each trial is, or each of those that are `asked` for: its record, otherwise all its objects but weights.

    A local store is asked for each record, and only the folders of the other trials are listed. With `only_records` not even those are.
    """

    def decides(place: ParsedKey) -> bool:
        # In a large store weights are half of all objects.
        is_of_use = place.kind is Kind.RECORD or not (only_records or place.kind is Kind.WEIGHTS)
        return is_of_use and (asked is None or place.trial_id in asked)

    looked = store.in_folders(TRIALS, record_key("").rsplit("/", 1)[-1])
    if looked is None:
        return take_inventory(store, TRIALS, keep=decides).trials

    def is_asked(folder: str) -> bool:
        return is_trial_id(folder) and (asked is None or folder in asked)

    trials = {folder: TrialObjects(record=item) for folder, item in looked.found.items() if is_asked(folder)}
    others = [it for it in (*looked.linked, *(() if only_records else looked.lacking)) if is_asked(it)]
    return trials | (take_inventory(store, *map(trial_folder, others), keep=decides).trials if others else {})


def quarantined_of(quarantined: Collection[Quarantined], sweep: str, trial_ids: Collection[str]) -> list[Quarantined]:
    """The quarantined objects that belong to a sweep: those of its trials, its own, and all data sets."""
    return [
        found
        for found in quarantined
        if (place := found.place)
        and (place.trial_id in trial_ids or place.sweep == sweep or place.kind is Kind.SAMPLES)
    ]


def sweep_names(store: Store) -> list[str]:
    """Names of the sweeps in the store: those that have a manifest, readable or not."""
    return sorted(name for name, sweep in take_inventory(store, SWEEPS).sweeps.items() if sweep.manifests)


def table_parts(store: Store, *, table: str = "", sweep: str = "") -> list[Entry]:
    """The parts of one table, or of all; of one sweep, or of all. In the order of their keys."""
    folder = table_folder(table) if table else TABLES_FOLDER
    return take_inventory(store, folder, keep=lambda place: sweep in ("", place.sweep)).parts
