"""What `kd-ray tune` prints, for searches of every kind of end."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kd_ray.cli import text_tune
from kd_ray.cluster.local import LocalRunner
from kd_ray.cluster.tune import TuneReport, tune
from kd_ray.results.store import open_store
from tests.tuning_worker import known_search, known_worker

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # Ray Tune warns of its own changes
]


def search(folder: Path, data_root: Path, *overrides: str) -> TuneReport:
    return tune(
        known_search(str(data_root), *overrides), open_store(folder / "store"), runner=LocalRunner(worker=known_worker)
    )


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, trifeature_root: Path) -> TuneReport:
    """14 candidates, most of them stopped early."""
    return search(
        tmp_path_factory.mktemp("report"),
        trifeature_root,
        "tune.scheduler={grace_epochs: 3, reduction_factor: 3}",
        "tune.budget.candidates=14",
    )


def placed(report: TuneReport, **changes: Any) -> TuneReport:
    return replace(report, outcome=replace(report.outcome, **changes))


def test_a_search_that_is_over(report: TuneReport) -> None:
    lines = text_tune.tuned(report, ["here.yaml"], store="s3://lab/x y").splitlines()
    outcome = report.outcome
    assert outcome.chosen is not None
    assert outcome.chosen.value is not None
    assert lines[0].split()[:5] == ["candidate", "state", "epochs", "accuracy", "training.optimizer.lr"]
    first = next(line.split() for line in lines if line.split()[1:2] == ["complete"])
    assert first[0] == str(outcome.chosen.candidate.number)
    assert first[2:5] == ["27", f"{100 * outcome.chosen.value:.2f}", "%"]
    assert "2 more in the table `tuning`" in lines
    (counts,) = [line for line in lines if line.startswith("sweep known: 14 candidates (")]
    assert (
        f"{outcome.count('complete')} complete, {outcome.count('stopped')} stopped), 1 seed each, arm distilled"
        in counts
    )
    assert f"on the validation split; {outcome.epochs_trained:,} of 378 epochs trained;" in counts
    text = " ".join(" ".join(lines).split())
    (lr, alpha) = outcome.chosen.candidate.settings.values()
    number = outcome.chosen.candidate.number
    assert f"chosen: candidate {number}: training.optimizer.lr = {lr}, distillation.alpha = {alpha}" in text
    assert (
        "one recipe for all costs each arm, against the candidate that is best for it alone: temperature=4 0.00 points"
        in text
    )
    assert "written: here.yaml" in lines
    assert "not over" not in text
    assert lines[-1].endswith("--store 's3://lab/x y'")


def test_a_search_that_was_interrupted_says_how_to_continue(report: TuneReport) -> None:
    open_ = placed(replace(report, interrupted=True), is_over=False)
    text = " ".join(text_tune.tuned(open_, [], store=None).split())
    assert open_.exit_code == 130
    assert "best so far: candidate" in text
    assert (
        "not over; the same command continues it with the same candidates; see: kd-ray status known.tune query:" in text
    )


def test_a_candidate_that_failed_is_named_with_its_reason(report: TuneReport) -> None:
    one = report.outcome.placed[0]
    bad = replace(one, state="failed", value=None, candidate=replace(one.candidate, problem="alpha: too large"))
    broken = replace(one, state="failed", value=None)
    none = placed(report, placed=(bad, broken), chosen=None, regret={})
    lines = text_tune.tuned(none, [], store=None).splitlines()
    assert "failed: candidate 1: alpha: too large" in lines
    assert "failed: candidate 1: a trial failed" in lines
    assert not any(line.startswith("chosen") for line in lines)
    assert none.exit_code == 1


def test_json_has_every_candidate_and_how_settings_were_found(report: TuneReport) -> None:
    found = json.loads(json.dumps(text_tune.to_dict(report, ["a.yaml"])))
    assert [one["number"] for one in found["candidates"]] == list(range(1, 15))
    assert {one["state"] for one in found["candidates"]} == {"complete", "stopped"}
    assert found["tuned"]["split"] == "validation"
    assert found["tuned"]["arm"] == "distilled"
    assert found["tuned"]["candidates"] == 14
    assert (found["is_over"], found["written"], found["epochs_of_all"]) == (True, ["a.yaml"], 378)


def test_a_metric_without_unit_has_none(tmp_path: Path, trifeature_root: Path) -> None:
    report = search(tmp_path, trifeature_root, "tune.metric=loss", "tune.budget.candidates=2")
    text = text_tune.tuned(report, [], store=None)
    assert "%" not in text
    assert "points" not in text
