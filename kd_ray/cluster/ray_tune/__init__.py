"""Runs packs through Ray Tune. Only this package and `jobs/client.py` import ray.

    ray_runner.py     connects to a cluster or starts one, and runs a queue of packs as Tune experiments
    experiment.py     one of these experiments
    private_ray.py    closes a Ray that a launch starts to other users and to the network
    quick_start.py    lets that Ray start without what a launch does not need, and its workers import ahead
    preloaded.py      what they import
    capacity.py       how many packs fit on the nodes
    tune_hooks.py     what Tune calls: gives it the next pack, records how each pack ended
    trial_chunks.py   the trials in Ray's object store
    trainable.py      one Ray actor, which trains pack after pack
    worker_errors.py  why a worker process ended
    prometheus.py     measurements for Ray's exporter

Tune schedules and places; it is not the ledger. One Tune trial is one attempt at one pack. Actors are reused, so that data and teachers
stay in memory from pack to pack. Tune's loggers and checkpoints are off, and its other files lie in a temporary folder: the truth is in
the store.
"""

import os

_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # no data leaves the cluster
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths keep their meaning
    "RAY_AIR_NEW_OUTPUT": "0",  # 3 lines instead of hundreds at verbosity 0
    "RAY_health_check_period_ms": "1000",  # a frozen node is noticed within 15 s instead of 64 s
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # Ray's coming default: packs without GPUs keep CUDA_VISIBLE_DEVICES
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # no CSV, JSON, TensorBoard files
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # `Interrupts` handles signals
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # the display reports each error and what follows
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",  # Tune's state is never read
    "TUNE_MAX_PENDING_TRIALS_PG": "4096",  # `FreeSlots` limits the packs that Tune has
    "TUNE_RESULT_BUFFER_LENGTH": "0",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}
# Ray reads these when it is imported, so they are set before.
for _name, _value in _ENVIRONMENT.items():
    os.environ.setdefault(_name, _value)
