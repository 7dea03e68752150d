"""The runs of a sweep, by condition: what every analysis looks at.

A condition is everything in a trial's key but seeds. Its runs are student seeds: where a seed learned from several teachers, its run is the
mean over them, because students of one seed share initialisation and data order and are not independent. Teachers are runs of their own.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from kd_ray.errors import CorruptObjectError, InvalidInputError
from kd_ray.groups import Groups, intersect
from kd_ray.metrics.arrays import FloatArray, IntArray
from kd_ray.results.manifest import read_manifest
from kd_ray.results.query import Results
from kd_ray.results.summary import condition_label

SCRATCH, TEACHER = "scratch_vs_distilled", "teacher_vs_distilled"
"""The contrasts, as baseline_vs_treatment."""

_KEY = ("role", "dataset", "dataset_id", "target", "model", "objective", "temperature", "alpha", "t_squared")
_TRIALS = (*_KEY, "trial_id", "teacher", "teacher_trial_id", "teacher_seed", "seed", "settings", "device")
SCALARS = ("accuracy", "worst_class_accuracy", "individual_fairness")
"""Metrics of a whole trial that are compared, as the table `trials` has them."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Condition:
    """Trials that differ in nothing but seeds."""

    role: str
    label: str
    key: Mapping[str, Any]
    """Values of the key's columns, and `teacher`."""
    settings: Mapping[str, str]
    seeds: tuple[int | None, ...]
    """Seed of each run; None for given weights."""
    runs: tuple[tuple[int, ...], ...]
    """Rows of `SweepRuns.trials` that make up each run."""
    teachers: tuple[tuple[str, ...], ...]
    """trial_ids of the teachers of each run; empty for others than distilled students."""
    devices: frozenset[str]
    has_paired_teachers: bool = False
    """Whether each seed learns from the teacher of the same seed."""

    @property
    def n(self) -> int:
        """Number of runs."""
        return len(self.runs)

    @property
    def shares_a_teacher(self) -> bool:
        """Whether any teacher taught more than one run."""
        every = [teacher for run in self.teachers for teacher in run]
        return len(set(every)) < len(every)

    def over_runs(self, values_TM: FloatArray) -> FloatArray:
        """Values of all trials → values of the runs of this condition, (R, M)."""
        if all(len(run) == 1 for run in self.runs):
            return values_TM[[run[0] for run in self.runs]]
        return np.stack([values_TM[list(run)].mean(axis=0) for run in self.runs])


@dataclass(frozen=True, kw_only=True, eq=False)
class TestSet:
    """The test samples of one data set."""

    __test__ = False
    labels_N: IntArray
    features: Mapping[str, Groups]
    """Sensitive features and their intersections, as the sweep compares them."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SweepRuns:
    """Everything the analyses need of one sweep, T trials as arrays."""

    sweep: str
    trials: Sequence[Mapping[str, Any]]
    conditions: tuple[Condition, ...]
    scalars_TM: FloatArray
    """`SCALARS` of each trial."""
    class_accuracy: Mapping[str, FloatArray]
    """By dataset_id: class accuracy of all trials, (T, C); NaN for trials of other data sets."""
    class_names: Mapping[str, tuple[str, ...]]
    fairness: pa.Table
    """The macro rows of `fairness_metrics`."""
    results: Results

    @property
    def distilled(self) -> list[Condition]:
        """The treatments, by temperature."""
        return [condition for condition in self.conditions if condition.role == "distilled"]

    @cached_property
    def index(self) -> Mapping[str, int]:
        """Row of a trial by its trial_id."""
        return {trial["trial_id"]: row for row, trial in enumerate(self.trials)}

    @cached_property
    def predictions(self) -> Mapping[str, npt.NDArray[np.int32]]:
        """Predicted classes by trial_id."""
        table = self.results.query(f"SELECT trial_id, predictions FROM predictions WHERE sweep = '{self.sweep}'")
        lists = table["predictions"].combine_chunks()
        values, ends = lists.values.to_numpy(), lists.offsets.to_numpy()
        return {trial_id: values[ends[i] : ends[i + 1]] for i, trial_id in enumerate(table["trial_id"].to_pylist())}

    @cached_property
    def test_sets(self) -> Mapping[str, TestSet]:
        """Test samples by dataset_id."""
        settings = read_manifest(self.results.store, self.sweep).row_settings
        return {
            dataset_id: _test_set(
                self.results, self.sweep, dataset_id, settings.sensitive_features, settings.intersections
            )
            for dataset_id in self.class_names
        }

    def correct(self, condition: Condition) -> FloatArray:
        """Share of the runs of a condition that are right about each test sample, (N,)."""
        labels_N = self.test_sets[condition.key["dataset_id"]].labels_N
        share_N = np.zeros(len(labels_N))
        for run in condition.runs:
            for row in run:
                share_N += (self.predictions[self.trials[row]["trial_id"]] == labels_N) / len(run)
        return share_N / condition.n

    def baseline(self, contrast: str, treatment: Condition) -> Condition | None:
        """The condition that a contrast compares a distilled condition with; None when the sweep has none."""
        of_role = [it for it in self.conditions if it.role == contrast.removesuffix("_vs_distilled")]
        if contrast == TEACHER:
            taught = {teacher for run in treatment.teachers for teacher in run}
            return next((it for it in of_role if taught <= _trial_ids(self, it)), None)
        same = ("dataset_id", "model")
        fitting = [
            it
            for it in of_role
            if all(it.key[name] == treatment.key[name] for name in same)
            and it.settings.items() <= treatment.settings.items()
        ]
        # An axis of students' training concerns both; the scratch student that has most of the settings is the one that has them all.
        return max(fitting, key=lambda it: len(it.settings), default=None)


def load_runs(results: Results, sweep: str) -> SweepRuns:
    """Read what the tables hold of a sweep.

    Raises:
        InvalidInputError: there is no such sweep, or it has no complete trial.
        CorruptObjectError: the tables do not fit together.
    """
    read_manifest(results.store, sweep)
    where = f"WHERE sweep = '{sweep}'"
    table = results.query(f"SELECT {', '.join(dict.fromkeys((*_TRIALS, *SCALARS)))} FROM trials {where}")
    if table.num_rows == 0:
        raise InvalidInputError(f"sweep {sweep}: no complete trials yet; `kd-ray status {sweep}` says how far it is")
    trials = table.to_pylist()
    scalars_TM = np.column_stack([table[name].to_numpy().astype(np.float64) for name in SCALARS])
    index = {trial["trial_id"]: row for row, trial in enumerate(trials)}
    class_accuracy, class_names = _class_accuracy(results, where, trials, index)
    fairness = results.query(
        "SELECT trial_id, feature, worst_group_accuracy, demographic_parity_difference, equalized_odds_difference, "
        f"label_demographic_parity_difference FROM fairness_metrics {where} AND positive_class = 'macro'"
    )
    return SweepRuns(
        sweep=sweep,
        trials=trials,
        conditions=_conditions(trials),
        scalars_TM=scalars_TM,
        class_accuracy=class_accuracy,
        class_names=class_names,
        fairness=fairness,
        results=results,
    )


def _class_accuracy(
    results: Results, where: str, trials: Sequence[Mapping[str, Any]], index: Mapping[str, int]
) -> tuple[dict[str, FloatArray], dict[str, tuple[str, ...]]]:
    table = results.query(f"SELECT trial_id, class_index, accuracy FROM class_metrics {where}")
    row_K = np.array([index.get(trial_id, -1) for trial_id in table["trial_id"].to_pylist()])
    class_K, value_K = table["class_index"].to_numpy(), table["accuracy"].to_numpy().astype(np.float64)
    of_dataset = defaultdict(list)
    for row, trial in enumerate(trials):
        of_dataset[trial["dataset_id"]].append(row)
    accuracy, names = {}, {}
    for dataset_id, rows in of_dataset.items():
        mine_K = np.isin(row_K, rows)
        found = results.query(
            f"SELECT DISTINCT class_index, class_name FROM class_metrics {where} "
            f"AND trial_id = '{trials[rows[0]]['trial_id']}' ORDER BY 1"
        )
        names[dataset_id] = tuple(found["class_name"].to_pylist())
        values_TC = np.full((len(trials), len(names[dataset_id])), np.nan)
        values_TC[row_K[mine_K], class_K[mine_K]] = value_K[mine_K]
        accuracy[dataset_id] = values_TC
    return accuracy, names


def _conditions(trials: Sequence[Mapping[str, Any]]) -> tuple[Condition, ...]:
    varying = [name for name in _KEY[4:] if len({trial[name] for trial in trials if trial["role"] == "distilled"}) > 1]
    members: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for row, trial in enumerate(trials):
        members[*(trial[name] for name in _KEY), trial["teacher"], tuple(trial["settings"])].append(row)
    order = ("teacher", "scratch", "distilled")
    found = []
    for key in sorted(members, key=lambda key: (order.index(key[0]), str(key[1:6]), key[6] or 0.0, str(key))):
        rows, columns = members[key], dict(zip((*_KEY, "teacher"), key[:-1], strict=True))
        words = condition_label(columns, key[-1], varying)
        of_seed: dict[Any, list[int]] = defaultdict(list)
        for row in rows:
            # Given weights have no seed; each is a run of its own.
            of_seed[trials[row]["seed"] if trials[row]["seed"] is not None else trials[row]["trial_id"]].append(row)
        runs = tuple(tuple(of_seed[seed]) for seed in sorted(of_seed, key=str))
        found.append(
            Condition(
                role=key[0],
                label=(words or key[5]) if key[0] == "distilled" else " ".join([key[0], words]).strip(),
                key=columns,
                settings=dict(key[-1]),
                seeds=tuple(trials[run[0]]["seed"] for run in runs),
                runs=runs,
                teachers=tuple(
                    tuple(trials[row]["teacher_trial_id"] for row in run if trials[row]["teacher_trial_id"])
                    for run in runs
                ),
                devices=frozenset(str(trials[row]["device"]) for row in rows),
                has_paired_teachers=all(
                    trials[row]["seed"] is not None and trials[row]["teacher_seed"] == trials[row]["seed"]
                    for row in rows
                ),
            )
        )
    return tuple(found)


def _test_set(
    results: Results, sweep: str, dataset_id: str, features: Sequence[str], intersections: Sequence[Sequence[str]]
) -> TestSet:
    table = results.query(
        "SELECT sample_index, label, sensitive_features FROM samples "
        f"WHERE sweep = '{sweep}' AND dataset_id = '{dataset_id}' ORDER BY sample_index"
    )
    if table.num_rows == 0:
        raise CorruptObjectError(
            f"sweep {sweep}: the table `samples` lacks data set {dataset_id}; `kd-ray verify --repair` rebuilds it"
        )
    groups: dict[str, Groups] = {}
    lists = table["sensitive_features"].to_pylist(maps_as_pydicts="strict") if features else []
    for feature in features:
        of_samples = [row[feature] for row in lists]
        names = sorted({name for row in of_samples for name in row})
        groups[feature] = Groups.from_lists(of_samples, names)
    for joint in intersections:
        groups[" & ".join(joint)] = intersect([groups[feature] for feature in joint])
    return TestSet(labels_N=table["label"].to_numpy(), features=groups)


def _trial_ids(runs: SweepRuns, condition: Condition) -> set[str]:
    return {runs.trials[row]["trial_id"] for run in condition.runs for row in run}
