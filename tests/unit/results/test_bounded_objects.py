"""JSON objects of a store that a stranger wrote, or that are damaged: none of them ends a verb with a traceback."""

import json
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from kd_ray.bounded import JsonForm
from kd_ray.errors import CorruptObjectError
from kd_ray.housekeeping.find_garbage import find_garbage
from kd_ray.housekeeping.problems import Remedy
from kd_ray.housekeeping.repair import repair
from kd_ray.housekeeping.verify import verify
from kd_ray.results import ledger
from kd_ray.results.aggregate import aggregate, read_index
from kd_ray.results.ledger import CLOCK_SKEW_S, LEASE_TTL_S, Lease, acquire, scan, supersede
from kd_ray.results.manifest import find_manifest
from kd_ray.results.status import sweep_status
from kd_ray.results.store import Store, error_key, lease_key, manifest_key, open_store, table_index_key
from kd_ray.sweep.spec import TrialState
from tests.fakes import make_sweep, plan_trials, set_written, write_sweep

DEEP = b"[" * 100_000
PLANNED = plan_trials(make_sweep())
TRIAL = PLANNED[0].trial_id


def lease_of_another_host(**changes: object) -> bytes:
    """A lease as another host writes it, with `changes`."""
    fields = {
        "trial_id": TRIAL,
        "generation": 1,
        "launch_id": "other",
        "host": "other",
        "boot_id": "other",
        "pid": 1,
        "process_started": "1",
        "renewed_at": datetime.now(UTC).isoformat(),
        "ttl_s": LEASE_TTL_S,
        "released": False,
        "progress": None,
    }
    return json.dumps(fields | changes).encode()


BAD_LEASES = {
    "naive time": lease_of_another_host(renewed_at="2026-11-27T00:00:00"),
    "ttl of ages": lease_of_another_host(ttl_s=1e18),
    "negative ttl": lease_of_another_host(ttl_s=-1),
    "words for numbers": lease_of_another_host(progress={"epoch": "many", "accuracy": []}),
    "deep": DEEP,
    "long": b'"' + b"x" * 2_000_000 + b'"',
}


@pytest.mark.parametrize("data", BAD_LEASES.values(), ids=BAD_LEASES)
def test_bad_lease_counts_from_the_time_stamp_of_the_store_and_is_named(store: Store, data: bytes) -> None:
    write_sweep(store, make_sweep())
    store.put(lease_key(TRIAL, 1), data)
    assert sweep_status(store, "demo").trials[0].state == "running"
    set_written(store, lease_key(TRIAL, 1))
    assert sweep_status(store, "demo").trials[0].state == "pending"
    (problem,) = [it for it in verify(store).problems if it.key == lease_key(TRIAL, 1)]
    assert problem.what.startswith("it is not a whole lease, and the next launch replaces it: ")
    assert problem.remedy is Remedy.NONE
    assert "\n" not in problem.what


@pytest.mark.parametrize("data", [DEEP, b'{"cause": 5, "traceback": [1]}', b"[]"])
def test_bad_error_is_named_and_repaired(store: Store, data: bytes) -> None:
    write_sweep(store, make_sweep())
    store.put(error_key(TRIAL), data)
    status = sweep_status(store, "demo").trials[0]
    assert (status.state, status.traceback) == ("failed", "")
    report = verify(store)
    assert [(it.key, it.remedy) for it in report.problems] == [(error_key(TRIAL), Remedy.QUARANTINE)]
    repair(store, report)
    assert sweep_status(store, "demo").trials[0].state == "pending"


@pytest.mark.parametrize(
    "data", [DEEP, b'{"manifest_version": 3, "content": 5}', b'{"manifest_version": [3]}', b"9" * 9000]
)
def test_bad_manifest_leaves_the_one_before(store: Store, data: bytes) -> None:
    write_sweep(store, make_sweep())
    store.put(manifest_key("demo", 2), data)
    found = find_manifest(store, "demo")
    assert found.manifest is not None
    assert found.manifest.generation == 1
    assert list(found.damaged) == [manifest_key("demo", 2)]
    (problem,) = verify(store).problems
    assert problem.remedy is Remedy.QUARANTINE


@pytest.mark.parametrize("data", [b'{"a":' * 100_000, b'{"a": [1, 2], "b": [{}, {}]}', b'{"a": ["one"]}', b"[]"])
def test_bad_index_is_rebuilt(store: Store, data: bytes) -> None:
    write_sweep(store, make_sweep())
    store.put(table_index_key("demo"), data)
    assert read_index(store, "demo") == {}
    assert [it.remedy for it in verify(store, with_tables=False).problems] == [Remedy.REBUILD]
    aggregate(store, "demo")


def test_object_that_is_too_large_is_not_read(store: Store) -> None:
    store.put("a", b"12345")
    assert store.get("a", most_bytes=5) == b"12345"
    with pytest.raises(CorruptObjectError, match=r"'a' has 5 bytes; at most 4 are read"):
        store.get("a", most_bytes=4)


def test_text_beyond_the_limit_is_refused_before_it_is_parsed() -> None:
    form: JsonForm[list[int]] = JsonForm(kind=list[int], most_bytes=10)
    assert form.read(b"[1, 2]") == [1, 2]
    with pytest.raises(ValueError, match=r"it has 12 bytes; at most 10 are read"):
        form.read(b"[1, 2, 3, 4]")


# --- leases from the future -----------------------------------------------------------------------------------------------------------

YEARS_S = 10 * 365 * 86400.0


def put_ahead(store: Store, ahead_s: float = YEARS_S) -> Lease:
    data = lease_of_another_host(renewed_at=(datetime.now(UTC) + timedelta(seconds=ahead_s)).isoformat())
    store.put(lease_key(TRIAL, 1), data)
    return Lease.from_json(data)


def state(store: Store) -> TrialState:
    return scan(store, [TRIAL])[TRIAL].state


def test_lease_from_the_future_is_over_when_the_store_wrote_it_long_ago(store: Store) -> None:
    put_ahead(store)
    assert state(store) is TrialState.RUNNING
    set_written(store, lease_key(TRIAL, 1), LEASE_TTL_S + CLOCK_SKEW_S + 1)
    assert state(store) is TrialState.PENDING
    taken = acquire(store, TRIAL, launch_id="mine")
    assert taken is not None
    assert taken.generation == 2


def later(seconds: float) -> None:
    """Let this process have seen every lease of a wrong clock `seconds` earlier."""
    for key, (e_tag, seen_at) in ledger._first_seen.items():
        ledger._first_seen[key] = (e_tag, seen_at - seconds)


def test_lease_from_the_future_is_over_when_it_does_not_change(store: Store) -> None:
    lease = put_ahead(store)
    # Its store's clock is ahead as well.
    set_written(store, lease_key(TRIAL, 1), -YEARS_S)
    assert state(store) is TrialState.RUNNING
    later(LEASE_TTL_S + CLOCK_SKEW_S - 1)
    assert state(store) is TrialState.RUNNING
    # A renewal is a change, whatever it says of the time.
    store.put(lease_key(TRIAL, 1), replace(lease, progress={"epoch": 1}).to_json())
    set_written(store, lease_key(TRIAL, 1), -YEARS_S)
    later(2)
    assert state(store) is TrialState.RUNNING
    later(LEASE_TTL_S + CLOCK_SKEW_S)
    status = scan(store, [TRIAL])[TRIAL]
    assert status.state is TrialState.PENDING
    assert status.outlived is not None
    # A worker in another process has not watched it.
    ledger._first_seen.clear()
    assert acquire(store, TRIAL, launch_id="mine") is None
    supersede(store, status.outlived, launch_id="mine")
    taken = acquire(store, TRIAL, launch_id="mine-too")
    assert taken is not None
    assert taken.generation == 3
    assert ledger.is_superseded(store, lease)


@pytest.mark.parametrize("is_alive", [True, False])
def test_lease_from_the_future_of_this_host_ends_with_its_process(store: Store, is_alive: bool) -> None:
    """Guard: the clock of this host was set back after the renewal, and whether the holder lives is known without it."""
    started = ledger.process_started(os.getpid()) if is_alive else "another start"
    renewed_at = (datetime.now(UTC) + timedelta(seconds=YEARS_S)).isoformat()
    data = lease_of_another_host(
        boot_id=ledger.boot_id(), pid=os.getpid(), process_started=started, renewed_at=renewed_at
    )
    store.put(lease_key(TRIAL, 1), data)
    assert state(store) is (TrialState.RUNNING if is_alive else TrialState.PENDING)


def test_clock_that_is_a_little_ahead_is_no_matter(store: Store) -> None:
    put_ahead(store, CLOCK_SKEW_S - 5)
    set_written(store, lease_key(TRIAL, 1))
    assert state(store) is TrialState.RUNNING


def test_verify_names_a_lease_from_the_future(store: Store) -> None:
    write_sweep(store, make_sweep())
    put_ahead(store)
    (problem,) = verify(store).problems
    assert problem.key == lease_key(TRIAL, 1)
    assert "by the clock of other, which is still to come" in problem.what
    assert "when it has not changed for 90 s" in problem.what


def test_gc_notes_a_lease_from_the_future(store: Store) -> None:
    write_sweep(store, make_sweep())
    put_ahead(store)
    (note,) = find_garbage(store).notes
    assert note.startswith(f"{lease_key(TRIAL, 1)} stays: it was renewed at ")
    assert "by the clock of other, which is still to come" in note


@pytest.mark.parametrize("behind_s", [CLOCK_SKEW_S + 1, 600, YEARS_S])
def test_holder_whose_clock_is_behind_keeps_its_trial_while_it_renews(store: Store, behind_s: float) -> None:
    """Guard: `is_from_the_past`. What counts is that the lease changes, and not what it says of the time."""
    lease = put_ahead(store, -behind_s - LEASE_TTL_S)
    # The store's clock is ahead, so that its time stamp does not end the lease.
    set_written(store, lease_key(TRIAL, 1), -YEARS_S)
    for epoch in range(20):
        assert state(store) is TrialState.RUNNING
        assert acquire(store, TRIAL, launch_id="mine") is None
        later(LEASE_TTL_S)
        store.put(lease_key(TRIAL, 1), replace(lease, progress={"epoch": epoch}).to_json())
        set_written(store, lease_key(TRIAL, 1), -YEARS_S)
    # It dies.
    assert state(store) is TrialState.RUNNING
    later(LEASE_TTL_S + CLOCK_SKEW_S - 1)
    assert state(store) is TrialState.RUNNING
    later(2)
    status = scan(store, [TRIAL])[TRIAL]
    assert (status.state, status.outlived is not None) == (TrialState.PENDING, True)
    taken = acquire(store, TRIAL, launch_id="mine")
    assert taken is not None
    assert taken.generation == 2


def test_holder_whose_clock_is_behind_loses_its_trial_when_the_store_wrote_its_lease_long_ago(store: Store) -> None:
    put_ahead(store, -600)
    assert state(store) is TrialState.RUNNING
    (problem,) = verify(store).problems
    assert "by the clock of other, and the store wrote it later, at " in problem.what
    set_written(store, lease_key(TRIAL, 1), LEASE_TTL_S + CLOCK_SKEW_S + 1)
    assert state(store) is TrialState.PENDING
    assert verify(store).problems == ()


def test_stores_are_watched_apart(tmp_path: Path) -> None:
    for name in ("a", "b"):
        put_ahead(open_store(tmp_path / name))
        assert state(open_store(tmp_path / name)) is TrialState.RUNNING
    assert {url for url, _ in ledger._first_seen} >= {str(tmp_path / "a"), str(tmp_path / "b")}
