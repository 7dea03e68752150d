"""Searches through the real machinery: searcher, scheduler, packs, leases, stops and records; only training takes no time."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from kd_ray.cluster.launch import resume_file
from kd_ray.cluster.local import LocalRunner
from kd_ray.cluster.runner import LaunchContext
from kd_ray.cluster.tune import TuneReport, tune
from kd_ray.distill.worker_protocol import LoadState, OnFailure, PackTraining, PackWorker
from kd_ray.errors import InvalidInputError
from kd_ray.results.query import Results
from kd_ray.results.schema import TABLES
from kd_ray.results.status import sweep_status
from kd_ray.results.store import Store, open_store
from kd_ray.sweep.load import parse_sweep
from kd_ray.sweep.spec import TrialSpec
from kd_ray.tuning.outcome import tuned_yaml
from tests.tuning_worker import KnownWorker, best_accuracy, known_search, known_worker

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # Ray Tune warns of its own changes
]

ASHA = "tune.scheduler={grace_epochs: 3, reduction_factor: 3}"
GRID = (
    "tune.searcher=grid",
    "tune.space={training.optimizer.lr: [0.0001, 0.01, 1.0], distillation.alpha: [0.1, 0.7, 0.9]}",
)


@pytest.fixture
def data_root(trifeature_root: Path) -> str:
    return str(trifeature_root)


def search(store: Store, data_root: str, *overrides: str, worker: Any = known_worker) -> TuneReport:
    return tune(known_search(data_root, *overrides), store, runner=LocalRunner(worker=worker))


def candidates(report: TuneReport) -> list[tuple[int, str, str, int, float | None]]:
    return [
        (one.candidate.number, json.dumps(dict(one.candidate.settings)), one.state, one.epoch, one.value)
        for one in report.outcome.placed
    ]


def test_a_grid_search_finds_the_optimum(store: Store, data_root: str) -> None:
    report = search(store, data_root, *GRID, "tune.budget.candidates=9")
    assert report.exit_code == 0
    assert len(report.outcome.placed) == 9
    assert report.outcome.chosen is not None
    assert report.outcome.chosen.candidate.settings == {"training.optimizer.lr": 0.01, "distillation.alpha": 0.7}
    assert report.outcome.chosen.value == pytest.approx(best_accuracy(0.01, 0.7), abs=0.01)


def test_a_random_search_chooses_the_best_of_its_candidates(store: Store, data_root: str) -> None:
    report = search(store, data_root, "tune.seeds=[0,1,2]")
    best = max(report.outcome.placed, key=lambda one: best_accuracy(*one.candidate.settings.values()))
    assert report.outcome.chosen is best


@pytest.mark.parametrize("searcher", ["random", "optuna"])
def test_a_search_goes_on_with_the_same_candidates(store: Store, data_root: str, tmp_path: Path, searcher: str) -> None:
    """A worker that dies in the middle, then a smaller budget that is raised: candidates, states and values are those of one run."""
    pytest.importorskip("optuna")
    begun = 0

    class Dying(KnownWorker):
        def begin(self, specs: Any, load_state: LoadState, on_failure: OnFailure) -> PackTraining:
            nonlocal begun
            begun += 1
            if begun == 6:
                raise KeyboardInterrupt
            return super().begin(specs, load_state, on_failure)

    def dying(context: LaunchContext) -> PackWorker:
        return Dying(context.store, context.placement, context.launch_id)

    settings = (f"tune.searcher={searcher}", ASHA)
    with pytest.raises(KeyboardInterrupt):
        search(store, data_root, *settings, "tune.budget.candidates=8", worker=dying)
    assert len(search(store, data_root, *settings, "tune.budget.candidates=8").outcome.placed) == 8
    resumed = search(store, data_root, *settings)
    whole = search(open_store(tmp_path / "whole"), data_root, *settings)
    assert candidates(resumed) == candidates(whole)
    assert len(candidates(whole)) == 12


def test_a_finished_search_trains_nothing(store: Store, data_root: str) -> None:
    first = search(store, data_root, ASHA)

    def none(context: LaunchContext) -> PackWorker:
        raise AssertionError("nothing is left to train")

    assert candidates(search(store, data_root, ASHA, worker=none)) == candidates(first)


def test_asha_stops_hopeless_candidates_early(store: Store, data_root: str, tmp_path: Path) -> None:
    stopped = search(store, data_root, ASHA, "tune.budget.candidates=20")
    whole = search(open_store(tmp_path / "whole"), data_root, "tune.budget.candidates=20")
    assert stopped.outcome.chosen is not None
    assert whole.outcome.chosen is not None
    assert stopped.outcome.chosen.candidate.settings == whole.outcome.chosen.candidate.settings
    assert whole.outcome.epochs_trained == 20 * 27
    assert stopped.outcome.epochs_trained * 2 <= whole.outcome.epochs_trained
    assert stopped.outcome.epochs_of_all == 20 * 27
    assert {one.epoch for one in stopped.outcome.placed if one.state == "stopped"} <= {3, 9}


def test_candidates_are_in_no_table_but_tuning(store: Store, data_root: str) -> None:
    report = search(store, data_root, ASHA)
    results = Results(store)
    assert all(results.table(name).num_rows == 0 for name in TABLES)
    rows = results.query("SELECT * FROM tuning ORDER BY candidate").to_pylist()
    assert [row["candidate"] for row in rows] == list(range(1, 13))
    assert {row["sweep"] for row in rows} == {"known.tune"}
    assert {row["arm"] for row in rows} == {"temperature=4"}
    assert {row["split"] for row in rows} == {"validation"}
    assert [row["candidate_value"] for row in rows] == [one.value for one in report.outcome.placed]
    assert sum(row["is_chosen"] for row in rows) == 1
    status = sweep_status(store, "known.tune")
    assert status.counts()["complete"] == 1 + report.outcome.count("complete")


def test_a_failed_candidate_is_left_out_and_retried_on_request(store: Store, data_root: str) -> None:
    class Failing(KnownWorker):
        def begin(self, specs: Any, load_state: LoadState, on_failure: OnFailure) -> PackTraining:
            bad: list[TrialSpec] = [spec for spec in specs if spec.training.optimizer.lr == 1.0]
            for spec in bad:
                on_failure(spec, ValueError("diverged"))
            return super().begin([spec for spec in specs if spec not in bad], load_state, on_failure)

    def failing(context: LaunchContext) -> PackWorker:
        return Failing(context.store, context.placement, context.launch_id)

    report = search(store, data_root, *GRID, "tune.budget.candidates=9", worker=failing)
    assert report.outcome.count("failed") == 3
    assert report.outcome.count("complete") == 6
    again = tune(
        known_search(data_root, *GRID, "tune.budget.candidates=9"),
        store,
        runner=LocalRunner(worker=known_worker),
        retry_failed=True,
    )
    assert again.outcome.count("complete") == 9


def test_all_arms_count_half_each_and_regret_is_shown(store: Store, data_root: str) -> None:
    report = search(store, data_root, *GRID, "tune.arm=all", "tune.budget.candidates=9", "tune.grid=null")
    chosen = report.outcome.chosen
    assert chosen is not None
    arms = report.outcome.by_arm[chosen.candidate.number]
    assert list(arms) == ["scratch", "temperature=1", "temperature=4"]
    distilled = (arms["temperature=1"] + arms["temperature=4"]) / 2
    assert chosen.value == pytest.approx((arms["scratch"] + distilled) / 2)
    best = {arm: max(of[arm] for of in report.outcome.by_arm.values()) for arm in arms}
    assert report.outcome.regret == pytest.approx({arm: best[arm] - arms[arm] for arm in arms})


def test_a_metric_of_groups_that_is_better_low(store: Store, data_root: str) -> None:
    settings = ("tune.metric=equalized_odds_difference", "tune.feature=color")
    report = search(store, data_root, *settings)
    values = [one.value for one in report.outcome.placed if one.value is not None]
    assert report.outcome.chosen is not None
    assert report.outcome.chosen.value == min(values)


def test_the_tuned_file_holds_the_settings_and_says_how_they_were_found(store: Store, data_root: str) -> None:
    report = search(store, data_root, *GRID, ASHA, "tune.budget.candidates=9")
    text = tuned_yaml(report.outcome, known_search(data_root, *GRID, ASHA).raw)
    assert text is not None
    assert text.splitlines()[:2] == [
        "# Sweep known with settings that `kd-ray tune` has chosen: training.optimizer.lr = 0.01, distillation.alpha = 0.7.",
        "# Split: validation; no sample of the test split was used. Arm: distilled. Metric: accuracy = 0.9.",
    ]
    assert text.splitlines()[2].startswith("# 9 candidates, ")
    file = parse_sweep(text, source="tuned.yaml")
    assert file.sweep.training.optimizer.lr == 0.01
    assert file.sweep.tuned is not None
    assert file.sweep.tuned.settings == {"training.optimizer.lr": 0.01, "distillation.alpha": 0.7}


def test_only_the_budget_of_a_search_may_change(store: Store, data_root: str) -> None:
    search(store, data_root, "tune.budget.candidates=1")
    with pytest.raises(InvalidInputError, match=r"tune.seed: .* only the budget can change"):
        search(store, data_root, "tune.seed=1")
    with pytest.raises(InvalidInputError, match="it is a search; continue it by `kd-ray tune` with its sweep file"):
        resume_file(store, "known.tune")


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("tune=null", "tune: there is no such section"),
        ("tune.space={grid.seed: [0, 1]}", "only settings below teacher, student, training, distillation can be tuned"),
        ("tune.space={temperature: [1, 2]}", "the grid's axis temperature sets it"),
        ("tune.space={training.optimizer.rl: [1, 2]}", "training.optimizer.*rl"),
        ("tune.space={training.optimizer.lr: [-1, -2]}", "training.optimizer.lr"),
        ("tune.grid={alpha: [1]}", "no such axis of the grid; valid: temperature"),
        ("tune.metric=acuracy", "no such metric: acuracy; valid: accuracy, "),
        ("tune.metric=equalized_odds_difference", "needs one of color"),
        ("tune.feature=color", "has no effect with metric accuracy"),
        ("tune.arm=scratch", "none of its settings changes a trial of arm scratch"),
        ("dataset.validation_fraction=0", "compared on a validation split, and there is none"),
    ],
)
def test_a_search_that_cannot_be_is_refused_before_anything_is_written(
    store: Store, data_root: str, override: str, says: str
) -> None:
    more = ("tune.space={distillation.alpha: [0.1, 0.7]}",) if override == "tune.arm=scratch" else ()
    with pytest.raises(InvalidInputError, match=says):
        search(store, data_root, override, *more)
    assert list(store.entries("")) == []


def test_a_sweep_cannot_have_the_name_of_a_search(data_root: str) -> None:
    with pytest.raises(InvalidInputError, match=r"name: must not end with .tune"):
        known_search(data_root, "name=known.tune")


def test_optuna_is_asked_for_by_name_when_it_is_missing(
    store: Store, data_root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(
        InvalidInputError, match=r"tune.searcher: optuna is not installed: pip install 'kd_ray\[optuna\]'"
    ):
        search(store, data_root, "tune.searcher=optuna")


def test_two_launches_share_a_search(store: Store, data_root: str, tmp_path: Path) -> None:
    """Each part of a trial's training is done by one of them, and both end with the same candidates."""
    begun: list[tuple[str, int]] = []

    class Counting(KnownWorker):
        def begin(self, specs: Any, load_state: LoadState, on_failure: OnFailure) -> PackTraining:
            training = super().begin(specs, load_state, on_failure)
            begun.extend((trial.spec.trial_id, trial.step()) for trial in training.trials)
            return training

    def counting(context: LaunchContext) -> PackWorker:
        return Counting(context.store, context.placement, context.launch_id)

    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(search, store, data_root, ASHA, worker=counting) for _ in range(2)]
    alone = search(open_store(tmp_path / "alone"), data_root, ASHA)
    assert [candidates(one.result()) for one in both] == [candidates(alone)] * 2
    assert len(begun) == len(set(begun))
