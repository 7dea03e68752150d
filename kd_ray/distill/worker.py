"""A worker process: it trains packs one after another, and keeps data sets and teachers from one pack to the next."""

import json
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from kd_ray.distill.attack import robust_predictions
from kd_ray.distill.augmentations import num_views
from kd_ray.distill.checkpoint import decode, encode, from_weights, to_weights
from kd_ray.distill.dataset_cache import LoadedData, load_data
from kd_ray.distill.device import device_of, layout_of, make_deterministic, name_of, named, release_unused
from kd_ray.distill.evaluate import evaluate, predict
from kd_ray.distill.fit import fit
from kd_ray.distill.given_teacher import given_teacher
from kd_ray.distill.image_loader import Loader
from kd_ray.distill.objective_background import background_of, teacher_for
from kd_ray.distill.objectives.imported import distribution_of
from kd_ray.distill.rescaling import true_logit_pulls
from kd_ray.distill.samples import ResidentData
from kd_ray.distill.student import Student, new_student, source_of_logits
from kd_ray.distill.teacher import TabledTeacher, Teacher
from kd_ray.distill.trained import network_with
from kd_ray.distill.view_table import SharedViews, TableShape, ViewTable
from kd_ray.distill.worker_protocol import LoadState, OnFailure, PackProgress, PackTraining, TrialResult, TrialTraining
from kd_ray.errors import CorruptObjectError, LostTeacherError
from kd_ray.models import count_parameters
from kd_ray.models.own import model_versions
from kd_ray.models.text_classifier import from_teacher, text_classifier
from kd_ray.results.record import Record, read_record, sha256, write_samples
from kd_ray.results.store import Store, pretrained_key
from kd_ray.sweep.datasets import Dataset
from kd_ray.sweep.objective_settings import LogitPrecision
from kd_ray.sweep.placement import Placement
from kd_ray.sweep.spec import TrialSpec, content_hash, twin_of
from kd_ray.sweep.training import Augmentation, Training

T = TypeVar("T")

logger = logging.getLogger("kd_ray")

_KEPT_DATASETS = 2
_KEPT_TEACHERS = 4


class _Training:
    """The students of one pack, side by side; and networks with pretrained weights, which are only evaluated."""

    def __init__(self, data: LoadedData, on_failure: OnFailure) -> None:
        self.students: list[Student] = []
        self.teachers: dict[str, Teacher] = {}
        self.pretrained: list[tuple[TrialSpec, nn.Module]] = []
        self._data = data
        self._on_failure: OnFailure = lambda spec, error: on_failure(spec, named(error))

    @property
    def trials(self) -> Sequence[TrialTraining]:
        """See `PackTraining`."""
        pretrained = [
            TrialTraining(spec=spec, step=lambda: 0, state=lambda: b"", finish=partial(self._result, spec, model))
            for spec, model in self.pretrained
        ]
        return [*pretrained, *map(self._of_student, self.students)]

    def fit(self) -> Iterator[PackProgress]:
        """See `PackTraining`."""
        try:
            yield from fit(
                self.students,
                self.teachers,
                self._data.resident,
                on_failure=lambda student, error: self._on_failure(student.spec, error),
            )
        finally:
            for teacher in self.teachers.values():
                teacher.finish()

    def drop(self, trial_id: str) -> None:
        """See `PackTraining`."""
        self.students[:] = [student for student in self.students if student.spec.trial_id != trial_id]

    def _of_student(self, student: Student) -> TrialTraining:
        return TrialTraining(
            spec=student.spec,
            step=lambda: student.step,
            state=lambda: encode(student.state()),
            finish=partial(self._result, student.spec, student.result, student),
            history=lambda: student.history,
        )

    def _result(self, spec: TrialSpec, model: nn.Module, student: Student | None = None) -> TrialResult:
        try:
            data = self._data.resident
            test = evaluate(model, data.test, self._data.pairs, validation=data.validation)
            test = replace(test, per_sample={**test.per_sample, **self._asked_for(spec, model, student)})
        except Exception as error:
            raise named(error) from error
        return TrialResult(
            epochs=tuple(student.history) if student else (),
            test=test,
            weights=to_weights(model.state_dict()),
            num_parameters=count_parameters(model),
            num_train=len(self._data.resident.train),
            elapsed_s=student.elapsed_s if student else 0.0,
            restarts=student.restarts if student else 0,
            versions=model_versions(spec.model)
            | distribution_of(spec.distillation.import_path if spec.distillation else None),
            per_class=_train_n(self._data.resident)
            | (student.background.per_class() if student and student.background else {}),
        )

    def _asked_for(
        self, spec: TrialSpec, model: nn.Module, student: Student | None
    ) -> dict[str, npt.NDArray[np.float32]]:
        """The values per test sample that the sweep's `evaluation` section requests."""
        found: dict[str, npt.NDArray[np.float32]] = {}
        test = self._data.resident.test
        if spec.evaluation and spec.evaluation.pgd:
            found["robust_predictions"] = robust_predictions(model, test, spec.evaluation.pgd).astype(np.float32)
        if spec.evaluation and spec.evaluation.gradient_rescaling:
            assert student is not None
            assert student.taught_by is not None
            assert spec.distillation is not None
            pulls_N = true_logit_pulls(
                predict(model, test),
                self.teachers[student.taught_by].test_logits(test),
                test.labels_N.cpu(),
                spec.distillation,
                student.background,
            )
            found["true_logit_pulls"] = pulls_N.numpy().astype(np.float32)
        return found


class Worker:
    """The state of one worker process; packs run through it one after another."""

    def __init__(self, store: Store, placement: Placement, *, launch_id: str) -> None:
        """Bind this process to its threads and its device, and make its arithmetic deterministic."""
        self.store = store
        self.placement = placement
        self.launch_id = launch_id
        self.device = device_of(placement)
        make_deterministic(placement.cpus_per_pack)
        self._data: OrderedDict[str, LoadedData] = OrderedDict()
        self._teachers: OrderedDict[str, Teacher] = OrderedDict()
        self._background = ThreadPoolExecutor(max_workers=1, thread_name_prefix="kd_ray-share")

    @property
    def device_name(self) -> str:
        """`cpu`, or the name of the GPU."""
        return name_of(self.device)

    def begin(self, specs: Sequence[TrialSpec], load_state: LoadState, on_failure: OnFailure) -> PackTraining:
        """Build the students of a pack, new or from their checkpoints, and load their teachers.

        Raises:
            DataError: the data set cannot be loaded.
            StoreError: an operation of the store failed.
        """
        release_unused(self.device)
        data = self.data(specs[0].dataset)
        training = _Training(data, on_failure)
        for spec in specs:
            try:
                if spec.training is None:
                    training.pretrained.append((spec, self._pretrained(spec, data)))
                    continue
                background = None
                teacher = self._teacher_of(spec, spec.training, data)
                if teacher and spec.distillation:
                    background = background_of(spec.distillation, teacher, data.resident)
                    source = source_of_logits(spec)
                    if source and source not in training.teachers:
                        training.teachers[source] = teacher_for(spec, teacher, data.resident.train)
                saved = load_state(spec, decode)
                initial = self._initial(spec) if spec.initial_weights and saved is None else None
                build = partial(self._network, spec, data)
                student = new_student(
                    spec, spec.training, data.resident, self.device, saved, background, build, initial
                )
                if saved is None and data.resident.validation is not None:
                    self._take_over_twin(student, data)
                training.students.append(student)
            except Exception as error:  # noqa: BLE001 (each trial fails alone; the pack records the failure)
                on_failure(spec, named(error))
        return training

    def _take_over_twin(self, student: Student, data: LoadedData) -> None:
        """Take weights and history of the same training from a trial that was evaluated on the other split, where it is complete."""
        twin = twin_of(student.spec, lambda trial_id: self._committed(trial_id)[0].spec)
        try:
            record, weights = self._committed(twin)
        except LostTeacherError:
            return
        student.take_over(from_weights(weights, source=record.weights_key), record, num_train=len(data.resident.train))

    def data(self, dataset: Dataset) -> LoadedData:
        """The data set, loaded once per process; its test samples are stored once per store."""

        def load() -> LoadedData:
            placement = self.placement
            data = load_data(
                dataset,
                Path(placement.data_root),
                self.device,
                processes=placement.cpus_per_pack,
                resident_gb=placement.resident_gb,
                loader=Loader(threads=placement.loader_threads),
            )
            write_samples(self.store, data.dataset_id, data.samples)
            return data

        return _remember(self._data, content_hash(dataset), load, keep=_KEPT_DATASETS)

    def _teacher_of(self, spec: TrialSpec, training: Training, data: LoadedData) -> Teacher | None:
        """The teacher that a student learns from, if it has any. Raises as `teacher` and `given_teacher`."""
        if spec.given_logits is not None:
            name = f"{spec.given_logits} {data.dataset_id} {spec.teacher_logits}"
            load = partial(self._given_teacher, spec, spec.given_logits, data)
            return _remember(self._teachers, name, load, keep=_KEPT_TEACHERS)
        if spec.teacher is None or spec.distillation is None:
            return None
        return self.teacher(
            spec.teacher.trial_id, data, training.augmentation, spec.teacher_logits, tabled=not training.mixes
        )

    def _given_teacher(self, spec: TrialSpec, digest: str, data: LoadedData) -> Teacher:
        key, content = self._given_bytes(digest)
        return given_teacher(content, spec, data, source=key, placement=self.placement, device=self.device)

    def teacher(
        self,
        trial_id: str,
        data: LoadedData,
        augmentation: Augmentation,
        precision: LogitPrecision = "fp32",
        *,
        tabled: bool = True,
    ) -> Teacher:
        """The committed teacher, ready to teach: with a table of its logits if `tabled`, views are countable and the table is small enough.

        Raises:
            LostTeacherError: it is not complete, or its record or weights are damaged.
        """

        def load() -> Teacher:
            record, weights = self._committed(trial_id)
            model = self._build(record.spec, weights, record.weights_key, data).eval().requires_grad_(False)
            views = num_views(augmentation)
            if not tabled or views is None:
                return Teacher(model, precision=precision)
            return self._with_table(model, trial_id, record.weights_sha256, data, augmentation, views, precision)

        name = f"{trial_id} {data.dataset_id} {augmentation} {precision} {tabled}"
        return _remember(self._teachers, name, load, keep=_KEPT_TEACHERS)

    def _committed(self, trial_id: str) -> tuple[Record, bytes]:
        """Record and weights of a teacher; raises LostTeacherError as `teacher` does."""
        try:
            record = read_record(self.store, trial_id)
        except CorruptObjectError as error:
            raise LostTeacherError(trial_id, str(error)) from error
        if record is None:
            raise LostTeacherError(trial_id, "it is not complete")
        weights = self.store.get(record.weights_key)
        if weights is None or sha256(weights) != record.weights_sha256:
            raise LostTeacherError(trial_id, f"{record.weights_key!r} does not hold the weights that its record names")
        return record, weights

    def _network(self, spec: TrialSpec, data: LoadedData) -> nn.Module:
        """The network of a trial with the weights that it begins with; those that are random come from torch's current generator.

        Raises:
            DataError: the folder of a network of texts is not as it was when the trial was planned.
            LostTeacherError: it begins with its teacher's weights, and they are lost.
        """
        if spec.encoder is None:
            return data.resident.train.network(spec.model, data.resident.num_classes)
        root = Path(self.placement.data_root)
        model = text_classifier(spec.model, spec.encoder, data.resident.num_classes, root)
        if spec.encoder.init == "teacher":
            assert spec.teacher is not None
            record, weights = self._committed(spec.teacher.trial_id)
            assert record.spec.encoder is not None
            kept = from_teacher(
                from_weights(weights, source=record.weights_key), spec.encoder.layers, record.spec.encoder.layers
            )
            model.load_state_dict(kept)
        return model

    def _with_table(
        self,
        model: nn.Module,
        trial_id: str,
        weights_sha256: str,
        data: LoadedData,
        augmentation: Augmentation,
        views: int,
        precision: LogitPrecision,
    ) -> Teacher:
        shape = TableShape(
            num_samples=len(data.resident.train),
            num_views=views,
            num_classes=data.resident.num_classes,
            precision=precision,
        )
        if shape.size_gb > self.placement.view_table_gb:
            return Teacher(model, precision=precision)
        # All that the bits of a logit depend on.
        parts = [weights_sha256, data.dataset_id, augmentation, *astuple(shape), torch.__version__, self.device_name]
        if self.device.type == "cpu":
            parts += [torch.backends.cpu.get_cpu_capability(), self.placement.cpus_per_pack]
        table_id = sha256(json.dumps(parts).encode())[:16]
        try:
            table = ViewTable(Path(self.placement.data_root) / "views", table_id, shape)
            shared = SharedViews(self.store, trial_id, table_id, table)
            shared.fetch()
        except OSError as error:
            logger.warning(
                "the teacher computes its logits for every batch, because its table cannot be made: %s", error
            )
            return Teacher(model, precision=precision)
        return TabledTeacher(model, table, shared, augmentation=augmentation, in_background=self._background.submit)

    def _pretrained(self, spec: TrialSpec, data: LoadedData) -> nn.Module:
        """A network with the pretrained weights that `spec.initial_weights` names.

        Raises:
            TrialError: the weights do not fit the model.
        """
        assert spec.initial_weights is not None
        key, weights = self._given_bytes(spec.initial_weights)
        return self._build(spec, weights, key, data).eval()

    def _initial(self, spec: TrialSpec) -> dict[str, Tensor]:
        """The weights that training starts from."""
        assert spec.initial_weights is not None
        key, weights = self._given_bytes(spec.initial_weights)
        return from_weights(weights, source=key)

    def _given_bytes(self, digest: str) -> tuple[str, bytes]:
        """Key and content of a file of weights or logits that the sweep gives."""
        key = pretrained_key(digest)
        content = self.store.get(key)
        if content is None or sha256(content) != digest:
            raise CorruptObjectError(
                f"store {self.store.url}: {key!r} does not hold the file {digest} that the sweep gives"
            )
        return key, content

    def _build(self, spec: TrialSpec, weights: bytes, source: str, data: LoadedData) -> nn.Module:
        model = network_with(weights, spec, data.resident, Path(self.placement.data_root), source=source)
        return model.to(device=self.device, memory_format=layout_of(self.device))  # type: ignore[call-overload,no-any-return]


def _train_n(data: ResidentData) -> dict[str, tuple[float, ...]]:
    counts_C = torch.bincount(data.train.labels_N.cpu(), minlength=data.num_classes)
    return {"train_n": tuple(counts_C.double().tolist())}


def _remember(cache: OrderedDict[str, T], key: str, make: Callable[[], T], *, keep: int) -> T:
    """The cached value, made if need be; the least recently used beyond `keep` are dropped."""
    if key not in cache:
        cache[key] = make()
    cache.move_to_end(key)
    while len(cache) > keep:
        cache.popitem(last=False)
    return cache[key]
