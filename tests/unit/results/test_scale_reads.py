"""What a large sweep costs beyond its size: what is read, listed or parsed more than once. Counts rather than times."""

from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest

from kd_ray.analysis.reading import read_study
from kd_ray.cluster.launch import launch
from kd_ray.errors import CorruptObjectError
from kd_ray.results import query
from kd_ray.results.aggregate import aggregate
from kd_ray.results.inventory import committed, deciding_objects
from kd_ray.results.ledger import scan
from kd_ray.results.manifest import Manifest, read_manifest
from kd_ray.results.query import Results
from kd_ray.results.status import sweep_status
from kd_ray.results.store import Store, part_key, record_key, trial_folder
from kd_ray.results.table_parts import encode_part, read_part
from kd_ray.sweep.trial_states import TrialState
from tests.counted import count_predictions
from tests.fakes import LABELS_N, WatchedStore, make_sweep, plan_trials, write_sweep
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


def test_collapsed_trials_are_found_without_their_predictions(
    finished: WatchedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To read 100 million predictions took a third of the closing table."""
    one = TRIALS[4]
    finished.delete(record_key(one.trial_id))
    commit_whole(finished, [one], predictions_N=np.zeros(len(LABELS_N), dtype=np.int32))
    aggregate(finished, "demo", trials_per_part=2)
    opened: set[str] = set()
    connect = query._connect_files

    def counted(connection, store, tables, **how):  # type: ignore[no-untyped-def]
        opened.update(tables)
        return connect(connection, store, tables, **how)

    monkeypatch.setattr("kd_ray.results.query._connect_files", counted)
    study = read_study(Results(finished), "demo")
    assert study.collapsed[study.index[one.trial_id]] == "predicts one class"
    assert "predictions" not in opened
    counts = study.source.prediction_counts()
    predictions_TN = np.stack([study.predictions[row] for row in range(len(TRIALS))])
    assert {name: values.tolist() for name, values in vars(counts).items()} == {
        name: values.tolist() for name, values in vars(count_predictions(LABELS_N, predictions_TN)).items()
    }


def test_a_trial_whose_classes_are_missing_is_named(finished: WatchedStore) -> None:
    key = part_key("class_metrics", "demo", 0)
    part = read_part(finished, key)
    lost = TRIALS[4].trial_id
    finished.put(key, encode_part(part.filter(pc.field("trial_id") != lost), "class_metrics", "demo"))
    with pytest.raises(CorruptObjectError, match=rf"`class_metrics` lacks trial {lost}; `kd-ray verify --repair`"):
        _ = read_study(Results(finished), "demo").collapsed
