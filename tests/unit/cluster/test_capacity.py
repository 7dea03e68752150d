"""How many packs Ray Tune is given at once."""

import pytest

from kd_ray.cluster.ray_tune.capacity import FreeSlots, packs_on, request_of
from kd_ray.sweep.placement import Placement, TeacherPlacement
from kd_ray.sweep.plan import Pack
from tests.unit.cluster.test_pack_queue import PACKS

pytestmark = pytest.mark.slow

TEACHER = next(pack for pack in PACKS if pack.is_teacher)
STUDENTS = next(pack for pack in PACKS if not pack.is_teacher)


def test_packs_on_a_node_follow_the_scarcest_resource() -> None:
    node = {"CPU": 16.0, "GPU": 2.0, "memory": 64e9, "a100": 2.0}
    assert packs_on(node, Placement(cpus_per_pack=4)) == 4
    assert packs_on(node, Placement(cpus_per_pack=1, gpus_per_pack=0.25)) == 8
    assert packs_on(node, Placement(cpus_per_pack=1, memory_gb_per_pack=20)) == 3
    assert packs_on(node, Placement(cpus_per_pack=1, resources_per_pack={"a100": 0.5})) == 4
    assert packs_on(node, Placement(cpus_per_pack=1, resources_per_pack={"h100": 1})) == 0


def test_a_teacher_asks_for_what_it_says_and_else_for_what_students_ask() -> None:
    placement = Placement(
        cpus_per_pack=2,
        gpus_per_pack=0.5,
        memory_gb_per_pack=3,
        teacher=TeacherPlacement(gpus_per_pack=2, resources_per_pack={"big": 1}),
    )
    assert request_of(placement.of(is_teacher=False)) == {"CPU": 2, "GPU": 0.5, "memory": 3e9}
    assert request_of(placement.of(is_teacher=True)) == {"CPU": 2, "GPU": 2, "memory": 3e9, "big": 1}


@pytest.mark.parametrize(
    ("grows", "running", "another", "expected"),
    [
        (False, [], TEACHER, True),
        (False, [TEACHER], TEACHER, True),
        (False, [TEACHER, TEACHER], TEACHER, False),
        (False, [STUDENTS, STUDENTS], TEACHER, True),
        (False, [STUDENTS, STUDENTS, STUDENTS], TEACHER, False),
        (False, [TEACHER, STUDENTS], STUDENTS, True),
        (False, [TEACHER, STUDENTS, STUDENTS], STUDENTS, False),
        (True, [TEACHER, STUDENTS, STUDENTS], STUDENTS, True),
        (True, [TEACHER, STUDENTS, STUDENTS, STUDENTS], STUDENTS, False),
    ],
)
def test_free_slots_count_shares_of_the_cluster(
    grows: bool, running: list[Pack], another: Pack, expected: bool
) -> None:
    """Four CPUs; a pack of students takes one, and one with a teacher two."""
    placement = Placement(cpus_per_pack=1, teacher=TeacherPlacement(cpus_per_pack=2))
    free_slots = FreeSlots(placement, grows=grows, nodes=lambda: [{"CPU": 2.0}, {"CPU": 2.0}])
    assert free_slots.has_room_for(another, running) is expected


def test_free_slots_follow_a_cluster_that_loses_its_nodes() -> None:
    assert not FreeSlots(Placement(), grows=False, nodes=list).has_room_for(STUDENTS, [])
    assert FreeSlots(Placement(), grows=True, nodes=list).has_room_for(STUDENTS, [])
    assert not FreeSlots(Placement(), grows=True, nodes=list).has_room_for(STUDENTS, [STUDENTS])
