"""Where checkpoints lie, which of them count, and who may delete which."""

import random

import pytest

from kd_ray.results.checkpoints import Checkpoints
from kd_ray.results.ledger import Lease, acquire
from kd_ray.results.store import Store, checkpoint_folder
from tests.fakes import WatchedStore

TRIAL = "a" * 16


def hold(store: Store) -> Lease:
    """The next lease of the trial; a launch may replace its own."""
    lease = acquire(store, TRIAL, launch_id="mine")
    assert lease is not None
    return lease


def state(step: int) -> bytes:
    return b"state %d" % step * 20


def decode(data: bytes) -> int:
    """The step; raises ValueError when the bytes are not those of a state."""
    step = int(data[6 : len(data) // 20])
    assert data == state(step)
    return step


def keys(store: Store) -> list[str]:
    return sorted(item.key.rsplit("/", 1)[1][:16] for item in store.entries(checkpoint_folder(TRIAL)))


def damages(data: bytes) -> dict[str, bytes]:
    return {
        "truncated": data[:-7],
        "empty": b"",
        "noise": random.Random(0).randbytes(len(data)),
        "a flipped bit": data[:50] + bytes([data[50] ^ 1]) + data[51:],
        "state of another step": state(99),
    }


def newest_key(store: Store) -> str:
    return max(item.key for item in store.entries(checkpoint_folder(TRIAL)))


def test_two_are_kept_and_the_most_advanced_is_used(store: Store) -> None:
    """Guards `KEEP`: a checkpoint that is damaged has one before it, and old ones do not pile up."""
    checkpoints = Checkpoints(store, hold(store))
    for step in (5, 10, 15):
        checkpoints.save(step, state(step))
    assert keys(store) == ["000001-000000010", "000001-000000015"]
    assert Checkpoints(store, hold(store)).load(decode) == 15


def test_first_holder_lists_nothing_and_finds_nothing(store: Store) -> None:
    """Guards the first generation in `__init__`: thousands of new trials are begun without a listing each."""
    watched = WatchedStore(store.url)
    checkpoints = Checkpoints(watched, hold(watched))
    assert checkpoints.load(decode) is None
    for step in (1, 2, 3):
        checkpoints.save(step, state(step))
    checkpoints.delete_all()
    assert watched.listed == []
    assert keys(store) == []


def test_later_holder_lists_once(store: Store) -> None:
    Checkpoints(store, hold(store)).save(5, state(5))
    lease = hold(store)
    watched = WatchedStore(store.url)
    checkpoints = Checkpoints(watched, lease)
    assert checkpoints.load(decode) == 5
    for step in (6, 7, 8):
        checkpoints.save(step, state(step))
    checkpoints.delete_all()
    assert watched.listed == [checkpoint_folder(TRIAL)]
    assert keys(store) == []


@pytest.mark.parametrize("damage", list(damages(state(9))))
def test_damaged_newest_is_quarantined_and_the_one_before_is_used(
    store: Store, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Guards the digest check of `load`: a damaged checkpoint costs the steps since the one before, and is kept for people to look at."""
    checkpoints = Checkpoints(store, hold(store))
    for step in (5, 9):
        checkpoints.save(step, state(step))
    key, data = newest_key(store), damages(state(9))[damage]
    store.put(key, data)
    assert Checkpoints(store, hold(store)).load(decode) == 5
    assert keys(store) == ["000001-000000005"]
    (kept,) = store.entries("damaged")
    assert kept.key.startswith(f"damaged/{key}-")
    assert store.get(kept.key) == data
    (record,) = caplog.records
    assert (
        record.getMessage()
        == f"checkpoint {key} is damaged; kept as {kept.key}; training continues from the one before"
    )


def test_all_damaged_means_from_the_start(store: Store) -> None:
    checkpoints = Checkpoints(store, hold(store))
    for step in (5, 9):
        checkpoints.save(step, state(step))
    for item in list(store.entries(checkpoint_folder(TRIAL))):
        store.put(item.key, b"noise")
    assert Checkpoints(store, hold(store)).load(decode) is None
    assert keys(store) == []
    assert len(list(store.entries("damaged"))) == 2


@pytest.mark.parametrize("damage", ["damaged", "deleted since", "of no use"])
def test_two_whole_ones_are_kept_after_one_was_found_wanting(store: Store, damage: str) -> None:
    """Guards the count of `save`: a checkpoint that nobody can go on from is none of the two that stay."""
    checkpoints = Checkpoints(store, hold(store))
    checkpoints.save(5, state(5))
    checkpoints.save(90, b"whole, but no state" if damage == "of no use" else state(90))
    successor = Checkpoints(store, hold(store))
    if damage == "damaged":
        store.put(newest_key(store), b"noise")
    elif damage == "deleted since":
        store.delete(newest_key(store))
    assert successor.load(decode) == 5
    for step in (6, 7, 8):
        successor.save(step, state(step))
    assert {"000002-000000007", "000002-000000008"} <= set(keys(store))
    assert keys(store)[:-2] in ([], ["000001-000000090"])


def test_whole_bytes_that_are_no_state_are_passed_over(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    """Guards the errors that `load` catches: what another kd_ray wrote is not damaged, only of no use here."""
    checkpoints = Checkpoints(store, hold(store))
    checkpoints.save(5, state(5))
    checkpoints.save(9, b"whole, but no state")
    assert Checkpoints(store, hold(store)).load(decode) == 5
    assert keys(store) == ["000001-000000005", "000001-000000009"]
    assert "is not used: " in caplog.text


def test_late_writer_of_an_earlier_generation_deletes_nothing_of_its_successor(store: Store) -> None:
    """Guards the generations in `save`: a worker that outlived its lease cannot spoil what the next one wrote."""
    stale = Checkpoints(store, hold(store))
    stale.save(10, state(10))
    frozen = Checkpoints(store, hold(store))
    successor = Checkpoints(store, hold(store))
    for step in (20, 30):
        successor.save(step, state(step))
    for step in (21, 22, 23, 24):
        stale.save(step, state(step))
        frozen.save(step + 50, state(step + 50))
    assert {"000003-000000020", "000003-000000030"} <= set(keys(store))
    assert Checkpoints(store, hold(store)).load(decode) == 74


def test_stale_holder_that_looked_late_spares_its_successor_too(store: Store) -> None:
    """Guards the same where the stale holder has seen the files of its successor."""
    lease = hold(store)
    successor_lease = hold(store)
    later = hold(store)
    assert (lease.generation, successor_lease.generation, later.generation) == (1, 2, 3)
    newer = Checkpoints(store, later)
    for step in (20, 30):
        newer.save(step, state(step))
    stale = Checkpoints(store, successor_lease)
    for step in (31, 32, 33):
        stale.save(step, state(step))
    assert keys(store) == ["000002-000000032", "000002-000000033", "000003-000000020", "000003-000000030"]


def test_successor_clears_away_what_earlier_generations_left(store: Store) -> None:
    first = Checkpoints(store, hold(store))
    for step in (5, 9):
        first.save(step, state(step))
    second = Checkpoints(store, hold(store))
    assert second.load(decode) == 9
    second.save(10, state(10))
    assert keys(store) == ["000001-000000009", "000002-000000010"]
    second.save(11, state(11))
    assert keys(store) == ["000002-000000010", "000002-000000011"]
    second.delete_all()
    assert keys(store) == []


def test_files_that_are_no_checkpoints_are_left_alone(store: Store) -> None:
    hold(store)
    stray = f"{checkpoint_folder(TRIAL)}/notes.txt"
    store.put(stray, b"mine")
    checkpoints = Checkpoints(store, hold(store))
    assert checkpoints.load(decode) is None
    checkpoints.save(1, state(1))
    checkpoints.delete_all()
    assert store.get(stray) == b"mine"
