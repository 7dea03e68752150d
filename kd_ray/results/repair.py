"""What to do about a committed trial whose objects are no longer what was written: out of the way with them, and train it again."""

import logging
from collections.abc import Collection

from kd_ray.errors import CorruptObjectError
from kd_ray.results import ledger
from kd_ray.results.record import read_record, sha256
from kd_ray.results.store import DAMAGED, DATASETS, SWEEPS, TRIALS, Store, record_key, trial_of, weights_of

logger = logging.getLogger("kd_ray")


def trial_damage(store: Store, trial_id: str) -> str | None:
    """What is wrong with the record or the weights of a complete trial; None when nothing is."""
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


def set_aside_of(store: Store, sweep: str, trial_ids: Collection[str]) -> list[tuple[str, str]]:
    """(key, where it lies now) of everything damaged that was set aside and belongs to a sweep, data sets included."""
    found = []
    for item in store.entries(DAMAGED):
        key = item.key.removeprefix(f"{DAMAGED}/").rsplit("-", 1)[0]
        first, second, *_ = [*key.split("/"), ""]
        if (first == TRIALS and second in trial_ids) or (first == SWEEPS and second == sweep) or first == DATASETS:
            found.append((key, item.key))
    return found


def set_aside_trials(store: Store) -> set[str]:
    """trial_ids of all records that were found damaged so far."""
    prefix = f"{DAMAGED}/"
    return {trial_of(item.key.removeprefix(prefix))[0] for item in store.entries(f"{prefix}{TRIALS}")}


def set_aside_trial(store: Store, trial_id: str, *, launch_id: str) -> bool:
    """Move a damaged record out of the way, so that the trial is pending again; says whether it did.

    It happens under the trial's lease, so that a record committed meanwhile is never touched. The lease's generation is above that of every
    weights file, so those of the next holder get a name of their own.
    """
    if (problem := trial_damage(store, trial_id)) is None:
        return False
    generations = [weights_of(trial_of(item.key)[1]) or 0 for item in store.entries(f"{TRIALS}/{trial_id}")]
    lease = ledger.acquire(store, trial_id, launch_id=launch_id, after=max(generations, default=0))
    if lease is None:
        return False
    try:
        data = store.get(record_key(trial_id))
        if data is None or trial_damage(store, trial_id) is None:
            return False
        kept = store.set_aside(record_key(trial_id), data)
        logger.warning("%s; kept as %s, the trial is trained again", problem, kept)
        return kept is not None
    finally:
        ledger.release(store, lease)
