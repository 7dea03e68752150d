"""Networks that trials have trained, rebuilt from a store: for workers, which teach with them, and for a notebook."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from kd_ray.distill.checkpoint import from_weights
from kd_ray.distill.dataset_cache import load_data
from kd_ray.distill.device import layout_of
from kd_ray.distill.evaluate import EVALUATION_BATCH, predict
from kd_ray.distill.samples import ResidentData
from kd_ray.distill.samples.kind import Inputs, Resident
from kd_ray.errors import CorruptObjectError, InvalidInputError, TrialError
from kd_ray.models.text_classifier import text_classifier
from kd_ray.results.record import read_record, sha256
from kd_ray.results.store import Store
from kd_ray.sweep.spec import TrialSpec

SplitName = Literal["train", "validation", "test"]


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainedTrial:
    """The network of a complete trial, on the CPU in evaluation mode, and the data set that it was trained on."""

    spec: TrialSpec
    model: nn.Module
    """Takes what `batches` gives; its output is logits (batch × classes)."""
    data: ResidentData

    def batches(self, split: SplitName = "test", *, size: int = EVALUATION_BATCH) -> Iterator[tuple[Inputs, Tensor]]:
        """Inputs and labels (int64) of a split, in the order of the data set and without augmentation; see `Inputs` for shapes.

        Raises:
            InvalidInputError: the data set has no such split.
            DataError: an image cannot be read.
        """
        return self._split(split).plain_batches(size)

    def logits(self, split: SplitName = "test") -> npt.NDArray[np.float32]:
        """Logits (N, classes) of every sample of a split; those of `test` are in the order of the table `samples`.

        Raises:
            InvalidInputError: the data set has no such split.
            DataError: an image cannot be read.
        """
        return predict(self.model, self._split(split)).numpy()

    def _split(self, name: SplitName) -> Resident:
        splits = self.data.splits()
        if name not in splits:
            raise InvalidInputError(f"{self.spec.dataset.name}: there is no split {name!r}, only {', '.join(splits)}")
        return splits[name]


def trained_trial(trial_id: str, store: Store, data_root: Path) -> TrainedTrial:
    """See `kd_ray.trained`."""
    record = read_record(store, trial_id)
    if record is None:
        raise InvalidInputError(f"store {store.url}: trial {trial_id!r} is not complete")
    weights = store.get(record.weights_key)
    if weights is None or sha256(weights) != record.weights_sha256:
        raise CorruptObjectError(
            f"store {store.url}: {record.weights_key!r} does not hold the weights that its record names"
        )
    data = load_data(record.spec.dataset, data_root, torch.device("cpu")).resident
    model = network_with(weights, record.spec, data, data_root, source=record.weights_key)
    model = model.to(memory_format=layout_of(torch.device("cpu")))
    return TrainedTrial(spec=record.spec, model=model.eval().requires_grad_(False), data=data)


def network_with(weights: bytes, spec: TrialSpec, data: ResidentData, root: Path, *, source: str) -> nn.Module:
    """The network of a trial with these weights; `source` is named where they do not fit.

    Raises:
        DataError: the folder of a network of texts is not as it was when the trial was planned.
        TrialError: the weights do not fit the network.
    """
    if spec.encoder is None:
        model = data.train.network(spec.model, data.num_classes)
    else:
        # Random weights: those that it began with are replaced.
        encoder = spec.encoder.model_copy(update={"init": "random"})
        model = text_classifier(spec.model, encoder, data.num_classes, root)
    try:
        model.load_state_dict(from_weights(weights, source=source))
    except (RuntimeError, ValueError) as error:
        raise TrialError(f"weights {source} do not fit {spec.model}: {error}") from error
    return model
