"""The axes of a grid, and the sweep file of one cell of the grid.

An axis puts its value in its setting's place. The objective's axis does more, because objectives have different settings: a value may bring
settings of its own (`{name: dkd, beta: 8}`), and what `distillation` or another axis gives for other objectives of the grid is left out
where an objective has no such setting. So one file can ask for many objectives, and an objective is not repeated for the values of an axis
that it does not use.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kd_ray.sweep.distillation import OBJECTIVES, objective_kind

AXIS_PATHS = {name: f"distillation.{name}" for name in ("temperature", "alpha", "t_squared", "objective")}
"""Axes with a short name, and the setting they stand for."""

OBJECTIVE_PATH = AXIS_PATHS["objective"]
NO_AXES = (
    "name",
    "grid",
    "placement",
    "sensitive_features",
    "intersections",
    "baselines",
    "evaluation",
    "claims",
    "tune",
    "tuned",
)
"""Fields of a sweep file that no axis can vary."""


def axis_path(axis: str) -> str:
    """The dotted path of the setting that an axis varies."""
    return AXIS_PATHS.get(axis, axis)


@dataclass(frozen=True, kw_only=True)
class ObjectiveEntry:
    """One value of the objective's axis."""

    name: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """Settings that hold for this value only."""

    @classmethod
    def of(cls, value: Any) -> "ObjectiveEntry":
        """From a name, or a mapping with `name` and settings."""
        if isinstance(value, Mapping):
            own = {str(key): setting for key, setting in value.items() if key != "name"}
            return cls(name=str(value.get("name", "")), parameters=own)
        return cls(name=str(value))

    @property
    def fields(self) -> frozenset[str]:
        """Names of the settings that this objective has; none for one that does not exist."""
        model = OBJECTIVES.get(objective_kind({"objective": self.name}))
        return frozenset(model.model_fields) if model else frozenset()


def entries_of(raw: Mapping[str, Any]) -> tuple[ObjectiveEntry, ...]:
    """The values of the objective's axis, in order; none where the objective is no axis."""
    for axis, values in raw.get("grid", {}).items():
        if axis_path(axis) == OBJECTIVE_PATH:
            return tuple(map(ObjectiveEntry.of, values))
    return ()


def with_axes(raw: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of `raw` with each axis value in its setting's place; `seed` stays in the grid."""
    result: dict[str, Any] = dict(raw)
    chosen: ObjectiveEntry | None = None
    for axis, value in settings.items():
        if axis == "seed":
            continue
        *parents, last = axis_path(axis).split(".")
        node = result
        for part in parents:
            child = node.get(part)
            node[part] = dict(child) if isinstance(child, Mapping) else {}
            node = node[part]
        node[last] = value
        if axis_path(axis) == OBJECTIVE_PATH:
            chosen = ObjectiveEntry.of(value)
    if chosen is not None:
        result["distillation"] = _of_one_objective(result["distillation"], chosen, entries_of(raw))
    return result


def _of_one_objective(
    shared: Mapping[str, Any], chosen: ObjectiveEntry, entries: tuple[ObjectiveEntry, ...]
) -> dict[str, Any]:
    """The settings of one objective: the shared ones that it has, and then the ones of its entry on the axis."""
    only_of_others = frozenset[str]().union(*(entry.fields for entry in entries)) - chosen.fields
    kept = {key: value for key, value in shared.items() if key not in only_of_others}
    return {**kept, "objective": chosen.name, **chosen.parameters}
