"""Whole sweeps on a GPU, with the local runner."""

from pathlib import Path

import pytest
import torch

from kd_ray.cluster.launch import launch
from kd_ray.distill.device import name_of
from kd_ray.distill.objectives import OBJECTIVES
from kd_ray.results.query import Results
from kd_ray.results.store import open_store
from tests.gpu.device import DEVICE, PLACED, REHEARSAL
from tests.sweeps import assert_same_tables, tiny_sweep

WITH_SETTINGS = {
    "kd_groups": "{name: kd_groups, feature: color}",
    "adversarial": "{name: adversarial, feature: color}",
    "kd_topk": "{name: kd_topk, k: 3}",
    "label_smoothing": "{name: label_smoothing, smoothing: 0.1}",
}
"""How a sweep file names these; the others by their name alone."""


@pytest.mark.parametrize("execution", ["loop", "grouped"])
def test_a_sweep_twice_gives_the_same_tables(execution: str, tmp_path: Path, trifeature_root: Path) -> None:
    sweep = tiny_sweep(trifeature_root, PLACED, f"training.execution={execution}", "placement.pack_size=auto")
    a, b = (open_store(tmp_path / name) for name in ("a", "b"))
    for store in (a, b):
        assert launch(sweep, store, runner="local").exit_code == 0
    assert_same_tables(a, b)
    devices = Results(a).query("SELECT DISTINCT device FROM trials")["device"].to_pylist()
    assert devices == [name_of(DEVICE)]


def test_every_objective_trains(tmp_path: Path, trifeature_root: Path) -> None:
    names = ", ".join(WITH_SETTINGS.get(name, name) for name in OBJECTIVES if name != "imported")
    overrides = [f"grid.objective=[{names}]", "grid.seed=[0]", "training.epochs=2", "dataset.validation_fraction=0.2"]
    store = open_store(tmp_path)
    assert launch(tiny_sweep(trifeature_root, PLACED, *overrides), store, runner="local").exit_code == 0
    found = (
        Results(store).query("SELECT DISTINCT objective FROM trials WHERE role = 'distilled'")["objective"].to_pylist()
    )
    assert len(found) >= len(OBJECTIVES) - 3


@pytest.mark.parametrize("model", ["resnet18", "densenet121", "torchvision:resnet18"])
def test_networks_with_pooling_train(
    model: str, tmp_path: Path, trifeature_root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    size = 64 if model.startswith("torchvision") else 32
    sweep = tiny_sweep(
        trifeature_root, PLACED, f"student.model={model}", f"dataset.size={size}", "training.epochs=2", "grid.seed=[0]"
    )
    assert launch(sweep, open_store(tmp_path), runner="local").exit_code == 0
    assert "not recorded" not in caplog.text


@pytest.mark.skipif(REHEARSAL, reason="the memory of a CPU is not limited here")
def test_a_pack_that_is_too_large_is_halved(
    tmp_path: Path, trifeature_root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """This process may use a little more of the card than one student needs, so that five of them do not fit side by side."""
    overrides = (
        "student.model=densenet121",
        "training.epochs=4",
        "training.batch_size=125",
        "grid.temperature=[1, 2, 4, 8]",
    )
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    alone = tiny_sweep(trifeature_root, PLACED, *overrides, "placement.pack_size=1", "grid.seed=[0]")
    assert launch(alone, open_store(tmp_path / "alone"), runner="local").exit_code == 0
    allowed = 1.2 * torch.cuda.max_memory_reserved()
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(allowed / torch.cuda.get_device_properties(0).total_memory)
    try:
        sweep = tiny_sweep(trifeature_root, PLACED, *overrides, "placement.pack_size=5", "grid.seed=[0]")
        report = launch(sweep, open_store(tmp_path / "together"), runner="local")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert "is too large" in caplog.text
    assert report.exit_code == 0
