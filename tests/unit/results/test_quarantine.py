"""Damaged records: out of the way, and their trials pending again."""

import random
from collections.abc import Callable

import pytest

from kd_ray.errors import OtherVersionError
from kd_ray.results.inventory import quarantined_of, take_inventory
from kd_ray.results.ledger import acquire, release, scan
from kd_ray.results.quarantine import quarantine_trial, quarantined_trials, trial_damage
from kd_ray.results.record import commit_record, decode_table, encode_record, encode_table, read_record, sha256
from kd_ray.results.store import Store, lease_key, record_key, weights_key
from kd_ray.sweep.spec import TrialState
from tests.fakes import make_record, make_spec

SPEC = make_spec()
TRIAL = SPEC.trial_id
WEIGHTS = b"weights" * 100


def commit(store: Store, *, generation: int = 1) -> None:
    """Commit a trial as a worker with the lease of this generation does; its leases are removed."""
    key = weights_key(TRIAL, generation)
    store.put(key, WEIGHTS)
    assert commit_record(store, make_record(SPEC, weights_key=key, weights_sha256=sha256(WEIGHTS)))


def contents(store: Store) -> dict[str, bytes | None]:
    return {item.key: store.get(item.key) for item in store.entries("")}


def state(store: Store) -> TrialState:
    return scan(store, [TRIAL])[TRIAL].state


def whole_record(store: Store) -> bytes:
    data = store.get(record_key(TRIAL))
    assert data
    return data


DAMAGE: dict[str, Callable[[Store], object]] = {
    "truncated record": lambda store: store.put(record_key(TRIAL), whole_record(store)[:-10]),
    "noise for a record": lambda store: store.put(
        record_key(TRIAL), random.Random(0).randbytes(len(whole_record(store)))
    ),
    "empty record": lambda store: store.put(record_key(TRIAL), b""),
    "record of another trial": lambda store: store.put(
        record_key(TRIAL), encode_record(make_record(make_spec(seed=1)))
    ),
    "weights missing": lambda store: store.delete(weights_key(TRIAL, 1)),
    "weights truncated": lambda store: store.put(weights_key(TRIAL, 1), WEIGHTS[:-1]),
    "weights changed": lambda store: store.put(weights_key(TRIAL, 1), WEIGHTS[:-1] + b"!"),
}


@pytest.mark.parametrize("damage", list(DAMAGE))
def test_damaged_trial_goes_into_quarantine_and_is_pending_again(
    store: Store, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Guards `quarantine_trial`: whatever is wrong with a committed trial, it can be trained again, and what was there is kept."""
    commit(store)
    DAMAGE[damage](store)
    data = current_record(store)
    problem = trial_damage(store, TRIAL)
    assert problem is not None
    assert quarantine_trial(store, TRIAL, launch_id="mine") is True
    assert not store.exists(record_key(TRIAL))
    assert state(store) is TrialState.PENDING
    (found,) = quarantined_of(take_inventory(store).quarantined, "demo", {TRIAL})
    kept = found.item.key
    assert found.key == record_key(TRIAL)
    assert store.get(kept) == data
    assert quarantined_trials(store) == {TRIAL}
    assert f"{problem}; kept as {kept}, the trial is trained again" in caplog.text
    assert quarantine_trial(store, TRIAL, launch_id="mine") is False
    # It can be committed again.
    lease = acquire(store, TRIAL, launch_id="yours")
    assert lease is not None
    commit(store, generation=lease.generation)
    assert trial_damage(store, TRIAL) is None


def current_record(store: Store) -> bytes:
    data = store.get(record_key(TRIAL))
    assert data is not None
    return data


@pytest.mark.parametrize("generations", [(1,), (3,), (2, 5)], ids=str)
def test_next_holder_is_above_every_weights_file(store: Store, generations: tuple[int, ...]) -> None:
    """Guards `after`: the weights of the next commit never have the name of those that lie there, also of a writer that lost."""
    for generation in generations[1:]:
        store.put(weights_key(TRIAL, generation), b"of a worker that lost")
    commit(store, generation=generations[0])
    store.put(record_key(TRIAL), b"noise")
    assert quarantine_trial(store, TRIAL, launch_id="mine")
    for launch in ("yours", "theirs"):
        lease = acquire(store, TRIAL, launch_id=launch)
        assert lease is not None
        assert lease.generation > max(generations)
        assert state(store) is TrialState.RUNNING
        release(store, lease)


def test_only_one_holds_a_trial_whose_record_is_in_quarantine(store: Store) -> None:
    """Guards the leases of a trial that was complete once: two launches never train it at a time."""
    commit(store)
    store.put(record_key(TRIAL), b"noise")
    assert quarantine_trial(store, TRIAL, launch_id="mine")
    lease = acquire(store, TRIAL, launch_id="yours")
    assert lease is not None
    assert state(store) is TrialState.RUNNING
    assert acquire(store, TRIAL, launch_id="theirs") is None


def test_intact_trial_is_not_touched(store: Store) -> None:
    """Guards the first look of `quarantine_trial`."""
    commit(store)
    before = contents(store)
    assert trial_damage(store, TRIAL) is None
    assert quarantine_trial(store, TRIAL, launch_id="mine") is False
    assert contents(store) == before


def test_trial_without_a_record_is_not_touched(store: Store) -> None:
    store.put(weights_key(TRIAL, 1), WEIGHTS)
    before = contents(store)
    assert trial_damage(store, TRIAL) is None
    assert quarantine_trial(store, TRIAL, launch_id="mine") is False
    assert contents(store) == before


def test_trial_that_another_launch_holds_is_left_to_it(store: Store) -> None:
    """Guards the lease of `quarantine_trial`: who holds the trial may be about to do the same, or to commit."""
    commit(store)
    store.put(record_key(TRIAL), b"noise")
    lease = acquire(store, TRIAL, launch_id="yours")
    assert lease is not None
    before = contents(store)
    assert quarantine_trial(store, TRIAL, launch_id="mine") is False
    assert contents(store) == before
    release(store, lease)
    assert quarantine_trial(store, TRIAL, launch_id="mine") is True


class _SuccessorWasQuicker(Store):
    """A store in which another launch repairs the trial between the first look and the lease."""

    def put_new(self, key: str, data: bytes, *, durable: bool = False) -> bool:
        if key.startswith("trials/") and not self.exists(f"damaged/{TRIAL}"):
            self.put(f"damaged/{TRIAL}", b"")
            self.delete(record_key(TRIAL))
            commit(self, generation=2)
        return super().put_new(key, data, durable=durable)


def test_record_committed_meanwhile_is_not_touched(store: Store) -> None:
    """Guards the second look of `quarantine_trial`, under the lease."""
    commit(store)
    store.put(record_key(TRIAL), b"noise")
    assert quarantine_trial(_SuccessorWasQuicker(store.url), TRIAL, launch_id="mine") is False
    record = read_record(store, TRIAL)
    assert record is not None
    assert record.weights_key == weights_key(TRIAL, 2)
    assert trial_damage(store, TRIAL) is None


def test_lease_is_given_back(store: Store) -> None:
    commit(store)
    store.put(record_key(TRIAL), b"noise")
    assert quarantine_trial(store, TRIAL, launch_id="mine")
    newest = max(item.key for item in store.entries(f"trials/{TRIAL}/lease"))
    assert newest >= lease_key(TRIAL, 2)
    assert acquire(store, TRIAL, launch_id="yours") is not None


def test_record_of_another_version_is_not_damage(store: Store) -> None:
    """Guards `OtherVersionError` against `CorruptObjectError`: an old kd_ray never sets the results of a newer one aside."""
    commit(store)
    table = decode_table(whole_record(store))
    store.put(record_key(TRIAL), encode_table(table.set_column(0, "record_version", [[5]])))
    before = contents(store)
    with pytest.raises(OtherVersionError, match="has record_version 5, and this kd_ray reads 2 to 4"):
        quarantine_trial(store, TRIAL, launch_id="mine")
    assert contents(store) == before


def test_damage_is_told_by_its_key(store: Store) -> None:
    commit(store)
    store.put(weights_key(TRIAL, 1), b"noise")
    assert trial_damage(store, TRIAL) == (
        f"store {store.url}: '{weights_key(TRIAL, 1)}' is not what the record of {TRIAL} names"
    )
    store.delete(weights_key(TRIAL, 1))
    assert trial_damage(store, TRIAL) == (
        f"store {store.url}: '{weights_key(TRIAL, 1)}' is missing, and the record of {TRIAL} names it"
    )
