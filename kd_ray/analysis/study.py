"""A sweep, read once: its trials, conditions, runs, baselines and teachers. Every number that is shown of a sweep comes from here.

A *condition* is everything in a trial's key but seeds. A *run* is one student seed: where a seed learned from several teachers, its run
is the mean over them, because students of one seed share initialisation and data order and are not independent. A teacher with a seed is
a run of its own, and so is each pretrained teacher, which has no seed.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Protocol

import numpy as np

from kd_ray.analysis.collapse import PredictionCounts, collapses
from kd_ray.analysis.conditions import Condition
from kd_ray.analysis.trial_rows import column
from kd_ray.groups import Groups
from kd_ray.metrics.arrays import FloatArray, IntArray

SCRATCH, TEACHER = "scratch_vs_distilled", "teacher_vs_distilled"
"""The contrasts, as baseline_vs_treatment."""
CONTRASTS = (SCRATCH, TEACHER)
FAIRNESS = (
    "equalized_odds_difference",
    "demographic_parity_difference",
    "label_demographic_parity_difference",
    "worst_group_accuracy",
)
"""Metrics of a sensitive feature that the tables hold, one-vs-rest means over classes (worst-group accuracy: over all classes)."""

Scope = Literal["this teacher", "these teachers", "teachers"]
"""What a sentence about distilled students may speak of: the one teacher that taught them, the few that did, or teachers of this kind."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Classes:
    """The classes of one data set."""

    names: tuple[str, ...]
    n_C: IntArray
    """Test samples of each class."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TestSet:
    """The test samples of one data set."""

    __test__ = False
    labels_N: IntArray
    features: Mapping[str, Groups]
    """Sensitive features and their intersections, as the sweep compares them."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Fairness:
    """Fairness of every trial for one sensitive feature; NaN where it is undefined."""

    feature: str
    metrics: Mapping[str, FloatArray]
    """By the names in `FAIRNESS`, one value per trial."""
    num_groups: int
    is_joint: bool = False
    """Whether it is an intersection of features, which has many small groups."""


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Mean and sample standard deviation (ddof = 1) over the runs in which a value is defined."""

    mean: float
    """NaN where no run has a value."""
    sd: float
    """NaN with fewer than two values."""
    n: int

    def half_width(self, level: float = 0.95) -> float:
        """Half of Student's interval of the mean over runs; NaN with fewer than two values."""
        from scipy.special import stdtrit

        return float(stdtrit(self.n - 1, (1 + level) / 2)) * self.sd / math.sqrt(self.n) if self.n > 1 else math.nan


class StudySource(Protocol):
    """Where the large parts of a study come from: the tables of a store, or arrays. Each is asked for when it is needed."""

    def classes(self) -> Mapping[str, Classes]:
        """The classes by dataset_id."""

    def class_accuracy(self) -> FloatArray:
        """Accuracy of all trials on each class, (T, C); C is that of the data set with most classes. NaN where undefined."""

    def fairness(self) -> tuple[Fairness, ...]:
        """Fairness by sensitive feature: single features first, then intersections."""

    def epochs(self) -> Mapping[str, tuple[IntArray, FloatArray, FloatArray]]:
        """(epoch, mean training loss, training accuracy) by trial_id."""

    def class_vectors(self) -> Mapping[str, FloatArray]:
        """What objectives held of each class, (T, C) by name; empty where none did."""

    def predictions(self, rows: Sequence[int]) -> Mapping[int, IntArray]:
        """Predicted classes of some trials, (N,), by row."""

    def prediction_counts(self) -> PredictionCounts:
        """How all trials predict their test samples, counted."""

    def test_set(self, dataset_id: str) -> TestSet:
        """The test samples of a data set."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Study:
    """One sweep. Arrays are by trial (T), run (R, S), class (C) and test sample (N)."""

    sweep: str
    trials: Sequence[Mapping[str, Any]]
    """Rows of the table `trials`."""
    states: Mapping[str, int]
    """Number of trials that the sweep asks for, by state."""
    failed: tuple[str, ...]
    """Descriptions of the trials that failed."""
    conditions: tuple[Condition, ...]
    """Teachers, then scratch, then distilled by temperature."""
    source: StudySource

    @property
    def dataset(self) -> str:
        """Names of the data sets."""
        return ", ".join(dict.fromkeys(map(str, self.column("dataset"))))

    @property
    def target(self) -> str:
        """What is classified."""
        return ", ".join(dict.fromkeys(map(str, self.column("target"))))

    @property
    def num_missing(self) -> int:
        """Trials asked for that are not complete."""
        return sum(self.states.values()) - self.states["complete"]

    @cached_property
    def index(self) -> Mapping[str, int]:
        """Row of a trial by its trial_id."""
        return {trial_id: row for row, trial_id in enumerate(self.column("trial_id"))}

    @cached_property
    def classes(self) -> Mapping[str, Classes]:
        """The classes by dataset_id."""
        return self.source.classes()

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes; of the largest data set, where there are several."""
        return max((it.names for it in self.classes.values()), key=len, default=())

    @property
    def class_n_C(self) -> IntArray:
        """Test samples of these classes."""
        return max((it.n_C for it in self.classes.values()), key=len, default=np.zeros(0, dtype=np.int64))

    @cached_property
    def class_accuracy_TC(self) -> FloatArray:
        """Class accuracy of all trials; NaN for a class without test samples."""
        return self.source.class_accuracy()

    @cached_property
    def fairness(self) -> tuple[Fairness, ...]:
        """Fairness by sensitive feature: single features first, then intersections."""
        return self.source.fairness()

    @cached_property
    def epochs(self) -> Mapping[str, tuple[IntArray, FloatArray, FloatArray]]:
        """(epoch, mean training loss, training accuracy) by trial_id."""
        return self.source.epochs()

    @cached_property
    def class_vectors(self) -> Mapping[str, FloatArray]:
        """What objectives held of each class, (T, C) by name."""
        return self.source.class_vectors()

    @cached_property
    def predictions(self) -> Mapping[int, IntArray]:
        """Predicted classes of all trials, (N,), by row."""
        return self.source.predictions(range(len(self.trials)))

    @cached_property
    def test_sets(self) -> Mapping[str, TestSet]:
        """Test samples by dataset_id."""
        return {dataset_id: self.source.test_set(dataset_id) for dataset_id in self.classes}

    def of_role(self, role: str) -> tuple[Condition, ...]:
        """The conditions of a role."""
        return tuple(condition for condition in self.conditions if condition.role == role)

    @property
    def distilled(self) -> tuple[Condition, ...]:
        """The treatments, by temperature."""
        return self.of_role("distilled")

    def column(self, name: str) -> Sequence[Any]:
        """A column of the table `trials`, by row."""
        return column(self.trials, name)

    def values(self, name: str) -> FloatArray:
        """A numeric column of the table `trials`, (T,); NaN where it is null."""
        return np.array([np.nan if value is None else value for value in self.column(name)], dtype=np.float64)

    def baseline(self, contrast: str, treatment: Condition) -> Condition | None:
        """The condition that a contrast compares a distilled condition with; None where the sweep has none.

        Against teachers it is the condition that holds every teacher of the treatment; against scratch the one with the same data, model
        and settings: an axis of the students' training concerns both, so the one that has most of the settings has them all.
        """
        if contrast == TEACHER:
            taught = {teacher for run in treatment.teachers for teacher in run}
            # A control such as `scratch_long` has no teacher.
            return next((it for it in self.of_role("teacher") if taught and taught <= self.trial_ids(it)), None)
        fitting = [
            it
            for it in self.of_role("scratch")
            if all(it.axes[name] == treatment.axes[name] for name in ("dataset_id", "model"))
            and dict(it.settings).items() <= dict(treatment.settings).items()
        ]
        return max(fitting, key=lambda it: len(it.settings), default=None)

    def trial_ids(self, condition: Condition) -> set[str]:
        """trial_ids of a condition."""
        trial_ids = self.column("trial_id")
        return {trial_ids[row] for row in condition.trials}

    def scope(self, condition: Condition) -> Scope | None:
        """What may be said of the teachers of a distilled condition; None for others.

        Students of one teacher are no sample of teachers, and two teachers tell hardly more. From three on, their spread is a part of the
        interval, and sentences speak of teachers of this kind.
        """
        if condition.role != "distilled":
            return None
        count = len({teacher for run in condition.teachers for teacher in run})
        return "teachers" if count >= 3 else "these teachers" if count == 2 else "this teacher"

    def correct(self, condition: Condition) -> FloatArray:
        """Whether each run is right about each test sample, (R, N) in [0, 1]; a run over several teachers is their mean."""
        labels_N = self.test_sets[condition.axes["dataset_id"]].labels_N
        return np.stack([np.mean([self.predictions[row] == labels_N for row in run], axis=0) for run in condition.runs])

    def pairs(self, condition: Condition) -> list[tuple[int, int]]:
        """Rows (teacher, student) that are to be compared.

        A distilled student is compared with its teacher. A scratch student has none: it is compared with those of the distilled students
        of its seed whose baseline it is, which shows how often students contradict a teacher that they never saw.
        """
        if condition.role == "distilled":
            found = [(self.index.get(self.trials[row]["teacher_trial_id"]), row) for row in condition.trials]
            return [(teacher, int(row)) for teacher, row in found if teacher is not None]
        pairs: dict[tuple[int, int], None] = {}
        if condition.role == "scratch":
            for treatment in self.distilled:
                if self.baseline(SCRATCH, treatment) is condition:
                    pairs |= dict.fromkeys(self._twins(condition, treatment))
        return list(pairs)

    def _twins(self, scratch: Condition, treatment: Condition) -> list[tuple[int, int]]:
        teachers_of = dict(zip(treatment.seeds, treatment.teachers, strict=True))
        return [
            (self.index[teacher], int(row))
            for seed, run in zip(scratch.seeds, scratch.runs, strict=True)
            for teacher in teachers_of.get(seed, ())
            if teacher in self.index
            for row in run
        ]

    @cached_property
    def disagreement_T(self) -> FloatArray:
        """Share of the test samples on which a student and its teacher (mean over its teachers) differ, (T,); NaN without a teacher."""
        shares: dict[int, list[float]] = {}
        for condition in self.conditions:
            for teacher, student in self.pairs(condition):
                differ_N = self.predictions[teacher] != self.predictions[student]
                shares.setdefault(student, []).append(float(differ_N.mean()))
        return np.array([np.mean(shares[row]) if row in shares else np.nan for row in range(len(self.trials))])

    @cached_property
    def collapsed(self) -> Mapping[int, str]:
        """Rows of the trials whose predictions say next to nothing about the labels, with what is wrong in words."""
        whys = collapses(self.source.prediction_counts())
        return {row: why for row, why in enumerate(whys) if why}

    def predictions_of(self, rows: Sequence[int]) -> Mapping[int, IntArray]:
        """Predictions of some trials, without holding those of all."""
        if "predictions" in self.__dict__:
            return {row: self.predictions[row] for row in rows}
        return self.source.predictions(rows)


def spread(values_R: FloatArray) -> Spread:
    """Mean and standard deviation of the defined values."""
    defined = values_R[~np.isnan(values_R)]
    n = len(defined)
    return Spread(mean=float(defined.mean()) if n else np.nan, sd=float(defined.std(ddof=1)) if n > 1 else np.nan, n=n)
