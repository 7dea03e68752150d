"""What both runners share: the job they are given, whom they tell, and how they are interrupted."""

import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Protocol, Self

from kd_ray.cluster.queue import PackQueue
from kd_ray.distill.pack_run import PackProgress
from kd_ray.distill.worker_protocol import PackWorker
from kd_ray.results.probe import Probe
from kd_ray.results.store import Store
from kd_ray.sweep.placement import Placement
from kd_ray.sweep.plan import Pack
from kd_ray.sweep.spec import TrialSpec
from kd_ray.telemetry import LogFormat

_GRACE_S = 10.0
"""How long a second signal waits for the ordinary way out."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What every worker of a launch must know; small, and without secrets."""

    store: Store
    placement: Placement
    launch_id: str
    sweep: str = ""
    """Its name, for measurements and log lines; no result depends on it."""
    log_format: LogFormat = "text"
    """How workers log."""


class WorkerFactory(Protocol):
    """Makes the worker of a process; it has to be importable where it runs."""

    def __call__(self, job: Job) -> PackWorker:
        """Called once in each worker process."""


def training_worker(job: Job) -> PackWorker:
    """The worker that trains; torch is imported here, so the driver does without it."""
    from kd_ray.distill.worker import Worker

    return Worker(job.store, job.placement, launch_id=job.launch_id)


def probe_students(spec: TrialSpec, placement: Placement, sharers: int) -> Probe:
    """The measurement in this process; torch is imported here."""
    from kd_ray.distill.pace_probe import probe

    return probe(spec, placement, sharers=sharers)


class Observer(Protocol):
    """Whom a runner tells what happens."""

    def started(self, pack: Pack) -> None:
        """A pack has been handed to a worker."""

    def progressed(self, progress: PackProgress) -> None:
        """A running pack has said how far it is."""

    def ended(self, pack: Pack, committed: int, failed: int) -> None:
        """A pack has ended, with so many of its trials complete and failed."""

    def warn(self, warning: str) -> None:
        """Something went wrong without stopping anything."""


class Runner(Protocol):
    """Runs packs until the queue is exhausted or the user interrupts; a context manager around whatever it needs for that."""

    def __enter__(self) -> Self:
        """Get hold of the machines. Raises InvalidInputError when they cannot be had, before anything is written."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let them go."""

    def slots(self) -> int:
        """How many packs run at once now."""

    def probe(self, spec: TrialSpec, placement: Placement) -> Probe:
        """Measure students like this one where packs run. Raises TrialError: none can be trained there."""

    def run(self, queue: PackQueue, job: Job, observer: Observer, interrupts: "Interrupts") -> None:
        """Run the packs. Returns normally after an interrupt, when the packs have stopped."""


class Interrupts:
    """Whether the user (Ctrl-C) or the machine (SIGTERM) has asked to stop."""

    def __init__(self) -> None:
        self._requested = False

    def requested(self) -> bool:
        """Whether to stop."""
        return self._requested

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Within, the first SIGINT or SIGTERM sets `requested`; the second stops at once with KeyboardInterrupt.

        Outside the main thread Python delivers no signals, so nothing is changed there.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            with self._last_resort():
                yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._requested:
            raise KeyboardInterrupt
        self._requested = True

    @contextmanager
    def _last_resort(self) -> Iterator[None]:
        """Within, a second signal ends the process even while the main thread hangs in a library and runs no handler.

        Ray waits like that for a minute when the head of its cluster is gone.
        """
        receiver, sender = socket.socketpair()
        sender.setblocking(False)
        before = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
        left = threading.Event()

        def listen() -> None:
            count = 0
            while data := receiver.recv(16):
                count += sum(number in (signal.SIGINT, signal.SIGTERM) for number in data)
                if count > 1 and not left.wait(_GRACE_S):
                    sys.stderr.write(
                        "stopped at once; nothing that was committed is lost, and the same command goes on\n"
                    )
                    sys.stderr.flush()
                    os._exit(130)

        thread = threading.Thread(target=listen, name="kd_ray-signals", daemon=True)
        thread.start()
        try:
            yield
        finally:
            left.set()
            signal.set_wakeup_fd(before)
            sender.close()
            thread.join()
            receiver.close()


def cpu_count() -> int:
    """CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
