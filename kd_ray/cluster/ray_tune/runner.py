"""Connects to a Ray cluster or starts one, and runs a queue of packs on it."""

import logging
import os
import shutil
import socket
import tempfile
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import ray
from ray import tune

from kd_ray import telemetry
from kd_ray.cluster.queue import PackQueue
from kd_ray.cluster.ray_tune.handout import (
    Handout,
    InTurn,
    Relay,
    Room,
    StopOnInterrupt,
    nodes,
    packs_on,
    request_of,
    slots,
)
from kd_ray.cluster.ray_tune.metrics import RayMetrics
from kd_ray.cluster.ray_tune.worker import PackTrainable, Shelf
from kd_ray.cluster.runner import Interrupts, Job, Observer, WorkerFactory, cpu_count, probe_students, training_worker
from kd_ray.errors import InvalidInputError
from kd_ray.results import ledger
from kd_ray.results.probe import Probe
from kd_ray.sweep.placement import Placement
from kd_ray.sweep.spec import TrialSpec

_FOLDER = "kd_ray_tune_"
_HEAD_EVERY_S = 5.0
_HEAD_MISSES = 3
_PACKS_PER_EXPERIMENT = 1000
_ROUNDS_PER_EXPERIMENT = 50
"""Between two experiments every slot waits for the last pack of the first: one round in so many, at most."""
_PROBE_S = 5.0


@dataclass(frozen=True, kw_only=True)
class RayRunner:
    """Ray Tune, on this machine or on a cluster."""

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
            telemetry.measure_into(RayMetrics())
        except BaseException:
            ray.shutdown()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        telemetry.measure_into(None)
        ray.shutdown()

    def slots(self) -> int:
        """Packs that fit on the nodes of the cluster."""
        return slots(self.placement)

    def probe(self, spec: TrialSpec, placement: Placement) -> Probe:
        """See `Runner`; on any node that could run a pack."""
        most = max(packs_on(node, placement) for node in nodes())
        request = request_of(placement)
        measure = ray.remote(
            num_cpus=request.pop("CPU"),
            num_gpus=request.pop("GPU", 0),
            memory=request.pop("memory", 0),
            resources=request,
        )(probe_students)
        try:
            return ray.get(measure.remote(spec, placement, most))
        except ray.exceptions.RayTaskError as error:
            raise error.as_instanceof_cause() from error  # type: ignore[no-untyped-call]

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
                limit = max(_PACKS_PER_EXPERIMENT, _ROUNDS_PER_EXPERIMENT * slots(self.placement))
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
        shelf = Shelf([trial for pack in queue.waiting for trial in pack.trials])
        trainable = tune.with_resources(
            tune.with_parameters(PackTrainable, job=job, shelf=shelf, worker=self.worker),
            lambda order: tune.PlacementGroupFactory([request_of(job.placement.of(is_teacher=order["is_teacher"]))]),
        )
        handout = Handout(
            queue, job, observer, interrupts, shelf, limit, Room(self.placement, grows=bool(self.address))
        )
        tuner = tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=handout,
                scheduler=InTurn(),
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
                stop=StopOnInterrupt(handout, interrupts),
                callbacks=[Relay(handout, observer)],
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


def _check_capacity(placement: Placement) -> None:
    """Refuse what can never be placed on one node."""
    for where, is_teacher in (("placement", False), ("placement.teacher", True)):
        asked = placement.of(is_teacher=is_teacher)
        if not slots(asked):
            request = request_of(asked)
            have = "; ".join(_in_words(node, request) for node in nodes()) or "none"
            raise InvalidInputError(
                f"{where}: a pack asks for {_in_words(request, request)}, which no node has; nodes: {have}"
            )


def _in_words(resources: Mapping[str, float], names: Iterable[str]) -> str:
    """`2 CPUs, 0 GPUs, 1.5 GB of memory, 4 a100`, of these names."""
    units = {"CPU": "CPUs", "GPU": "GPUs"}
    texts = []
    for name in dict.fromkeys(("CPU", "GPU", *names)):
        amount = resources.get(name, 0)
        texts.append(f"{amount / 1e9:.3g} GB of memory" if name == "memory" else f"{amount:g} {units.get(name, name)}")
    return ", ".join(texts)
