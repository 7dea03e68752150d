"""Real training: a search reads no sample of the test split, and no training is done twice."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kd_ray.cluster.launch import launch
from kd_ray.cluster.tune import tune
from kd_ray.data import families, trifeature
from kd_ray.data.family import Family, Loading
from kd_ray.data.image_data import ImageData, Split
from kd_ray.results.record import read_record
from kd_ray.results.store import Store, open_store
from kd_ray.sweep.load import SweepFile, parse_sweep
from kd_ray.sweep.plan import expand
from tests.sweeps import assert_same_tables

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # Ray Tune warns of its own changes
]

SWEEP = """
name: tiny
dataset: {name: trifeature, size: 16, images_per_combination: 1, test_fraction: 0.5, validation_fraction: 0.2}
sensitive_features: [color]
teacher: {model: lenet5, seed: [7]}
student: {model: lenet5}
training:
  epochs: 2
  batch_size: 50
  optimizer: {name: sgd, lr: 0.02}
  schedule: {name: cosine}
  augmentation: crop_flip
distillation: {alpha: 0.9, t_squared: true}
grid: {seed: [0, 1], temperature: [4]}
tune:
  space: {distillation.alpha: [0.5, 0.9]}
  arm: all
  metric: worst_class_accuracy
  searcher: grid
  scheduler: {grace_epochs: 1, reduction_factor: 2}
  budget: {candidates: 2}
"""


def tiny(data_root: Path, *overrides: str) -> SweepFile:
    return parse_sweep(SWEEP, source="tiny.yaml", overrides=[f"placement.data_root={data_root}", *overrides])


class _Sealed(Split):
    """Images that must not be looked at."""

    def __getattribute__(self, name: str) -> Any:
        if name in ("image", "take") or (name == "images_NHWC" and "is_made" in vars(self)):
            raise AssertionError("a sample of the test split is read")
        return super().__getattribute__(name)


def _with_sealed_test(settings: Any, loading: Loading) -> ImageData:
    data = trifeature.FAMILY.load(settings, loading)
    assert isinstance(data, ImageData)
    sealed = _Sealed(**{name: getattr(data.test, name) for name in ("images_NHWC", "labels_N", "sensitive_features")})
    object.__setattr__(sealed, "is_made", True)
    return replace(data, test=sealed)


def test_a_search_reads_no_sample_of_the_test_split(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a data root of its own, so that nothing comes from a cache. A launch of the grid does read it."""
    sealed: Family[Any] = replace(trifeature.FAMILY, load=_with_sealed_test)
    monkeypatch.setitem(families.FAMILIES, "trifeature", sealed)
    report = tune(tiny(tmp_path), store, runner="local")
    assert report.exit_code == 0
    assert report.outcome.chosen is not None
    with pytest.raises(AssertionError, match="a sample of the test split is read"):
        launch(tiny(tmp_path), store, runner="local")


def test_no_training_is_done_twice_and_the_bits_are_the_same(
    tmp_path: Path, store: Store, trifeature_root: Path
) -> None:
    """From a search to its grid, and from a grid to a search: trials take over what was trained, to the same tables."""
    whole = open_store(tmp_path / "whole")
    grid = tiny(trifeature_root, "tune.scheduler=null")
    assert launch(grid, whole, runner="local").exit_code == 0
    report = tune(grid, store, runner="local")
    by_alpha = {one.candidate.settings["distillation.alpha"]: one for one in report.outcome.placed}
    assert by_alpha[0.9].state == "complete"
    assert launch(grid, store, runner="local").exit_code == 0
    assert_same_tables(store, whole)
    twins = {
        trial.spec.seed: trial.trial_id
        for trial in by_alpha[0.9].candidate.trials
        if trial.spec.role.value == "distilled"
    }
    (mine,) = [trial for trial in expand(grid, str) if trial.spec.role.value == "distilled" and trial.spec.seed == 0]
    taken, twin = read_record(store, mine.trial_id), read_record(store, twins[0])
    assert taken is not None
    assert twin is not None
    assert taken.epochs == twin.epochs
    assert taken.provenance.elapsed_s == twin.provenance.elapsed_s
    assert taken.weights_sha256 == twin.weights_sha256
    assert not np.array_equal(taken.test.predictions_N, twin.test.predictions_N)
    again = tune(grid, whole, runner="local")
    values = [
        (one.state, one.value) for one in report.outcome.placed if one.candidate.settings["distillation.alpha"] == 0.9
    ]
    assert values == [
        (one.state, one.value) for one in again.outcome.placed if one.candidate.settings["distillation.alpha"] == 0.9
    ]
