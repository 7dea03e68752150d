"""The interface between a pack and the worker that trains it. Types only: the driver of a sweep imports this module and never torch.

`distill/worker.py` fulfils it by training. A benchmark of everything else uses a worker whose training takes no time.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from kd_ray.results.record import Epoch, Evaluated
from kd_ray.results.store import Store
from kd_ray.sweep.placement import Placement
from kd_ray.sweep.spec import TrialSpec

T = TypeVar("T")

OnFailure = Callable[[TrialSpec, Exception], None]
"""Called with a trial that failed, and its error. The other trials of the pack continue."""


class LoadState(Protocol):
    """Finds the checkpoint to resume from."""

    def __call__(self, spec: TrialSpec, decode: Callable[[bytes], T]) -> T | None:
        """The newest state of the trial that `decode` can read, or None where it starts from the beginning."""


@dataclass(frozen=True, kw_only=True)
class PackProgress:
    """A moment of a pack's training, as training reports it and the display shows it. The last one says how the pack ended."""

    epoch: int
    """Epochs finished by the student that is furthest behind."""
    epochs: int
    accuracy: float | None = None
    """Training accuracy of the last finished epoch, mean over the students; on the validation split where there is one."""
    images_per_s: float = 0.0
    """Samples that went through a student per second, summed over the students."""
    end_of_epoch: bool = False
    warning: str | None = None
    """An error since the last report that did not end the pack."""
    done: bool = False
    """Whether this is the pack's last report."""
    committed: tuple[str, ...] = ()
    """In the last report: trials that are complete now."""
    failed: tuple[str, ...] = ()
    """In the last report: trials that failed."""
    is_too_large: bool = False
    """In the last report: memory is too small for the pack. Its unfinished trials resume from their checkpoints, in two smaller packs."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TrialResult:
    """The result of training and evaluating a trial, before it is committed."""

    epochs: tuple[Epoch, ...]
    test: Evaluated
    weights: bytes
    """Weights and buffers as safetensors."""
    num_parameters: int
    num_train: int
    """Training samples of an epoch."""
    elapsed_s: float
    """Training seconds over all restarts."""
    restarts: int
    """How often training was resumed from a checkpoint."""
    per_class: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """See `Record.per_class`."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Versions of packages on which this trial depends, without those on which all trials depend."""


@dataclass(frozen=True, kw_only=True)
class TrialTraining:
    """One trial of a pack in training."""

    spec: TrialSpec
    step: Callable[[], int]
    """Optimiser steps taken so far."""
    state: Callable[[], bytes]
    """Everything the next step depends on: the content of a checkpoint."""
    finish: Callable[[], TrialResult]
    """Evaluate; called once, after the last step that this pack takes."""
    history: Callable[[], Sequence[Epoch]] = tuple
    """The finished epochs."""


class PackTraining(Protocol):
    """A pack in training."""

    @property
    def trials(self) -> Sequence[TrialTraining]:
        """The trials that have not failed and were not dropped."""

    def fit(self) -> Iterator[PackProgress]:
        """Train to the end. Between two of its values every trial's `state` is consistent."""

    def drop(self, trial_id: str) -> None:
        """Stop training this trial: another worker has taken it over."""


class PackWorker(Protocol):
    """One worker process, which trains pack after pack."""

    store: Store
    placement: Placement
    launch_id: str

    @property
    def device_name(self) -> str:
        """`cpu`, or the name of the GPU."""

    def begin(self, specs: Sequence[TrialSpec], load_state: LoadState, on_failure: OnFailure) -> PackTraining:
        """Prepare the training of these trials. Each trial that cannot be prepared is reported to `on_failure`.

        Raises:
            DataError: the data set cannot be loaded, so none of them can be trained.
            StoreError: an operation of the store failed.
        """
