"""A worker whose training takes no time, so that what a sweep costs beside training becomes visible.

Everything around it is real: the launch, Ray, leases, weights, records, tables.
"""

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from kd_ray.cluster.runner import LaunchContext
from kd_ray.distill.worker_protocol import (
    LoadState,
    OnFailure,
    PackProgress,
    PackTraining,
    PackWorker,
    TrialResult,
    TrialTraining,
)
from kd_ray.groups import Groups
from kd_ray.results.aggregate import aggregate
from kd_ray.results.manifest import write_manifest
from kd_ray.results.record import Epoch, Evaluated, Samples, write_samples
from kd_ray.results.store import Store
from kd_ray.sweep.load import SweepFile, parse_sweep
from kd_ray.sweep.placement import Placement
from kd_ray.sweep.plan import expand
from kd_ray.sweep.spec import TrialSpec
from tests.unit.housekeeping.whole import commit_whole

NUM_CLASSES = 100
NUM_SAMPLES = 1000
EPOCHS = 10
SCALARS = (
    "loss",
    "expected_calibration_error",
    "individual_fairness",
    "individual_fairness_hard",
    "individual_fairness_p95",
    "individual_fairness_max",
)

SWEEP = """
name: synthetic
dataset: {name: trifeature, size: 16, images_per_combination: 1, test_fraction: 0.5}
sensitive_features: [color, texture]
teacher:
  model: resnet20
  seed: [0]
student: {model: lenet5}
training:
  epochs: 10
  batch_size: 50
  optimizer: {name: sgd, lr: 0.02}
  schedule: {name: constant}
distillation: {alpha: 0.9, t_squared: true}
grid: {seed: [0], temperature: [1]}
placement: {pack_size: 10}
"""


def packs_of_ten(num_trials: int, data_root: str, *more: str, cpus_per_pack: int = 1) -> SweepFile:
    """About `num_trials` trials: a teacher, and ten temperatures per seed, which are one pack; `more` overrides."""
    seeds = list(range(max(1, round((num_trials - 1) / 10))))
    overrides = [f"grid.seed={seeds}", f"grid.temperature={list(range(1, 11))}", "baselines=[]"]
    placement = [f"placement.data_root={data_root}", f"placement.cpus_per_pack={cpus_per_pack}"]
    every = [*overrides, *placement, *more]
    return parse_sweep(SWEEP, source="synthetic.yaml", overrides=every, most_cells=1_000_000)


def synthetic_sweep(num_trials: int, data_root: str = "./data") -> SweepFile:
    """About `num_trials` trials: nine temperatures and a scratch student per seed, so that ten of one seed cost one pack and a bit."""
    seeds = list(range(max(1, round((num_trials - 1) / 10))))
    temperatures = list(range(1, 10))
    overrides = [f"grid.seed={seeds}", f"grid.temperature={temperatures}", f"placement.data_root={data_root}"]
    return parse_sweep(SWEEP, source="synthetic.yaml", overrides=overrides)


def synthetic_worker(context: LaunchContext) -> PackWorker:
    """Makes a worker that trains nothing."""
    return SyntheticWorker(context.store, context.placement, context.launch_id)


def finish(file: SweepFile, store: Store) -> int:
    """Leave a store as a launch of a sweep does, without Ray, leases and packs, and with 12 test samples. Returns the number of trials."""
    trials = expand(file, lambda path: path)
    commit_whole(store, trials)
    write_manifest(store, file.sweep, trials, sweep_yaml=file.to_yaml(), weights={})
    aggregate(store, file.sweep.name)
    return len(trials)


class SyntheticWorker:
    """See the module."""

    device_name = "none"

    def __init__(self, store: Store, placement: Placement, launch_id: str) -> None:
        self.store = store
        self.placement = placement
        self.launch_id = launch_id
        self._known: set[str] = set()
        rng = np.random.default_rng(0)
        self._labels_N = np.repeat(np.arange(NUM_CLASSES), NUM_SAMPLES // NUM_CLASSES)
        self._samples = Samples(
            dataset="trifeature",
            target="shape",
            class_names=tuple(f"class {i}" for i in range(NUM_CLASSES)),
            labels_N=self._labels_N,
            sensitive_features={
                "color": Groups.from_codes(rng.integers(0, 3, NUM_SAMPLES), ["red", "green", "blue"]),
                "texture": Groups.from_codes(rng.integers(0, 2, NUM_SAMPLES), ["dots", "stripes"]),
            },
        )

    def begin(self, specs: Sequence[TrialSpec], load_state: LoadState, on_failure: OnFailure) -> PackTraining:
        for spec in specs:
            if spec.dataset_id not in self._known:
                write_samples(self.store, spec.dataset_id, self._samples)
                self._known.add(spec.dataset_id)
            load_state(spec, bytes)
        return SyntheticTraining(list(specs), self._labels_N)


class SyntheticTraining:
    """A pack that is trained as soon as it begins."""

    def __init__(self, specs: list[TrialSpec], labels_N: np.ndarray[tuple[int], np.dtype[np.int64]]) -> None:
        self._specs = specs
        self._labels_N = labels_N

    @property
    def trials(self) -> Sequence[TrialTraining]:
        return [
            TrialTraining(spec=spec, step=lambda: EPOCHS, state=lambda: b"state", finish=partial(self._result, spec))
            for spec in self._specs
        ]

    def fit(self) -> Iterator[PackProgress]:
        yield PackProgress(epoch=EPOCHS, epochs=EPOCHS, end_of_epoch=True)

    def drop(self, trial_id: str) -> None:
        self._specs = [spec for spec in self._specs if spec.trial_id != trial_id]

    def _result(self, spec: TrialSpec) -> TrialResult:
        rng = np.random.default_rng(int(spec.trial_id, 16))
        guesses_N = rng.integers(0, NUM_CLASSES, NUM_SAMPLES)
        return TrialResult(
            epochs=tuple(
                Epoch(
                    epoch=epoch,
                    loss=1 / epoch,
                    terms={"cross_entropy": 1 / epoch},
                    train_accuracy=0.5,
                    validation_accuracy=None,
                    lr=0.1,
                    elapsed_s=0.0,
                )
                for epoch in range(1, EPOCHS + 1)
            ),
            test=Evaluated(
                scalars=dict.fromkeys(SCALARS, 1.0),
                predictions_N=np.where(rng.random(NUM_SAMPLES) < 0.7, self._labels_N, guesses_N).astype(np.int32),
                confidences_N=rng.random(NUM_SAMPLES, dtype=np.float32),
                true_probabilities_N=rng.random(NUM_SAMPLES, dtype=np.float32),
            ),
            weights=rng.bytes(20_000),
            num_parameters=5_000,
            num_train=500,
            elapsed_s=0.0,
            restarts=0,
        )
