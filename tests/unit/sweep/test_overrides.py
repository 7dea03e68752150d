"""`--set KEY=VALUE`, and messages that point to it."""

from typing import Any

import pytest

from kd_ray.errors import SweepError
from kd_ray.sweep.distillation import KnowledgeDistillation
from kd_ray.sweep.source import SourceLines, apply_override
from kd_ray.sweep.training import Sgd
from tests.fakes import make_sweep


def refusal(*overrides: str) -> str:
    with pytest.raises(SweepError) as caught:
        make_sweep(overrides=overrides)
    return str(caught.value)


def test_override_replaces_a_nested_value() -> None:
    file = make_sweep(overrides=["training.optimizer.lr=5e-4", "training.epochs=9", "name=other"])
    assert file.sweep.training.optimizer.lr == 0.0005
    assert file.sweep.training.epochs == 9
    assert file.sweep.name == "other"


def test_override_adds_a_nested_value() -> None:
    file = make_sweep(overrides=["placement.pack_size=3", "training.optimizer.momentum=0.5"])
    assert file.sweep.placement.pack_size == 3
    assert isinstance(file.sweep.training.optimizer, Sgd)
    assert file.sweep.training.optimizer.momentum == 0.5
    assert file.sweep.training.optimizer.lr == 0.1


def test_override_takes_mappings_and_lists() -> None:
    file = make_sweep(overrides=["training.schedule={name: cosine, warmup_epochs: 1}", "grid.seed=[5]"])
    assert file.sweep.training.schedule.model_dump() == {"name": "cosine", "warmup_epochs": 1, "final_lr": 0.0}
    assert file.axes["seed"] == (5,)


def test_grid_axis_with_dots_is_one_axis() -> None:
    file = make_sweep(overrides=["training.optimizer.lr=null", "grid.training.optimizer.lr=[0.1, 0.2]"])
    assert file.axes["training.optimizer.lr"] == (0.1, 0.2)
    assert file.sweep.training.optimizer.lr == 0.1


def test_null_removes_a_key() -> None:
    file = make_sweep(overrides=["grid.temperature=null", "distillation.temperature=3"])
    assert list(file.axes) == ["seed"]
    assert isinstance(file.sweep.distillation, KnowledgeDistillation)
    assert file.sweep.distillation.temperature == 3.0


def test_null_for_a_key_that_is_not_there_changes_nothing() -> None:
    assert make_sweep(overrides=["placement=null", "dataset.target=null"]).raw == make_sweep().raw


def test_value_may_hold_equals_signs() -> None:
    file = make_sweep(overrides=["teacher={model: resnet20, weights: 'a=b.pt'}"])
    assert file.raw["teacher"]["weights"] == "a=b.pt"


@pytest.mark.slow
def test_last_override_holds() -> None:
    assert make_sweep(overrides=["training.epochs=5", "training.epochs=6"]).sweep.training.epochs == 6


@pytest.mark.parametrize("override", ["training.epochs", "=3", ""])
def test_override_without_key_and_value_is_refused(override: str) -> None:
    assert refusal(override) == f"--set {override}: expected KEY=VALUE, as in --set training.epochs=5"


def test_override_that_is_not_yaml_is_refused() -> None:
    assert refusal("grid.seed=[1").startswith("--set grid.seed=[1: the value is not valid YAML: ")


def test_override_below_a_value_is_refused() -> None:
    assert refusal("training.epochs.x=1") == "--set training.epochs.x=1: epochs is not a mapping, it holds 4"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.epochs=0", "training.epochs: should be greater than 0, got 0"),
        ("training.epochs=", "training.epochs: is required"),
        ("training.epochs=null", "training.epochs: is required"),
        ("dataset.size=1", "dataset.size: should be greater than or equal to 16, got 1"),
        ("grid.alpha=[2]", "grid.alpha[0]: should be less than or equal to 1, got 2"),
        ("grid=null", "grid: must map axes to lists of values, as in `seed: [0, 1]`, got None"),
        ("training.schedule.gamma=3", "training.schedule.gamma: should be less than 1, got 3"),
    ],
)
def test_error_about_an_override_points_to_it(override: str, message: str) -> None:
    extra = ("distillation.alpha=null",) if override.startswith("grid.alpha") else ()
    assert refusal(override, *extra) == f"--set {override}: {message}"


def test_unknown_key_of_an_override_points_to_it() -> None:
    assert refusal("training.epohcs=5").startswith(
        "--set training.epohcs=5: training.epohcs: unknown or without effect here; did you mean epochs?"
    )


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("grid.temperature=[1, 0]", "grid.temperature[1]: should be greater than 0, got 0"),
        ("grid.temperature=[2, 2]", "grid.temperature[1]: repeats the value 2"),
        ("training.optimizer={lr: -1}", "training.optimizer.lr: should be greater than 0, got -1"),
    ],
)
def test_error_inside_a_replaced_value_points_to_the_override(override: str, message: str) -> None:
    assert refusal(override) == f"--set {override}: {message}"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("123e45", "123e45"),
        ("0123456789012345", "0123456789012345"),
        ("12345678901234e5", "12345678901234e5"),
        ("'0123456789012345'", "0123456789012345"),
        ("original", "original"),
    ],
)
def test_fingerprint_that_looks_like_a_number_stays_text(text: str, value: str) -> None:
    raw: dict[str, Any] = {}
    apply_override(raw, f"dataset.version={text}", SourceLines(name="x"))
    assert raw == {"dataset": {"version": value}}
    apply_override(raw, f"grid.dataset.version=[{text}, abc]", SourceLines(name="x"))
    assert raw["grid"]["dataset.version"] == [value, "abc"]
    apply_override(raw, "dataset.version=null", SourceLines(name="x"))
    assert raw["dataset"] == {}
