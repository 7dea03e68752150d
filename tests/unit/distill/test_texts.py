"""Texts in training: masks, batches of similar length, teachers whose logits of a text are the same whatever stands beside it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kd_ray.data.text_data import TextData, TextSplit
from kd_ray.distill import checkpoint
from kd_ray.distill.batches import batches, draw_of
from kd_ray.distill.device import make_deterministic
from kd_ray.distill.fit import fit
from kd_ray.distill.samples import to_device
from kd_ray.distill.samples.resident_texts import BUCKET, ResidentTexts, arranged, by_bucket
from kd_ray.distill.samples.text_distances import text_features
from kd_ray.distill.student import Student, new_student
from kd_ray.distill.teacher import TabledTeacher, Teacher, forward
from kd_ray.distill.view_table import SharedViews, TableShape, ViewTable
from kd_ray.groups import Groups
from kd_ray.models.text_classifier import text_classifier
from kd_ray.results.store import Store
from kd_ray.sweep.datasets import HatexplainDataset
from kd_ray.sweep.distillation import KnowledgeDistillation
from kd_ray.sweep.encoders import read_encoder
from kd_ray.sweep.spec import Encoder, Role, TeacherRef, TrialSpec
from kd_ray.sweep.training import Training
from tests.datasets import write_bert
from tests.unit.distill.test_fit import assert_same_bits

pytest.importorskip("transformers", reason="the extra `text` is not installed")

CPU = torch.device("cpu")
TEACHER_ID = "0" * 16


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    make_deterministic(1)
    yield
    torch.use_deterministic_algorithms(False)


def texts(count: int, *, longest: int = 30, seed: int = 0) -> TextSplit:
    random = np.random.default_rng(seed)
    lengths_N = random.integers(3, longest + 1, count).astype(np.int32)
    ids_NL = random.integers(5, 17, (count, longest)).astype(np.int32)
    ids_NL[np.arange(longest)[None, :] >= lengths_N[:, None]] = 0
    labels_N = (ids_NL[:, 0] % 2).astype(np.int64)
    groups = Groups.from_codes(random.integers(0, 2, count), ("a", "b"))
    return TextSplit(ids_NL=ids_NL, lengths_N=lengths_N, labels_N=labels_N, sensitive_features={"side": groups})


DATA = to_device(TextData(train=texts(70), test=texts(30, seed=1), class_names=("no", "yes")), CPU)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bert(tmp_path_factory.mktemp("data"))


def make_network(root: Path, *, layers: tuple[int, ...] | None = None) -> torch.nn.Module:
    version = read_encoder("hf:tiny-bert", root).version
    torch.manual_seed(0)
    return text_classifier("hf:tiny-bert", Encoder(version=version, init="pretrained", layers=layers), 2, root)


def make_teacher(root: Path) -> torch.nn.Module:
    return make_network(root).eval().requires_grad_(False)


def start(root: Path, temperature: float, saved: checkpoint.TrainingState | None = None) -> Student:
    training = Training.model_validate(
        {
            "epochs": 2, "batch_size": 16, "optimizer": {"name": "adamw", "lr": 1e-3}, "clip_norm": 1.0,
            "schedule": {"name": "linear", "warmup_fraction": 0.2},
        }
    )  # fmt: skip
    spec = TrialSpec(
        role=Role.DISTILLED,
        dataset=HatexplainDataset(name="hatexplain", tokenizer="hf:tiny-bert"),
        model="hf:tiny-bert",
        encoder=Encoder(version="0" * 16, init="pretrained", layers=(0, 2)),
        training=training,
        distillation=KnowledgeDistillation(temperature=temperature, alpha=0.9, t_squared=True),
        teacher=TeacherRef(trial_id=TEACHER_ID, model="hf:tiny-bert", seed=0),
        seed=0,
    )
    return new_student(
        spec, training, DATA, CPU, saved, build=lambda: make_network(root, layers=(0, 2)).requires_grad_(True)
    )


def train(students: list[Student], teacher: Teacher) -> None:
    for _ in fit(list(students), {TEACHER_ID: teacher}, DATA, on_failure=_raise):
        pass
    teacher.finish()


def _raise(student: Student, error: Exception) -> None:
    raise error


def train_split() -> ResidentTexts:
    assert isinstance(DATA.train, ResidentTexts)
    return DATA.train


def test_a_batch_is_padded_to_its_longest_bucket_and_masked() -> None:
    split = train_split()
    samples_B = torch.tensor([3, 0, 5])
    tokens = split.tokens(samples_B)
    lengths = split.lengths_N[samples_B]
    assert tokens.ids_BL.shape[1] == min(30, -(-int(lengths.max()) // BUCKET) * BUCKET)
    assert torch.equal(tokens.mask_BL.sum(1), lengths.long())
    assert (tokens.ids_BL[tokens.mask_BL == 0] == 0).all()


@pytest.mark.slow
@given(count=st.integers(1, 90), batch_size=st.integers(1, 20), epoch=st.integers(0, 3))
def test_arranged_shows_every_text_once(count: int, batch_size: int, epoch: int) -> None:
    split = to_device(TextData(train=texts(count), test=texts(3), class_names=("a", "b")), CPU).train
    assert isinstance(split, ResidentTexts)
    order_N = torch.randperm(count, generator=torch.Generator().manual_seed(epoch))
    found = arranged(split, order_N, batch_size=batch_size, seed=1, epoch=epoch)
    assert sorted(found.tolist()) == list(range(count))
    assert torch.equal(found, arranged(split, order_N, batch_size=batch_size, seed=1, epoch=epoch))


def test_batches_are_of_similar_length_and_other_ones_in_each_epoch(root: Path) -> None:
    split = to_device(TextData(train=texts(640), test=texts(3), class_names=("a", "b")), CPU).train
    training = start(root, 1.0).training
    widths, firsts = [], []
    for epoch in (0, 1):
        draw = draw_of(split, training, seed=0, epoch=epoch)
        found = list(batches(split, draw, batch_size=16))
        widths += [batch.inputs.mask_BL.shape[1] for batch in found if isinstance(batch.inputs, tuple)]
        firsts.append(found[0].samples_B.tolist())
    # The longest of 16 random texts is nearly always in the last bucket.
    assert sum(widths) / len(widths) < 22
    assert firsts[0] != firsts[1]


def test_by_bucket_keeps_every_row(root: Path) -> None:
    tokens = train_split().tokens(torch.arange(20))
    rows = torch.cat([rows_M for rows_M, _ in by_bucket(tokens)])
    assert sorted(rows.tolist()) == list(range(20))
    assert all(part.mask_BL.sum(1).max() > part.mask_BL.shape[1] - BUCKET for _, part in by_bucket(tokens))


def test_teachers_logits_do_not_follow_the_company_of_a_text(root: Path) -> None:
    """To the last bit: a text has its own padding, whatever else stands in the batch."""
    split, teacher = train_split(), make_teacher(root)
    together = forward(teacher, split.tokens(torch.arange(64)))
    for chosen in (torch.tensor([7]), torch.tensor([7, 9, 1]), torch.arange(63, 20, -1)):
        assert torch.equal(forward(teacher, split.tokens(chosen)), together[chosen])
    # Padding changes last bits only.
    plain = teacher(split.tokens(torch.arange(64)))
    assert torch.allclose(plain, together, atol=1e-5)


def tabled(root: Path, folder: Path, store: Store) -> TabledTeacher:
    table = ViewTable(folder, "a" * 16, TableShape(num_samples=70, num_views=1, num_classes=2))
    shared = SharedViews(store, TEACHER_ID, "a" * 16, table)
    shared.fetch()

    def at_once(task: Callable[[], None]) -> None:
        task()

    return TabledTeacher(make_teacher(root), table, shared, augmentation="none", in_background=at_once)


@pytest.mark.slow
def test_table_gives_the_bits_of_a_live_teacher_and_sees_each_text_once(
    root: Path, tmp_path: Path, store: Store
) -> None:
    live = [start(root, 1.0), start(root, 8.0)]
    train(live, Teacher(make_teacher(root)))
    teacher = tabled(root, tmp_path / "views", store)
    looked_up = [start(root, 1.0), start(root, 8.0)]
    train(looked_up, teacher)
    for a, b in zip(live, looked_up, strict=True):
        assert_same_bits(a, b)
    assert teacher._holds
    # Another node takes the logits from the store, and computes none.
    other = tabled(root, tmp_path / "elsewhere", store)
    assert other._table.has(np.arange(70))


@pytest.mark.slow
def test_dropout_follows_the_seed_in_any_company_and_after_a_restart(root: Path) -> None:
    teacher = Teacher(make_teacher(root))
    alone = start(root, 4.0)
    assert any(isinstance(part, torch.nn.Dropout) and part.p > 0 for part in alone.model.modules())
    torch.manual_seed(5)
    train([alone], teacher)
    pack = [start(root, 1.0), start(root, 4.0)]
    train(pack, teacher)
    assert_same_bits(pack[1], alone)
    cut = start(root, 4.0)
    for _ in fit([cut], {TEACHER_ID: teacher}, DATA, on_failure=_raise, report_every_s=0):
        if cut.step == 7:
            break
    again = start(root, 4.0, checkpoint.decode(checkpoint.encode(cut.state())))
    train([again], teacher)
    assert_same_bits(again, alone)


def test_distances_between_texts() -> None:
    ids = np.array([[5, 6, 7, 0], [5, 6, 7, 9], [8, 9, 10, 11], [7, 5, 6, 0]], dtype=np.int32)
    features_ND = text_features(ids, np.array([3, 3, 4, 3]))
    # What stands behind a text's end does not count, nor does the order of its tokens.
    assert np.array_equal(features_ND[0], features_ND[1])
    assert np.allclose(features_ND[0], features_ND[3])
    # Texts that share no token are √2 apart, up to the projection.
    assert np.linalg.norm(features_ND[0] - features_ND[2]) == pytest.approx(2**0.5, rel=0.2)
