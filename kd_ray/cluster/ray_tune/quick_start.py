"""A Ray that one launch starts for itself is up sooner: without processes that nobody asks, and with workers that import while they wait.

Measured beside other work (docs/performance.md): half of the start of Ray is the start of processes that a single launch does not need, and
a worker imports torch for seconds after it has got its first pack.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from ray._private.node import Node

from kd_ray.sweep.placement import Placement

_UNUSED = ("start_monitor", "start_api_server")
"""Methods that start the autoscaler and the dashboard's server, which a Ray of one node has no use for."""
_LOG_MONITOR = "start_log_monitor"
"""The method that starts what copies the output of workers to the driver; only `--verbose` shows it."""
_MODULES = "RAY_preload_python_modules"
_NICENESS = "RAY_worker_niceness"
_MOST_CPUS = 8
"""Ray starts a worker for each CPU. On more CPUs than this, idle ones that have imported torch would take much memory: 330 MB each."""


@contextmanager
def quick_start(placement: Placement, *, num_cpus: int, trains: bool, verbose: bool) -> Iterator[None]:
    """Inside, `ray.init` starts a Ray of this kind.

    Its workers have the priority of the launch, so `nice kd-ray launch` decides it. Ray would lower theirs below that of everything else,
    also of its own processes, which start beside them. Where the packs of this placement take one CPU each and no GPU, and `trains`,
    workers import what training needs before they get a pack.
    """
    unused = _UNUSED if verbose else (*_UNUSED, _LOG_MONITOR)
    methods = {name: getattr(Node, name) for name in unused}
    added = {_NICENESS: "0"}
    if trains and num_cpus <= _MOST_CPUS and placement.cpus_per_pack == 1 and not placement.gpus_per_pack:
        added[_MODULES] = "kd_ray.cluster.ray_tune.preloaded"
    added = {name: value for name, value in added.items() if name not in os.environ}
    for name in unused:
        setattr(Node, name, _nothing)
    os.environ.update(added)
    try:
        yield
    finally:
        for name, method in methods.items():
            setattr(Node, name, method)
        for name in added:
            os.environ.pop(name, None)


def _nothing(*_: object, **__: object) -> None:
    return
