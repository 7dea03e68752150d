"""What happens while packs run: warnings are collected, tables are aggregated in the background, and finished trials are mirrored."""

import threading
import time
from collections.abc import Callable

from kd_ray.cluster.display import Display
from kd_ray.cluster.log_display import SweepMetrics
from kd_ray.cluster.mirrors import MirrorThreads
from kd_ray.cluster.runner import Observer
from kd_ray.distill.worker_protocol import PackProgress
from kd_ray.errors import KdRayError
from kd_ray.sweep.packs import Pack

AGGREGATE_EVERY_S = 5.0
"""Shortest pause between two aggregations; the pause is also at least as long as the last aggregation took."""


class WarningLog:
    """The warnings of a launch; each text is shown once."""

    def __init__(self, display: Display) -> None:
        self._display = display
        self._warnings: dict[str, None] = {}

    def add(self, warning: str) -> None:
        """Show the warning, unless the same text was shown before."""
        if warning not in self._warnings:
            self._warnings[warning] = None
            self._display.warn(warning)

    @property
    def warnings(self) -> tuple[str, ...]:
        """All warnings, in order."""
        return tuple(self._warnings)


class BackgroundAggregation:
    """A thread that aggregates records into tables while the sweep runs, so that queries see committed trials soon."""

    def __init__(
        self, update: Callable[[], object], warnings: WarningLog, *, every_s: float = AGGREGATE_EVERY_S
    ) -> None:
        """`update` brings the tables up to date."""
        self._update = update
        self._warnings = warnings
        self._every_s = every_s
        self._has_records = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="kd_ray-aggregation", daemon=True)

    def __enter__(self) -> "BackgroundAggregation":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._has_records.set()
        self._thread.join()

    def request(self) -> None:
        """There are new records."""
        self._has_records.set()

    def _work(self) -> None:
        pause_s = self._every_s
        while not self._stop.wait(pause_s):
            self._has_records.wait()
            self._has_records.clear()
            if self._stop.is_set():
                return
            started = time.monotonic()
            try:
                self._update()
            except KdRayError as error:
                # The aggregation at the end of the launch tries again; if that fails, the launch fails.
                self._warnings.add(f"cannot bring the tables up to date: {error}")
            pause_s = max(self._every_s, time.monotonic() - started)


class LaunchObserver(Observer):
    """Shows and measures the events of packs, and tells the aggregation and the mirrors of new records."""

    def __init__(
        self,
        display: Display,
        metrics: SweepMetrics,
        aggregation: BackgroundAggregation,
        warnings: WarningLog,
        mirrors: MirrorThreads,
    ) -> None:
        self._display = display
        self._metrics = metrics
        self._aggregation = aggregation
        self._warnings = warnings
        self._mirrors = mirrors

    def warn(self, warning: str) -> None:
        self._warnings.add(warning)

    def started(self, pack: Pack) -> None:
        self._display.started(pack)
        self._metrics.started(pack)

    def progressed(self, pack: Pack, progress: PackProgress) -> None:
        if progress.warning:
            self._warnings.add(progress.warning)
        self._display.progressed(pack, progress)
        self._metrics.progressed(pack, progress)

    def ended(self, pack: Pack, committed: int, failed: int) -> None:
        self._display.ended(pack, committed, failed)
        self._metrics.ended(pack, committed, failed)
        if committed:
            self._aggregation.request()
            self._mirrors.add(pack)
