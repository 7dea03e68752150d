"""`dataset.version: auto`: recorded at the first launch, and held to afterwards."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import kd_ray
from kd_ray.cli import cli
from kd_ray.cluster.data_version import with_data_version
from kd_ray.cluster.launch import launch
from kd_ray.errors import DataError
from kd_ray.results.manifest import read_manifest
from kd_ray.results.query import Results
from kd_ray.results.store import Store
from kd_ray.sweep.load import SweepFile, load_sweep
from tests.fakes import make_sweep


def write(root: Path, *, income: float, title: str = "loans") -> dict[str, Any]:
    rows = np.arange(48.0).reshape(24, 2)
    rows[0, 0] = income
    split = ["train", "train", "test"] * 8
    return kd_ray.dataset(title, rows=rows, labels=[0, 1] * 12, split=split, data_root=root, overwrite=True)


def sweep(root: Path, **dataset: Any) -> SweepFile:
    training = {"epochs": 1, "batch_size": 8, "optimizer": {"lr": 0.1}, "schedule": {"name": "constant"}}
    return load_sweep({
        "name": "loans", "dataset": dataset, "student": {"model": "mlp-4"}, "baselines": ["scratch"], "training": training,
        "grid": {"seed": [0]}, "placement": {"data_root": str(root)},
    })  # fmt: skip


@pytest.mark.slow
def test_the_first_launch_records_the_version_and_later_ones_hold_to_it(store: Store, tmp_path: Path) -> None:
    section = write(tmp_path, income=1.0)
    auto = sweep(tmp_path, **{**section, "version": "auto"})
    assert [line.state for line in kd_ray.plan(auto, Results(store)).trials] == ["pending"]
    first = launch(auto, store, runner="local")
    assert (first.exit_code, first.num_trained) == (0, 1)
    assert section["version"] in read_manifest(store, "loans").sweep_yaml
    assert launch(auto, store, runner="local").num_trained == 0
    explicit = launch(sweep(tmp_path, **section), store, runner="local")
    assert explicit.num_trained == 0, "the trial is the same"
    changed = write(tmp_path, income=2.0)["version"]
    message = (
        rf"dataset.version: the data are not those of the first launch of loans: that recorded '{section['version']}', "
        rf"and they are '{changed}' now; restore them, or write `version: {changed}`"
    )
    for run in (lambda: launch(auto, store, runner="local"), lambda: kd_ray.plan(auto, Results(store))):
        with pytest.raises(DataError, match=message):
            run()
    assert section["version"] in read_manifest(store, "loans").sweep_yaml
    write(tmp_path, income=1.0)
    assert launch(auto, store, runner="local").num_trained == 0
    other = sweep(tmp_path, **{**write(tmp_path, income=3.0, title="others"), "version": "auto"})
    version = write(tmp_path, income=3.0, title="others")["version"]
    assert with_data_version(other, store).raw["dataset"]["version"] == version


def test_a_check_of_the_data_says_what_would_be_recorded(tmp_path: Path) -> None:
    section = write(tmp_path, income=1.0)
    (tmp_path / "loans.yaml").write_text(sweep(tmp_path, **{**section, "version": "auto"}).to_yaml())
    checked = CliRunner().invoke(cli, ["data", "check", str(tmp_path / "loans.yaml")])
    assert checked.exit_code == 0
    assert f"fingerprint {section['version']}" in checked.stdout


def test_other_sweeps_are_left_as_they_are(store: Store) -> None:
    file = make_sweep()
    assert with_data_version(file, store) is file


def test_data_that_are_not_there_are_named(store: Store, tmp_path: Path) -> None:
    section = write(tmp_path, income=1.0)
    (tmp_path / "loans.parquet").unlink()
    with pytest.raises(DataError, match=r"loans\.parquet"):
        launch(sweep(tmp_path, **{**section, "version": "auto"}), store, runner="local")
    assert not list(store.entries(""))
