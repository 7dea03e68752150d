"""The JSON Schema of sweep files agrees with what is read."""

from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from kd_ray.sweep.config import json_schema
from kd_ray.sweep.distillation import OBJECTIVES
from tests.fakes import SWEEP_YAML

SWEEPS = sorted((Path(__file__).parents[3] / "sweeps").glob("*.yaml"))


def plain(text: str) -> Any:
    return YAML(typ="safe", pure=True).load(text)


def test_schema_describes_every_field() -> None:
    schema = json_schema()
    assert schema["title"] == "kd_ray sweep"
    assert schema["additionalProperties"] is False
    assert schema["required"] == ["name", "dataset", "student", "training", "grid"]
    assert "required" not in schema["$defs"]["Distillation"]
    assert all(f"\n\n{name}: " in schema["$defs"]["Distillation"]["description"] for name in OBJECTIVES)
    undescribed = [
        f"{name}.{field}"
        for name, model in {**schema["$defs"], "Sweep": schema}.items()
        for field, property_ in model.get("properties", {}).items()
        if "description" not in property_ and "$ref" not in property_ and field not in ("name", "objective")
    ]
    assert undescribed == []


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: str(path.stem))
def test_committed_sweeps_follow_the_schema(path: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.Draft202012Validator(json_schema()).validate(plain(path.read_text()))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("epochs: 4", "epochs: four"),
        ("epochs: 4", "epochs: 0"),
        ("alpha: 0.9", "alpha: 1.5"),
        ("name: demo", "name: Demo"),
        ("size: 16", "sise: 16"),
        ("name: trifeature", "name: mnist"),
        ("seed: [0, 1]", "seed: []"),
    ],
)
def test_schema_refuses_what_is_wrong(old: str, new: str) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(json_schema())
    assert validator.is_valid(plain(SWEEP_YAML))
    assert not validator.is_valid(plain(SWEEP_YAML.replace(old, new)))
