"""Small real things for tests: a sweep, its specs, records and samples, made without training."""

import json
import os
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from kd_ray.groups import Groups
from kd_ray.results.manifest import Manifest, write_manifest
from kd_ray.results.object_listing import InFolders
from kd_ray.results.record import Epoch, Evaluated, Provenance, Record, Samples, commit_record, write_samples
from kd_ray.results.store import Store, StoredObject, weights_key
from kd_ray.sweep.load import SweepFile, parse_sweep
from kd_ray.sweep.plan import PlannedTrial, expand
from kd_ray.sweep.spec import TrialSpec

WEIGHTS_DIGEST = "ab" * 32
"""SHA-256 that stands for any pretrained weights."""

SWEEP_YAML = """\
name: demo
dataset: {name: trifeature, size: 16}
sensitive_features: [color, texture]
intersections: [[color, texture]]
teacher: {model: resnet20}
student: {model: lenet5}
training:
  epochs: 4
  batch_size: 8
  optimizer: {lr: 0.1}
  schedule: {name: step, milestones: [2]}
distillation: {alpha: 0.9, t_squared: true}
grid:
  seed: [0, 1]
  temperature: [1, 4]
"""
"""2 teachers, 2 scratch students, 2 seeds × 2 temperatures: 8 trials."""

SPEC: dict[str, Any] = {
    "role": "distilled",
    "dataset": {"name": "trifeature", "size": 16},
    "model": "lenet5",
    "training": {
        "epochs": 4,
        "batch_size": 8,
        "optimizer": {"lr": 0.1},
        "schedule": {"name": "step", "milestones": [2]},
    },
    "distillation": {"temperature": 4.0, "alpha": 0.9, "t_squared": True},
    "teacher": {"trial_id": "0123456789abcdef", "model": "resnet20", "seed": 0},
    "seed": 0,
}

CLASSES = ("circle", "square", "star")
LABELS_N = np.array([0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2], dtype=np.int64)
COLORS_N = np.array([0, 0, 1, 1, 0, 0, 1, 1, 0, 0, 1, 1])
TEXTURES_N = np.array([0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1])
PREDICTIONS_N = np.array([0, 0, 0, 1, 1, 1, 2, 1, 2, 0, 2, 2], dtype=np.int32)
"""9 of 12 right: 3 of 4 in each class; 5 of 6 red, 4 of 6 blue."""


def make_sweep(text: str = SWEEP_YAML, *, overrides: Iterable[str] = (), source: str = "demo.yaml") -> SweepFile:
    """A sweep that has been read and checked."""
    return parse_sweep(text, source=source, overrides=tuple(overrides))


def plan_trials(file: SweepFile) -> tuple[PlannedTrial, ...]:
    """All trials of a sweep; pretrained weights are not read."""
    return expand(file, lambda path: WEIGHTS_DIGEST)


def make_spec(**changes: Any) -> TrialSpec:
    """A distilled LeNet-5 with `changes` by dotted path: `make_spec(**{"training.epochs": 8}, seed=1)`."""
    fields: dict[str, Any] = json.loads(json.dumps(SPEC))
    for path, value in changes.items():
        *parents, last = path.split(".")
        node = fields
        for part in parents:
            node = node[part]
        node[last] = value
    return TrialSpec.model_validate_json(json.dumps(fields))


def make_samples(**changes: Any) -> Samples:
    """12 test samples of 3 classes; the color green has none, each of red and blue and each texture has six."""
    fields: dict[str, Any] = {
        "dataset": "trifeature",
        "target": "shape",
        "class_names": CLASSES,
        "labels_N": LABELS_N,
        "sensitive_features": {
            "color": Groups.from_codes(COLORS_N, ["red", "blue", "green"]),
            "texture": Groups.from_codes(TEXTURES_N, ["dots", "stripes"]),
        },
    }
    return Samples(**fields | changes)


def make_provenance(**changes: Any) -> Provenance:
    """How a record came about."""
    fields: dict[str, Any] = {
        "launch_id": "host-1-00000000",
        "generation": 1,
        "restarts": 0,
        "retries": 0,
        "host": "host",
        "device": "cpu",
        "threads": 1,
        "pack_size": 2,
        "started_at": datetime(2024, 5, 6, 7, 8, 9, 123456, tzinfo=UTC),
        "finished_at": datetime(2024, 5, 6, 7, 9, 0, tzinfo=UTC),
        "elapsed_s": 50.5,
        "images_per_s": 1234.5,
        "git_commit": None,
        "versions": {"python": "3.12.3", "torch": "2.6.0"},
    }
    return Provenance(**fields | changes)


def make_record(spec: TrialSpec | None = None, **changes: Any) -> Record:
    """A record whose predictions are those of `PREDICTIONS_N`."""
    spec = spec or make_spec()
    distilled = spec.distillation is not None
    epochs = tuple(
        Epoch(
            epoch=epoch,
            loss=1.0 / epoch,
            terms={"cross_entropy": 0.1 * epoch} | ({"distillation": 0.3} if distilled else {}),
            train_accuracy=0.2 * epoch,
            validation_accuracy=None,
            lr=0.1,
            elapsed_s=0.5,
        )
        for epoch in range(1, spec.epochs + 1)
    )
    evaluated: dict[str, Any] = {
        "scalars": {
            "loss": 0.75,
            "expected_calibration_error": 0.0625,
            "individual_fairness": 0.5,
            "individual_fairness_hard": 0.25,
            "individual_fairness_p95": 1.5,
            "individual_fairness_max": float("nan"),
        },
        "predictions_N": PREDICTIONS_N,
        "confidences_N": np.linspace(0.4, 0.95, len(PREDICTIONS_N), dtype=np.float32),
        "true_probabilities_N": np.linspace(0.1, 0.9, len(PREDICTIONS_N), dtype=np.float32),
        "per_sample": {},
    }
    evaluated |= {name: changes.pop(name) for name in evaluated if name in changes}
    fields: dict[str, Any] = {
        "spec": spec,
        "epochs": epochs,
        "test": Evaluated(**evaluated),
        "weights_key": weights_key(spec.trial_id, 1),
        "weights_sha256": WEIGHTS_DIGEST,
        "num_parameters": 61706,
        "provenance": make_provenance(),
    }
    return Record(**fields | changes)


def random_predictions(spec: TrialSpec) -> npt.NDArray[np.int32]:
    """Predictions for `make_samples`, other ones for every trial, always the same for one."""
    rng = np.random.default_rng(int(spec.trial_id, 16))
    guesses_N = rng.integers(0, len(CLASSES), size=len(LABELS_N))
    return np.where(rng.random(len(LABELS_N)) < 0.5, LABELS_N, guesses_N).astype(np.int32)


def write_sweep(store: Store, file: SweepFile) -> Manifest:
    """Write the manifest of a sweep, as a launch does first."""
    return write_manifest(store, file.sweep, plan_trials(file), sweep_yaml=file.to_yaml(), weights={})


def commit_trials(store: Store, trials: Iterable[PlannedTrial]) -> None:
    """Commit a record with random predictions for each trial, and the samples of its data set."""
    for trial in trials:
        write_samples(store, trial.spec.dataset_id, make_samples())
        commit_record(store, make_record(trial.spec, predictions_N=random_predictions(trial.spec)))


def set_written(store: Store, key: str, seconds: float = 3600) -> None:
    """An object of a local store was written so long ago, by the store's time stamp."""
    assert store.local_root is not None
    then = time.time() - seconds
    os.utime(store.local_root / key, (then, then))


class WatchedStore(Store):
    """A store that remembers what was asked of it."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.listed: list[str] = []
        """Folders that were listed."""
        self.changed: list[str] = []
        """Keys that were written or deleted."""
        self.read: list[str] = []
        """Keys that were read."""

    def get(self, key: str, *, most_bytes: int | None = None) -> bytes | None:
        self.read.append(key)
        return super().get(key, most_bytes=most_bytes)

    def entries(self, prefix: str) -> Iterator[StoredObject]:
        self.listed.append(prefix)
        return super().entries(prefix)

    def in_folders(self, prefix: str, name: str) -> InFolders | None:
        # Where it is None, a listing follows.
        if (found := super().in_folders(prefix, name)) is not None:
            self.listed.append(prefix)
        return found

    def put(self, key: str, data: bytes, *, durable: bool = False) -> str:
        self.changed.append(key)
        return super().put(key, data, durable=durable)

    def put_new(self, key: str, data: bytes, *, durable: bool = False) -> bool:
        self.changed.append(key)
        return super().put_new(key, data, durable=durable)

    def delete(self, key: str) -> None:
        self.changed.append(key)
        super().delete(key)


class ForgetfulStore(Store):
    """A store behind a network that loses the answer to every create, and has the request made again."""

    def put_new(self, key: str, data: bytes, *, durable: bool = False) -> bool:
        super().put_new(key, data, durable=durable)
        return super().put_new(key, data, durable=durable)
