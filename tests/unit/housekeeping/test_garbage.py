"""What gc deletes, and above all what it does not."""

from collections import Counter
from pathlib import Path

import pytest

from kd_ray.housekeeping.delete_garbage import delete_garbage
from kd_ray.housekeeping.find_garbage import find_garbage
from kd_ray.housekeeping.garbage import GarbageKind
from kd_ray.results import ledger
from kd_ray.results.aggregate import aggregate
from kd_ray.results.store import (
    Store,
    error_key,
    lease_key,
    logits_key,
    manifest_key,
    part_key,
    record_key,
    table_index_key,
    weights_key,
)
from tests.fakes import make_sweep, plan_trials, write_sweep
from tests.unit.housekeeping.whole import commit_whole, files, grow_old, keys, save_checkpoint, spoil, tables

TRIALS = plan_trials(make_sweep())
IDS = [trial.trial_id for trial in TRIALS]


def counts(store: Store, **options: bool) -> dict[GarbageKind, int]:
    return dict(Counter(found.kind for found in find_garbage(store, **options).garbage))


def clean(store: Store, **options: bool) -> set[str]:
    """Run gc; the keys that are gone."""
    before = files(store)
    deleted = delete_garbage(store, find_garbage(store, **options))
    gone = before - files(store)
    assert {found.item.key for found in deleted.garbage} == gone
    return gone


@pytest.fixture
def littered(store: Store) -> Store:
    """Six of eight trials complete, with all that can stay behind; the seventh interrupted; everything two hours old."""
    commit_whole(store, TRIALS[:6])
    for seeds in ("[0]", "[1]", "[0, 1]", "[0]", "[0, 1]"):
        write_sweep(store, make_sweep(overrides=[f"grid.seed={seeds}"]))
    a, b, c = IDS[:3]
    for trial_id in (a, b, IDS[6]):
        lease = ledger.acquire(store, trial_id, launch_id="x")
        assert lease is not None
        ledger.release(store, lease)
    save_checkpoint(store, a, 10)
    ledger.write_error(store, c, cause="NonFiniteLossError: nan", traceback="…", host="h", launch_id="x")
    store.put(weights_key(c, 4), b"of a worker that was killed before it could commit")
    for step in (10, 20, 30, 40):
        save_checkpoint(store, IDS[6], step)
    store.put("tables/trials/gone/part-00000.parquet", b"rows")
    store.put(part_key("trials", "demo", 7), b"rows")
    aggregate(store, "demo")
    store.put(part_key("trials", "demo", 9), b"rows")
    assert store.local_root is not None
    for name in ("part-00000.parquet#1", "notes#1a"):
        (store.local_root / "tables" / "trials" / "demo" / name).write_bytes(b"half")
    grow_old(store)
    return store


@pytest.mark.slow
def test_finds_each_kind_with_its_reason(littered: Store) -> None:
    report = find_garbage(littered)
    assert {group.kind.value: group.num_objects for group in report.groups()} == {
        "leases": 2,
        "checkpoints": 1,
        "errors": 1,
        "weights": 1,
        "old checkpoints": 2,
        "old manifests": 3,
        "table parts": 2,
        "staging files": 1,
    }
    assert all(group.reason for group in report.groups())
    assert report.size_bytes == sum(group.size_bytes for group in report.groups()) > 0


@pytest.mark.slow
def test_nothing_is_deleted_by_looking(littered: Store) -> None:
    before = files(littered)
    find_garbage(littered, with_damaged=True, with_orphans=True)
    assert files(littered) == before


@pytest.mark.slow
def test_deletes_just_what_it_found_and_finds_nothing_more(littered: Store) -> None:
    before = files(littered)
    found = {one.item.key for one in find_garbage(littered).garbage}
    clean_report = delete_garbage(littered, find_garbage(littered))
    assert {one.item.key for one in clean_report.garbage} == found
    assert before - files(littered) == found
    assert find_garbage(littered).garbage == ()


@pytest.mark.slow
def test_harms_nothing(littered: Store) -> None:
    """Guard: after gc, with a live lease and an interrupted trial about, every state is the same, and so are the tables, rebuilt or not."""
    live = ledger.acquire(littered, IDS[7], launch_id="z")
    assert live is not None
    save_checkpoint(littered, IDS[7], 5)
    aggregate(littered, "demo")
    before, rows = ledger.scan(littered, IDS), tables(littered)
    assert [before[trial_id].state.value for trial_id in IDS] == [*["complete"] * 6, "interrupted", "running"]
    clean(littered)
    assert ledger.scan(littered, IDS) == before
    assert tables(littered) == rows
    for key in keys(littered):
        if key.startswith("tables/") or key == table_index_key("demo"):
            littered.delete(key)
    aggregate(littered, "demo")
    assert tables(littered) == rows


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0, 60, 85])
def test_young_objects_stay(littered: Store, seconds: float) -> None:
    """Guard: MARGIN_S. What is younger may be in use, whatever it looks like."""
    grow_old(littered, seconds=seconds)
    assert find_garbage(littered, with_damaged=True, with_orphans=True).garbage == ()


@pytest.mark.slow
def test_table_parts_and_staging_files_stay_for_an_hour(littered: Store) -> None:
    """Guard: LONG_MARGIN_S. An aggregation writes its index last, and a large object takes its time."""
    grow_old(littered, seconds=3000)
    assert {GarbageKind.PARTS, GarbageKind.STAGING} & set(counts(littered)) == set()


@pytest.mark.slow
def test_older_than_raises_the_margin(littered: Store) -> None:
    assert find_garbage(littered, older_than_s=7000).garbage
    assert find_garbage(littered, older_than_s=8000).garbage == ()


@pytest.mark.slow
def test_a_held_trial_is_left_alone_altogether(littered: Store) -> None:
    """Guard: a renewed lease protects the old objects of its trial as well."""
    lease = ledger.acquire(littered, IDS[6], launch_id="y")
    assert lease is not None
    assert GarbageKind.SUPERSEDED not in counts(littered)
    assert len(clean(littered)) > 0
    assert ledger.scan(littered, IDS[6:7])[IDS[6]].lease == lease


@pytest.mark.slow
def test_a_trial_that_was_taken_since_is_left_alone(littered: Store) -> None:
    """Guard: states are looked at again right before deleting."""
    report = find_garbage(littered)
    for trial_id in (IDS[0], IDS[6]):
        assert ledger.acquire(littered, trial_id, launch_id="z")
    owners = {found.owner for found in delete_garbage(littered, report).garbage}
    assert IDS[1] in owners
    assert not {IDS[0], IDS[6]} & owners


@pytest.mark.slow
def test_a_record_that_was_quarantined_since_keeps_the_rest(littered: Store) -> None:
    """Guard: leases of a trial without a record are never touched, nor is anything else that its record made superfluous."""
    report = find_garbage(littered)
    for trial_id in IDS[:3]:
        littered.delete(record_key(trial_id))
    before = {key for key in keys(littered) if key.split("/")[1] in IDS[:3]}
    delete_garbage(littered, report)
    assert before <= keys(littered)


@pytest.mark.slow
def test_another_record_since_keeps_the_weights(littered: Store) -> None:
    """Guard: weights go only while the record is the very object that was read; a new one may name them."""
    report = find_garbage(littered)
    littered.delete(record_key(IDS[2]))
    commit_whole(littered, TRIALS[2:3], generation=4)
    delete_garbage(littered, report)
    assert littered.exists(weights_key(IDS[2], 4))


@pytest.mark.slow
def test_leases_of_incomplete_trials_are_never_touched(littered: Store) -> None:
    """Guard: the number of a lease is the fencing token."""
    clean(littered, with_damaged=True)
    assert lease_key(IDS[6], 1) in keys(littered)
    lease = ledger.acquire(littered, IDS[6], launch_id="z")
    assert lease is not None
    assert lease.generation == 2


@pytest.mark.slow
def test_two_whole_checkpoints_stay_whatever_is_damaged(littered: Store) -> None:
    """Guard: only what two newer *whole* checkpoints supersede goes; damaged ones do not count."""
    newest = max(key for key in keys(littered) if f"{IDS[6]}/checkpoint" in key)
    spoil(littered, newest)
    grow_old(littered)
    clean(littered)
    left = sorted(key.split("-")[1] for key in keys(littered) if f"{IDS[6]}/checkpoint" in key)
    assert left == ["000000020", "000000030", "000000040"]


@pytest.mark.slow
def test_weights_stay_where_the_record_cannot_be_read_or_names_missing_ones(littered: Store) -> None:
    """Guard: nobody knows then which of them are wanted."""
    commit_whole(littered, TRIALS[6:7], generation=5)
    littered.put(weights_key(IDS[6], 6), b"other")
    littered.put(weights_key(IDS[6], 7), b"other")
    littered.delete(weights_key(IDS[6], 5))
    spoil(littered, record_key(IDS[2]))
    grow_old(littered)
    report = find_garbage(littered)
    assert GarbageKind.WEIGHTS not in {found.kind for found in report.garbage}
    assert any(note.startswith(f"weights of {IDS[2]} stay") for note in report.notes)


@pytest.mark.slow
def test_logits_of_a_teacher_go_when_its_last_student_is_complete(littered: Store) -> None:
    teachers = {trial.spec.teacher.trial_id for trial in TRIALS[6:] if trial.spec.teacher}
    (idle,) = {trial.spec.teacher.trial_id for trial in TRIALS if trial.spec.teacher} - teachers or {"0" * 16}
    keys = {owner: logits_key(owner, "a" * 16, "b" * 64) for owner in (*teachers, idle)}
    for key in keys.values():
        littered.put(key, b"logits")
    assert not clean(littered) & set(keys.values()), "they are young"
    for key in keys.values():
        littered.put(key, b"logits")
    grow_old(littered)
    assert clean(littered) & set(keys.values()) == {keys[idle]}
    commit_whole(littered, TRIALS[6:])
    grow_old(littered)
    assert clean(littered) >= {keys[owner] for owner in teachers}


@pytest.mark.slow
def test_the_two_newest_readable_manifests_stay(littered: Store) -> None:
    """Guard: a reader finds the newest that can be read, and one more below it."""
    littered.put(manifest_key("demo", 5), b"noise")
    grow_old(littered)
    clean(littered)
    assert {key for key in keys(littered) if "/manifest/" in key} == {manifest_key("demo", n) for n in (3, 4, 5)}


@pytest.mark.slow
def test_manifests_of_another_version_stay(littered: Store) -> None:
    littered.put(manifest_key("demo", 6), b'{"manifest_version": 99}')
    grow_old(littered)
    assert GarbageKind.MANIFESTS not in counts(littered)


@pytest.mark.slow
def test_parts_stay_while_there_is_no_index(littered: Store) -> None:
    """Guard: without an index nothing tells which parts are in use."""
    littered.delete(table_index_key("demo"))
    gone = {key for key in clean(littered) if key.startswith("tables/") and key.endswith(".parquet")}
    assert gone == {"tables/trials/gone/part-00000.parquet"}


@pytest.mark.slow
def test_damaged_objects_stay_unless_asked_for_and_while_their_trial_is_not_complete(littered: Store) -> None:
    """Guard: a running launch learns from them why a record that its worker reported is gone."""
    for trial_id in (IDS[0], IDS[7]):
        littered.put(f"damaged/{record_key(trial_id)}-0123456789abcdef", b"noise")
    littered.put("damaged/datasets/d/samples.parquet-0123456789abcdef", b"noise")
    grow_old(littered)
    assert GarbageKind.DAMAGED not in counts(littered)
    gone = {key for key in clean(littered, with_damaged=True) if key.startswith("damaged/")}
    assert gone == {
        f"damaged/{record_key(IDS[0])}-0123456789abcdef",
        "damaged/datasets/d/samples.parquet-0123456789abcdef",
    }


@pytest.mark.slow
def test_trials_of_no_sweep_go_only_on_request(littered: Store) -> None:
    other = plan_trials(make_sweep(overrides=["grid.seed=[7]", "grid.temperature=[2]"]))
    commit_whole(littered, other)
    grow_old(littered)
    ids = {trial.trial_id for trial in other}
    assert GarbageKind.ORPHANS not in counts(littered)
    gone = clean(littered, with_orphans=True)
    assert {key.split("/")[1] for key in gone if record_key(key.split("/")[1]) == key} == ids
    assert not any(key.startswith("trials/") and key.split("/")[1] in ids for key in keys(littered))


@pytest.mark.slow
def test_trials_that_a_sweep_no_longer_asks_for_are_no_orphans(littered: Store) -> None:
    """Guard: records are results; inactive trials are listed still."""
    write_sweep(littered, make_sweep(overrides=["grid.seed=[0]"]))
    grow_old(littered)
    assert GarbageKind.ORPHANS not in counts(littered, with_orphans=True)


@pytest.mark.slow
def test_no_orphans_while_a_manifest_cannot_be_read(littered: Store) -> None:
    """Guard: what it lists is not known."""
    commit_whole(littered, plan_trials(make_sweep(overrides=["grid.seed=[7]"])))
    littered.put(manifest_key("other", 1), b"noise")
    grow_old(littered)
    report = find_garbage(littered, with_orphans=True)
    assert GarbageKind.ORPHANS not in {found.kind for found in report.garbage}
    assert any("manifest of sweep other cannot be read" in note for note in report.notes)


@pytest.mark.slow
def test_orphans_that_a_sweep_has_asked_for_since_stay(littered: Store) -> None:
    """Guard: the manifests are read again right before a record is deleted."""
    other = make_sweep(overrides=["name=later", "grid.seed=[7]"])
    commit_whole(littered, plan_trials(other))
    grow_old(littered)
    report = find_garbage(littered, with_orphans=True)
    write_sweep(littered, other)
    assert GarbageKind.ORPHANS in {found.kind for found in report.garbage}
    assert GarbageKind.ORPHANS not in {found.kind for found in delete_garbage(littered, report).garbage}


@pytest.mark.slow
def test_an_error_of_a_failed_trial_stays(littered: Store) -> None:
    ledger.write_error(littered, IDS[7], cause="x", traceback="", host="h", launch_id="x")
    grow_old(littered)
    clean(littered)
    assert error_key(IDS[7]) in keys(littered)


def test_a_store_that_is_not_there_holds_nothing(tmp_path: Path) -> None:
    assert find_garbage(Store(str(tmp_path / "none"))).garbage == ()
