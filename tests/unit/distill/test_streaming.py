"""Images that stay in their files: the same bits as in memory, whatever the threads; decoded once per pack; exact after a kill."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from kd_ray.cluster.launch import launch
from kd_ray.data.families import fingerprint, load_dataset
from kd_ray.data.family import Loading
from kd_ray.data.prepared import files_below, prepare
from kd_ray.distill import checkpoint
from kd_ray.distill.batches import Batch, batches, epoch_draw
from kd_ray.distill.dataset_cache import LoadedData, load_data
from kd_ray.distill.device import make_deterministic
from kd_ray.distill.evaluate import predict
from kd_ray.distill.fit import fit
from kd_ray.distill.image_loader import BlockRequest, Loader
from kd_ray.distill.samples import ResidentData
from kd_ray.distill.samples.resident_images import ResidentImages
from kd_ray.distill.student import Student, new_student
from kd_ray.distill.teacher import ShuffledTeacher, Teacher
from kd_ray.errors import DataError
from kd_ray.models import build_model
from kd_ray.results.query import Results
from kd_ray.results.store import Store, open_store
from kd_ray.sweep.datasets import ImagenetDataset
from kd_ray.sweep.load import parse_dataset, parse_sweep
from kd_ray.sweep.spec import TrialSpec
from kd_ray.sweep.training import Augmentation
from tests.datasets import write_celeba, write_imagenet, write_people, write_tiny_imagenet
from tests.unit.distill.test_fit import DATA, TEACHER_ID, assert_same_bits, make_spec

CPU = torch.device("cpu")
ALL: tuple[Augmentation, ...] = ("none", "flip", "crop_flip", "resized_crop", "randaugment")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    make_deterministic(1)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_imagenet(tmp_path_factory.mktemp("files"), train_per_class=15, test_per_class=4)


@pytest.fixture(scope="module")
def dataset(root: Path) -> ImagenetDataset:
    wanted = ImagenetDataset(name="imagenet", num_classes=3, size=16, validation_fraction=0.2)
    with pytest.raises(DataError, match="Its fingerprint is") as caught:
        load_dataset(wanted, root)
    return wanted.model_copy(update={"version": str(caught.value).split("Its fingerprint is ")[1][:16]})


def loaded(dataset: ImagenetDataset, root: Path, *, streamed: bool, threads: int = 1) -> LoadedData:
    return load_data(dataset, root, CPU, resident_gb=0.0 if streamed else 1.0, loader=Loader(threads=threads))


def epoch(data: ResidentData, augmentation: Augmentation, *, start: int = 0) -> list[Batch]:
    draw = epoch_draw(len(data.train), augmentation, seed=1, epoch=2)
    return list(batches(data.train, draw, batch_size=5, start=start))


def assert_same_batches(found: list[Batch], expected: list[Batch]) -> None:
    assert len(found) == len(expected) > 0
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a.images_BCHW, b.images_BCHW)
        assert all(torch.equal(x, y) for x, y in zip(a[1:4], b[1:4], strict=True))


@pytest.mark.parametrize("augmentation", ALL)
def test_streamed_batches_are_the_resident_ones_whatever_the_threads(
    dataset: ImagenetDataset, root: Path, augmentation: Augmentation
) -> None:
    resident = loaded(dataset, root, streamed=False).resident
    assert isinstance(resident.train, ResidentImages)
    assert not resident.train.is_streamed
    expected = epoch(resident, augmentation)
    for threads in (1, 3):
        streamed = loaded(dataset, root, streamed=True, threads=threads).resident
        assert isinstance(streamed.train, ResidentImages)
        assert streamed.train.is_streamed
        assert streamed.train.images_NHWC.numel() == 0
        assert_same_batches(epoch(streamed, augmentation), expected)
        assert_same_batches(epoch(streamed, augmentation, start=4), expected[4:])
    for batch in expected[:2]:
        assert batch.images_BCHW.is_contiguous(memory_format=torch.channels_last)
        for split in (streamed.train, resident.train):
            again_BCHW = split.inputs(batch.samples_B, batch.views_B, augmentation)
            assert isinstance(again_BCHW, Tensor)
            assert torch.equal(again_BCHW, batch.images_BCHW)


@pytest.mark.parametrize("augmentation", ["resized_crop", "randaugment"])
def test_endless_views_differ_from_epoch_to_epoch_and_place_to_place(
    dataset: ImagenetDataset, root: Path, augmentation: Augmentation
) -> None:
    train = loaded(dataset, root, streamed=True).resident.train
    numbers = [epoch_draw(len(train), augmentation, seed=s, epoch=e).views_N for s, e in ((0, 0), (0, 1), (1, 0))]
    assert len(set(torch.cat(numbers).tolist())) == 3 * len(train)
    same = torch.zeros(6, dtype=torch.int64)
    draw = epoch_draw(6, augmentation, seed=0, epoch=0)
    assert len({image.numpy().tobytes() for image in train.inputs(same, draw.views_N, augmentation)}) == 6


def test_evaluation_and_pairs_stream_too(dataset: ImagenetDataset, root: Path) -> None:
    resident, streamed = (loaded(dataset, root, streamed=each) for each in (False, True))
    torch.manual_seed(0)
    model = build_model("lenet5", num_classes=3, image_size=16)
    for name in ("test", "validation"):
        assert torch.equal(
            predict(model, getattr(streamed.resident, name)), predict(model, getattr(resident.resident, name))
        )
    for _ in range(2):  # measured, then read
        for part in ("first_P", "second_P", "distance_P"):
            assert np.array_equal(getattr(streamed.pairs, part), getattr(resident.pairs, part))
        streamed = loaded(dataset, root, streamed=True)
    assert streamed.samples.labels_N.tolist() == resident.samples.labels_N.tolist()


@pytest.mark.slow
def test_every_set_of_files_streams_what_it_would_hold(tmp_path: Path) -> None:
    """Labels, groups, fingerprint and pixels, through each family's own listing, subsets and random splits."""
    sets: dict[str, tuple[Path, dict[str, Any]]] = {
        "tiny_imagenet": (
            write_tiny_imagenet(tmp_path / "t"),
            {"num_classes": 4, "size": 32, "validation_fraction": 0.25},
        ),
        "celeba": (
            write_celeba(tmp_path / "c"),
            {"size": 32, "crop": 100, "balance": "train", "validation": "official"},
        ),
        "manifest": (
            write_people(tmp_path / "m"),
            {
                "path": "people/people.csv",
                "classes": ["no", "yes"],
                "test_fraction": 0.3,
                "validation_fraction": 0.2,
                "features": ["race"],
                "size": 16,
            },
        ),
    }
    for name, (folder, settings) in sets.items():
        overrides = [f"{key}={json.dumps(value)}" for key, value in settings.items()]
        if name == "manifest":
            overrides.append("separator=;")
        plain = parse_dataset(name, overrides)
        version = fingerprint(plain, folder)
        assert version == fingerprint(plain, folder, resident_bytes=0), name
        wanted = parse_dataset(name, [*overrides, f"version='{version}'"])
        resident, streamed = (load_dataset(wanted, folder, resident_bytes=limit) for limit in (None, 0))
        assert streamed.notes == resident.notes
        for split in ("train", "validation", "test"):
            a, b = getattr(resident, split), getattr(streamed, split)
            assert (a.is_streamed, b.is_streamed) == (False, True)
            assert a.labels_N.tolist() == b.labels_N.tolist()
            assert np.array_equal(a.images_NHWC, np.stack([b.image(n) for n in range(len(b))])), (name, split)
            for feature, groups in a.sensitive_features.items():
                assert groups.to_lists() == b.sensitive_features[feature].to_lists()


def student(spec: TrialSpec, data: ResidentData, saved: checkpoint.TrainingState | None = None) -> Student:
    assert spec.training is not None
    return new_student(spec, spec.training, data, CPU, saved)


class CountingTeacher(Teacher):
    """Counts its forward passes."""

    passes = 0

    def logits(self, batch: Batch) -> Tensor:
        self.passes += 1
        return super().logits(batch)


@dataclass(frozen=True, kw_only=True, eq=False)
class CountingLoader(Loader):
    """Counts the images it makes."""

    made: list[int] = field(default_factory=list)

    def _start(self, request: BlockRequest) -> Any:
        self.made.append(request.count)
        return super()._start(request)


def make_teacher() -> CountingTeacher:
    torch.manual_seed(1)
    return CountingTeacher(build_model("resnet20", num_classes=3, image_size=16).eval().requires_grad_(False))


def trained(specs: list[TrialSpec], data: ResidentData, teacher: Teacher) -> list[Student]:
    students = [student(spec, data) for spec in specs]
    for _ in fit(list(students), {TEACHER_ID: teacher}, data, on_failure=_raise):
        pass
    return students


def _raise(student: Student, error: Exception) -> None:
    raise error


@pytest.mark.slow
def test_a_pack_shares_each_decoded_batch_and_one_pass_of_the_teacher(dataset: ImagenetDataset, root: Path) -> None:
    specs = [make_spec(t, augmentation="randaugment", epochs=2, batch_size=8) for t in (1.0, 4.0)]
    loader = CountingLoader()
    data = load_data(dataset, root, CPU, resident_gb=0.0, loader=loader).resident
    teacher = make_teacher()
    together = trained(specs, data, teacher)
    steps, count = 5, len(data.train)
    assert count == 36
    assert teacher.passes == 2 * steps
    # Two epochs, and the validation split after each, once for both.
    assert data.validation is not None
    assert sum(loader.made) == 2 * (count + len(data.validation))
    for spec, in_company in zip(specs, together, strict=True):
        assert_same_bits(trained([spec], data, make_teacher())[0], in_company)


@pytest.mark.slow
@pytest.mark.parametrize("augmentation", ["crop_flip", "randaugment"])
def test_a_streamed_run_killed_in_an_epoch_goes_on_to_the_same_bits(
    dataset: ImagenetDataset, root: Path, augmentation: str
) -> None:
    spec = make_spec(4.0, augmentation=augmentation, epochs=2, batch_size=8)
    resident = loaded(dataset, root, streamed=False).resident
    undisturbed = trained([spec], resident, make_teacher())[0]
    data = loaded(dataset, root, streamed=True, threads=1).resident
    first = student(spec, data)
    stream = fit([first], {TEACHER_ID: make_teacher()}, data, on_failure=_raise, report_every_s=0.0)
    while first.step < 7:  # two steps into the second epoch
        next(stream)
    state = checkpoint.encode(first.state())
    del stream
    # Another process, with another number of threads.
    data = loaded(dataset, root, streamed=True, threads=3).resident
    second = student(spec, data, checkpoint.decode(state))
    assert second.step == 7
    for _ in fit([second], {TEACHER_ID: make_teacher()}, data, on_failure=_raise):
        pass
    assert_same_bits(undisturbed, second)


def test_a_shuffled_teacher_sees_other_samples_in_the_views_of_these(dataset: ImagenetDataset, root: Path) -> None:
    train = loaded(dataset, root, streamed=True).resident.train
    teacher = make_teacher()
    shuffled = ShuffledTeacher(teacher, train, augmentation="resized_crop", seed=0, within_class=False)
    batch = next(iter(batches(train, epoch_draw(len(train), "resized_crop", seed=0, epoch=0), batch_size=8)))
    others = train.inputs(shuffled._other_N[batch.samples_B], batch.views_B, "resized_crop")
    with torch.no_grad():
        expected = teacher.logits(batch._replace(inputs=others))
        assert torch.equal(shuffled.logits(batch), expected)


def test_sets_without_files_have_endless_views_of_what_is_in_memory() -> None:
    def images(threads: int) -> Tensor:
        data = ResidentData(**{**vars(DATA), "train": _with_loader(DATA.train, threads)})
        return torch.cat([batch.images_BCHW for batch in epoch(data, "randaugment")])

    assert torch.equal(images(1), images(2))


def _with_loader(split: Any, threads: int) -> Any:
    return replace(split, loader=Loader(threads=threads))


def test_an_image_that_cannot_be_read_is_named_and_fails_the_students(tmp_path: Path) -> None:
    root = write_imagenet(tmp_path)
    wanted = ImagenetDataset(name="imagenet", num_classes=3, size=16)
    sources = files_below(root / "imagenet", ["train/n00000001/3.JPEG"], {})
    assert prepare("imagenet", sources, Loading(root=root, resident_bytes=0), size=16).files is not None
    with pytest.raises(DataError) as caught:
        load_dataset(wanted, root, resident_bytes=0)
    version = str(caught.value).split("Its fingerprint is ")[1][:16]
    data = load_data(wanted.model_copy(update={"version": version}), root, CPU, resident_gb=0.0).resident
    (root / "imagenet" / "train" / "n00000001" / "3.JPEG").write_bytes(b"no image")
    failures: list[Exception] = []
    students = [student(make_spec(augmentation="none", epochs=2), data) for _ in range(2)]
    for _ in fit(students, {}, data, on_failure=lambda _, error: failures.append(error)):
        pass
    assert len(failures) == 2
    assert all("imagenet/train/n00000001/3.JPEG cannot be used: it is no image in one of" in str(e) for e in failures)
    (root / "imagenet" / "train" / "n00000001" / "3.JPEG").unlink()
    with pytest.raises(DataError, match=r"n00000001/3.JPEG cannot be read: No such file"):
        epoch(data, "resized_crop")


def test_a_failing_image_ends_its_block_and_no_thread(tmp_path: Path) -> None:
    def image(i: int) -> Any:
        if i == 9:
            raise DataError("nine")
        return np.full((2, 2, 3), i, dtype=np.uint8)

    loader = Loader(threads=2)
    with pytest.raises(DataError, match="nine"):
        list(loader.blocks([BlockRequest(count=20, side=2, image=image)]))
    block = loader.block(BlockRequest(count=9, side=2, image=image))
    assert block[:, 0, 0, 0].tolist() == list(range(9))


SWEEP = """
name: tiny
dataset: {name: imagenet, num_classes: 3, size: 16}
teacher: {model: lenet5, seed: [0]}
student: {model: lenet5}
training:
  epochs: 2
  batch_size: 8
  optimizer: {name: sgd, lr: 0.02}
  schedule: {name: cosine}
  augmentation: resized_crop
distillation: {alpha: 0.9, t_squared: true}
grid: {seed: [0], temperature: [1, 8]}
"""


@pytest.mark.slow
@pytest.mark.parametrize("augmentation", ["flip", "resized_crop"])
def test_a_launch_gives_the_same_tables_streamed_and_resident(
    dataset: ImagenetDataset, root: Path, store: Store, tmp_path: Path, augmentation: str
) -> None:
    def launched(store: Store, *placement: str) -> None:
        overrides = [
            f"placement.data_root={root}", f"dataset.version='{dataset.version}'", f"training.augmentation={augmentation}", *placement,
        ]  # fmt: skip
        assert launch(parse_sweep(SWEEP, source="tiny.yaml", overrides=overrides), store, runner="local").exit_code == 0

    launched(store)
    streamed = open_store(tmp_path / "streamed")
    launched(streamed, "placement.resident_gb=0", "placement.loader_threads=3")
    sql = "SELECT trial_id, accuracy, loss, individual_fairness FROM trials ORDER BY ALL"
    assert Results(store).query(sql).to_pylist() == Results(streamed).query(sql).to_pylist()
    sql = "SELECT trial_id, epoch, loss, train_accuracy FROM epochs ORDER BY ALL"
    assert Results(store).query(sql).to_pylist() == Results(streamed).query(sql).to_pylist()
