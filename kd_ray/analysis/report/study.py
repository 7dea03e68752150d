"""What a report is made from: the tables of one sweep, arranged by condition."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from kd_ray.results.manifest import read_manifest
from kd_ray.results.query import Results
from kd_ray.results.status import count_states, sweep_status
from kd_ray.sweep.distillation import shown_objective

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_ROLES = ("teacher", "scratch", "distilled")
_AXES = ("model", "teacher", "objective", "alpha", "t_squared", "dataset_id")
_TRIAL = (
    "trial_id, role, dataset, target, model, teacher, teacher_seed, objective, temperature, alpha, t_squared, seed, "
    "settings, teacher_trial_id, dataset_id, num_parameters, epochs, num_test, accuracy, expected_calibration_error, "
    "worst_class_accuracy, individual_fairness, individual_fairness_hard, elapsed_s, device, threads, host, "
    "started_at, finished_at"
)
FAIRNESS = (
    "equalized_odds_difference",
    "demographic_parity_difference",
    "label_demographic_parity_difference",
    "worst_group_accuracy",
)


VECTORS = ("held_out_n", "teacher_held_out_accuracy", "teacher_held_out_margin", "class_alpha", "class_margin")


@dataclass(frozen=True, kw_only=True, eq=False)
class Condition:
    """Trials that differ in their seeds only."""

    role: str
    axes: Mapping[str, Any]
    """model, teacher, objective, alpha, t_squared, dataset_id."""
    settings: tuple[tuple[str, str], ...]
    """Values of the other grid axes."""
    temperature: float | None
    label: str
    """What tells it from the other conditions of the sweep, in few words."""
    trials: IntArray
    """Places of its trials in the arrays of the study."""
    runs: tuple[IntArray, ...]
    """The same by seed. A seed that learned from several teachers is one run, the mean over them: its trials share their initialisation and
    data order and are not independent."""

    @property
    def n(self) -> int:
        """Runs."""
        return len(self.runs)

    def over_runs(self, values_R: FloatArray) -> FloatArray:
        """Values of all trials → one for each run."""
        return np.array([values_R[run].mean() for run in self.runs])

    @property
    def is_distilled(self) -> bool:
        """Whether a teacher takes part in its training."""
        return self.role == "distilled"


@dataclass(frozen=True, kw_only=True, eq=False)
class Series:
    """Distilled conditions that differ in temperature only, by temperature."""

    label: str
    conditions: tuple[Condition, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Fairness:
    """Fairness of every trial for one sensitive feature, one-vs-rest mean over classes; NaN where it is undefined."""

    feature: str
    metrics: Mapping[str, FloatArray]
    """By the names in `FAIRNESS`, one value per trial."""
    num_groups: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Study:
    """One sweep. Arrays are by trial (suffix `_R`, runs) and class (`_C`)."""

    sweep: str
    dataset: str
    target: str
    trials: Sequence[Mapping[str, Any]]
    """Rows of `trials`."""
    states: Mapping[str, int]
    """Trials that the sweep asks for, by state."""
    conditions: tuple[Condition, ...]
    """Teachers, then scratch, then distilled by temperature."""
    class_names: tuple[str, ...]
    class_n_C: IntArray
    """Test samples."""
    class_accuracy_RC: FloatArray
    """NaN for a class without test samples."""
    fairness: tuple[Fairness, ...]
    """Single features first, then intersections."""
    epochs: Mapping[str, tuple[IntArray, FloatArray, FloatArray]]
    """(epoch, mean training loss, training accuracy) by trial_id."""
    class_vectors: Mapping[str, FloatArray] = field(default_factory=dict)
    """What objectives held of each class, (R, C) by the names in `VECTORS`; NaN where they did not, empty where none did."""
    predictions: Callable[[Sequence[int]], dict[int, IntArray]]
    """Reads the predicted classes of some trials, given and returned by place: they are large, and few are needed."""

    @property
    def num_missing(self) -> int:
        """Trials asked for that are not complete."""
        return sum(self.states.values()) - self.states["complete"]

    def of_role(self, role: str) -> tuple[Condition, ...]:
        """The conditions of a role."""
        return tuple(condition for condition in self.conditions if condition.role == role)

    def values(self, column: str) -> FloatArray:
        """A numeric column of `trials`, NaN where it is null."""
        return np.array([np.nan if row[column] is None else row[column] for row in self.trials], dtype=np.float64)


def read_study(results: Results, sweep: str) -> Study:
    """Read what a report needs of a sweep.

    Raises:
        InvalidInputError: the store has no such sweep; the message names those it has.
    """
    read_manifest(results.store, sweep)
    where = f"FROM {{table}} WHERE sweep = '{sweep}'"

    def ask(columns: str, table: str, more: str = "") -> Any:
        return results.query(f"SELECT {columns} {where.format(table=table)} {more}")

    trials = ask(_TRIAL, "trials").to_pylist()
    place = {row["trial_id"]: i for i, row in enumerate(trials)}
    names, class_n_C, accuracy_RC = _classes(
        ask("trial_id, class_index, class_name, n, accuracy", "class_metrics"), place
    )

    def predictions(places: Sequence[int]) -> dict[int, IntArray]:
        wanted = ", ".join(f"'{trials[i]['trial_id']}'" for i in places)
        found = ask("trial_id, predictions", "predictions", f"AND trial_id IN ({wanted})") if wanted else None
        if found is None:
            return {}
        lists = found.column("predictions").combine_chunks()
        ids = found.column("trial_id").to_pylist()
        return {place[ids[i]]: np.asarray(lists[i].values, dtype=np.int64) for i in range(len(ids))}

    return Study(
        sweep=sweep,
        dataset=_only(trials, "dataset"),
        target=_only(trials, "target"),
        trials=trials,
        states=count_states(sweep_status(results.store, sweep).trials),
        conditions=_conditions(trials),
        class_names=names,
        class_n_C=class_n_C,
        class_accuracy_RC=accuracy_RC,
        fairness=_fairness(
            ask(
                f"trial_id, feature, num_groups, {', '.join(FAIRNESS)}",
                "fairness_metrics",
                "AND positive_class = 'macro'",
            ),
            place,
        ),
        epochs=_epochs(ask("trial_id, epoch, loss, train_accuracy", "epochs", "ORDER BY trial_id, epoch")),
        class_vectors=_class_vectors(
            ask(f"trial_id, class_index, {', '.join(VECTORS)}", "class_metrics", "AND held_out_n IS NOT NULL"),
            place,
            len(names),
        ),
        predictions=predictions,
    )


def series(study: Study) -> tuple[Series, ...]:
    """The distilled conditions with a temperature, as lines over it; labelled by what tells the lines apart."""
    lines: dict[tuple[Any, ...], list[Condition]] = defaultdict(list)
    for condition in study.of_role("distilled"):
        if condition.temperature is not None:
            lines[(*condition.axes.values(), condition.settings)].append(condition)
    varying = _varying([conditions[0] for conditions in lines.values()])
    return tuple(
        Series(
            label=_words(conditions[0], varying) or "distilled",
            conditions=tuple(sorted(conditions, key=lambda condition: condition.temperature or 0)),
        )
        for conditions in lines.values()
    )


def matching(study: Study, role: str, student: Condition) -> list[Condition]:
    """The teachers, or the scratch students, that a distilled condition is to be seen beside."""
    model = student.axes["teacher" if role == "teacher" else "model"]
    return [
        condition
        for condition in study.of_role(role)
        if condition.axes["model"] == model
        and condition.axes["dataset_id"] == student.axes["dataset_id"]
        and set(condition.settings) <= set(student.settings)
    ]


def number(value: float) -> str:
    """A temperature or another setting, as short as it goes."""
    return f"{value:g}"


def _only(trials: Sequence[Mapping[str, Any]], column: str) -> str:
    return ", ".join(dict.fromkeys(str(row[column]) for row in trials))


def _classes(rows: Any, place: Mapping[str, int]) -> tuple[tuple[str, ...], IntArray, FloatArray]:
    if not rows.num_rows:
        return (), np.zeros(0, dtype=np.int64), np.zeros((len(place), 0))
    index = rows.column("class_index").to_numpy()
    size = int(index.max()) + 1
    ids = rows.column("trial_id").combine_chunks().dictionary_encode()
    run = np.array([place[id_] for id_ in ids.dictionary.to_pylist()])[ids.indices.to_numpy()]
    accuracy_RC = np.full((len(place), size), np.nan)
    accuracy_RC[run, index] = rows.column("accuracy").to_numpy()
    n_C = np.zeros(size, dtype=np.int64)
    n_C[index] = rows.column("n").to_numpy()
    names = [""] * size
    first = run == run[0]
    for i, name in zip(index[first], rows.column("class_name").filter(first).to_pylist(), strict=True):
        names[i] = name
    return tuple(names), n_C, accuracy_RC


def _class_vectors(rows: Any, place: Mapping[str, int], num_classes: int) -> dict[str, FloatArray]:
    if not rows.num_rows:
        return {}
    run = np.array([place[id_] for id_ in rows.column("trial_id").to_pylist()])
    index = rows.column("class_index").to_numpy()
    found = {}
    for name in VECTORS:
        found[name] = np.full((len(place), num_classes), np.nan)
        found[name][run, index] = rows.column(name).to_numpy()
    return found


def _fairness(rows: Any, place: Mapping[str, int]) -> tuple[Fairness, ...]:
    by_feature: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows.to_pylist():
        by_feature[row["feature"]].append(row)
    found = []
    for feature in sorted(by_feature, key=lambda name: " & " in name):
        metrics = {name: np.full(len(place), np.nan) for name in FAIRNESS}
        for row in by_feature[feature]:
            for name in FAIRNESS:
                metrics[name][place[row["trial_id"]]] = np.nan if row[name] is None else row[name]
        groups = max(row["num_groups"] for row in by_feature[feature])
        found.append(Fairness(feature=feature, metrics=metrics, num_groups=groups))
    return tuple(found)


def _epochs(rows: Any) -> dict[str, tuple[IntArray, FloatArray, FloatArray]]:
    ids = np.array(rows.column("trial_id").to_pylist(), dtype=object)
    if not len(ids):
        return {}
    columns = [rows.column(name).to_numpy() for name in ("epoch", "loss", "train_accuracy")]
    starts = [0, *(np.flatnonzero(ids[1:] != ids[:-1]) + 1), len(ids)]
    pairs = pairwise(starts)
    return {ids[a]: (columns[0][a:b], columns[1][a:b], columns[2][a:b]) for a, b in pairs}


def _conditions(trials: Sequence[Mapping[str, Any]]) -> tuple[Condition, ...]:
    places: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for i, row in enumerate(trials):
        axes = tuple(row[name] for name in _AXES)
        places[(row["role"], axes, tuple(sorted(row["settings"])), row["temperature"])].append(i)
    bare = [
        Condition(
            role=role,
            axes=dict(zip(_AXES, axes, strict=True)),
            settings=settings,
            temperature=temperature,
            label="",
            trials=np.array(found),
            runs=_runs(trials, found),
        )
        for (role, axes, settings, temperature), found in places.items()
    ]
    order = sorted(
        bare, key=lambda c: (_ROLES.index(c.role), str(sorted(c.axes.items(), key=str)), c.settings, c.temperature or 0)
    )
    varying = {role: _varying([c for c in bare if c.role == role]) for role in _ROLES}
    return tuple(_labelled(condition, varying[condition.role]) for condition in order)


def _runs(trials: Sequence[Mapping[str, Any]], places: Sequence[int]) -> tuple[IntArray, ...]:
    by_seed: dict[Any, list[int]] = defaultdict(list)
    for i in places:
        by_seed[trials[i]["seed"]].append(i)
    return tuple(np.array(found) for found in by_seed.values())


def _labelled(condition: Condition, varying: Sequence[str]) -> Condition:
    temperature = [] if condition.temperature is None else [f"T={number(condition.temperature)}"]
    role = [] if condition.is_distilled and (temperature or varying) else [condition.role]
    label = ", ".join([*role, *temperature, *filter(None, [_words(condition, varying)])])
    return Condition(**{**vars(condition), "label": label})


def _varying(conditions: Sequence[Condition]) -> list[str]:
    """Axes and settings that do not have one value for all."""
    axes = [name for name in _AXES if len({condition.axes[name] for condition in conditions}) > 1]
    names = dict.fromkeys(name for condition in conditions for name, _ in condition.settings)
    settings = [name for name in names if len({dict(condition.settings).get(name) for condition in conditions}) > 1]
    # An axis of the grid that has a column of its own is told once, and an identity says nothing to people.
    return [name for name in axes if name != "dataset_id"] + [
        name for name in settings if name.rsplit(".", 1)[-1] not in axes
    ]


def _words(condition: Condition, varying: Sequence[str]) -> str:
    values = {**condition.axes, **dict(condition.settings), "objective": shown_objective(condition.axes["objective"])}
    return ", ".join(f"{_short(name)}={_value(values.get(name))}" for name in varying)


def _short(name: str) -> str:
    return {"t_squared": "T²", "alpha": "alpha"}.get(name, name.rsplit(".", 1)[-1])


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return number(value) if isinstance(value, float) else str(value)
