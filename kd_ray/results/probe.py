"""The probe: measured time and memory of students that train side by side, and the pack size that follows from them.

`distill/pace_probe.py` measures. A launch with `pack_size: auto` uses the probe, and `plan` shows its advice. A probe can be deleted.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from heapq import heapreplace
from typing import Annotated

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, TypeAdapter

from kd_ray.errors import CorruptObjectError
from kd_ray.results.store import Store, probe_key
from kd_ray.sweep.datasets import input_size
from kd_ray.sweep.packs import even_parts
from kd_ray.sweep.placement import Placement
from kd_ray.sweep.plan import PlannedTrial
from kd_ray.sweep.spec import Role, TrialSpec
from kd_ray.sweep.training import Execution

UNMEASURED = 8
"""Students of a pack with `pack_size: auto` and no probe."""
_USED_MEMORY = 0.8
"""Share of the free memory that the students of a pack may take, by the measurement."""
_WORTH = 0.99
"""A smaller pack is chosen when the sweep then ends in less than this share of the time."""
_ADVISED_FROM = 1.2
"""`grouped` is advised when it is at least this many times as fast."""


@dataclass(frozen=True, kw_only=True)
class Pace:
    """Time and memory of students side by side."""

    seconds: Annotated[Mapping[PositiveInt, PositiveFloat], Field(min_length=1)]
    """Number of students → seconds of a step of all of them. The largest number makes none of them slower."""
    bytes_per_student: NonNegativeInt
    """Memory of one more student."""

    def step_s(self, count: int) -> float:
        """Seconds of a step of `count` students, interpolated linearly between the measured numbers."""
        known = sorted(self.seconds.items())
        high = next((i for i, (measured, _) in enumerate(known) if measured >= count), len(known))
        if high == len(known) or high == 0:
            nearest, seconds = known[min(high, len(known) - 1)]
            return seconds * count / nearest
        (low_count, low_s), (high_count, high_s) = known[high - 1], known[high]
        return low_s + (high_s - low_s) * (count - low_count) / (high_count - low_count)

    def most(self, room_bytes: int) -> int:
        """Largest number of students that fit into `room_bytes` and make none of them slower."""
        fitting = (
            int(_USED_MEMORY * room_bytes / self.bytes_per_student) if self.bytes_per_student else max(self.seconds)
        )
        return max(1, min(max(self.seconds), fitting))


@dataclass(frozen=True, kw_only=True)
class Probe:
    """The paces of students of one kind, measured on one device."""

    model: str
    device: str
    threads: int
    room_bytes: int
    """Free memory for the students of one pack when it was measured."""
    loop: Pace
    """One after another."""
    grouped: Pace | None
    """As one network with their channels side by side; None where that cannot be done."""

    def pack_size(self, execution: Execution, streams: Sequence[int], slots: int) -> int:
        """The pack size with which the students end earliest; `streams` has the students per stream of batches, `slots` run at a time."""
        pace = self._pace(execution)
        largest = max(1, min(pace.most(self.room_bytes), max(streams, default=1)))
        best, best_s = largest, _ends_after(pace, largest, streams, slots)
        for size in range(largest - 1, 0, -1):
            seconds = _ends_after(pace, size, streams, slots)
            if seconds < _WORTH * best_s:
                best, best_s = size, seconds
        return best

    def advice(self) -> str:
        """Its advice about `training.execution`, in a sentence."""
        threads = f"{self.threads} thread{'' if self.threads == 1 else 's'}"
        count = self.loop.most(self.room_bytes)
        loop_ms = 1000 * self.loop.step_s(count) / count
        measured = f"measured on {self.device} with {threads}: {count} {self.model} in a loop take {loop_ms:.3g} ms per student and step"
        if self.grouped is None:
            return measured
        count = self.grouped.most(self.room_bytes)
        grouped_ms = 1000 * self.grouped.step_s(count) / count
        measured = f"{measured}, {count} grouped {grouped_ms:.3g} ms"
        if loop_ms < _ADVISED_FROM * grouped_ms:
            return f"{measured}; training.execution: loop is the right choice"
        return (
            f"{measured}; training.execution: grouped would be {loop_ms / grouped_ms:.1f} times as fast "
            "(with other last bits, so these would be other trials)"
        )

    def _pace(self, execution: Execution) -> Pace:
        return self.grouped if execution == "grouped" and self.grouped is not None else self.loop


_FORM = TypeAdapter(Probe)


def _ends_after(pace: Pace, size: int, streams: Sequence[int], slots: int) -> float:
    """Seconds until every student has made one step, when each free slot takes the next pack."""
    free_at = [0.0] * max(1, slots)
    for students in streams:
        for part in even_parts(students, size):
            heapreplace(free_at, free_at[0] + pace.step_s(part))
    return max(free_at)


def representative(planned: Iterable[PlannedTrial]) -> TrialSpec | None:
    """The student whose measurement stands for a sweep's: its first one; None where there are no students."""
    return next((trial.spec for trial in planned if trial.spec.role is not Role.TEACHER), None)


def chosen_pack_size(
    placement: Placement, probe: Probe | None, planned: Iterable[PlannedTrial], *, done: Collection[str], slots: int
) -> int:
    """The number that `placement.pack_size` gives, or the one that a probe chooses for the students not `done` yet."""
    if placement.pack_size != "auto":
        return placement.pack_size
    students = [trial.spec for trial in planned if trial.trial_id not in done and trial.spec.role is not Role.TEACHER]
    if probe is None or not students:
        return UNMEASURED
    assert students[0].training is not None
    streams = Counter(spec.stream_key() for spec in students)
    return probe.pack_size(students[0].training.execution, list(streams.values()), slots)


def read_probe(store: Store, spec: TrialSpec, placement: Placement, kind: str = "") -> Probe | None:
    """The measurement for students like this one on a kind of GPU, or None.

    Raises:
        CorruptObjectError: there is something else in its place.
    """
    key = probe_key(_key(spec, placement, kind))
    data = store.get(key)
    if data is None:
        return None
    try:
        return _FORM.validate_json(data)
    except ValueError as error:
        raise CorruptObjectError(f"store {store.url}: {key!r} does not hold a probe; it can be deleted") from error


def write_probe(store: Store, spec: TrialSpec, placement: Placement, probe: Probe, kind: str = "") -> None:
    """Store a measurement, in the place of an earlier one."""
    store.put(probe_key(_key(spec, placement, kind)), _FORM.dump_json(probe, indent=1))


def _key(spec: TrialSpec, placement: Placement, kind: str) -> str:
    """Names what the measurement depends on, as far as a driver knows it."""
    training = spec.training
    assert training is not None
    parts = [
        *(spec.model, input_size(spec.dataset), spec.dataset.num_classes),
        *(training.batch_size, training.augmentation, training.precision, training.compile),
        *(placement.cpus_per_pack, placement.gpus_per_pack),
        *([kind] if kind else []),
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
