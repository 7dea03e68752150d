"""An object store that misbehaves costs only itself: what passes is waited for, what does not is named, and the tables stay the same."""

import itertools
import logging
import pickle
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from kd_ray.cluster.launch import launch
from kd_ray.errors import InvalidInputError, StoreError
from kd_ray.housekeeping.adopt import adopt
from kd_ray.results import ledger
from kd_ray.results.objects import Patience
from kd_ray.results.record import commit_record, read_record
from kd_ray.results.store import Store, open_store
from tests.fakes import make_record
from tests.faulty_s3 import WRITES, Fault, FaultyS3, always, at_random, faulty_s3, first, no_faults
from tests.processes import run_cli
from tests.s3 import BUCKET, settings_for
from tests.sweeps import assert_same_tables, tiny_sweep, write_tiny_sweep

URL = f"s3://{BUCKET}"
QUICK = Patience(first_wait_s=0.01, longest_wait_s=0.1)
_NUMBERS = itertools.count()


@pytest.fixture
def proxy(s3: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyS3]:
    """A proxy before the S3 server, which the environment names; its time limit is short."""
    with faulty_s3(s3) as running:
        for name, value in (settings_for(running.url) | {"AWS_TIMEOUT": "500ms"}).items():
            monkeypatch.setenv(name, value)
        yield running


@pytest.fixture
def far(proxy: FaultyS3) -> Store:
    """A store behind the proxy that has answered before and holds `a/b`."""
    store = open_store(f"{URL}/faulty-{next(_NUMBERS)}", patience=QUICK)
    store.put("a/b", b"0123456789")
    return store


# --- what passes ----------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Call:
    """A method of the store, and what it should do to an `a/b` of ten digits."""

    method: str
    """Of the request that is harmed."""
    act: Callable[[Store], object]
    expected: object


def _delete(store: Store) -> bytes | None:
    store.delete("a/b")
    return store.get("a/b")


CALLS = {
    "get": Call(method="GET", act=lambda store: store.get("a/b"), expected=b"0123456789"),
    "exists": Call(method="HEAD", act=lambda store: store.exists("a/b"), expected=True),
    "put": Call(method="PUT", act=lambda store: (store.put("a/b", b"new"), store.get("a/b"))[1], expected=b"new"),
    "put_new": Call(method="PUT", act=lambda store: (store.put_new("a/c", b"c"), store.get("a/c"))[1], expected=b"c"),
    "delete": Call(method="POST", act=_delete, expected=None),
    "entries": Call(method="GET", act=lambda store: [item.key for item in store.entries("a")], expected=["a/b"]),
}


@pytest.mark.parametrize(
    "fault", [Fault.ERROR, Fault.SLOW_DOWN, Fault.HANG, Fault.CUT, Fault.LOST], ids=lambda f: f.name
)
@pytest.mark.parametrize("call", CALLS.values(), ids=list(CALLS))
def test_every_method_survives_what_passes(call: Call, fault: Fault, far: Store, proxy: FaultyS3) -> None:
    """Guard: `Store._ask`. Without it a create or a delete that is overdue fails, and so do a listing and a delete that break off; all else
    the client repeats by itself, for two seconds.
    """
    times = 3 if fault in (Fault.ERROR, Fault.SLOW_DOWN) else 1
    proxy.faults = first(fault, times, methods=(call.method,))
    assert call.act(far) == call.expected
    assert proxy.harmed == {fault: times}


def test_a_store_is_waited_for_longer_than_the_client_does(
    far: Store, proxy: FaultyS3, caplog: pytest.LogCaptureFixture
) -> None:
    """Guard: `Store._ask` takes 5xx for something that passes; the client stops after eleven tries, two seconds, and says so."""
    proxy.faults = first(Fault.SLOW_DOWN, 15)
    with caplog.at_level(logging.WARNING):
        assert far.get("a/b") == b"0123456789"
    assert proxy.requests == {"GET": 16}
    assert [record.message.split(": ")[:2] for record in caplog.records] == [
        [f"store {far.url}", "trying again for 90 s"]
    ]


def test_a_store_opened_in_another_process_is_known_to_have_answered(far: Store, proxy: FaultyS3) -> None:
    """Guard: `Store.__reduce__` carries `_has_answered`; a worker that starts during an outage has patience, too."""
    proxy.faults = first(Fault.HANG, methods=("PUT",))
    assert pickle.loads(pickle.dumps(far)).put_new("a/c", b"c") is True
    assert proxy.harmed == {Fault.HANG: 1}


# --- a create whose answer is lost ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [Fault.LOST, Fault.CUT], ids=lambda f: f.name)
def test_a_create_whose_answer_is_lost_knows_its_own_bytes(fault: Fault, far: Store, proxy: FaultyS3) -> None:
    """Guard: `put_new` compares what is there with what it meant to write."""
    proxy.faults = first(fault, methods=("PUT",))
    assert far.put_new("a/c", b"mine") is True
    assert proxy.requests == {"PUT": 2, "GET": 1}
    assert far.get("a/c") == b"mine"
    assert far.put_new("a/c", b"yours") is False
    assert far.get("a/c") == b"mine"


def test_a_lease_is_held_although_the_answer_is_lost(far: Store, proxy: FaultyS3) -> None:
    """Guard: as above; the trial would count as held by someone else until the lease runs out."""
    proxy.faults = first(Fault.LOST, methods=("PUT",))
    lease = ledger.acquire(far, "t1", launch_id="mine")
    assert proxy.harmed == {Fault.LOST: 1}
    assert lease is not None
    assert lease.generation == 1
    assert ledger.acquire(far, "t1", launch_id="another") is None


def test_a_record_is_committed_although_the_answer_is_lost(far: Store, proxy: FaultyS3) -> None:
    """Guard: as above; the weights would be deleted."""
    record = make_record()
    proxy.faults = first(Fault.LOST, methods=("PUT",))
    assert commit_record(far, record) is True
    assert proxy.harmed == {Fault.LOST: 1}
    assert read_record(far, record.trial_id) is not None


# --- a whole sweep --------------------------------------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize("seed", [1])
def test_a_sweep_over_a_store_that_fails_now_and_then_gives_the_same_tables(
    seed: int, far: Store, proxy: FaultyS3, store: Store, trifeature_root: Path
) -> None:
    """Guard: `Store._ask`, and whatever takes an answer that was lost for another's success."""
    file = tiny_sweep(trifeature_root)
    assert launch(file, store, runner="local").exit_code == 0
    faults = (Fault.ERROR, Fault.SLOW_DOWN, Fault.HANG, Fault.CUT, Fault.LOST)
    proxy.faults = at_random(seed, 0.1, faults)
    report = launch(file, far, runner="local")
    harmed, requests = proxy.harmed.copy(), proxy.requests.copy()
    proxy.faults = no_faults
    said = f"seed {seed}: {dict(harmed)} of {dict(requests)}"
    assert report.exit_code == 0, said
    assert set(harmed) == set(faults), said
    assert_same_tables(store, far)


# --- a store that may only be read ----------------------------------------------------------------------------------------------------


def test_a_launch_on_a_read_only_store_ends_with_one_line(
    far: Store, proxy: FaultyS3, trifeature_root: Path, tmp_path: Path
) -> None:
    """Guards: `Store._ask` repeats what the client has no better name for, so not a refusal, and `Store._translated` gives one line."""
    file = write_tiny_sweep(tmp_path, trifeature_root)
    proxy.faults = always(Fault.DENIED, methods=WRITES)
    done = run_cli("launch", str(file), "--runner", "local", "--store", far.url, cwd=tmp_path)
    *before, last = done.stderr.splitlines()
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert last.startswith(f"store {far.url}: cannot create 'proof/")
    assert "AccessDenied" in last
    assert not [line for line in before if line and not line.startswith("preparing")]
    assert proxy.harmed == {Fault.DENIED: 1}


def test_a_listing_that_is_refused_is_not_waited_for(far: Store, proxy: FaultyS3) -> None:
    """Guard: `Store._may_pass` looks at the status; the client has no name of its own for this refusal."""
    proxy.faults = first(Fault.DENIED)
    with pytest.raises(StoreError, match=rf"^store {far.url}: cannot list 'a': .*403"):
        list(far.entries("a"))
    assert proxy.requests == {"GET": 1}


@pytest.mark.long
def test_a_finished_sweep_can_be_used_on_a_read_only_store(
    far: Store, proxy: FaultyS3, trifeature_root: Path, tmp_path: Path
) -> None:
    """Guard: nothing is written where there is nothing to do (`write_manifest` and `aggregate` compare first)."""
    overrides = ("grid.seed=[0]", "grid.temperature=[1]")
    assert launch(tiny_sweep(trifeature_root, *overrides), far, runner="local").exit_code == 0
    file = write_tiny_sweep(tmp_path, trifeature_root, *overrides)
    proxy.faults = always(Fault.DENIED, methods=WRITES)
    status = run_cli("status", "tiny", "--store", far.url, cwd=tmp_path)
    assert status.returncode == 0, status.stderr
    query = run_cli("query", "SELECT count(*) AS n FROM trials", "--store", far.url, "--format", "csv", cwd=tmp_path)
    assert (query.returncode, query.stdout) == (0, "n\n3\n"), query.stderr
    again = run_cli("launch", str(file), "--runner", "local", "--store", far.url, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert proxy.harmed == {}


# --- a store that does not do what is needed ------------------------------------------------------------------------------------------


def test_a_launch_refuses_a_store_that_does_not_exclude(
    far: Store, proxy: FaultyS3, trifeature_root: Path, tmp_path: Path
) -> None:
    """Guard: `prove_store` in `write_inputs`; without it two launches train and commit every trial twice, and nothing tells."""
    file = write_tiny_sweep(tmp_path, trifeature_root)
    proxy.faults = always(Fault.UNCONDITIONAL, methods=("PUT",))
    done = run_cli("launch", str(file), "--runner", "local", "--store", far.url, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith(
        f"store {far.url}: it cannot be used: it lets two writers create one object, because it ignores"
    )
    assert last.endswith("docs/stores.md says what a store has to do, and which ones were tried")
    assert not [item.key for item in far.entries("") if not item.key.startswith(("proof/", "a/"))]


@pytest.mark.long
def test_a_store_that_was_trusted_before_is_put_to_the_proof(
    far: Store, proxy: FaultyS3, trifeature_root: Path, tmp_path: Path, store: Store
) -> None:
    """Guard: the proof is made where trials are to run, also if the manifest stays as it is; and by a merge."""
    overrides = ("grid.seed=[0]", "grid.temperature=[1]")
    file = tiny_sweep(trifeature_root, *overrides)
    assert launch(file, far, runner="local").exit_code == 0
    assert launch(file, store, runner="local").exit_code == 0
    for item in list(far.entries("")):
        if item.key.startswith("proof/") or item.key.endswith("record.parquet"):
            far.delete(item.key)
    proxy.faults = always(Fault.UNCONDITIONAL, methods=("PUT",))
    for act in (lambda: launch(file, far, runner="local"), lambda: adopt(store, far)):
        with pytest.raises(InvalidInputError, match="it lets two writers create one object"):
            act()
    assert not [item.key for item in far.entries("trials") if item.key.endswith("record.parquet")]


@pytest.mark.parametrize("call", CALLS)
def test_a_request_that_the_server_does_not_know_is_not_repeated_for_long(
    call: str, far: Store, proxy: FaultyS3
) -> None:
    """Guard: `PASSING` without 501; it was waited for 90 s. The client itself asks eleven times."""
    proxy.faults = always(Fault.NOT_IMPLEMENTED, methods=(CALLS[call].method,))
    lacks = r"the server does not know this request \(501\); docs/stores.md says what a store has to do: "
    with pytest.raises(StoreError, match=rf"^store {far.url}: cannot [\w ]+ 'a[^']*': {lacks}"):
        CALLS[call].act(far)
    assert proxy.harmed == {Fault.NOT_IMPLEMENTED: 11}


# --- a store that is gone for good ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [Fault.ERROR, Fault.HANG], ids=lambda f: f.name)
@pytest.mark.parametrize("call", ["get", "put_new", "delete", "entries"])
def test_a_store_that_never_recovers_is_given_up(call: str, fault: Fault, far: Store, proxy: FaultyS3) -> None:
    """Guards: the deadline in `Store._ask`, without which the store recovers in the end and nothing is raised; its `retry_timeout`."""
    far = pickle.loads(pickle.dumps(open_store(far.url, patience=replace(QUICK, total_s=1))))
    far.put("a/b", b"0123456789")
    many = 100 if fault is Fault.ERROR else 20
    proxy.faults = first(fault, many)
    started = time.monotonic()
    with pytest.raises(StoreError, match=rf"^store {far.url}: cannot \w+ 'a"):
        CALLS[call].act(far)
    assert 0.9 <= time.monotonic() - started < 6
    assert 2 <= proxy.harmed[fault] < many


def test_a_store_that_no_longer_listens_is_given_up(s3: str, proxy: FaultyS3, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards: the deadline in `Store._ask`, and its patience with a store that has answered before."""
    with faulty_s3(s3) as short_lived:
        monkeypatch.setenv("AWS_ENDPOINT_URL", short_lived.url)
        store = open_store(f"{URL}/gone", patience=replace(QUICK, total_s=4))
        assert store.get("a/b") is None
    started = time.monotonic()
    with pytest.raises(StoreError, match=r"^store s3://sweeps/gone: cannot read 'a/b': "):
        store.get("a/b")
    assert 3.5 < time.monotonic() - started < 12


def test_a_store_that_has_never_answered_gets_a_short_trial(s3: str, proxy: FaultyS3) -> None:
    """Guard: `_has_answered`; a wrong address is named in seconds, not after `Patience.total_s`."""
    proxy.faults = always(Fault.LOST)
    started = time.monotonic()
    with pytest.raises(StoreError, match=r"^store s3://sweeps/never: cannot list 'sweeps': "):
        list(open_store(f"{URL}/never").entries("sweeps"))
    assert proxy.requests == {"GET": 11}
    assert time.monotonic() - started < 20
