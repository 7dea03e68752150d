"""Values of grid axes, whose text may come from a store that somebody else has written."""

import pytest

from kd_ray.results.axis_columns import axis_values, plain

DEEP = "[" * 100_000


def test_deep_nesting_is_a_value_error() -> None:
    """Guard: Python's own parser raises RecursionError, which an aggregation does not expect of a damaged trial."""
    with pytest.raises(ValueError, match="recursion limit"):
        axis_values({"training.optimizer.lr": DEEP})


def test_deep_nesting_in_a_column_of_texts_stays_text() -> None:
    assert axis_values({"training.schedule.milestones": DEEP})["training.schedule.milestones"] == DEEP
    assert plain(DEEP) == DEEP


@pytest.mark.parametrize(
    ("text", "value"), [("1", 1), ("0.5", 0.5), ("true", True), ("null", None), ("[1]", "[1]"), ("cosine", "cosine")]
)
def test_plain_values(text: str, value: object) -> None:
    assert plain(text) == value
    assert type(plain(text)) is type(value)
