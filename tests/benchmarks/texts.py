"""Distillation of texts as `speed.py` races it: a BERT of 6 layers and 384 units teaches the network of some of its layers.

Texts have the lengths of HateXplain's posts as a BERT vocabulary cuts them (deciles below), in random tokens, batches of 32, AdamW with
clipping. The plain loop runs the teacher in each step; it pads to the longest of a batch, or, as mostly written, all to one length.
"""

import json
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from kd_ray.data.text_data import TextData, TextSplit
from kd_ray.distill.batches import draw_of
from kd_ray.distill.samples import ResidentData, to_device
from kd_ray.distill.samples.resident_texts import ResidentTexts
from kd_ray.distill.student import Student, new_student
from kd_ray.distill.teacher import TabledTeacher, Teacher
from kd_ray.distill.view_table import SharedViews, TableShape, ViewTable
from kd_ray.models.text_classifier import text_classifier
from kd_ray.results.store import open_store
from kd_ray.sweep.datasets import HatexplainDataset
from kd_ray.sweep.distillation import KnowledgeDistillation
from kd_ray.sweep.encoders import read_encoder
from kd_ray.sweep.spec import Encoder, Role, TeacherRef, TrialSpec
from kd_ray.sweep.training import Training
from tests.benchmarks.laps import Clock, Contestant, take_turns
from tests.benchmarks.ours import CPU, TEACHER_ID, epochs_of

BATCH, MAX_LENGTH, VOCABULARY = 32, 64, 30_522
DECILES = (4, 12, 15, 19, 22, 27, 31, 37, 45, 54, 64)
"""Tokens of a post, cut at 64: the least, the tenth in a hundred, and so on to the most."""
_CONFIG = {
    "model_type": "bert", "vocab_size": VOCABULARY, "hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12,
    "intermediate_size": 1536, "max_position_embeddings": 512,
}  # fmt: skip
_TEMPERATURE, _ALPHA = 4.0, 0.9


@dataclass(frozen=True, kw_only=True)
class Work:
    """One student of some of the teacher's layers."""

    root: Path
    layers: tuple[int, ...]
    steps: int

    def data(self) -> ResidentData:
        """Random tokens of HateXplain's lengths."""
        random = np.random.default_rng(0)

        def split(count: int) -> TextSplit:
            lengths_N = np.interp(random.random(count), np.linspace(0, 1, len(DECILES)), DECILES).astype(np.int32)
            ids_NL = random.integers(1_000, VOCABULARY, (count, MAX_LENGTH)).astype(np.int32)
            return TextSplit(ids_NL=ids_NL, lengths_N=lengths_N, labels_N=random.integers(0, 2, count))

        return to_device(TextData(train=split(BATCH * self.steps), test=split(2), class_names=("a", "b")), CPU)

    def network(self, layers: tuple[int, ...] | None = None) -> nn.Module:
        """Random weights, the same for the same layers."""
        torch.manual_seed(0)
        version = read_encoder("hf:bench", self.root).version
        return text_classifier("hf:bench", Encoder(version=version, init="random", layers=layers), 2, self.root)

    def training(self) -> Training:
        """For so many epochs that no benchmark sees the end."""
        settings = {
            "epochs": 1000, "batch_size": BATCH, "optimizer": {"name": "adamw", "lr": 1e-5}, "schedule": {"name": "constant"},
            "clip_norm": 1.0,
        }  # fmt: skip
        return Training.model_validate_json(json.dumps(settings))

    def student(self, data: ResidentData) -> Student:
        """Ours."""
        spec = TrialSpec(
            role=Role.DISTILLED,
            dataset=HatexplainDataset(name="hatexplain", tokenizer="hf:bench", max_length=MAX_LENGTH),
            model="hf:bench",
            encoder=Encoder(version="0" * 16, init="random", layers=self.layers),
            training=self.training(),
            distillation=KnowledgeDistillation(temperature=_TEMPERATURE, alpha=_ALPHA, t_squared=False),
            teacher=TeacherRef(trial_id=TEACHER_ID, model="hf:bench", seed=0),
            seed=0,
        )
        return new_student(spec, self.training(), data, CPU, None, build=lambda: self.network(self.layers))

    def ours(self, *, ready: bool) -> Iterator[None]:
        """Our loop; the table holds all, or each lap begins with an empty one. A step is an epoch."""
        data = self.data()
        student = self.student(data)
        network = self.network().eval().requires_grad_(False)
        with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(1) as background:
            teacher: Teacher = _tabled(network, Path(folder) / "0", len(data.train), background)
            laps = epochs_of([student], teacher, data)
            for lap in range(1000):
                if ready:
                    next(laps)
                else:
                    # Of the students of a sweep only the first finds it empty.
                    teacher = _tabled(network, Path(folder) / f"{lap + 1}", len(data.train), background)
                    draw = draw_of(data.train, self.training(), seed=0, epoch=lap)
                    for _ in teacher.prepare(data.train, draw, batch_size=BATCH, start=0):
                        pass
                    next(laps)
                yield

    def plain(self, *, fixed_length: bool) -> Iterator[None]:
        """A loop as people write it. A step is an epoch."""
        split = self.data().train
        assert isinstance(split, ResidentTexts)
        student, teacher = self.network(self.layers).train(), self.network().eval().requires_grad_(False)
        optimizer = torch.optim.AdamW(student.parameters(), lr=1e-5, weight_decay=0.0)
        while True:
            for samples_B in torch.randperm(len(split)).view(-1, BATCH):
                width = MAX_LENGTH if fixed_length else int(split.lengths_N[samples_B].max())
                inputs = {
                    "input_ids": split.ids_NL[samples_B, :width].long(),
                    "attention_mask": (torch.arange(width) < split.lengths_N[samples_B][:, None]).long(),
                }
                with torch.no_grad():
                    teacher_BC = teacher.get_submodule("network")(**inputs).logits
                logits_BC = student.get_submodule("network")(**inputs).logits
                soft = functional.kl_div(
                    functional.log_softmax(logits_BC / _TEMPERATURE, dim=1),
                    functional.softmax(teacher_BC / _TEMPERATURE, dim=1),
                    reduction="batchmean",
                )
                loss = _ALPHA * soft + (1 - _ALPHA) * functional.cross_entropy(logits_BC, split.labels_N[samples_B])
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(student.parameters(), 1.0)
                optimizer.step()
                loss.item()
            yield


def _tabled(network: nn.Module, folder: Path, count: int, background: ThreadPoolExecutor) -> TabledTeacher:
    table = ViewTable(folder / "views", "0" * 16, TableShape(num_samples=count, num_views=1, num_classes=2))
    shared = SharedViews(open_store(folder / "store"), TEACHER_ID, "0" * 16, table)
    return TabledTeacher(network, table, shared, augmentation="none", in_background=background.submit)


def race(layers: tuple[int, ...], *, rounds: int, steps: int, clock: Clock) -> dict[str, list[float]]:
    """Seconds per epoch of each contestant; the first epoch of "ready" fills its table and does not count."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "models" / "bench").mkdir(parents=True)
        (Path(folder) / "models" / "bench" / "config.json").write_text(json.dumps(_CONFIG))
        work = Work(root=Path(folder), layers=layers, steps=steps)
        return take_turns(
            {
                "ready": Contestant(laps=work.ours(ready=True), deterministic=True),
                "plain": Contestant(laps=work.plain(fixed_length=False), deterministic=False),
                "as written": Contestant(laps=work.plain(fixed_length=True), deterministic=False),
                "cold": Contestant(laps=work.ours(ready=False), deterministic=True),
            },
            rounds=rounds,
            clock=clock,
        )
