"""Studies whose predictions are drawn, so that what is true of them is known; held in memory, as a store would give them.

Every test sample has a difficulty that all runs share; a run is right where its skill on the class, its own luck on the sample and the
difficulty add up to more than 0. So runs agree on samples as trained networks do, class accuracies vary between runs, and all of it goes
the whole way from predictions to sentences.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from kd_ray.analysis.collapse import PredictionCounts
from kd_ray.analysis.conditions import make_conditions
from kd_ray.analysis.study import FAIRNESS, Classes, Fairness, Study, TestSet
from kd_ray.groups import Groups, intersect
from kd_ray.metrics.arrays import FloatArray, IntArray
from kd_ray.metrics.fairness import fairness_metrics, group_rates
from kd_ray.metrics.per_class import class_metrics
from tests.counted import count_predictions


@dataclass(frozen=True, kw_only=True)
class Design:
    """What is drawn. Skills are in units of the spread of difficulties; 0.1 is about three points of accuracy."""

    temperatures: int = 3
    seeds: int = 5
    classes: int = 10
    per_class: int = 20
    groups: int = 3
    base: float = 1.0
    """Skill of everything: 1.0 gives an accuracy of about 0.75."""
    run_sd: float = 0.15
    """Standard deviation of a run's skill on a class."""
    ratio: float = 1.0
    """How many times as far the distilled runs are apart."""
    seed_sd: float = 0.0
    """Standard deviation of what runs of one seed share on a class, whatever their temperature."""
    teachers: int = 1
    """Teachers of every seed; 0: each seed has its own."""
    teacher_sd: float = 0.0
    """Standard deviation of what the students of one teacher share on a class."""
    luck: float = 0.7
    """Standard deviation of a run's luck on a sample."""
    skill: Mapping[float, float] = field(default_factory=dict)
    """Change of the skill of students distilled at a temperature."""
    class_shift: float = 0.0
    """Change of the skill of distilled students on the first class."""
    group_shift: float = 0.0
    """Change of the skill of distilled students on the first group."""
    group_gap: float = 0.0
    """Change of the skill of all students on the first group."""
    trend: float = 0.0
    """Change of the skill of distilled students from the lowest to the highest temperature."""
    intersections: bool = False
    """Whether joint groups of two features are compared as well, with few samples each."""

    @property
    def values(self) -> tuple[float, ...]:
        """The temperatures."""
        return tuple(float(2 + t) if self.temperatures <= 9 else float(1 + t) for t in range(self.temperatures))


@dataclass(frozen=True, kw_only=True, eq=False)
class Arrays:
    """A `Source` of arrays."""

    trials: Sequence[Mapping[str, Any]]
    labels_N: IntArray
    predictions_TN: IntArray
    features: Mapping[str, Groups]
    num_classes: int

    def classes(self) -> dict[str, Classes]:
        names = tuple(f"class {c}" for c in range(self.num_classes))
        return {"d": Classes(names=names, n_C=np.bincount(self.labels_N, minlength=self.num_classes))}

    @cached_property
    def per_class(self) -> list[Any]:
        return [class_metrics(self.labels_N, it, num_classes=self.num_classes) for it in self.predictions_TN]

    def class_accuracy(self) -> FloatArray:
        return np.stack([it.accuracy_C for it in self.per_class])

    def fairness(self) -> tuple[Fairness, ...]:
        found = []
        for feature, groups in self.features.items():
            values = {name: np.full(len(self.trials), np.nan) for name in FAIRNESS}
            for t, predictions_N in enumerate(self.predictions_TN):
                metrics = fairness_metrics(
                    group_rates(self.labels_N, predictions_N, groups, num_classes=self.num_classes)
                )
                for name in FAIRNESS[:3]:
                    values[name][t] = getattr(metrics.macro, name)
                values["worst_group_accuracy"][t] = metrics.worst_group_accuracy
            found.append(
                Fairness(
                    feature=feature, metrics=values, num_groups=len(groups.names), is_joint=feature == "color & texture"
                )
            )
        return tuple(found)

    def epochs(self) -> dict[str, Any]:
        return {}

    def class_vectors(self) -> dict[str, FloatArray]:
        return {}

    def predictions(self, rows: Sequence[int]) -> dict[int, IntArray]:
        return {row: self.predictions_TN[row] for row in rows}

    def prediction_counts(self) -> PredictionCounts:
        return count_predictions(self.labels_N, self.predictions_TN)

    def test_set(self, dataset_id: str) -> TestSet:
        return TestSet(labels_N=self.labels_N, features=self.features)


def draw(design: Design, seed: int) -> Study:
    """One sweep: teachers, scratch students and distilled students, by `design`."""
    rng = np.random.default_rng([seed, 20_261_127])
    num_classes, n = design.classes, design.classes * design.per_class
    labels_N = np.repeat(np.arange(num_classes), design.per_class)
    difficulty_N = rng.normal(size=n)
    groups_N = rng.integers(0, design.groups, n)
    features = {"color": Groups.from_codes(groups_N, [f"g{g}" for g in range(design.groups)])}
    if design.intersections:
        features["texture"] = Groups.from_codes(rng.integers(0, 5, n), [f"t{g}" for g in range(5)])
        features["color & texture"] = intersect([features["color"], features["texture"]])
    specs = _specs(design)
    seed_skill = {s: rng.normal(0, design.seed_sd, num_classes) for s in range(design.seeds)}
    taught = {t: rng.normal(0, design.teacher_sd, num_classes) for t in {spec["teacher_seed"] for spec in specs}}
    predictions_TN = np.empty((len(specs), n), dtype=np.int64)
    for t, spec in enumerate(specs):
        is_distilled = spec["role"] == "distilled"
        skill_C = np.full(num_classes, design.base + (1.0 if spec["role"] == "teacher" else 0.0))
        skill_C += rng.normal(0, design.run_sd * (design.ratio if is_distilled else 1.0), num_classes)
        if spec["role"] != "teacher":
            skill_C += seed_skill[spec["seed"]]
        skill_N = skill_C[labels_N] + design.group_gap * (groups_N == 0) * (spec["role"] != "teacher")
        if is_distilled:
            skill_N = skill_N + taught[spec["teacher_seed"]][labels_N] + design.skill.get(spec["temperature"], 0.0)
            skill_N = skill_N + design.class_shift * (labels_N == 0) + design.group_shift * (groups_N == 0)
            span = design.values[-1] - design.values[0] or 1.0
            skill_N = skill_N + design.trend * (spec["temperature"] - design.values[0]) / span
        right_N = skill_N + difficulty_N + rng.normal(0, design.luck, n) > 0
        wrong_N = (labels_N + rng.integers(1, num_classes, n)) % num_classes
        predictions_TN[t] = np.where(right_N, labels_N, wrong_N)
    return as_study(specs, labels_N, predictions_TN, features, num_classes, rng)


def as_study(
    specs: Sequence[dict[str, Any]],
    labels_N: IntArray,
    predictions_TN: IntArray,
    features: Mapping[str, Groups],
    num_classes: int,
    rng: np.random.Generator,
) -> Study:
    """A study of these predictions."""
    for t, spec in enumerate(specs):
        metrics = class_metrics(labels_N, predictions_TN[t], num_classes=num_classes)
        spec |= {
            "accuracy": metrics.accuracy,
            "worst_class_accuracy": metrics.worst_class_accuracy,
            "individual_fairness": float(rng.normal(1, 0.02)),
            "individual_fairness_hard": float(rng.normal(0.5, 0.02)),
            "individual_fairness_calibrated": float(rng.normal(0.8, 0.02)),
            "num_test": len(labels_N),
            "elapsed_s": 60.0,
        }
    source = Arrays(
        trials=specs,
        labels_N=labels_N,
        predictions_TN=predictions_TN,
        features=features,
        num_classes=num_classes,
    )
    return Study(
        sweep="drawn",
        trials=specs,
        states={"complete": len(specs)},
        failed=(),
        conditions=make_conditions(specs),
        source=source,
    )


def _specs(design: Design) -> list[dict[str, Any]]:
    """Rows of `trials`, without metrics."""
    teachers = list(range(design.teachers or design.seeds))
    rows = [_row("teacher", seed=t, model="resnet20") for t in teachers]
    rows += [_row("scratch", seed=s) for s in range(design.seeds)]
    for temperature in design.values:
        for s in range(design.seeds):
            for t in teachers if design.teachers else [s]:
                rows.append(_row("distilled", seed=s, temperature=temperature, teacher_seed=t))
    return rows


def _row(
    role: str,
    *,
    seed: int,
    model: str = "lenet5",
    temperature: float | None = None,
    teacher_seed: int | None = None,
) -> dict[str, Any]:
    is_distilled = role == "distilled"
    return {
        "trial_id": f"{role[:1]}{seed}t{temperature or 0:g}k{teacher_seed}",
        "role": role,
        "dataset": "trifeature",
        "dataset_id": "d",
        "target": "shape",
        "model": model,
        "teacher": "resnet20" if is_distilled else None,
        "teacher_seed": teacher_seed,
        "teacher_trial_id": f"t{teacher_seed}t0kNone" if is_distilled else None,
        "objective": "kd" if is_distilled else "cross_entropy",
        "temperature": temperature,
        "alpha": 0.5 if is_distilled else None,
        "t_squared": True if is_distilled else None,
        "seed": seed,
        "settings": [],
        "device": "cpu",
    }
