"""The states of all trials of a store at one moment, from one listing, and what follows from them: progress, pace and cost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property, lru_cache
from typing import Any

from kd_ray.errors import KdRayError
from kd_ray.results.inventory import TrialObjects, take_inventory
from kd_ray.results.ledger import states
from kd_ray.results.manifest import Manifest, read_manifest
from kd_ray.results.store import SWEEPS, TRIALS, Kind, Store
from kd_ray.results.trial_lines import TrialLine, count_states, manifest_lines
from kd_ray.sweep.trial_states import Role, TrialState

_WINDOW = timedelta(minutes=30)
"""Trials per hour are counted over the last trials between which there is no longer pause than this."""
_COUNTED = 100
"""Most trials of that count."""


@dataclass(frozen=True, kw_only=True)
class SweepNow:
    """One sweep at the moment of a snapshot."""

    name: str
    lines: tuple[TrialLine, ...]
    finished_at: tuple[datetime, ...]
    """When each complete trial was committed, by the clock of the store, in order of time."""

    @cached_property
    def counts(self) -> dict[str, int]:
        """Trials by state."""
        return count_states(self.lines)

    @cached_property
    def state(self) -> str:
        """running, complete, failed (some failed, none runs), or waiting."""
        counts = self.counts
        if counts["running"]:
            return "running"
        if counts["complete"] == len(self.lines):
            return "complete"
        return "failed" if counts["failed"] else "waiting"

    @property
    def changed_at(self) -> datetime | None:
        """When the last trial was committed."""
        return self.finished_at[-1] if self.finished_at else None

    @cached_property
    def trials_per_hour(self) -> float | None:
        """Of a running sweep, over its last trials; None where too few were committed."""
        if self.state != "running":
            return None
        newest = self.finished_at[-_COUNTED:]
        first = len(newest) - 1
        while first > 0 and newest[first] - newest[first - 1] < _WINDOW:
            first -= 1
        counted = newest[first:]
        elapsed_s = (datetime.now(UTC) - counted[0]).total_seconds() if counted else 0.0
        return 3600 * (len(counted) - 1) / elapsed_s if len(counted) > 2 and elapsed_s > 0 else None

    @property
    def left_s(self) -> float | None:
        """Time until all trials that can run are complete, at this pace."""
        pace = self.trials_per_hour
        open_ = sum(not line.is_settled for line in self.lines)
        return 3600 * open_ / pace if pace else None


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """All sweeps of a store at one moment."""

    sweeps: Mapping[str, SweepNow]
    unreadable: Mapping[str, str]
    """Why a sweep cannot be read, by its name."""
    manifests: Mapping[tuple[str, int], Manifest] = field(repr=False)
    """By sweep and generation; a manifest never changes, so the next snapshot takes it over."""


def take_snapshot(store: Store, before: Snapshot | None) -> Snapshot:
    """Read a store: a listing of its sweeps and of its trials, and the leases of running trials."""
    # Weights do not decide a state, and in a large store they are half of all objects.
    found = take_inventory(store, SWEEPS, TRIALS, keep=lambda place: place.kind is not Kind.WEIGHTS)
    trials = found.trials
    listed = {name: sweep.manifests for name, sweep in sorted(found.sweeps.items()) if sweep.manifests}
    manifests: dict[tuple[str, int], Manifest] = {}
    unreadable: dict[str, str] = {}

    def read(name: str) -> None:
        key = (name, max(listed[name]))
        try:
            known = before.manifests.get(key) if before else None
            manifests[key] = known or read_manifest(store, name, listed[name])
        except KdRayError as error:
            unreadable[name] = str(error)

    store.at_once(read, listed)
    asked = dict.fromkeys(line.trial_id for manifest in manifests.values() for line in manifest.active)
    statuses = states(store, trials, asked)
    sweeps = {}
    for (name, _), manifest in sorted(manifests.items(), key=lambda it: it[0]):
        now = SweepNow(name=name, lines=manifest_lines(manifest, statuses), finished_at=_finished(manifest, trials))
        # The same object says that nothing has changed.
        same = before.sweeps.get(name) if before else None
        sweeps[name] = same if same == now and same is not None else now
    return Snapshot(sweeps=sweeps, unreadable=dict(sorted(unreadable.items())), manifests=manifests)


def _finished(manifest: Manifest, trials: Mapping[str, TrialObjects]) -> tuple[datetime, ...]:
    records = (trials[line.trial_id].record for line in manifest.active if line.trial_id in trials)
    return tuple(sorted(record.modified_at for record in records if record))


# --- cells ----------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a trial stands in the heat map."""

    facet: str
    """Role, model and every other setting; not the teacher's seed."""
    column: str
    """Its temperature; empty without one."""
    row: str
    """Its seed; empty for pretrained weights."""


@lru_cache(maxsize=100_000)
def place_of(description: str) -> Place:
    """The place of a trial, by its description (`distilled lenet5 T=4 alpha=0.9 seed=1`), which pending trials have as well.

    The description has all digits of a temperature (`shown_number`), so two temperatures never share a place.
    """
    # A seed that has learned from several teachers has several trials in one place; the description names the teacher of some only.
    others, found = [], {"T": "", "seed": "", "teacher_seed": ""}
    for word in description.split(" "):
        name, _, value = word.partition("=")
        if found.get(name) == "":
            found[name] = value
        else:
            others.append(word)
    return Place(facet=" ".join(others), column=found["T"], row=found["seed"])


@dataclass(frozen=True, kw_only=True)
class RunningPack:
    """The trials that one process trains side by side."""

    where: str
    """Process and host."""
    lines: tuple[TrialLine, ...]
    device: str | None
    """Of the last trial that this host committed; None before the first one."""

    @property
    def host(self) -> str:
        """Name of the machine."""
        return self.where.rpartition(" on ")[2]


def running_packs(lines: Sequence[TrialLine], trials: Sequence[Mapping[str, Any]] = ()) -> tuple[RunningPack, ...]:
    """The running trials by the process that holds them; `trials` are rows of the table `trials`, for the device of a host."""
    packs: dict[str, list[TrialLine]] = {}
    for line in lines:
        if line.state == TrialState.RUNNING:
            packs.setdefault(line.why.removeprefix("held by "), []).append(line)
    if not packs:
        return ()
    devices = {str(row["host"]): str(row["device"]) for row in sorted(trials, key=lambda row: row["finished_at"])}
    return tuple(
        RunningPack(where=where, lines=tuple(held), device=devices.get(where.rpartition(" on ")[2]))
        for where, held in packs.items()
    )


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Training time of one role, as the records have it: in a pack, each trial has its share."""

    role: str
    spent_s: float
    to_come_s: float | None
    """Of the trials that are not complete, at the mean so far; None before the first one."""
    num_complete: int
    num_open: int


def costs(lines: Sequence[TrialLine], trials: Sequence[Mapping[str, Any]]) -> tuple[Cost, ...]:
    """What a sweep has cost, and will cost, by role."""
    found = []
    for role in Role:
        spent = [float(row["elapsed_s"]) for row in trials if row["role"] == role and row["elapsed_s"] is not None]
        num_open = sum(line.role == role and line.state != TrialState.COMPLETE for line in lines)
        if spent or num_open:
            to_come = num_open * sum(spent) / len(spent) if spent else None
            found.append(
                Cost(
                    role=role.value,
                    spent_s=sum(spent),
                    to_come_s=to_come,
                    num_complete=len(spent),
                    num_open=num_open,
                )
            )
    return tuple(found)
