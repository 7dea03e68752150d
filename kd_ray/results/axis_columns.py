"""The columns of grid axes in the table `trials`: one for each setting that an axis can vary, with the type of the setting.

All files of a table must have the same columns: else polars and DuckDB refuse the folder, and pandas and pyarrow drop what the first file
lacks. So the columns follow from the settings that a sweep file can have, not from the axes that the sweeps of a store happen to have.
A new axis changes no other file, and an axis has one type in all sweeps. A column is null where a trial's sweep has no such axis.
"""

import json
import types
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pyarrow as pa
from pydantic import BaseModel

from kd_ray.bounded import JsonForm
from kd_ray.results.columns import TEXT, Column
from kd_ray.sweep.axes import AXIS_PATHS, NO_AXES
from kd_ray.sweep.docstrings import field_docstrings
from kd_ray.sweep.parts import Parts

_TYPES: dict[Any, pa.DataType] = {bool: pa.bool_(), int: pa.int64(), float: pa.float64(), str: TEXT}
"""What else a setting may be, such as a list, is the text of its JSON."""
_ANY: JsonForm[Any] = JsonForm(kind=Any)


def _settings(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any, type[BaseModel]]]:
    """Path, type and model of every setting; a setting of several models comes once for each."""
    for name, field in model.model_fields.items():
        path = f"{prefix}{name}"
        if path in NO_AXES or path in AXIS_PATHS.values():
            continue
        for kind in _members(field.annotation):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from _settings(kind, f"{path}.")
            elif kind is not type(None):
                yield path, kind, model


def _members(annotation: Any) -> list[Any]:
    origin = get_origin(annotation)
    if origin is Annotated:
        return _members(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return [member for each in get_args(annotation) for member in _members(each)]
    if origin is Literal:
        return [type(value) for value in get_args(annotation)]
    return [annotation]


def _columns() -> Iterator[Column]:
    kinds: dict[str, set[Any]] = {}
    models: dict[str, type[BaseModel]] = {}
    for path, kind, model in _settings(Parts):
        kinds.setdefault(path, set()).add(kind)
        models.setdefault(path, model)
    for path in sorted(kinds):
        found = kinds[path]
        kind = float if found == {int, float} else next(iter(found)) if len(found) == 1 else str
        says = partial(_meaning, path, models[path])
        yield Column(name=path, type=_TYPES.get(kind, TEXT), unit="", says=says, is_axis=True)


def _meaning(path: str, model: type[BaseModel]) -> str:
    """The first sentence of the setting's docstring."""
    text = field_docstrings(model).get(path.rpartition(".")[2], "")
    return " ".join(text.split()).split(". ")[0] or path


AXIS_COLUMNS = tuple(_columns())
"""By path. Axes of `temperature`, `alpha`, `t_squared`, `objective` and `seed` are among the first columns of every table about trials."""
_BY_PATH = {column.name: column for column in AXIS_COLUMNS}


def axis_type(path: str) -> pa.DataType | None:
    """The type of an axis column; None where there is no such column."""
    column = _BY_PATH.get(path)
    return column.type if column else None


def axis_values(axes: Mapping[str, str]) -> dict[str, Any]:
    """The value of every axis column, from the texts of a trial's axes."""
    values: dict[str, Any] = dict.fromkeys(_BY_PATH)
    for axis, text in axes.items():
        _put(values, axis, text)
    return values


def _put(values: dict[str, Any], path: str, text: str) -> None:
    """Put a value in its column. The members of a mapping have columns of their own; those of free parameters share one, as JSON."""
    column = _BY_PATH.get(path)
    if column is not None:
        values[path] = typed(column.type, text)
        return
    parent = path
    while parent := parent.rpartition(".")[0]:
        if parent in _BY_PATH:
            known = _parsed(values[parent] or "{}")
            values[parent] = json.dumps(known | {path.removeprefix(f"{parent}."): _parsed(text)}, sort_keys=True)
            return
    members = _parsed(text)
    for name, member in members.items() if isinstance(members, Mapping) else ():
        _put(values, f"{path}.{name}", member if isinstance(member, str) else json.dumps(member))


def typed(kind: pa.DataType, text: str) -> Any:
    """The value of an axis, of which `settings` keeps the text, in the type of its column."""
    if text == "null":
        return None
    if kind == TEXT:
        return text
    value = _ANY.read(text)
    return float(value) if kind == pa.float64() else value


def _parsed(text: str) -> Any:
    try:
        return _ANY.read(text)
    except ValueError:
        return text


def plain(text: str) -> Any:
    """A number, a truth value, or None for `null`; every other value stays the text that it is."""
    value = _parsed(text)
    return value if value is None or isinstance(value, bool | int | float) else text
