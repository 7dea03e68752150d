"""What a measurement advises: answers done by hand, and the store's part."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kd_ray.errors import CorruptObjectError
from kd_ray.results.launch_plan import plan
from kd_ray.results.probe import (
    UNMEASURED,
    Pace,
    Probe,
    chosen_pack_size,
    read_probe,
    representative,
    write_probe,
)
from kd_ray.results.store import Store
from kd_ray.sweep.packs import even_parts
from kd_ray.sweep.placement import Placement
from kd_ray.sweep.plan import expand
from kd_ray.sweep.spec import Role
from tests.sweeps import tiny_sweep

LOOP = Pace(seconds={1: 0.010, 2: 0.016, 4: 0.028}, bytes_per_student=1_000)
GROUPED = Pace(seconds={2: 0.010, 4: 0.014, 8: 0.020}, bytes_per_student=5_000)
AUTO = Placement(pack_size="auto")


def probe(**changes: object) -> Probe:
    settings = {"model": "lenet5", "device": "cpu", "threads": 1, "room_bytes": 10**9, "loop": LOOP, "grouped": GROUPED}
    return Probe(**settings | changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(("count", "size", "parts"), [(20, 8, [7, 7, 6]), (8, 8, [8]), (9, 8, [5, 4]), (1, 8, [1])])
def test_parts_are_even(count: int, size: int, parts: list[int]) -> None:
    assert even_parts(count, size) == parts


@pytest.mark.slow
@given(st.integers(1, 500), st.integers(1, 60))
def test_even_parts_hold_everything_and_differ_by_one_at_most(count: int, size: int) -> None:
    parts = even_parts(count, size)
    assert sum(parts) == count
    assert max(parts) <= size
    assert max(parts) - min(parts) <= 1
    assert len(parts) == -(-count // size)


@pytest.mark.parametrize(("count", "seconds"), [(1, 0.010), (2, 0.016), (3, 0.022), (4, 0.028), (8, 0.056)])
def test_the_pace_between_and_beyond_the_measured_numbers(count: int, seconds: float) -> None:
    assert LOOP.step_s(count) == pytest.approx(seconds)


def test_below_the_smallest_measured_number_a_student_costs_its_share() -> None:
    assert GROUPED.step_s(1) == pytest.approx(0.005)


@pytest.mark.parametrize(
    ("streams", "slots", "size"),
    [
        # One slot: the largest pack that pays, for nothing else uses the machine.
        ([8], 1, 4),
        # Two slots: 4 and 4 end together.
        ([8], 2, 4),
        # Four slots and eight students: two on each.
        ([8], 4, 2),
        # As many slots as students.
        ([8], 8, 1),
        # More students than could ever wait: the cheapest way.
        ([40, 40], 2, 4),
        # Six on two slots: in even parts of at most four, 3 and 3.
        ([6], 2, 4),
        # Nine on two slots: 3, 3 and 3 would leave one idle for long.
        ([9], 2, 2),
    ],
)
def test_packs_are_as_large_as_pays_and_as_small_as_keeps_every_slot_at_work(
    streams: list[int], slots: int, size: int
) -> None:
    assert probe().pack_size("loop", streams, slots) == size


def test_no_pack_is_larger_than_its_memory() -> None:
    assert probe(room_bytes=3_750).pack_size("loop", [40], 1) == 3
    assert probe(room_bytes=10).pack_size("loop", [40], 1) == 1
    assert probe(room_bytes=25_000).pack_size("grouped", [40], 1) == 4


def test_a_network_that_cannot_be_grouped_goes_by_its_loop() -> None:
    assert probe(grouped=None).pack_size("grouped", [40], 1) == 4


def test_advice_names_what_was_measured() -> None:
    measured = "measured on cpu with 1 thread: 4 lenet5 in a loop take 7 ms per student and step"
    assert probe().advice() == (
        f"{measured}, 8 grouped 2.5 ms; training.execution: grouped would be 2.8 times as fast "
        "(with other last bits, so these would be other trials)"
    )
    slow = Pace(seconds={2: 0.014}, bytes_per_student=0)
    assert probe(grouped=slow).advice() == f"{measured}, 2 grouped 7 ms; training.execution: loop is the right choice"
    assert probe(grouped=None).advice() == measured


def test_the_store_gives_back_what_was_measured(store: Store, tmp_path: Path) -> None:
    file = tiny_sweep(tmp_path, "placement.pack_size=auto")
    planned = expand(file, lambda path: path)
    student = representative(planned)
    assert student
    assert student.role is not Role.TEACHER
    placement = file.sweep.placement
    assert read_probe(store, student, placement) is None
    write_probe(store, student, placement, probe())
    assert read_probe(store, student, placement) == probe()
    # No stream has more than two students.
    assert chosen_pack_size(placement, probe(), planned, done=(), slots=1) == 2
    assert read_probe(store, student, placement.model_copy(update={"cpus_per_pack": 2})) is None
    (key,) = [item.key for item in store.entries("probes")]
    store.put(key, b'{"loop": 1}')
    with pytest.raises(CorruptObjectError, match="does not hold a probe; it can be deleted"):
        read_probe(store, student, placement)


def test_without_a_measurement_packs_have_the_usual_size(tmp_path: Path) -> None:
    planned = expand(tiny_sweep(tmp_path), lambda path: path)
    assert chosen_pack_size(AUTO, None, planned, done=(), slots=1) == UNMEASURED
    assert chosen_pack_size(Placement(pack_size=5), probe(), planned, done=(), slots=1) == 5


def test_plan_tells_the_advice_of_the_store(store: Store, tmp_path: Path) -> None:
    file = tiny_sweep(tmp_path)
    assert plan(file, store).advice is None
    student = representative(plan(file, store).planned)
    assert student
    write_probe(store, student, file.sweep.placement, probe())
    assert plan(file, store).advice == probe().advice()
