"""The strict base, the field types and the error of a refused value that all models of a sweep file share."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, JsonValue
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError

from kd_ray.sweep.docstrings import field_docstrings

Seed = Annotated[int, Field(ge=0, lt=2**31)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
UnitInterval = Annotated[float, Field(ge=0, le=1)]
Fingerprint = Annotated[str, Field(pattern=r"^(original|[0-9a-f]{16})$")]


@dataclass(frozen=True)
class Added:
    """Marks a field that was added after version 0.1. With the value `before`, the behaviour of version 0.1, the field does not enter an
    identity, so trials of older stores are found again. `before` never changes, even if the default does."""

    before: JsonValue


class Config(BaseModel):
    """Base of all models of a sweep file: frozen, strict, no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler, /) -> JsonSchemaValue:
        """The JSON Schema, in which the docstring of each field is its description."""
        schema = handler(core_schema)
        properties = handler.resolve_ref_schema(schema).get("properties", {})
        for name, text in field_docstrings(cls).items():
            properties[cls.model_fields[name].alias or name]["description"] = text
        return schema


class Attack(Config):
    """Projected gradient descent within a box around an image (Madry et al. 2018), from a random start."""

    epsilon: Annotated[float, Field(gt=0, le=1)]
    """Largest change of a pixel's channel, as a share of the way from black to white; 0.031 is 8 of 255."""
    step_size: Annotated[float, Field(gt=0, le=1)]
    """Change of each step, as a share of the same."""
    steps: Annotated[int, Field(gt=0)]
    """How many; 20 make PGD-20."""


def refuse(field: str, message: str) -> PydanticCustomError:
    """An error about `field`, a dotted path below the model that raises it; `load.py` finds its line."""
    return PydanticCustomError("setting", "{message}", {"field": field, "message": message})


def bin_names(edges: Sequence[float]) -> tuple[str, ...]:
    """Names of the k + 1 bins of k edges: `<18`, `18-40`, `>=40`. A name says its edges exactly, so different bins have different names."""
    texts = [f"{edge:g}" for edge in edges]
    if any(float(text) != edge for text, edge in zip(texts, edges, strict=True)):
        texts = [f"{edge:.0f}" if edge == int(edge) and abs(edge) < 1e16 else repr(edge) for edge in edges]
    between = [f"{low}-{high}" for low, high in pairwise(texts)]
    return (f"<{texts[0]}", *between, f">={texts[-1]}")
