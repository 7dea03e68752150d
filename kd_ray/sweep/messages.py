"""Pydantic's errors as messages for the author of a sweep file: each names the field as in the file, and the valid choices."""

import difflib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from kd_ray.sweep.config import Sweep
from kd_ray.sweep.datasets import DATASET_NAMES
from kd_ray.sweep.distillation import IMPORT_PATH, OBJECTIVES, objective_kind
from kd_ray.sweep.networks import LogitsTeacher, PretrainedTeacher, TrainedTeacher, teacher_kind
from kd_ray.sweep.source import Location

_TAGS = {
    *(*DATASET_NAMES, "constant", "step", "cosine", "linear", "sgd", "adam", "adamw"),
    *("trained", "pretrained", "given_logits", "constrained-float", *OBJECTIVES),
}
_IMPORTED = "package.module:function"


def messages(error: ValidationError, raw: Mapping[str, Any], prefix: Location = ()) -> list[tuple[Location, str]]:
    """Each problem with its place in the file; the alternatives of a union are joined by "or"."""
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
            is_objective = objective_kind.__name__ in str(item["ctx"].get("discriminator"))
            tags = [str(_tag(model)) for model in _models_at(location, raw)]
            location = (*location, "objective" if is_objective else "name")
            message = f"must be one of {', '.join(repr(_IMPORTED if tag == 'imported' else tag) for tag in tags)}"
            message += f", got {item['ctx']['tag']!r}" if "tag" in item["ctx"] else ""
        elif item.get("ctx", {}).get("pattern") == IMPORT_PATH:
            message = f"must look like '{_IMPORTED}', got {item['input']!r}"
        else:
            problem = item["msg"].removeprefix("Value error, ").replace("Input should", "should")
            message = f"{problem.replace('boolean', 'boolean (true or false)')}, got {item['input']!r}"
            if item["type"] == "string_type" and isinstance(item["input"], int | float):
                message += f'; in quotes it is one: "{json.dumps(item["input"])}"'
        found.setdefault(location, []).append(message)
    return [(location, " or ".join(dict.fromkeys(messages))) for location, messages in found.items()]


def _file_location(loc: Sequence[str | int], raw: Mapping[str, Any]) -> Location:
    """Pydantic's location without the tags of unions, which sweep files do not contain."""
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
    """The models whose fields are valid at `location`, found through the annotations; of a union, those that the file's values choose."""
    models: list[type[BaseModel]] = [Sweep]
    node: Any = raw
    for part in location:
        if isinstance(part, int):
            # An entry of a list: the models are those of the list.
            node = node[part] if isinstance(node, list) and part < len(node) else None
            continue
        annotations = [model.model_fields[str(part)].annotation for model in models if str(part) in model.model_fields]
        models = [found for annotation in annotations for found in _models_in(annotation)]
        node = node.get(part) if isinstance(node, Mapping) else None
        if isinstance(node, Mapping):
            tags = (node.get("name"), teacher_kind(node), objective_kind(node))
            chosen = [model for model in models if _tag(model) in tags]
            models = chosen or models
    return models


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in getattr(annotation, "__args__", ()) for model in _models_in(inner)]


def _tag(model: type[BaseModel]) -> str | None:
    """The word that chooses this member of a union: its literal `name`, the kind of teacher, or the objective."""
    name = model.model_fields.get("name")
    if name is not None and getattr(name.annotation, "__args__", None):
        return str(name.annotation.__args__[0])  # type: ignore[union-attr]
    named: dict[type[BaseModel], str] = {model: name for name, model in OBJECTIVES.items()}
    teachers = {TrainedTeacher: "trained", PretrainedTeacher: "pretrained", LogitsTeacher: "given_logits"}
    return (named | teachers).get(model)


def _unknown_key(location: Location, raw: Mapping[str, Any]) -> str:
    models = _models_at(location[:-1], raw)
    return unknown_key(
        str(location[-1]),
        sorted({field.alias or name for model in models for name, field in model.model_fields.items()}),
    )


def unknown_key(key: str, valid: Sequence[str]) -> str:
    """The message for a key that is not among the valid ones."""
    close = difflib.get_close_matches(key, valid, n=1)
    return (
        "unknown or without effect here;"
        + (f" did you mean {close[0]}?" if close else "")
        + f" valid: {', '.join(valid)}"
    )
