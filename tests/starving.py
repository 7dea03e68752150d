"""A launch in this process that gives each pack of several students a limited amount of memory.

`python -m tests.starving STORE DATA_ROOT MEGABYTES` prints one line of JSON: the exit code and the warnings of the launch.
"""

import json
import resource
import sys
from collections.abc import Sequence
from pathlib import Path

from kd_ray.cluster.launch import launch
from kd_ray.cluster.local import LocalRunner
from kd_ray.cluster.runner import LaunchContext
from kd_ray.distill.worker import Worker
from kd_ray.distill.worker_protocol import LoadState, OnFailure, PackTraining, PackWorker
from kd_ray.results.store import open_store
from kd_ray.sweep.spec import TrialSpec
from tests.sweeps import tiny_sweep

SETTINGS = (
    "training.execution=grouped",
    "training.batch_size=250",
    "training.epochs=1",
    "dataset.size=64",
    "grid.seed=[0]",
    "grid.temperature=[1,2,3,4,5,6,7,8]",
    "baselines=[]",
)
"""Eight students as one network: their activations lie in memory at the same time."""


class StarvingWorker(Worker):
    """Gets so many bytes more than it has whenever a pack of several students begins."""

    more_bytes = 0

    def begin(self, specs: Sequence[TrialSpec], load_state: LoadState, on_failure: OnFailure) -> PackTraining:
        training = super().begin(specs, load_state, on_failure)
        if len(specs) > 1:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            limit = pages * resource.getpagesize() + self.more_bytes
            resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
        return training


def starving_worker(context: LaunchContext) -> PackWorker:
    """See `StarvingWorker`."""
    return StarvingWorker(context.store, context.placement, launch_id=context.launch_id)


def main() -> None:
    """See the module."""
    store, data_root, megabytes = sys.argv[1:]
    StarvingWorker.more_bytes = int(megabytes) << 20
    file = tiny_sweep(Path(data_root), *SETTINGS)
    report = launch(file, open_store(store), runner=LocalRunner(worker=starving_worker))
    sys.stdout.write(json.dumps({"exit_code": report.exit_code, "warnings": report.warnings}) + "\n")


if __name__ == "__main__":
    main()
