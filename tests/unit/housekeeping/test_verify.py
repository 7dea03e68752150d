"""What verify finds, what repair does about it, and that both leave everything else alone."""

import json
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest

from kd_ray.errors import InvalidInputError
from kd_ray.housekeeping.problems import Remedy
from kd_ray.housekeeping.repair import rebuild_tables, repair
from kd_ray.housekeeping.verify import verify
from kd_ray.results import ledger, record
from kd_ray.results.aggregate import aggregate
from kd_ray.results.record import decode_table, encode_table
from kd_ray.results.store import (
    Store,
    manifest_key,
    part_key,
    pretrained_key,
    record_key,
    samples_key,
    sweep_key,
    table_index_key,
    weights_key,
)
from kd_ray.sweep.spec import TrialState
from tests.fakes import make_sweep, plan_trials, write_sweep
from tests.unit.housekeeping.whole import commit_whole, contents, save_checkpoint, spoil, tables

TRIALS = plan_trials(make_sweep())
IDS = [trial.trial_id for trial in TRIALS]
DATASET = TRIALS[0].spec.dataset_id
GIVEN = "a given teacher"


@pytest.fixture
def whole(store: Store) -> Store:
    """Seven of eight trials complete, the last interrupted, pretrained weights, tables up to date."""
    write_sweep(store, make_sweep())
    commit_whole(store, TRIALS[:7])
    save_checkpoint(store, IDS[7], 10)
    store.put(pretrained_key(record.sha256(GIVEN.encode())), GIVEN.encode())
    aggregate(store, "demo")
    return store


@pytest.mark.slow
def test_a_whole_store_has_no_problems_and_is_only_read(whole: Store) -> None:
    before = contents(whole)
    report = verify(whole)
    assert report.problems == ()
    assert (report.sweeps, report.num_records, report.num_quarantined) == (("demo",), 7, 0)
    assert report.num_checked == 1 + 1 + 1 + 7 + 7 + 1 + 7
    assert contents(whole) == before


def rename_checkpoint(store: Store) -> str:
    (key,) = [item.key for item in store.entries(f"trials/{IDS[7]}/checkpoint")]
    spoil(store, key)
    return key


def spoiled(key: str) -> Callable[[Store], str]:
    def damage(store: Store) -> str:
        spoil(store, key)
        return key

    return damage


def deleted(key: str) -> Callable[[Store], str]:
    def damage(store: Store) -> str:
        store.delete(key)
        return key

    return damage


def wrong_folder(store: Store) -> str:
    store.put(record_key(IDS[1]), store.get(record_key(IDS[2])) or b"")
    return record_key(IDS[1])


def changed_row(store: Store) -> str:
    """Another accuracy, with checksums and fold key in order."""
    key = part_key("trials", "demo", 0)
    table = decode_table(store.get(key) or b"")
    column = table.schema.get_field_index("accuracy")
    values = [0.123, *table["accuracy"].to_pylist()[1:]]
    store.put(key, encode_table(table.set_column(column, table.schema.field(column), pa.array(values, pa.float64()))))
    return key


def surplus_part(store: Store) -> str:
    key = part_key("trials", "demo", 5)
    store.put(key, store.get(part_key("trials", "demo", 0)) or b"")
    return key


def noisy_index(store: Store) -> str:
    store.put(table_index_key("demo"), b"{")
    return table_index_key("demo")


GIVEN_KEY = pretrained_key(record.sha256(GIVEN.encode()))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "remedy"),
    [
        (spoiled(record_key(IDS[0])), Remedy.TRAIN),
        (wrong_folder, Remedy.TRAIN),
        (spoiled(weights_key(IDS[0], 1)), Remedy.TRAIN),
        (deleted(weights_key(IDS[0], 1)), Remedy.TRAIN),
        (spoiled(samples_key(DATASET)), Remedy.QUARANTINE),
        (deleted(samples_key(DATASET)), Remedy.QUARANTINE),
        (spoiled(GIVEN_KEY), Remedy.QUARANTINE),
        (rename_checkpoint, Remedy.QUARANTINE),
        (spoiled(part_key("epochs", "demo", 0)), Remedy.REBUILD),
        (deleted(part_key("epochs", "demo", 0)), Remedy.REBUILD),
        (spoiled(part_key("samples", "demo", 0)), Remedy.REBUILD),
        (changed_row, Remedy.REBUILD),
        (surplus_part, Remedy.REBUILD),
        (noisy_index, Remedy.REBUILD),
        (deleted(sweep_key("demo")), Remedy.RESTORE),
    ],
)
def test_names_what_is_damaged_and_mends_it(whole: Store, damage: Callable[[Store], str], remedy: Remedy) -> None:
    """Guard: each check of verify. What is damaged is the only thing named, and is no problem any more once it was mended."""
    key = damage(whole)
    report = verify(whole)
    assert [(problem.key, problem.remedy) for problem in report.problems] == [(key, remedy)]
    repaired = repair(whole, report)
    assert repaired.left == ()
    needs_launch = key in (samples_key(DATASET),)
    assert [problem.key for problem in verify(whole).problems] == ([key] if needs_launch else [])


@pytest.mark.slow
@pytest.mark.parametrize("damage", [spoiled(record_key(IDS[0])), spoiled(weights_key(IDS[0], 1))])
def test_a_damaged_trial_is_pending_again_and_its_rows_are_gone(whole: Store, damage: Callable[[Store], str]) -> None:
    damage(whole)
    repaired = repair(whole, verify(whole))
    assert repaired.to_resume == ("demo",)
    assert ledger.scan(whole, IDS[:1])[IDS[0]].state is TrialState.PENDING
    assert aggregate(whole, "demo").num_trials == 6
    assert any(item.key.startswith(f"damaged/{record_key(IDS[0])}-") for item in whole.entries("damaged"))


@pytest.mark.slow
def test_a_trial_in_the_hands_of_a_launch_is_left_alone(whole: Store) -> None:
    """Guard: a record is quarantined under the trial's lease only."""
    spoil(whole, record_key(IDS[0]))
    assert ledger.acquire(whole, IDS[0], launch_id="x")
    repaired = repair(whole, verify(whole))
    assert [line.split(": ")[1] for line in repaired.left] == ["left alone"]
    assert whole.exists(record_key(IDS[0]))


@pytest.mark.slow
def test_mended_tables_are_those_of_before(whole: Store) -> None:
    """Guard: bad parts are deleted first, or the index would vouch for them."""
    before = tables(whole)
    changed_row(whole)
    repair(whole, verify(whole))
    assert tables(whole) == before


@pytest.mark.slow
@pytest.mark.parametrize("is_changed", [False, True])
def test_deleting_the_tables_loses_nothing(whole: Store, is_changed: bool) -> None:
    before = tables(whole)
    if is_changed:
        changed_row(whole)
    assert rebuild_tables(whole, "demo") == "tables of sweep demo: rebuilt from 7 trials"
    assert tables(whole) == before
    for item in list(whole.entries("tables")):
        whole.delete(item.key)
    aggregate(whole, "demo")
    assert tables(whole) == before


@pytest.mark.slow
def test_records_of_another_version_are_named_and_stay(whole: Store) -> None:
    """Guard: what another version of kd_ray wrote is not damaged."""
    for trial_id in IDS[:7]:
        table = record.decode_table(whole.get(record_key(trial_id)) or b"")
        place = table.schema.get_field_index("record_version")
        other = table.set_column(place, table.schema.field(place), pa.array([99], type=pa.int32()))
        whole.put(record_key(trial_id), record.encode_table(other))
    report = verify(whole, with_tables=False)
    assert {problem.key for problem in report.problems} == {record_key(trial_id) for trial_id in IDS[:7]}
    assert all(
        "another version" in problem.what or "has record_version 99" in problem.what for problem in report.problems
    )
    before = contents(whole)
    assert len(repair(whole, verify(whole)).left) >= 7
    assert contents(whole) == before


@pytest.mark.slow
def test_a_damaged_manifest_is_quarantined_unless_it_is_the_last(whole: Store) -> None:
    """Guard: without any manifest, resume goes by the sweep file only where a damaged one says that the sweep exists."""
    whole.put(manifest_key("demo", 2), b"noise")
    (problem,) = verify(whole).problems
    assert (problem.key, problem.remedy) == (manifest_key("demo", 2), Remedy.QUARANTINE)
    assert problem.what.endswith("an older one holds until the sweep file is launched again")
    repair(whole, verify(whole))
    assert verify(whole).problems == ()
    spoil(whole, manifest_key("demo", 1))
    whole.put(manifest_key("demo", 1), b"noise")
    assert [(problem.key, problem.remedy) for problem in verify(whole).problems] == [
        (manifest_key("demo", 1), Remedy.NONE)
    ]
    repair(whole, verify(whole))
    assert whole.exists(manifest_key("demo", 1))


@pytest.mark.slow
def test_predictions_of_another_length_are_named(whole: Store) -> None:
    zeros_N = np.zeros(11)
    commit_whole(whole, TRIALS[7:], predictions_N=zeros_N, confidences_N=zeros_N, true_probabilities_N=zeros_N)
    problems = verify(whole, with_tables=False).problems
    assert [(problem.key, problem.remedy) for problem in problems] == [(record_key(IDS[7]), Remedy.NONE)]
    assert problems[0].what == "it predicts 11 test samples, and its data set has 12"


@pytest.mark.slow
def test_tables_of_a_running_sweep_may_be_behind_but_not_wrong(whole: Store) -> None:
    commit_whole(whole, TRIALS[7:])
    assert {problem.remedy for problem in verify(whole).problems} == {Remedy.REBUILD}
    whole.delete(record_key(IDS[6]))
    assert ledger.acquire(whole, IDS[6], launch_id="x")
    assert verify(whole).problems == ()
    changed_row(whole)
    spoil(whole, part_key("epochs", "demo", 0))
    assert [problem.key for problem in verify(whole).problems] == [part_key("epochs", "demo", 0)]


@pytest.mark.slow
def test_a_copied_store_with_other_tags_is_whole(whole: Store) -> None:
    """Guard: rows decide, not the tags of the store, which change when a folder is copied."""
    for key, data in contents(whole).items():
        whole.put(key, data or b"")
    assert verify(whole).problems == ()


@pytest.mark.slow
def test_one_sweep_is_read_alone(whole: Store) -> None:
    other = make_sweep(overrides=["name=other", "grid.seed=[7]"])
    write_sweep(whole, other)
    commit_whole(whole, plan_trials(other))
    aggregate(whole, "other")
    spoil(whole, record_key(plan_trials(other)[0].trial_id))
    assert verify(whole, "demo").problems == ()
    assert len(verify(whole, "other").problems) == len(verify(whole).problems) == 1
    with pytest.raises(InvalidInputError, match="no sweep 'none'; it has: demo, other"):
        verify(whole, "none")


@pytest.mark.slow
def test_progress_and_json(whole: Store) -> None:
    seen: list[tuple[str, int, int]] = []
    report = verify(whole, on_progress=lambda *step: seen.append(step))
    assert seen[-2:] == [("trials", 8, 8), ("tables of sweeps", 1, 1)]
    assert json.loads(json.dumps(report.to_dict()))["problems"] == []
