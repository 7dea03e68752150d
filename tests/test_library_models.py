"""Networks of timm and torchvision in a sweep: trained like our own, or refused before anything is written."""

from pathlib import Path

import pyarrow as pa
import pytest
import torch
import torchvision
from safetensors.torch import save_file

from kd_ray.cluster.launch import launch
from kd_ray.errors import SweepError
from kd_ray.results.query import Results
from kd_ray.results.store import Store, open_store
from tests.sweeps import assert_same_tables, tiny_sweep

SMALL = (
    "dataset.size=32",
    "grid.seed=[0]",
    "grid.temperature=[4]",
    "training.epochs=1",
    "teacher.training=null",
    "teacher.seed=[0]",
)
CONSTANT = ("training.schedule={name: constant}", "training.augmentation=none")
STUDENT = "student.model='timm:test_resnet'"


@pytest.mark.long
def test_timm_student_is_trained_and_gives_the_same_numbers_twice(tmp_path: Path, trifeature_root: Path) -> None:
    first, second = (open_store(tmp_path / name) for name in "ab")
    for store in (first, second):
        file = tiny_sweep(trifeature_root, *SMALL, STUDENT, *CONSTANT)
        assert launch(file, store, runner="local").exit_code == 0
    assert_same_tables(first, second)
    models = Results(first).query("SELECT role, model FROM trials ORDER BY 1").to_pylist()
    assert [row["model"] for row in models] == ["timm:test_resnet", "timm:test_resnet", "resnet20"]


@pytest.mark.long
def test_weights_of_torchvision_teach_a_network_of_ours(store: Store, tmp_path: Path, trifeature_root: Path) -> None:
    """The same file for the library's own network and for ours of the same shape: the same predictions."""
    torch.manual_seed(0)
    weights = tmp_path / "resnet18.safetensors"
    save_file(torchvision.models.resnet18(weights=None, num_classes=10).state_dict(), weights)
    answers: list[pa.Table] = []
    for model in ("resnet18-imagenet", "'torchvision:resnet18'"):
        teacher = f"teacher={{model: {model}, weights: '{weights}'}}"
        overrides = ("dataset.size=48", "grid.seed=[0]", "grid.temperature=[4]", "training.epochs=1")
        file = tiny_sweep(trifeature_root, *overrides, teacher, *CONSTANT, f"name=t{len(answers)}")
        assert launch(file, store, runner="local").exit_code == 0
        answers.append(
            Results(store).query(
                f"SELECT predictions FROM predictions WHERE role = 'teacher' AND sweep = 't{len(answers)}'"
            )
        )
    assert len(answers[0]["predictions"][0]) == 500
    assert answers[0].equals(answers[1])


@pytest.mark.parametrize(
    ("student", "message"),
    [
        ("torchvision:mobilenet_v3_small", "has dropout or stochastic depth, which does not follow a trial's seed"),
        ("timm:no_such_network", r"timm cannot build it for 32 pixels: Unknown model \(no_such_network\)"),
        ("torchvision:inception_v3", "cannot take images of 32 pixels"),
    ],
)
@pytest.mark.filterwarnings("ignore:The default weight initialization")
def test_networks_of_no_use_are_refused_before_anything_is_written(
    student: str, message: str, tmp_path: Path, trifeature_root: Path
) -> None:
    file = tiny_sweep(trifeature_root, *SMALL, f"student.model='{student}'", *CONSTANT)
    with pytest.raises(SweepError, match=f"tiny.yaml: .*{message}"):
        launch(file, open_store(tmp_path / "store"), runner="local")
    assert not (tmp_path / "store").exists()
