"""Conditions of a sweep: how its trials are grouped, ordered and named."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from kd_ray.analysis.trial_rows import column
from kd_ray.metrics.arrays import FloatArray, IntArray
from kd_ray.shown import shown_number
from kd_ray.sweep.distillation import shown_objective
from kd_ray.sweep.spec import LOGITS

ROLES = ("teacher", "scratch", "distilled")
AXES = ("dataset", "dataset_id", "target", "model", "teacher", "objective", "alpha", "t_squared")
"""Columns of a trial's key, besides role and temperature, that tell conditions apart."""
_NAMED = ("model", "teacher", "objective", "alpha", "t_squared")
"""Those that a label may name; an identity says nothing to people."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Condition:
    """Trials that differ in nothing but seeds."""

    role: str
    axes: Mapping[str, Any]
    """Values of the columns `AXES`."""
    settings: tuple[tuple[str, str], ...]
    """Values of the other grid axes."""
    temperature: float | None
    label: str
    """What tells it from the other conditions of the sweep, in few words."""
    seeds: tuple[int | None, ...]
    """Seed of each run; None for pretrained weights."""
    runs: tuple[IntArray, ...]
    """Rows of the trials that make up each run."""
    teachers: tuple[tuple[str, ...], ...]
    """What `taught_by` names for each run; empty for others than distilled students."""
    has_paired_teachers: bool
    """Whether each seed learns from the teacher of the same seed."""
    devices: frozenset[str]

    @property
    def n(self) -> int:
        """Number of runs."""
        return len(self.runs)

    @property
    def trials(self) -> IntArray:
        """Rows of all its trials."""
        return np.concatenate(self.runs)

    @property
    def is_distilled(self) -> bool:
        """Whether a teacher takes part in its training."""
        return self.role == "distilled"

    @property
    def has_given_logits(self) -> bool:
        """Whether nothing is known of its teacher but a file of logits of the training samples."""
        return str(self.axes["teacher"]).startswith(LOGITS)

    def over_runs(self, values_T: FloatArray) -> FloatArray:
        """Values of all trials, (T, …), as values of the runs of this condition, (R, …)."""
        if all(len(run) == 1 for run in self.runs):
            # The mean of one value is that value; a thousand calls of `mean` take a hundred times longer.
            return values_T[self.trials]
        return np.stack([values_T[run].mean(axis=0) for run in self.runs])

    def only(self, kept: Sequence[int]) -> "Condition":
        """The same condition with some of its runs."""
        return replace(
            self,
            seeds=tuple(self.seeds[r] for r in kept),
            runs=tuple(self.runs[r] for r in kept),
            teachers=tuple(self.teachers[r] for r in kept),
        )

    def merged(
        self, seeds: Sequence[int | None], runs: Sequence[IntArray], teachers: Sequence[tuple[str, ...]]
    ) -> "Condition":
        """This condition with the trials of others among its runs."""
        return replace(self, seeds=tuple(seeds), runs=tuple(runs), teachers=tuple(teachers))

    def regrouped(self, runs: Sequence[IntArray]) -> "Condition":
        """The same trials grouped otherwise, such as by teacher; its seeds and teachers are not those of the groups."""
        return replace(self, seeds=(None,) * len(runs), runs=tuple(runs), teachers=((),) * len(runs))


@dataclass(frozen=True, kw_only=True, eq=False)
class Series:
    """Distilled conditions that differ in temperature only, by temperature."""

    label: str
    varying: tuple[str, ...]
    """Short names of the axes and settings that tell the lines apart, as labels have them."""
    conditions: tuple[Condition, ...]


def make_conditions(trials: Sequence[Mapping[str, Any]]) -> tuple[Condition, ...]:
    """Group the rows of the table `trials`: teachers, then scratch, then distilled by temperature."""
    members: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    roles, settings, temperatures = (column(trials, name) for name in ("role", "settings", "temperature"))
    axes = zip(*(column(trials, name) for name in AXES), strict=True)
    for row, key in enumerate(zip(roles, axes, map(_sorted_settings, settings), temperatures, strict=True)):
        members[key].append(row)
    bare = [_condition(trials, key, rows) for key, rows in members.items()]
    bare.sort(key=lambda c: (ROLES.index(c.role), str(sorted(c.axes.items(), key=str)), c.settings, c.temperature or 0))
    varying = {role: _varying([c for c in bare if c.role == role]) for role in ROLES}
    return tuple(replace(it, label=_label(it, varying[it.role])) for it in bare)


def make_series(conditions: Sequence[Condition]) -> tuple[Series, ...]:
    """The distilled conditions with a temperature, as lines over it; labelled by what tells the lines apart."""
    lines: dict[tuple[Any, ...], list[Condition]] = defaultdict(list)
    for condition in conditions:
        if condition.is_distilled and condition.temperature is not None:
            lines[(*condition.axes.values(), condition.settings)].append(condition)
    varying = _varying([line[0] for line in lines.values()])
    return tuple(
        Series(
            label=_words(line[0], varying) or "distilled",
            varying=tuple(map(_short, varying)),
            conditions=tuple(sorted(line, key=lambda condition: condition.temperature or 0)),
        )
        for line in lines.values()
    )


def taught_by(trial: Mapping[str, Any]) -> str | None:
    """trial_id of a trial's teacher; the name of the teacher where only a file of its logits is known; None without a teacher."""
    known: str | None = trial["teacher_trial_id"] or trial["teacher"]
    return known


def _sorted_settings(settings: Sequence[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(settings))


def _condition(trials: Sequence[Mapping[str, Any]], key: tuple[Any, ...], rows: Sequence[int]) -> Condition:
    role, axes, settings, temperature = key
    trial_ids, seeds, teacher_seeds, devices = (
        column(trials, name) for name in ("trial_id", "seed", "teacher_seed", "device")
    )
    teacher_ids, teachers = (column(trials, name) for name in ("teacher_trial_id", "teacher"))
    of_seed: dict[Any, list[int]] = defaultdict(list)
    for row in rows:
        # Pretrained weights have no seed; each of them counts as one run.
        of_seed[trial_ids[row] if seeds[row] is None else seeds[row]].append(row)
    runs = [of_seed[seed] for seed in sorted(of_seed, key=lambda it: (isinstance(it, str), it))]
    return Condition(
        role=role,
        axes=dict(zip(AXES, axes, strict=True)),
        settings=settings,
        temperature=temperature,
        label="",
        seeds=tuple(seeds[run[0]] for run in runs),
        runs=tuple(np.array(run) for run in runs),
        # As `taught_by` says.
        teachers=tuple(tuple(filter(None, (teacher_ids[row] or teachers[row] for row in run))) for run in runs),
        has_paired_teachers=all(seeds[row] is not None and teacher_seeds[row] == seeds[row] for row in rows),
        devices=frozenset(str(devices[row]) for row in rows),
    )


def _label(condition: Condition, varying: Sequence[str]) -> str:
    temperature = [] if condition.temperature is None else [f"T={shown_number(condition.temperature)}"]
    role = [] if condition.is_distilled and (temperature or varying) else [condition.role]
    return ", ".join([*role, *temperature, *filter(None, [_words(condition, varying)])])


def _varying(conditions: Sequence[Condition]) -> list[str]:
    """Axes and settings that do not have one value for all."""
    axes = [name for name in _NAMED if len({condition.axes[name] for condition in conditions}) > 1]
    names = dict.fromkeys(name for condition in conditions for name, _ in condition.settings)
    settings = [name for name in names if len({dict(condition.settings).get(name) for condition in conditions}) > 1]
    # An axis of the grid that has a column of its own is named once.
    return axes + [name for name in settings if name.rsplit(".", 1)[-1] not in axes]


def _words(condition: Condition, varying: Sequence[str]) -> str:
    values = {**condition.axes, **dict(condition.settings), "objective": shown_objective(condition.axes["objective"])}
    return ", ".join(f"{_short(name)}={_value(values.get(name))}" for name in varying)


def _short(name: str) -> str:
    return {"t_squared": "T²", "alpha": "alpha"}.get(name, name.rsplit(".", 1)[-1])


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return shown_number(value) if isinstance(value, float) else str(value)
