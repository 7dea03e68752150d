"""Real images and real pretrained weights: what is given loads as it is, and what is recorded can be recomputed by hand."""

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load

from kd_ray.cluster.launch import launch
from kd_ray.data import cifar10
from kd_ray.data.family import Loading
from kd_ray.data.image_data import ImageData, Split
from kd_ray.distill.checkpoint import from_weights
from kd_ray.distill.evaluate import accuracy, predict
from kd_ray.distill.samples import to_device
from kd_ray.models import build_model
from kd_ray.results.query import Results
from kd_ray.results.record import read_record, sha256
from kd_ray.results.store import Store
from kd_ray.sweep.datasets import Cifar10Dataset
from kd_ray.sweep.load import parse_sweep

pytestmark = pytest.mark.long

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def teacher_file(shared_data: Path) -> Path:
    return shared_data / "pretrained-cifar10-resnet" / "resnet56-4bfd9763.th"


@pytest.fixture(scope="module")
def teacher(teacher_file: Path) -> torch.nn.Module:
    model = build_model("resnet56", num_classes=10, image_size=32)
    model.load_state_dict(from_weights(teacher_file.read_bytes(), source=str(teacher_file)))
    return model.to(memory_format=torch.channels_last).eval()


@pytest.fixture(scope="module")
def images(cifar10_root: Path) -> ImageData:
    """The first 4,000 CIFAR-10 training images, exact, with the normalisation of the pretrained weights."""
    version = cifar10.fingerprint(cifar10_root)
    dataset = Cifar10Dataset(name="cifar10", version=version, normalization="imagenet")
    return cifar10.load(dataset, Loading(root=cifar10_root))


def test_pretrained_resnet56_is_right_on_all_4000_exact_train_images(
    teacher: torch.nn.Module, images: ImageData
) -> None:
    data = to_device(images, CPU)
    assert (len(data.train), len(data.test)) == (3200, 800)
    assert accuracy(teacher, data.train) == 1.0
    assert accuracy(teacher, data.test) == 1.0


def test_pretrained_resnet56_reaches_81_to_84_percent_on_the_jpeg_test_images(
    teacher: torch.nn.Module, images: ImageData, shared_data: Path
) -> None:
    """All 10,000 test images, compressed with loss: a harder task than the original, on which the weights reach 93.6 %."""
    pixels, labels = [], []
    with tarfile.open(shared_data / "cifar10-jpeg" / "cifar10-jpeg.tar.xz") as archive:
        for member in archive:
            parts = Path(member.name).parts
            if member.isfile() and "test" in parts and member.name.endswith(".jpg"):
                stream = archive.extractfile(member)
                assert stream
                pixels.append(np.asarray(Image.open(io.BytesIO(stream.read())).convert("RGB")))
                labels.append(images.class_names.index(parts[-2]))
    split = Split(images_NHWC=np.stack(pixels), labels_N=np.array(labels, dtype=np.int64))
    assert len(split) == 10_000
    data = to_device(
        ImageData(train=split, test=split, class_names=images.class_names, mean=images.mean, std=images.std), CPU
    )
    assert 0.81 <= accuracy(teacher, data.test) <= 0.84


SWEEP = """
name: real
dataset: {{name: cifar10, version: '{version}', normalization: imagenet}}
teacher: {{model: resnet56, weights: '{weights}'}}
student: {{model: resnet20}}
training:
  epochs: 1
  batch_size: 64
  optimizer: {{name: sgd, lr: 0.05, momentum: 0.9, weight_decay: 5e-4}}
  schedule: {{name: cosine}}
  augmentation: crop_flip
distillation: {{alpha: 0.9, t_squared: true}}
grid: {{seed: [1], temperature: [2, 8]}}
placement: {{data_root: '{root}'}}
"""


@pytest.mark.ray
def test_pretrained_resnet56_distilled_into_resnet20_through_ray(
    store: Store, teacher_file: Path, images: ImageData, cifar10_root: Path
) -> None:
    text = SWEEP.format(version=cifar10.fingerprint(cifar10_root), weights=teacher_file, root=cifar10_root)
    report = launch(parse_sweep(text, source="real.yaml"), store, runner="ray")
    assert (report.exit_code, len(report.trials)) == (0, 1 + 1 + 2)
    rows = Results(store).query("SELECT trial_id, role, temperature, seed, accuracy, epochs FROM trials").to_pylist()
    by_role = {role: [row for row in rows if row["role"] == role] for role in ("teacher", "scratch", "distilled")}
    assert [(row["accuracy"], row["epochs"], row["seed"]) for row in by_role["teacher"]] == [(1.0, 0, None)]
    assert sorted((row["temperature"], row["seed"]) for row in by_role["distilled"]) == [(2, 1), (8, 1)]
    # Chance is 10 %, one epoch of 50 steps is 25 to 31 %.
    assert all(row["accuracy"] > 0.15 for row in rows)
    data = to_device(images, CPU)
    for row in rows:
        record = read_record(store, row["trial_id"])
        assert record
        weights = store.get(record.weights_key)
        assert weights
        assert sha256(weights) == record.weights_sha256
        model = build_model(record.spec.model, num_classes=10, image_size=32)
        model.load_state_dict(load(weights))
        predicted = predict(model.to(memory_format=torch.channels_last), data.test).argmax(1).numpy()
        assert np.array_equal(predicted, record.test.predictions_N)
        assert row["accuracy"] == (predicted == images.test.labels_N).mean()
