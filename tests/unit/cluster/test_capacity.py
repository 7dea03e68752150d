"""How many packs Ray Tune is given at once."""

import pytest

from kd_ray.cluster.ray_tune.capacity import (
    FreeSlots,
    check_capacity,
    kinds,
    mixed_kinds,
    packs_on,
    request_of,
)
from kd_ray.errors import InvalidInputError
from kd_ray.sweep.packs import Pack
from kd_ray.sweep.placement import Placement, TeacherPlacement
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


HEAD = {"memory": 8e9, "node:10.0.0.1": 1.0}


def test_packs_wait_for_nodes_that_may_join() -> None:
    assert check_capacity(Placement(), [{"CPU": 1.0}], scales=False) is None
    waits = (
        "placement: a pack asks for 1 CPUs, 0 GPUs; no node of the cluster has it yet, so packs wait until one joins"
    )
    assert check_capacity(Placement(), [HEAD], scales=False) == waits
    assert check_capacity(Placement(), [HEAD], scales=True) == waits
    with_gpu = Placement(teacher=TeacherPlacement(gpus_per_pack=1))
    assert (check_capacity(with_gpu, [{"CPU": 2.0}], scales=True) or "").startswith(
        "placement.teacher: a pack asks for"
    )
    with pytest.raises(InvalidInputError, match=r"1 GPUs, which no node has; nodes: 0 CPUs, 0 GPUs; 2 CPUs, 0 GPUs"):
        check_capacity(with_gpu, [HEAD, {"CPU": 2.0}], scales=False)


@pytest.mark.parametrize(("num_slots", "most"), [(0, 1), (1, 2), (4, 8)])
def test_as_many_packs_as_a_scaling_cluster_has_slots_wait_for_more(num_slots: int, most: int) -> None:
    """They are the demand an autoscaler goes by; one at a time would start one node after another."""
    nodes = [HEAD, {"CPU": float(num_slots)}]
    free_slots = FreeSlots(Placement(), grows=True, scales=True, nodes=lambda: nodes)
    assert free_slots.has_room_for(STUDENTS, [STUDENTS] * (most - 1))
    assert not free_slots.has_room_for(STUDENTS, [STUDENTS] * most)


def test_several_kinds_of_gpu_are_named() -> None:
    nodes = [
        {"CPU": 8.0, "GPU": 1.0, "accelerator_type:H100": 1.0},
        {"CPU": 8.0, "GPU": 1.0, "accelerator_type:A100": 1.0},
        {"CPU": 8.0},
    ]
    found = kinds(Placement(gpus_per_pack=0.5), nodes)
    assert found == ("accelerator_type:A100", "accelerator_type:H100")
    (note,) = mixed_kinds(found)
    assert note.startswith("packs can run on several kinds of GPU (A100, H100)")
    kept = Placement(gpus_per_pack=0.5, resources_per_pack={"accelerator_type:A100": 0.001})
    assert kinds(kept, nodes) == ("",)
    assert kinds(Placement(), nodes) == ("",)
    assert mixed_kinds(("",)) == ()
