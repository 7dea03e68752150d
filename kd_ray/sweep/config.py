"""The fields of a sweep file, as typed models.

Every field is checked when the file is read, a docstring under it gives its unit and meaning, and `json_schema()` gives editors
the same descriptions. `spec.py` turns a valid sweep into trials, `load.py` reads the YAML.

    parts.py         the fields of a sweep file, whose own settings are in
    datasets.py      data sets; classification.py has what all share, image_, public_ and own_datasets.py the families
    networks.py      teacher and student; architectures.py has the names of networks
    training.py      how a network is trained
    distillation.py  the loss of distilled students
    claims.py        the questions to answer
    placement.py     where and how it runs
    checks.py        checks that the parts fit together
"""

from typing import Any, Self

from pydantic import model_validator

from kd_ray.sweep.checks import check_features, check_initial, check_models, check_objective
from kd_ray.sweep.distillation import OBJECTIVES
from kd_ray.sweep.fields import refuse
from kd_ray.sweep.parts import Parts
from kd_ray.sweep.short_axes import FORM_NAMES


class Sweep(Parts):
    """A named sweep: fixed settings and a grid."""

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        check_features(self)
        check_models(self)
        check_objective(self)
        check_initial(self)
        if self.distillation is None and not self.baselines:
            raise refuse("baselines", "nothing to train: give teacher and distillation, or baselines: [scratch]")
        if len(set(self.baselines)) != len(self.baselines):
            raise refuse("baselines", f"repeats a value: {list(self.baselines)}")
        return self


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a sweep file, for editors that complete and check YAML."""
    schema = Sweep.model_json_schema()
    # One objective for all members of the union: a sweep with several objectives gives their settings side by side, and the grid supplies
    # others, so none is required.
    names = [name for name in OBJECTIVES if name != "imported"]
    members = {name: schema["$defs"].pop(model.__name__) for name, model in OBJECTIVES.items()}
    properties: dict[str, Any] = {}
    for member in members.values():
        properties |= member["properties"]
    meanings = "\n\n".join(f"{name}: {member['description']}" for name, member in members.items())
    properties["objective"] = {"anyOf": [{"enum": names}, properties["objective"]], "default": "kd"}
    schema["$defs"]["Distillation"] = {
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
        "description": f"The training loss of distilled students, by objective.\n\n{meanings}",
    }
    schema["properties"]["distillation"] |= {"anyOf": [{"$ref": "#/$defs/Distillation"}, {"type": "null"}]}
    numbers = {"type": "array", "items": {"type": "number"}}
    forms = [
        {"type": "object", "properties": {form: numbers}, "required": [form], "additionalProperties": False}
        for form in FORM_NAMES
    ]
    grid = schema["properties"]["grid"]
    grid["additionalProperties"] = {
        "anyOf": [grid["additionalProperties"], {"type": "string", "pattern": r"^\d+\.\.\d+$"}, *forms]
    }
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "kd_ray sweep"
    return schema
