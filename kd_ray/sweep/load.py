"""Reads a sweep file: YAML with line numbers, `--set` overrides, and messages that point at the line.

The result, `SweepFile`, keeps the plain mapping (which the store keeps) and the typed model of the grid's first cell.
"""

import difflib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from kd_ray import notebook
from kd_ray.errors import SweepError
from kd_ray.sweep.axes import AXIS_PATHS, NO_AXES, OBJECTIVE_PATH, ObjectiveEntry, axis_path, entries_of, with_axes
from kd_ray.sweep.claim_checks import claim_problems
from kd_ray.sweep.config import Sweep
from kd_ray.sweep.datasets import Dataset, table_name
from kd_ray.sweep.messages import messages, unknown_key
from kd_ray.sweep.networks import LogitsTeacher
from kd_ray.sweep.short_axes import write_out_axes
from kd_ray.sweep.source import Location, SourceLines, apply_override, dotted, dump_yaml, read_yaml
from kd_ray.sweep.tuning_settings import SUFFIX, is_tuning

MOST_CELLS = 50_000
"""Most cells of a grid that are expanded, unless another limit is given. So many take about a minute."""


@dataclass(frozen=True, kw_only=True)
class SweepFile:
    """A sweep file that has been read and checked, with its overrides applied."""

    source: str
    """Where it came from, for messages."""
    raw: Mapping[str, Any]
    """The mapping as asked for; `cell` turns it and one grid cell into a typed sweep."""
    sweep: Sweep
    """The typed sweep of the grid's first cell: everything but the axes holds for all cells."""

    @property
    def axes(self) -> dict[str, tuple[Any, ...]]:
        """Values by axis name, in the order of the file; `seed` among them."""
        return dict(self.sweep.grid)

    def cell(self, settings: Mapping[str, Any]) -> Sweep:
        """The typed sweep with every axis of `settings` (axis name → value) in its place."""
        raw = with_axes(self.raw, settings)
        try:
            return _validate(raw)
        except ValidationError as error:
            cell = ", ".join(f"{axis} = {value!r}" for axis, value in settings.items())
            problems = [
                f"{self.source}: in the cell {cell}: {dotted(where)}: {what}" for where, what in messages(error, raw)
            ]
            raise SweepError("\n".join(problems)) from error

    def to_yaml(self) -> str:
        """The mapping as YAML, overrides included."""
        return dump_yaml(dict(self.raw))

    def _repr_html_(self) -> str:
        """For notebooks: data set, networks and the axes of the grid."""
        sweep = self.sweep
        teacher = (
            "a file of logits" if isinstance(sweep.teacher, LogitsTeacher) else sweep.teacher and sweep.teacher.model
        )
        taught = f"{teacher} → {sweep.student.model}" if teacher else sweep.student.model
        about = f"{table_name(sweep.dataset)}, target {sweep.dataset.target}; {taught}"
        rows = [(axis, len(values), ", ".join(map(str, values))) for axis, values in self.axes.items()]
        heading = f"sweep {sweep.name}"
        return notebook.page(heading, notebook.paragraph(about), notebook.table(("axis", "n", "values"), rows))


def load_sweep(
    path: str | Path | Mapping[str, Any], overrides: Sequence[str] = (), *, most_cells: int = MOST_CELLS
) -> SweepFile:
    """Read and check a sweep file, or a mapping with the fields of one.

    `overrides` are `KEY=VALUE` texts: KEY a dotted path (`training.epochs`, `grid.temperature`), VALUE in YAML; `null` removes the key.
    A grid of more than `most_cells` is refused before it is expanded.

    Raises:
        SweepError: the file cannot be read, or any field is wrong; the message holds one line for each problem.
    """
    if isinstance(path, Mapping):
        return _sweep_of(path, overrides, most_cells)
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SweepError(f"{path}: cannot read the sweep file: {error}") from error
    return parse_sweep(text, source=str(path), overrides=overrides, most_cells=most_cells)


def parse_sweep(text: str, *, source: str, overrides: Sequence[str] = (), most_cells: int = MOST_CELLS) -> SweepFile:
    """Like `load_sweep`, from YAML text."""
    raw, origin = read_yaml(text, source)
    for override in overrides:
        apply_override(raw, override, origin)
    return SweepFile(source=source, raw=raw, sweep=_check(raw, origin, most_cells))


def _sweep_of(mapping: Mapping[str, Any], overrides: Sequence[str], most_cells: int) -> SweepFile:
    origin = SourceLines(name="sweep")
    try:
        # As plain as YAML gives it: no tuples, no keys but text.
        raw = json.loads(json.dumps(dict(mapping)))
    except (TypeError, ValueError) as error:
        raise SweepError(f"sweep: its values must be plain: text, numbers, lists and mappings; {error}") from error
    for override in overrides:
        apply_override(raw, override, origin)
    return SweepFile(source=origin.name, raw=raw, sweep=_check(raw, origin, most_cells))


def parse_dataset(name: str, overrides: Sequence[str] = ()) -> Dataset:
    """A data set by name, with `KEY=VALUE` settings of its own, outside any sweep.

    Raises:
        SweepError: there is no such data set, or a setting is wrong.
    """
    origin = SourceLines(name="dataset")
    raw: dict[str, Any] = {"name": name}
    for override in overrides:
        apply_override(raw, override, origin)
    try:
        adapter: TypeAdapter[Dataset] = TypeAdapter(Dataset)
        return adapter.validate_json(json.dumps(raw))
    except ValidationError as error:
        problems = messages(error, {"dataset": raw}, prefix=("dataset",))
        raise SweepError("\n".join(origin.error(where, what) for where, what in problems)) from error


def _check_size(raw: Mapping[str, Any], origin: SourceLines, most_cells: int) -> None:
    """Count the cells of the grid before anything is made of them."""
    grid = raw.get("grid")
    if not isinstance(grid, dict):
        return
    sizes = [len(values) for values in grid.values() if isinstance(values, list)]
    teacher = raw.get("teacher")
    seeds = teacher.get("seed") if isinstance(teacher, dict) else None
    counts = [*sizes, *([len(seeds)] if isinstance(seeds, list) and seeds else [])]
    if (num_cells := math.prod(counts)) > most_cells:
        shown = " × ".join(f"{count:,}" for count in counts)
        teachers = ", one of them teacher's seeds," if len(counts) > len(sizes) else ""
        raise SweepError(
            origin.error(
                ("grid",),
                f"{shown} values{teachers} make {num_cells:,} cells, and at most {most_cells:,} are expanded; "
                "--max-cells, or KD_RAY_MAX_CELLS, gives another limit",
            )
        )


def _check(raw: dict[str, Any], origin: SourceLines, most_cells: int) -> Sweep:
    """The typed sweep of the first cell, after every axis value has been tried once in its place."""
    problems = write_out_axes(raw, origin)
    if is_tuning(str(raw.get("name", ""))):
        problems.append(
            origin.error(("name",), f"must not end with {SUFFIX}: searches have such names, got {raw['name']!r}")
        )
    if not problems:
        _check_size(raw, origin, most_cells)
        problems = _grid_problems(raw, origin)
    if problems:
        raise SweepError("\n".join(problems))
    grid: Mapping[str, list[Any]] = raw["grid"]
    first = {axis: values[0] for axis, values in grid.items()}
    problems = []
    cells = []
    for axis, values in grid.items():
        others = first | _objective_with(axis, raw)
        # A seed stays in the grid, so that the cells of all seeds are the same.
        for i, value in enumerate(values[:1] if axis == "seed" else values):
            try:
                cells.append(_validate(with_axes(raw, {**others, axis: value})))
            except ValidationError as error:
                for location, message in messages(error, with_axes(raw, {**others, axis: value})):
                    problems.append(_blame_axis(location, message, raw, axis, i, origin))
    if problems:
        raise SweepError("\n".join(dict.fromkeys(problems)))
    if wrong := claim_problems(cells):
        raise SweepError("\n".join(origin.error(location, message) for location, message in wrong))
    return _validate(with_axes(raw, first))


def _objective_with(axis: str, raw: Mapping[str, Any]) -> dict[str, Any]:
    """The first value of the objective's axis that has this axis as a setting, as settings of a cell; empty where that does not matter."""
    parent, _, setting = axis_path(axis).partition(".")
    objective_axis = next((name for name in raw["grid"] if axis_path(name) == OBJECTIVE_PATH), None)
    if parent != "distillation" or objective_axis in (None, axis):
        return {}
    for value, entry in zip(raw["grid"][objective_axis], entries_of(raw), strict=True):
        if setting.split(".")[0] in entry.fields:
            return {objective_axis: value}
    return {}


def _blame_axis(
    location: Location, message: str, raw: Mapping[str, Any], axis: str, i: int, origin: SourceLines
) -> str:
    """Report a problem at the place where the user wrote the value: at the grid's entry when the field is (in or above) an axis."""
    field = dotted(location)
    for name in {axis: None, **raw["grid"]}:
        path = axis_path(name)
        entry = i if name == axis else 0
        if path == OBJECTIVE_PATH and _is_parameter(location, raw["grid"][name][entry]):
            return origin.error(("grid", name, entry, *location[1:]), message)
        below = field == path or field.startswith(f"{path}.") or (name == "seed" and field.startswith("grid.seed"))
        # An unknown parent is refused before its child is checked.
        if below or (path.startswith(f"{field}.") and not _has(raw, field)):
            return origin.error(("grid", name, entry), message)
    return origin.error(location, message)


def _is_parameter(location: Location, value: Any) -> bool:
    """Whether an entry of the objective's axis gives the setting at `location`."""
    return isinstance(value, Mapping) and len(location) > 1 and location[0] == "distillation" and location[1] in value


def _grid_problems(raw: Mapping[str, Any], origin: SourceLines) -> list[str]:  # noqa: PLR0912 (one branch for each thing to refuse)
    """Problems of the grid itself: its form, repeated values, unknown axes, and settings that an axis would override."""
    grid = raw.get("grid")
    if not isinstance(grid, dict) or not grid:
        return [origin.error(("grid",), f"must map axes to lists of values, as in `seed: [0, 1]`, got {grid!r}")]
    problems = []
    if "seed" not in grid:
        problems.append(origin.error(("grid",), "has no `seed` axis; every student needs a seed, as in `seed: [0, 1]`"))
    for axis, values in grid.items():
        here: Location = ("grid", axis)
        path = axis_path(axis)
        if not isinstance(values, list) or not values:
            problems.append(origin.error(here, f"must be a list with at least one value, got {values!r}"))
            continue
        seen: set[tuple[bool, Any]] = set()
        for i, value in enumerate(values):
            plain = {"name": value} if path == OBJECTIVE_PATH and isinstance(value, str) else value
            key = (isinstance(value, bool), _hashable(plain))
            if key in seen:
                problems.append(origin.error((*here, i), f"repeats the value {value!r}"))
            seen.add(key)
            if axis == "seed" and (not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**31):
                problems.append(origin.error((*here, i), f"must be an integer from 0 to 2**31 - 1, got {value!r}"))
        if axis == "seed":
            continue
        if "." not in path and path not in Sweep.model_fields:
            problems.append(origin.error(here, _no_such_axis(axis)))
        elif path.split(".")[0] in NO_AXES:
            problems.append(
                origin.error(here, "cannot be an axis; axes are seed, " + ", ".join(AXIS_PATHS) + " and settings")
            )
        elif _has(raw, path):
            problems.append(
                origin.error(
                    tuple(path.split(".")),
                    f"has no effect: grid.{axis} sets it; remove one of them (--set {path}=null removes this one)",
                )
            )
    problems += _repeated_axes(grid, origin)
    problems += _objective_problems(raw, origin)
    alphas = grid.get("alpha")
    if _has(raw, "distillation.alpha", 0) or (isinstance(alphas, list) and 0 in alphas):
        temperatures = grid.get("temperature")
        if isinstance(temperatures, list) and len(temperatures) > 1:
            message = (
                "has no effect at alpha = 0, where the distillation term is off; use baselines: [scratch], or alpha > 0"
            )
            problems.append(origin.error(("grid", "temperature"), message))
    return problems


def _objective_problems(raw: Mapping[str, Any], origin: SourceLines) -> list[str]:
    """Entries of the objective's axis that are neither names nor mappings with one, or that give what another axis gives."""
    grid: Mapping[str, Any] = raw["grid"]
    problems = []
    for axis, values in grid.items():
        if axis_path(axis) != OBJECTIVE_PATH or not isinstance(values, list):
            continue
        for i, value in enumerate(values):
            here: Location = ("grid", axis, i)
            if isinstance(value, str):
                continue
            if not isinstance(value, Mapping) or not isinstance(value.get("name"), str):
                message = "must be the name of an objective, or a mapping with its name and settings of its own, as in"
                problems.append(origin.error(here, f"{message} {{name: dkd, beta: 8}}, got {value!r}"))
                continue
            for other in (name for name in grid if name != axis):
                setting = axis_path(other).removeprefix("distillation.")
                if setting in ObjectiveEntry.of(value).parameters:
                    message = f"has no effect: grid.{other} sets it; remove one of them"
                    problems.append(origin.error((*here, setting), message))
        shared = raw.get("distillation")
        valid = sorted({name for value in values for name in ObjectiveEntry.of(value).fields})
        for key in shared if isinstance(shared, Mapping) and valid else ():
            if key not in valid:
                problems.append(origin.error(("distillation", key), unknown_key(key, valid)))
    return problems


def _no_such_axis(axis: str) -> str:
    names = ["seed", *AXIS_PATHS]
    close = difflib.get_close_matches(axis, names, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"no such axis; {hint}valid: {', '.join(names)}, or the dotted path of a setting"


def _repeated_axes(grid: Mapping[str, Any], origin: SourceLines) -> list[str]:
    """Two axes that set the same field, or one a part of the other's: the last one would silently override the other."""
    problems = []
    paths = [(axis, f"{axis_path(axis)}.") for axis in grid]
    for i, (axis, path) in enumerate(paths):
        for other, other_path in paths[:i]:
            if path.startswith(other_path) or other_path.startswith(path):
                problems.append(origin.error(("grid", axis), f"sets what the axis {other} sets too; keep one of them"))
    return problems


_ABSENT = object()


def _has(raw: Mapping[str, Any], path: str, value: Any = _ABSENT) -> bool:
    node: Any = raw
    for part in path.split("."):
        if not isinstance(node, Mapping) or part not in node:
            return False
        node = node[part]
    return True if value is _ABSENT else bool(node == value)


def _validate(raw: Mapping[str, Any]) -> Sweep:
    return Sweep.model_validate_json(json.dumps(raw))


def _hashable(value: Any) -> Any:
    """Equal for equal plain values."""
    if isinstance(value, Mapping):
        return frozenset((key, _hashable(member)) for key, member in value.items())
    return tuple(map(_hashable, value)) if isinstance(value, list) else value
