"""Docstrings of fields are those that Pydantic itself would read."""

import pytest
from pydantic import BaseModel, ConfigDict, create_model

from kd_ray.sweep import image_datasets, networks, training
from kd_ray.sweep.docstrings import field_docstrings
from kd_ray.sweep.fields import Config
from kd_ray.sweep.parts import Parts


class Base(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)

    kept: int = 0
    """Of the base,
    on two lines."""
    anew: int = 0
    """Of the base."""
    bare: int = 0


class Derived(Base):
    anew: str = ""  # type: ignore[assignment]
    own: int = 0
    """Of the derived model."""


def test_a_field_that_is_defined_anew_has_only_its_own_docstring() -> None:
    expected = {name: field.description for name, field in Derived.model_fields.items() if field.description}
    assert field_docstrings(Derived) == expected
    assert set(expected) == {"kept", "own"}


@pytest.mark.parametrize("model", [Parts, training.Training, networks.StudentSettings, image_datasets.ImagenetDataset])
def test_every_field_of_a_sweep_file_is_described_in_its_schema(model: type[Config]) -> None:
    properties = model.model_json_schema()["properties"]
    found = {field.alias or name: field_docstrings(model).get(name) for name, field in model.model_fields.items()}
    assert {name: property_.get("description") for name, property_ in properties.items()} == found
    assert [name for name, text in found.items() if text is None] in ([], ["name"])


def test_a_model_without_source_has_none() -> None:
    assert field_docstrings(create_model("Made", x=(int, 0))) == {}
