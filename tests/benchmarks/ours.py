"""Our own path as benchmarks drive it: everything that touches the training loop's interface stands here.

Each contestant is an iterator; a step of it is one epoch.
"""

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from kd_ray.data.image_data import ImageData, Split
from kd_ray.distill.augmentations import num_views
from kd_ray.distill.batches import epoch_draw
from kd_ray.distill.device import layout_of
from kd_ray.distill.fit import fit
from kd_ray.distill.samples import ResidentData, to_device
from kd_ray.distill.student import Student, new_student
from kd_ray.distill.teacher import TabledTeacher, Teacher
from kd_ray.distill.view_table import SharedViews, TableShape, ViewTable
from kd_ray.models import build_model
from kd_ray.results.store import open_store
from kd_ray.sweep.datasets import Cifar10Dataset
from kd_ray.sweep.distillation import KnowledgeDistillation
from kd_ray.sweep.spec import Role, TeacherRef, TrialSpec
from kd_ray.sweep.training import Precision, Training
from tests.benchmarks import plain

Execution = Literal["loop", "grouped"]
"""How a pack takes a step: each student by itself, or all as one wide network."""
Teaching = Literal["ready", "cold", "live"]
"""The view table holds all that will be shown; it holds nothing of it; there is none."""
TEACHER_ID = "0" * 16
CPU = torch.device("cpu")
_MEAN, _STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
_MANY_EPOCHS = 1000


def synthetic_images(num_train: int, *, num_test: int = 64, size: int = 32) -> ImageData:
    """Random images, of CIFAR-10's shape unless a side is given; what an image shows does not change how long it takes."""
    random = np.random.default_rng(0)

    def split(count: int) -> Split:
        images = random.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
        return Split(images_NHWC=images, labels_N=random.integers(0, 10, count))

    return ImageData(
        train=split(num_train), test=split(num_test), class_names=tuple("0123456789"), mean=_MEAN, std=_STD
    )


@dataclass(frozen=True, kw_only=True)
class Race:
    """One piece of work, done by different contestants on the same data from the same weights."""

    student: str
    teacher: str
    data: ImageData
    temperatures: tuple[float, ...] = (4.0,)
    """One student each, side by side with us."""
    batch_size: int = 64
    execution: Execution = "loop"
    optimizer: Mapping[str, Any] = field(default_factory=lambda: {"lr": 1e-4, "momentum": 0.9, "weight_decay": 5e-4})
    device: torch.device = CPU
    precision: Precision = "fp32"
    compile: bool = False

    @property
    def image_size(self) -> int:
        """Side in pixels."""
        return int(self.data.train.images_NHWC.shape[1])

    @property
    def num_images(self) -> int:
        """Of one epoch."""
        return len(self.data.train)

    @property
    def training(self) -> Training:
        """For so many epochs that no benchmark sees the end."""
        settings: dict[str, Any] = {
            "epochs": _MANY_EPOCHS,
            "batch_size": self.batch_size,
            "optimizer": dict(self.optimizer),
            "schedule": {"name": "constant"},
            "augmentation": "crop_flip",
            "execution": self.execution,
            "precision": self.precision,
            "compile": self.compile,
        }
        return Training.model_validate_json(json.dumps(settings))

    @cached_property
    def resident(self) -> ResidentData:
        """The data as our loop takes them."""
        return to_device(self.data, self.device)

    def network(self, name: str) -> nn.Module:
        """A fresh network, the same for the same name."""
        torch.manual_seed(0)
        return build_model(name, num_classes=10, image_size=self.image_size).to(self.device)

    def teacher_network(self) -> nn.Module:
        """As our loop uses it."""
        network = self.network(self.teacher).eval().requires_grad_(False)
        return network.to(memory_format=layout_of(self.device))

    def distillation(self, temperature: float) -> KnowledgeDistillation:
        """The loss of one student."""
        return KnowledgeDistillation(temperature=temperature, alpha=0.9, t_squared=False)

    def students(self) -> list[Student]:
        """One for each temperature."""
        specs = [
            TrialSpec(
                role=Role.DISTILLED,
                dataset=Cifar10Dataset(name="cifar10"),
                model=self.student,
                training=self.training,
                distillation=self.distillation(temperature),
                teacher=TeacherRef(trial_id=TEACHER_ID, model=self.teacher, seed=0),
                seed=0,
            )
            for temperature in self.temperatures
        ]
        return [new_student(spec, self.training, self.resident, self.device, None) for spec in specs]

    def ours(self, teaching: Teaching, *, epochs: int) -> Iterator[None]:
        """Our loop; the table is ready for so many epochs. A step is an epoch of all students."""
        with tempfile.TemporaryDirectory(prefix="kd_ray_speed_") as folder, ThreadPoolExecutor(1) as background:
            teacher = self.our_teacher(teaching, Path(folder), background, epochs=epochs)
            yield from epochs_of(self.students(), teacher, self.resident)

    def our_teacher(self, teaching: Teaching, folder: Path, background: ThreadPoolExecutor, *, epochs: int) -> Teacher:
        """A teacher with a table, filled or not, or without."""
        network = self.teacher_network()
        if teaching == "live":
            return Teacher(network)
        views = num_views(self.training.augmentation)
        assert views is not None
        table = ViewTable(
            folder / "views", "0" * 16, TableShape(num_samples=self.num_images, num_views=views, num_classes=10)
        )
        shared = SharedViews(open_store(folder / "store"), TEACHER_ID, "0" * 16, table)
        teacher = TabledTeacher(
            network, table, shared, augmentation=self.training.augmentation, in_background=background.submit
        )
        if teaching == "ready":
            for epoch in range(epochs):
                draw = epoch_draw(self.num_images, self.training.augmentation, seed=0, epoch=epoch)
                for _ in teacher.prepare(self.resident.train, draw, batch_size=self.batch_size, start=0):
                    pass
        return teacher

    def plain(self, settings: plain.Settings, *, alone: bool = False) -> Iterator[plain.EpochLine]:
        """The plain loop with one student, of the first temperature; `alone` without a teacher. A step is an epoch."""
        batches = plain.loader(
            self.data,
            self.data.train,
            self.training.augmentation,
            batch_size=self.batch_size,
            num_workers=settings.num_workers,
            pin_memory=self.device.type == "cuda",
        )
        teacher = None if alone else self.network(self.teacher).requires_grad_(False)
        loss = self.distillation(self.temperatures[0])
        return plain.train(self.network(self.student), teacher, batches, self.training, loss, settings)

    def student_alone(self) -> Iterator[None]:
        """Forward, backward, update on one fixed batch, channels-last. A step is as many updates as an epoch has."""
        model = self.network(self.student).to(memory_format=torch.channels_last).train()
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9, weight_decay=5e-4)
        images_BCHW = torch.randn(self.batch_size, 3, 32, 32).to(memory_format=torch.channels_last)
        labels_B = torch.randint(10, (self.batch_size,))
        while True:
            for _ in range(self.num_images // self.batch_size):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(images_BCHW), labels_B).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            yield


def epochs_of(students: Sequence[Student], teacher: Teacher, data: ResidentData) -> Iterator[None]:
    """Our loop, stopping after every epoch."""
    for progress in fit(list(students), {TEACHER_ID: teacher}, data, on_failure=_raise):
        if progress.end_of_epoch:
            yield


def _raise(student: Student, error: Exception) -> None:
    del student
    raise error
