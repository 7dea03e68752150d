"""The steps of a pack on a GPU as one CUDA graph.

A small network spends most of a step on starting its few hundred operations one by one. Here the step of all students is recorded once and
then started as a whole; students stand in lanes, so that their operations run side by side. Each operation is the same one with the same
operands as without the graph, so a student's bits do not depend on the others.
"""

import itertools
import logging
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from kd_ray.distill.batches import Batch
from kd_ray.distill.grouped import GroupedStudents
from kd_ray.distill.objectives import objective_of
from kd_ray.distill.samples.kind import images_of
from kd_ray.distill.step import compute
from kd_ray.distill.student import Student, learning_rate, set_rate

_PLAIN_STEPS = 3
"""Before the recording: libraries choose and prepare their kernels, and optimisers make their state."""
_LANES = 8
"""Students side by side; more of them take turns in a lane."""

logger = logging.getLogger("kd_ray")


class CapturedSteps:
    """Records the step of some students, and replays it for as long as the members and the shape of a batch stay."""

    def __init__(self) -> None:
        self._students: list[Student] = []
        self._group: GroupedStudents | None = None
        self._num_plain = 0
        self._recording: _Recording | None = None
        self._cannot = False
        """A recording of these students failed."""

    def step(
        self,
        students: list[Student],
        group: GroupedStudents | None,
        batch: Batch,
        teacher_BC: Sequence[Tensor | None],
        steps: int,
    ) -> bool:
        """Take the step of all students, an epoch has `steps` of them. False, and nothing is done, where it must be taken plainly."""
        if self._students != students or self._group is not group:
            self._students, self._group = list(students), group
            self._num_plain, self._recording, self._cannot = 0, None, False
        if self._cannot or not can_be_captured(students, batch):
            return False
        if self._recording is None:
            # Shorter batches are not recorded: there is one in an epoch.
            if self._num_plain < _PLAIN_STEPS or len(batch.labels_B) < students[0].training.batch_size:
                self._num_plain += 1
                return False
            try:
                self._recording = _Recording(students, group, batch, teacher_BC)
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # noqa: BLE001 (a network or a loss of a user may do anything)
                self._cannot = True
                logger.warning("the steps of %s are not recorded: %s", students[0].spec.model, error)
                return False
        return self._recording.replay(batch, teacher_BC, steps)


def can_be_captured(students: Sequence[Student], batch: Batch) -> bool:
    """Whether shapes and operations of a step are always the same, and all of it happens on a GPU."""
    if not isinstance(batch.inputs, Tensor) or batch.inputs.device.type != "cuda" or batch.mix is not None:
        return False
    return all(
        student.spec.distillation is None
        or (
            student.attack is None
            and student.adversary is None
            and not objective_of(student.spec.distillation).needs_context
        )
        for student in students
    )


class _Recording:
    """A CUDA graph of one step, and the memory that it reads."""

    def __init__(
        self,
        students: Sequence[Student],
        group: GroupedStudents | None,
        batch: Batch,
        teacher_BC: Sequence[Tensor | None],
    ) -> None:
        self._students = tuple(students)
        self._batch = batch._replace(inputs=images_of(batch.inputs).clone(), labels_B=batch.labels_B.clone())
        self._first_places = first_places(teacher_BC)
        copies = {
            place: each.clone()
            for place, each in enumerate(teacher_BC)
            if each is not None and place in self._first_places
        }
        self._taught = [None if place is None else copies[place] for place in self._first_places]
        self._optimizer = _with_one_rate(students) if group is None else group.optimizer
        self._graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize()
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            if group is None:
                tasks = [
                    partial(compute, student, self._batch, logits)
                    for student, logits in zip(students, self._taught, strict=True)
                ]
                side_by_side(tasks)
            else:
                group.compute(self._batch, self._taught)

    def replay(self, batch: Batch, teacher_BC: Sequence[Tensor | None], steps: int) -> bool:
        """False, and nothing is done, for a batch of another shape, or logits that are shared by other students than before."""
        images_BCHW = images_of(self._batch.inputs)
        if images_of(batch.inputs).shape != images_BCHW.shape or first_places(teacher_BC) != self._first_places:
            return False
        images_BCHW.copy_(images_of(batch.inputs))
        self._batch.labels_B.copy_(batch.labels_B)
        for place, (logits, mine) in enumerate(zip(teacher_BC, self._taught, strict=True)):
            if logits is not None and mine is not None and self._first_places[place] == place:
                mine.copy_(logits)
        first = self._students[0]
        set_rate(self._optimizer, learning_rate(first.training, first.step, steps))
        self._graph.replay()
        for student in self._students:
            student.step += 1
        return True


def first_places(teacher_BC: Sequence[Tensor | None]) -> list[int | None]:
    """For each student the first one with the same logits; None where it has no teacher."""
    places: dict[int, int] = {}
    return [None if each is None else places.setdefault(id(each), place) for place, each in enumerate(teacher_BC)]


def _with_one_rate(students: Sequence[Student]) -> torch.optim.Optimizer:
    """Let all optimisers read the learning rate of the first, which is returned: the students of a pack have the same schedule."""
    first = students[0].optimizer
    for student in students[1:]:
        for group, other in zip(student.optimizer.param_groups, first.param_groups, strict=True):
            group["lr"] = other["lr"]
    return first


def side_by_side(tasks: Sequence[Callable[[], None]]) -> None:
    """Start tasks on several streams, and let the current one wait for all of them, also after an error: what is recorded has one end."""
    current = torch.cuda.current_stream()
    streams: list[torch.cuda.Stream] = [torch.cuda.Stream() for _ in tasks[:_LANES]]  # type: ignore[no-untyped-call]
    for stream in streams:
        stream.wait_stream(current)
    try:
        for task, stream in zip(tasks, itertools.cycle(streams), strict=False):
            with torch.cuda.stream(stream):
                task()
    finally:
        for stream in streams:
            current.wait_stream(stream)
