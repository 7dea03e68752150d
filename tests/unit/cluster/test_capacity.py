"""How many packs Ray Tune is given at once."""

import pytest

from kd_ray.cluster.ray_tune.capacity import (
    FreeSlots,
    NodeGroup,
    check_capacity,
    kinds,
    mixed_kinds,
    most_slots,
    packs_on,
    request_of,
)
from kd_ray.errors import InvalidInputError
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


HEAD = {"memory": 8e9, "node:10.0.0.1": 1.0}
SMALL, LARGE = NodeGroup(resources={"CPU": 2}, most=3), NodeGroup(resources={"CPU": 4, "GPU": 1}, most=2)


def test_nodes_that_an_autoscaler_may_start_count() -> None:
    assert most_slots(Placement(), [HEAD], [SMALL, LARGE]) == 3 * 2 + 2 * 4
    assert most_slots(Placement(gpus_per_pack=0.5), [HEAD], [SMALL, LARGE]) == 2 * 2
    assert most_slots(Placement(), [{"CPU": 16.0}], [SMALL]) == 16
    assert most_slots(Placement(), [], []) == 0


def test_packs_wait_for_nodes_that_may_join() -> None:
    assert check_capacity(Placement(), [{"CPU": 1.0}], []) is None
    waits = (
        "placement: a pack asks for 1 CPUs, 0 GPUs; no node of the cluster has it yet, so packs wait until one joins"
    )
    assert check_capacity(Placement(), [HEAD], [SMALL]) == waits
    assert check_capacity(Placement(), [HEAD], []) == waits
    gpu = check_capacity(Placement(teacher=TeacherPlacement(gpus_per_pack=1)), [{"CPU": 2.0}], [LARGE])
    assert gpu is not None
    assert gpu.startswith("placement.teacher: a pack asks for 1 CPUs, 1 GPUs;")


@pytest.mark.parametrize(
    ("nodes", "groups", "message"),
    [
        ([{"CPU": 2.0}], [], "which no node has; nodes: 2 CPUs, 0 GPUs"),
        ([HEAD], [SMALL], "nor one that the autoscaler may start; nodes: 0 CPUs, 0 GPUs; 2 CPUs, 0 GPUs"),
        ([{"CPU": 2.0}], [LARGE], "nor one that the autoscaler may start; nodes: 2 CPUs, 0 GPUs; 4 CPUs, 1 GPUs"),
    ],
)
def test_packs_that_no_node_can_ever_run_are_refused(
    nodes: list[dict[str, float]], groups: list[NodeGroup], message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        check_capacity(Placement(cpus_per_pack=8), nodes, groups)


def test_all_packs_that_an_autoscaler_can_serve_wait_at_once() -> None:
    """They are the demand it goes by; one after another they would start one node after another."""
    free_slots = FreeSlots(Placement(), grows=True, nodes=lambda: [HEAD], groups=[SMALL])
    assert free_slots.has_room_for(STUDENTS, [STUDENTS] * 5)
    assert not free_slots.has_room_for(STUDENTS, [STUDENTS] * 6)
    grown = FreeSlots(Placement(), grows=True, nodes=lambda: [HEAD, {"CPU": 2.0}], groups=[SMALL])
    assert grown.has_room_for(STUDENTS, [STUDENTS] * 5)
    assert not grown.has_room_for(STUDENTS, [STUDENTS] * 6)


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
