from pathlib import Path

import pytest
import torch

from kd_ray.distill.worker import Worker
from kd_ray.errors import LostTeacherError, TrialError
from kd_ray.results.record import read_samples
from kd_ray.results.store import Store
from kd_ray.sweep.datasets import TrifeatureDataset
from kd_ray.sweep.placement import Placement
from kd_ray.sweep.spec import content_hash

DATASET = TrifeatureDataset(name="trifeature", size=16, images_per_combination=1)


@pytest.mark.parametrize("cpus", [1, 2])
def test_worker_has_as_many_threads_as_its_pack_has_cpus(store: Store, cpus: int) -> None:
    before = torch.get_num_threads()
    try:
        Worker(store, Placement(cpus_per_pack=cpus), launch_id="x")
        assert torch.get_num_threads() == cpus
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.set_num_threads(before)


@pytest.mark.slow
def test_data_are_loaded_once_and_their_samples_stored_once(store: Store, trifeature_root: Path) -> None:
    worker = Worker(store, Placement(data_root=str(trifeature_root)), launch_id="x")
    data = worker.data(DATASET)
    assert worker.data(DATASET) is data
    samples = read_samples(store, content_hash(DATASET))
    assert samples
    assert samples.labels_N.tolist() == data.resident.test.labels_N.tolist()
    assert list(samples.sensitive_features) == ["texture", "color"]


@pytest.mark.slow
def test_a_teacher_that_is_not_complete_cannot_teach(store: Store, trifeature_root: Path) -> None:
    worker = Worker(store, Placement(data_root=str(trifeature_root)), launch_id="x")
    with pytest.raises(LostTeacherError, match="teacher 0123456789abcdef: it is not complete") as caught:
        worker.teacher("0123456789abcdef", worker.data(DATASET), "none")
    assert caught.value.teacher == "0123456789abcdef"


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_gpus_without_a_device_are_refused(store: Store) -> None:
    with pytest.raises(TrialError, match=r"placement.gpus_per_pack = 0.5, but .* has no CUDA device"):
        Worker(store, Placement(gpus_per_pack=0.5), launch_id="x")
