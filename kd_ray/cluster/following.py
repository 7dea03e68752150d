"""What goes on beside a running sweep: tables that follow the records, and warnings that are said once."""

import threading
import time
from collections.abc import Callable

from kd_ray.cluster.display import Display
from kd_ray.cluster.mirrors import Mirroring
from kd_ray.cluster.runner import Observer
from kd_ray.distill.pack_run import PackProgress
from kd_ray.errors import KdRayError
from kd_ray.results.store import Store
from kd_ray.results.tables import FoldReport, fold
from kd_ray.sweep.plan import Pack

FOLD_EVERY_S = 5.0
"""Least time between two folds while a sweep runs."""
_REST = 1.0
"""A fold is followed by a rest of at least so many times its own length."""


class Warnings:
    """What went wrong without stopping anything, each thing said once."""

    def __init__(self, display: Display) -> None:
        self._display = display
        self.said: dict[str, None] = {}

    def add(self, warning: str) -> None:
        """Say it, unless it was said before."""
        if warning not in self.said:
            self.said[warning] = None
            self._display.warn(warning)


class BackgroundFold:
    """Folds while the sweep runs, so that a query sees committed trials soon; never in the way of the scheduler."""

    def __init__(self, store: Store, sweep: str, warnings: Warnings) -> None:
        self._fold: Callable[[], FoldReport] = lambda: fold(store, sweep, settle=False)
        self._warnings = warnings
        self._due = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="kd_ray-fold", daemon=True)

    def __enter__(self) -> "BackgroundFold":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._due.set()
        self._thread.join()

    def request(self) -> None:
        """There are new records."""
        self._due.set()

    def _work(self) -> None:
        pause_s = FOLD_EVERY_S
        while not self._stop.wait(pause_s):
            self._due.wait()
            self._due.clear()
            if self._stop.is_set():
                return
            started = time.monotonic()
            try:
                self._fold()
            except KdRayError as error:
                # The fold at the end tries again, and its failure ends the launch.
                self._warnings.add(f"cannot bring the tables up to date: {error}")
            pause_s = max(FOLD_EVERY_S, _REST * (time.monotonic() - started))


class Observers(Observer):
    """The display, and the fold and the mirrors that follow new records."""

    def __init__(self, display: Display, folder: BackgroundFold, warnings: Warnings, mirroring: Mirroring) -> None:
        self._display = display
        self._mirroring = mirroring
        self._warnings = warnings
        self._folder = folder

    def warn(self, warning: str) -> None:
        self._warnings.add(warning)

    def started(self, pack: Pack) -> None:
        self._display.started(pack)

    def progressed(self, progress: PackProgress) -> None:
        if progress.warning:
            self._warnings.add(progress.warning)
        self._display.progressed(progress)

    def ended(self, pack: Pack, committed: int, failed: int) -> None:
        self._display.ended(pack, committed, failed)
        if committed:
            self._folder.request()
            self._mirroring.add(pack)
