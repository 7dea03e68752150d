"""From the `tune` section of a sweep to candidates, and from a candidate to its trials.

The trials of a candidate are those of a small sweep: the file with the candidate's settings in place, evaluated on the validation split,
with the seeds and the conditions that the search asks for. Candidates that differ only in what a trial does not use share this trial.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kd_ray.errors import InvalidInputError, SweepError
from kd_ray.metrics.catalogue import METRICS
from kd_ray.sweep.axes import axis_path, with_axes
from kd_ray.sweep.load import SweepFile
from kd_ray.sweep.networks import TrainedTeacher
from kd_ray.sweep.plan import PlannedTrial, WeightsDigest, expand
from kd_ray.sweep.spec import Role
from kd_ray.sweep.tuning_settings import SUFFIX, Dimension, Integers, LogUniform, Tuning, Uniform

_ROOTS = ("teacher", "student", "training", "distillation")
_TRIAL_METRICS = ("accuracy", "balanced_accuracy", "worst_class_accuracy", "loss", "expected_calibration_error")
_ROLES = {
    "teacher": (Role.TEACHER,),
    "scratch": (Role.SCRATCH,),
    "distilled": (Role.DISTILLED,),
    "all": (Role.SCRATCH, Role.DISTILLED),
}


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One setting of everything in the search space, with its trials."""

    number: int
    """From 1, in the order of the searcher."""
    settings: Mapping[str, Any]
    trials: tuple[PlannedTrial, ...] = ()
    """Those whose metric counts."""
    teachers: tuple[PlannedTrial, ...] = ()
    """The teachers that they learn from."""
    epochs: int = 0
    """Epochs of `training` (of `teacher.training` where teachers are tuned)."""
    problem: str | None = None
    """Why it cannot be trained, where its settings do not fit together."""

    def until(self, trial: PlannedTrial, epoch: int) -> int:
        """The epoch of a trial that stands for this epoch of the candidate: objectives may train several times as long."""
        return -(-epoch * trial.spec.epochs // self.epochs)


def tuning_of(file: SweepFile) -> Tuning:
    """The `tune` section.

    Raises:
        InvalidInputError: there is none, or its parts do not fit the sweep.
    """
    sweep, tuning = file.sweep, file.sweep.tune
    if tuning is None:
        raise InvalidInputError(f"{file.source}: tune: there is no such section; docs/tuning.md shows one")
    problems = []
    axes = {axis_path(axis): axis for axis in file.axes}
    for path in tuning.space:
        setting = axis_path(path)
        if setting.split(".")[0] not in _ROOTS or "." not in setting:
            problems.append(f"tune.space.{path}: only settings below {', '.join(_ROOTS)} can be tuned")
        elif setting in axes:
            problems.append(f"tune.space.{path}: the grid's axis {axes[setting]} sets it; remove one of them")
    for axis in tuning.grid:
        if axis not in file.axes or axis == "seed":
            names = ", ".join(name for name in file.axes if name != "seed")
            problems.append(f"tune.grid.{axis}: no such axis of the grid; valid: {names}")
    if tuning.arm in ("distilled", "all") and sweep.distillation is None:
        problems.append(f"tune.arm: {tuning.arm}, but the sweep has no distilled students")
    if tuning.arm == "teacher" and not isinstance(sweep.teacher, TrainedTeacher):
        problems.append("tune.arm: teacher, but the sweep trains none")
    if problems := [*problems, *_metric_problems(file, tuning)]:
        raise InvalidInputError("\n".join(f"{file.source}: {problem}" for problem in problems))
    return tuning


def _metric_problems(file: SweepFile, tuning: Tuning) -> list[str]:
    metric = METRICS.get(tuning.metric)
    of_groups = metric is not None and metric.of == "groups" and metric.better is not None
    if not of_groups and tuning.metric not in _TRIAL_METRICS:
        groups = [name for name, each in METRICS.items() if each.of == "groups" and each.better]
        return [f"tune.metric: no such metric: {tuning.metric}; valid: {', '.join((*_TRIAL_METRICS, *groups))}"]
    features = file.sweep.sensitive_features
    if of_groups and tuning.feature not in features:
        return [f"tune.feature: {tuning.metric} needs one of {', '.join(features) or 'sensitive_features'}"]
    if not of_groups and tuning.feature is not None:
        return [f"tune.feature: has no effect with metric {tuning.metric}"]
    return []


def candidate_file(file: SweepFile, settings: Mapping[str, Any]) -> SweepFile:
    """The small sweep of a candidate; `settings` are its values by path.

    Raises:
        SweepError: the settings do not fit together.
    """
    tuning = tuning_of(file)
    raw: dict[str, Any] = {
        name: value for name, value in file.raw.items() if name not in ("tune", "tuned", "claims")
    } | {"name": f"{file.sweep.name}{SUFFIX}"}
    dataset = {**raw["dataset"], "evaluated_on": "validation"}
    if tuning.validation_fraction is not None:
        if file.sweep.dataset.has_validation:
            raise SweepError(f"{file.source}: tune.validation_fraction: the data set has a validation split already")
        dataset["validation_fraction"] = tuning.validation_fraction
    elif not file.sweep.dataset.has_validation:
        field, advice = file.sweep.dataset.ASK_FOR_VALIDATION
        raise SweepError(
            f"{file.source}: tune: candidates are compared on a validation split, and there is none: dataset.{field}: "
            f"{advice}; or, for the search alone, tune.validation_fraction"
        )
    raw["dataset"] = dataset
    raw["grid"] = {
        axis: list(tuning.seeds) if axis == "seed" else list(tuning.grid.get(axis, values))
        for axis, values in file.raw["grid"].items()
    }
    if tuning.arm == "teacher":
        raw["teacher"] = {**raw["teacher"], "seed": list(tuning.seeds)}
    raw = with_axes(raw, settings)
    moved = replace(file, raw=raw, source=f"{file.source}: tune")
    return replace(moved, sweep=moved.cell({axis: values[0] for axis, values in raw["grid"].items()}))


def make_candidate(file: SweepFile, number: int, settings: Mapping[str, Any], digest: WeightsDigest) -> Candidate:
    """A candidate with its trials. Settings that do not fit together are its `problem`."""
    tuning = tuning_of(file)
    try:
        small = candidate_file(file, settings)
        planned = expand(small, digest)
    except SweepError as error:
        return Candidate(number=number, settings=settings, problem=str(error).splitlines()[0])
    trials = tuple(trial for trial in planned if trial.spec.role in _ROLES[tuning.arm])
    taught_by = {trial.spec.teacher.trial_id for trial in trials if trial.spec.teacher}
    sweep = small.sweep
    trained = getattr(sweep.teacher, "training", None) if tuning.arm == "teacher" else None
    own = {"candidate": number}
    return Candidate(
        number=number,
        settings=settings,
        trials=tuple(replace(trial, settings={**trial.settings, **own}) for trial in trials),
        teachers=tuple(trial for trial in planned if trial.trial_id in taught_by),
        epochs=(trained or sweep.training).epochs,
    )


def check_space(file: SweepFile, digest: WeightsDigest) -> None:
    """Try the first and the last value of each dimension in its place, with the first ones of the others.

    Raises:
        InvalidInputError: a path is no setting, or a value is not valid.
    """
    tuning = tuning_of(file)
    firsts = {path: ends(dimension)[0] for path, dimension in tuning.space.items()}
    expand(candidate_file(file, firsts), digest)
    alone = {}
    for path, dimension in tuning.space.items():
        for value in ends(dimension):
            alone[path, json.dumps(value)] = make_candidate(file, 0, {**firsts, path: value}, digest)
    trial_ids = {json.dumps([trial.trial_id for trial in one.trials]) for one in alone.values() if not one.problem}
    for path, dimension in tuning.space.items():
        found = [alone[path, json.dumps(value)] for value in ends(dimension)]
        if all(one.problem for one in found):
            raise InvalidInputError(str(found[0].problem))
    if len(trial_ids) == 1 and any(len(ends(dimension)) > 1 for dimension in tuning.space.values()):
        raise InvalidInputError(f"{file.source}: tune.space: none of its settings changes a trial of arm {tuning.arm}")


def ends(dimension: Dimension) -> Sequence[Any]:
    """The first and the last value of a dimension."""
    if isinstance(dimension, LogUniform):
        return dimension.log_uniform
    if isinstance(dimension, Uniform):
        return dimension.uniform
    if isinstance(dimension, Integers):
        return dimension.integers
    return (dimension[0], dimension[-1]) if len(dimension) > 1 else dimension


def most_epochs(file: SweepFile) -> int:
    """Most epochs that a candidate may train."""
    tuning = tuning_of(file)
    sweep = file.sweep
    own = getattr(sweep.teacher, "training", None) if tuning.arm == "teacher" else None
    path = "teacher.training.epochs" if own else "training.epochs"
    dimension = tuning.space.get(path)
    if dimension is None:
        return int((own or sweep.training).epochs)
    values = dimension if isinstance(dimension, tuple) else ends(dimension)
    return int(max(value for value in values if isinstance(value, int)))
