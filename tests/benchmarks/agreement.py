"""Do our students turn out as good as those of the plain loop? Real images, the same settings, seeds of their own.

Ours draw order, views and initial weights from other streams than torch's loader, so the two agree in distribution, not in bits
(`test_training_equals_a_plain_loop` holds the bits, given the same streams).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import torch
from scipy import stats

from kd_ray.data import cifar10
from kd_ray.data.family import Loading
from kd_ray.data.image_data import ImageData
from kd_ray.distill.checkpoint import from_weights
from kd_ray.distill.evaluate import accuracy
from kd_ray.distill.fit import fit
from kd_ray.distill.samples import to_device
from kd_ray.distill.student import new_student
from kd_ray.distill.teacher import Teacher
from kd_ray.models import build_model
from kd_ray.sweep.datasets import Cifar10Dataset
from kd_ray.sweep.distillation import KnowledgeDistillation
from kd_ray.sweep.spec import Role, TeacherRef, TrialSpec
from kd_ray.sweep.training import Training
from tests.benchmarks import plain
from tests.benchmarks.ours import CPU, TEACHER_ID

LOSS = KnowledgeDistillation(temperature=4.0, alpha=0.9, t_squared=True)
SETTINGS = plain.Settings(channels_last=True, num_workers=0)


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Test accuracies of both sides, one per seed."""

    ours: tuple[float, ...]
    theirs: tuple[float, ...]

    @property
    def difference(self) -> float:
        """Of the means, ours minus theirs."""
        return mean(self.ours) - mean(self.theirs)

    @property
    def interval(self) -> tuple[float, float]:
        """Of the difference, at 95 % (Welch)."""
        low, high = stats.ttest_ind(self.ours, self.theirs, equal_var=False).confidence_interval(0.95)
        return float(low), float(high)

    @property
    def p(self) -> float:
        """Of Welch's test."""
        return float(stats.ttest_ind(self.ours, self.theirs, equal_var=False).pvalue)


def cifar10_images(data_root: Path) -> ImageData:
    """With the normalisation that the given teacher was trained with."""
    version = cifar10.fingerprint(data_root)
    dataset = Cifar10Dataset(name="cifar10", version=version, normalization="imagenet")
    return cifar10.load(dataset, Loading(root=data_root))


def teacher_of(weights: Path) -> torch.nn.Module:
    """The given ResNet-56."""
    network = build_model("resnet56", num_classes=10, image_size=32)
    network.load_state_dict(from_weights(weights.read_bytes(), source=str(weights)))
    return network.to(memory_format=torch.channels_last).eval().requires_grad_(False)


def compare(data: ImageData, teacher: torch.nn.Module, *, student: str, epochs: int, seeds: Sequence[int]) -> Agreement:
    """Train a student per seed on either side, and test it."""
    training = Training.model_validate_json(
        json.dumps(
            {
                "epochs": epochs,
                "batch_size": 64,
                "optimizer": {"lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4},
                "schedule": {"name": "cosine"},
                "augmentation": "crop_flip",
            }
        )
    )
    return Agreement(
        ours=tuple(_our_accuracy(data, teacher, student, training, seed) for seed in seeds),
        theirs=tuple(_plain_accuracy(data, teacher, student, training, seed) for seed in seeds),
    )


def _our_accuracy(data: ImageData, teacher: torch.nn.Module, name: str, training: Training, seed: int) -> float:
    resident = to_device(data, CPU)
    spec = TrialSpec(
        role=Role.DISTILLED,
        dataset=Cifar10Dataset(name="cifar10"),
        model=name,
        training=training,
        distillation=LOSS,
        teacher=TeacherRef(trial_id=TEACHER_ID, model="resnet56", seed=None),
        seed=seed,
    )
    student = new_student(spec, training, resident, CPU, None)
    for _ in fit([student], {TEACHER_ID: Teacher(teacher)}, resident, on_failure=_raise):
        pass
    return accuracy(student.model, resident.test)


def _raise(student: object, error: Exception) -> None:
    del student
    raise error


def _plain_accuracy(data: ImageData, teacher: torch.nn.Module, name: str, training: Training, seed: int) -> float:
    torch.manual_seed(seed)
    student = build_model(name, num_classes=10, image_size=data.train.images_NHWC.shape[1])
    batches = plain.loader(data, data.train, training.augmentation, batch_size=training.batch_size, num_workers=0)
    for _ in plain.train(student, teacher, batches, training, LOSS, SETTINGS):
        pass
    test = plain.loader(data, data.test, "none", batch_size=100, num_workers=0, shuffle=False)
    return plain.accuracy_on(student, test, SETTINGS)
