"""The training loop: students of one pack, side by side on one stream of batches.

A plain loop over the students does the arithmetic of each as if it were alone, so a trial's result is the same to the last bit in every
pack. `execution: grouped` trains them as one network instead (`grouped.py`), which gives other last bits. All students of a teacher share
its logits; `teacher.py` computes them or looks them up.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from torch import Tensor

from kd_ray.distill.attack import pgd, random_start
from kd_ray.distill.batches import Batch, batches, draw_of, steps_per_epoch
from kd_ray.distill.captured import CapturedSteps
from kd_ray.distill.device import wait_for
from kd_ray.distill.evaluate import accuracies, accuracy
from kd_ray.distill.grouped import GroupedStudents
from kd_ray.distill.mixing import draw_mix, mixed
from kd_ray.distill.objectives import Attacked, term_names
from kd_ray.distill.samples import ResidentData
from kd_ray.distill.samples.kind import Draw, PixelRange
from kd_ray.distill.step import take_step
from kd_ray.distill.student import Student, learning_rate
from kd_ray.distill.teacher import Teacher
from kd_ray.distill.worker_protocol import PackProgress
from kd_ray.errors import DataError, NonFiniteLossError
from kd_ray.results.record import Epoch
from kd_ray.sweep.fields import Attack
from kd_ray.sweep.training import Training

OnFailure = Callable[["Student", Exception], None]
"""Called with a student that failed, and its error. The other students continue."""


def fit(
    students: list[Student],
    teachers: Mapping[str, Teacher],
    data: ResidentData,
    *,
    on_failure: OnFailure,
    report_every_s: float = 1.0,
) -> Iterator[PackProgress]:
    """Train the students to their last epoch; a student that fails leaves the list.

    Yields at the end of every epoch and at least every `report_every_s` seconds in between, always between two steps, where `state()` is
    consistent. After a restart, students that are ahead of others wait until the stream reaches their step.
    """
    if not students:
        return
    training, seed = students[0].training, students[0].spec.seed
    assert seed is not None
    steps = steps_per_epoch(len(data.train), training.batch_size)
    stepper = _Stepper(teachers, steps, data.train.pixels)
    meter = _Meter(report_every_s, training.epochs)

    def fail(student: Student, error: Exception) -> None:
        students.remove(student)
        on_failure(student, error)

    while students and (position := min(student.step for student in students)) < training.epochs * steps:
        epoch, start = divmod(position, steps)
        draw = draw_of(data.train, training, seed=seed, epoch=epoch)
        for taught in _prepared(students, teachers, data, draw, start=start, fail=fail):
            meter.add(0, taught)
            if meter.is_due():
                yield meter.progress(students, end_of_epoch=False)
        stream = batches(data.train, draw, batch_size=training.batch_size, start=start)
        for batch in _usable(stream, students, fail):
            active = [student for student in students if student.step == position]
            if not active:
                break
            stepper.step(active, _mixed(batch, training, seed=seed, epoch=epoch, step=position % steps), fail)
            position += 1
            meter.add(len(batch.labels_B) * len(active), active)
            if position % steps and meter.is_due():
                yield meter.progress(students, end_of_epoch=False)
        if position % steps == 0:
            wait_for(data.train.labels_N.device)
            meter.settle()
            # A student that was restored at this step has this epoch in its history already.
            arrived = [
                student for student in students if student.step == position and len(student.history) < position // steps
            ]
            validated = _validated(arrived, data)
            for student in arrived:
                try:
                    _finish_epoch(student, data, steps, validated)
                except Exception as error:  # noqa: BLE001 (as above)
                    fail(student, error)
            yield meter.progress(students, end_of_epoch=True)


def _usable(stream: Iterator[Batch], students: Sequence[Student], fail: OnFailure) -> Iterator[Batch]:
    """The batches of a stream. A batch that cannot be read fails all students, because each needs it."""
    try:
        yield from stream
    except DataError as error:
        for student in list(students):
            fail(student, error)


def _by_teacher(students: Sequence[Student]) -> dict[str, list[Student]]:
    """The students of each teacher, in order."""
    taught: dict[str, list[Student]] = {}
    for student in students:
        if student.taught_by is not None:
            taught.setdefault(student.taught_by, []).append(student)
    return taught


def _prepared(
    students: Sequence[Student],
    teachers: Mapping[str, Teacher],
    data: ResidentData,
    draw: Draw,
    *,
    start: int,
    fail: OnFailure,
) -> Iterator[Sequence[Student]]:
    """Prepare the teachers for the rest of an epoch; yields the students of a teacher after each part of the work."""
    for source, taught in _by_teacher(students).items():
        batch_size = taught[0].training.batch_size
        try:
            for _ in teachers[source].prepare(data.train, draw, batch_size=batch_size, start=start):
                yield taught
        except Exception as error:  # noqa: BLE001 (an error of a teacher fails its students only)
            for student in taught:
                fail(student, error)


class _Stepper:
    """Takes the steps of a pack: student after student, or all as one network."""

    def __init__(self, teachers: Mapping[str, Teacher], steps: int, pixels: PixelRange | None) -> None:
        """`steps` is the number of steps of an epoch; `pixels` is the range of pixels that an attack may use, None without images."""
        self._teachers = teachers
        self._pixels = pixels
        self._steps = steps
        self._group: GroupedStudents | None = None
        self._captured = CapturedSteps()

    def step(self, active: list[Student], batch: Batch, fail: OnFailure) -> None:
        """One optimiser step of each active student on the same batch. An error fails one student, or all students of a group."""
        teacher_BC: dict[str, Tensor] = {}
        for source, taught in _by_teacher(active).items():
            try:
                teacher_BC[source] = self._teachers[source].logits(batch)
            except Exception as error:  # noqa: BLE001 (an error of a teacher fails its students only)
                for student in taught:
                    fail(student, error)
        ready = [student for student in active if student.taught_by is None or student.taught_by in teacher_BC]
        logits = [None if student.taught_by is None else teacher_BC[student.taught_by] for student in ready]
        if not ready:
            return
        try:
            group = self._grouped(ready) if len(ready) > 1 and ready[0].training.execution == "grouped" else None
            if self._captured.step(ready, group, batch, logits, self._steps):
                return
            if group is not None:
                group.step(batch, logits, steps=self._steps)
                return
        except Exception as error:  # noqa: BLE001 (the error does not tell which of them caused it)
            for student in ready:
                fail(student, error)
            return
        for student, teacher in zip(ready, logits, strict=True):
            try:
                found = None
                if student.attack is not None:
                    assert student.taught_by is not None
                    assert self._pixels is not None
                    found = attacked(student, student.attack, batch, self._teachers[student.taught_by], self._pixels)
                take_step(student, batch, teacher, self._steps, found)
            except Exception as error:  # noqa: BLE001 (an error of one student must not stop the pack)
                fail(student, error)

    def _grouped(self, students: list[Student]) -> GroupedStudents:
        if self._group is None or list(self._group.students) != students:
            self._group = GroupedStudents(students)
        return self._group


def attacked(student: Student, attack: Attack, batch: Batch, teacher: Teacher, pixels: PixelRange) -> Attacked:
    """Logits of student and teacher on the attacked batch. The attack starts from the stream "attack" of (seed, step)."""
    assert student.spec.seed is not None
    start_BCHW = random_start(batch.images_BCHW, student.spec.seed, "attack", student.step)
    images_BCHW = pgd(student.model, batch.images_BCHW, batch.labels_B, attack, pixels, start_BCHW)
    return Attacked(student_BC=student.forward(images_BCHW), teacher_BC=teacher.answer(images_BCHW))


def _mixed(batch: Batch, training: Training, *, seed: int, epoch: int, step: int) -> Batch:
    """The batch of this step after mixing, if the settings ask for it."""
    if not training.mixes:
        return batch
    count, side = len(batch.labels_B), batch.images_BCHW.shape[-1]
    mix = draw_mix(training, count, side, seed=seed, epoch=epoch, step=step)
    return batch if mix is None else batch._replace(inputs=mixed(batch.images_BCHW, mix), mix=mix)


def _validated(students: Sequence[Student], data: ResidentData) -> dict[str, float]:
    """Validation accuracies by trial_id, in one pass over the split. Empty after an error: each student is then evaluated alone."""
    if data.validation is None or not students:
        return {}
    try:
        found = accuracies([student.result for student in students], data.validation)
    except Exception:  # noqa: BLE001 (the student that causes it raises it again)
        return {}
    return {student.spec.trial_id: share for student, share in zip(students, found, strict=True)}


def _validation_accuracy(student: Student, data: ResidentData, validated: Mapping[str, float]) -> float | None:
    if data.validation is None:
        return None
    known = validated.get(student.spec.trial_id)
    return known if known is not None else accuracy(student.result, data.validation)


def _finish_epoch(student: Student, data: ResidentData, steps: int, validated: Mapping[str, float]) -> None:
    """Add the epoch to the history, from the sums.

    Raises:
        NonFiniteLossError: the mean loss of the epoch is NaN or infinite.
    """
    loss, correct, *terms = (student.sums / len(data.train)).tolist()
    epoch = student.step // steps
    if not math.isfinite(loss):
        raise NonFiniteLossError(
            f"trial {student.spec.trial_id} ({student.spec.describe()}): the training loss became {loss} in epoch {epoch}; "
            f"a smaller learning rate than {student.training.optimizer.lr} may help"
        )
    student.history.append(
        Epoch(
            epoch=epoch,
            loss=loss,
            terms=dict(zip(term_names(student.spec.distillation), terms, strict=True)),
            train_accuracy=correct,
            validation_accuracy=_validation_accuracy(student, data, validated),
            lr=learning_rate(student.training, student.step - 1, steps),
            elapsed_s=student.elapsed_s - student.epoch_started_s,
        )
    )
    student.epoch_started_s = student.elapsed_s
    student.sums.zero_()


class _Meter:
    """Divides the time among the students in training, and decides when a report is due."""

    def __init__(self, report_every_s: float, epochs: int) -> None:
        self._every_s = report_every_s
        self._epochs = epochs
        self._mark = time.perf_counter()
        self._report_mark = self._mark
        self._images = 0
        self._active: Sequence[Student] = ()

    def add(self, images: int, active: Sequence[Student]) -> None:
        if len(active) != len(self._active):
            self.settle()
        self._active = list(active)
        self._images += images

    def settle(self) -> None:
        """Add the time since the last call to the students that were active."""
        now = time.perf_counter()
        for student in self._active:
            student.elapsed_s += (now - self._mark) / len(self._active)
        self._mark = now

    def is_due(self) -> bool:
        return time.perf_counter() - self._report_mark >= self._every_s

    def progress(self, students: Sequence[Student], *, end_of_epoch: bool) -> PackProgress:
        self.settle()
        now = time.perf_counter()
        images_per_s = self._images / max(now - self._report_mark, 1e-9)
        self._images, self._report_mark = 0, now
        last = [student.history[-1] for student in students if student.history]
        accuracies = [
            epoch.train_accuracy if epoch.validation_accuracy is None else epoch.validation_accuracy for epoch in last
        ]
        return PackProgress(
            epoch=min((len(student.history) for student in students), default=0),
            epochs=self._epochs,
            accuracy=sum(accuracies) / len(accuracies) if accuracies else None,
            images_per_s=images_per_s,
            end_of_epoch=end_of_epoch,
        )
