"""What a large sweep costs beyond its size: what is read, listed or parsed more than once. Counts rather than times."""

from pathlib import Path

import pytest

from kd_ray.analysis.closing_table import closing_table
from kd_ray.analysis.reading import read_study
from kd_ray.cluster.launch import launch
from kd_ray.results import query
from kd_ray.results.aggregate import aggregate
from kd_ray.results.inventory import committed, deciding_objects
from kd_ray.results.ledger import scan
from kd_ray.results.manifest import Manifest, read_manifest
from kd_ray.results.query import Results
from kd_ray.results.status import sweep_status
from kd_ray.results.store import Store, record_key, trial_folder
from kd_ray.sweep.trial_states import TrialState
from tests.fakes import WatchedStore, make_sweep, plan_trials, write_sweep
from tests.unit.housekeeping.whole import commit_whole

TRIALS = plan_trials(make_sweep())


@pytest.fixture
def finished(tmp_path: Path) -> WatchedStore:
    """The demo sweep, complete and aggregated."""
    store = WatchedStore(str(tmp_path / "store"))
    commit_whole(store, TRIALS)
    aggregate(store, write_sweep(store, make_sweep()).sweep)
    store.listed.clear()
    store.read.clear()
    return store


def root_of(store: Store) -> Path:
    assert store.local_root is not None
    return store.local_root


def test_a_finished_sweep_is_launched_again_with_one_look_at_its_trials(
    finished: WatchedStore, trifeature_root: Path
) -> None:
    file = make_sweep(overrides=[f"placement.data_root={trifeature_root}"])
    launch(file, finished, runner="local")
    finished.listed.clear()
    finished.read.clear()
    report = launch(file, finished, runner="local")
    assert (report.exit_code, report.num_trained) == (0, 0)
    assert [folder for folder in finished.listed if folder.startswith("trials")] == ["trials"]
    assert not [key for key in finished.read if key.startswith(("trials", "tables"))]


def test_states_need_no_listing_of_complete_trials(finished: WatchedStore) -> None:
    assert {line.state for line in sweep_status(finished, "demo").trials} == {"complete"}
    assert [folder for folder in finished.listed if folder.startswith("trials")] == ["trials"]


def test_a_record_that_is_gone_or_behind_a_link_is_seen_as_in_a_listing(finished: WatchedStore, tmp_path: Path) -> None:
    gone, linked, outside, moved, folder, stranger = (trial.trial_id for trial in TRIALS[:6])
    root = root_of(finished)
    finished.delete(record_key(gone))
    # A link within the store is followed, one that leaves it is not; a folder may be a link, too.
    (root / "kept").mkdir()
    for trial_id, target in ((linked, root / "kept" / "record"), (outside, tmp_path / "record")):
        (root / record_key(trial_id)).rename(target)
        (root / record_key(trial_id)).symlink_to(target)
    (root / trial_folder(moved)).rename(root / "kept" / moved)
    (root / trial_folder(moved)).symlink_to(root / "kept" / moved)
    (root / record_key(folder)).unlink()
    (root / record_key(folder)).mkdir()
    (root / trial_folder(stranger)).rename(root / "trials" / "copy of it")
    complete = {trial.trial_id for trial in TRIALS} - {gone, outside, folder, stranger}
    assert committed(finished).keys() == complete
    listed = {item.key: item.e_tag for item in finished.entries("trials")}
    assert committed(finished) == {trial_id: listed[record_key(trial_id)] for trial_id in complete}
    states = scan(finished, [trial.trial_id for trial in TRIALS])
    assert {trial_id for trial_id, it in states.items() if it.state is TrialState.COMPLETE} == complete
    assert deciding_objects(finished, {gone}).keys() <= {gone}
    assert [line.state for line in sweep_status(finished, "demo").trials].count("pending") == 4


def test_a_manifest_is_parsed_once_and_again_when_it_changes(
    finished: WatchedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: list[int] = []
    parse = Manifest.from_json

    def counted(data: bytes) -> Manifest:
        parsed.append(1)
        return parse(data)

    monkeypatch.setattr(Manifest, "from_json", counted)
    monkeypatch.setattr("kd_ray.results.manifest._last_parsed", None)
    first = read_manifest(finished, "demo")
    assert [read_manifest(finished, "demo") is first for _ in range(3)] == [True] * 3
    assert len(parsed) == 1
    write_sweep(finished, make_sweep(overrides=["grid.temperature=[1, 4, 9]"]))
    assert len(read_manifest(finished, "demo").trials) == len(first.trials) + 2


def test_predictions_are_looked_at_part_by_part(finished: WatchedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of trials, each asked of the whole table, took a time that grew with the square of their number."""
    aggregate(finished, "demo", trials_per_part=2)
    opened: list[int] = []
    connect = query._connect_files

    def counted(connection, store, keys):  # type: ignore[no-untyped-def]
        opened.append(len(keys.get("predictions", ())))
        return connect(connection, store, keys)

    monkeypatch.setattr("kd_ray.results.query._connect_files", counted)
    monkeypatch.setattr("kd_ray.analysis.reading._MOST_PREDICTIONS", 1)
    closing_table(read_study(Results(finished), "demo"))
    assert [number for number in opened if number] == [1] * 4
