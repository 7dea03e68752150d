"""Whole reports about drawn sweeps: at most a twentieth of those in which nothing differs say that something does.

The short form has a few sweeps of each kind, enough to see a procedure that names something in a fifth of them. The long form is the
table in docs/statistics.md: `pytest tests/calibration -m calibration`, with `KD_RAY_CALIBRATION_REPORTS` reports of each kind (400).
"""

import os

import numpy as np
import pytest

from kd_ray.analysis.compare import compare, decided
from kd_ray.analysis.contrast import Options
from kd_ray.results.store import Store
from tests.calibration.drawn import Design, draw
from tests.calibration.effects import EFFECTS, power_of
from tests.calibration.whole import CURVED, false_now, found_before, null_cells, said
from tests.simulated import simulate

CELLS = dict(null_cells())
LEVEL = 0.05
QUICK = {name: design for name, design in CELLS.items() if design.temperatures <= 3 and design.classes == 10}
QUICKEST = (
    "3 T, 5 seeds, 10 classes",
    "a teacher each, tau2/sigma2 0.35, 5 seeds",
    "ties (6 samples per class), 10 seeds",
)
"""One of each kind; `make test-long` draws the others."""


def most(reports: int) -> float:
    """Share of false reports that a procedure of the level does not exceed but once in 1,000 such tests."""
    return float(LEVEL + 3.1 * (LEVEL * (1 - LEVEL) / reports) ** 0.5)


def share(name: str, design: Design, reports: int) -> float:
    analysis = "matched_accuracy" if name.startswith(CURVED) else ""
    return sum(said(design, seed, analysis).now for seed in range(reports)) / reports


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICKEST else pytest.mark.long) for name in QUICK]
)
def test_few_reports_on_nothing_say_something(name: str) -> None:
    reports = 16
    assert share(name, QUICK[name], reports) <= most(reports)


@pytest.mark.long
def test_what_reports_said_before_is_seen_by_the_same_simulation() -> None:
    """A simulation that could not find the fault would not show that it is gone."""
    design = CELLS["3 T, 5 seeds, 10 classes"]
    rows = [decided(draw(design, seed), Options())[1] for seed in range(40)]
    assert np.mean([found_before(it) for it in rows]) > 0.1
    assert np.mean([false_now(it) for it in rows]) <= 0.1


def test_the_quickest_are_among_the_quick() -> None:
    assert set(QUICKEST) <= QUICK.keys()


@pytest.mark.long
def test_a_true_difference_is_established_all_the_same() -> None:
    name = "one class, 10 seeds"
    now, declared, _ = power_of(EFFECTS[name], reports=12)
    assert now >= 0.4
    # A question that was asked beforehand is answered more often than one among hundreds.
    assert declared >= now


def test_a_report_on_nothing_from_a_store_says_nothing(store: Store) -> None:
    """The same through records, tables and SQL: three classes, three seeds, two temperatures, all drawn alike."""
    found = compare(simulate(store, "grid.seed=[0, 1, 2]"), "demo")
    assert found.verdict.established == ()
    assert not [row for row in found.rows if row.status == "established"]


@pytest.mark.calibration
@pytest.mark.parametrize("name", CELLS)
def test_reports_on_nothing_at_length(name: str) -> None:
    reports = int(os.environ.get("KD_RAY_CALIBRATION_REPORTS") or 400)
    assert share(name, CELLS[name], reports) <= most(reports)
