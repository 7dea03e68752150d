"""Short forms of the values of an axis. They are written out when a sweep is read, so that the store and all messages have the values.

seed: 0..4                              0, 1, 2, 3, 4
seed: {range: [0, 5]}                   the same: as Python's range, the end is left out; a third number is the step
temperature: {linspace: [1, 4, 4]}      1, 2, 3, 4: so many values at equal distances, both ends included
temperature: {logspace: [1, 100, 3]}    1, 10, 100: the same at equal ratios
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from kd_ray.sweep.source import SourceLines

MAX_VALUES = 100_000
"""Values of one axis; more are a slip of the keyboard."""
FORMS = "0..4, {range: [0, 5]}, {linspace: [1, 4, 4]} or {logspace: [1, 100, 3]}"
FORM_NAMES = ("range", "linspace", "logspace")
_DIGITS = 6
"""Significant digits of the values of linspace and logspace, so that they can be read and typed."""
_FROM_TO = re.compile(r"(\d+)\.\.(\d+)")


def write_out_axes(raw: dict[str, Any], origin: SourceLines) -> list[str]:
    """Put the values in the place of each short form of the grid; returns what is wrong with those that cannot be read."""
    grid = raw.get("grid")
    if not isinstance(grid, dict):
        return []
    problems = []
    for axis, value in grid.items():
        if isinstance(value, Mapping) or (isinstance(value, str) and ".." in value):
            try:
                grid[axis] = values_of(value)
            except ValueError as error:
                problems.append(origin.error(("grid", axis), str(error)))
    return problems


def values_of(short: Any) -> list[int | float]:
    """The values that a short form stands for.

    Raises:
        ValueError: it is none, or it stands for no value or for too many.
    """
    if isinstance(short, str):
        if (match := _FROM_TO.fullmatch(short)) is None:
            raise ValueError(f"must be a list of values, or {FORMS}; got {short!r}")
        return _whole(range(int(match[1]), int(match[2]) + 1), short)
    form, numbers = _only_item(short)
    if len(short) != 1 or form not in FORM_NAMES:
        raise ValueError(f"must be a list of values, or {FORMS}; got {dict(short)}")
    are_numbers = isinstance(numbers, list) and all(
        isinstance(it, int | float) and not isinstance(it, bool) and math.isfinite(it) for it in numbers
    )
    if form == "range":
        if not are_numbers or len(numbers) not in (2, 3) or not all(isinstance(it, int) for it in numbers):
            raise ValueError(
                f"range takes the first whole number, the end, which is left out, and perhaps a step; got {numbers}"
            )
        if len(numbers) == 3 and numbers[2] == 0:
            raise ValueError(f"range has the step 0; got {numbers}")
        return _whole(range(*numbers), numbers)
    if not are_numbers or len(numbers) != 3 or not isinstance(numbers[2], int):
        raise ValueError(f"{form} takes the first value, the last value, and how many; got {numbers}")
    low, high, count = numbers
    if not 2 <= count <= MAX_VALUES:
        raise ValueError(f"{form} gives 2 to {MAX_VALUES:,} values, got {count}")
    if form == "logspace" and not (low > 0 and high > 0):
        raise ValueError(f"logspace has equal ratios, so both ends are above 0; got {low} and {high}")
    shares = [i / (count - 1) for i in range(count)]
    if form == "linspace":
        return [_rounded(low + (high - low) * share) for share in shares]
    return [_rounded(low * (high / low) ** share) for share in shares]


def _only_item(short: Mapping[str, Any]) -> tuple[str, Any]:
    return next(iter(short.items()), ("", None))


def _whole(values: range, short: Any) -> list[int | float]:
    if not 1 <= len(values) <= MAX_VALUES:
        raise ValueError(f"stands for {len(values):,} values, expected 1 to {MAX_VALUES:,}; got {short}")
    return list(values)


def _rounded(value: float) -> int | float:
    rounded = float(f"{value:.{_DIGITS}g}")
    return int(rounded) if rounded.is_integer() else rounded


def shortest(seeds: Sequence[int]) -> str:
    """Seeds as `--set grid.seed=` takes them: `0..4` where they follow one another, `[0, 2]` elsewhere."""
    if len(seeds) > 1 and list(seeds) == list(range(seeds[0], seeds[-1] + 1)):
        return f"{seeds[0]}..{seeds[-1]}"
    return json.dumps(list(seeds))
