"""How many packs fit on the nodes of a Ray cluster, and how many may wait for more nodes."""

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from fractions import Fraction

import ray

from kd_ray.errors import InvalidInputError
from kd_ray.sweep.packs import Pack
from kd_ray.sweep.placement import Placement

_SLOTS_AGE_S = 5.0
"""Age from which the number of slots is counted again."""

Resources = Mapping[str, float]
"""Amounts by Ray's name of the resource; memory in bytes."""


KIND_PREFIX = "accelerator_type:"
"""Of the resource by which Ray names the kind of a node's GPUs, such as `accelerator_type:H100`."""


def alive_nodes() -> list[Resources]:
    """Resources of the nodes that are alive."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


def scales() -> bool:
    """Whether the cluster has an autoscaler, Ray's second one (of KubeRay and `ray up`)."""
    # Ray (2.60) has no public function for it.
    from ray.autoscaler.v2.utils import is_autoscaler_v2

    return is_autoscaler_v2(fetch_from_server=True)


def kinds(placement: Placement, nodes: Iterable[Resources]) -> tuple[str, ...]:
    """The kinds of GPU on which a pack can run, by Ray's names of them; one empty name where there are no several kinds."""
    fitting = [node for node in nodes if packs_on(node, placement)]
    named = {name for node in fitting for name in node if name.startswith(KIND_PREFIX)}
    return tuple(sorted(named)) if placement.gpus_per_pack and len(named) > 1 else ("",)


def request_of(placement: Placement) -> dict[str, float]:
    """The resources that Ray is asked for to run one pack."""
    memory = placement.memory_gb_per_pack * 1e9
    request = {"CPU": float(placement.cpus_per_pack), "GPU": placement.gpus_per_pack, "memory": float(int(memory))}
    return {name: amount for name, amount in (request | placement.resources_per_pack).items() if amount}


def mixed_kinds(found: Sequence[str]) -> tuple[str, ...]:
    """What a launch says where packs can run on several kinds of GPU."""
    if len(found) < 2:
        return ()
    names = ", ".join(name.removeprefix(KIND_PREFIX) for name in found)
    return (
        f"packs can run on several kinds of GPU ({names}), whose results differ in their last bits; comparisons over several carry the "
        f"flag mixed_devices. `placement.resources_per_pack: {{'{found[0]}': 0.001}}` keeps them to one",
    )


def packs_on(node: Resources, placement: Placement) -> int:
    """Number of packs that fit on a node at once."""
    return int(min(node.get(name, 0) / amount for name, amount in request_of(placement).items()))


def slots(placement: Placement, nodes: Iterable[Resources]) -> int:
    """Number of packs that fit on all these nodes at once."""
    return sum(packs_on(node, placement) for node in nodes)


def check_capacity(placement: Placement, nodes: Sequence[Resources], *, scales: bool) -> str | None:
    """Refuse a placement of which no node can run one pack. On a cluster that `scales`, and beside a head without workers, packs wait.

    Returns:
        What the launch will wait for, where no node can run a pack yet.

    Raises:
        InvalidInputError: naming the request and the resources of each node.
    """
    waits = None
    has_workers = any(node.get(name) for node in nodes for name in ("CPU", "GPU"))
    for field, is_teacher in (("placement", False), ("placement.teacher", True)):
        pack_placement = placement.of(is_teacher=is_teacher)
        if slots(pack_placement, nodes):
            continue
        request = request_of(pack_placement)
        asked = f"{field}: a pack asks for {_described(request, request)}"
        if has_workers and not scales:
            available = "; ".join(_described(node, request) for node in nodes)
            raise InvalidInputError(f"{asked}, which no node has; nodes: {available}")
        waits = waits or f"{asked}; no node of the cluster has it yet, so packs wait until one joins"
    return waits


def _described(resources: Resources, names: Iterable[str]) -> str:
    """`2 CPUs, 0 GPUs, 1.5 GB of memory, 4 a100`: the amounts of the named resources."""
    units = {"CPU": "CPUs", "GPU": "GPUs"}
    texts = []
    for name in dict.fromkeys(("CPU", "GPU", *names)):
        amount = resources.get(name, 0)
        texts.append(f"{amount / 1e9:.3g} GB of memory" if name == "memory" else f"{amount:g} {units.get(name, name)}")
    return ", ".join(texts)


class FreeSlots:
    """Limits the packs that Tune has at once to the slots of the cluster, and some that wait.

    With more packs than slots, Tune would give a pack that waits for a new actor an actor that has just become free, and stop the new one
    before it is up. Packs that take less time than the start of an actor would then all run on one actor.
    """

    def __init__(
        self,
        placement: Placement,
        *,
        grows: bool,
        scales: bool = False,
        nodes: Callable[[], Collection[Resources]] = alive_nodes,
    ) -> None:
        """On a cluster that `grows`, one pack more than the slots is allowed. On one that `scales`, as many as there are slots: packs that
        wait are the demand by which its autoscaler starts nodes, so the cluster can double, as Ray's `upscaling_speed` of 1 lets it."""
        self._placements = {is_teacher: placement.of(is_teacher=is_teacher) for is_teacher in (False, True)}
        self._grows = grows
        self._scales = scales
        self._nodes = nodes
        self._slots: dict[bool, int] = {}
        self._counted_at = -_SLOTS_AGE_S

    def has_room_for(self, pack: Pack, running: Collection[Pack]) -> bool:
        """Whether a pack fits beside the running ones. Each pack takes one slot's share of the cluster."""
        if not self._fits(pack, running) and time.monotonic() - self._counted_at > _SLOTS_AGE_S:
            nodes = self._nodes()
            self._slots = {is_teacher: slots(placement, nodes) for is_teacher, placement in self._placements.items()}
            self._counted_at = time.monotonic()
        return self._fits(pack, running)

    def _fits(self, pack: Pack, running: Collection[Pack]) -> bool:
        num_slots = self._slots.get(pack.is_teacher, 0)
        num_extra = max(num_slots if self._scales else 0, 1 if self._grows else 0)
        if num_slots == 0:
            return len(running) < num_extra
        taken = sum(Fraction(1, max(1, self._slots[other.is_teacher])) for other in running)
        return taken + Fraction(1 - num_extra, num_slots) <= 1
