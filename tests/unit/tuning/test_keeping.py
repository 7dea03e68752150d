"""A search in the store: what verify, gc and adopt do with it, and which verbs refuse it."""

import json
import shutil
from pathlib import Path

import pytest

from kd_ray.analysis.reading import read_study
from kd_ray.cluster.local import LocalRunner
from kd_ray.cluster.regroup import regroup
from kd_ray.cluster.runner import LaunchContext, WorkerFactory
from kd_ray.cluster.tune import TuneReport, tune
from kd_ray.distill.worker_protocol import PackWorker
from kd_ray.errors import InvalidInputError
from kd_ray.housekeeping.adopt import adopt
from kd_ray.housekeeping.delete_garbage import delete_garbage
from kd_ray.housekeeping.find_garbage import find_garbage
from kd_ray.housekeeping.repair import rebuild_tables, repair
from kd_ray.housekeeping.verify import verify
from kd_ray.results.inventory import take_inventory
from kd_ray.results.query import Results
from kd_ray.results.schema import TABLES
from kd_ray.results.store import Store, open_store, stop_key
from kd_ray.tuning.outcome import Outcome
from tests.tuning_worker import known_search, known_worker
from tests.unit.housekeeping.whole import contents, grow_old, spoil
from tests.unit.serve.asked import ask

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # Ray Tune warns of its own changes
]

NAME = "known.tune"
SETTINGS = ("tune.scheduler={grace_epochs: 3, reduction_factor: 3}", "tune.budget.candidates=6")


def nobody(context: LaunchContext) -> PackWorker:
    raise AssertionError("nothing is left to train")


def search(store: Store, data_root: Path, *more: str, worker: WorkerFactory = known_worker) -> TuneReport:
    return tune(known_search(str(data_root), *SETTINGS, *more), store, runner=LocalRunner(worker=worker))


def candidates(outcome: Outcome) -> list[tuple[str, str, int, float | None]]:
    return [(json.dumps(dict(one.candidate.settings)), one.state, one.epoch, one.value) for one in outcome.placed]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, trifeature_root: Path) -> tuple[Store, Outcome]:
    """A finished search; some of its candidates were stopped."""
    store = open_store(tmp_path_factory.mktemp("finished") / "store")
    outcome = search(store, trifeature_root).outcome
    assert outcome.count("stopped") and outcome.count("complete")
    return store, outcome


@pytest.fixture
def searched(finished: tuple[Store, Outcome], tmp_path: Path) -> Store:
    """A copy of it."""
    return open_store(shutil.copytree(finished[0].url, tmp_path / "searched"))


def stop_of(store: Store, state: str, outcome: Outcome, epoch: int) -> str:
    """The key of a stop of the first candidate in this state."""
    one = next(one for one in outcome.placed if one.state == state)
    key = stop_key(one.candidate.trials[0].trial_id, epoch)
    assert store.exists(key)
    return key


def test_a_search_has_no_problems_and_none_of_it_is_garbage(
    finished: tuple[Store, Outcome], searched: Store, trifeature_root: Path
) -> None:
    assert verify(searched).problems == ()
    assert verify(searched).num_checked > verify(searched).num_records * 2
    grow_old(searched)
    garbage = find_garbage(searched, with_orphans=True)
    assert {one.kind.value for one in garbage.garbage} <= {"leases", "old checkpoints", "old manifests"}
    delete_garbage(searched, garbage)
    assert candidates(search(searched, trifeature_root, worker=nobody).outcome) == candidates(finished[1])


def test_the_tables_of_comparisons_stay_without_candidates(searched: Store) -> None:
    before = Results(searched).table("tuning")
    rebuild_tables(searched, NAME)
    assert all(Results(searched).table(name).num_rows == 0 for name in TABLES)
    assert Results(searched).table("tuning").equals(before)


@pytest.mark.parametrize(("state", "epoch"), [("stopped", 3), ("complete", 3)])
def test_a_damaged_stop_is_named_and_measured_again(
    state: str, epoch: int, finished: tuple[Store, Outcome], searched: Store, trifeature_root: Path
) -> None:
    key = stop_of(searched, state, finished[1], epoch)
    good = searched.get(key)
    spoil(searched, key)
    report = verify(searched)
    assert [problem.key for problem in report.problems] == [key]
    assert report.problems[0].what.endswith("the same `kd-ray tune` measures it again")
    assert repair(searched, report).done == ()
    again = search(searched, trifeature_root)
    assert candidates(again.outcome) == candidates(finished[1])
    assert [warning for warning in again.warnings if key in warning] == [
        f"{key} is damaged and quarantined; the trial is trained to epoch 3 again"
    ]
    if state == "stopped":
        assert searched.get(key) is not None
        assert good is not None
    assert verify(searched).problems == ()


def test_another_store_takes_a_search_over(
    finished: tuple[Store, Outcome], tmp_path: Path, trifeature_root: Path
) -> None:
    source, outcome = finished
    target = open_store(tmp_path / "target")
    assert adopt(source, target, dry_run=True).problems == ()
    assert list(target.entries("")) == []
    assert adopt(source, target).problems == ()
    assert Results(target).table("tuning").equals(Results(source).table("tuning"))
    assert verify(target).problems == ()
    before = contents(target)
    assert candidates(search(target, trifeature_root, worker=nobody).outcome) == candidates(outcome)
    assert adopt(source, target).adopted == ()
    assert contents(target) == before


def test_two_stores_with_parts_of_a_search_are_merged(
    finished: tuple[Store, Outcome], tmp_path: Path, trifeature_root: Path
) -> None:
    target = open_store(tmp_path / "target")
    search(target, trifeature_root, "tune.budget.candidates=2")
    report = adopt(finished[0], target)
    assert (report.problems, report.warnings, report.sweeps) == ((), (), (NAME,))
    assert candidates(search(target, trifeature_root, worker=nobody).outcome) == candidates(finished[1])
    stops = [len(trial.stops) for trial in take_inventory(target, "trials").trials.values()]
    assert sum(stops) >= 6


def test_a_damaged_stop_is_not_taken_over(finished: tuple[Store, Outcome], searched: Store, tmp_path: Path) -> None:
    key = stop_of(searched, "stopped", finished[1], 3)
    spoil(searched, key)
    target = open_store(tmp_path / "target")
    (problem,) = adopt(searched, target).problems
    assert problem.startswith(f"a stop of trial {key.split('/')[1]} is left where it is: ")
    assert not target.exists(key)


def test_the_browser_shows_a_search_and_no_comparison_of_its_candidates(searched: Store) -> None:
    pages = (f"/sweeps/{NAME}", f"/sweeps/{NAME}/conditions", f"/sweeps/{NAME}/differences", f"/sweeps/{NAME}/classes")
    sweeps, live, *others = ask(searched, "/", *pages)
    assert (sweeps.status, live.status) == (200, 200)
    assert NAME in sweeps.words
    assert all(page.status < 500 for page in others)
    assert not any("T=4" in page.words for page in others)


def test_verbs_for_comparisons_refuse_a_search(searched: Store, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="it is a search; its candidates are in the table `tuning` alone"):
        read_study(Results(searched), NAME)
    with pytest.raises(InvalidInputError, match="it is a search; features are joined to sweeps alone"):
        regroup(searched, NAME, tmp_path / "none.csv", id_column="id")
