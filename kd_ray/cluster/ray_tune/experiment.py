"""One Tune experiment: packs of a queue on a Ray that is up.

A module of its own, because a launch imports Tune after Ray has been started.
"""

import warnings
from contextlib import nullcontext
from typing import Any

from ray import tune

from kd_ray.cluster.interrupts import Interrupts
from kd_ray.cluster.pack_queue import PackQueue
from kd_ray.cluster.ray_tune.capacity import FreeSlots, request_of
from kd_ray.cluster.ray_tune.quick_start import idle_workers
from kd_ray.cluster.ray_tune.trainable import PackTrainable
from kd_ray.cluster.ray_tune.trial_chunks import TrialChunks
from kd_ray.cluster.ray_tune.tune_hooks import InOrderScheduler, PackSearcher, ProgressCallback, StopOnInterrupt
from kd_ray.cluster.ray_tune.worker_errors import treat_ray_errors_as_actor_deaths
from kd_ray.cluster.runner import LaunchContext, Observer, WorkerFactory


def run_experiment(
    queue: PackQueue,
    context: LaunchContext,
    observer: Observer,
    interrupts: Interrupts,
    *,
    folder: str,
    limit: int,
    worker: WorkerFactory,
    free_slots: FreeSlots,
    is_own_ray: bool,
) -> bool:
    """Run at most `limit` packs; returns whether any pack was started. Tune's files lie in `folder`.

    `is_own_ray` says that this process has started Ray.
    """
    treat_ray_errors_as_actor_deaths()
    trial_chunks = TrialChunks([trial for pack in queue.waiting for trial in pack.trials])
    trainable = tune.with_resources(
        tune.with_parameters(PackTrainable, context=context, trial_chunks=trial_chunks, worker=worker),
        lambda order: tune.PlacementGroupFactory([request_of(context.placement.of(is_teacher=order["is_teacher"]))]),
    )
    searcher = PackSearcher(queue, context, observer, interrupts, trial_chunks, limit, free_slots)
    tuner = tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=InOrderScheduler(),
            num_samples=-1,
            reuse_actors=True,
            trial_name_creator=_name_of,
            trial_dirname_creator=_name_of,
        ),
        run_config=tune.RunConfig(
            name="packs",
            storage_path=folder,
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=0),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            stop=StopOnInterrupt(searcher, interrupts),
            callbacks=[ProgressCallback(searcher, observer)],
        ),
    )
    with warnings.catch_warnings(), idle_workers() if is_own_ray else nullcontext():
        warnings.simplefilter("ignore")
        tuner.fit()
    if searcher.error:
        raise searcher.error
    return searcher.num_left < limit


def _name_of(trial: Any) -> str:
    return str(trial.trial_id)
