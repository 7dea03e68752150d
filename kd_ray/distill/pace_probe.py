"""A short measurement: how long a step of several students takes on this device, and how much memory.

It runs the training loop itself on random samples, with a teacher whose logits are already computed, so it needs no data. The number of
students is doubled until the time per student grows.
"""

import functools
import itertools
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from kd_ray.distill.batches import Batch
from kd_ray.distill.device import device_of, forget_peak, free_bytes, make_deterministic, name_of, named, peak_bytes
from kd_ray.distill.fit import fit
from kd_ray.distill.objectives import objective_of
from kd_ray.distill.samples import SAMPLE_KINDS, ResidentData
from kd_ray.distill.samples.kind import Resident
from kd_ray.distill.student import Student, new_student
from kd_ray.distill.teacher import Teacher
from kd_ray.errors import OutOfMemoryError, TrialError
from kd_ray.models.text_classifier import text_classifier
from kd_ray.results.probe import Pace, Probe
from kd_ray.sweep.datasets import input_size
from kd_ray.sweep.distillation import KnowledgeDistillation
from kd_ray.sweep.placement import Placement
from kd_ray.sweep.spec import TrialSpec
from kd_ray.sweep.training import ConstantSchedule, Execution, Training

_LARGEST = 16
_WORSE = 1.1
"""More students side by side are acceptable while the time per student is at most this multiple of the best one."""
_STEPS = 2
"""Of an epoch."""
_EPOCHS = 3
"""The first warms up, and the fastest of the others counts: the machine may be shared."""
_LEAST_S, _MOST_S = 0.1, 1.5
"""Epochs are run until they have taken the first; after an epoch longer than the second, no larger number of students is tried."""


def probe(spec: TrialSpec, placement: Placement, *, sharers: int) -> Probe:
    """Measure students like this one, with the threads and on the device of a pack. `sharers` packs share its memory. Takes seconds.

    Raises:
        TrialError: not even one student can be trained here.
    """
    assert spec.training is not None
    make_deterministic(placement.cpus_per_pack)
    device = device_of(placement)
    data = _random_data(spec, spec.training, device)
    room_bytes = free_bytes(device) // sharers
    root = Path(placement.data_root)
    step_s = functools.partial(_step_s, spec, data, device, root)
    loop = pace_of(functools.partial(step_s, "loop"), device, first=1)
    if loop is None:
        raise OutOfMemoryError(f"the memory of {name_of(device)} is too small for one {spec.model}")
    grouped = None
    if spec.training.clip_norm is None:
        with suppress(TrialError):
            grouped = pace_of(functools.partial(step_s, "grouped"), device, first=2)
    return Probe(
        model=spec.model,
        device=name_of(device),
        threads=placement.cpus_per_pack,
        room_bytes=room_bytes,
        loop=loop,
        grouped=grouped,
    )


def pace_of(step_s: Callable[[int], float], device: torch.device, *, first: int) -> Pace | None:
    """The pace of `first` students, of twice as many, and so on, until more students make each of them slower.

    `step_s` gives the seconds of a step of a number of students. None where memory is too small for `first`.

    Raises:
        TrialError: networks of this kind cannot be trained together.
    """
    seconds: dict[int, float] = {}
    peaks: dict[int, int] = {}
    count = first
    while count <= _LARGEST:
        forget_peak(device)
        try:
            seconds[count] = step_s(count)
        except OutOfMemoryError:
            break
        peaks[count] = peak_bytes(device)
        if seconds[count] * _STEPS > _MOST_S:
            break
        count *= 2
    if not seconds:
        return None
    best = min(together_s / count for count, together_s in seconds.items())
    while (most := max(seconds)) and seconds[most] / most > _WORSE * best:
        del seconds[most]
    few, many = min(peaks), max(peaks)
    growth = (peaks[many] - peaks[few]) // (many - few) if many > few else 0
    return Pace(seconds=seconds, bytes_per_student=max(0, growth))


def _step_s(
    spec: TrialSpec, data: ResidentData, device: torch.device, root: Path, execution: Execution, count: int
) -> float:
    """Seconds of a step of `count` students side by side."""
    assert spec.training is not None
    build = None
    if (encoder := spec.encoder) is not None:
        anew = encoder.model_copy(update={"init": "random"})
        build = functools.partial(text_classifier, spec.model, anew, data.num_classes, root)
    training = spec.training.model_copy(
        update={"epochs": 1_000_000, "schedule": ConstantSchedule(name="constant"), "execution": execution}
    )
    asked = spec.model_copy(update={"training": training})
    if spec.distillation is not None and objective_of(spec.distillation).needs_context:
        # Its background needs data and a real teacher; its step takes about as long as one of plain distillation.
        plain = KnowledgeDistillation(temperature=4.0, alpha=0.5, t_squared=True)
        asked = asked.model_copy(update={"distillation": plain})
    students = [new_student(asked, training, data, device, None, build=build) for _ in range(count)]
    source = students[0].taught_by
    teachers = {source: _ReadyTeacher(data, device)} if source else {}
    times = []
    for progress in fit(students, teachers, data, on_failure=_raise, report_every_s=float("inf")):
        if not progress.end_of_epoch:
            continue
        times.append(time.perf_counter())
        if len(times) >= _EPOCHS and times[-1] - times[0] >= _LEAST_S:
            break
    return min(later - earlier for earlier, later in itertools.pairwise(times)) / _STEPS


class _ReadyTeacher(Teacher):
    """Looks all logits up, like a teacher with a complete table."""

    def __init__(self, data: ResidentData, device: torch.device) -> None:
        super().__init__(torch.nn.Identity())
        self._logits_NC = torch.randn(len(data.train), data.num_classes, generator=torch.Generator().manual_seed(0))
        self._device = device

    def logits(self, batch: Batch) -> Tensor:
        return self._logits_NC[batch.samples_B].to(self._device)


def _random_data(spec: TrialSpec, training: Training, device: torch.device) -> ResidentData:
    size = input_size(spec.dataset)
    count = _STEPS * training.batch_size
    random = torch.Generator().manual_seed(0)

    def split(count: int) -> Resident:
        labels_N = torch.randint(spec.dataset.num_classes, (count,), generator=random)
        resident: Resident = SAMPLE_KINDS[spec.dataset.modality].random(labels_N, size, random)
        return resident.to(device)

    return ResidentData(train=split(count), test=split(1), validation=None, num_classes=spec.dataset.num_classes)


def _raise(student: Student, error: Exception) -> None:
    del student
    raise named(error)
