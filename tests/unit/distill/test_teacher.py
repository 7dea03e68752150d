"""A looked-up teacher teaches the same bits as one that runs, and anything wrong with its table costs work, never a result."""

import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kd_ray.cluster.launch import launch
from kd_ray.cluster.local import LocalRunner
from kd_ray.distill import checkpoint
from kd_ray.distill.augmentations import num_views
from kd_ray.distill.device import make_deterministic
from kd_ray.distill.fit import fit
from kd_ray.distill.student import Student
from kd_ray.distill.teacher import TabledTeacher, Teacher, forward
from kd_ray.distill.view_table import READY, SharedViews, TableShape, ViewTable
from kd_ray.models import build_model
from kd_ray.results.store import Store, open_store
from kd_ray.sweep.spec import TrialSpec
from kd_ray.sweep.training import Augmentation
from tests.limits import largest_file
from tests.sweeps import assert_same_tables, tiny_sweep
from tests.unit.distill.test_fit import DATA, TEACHER_ID, assert_same_bits, make_spec, start

NUM_TRAIN = len(DATA.train)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    make_deterministic(1)
    yield
    torch.use_deterministic_algorithms(False)


class Network(nn.Module):
    """A teacher's network that counts the samples it sees."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.inner = build_model("resnet20", num_classes=3, image_size=16)
        self.eval().requires_grad_(False)
        self.seen = 0

    def forward(self, images_BCHW: Tensor) -> Tensor:
        self.seen += len(images_BCHW)
        logits_BC: Tensor = self.inner(images_BCHW)
        return logits_BC


def tabled(
    root: Path, store: Store, augmentation: Augmentation = "crop_flip", table_id: str = "a" * 16
) -> tuple[TabledTeacher, Network]:
    """A teacher with its table in `root`, which shares at once what it computes."""
    network = Network()
    views = num_views(augmentation)
    assert views is not None
    shape = TableShape(num_samples=NUM_TRAIN, num_views=views, num_classes=3)
    table = ViewTable(root, table_id, shape)
    shared = SharedViews(store, TEACHER_ID, table_id, table)
    shared.fetch()

    def at_once(task: Callable[[], None]) -> None:
        task()

    return TabledTeacher(network, table, shared, augmentation=augmentation, in_background=at_once), network


def train(teacher: Teacher, *temperatures: float, augmentation: Augmentation = "crop_flip") -> list[Student]:
    students = [start(make_spec(temperature, augmentation=augmentation)) for temperature in temperatures or (4.0,)]
    for _ in fit(list(students), {TEACHER_ID: teacher}, DATA, on_failure=_raise):
        pass
    teacher.finish()
    return students


def _raise(student: Student, error: Exception) -> None:
    raise error


@pytest.mark.slow
@pytest.mark.parametrize("augmentation", ["none", "flip", "crop_flip"])
def test_looking_logits_up_gives_the_same_bits_as_computing_them(
    tmp_path: Path, store: Store, augmentation: Augmentation
) -> None:
    """70 samples in batches of 16, the last of 6: also a small batch is looked up to the last bit."""
    live = train(Teacher(Network()), 1.0, 8.0, augmentation=augmentation)
    teacher, network = tabled(tmp_path, store, augmentation)
    first = train(teacher, 1.0, 8.0, augmentation=augmentation)
    computed = network.seen
    again = train(teacher, 8.0, 1.0, augmentation=augmentation)[::-1]
    for a, b, c in zip(live, first, again, strict=True):
        assert_same_bits(a, b)
        assert_same_bits(a, c)
    # Only the check of the second pack's first batch, filled up to 32, went through the network again.
    assert network.seen == computed + 32
    if augmentation == "none":
        # One view: 70 samples once, as 64 and 6 that are filled up to 32, and the check.
        assert computed == 64 + 32 + 32


def half(temperature: float) -> TrialSpec:
    """A spec that asks for logits in half precision."""
    spec = make_spec(temperature)
    assert spec.distillation
    return spec.model_copy(
        update={"distillation": spec.distillation.model_copy(update={"teacher_logits": "fp16"})}, deep=True
    )


@pytest.mark.slow
def test_rounded_logits_are_the_same_looked_up_and_computed(tmp_path: Path, store: Store) -> None:
    """One pack, two sources: the student that asks for fp32 gets fp32. The table of rounded logits takes half the space."""
    table = ViewTable(
        tmp_path, "b" * 16, TableShape(num_samples=NUM_TRAIN, num_views=162, num_classes=3, precision="fp16")
    )
    assert (table.folder / "logits").stat().st_size == NUM_TRAIN * 162 * 3 * 2
    shared = SharedViews(store, TEACHER_ID, "b" * 16, table)
    looked_up = TabledTeacher(Network(), table, shared, augmentation="crop_flip", in_background=lambda task: task())

    def train_both(rounded: Teacher) -> list[Student]:
        students = [start(half(4.0)), start(make_spec(4.0))]
        sources = {f"{TEACHER_ID} fp16": rounded, TEACHER_ID: Teacher(Network())}
        for _ in fit(list(students), sources, DATA, on_failure=_raise):
            pass
        return students

    live, again = train_both(Teacher(Network(), precision="fp16")), train_both(looked_up)
    assert_same_bits(live[0], again[0])
    assert_same_bits(live[1], again[1])
    assert live[0].history[-1].loss != live[1].history[-1].loss
    assert live[0].history[-1].loss == pytest.approx(live[1].history[-1].loss, rel=1e-2)
    assert table.missing(np.arange(NUM_TRAIN * 162), also_claimed=True).size < NUM_TRAIN * 162


@pytest.mark.parametrize(
    ("offset", "reason"), [(1e6, "divergence nan"), (3e3, "(logits up to 3.01e+03, divergence 0.00041 nat")]
)
def test_half_precision_that_changes_the_teacher_is_refused(offset: float, reason: str) -> None:
    """Out of range, and too coarse."""
    network = Network()
    with torch.no_grad():
        list(network.inner.parameters())[-1].add_(offset)
    failed: list[str] = []
    students = [start(half(4.0))]
    for _ in fit(
        students,
        {f"{TEACHER_ID} fp16": Teacher(network, precision="fp16")},
        DATA,
        on_failure=lambda student, error: failed.append(str(error)),
    ):
        pass
    assert len(failed) == 1
    assert failed[0].startswith("distillation.teacher_logits: fp16 changes this teacher (logits up to ")
    assert reason in failed[0]


@pytest.mark.slow
def test_a_pack_that_goes_on_in_the_middle_of_an_epoch_computes_only_the_rest(tmp_path: Path, store: Store) -> None:
    straight = train(Teacher(Network()))[0]
    stopped = start(make_spec(4.0))
    for _ in fit([stopped], {TEACHER_ID: Teacher(Network())}, DATA, on_failure=_raise, report_every_s=0.0):
        if stopped.step >= 3:
            break
    resumed = start(make_spec(4.0), checkpoint.decode(checkpoint.encode(stopped.state())))
    teacher, _ = tabled(tmp_path, store)
    table = ViewTable(tmp_path, "a" * 16, TableShape(num_samples=NUM_TRAIN, num_views=162, num_classes=3))
    steps = fit([resumed], {TEACHER_ID: teacher}, DATA, on_failure=_raise, report_every_s=0.0)
    next(steps)
    assert len(table.missing(np.arange(NUM_TRAIN * 162), also_claimed=True)) == NUM_TRAIN * 162 - (NUM_TRAIN - 3 * 16)
    for _ in steps:
        pass
    assert_same_bits(straight, resumed)


@pytest.mark.slow
def test_what_one_node_computed_another_does_not_compute_again(tmp_path: Path, store: Store) -> None:
    """Through the store: two nodes have two folders."""
    first = train(tabled(tmp_path / "one", store)[0])
    teacher, network = tabled(tmp_path / "two", store)
    second = train(teacher)
    assert_same_bits(first[0], second[0])
    assert network.seen == 32


@pytest.mark.slow
def test_a_damaged_chunk_is_computed_again(tmp_path: Path, store: Store, caplog: pytest.LogCaptureFixture) -> None:
    """Guard: the name of a chunk holds its checksum."""
    expected = train(tabled(tmp_path / "one", store)[0])[0]
    keys = [item.key for item in store.entries("teachers")]
    assert keys
    for key in keys:
        data = store.get(key)
        assert data
        store.put(key, data[:-8] + b"damaged!")
    teacher, network = tabled(tmp_path / "two", store)
    assert "is damaged; its logits are computed again" in caplog.text
    assert_same_bits(expected, train(teacher)[0])
    assert network.seen > 3 * NUM_TRAIN / 2


@pytest.mark.slow
def test_a_table_that_is_wrong_is_not_used(tmp_path: Path, store: Store, caplog: pytest.LogCaptureFixture) -> None:
    """Guard: every pack compares its first batch with the network."""
    expected = train(tabled(tmp_path, store)[0])[0]
    table = ViewTable(tmp_path, "a" * 16, TableShape(num_samples=NUM_TRAIN, num_views=162, num_classes=3))
    everything = np.arange(NUM_TRAIN * 162)
    ready = everything[table._state_P[everything] == READY]
    table.put(ready, np.nextafter(table.take(ready), np.float32(np.inf)))
    teacher, _ = tabled(tmp_path, store)
    with caplog.at_level(logging.WARNING):
        assert_same_bits(expected, train(teacher)[0])
    assert "differs from the network" in caplog.text


@pytest.mark.slow
def test_what_a_killed_process_claimed_is_computed_by_who_needs_it(tmp_path: Path, store: Store) -> None:
    expected = train(Teacher(Network()))[0]
    table = ViewTable(tmp_path, "a" * 16, TableShape(num_samples=NUM_TRAIN, num_views=162, num_classes=3))
    table.claim(np.arange(0, NUM_TRAIN * 162, 2))
    teacher, _ = tabled(tmp_path, store)
    assert_same_bits(expected, train(teacher)[0])


def test_claimed_pairs_are_left_to_their_process_at_first(tmp_path: Path) -> None:
    table = ViewTable(tmp_path, "a" * 16, TableShape(num_samples=4, num_views=1, num_classes=2))
    other = ViewTable(tmp_path, "a" * 16, TableShape(num_samples=4, num_views=1, num_classes=2))
    other.claim(np.array([1]))
    other.put(np.array([2]), np.array([[0.5, 1.5]], dtype=np.float32))
    pairs = np.arange(4)
    assert table.missing(pairs, also_claimed=False).tolist() == [0, 3]
    assert table.missing(pairs, also_claimed=True).tolist() == [0, 1, 3]
    assert table.has(np.array([2]))
    assert not table.has(np.array([1, 2]))
    assert table.take(np.array([2])).tolist() == [[0.5, 1.5]]
    # A claim never takes back what is ready.
    table.claim(pairs)
    assert other.has(np.array([2]))


def test_the_space_of_a_table_is_taken_at_once_or_not_at_all(tmp_path: Path) -> None:
    """Guard: a write into a hole of a full disk ends the process with SIGBUS."""
    shape = TableShape(num_samples=1000, num_views=162, num_classes=10)
    folder = ViewTable(tmp_path, "a" * 16, shape).folder
    assert (folder / "logits").stat().st_blocks * 512 >= shape.num_pairs * 10 * 4

    with largest_file(100_000), pytest.raises(OSError, match="File too large"):
        ViewTable(tmp_path, "b" * 16, shape)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == [folder.name]


def test_tables_that_nobody_opened_for_a_week_are_deleted(tmp_path: Path) -> None:
    shape = TableShape(num_samples=1, num_views=1, num_classes=1)
    old = ViewTable(tmp_path, "a" * 16, shape).folder
    recent = ViewTable(tmp_path, "b" * 16, shape).folder
    week_s = 7 * 24 * 3600
    for folder, age_s in ((old, week_s + 60), (recent, week_s - 60)):
        os.utime(folder, (time.time() - age_s,) * 2)
    ViewTable(tmp_path, "c" * 16, shape)
    assert not old.exists()
    assert recent.exists()


@pytest.mark.slow
@pytest.mark.parametrize("count", [pytest.param(1, marks=pytest.mark.long), 2, 5, 31, 32, 100])
def test_a_sample_has_the_same_logits_in_every_batch(count: int) -> None:
    """Guard: small batches are filled up, because few rows go another way through a matrix product."""
    torch.manual_seed(3)
    for model in ("lenet5", "resnet20"):
        network = build_model(model, num_classes=10, image_size=32).eval().to(memory_format=torch.channels_last)
        images = torch.randn(100, 3, 32, 32).contiguous(memory_format=torch.channels_last)
        whole = forward(network, images)
        parts = torch.cat([forward(network, images[i : i + count]) for i in range(0, 100, count)])
        assert torch.equal(whole, parts)


@pytest.mark.long
def test_a_sweep_with_and_without_tables_leaves_the_same_tables(tmp_path: Path) -> None:
    """Launch to tables, three ways: looked up, without tables, and where none can be made. Its data root has no tables before."""

    def launched(name: str, limit: float) -> Store:
        store = open_store(tmp_path / name)
        file = tiny_sweep(tmp_path / "data", f"placement.view_table_gb={limit}")
        assert launch(file, store, runner=LocalRunner()).exit_code == 0
        return store

    live = launched("live", 0.0)
    no_folder = tmp_path / "data" / "views"
    no_folder.write_text("a file where the folder of the tables should be")
    full = launched("full", 4.0)
    assert not [*live.entries("teachers"), *full.entries("teachers")]
    no_folder.unlink()
    looked_up = launched("looked up", 4.0)
    assert list(looked_up.entries("teachers"))
    assert_same_tables(live, looked_up)
    assert_same_tables(live, full)
