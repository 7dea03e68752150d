"""The measurement itself: it goes through the training loop, and leaves nothing behind."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from kd_ray.cluster.launch import launch, measure
from kd_ray.cluster.local import LocalRunner
from kd_ray.distill.pace_probe import pace_of, probe
from kd_ray.errors import OutOfMemoryError
from kd_ray.results.launch_plan import plan
from kd_ray.results.probe import read_probe, representative
from kd_ray.results.store import Store, open_store
from kd_ray.sweep.datasets import TrifeatureDataset
from kd_ray.sweep.placement import Placement
from tests.sweeps import assert_same_tables, tiny_sweep
from tests.unit.distill.test_fit import make_spec

PLACEMENT = Placement(cpus_per_pack=1)
SPEC = make_spec(4.0).model_copy(update={"dataset": TrifeatureDataset(name="trifeature", size=16)})


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


@pytest.mark.slow
def test_students_are_doubled_for_as_long_as_none_gets_slower() -> None:
    found = probe(SPEC, PLACEMENT, sharers=2)
    assert (found.model, found.device, found.threads) == ("lenet5", "cpu", 1)
    assert list(found.loop.seconds) == [2**i for i in range(len(found.loop.seconds))]
    assert found.grouped
    assert list(found.grouped.seconds) == [2 ** (i + 1) for i in range(len(found.grouped.seconds))]
    assert 0 < found.room_bytes < 2**50


@pytest.mark.long
@pytest.mark.slow
def test_a_network_that_cannot_be_grouped_has_no_grouped_pace() -> None:
    assert probe(SPEC.model_copy(update={"model": "resnet18"}), PLACEMENT, sharers=1).grouped is None


def test_memory_ends_the_doubling() -> None:
    """At the third student."""

    def step_s(count: int) -> float:
        if count > 2:
            raise OutOfMemoryError("full")
        return 0.01 * count

    cpu = torch.device("cpu")
    pace = pace_of(step_s, cpu, first=1)
    assert pace
    assert dict(pace.seconds) == {1: 0.01, 2: 0.02}
    assert pace_of(step_s, cpu, first=4) is None


def test_more_students_than_make_each_slower_are_dropped() -> None:
    pace = pace_of(lambda count: 0.01 * count * (2 if count > 4 else 1), torch.device("cpu"), first=1)
    assert pace
    assert list(pace.seconds) == [1, 2, 4]


def test_memory_that_is_too_small_for_one_student_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("kd_ray.distill.student.student_loss", full)
    with pytest.raises(OutOfMemoryError, match="the memory of cpu is too small for one lenet5"):
        probe(SPEC, PLACEMENT, sharers=1)


@pytest.mark.long
@pytest.mark.slow
def test_a_launch_with_auto_measures_once_and_leaves_the_same_tables(
    tmp_path: Path, finished_tiny: Store, trifeature_root: Path
) -> None:
    auto = open_store(tmp_path / "auto")
    file = tiny_sweep(trifeature_root, "placement.pack_size=auto")
    assert launch(file, auto, runner=LocalRunner()).exit_code == 0
    assert_same_tables(finished_tiny, auto)
    (probed,) = [item.e_tag for item in auto.entries("probes")]
    more = tiny_sweep(trifeature_root, "placement.pack_size=auto", "grid.seed=[0,1,2]")
    assert launch(more, auto, runner=LocalRunner()).exit_code == 0
    assert [item.e_tag for item in auto.entries("probes")] == [probed]


@pytest.mark.slow
def test_plan_with_probe_measures_here(store: Store, trifeature_root: Path) -> None:
    file = tiny_sweep(trifeature_root)
    measure(file, store)
    student = representative(plan(file, store).planned)
    assert student
    found = read_probe(store, student, file.sweep.placement)
    assert found
    assert plan(file, store).advice == found.advice()
