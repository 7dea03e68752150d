"""Runs packs through Ray Tune: the only module that imports ray.

Tune schedules and places; it is not the ledger. One Tune trial is one pack. A small search algorithm hands packs out as their teachers are
committed and queues again what a dead worker left. Actors are reused, so data and teachers stay warm from pack to pack. Tune's own files,
loggers and checkpoints are off or in a temporary folder that is deleted: truth is in the store.
"""

import logging
import os
import pickle
import shutil
import socket
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

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
for _name, _value in _ENVIRONMENT.items():
    os.environ.setdefault(_name, _value)

import ray  # noqa: E402 (reads its settings when it is imported)
from ray import tune  # noqa: E402
from ray.air.execution._internal.actor_manager import RayActorManager  # noqa: E402
from ray.exceptions import OutOfMemoryError, RayActorError, RayError, RayTaskError  # noqa: E402
from ray.tune.schedulers import FIFOScheduler  # noqa: E402
from ray.tune.search import Searcher  # noqa: E402

from kd_ray.cluster.queue import PackQueue  # noqa: E402
from kd_ray.cluster.runner import Interrupts, Job, Observer, WorkerFactory, cpu_count, training_worker  # noqa: E402
from kd_ray.distill.pack import PackProgress, run_pack  # noqa: E402
from kd_ray.distill.training import PackWorker  # noqa: E402
from kd_ray.errors import InvalidInputError, KdRayError, StoreError  # noqa: E402
from kd_ray.results import ledger  # noqa: E402
from kd_ray.sweep.config import Placement  # noqa: E402
from kd_ray.sweep.plan import Pack, PlannedTrial  # noqa: E402
from kd_ray.sweep.spec import TrialState  # noqa: E402

_ROOM_LASTS_S = 5.0
_FOLDER = "kd_ray_tune_"
_HEAD_EVERY_S = 5.0
_HEAD_MISSES = 3
_TRIALS_PER_CHUNK = 500
_PACKS_PER_EXPERIMENT = 1000
_ROUNDS_PER_EXPERIMENT = 50
"""Between two experiments every slot waits for the last pack of the first: one round in so many, at most."""
_PROBE_S = 5.0


@dataclass(frozen=True, kw_only=True)
class RayRunner:
    """See the module."""

    placement: Placement
    address: str | None = None
    """Address of a running cluster; None starts Ray on this machine and stops it afterwards."""
    verbose: bool = False
    """Show Ray's own output."""
    worker: WorkerFactory = training_worker
    """Makes the worker of a process; benchmarks of the machinery give another one."""

    def __enter__(self) -> Self:
        """Connect to the cluster, or start one.

        Raises:
            InvalidInputError: there is no cluster at `address`, or it can never hold one pack.
        """
        self._connect()
        try:
            _check_capacity(self.placement)
        except BaseException:
            ray.shutdown()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        ray.shutdown()

    def run(self, queue: PackQueue, job: Job, observer: Observer, interrupts: Interrupts) -> None:
        """Run the packs, up to a thousand or more of them as one Tune experiment."""
        # Ray has put its own handler of SIGTERM, which aborts, in the place of ours.
        _sweep_up()
        with (
            interrupts.watch(),
            _watched_head(self.address, observer),
            tempfile.TemporaryDirectory(prefix=f"{_FOLDER}{os.getpid()}_") as folder,
        ):
            while not interrupts.requested() and not queue.is_exhausted():
                # Tune keeps some 60 KB of every pack to the end of an experiment, so a large sweep is several of them.
                limit = max(_PACKS_PER_EXPERIMENT, _ROUNDS_PER_EXPERIMENT * _slots(self.placement))
                if not self._fit(queue, job, observer, interrupts, folder, limit):
                    return

    def _connect(self) -> None:
        level = logging.INFO if self.verbose else logging.ERROR
        for name in ("ray", "ray.tune", "ray.tune.analysis.experiment_analysis", "ray.tune.tune"):
            logging.getLogger(name).setLevel(level)
        if not self.verbose:
            # It ends with a list of packs that did not complete, although they were run again.
            logging.getLogger("ray.tune.tune").setLevel(logging.CRITICAL)
        if self.address is not None:
            _probe(self.address)
        try:
            with warnings.catch_warnings():
                # Ray announces changes of its own defaults here; users of kd_ray can do nothing about them.
                warnings.simplefilter("ignore")
                ray.init(
                    address=self.address or "local",
                    num_cpus=None if self.address else cpu_count(),
                    include_dashboard=None if self.address else False,
                    log_to_driver=self.verbose,
                    logging_level=level,
                )
        except (ConnectionError, TimeoutError, ValueError, RuntimeError) as error:
            where = (
                f"--address {self.address}: cannot use the Ray cluster there"
                if self.address
                else "cannot start Ray on this machine"
            )
            raise InvalidInputError(f"{where}: {error}") from error

    def _fit(
        self, queue: PackQueue, job: Job, observer: Observer, interrupts: Interrupts, folder: str, limit: int
    ) -> bool:
        """One experiment, of at most `limit` packs; says whether it started any."""
        shelf = _Shelf([trial for pack in queue.waiting for trial in pack.trials])
        trainable = tune.with_resources(
            tune.with_parameters(PackTrainable, job=job, shelf=shelf, worker=self.worker),
            {"cpu": job.placement.cpus_per_pack, "gpu": job.placement.gpus_per_pack},
        )
        handout = _Handout(
            queue, job, observer, interrupts, shelf, limit, _Room(self.placement, grows=bool(self.address))
        )
        tuner = tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=handout,
                scheduler=_InTurn(),
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
                stop=_StopOnInterrupt(handout, interrupts),
                callbacks=[_Relay(handout, observer)],
            ),
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tuner.fit()
        if handout.error:
            raise handout.error
        return handout.left < limit


def _probe(address: str) -> None:
    """Find out in seconds, not in Ray's minutes, that nobody listens at `host:port` or `ray://host:port`.

    Raises:
        InvalidInputError: nobody does.
    """
    host, separator, port = address.removeprefix("ray://").rpartition(":")
    if address == "auto":
        return
    if not separator or not port.isdigit():
        raise InvalidInputError(f"--address {address}: expected HOST:PORT, ray://HOST:PORT or auto")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PROBE_S).close()
    except OSError as error:
        raise InvalidInputError(f"--address {address}: no Ray cluster answers there: {error}") from error


@contextmanager
def _watched_head(address: str | None, observer: Observer) -> Iterator[None]:
    """Within, say so when the head of the cluster stops to answer: Ray is silent for a minute then, and aborts the process."""
    host, _, port = (address or "").rpartition(":")
    if not host or host.startswith("ray:"):
        yield
        return
    stop = threading.Event()

    def watch() -> None:
        misses = 0
        while not stop.wait(_HEAD_EVERY_S):
            try:
                socket.create_connection((host.strip("[]"), int(port)), timeout=_PROBE_S).close()
                misses = 0
            except OSError as error:
                misses += 1
                if misses == _HEAD_MISSES:
                    observer.warn(
                        f"the head of the Ray cluster at {address} does not answer ({error}). Ray gives it a minute and then ends this "
                        "process. Nothing that was committed is lost: when the head is back, the same command goes on"
                    )

    thread = threading.Thread(target=watch, name="kd_ray-head", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _sweep_up() -> None:
    """Delete Tune's folders of drivers of this host that were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_FOLDER}*"):
        pid = folder.name.removeprefix(_FOLDER).split("_")[0]
        if pid.isdigit() and ledger.process_started(int(pid)) == "":
            shutil.rmtree(folder, ignore_errors=True)


def _name_of(trial: Any) -> str:
    return str(trial.trial_id)


def _nodes() -> list[dict[str, float]]:
    """Resources of the nodes that are alive."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


def _slots(placement: Placement) -> int:
    """How many packs fit on the cluster at once."""
    cpus, gpus = placement.cpus_per_pack, placement.gpus_per_pack
    return sum(
        int(min(node.get("CPU", 0) / cpus, node.get("GPU", 0) / gpus if gpus else float("inf"))) for node in _nodes()
    )


def _check_capacity(placement: Placement) -> None:
    """Refuse what can never be placed on one node."""
    if not _slots(placement):
        cpus, gpus = placement.cpus_per_pack, placement.gpus_per_pack
        have = "; ".join(f"{node.get('CPU', 0):g} CPUs, {node.get('GPU', 0):g} GPUs" for node in _nodes()) or "none"
        raise InvalidInputError(
            f"placement: a pack asks for cpus_per_pack = {cpus} and gpus_per_pack = {gpus:g}, which no node has; nodes: {have}"
        )


class _Room:
    """How many packs Tune is given at once: one for each slot of the cluster, no more.

    Tune lets a pack that waits for a new actor take an actor that has just become free, and ends the new one. With packs that take less
    time than an actor's start, no second actor would ever come up if others waited beside them.
    """

    def __init__(self, placement: Placement, *, grows: bool) -> None:
        """On a cluster that `grows`, one pack more waits, as demand for a new node."""
        self._placement = placement
        self._extra = int(grows)
        self._slots = 0
        self._seen_at = -_ROOM_LASTS_S

    def for_another(self, packs: int) -> bool:
        """Whether there is room beside so many packs."""
        if packs >= self._slots + self._extra and time.monotonic() - self._seen_at > _ROOM_LASTS_S:
            self._slots = _slots(self._placement)
            self._seen_at = time.monotonic()
        return packs < self._slots + self._extra


class _NotKept:
    """Tune pickles what it is given into a state that nobody reads; objects of this process stay out of it."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _Shelf:
    """The trials of a launch, in Ray's object store: a worker fetches the chunks it needs, and neither it nor Tune carries all of them."""

    def __init__(self, trials: Sequence[PlannedTrial]) -> None:
        """Trials of a chunk are pickled together, so that what they share is there once."""
        starts = range(0, len(trials), _TRIALS_PER_CHUNK)
        self._chunks = [ray.put(pickle.dumps(trials[i : i + _TRIALS_PER_CHUNK])) for i in starts]
        self._place = {trial.trial_id: i for i, trial in enumerate(trials)}
        """Place of each trial, known to the driver only."""
        self._open: tuple[int, Sequence[PlannedTrial]] = (-1, ())
        """The chunk that was read last, with its number; known to a worker only."""

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_place": {}}

    def order(self, pack: Pack) -> dict[str, Any]:
        """What Tune carries to a worker to name a pack."""
        places = " ".join(str(self._place[trial.trial_id]) for trial in pack.trials)
        return {"places": places, "retries": pack.retries, "crashes": pack.crashes}

    def pack(self, order: Mapping[str, Any]) -> Pack:
        """The pack that was named."""
        trials = tuple(self._trial(int(place)) for place in order["places"].split())
        return Pack(trials=trials, retries=order["retries"], crashes=order["crashes"])

    def _trial(self, place: int) -> PlannedTrial:
        number, i = divmod(place, _TRIALS_PER_CHUNK)
        if self._open[0] != number:
            self._open = (number, pickle.loads(ray.get(self._chunks[number])))  # noqa: S301 (from our own driver)
        return self._open[1][i]


class PackTrainable(tune.Trainable):
    """One Ray actor: trains pack after pack.

    An exception that ends a pack is its last result, with its traceback, and leaves the actor alive.
    """

    def setup(  # type: ignore[override]  # with_parameters adds the others
        self, config: dict[str, Any], job: Job, shelf: _Shelf, worker: WorkerFactory
    ) -> None:
        """Called once per actor."""
        self._job = job
        self._shelf = shelf
        self._make_worker = worker
        self._worker: PackWorker | None = None
        self._steps: Generator[PackProgress, None, None] | None = None
        self._begin(config)

    def _begin(self, config: dict[str, Any]) -> None:
        self._pack = self._shelf.pack(config)

    def step(self) -> dict[str, Any]:
        """About a second of training, or an epoch."""
        try:
            if self._worker is None:
                self._worker = self._make_worker(self._job)
            if self._steps is None:
                self._steps = run_pack(self._pack, self._worker)
            return _result(next(self._steps))
        except Exception as error:  # noqa: BLE001 (handed to the driver, which counts it and names it)
            cause = f"{type(error).__name__}: {error}"
            crash = PackProgress(
                pack_id=self._pack.pack_id, epoch=0, epochs=0, accuracy=None, images_per_s=0.0, done=True
            )
            is_store = isinstance(error, StoreError)
            return {**_result(crash), "cause": cause, "store": is_store, "traceback": traceback.format_exc()}

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """The next pack for the same actor."""
        self.cleanup()
        self._begin(new_config)
        return True

    def cleanup(self) -> None:
        """Stopped early: checkpoints are written and leases given back."""
        if self._steps is not None:
            self._steps.close()
        self._steps = None


def _result(progress: PackProgress) -> dict[str, Any]:
    """What Tune carries to the driver: a handful of scalars."""
    return {
        "done": progress.done,
        "pack_id": progress.pack_id,
        "epoch": progress.epoch,
        "epochs": progress.epochs,
        "accuracy": progress.accuracy,
        "images_per_s": progress.images_per_s,
        "warning": progress.warning,
        "committed": " ".join(progress.committed),
        "failed": " ".join(progress.failed),
    }


def _progress(result: Mapping[str, Any]) -> PackProgress:
    return PackProgress(
        pack_id=result["pack_id"],
        epoch=result["epoch"],
        epochs=result["epochs"],
        accuracy=result["accuracy"],
        images_per_s=result["images_per_s"],
        warning=result["warning"],
        done=result["done"],
        committed=tuple(result["committed"].split()),
        failed=tuple(result["failed"].split()),
    )


class _Handout(_NotKept, Searcher):
    """Gives Tune the next pack that may start, and books how each ended.

    Tune would wrap an exception raised in here; it is kept instead, ends the experiment, and the runner raises it.
    """

    def __init__(
        self,
        queue: PackQueue,
        job: Job,
        observer: Observer,
        interrupts: Interrupts,
        shelf: _Shelf,
        limit: int,
        room: _Room,
    ) -> None:
        super().__init__(metric=None, mode=None)
        self.left = limit
        """Packs that may still be handed out."""
        self._queue = queue
        self._shelf = shelf
        self._room = room
        self._store_errors = 0
        self._job = job
        self._observer = observer
        self._interrupts = interrupts
        self.packs: dict[str, Pack] = {}
        """Packs that Tune has, by Tune's id."""
        self.error: KdRayError | None = None

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]  # FINISHED is a str
        if self.error or self._interrupts.requested() or self._queue.is_exhausted() or not self.left:
            return str(Searcher.FINISHED)
        if not self._room.for_another(len(self.packs)):
            return None
        pack = self._queue.take()
        if pack is None:
            return None
        self.left -= 1
        self.packs[trial_id] = pack
        return self._shelf.order(pack)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        # After an error the callback follows, which knows it.
        if not error:
            self.book(trial_id, result or {}, None)

    def book(self, trial_id: str, result: Mapping[str, Any], death: Exception | None) -> None:
        """A pack has ended, with its last result or with the death of its worker."""
        pack = self.packs.pop(trial_id, None)
        if pack is None:
            return
        try:
            self._book(pack, result, death)
        except KdRayError as problem:
            self.error = problem

    def _book(self, pack: Pack, result: Mapping[str, Any], death: Exception | None) -> None:
        crashed = death is not None or "cause" in result
        cause = _cause_of(death, result.get("node_ip")) if death else str(result.get("cause"))
        states: dict[str, ledger.TrialStatus] = {}
        if result.get("done") and not crashed:
            committed, failed = _progress(result).committed, _progress(result).failed
        else:
            # The worker died, or was told to stop: what it achieved stands in the store.
            states = ledger.scan_few(self._job.store, [trial.trial_id for trial in pack.trials])
            committed = tuple(trial_id for trial_id, status in states.items() if status.state is TrialState.COMPLETE)
            failed = tuple(trial_id for trial_id, status in states.items() if status.state is TrialState.FAILED)
        self._store_errors = self._store_errors + 1 if result.get("store") else 0
        if self._store_errors > self._job.placement.max_retries:
            # The client has tried for minutes each time: nothing is wrong with the trials, and nothing can be done here.
            raise StoreError(f"{cause.removeprefix('StoreError: ')} ({self._store_errors} packs in a row)")
        at_fault = not (result.get("store") or (death and _died_with_its_node(death, result.get("node_ip"))))
        self._queue.end(pack, committed=committed, failed=failed, crashed=crashed, at_fault=at_fault)
        if crashed:
            self._observer.warn(f"{cause}; what is left of pack {pack.pack_id} goes on from its checkpoints")
        for trial in pack.trials:
            if trial.trial_id in self._queue.given_up and not self._is_held_elsewhere(states.get(trial.trial_id)):
                failed = (*failed, trial.trial_id)
                ledger.write_error(
                    self._job.store,
                    trial.trial_id,
                    cause=f"{cause} ({pack.retries + 1} times)",
                    traceback=str(result.get("traceback", death or "")),
                    host="unknown",
                    launch_id=self._job.launch_id,
                )
        self._observer.ended(pack, len(committed), len(failed))

    def _is_held_elsewhere(self, status: "ledger.TrialStatus | None") -> bool:
        """Whether another launch is at work on a trial."""
        return bool(status and status.lease and status.lease.launch_id != self._job.launch_id)

    def save(self, checkpoint_path: str) -> None:
        """Nothing to keep: the store is the ledger."""

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Nothing to keep: the store is the ledger."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing was kept: the store is the ledger."""


def _forget_metrics(trial: Any) -> None:
    """Drop Tune's running statistics of a pack that has ended: tens of kilobytes each, kept to the end of the sweep, read by nobody."""
    trial.metric_analysis.clear()
    trial.metric_n_steps.clear()


class _EndedError(RayActorError):
    """The worker was ended by Ray itself."""

    def __init__(self, why: str = "", *, for_memory: bool = False) -> None:
        super().__init__()
        self.why = why
        self.for_memory = for_memory

    def __str__(self) -> str:
        return self.why

    def __reduce__(self) -> tuple[object, ...]:
        return (_EndedError, (self.why,), {"for_memory": self.for_memory})


def _count_as_death(manager_class: type[RayActorManager]) -> None:
    """Let Tune take every error of Ray for the death of one actor.

    It knows two kinds and ends the experiment with a RuntimeError at any other, such as that of a worker which Ray's memory monitor ended
    (seen with Ray 2.60).
    """
    known = manager_class._actor_task_failed

    def _actor_task_failed(self: RayActorManager, tracked_actor_task: Any, exception: Exception) -> None:
        if isinstance(exception, RayError) and not isinstance(exception, RayActorError | RayTaskError):
            exception = _EndedError(str(exception), for_memory=isinstance(exception, OutOfMemoryError))
        known(self, tracked_actor_task, exception)

    manager_class._actor_task_failed = _actor_task_failed  # type: ignore[method-assign]


_count_as_death(RayActorManager)


def _death_of(trial: Any) -> Exception:
    """What Ray says of the death of a pack's worker. Tune has written it beside the pack's results and not yet copied it to where
    `get_pickled_error` looks for it.
    """
    path = trial.pickled_error_file
    if path is None or not Path(path).exists():
        return RuntimeError("Ray does not say why")
    death: Exception = ray.cloudpickle.loads(Path(path).read_bytes())
    return death


def _cause_of(death: Exception, node_ip: str | None) -> str:
    if isinstance(death, _EndedError) and death.for_memory:
        return "WorkerDied: Ray ended its worker process, because the node was running out of memory"
    if _died_with_its_node(death, node_ip):
        return f"NodeDied: the node {node_ip or ''} of its worker died, or could not be reached"
    return "WorkerDied: its worker process died (killed, or out of memory)"


def _died_with_its_node(death: Exception, node_ip: str | None) -> bool:
    """Whether the worker died because its node did: Ray says so, or has lost the node by now."""
    alive = {node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}  # type: ignore[no-untyped-call]
    return "node has died" in str(death) or (node_ip is not None and node_ip not in alive)


class _InTurn(_NotKept, FIFOScheduler):
    """Packs start in the order in which they are handed out."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def choose_trial_to_run(self, tune_controller: Any) -> None:
        """Nothing out of turn: a free actor goes to the newest pack, and one that waits for its own actor keeps it (see `_Room`)."""


class _StopOnInterrupt(_NotKept, tune.Stopper):
    """Ends the experiment when the user asks to stop, or the driver cannot go on."""

    def __init__(self, handout: _Handout, interrupts: Interrupts) -> None:
        self._handout = handout
        self._interrupts = interrupts

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return self.stop_all()

    def stop_all(self) -> bool:
        return self._interrupts.requested() or self._handout.error is not None


class _Relay(_NotKept, tune.Callback):
    """Passes what happens on to the observer."""

    def __init__(self, handout: _Handout, observer: Observer) -> None:
        self._handout = handout
        self._observer = observer

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        if pack := self._handout.packs.get(trial.trial_id):
            self._observer.started(pack)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        _forget_metrics(trial)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._handout.book(trial.trial_id, trial.last_result or {}, _death_of(trial))
        _forget_metrics(trial)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        self._observer.progressed(_progress(result))
