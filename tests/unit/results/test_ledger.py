"""Leases and the states derived from the store."""

import os
import platform
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from kd_ray.results.ledger import (
    Lease,
    acquire,
    boot_id,
    clear_error,
    is_live,
    is_superseded,
    new_launch_id,
    process_started,
    read_error,
    release,
    remove,
    renew,
    scan,
    scan_few,
    write_error,
)
from kd_ray.results.store import Store, checkpoint_key, error_key, lease_folder, lease_key, record_key
from kd_ray.sweep.spec import TrialState
from tests.fakes import ForgetfulStore, WatchedStore, set_written

TRIAL = "0123456789abcdef"
OTHER = "fedcba9876543210"


def make_lease(*, age_s: float = 0, **changes: Any) -> Lease:
    """A lease of this process, renewed `age_s` ago."""
    fields: dict[str, Any] = {
        "trial_id": TRIAL,
        "generation": 1,
        "launch_id": "other-launch",
        "host": platform.node(),
        "boot_id": boot_id(),
        "pid": os.getpid(),
        "process_started": process_started(os.getpid()),
        "renewed_at": datetime.now(UTC) - timedelta(seconds=age_s),
    }
    return Lease(**fields | changes)


def put_lease(store: Store, lease: Lease) -> Lease:
    store.put(lease_key(lease.trial_id, lease.generation), lease.to_json())
    return lease


def ended_process() -> tuple[int, str]:
    """pid and start time of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        started = process_started(process.pid)
        assert started not in ("", "unknown")
        process.communicate(b"\n")
    return process.pid, started


def stored(store: Store, generation: int) -> Lease:
    data = store.get(lease_key(TRIAL, generation))
    assert data is not None
    return Lease.from_json(data)


def test_lease_round_trips_through_json() -> None:
    lease = make_lease(age_s=12.5, progress={"epoch": 3, "accuracy": 0.5}, released=True, ttl_s=7.5)
    assert Lease.from_json(lease.to_json()) == lease


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"3", b"null", b"{}", b'{"renewed_at": 5}', b'{"renewed_at": "now"}']
)
def test_text_that_is_no_lease_is_refused(data: bytes) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        Lease.from_json(data)


def test_first_lease_is_generation_one_and_says_who_holds_it(store: Store) -> None:
    lease = acquire(store, TRIAL, launch_id="mine")
    assert lease is not None
    assert stored(store, 1) == lease
    assert (lease.trial_id, lease.generation, lease.launch_id, lease.pid) == (TRIAL, 1, "mine", os.getpid())
    assert (lease.host, lease.boot_id, lease.released, lease.ttl_s) == (platform.node(), boot_id(), False, 30.0)
    assert is_live(lease)


def test_second_launch_is_refused_while_the_holder_lives(store: Store) -> None:
    assert acquire(store, TRIAL, launch_id="mine")
    assert acquire(store, TRIAL, launch_id="yours") is None
    assert acquire(store, OTHER, launch_id="yours") is not None
    assert store.get(lease_key(TRIAL, 2)) is None


def test_same_launch_replaces_its_own_lease(store: Store) -> None:
    acquire(store, TRIAL, launch_id="mine")
    lease = acquire(store, TRIAL, launch_id="mine")
    assert lease is not None
    assert lease.generation == 2
    assert stored(store, 1).released is False


def test_released_lease_goes_to_the_next_launch_with_a_higher_generation(store: Store) -> None:
    for generation, launch in enumerate(("a", "b", "c"), start=1):
        lease = acquire(store, TRIAL, launch_id=launch)
        assert lease is not None
        assert lease.generation == generation
        release(store, lease)
        assert stored(store, generation).released is True
    assert sorted(item.key for item in store.entries(f"trials/{TRIAL}/lease")) == [
        lease_key(TRIAL, n) for n in (1, 2, 3)
    ]


def test_generations_are_compared_as_numbers(store: Store) -> None:
    for generation in range(1, 11):
        put_lease(store, make_lease(generation=generation, released=True))
    lease = acquire(store, TRIAL, launch_id="mine")
    assert lease is not None
    assert lease.generation == 11


def test_renew_moves_the_time_and_keeps_the_progress(store: Store) -> None:
    lease = put_lease(store, make_lease(age_s=20))
    renew(store, lease, {"epoch": 3})
    renewed = stored(store, 1)
    assert renewed == replace(lease, renewed_at=renewed.renewed_at, progress={"epoch": 3})
    assert timedelta(0) <= datetime.now(UTC) - renewed.renewed_at < timedelta(seconds=10)


def test_process_that_ended_holds_nothing(store: Store) -> None:
    pid, started = ended_process()
    lease = put_lease(store, make_lease(pid=pid, process_started=started))
    assert not is_live(lease)
    successor = acquire(store, TRIAL, launch_id="mine")
    assert successor is not None
    assert successor.generation == 2


def test_recycled_pid_holds_nothing() -> None:
    assert is_live(make_lease())
    assert not is_live(make_lease(process_started="1"))


@pytest.mark.parametrize(
    ("same_host", "age_s", "live"),
    [
        (True, 0, True),
        (True, 25, True),
        (True, 31, False),
        (False, 0, True),
        (False, 31, True),
        (False, 85, True),
        (False, 91, False),
        # The other host's clock is ahead.
        (False, -50, True),
    ],
)
def test_lease_expires_after_its_time_and_on_another_host_after_the_skew_too(
    store: Store, same_host: bool, age_s: float, live: bool
) -> None:
    elsewhere = {} if same_host else {"boot_id": "other", "host": "other", "pid": 1, "process_started": "1"}
    lease = put_lease(store, make_lease(age_s=age_s, **elsewhere))
    set_written(store, lease_key(TRIAL, 1), age_s)
    assert is_live(lease) is live
    assert (acquire(store, TRIAL, launch_id="mine") is None) is live


def test_released_lease_of_another_host_is_over() -> None:
    assert not is_live(make_lease(boot_id="other", released=True))


@pytest.mark.parametrize("data", [b"", b"{half a le", b"[]", b"{}"])
def test_unreadable_lease_counts_from_the_time_of_its_object(store: Store, data: bytes) -> None:
    for generation in (1, 2, 3):
        put_lease(store, make_lease(generation=generation, released=True))
    store.put(lease_key(TRIAL, 4), data)
    assert acquire(store, TRIAL, launch_id="mine") is None
    status = scan(store, [TRIAL])[TRIAL]
    assert status.state is TrialState.RUNNING
    assert status.lease is not None
    assert (status.lease.generation, status.lease.launch_id) == (4, "unreadable")
    longer_ago = (datetime.now() - timedelta(seconds=91)).timestamp()
    os.utime(Path(store.url) / lease_key(TRIAL, 4), (longer_ago, longer_ago))
    assert scan(store, [TRIAL])[TRIAL].state is TrialState.PENDING
    lease = acquire(store, TRIAL, launch_id="mine")
    assert lease is not None
    assert lease.generation == 5


def test_lease_is_superseded_by_a_higher_generation(store: Store) -> None:
    first = acquire(store, TRIAL, launch_id="mine")
    assert first is not None
    assert not is_superseded(store, first)
    second = acquire(store, TRIAL, launch_id="mine")
    assert second is not None
    assert is_superseded(store, first)
    assert not is_superseded(store, second)


def test_quicker_holder_wins_the_same_generation(store: Store) -> None:
    """Both saw generation 1 expired; the slower one finds number 2 taken."""
    put_lease(store, make_lease(age_s=40))
    assert store.put_new(lease_key(TRIAL, 2), make_lease(generation=2).to_json())
    assert acquire(store, TRIAL, launch_id="mine") is None


@pytest.mark.parametrize("skew_s", [-60, 0, 60], ids=["behind", "exact", "ahead"])
def test_holder_on_a_host_whose_clock_is_wrong_keeps_what_it_renews(store: Store, skew_s: float) -> None:
    """Guards `CLOCK_SKEW_S` in `is_live`: a clock one minute off costs no lease that was renewed within its time."""
    lease = put_lease(store, make_lease(age_s=29 - skew_s, boot_id="other", host="other", pid=1))
    assert is_live(lease)
    assert acquire(store, TRIAL, launch_id="mine") is None
    assert scan(store, [TRIAL])[TRIAL].state is TrialState.RUNNING


@pytest.mark.parametrize(("skew_s", "over_after_s"), [(-59, 31), (0, 90), (60, 150)], ids=["behind", "exact", "ahead"])
def test_lease_of_a_host_whose_clock_is_wrong_runs_out(store: Store, skew_s: float, over_after_s: float) -> None:
    """Guards the end of `is_live`: a lease that nobody renews lasts its time and twice the skew at most."""
    elsewhere = {"boot_id": "other", "host": "other", "pid": 1}
    assert is_live(make_lease(age_s=over_after_s - 2 - skew_s, **elsewhere))
    put_lease(store, make_lease(age_s=over_after_s + 1 - skew_s, **elsewhere))
    set_written(store, lease_key(TRIAL, 1), over_after_s + 1)
    assert scan(store, [TRIAL])[TRIAL].state is TrialState.PENDING
    successor = acquire(store, TRIAL, launch_id="mine")
    assert successor is not None
    assert successor.generation == 2


def test_lease_whose_answer_was_lost_is_held(store: Store) -> None:
    """Guards what `acquire` makes of `put_new`: a create that was made again finds the lease that it wrote itself, and holds it."""
    forgetful = ForgetfulStore(store.url)
    lease = acquire(forgetful, TRIAL, launch_id="mine")
    assert lease is not None
    assert stored(store, 1) == lease
    assert acquire(forgetful, TRIAL, launch_id="yours") is None
    release(store, lease)
    successor = acquire(forgetful, TRIAL, launch_id="yours")
    assert successor is not None
    assert stored(store, 2) == successor


def test_only_a_trial_that_was_held_before_costs_a_listing(store: Store) -> None:
    """Guards the first branch of `acquire`: thousands of new trials are taken without a listing each."""
    watched = WatchedStore(store.url)
    lease = acquire(watched, TRIAL, launch_id="mine")
    assert lease is not None
    assert watched.listed == []
    release(watched, lease)
    assert acquire(watched, TRIAL, launch_id="mine") is not None
    assert watched.listed == [lease_folder(TRIAL)]


def test_lease_above_a_generation_leaves_none_below_for_the_next_holder(store: Store) -> None:
    """Guards `after` of `acquire`: the next holder gets a higher generation, also where all leases were removed."""
    lease = acquire(store, TRIAL, launch_id="mine", after=3)
    assert lease is not None
    assert lease.generation == 4
    assert acquire(store, TRIAL, launch_id="yours") is None
    assert acquire(store, TRIAL, launch_id="yours", after=9) is None
    release(store, lease)
    successor = acquire(store, TRIAL, launch_id="yours")
    assert successor is not None
    assert successor.generation == 5


def test_stale_holder_of_a_generation_below_a_jump_is_superseded(store: Store) -> None:
    """Guards `is_superseded`, which looks at the next number only: a jump leaves no number out."""
    stale = put_lease(store, make_lease(age_s=1000))
    lease = acquire(store, TRIAL, launch_id="mine", after=3)
    assert lease is not None
    assert lease.generation == 4
    assert is_superseded(store, stale)
    assert not is_superseded(store, lease)


def test_leases_of_a_complete_trial_are_removed(store: Store) -> None:
    """Guards `remove`: all leases up to the last holder's go, those of other trials stay."""
    for generation in (1, 2):
        put_lease(store, make_lease(generation=generation, released=True))
    put_lease(store, make_lease(trial_id=OTHER))
    lease = acquire(store, TRIAL, launch_id="mine")
    assert lease is not None
    assert lease.generation == 3
    remove(store, lease)
    assert list(store.entries(lease_folder(TRIAL))) == []
    assert store.exists(lease_key(OTHER, 1))


def test_launch_ids_differ() -> None:
    assert len({new_launch_id() for _ in range(100)}) == 100


def test_start_time_is_known_for_living_processes_only() -> None:
    pid, _ = ended_process()
    assert process_started(pid) == ""
    assert process_started(os.getpid()) == process_started(os.getpid()) != ""
    assert boot_id() == boot_id() != ""


# --- states ----------------------------------------------------------------------------------------------------------------------------


def leave(store: Store, *what: str) -> None:
    """Leave traces of the trial in the store."""
    for trace in what:
        if trace == "record":
            store.put(record_key(TRIAL), b"")
        elif trace == "lease":
            put_lease(store, make_lease())
        elif trace == "old lease":
            put_lease(store, make_lease(age_s=1000))
        elif trace == "error":
            write_error(store, TRIAL, cause="loss is NaN", traceback="", host="h", launch_id="l")
        elif trace == "checkpoint":
            store.put(checkpoint_key(TRIAL, 1, 10, "0" * 16), b"")


@pytest.mark.parametrize(
    ("traces", "state"),
    [
        ((), "pending"),
        (("old lease",), "pending"),
        (("checkpoint",), "interrupted"),
        (("checkpoint", "old lease"), "interrupted"),
        (("error",), "failed"),
        (("error", "checkpoint", "old lease"), "failed"),
        (("lease",), "running"),
        (("lease", "error", "checkpoint"), "running"),
        (("record",), "complete"),
        (("record", "lease", "error", "checkpoint"), "complete"),
    ],
)
def test_first_trace_that_matches_gives_the_state(store: Store, traces: tuple[str, ...], state: str) -> None:
    leave(store, *traces)
    assert scan(store, [TRIAL])[TRIAL].state == TrialState(state)


def test_scan_knows_only_what_it_was_asked_in_that_order(store: Store) -> None:
    leave(store, "record")
    store.put(record_key("aaaaaaaaaaaaaaaa"), b"")
    statuses = scan(store, [OTHER, TRIAL])
    assert {trial_id: status.state.value for trial_id, status in statuses.items()} == {
        OTHER: "pending",
        TRIAL: "complete",
    }
    assert list(statuses) == [OTHER, TRIAL]
    assert scan(store, []) == {}


def test_scan_of_a_few_trials_says_the_same_and_lists_no_others(store: Store) -> None:
    leave(store, "error")
    store.put(record_key(OTHER), b"")
    watched = WatchedStore(store.url)
    assert scan_few(watched, [OTHER, TRIAL]) == scan(store, [OTHER, TRIAL])
    assert watched.listed == [f"trials/{OTHER}", f"trials/{TRIAL}"]


def test_complete_trials_carry_the_tag_of_their_record(store: Store) -> None:
    tag = store.put(record_key(TRIAL), b"1")
    assert scan(store, [TRIAL, OTHER])[TRIAL].record_tag == tag != ""
    assert scan(store, [OTHER])[OTHER].record_tag == ""


def test_newest_lease_decides(store: Store) -> None:
    put_lease(store, make_lease(generation=1))
    put_lease(store, make_lease(generation=2, released=True))
    assert scan(store, [TRIAL])[TRIAL].state is TrialState.PENDING


def test_running_trial_shows_its_progress(store: Store) -> None:
    renew(store, make_lease(), {"epoch": 2})
    lease = scan(store, [TRIAL])[TRIAL].lease
    assert lease is not None
    assert lease.progress == {"epoch": 2}


# --- failures --------------------------------------------------------------------------------------------------------------------------


def test_error_round_trips_and_is_forgotten(store: Store) -> None:
    write_error(
        store, TRIAL, cause="NonFiniteLossError: epoch 3", traceback="Traceback …\n  é", host="h1", launch_id="l1"
    )
    status = scan(store, [TRIAL])[TRIAL]
    assert status.error == read_error(store, TRIAL)
    error = dict(read_error(store, TRIAL))
    assert datetime.fromisoformat(error.pop("failed_at")).tzinfo == UTC
    assert error == {
        "cause": "NonFiniteLossError: epoch 3",
        "traceback": "Traceback …\n  é",
        "host": "h1",
        "launch_id": "l1",
    }
    clear_error(store, TRIAL)
    clear_error(store, TRIAL)
    assert scan(store, [TRIAL])[TRIAL].state is TrialState.PENDING


@pytest.mark.parametrize("data", [b"", b"{half", b"[1]", b"\xff"])
def test_damaged_error_still_means_failed(store: Store, data: bytes) -> None:
    store.put(error_key(TRIAL), data)
    status = scan(store, [TRIAL])[TRIAL]
    assert status.state is TrialState.FAILED
    assert status.error == {"cause": f"trials/{TRIAL}/error.json cannot be read", "traceback": ""}
