"""A worker whose training takes no time and whose accuracy is a known function of the settings: searches have a known optimum.

accuracy(epoch e of E) = best(lr, alpha) · (1 − 0.5 · (1 − e / E)) + noise of the seed; best is largest at lr = 0.01 and alpha = 0.7.
Everything around it is real: searcher, scheduler, packs, leases, stops, checkpoints, records.
"""

import json
import math
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
from kd_ray.results.record import Epoch, Evaluated, Samples, write_samples
from kd_ray.results.store import Store
from kd_ray.sweep.load import SweepFile, parse_sweep
from kd_ray.sweep.placement import Placement
from kd_ray.sweep.spec import TrialSpec

NUM_SAMPLES = 2000
NOISE = 0.002

SEARCH = """
name: known
dataset: {name: trifeature, size: 16, images_per_combination: 1, test_fraction: 0.5, validation_fraction: 0.2}
sensitive_features: [color]
teacher:
  model: lenet5
  seed: [0]
  training: {epochs: 1, batch_size: 50, optimizer: {lr: 0.1}, schedule: {name: constant}}
student: {model: lenet5}
training:
  epochs: 27
  batch_size: 50
  optimizer: {name: sgd, lr: 0.5}
  schedule: {name: constant}
distillation: {alpha: 0.5, t_squared: true}
grid: {seed: [0, 1], temperature: [1, 4]}
tune:
  space:
    training.optimizer.lr: {log_uniform: [1e-4, 1]}
    distillation.alpha: {uniform: [0.1, 0.9]}
  arm: distilled
  grid: {temperature: [4]}
  budget: {candidates: 12}
"""


def known_search(data_root: str, *overrides: str) -> SweepFile:
    """A sweep with a search whose optimum is known: lr = 0.01, alpha = 0.7."""
    return parse_sweep(SEARCH, source="known.yaml", overrides=[f"placement.data_root={data_root}", *overrides])


def best_accuracy(lr: float, alpha: float) -> float:
    """Accuracy after the last epoch, without noise."""
    return 0.9 - 0.1 * math.log10(lr / 0.01) ** 2 - 0.5 * (alpha - 0.7) ** 2


def known_worker(context: LaunchContext) -> PackWorker:
    """Makes a worker that trains nothing."""
    return KnownWorker(context.store, context.placement, context.launch_id)


class KnownWorker:
    """See the module."""

    device_name = "none"

    def __init__(self, store: Store, placement: Placement, launch_id: str) -> None:
        self.store = store
        self.placement = placement
        self.launch_id = launch_id

    def begin(self, specs: Sequence[TrialSpec], load_state: LoadState, on_failure: OnFailure) -> PackTraining:
        for dataset_id in {spec.dataset_id for spec in specs}:
            write_samples(self.store, dataset_id, _samples())
        assert all(spec.dataset.evaluated_on == "validation" for spec in specs)
        return KnownTraining({spec: load_state(spec, lambda data: int(json.loads(data))) or 0 for spec in specs})


def _samples() -> Samples:
    return Samples(
        dataset="trifeature",
        target="shape",
        class_names=("a", "b"),
        labels_N=np.arange(NUM_SAMPLES) % 2,
        sensitive_features={"color": Groups.from_codes(np.arange(NUM_SAMPLES) // 2 % 2, ["red", "blue"])},
    )


class KnownTraining:
    """A pack whose epochs take no time."""

    def __init__(self, epochs: dict[TrialSpec, int]) -> None:
        self._epochs = epochs

    @property
    def trials(self) -> Sequence[TrialTraining]:
        return [
            TrialTraining(
                spec=spec,
                step=partial(self._epochs.__getitem__, spec),
                state=partial(self._state, spec),
                finish=partial(self._result, spec),
                history=partial(self._history, spec),
            )
            for spec in self._epochs
        ]

    def fit(self) -> Iterator[PackProgress]:
        while self._epochs and (epoch := min(self._epochs.values())) < (of := next(iter(self._epochs)).epochs):
            self._epochs = {spec: max(done, epoch + 1) for spec, done in self._epochs.items()}
            yield PackProgress(epoch=epoch + 1, epochs=of, end_of_epoch=True)

    def drop(self, trial_id: str) -> None:
        self._epochs = {spec: done for spec, done in self._epochs.items() if spec.trial_id != trial_id}

    def _state(self, spec: TrialSpec) -> bytes:
        return json.dumps(self._epochs[spec]).encode()

    def _history(self, spec: TrialSpec) -> tuple[Epoch, ...]:
        return tuple(
            Epoch(
                epoch=epoch,
                loss=1.0,
                terms={},
                train_accuracy=0.5,
                validation_accuracy=_num_correct(spec, epoch) / NUM_SAMPLES,
                lr=0.1,
                elapsed_s=1.0,
            )
            for epoch in range(1, self._epochs[spec] + 1)
        )

    def _result(self, spec: TrialSpec) -> TrialResult:
        labels_N = np.arange(NUM_SAMPLES) % 2
        is_right_N = np.random.default_rng(0).permutation(NUM_SAMPLES) < _num_correct(spec, self._epochs[spec])
        names = ("loss", "expected_calibration_error", "individual_fairness", "individual_fairness_hard")
        return TrialResult(
            epochs=self._history(spec),
            test=Evaluated(
                scalars=dict.fromkeys((*names, "individual_fairness_p95", "individual_fairness_max"), 1.0),
                predictions_N=np.where(is_right_N, labels_N, 1 - labels_N).astype(np.int32),
                confidences_N=np.ones(NUM_SAMPLES, dtype=np.float32),
                true_probabilities_N=np.ones(NUM_SAMPLES, dtype=np.float32),
            ),
            weights=spec.trial_id.encode(),
            num_parameters=1,
            num_train=1,
            elapsed_s=float(self._epochs[spec]),
            restarts=0,
        )


def _num_correct(spec: TrialSpec, epoch: int) -> int:
    assert spec.training is not None
    alpha = spec.alpha if spec.alpha is not None else 0.7
    noise = NOISE * float(np.random.default_rng(int(spec.trial_id, 16)).standard_normal())
    share = best_accuracy(spec.training.optimizer.lr, alpha) * (0.5 + 0.5 * epoch / spec.epochs) + noise
    return round(NUM_SAMPLES * min(max(share, 0.0), 1.0))
