"""A Ray that one launch starts for itself comes up without processes that the launch does not use, and its workers import ahead.

tests/benchmarks/README.md says what was measured.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray._private.node import Node

from kd_ray.sweep.placement import Placement

_UNUSED = ("start_monitor", "start_api_server")
"""Methods that start the autoscaler and the server of the dashboard; a Ray of one node needs neither."""
_LOG_MONITOR = "start_log_monitor"
"""The method that starts the process which copies the output of workers to the driver; only `--verbose` shows it."""
_MODULES = "RAY_preload_python_modules"
_NICENESS = "RAY_worker_niceness"
_MOST_CPUS = 8
"""Ray starts a worker for each CPU. On more CPUs than this, idle ones that have imported torch would take much memory: 330 MB each."""


@contextmanager
def quick_start(placement: Placement, *, num_cpus: int, trains: bool, verbose: bool) -> Iterator[None]:
    """Inside, `ray.init` starts such a Ray.

    Its workers have the priority of the launch; Ray would lower theirs by 15, and beside other work they would get almost no time.
    If the launch `trains`, and a pack takes one CPU and no GPU, workers import what training needs before they get a pack.
    """
    unused = _UNUSED if verbose else (*_UNUSED, _LOG_MONITOR)
    # They are Ray's own, and a later Ray may call them otherwise; what it starts then does no harm.
    methods = {name: getattr(Node, name) for name in unused if hasattr(Node, name)}
    added = {_NICENESS: "0"}
    if trains and num_cpus <= _MOST_CPUS and placement.cpus_per_pack == 1 and not placement.gpus_per_pack:
        added[_MODULES] = "kd_ray.cluster.ray_tune.preloaded"
    added = {name: value for name, value in added.items() if name not in os.environ}
    for name in methods:
        setattr(Node, name, _nothing)
    os.environ.update(added)
    try:
        yield
    finally:
        for name, method in methods.items():
            setattr(Node, name, method)
        for name in added:
            os.environ.pop(name, None)


@contextmanager
def idle_workers() -> Iterator[None]:
    """Inside, Tune's actors take workers that are up and have imported ahead.

    Tune (2.60) gives its actors a runtime environment with some variables of the driver, and Ray starts a new process for each actor with
    one. The workers of a Ray that this process has started have all its variables. Tune has no public switch, so a private method is
    replaced. Where a later Tune lacks it, Ray starts new processes again.
    """
    try:
        from ray.tune.execution.class_cache import _ActorClassCache as Cache
    except ImportError:
        yield
        return
    original = Cache.get

    def get(self: Any, trainable: type) -> Any:
        if trainable not in self._cache:
            self._cache[trainable] = ray.remote(trainable)
        return self._cache[trainable]

    Cache.get = get  # type: ignore[method-assign]
    try:
        yield
    finally:
        Cache.get = original  # type: ignore[method-assign]


def _nothing(*_: object, **__: object) -> None:
    return
