"""The audit agrees with every golden store, and names a number that was changed."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from kd_ray.cli import text_keep as text
from kd_ray.groups import Groups
from kd_ray.housekeeping.audit import DEFINITIONS, audit
from kd_ray.results.aggregate import aggregate
from kd_ray.results.record import Samples, commit_record, decode_table, encode_table, write_samples
from kd_ray.results.store import Store, open_store, part_key
from tests.fakes import make_record, make_samples, make_sweep, plan_trials, random_predictions, write_sweep
from tests.golden.make import golden_results
from tests.processes import run_cli


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("golden")
    golden_results(folder)
    return folder


def plant(store: Store, table: str, column: str, row: int) -> tuple[str, float]:
    """Change one number; returns the trial and the former value."""
    key = part_key(table, "demo", 0)
    rows = decode_table(store.get(key) or b"")
    values = rows[column].to_pylist()
    before = values[row]
    values[row] = before + (1 if isinstance(before, int) else 1e-4)
    field = rows.schema.field(column)
    changed = rows.set_column(rows.schema.get_field_index(column), field, pa.array(values, type=field.type))
    store.put(key, encode_table(changed))
    return rows["trial_id"][row].as_py(), float(before)


@pytest.mark.long
def test_every_number_of_the_golden_store_is_confirmed(golden: Path) -> None:
    report = audit(open_store(golden), ["demo"])
    assert report.disagreements == ()
    assert report.num_trials == 18
    # By trial: 4 of the trial; 6 of each of 3 classes; 6 of each group and class; 7 of each of 3 classes and the mean, by feature.
    settings = {"color": 3, "texture": 2, "color & texture": 6}
    assert report.num_numbers == 18 * (4 + 3 * 6 + sum(groups * 3 * 6 + 4 * 7 for groups in settings.values()))


FAULTS = (
    ("trials", "worst_class_accuracy", 4, "scikit-learn"),
    ("trials", "balanced_accuracy", 5, "scikit-learn"),
    ("class_metrics", "precision", 7, "scikit-learn"),
    ("class_metrics", "num_correct", 8, "scikit-learn"),
    ("group_metrics", "false_positive_rate", 11, "fairlearn"),
    ("fairness_metrics", "equalized_odds_difference", 3, "fairlearn"),
    ("fairness_metrics", "demographic_parity_ratio", 8, "fairlearn"),
)


@pytest.mark.slow
def test_a_changed_number_is_named(golden: Path, tmp_path: Path) -> None:
    shutil.copytree(golden, tmp_path / "store")
    store = open_store(tmp_path / "store")
    expected = {(table, column, library): plant(store, table, column, row) for table, column, row, library in FAULTS}
    found = {(it.table, it.column, it.library): it for it in audit(store, ["demo"]).disagreements}
    assert found.keys() == expected.keys()
    for key, (trial_id, before) in expected.items():
        assert found[key].trial_id == trial_id
        assert found[key].recomputed == pytest.approx(before, abs=1e-12)
        assert found[key].stored != found[key].recomputed


def uneven() -> Samples:
    """Samples of no group and of several, a group without a member, one without positives of most classes, and a class without samples."""
    membership_NG = np.zeros((12, 4), dtype=np.bool_)
    membership_NG[:8, 0] = membership_NG[4:10, 1] = membership_NG[0, 2] = True
    one = Groups.from_codes(np.zeros(12, dtype=np.int64), ["only"])
    return make_samples(
        class_names=("circle", "square", "star", "never"),
        sensitive_features={
            "color": Groups(names=("a", "b", "single", "none"), membership_NG=membership_NG),
            "texture": one,
        },
    )


@pytest.mark.long
def test_undefined_rates_are_compared_by_our_definition(store: Store) -> None:
    file = make_sweep()
    for trial in plan_trials(file):
        write_samples(store, trial.spec.dataset_id, uneven())
        commit_record(store, make_record(trial.spec, predictions_N=random_predictions(trial.spec)))
    write_sweep(store, file)
    aggregate(store, "demo")
    report = audit(store, ["demo"])
    assert report.disagreements == ()
    assert report.num_undefined > 0


@pytest.mark.long
def test_the_command_says_what_it_found(golden: Path, tmp_path: Path) -> None:
    shutil.copytree(golden, tmp_path / "store")
    trial_id, before = plant(open_store(tmp_path / "store"), "class_metrics", "accuracy", 7)
    done = run_cli("verify", "demo", "--audit", "--store", "store", cwd=tmp_path)
    assert done.returncode == 1
    assert f"disagreement: sweep demo: class_metrics.accuracy of trial {trial_id} (class 1) is" in done.stdout
    assert f"scikit-learn has {before:.9g}" in done.stdout
    assert "audit by scikit-learn and fairlearn: 18 trials," in done.stdout


def test_what_a_report_says(golden: Path) -> None:
    report = audit(open_store(golden), [])
    assert text.audited(report) == "audit by scikit-learn and fairlearn: 0 trials, 0 numbers recomputed, all agree"
    assert report.to_dict()["definitions"] == DEFINITIONS
    some = replace(report, num_trials=1, num_numbers=5, num_undefined=2)
    assert f"2 rates undefined: {DEFINITIONS}" in text.audited(some)
