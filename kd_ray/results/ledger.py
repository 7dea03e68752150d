"""The state of each trial, derived from the objects in the store and never stored itself; and the leases.

A lease is a numbered object created only if absent; its number (the generation) is the fencing token that checkpoints and
weights carry in their names. A holder renews its own lease by overwriting it and gives it back by marking it released; nobody else ever
writes to it. A lease is over when it is released, when its process is known to be gone, or when it has not been renewed for `ttl_s` plus
`CLOCK_SKEW_S`. A time stamp from a wrong clock says nothing about the age of a lease, whether it lies in the future or long before the
store wrote the lease. Such a lease is over when the store wrote it so long ago, or when this process has not seen it change for so long.
Once the record is committed, the leases of its trial are deleted.
"""

import json
import os
import platform
import time
import uuid
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import AwareDatetime, Field

from kd_ray.bounded import MEGABYTE, JsonForm
from kd_ray.errors import CorruptObjectError
from kd_ray.results.inventory import TrialObjects, deciding_objects, take_inventory, trial_objects
from kd_ray.results.store import Store, StoredObject, error_key, lease_folder, lease_key
from kd_ray.sweep.trial_states import TrialState

LEASE_TTL_S = 30.0
"""A lease not renewed for this long (plus the clock skew, on another host) is over."""
CLOCK_SKEW_S = 60.0
"""How far the clocks of two hosts may differ."""
_LONGEST_TTL_S = 86_400.0
"""A lease that claims to last longer is not one of ours."""
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
    renewed_at: AwareDatetime
    ttl_s: Annotated[float, Field(gt=0, le=_LONGEST_TTL_S)] = LEASE_TTL_S
    released: bool = False
    progress: Mapping[str, int | float | None] | None = None
    """How far the trial is: epoch, epochs, accuracy, images_per_s."""

    def to_json(self) -> bytes:
        """As it stands in the store."""
        return json.dumps(asdict(self) | {"renewed_at": self.renewed_at.isoformat()}).encode()

    @classmethod
    def from_json(cls, data: bytes) -> "Lease":
        """Read a lease; raises ValueError when it is not one."""
        return _LEASE.read(data)


_LEASE: JsonForm[Lease] = JsonForm(kind=Lease)
_ERROR: JsonForm[dict[str, str]] = JsonForm(kind=dict[str, str], most_bytes=16 * MEGABYTE)


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
    outlived: Lease | None = None
    """The newest lease, when its time stamp is of a wrong clock and it is over all the same; see `supersede`."""
    stopped_at: int = 0
    """The epoch after which a search has stopped it, early or for now; 0 for other trials."""
    was_begun: bool = False
    """Whether a pending trial has had a worker, which ended before the first checkpoint."""


_PENDING = TrialStatus(state=TrialState.PENDING)


def scan(store: Store, trial_ids: Collection[str]) -> dict[str, TrialStatus]:
    """The state of each trial, from one listing of the store.

    First match wins: record → complete; live lease → running; error → failed; checkpoint → interrupted; else pending.
    """
    asked = dict.fromkeys(trial_ids)
    return states(store, deciding_objects(store, asked), asked)


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
    newest = _newest_lease(store, trial_id, found.leases)
    if newest is not None and newest.is_live():
        return TrialStatus(state=TrialState.RUNNING, lease=newest.lease)
    outlived = newest.lease if newest is not None and newest.wrong_clock() else None
    if found.error:
        return TrialStatus(state=TrialState.FAILED, error=read_error(store, trial_id), outlived=outlived)
    if found.checkpoints:
        return TrialStatus(state=TrialState.INTERRUPTED, outlived=outlived, stopped_at=max(found.stops, default=0))
    return TrialStatus(state=TrialState.PENDING, outlived=outlived, was_begun=bool(found.leases))


# --- leases ---------------------------------------------------------------------------------------------------------------------------


_first_seen: dict[tuple[str, str], tuple[str, float]] = {}
"""When this process first saw the present content of a lease of a wrong clock: its e_tag, and the monotonic clock then."""


@dataclass(frozen=True, kw_only=True)
class FoundLease:
    """A lease as it lies in the store."""

    lease: Lease
    item: StoredObject
    problem: str = ""
    """Why its content cannot be read; such a lease counts from the store's time stamp."""
    unchanged_s: float = 0.0
    """How long this process has seen this very content, for a lease of a wrong clock."""

    @property
    def lasts_s(self) -> float:
        """How long it lasts without a renewal, when its time stamp cannot tell."""
        return self.lease.ttl_s + CLOCK_SKEW_S

    def is_from_the_future(self) -> bool:
        """Whether it was not released, and its holder's clock was ahead of ours by more than clocks may differ."""
        return not self.lease.released and _age_s(self.lease.renewed_at) < -CLOCK_SKEW_S

    def is_from_the_past(self) -> bool:
        """Whether it was not released, and the store wrote it lately, by more than clocks may differ after the time that it names."""
        behind_s = (self.item.modified_at - self.lease.renewed_at).total_seconds()
        is_elsewhere = not self.lease.released and self.lease.boot_id != boot_id()
        return is_elsewhere and behind_s > CLOCK_SKEW_S and _age_s(self.item.modified_at) < self.lasts_s

    def is_live(self) -> bool:
        """Whether the holder may still be training."""
        if not (self.is_from_the_future() or self.is_from_the_past()):
            return is_live(self.lease)
        is_ours = self.lease.boot_id == boot_id()
        is_gone = is_ours and process_started(self.lease.pid) != self.lease.process_started
        return not is_gone and _age_s(self.item.modified_at) < self.lasts_s and self.unchanged_s < self.lasts_s

    def wrong_clock(self) -> str:
        """What is wrong with its time stamp, for people; empty when nothing is."""
        when = f"it was renewed at {self.lease.renewed_at:%Y-%m-%d %H:%M} by the clock of {self.lease.host}"
        over = f"a launch takes the trial over when it has not changed for {self.lasts_s:.0f} s"
        if self.is_from_the_future():
            return f"{when}, which is still to come; {over}"
        if self.is_from_the_past():
            return f"{when}, and the store wrote it later, at {self.item.modified_at:%Y-%m-%d %H:%M}; {over}"
        return ""


def newest_lease(store: Store, trial_id: str, found: TrialObjects) -> FoundLease | None:
    """The lease with the highest generation, as far as it can be read."""
    return _newest_lease(store, trial_id, found.leases)


def _newest_lease(store: Store, trial_id: str, leases: Mapping[int, StoredObject]) -> FoundLease | None:
    if not leases:
        return None
    generation = max(leases)
    item = leases[generation]
    try:
        data = store.get(item.key, most_bytes=_LEASE.most_bytes) or b""
        found = FoundLease(lease=replace(_LEASE.read(data), trial_id=trial_id, generation=generation), item=item)
    except (ValueError, CorruptObjectError) as error:
        unreadable = Lease(
            trial_id=trial_id,
            generation=generation,
            launch_id="unreadable",
            host="unknown",
            boot_id="unknown",
            pid=0,
            process_started="unknown",
            renewed_at=item.modified_at,
        )
        found = FoundLease(lease=unreadable, item=item, problem=str(error))
    return replace(found, unchanged_s=_watched_s(store, item)) if found.wrong_clock() else found


def _watched_s(store: Store, item: StoredObject) -> float:
    now = time.monotonic()
    e_tag, since = _first_seen.get((store.url, item.key), ("", now))
    if e_tag != item.e_tag:
        since = now
    _first_seen[store.url, item.key] = (item.e_tag, since)
    return now - since


def _age_s(moment: datetime) -> float:
    return (datetime.now(UTC) - moment).total_seconds()


def is_live(lease: Lease) -> bool:
    """Whether the holder may still be training, by the lease's own time stamp."""
    if lease.released:
        return False
    if lease.boot_id == boot_id():
        return process_started(lease.pid) == lease.process_started and _age_s(lease.renewed_at) < lease.ttl_s
    return _age_s(lease.renewed_at) < lease.ttl_s + CLOCK_SKEW_S


def supersede(store: Store, lease: Lease, *, launch_id: str) -> None:
    """End a lease of a wrong clock that is over: other processes, which have not watched it, see a released one above it from now on."""
    over = replace(
        lease, generation=lease.generation + 1, launch_id=launch_id, renewed_at=datetime.now(UTC), released=True
    )
    store.put_new(lease_key(over.trial_id, over.generation), over.to_json())


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
    if newest is not None and newest.is_live() and newest.lease.launch_id != launch_id:
        return None
    last = newest.lease.generation if newest else 0
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


def read_error(store: Store, trial_id: str) -> dict[str, str]:
    """The cause of a trial's failure."""
    try:
        return _ERROR.read(store.get(error_key(trial_id), most_bytes=_ERROR.most_bytes) or b"")
    except (ValueError, CorruptObjectError):
        return {"cause": f"{error_key(trial_id)} cannot be read", "traceback": ""}


def error_problem(store: Store, trial_id: str) -> str | None:
    """Why the cause of a trial's failure cannot be read; None when it can, or there is none."""
    try:
        data = store.get(error_key(trial_id), most_bytes=_ERROR.most_bytes)
        if data is not None:
            _ERROR.read(data)
    except (ValueError, CorruptObjectError) as error:
        return str(error)
    return None


def clear_error(store: Store, trial_id: str) -> None:
    """Delete the cause of a failure, so that the trial is pending again."""
    store.delete(error_key(trial_id))
