"""The state of each trial, derived from the objects in the store and never stored itself; and the leases.

A lease is a numbered object created only if absent; its number (the generation) is the fencing token that checkpoints and
weights carry in their names. A holder renews its own lease by overwriting it and gives it back by marking it released; nobody else ever
writes to it. A lease is over when it is released, when its process is known to be gone, or when it has not been renewed for `ttl_s` plus
`CLOCK_SKEW_S`. Once the record is committed, the leases of its trial are deleted.
"""

import json
import os
import platform
import uuid
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from kd_ray.results.inventory import TrialObjects, take_inventory, trial_objects
from kd_ray.results.store import TRIALS, Kind, Store, StoredObject, error_key, lease_folder, lease_key
from kd_ray.sweep.spec import TrialState

LEASE_TTL_S = 30.0
"""A lease not renewed for this long (plus the clock skew, on another host) is over."""
CLOCK_SKEW_S = 60.0
"""How far the clocks of two hosts may differ."""
_READERS = 16
"""Objects that are read at a time."""


@dataclass(frozen=True, kw_only=True)
class Lease:
    """The right to train one trial."""

    trial_id: str
    generation: int
    """Fencing token: a later holder has a higher one."""
    launch_id: str
    """Which launch holds it."""
    host: str
    boot_id: str
    pid: int
    process_started: str
    """Kernel's start time of the process, so that a recycled pid is not mistaken for it."""
    renewed_at: datetime
    ttl_s: float = LEASE_TTL_S
    released: bool = False
    progress: Mapping[str, Any] | None = None
    """How far the trial is: epoch, epochs, accuracy, images_per_s."""

    def to_json(self) -> bytes:
        """As it stands in the store."""
        return json.dumps(asdict(self) | {"renewed_at": self.renewed_at.isoformat()}).encode()

    @classmethod
    def from_json(cls, data: bytes) -> "Lease":
        """Read a lease; raises ValueError, KeyError or TypeError when it is not one."""
        fields = json.loads(data)
        return cls(**{**fields, "renewed_at": datetime.fromisoformat(fields["renewed_at"])})


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialStatus:
    """State of one trial, with what belongs to it."""

    state: TrialState
    lease: Lease | None = None
    """The newest lease, when it was read (running trials)."""
    error: Mapping[str, Any] | None = None
    """Content of `error.json`, for failed trials."""
    record_tag: str = ""
    """e_tag of the record, for complete trials."""


_PENDING = TrialStatus(state=TrialState.PENDING)


def scan(store: Store, trial_ids: Collection[str]) -> dict[str, TrialStatus]:
    """The state of each trial, from one listing of the store.

    First match wins: record → complete; live lease → running; error → failed; checkpoint → interrupted; else pending.
    """
    asked = dict.fromkeys(trial_ids)
    # Weights do not decide a state, and in a large store they are half of all objects.
    found = take_inventory(
        store, TRIALS, keep=lambda place: place.trial_id in asked and place.kind is not Kind.WEIGHTS
    ).trials
    return states(store, found, asked)


def states(store: Store, found: Mapping[str, TrialObjects], trial_ids: Collection[str]) -> dict[str, TrialStatus]:
    """The same, from a listing that has been taken."""
    # Leases and errors are read one by one, but only those of trials that were begun and are not complete.
    begun = [trial_id for trial_id in trial_ids if trial_id in found and not found[trial_id].record]
    with ThreadPoolExecutor(max_workers=_READERS) as pool:
        read = dict(
            zip(begun, pool.map(lambda trial_id: _status(store, trial_id, found[trial_id]), begun), strict=True)
        )
    return {trial_id: read.get(trial_id) or _status(store, trial_id, found.get(trial_id)) for trial_id in trial_ids}


def scan_few(store: Store, trial_ids: Collection[str]) -> dict[str, TrialStatus]:
    """The same for a few trials, such as those of a pack, without listing the others."""
    return {trial_id: _status(store, trial_id, trial_objects(store, trial_id)) for trial_id in trial_ids}


def _status(store: Store, trial_id: str, found: TrialObjects | None) -> TrialStatus:
    if found is None:
        return _PENDING
    if found.record:
        return TrialStatus(state=TrialState.COMPLETE, record_tag=found.record.e_tag)
    lease = _newest_lease(store, trial_id, found.leases)
    if lease is not None and is_live(lease):
        return TrialStatus(state=TrialState.RUNNING, lease=lease)
    if found.error:
        return TrialStatus(state=TrialState.FAILED, error=read_error(store, trial_id))
    if found.checkpoints:
        return TrialStatus(state=TrialState.INTERRUPTED)
    return _PENDING


# --- leases ---------------------------------------------------------------------------------------------------------------------------


def _newest_lease(store: Store, trial_id: str, leases: Mapping[int, StoredObject]) -> Lease | None:
    """The lease with the highest generation. One whose content cannot be read counts from the store's time stamp."""
    if not leases:
        return None
    generation = max(leases)
    newest = leases[generation]
    data = store.get(newest.key)
    try:
        return replace(Lease.from_json(data or b""), trial_id=trial_id, generation=generation)
    except (ValueError, KeyError, TypeError):
        return Lease(
            trial_id=trial_id,
            generation=generation,
            launch_id="unreadable",
            host="unknown",
            boot_id="unknown",
            pid=0,
            process_started="unknown",
            renewed_at=newest.modified_at,
        )


def is_live(lease: Lease) -> bool:
    """Whether the holder may still be training."""
    if lease.released:
        return False
    age = datetime.now(UTC) - lease.renewed_at
    if lease.boot_id == boot_id():
        return process_started(lease.pid) == lease.process_started and age < timedelta(seconds=lease.ttl_s)
    return age < timedelta(seconds=lease.ttl_s + CLOCK_SKEW_S)


def acquire(store: Store, trial_id: str, *, launch_id: str, after: int = 0) -> Lease | None:
    """Take the lease of a trial; None when another holder may be training, or took it first.

    A launch may always replace its own leases, because it no longer waits for their holders. If such a holder is still alive, on a node
    that did not respond, the generation in the names of its objects keeps them apart. The new lease gets a generation above `after`. Only
    a trial that was held before costs a listing: leases of an incomplete trial are never deleted, so the first can be created only by its
    first holder.
    """
    lease = Lease(
        trial_id=trial_id,
        generation=after + 1,
        launch_id=launch_id,
        host=platform.node(),
        boot_id=boot_id(),
        pid=os.getpid(),
        process_started=process_started(os.getpid()),
        renewed_at=datetime.now(UTC),
    )
    if after == 0 and store.put_new(lease_key(trial_id, 1), lease.to_json()):
        return lease
    found = take_inventory(store, lease_folder(trial_id)).trials.get(trial_id, TrialObjects())
    newest = _newest_lease(store, trial_id, found.leases)
    if newest is not None and is_live(newest) and newest.launch_id != launch_id:
        return None
    last = newest.generation if newest else 0
    # The leases of a trial that was complete are gone; a gap below would let the next holder take the first as if the trial were new.
    for generation in range(1, after + 1):
        filler = replace(lease, generation=generation, released=True)
        if not store.put_new(lease_key(trial_id, generation), filler.to_json()) and generation > last:
            return None
    lease = replace(lease, generation=max(after, last) + 1)
    return lease if store.put_new(lease_key(trial_id, lease.generation), lease.to_json()) else None


def renew(store: Store, lease: Lease, progress: Mapping[str, Any] | None = None) -> None:
    """Show that the holder is alive, and how far it is."""
    _overwrite(store, replace(lease, renewed_at=datetime.now(UTC), progress=progress))


def release(store: Store, lease: Lease) -> None:
    """Give the trial back."""
    _overwrite(store, replace(lease, renewed_at=datetime.now(UTC), released=True))


def _overwrite(store: Store, lease: Lease) -> None:
    store.put(lease_key(lease.trial_id, lease.generation), lease.to_json())


def remove(store: Store, lease: Lease) -> None:
    """Delete the leases of a complete trial, up to this one: the record has taken their place."""
    for generation in range(lease.generation, 0, -1):
        store.delete(lease_key(lease.trial_id, generation))


def is_superseded(store: Store, lease: Lease) -> bool:
    """Whether a later holder has taken the trial over; a holder asks before it commits."""
    return store.exists(lease_key(lease.trial_id, lease.generation + 1))


def new_launch_id() -> str:
    """A name for one launch that no other launch has."""
    return f"{platform.node()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"


def boot_id() -> str:
    """Names this host since its last start, with the process-id namespace: pids of two containers on one host are not comparable."""
    path = Path("/proc/sys/kernel/random/boot_id")
    if not path.exists():
        return f"node-{uuid.getnode():x}"
    return f"{path.read_text().strip()} {Path('/proc/self/ns/pid').readlink()}"


def process_started(pid: int) -> str:
    """Kernel's start time of a process of this host; empty when there is none, "unknown" where the kernel does not tell."""
    if not Path("/proc/self/stat").exists():
        return "unknown"
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    fields = stat.rsplit(")", 1)[1].split()
    # A zombie has ended; only its parent has not waited for it yet.
    return "" if fields[0] == "Z" else fields[19]


# --- failures -------------------------------------------------------------------------------------------------------------------------


def write_error(store: Store, trial_id: str, *, cause: str, traceback: str, host: str, launch_id: str) -> None:
    """Store the cause of a failure; `status` shows it, and only a launch with `retry_failed` runs the trial again."""
    failed_at = datetime.now(UTC).isoformat(timespec="seconds")
    content = {"cause": cause, "traceback": traceback, "host": host, "launch_id": launch_id, "failed_at": failed_at}
    store.put(error_key(trial_id), json.dumps(content).encode())


def read_error(store: Store, trial_id: str) -> dict[str, Any]:
    """The cause of a trial's failure."""
    data = store.get(error_key(trial_id))
    try:
        content = json.loads(data or b"")
    except ValueError:
        content = None
    return content if isinstance(content, dict) else {"cause": f"{error_key(trial_id)} cannot be read", "traceback": ""}


def clear_error(store: Store, trial_id: str) -> None:
    """Delete the cause of a failure, so that the trial is pending again."""
    store.delete(error_key(trial_id))
