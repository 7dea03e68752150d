"""Folding: tables follow from the records, whatever happened before."""

import pyarrow as pa
import pytest

from kd_ray.errors import CorruptObjectError, InvalidInputError
from kd_ray.results import tables
from kd_ray.results.manifest import Manifest
from kd_ray.results.schema import TABLES
from kd_ray.results.store import Store, open_store, part_key, record_key, samples_key
from kd_ray.results.tables import committed, fold, part_keys, read_table
from tests.fakes import commit_trials, make_sweep, plan_trials, write_sweep


@pytest.fixture
def manifest(store: Store) -> Manifest:
    """The demo sweep with all its eight trials committed, not folded yet."""
    commit_trials(store, plan_trials(make_sweep()))
    return write_sweep(store, make_sweep())


def read_all(store: Store) -> dict[str, pa.Table]:
    return {name: read_table(store, name) for name in TABLES}


def parts(store: Store) -> dict[str, bytes | None]:
    return {item.key: store.get(item.key) for item in store.entries("tables")}


def trial_ids(store: Store, table: str = "trials") -> list[str]:
    return [str(trial_id) for trial_id in read_table(store, table)["trial_id"].to_pylist()]


def test_fold_makes_every_table(store: Store, manifest: Manifest) -> None:
    report = fold(store, manifest.sweep)
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


def test_second_fold_writes_nothing(store: Store, manifest: Manifest) -> None:
    fold(store, manifest.sweep)
    before = {item.key: item.modified_at for item in store.entries("tables")}
    assert len(before) == 7
    report = fold(store, manifest.sweep)
    assert (report.num_trials, report.num_parts_written) == (8, 0)
    assert {item.key: item.modified_at for item in store.entries("tables")} == before


def test_tables_can_be_thrown_away(store: Store, manifest: Manifest) -> None:
    fold(store, manifest.sweep)
    before = parts(store)
    for key in before:
        store.delete(key)
    assert read_table(store, "trials").num_rows == 0
    fold(store, manifest.sweep)
    assert parts(store) == before


def test_order_of_commits_and_folds_between_do_not_matter(tmp_path_factory: pytest.TempPathFactory) -> None:
    trials = plan_trials(make_sweep())
    found = []
    for name, order in (("at once", trials), ("backwards", reversed(trials))):
        store = open_store(tmp_path_factory.mktemp("store"))
        manifest = write_sweep(store, make_sweep())
        for trial in order:
            commit_trials(store, [trial])
            if name == "backwards":
                fold(store, manifest.sweep)
        fold(store, manifest.sweep)
        found.append(parts(store))
    assert found[0] == found[1]


def test_fold_of_half_a_sweep_holds_that_half(store: Store) -> None:
    trials = plan_trials(make_sweep())
    manifest = write_sweep(store, make_sweep())
    assert fold(store, manifest.sweep).num_trials == 0
    assert parts(store) == {}
    commit_trials(store, trials[3:5])
    report = fold(store, manifest.sweep)
    assert (report.num_trials, report.num_parts_written) == (2, 2)
    assert trial_ids(store) == [trial.trial_id for trial in trials[3:5]]


def test_committed_are_the_trials_with_a_record(store: Store) -> None:
    trials = plan_trials(make_sweep())
    commit_trials(store, trials[:2])
    store.put(f"trials/{trials[3].trial_id}/error.json", b"")
    store.put(f"trials/{trials[4].trial_id}/lease/record.parquet", b"")
    assert committed(store) == {trials[0].trial_id, trials[1].trial_id}


def test_removed_grid_value_removes_rows_but_no_record_and_comes_back(store: Store, manifest: Manifest) -> None:
    fold(store, manifest.sweep)
    before, records = parts(store), committed(store)
    smaller = write_sweep(store, make_sweep(overrides=["grid.temperature=[4]"]))
    assert fold(store, smaller.sweep).num_trials == 6
    assert set(read_table(store, "trials")["temperature"].to_pylist()) == {None, 4.0}
    assert set(trial_ids(store, "class_metrics")) == set(trial_ids(store))
    assert committed(store) == records
    again = write_sweep(store, make_sweep())
    assert fold(store, again.sweep).num_trials == 8
    assert parts(store) == before


def test_added_intersection_appears_without_training(store: Store) -> None:
    commit_trials(store, plan_trials(make_sweep()))
    fold(store, write_sweep(store, make_sweep(overrides=["intersections=null"])).sweep)
    assert set(read_table(store, "fairness_metrics")["feature"].to_pylist()) == {"color", "texture"}
    fold(store, write_sweep(store, make_sweep()).sweep)
    assert set(read_table(store, "fairness_metrics")["feature"].to_pylist()) == {"color", "texture", "color & texture"}


def test_trials_beyond_a_part_land_in_exactly_one_part_each(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "TRIALS_PER_PART", 2)
    file = make_sweep(overrides=["grid.temperature=[1, 4, 5]", "grid.seed=[0]"])
    commit_trials(store, plan_trials(file))
    manifest = write_sweep(store, file)
    assert fold(store, manifest.sweep).num_parts_written == 4
    ids = [trial.trial_id for trial in manifest.trials]
    for table in sorted(TABLES.keys() - {"samples"}):
        held = [
            list(dict.fromkeys(tables._read_part(store, key)["trial_id"].to_pylist()))
            for key in part_keys(store, table)
        ]
        assert held == [ids[0:2], ids[2:4], ids[4:5]]
    assert list(part_keys(store, "samples")) == [part_key("samples", "demo", 0)]


def test_new_trials_leave_full_parts_alone(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "TRIALS_PER_PART", 2)
    commit_trials(store, plan_trials(make_sweep()))
    fold(store, write_sweep(store, make_sweep()).sweep)
    before = parts(store)
    larger = make_sweep(overrides=["grid.temperature=[0.5, 1, 4]"])
    commit_trials(store, plan_trials(larger))
    assert fold(store, write_sweep(store, larger).sweep).num_parts_written == 1
    assert {key: data for key, data in parts(store).items() if key in before} == before
    assert len(trial_ids(store)) == len(set(trial_ids(store))) == 10


def test_corrupt_record_is_reported_and_left_out(store: Store, manifest: Manifest) -> None:
    broken = manifest.trials[2].trial_id
    data = store.get(record_key(broken))
    assert data is not None
    store.put(record_key(broken), data[:-10])
    report = fold(store, manifest.sweep)
    assert report.num_trials == 7
    (problem,) = report.problems
    assert problem.startswith(f"store {store.url}: 'trials/{broken}/record.parquet' is not a whole record: ")
    for table in sorted(TABLES.keys() - {"samples"}):
        assert set(trial_ids(store, table)) == {trial.trial_id for trial in manifest.trials} - {broken}
    assert fold(store, manifest.sweep).problems == report.problems
    store.put(record_key(broken), data)
    assert fold(store, manifest.sweep).problems == ()
    assert trial_ids(store) == [trial.trial_id for trial in manifest.trials]


def test_part_of_corrupt_records_only_is_no_part(store: Store, manifest: Manifest) -> None:
    fold(store, manifest.sweep)
    for trial in manifest.trials:
        store.put(record_key(trial.trial_id), b"")
    for key in parts(store):
        store.delete(key)
    report = fold(store, manifest.sweep)
    assert (report.num_trials, len(report.problems)) == (0, 8)
    assert list(part_keys(store, "trials")) == []


def test_missing_samples_are_named(store: Store, manifest: Manifest) -> None:
    dataset_id = manifest.trials[0].dataset_id
    store.delete(samples_key(dataset_id))
    with pytest.raises(CorruptObjectError, match=f"the samples of data set {dataset_id} are missing"):
        fold(store, manifest.sweep)


def test_samples_have_one_part_for_each_data_set_in_use(store: Store) -> None:
    overrides = ["dataset.split_seed=null", "grid.dataset.split_seed=[0, 1]"]
    file = make_sweep(overrides=overrides)
    trials = plan_trials(file)
    manifest = write_sweep(store, file)
    datasets = list(dict.fromkeys(trial.spec.dataset_id for trial in trials))
    assert len(datasets) == 2
    commit_trials(store, [trial for trial in trials if trial.spec.dataset_id == datasets[1]])
    fold(store, manifest.sweep)
    assert list(part_keys(store, "samples")) == [part_key("samples", "demo", 1)]
    commit_trials(store, trials)
    fold(store, manifest.sweep)
    assert list(part_keys(store, "samples")) == [part_key("samples", "demo", 0), part_key("samples", "demo", 1)]
    assert read_table(store, "samples")["dataset_id"].to_pylist() == [datasets[0]] * 12 + [datasets[1]] * 12
    fold(store, write_sweep(store, make_sweep(overrides=[overrides[0], "grid.dataset.split_seed=[1]"])).sweep)
    assert set(read_table(store, "samples")["dataset_id"].to_pylist()) == {datasets[1]}


def test_read_table_by_sweep(store: Store, manifest: Manifest) -> None:
    other = make_sweep(overrides=["name=demo-2", "grid.temperature=[4, 9]"])
    commit_trials(store, plan_trials(other))
    fold(store, manifest.sweep)
    fold(store, write_sweep(store, other).sweep)
    assert read_table(store, "trials", ["demo"])["sweep"].to_pylist() == ["demo"] * 8
    assert read_table(store, "trials", ["demo-2"])["sweep"].to_pylist() == ["demo-2"] * 8
    assert read_table(store, "trials", ["demo", "demo-2"]).num_rows == read_table(store, "trials").num_rows == 16
    assert read_table(store, "trials", []).num_rows == read_table(store, "trials", ["none"]).num_rows == 0


def test_damaged_part_is_named(store: Store, manifest: Manifest) -> None:
    fold(store, manifest.sweep)
    key = part_key("class_metrics", "demo", 0)
    store.put(key, b"junk")
    with pytest.raises(CorruptObjectError, match=f"'{key}' is not a whole table part: "):
        read_table(store, "class_metrics")


@pytest.mark.parametrize("damage", [None, b"junk", b"PAR1 but nothing else PAR1"], ids=["deleted", "junk", "no footer"])
@pytest.mark.parametrize("table", list(TABLES))
def test_lost_part_of_any_table_is_rebuilt_by_the_next_fold(
    store: Store, manifest: Manifest, table: str, damage: bytes | None
) -> None:
    fold(store, manifest.sweep)
    before = parts(store)
    if damage is None:
        store.delete(part_key(table, "demo", 0))
    else:
        store.put(part_key(table, "demo", 0), damage)
    fold(store, manifest.sweep)
    assert parts(store) == before


def test_empty_part_is_rebuilt_by_the_next_fold(store: Store, manifest: Manifest) -> None:
    fold(store, manifest.sweep)
    before = parts(store)
    store.put(part_key("epochs", "demo", 0), b"")
    fold(store, manifest.sweep)
    assert parts(store) == before


def test_fold_of_an_unknown_sweep_is_refused(store: Store) -> None:
    with pytest.raises(InvalidInputError, match=r"no sweep 'nope'; it has: none$"):
        fold(store, "nope")
