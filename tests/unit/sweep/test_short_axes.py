"""Short forms of the values of an axis."""

import re
from typing import Any

import pytest

from kd_ray.errors import SweepError
from kd_ray.sweep.config import json_schema
from kd_ray.sweep.load import parse_sweep
from kd_ray.sweep.short_axes import MAX_VALUES, values_of
from tests.fakes import SWEEP_YAML, make_sweep, plan_trials


@pytest.mark.parametrize(
    ("short", "values"),
    [
        ("0..4", [0, 1, 2, 3, 4]),
        ("7..7", [7]),
        ({"range": [0, 5]}, [0, 1, 2, 3, 4]),
        ({"range": [1, 8, 3]}, [1, 4, 7]),
        ({"range": [3, 0, -1]}, [3, 2, 1]),
        ({"linspace": [1, 4, 4]}, [1, 2, 3, 4]),
        ({"linspace": [0, 1, 3]}, [0, 0.5, 1]),
        ({"logspace": [1, 100, 3]}, [1, 10, 100]),
        ({"logspace": [0.1, 0.0001, 4]}, [0.1, 0.01, 0.001, 0.0001]),
        ({"logspace": [1, 40, 3]}, [1, 6.32456, 40]),
    ],
)
def test_values(short: Any, values: list[float]) -> None:
    assert values_of(short) == values
    assert [type(it) for it in values_of(short)] == [type(it) for it in values]


@pytest.mark.parametrize(
    ("axis", "message"),
    [
        ("0..", "must be a list of values, or 0..4, {range: [0, 5]}"),
        ("4..0", "stands for 0 values, expected 1 to 100,000; got 4..0"),
        (f"0..{MAX_VALUES}", "stands for 100,001 values"),
        ("{range: [0, 999999999999]}", "stands for 999,999,999,999 values"),
        ("{range: 5}", "range takes the first whole number, the end, which is left out, and perhaps a step; got 5"),
        ("{range: [0, 2.5]}", "range takes the first whole number"),
        ("{range: [0, 5, 0]}", "range has the step 0"),
        ("{logspace: [0, 10, 3]}", "both ends are above 0; got 0 and 10"),
        ("{logspace: [1, 10]}", "logspace takes the first value, the last value, and how many; got [1, 10]"),
        ("{linspace: [1, 10, 1]}", "linspace gives 2 to 100,000 values, got 1"),
        ("{geometric: [1, 10, 3]}", "must be a list of values, or 0..4"),
        ("{range: [0, 2], linspace: [0, 1, 2]}", "must be a list of values"),
        ("{}", "must be a list of values"),
    ],
)
def test_what_is_wrong_is_refused_at_its_line(axis: str, message: str) -> None:
    text = SWEEP_YAML.replace("temperature: [1, 4]", f"temperature: {axis}")
    with pytest.raises(SweepError, match=f"demo.yaml:15: grid.temperature: {'.*'}{re.escape(message)}"):
        parse_sweep(text, source="demo.yaml")


def test_trials_and_the_stored_file_are_those_of_the_list() -> None:
    long = make_sweep(overrides=["grid.seed=[0, 1, 2, 3, 4]", "grid.temperature=[1, 10, 100]"])
    short = make_sweep(overrides=["grid.seed=0..4", "grid.temperature={logspace: [1, 100, 3]}"])
    assert [it.trial_id for it in plan_trials(short)] == [it.trial_id for it in plan_trials(long)]
    assert short.to_yaml() == long.to_yaml()
    in_file = make_sweep(SWEEP_YAML.replace("seed: [0, 1]", "seed: {range: [0, 5]}"))
    assert in_file.axes["seed"] == (0, 1, 2, 3, 4)


def test_a_wrong_value_of_a_short_axis_is_blamed_on_it() -> None:
    with pytest.raises(SweepError, match=r"--set grid.temperature=-?\{linspace.*grid.temperature\[0\]"):
        make_sweep(overrides=["grid.temperature={linspace: [0, 4, 5]}"])


def test_editors_know_the_short_forms() -> None:
    forms = json_schema()["properties"]["grid"]["additionalProperties"]["anyOf"]
    assert [next(iter(it["properties"])) for it in forms if "properties" in it] == ["range", "linspace", "logspace"]
