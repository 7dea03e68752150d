"""docs/contributing.md names what there is."""

import re
from functools import reduce
from importlib import import_module
from pathlib import Path

import pytest

GUIDE = (Path(__file__).parents[1] / "docs" / "contributing.md").read_text()
STEPS = re.findall(r"^\| \d+ \| `(kd_ray\.[^`]+)` \|", GUIDE, flags=re.MULTILINE)


def test_the_way_of_a_trial_has_a_dozen_steps() -> None:
    assert len(STEPS) == 12


@pytest.mark.parametrize("step", STEPS)
def test_a_step_of_the_way_of_a_trial_exists(step: str) -> None:
    parts = step.split(".")
    # Modules are in lower case, and the names in them follow.
    length = max(i for i in range(2, len(parts)) if _is_module(".".join(parts[:i])))
    assert callable(reduce(getattr, parts[length:], import_module(".".join(parts[:length]))))


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:kd_ray|tests|docs)/[\w/.]+\.(?:py|md))`", GUIDE))))
def test_a_file_that_a_recipe_names_exists(path: str) -> None:
    assert (Path(__file__).parents[1] / path).is_file()


def _is_module(name: str) -> bool:
    try:
        import_module(name)
    except ModuleNotFoundError:
        return False
    return True
