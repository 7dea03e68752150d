"""What a report and the figure say of a search."""

import re
from types import SimpleNamespace
from typing import Any, cast

import pytest

from kd_ray.analysis.reading import read_tuned
from kd_ray.analysis.report.build import make_report
from kd_ray.analysis.report.tuned_section import tuned_section
from kd_ray.analysis.report.tuning_figure import slices
from kd_ray.results.query import Results
from kd_ray.results.store import Store
from kd_ray.sweep.tuning_settings import Budget, Dimension, Integers, LogUniform, Tuned, Tuning
from kd_ray.tuning.candidates import Candidate
from kd_ray.tuning.outcome import Outcome
from kd_ray.tuning.replay import Placed, State
from tests.golden.make_report import words
from tests.simulated import simulate

TUNED = Tuned(
    arm="all",
    metric="accuracy",
    searcher="optuna, asha",
    candidates=24,
    stopped=10,
    seeds=(0, 1),
    train_hours=0.25,
    value=0.931,
    settings={"training.optimizer.lr": 0.002, "training.batch_size": 32},
    regret={"scratch": 0.0025, "temperature=4": 0.0},
)


def placed(number: int, state: State, value: float | None, lr: float, optimizer: Any, epochs: int) -> Placed:
    settings = {"training.optimizer.lr": lr, "training.optimizer": optimizer, "training.epochs": epochs}
    return Placed(candidate=Candidate(number=number, settings=settings), state=state, epoch=9, value=value)


SGD: Any = {"name": "sgd", "momentum": 0.9}
PLACED = (
    placed(1, "complete", 0.8, 0.001, SGD, 20),
    placed(2, "complete", 0.9, 0.01, "adamw", 30),
    placed(3, "stopped", 0.4, 0.1, "adamw", 40),
    placed(4, "failed", None, 1.0, "adamw", 40),
    placed(5, "open", 0.7, 1.0, "adamw", 40),
)


def outcome(**changes: Any) -> Outcome:
    space: dict[str, Dimension] = {
        "training.optimizer": (SGD, "adamw"),
        "training.optimizer.lr": LogUniform(log_uniform=(1e-4, 1.0)),
        "training.epochs": Integers(integers=(10, 50)),
    }
    tuning = Tuning(space=space, arm="all", budget=Budget(candidates=5), **changes)
    made = SimpleNamespace(tuning=tuning, placed=PLACED, chosen=PLACED[1])
    return cast("Outcome", made)


def test_the_chapter_answers_the_first_question_of_a_reviewer() -> None:
    section = tuned_section(TUNED)
    assert section.explanation == "By `kd-ray tune`, on the validation split; no sample of the test split was used."
    assert section.paragraphs == (
        "Tuned for arm: all. Metric: accuracy. 24 candidates, 10 of them stopped early, seeds [0, 1] each, 0.25 hours of training. "
        "Searcher: optuna, asha.",
        "Chosen: training.optimizer.lr = 0.002, training.batch_size = 32.",
    )
    (table,) = section.tables
    assert [column.title for column in table.columns] == ["arm", "regret (points)"]
    assert [arm for arm, _ in table.rows] == ["scratch", "temperature=4"]
    assert [cost for _, cost in table.rows] == pytest.approx([0.25, 0.0])


def test_a_metric_of_groups_and_one_without_points() -> None:
    loss = tuned_section(TUNED.model_copy(update={"metric": "loss"}))
    assert [column.title for column in loss.tables[0].columns] == ["arm", "regret"]
    assert loss.tables[0].rows[0] == ("scratch", 0.0025)
    section = tuned_section(TUNED.model_copy(update={"metric": "equalized_odds_difference (color)"}))
    assert "Metric: equalized_odds_difference (color)." in section.paragraphs[0]
    assert section.tables[0].rows[0][1] == pytest.approx(0.25)


@pytest.mark.long
def test_a_report_of_the_grid_says_how_its_settings_were_found(store: Store) -> None:
    results = simulate(store, f"tuned={TUNED.model_dump_json()}")
    assert read_tuned(results, "demo") == TUNED
    files = make_report(results, "demo")
    text = words(files["index.html"].decode())
    assert "How the settings were found" in text
    assert "Tuned for arm: all. Metric: accuracy. 24 candidates, 10 of them stopped early" in text
    assert b"scratch,0.25" in files["tables/tuned-regret.csv"]


def test_a_sweep_that_was_not_tuned_has_no_such_chapter(golden: Results) -> None:
    assert read_tuned(golden, "demo") is None


@pytest.mark.slow
def test_the_figure_has_a_panel_for_each_setting_and_rings_the_chosen_candidate() -> None:
    drawn = slices(outcome())
    assert drawn is not None
    text = re.sub(r"\s+", " ", drawn.decode())
    for label in ("training.optimizer", "training.optimizer.lr", "training.epochs", "accuracy (%), validation"):
        assert f"<!-- {label} -->" in text
    for label in ("sgd", "adamw", "0.001", "0.1"):
        assert f"<!-- {label} -->" in text
    for state in ("complete", "stopped early", "chosen"):
        assert f"<!-- {state} -->" in text
    assert slices(cast("Outcome", replace_placed(outcome(), PLACED[3:]))) is None


def replace_placed(made: Any, placed: Any) -> Any:
    return SimpleNamespace(**{**vars(made), "placed": placed, "chosen": None})
