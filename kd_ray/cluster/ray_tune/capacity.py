"""How many packs fit on the nodes of a Ray cluster, and on those that its autoscaler can start."""

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import ray

from kd_ray.errors import InvalidInputError
from kd_ray.sweep.placement import Placement
from kd_ray.sweep.plan import Pack

_SLOTS_AGE_S = 5.0
"""Age from which the number of slots is counted again."""
_UNLIMITED = 1000
"""Nodes of a group for which an autoscaler sets no limit."""

Resources = Mapping[str, float]
"""Amounts by Ray's name of the resource; memory in bytes."""


KIND_PREFIX = "accelerator_type:"
"""Of the resource by which Ray names the kind of a node's GPUs, such as `accelerator_type:H100`."""


@dataclass(frozen=True, kw_only=True)
class NodeGroup:
    """Nodes of one form that an autoscaler starts when packs wait for them."""

    resources: Resources
    """Of one node."""
    most: int
    """Nodes there can be at once."""


def alive_nodes() -> list[Resources]:
    """Resources of the nodes that are alive."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


def node_groups() -> list[NodeGroup]:
    """What the autoscaler of the cluster has told it; nothing where there is none."""
    # Ray (2.60) has no public function for it; its own libraries size their work by this one.
    from ray._private.state import state

    config = state.get_cluster_config()
    groups = config.node_group_configs if config is not None else ()
    return [
        NodeGroup(resources=dict(group.resources), most=_UNLIMITED if group.max_count < 0 else group.max_count)
        for group in groups
    ]


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


def most_slots(placement: Placement, nodes: Iterable[Resources], groups: Iterable[NodeGroup]) -> int:
    """Number of packs that fit at once when the autoscaler has started all it may."""
    return max(slots(placement, nodes), sum(group.most * packs_on(group.resources, placement) for group in groups))


def check_capacity(placement: Placement, nodes: Sequence[Resources], groups: Sequence[NodeGroup]) -> str | None:
    """Refuse a placement of which no node can run one pack. Nodes that the autoscaler may start count; so does any node that may join a
    head without workers.

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
        if not most_slots(pack_placement, nodes, groups) and (groups or has_workers):
            forms = [*nodes, *(group.resources for group in groups if group.most)]
            what = "no node has, nor one that the autoscaler may start" if groups else "no node has"
            available = "; ".join(_described(node, request) for node in forms) or "none"
            raise InvalidInputError(f"{asked}, which {what}; nodes: {available}")
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
    """Limits the packs that Tune has at once to the slots of the cluster, and to those that its autoscaler can add.

    With more packs than slots, Tune would give a pack that waits for a new actor an actor that has just become free, and stop the new one
    before it is up. Packs that take less time than the start of an actor would then all run on one actor.
    """

    def __init__(
        self,
        placement: Placement,
        *,
        grows: bool,
        nodes: Callable[[], Collection[Resources]] = alive_nodes,
        groups: Sequence[NodeGroup] = (),
    ) -> None:
        """On a cluster that `grows`, at least one pack more than the slots is allowed: packs that wait are the demand that starts nodes."""
        self._placements = {is_teacher: placement.of(is_teacher=is_teacher) for is_teacher in (False, True)}
        self._num_extra = 1 if grows else 0
        self._nodes = nodes
        self._groups = groups
        self._slots: dict[bool, int] = {}
        self._most: dict[bool, int] = {}
        self._counted_at = -_SLOTS_AGE_S

    def has_room_for(self, pack: Pack, running: Collection[Pack]) -> bool:
        """Whether a pack fits beside the running ones. Each pack takes one slot's share of the cluster."""
        if not self._fits(pack, running) and time.monotonic() - self._counted_at > _SLOTS_AGE_S:
            nodes = self._nodes()
            for is_teacher, placement in self._placements.items():
                self._slots[is_teacher] = slots(placement, nodes)
                self._most[is_teacher] = most_slots(placement, nodes, self._groups)
            self._counted_at = time.monotonic()
        return self._fits(pack, running)

    def _fits(self, pack: Pack, running: Collection[Pack]) -> bool:
        num_slots = self._slots.get(pack.is_teacher, 0)
        num_extra = max(self._num_extra, self._most.get(pack.is_teacher, 0) - num_slots)
        if num_slots == 0:
            return len(running) < num_extra
        taken = sum(Fraction(1, max(1, self._slots[other.is_teacher])) for other in running)
        return taken + Fraction(1 - num_extra, num_slots) <= 1
