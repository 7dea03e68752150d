"""How results are written as text."""

import numpy as np
import pytest

from kd_ray.shown import rounded


def test_a_number_in_the_middle_is_written_alike_however_it_was_computed() -> None:
    """Guard: a mean was 75.79 in `compare` and 75.80 in the report."""
    accuracies = np.array([0.7475, 0.7684])
    one, other = 100 * accuracies.mean(), (100 * accuracies).mean()
    assert rounded(float(one), 2) == rounded(float(other), 2) == "75.80"
    assert rounded(75.795, 2) == "75.80" and f"{75.795:.2f}" == "75.80"
    assert rounded(np.nextafter(75.795, 0), 2) == "75.80" != f"{np.nextafter(75.795, 0):.2f}"


@pytest.mark.parametrize(
    ("value", "digits", "sign", "expected"),
    [
        (63.95, 1, False, "64.0"),
        (-10.45, 1, False, "-10.5"),
        (0.0, 2, True, "+0.00"),
        (1.2344999, 3, True, "+1.234"),
        (float("nan"), 1, False, "nan"),
    ],
)
def test_what_is_in_the_middle_goes_away_from_zero(value: float, digits: int, sign: bool, expected: str) -> None:
    assert rounded(value, digits, sign=sign) == expected
