"""What would run, what is done, and why."""

import hashlib
import json
import re
from pathlib import Path

import pytest

from kd_ray.cli.text_status import sweeps
from kd_ray.errors import InvalidInputError, SweepError
from kd_ray.results.launch_plan import Plan, plan
from kd_ray.results.ledger import acquire, renew, write_error
from kd_ray.results.status import all_statuses, sweep_status
from kd_ray.results.store import Store, checkpoint_key, manifest_key, quarantine, record_key, samples_key
from kd_ray.sweep.plan import PlannedTrial
from tests.fakes import commit_trials, make_sweep, plan_trials, write_sweep

TRIALS = plan_trials(make_sweep())
"""0, 1: teachers; 2, 3: scratch students; 4..7: T=1 seed 0, T=1 seed 1, T=4 seed 0, T=4 seed 1."""
NONE = {"complete": 0, "running": 0, "failed": 0, "interrupted": 0, "pending": 0}


def fail(store: Store, trial: PlannedTrial) -> None:
    write_error(
        store, trial.trial_id, cause="NonFiniteLossError: NaN", traceback="Traceback …", host="h", launch_id="l"
    )


def planned(store: Store, *, retry_failed: bool = False) -> Plan:
    return plan(make_sweep(), store, retry_failed=retry_failed)


def scheduled(plan: Plan) -> set[int]:
    """Indices of the trials in packs."""
    ids = [trial.trial_id for trial in TRIALS]
    return {ids.index(trial.trial_id) for pack in plan.packs for trial in pack.trials}


def why(plan: Plan) -> list[str]:
    return [trial.why for trial in plan.trials]


def test_plan_without_a_store_runs_everything() -> None:
    found = plan(make_sweep(), None)
    assert (found.sweep, found.store) == ("demo", "")
    assert found.counts() == {**NONE, "pending": 8}
    assert found.planned == TRIALS
    assert [len(pack.trials) for pack in found.packs] == [1, 1, 2, 2, 1, 1]
    teachers = [TRIALS[0].trial_id, TRIALS[1].trial_id]
    assert why(found) == ["never run"] * 4 + [
        f"never run; waits for its teacher {teacher}" for teacher in (*teachers, *teachers)
    ]


def test_plan_touches_nothing(store: Store) -> None:
    commit_trials(store, TRIALS[:3])
    before = {item.key: item.modified_at for item in store.entries("")}
    planned(store)
    assert {item.key: item.modified_at for item in store.entries("")} == before


def test_plan_leaves_out_what_is_complete(store: Store) -> None:
    commit_trials(store, [TRIALS[0], TRIALS[2], TRIALS[4]])
    found = planned(store)
    assert found.store == store.url
    assert found.counts() == {**NONE, "complete": 3, "pending": 5}
    assert scheduled(found) == {1, 3, 5, 6, 7}
    assert found.trials[0].why == "its record is in the store"
    assert found.trials[6].why == "never run"
    assert found.trials[7].why == f"never run; waits for its teacher {TRIALS[1].trial_id}"


def test_plan_of_a_finished_sweep_has_no_packs(store: Store) -> None:
    commit_trials(store, TRIALS)
    assert planned(store).counts() == {**NONE, "complete": 8}
    assert planned(store).packs == ()


def test_failed_trial_runs_again_only_on_request(store: Store) -> None:
    fail(store, TRIALS[2])
    found = planned(store)
    assert found.counts() == {**NONE, "failed": 1, "pending": 7}
    assert scheduled(found) == {0, 1, 3, 4, 5, 6, 7}
    assert found.trials[2].why == "NonFiniteLossError: NaN; --retry-failed runs it again"
    assert found.trials[2].traceback == "Traceback …"
    again = planned(store, retry_failed=True)
    assert scheduled(again) == set(range(8))
    assert again.trials[2].why == "NonFiniteLossError: NaN"


def test_students_of_a_failed_teacher_are_blocked(store: Store) -> None:
    fail(store, TRIALS[0])
    found = planned(store)
    assert scheduled(found) == {1, 2, 3, 5, 7}
    assert why(found)[4] == why(found)[6] == f"blocked: its teacher {TRIALS[0].trial_id} failed"
    assert [trial.is_blocked for trial in found.trials] == [False] * 4 + [True, False, True, False]
    assert [trial.is_settled for trial in found.trials] == [True] + [False] * 3 + [True, False, True, False]
    again = planned(store, retry_failed=True)
    assert scheduled(again) == set(range(8))
    assert why(again)[4] == f"never run; waits for its teacher {TRIALS[0].trial_id}"


def test_complete_student_of_a_failed_teacher_stays_complete(store: Store) -> None:
    fail(store, TRIALS[0])
    commit_trials(store, [TRIALS[4]])
    assert planned(store).trials[4].why == "its record is in the store"


def test_interrupted_trial_goes_on(store: Store) -> None:
    store.put(checkpoint_key(TRIALS[2].trial_id, 1, 5, "0" * 16), b"")
    found = planned(store)
    assert found.counts() == {**NONE, "interrupted": 1, "pending": 7}
    assert found.trials[2].why == "continues from its checkpoint"
    assert scheduled(found) == set(range(8))


def test_running_trial_shows_who_holds_it_and_how_far_it_is(store: Store) -> None:
    lease = acquire(store, TRIALS[2].trial_id, launch_id="mine")
    assert lease is not None
    renew(store, lease, {"epoch": 3, "accuracy": 0.5, "images_per_s": 100.0})
    found = planned(store)
    assert scheduled(found) == {0, 1, 3, 4, 5, 6, 7}
    view = found.trials[2]
    assert not view.is_settled
    assert (view.state, view.epoch, view.epochs, view.accuracy, view.images_per_s) == ("running", 3, 4, 0.5, 100.0)
    assert view.why == f"held by process {lease.pid} on {lease.host}"


def test_plan_of_an_extended_grid_runs_only_the_new_trials(store: Store) -> None:
    commit_trials(store, TRIALS)
    found = plan(make_sweep(overrides=["grid.temperature=[1, 2, 4]", "name=renamed"]), store)
    assert found.counts() == {**NONE, "complete": 8, "pending": 2}
    assert [trial.spec.describe() for pack in found.packs for trial in pack.trials] == [
        "distilled lenet5 T=2 alpha=0.9 seed=0",
        "distilled lenet5 T=2 alpha=0.9 seed=1",
    ]


def test_plan_as_json(store: Store) -> None:
    commit_trials(store, TRIALS[:7])
    content = json.loads(json.dumps(planned(store).to_dict()))
    assert content["counts"] == {**NONE, "complete": 7, "pending": 1}
    assert content["packs"] == [[TRIALS[7].trial_id]]
    assert content["trials"][7] == {
        "trial_id": TRIALS[7].trial_id,
        "role": "distilled",
        "description": "distilled lenet5 T=4 alpha=0.9 seed=1",
        "state": "pending",
        "why": "never run",
        "epoch": None,
        "epochs": 4,
        "accuracy": None,
        "images_per_s": None,
        "traceback": None,
        "is_blocked": False,
        "is_stopped": False,
    }


def test_given_weights_are_known_by_their_content(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    path.write_bytes(b"weights")
    found = plan(make_sweep(overrides=[f"teacher.weights={path}"]), None)
    assert found.planned[0].spec.initial_weights == hashlib.sha256(b"weights").hexdigest()


def test_given_weights_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    path = tmp_path / "none.pt"
    file = make_sweep(overrides=[f"teacher.weights={path}"])
    expected = f"demo.yaml: teacher.weights: cannot read '{path}': No such file or directory"
    with pytest.raises(SweepError, match=re.escape(expected) + "$"):
        plan(file, None)
    known = plan(file, None, weights={str(path): "cd" * 32})
    assert known.planned[0].spec.initial_weights == "cd" * 32


# --- a sweep in the store ----------------------------------------------------------------------------------------------------------------


def test_status_needs_no_sweep_file(store: Store) -> None:
    write_sweep(store, make_sweep())
    commit_trials(store, TRIALS[:2])
    fail(store, TRIALS[3])
    status = sweep_status(store, "demo")
    assert (status.sweep, status.store) == ("demo", store.url)
    assert status.counts() == {**NONE, "complete": 2, "failed": 1, "pending": 5}
    in_run_order = [TRIALS[i] for i in (0, 1, 4, 6, 5, 7, 2, 3)]
    assert [trial.trial_id for trial in status.trials] == [trial.trial_id for trial in in_run_order]
    assert [trial.description for trial in status.trials] == [trial.spec.describe() for trial in in_run_order]
    assert status.problems == ()
    assert json.loads(json.dumps(status.to_dict()))["counts"] == status.counts()


def test_a_sweep_without_a_readable_manifest_hides_no_other(store: Store) -> None:
    """Guard: `kd-ray status` ended at the first such sweep."""
    write_sweep(store, make_sweep())
    store.put(manifest_key("broken", 1), b"noise")
    broken, demo = all_statuses(store)
    assert (demo.sweep, len(demo.trials), demo.problems) == ("demo", 8, ())
    assert (broken.sweep, broken.trials) == ("broken", ())
    (problem,) = broken.problems
    assert problem.startswith(f"store {store.url}: no whole manifest of sweep broken is left")
    said = sweeps([broken, demo], store.url)
    assert re.search(r"broken +0 +not readable", said)
    assert re.search(r"demo +8 +8 pending", said)
    assert f"note: {problem}" in said


def test_status_tells_of_a_damaged_manifest(store: Store) -> None:
    """Guards `SweepStatus.problems`: what is shown then is what the sweep asked for before."""
    write_sweep(store, make_sweep())
    store.put(manifest_key("demo", 2), b"noise")
    status = sweep_status(store, "demo")
    assert len(status.trials) == 8
    assert status.problems == (
        "sweeps/demo/manifest/000002.json is damaged; an older manifest is shown, and the next launch writes a new one",
    )
    write_sweep(store, make_sweep())
    (problem,) = sweep_status(store, "demo").problems
    assert problem.startswith(
        "sweeps/demo/manifest/000002.json was damaged; it is in quarantine as damaged/sweeps/demo/manifest/"
    )


def test_status_tells_what_was_quarantined_of_this_sweep(store: Store) -> None:
    """Guards `quarantined_of`: records of its trials and data sets are told, those of other sweeps are not."""
    write_sweep(store, make_sweep())
    samples = samples_key(TRIALS[0].spec.dataset_id)
    mine, other = record_key(TRIALS[0].trial_id), record_key("aaaaaaaaaaaaaaaa")
    kept = {}
    for key in (mine, other, samples, manifest_key("demo-2", 1)):
        store.put(key, b"noise")
        kept[key] = quarantine(store, key, b"noise")
    assert sorted(sweep_status(store, "demo").problems) == [
        f"{samples} was damaged; it is in quarantine as {kept[samples]}",
        f"{mine} was damaged; it is in quarantine as {kept[mine]}",
    ]
    assert json.loads(json.dumps(sweep_status(store, "demo").to_dict()))["problems"] == list(
        sweep_status(store, "demo").problems
    )


def test_status_shows_only_what_the_sweep_asks_for_now(store: Store) -> None:
    write_sweep(store, make_sweep())
    write_sweep(store, make_sweep(overrides=["grid.temperature=[4]"]))
    assert len(sweep_status(store, "demo").trials) == 6


def test_status_of_an_unknown_sweep_names_those_there_are(store: Store) -> None:
    write_sweep(store, make_sweep())
    with pytest.raises(InvalidInputError, match=r"no sweep 'nope'; it has: demo$"):
        sweep_status(store, "nope")


def test_a_trial_whose_record_was_damaged_says_so(store: Store) -> None:
    write_sweep(store, make_sweep())
    commit_trials(store, TRIALS[:1])
    data = store.get(record_key(TRIALS[0].trial_id))
    assert data is not None
    quarantine(store, record_key(TRIALS[0].trial_id), data)
    view = next(trial for trial in sweep_status(store, "demo").trials if trial.trial_id == TRIALS[0].trial_id)
    assert (view.state, view.why) == ("pending", "its record was damaged and is in quarantine")
