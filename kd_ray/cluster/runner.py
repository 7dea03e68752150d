"""What the local runner and the Ray runner share: their protocol, the context of a launch, and the observer of its packs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, Self

from kd_ray.cluster.interrupts import Interrupts
from kd_ray.cluster.pack_queue import PackQueue
from kd_ray.cluster.shared_data.fetch_data import FoundSet
from kd_ray.cluster.shared_data.fetched_sets import on_this_node
from kd_ray.distill.worker_protocol import PackProgress, PackWorker
from kd_ray.results.probe import Probe
from kd_ray.results.store import Store
from kd_ray.sweep.architectures import is_text_model
from kd_ray.sweep.packs import Pack
from kd_ray.sweep.placement import Placement
from kd_ray.sweep.spec import TrialSpec
from kd_ray.telemetry import LogFormat


@dataclass(frozen=True, kw_only=True)
class LaunchContext:
    """What every worker of a launch must know. It is small and holds no secrets."""

    store: Store
    placement: Placement
    launch_id: str
    sweep: str = ""
    """Name of the sweep, for measurements and log lines; no result depends on it."""
    log_format: LogFormat = "text"
    """How workers log."""
    most_students: Mapping[str, int] = field(default_factory=dict)
    """By name of a device: students of one pack there, where `pack_size: auto` has measured several kinds. A larger pack is halved."""
    sets: tuple[FoundSet, ...] = ()
    """What each node fetches of `placement.data_url`."""


class WorkerFactory(Protocol):
    """Makes the worker of a process; it must be importable in that process."""

    def __call__(self, context: LaunchContext) -> PackWorker:
        """Called once in each worker process."""


def training_worker(context: LaunchContext) -> PackWorker:
    """The worker that trains. It imports torch here, so that the driver need not."""
    placement = on_this_node(context.placement, context.sets)
    from kd_ray.distill.worker import Worker

    return Worker(context.store, placement, launch_id=context.launch_id)


def probe_students(spec: TrialSpec, context: LaunchContext, sharers: int) -> Probe:
    """Measure students side by side in this process. It imports torch here, so that the driver need not."""
    from kd_ray.distill.pace_probe import probe

    # Inputs are random; of the data only the folder of a network of texts is read.
    sets = context.sets if is_text_model(spec.model) else ()
    return probe(spec, on_this_node(context.placement, sets), sharers=sharers)


class Observer(Protocol):
    """Receives the events of running packs."""

    def started(self, pack: Pack) -> None:
        """A worker has begun a pack."""

    def progressed(self, pack: Pack, progress: PackProgress) -> None:
        """A running pack reports its progress."""

    def ended(self, pack: Pack, committed: int, failed: int) -> None:
        """A pack has ended, with these numbers of complete and failed trials."""

    def warn(self, warning: str) -> None:
        """A problem occurred that does not stop the launch."""


class Runner(Protocol):
    """Runs packs until the queue is exhausted or the user interrupts. As a context manager it holds the machines."""

    def __enter__(self) -> Self:
        """Acquire the machines. Raises InvalidInputError when that is impossible, before anything is written."""

    def __exit__(self, *_: object) -> None:
        """Release the machines."""

    def slots(self) -> int:
        """Number of packs that run at once now."""

    def kinds(self) -> tuple[str, ...]:
        """Names of the kinds of GPU on which a pack can run now; one empty name where there is only one kind to measure."""

    def notes(self) -> tuple[str, ...]:
        """What a user should know of the machines before packs run, one sentence each."""

    def probe(self, spec: TrialSpec, context: LaunchContext, kind: str) -> Probe:
        """Measure students like this one on a machine of a kind. Raises TrialError when none can be trained there."""

    def run(self, queue: PackQueue, context: LaunchContext, observer: Observer, interrupts: Interrupts) -> None:
        """Run the packs. After an interrupt it returns normally, when the packs have stopped."""
