"""The clocks around the parts of a step sit on functions that training still calls."""

import pytest

from tests.benchmarks import where
from tests.benchmarks.ours import Race, synthetic_images


def test_every_part_of_a_step_is_seen() -> None:
    race = Race(student="lenet5", teacher="lenet5", data=synthetic_images(2 * 64))
    ms = where.ms_per_step(race, "live", rounds=1)
    assert set(ms) == {*where.PARTS, "total"}
    assert all(ms[part] > 0 for part in where.PARTS), ms
    assert sum(ms[part] for part in where.PARTS) == pytest.approx(ms["total"])
