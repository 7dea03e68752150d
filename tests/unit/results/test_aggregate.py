"""Aggregation: tables follow from the records, whatever happened before."""

import json
import os
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from kd_ray.errors import CorruptObjectError, InvalidInputError
from kd_ray.results.aggregate import aggregate
from kd_ray.results.inventory import committed
from kd_ray.results.manifest import Manifest
from kd_ray.results.record import commit_record, decode_table, encode_record, encode_table, write_samples
from kd_ray.results.schema import TABLES
from kd_ray.results.store import (
    Store,
    manifest_key,
    open_store,
    part_key,
    record_key,
    samples_key,
    table_columns_key,
    table_index_key,
)
from kd_ray.results.table_parts import part_keys, read_columns, read_table
from tests.fakes import WatchedStore, commit_trials, make_record, make_samples, make_sweep, plan_trials, write_sweep


@pytest.fixture
def manifest(store: Store) -> Manifest:
    """The demo sweep with all its eight trials committed, not aggregated yet."""
    commit_trials(store, plan_trials(make_sweep()))
    return write_sweep(store, make_sweep())


def read_all(store: Store) -> dict[str, pa.Table]:
    return {name: read_table(store, name) for name in TABLES}


def parts(store: Store) -> dict[str, bytes | None]:
    return {item.key: store.get(item.key) for item in store.entries("tables")}


def trial_ids(store: Store, table: str = "trials") -> list[str]:
    return [str(trial_id) for trial_id in read_table(store, table)["trial_id"].to_pylist()]


@pytest.mark.slow
def test_aggregation_makes_every_table(store: Store, manifest: Manifest) -> None:
    report = aggregate(store, manifest.sweep)
    assert (report.num_trials, report.num_parts_written, report.problems) == (8, 2, ())
    assert {name: table.num_rows for name, table in read_all(store).items()} == {
        "trials": 8,
        "class_metrics": 8 * 3,
        "group_metrics": 8 * (3 + 2 + 6) * 3,
        "fairness_metrics": 8 * 3 * 4,
        "epochs": 8 * 4,
        "predictions": 8,
        "samples": 12,
    }
    for name, table in read_all(store).items():
        assert table.schema.equals(TABLES[name].arrow_schema)
    assert trial_ids(store) == [trial.trial_id for trial in manifest.trials]


@pytest.mark.slow
def test_second_aggregation_writes_nothing(store: Store, manifest: Manifest) -> None:
    aggregate(store, manifest.sweep)
    before = {item.key: item.modified_at for item in store.entries("tables")}
    assert len(before) == 7
    report = aggregate(store, manifest.sweep)
    assert (report.num_trials, report.num_parts_written) == (8, 0)
    assert {item.key: item.modified_at for item in store.entries("tables")} == before


@pytest.mark.slow
def test_tables_can_be_thrown_away(store: Store, manifest: Manifest) -> None:
    aggregate(store, manifest.sweep)
    before = parts(store)
    for key in before:
        store.delete(key)
    assert read_table(store, "trials").num_rows == 0
    aggregate(store, manifest.sweep)
    assert parts(store) == before


@pytest.mark.slow
def test_order_of_commits_and_folds_between_do_not_matter(tmp_path_factory: pytest.TempPathFactory) -> None:
    trials = plan_trials(make_sweep())
    found = []
    for name, order in (("at once", trials), ("backwards", reversed(trials))):
        store = open_store(tmp_path_factory.mktemp("store"))
        manifest = write_sweep(store, make_sweep())
        for trial in order:
            commit_trials(store, [trial])
            if name == "backwards":
                aggregate(store, manifest.sweep)
        aggregate(store, manifest.sweep)
        found.append(read_all(store))
    assert found[0]["trials"].num_rows == 8
    for name in TABLES:
        assert found[0][name].equals(found[1][name]), name


def test_aggregation_of_half_a_sweep_holds_that_half(store: Store) -> None:
    trials = plan_trials(make_sweep())
    manifest = write_sweep(store, make_sweep())
    assert aggregate(store, manifest.sweep).num_trials == 0
    assert parts(store) == {}
    commit_trials(store, trials[3:5])
    report = aggregate(store, manifest.sweep)
    assert (report.num_trials, report.num_parts_written) == (2, 2)
    # Distilled students run, and stand, before scratch students.
    assert trial_ids(store) == [trials[4].trial_id, trials[3].trial_id]


def test_committed_are_the_trials_with_a_record(store: Store) -> None:
    trials = plan_trials(make_sweep())
    commit_trials(store, trials[:2])
    store.put(f"trials/{trials[3].trial_id}/error.json", b"")
    store.put(f"trials/{trials[4].trial_id}/lease/record.parquet", b"")
    tags = {item.key: item.e_tag for item in store.entries("trials")}
    assert committed(store) == {trial.trial_id: tags[record_key(trial.trial_id)] for trial in trials[:2]}


@pytest.mark.slow
def test_removed_grid_value_removes_rows_but_no_record_and_comes_back(store: Store, manifest: Manifest) -> None:
    aggregate(store, manifest.sweep)
    before, records = parts(store), committed(store)
    smaller = write_sweep(store, make_sweep(overrides=["grid.temperature=[4]"]))
    assert aggregate(store, smaller.sweep).num_trials == 6
    assert set(read_table(store, "trials")["temperature"].to_pylist()) == {None, 4.0}
    assert set(trial_ids(store, "class_metrics")) == set(trial_ids(store))
    assert committed(store) == records
    again = write_sweep(store, make_sweep())
    assert aggregate(store, again.sweep).num_trials == 8
    assert parts(store) == before


@pytest.mark.slow
def test_added_intersection_appears_without_training(store: Store) -> None:
    commit_trials(store, plan_trials(make_sweep()))
    aggregate(store, write_sweep(store, make_sweep(overrides=["intersections=null"])).sweep)
    assert set(read_table(store, "fairness_metrics")["feature"].to_pylist()) == {"color", "texture"}
    aggregate(store, write_sweep(store, make_sweep()).sweep)
    assert set(read_table(store, "fairness_metrics")["feature"].to_pylist()) == {"color", "texture", "color & texture"}


@pytest.mark.slow
def test_trials_beyond_a_part_land_in_exactly_one_part_each(store: Store) -> None:
    file = make_sweep(overrides=["grid.temperature=[1, 4, 5]", "grid.seed=[0]"])
    commit_trials(store, plan_trials(file))
    manifest = write_sweep(store, file)
    assert aggregate(store, manifest.sweep, trials_per_part=2).num_parts_written == 4
    ids = [trial.trial_id for trial in manifest.trials]
    for table in sorted(TABLES.keys() - {"samples"}):
        held = [
            list(dict.fromkeys(decode_table(whole(store, key))["trial_id"].to_pylist()))
            for key in part_keys(store, table)
        ]
        assert held == [ids[0:2], ids[2:4], ids[4:5]]
    assert list(part_keys(store, "samples")) == [part_key("samples", "demo", 0)]


@pytest.mark.slow
def test_new_trials_leave_full_parts_alone(store: Store) -> None:
    commit_trials(store, plan_trials(make_sweep()))
    aggregate(store, write_sweep(store, make_sweep()).sweep, trials_per_part=2)
    before = parts(store)
    larger = make_sweep(overrides=["grid.temperature=[0.5, 1, 4]"])
    commit_trials(store, plan_trials(larger))
    assert aggregate(store, write_sweep(store, larger).sweep, trials_per_part=2).num_parts_written == 1
    assert {key: data for key, data in parts(store).items() if key in before} == before
    assert len(trial_ids(store)) == len(set(trial_ids(store))) == 10


@pytest.mark.slow
def test_corrupt_record_is_reported_and_left_out(store: Store, manifest: Manifest) -> None:
    broken = manifest.trials[2].trial_id
    data = store.get(record_key(broken))
    assert data is not None
    store.put(record_key(broken), data[:-10])
    report = aggregate(store, manifest.sweep)
    assert report.num_trials == 7
    assert (report.damaged_trials, report.damaged_samples) == ((broken,), ())
    (problem,) = report.problems
    assert problem.startswith(f"store {store.url}: 'trials/{broken}/record.parquet' is not a whole record: ")
    for table in sorted(TABLES.keys() - {"samples"}):
        assert set(trial_ids(store, table)) == {trial.trial_id for trial in manifest.trials} - {broken}
    assert aggregate(store, manifest.sweep).problems == report.problems
    store.put(record_key(broken), data)
    assert aggregate(store, manifest.sweep).problems == ()
    assert trial_ids(store) == [trial.trial_id for trial in manifest.trials]


@pytest.mark.slow
def test_part_of_corrupt_records_only_is_no_part(store: Store, manifest: Manifest) -> None:
    aggregate(store, manifest.sweep)
    for trial in manifest.trials:
        store.put(record_key(trial.trial_id), b"")
    for key in parts(store):
        store.delete(key)
    report = aggregate(store, manifest.sweep)
    assert (report.num_trials, len(report.problems)) == (0, 8)
    assert list(part_keys(store, "trials")) == []


@pytest.mark.slow
def test_missing_samples_are_named(store: Store, manifest: Manifest) -> None:
    dataset_id = manifest.trials[0].dataset_id
    store.delete(samples_key(dataset_id))
    report = aggregate(store, manifest.sweep)
    assert (report.num_trials, report.damaged_trials, report.damaged_samples) == (0, (), (dataset_id,))
    assert report.problems == (
        f"store {store.url}: the samples of data set {dataset_id} are missing; the tables lack its trials",
    )
    assert parts(store) == {}
    write_samples(store, dataset_id, make_samples())
    assert aggregate(store, manifest.sweep).problems == ()
    assert trial_ids(store) == [trial.trial_id for trial in manifest.trials]


@pytest.mark.slow
def test_samples_have_one_part_for_each_data_set_in_use(store: Store) -> None:
    overrides = ["dataset.split_seed=null", "grid.dataset.split_seed=[0, 1]"]
    file = make_sweep(overrides=overrides)
    trials = plan_trials(file)
    manifest = write_sweep(store, file)
    datasets = list(dict.fromkeys(trial.spec.dataset_id for trial in trials))
    assert len(datasets) == 2
    commit_trials(store, [trial for trial in trials if trial.spec.dataset_id == datasets[1]])
    aggregate(store, manifest.sweep)
    assert list(part_keys(store, "samples")) == [part_key("samples", "demo", 1)]
    commit_trials(store, trials)
    aggregate(store, manifest.sweep)
    assert list(part_keys(store, "samples")) == [part_key("samples", "demo", 0), part_key("samples", "demo", 1)]
    assert read_table(store, "samples")["dataset_id"].to_pylist() == [datasets[0]] * 12 + [datasets[1]] * 12
    aggregate(store, write_sweep(store, make_sweep(overrides=[overrides[0], "grid.dataset.split_seed=[1]"])).sweep)
    assert set(read_table(store, "samples")["dataset_id"].to_pylist()) == {datasets[1]}


@pytest.mark.slow
def test_read_table_by_sweep(store: Store, manifest: Manifest) -> None:
    other = make_sweep(overrides=["name=demo-2", "grid.temperature=[4, 9]"])
    commit_trials(store, plan_trials(other))
    aggregate(store, manifest.sweep)
    aggregate(store, write_sweep(store, other).sweep)
    assert read_table(store, "trials", ["demo"])["sweep"].to_pylist() == ["demo"] * 8
    assert read_table(store, "trials", ["demo-2"])["sweep"].to_pylist() == ["demo-2"] * 8
    assert read_table(store, "trials", ["demo", "demo-2"]).num_rows == read_table(store, "trials").num_rows == 16
    assert read_table(store, "trials", []).num_rows == read_table(store, "trials", ["none"]).num_rows == 0
    columns = ["accuracy", "trial_id"]
    assert read_columns(store, "trials", "demo-2", columns) == read_table(store, "trials", ["demo-2"]).select(columns)
    assert read_columns(store, "trials", "none", columns).column_names == columns


@pytest.mark.slow
def test_damaged_part_is_named(store: Store, manifest: Manifest) -> None:
    aggregate(store, manifest.sweep)
    key = part_key("class_metrics", "demo", 0)
    store.put(key, b"junk")
    with pytest.raises(CorruptObjectError, match=f"'{key}' is not a whole table part"):
        read_table(store, "class_metrics")


Harm = Callable[[Store, str], object]


def whole(store: Store, key: str) -> bytes:
    data = store.get(key)
    assert data
    return data


def write_in_place(store: Store, key: str) -> None:
    """As a file system does that lost what was in the file: the same file, as long as before."""
    path = Path(store.url) / key
    path.write_bytes(random.Random(0).randbytes(path.stat().st_size))
    later_ns = path.stat().st_mtime_ns + 10**9
    os.utime(path, ns=(later_ns, later_ns))


HARM: dict[str, Harm] = {
    "deleted": lambda store, key: store.delete(key),
    "truncated": lambda store, key: store.put(key, whole(store, key)[:-8]),
    "empty": lambda store, key: store.put(key, b""),
    "noise": lambda store, key: store.put(key, random.Random(0).randbytes(3000)),
    "overwritten": lambda store, key: store.put(key, random.Random(0).randbytes(len(whole(store, key)))),
    "overwritten in place": write_in_place,
    "no footer": lambda store, key: store.put(key, b"PAR1 but nothing else PAR1"),
    "another whole part": lambda store, key: store.put(key, whole(store, key.replace("demo", "demo-2"))),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "harm",
    [
        pytest.param(harm, marks=[] if harm in ("deleted", "truncated", "overwritten in place") else pytest.mark.long)
        for harm in HARM
    ],
)
def test_damaged_part_of_any_table_is_rebuilt_by_the_next_aggregation(
    store: Store, manifest: Manifest, harm: str
) -> None:
    """Guards the e_tags of the index: whatever became of a part, the next aggregation brings it back, and nothing else changes."""
    other = make_sweep(overrides=["name=demo-2", "grid.temperature=[4, 9]"])
    commit_trials(store, plan_trials(other))
    for sweep in (manifest.sweep, write_sweep(store, other).sweep):
        aggregate(store, sweep)
    before, rows = parts(store), read_all(store)
    for table in TABLES:
        HARM[harm](store, part_key(table, "demo", 0))
        assert parts(store) != before
        report = aggregate(store, manifest.sweep)
        assert (report.num_trials, report.num_parts_written, report.problems) == (8, 1, ())
        assert parts(store) == before, table
    for name, found in read_all(store).items():
        assert found.equals(rows[name]), name
    assert aggregate(store, manifest.sweep).num_parts_written == 0


@pytest.mark.slow
def test_many_damaged_parts_are_rebuilt_at_once(store: Store, manifest: Manifest) -> None:
    aggregate(store, manifest.sweep)
    before = parts(store)
    for harm, key in zip(HARM, before, strict=False):
        if harm != "another whole part":
            HARM[harm](store, key)
    assert aggregate(store, manifest.sweep).problems == ()
    assert parts(store) == before


@pytest.mark.slow
def test_older_whole_part_is_not_taken_for_the_newest(store: Store) -> None:
    """Guards the aggregation key in the part itself, for a part that the index does not vouch for: one from a backup."""
    manifest = write_sweep(store, make_sweep())
    trials = plan_trials(make_sweep())
    commit_trials(store, trials[:5])
    aggregate(store, manifest.sweep)
    older = whole(store, part_key("trials", "demo", 0))
    commit_trials(store, trials)
    aggregate(store, manifest.sweep)
    before = parts(store)
    store.put(part_key("trials", "demo", 0), older)
    assert aggregate(store, manifest.sweep).num_parts_written == 1
    assert parts(store) == before


INDEX_DAMAGE: dict[str, bytes | None] = {
    "missing": None,
    "empty": b"",
    "truncated": b'{"tables/trials/demo/part-00000.parquet": ["0123',
    "noise": b"\xff\x00noise",
    "list": b"[]",
    "null": b"null",
    "other values": b'{"tables/trials/demo/part-00000.parquet": 5, "tables/epochs/demo/part-00000.parquet": []}',
    "wrong values": b'{"tables/trials/demo/part-00000.parquet": ["0123", "4567"]}',
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "harm"),
    [
        pytest.param(damage, harm, marks=[] if harm is None or damage == "missing" else pytest.mark.long)
        for damage in INDEX_DAMAGE
        for harm in (None, "truncated", "overwritten")
    ],
)
def test_index_can_be_thrown_away(store: Store, manifest: Manifest, damage: str, harm: str | None) -> None:
    """Guards `read_index`: without an index the parts say themselves what they were made from, and the next aggregation writes it anew."""
    aggregate(store, manifest.sweep)
    before, index = parts(store), whole(store, table_index_key("demo"))
    tags = {item.key: item.e_tag for item in store.entries("tables")}
    data = INDEX_DAMAGE[damage]
    if data is None:
        store.delete(table_index_key("demo"))
    else:
        store.put(table_index_key("demo"), data)
    if harm:
        HARM[harm](store, part_key("fairness_metrics", "demo", 0))
    report = aggregate(store, manifest.sweep)
    assert (report.num_trials, report.num_parts_written, report.problems) == (8, 1 if harm else 0, ())
    assert parts(store) == before
    if not harm:
        # Whole parts were read, not written again.
        assert {item.key: item.e_tag for item in store.entries("tables")} == tags
        assert json.loads(whole(store, table_index_key("demo"))) == json.loads(index)
    watched = WatchedStore(store.url)
    assert aggregate(watched, manifest.sweep).num_parts_written == 0
    assert watched.changed == []


@pytest.mark.slow
def test_record_that_changed_after_it_was_folded_is_noticed(store: Store, manifest: Manifest) -> None:
    """Guards the e_tags in the aggregation key: the tables never show what no record says any more."""
    aggregate(store, manifest.sweep)
    spec = plan_trials(make_sweep())[3].spec
    before = read_table(store, "predictions")
    other = make_record(spec, predictions_N=np.zeros(12, dtype=np.int32))
    store.put(record_key(spec.trial_id), encode_record(other))
    assert aggregate(store, manifest.sweep).num_parts_written == 1
    after = read_table(store, "predictions")
    changed = [a["trial_id"] for a, b in zip(after.to_pylist(), before.to_pylist(), strict=True) if a != b]
    assert changed == [spec.trial_id]
    assert aggregate(store, manifest.sweep).num_parts_written == 0


@pytest.mark.slow
@pytest.mark.parametrize("harm", ["truncated", "noise", "overwritten", "overwritten in place", "empty"])
@pytest.mark.parametrize("folded_before", [False, True])
def test_damaged_record_leaves_the_tables_and_the_others_stay(
    store: Store, manifest: Manifest, harm: str, folded_before: bool
) -> None:
    """Guards `damaged_trials`: one damaged record costs its own rows only, is named, and comes back when it is whole again."""
    if folded_before:
        aggregate(store, manifest.sweep)
    broken = manifest.trials[5].trial_id
    data = whole(store, record_key(broken))
    HARM[harm](store, record_key(broken))
    report = aggregate(store, manifest.sweep)
    assert (report.num_trials, report.damaged_trials, report.damaged_samples) == (7, (broken,), ())
    assert len(report.problems) == 1
    rest = [trial.trial_id for trial in manifest.trials if trial.trial_id != broken]
    assert trial_ids(store) == rest
    assert set(trial_ids(store, "class_metrics")) == set(rest)
    store.put(record_key(broken), data)
    report = aggregate(store, manifest.sweep)
    assert (report.num_trials, report.problems, report.damaged_trials) == (8, (), ())
    assert trial_ids(store) == [trial.trial_id for trial in manifest.trials]


@pytest.mark.slow
def test_record_of_another_version_is_told_and_not_called_damaged(store: Store, manifest: Manifest) -> None:
    """Guards `OtherVersionError` against `CorruptObjectError`: the others are aggregated, and nobody repairs what is whole."""
    trial_id = manifest.trials[2].trial_id
    key = record_key(trial_id)
    table = decode_table(whole(store, key))
    store.put(key, encode_table(table.set_column(0, "record_version", pa.array([5], type=pa.int32()))))
    report = aggregate(store, manifest.sweep)
    assert (report.num_trials, report.damaged_trials, report.damaged_samples) == (7, (), ())
    (problem,) = report.problems
    assert problem.startswith(f"store {store.url}: '{key}' has record_version 5, and this kd_ray reads ")
    assert set(trial_ids(store)) == {trial.trial_id for trial in manifest.trials} - {trial_id}


@pytest.mark.slow
@pytest.mark.parametrize("harm", ["deleted", "truncated", "noise", "empty"])
def test_damaged_samples_cost_only_the_trials_of_their_data_set(store: Store, harm: str) -> None:
    """Guards `damaged_samples`: the trials of other data sets are aggregated, and the damaged one is named."""
    file = make_sweep(overrides=["dataset.split_seed=null", "grid.dataset.split_seed=[0, 1]"])
    trials = plan_trials(file)
    manifest = write_sweep(store, file)
    commit_trials(store, trials)
    broken = trials[0].spec.dataset_id
    HARM[harm](store, samples_key(broken))
    report = aggregate(store, manifest.sweep)
    assert (report.num_trials, report.damaged_trials, report.damaged_samples) == (8, (), (broken,))
    assert len(report.problems) == 1
    whole_ids = {trial.trial_id for trial in trials if trial.spec.dataset_id != broken}
    assert set(trial_ids(store)) == whole_ids
    assert len(whole_ids) == 8
    assert set(read_table(store, "samples")["dataset_id"].to_pylist()) == {trials[-1].spec.dataset_id}
    write_samples(store, broken, make_samples())
    report = aggregate(store, manifest.sweep)
    assert (report.num_trials, report.problems, report.damaged_samples) == (16, (), ())
    assert trial_ids(store) == [trial.trial_id for trial in manifest.trials]


@pytest.mark.slow
@pytest.mark.parametrize("harm", ["deleted", "truncated", "noise"])
def test_samples_damaged_after_they_were_folded_are_noticed(store: Store, manifest: Manifest, harm: str) -> None:
    """Guards the e_tag of the samples: an aggregation that has nothing else to do still tells of them."""
    aggregate(store, manifest.sweep)
    dataset_id = manifest.trials[0].dataset_id
    HARM[harm](store, samples_key(dataset_id))
    assert aggregate(store, manifest.sweep).damaged_samples == (dataset_id,)
    assert set(trial_ids(store)) == {trial.trial_id for trial in manifest.trials}


@pytest.mark.slow
def test_parts_beyond_the_manifest_are_dropped(store: Store, manifest: Manifest) -> None:
    """Guards the last step of `_Aggregation.run`: parts that no trial belongs to are no rows of the sweep, those of others are."""
    aggregate(store, manifest.sweep)
    before = parts(store)
    for table in ("trials", "samples"):
        store.put(part_key(table, "demo", 7), whole(store, part_key(table, "demo", 0)))
    other = part_key("trials", "demo-2", 7)
    store.put(other, whole(store, part_key("trials", "demo", 0)))
    assert aggregate(store, manifest.sweep).num_parts_written == 2
    assert parts(store).keys() == {*before, other}
    assert aggregate(store, manifest.sweep).num_parts_written == 0


@pytest.mark.slow
def test_parts_of_another_size_are_dropped(store: Store, manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the same for parts that the index knows: rows never stand in two parts."""
    aggregate(store, manifest.sweep, trials_per_part=2)
    assert len(list(part_keys(store, "trials"))) == 4
    aggregate(store, manifest.sweep)
    assert list(part_keys(store, "trials")) == [part_key("trials", "demo", 0)]
    assert trial_ids(store) == [trial.trial_id for trial in manifest.trials]


@pytest.mark.slow
def test_rows_of_a_damaged_manifest_are_no_longer_the_sweeps(store: Store) -> None:
    """Guards the same after a fall back to an older manifest: the tables hold what the sweep asks for, as far as anyone can say."""
    larger = make_sweep(overrides=["grid.temperature=[1, 4, 5]"])
    commit_trials(store, plan_trials(larger))
    small = write_sweep(store, make_sweep())
    write_sweep(store, larger)
    assert aggregate(store, "demo", trials_per_part=2).num_trials == 10
    before = read_all(store)
    store.put(manifest_key("demo", 2), b"noise")
    assert aggregate(store, "demo", trials_per_part=2).num_trials == 8
    assert trial_ids(store) == [trial.trial_id for trial in small.trials]
    write_sweep(store, larger)
    assert aggregate(store, "demo", trials_per_part=2).num_trials == 10
    assert all(read_table(store, name).equals(table) for name, table in before.items())


@pytest.mark.slow
def test_nothing_is_written_when_nothing_changed(store: Store, manifest: Manifest) -> None:
    """Guards the index: an aggregation that has nothing to do writes no object, not even the index."""
    aggregate(store, manifest.sweep)
    watched = WatchedStore(store.url)
    report = aggregate(watched, manifest.sweep)
    assert (report.num_trials, report.num_parts_written) == (8, 0)
    assert watched.changed == []


@pytest.mark.slow
def test_aggregation_of_a_new_sweep_writes_each_part_once(store: Store, manifest: Manifest) -> None:
    watched = WatchedStore(store.url)
    aggregate(watched, manifest.sweep)
    assert sorted(watched.changed) == sorted([table_index_key("demo"), table_columns_key(), *parts(store)])
    assert len(watched.changed) == 9


@pytest.mark.slow
def test_aggregation_reads_each_record_once_and_later_none(store: Store, manifest: Manifest) -> None:
    """Guards the cost of an aggregation: a record holds the predictions of every test sample."""
    watched = WatchedStore(store.url)
    for expected in ([record_key(trial.trial_id) for trial in manifest.trials], []):
        watched.read.clear()
        aggregate(watched, manifest.sweep)
        assert sorted(key for key in watched.read if key.endswith("record.parquet")) == sorted(expected)


@pytest.mark.slow
def test_listings_of_an_aggregation_do_not_depend_on_the_number_of_trials(store: Store) -> None:
    """Guards the cost of an aggregation on an object store: four listings for each look, for any number of trials and parts."""
    looks = []
    for overrides in (["grid.seed=[0]"], ["grid.temperature=[1, 2, 4, 8]", "grid.seed=[0, 1, 2]"]):
        file = make_sweep(overrides=overrides)
        commit_trials(store, plan_trials(file))
        write_sweep(store, file)
        busy, idle = WatchedStore(store.url), WatchedStore(store.url)
        aggregate(busy, "demo", trials_per_part=2)
        aggregate(idle, "demo", trials_per_part=2)
        looks.append((sorted(busy.listed), sorted(idle.listed)))
    folders = ["datasets", "sweeps/demo/manifest", "tables", "trials"]
    # The first aggregation of a store also looks for sweeps whose tables have other columns.
    first = sorted([*folders * 2, "sweeps", "tables"])
    assert looks == [(first, folders), (sorted(folders * 2), folders)]


def test_aggregation_of_an_unknown_sweep_is_refused(store: Store) -> None:
    with pytest.raises(InvalidInputError, match=r"no sweep 'nope'; it has: none$"):
        aggregate(store, "nope")


@pytest.mark.slow
def test_record_that_gives_no_rows_is_named_and_left_out(store: Store) -> None:
    """Guard: its columns are those of a record, and a metric that every trial has is missing among its scalars."""
    manifest = write_sweep(store, make_sweep())
    trials = plan_trials(make_sweep())
    commit_trials(store, trials[1:])
    commit_record(store, make_record(trials[0].spec, scalars={"loss": 0.5, "unheard_of": 1.0}))
    report = aggregate(store, manifest.sweep)
    assert report.num_trials == len(trials) - 1
    (problem,) = report.problems
    assert problem.startswith(f"trial {trials[0].trial_id} gives no rows: ")
    assert problem.endswith("; the tables lack this trial")
