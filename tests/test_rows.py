"""Rows of numbers go through the same rooms as images: packs, tables of the teacher, checkpoints, records; and what makes no sense for
them is refused with the sweep file."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from kd_ray.cluster.launch import launch
from kd_ray.data import adult
from kd_ray.distill.pace_probe import probe
from kd_ray.distill.pack_run import run_pack
from kd_ray.distill.worker import Worker
from kd_ray.errors import SweepError
from kd_ray.models.mlp import mlp
from kd_ray.results.launch_plan import plan
from kd_ray.results.query import Results
from kd_ray.results.store import Store, open_store
from kd_ray.sweep.load import SweepFile, parse_sweep
from kd_ray.sweep.spec import Role
from tests.datasets import write_adult
from tests.sweeps import assert_same_tables

ROWS = """
name: tiny
dataset: {name: adult}
sensitive_features: [sex, race]
intersections: [[sex, race]]
teacher: {model: mlp-32-16, seed: [7]}
student: {model: mlp-8}
training: {epochs: 8, batch_size: 20, optimizer: {lr: 0.2}, schedule: {name: cosine}}
distillation: {alpha: 0.9, t_squared: true}
grid: {seed: [0, 1], temperature: [1, 8]}
placement: {checkpoint_interval_s: 0}
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_adult(tmp_path_factory.mktemp("rows"))


def sweep(root: Path, *overrides: str) -> SweepFile:
    version = f"dataset.version='{adult.fingerprint(root)}'"
    return parse_sweep(ROWS, source="rows.yaml", overrides=[version, f"placement.data_root={root}", *overrides])


@pytest.fixture(scope="module")
def undisturbed(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = open_store(tmp_path_factory.mktemp("undisturbed"))
    assert launch(sweep(root), store, runner="local").exit_code == 0
    return store


def test_students_learn_and_every_table_names_them(undisturbed: Store) -> None:
    results = Results(undisturbed)
    rows = results.query("SELECT dataset, role, model, teacher, accuracy FROM trials ORDER BY role, model").to_pylist()
    assert len(rows) == 7
    assert {(row["dataset"], row["role"], row["model"], row["teacher"]) for row in rows} == {
        ("adult", "teacher", "mlp-32-16", None),
        ("adult", "scratch", "mlp-8", None),
        ("adult", "distilled", "mlp-8", "mlp-32-16"),
    }
    # Education tells income in this set.
    assert all(row["accuracy"] > 0.9 for row in rows if row["role"] == "teacher")
    groups = results.query("SELECT DISTINCT feature FROM group_metrics ORDER BY 1")["feature"].to_pylist()
    assert groups == ["race", "sex", "sex & race"]
    fairness = results.query("SELECT min(individual_fairness) AS low FROM trials")["low"].to_pylist()
    assert fairness[0] > 0


def test_packs_and_the_table_of_the_teacher_change_no_bit(undisturbed: Store, store: Store, tmp_path: Path) -> None:
    """Alone, with the teacher in every batch, against packs that look its answers up."""
    root = write_adult(tmp_path / "data")
    overrides = ("placement.pack_size=1", "placement.view_table_gb=0")
    assert launch(sweep(root, *overrides), store, runner="local").exit_code == 0
    assert_same_tables(store, undisturbed)
    assert not any(path.stat().st_size for path in (root / "views").glob("*/logits"))
    assert launch(sweep(root), open_store(tmp_path / "packs"), runner="local").exit_code == 0
    # One view of each of 90 rows: 90 pairs of 2 logits.
    tables = [path for path in (root / "views").glob("*/logits") if path.stat().st_size]
    assert [path.stat().st_size for path in tables] == [90 * 2 * 4]


def test_what_was_stopped_goes_on_to_the_same_bits(root: Path, undisturbed: Store, store: Store) -> None:
    file = sweep(root)
    worker = Worker(store, file.sweep.placement, launch_id="stopped")
    for pack in plan(file, None).packs:
        progress = run_pack(pack, worker)
        if pack.trials[0].spec.role is Role.TEACHER:
            list(progress)
        else:
            next(progress)
            progress.close()
    report = launch(file, store, runner="local")
    assert report.exit_code == 0
    assert_same_tables(store, undisturbed)
    restarts = Results(store).query("SELECT sum(restarts) AS n FROM trials")["n"].to_pylist()
    assert restarts == [6]


def test_objectives_that_look_at_more_take_rows_too(root: Path, store: Store) -> None:
    objectives = "[{name: kd_sim}, {name: kd_groups, feature: sex, sharpness: 1}, ada_margin, kd_shuffled]"
    overrides = ("dataset.validation_fraction=0.2", "grid.temperature=[4]", "grid.seed=[0]", "training.epochs=2")
    file = sweep(root, *overrides, "training.optimizer.lr=0.01", f"grid.objective={objectives}")
    report = launch(file, store, runner="local")
    assert (report.exit_code, len(report.trials)) == (0, 1 + 1 + 4)


def test_given_weights_are_checked_and_teach(root: Path, store: Store, tmp_path: Path) -> None:
    weights = tmp_path / "teacher.safetensors"
    torch.manual_seed(0)
    save_file(mlp("mlp-6", 2, 23).state_dict(), weights)
    teacher = f"teacher={{model: mlp-6, weights: '{weights}'}}"
    with pytest.raises(SweepError, match=r"teacher\.weights: .* does not fit mlp-6 with 2 classes: .*size mismatch"):
        launch(sweep(root, teacher), store, runner="local")
    assert not list(store.entries("trials"))
    save_file(mlp("mlp-6", 2, 18).state_dict(), weights)
    assert launch(sweep(root, teacher, "grid.seed=[0]"), store, runner="local").exit_code == 0


def test_probe_measures_perceptrons_without_data(root: Path) -> None:
    file = sweep(root)
    spec = next(trial.spec for trial in plan(file, None).planned if trial.spec.role is Role.DISTILLED)
    assert probe(spec, file.sweep.placement, sharers=1).loop.seconds[1] > 0


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "student.model=resnet20",
            "student.model: resnet20 takes images, and adult holds rows of numbers; use mlp-WIDTHS, as in mlp-64-32",
        ),
        (
            "teacher.model='timm:resnet18'",
            "teacher.model: timm:resnet18 takes images, and adult holds rows",
        ),
        (
            "dataset={name: cifar10}",
            "student.model: mlp-8 takes rows of numbers, and cifar10 holds images; use ",
        ),
        ("training.augmentation=flip", "training.augmentation: flip is for images; rows of numbers have none"),
        (
            "teacher.training={epochs: 1, batch_size: 4, augmentation: crop_flip, optimizer: {lr: 0.1}, schedule: {name: constant}}",
            "teacher.training.augmentation: crop_flip is for images",
        ),
        ("training.execution=grouped", "training.execution: mlp-8 cannot be grouped; use loop, or one of lenet5"),
        ("dataset.normalization=imagenet", "dataset.normalization: unknown or without effect here"),
        ("dataset.age_edges=[60, 25]", "dataset.age_edges: must increase, got [60, 25]"),
        (
            "student.model=mlp",
            "mlp-WIDTHS (as in mlp-64-32), a network of yours (as in my_models.wide:build), timm:NAME, torchvision:NAME or "
            "hf:NAME, got 'mlp'",
        ),
        (
            "sensitive_features=[color]",
            "'color' is not a sensitive feature of adult with target 'income'; valid: sex, race, age",
        ),
    ],
)
def test_what_makes_no_sense_for_rows_is_refused(root: Path, override: str, message: str) -> None:
    with pytest.raises(SweepError) as caught:
        sweep(root, "sensitive_features=[]", "intersections=[]", override)
    assert message in str(caught.value)
