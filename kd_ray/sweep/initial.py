"""The files that a sweep gives: the first weights of its networks, also those that a launch fetches, and logits of a teacher."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kd_ray.sweep.architectures import is_text_model, library_of
from kd_ray.sweep.axes import axis_path
from kd_ray.sweep.config import Sweep
from kd_ray.sweep.datasets import input_size
from kd_ray.sweep.load import SweepFile
from kd_ray.sweep.networks import HUB, INIT_WORDS, PRETRAINED, PretrainedTeacher, TrainedTeacher

LOGITS_FIELD = "teacher.logits"
FIELDS = ("teacher.weights", "teacher.init", "student.init", LOGITS_FIELD)
"""Fields that name a file of weights or of logits, or say `pretrained`."""


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """A file of weights that a launch fetches where it is missing."""

    field: str
    model: str
    image_size: int
    """Side of the images in pixels."""
    repository: str | None
    """Of the Hugging Face Hub; None for the weights that the library of the network publishes."""


def initial_files(sweep: Sweep) -> dict[str, tuple[str, str]]:
    """Field → (model, path of its weights), for the fields that are given; paths as they stand in the sweep."""
    return {field: (model, _path(sweep, model, value)) for field, (model, value) in _initial(sweep).items()}


def _initial(sweep: Sweep) -> dict[str, tuple[str, str]]:
    """The same with what stands in the sweep."""
    found: dict[str, tuple[str, str]] = {}
    if isinstance(sweep.teacher, PretrainedTeacher):
        found["teacher.weights"] = (sweep.teacher.model, sweep.teacher.weights)
    if isinstance(sweep.teacher, TrainedTeacher) and sweep.teacher.init is not None:
        found["teacher.init"] = (sweep.teacher.model, sweep.teacher.init)
    if sweep.student.init is not None:
        found["student.init"] = (sweep.student.model, sweep.student.init)
    # The words in place of a path name no file; the weights of a text network lie in its folder.
    return {
        field: (model, value)
        for field, (model, value) in found.items()
        if value not in INIT_WORDS or (value == PRETRAINED and not is_text_model(model))
    }


def is_fetched(value: object) -> bool:
    """Whether this names weights that a launch may fetch, and no path."""
    return isinstance(value, str) and (value == PRETRAINED or value.startswith(HUB))


def is_path(value: object) -> bool:
    """Whether this names a file by its path; other values are words, as `random`, or name what is fetched."""
    return isinstance(value, str) and value not in INIT_WORDS and not is_fetched(value)


def pretrained_files(file: SweepFile) -> dict[str, Fetched]:
    """By path, every file of weights to be fetched that some cell of the grid needs."""
    if not any(is_fetched(value) for _, values in named_values(file.raw) for value in values):
        return {}
    axes = {name: values for name, values in file.axes.items() if name != "seed"}
    found = {}
    for values in itertools.product(*axes.values()):
        sweep = file.cell(dict(zip(axes, values, strict=True)))
        for field, (model, value) in _initial(sweep).items():
            if is_fetched(value):
                found[_path(sweep, model, value)] = Fetched(
                    field=field,
                    model=model,
                    image_size=input_size(sweep.dataset),
                    repository=value.removeprefix(HUB) if value.startswith(HUB) else None,
                )
    return found


def named_values(raw: Mapping[str, Any]) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """The fields that name files, each with its values: one, or those of an axis."""
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
    fetched = [field for field, values in named_values(file.raw) if any(map(is_fetched, values))]
    return (named or fetched or [FIELDS[0]])[0]


def _path(sweep: Sweep, model: str, value: str) -> str:
    if not is_fetched(value):
        return value
    if value.startswith(HUB):
        return str(
            Path(sweep.placement.data_root) / "pretrained" / "hub" / value.removeprefix(HUB) / "model.safetensors"
        )
    library, name = library_of(model) or ("", model)
    # Weights of a transformer follow the size of the images, for which the library fits them.
    file = f"{name}-{input_size(sweep.dataset)}px.safetensors"
    return str(Path(sweep.placement.data_root) / "pretrained" / library / file)
