"""How many packs Ray Tune is given at once."""

import pytest

from kd_ray.cluster.ray_tune import handout
from kd_ray.cluster.ray_tune.handout import Room, packs_on, request_of
from kd_ray.sweep.placement import Placement, TeacherPlacement
from kd_ray.sweep.plan import Pack
from tests.unit.cluster.test_queue import PACKS

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
def test_room_counts_shares_of_the_cluster(
    monkeypatch: pytest.MonkeyPatch, grows: bool, running: list[Pack], another: Pack, expected: bool
) -> None:
    """Four CPUs; a pack of students takes one, and one with a teacher two."""
    monkeypatch.setattr(handout, "nodes", lambda: [{"CPU": 2.0}, {"CPU": 2.0}])
    room = Room(Placement(cpus_per_pack=1, teacher=TeacherPlacement(cpus_per_pack=2)), grows=grows)
    assert room.for_another(running, another) is expected


def test_room_follows_a_cluster_that_loses_its_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handout, "nodes", list)
    assert not Room(Placement(), grows=False).for_another([], STUDENTS)
    assert Room(Placement(), grows=True).for_another([], STUDENTS)
    assert not Room(Placement(), grows=True).for_another([STUDENTS], STUDENTS)
