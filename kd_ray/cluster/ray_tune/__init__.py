"""Runs packs through Ray Tune: the only room that imports ray.

    runner.py    connects to a cluster or starts one, and runs a queue of packs as Tune experiments
    handout.py   hands packs out to Tune as there is room and their teachers are committed, and books how each ended
    worker.py    one Ray actor: trains pack after pack
    deaths.py    what Ray says when a worker is gone

Tune schedules and places; it is not the ledger. One Tune trial is one pack, one attempt. Actors are reused, so data and teachers stay
warm from pack to pack. Tune's own files, loggers and checkpoints are off or in a temporary folder that is deleted: truth is in the store.
"""

import os

_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing leaves the cluster
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths keep their meaning
    "RAY_AIR_NEW_OUTPUT": "0",  # 3 lines instead of hundreds at verbosity 0
    "RAY_health_check_period_ms": "1000",  # a frozen node is noticed within 15 s, not within 64
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # Ray's coming default: packs without GPUs keep CUDA_VISIBLE_DEVICES
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # no CSV, JSON, TensorBoard files
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # `Interrupts` handles signals
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # the display says what died, and what becomes of it
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",  # Tune's state is never read
    "TUNE_MAX_PENDING_TRIALS_PG": "4096",  # `_Room` says how many packs Tune gets
    "TUNE_RESULT_BUFFER_LENGTH": "0",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}
# Ray reads its settings when it is imported, which is after this.
for _name, _value in _ENVIRONMENT.items():
    os.environ.setdefault(_name, _value)
