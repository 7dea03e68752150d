"""What conditions can be laid out by, and the lines that this gives: the distilled conditions over one axis, and their baselines."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kd_ray.analysis.conditions import Condition, shown_number
from kd_ray.analysis.study import SCRATCH, TEACHER, Study
from kd_ray.sweep.distillation import shown_objective

MAX_LINES = 8
"""Lines in one chart that can still be told apart."""
CONDITION = "condition"


@dataclass(frozen=True, kw_only=True, eq=False)
class Line:
    """Distilled conditions that differ in the axis only."""

    label: str
    points: tuple[tuple[int, Condition], ...]
    """Place on the axis, and the condition that stands there."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Layout:
    """The distilled conditions of a study over one axis."""

    axis: str
    ticks: tuple[str, ...]
    """The values of the axis, evenly spaced."""
    lines: tuple[Line, ...]
    num_left_out: int
    """Lines beyond `MAX_LINES`; the table has them all."""
    baselines: tuple[tuple[str, Condition], ...]
    """Teachers and scratch students with their names."""


def facts(condition: Condition) -> dict[str, str]:
    """What a condition is, by axis, as text."""
    axes = {name: value for name, value in condition.axes.items() if name != "dataset_id"}
    values = {"temperature": condition.temperature, **axes, **dict(condition.settings)}
    values["objective"] = shown_objective(str(values["objective"]))
    return {name: _text(value) for name, value in values.items()}


def axis_names(study: Study) -> tuple[str, ...]:
    """What the distilled conditions differ in, temperature first; `condition` where there is no such thing."""
    found = _values(study.distilled)
    return (*(name for name, values in found.items() if len(values) > 1), CONDITION)


def lay_out(study: Study, axis: str) -> Layout:
    """The distilled conditions over an axis, or over the first one that there is."""
    names = axis_names(study)
    axis = axis if axis in names else names[0]
    distilled = study.distilled
    if axis == CONDITION:
        ticks = tuple(it.label for it in distilled)
        lines = [Line(label="distilled", points=tuple(enumerate(distilled)))] if distilled else []
    else:
        ticks = tuple(sorted({facts(it)[axis] for it in distilled}, key=_order))
        others = [name for name in names if name not in (axis, CONDITION)]
        members: dict[tuple[str, ...], list[Condition]] = {}
        for it in distilled:
            members.setdefault(tuple(facts(it)[name] for name in others), []).append(it)
        lines = [
            Line(
                label=", ".join(f"{short(name)}={value}" for name, value in zip(others, values, strict=True))
                or "distilled",
                points=tuple(sorted(((ticks.index(facts(it)[axis]), it) for it in found), key=lambda pair: pair[0])),
            )
            for values, found in members.items()
        ]
    shown = lines[:MAX_LINES]
    return Layout(
        axis=axis,
        ticks=ticks,
        lines=tuple(shown),
        num_left_out=len(lines) - len(shown),
        baselines=_baselines(study, [it for line in shown for _, it in line.points]),
    )


def short(name: str) -> str:
    """The name of an axis, without the path of its setting."""
    return {"t_squared": "T²", "temperature": "T"}.get(name, name.rsplit(".", 1)[-1])


def _baselines(study: Study, shown: Sequence[Condition]) -> tuple[tuple[str, Condition], ...]:
    found: dict[int, tuple[str, Condition]] = {}
    for contrast, role in ((TEACHER, "teacher"), (SCRATCH, "scratch")):
        for treatment in shown:
            baseline = study.baseline(contrast, treatment)
            if baseline is not None:
                found.setdefault(id(baseline), (role, baseline))
    if not shown:
        found = {id(it): (it.role, it) for role in ("teacher", "scratch") for it in study.of_role(role)}
    of_role = [role for role, _ in found.values()]
    return tuple((role if of_role.count(role) == 1 else it.label, it) for role, it in found.values())


def _values(conditions: Sequence[Condition]) -> Mapping[str, set[str]]:
    found: dict[str, set[str]] = {}
    for condition in conditions:
        of_condition = facts(condition)
        of_column = {name for name in of_condition if "." not in name}
        for name, value in of_condition.items():
            # An axis of the grid that has a column of its own counts once.
            if "." in name and short(name) in of_column:
                continue
            found.setdefault(name, set()).add(value)
    return found


def _text(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "on" if value else "off"
    return shown_number(value) if isinstance(value, float) else str(value)


def _order(value: str) -> tuple[bool, float, str]:
    try:
        return (False, float(value), "")
    except ValueError:
        return (True, 0.0, value)
