"""Sweeps whose results are drawn, not trained, so that what a comparison has to find is known."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from kd_ray.groups import Groups
from kd_ray.results.aggregate import aggregate
from kd_ray.results.query import Results
from kd_ray.results.record import Samples, commit_record, write_samples
from kd_ray.results.store import Store
from kd_ray.sweep.spec import Role, TrialSpec
from tests.fakes import make_provenance, make_record, make_samples, make_sweep, plan_trials, write_sweep

Rates = Callable[[TrialSpec, np.random.Generator], npt.NDArray[np.float64]]
"""A trial → the probability of each class to be recognised, (C,)."""


def flat(spec: TrialSpec, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Nothing differs: three classes, recognised with probability 0.8."""
    return np.full(3, 0.8)


def drawn_samples(num_classes: int, per_class: int) -> Samples:
    """`per_class` test samples in each class; three colors and two textures, drawn."""
    rng = np.random.default_rng(0)
    n = num_classes * per_class
    return make_samples(
        class_names=tuple(f"class {c}" for c in range(num_classes)),
        labels_N=np.repeat(np.arange(num_classes), per_class),
        sensitive_features={
            "color": Groups.from_codes(rng.integers(0, 3, n), ["red", "blue", "green"]),
            "texture": Groups.from_codes(rng.integers(0, 2, n), ["dots", "stripes"]),
        },
    )


def simulate(
    store: Store, *overrides: str, rates: Rates = flat, num_classes: int = 3, per_class: int = 40, device: str = "cpu"
) -> Results:
    """Commit every trial of the sweep `demo` with `overrides`, and aggregate its tables."""
    file = make_sweep(overrides=overrides)
    samples = drawn_samples(num_classes, per_class)
    labels_N = samples.labels_N
    for trial in plan_trials(file):
        rng = _random(trial.spec)
        is_right_N = rng.random(len(labels_N)) < rates(trial.spec, rng)[labels_N]
        wrong_N = (labels_N + rng.integers(1, num_classes, len(labels_N))) % num_classes
        predictions_N = np.where(is_right_N, labels_N, wrong_N).astype(np.int32)
        scalars = {**make_record().test.scalars, "individual_fairness": float(rng.normal(1, 0.1))}
        record = make_record(
            trial.spec,
            predictions_N=predictions_N,
            confidences_N=np.full(len(labels_N), 0.5, dtype=np.float32),
            true_probabilities_N=np.full(len(labels_N), 0.5, dtype=np.float32),
            scalars=scalars,
            provenance=make_provenance(device=device),
        )
        write_samples(store, trial.spec.dataset_id, samples)
        commit_record(store, record)
    write_sweep(store, file)
    aggregate(store, file.sweep.name)
    return Results(store)


def _random(spec: TrialSpec) -> np.random.Generator:
    """Not from the trial_id: a new field of a spec is no reason for other results."""
    temperature = round(1000 * (spec.temperature or 0.0))
    return np.random.default_rng([list(Role).index(spec.role), temperature, spec.seed or 0])
