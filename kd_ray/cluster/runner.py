"""What both runners share: the job they are given, whom they tell, and how they are interrupted."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Protocol, Self

from kd_ray.cluster.queue import PackQueue
from kd_ray.distill.pack import PackProgress
from kd_ray.results.store import Store
from kd_ray.sweep.config import Placement
from kd_ray.sweep.plan import Pack


@dataclass(frozen=True, kw_only=True)
class Job:
    """What every worker of a launch must know; small, and without secrets."""

    store: Store
    placement: Placement
    launch_id: str


class Observer(Protocol):
    """Whom a runner tells what happens."""

    def started(self, pack: Pack) -> None:
        """A pack has been handed to a worker."""

    def progressed(self, progress: PackProgress) -> None:
        """A running pack has said how far it is."""

    def ended(self, pack: Pack, committed: int, failed: int) -> None:
        """A pack has ended, with so many of its trials complete and failed."""


class Runner(Protocol):
    """Runs packs until the queue is exhausted or the user interrupts; a context manager around whatever it needs for that."""

    def __enter__(self) -> Self:
        """Get hold of the machines. Raises InvalidInputError when they cannot be had, before anything is written."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let them go."""

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
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._requested:
            raise KeyboardInterrupt
        self._requested = True


def cpu_count() -> int:
    """CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
