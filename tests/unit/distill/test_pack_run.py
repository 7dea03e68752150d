"""The life of a pack, with a worker that trains nothing: who may say what about a trial that was taken over."""

import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from kd_ray.distill.pack_run import run_pack
from kd_ray.distill.worker_protocol import LoadState, OnFailure, PackTraining
from kd_ray.results import ledger
from kd_ray.results.ledger import Lease
from kd_ray.results.record import read_record
from kd_ray.results.store import Store, error_key, lease_key, record_key
from kd_ray.sweep.packs import Pack, make_packs
from kd_ray.sweep.spec import TrialSpec, TrialState
from tests.benchmarks.synthetic import SyntheticWorker, synthetic_sweep
from tests.fakes import plan_trials

FILE = synthetic_sweep(1)
TRIAL = next(trial for trial in plan_trials(FILE) if trial.spec.role == "scratch")
PACK = Pack(trials=(TRIAL,))


def worker_of(store: Store, kind: type[SyntheticWorker] = SyntheticWorker) -> SyntheticWorker:
    return kind(store, FILE.sweep.placement, "mine")


def take_over(store: Store) -> Lease:
    """Somebody else has the next generation, and is alive."""
    mine = Lease.from_json(store.get(lease_key(TRIAL.trial_id, 1)) or b"")
    theirs = replace(mine, generation=2, launch_id="theirs")
    assert store.put_new(lease_key(TRIAL.trial_id, 2), theirs.to_json())
    return theirs


def test_a_pack_is_committed_and_leaves_nothing_but_records_and_weights(store: Store) -> None:
    (pack,) = make_packs(plan_trials(FILE)[1:2], pack_size=8)
    words = list(run_pack(pack, worker_of(store)))
    assert words[-1].committed == (pack.trials[0].trial_id,)
    names = {item.key.split("/", 2)[2] for item in store.entries("trials")}
    assert names == {"record.parquet", "weights-000001.safetensors"}


def test_an_error_of_a_worker_that_was_taken_over_is_not_the_trials(store: Store) -> None:
    """Guard: `_fail` asks whether the trial is still its own; the successor's trial would be failed otherwise."""

    class Late(SyntheticWorker):
        def begin(self, specs: Sequence[TrialSpec], load_state: LoadState, on_failure: OnFailure) -> PackTraining:
            take_over(store)
            on_failure(specs[0], RuntimeError("woke up in another world"))
            return super().begin([], load_state, on_failure)

    words = list(run_pack(PACK, worker_of(store, Late)))
    assert (words[-1].committed, words[-1].failed) == ((), ())
    assert not store.exists(error_key(TRIAL.trial_id))
    assert ledger.scan(store, [TRIAL.trial_id])[TRIAL.trial_id].state is TrialState.RUNNING


def test_a_lease_that_the_heartbeat_forgets_during_the_upload_does_no_harm(tmp_path: Path) -> None:
    """Guard: a commit holds on to the lease it began with."""

    class Slow(Store):
        def put(self, key: str, data: bytes, *, durable: bool = False) -> str:
            if "/weights-" in key:
                (heartbeat,) = (it for it in threading.enumerate() if it.name == "kd_ray-heartbeat")
                getattr(heartbeat, "_target").__self__.held.clear()  # noqa: B009 (private to threads)
            return super().put(key, data, durable=durable)

    store = Slow(str(tmp_path / "store"))
    words = list(run_pack(PACK, worker_of(store)))
    assert words[-1].committed == (TRIAL.trial_id,)
    assert read_record(store, TRIAL.trial_id) is not None


def test_retries_of_the_pack_stand_in_the_record(store: Store) -> None:
    list(run_pack(Pack(trials=(TRIAL,), retries=2), worker_of(store)))
    record = read_record(store, TRIAL.trial_id)
    assert record is not None
    assert record.provenance.retries == 2


def test_a_trial_that_is_complete_is_left_alone(store: Store) -> None:
    """Guard: the record is looked up after the lease was taken."""
    list(run_pack(PACK, worker_of(store)))
    before = store.get(record_key(TRIAL.trial_id))
    words = list(run_pack(PACK, worker_of(store)))
    assert len(words) == 1
    assert words[0].committed == (TRIAL.trial_id,)
    assert store.get(record_key(TRIAL.trial_id)) == before
    assert [item.key for item in store.entries(f"trials/{TRIAL.trial_id}/lease")] == []


def test_a_pack_of_more_than_its_device_takes_is_given_back_untouched(store: Store) -> None:
    pack = Pack(trials=plan_trials(FILE)[1:4])
    (word,) = run_pack(pack, worker_of(store), most=2)
    assert (word.done, word.is_too_large, word.committed, word.failed) == (True, True, (), ())
    assert not list(store.entries("trials"))
    assert len(list(run_pack(pack, worker_of(store), most=3))[-1].committed) == 3
