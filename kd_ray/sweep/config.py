"""What a sweep file may say, as typed models.

Every field is checked when the file is read, a docstring under it gives its unit and meaning, and `json_schema()` hands the same
knowledge to editors. Nothing here knows how to train: `spec.py` turns a valid sweep into trials, `load.py` reads the YAML.

    datasets.py      what to learn from, with classification.py, row_datasets.py
    networks.py      who teaches, who learns; architectures.py knows the names
    training.py      how a network is trained
    distillation.py  the loss of distilled students
    placement.py     where and how it runs
    checks.py        whether all of that fits together
"""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, JsonValue, model_validator

from kd_ray.sweep.checks import check_features, check_initial, check_models, check_objective
from kd_ray.sweep.datasets import Dataset
from kd_ray.sweep.distillation import OBJECTIVES, Distillation
from kd_ray.sweep.fields import Attack, Config, refuse
from kd_ray.sweep.networks import Student, Teacher
from kd_ray.sweep.placement import Placement
from kd_ray.sweep.training import Training


class Evaluation(Config):
    """What is measured on the test split besides what always is. Part of a trial's identity, because the record holds it."""

    pgd: Attack | None = None
    """Robust accuracy: what is left under projected gradient descent, which takes so many times longer as it has steps."""
    gradient_rescaling: bool = False
    """How the teacher rescales the pull of each test sample at its true logit (Tang et al. 2020), for distilled students whose loss is a
    mean over samples; the teacher runs over the test split for it."""

    @model_validator(mode="after")
    def _asks_for_something(self) -> Self:
        if self.pgd is None and not self.gradient_rescaling:
            raise refuse("pgd", "has no effect; ask for pgd or gradient_rescaling, or leave evaluation out")
        return self


class Sweep(Config):
    """A named sweep: fixed settings and a grid."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,99}$")]
    """Name of the sweep in the store: lower-case letters, digits, `.`, `_` and `-`."""
    dataset: Dataset
    """What to learn from."""
    sensitive_features: tuple[str, ...] = ()
    """Features whose groups are compared in `group_metrics` and `fairness_metrics`."""
    intersections: tuple[Annotated[tuple[str, ...], Field(min_length=2)], ...] = ()
    """Lists of sensitive features whose joint groups are compared as well."""
    teacher: Teacher | None = None
    """Who teaches."""
    student: Student
    """Who learns."""
    training: Training
    """How students are trained."""
    distillation: Distillation | None = None
    """The loss of distilled students."""
    evaluation: Evaluation | None = None
    """What is measured besides what always is."""
    baselines: tuple[Literal["scratch"], ...] = ("scratch",)
    """`scratch`: the non-distilled student, once per seed."""
    grid: dict[str, Annotated[tuple[JsonValue, ...], Field(min_length=1)]]
    """Axes of the grid: `seed`, `temperature`, `alpha`, `t_squared`, `objective`, or the dotted path of any setting."""
    placement: Placement = Placement()
    """Where and how it runs."""

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
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "kd_ray sweep"
    return schema
