"""Measurements of a running process, each defined once, and the sweep and trials that its log lines name.

Measurements go to a sink. Without a sink, as on the local runner, they are dropped. `cluster/ray_tune/prometheus.py` has the sink for Ray's
Prometheus exporter. Tags have few values: a sweep's name, a state, a cause. A trial_id is never a tag, because there are as many as trials;
log lines have it instead.
"""

import json
import logging
import os
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, Protocol

LogFormat = Literal["text", "json"]

# --- measurements -----------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One measurement. Prometheus knows it as `ray_<name>`, a counter as `ray_<name>_total`."""

    name: str
    kind: Literal["gauge", "counter", "histogram"]
    meaning: str
    """In a sentence, with the unit."""
    tags: tuple[str, ...] = ()
    """Tags beside `sweep`, which all have."""
    boundaries: tuple[float, ...] = ()
    """Upper bounds of a histogram's buckets."""


TRIALS = Measurement(
    name="kd_ray_trials", kind="gauge", meaning="Trials of the running sweep, by state.", tags=("state",)
)
TRIALS_ENDED = Measurement(
    name="kd_ray_trials_ended",
    kind="counter",
    meaning="Trials that ended in this launch, by outcome.",
    tags=("outcome",),
)
TRIALS_PER_HOUR = Measurement(
    name="kd_ray_trials_per_hour", kind="gauge", meaning="Trials completed by this launch, per hour since it began."
)
IMAGES_PER_S = Measurement(
    name="kd_ray_images_per_s",
    kind="gauge",
    meaning="Samples that go through students per second, over all running packs.",
)
PACK_RETRIES = Measurement(
    name="kd_ray_pack_retries",
    kind="counter",
    meaning="Packs that were started again, by cause: node, worker, store, error, memory.",
    tags=("cause",),
)
STORE_SECONDS = Measurement(
    name="kd_ray_store_seconds",
    kind="histogram",
    meaning="Seconds until the store answered a request, repeated requests included.",
    tags=("verb",),
    boundaries=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 90.0),
)
STORE_REPEATS = Measurement(
    name="kd_ray_store_repeats",
    kind="counter",
    meaning="Requests that were repeated because the store did not answer them at first.",
    tags=("verb",),
)
GPU_MEMORY_USED = Measurement(
    name="kd_ray_gpu_memory_used_bytes",
    kind="gauge",
    meaning="Memory in use on the worker's GPU, by all processes.",
    tags=("device",),
)
GPU_MEMORY = Measurement(
    name="kd_ray_gpu_memory_bytes", kind="gauge", meaning="Memory of the worker's GPU.", tags=("device",)
)
GPU_USE = Measurement(
    name="kd_ray_gpu_use",
    kind="gauge",
    meaning="Share of time in which the worker's GPU did something, 0 to 1; only where NVML's Python binding is installed.",
    tags=("device",),
)
MEASUREMENTS = (
    TRIALS,
    TRIALS_ENDED,
    TRIALS_PER_HOUR,
    IMAGES_PER_S,
    PACK_RETRIES,
    STORE_SECONDS,
    STORE_REPEATS,
    GPU_MEMORY_USED,
    GPU_MEMORY,
    GPU_USE,
)


class Sink(Protocol):
    """Takes measurements."""

    def record(self, metric: Measurement, value: float, tags: Mapping[str, str]) -> None:
        """A gauge's value, what a counter grew by, or one observation of a histogram."""


_sink: Sink | None = None
_sweep = ""


def measure_into(sink: Sink | None) -> None:
    """Send the measurements of this process to a sink from now on; None drops them."""
    global _sink  # noqa: PLW0603 (one process, one sink, as with logging)
    _sink = sink


def record(metric: Measurement, value: float = 1.0, **tags: str) -> None:
    """Send a measurement to the sink, if there is one."""
    if _sink is not None:
        _sink.record(metric, value, {"sweep": _sweep, **tags})


# --- log lines --------------------------------------------------------------------------------------------------------------------------

_pack: tuple[str, ...] = ()
_trial: ContextVar[str | None] = ContextVar("kd_ray_trial", default=None)


def work_on(*, sweep: str | None = None, trial_ids: Sequence[str] | None = None) -> None:
    """Set the sweep and the trials that log lines of this process name, until the next call; None keeps the earlier value."""
    global _sweep, _pack  # noqa: PLW0603 (a worker process trains one pack at a time, in several threads)
    _sweep = _sweep if sweep is None else sweep
    _pack = _pack if trial_ids is None else tuple(trial_ids)


@contextmanager
def about(trial_id: str) -> Iterator[None]:
    """Inside, log lines of this thread name one trial."""
    token = _trial.set(trial_id)
    try:
        yield
    finally:
        _trial.reset(token)


class JsonLines(logging.Formatter):
    """One JSON object per line.

    `sweep` and `trial_id` are in each. `trial_id` is null in a line about the whole sweep, or about several trials; `trial_ids` has those.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        trial_id: str | None = getattr(record, "trial_id", None) or _trial.get()
        ids = [trial_id] if trial_id else list(getattr(record, "trial_ids", _pack))
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            "sweep": _sweep,
            "trial_id": ids[0] if len(ids) == 1 else None,
            "trial_ids": ids,
            "host": platform.node(),
            "pid": os.getpid(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def log_as(log_format: LogFormat) -> None:
    """Set how this process logs.

    `text` leaves Python's logging as it is: warnings go to stderr, or where the calling program sends them. `json` also logs the events
    of each trial.
    """
    logger = logging.getLogger("kd_ray")
    ours = [handler for handler in logger.handlers if isinstance(handler.formatter, JsonLines)]
    for handler in ours:
        logger.removeHandler(handler)
    if log_format == "json":
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(JsonLines())
        logger.addHandler(handler)
        logger.propagate = False
        logger.setLevel(logging.INFO)
    elif ours:
        logger.propagate = True
        logger.setLevel(logging.NOTSET)
