"""Every objective through the whole local pipeline: sweep file, teacher, students, records, tables."""

import json
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest

from kd_ray.cluster.launch import launch
from kd_ray.results.query import Results
from kd_ray.results.store import Store, open_store
from kd_ray.sweep.distillation import OBJECTIVES
from kd_ray.sweep.load import SweepFile
from tests.sweeps import comparable_tables, difference, tiny_sweep

pytestmark = pytest.mark.slow

OURS = [name for name in OBJECTIVES if name != "imported"]
SMALL = (
    "dataset.validation_fraction=0.2", "training.epochs=2", "training.batch_size=100", "training.schedule={name: constant}",
    "grid.seed=[0]", "grid.temperature=[4]", "distillation.smoothing=0.1", "distillation.k=3", "distillation.feature=color",
    "sensitive_features=[color]", "intersections=null",
)  # fmt: skip
"""400 training samples, so eight steps; the teacher is the same for all."""


def sweep_of(data_root: Path, *objectives: str, extra: tuple[str, ...] = ()) -> SweepFile:
    fields = {f"distillation.{field}" for name in objectives for field in OBJECTIVES[name].model_fields}
    given = [item for item in SMALL if not item.startswith("distillation.") or item.split("=")[0] in fields]
    # After one epoch a margin is below 0 in every class.
    given += ["distillation.statistic=accuracy"] if "ada_alpha" in objectives else []
    return tiny_sweep(data_root, *given, f"grid.objective=[{', '.join(objectives)}]", *extra)


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory, trifeature_root: Path) -> Store:
    """All objectives in one sweep, in one pack."""
    store = open_store(tmp_path_factory.mktemp("objectives"))
    file = sweep_of(trifeature_root, *OURS, extra=("placement.pack_size=16",))
    assert launch(file, store, runner="local").exit_code == 0
    return store


def test_every_objective_trains_and_its_terms_are_columns(together: Store) -> None:
    rows = Results(together).query("SELECT * FROM epochs WHERE role = 'distilled' AND epoch = 2").to_pylist()
    found = {row["objective"]: row for row in rows}
    assert sorted(found) == sorted(OURS)
    for name, row in found.items():
        terms = OBJECTIVES[name].TERMS
        stored = json.loads(row["terms"])
        assert set(stored) == set(terms)
        assert all(row[term] == value and value > 0 for term, value in stored.items()), name
        assert row["loss"] > 0
    losses = [row["loss"] for row in found.values()]
    assert len(set(losses)) == len(losses)


def test_keys_of_rows_are_null_where_an_objective_has_no_such_setting(together: Store) -> None:
    columns = "objective, role, temperature, alpha, t_squared, teacher, teacher_trial_id"
    rows = Results(together).query(f"SELECT {columns} FROM trials WHERE objective IN ('dkd', 'label_smoothing')")
    by_name = {row.pop("objective"): row for row in rows.to_pylist()}
    assert set(by_name["label_smoothing"].values()) == {"distilled", None}
    assert by_name["dkd"].pop("teacher_trial_id")
    assert list(by_name["dkd"].values()) == ["distilled", 4.0, 0.9, True, "resnet20"]


def test_what_an_objective_held_of_each_class_is_in_the_tables(together: Store) -> None:
    rows = Results(together).query(
        "SELECT objective, train_n, class_alpha, class_margin, held_out_n, teacher_held_out_accuracy, teacher_held_out_margin "
        "FROM class_metrics WHERE role = 'distilled' ORDER BY class_index"
    )
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows.to_pylist():
        found.setdefault(row.pop("objective"), []).append(row)
    assert {name: sum(row.pop("train_n") for row in rows) for name, rows in found.items()} == dict.fromkeys(OURS, 400)
    assert {value for row in found["kd"] for value in row.values()} == {None}
    alphas = [row["class_alpha"] for row in found["ada_alpha"]]
    assert max(alphas) == 0.9
    assert min(alphas) >= 0
    assert sum(row["held_out_n"] or 0 for row in found["ada_alpha"]) == 100
    margins = [row["class_margin"] for row in found["ada_margin"]]
    assert min(margins) == 0
    assert {row["class_margin"] for row in found["ada_alpha"]} == {None}
    for name in ("held_out_n", "teacher_held_out_accuracy", "teacher_held_out_margin"):
        assert [row[name] for row in found["ada_alpha"]] == [row[name] for row in found["ada_margin"]]


def test_what_is_asked_for_besides_stands_in_the_tables(tmp_path: Path, trifeature_root: Path) -> None:
    """Attacks in training and in evaluation, the rescaling of gradients, and calibration on the validation split."""
    store = open_store(tmp_path / "asked")
    attack = "epsilon: 0.03, step_size: 0.01, steps"
    asked = (
        f"evaluation={{pgd: {{{attack}: 1}}, gradient_rescaling: true}}",
        f"grid.objective=[kd, {{name: iad, attack: {{{attack}: 1}}}}]",
        "training.epochs=1",
    )
    file = sweep_of(trifeature_root, "kd", "iad", extra=asked)
    assert launch(file, store, runner="local").exit_code == 0
    results = Results(store)
    rows = results.query("SELECT objective, role, robust_accuracy, calibrated_on, calibration_temperature FROM trials")
    assert len(rows) == 4
    for row in rows.to_pylist():
        assert 0 <= row["robust_accuracy"] <= 1
        assert row["calibrated_on"] == "validation"
        assert row["calibration_temperature"] > 0
    by_class = results.query("SELECT sum(robust_accuracy * n) / sum(n) AS robust FROM class_metrics GROUP BY trial_id")
    assert sorted(by_class["robust"].to_pylist()) == pytest.approx(sorted(rows["robust_accuracy"].to_pylist()))
    rescaled = results.query("SELECT objective, class_name, feature, n, rescaling FROM gradient_rescaling").to_pylist()
    assert {row["objective"] for row in rescaled} == {"kd"}
    assert len(rescaled) == 1 + 10 + 2 * 10
    assert next(row["n"] for row in rescaled if row["class_name"] is None and row["feature"] is None) == 500
    terms = results.query("SELECT self_distillation FROM epochs WHERE objective = 'iad'")["self_distillation"]
    assert terms.to_pylist()[0] > 0


def test_a_trial_has_the_same_bits_alone_and_in_company(together: Store, tmp_path: Path, trifeature_root: Path) -> None:
    alone = open_store(tmp_path / "alone")
    names = ["ada_alpha", "adversarial", "kd_shuffled", "ltkd"]
    assert (
        launch(sweep_of(trifeature_root, *names, extra=("placement.pack_size=1",)), alone, runner="local").exit_code
        == 0
    )
    whole, part = comparable_tables(together), comparable_tables(alone)
    for name in ("epochs", "class_metrics", "predictions"):
        chosen = whole[name].filter(pc.is_in(whole[name]["trial_id"], part[name]["trial_id"].combine_chunks()))
        assert part[name].num_rows == chosen.num_rows > 0
        a, b = (
            table.sort_by([(key, "ascending") for key in ("trial_id", *order(name))]) for table in (chosen, part[name])
        )
        assert a.equals(b), difference(name, a, b)


def order(table: str) -> tuple[str, ...]:
    return {"epochs": ("epoch",), "class_metrics": ("class_index",), "predictions": ()}[table]
