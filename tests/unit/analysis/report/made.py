"""Studies and comparisons written by hand, and one sweep with names that nobody should have."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kd_ray.analysis.collapse import PredictionCounts
from kd_ray.analysis.conditions import Condition, make_conditions
from kd_ray.analysis.study import SCRATCH, Classes, Fairness, Study, TestSet
from kd_ray.groups import Groups
from kd_ray.metrics.arrays import FloatArray, IntArray
from kd_ray.results.aggregate import aggregate
from kd_ray.results.comparison_schema import Comparison
from kd_ray.results.query import Results
from kd_ray.results.record import commit_record, write_samples
from kd_ray.results.store import Store
from tests.counted import count_predictions
from tests.fakes import (
    COLORS_N,
    TEXTURES_N,
    make_record,
    make_samples,
    make_sweep,
    plan_trials,
    random_predictions,
    write_sweep,
)

HOSTILE = ("<script>alert(1)</script>", "$\\frac$ & 50% _x^", "a\"b'c --> ]]> 東京\u202e")
"""Class names that are HTML, mathematics, LaTeX, the end of a comment, and letters that no font of ours has."""


def hostile_sweep(store: Store, *overrides: str, leave_out: int = 0) -> Results:
    """The sweep `demo` with hostile names; the last `leave_out` of its trials are not complete."""
    file = make_sweep(overrides=overrides)
    groups = {
        "color": Groups.from_codes(COLORS_N, [HOSTILE[0], "blue", "green"]),
        "texture": Groups.from_codes(TEXTURES_N, ["dots", HOSTILE[1]]),
    }
    trials = plan_trials(file)
    for trial in trials[: len(trials) - leave_out]:
        write_samples(store, trial.spec.dataset_id, make_samples(class_names=HOSTILE, sensitive_features=groups))
        commit_record(store, make_record(trial.spec, predictions_N=random_predictions(trial.spec)))
    write_sweep(store, file)
    aggregate(store, "demo")
    return Results(store)


@dataclass(frozen=True, kw_only=True, eq=False)
class Made:
    """A `Source` of arrays that a test writes down."""

    class_names: tuple[str, ...]
    class_accuracy_TC: FloatArray
    of_groups: tuple[Fairness, ...] = ()
    vectors: Mapping[str, FloatArray] = field(default_factory=dict)
    predicted: Mapping[int, IntArray] = field(default_factory=dict)

    def classes(self) -> dict[str, Classes]:
        return {"d": Classes(names=self.class_names, n_C=np.full(len(self.class_names), 50))}

    def class_accuracy(self) -> FloatArray:
        return self.class_accuracy_TC

    def fairness(self) -> tuple[Fairness, ...]:
        return self.of_groups

    def epochs(self) -> dict[str, tuple[IntArray, FloatArray, FloatArray]]:
        return {}

    def class_vectors(self) -> Mapping[str, FloatArray]:
        return self.vectors

    def predictions(self, rows: Sequence[int]) -> dict[int, IntArray]:
        return {row: self.predicted[row] for row in rows if row in self.predicted}

    def prediction_counts(self) -> PredictionCounts:
        # Who is not predicted is right about everything.
        labels_N = np.arange(4) % 2
        return count_predictions(
            labels_N, np.stack([self.predicted.get(row, labels_N) for row in range(len(self.class_accuracy_TC))])
        )

    def test_set(self, dataset_id: str) -> TestSet:
        return TestSet(labels_N=np.zeros(4, dtype=np.int64), features={})


def make_study(
    *,
    seeds: int = 5,
    temperatures: Sequence[float] = (1, 4),
    alphas: Sequence[float] = (0.5,),
    class_names: Sequence[str] = ("cat", "dog"),
    accuracies: Mapping[str, Sequence[float]] | None = None,
    missing: int = 0,
    dataset: str = "trifeature",
    target: str = "shape",
    teacher: str = "resnet20",
    student: str = "lenet5",
    predicted: Mapping[int, Sequence[int]] | None = None,
    vectors: Mapping[str, FloatArray] | None = None,
    chosen: Callable[[dict[str, Any]], bool] = lambda trial: True,
) -> Study:
    """A teacher of each seed, a scratch student and distilled students of `seeds` seeds; `accuracies` by label of the condition."""
    kinds: list[tuple[str, float | None, float | None]] = [("teacher", None, None), ("scratch", None, None)]
    kinds += [("distilled", float(t), alpha) for t in temperatures for alpha in alphas]
    trials: list[dict[str, Any]] = []
    for role, temperature, alpha in kinds:
        label = role if temperature is None else f"T={temperature:g}"
        for seed, accuracy in enumerate(np.resize((accuracies or {}).get(label, (0.5,)), seeds)):
            is_distilled = role == "distilled"
            trials.append(
                {
                    "trial_id": f"{len(trials):016x}",
                    "role": role,
                    "dataset": dataset,
                    "dataset_id": "d",
                    "target": target,
                    "model": teacher if role == "teacher" else student,
                    "teacher": teacher if is_distilled else None,
                    "teacher_seed": seed if is_distilled else None,
                    "teacher_trial_id": f"{seed:016x}" if is_distilled else None,
                    "objective": "kd" if is_distilled else "cross_entropy",
                    "temperature": temperature,
                    "alpha": alpha,
                    "t_squared": True if is_distilled else None,
                    "seed": seed,
                    "settings": [],
                    "device": "cpu",
                    "host": "here",
                    "num_test": 4,
                    "accuracy": float(accuracy),
                    "individual_fairness": 1.0,
                    "individual_fairness_hard": 0.5,
                    "individual_fairness_calibrated": None,
                    "mean_confidence": 0.9,
                    "elapsed_s": 1.0,
                }
            )
    trials = [trial for trial in trials if chosen(trial)]
    accuracy_T = np.array([trial["accuracy"] for trial in trials])
    metrics = {
        "equalized_odds_difference": accuracy_T / 10,
        "demographic_parity_difference": accuracy_T / 20,
        "label_demographic_parity_difference": np.full(len(trials), 0.03),
        "worst_group_accuracy": accuracy_T,
    }
    return Study(
        sweep="made",
        trials=trials,
        states={"complete": len(trials), "pending": missing},
        failed=(),
        conditions=make_conditions(trials),
        source=Made(
            class_names=tuple(class_names),
            class_accuracy_TC=np.tile(accuracy_T[:, None], (1, len(class_names))),
            of_groups=(Fairness(feature="color", metrics=metrics, num_groups=3),),
            vectors=vectors or {},
            predicted={row: np.array(them) for row, them in (predicted or {}).items()},
        ),
    )


def make_row(condition: Condition | None = None, **values: Any) -> Comparison:
    """A row of `comparisons`, about a condition if one is given."""
    known: dict[str, Any] = {
        "sweep": "made",
        "dataset": "trifeature",
        "dataset_id": "d",
        "target": "shape",
        "model": "lenet5",
        "role": "distilled",
        "condition": "T=4",
        "contrast": SCRATCH,
        "level": 0.05,
        "metric": "relative_accuracy",
        "n_baseline": 5,
        "n_treatment": 5,
    }
    if condition is not None:
        known |= {**condition.axes, "role": condition.role, "temperature": condition.temperature}
        known |= {"condition": condition.label, "settings": dict(condition.settings)}
    return Comparison(**known | values)


def make_bias(
    condition: Condition,
    *,
    p: Sequence[float],
    effect: Sequence[float],
    established: Collection[int] = (),
    contrast: str = SCRATCH,
) -> list[Comparison]:
    """Tests of all classes; intervals over runs reach two points to each side, in all three."""
    return [
        make_row(
            condition,
            analysis="class_bias",
            contrast=contrast,
            class_index=c,
            class_name=f"c{c}",
            effect=effect[c],
            ci_low=effect[c] - 0.02,
            ci_high=effect[c] + 0.02,
            ci_total_low=effect[c] - 0.03,
            ci_total_high=effect[c] + 0.03,
            p=p[c],
            p_claim=p[c],
            q=p[c],
            status="established" if c in established else "hint" if p[c] < 0.05 else "none",
        )
        for c in range(len(p))
    ]
