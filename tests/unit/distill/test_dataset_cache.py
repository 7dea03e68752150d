"""One copy of the data on a node: what is mapped equals what was loaded, no worker's pages are its own, and nothing is left half made."""

import logging
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from kd_ray.data.families import load_dataset
from kd_ray.distill.batches import batches, epoch_draw
from kd_ray.distill.dataset_cache import LoadedData, load_data
from kd_ray.distill.samples import to_device
from kd_ray.distill.samples.resident_images import ResidentImages
from kd_ray.distill.stored_samples import samples_of
from kd_ray.errors import DataError
from kd_ray.sweep.datasets import Cifar10Dataset, TrifeatureDataset
from tests.limits import largest_file

CPU = torch.device("cpu")
DATASET = TrifeatureDataset(name="trifeature", size=16, images_per_combination=1, validation_fraction=0.1)


def parts(data: LoadedData) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor with its name."""
    for name in ("train", "test", "validation"):
        split = getattr(data.resident, name)
        assert isinstance(split, ResidentImages)
        for part in ("images_NHWC", "labels_N", "scale_C", "shift_C"):
            yield f"{name}.{part}", getattr(split, part)


def assert_is_the_data_set(data: LoadedData, root: Path) -> None:
    raw = load_dataset(DATASET, root)
    expected = to_device(raw, CPU)
    for name, tensor in parts(data):
        split, part = name.split(".")
        assert torch.equal(tensor, getattr(getattr(expected, split), part)), name
    pairs = expected.test.pairs()
    for name in ("first_P", "second_P", "distance_P"):
        assert np.array_equal(getattr(data.pairs, name), getattr(pairs, name)), name
    assert data.pairs.num_dropped == pairs.num_dropped
    samples = samples_of(DATASET, raw)
    assert data.samples.class_names == samples.class_names
    assert np.array_equal(data.samples.labels_N, samples.labels_N)
    for feature, groups in samples.sensitive_features.items():
        assert data.samples.sensitive_features[feature].to_lists() == groups.to_lists()


@pytest.mark.slow
def test_what_is_mapped_is_what_was_loaded(trifeature_root: Path) -> None:
    assert_is_the_data_set(load_data(DATASET, trifeature_root, CPU), trifeature_root)
    assert_is_the_data_set(load_data(DATASET, trifeature_root, CPU), trifeature_root)


@pytest.mark.slow
def test_no_worker_has_pages_of_its_own(trifeature_root: Path) -> None:
    data = load_data(DATASET, trifeature_root, CPU)
    draw = epoch_draw(len(data.resident.train), "crop_flip", seed=0, epoch=0)
    for batch in batches(data.resident.train, draw, batch_size=64):
        batch.images_BCHW.add_(1)
    own_kib = {path.name: kib for path, kib in _copied(trifeature_root / "loaded")}
    assert own_kib == {"tensors.safetensors": 0}


def _copied(folder: Path) -> Iterator[tuple[Path, int]]:
    """Mapped files below a folder, and how many KiB of them this process has copied for itself."""
    path = None
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            path = Path(line.split(maxsplit=5)[-1])
        elif line.startswith("Anonymous:") and path is not None and folder in path.parents:
            yield path, int(line.split()[1])


@pytest.mark.slow
def test_the_second_worker_does_not_load(tmp_path: Path) -> None:
    first = load_data(DATASET, tmp_path, CPU)
    sources = [path for path in tmp_path.iterdir() if path.name != "loaded"]
    assert sources
    for path in sources:
        shutil.rmtree(path)
    second = load_data(DATASET, tmp_path, CPU)
    for (name, a), (_, b) in zip(parts(first), parts(second), strict=True):
        assert torch.equal(a, b), name
    assert [path.name for path in tmp_path.iterdir()] == ["loaded"]


@pytest.mark.slow
def test_without_room_for_the_files_the_data_are_held_in_memory(
    trifeature_root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Guard: the library that writes the tensors reports a full disk by an error that is no OSError."""
    dataset = DATASET.model_copy(update={"split_seed": 1})
    load_dataset(dataset, trifeature_root)
    with caplog.at_level(logging.WARNING, logger="kd_ray"), largest_file(100_000):
        data = load_data(dataset, trifeature_root, CPU)
    assert "every worker holds the data set in memory of its own" in caplog.text
    assert "File too large" in caplog.text
    assert len(data.resident.train) == 450
    assert torch.equal(load_data(dataset, trifeature_root, CPU).resident.train.labels_N, data.resident.train.labels_N)


def test_a_data_set_that_cannot_be_loaded_leaves_no_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cifar-10-batches-py"):
        load_data(Cifar10Dataset(name="cifar10"), tmp_path, CPU)
    assert [path.name for path in (tmp_path / "loaded").iterdir() if path.is_dir()] == []


@pytest.mark.slow
def test_a_damaged_file_is_moved_away_and_made_again(trifeature_root: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Guard: its checksum is looked at by every worker that starts."""
    dataset = DATASET.model_copy(update={"split_seed": 2})
    labels = load_data(dataset, trifeature_root, CPU).resident.train.labels_N.clone()
    file = max((trifeature_root / "loaded").glob("*/tensors.safetensors"), key=lambda path: path.stat().st_mtime_ns)
    content = bytearray(file.read_bytes())
    content[-100] ^= 1
    file.write_bytes(content)
    with caplog.at_level(logging.WARNING, logger="kd_ray"):
        data = load_data(dataset, trifeature_root, CPU)
    assert f"{file.parent} is damaged" in caplog.text
    assert torch.equal(data.resident.train.labels_N, labels)
