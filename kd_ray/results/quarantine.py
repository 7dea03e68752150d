"""Finds damage in a committed trial, and moves its record into quarantine so that the trial is trained again.

`store.quarantine` moves one object. This module knows which objects of a trial belong together, and under which lease they may be moved.
"""

import logging

from kd_ray.errors import CorruptObjectError
from kd_ray.results import ledger
from kd_ray.results.inventory import take_inventory, trial_objects
from kd_ray.results.record import read_record, sha256
from kd_ray.results.store import DAMAGED, Store, quarantine, record_key

logger = logging.getLogger("kd_ray")


def trial_damage(store: Store, trial_id: str) -> str | None:
    """The damage of the record or the weights of a complete trial; None if both are intact."""
    try:
        record = read_record(store, trial_id)
    except CorruptObjectError as error:
        return str(error)
    if record is None:
        return None
    weights = store.get(record.weights_key)
    if weights is None:
        return f"store {store.url}: {record.weights_key!r} is missing, and the record of {trial_id} names it"
    if sha256(weights) != record.weights_sha256:
        return f"store {store.url}: {record.weights_key!r} is not what the record of {trial_id} names"
    return None


def quarantined_trials(store: Store) -> set[str]:
    """trial_ids of all trials with an object in quarantine."""
    found = take_inventory(store, DAMAGED).quarantined
    return {one.place.trial_id for one in found if one.place and one.place.trial_id}


def quarantine_trial(store: Store, trial_id: str, *, launch_id: str) -> bool:
    """Move a damaged record into quarantine, so that the trial is pending again; returns whether it was moved.

    This function holds the trial's lease meanwhile, so that it never moves a record that another worker commits. The generation of the
    lease is higher than that of every weights file, so the weights of the next holder get another name.
    """
    if (problem := trial_damage(store, trial_id)) is None:
        return False
    generations = trial_objects(store, trial_id).weights
    lease = ledger.acquire(store, trial_id, launch_id=launch_id, after=max(generations, default=0))
    if lease is None:
        return False
    try:
        data = store.get(record_key(trial_id))
        if data is None or trial_damage(store, trial_id) is None:
            return False
        kept = quarantine(store, record_key(trial_id), data)
        logger.warning("%s; kept as %s, the trial is trained again", problem, kept)
        return kept is not None
    finally:
        ledger.release(store, lease)
