"""Where a network's first weights come from: a file that the sweep names, or the one in which a library's pretrained weights are kept."""

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kd_ray.sweep.architectures import is_text_model, library_of
from kd_ray.sweep.axes import axis_path
from kd_ray.sweep.config import Sweep
from kd_ray.sweep.datasets import input_size
from kd_ray.sweep.load import SweepFile
from kd_ray.sweep.networks import INIT_WORDS, PRETRAINED, PretrainedTeacher, TrainedTeacher

FIELDS = ("teacher.weights", "teacher.init", "student.init")
"""Fields that name a file of weights, or say `pretrained`."""


def initial_files(sweep: Sweep) -> dict[str, tuple[str, str]]:
    """Field → (model, path of its weights), for the fields that are given; paths as they stand in the sweep."""
    found: dict[str, tuple[str, str]] = {}
    if isinstance(sweep.teacher, PretrainedTeacher):
        found["teacher.weights"] = (sweep.teacher.model, sweep.teacher.weights)
    if isinstance(sweep.teacher, TrainedTeacher) and sweep.teacher.init is not None:
        found["teacher.init"] = (sweep.teacher.model, sweep.teacher.init)
    if sweep.student.init is not None:
        found["student.init"] = (sweep.student.model, sweep.student.init)
    # The words in place of a path name no file; the weights of a text network lie in its folder.
    return {
        field: (model, _path(sweep, model, value))
        for field, (model, value) in found.items()
        if value not in INIT_WORDS or (value == PRETRAINED and not is_text_model(model))
    }


def pretrained_files(file: SweepFile) -> dict[str, tuple[str, str, int]]:
    """Path → (field, model, side of the images) of every file of a library's pretrained weights that some cell of the grid needs."""
    if PRETRAINED not in [value for _, values in named_values(file.raw) for value in values]:
        return {}
    axes = {name: values for name, values in file.axes.items() if name != "seed"}
    found = {}
    for values in itertools.product(*axes.values()):
        sweep = file.cell(dict(zip(axes, values, strict=True)))
        for field, (model, path) in initial_files(sweep).items():
            if path == _path(sweep, model, PRETRAINED):
                found[path] = (field, model, input_size(sweep.dataset))
    return found


def named_values(raw: Mapping[str, Any]) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """The fields that name weights, each with its values: one, or those of an axis."""
    for field in FIELDS:
        section, name = field.split(".")
        if (value := (raw.get(section) or {}).get(name)) is not None:
            yield field, (value,)
    for axis, values in raw["grid"].items():
        if axis_path(axis) in FIELDS:
            yield axis_path(axis), tuple(values)


def field_of(file: SweepFile, path: str) -> str:
    """The field that names this file."""
    named = [field for field, values in named_values(file.raw) if path in values]
    return (named or [field for field, values in named_values(file.raw) if PRETRAINED in values] or [FIELDS[0]])[0]


def _path(sweep: Sweep, model: str, value: str) -> str:
    if value != PRETRAINED:
        return value
    library, name = library_of(model) or ("", model)
    # Weights of a transformer follow the size of the images, for which the library fits them.
    file = f"{name}-{input_size(sweep.dataset)}px.safetensors"
    return str(Path(sweep.placement.data_root) / "pretrained" / library / file)
