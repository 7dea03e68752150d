"""Reads a sweep file: YAML with line numbers, `--set` overrides, and messages that point at the line.

The result, `SweepFile`, keeps the plain mapping (what was asked for, to be stored) next to the typed model of the grid's first cell.
"""

import difflib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import YAMLError

from kd_ray.errors import SweepError
from kd_ray.sweep.config import Dataset, GivenTeacher, Sweep, TrainedTeacher, teacher_kind

Location = tuple[str | int, ...]

AXIS_PATHS = {name: f"distillation.{name}" for name in ("temperature", "alpha", "t_squared", "objective")}
"""Axes with a short name, and the setting they stand for."""

_NO_AXES = ("name", "grid", "placement", "sensitive_features", "intersections", "baselines")
_TAGS = {"trifeature", "cifar10", "constant", "step", "cosine", "sgd", "kd", "trained", "given"}


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
        raw = _with_axes(self.raw, settings)
        try:
            return _validate(raw)
        except ValidationError as error:
            cell = ", ".join(f"{axis} = {value!r}" for axis, value in settings.items())
            problems = [
                f"{self.source}: in the cell {cell}: {_dotted(where)}: {what}" for where, what in _messages(error, raw)
            ]
            raise SweepError("\n".join(problems)) from error

    def to_yaml(self) -> str:
        """The mapping as YAML, overrides included."""
        return _dump_yaml(dict(self.raw))


@dataclass(kw_only=True)
class _Source:
    """Knows the line of each field, for messages."""

    name: str
    lines: dict[Location, int] = field(default_factory=dict)
    overrides: dict[Location, str] = field(default_factory=dict)

    def where(self, location: Location) -> str:
        """`file:line`, or the `--set` that put the value there; the nearest enclosing field that is known."""
        for length in range(len(location), 0, -1):
            if location[:length] in self.overrides:
                return self.overrides[location[:length]]
            if location[:length] in self.lines:
                return f"{self.name}:{self.lines[location[:length]]}"
        return self.name

    def error(self, location: Location, message: str) -> str:
        """One line of an error message."""
        path = _dotted(location)
        return f"{self.where(location)}: {path}: {message}" if path else f"{self.where(location)}: {message}"


def load_sweep(path: str | Path, overrides: Sequence[str] = ()) -> SweepFile:
    """Read and check a sweep file.

    `overrides` are `KEY=VALUE` texts: KEY a dotted path (`training.epochs`, `grid.temperature`), VALUE in YAML; `null` removes the key.

    Raises:
        SweepError: the file cannot be read, or any field is wrong; the message holds one line for each problem.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SweepError(f"{path}: cannot read the sweep file: {error}") from error
    return parse_sweep(text, source=str(path), overrides=overrides)


def parse_sweep(text: str, *, source: str, overrides: Sequence[str] = ()) -> SweepFile:
    """Like `load_sweep`, from YAML text."""
    try:
        document = YAML(typ="rt").load(text)
    except (YAMLError, ValueError, RecursionError) as error:
        raise SweepError(f"{source}: not valid YAML: {error}") from error
    if not isinstance(document, CommentedMap):
        raise SweepError(f"{source}: a sweep file is a mapping of fields, got {type(document).__name__}")
    origin = _Source(name=source)
    raw = _plain(document, (), origin.lines)
    for override in overrides:
        _apply_override(raw, override, origin)
    return SweepFile(source=source, raw=raw, sweep=_check(raw, origin))


def parse_dataset(name: str, overrides: Sequence[str] = ()) -> Dataset:
    """A data set by name, with `KEY=VALUE` settings of its own, outside any sweep.

    Raises:
        SweepError: there is no such data set, or a setting is wrong.
    """
    origin = _Source(name="dataset")
    raw: dict[str, Any] = {"name": name}
    for override in overrides:
        _apply_override(raw, override, origin)
    try:
        adapter: TypeAdapter[Dataset] = TypeAdapter(Dataset)
        return adapter.validate_json(json.dumps(raw))
    except ValidationError as error:
        problems = _messages(error, {"dataset": raw}, prefix=("dataset",))
        raise SweepError("\n".join(origin.error(where, what) for where, what in problems)) from error


def _plain(node: Any, location: Location, lines: dict[Location, int]) -> Any:
    """Plain dicts, lists and scalars of a YAML node, noting the line of each."""
    if isinstance(node, CommentedMap):
        for key in node:
            lines[(*location, str(key))] = node.lc.key(key)[0] + 1
        return {str(key): _plain(value, (*location, str(key)), lines) for key, value in node.items()}
    if isinstance(node, CommentedSeq):
        for i in range(len(node)):
            lines[(*location, i)] = node.lc.item(i)[0] + 1
        return [_plain(value, (*location, i), lines) for i, value in enumerate(node)]
    for kind in (bool, int, float, str):
        if isinstance(node, kind):
            return kind(node)
    return node if node is None else str(node)


def _apply_override(raw: dict[str, Any], override: str, origin: _Source) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise SweepError(f"--set {override}: expected KEY=VALUE, as in --set training.epochs=5")
    try:
        value = _plain(YAML(typ="rt").load(io.StringIO(text)), (), {})
    except (YAMLError, ValueError, RecursionError) as error:
        raise SweepError(f"--set {override}: the value is not valid YAML: {error}") from error
    # Everything after `grid.` is one axis, whose name may hold dots itself.
    parts = ("grid", key.removeprefix("grid.")) if key.startswith("grid.") else tuple(key.split("."))
    target = raw
    for part in parts[:-1]:
        target = target.setdefault(part, {})
        if not isinstance(target, dict):
            raise SweepError(f"--set {override}: {part} is not a mapping, it holds {target!r}")
    if value is None:
        target.pop(parts[-1], None)
    else:
        target[parts[-1]] = value
    origin.overrides[parts] = f"--set {override}"


def _check(raw: Mapping[str, Any], origin: _Source) -> Sweep:
    """The typed sweep of the first cell, after every axis value has been tried once in its place."""
    problems = _grid_problems(raw, origin)
    if problems:
        raise SweepError("\n".join(problems))
    grid: Mapping[str, list[Any]] = raw["grid"]
    first = {axis: values[0] for axis, values in grid.items()}
    problems = []
    for axis, values in grid.items():
        for i, value in enumerate(values):
            try:
                _validate(_with_axes(raw, {**first, axis: value}))
            except ValidationError as error:
                for location, message in _messages(error, _with_axes(raw, {**first, axis: value})):
                    problems.append(_blame_axis(location, message, raw, axis, i, origin))
    if problems:
        raise SweepError("\n".join(dict.fromkeys(problems)))
    return _validate(_with_axes(raw, first))


def _blame_axis(location: Location, message: str, raw: Mapping[str, Any], axis: str, i: int, origin: _Source) -> str:
    """Say a problem where the user wrote the value: at the grid's entry when the field is (in or above) an axis."""
    dotted = _dotted(location)
    for name in {axis: None, **raw["grid"]}:
        path = axis_path(name)
        if dotted == path or dotted.startswith(f"{path}.") or (name == "seed" and dotted.startswith("grid.seed")):
            entry = i if name == axis else 0
            return origin.error(("grid", name, entry), message)
    return origin.error(location, message)


def _grid_problems(raw: Mapping[str, Any], origin: _Source) -> list[str]:
    """What can be wrong with the grid itself: its form, repeated values, axes that cannot be, settings it overrides."""
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
        seen: list[tuple[bool, Any]] = []
        for i, value in enumerate(values):
            key = (isinstance(value, bool), value)
            if key in seen:
                problems.append(origin.error((*here, i), f"repeats the value {value!r}"))
            seen.append(key)
            if axis == "seed" and (not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**31):
                problems.append(origin.error((*here, i), f"must be an integer from 0 to 2**31 - 1, got {value!r}"))
        if axis == "seed":
            continue
        if path.split(".")[0] in _NO_AXES:
            problems.append(
                origin.error(here, "cannot be an axis; axes are seed, " + ", ".join(AXIS_PATHS) + " and settings")
            )
        elif _has(raw, path):
            problems.append(
                origin.error(tuple(path.split(".")), f"has no effect: grid.{axis} sets it; remove one of them")
            )
    if _has(raw, "distillation.alpha", 0) or 0 in (grid.get("alpha") or ()):
        temperatures = grid.get("temperature")
        if isinstance(temperatures, list) and len(temperatures) > 1:
            message = (
                "has no effect at alpha = 0, where the distillation term is off; use baselines: [scratch], or alpha > 0"
            )
            problems.append(origin.error(("grid", "temperature"), message))
    return problems


def axis_path(axis: str) -> str:
    """The dotted path of the setting that an axis varies."""
    return AXIS_PATHS.get(axis, axis)


_ABSENT = object()


def _has(raw: Mapping[str, Any], path: str, value: Any = _ABSENT) -> bool:
    node: Any = raw
    for part in path.split("."):
        if not isinstance(node, Mapping) or part not in node:
            return False
        node = node[part]
    return True if value is _ABSENT else bool(node == value)


def _with_axes(raw: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of `raw` with each axis value in its setting's place; `seed` stays in the grid."""
    result: dict[str, Any] = dict(raw)
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
    return result


def _validate(raw: Mapping[str, Any]) -> Sweep:
    return Sweep.model_validate_json(json.dumps(raw))


def _messages(error: ValidationError, raw: Mapping[str, Any], prefix: Location = ()) -> list[tuple[Location, str]]:
    """Each problem with the place in the file it belongs to; the branches of a union are joined by "or"."""
    found: dict[Location, list[str]] = {}
    for item in error.errors(include_url=False):
        location = _file_location((*prefix, *item["loc"]), raw)
        if item["type"] == "setting":
            message = str(item["ctx"]["message"])
            location = (*location, *str(item["ctx"]["field"]).split("."))
        elif item["type"] == "extra_forbidden":
            message = _unknown_key(location, raw)
        elif item["type"] == "missing":
            message = "is required"
        elif item["type"] in ("union_tag_not_found", "union_tag_invalid"):
            location = (*location, "name")
            tags = ", ".join(repr(_tag(model)) for model in _models_at(location[:-1], raw))
            message = f"must be one of {tags}"
            message += f", got {item['ctx']['tag']!r}" if "tag" in item["ctx"] else ""
        else:
            message = (
                f"{item['msg'].removeprefix('Value error, ').replace('Input should', 'should')}, got {item['input']!r}"
            )
        found.setdefault(location, []).append(message)
    return [(location, " or ".join(dict.fromkeys(messages))) for location, messages in found.items()]


def _file_location(loc: Sequence[str | int], raw: Mapping[str, Any]) -> Location:
    """Pydantic's location without the tags of unions, which stand in no file."""
    node: Any = raw
    result: list[str | int] = []
    for part in loc:
        if isinstance(node, Mapping) and part in node:
            node = node[str(part)]
        elif isinstance(node, list) and isinstance(part, int) and part < len(node):
            node = node[part]
        elif isinstance(part, str) and (part in _TAGS or "[" in part):
            continue
        result.append(part)
    return tuple(result)


def _models_at(location: Location, raw: Mapping[str, Any]) -> list[type[BaseModel]]:
    """The models whose fields may stand at `location`: the annotations, walked, and of a union what the file's values choose."""
    models: list[type[BaseModel]] = [Sweep]
    node: Any = raw
    for part in location:
        annotations = [model.model_fields[str(part)].annotation for model in models if str(part) in model.model_fields]
        models = [found for annotation in annotations for found in _models_in(annotation)]
        node = node.get(part) if isinstance(node, Mapping) else None
        if isinstance(node, Mapping):
            chosen = [model for model in models if _tag(model) in (node.get("name"), teacher_kind(node))]
            models = chosen or models
    return models


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in getattr(annotation, "__args__", ()) for model in _models_in(inner)]


def _tag(model: type[BaseModel]) -> str | None:
    """The word that chooses this member of a union: its literal `name`, or the kind of teacher."""
    name = model.model_fields.get("name")
    if name is not None and getattr(name.annotation, "__args__", None):
        return str(name.annotation.__args__[0])  # type: ignore[union-attr]
    return {TrainedTeacher: "trained", GivenTeacher: "given"}.get(model)


def _unknown_key(location: Location, raw: Mapping[str, Any]) -> str:
    key = str(location[-1])
    valid = sorted({name for model in _models_at(location[:-1], raw) for name in model.model_fields})
    close = difflib.get_close_matches(key, valid, n=1)
    return (
        "unknown or without effect here;"
        + (f" did you mean {close[0]}?" if close else "")
        + f" valid: {', '.join(valid)}"
    )


def _dotted(location: Location) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".")


def _dump_yaml(raw: dict[str, Any]) -> str:
    buffer = io.StringIO()
    yaml = YAML(typ="safe")
    yaml.default_flow_style = None
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]  # typed as None by its default
    yaml.dump(raw, buffer)
    return buffer.getvalue()
