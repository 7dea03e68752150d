"""A launch over streamed images that is killed in the middle of an epoch: the next one ends with the tables of an undisturbed one."""

import os
import signal
from pathlib import Path

import pytest

from kd_ray.cluster.launch import launch
from kd_ray.data.families import fingerprint
from kd_ray.results.query import Results
from kd_ray.results.store import Store, open_store
from kd_ray.sweep.load import SweepFile, parse_sweep
from tests.datasets import write_imagenet
from tests.processes import started, wait_until

SWEEP = """
name: killed
dataset: {name: imagenet, num_classes: 3, size: 16, validation_fraction: 0.1}
teacher:
  model: lenet5
  seed: [0]
  training: {epochs: 1, batch_size: 40, optimizer: {lr: 0.05}, schedule: {name: constant}}
student: {model: resnet20}
training:
  epochs: 2
  batch_size: 4
  optimizer: {name: sgd, lr: 0.02}
  schedule: {name: cosine}
  augmentation: randaugment
  mixup: 0.4
  cutmix: 1.0
  ema_decay: 0.95
distillation: {alpha: 0.9, t_squared: true}
baselines: []
grid: {seed: [0], temperature: [1, 8]}
placement: {resident_gb: 0, checkpoint_interval_s: 0, loader_threads: 2}
"""


def of(folder: Path, *overrides: str) -> SweepFile:
    return parse_sweep(SWEEP, source="killed.yaml", overrides=[f"placement.data_root={folder / 'data'}", *overrides])


def facts(store: Store) -> list[object]:
    results = Results(store)
    tables = [
        "SELECT trial_id, accuracy, loss, individual_fairness FROM trials ORDER BY ALL",
        "SELECT trial_id, epoch, loss, train_accuracy, validation_accuracy FROM epochs ORDER BY ALL",
        "SELECT trial_id, predictions FROM predictions ORDER BY ALL",
    ]
    return [results.query(sql).to_pylist() for sql in tables]


@pytest.mark.long
def test_a_kill_in_the_middle_of_an_epoch_changes_no_bit(tmp_path: Path) -> None:
    root = write_imagenet(tmp_path / "data", train_per_class=40, test_per_class=4)
    version = fingerprint(of(tmp_path).sweep.dataset, root, resident_bytes=0)
    file = of(tmp_path, f"dataset.version='{version}'")
    (tmp_path / "killed.yaml").write_text(file.to_yaml())
    folder = tmp_path / "store"
    arguments = ("launch", "killed.yaml", "--store", str(folder), "--runner", "local")
    with started(*arguments, cwd=tmp_path, output=tmp_path / "output") as process:
        # Progress, and with it a checkpoint, comes about once a second: in the middle of an epoch as likely as not.
        wait_until(lambda: len(list(folder.glob("trials/*/checkpoint/*"))) >= 2, process)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    store = open_store(folder)
    report = launch(file, store, runner="local")
    assert (report.exit_code, len(report.trials)) == (0, 3)
    undisturbed = open_store(tmp_path / "undisturbed")
    assert (
        launch(
            of(tmp_path, f"dataset.version='{version}'", "placement.loader_threads=1"), undisturbed, runner="local"
        ).exit_code
        == 0
    )
    assert facts(store) == facts(undisturbed)
    assert max(Results(store).query("SELECT restarts FROM trials")["restarts"].to_pylist()) == 1
