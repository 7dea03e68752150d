"""The sweep files that come with the project: each passes `plan`, and each of the papers' runs in a cut-down form on real data."""

from pathlib import Path

import pytest

from kd_ray.cluster.launch import launch
from kd_ray.data import cifar10
from kd_ray.results.query import Results
from kd_ray.results.status import plan
from kd_ray.results.store import Store
from kd_ray.sweep.config import TrainedTeacher
from kd_ray.sweep.distillation import OBJECTIVES
from kd_ray.sweep.load import load_sweep
from kd_ray.sweep.spec import TrialSpec

SWEEPS = Path(__file__).resolve().parents[1] / "sweeps"


@pytest.mark.parametrize(
    ("name", "num_trials"),
    [
        # Teachers + scratch students + seeds × temperatures.
        ("trifeature-quick", 1 + 2 + 2 * 3),
        ("trifeature", 5 + 5 + 5 * 13),
        ("cifar10", 5 + 5 + 5 * 9),
        ("objectives", 1 + 3 + 3 * (2 * 14 + 1)),
    ],
)
def test_sweep_file_passes_plan(name: str, num_trials: int) -> None:
    file = load_sweep(SWEEPS / f"{name}.yaml")
    assert file.sweep.name == name
    planned = plan(file, None).planned
    assert len(planned) == num_trials
    # What a record keeps of a spec is read back as the same trial.
    assert all(
        TrialSpec.model_validate_json(trial.spec.model_dump_json()).trial_id == trial.trial_id for trial in planned
    )


def test_every_sweep_file_is_tested() -> None:
    assert {path.stem for path in SWEEPS.glob("*.yaml")} == {"trifeature-quick", "trifeature", "cifar10", "objectives"}


def test_objectives_sweep_has_every_objective_of_ours() -> None:
    planned = plan(load_sweep(SWEEPS / "objectives.yaml"), None).planned
    assert {trial.spec.objective for trial in planned} == {*OBJECTIVES, "cross_entropy"} - {"imported"}


def test_trifeature_grid_is_the_papers() -> None:
    file = load_sweep(SWEEPS / "trifeature.yaml")
    assert file.axes["temperature"] == (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 20, 30, 40)
    assert len(file.axes["seed"]) == 5
    assert isinstance(file.sweep.teacher, TrainedTeacher)
    assert (file.sweep.teacher.model, file.sweep.student.model) == ("resnet20", "lenet5")
    assert file.sweep.sensitive_features == ("color", "texture")


def test_cifar10_grid_is_the_papers() -> None:
    file = load_sweep(SWEEPS / "cifar10.yaml")
    assert file.axes["temperature"] == (2, 3, 4, 5, 6, 7, 8, 9, 10)
    assert isinstance(file.sweep.teacher, TrainedTeacher)
    assert (file.sweep.teacher.model, file.sweep.student.model) == ("resnet56", "resnet20")


def test_trifeature_in_a_cut_down_form(store: Store, trifeature_root: Path) -> None:
    """The file's own generator, models and losses; fewer images, epochs, seeds and temperatures."""
    file = load_sweep(
        SWEEPS / "trifeature.yaml",
        [
            "dataset.size=32", "dataset.images_per_combination=1", "training.epochs=2", "training.schedule={name: constant}",
            "grid.seed=[0]", "grid.temperature=[1, 40]", f"placement.data_root={trifeature_root}",
        ],
    )  # fmt: skip
    assert launch(file, store, runner="local").exit_code == 0
    macro = Results(store).query("SELECT DISTINCT feature FROM fairness_metrics ORDER BY 1")
    assert macro["feature"].to_pylist() == ["color", "color & texture", "texture"]


def test_cifar10_in_a_cut_down_form_on_real_images(store: Store, cifar10_root: Path) -> None:
    """Teacher and student of the file on the 4,000 original images, one epoch of each."""
    root = cifar10_root
    file = load_sweep(
        SWEEPS / "cifar10.yaml",
        [
            f"dataset.version='{cifar10.fingerprint(root)}'", "training.epochs=1", "training.schedule={name: constant}",
            "teacher.model=resnet20", "student.model=lenet5", "grid.seed=[0]", "grid.temperature=[2, 10]",
            "placement={cpus_per_pack: 2}", f"placement.data_root={root}",
        ],
    )  # fmt: skip
    assert launch(file, store, runner="local").exit_code == 0
    counts = (
        Results(store)
        .query("SELECT sum(n) AS n, count(*) AS classes FROM class_metrics WHERE role = 'teacher'")
        .to_pylist()
    )
    assert counts == [{"n": 800, "classes": 10}]
