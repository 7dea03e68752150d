"""The leases of a pack while its trials train: one thread renews all of them; each is released when its trial ends."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from kd_ray.distill.worker_protocol import PackWorker
from kd_ray.errors import StoreError
from kd_ray.results import ledger
from kd_ray.results.ledger import LEASE_TTL_S, Lease
from kd_ray.results.store import record_key


class HeldLeases:
    """The leases of a pack. A thread renews them; each is released when its trial ends, the others at the end of the pack.

    A lock for each trial guards its renewals and its release, so that a late renewal cannot restore a lease that was released. Leases of
    different trials are renewed at once: a store that is far away would not answer for a large pack, one after another, in time.
    """

    def __init__(
        self,
        worker: PackWorker,
        warn: Callable[[str], None],
        clocks: Callable[[], tuple[float, float]] | None = None,
    ) -> None:
        self.held: dict[str, Lease] = {}
        self.complete: list[str] = []
        """Trials of the pack that are committed, by this worker or by another."""
        self.progress: dict[str, Any] | None = None
        self._store = worker.store
        self._launch_id = worker.launch_id
        self._warn = warn
        self._clocks = clocks
        """The wall clock and one that is never set; those of this host unless given."""
        self._locks: dict[str, threading.Lock] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="kd_ray-heartbeat", daemon=True)

    def __enter__(self) -> "HeldLeases":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        began = time.monotonic()

        def release(trial_id: str) -> None:
            # If the store does not answer, the other leases expire.
            if time.monotonic() - began <= LEASE_TTL_S:
                self.release(trial_id)

        self._store.at_once(release, list(self.held))

    def _lock(self, trial_id: str) -> threading.Lock:
        return self._locks.setdefault(trial_id, threading.Lock())

    def acquire(self, trial_id: str) -> None:
        """Take a trial if it is neither complete nor held by another launch."""
        lease = ledger.acquire(self._store, trial_id, launch_id=self._launch_id)
        if lease is None:
            return
        # Checked after the lease was taken: from here on no other worker commits.
        if self._store.exists(record_key(trial_id)):
            self.complete.append(trial_id)
            ledger.remove(self._store, lease)
            return
        self.held[trial_id] = lease

    def release(self, trial_id: str) -> None:
        """Release the lease of a trial, if it is held. A lease that cannot be released expires."""
        with self._lock(trial_id):
            lease = self.held.pop(trial_id, None)
            if lease is not None:
                try:
                    ledger.release(self._store, lease)
                except StoreError as error:
                    self._warn(f"cannot release the lease of {trial_id}: {error}")

    def committed(self, lease: Lease) -> None:
        """A trial is complete: delete its leases."""
        with self._lock(lease.trial_id):
            self.held.pop(lease.trial_id, None)
        self.complete.append(lease.trial_id)
        # A lease that cannot be deleted has no effect: a trial with a record is complete, whatever leases it has.
        with suppress(StoreError):
            ledger.remove(self._store, lease)

    def is_lost(self, trial_id: str) -> bool:
        """Whether another worker has taken the trial over; it is not held any more then."""
        with self._lock(trial_id):
            lease = self.held.get(trial_id)
            if lease is not None and ledger.is_superseded(self._store, lease):
                self._forget(lease)
                return True
        return lease is None

    def _forget(self, lease: Lease) -> None:
        self._warn(f"trial {lease.trial_id} was taken over; generation {lease.generation} leaves it alone")
        self.held.pop(lease.trial_id, None)

    def _beat(self) -> None:
        clocks = self._clocks or _clocks
        beaten_at = clocks()
        while not self._stop.wait(LEASE_TTL_S / 3):
            # A process that was suspended for longer than a lease lasts must check whether it still holds the trial.
            # It may also be suspended between two renewals, because a request may hang.
            # Two clocks are compared: the wall clock can be set back, and the other one stands still while a machine sleeps.
            now = clocks()
            overslept = any(new - old > LEASE_TTL_S for new, old in zip(now, beaten_at, strict=True))
            beaten_at = now
            self._store.at_once(partial(self._renew, ask_first=overslept), list(self.held))

    def _renew(self, trial_id: str, *, ask_first: bool) -> None:
        with self._lock(trial_id):
            lease = self.held.get(trial_id)
            if lease is None:
                return
            try:
                if ask_first and ledger.is_superseded(self._store, lease):
                    self._forget(lease)
                else:
                    ledger.renew(self._store, lease, self.progress)
            except StoreError as error:
                # The lease may expire. That is harmless because of fencing, and the next beat tries again.
                self._warn(f"cannot renew the lease of {trial_id}: {error}")


def _clocks() -> tuple[float, float]:
    return time.time(), time.monotonic()
