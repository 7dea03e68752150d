"""A teacher of which only the logits of the training samples are known: the user gives them in a file, which the store keeps."""

from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from kd_ray.data.families import training_ids
from kd_ray.distill.batches import Batch
from kd_ray.distill.dataset_cache import LoadedData
from kd_ray.distill.logits_file import read_logits
from kd_ray.distill.samples.kind import Inputs
from kd_ray.distill.teacher import Teacher
from kd_ray.errors import TrialError
from kd_ray.sweep.objective_settings import LogitPrecision
from kd_ray.sweep.placement import Placement
from kd_ray.sweep.spec import TrialSpec


class _NoNetwork(nn.Module):
    """In place of the teacher's network. A sweep that needs the network is refused before it starts."""

    def forward(self, inputs: Inputs) -> Tensor:
        """Raises TrialError."""
        del inputs
        raise TrialError(
            "teacher.logits: only logits of the training samples are given, and this needs the teacher's network"
        )


class GivenTeacher(Teacher):
    """Looks its logits up: one row for each training sample, which has one view."""

    def __init__(self, logits_NC: Tensor, *, precision: LogitPrecision = "fp32") -> None:
        """`logits_NC` is float32, in the order of the training split, on the device of the batches."""
        super().__init__(_NoNetwork(), precision=precision)
        self._logits_NC = self.rounded(logits_NC)

    def logits(self, batch: Batch) -> Tensor:
        """Of the samples of the batch."""
        return self._logits_NC[batch.samples_B.to(self._logits_NC.device)]


def given_teacher(
    content: bytes, spec: TrialSpec, data: LoadedData, *, source: str, placement: Placement, device: torch.device
) -> Teacher:
    """The teacher of a student, from the content of the file; `source` names it in messages.

    Raises:
        DataError: the file does not fit the data set.
        TrialError: rounding to half precision changes the teacher's probabilities too much.
    """
    logits_NC = read_logits(
        content,
        source=f"teacher.logits: {source}",
        num_samples=len(data.resident.train),
        class_names=data.samples.class_names,
        ids=partial(
            training_ids,
            spec.dataset,
            Path(placement.data_root),
            processes=placement.cpus_per_pack,
            resident_bytes=placement.resident_bytes,
        ),
    )
    return GivenTeacher(torch.from_numpy(logits_NC).to(device), precision=spec.teacher_logits)
