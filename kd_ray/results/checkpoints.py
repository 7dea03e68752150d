"""The checkpoints of a trial in the store: which are whole, and which are deleted when a new one is written.

Their content is defined in `distill/checkpoint.py`.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from kd_ray.results.inventory import TrialObjects, take_inventory
from kd_ray.results.ledger import Lease
from kd_ray.results.record import sha256
from kd_ray.results.store import Store, checkpoint_folder, checkpoint_key, quarantine

T = TypeVar("T")

logger = logging.getLogger("kd_ray")

KEEP = 2
"""Newest checkpoints of a trial that stay when a new one is written."""


@dataclass(frozen=True, kw_only=True, order=True)
class StoredCheckpoint:
    """A checkpoint in the store; the more advanced is the greater."""

    step: int
    generation: int
    digest: str
    key: str


class Checkpoints:
    """The checkpoints of one trial, as the holder of its lease sees them.

    Each is one object named by generation, step and content, so a worker whose lease is over cannot damage those of the next holder.
    """

    def __init__(self, store: Store, lease: Lease) -> None:
        """The first holder of a trial has no earlier checkpoints, so only a later holder lists them."""
        self._store = store
        self._lease = lease
        self._found = list_checkpoints(store, lease.trial_id) if lease.generation > 1 else []

    def load(self, decode: Callable[[bytes], T]) -> T | None:
        """The most advanced whole checkpoint; a damaged one goes into quarantine, and the one before it is used."""
        while self._found:
            found = self._found[-1]
            data = self._store.get(found.key)
            if data is not None and sha256(data)[:16] != found.digest:
                kept = quarantine(self._store, found.key, data)
                logger.warning(
                    "checkpoint %s is damaged; kept as %s; training continues from the one before", found.key, kept
                )
            elif data is not None:
                try:
                    return decode(data)
                except (ValueError, KeyError, TypeError) as error:
                    logger.warning("checkpoint %s is not used: %s", found.key, error)
            # It cannot be continued from, so it does not count among those that `save` keeps.
            self._found.pop()
        return None

    def save(self, step: int, data: bytes) -> None:
        """Write a checkpoint, then drop all but the newest of this and of earlier generations."""
        digest = sha256(data)[:16]
        key = checkpoint_key(self._lease.trial_id, self._lease.generation, step, digest)
        self._store.put(key, data)
        new = StoredCheckpoint(step=step, generation=self._lease.generation, digest=digest, key=key)
        self._found = sorted({*self._found, new})
        mine = [found for found in self._found if found.generation <= self._lease.generation]
        for old in mine[:-KEEP]:
            self._store.delete(old.key)
            self._found.remove(old)

    def delete_all(self) -> None:
        """Delete them all, because the trial is committed."""
        for found in self._found:
            self._store.delete(found.key)
        self._found = []


def list_checkpoints(store: Store, trial_id: str) -> list[StoredCheckpoint]:
    """Checkpoints of a trial, the most advanced last."""
    found = take_inventory(store, checkpoint_folder(trial_id)).trials.get(trial_id, TrialObjects())
    return stored_checkpoints(found)


def stored_checkpoints(found: TrialObjects) -> list[StoredCheckpoint]:
    """The checkpoints among the objects of a trial, the most advanced last."""
    return sorted(
        StoredCheckpoint(
            step=entry.place.step, generation=entry.place.number, digest=entry.place.digest, key=entry.item.key
        )
        for entry in found.checkpoints
    )
