"""What a pack asks of whoever trains it. Types only: the driver of a sweep imports them and never torch.

`distill/worker.py` trains for real. A benchmark of the machinery puts a worker in its place whose training takes no time.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from kd_ray.results.record import Epoch
from kd_ray.results.store import Store
from kd_ray.sweep.placement import Placement
from kd_ray.sweep.spec import TrialSpec

T = TypeVar("T")

OnFailure = Callable[[TrialSpec, Exception], None]
"""Called with a trial that cannot go on; the others do."""


class LoadState(Protocol):
    """Finds the checkpoint to go on from."""

    def __call__(self, spec: TrialSpec, decode: Callable[[bytes], T]) -> T | None:
        """The newest state of the trial that `decode` can read, or None to start anew."""


@dataclass(frozen=True, kw_only=True)
class FitProgress:
    """A moment of a pack's training."""

    epoch: int
    """Epochs finished by the student that is furthest behind."""
    epochs: int
    accuracy: float | None
    """Training accuracy of the last finished epoch, mean over the students; on the validation split where there is one."""
    images_per_s: float
    """Samples that went through a student per second, summed over the students."""
    end_of_epoch: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class TrialResult:
    """What training and evaluating a trial gave, before it is committed."""

    history: tuple[Epoch, ...]
    scalars: Mapping[str, float]
    predictions_N: npt.NDArray[np.int32]
    confidences_N: npt.NDArray[np.float32]
    true_probabilities_N: npt.NDArray[np.float32]
    weights: bytes
    """Weights and buffers as safetensors."""
    num_parameters: int
    num_train: int
    """Training samples of an epoch."""
    elapsed_s: float
    """Training seconds over all restarts."""
    restarts: int
    """How often training went on from a checkpoint."""
    per_class: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """See `Record.per_class`."""
    per_sample: Mapping[str, npt.NDArray[np.float32]] = field(default_factory=dict)
    """See `Record.per_sample`."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Versions of packages that this trial depends on besides those that all do."""


@dataclass(frozen=True, kw_only=True)
class TrialTraining:
    """One trial of a pack in training."""

    spec: TrialSpec
    step: Callable[[], int]
    """Optimiser steps taken so far."""
    state: Callable[[], bytes]
    """Everything the next step depends on: the content of a checkpoint."""
    finish: Callable[[], TrialResult]
    """Evaluate; called once, after the last step."""


class PackTraining(Protocol):
    """A pack in training."""

    @property
    def trials(self) -> Sequence[TrialTraining]:
        """The trials that have not failed and were not dropped."""

    def fit(self) -> Iterator[FitProgress]:
        """Train to the end. Between two of its values every trial's `state` is consistent."""

    def drop(self, trial_id: str) -> None:
        """Train this one no further: somebody else does."""


class PackWorker(Protocol):
    """One worker process: what it keeps from pack to pack, and how it trains."""

    store: Store
    placement: Placement
    launch_id: str

    @property
    def device_name(self) -> str:
        """`cpu`, or the name of the GPU."""

    def begin(self, specs: Sequence[TrialSpec], load_state: LoadState, on_failure: OnFailure) -> PackTraining:
        """Get ready to train; trials that cannot are reported to `on_failure`.

        Raises:
            DataError: the data set cannot be loaded, so none of them can be trained.
            StoreError: the store does not do as asked.
        """
