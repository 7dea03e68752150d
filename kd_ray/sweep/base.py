"""What all models of a sweep file are made of."""

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue
from pydantic_core import PydanticCustomError

Seed = Annotated[int, Field(ge=0, lt=2**31)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
UnitInterval = Annotated[float, Field(ge=0, le=1)]


class Config(BaseModel):
    """Base of all models of a sweep file: frozen, strict, no unknown keys."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    ADDED: ClassVar[Mapping[str, JsonValue]] = {}
    """Fields that came after version 0.1, each with the value that means what was done before. With that value a field does not enter an
    identity, so trials of older stores are found again. It never changes, whatever becomes of the default."""


def refuse(field: str, message: str) -> PydanticCustomError:
    """An error about `field`, a dotted path below the model that raises it; `load.py` finds its line."""
    return PydanticCustomError("setting", "{message}", {"field": field, "message": message})
