"""Whether the claims of a sweep can be tested in it: features, classes, baselines and conditions that it has."""

from collections.abc import Iterable, Sequence
from typing import Any

from kd_ray.errors import SweepError
from kd_ray.groups import joint_name
from kd_ray.sweep.axes import AXIS_PATHS, axis_path, entries_of
from kd_ray.sweep.claims import Claim, is_same
from kd_ray.sweep.config import Sweep
from kd_ray.sweep.networks import LogitsTeacher
from kd_ray.sweep.source import Location, dotted

_FEWEST = 2
"""Temperatures of a trend."""


def check_classes(sweep: Sweep, class_names: Sequence[str], *, source: str) -> None:
    """Refuse claims about classes that the data do not have.

    Raises:
        SweepError: there are any; the message has a line for each.
    """
    problems = [
        f"{source}: {dotted(('claims', i, *where))}: {what}"
        for i, claim in enumerate(sweep.claims)
        for where, what in _class_problem(claim, class_names)
    ]
    if problems:
        raise SweepError("\n".join(problems))


def claim_problems(cells: Sequence[Sweep]) -> list[tuple[Location, str]]:
    """What is wrong with the claims of a sweep, from cells of its grid that have each value of each axis at least once."""
    claims = cells[0].claims
    first: dict[str, int] = {}
    problems: list[tuple[Location, str]] = []
    for i, claim in enumerate(claims):
        here: Location = ("claims", i)
        if (same := first.setdefault(claim.sha256, i)) != i:
            problems.append((here, f"repeats claims[{same}]"))
        problems += [((*here, *where), what) for where, what in _problems(claim, cells)]
    return problems


def _problems(claim: Claim, cells: Sequence[Sweep]) -> Iterable[tuple[Location, str]]:
    sweep = cells[0]
    if sweep.distillation is None:
        yield (), "is about distilled students, and this sweep has none; give teacher and distillation"
        return
    if claim.feature is not None:
        valid = [*sweep.sensitive_features, *map(joint_name, sweep.intersections)]
        if claim.feature not in valid:
            choices = ", ".join(repr(name) for name in valid) or "none"
            yield (
                ("feature",),
                f"must be among sensitive_features or intersections, valid: {choices}, got {claim.feature!r}",
            )
    if claim.against == "scratch" and claim.trend is None and "scratch" not in sweep.baselines:
        yield ("against",), "scratch needs baselines: [scratch]; or use teacher"
    if claim.against == "teacher" and sweep.teacher is None:
        yield ("against",), "this sweep has no teacher; use scratch"
    if claim.metric == "disagreement" and sweep.teacher is None:
        yield ("metric",), "disagreement is that with the teacher, and this sweep has none"
    needs_answers = {"against": claim.against == "teacher", "metric": claim.metric == "disagreement"}
    for field in (name for name, needs in needs_answers.items() if needs and isinstance(sweep.teacher, LogitsTeacher)):
        yield (field,), "needs the teacher's predictions on the test split, which are not known with teacher.logits"
    named = [cell.dataset.class_names for cell in cells]
    if None not in named:
        yield from _class_problem(claim, list(dict.fromkeys(name for names in named for name in names or ())))
    if claim.trend is not None:
        yield from _trend_problems(claim, cells)
    for axis, value in (claim.condition or {}).items():
        yield from _condition_problems(axis, value, cells)


def _class_problem(claim: Claim, valid: Sequence[str]) -> Iterable[tuple[Location, str]]:
    """A class that the data do not have."""
    if claim.class_name is not None and claim.class_name not in valid:
        yield ("class",), f"must be a class of the data, valid: {', '.join(valid)}, got {claim.class_name!r}"


def _trend_problems(claim: Claim, cells: Sequence[Sweep]) -> Iterable[tuple[Location, str]]:
    found = sorted({value for cell in cells if (value := getattr(cell.distillation, "temperature", None)) is not None})
    low, high = claim.from_temperature or 0.0, claim.up_to or float("inf")
    if sum(low <= value <= high for value in found) < _FEWEST:
        shown = ", ".join(f"{value:g}" for value in found) or "none"
        bounded = claim.from_temperature is not None or claim.up_to is not None
        where = " between from and up_to" if bounded else ""
        yield ("trend",), f"needs at least {_FEWEST} temperatures{where}; the sweep has: {shown}"


def _condition_problems(axis: str, value: Any, cells: Sequence[Sweep]) -> Iterable[tuple[Location, str]]:
    here: Location = ("condition", axis)
    grid = cells[0].grid
    parameters: dict[str, list[Any]] = {}
    for entry in entries_of({"grid": grid}):
        for name, setting in entry.parameters.items():
            parameters.setdefault(f"distillation.{name}", []).append(setting)
    choosable = list(dict.fromkeys([*(name for name in grid if name != "seed"), *AXIS_PATHS, *parameters]))
    path = axis_path(axis)
    in_grid = next((name for name in grid if axis_path(name) == path), None)
    if axis not in choosable and (in_grid is None or path not in AXIS_PATHS.values()):
        yield here, f"cannot choose a condition; valid: {', '.join(choosable)}"
        return
    if path in AXIS_PATHS.values():
        # Fixed settings have a column in the tables, too, and entries of the objective's axis may differ in them.
        name = path.rsplit(".", 1)[-1]
        values = [found for cell in cells if (found := getattr(cell.distillation, name, None)) is not None]
    else:
        values = [*(grid[in_grid] if in_grid else ()), *parameters.get(path, [])]
    if not any(is_same(value, valid) for valid in values):
        valid = ", ".join(dict.fromkeys(_shown(found) for found in values))
        yield here, f"must be a value that the sweep has, valid: {valid or 'none'}, got {value!r}"


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
