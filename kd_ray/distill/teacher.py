"""Teachers: networks in evaluation mode whose logits students learn from. The logits are computed for each batch, or looked up.

Where an augmentation has finitely many views, the logits of a view are the same in every epoch, at every seed and temperature.
`TabledTeacher` computes each once (`view_table.py`): before an epoch, it computes the logits that the epoch needs and the table lacks, in
large batches. Its results are those of `Teacher`, to the last bit on the CPU. Every pack checks this on its first batch; where they
differ, the network is used instead of the table.
"""

import logging
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from kd_ray.distill.batches import Batch
from kd_ray.distill.evaluate import predict
from kd_ray.distill.mixing import mixed
from kd_ray.distill.objectives import ClassStatistics
from kd_ray.distill.objectives.reliability import class_statistics
from kd_ray.distill.samples.kind import Draw, Inputs, Resident, images_of, steady_logits
from kd_ray.distill.view_table import SampleViews, SharedViews, ViewTable
from kd_ray.errors import TrialError
from kd_ray.seeding import shuffled, stream
from kd_ray.sweep.objective_settings import LogitPrecision
from kd_ray.sweep.training import Augmentation

_FILL_BATCH = {"cpu": 64, "cuda": 512}
"""On one thread of a CPU a ResNet-56 takes 1.8 ms per image in batches of 64, 2.6 in batches of 256: the activations leave the cache."""
_SHARE_EVERY = 8
"""A chunk goes to the store when it holds an eighth of the samples."""
_CUDA_TOLERANCE = {"fp32": 1e-4, "fp16": 2e-3}
"""Largest difference on a GPU between table and network, as a share of the largest logit: kernels differ with the batch size there."""
_FP16_DIVERGENCE = 1e-4
"""Largest Kullback-Leibler divergence, in nat, between a teacher and its rounded self on any sample; logits near 30 and above exceed it."""

logger = logging.getLogger("kd_ray")


@torch.no_grad()
def forward(model: nn.Module, inputs: Inputs) -> Tensor:
    """Logits (B, C), without gradients. On the CPU those of a sample are the same to the last bit in every batch."""
    return steady_logits(inputs, model)


class Teacher:
    """Runs the network for every batch."""

    def __init__(self, model: nn.Module, *, precision: LogitPrecision = "fp32") -> None:
        """With `fp16` its logits are rounded to half precision."""
        self.model = model
        self._precision: LogitPrecision = precision
        self._statistics: ClassStatistics | None = None
        self._test_logits: Tensor | None = None

    def prepare(self, split: Resident, draw: Draw, *, batch_size: int, start: int) -> Iterator[None]:
        """Called before the batches of an epoch from step `start` on; yields now and then while it works."""
        del split, draw, batch_size, start
        yield from ()

    def logits(self, batch: Batch) -> Tensor:
        """Logits (B, C) for a batch, float32.

        Raises:
            TrialError: rounding to half precision changes the teacher's probabilities too much.
        """
        return self.answer(batch.inputs)

    def answer(self, inputs: Inputs) -> Tensor:
        """Logits (B, C) for any inputs, from the network, float32.

        Raises:
            TrialError: rounding to half precision changes the teacher's probabilities too much.
        """
        return self._forward(inputs)

    def statistics(self, held_out: Resident) -> ClassStatistics:
        """Statistics per class on a split that it was not trained on. The split is always the same, so they are computed once."""
        if self._statistics is None:
            self._statistics = class_statistics(predict(self.model, held_out), held_out.labels_N.cpu())
        return self._statistics

    def test_logits(self, test: Resident) -> Tensor:
        """Logits of the test split on the CPU, without rounding. The split is always the same, so they are computed once."""
        if self._test_logits is None:
            self._test_logits = predict(self.model, test)
        return self._test_logits

    def finish(self) -> None:
        """Called when a pack has ended, however it did."""

    def _forward(self, inputs: Inputs) -> Tensor:
        return self.rounded(forward(self.model, inputs).float())

    def rounded(self, exact_BC: Tensor) -> Tensor:
        """The logits in the precision of this teacher, float32.

        Raises:
            TrialError: rounding to half precision changes the teacher's probabilities too much.
        """
        if self._precision == "fp32":
            return exact_BC
        rounded_BC = exact_BC.half().float()
        log_exact_BC, log_rounded_BC = exact_BC.log_softmax(1), rounded_BC.log_softmax(1)
        divergence = float((log_exact_BC.exp() * (log_exact_BC - log_rounded_BC)).sum(1).max())
        # Not a number where a logit is out of range.
        if not divergence <= _FP16_DIVERGENCE:
            raise TrialError(
                f"distillation.teacher_logits: fp16 changes this teacher (logits up to {float(exact_BC.abs().max()):.3g}, divergence "
                f"{divergence:.2g} nat at T = 1, at most {_FP16_DIVERGENCE:g} is allowed); use fp32"
            )
        return rounded_BC


class ShuffledTeacher(Teacher):
    """Gives for each training sample the logits that another teacher has for a different one: the control `kd_shuffled`."""

    def __init__(
        self, teacher: Teacher, split: Resident, *, augmentation: Augmentation, seed: int, within_class: bool
    ) -> None:
        """A permutation of the split's samples, fixed by the seed; `within_class`, no sample leaves its class."""
        super().__init__(teacher.model)
        self._teacher = teacher
        self._split = split
        self._augmentation: Augmentation = augmentation
        self._other_N = permutation(split.labels_N.cpu(), seed=seed, within_class=within_class)

    def prepare(self, split: Resident, draw: Draw, *, batch_size: int, start: int) -> Iterator[None]:
        """Like the other teacher's, of the samples that it will be asked for."""
        other = draw._replace(samples_N=self._other_N[draw.samples_N])
        yield from self._teacher.prepare(split, other, batch_size=batch_size, start=start)

    def logits(self, batch: Batch) -> Tensor:
        """Of the other samples, seen as these are."""
        samples_B = self._other_N[batch.samples_B]
        chosen_B = samples_B.to(batch.labels_B.device)
        inputs = self._split.inputs(chosen_B, batch.views_B.to(chosen_B.device), self._augmentation)
        if batch.mix is not None:
            inputs = mixed(images_of(inputs), batch.mix)
        return self._teacher.logits(Batch(inputs, self._split.labels_N[chosen_B], samples_B, batch.views_B, batch.mix))

    def finish(self) -> None:
        """Like the other teacher's."""
        self._teacher.finish()


def permutation(labels_N: Tensor, *, seed: int, within_class: bool) -> Tensor:
    """For each sample the one that replaces it; each replaces one. Drawn from the stream "shuffled teacher" of the seed."""
    order_N = torch.from_numpy(shuffled(len(labels_N), stream(seed, "shuffled teacher")))
    if not within_class:
        return order_N
    other_N = torch.empty_like(order_N)
    # Members of each class in ascending and in random order, class after class.
    other_N[torch.argsort(labels_N, stable=True)] = order_N[torch.argsort(labels_N[order_N], stable=True)]
    return other_N


class TabledTeacher(Teacher):
    """Runs the network once for each view of a sample."""

    def __init__(
        self,
        model: nn.Module,
        table: ViewTable,
        shared: SharedViews,
        *,
        augmentation: Augmentation,
        in_background: Callable[[Callable[[], None]], object],
    ) -> None:
        """`in_background` starts a task without waiting for it."""
        super().__init__(model, precision=table.shape.precision)
        self._table = table
        self._shared = shared
        self._augmentation: Augmentation = augmentation
        self._num_views = table.shape.num_views
        self._in_background = in_background
        self._fresh: list[SampleViews] = []
        self._is_checked = False
        self._holds = True

    def prepare(self, split: Resident, draw: Draw, *, batch_size: int, start: int) -> Iterator[None]:
        """Complete the table for the rest of an epoch. Pairs that another process claimed come last, and only if they are still missing."""
        if not self._holds:
            return
        pairs_N = self._pairs(draw.samples_N, draw.views_N)[start * batch_size :]
        # In one order for all processes, so that they do not compute the same views of the same samples side by side.
        pairs_N = self._sorted(split, pairs_N)
        for also_claimed in (False, True):
            todo_N = self._table.missing(pairs_N, also_claimed=also_claimed)
            size = _FILL_BATCH[split.labels_N.device.type]
            for first in range(0, len(todo_N), size):
                chunk_M = self._table.missing(todo_N[first : first + size], also_claimed=also_claimed)
                if len(chunk_M):
                    self._table.claim(chunk_M)
                    self._table.put(chunk_M, self._compute(split, chunk_M).cpu().numpy())
                    self._fresh.append(chunk_M)
                    yield
        if sum(map(len, self._fresh)) * _SHARE_EVERY >= len(split):
            self._share()
        if not self._is_checked:
            self._is_checked = True
            rest = slice(start * batch_size, (start + 1) * batch_size)
            self._check(split, Draw(draw.samples_N[rest], draw.views_N[rest], draw.augmentation))

    def logits(self, batch: Batch) -> Tensor:
        """Looked up; from the network where the table does not hold."""
        pairs_B = self._pairs(batch.samples_B, batch.views_B)
        if batch.mix is not None or not (self._holds and self._table.has(pairs_B)):
            return super().logits(batch)
        return torch.from_numpy(self._table.take(pairs_B)).float().to(batch.labels_B.device, non_blocking=True)

    def finish(self) -> None:
        """Write new logits to the store, and check the table again when the next pack starts."""
        self._share()
        self._is_checked = False

    def _pairs(self, samples_N: Tensor, views_N: Tensor) -> SampleViews:
        pairs_N: SampleViews = (samples_N * self._num_views + views_N).numpy()
        return pairs_N

    def _compute(self, split: Resident, pairs_M: SampleViews) -> Tensor:
        count = len(pairs_M)
        if split.labels_N.device.type == "cuda":
            # Kernels differ with the batch size there, and what is missing differs from run to run. Texts have many lengths anyway.
            pairs_M = np.resize(pairs_M, _FILL_BATCH["cuda"])
        samples_M = torch.from_numpy(pairs_M // self._num_views)
        return self._forward(self._seen(split, samples_M, torch.from_numpy(pairs_M % self._num_views)))[:count]

    def _seen(self, split: Resident, samples_M: Tensor, views_M: Tensor) -> Inputs:
        device = split.labels_N.device
        return split.inputs(samples_M.to(device), views_M.to(device), self._augmentation)

    def _sorted(self, split: Resident, pairs_N: SampleViews) -> SampleViews:
        """By number; texts by bucket first, so that a chunk is of one length."""
        pairs_N = np.sort(pairs_N)
        order_N = split.teacher_order(torch.from_numpy(pairs_N // self._num_views))
        ordered_N: SampleViews = pairs_N[order_N.numpy()]
        return ordered_N

    def _share(self) -> None:
        fresh, self._fresh = self._fresh, []
        if fresh:
            self._in_background(lambda: self._shared.share(fresh))

    def _check(self, split: Resident, draw: Draw) -> None:
        """Compare the table with the network on the pack's first batch."""
        device = split.labels_N.device
        live_BC = self._forward(self._seen(split, draw.samples_N, draw.views_N)).cpu()
        known_BC = torch.from_numpy(self._table.take(self._pairs(draw.samples_N, draw.views_N))).float()
        tolerance = 0.0 if device.type == "cpu" else _CUDA_TOLERANCE[self._precision] * float(live_BC.abs().max())
        difference = float((live_BC - known_BC).abs().max())
        if not difference <= tolerance:
            self._holds = False
            logger.warning(
                "the table of the teacher's logits differs from the network by %g; the network is used instead",
                difference,
            )
