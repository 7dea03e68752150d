"""From trials to packs: what one worker trains side by side.

The trials that are complete are given as a set of trial ids, so resuming and extending are the same set difference.
"""

import itertools
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cached_property

from kd_ray.sweep.placement import Placement
from kd_ray.sweep.plan import PlannedTrial
from kd_ray.sweep.spec import Role


@dataclass(frozen=True, kw_only=True)
class Pack:
    """Trials that one worker trains side by side on one stream of batches."""

    trials: tuple[PlannedTrial, ...]
    retries: int = 0
    """How often these trials were started again in this launch, because their worker had died."""
    crashes: int = 0
    """How often of those they may be at fault: the worker died alone, not with its node."""
    until_epoch: int | None = None
    """The epoch after which training stops for now, while settings are searched; None trains to the end."""

    @property
    def pack_id(self) -> str:
        """Short name for people and for the scheduler; packs with the same trials have the same name."""
        return f"{self.trials[0].spec.role.value}-{self.trials[0].trial_id}x{len(self.trials)}"

    @property
    def is_teacher(self) -> bool:
        """Whether it trains, or evaluates, a teacher; no pack has a teacher beside students."""
        return self.trials[0].spec.role is Role.TEACHER

    @cached_property
    def teachers(self) -> frozenset[str]:
        """Trial ids of the teachers that must be complete before the pack starts."""
        return frozenset(trial.spec.teacher.trial_id for trial in self.trials if trial.spec.teacher)


def even_parts(count: int, size: int) -> list[int]:
    """`count` things in as few parts of at most `size` as can be; parts differ by one at most, the larger ones first."""
    parts = -(-count // size)
    smaller, num_larger = divmod(count, parts)
    return [smaller + 1] * num_larger + [smaller] * (parts - num_larger)


def make_packs(trials: Iterable[PlannedTrial], *, pack_size: int, done: Collection[str] = ()) -> tuple[Pack, ...]:
    """Group the trials that are not `done` into even packs of at most `pack_size` that share one stream of batches.

    Packs stand in the order in which they should start: teachers, distilled students, scratch students (a distilled pack waits for its
    teachers, and scratch students fill that time).
    """
    streams: dict[object, list[PlannedTrial]] = {}
    for trial in trials:
        if trial.trial_id not in done:
            streams.setdefault(trial.spec.stream_key(), []).append(trial)
    packs = []
    for members in streams.values():
        rest = iter(members)
        packs += [Pack(trials=tuple(itertools.islice(rest, part))) for part in even_parts(len(members), pack_size)]
    order = [Role.TEACHER, Role.DISTILLED, Role.SCRATCH]
    return tuple(sorted(packs, key=lambda pack: order.index(pack.trials[0].spec.role)))


def advice_for_teachers(packs: Collection[Pack], placement: Placement, cpus: int) -> str | None:
    """A sentence where CPUs of a machine that has so many are idle while teachers train; None elsewhere.

    It is no default, because the last bits of a result follow the number of threads.
    """
    teachers = {trial.trial_id: trial.spec for pack in packs if pack.is_teacher for trial in pack.trials}
    waiting = [pack for pack in packs if pack.teachers & teachers.keys()]
    count = sum(pack.is_teacher for pack in packs)
    taken = placement.cpus_per_pack * (len(packs) - len(waiting))
    if not waiting or taken >= cpus or placement.teacher or placement.gpus_per_pack:
        return None
    each = placement.cpus_per_pack + (cpus - taken) // count
    if each == placement.cpus_per_pack or any(spec.training is None for spec in teachers.values()):
        return None
    return (
        f"{cpus - taken} of {cpus} CPUs here would be idle while {'the teacher trains' if count == 1 else 'teachers train'}: "
        f"placement.teacher.cpus_per_pack: {each} uses them; a teacher's last bits follow this number"
    )
