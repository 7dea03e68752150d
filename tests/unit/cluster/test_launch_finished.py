"""A launch of a sweep that is complete plans nothing, and one that may differ in anything plans everything."""

import json
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from kd_ray.cluster.display import QuietDisplay
from kd_ray.cluster.launch import launch
from kd_ray.cluster.launch_checks import with_absolute_paths
from kd_ray.cluster.launch_report import LaunchReport
from kd_ray.errors import StoreError, SweepError
from kd_ray.models import build_model
from kd_ray.results.launch_plan import Plan, plan
from kd_ray.results.manifest import read_manifest
from kd_ray.results.plan_mark import is_marked
from kd_ray.results.store import Store, manifest_key, open_store, plan_mark_key, pretrained_key, record_key, sweep_key
from kd_ray.sweep.load import SweepFile
from kd_ray.sweep.plan import PlannedTrial
from tests.fakes import make_sweep, plan_trials
from tests.unit.housekeeping.whole import commit_whole


class Told(QuietDisplay):
    """Notes which of the two ways a launch went."""

    def __init__(self) -> None:
        self.planned = 0
        self.finished = 0

    def begin(self, plan: Plan, todo: Collection[PlannedTrial]) -> None:
        self.planned += len(plan.trials)

    def nothing_to_run(self, sweep: str, num_trials: int) -> None:
        self.finished += num_trials


@pytest.fixture
def file(trifeature_root: Path) -> SweepFile:
    """A sweep of 8 trials with an axis that has no column of its own."""
    return make_sweep(overrides=[f"placement.data_root={trifeature_root}"])


@pytest.fixture
def store(tmp_path: Path, file: SweepFile) -> Store:
    """That sweep, launched and complete."""
    store = open_store(tmp_path / "store")
    commit_whole(store, plan_trials(file))
    assert went(store, file)[0] == "planned"
    return store


def went(store: Store, file: SweepFile, only: str | None = None) -> tuple[str, LaunchReport]:
    """The way that a launch took, and its report. It must leave the sweep complete."""
    told = Told()
    report = launch(file, store, runner="local", display=told, only=only)
    assert report.exit_code == 0
    assert (told.planned == 0) != (told.finished == 0)
    return "finished" if told.finished else "planned", report


def test_a_complete_sweep_is_not_planned_again(store: Store, file: SweepFile) -> None:
    way, report = went(store, file)
    assert way == "finished"
    planned = plan(file, store)
    assert {line.trial_id: line for line in report.trials} == {line.trial_id: line for line in planned.trials}
    assert (report.num_trained, report.num_trained_elsewhere, report.is_selection) == (0, 0, False)
    assert (report.seeds, report.has_settings, report.problems, report.warnings) == ((0, 1), False, (), ())


def test_it_writes_nothing(store: Store, file: SweepFile) -> None:
    before = {item.key: item.modified_at for item in store.entries("")}
    assert went(store, file)[0] == "finished"
    assert {item.key: item.modified_at for item in store.entries("")} == before


def test_tables_that_are_gone_are_made_again(store: Store, file: SweepFile) -> None:
    tables = [item.key for item in store.entries("tables")]
    for key in tables:
        store.delete(key)
    assert went(store, file)[0] == "finished"
    assert [item.key for item in store.entries("tables")] == tables


def test_axes_without_a_column_are_said(tmp_path: Path, trifeature_root: Path) -> None:
    overrides = [
        "grid={seed: [0], temperature: [1], training.optimizer.lr: [0.1, 0.2]}",
        "training.optimizer={name: sgd}",
    ]
    file = make_sweep(overrides=[*overrides, f"placement.data_root={trifeature_root}"])
    store = open_store(tmp_path / "settings")
    commit_whole(store, plan_trials(file))
    assert [went(store, file)[1].has_settings for _ in range(2)] == [True, True]


def _forget_mark(store: Store) -> None:
    store.delete(plan_mark_key("demo"))


def _mark_of_another_code(store: Store) -> None:
    mark = json.loads(store.get(plan_mark_key("demo")) or b"")
    store.put(plan_mark_key("demo"), json.dumps(mark | {"code": "0" * 16}).encode())


def _mark_of_another_plan(store: Store) -> None:
    mark = json.loads(store.get(plan_mark_key("demo")) or b"")
    store.put(plan_mark_key("demo"), json.dumps(mark | {"plan": "0" * 64}).encode())


def _another_manifest_of_this_number(store: Store) -> None:
    """As when `adopt` brings a sweep of the same name after its manifests were lost."""
    former = read_manifest(store, "demo")
    other = replace(former, trials=former.trials[:3])
    store.put(manifest_key("demo", 1), other.to_json())


def _damaged_mark(store: Store) -> None:
    store.put(plan_mark_key("demo"), b"{")


def _large_mark(store: Store) -> None:
    store.put(plan_mark_key("demo"), b" " * 5000)


def _damaged_manifest(store: Store) -> None:
    store.put(manifest_key("demo", 2), b"{")


def _no_sweep_file(store: Store) -> None:
    store.delete(sweep_key("demo"))


@pytest.mark.parametrize(
    "change",
    [
        _forget_mark,
        _mark_of_another_code,
        _mark_of_another_plan,
        _another_manifest_of_this_number,
        _damaged_mark,
        _large_mark,
        _damaged_manifest,
        _no_sweep_file,
    ],
)
def test_what_is_not_as_it_was_is_planned_and_mended(
    store: Store, file: SweepFile, change: Callable[[Store], None]
) -> None:
    change(store)
    assert went(store, file)[0] == "planned"
    assert is_marked(store, read_manifest(store, "demo"), with_absolute_paths(file))
    assert store.get(sweep_key("demo")) is not None
    assert went(store, file)[0] == "finished"


@pytest.mark.slow
def test_a_trial_that_is_gone_or_damaged_is_trained_again(tmp_path: Path, trifeature_root: Path) -> None:
    root = f"placement.data_root={trifeature_root}"
    file = make_sweep(
        overrides=["grid={seed: [0], temperature: [1]}", "teacher.model=lenet5", "training.batch_size=100", root]
    )
    store = open_store(tmp_path / "trained")
    assert launch(file, store, runner="local").num_trained == 3
    first, _, last = (trial.trial_id for trial in read_manifest(store, "demo").trials)
    for lost in (first, last):
        store.delete(record_key(lost))
        way, report = went(store, file)
        assert (way, report.num_trained) == ("planned", 1)
    store.put(record_key(last), b"no record")
    way, report = went(store, file)
    assert (way, report.num_trained) == ("planned", 1)
    assert "it is quarantined, and the trial is trained again" in report.warnings[0]
    assert went(store, file)[0] == "finished"


def test_another_sweep_file_of_this_name_is_planned(store: Store, file: SweepFile, trifeature_root: Path) -> None:
    fewer = make_sweep(overrides=["grid.temperature=[1]", f"placement.data_root={trifeature_root}"])
    assert len(went(store, fewer)[1].trials) == 6
    assert [went(store, fewer)[0], went(store, file)[0], went(store, file)[0]] == ["finished", "planned", "finished"]


class OnlyRead(Store):
    """A store that may not be written."""

    def put(self, key: str, data: bytes, *, durable: bool = False) -> str:
        raise StoreError(f"store {self.url}: cannot write {key!r}: permission denied")


def test_who_may_only_read_launches_a_complete_sweep_too(store: Store, file: SweepFile) -> None:
    store.delete(plan_mark_key("demo"))
    assert [went(OnlyRead(store.url), file)[0] for _ in range(2)] == ["planned", "planned"]
    assert went(store, file)[0] == "planned"
    assert went(OnlyRead(store.url), file)[0] == "finished"


def test_one_trial_is_planned(store: Store, file: SweepFile) -> None:
    chosen = read_manifest(store, "demo").trials[-1].trial_id
    assert went(store, file, only=chosen)[0] == "planned"


def test_other_weights_under_the_same_path_are_planned(tmp_path: Path, trifeature_root: Path) -> None:
    path = tmp_path / "teacher.pt"

    def save(seed: int) -> None:
        torch.manual_seed(seed)
        torch.save(build_model("resnet20", num_classes=10, image_size=16).state_dict(), path)

    save(0)
    teacher = f"teacher={{model: resnet20, weights: {path}}}"
    file = make_sweep(overrides=[teacher, f"placement.data_root={trifeature_root}"])
    store = open_store(tmp_path / "store")
    commit_whole(store, plan(file, None).planned)
    assert [went(store, file)[0] for _ in range(2)] == ["planned", "finished"]
    # What the store has lost of them is written again.
    (digest,) = read_manifest(store, "demo").stored_weights
    store.delete(pretrained_key(digest))
    assert [went(store, file)[0] for _ in range(2)] == ["planned", "finished"]
    assert store.exists(pretrained_key(digest))
    path.unlink()
    with pytest.raises(SweepError, match=r"teacher.weights: cannot read '.*teacher.pt'"):
        launch(file, store, runner="local")
    assert launch(file, store, runner="local", weights={str(path): digest}).exit_code == 0
    save(1)
    told = Told()
    commit_whole(store, plan(file, None).planned)
    launch(file, store, runner="local", display=told)
    assert (told.planned, told.finished) == (7, 0)
